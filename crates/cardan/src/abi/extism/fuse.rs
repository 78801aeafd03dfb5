//! Makes the kernel part of the guest.
//!
//! An Extism guest moves every eight bytes by a call into the kernel module. Rewritten at load time to
//! carry the kernel's memory and functions itself, the guest has plain loads and stores instead, an
//! instance is one module without imports between modules, and the whole plugin can be linked once.
//! `docs/adr/0002-extism-kernel.md` has the reasons and the numbers.
//!
//! Two more things are done in the same pass, both only where nobody can tell:
//!
//! - The start function becomes an export, so that it runs when the host says so, with the host's
//!   functions ready and a deadline set.
//! - `memory.grow` takes its first pages from a reserve that the memory already has. A grow in a fresh
//!   instance costs two system calls, more than the rest of a small call.
//!
//! And where memories and numbers in globals are all that a call can change, the host is given names for
//! them, so that it can put an instance back to its beginning (`rewind.rs`).

mod state;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::LazyLock;

use wasm_encoder::reencode::{self, Reencode};
use wasm_encoder::{
    BlockType, CodeSection, ConstExpr, CustomSection, DataCountSection, DataSection, ElementSection,
    ExportKind, ExportSection, Function, FunctionSection, GlobalSection, GlobalType, ImportSection,
    Instruction, MemArg, MemorySection, Module, TableSection, TagSection, TypeSection, ValType,
};
use wasmparser::{ExternalKind, FuncType, FunctionBody, KnownCustom, Operator, Parser, Payload, TypeRef};

/// Bump when the output changes for the same input: it is part of the compile cache's key.
pub(super) const VERSION: u32 = 7;

/// The import module the kernel stands in for.
pub(super) const ENV: &str = "extism:host/env";

/// Prefix of the names under which the host finds the kernel in a fused module.
pub(super) const RESERVED: &str = "cardan:";
pub(super) const START: &str = "cardan:guest/start";
/// The global that counts the pages a guest with a reserve believes to have.
pub(super) const RESERVE: &str = "cardan:rewound/reserve";

/// First address that guests may load from and store to; see `kernel.wat`.
const VISIBLE: i64 = 512;
const INPUT_OFFSET: i32 = 24;
const INPUT_LENGTH: i32 = 32;

/// The kernel as a binary module.
#[expect(clippy::expect_used, reason = "the text is part of this crate and parsed by its tests")]
pub(super) static KERNEL: LazyLock<Vec<u8>> =
    LazyLock::new(|| wat::parse_str(include_str!("kernel.wat")).expect("kernel.wat is valid"));

/// The kernel's exported functions, in the order of the kernel's function index space.
#[expect(clippy::expect_used, reason = "the text is part of this crate and parsed by its tests")]
static KERNEL_EXPORTS: LazyLock<HashMap<String, u32>> = LazyLock::new(|| {
    let mut exports = HashMap::new();
    for payload in Parser::new(0).parse_all(&KERNEL) {
        if let Payload::ExportSection(section) = payload.expect("kernel.wat is valid") {
            for export in section {
                let export = export.expect("kernel.wat is valid");
                if export.kind == ExternalKind::Func {
                    exports.insert(export.name.to_owned(), export.index);
                }
            }
        }
    }
    exports
});

/// Whether the kernel implements the import `name`.
pub(super) fn is_kernel_function(name: &str) -> bool {
    !["begin", "retire"].contains(&name) && KERNEL_EXPORTS.contains_key(name)
}

/// Why a module is linked beside a kernel instead of being fused with one. Not an error.
#[derive(Debug)]
pub(super) struct Unfusable(pub(super) String);

impl From<wasmparser::BinaryReaderError> for Unfusable {
    fn from(error: wasmparser::BinaryReaderError) -> Self {
        Self(error.to_string())
    }
}

impl From<reencode::Error> for Unfusable {
    fn from(error: reencode::Error) -> Self {
        Self(error.to_string())
    }
}

/// What the rewriter has to know beside the guest.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan<'a> {
    /// Kernel functions that the embedder replaced by functions of its own.
    pub(super) shadowed: &'a [String],
    /// Pages that `memory.grow` may take without asking the engine. 0 where growth is accounted for
    /// page by page.
    pub(super) reserve_pages: u32,
    /// Pages of the kernel's memory at first.
    pub(super) kernel_pages: u32,
}

/// Rewrites a core module. Only a valid one: what one that is not means by an index beyond its own, would be the kernel's.
pub(super) fn fuse(guest: &[u8], plan: Plan<'_>) -> Result<Vec<u8>, Unfusable> {
    crate::module::validate(guest)?;
    let shape = Shape::read(guest, plan)?;
    let mut out = Sections::default();
    Guest { shape: &shape, start: None }.copy(guest, &mut out)?;
    out.copy_kernel(&shape, plan)?;
    if let Some(reserve) = &shape.reserve {
        out.globals.global(
            GlobalType { val_type: ValType::I32, mutable: true, shared: false },
            &ConstExpr::i32_const(reserve.initial.cast_signed()),
        );
        out.functions.function(shape.grow_type());
        out.codes.function(&reserve.grow_function());
    }
    if let Some(globals) = state::rewound(guest) {
        out.name_state(&shape, &globals);
    }
    Ok(out.finish())
}

/// Where everything of the guest and the kernel ends up.
struct Shape {
    /// New index of each imported function of the guest.
    imported: Vec<u32>,
    /// Imports that stay, that is, new index of the first function the guest defines.
    kept: u32,
    /// New index of the kernel's first function, type, and memory.
    kernel_function: u32,
    kernel_type: u32,
    kernel_memory: u32,
    /// The guest's types, those of functions at least, and the type of each function it defines.
    types: Vec<Option<FuncType>>,
    defined: Vec<u32>,
    kernel_types: u32,
    reserve: Option<Reserve>,
}

/// The reserve of pages behind the guest's own memory.
struct Reserve {
    /// Pages the guest believes to have at first.
    initial: u32,
    /// Pages it has in truth.
    actual: u32,
    /// Pages it declared it would never exceed.
    declared_max: u64,
    /// The global that counts the pages the guest believes to have.
    global: u32,
    /// The function that grows the memory.
    function: u32,
}

/// What [`Shape::read`] counts on its way through a module.
#[derive(Default)]
struct Census {
    imports: Vec<FunctionImport>,
    imported_globals: u32,
    globals: u32,
    imported_memories: u32,
    memories: Vec<wasmparser::MemoryType>,
    types: Vec<Option<FuncType>>,
    defined: Vec<u32>,
}

struct FunctionImport {
    module: String,
    name: String,
    ty: u32,
}

impl Census {
    fn take(module: &[u8]) -> Result<Self, Unfusable> {
        let mut census = Self::default();
        for payload in Parser::new(0).parse_all(module) {
            match payload? {
                Payload::TypeSection(section) => {
                    for group in section {
                        for ty in group?.types() {
                            census.types.push(match &ty.composite_type.inner {
                                wasmparser::CompositeInnerType::Func(ty) => Some(ty.clone()),
                                _ => None,
                            });
                        }
                    }
                }
                Payload::ImportSection(section) => {
                    for import in section.into_imports() {
                        census.import(import?)?;
                    }
                }
                Payload::FunctionSection(section) => {
                    census.defined = section.into_iter().collect::<Result<_, _>>()?;
                }
                Payload::MemorySection(section) => {
                    census.memories = section.into_iter().collect::<Result<_, _>>()?;
                }
                Payload::GlobalSection(section) => census.globals = section.count(),
                Payload::ExportSection(section) => {
                    for export in section {
                        let name = export?.name;
                        if name.starts_with(RESERVED) {
                            return Err(Unfusable(format!("it exports the reserved name {name}")));
                        }
                    }
                }
                _ => {}
            }
        }
        Ok(census)
    }

    fn import(&mut self, import: wasmparser::Import<'_>) -> Result<(), Unfusable> {
        match import.ty {
            TypeRef::Func(ty) | TypeRef::FuncExact(ty) => self.imports.push(FunctionImport {
                module: import.module.to_owned(),
                name: import.name.to_owned(),
                ty,
            }),
            TypeRef::Global(_) => self.imported_globals += 1,
            TypeRef::Memory(_) => self.imported_memories += 1,
            TypeRef::Table(_) | TypeRef::Tag(_) => {}
        }
        Ok(())
    }
}

impl Shape {
    fn read(module: &[u8], plan: Plan<'_>) -> Result<Self, Unfusable> {
        let guest = Census::take(module)?;
        let kernel = Census::take(&KERNEL)?;
        let count = |n: usize| u32::try_from(n).map_err(|_| Unfusable("it is too large".to_owned()));

        let replaced = |import: &FunctionImport| {
            import.module == ENV && is_kernel_function(&import.name) && !plan.shadowed.contains(&import.name)
        };
        for import in guest.imports.iter().filter(|import| replaced(import)) {
            // The linker knows best how to say what does not match.
            let function = KERNEL_EXPORTS[&import.name] as usize;
            let ours = kernel.defined.get(function).and_then(|&ty| kernel.types.get(ty as usize)?.as_ref());
            let theirs = guest.types.get(import.ty as usize).and_then(Option::as_ref);
            if ours != theirs {
                return Err(Unfusable(format!("it imports {} with another type", import.name)));
            }
        }
        let kept = count(guest.imports.iter().filter(|import| !replaced(import)).count())?;
        let kernel_function = kept + count(guest.defined.len())?;
        let mut next = 0;
        let imported = guest
            .imports
            .iter()
            .map(|import| {
                if replaced(import) {
                    kernel_function + KERNEL_EXPORTS[&import.name]
                } else {
                    next += 1;
                    next - 1
                }
            })
            .collect();

        let kernel_functions = count(kernel.defined.len())?;
        let global = guest.imported_globals + guest.globals;
        let reserve = Reserve::plan(&guest, plan.reserve_pages, global, kernel_function + kernel_functions);
        Ok(Self {
            imported,
            kept,
            kernel_function,
            kernel_type: count(guest.types.len())?,
            kernel_memory: guest.imported_memories + count(guest.memories.len())?,
            kernel_types: count(kernel.types.len())?,
            types: guest.types,
            defined: guest.defined,
            reserve,
        })
    }

    fn function(&self, index: u32) -> u32 {
        let imports = u32::try_from(self.imported.len()).unwrap_or(u32::MAX);
        match self.imported.get(index as usize) {
            Some(&new) => new,
            None => index - imports + self.kept,
        }
    }

    /// The type that `grow_function` has: it is added after the kernel's types.
    fn grow_type(&self) -> u32 {
        self.kernel_type + self.kernel_types
    }
}

impl Reserve {
    /// Only a guest with exactly one plain memory of its own gets a reserve.
    fn plan(guest: &Census, pages: u32, global: u32, function: u32) -> Option<Self> {
        let [memory] = guest.memories[..] else { return None };
        let plain = !memory.memory64 && !memory.shared && memory.page_size_log2.is_none();
        if pages == 0 || guest.imported_memories > 0 || !plain {
            return None;
        }
        let initial = u32::try_from(memory.initial).ok()?;
        let declared_max = memory.maximum.unwrap_or(1 << 16).min(1 << 16);
        let actual = u32::try_from(u64::from(initial.saturating_add(pages)).min(declared_max)).ok()?;
        (actual > initial).then_some(Self { initial, actual, declared_max, global, function })
    }

    /// `memory.grow` as the guest sees it: from the reserve while it lasts, then for real.
    fn grow_function(&self) -> Function {
        const DELTA: u32 = 0;
        const WANTED: u32 = 1;
        let mut function = Function::new([(1, ValType::I64)]);
        let actual = |function: &mut Function| {
            function.instruction(&Instruction::MemorySize(0)).instruction(&Instruction::I64ExtendI32U);
        };
        function
            .instruction(&Instruction::GlobalGet(self.global))
            .instruction(&Instruction::I64ExtendI32U)
            .instruction(&Instruction::LocalGet(DELTA))
            .instruction(&Instruction::I64ExtendI32U)
            .instruction(&Instruction::I64Add)
            .instruction(&Instruction::LocalTee(WANTED))
            .instruction(&Instruction::I64Const(self.declared_max.cast_signed()))
            .instruction(&Instruction::I64GtU)
            .instruction(&Instruction::If(BlockType::Empty))
            .instruction(&Instruction::I32Const(-1))
            .instruction(&Instruction::Return)
            .instruction(&Instruction::End)
            .instruction(&Instruction::LocalGet(WANTED));
        actual(&mut function);
        function
            .instruction(&Instruction::I64GtU)
            .instruction(&Instruction::If(BlockType::Empty))
            .instruction(&Instruction::LocalGet(WANTED));
        actual(&mut function);
        function
            .instruction(&Instruction::I64Sub)
            .instruction(&Instruction::I32WrapI64)
            .instruction(&Instruction::MemoryGrow(0))
            .instruction(&Instruction::I32Const(-1))
            .instruction(&Instruction::I32Eq)
            .instruction(&Instruction::If(BlockType::Empty))
            .instruction(&Instruction::I32Const(-1))
            .instruction(&Instruction::Return)
            .instruction(&Instruction::End)
            .instruction(&Instruction::End)
            .instruction(&Instruction::GlobalGet(self.global))
            .instruction(&Instruction::LocalGet(WANTED))
            .instruction(&Instruction::I32WrapI64)
            .instruction(&Instruction::GlobalSet(self.global))
            .instruction(&Instruction::End);
        function
    }
}

/// The fused module under construction, section by section.
#[derive(Default)]
struct Sections {
    types: TypeSection,
    imports: ImportSection,
    functions: FunctionSection,
    tables: TableSection,
    memories: MemorySection,
    tags: TagSection,
    globals: GlobalSection,
    exports: ExportSection,
    elements: ElementSection,
    data_count: Option<u32>,
    codes: CodeSection,
    data: DataSection,
    names: Option<wasm_encoder::NameSection>,
}

impl Sections {
    fn copy_kernel(&mut self, shape: &Shape, plan: Plan<'_>) -> Result<(), Unfusable> {
        let mut kernel = Kernel { shape, pages: plan.kernel_pages };
        for payload in Parser::new(0).parse_all(&KERNEL) {
            match payload? {
                Payload::TypeSection(section) => kernel.parse_type_section(&mut self.types, section)?,
                Payload::FunctionSection(section) => {
                    kernel.parse_function_section(&mut self.functions, section)?;
                }
                Payload::MemorySection(section) => {
                    kernel.parse_memory_section(&mut self.memories, section)?;
                }
                Payload::ExportSection(section) => {
                    for export in section {
                        let export = export?;
                        let (kind, index) = match export.kind {
                            ExternalKind::Memory => (ExportKind::Memory, shape.kernel_memory),
                            // The guest calls it by index, and every name costs memory in every plugin.
                            _ if is_kernel_function(export.name) => continue,
                            _ => (ExportKind::Func, kernel.function_index(export.index)?),
                        };
                        self.exports.export(&reserved(export.name), kind, index);
                    }
                }
                Payload::CodeSectionEntry(body) => kernel.parse_function_body(&mut self.codes, body)?,
                _ => {}
            }
        }
        if shape.reserve.is_some() {
            self.types.ty().function([ValType::I32], [ValType::I32]);
        }
        Ok(())
    }

    /// Exports what calls can change: all memories, and these globals of the guest.
    fn name_state(&mut self, shape: &Shape, globals: &[u32]) {
        // Memories of its own and the kernel's, which is the last.
        for memory in 0..=shape.kernel_memory {
            self.exports.export(&rewound_memory(memory as usize), ExportKind::Memory, memory);
        }
        let reserve = shape.reserve.as_ref().map(|reserve| reserve.global);
        if let Some(global) = reserve {
            self.exports.export(RESERVE, ExportKind::Global, global);
        }
        for (index, global) in globals.iter().copied().chain(reserve).enumerate() {
            self.exports.export(&rewound_global(index), ExportKind::Global, global);
        }
    }

    fn finish(self) -> Vec<u8> {
        let mut module = Module::new();
        module.section(&self.types).section(&self.imports).section(&self.functions);
        if !self.tables.is_empty() {
            module.section(&self.tables);
        }
        module.section(&self.memories);
        if !self.tags.is_empty() {
            module.section(&self.tags);
        }
        module.section(&self.globals).section(&self.exports).section(&self.elements);
        if let Some(count) = self.data_count {
            module.section(&DataCountSection { count });
        }
        module.section(&self.codes).section(&self.data);
        if let Some(names) = &self.names {
            module.section(names);
        }
        module.section(&CustomSection { name: "cardan.fused".into(), data: (&[] as &[u8]).into() });
        module.finish()
    }
}

/// The name under which a fused module exports something of the kernel.
pub(super) fn reserved(name: &str) -> String {
    format!("{RESERVED}kernel/{name}")
}

/// The name of the memory `index` of a fused module whose instances can be put back to their beginning.
pub(super) fn rewound_memory(index: usize) -> String {
    format!("{RESERVED}rewound/memory/{index}")
}

/// The name of one of the mutable globals of such a module.
pub(super) fn rewound_global(index: usize) -> String {
    format!("{RESERVED}rewound/global/{index}")
}

/// Copies the kernel, its indices moved behind the guest's.
struct Kernel<'a> {
    shape: &'a Shape,
    pages: u32,
}

impl Reencode for Kernel<'_> {
    type Error = std::convert::Infallible;

    fn function_index(&mut self, index: u32) -> Result<u32, reencode::Error> {
        Ok(self.shape.kernel_function + index)
    }

    fn type_index(&mut self, index: u32) -> Result<u32, reencode::Error> {
        Ok(self.shape.kernel_type + index)
    }

    fn memory_index(&mut self, _index: u32) -> Result<u32, reencode::Error> {
        Ok(self.shape.kernel_memory)
    }

    fn memory_type(
        &mut self,
        memory: wasmparser::MemoryType,
    ) -> Result<wasm_encoder::MemoryType, reencode::Error> {
        let mut memory = reencode::utils::memory_type(self, memory);
        memory.minimum = u64::from(self.pages);
        Ok(memory)
    }
}

/// Copies the guest, calls into the kernel replaced.
struct Guest<'a> {
    shape: &'a Shape,
    start: Option<u32>,
}

impl Reencode for Guest<'_> {
    type Error = std::convert::Infallible;

    fn function_index(&mut self, index: u32) -> Result<u32, reencode::Error> {
        Ok(self.shape.function(index))
    }

    fn memory_type(
        &mut self,
        memory: wasmparser::MemoryType,
    ) -> Result<wasm_encoder::MemoryType, reencode::Error> {
        let mut memory = reencode::utils::memory_type(self, memory);
        if let Some(reserve) = &self.shape.reserve {
            memory.minimum = u64::from(reserve.actual);
        }
        Ok(memory)
    }
}

impl Guest<'_> {
    fn copy(mut self, module: &[u8], out: &mut Sections) -> Result<(), Unfusable> {
        let mut bodies = 0;
        for payload in Parser::new(0).parse_all(module) {
            match payload? {
                Payload::TypeSection(section) => self.parse_type_section(&mut out.types, section)?,
                Payload::ImportSection(section) => self.copy_imports(section, out)?,
                Payload::FunctionSection(section) => {
                    self.parse_function_section(&mut out.functions, section)?;
                }
                Payload::TableSection(section) => self.parse_table_section(&mut out.tables, section)?,
                Payload::MemorySection(section) => self.parse_memory_section(&mut out.memories, section)?,
                Payload::TagSection(section) => self.parse_tag_section(&mut out.tags, section)?,
                Payload::GlobalSection(section) => self.parse_global_section(&mut out.globals, section)?,
                Payload::ExportSection(section) => self.parse_export_section(&mut out.exports, section)?,
                Payload::StartSection { func, .. } => self.start = Some(self.shape.function(func)),
                Payload::ElementSection(section) => {
                    self.parse_element_section(&mut out.elements, section)?;
                }
                Payload::DataCountSection { count, .. } => out.data_count = Some(count),
                Payload::DataSection(section) => self.parse_data_section(&mut out.data, section)?,
                Payload::CodeSectionEntry(body) => {
                    self.copy_body(&body, bodies, &mut out.codes)?;
                    bodies += 1;
                }
                Payload::CustomSection(section) => {
                    // Debug names serve backtraces; without them nothing is lost but names.
                    if let KnownCustom::Name(names) = section.as_known() {
                        out.names = self.custom_name_section(names).ok();
                    }
                }
                _ => {}
            }
        }
        if let Some(start) = self.start {
            out.exports.export(START, ExportKind::Func, start);
        }
        Ok(())
    }

    fn copy_imports(
        &mut self,
        section: wasmparser::ImportSectionReader<'_>,
        out: &mut Sections,
    ) -> Result<(), Unfusable> {
        let mut functions = 0;
        for import in section.into_imports() {
            let import = import?;
            if matches!(import.ty, TypeRef::Func(_) | TypeRef::FuncExact(_)) {
                let new = self.shape.imported[functions];
                functions += 1;
                if new >= self.shape.kernel_function {
                    continue;
                }
            }
            self.parse_import(&mut out.imports, import)?;
        }
        Ok(())
    }

    fn copy_body(
        &mut self,
        body: &FunctionBody<'_>,
        index: usize,
        out: &mut CodeSection,
    ) -> Result<(), Unfusable> {
        let mut locals = Vec::new();
        let ty = self.shape.defined.get(index).copied().unwrap_or_default();
        let ty = self.shape.types.get(ty as usize).and_then(Option::as_ref);
        let mut count = ty.map_or(0, |ty| u32::try_from(ty.params().len()).unwrap_or(u32::MAX));
        for pair in body.get_locals_reader()? {
            let (n, ty) = pair?;
            count = count.saturating_add(n);
            locals.push((n, self.val_type(ty)?));
        }
        // More locals than there may be are for the validator to refuse.
        let count = count.min(u32::MAX - 2);
        let scratch = Scratch { address: count, word: count + 1, byte: count + 2 };
        if self.uses_kernel(body)? {
            locals.extend([(2, ValType::I64), (1, ValType::I32)]);
        }
        let mut function = Function::new(locals);
        let mut reader = body.get_operators_reader()?;
        while !reader.eof() {
            let operator = reader.read()?;
            if let Some(access) = self.access(&operator) {
                access.emit(&mut function, &scratch, self.shape.kernel_memory);
                continue;
            }
            match (&operator, &self.shape.reserve) {
                (Operator::MemorySize { mem: 0 }, Some(reserve)) => {
                    function.instruction(&Instruction::GlobalGet(reserve.global));
                }
                (Operator::MemoryGrow { mem: 0 }, Some(reserve)) => {
                    function.instruction(&Instruction::Call(reserve.function));
                }
                _ => {
                    function.instruction(&self.instruction(operator)?);
                }
            }
        }
        out.function(&function);
        Ok(())
    }

    fn uses_kernel(&self, body: &FunctionBody<'_>) -> Result<bool, Unfusable> {
        for operator in body.get_operators_reader()? {
            if self.access(&operator?).is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The memory access that a call stands for, if it is one of the six that guests copy with.
    fn access(&self, operator: &Operator<'_>) -> Option<Access> {
        let Operator::Call { function_index } = operator else { return None };
        let new = *self.shape.imported.get(*function_index as usize)?;
        let kernel = new.checked_sub(self.shape.kernel_function)?;
        let is = |name: &str| KERNEL_EXPORTS.get(name) == Some(&kernel);
        [
            ("load_u8", Access::LoadByte),
            ("load_u64", Access::LoadWord),
            ("store_u8", Access::StoreByte),
            ("store_u64", Access::StoreWord),
            ("input_load_u8", Access::InputByte),
            ("input_load_u64", Access::InputWord),
        ]
        .into_iter()
        .find_map(|(name, access)| is(name).then_some(access))
    }
}

/// Locals that `copy_body` adds to a function whose kernel calls it replaces.
struct Scratch {
    address: u32,
    word: u32,
    byte: u32,
}

/// A kernel function that is replaced by instructions in place. The rules are those of `kernel.wat`:
/// a load outside the visible memory is 0, a store outside is nothing.
#[derive(Clone, Copy)]
enum Access {
    LoadByte,
    LoadWord,
    StoreByte,
    StoreWord,
    InputByte,
    InputWord,
}

impl Access {
    fn emit(self, f: &mut Function, scratch: &Scratch, memory: u32) {
        let arg = MemArg { offset: 0, align: 0, memory_index: memory };
        match self {
            Self::LoadByte => {
                f.instruction(&Instruction::LocalTee(scratch.address));
                check_visible(f, 1, memory);
                load(f, scratch.address, BlockType::Result(ValType::I32), &Instruction::I32Load8U(arg));
            }
            Self::LoadWord => {
                f.instruction(&Instruction::LocalTee(scratch.address));
                check_visible(f, 8, memory);
                load(f, scratch.address, BlockType::Result(ValType::I64), &Instruction::I64Load(arg));
            }
            Self::StoreByte => {
                f.instruction(&Instruction::LocalSet(scratch.byte));
                f.instruction(&Instruction::LocalTee(scratch.address));
                check_visible(f, 1, memory);
                store(f, scratch.address, scratch.byte, &Instruction::I32Store8(arg));
            }
            Self::StoreWord => {
                f.instruction(&Instruction::LocalSet(scratch.word));
                f.instruction(&Instruction::LocalTee(scratch.address));
                check_visible(f, 8, memory);
                store(f, scratch.address, scratch.word, &Instruction::I64Store(arg));
            }
            Self::InputByte => {
                f.instruction(&Instruction::LocalTee(scratch.address));
                root(f, INPUT_LENGTH, memory);
                f.instruction(&Instruction::I64LtU);
                input_address(f, scratch, memory);
                load(f, scratch.address, BlockType::Result(ValType::I32), &Instruction::I32Load8U(arg));
            }
            Self::InputWord => {
                f.instruction(&Instruction::LocalTee(scratch.address));
                root(f, INPUT_LENGTH, memory);
                f.instruction(&Instruction::I64LtU);
                f.instruction(&Instruction::LocalGet(scratch.address));
                f.instruction(&Instruction::I64Const(8));
                f.instruction(&Instruction::I64Add);
                root(f, INPUT_LENGTH, memory);
                f.instruction(&Instruction::I64LeU);
                f.instruction(&Instruction::I32And);
                input_address(f, scratch, memory);
                load(f, scratch.address, BlockType::Result(ValType::I64), &Instruction::I64Load(arg));
            }
        }
    }
}

/// Takes an address off the stack and leaves whether `size` bytes from there are visible:
/// `address - VISIBLE <= bytes - VISIBLE - size`, which is false for what lies below as well.
fn check_visible(f: &mut Function, size: i64, memory: u32) {
    f.instruction(&Instruction::I64Const(VISIBLE))
        .instruction(&Instruction::I64Sub)
        .instruction(&Instruction::MemorySize(memory))
        .instruction(&Instruction::I64ExtendI32U)
        .instruction(&Instruction::I64Const(16))
        .instruction(&Instruction::I64Shl)
        .instruction(&Instruction::I64Const(VISIBLE + size))
        .instruction(&Instruction::I64Sub)
        .instruction(&Instruction::I64LeU);
}

/// Leaves one of the kernel's own words on the stack.
fn root(f: &mut Function, address: i32, memory: u32) {
    f.instruction(&Instruction::I32Const(address)).instruction(&Instruction::I64Load(MemArg {
        offset: 0,
        align: 3,
        memory_index: memory,
    }));
}

/// Turns the offset in `scratch.address` into an address; does not touch the stack.
fn input_address(f: &mut Function, scratch: &Scratch, memory: u32) {
    f.instruction(&Instruction::LocalGet(scratch.address));
    root(f, INPUT_OFFSET, memory);
    f.instruction(&Instruction::I64Add).instruction(&Instruction::LocalSet(scratch.address));
}

/// Takes a condition off the stack: loads if it holds, else 0.
fn load(f: &mut Function, address: u32, result: BlockType, load: &Instruction<'_>) {
    f.instruction(&Instruction::If(result))
        .instruction(&Instruction::LocalGet(address))
        .instruction(&Instruction::I32WrapI64)
        .instruction(load)
        .instruction(&Instruction::Else)
        .instruction(&match result {
            BlockType::Result(ValType::I64) => Instruction::I64Const(0),
            _ => Instruction::I32Const(0),
        })
        .instruction(&Instruction::End);
}

/// Takes a condition off the stack: stores if it holds.
fn store(f: &mut Function, address: u32, value: u32, store: &Instruction<'_>) {
    f.instruction(&Instruction::If(BlockType::Empty))
        .instruction(&Instruction::LocalGet(address))
        .instruction(&Instruction::I32WrapI64)
        .instruction(&Instruction::LocalGet(value))
        .instruction(store)
        .instruction(&Instruction::End);
}
