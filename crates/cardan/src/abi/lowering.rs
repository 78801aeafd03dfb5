//! Makes a guest of another byte convention one that is called as Extism guests are.
//!
//! Conventions of core modules differ in how bytes cross the border, and in nothing that an instance is. So a
//! guest of one gets, when it is loaded, an entry for each of its exports: a function without parameters that
//! asks the host for the input (`host.rs`), calls the export as its convention says, and hands over the answer. Everything
//! behind that is shared: pools, deadlines, tiers, snapshots, putting instances back. And a call enters WebAssembly once, however
//! often allocators are asked on the way.
//!
//! `docs/adr/0016-lowering.md` has the reasons.

pub(super) mod host;
mod rewrite;

use std::collections::HashMap;

use wasm_encoder::{BlockType, Instruction, ValType};
use wasmparser::{CompositeInnerType, ExternalKind, FuncType, Operator, Parser, Payload, TypeRef};

use self::host::Service;
use crate::{Error, module};

/// Bump when the output changes for the same input: what was made of a module is kept on disk.
pub(super) const VERSION: u32 = 2;

/// Names under which guests offer memory, in the order in which they are looked for.
const ALLOCATORS: [&str; 4] = ["alloc", "malloc", "__new", "cabi_realloc"];
/// The name under which memory of an allocator is taken back.
const DEALLOCATORS: [(&str, &str); 2] = [("alloc", "dealloc"), ("malloc", "free")];

/// What a core module says about itself.
pub(super) struct Facts<'a> {
    bytes: &'a [u8],
    /// Index and type of each exported function.
    functions: HashMap<&'a str, (u32, FuncType)>,
    types: u32,
    imported: u32,
    defined: u32,
    globals: u32,
    /// The global that points into the shadow stack, as toolchains lay modules out.
    stack_pointer: Option<u32>,
    imports_memory: bool,
    exports_memory: bool,
    imports_services: bool,
    unusable_memory: Option<&'static str>,
    /// Which of its memories is read and written.
    memory: u32,
    /// Bytes of the memory's first size.
    memory_bytes: u64,
}

/// What the guest needs to be asked for memory.
#[derive(Clone, Copy)]
enum Allocator {
    /// `(bytes) -> pointer`.
    Bytes(u32),
    /// AssemblyScript's `(bytes, class) -> pointer`. Beside it what keeps its collector away from a place, and what
    /// ends that, where those are exported.
    Classed(u32, Option<(u32, u32)>),
    /// The canonical ABI's `(old, old bytes, alignment, bytes) -> pointer`.
    Realloc(u32),
    /// None: pages are added.
    Pages,
}

#[derive(Clone, Copy)]
enum Deallocator {
    /// `(pointer, bytes)`.
    Sized(u32),
    /// `(pointer)`.
    Plain(u32),
}

/// How an export hands over its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// `i64`: a pointer in the upper half, a length in the lower.
    Packed,
    /// `i32`: a decision, 0 to go on.
    Decision,
    /// `i32`: a pointer, read as [`ResultForm`] says.
    Pointer(ResultForm),
    /// It has none.
    Nothing,
}

/// What a capability's result is, where nothing but a pointer comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ResultForm {
    /// Text up to a NUL byte if what is there begins as JSON does, else text behind its length.
    #[default]
    Auto,
    /// Text up to a NUL byte, or to the end of the memory.
    Nul,
    /// Text behind its length, four bytes in little-endian order.
    Len32,
    /// No pointer: the number is the result.
    Int,
}

/// A function to be added.
struct Added {
    export: String,
    locals: Vec<ValType>,
    body: Vec<Instruction<'static>>,
}

/// A guest on its way to be called as Extism guests are.
pub(super) struct Lowering<'a> {
    facts: Facts<'a>,
    allocator: Allocator,
    deallocator: Option<Deallocator>,
    added: Vec<Added>,
    hidden: Vec<String>,
}

const LENGTH: u32 = 0;
const INPUT: u32 = 1;
const CODE: u32 = 2;
const PACKED: u32 = 3;
const STACK: u32 = 4;

impl<'a> Lowering<'a> {
    pub(super) fn of(module: &'a [u8]) -> Result<Self, Error> {
        let invalid = |error: wasmparser::BinaryReaderError| Error::format(error.to_string());
        // What an index means that is beyond its own, would be the host's.
        module::validate(module).map_err(invalid)?;
        let facts = Facts::read(module).map_err(invalid)?;
        if let Some(why) = facts.unusable_memory {
            return Err(Error::format(why.to_owned()));
        }
        if facts.imports_services {
            return Err(Error::format(format!(
                "it imports from {:?}, which is no import of any guest's",
                host::MODULE
            )));
        }
        let (allocator, deallocator) = (facts.allocator(), facts.deallocator());
        Ok(Self { facts, allocator, deallocator, added: Vec::new(), hidden: Vec::new() })
    }

    /// The exported functions of a type, by name.
    pub(super) fn exports(&self, params: &[ValType], results: &[ValType]) -> Vec<&'a str> {
        let mut names: Vec<&str> = self.facts.functions.keys().copied().collect();
        names.retain(|name| self.facts.is(name, params, results));
        names.sort_unstable();
        names
    }

    /// Refuses an export that has the convention's name and another type.
    pub(super) fn check(&self, export: &str, params: &[ValType], results: &[ValType]) -> Result<(), Error> {
        if !self.has(export) || self.facts.is(export, params, results) {
            return Ok(());
        }
        let names = |types: &[ValType]| vec!["i32"; types.len()].join(" ");
        Err(Error::format(format!(
            "its export {export:?} has another type than ({}) -> ({}), which its convention gives that name",
            names(params),
            names(results)
        )))
    }

    pub(super) fn has(&self, export: &str) -> bool {
        self.facts.functions.contains_key(export)
    }

    /// An entry in place of an export that takes a pointer and a length.
    pub(super) fn entry(&mut self, export: &str, answer: Answer) {
        let Some(function) = self.guest(export) else { return };
        let mut body = vec![Service::InputLength.call(&self.facts), Instruction::LocalSet(LENGTH)];
        self.allocate(&mut body);
        self.offer(&mut body, Service::TakeInput);
        body.extend([
            Instruction::LocalGet(INPUT),
            Instruction::LocalGet(LENGTH),
            Instruction::Call(function),
        ]);
        match answer {
            Answer::Packed => {
                body.extend([Instruction::LocalTee(PACKED), Service::AnswerPacked.call(&self.facts)]);
                self.free_packed(&mut body);
            }
            Answer::Decision => body.push(Service::AnswerDecision.call(&self.facts)),
            Answer::Pointer(form) => {
                body.extend([Instruction::I32Const(form as i32), Service::AnswerPointer.call(&self.facts)]);
            }
            Answer::Nothing => body.push(Service::AnswerNothing.call(&self.facts)),
        }
        self.free(&mut body);
        body.push(Instruction::I32Const(0));
        self.replace(export, body);
    }

    /// An entry in place of an export that takes `arguments` out of what the host stages for it, and returns a code.
    pub(super) fn staged_entry(&mut self, export: &str, arguments: &[i32], answer: Service) {
        let Some(function) = self.guest(export) else { return };
        let mut body = vec![Service::StageLength.call(&self.facts), Instruction::LocalSet(LENGTH)];
        self.allocate(&mut body);
        self.offer(&mut body, Service::Stage);
        for argument in arguments {
            body.extend([Instruction::I32Const(*argument), Service::Staged.call(&self.facts)]);
        }
        body.extend([Instruction::Call(function), answer.call(&self.facts)]);
        self.free(&mut body);
        body.push(Instruction::I32Const(0));
        self.replace(export, body);
    }

    /// An entry of its own, where the guest has none, for which the host has an answer.
    pub(super) fn host_entry(&mut self, export: &str, answer: Service) {
        self.replace(export, vec![answer.call(&self.facts), Instruction::I32Const(0)]);
    }

    /// Has the guest started as a reactor is: by its own initialiser, or by running a program to its end, and then by the convention's: the export
    /// `version` has to return the convention's version, and `init` is called once. What is not exported is left out.
    pub(super) fn start_as_reactor(&mut self, version: Option<&str>, init: Option<&str>) {
        const STARTS: [&str; 3] = ["__wasm_call_ctors", "_initialize", "_start"];
        let mut body = Vec::new();
        if version.is_none() && init.is_none() && !self.is_program() {
            return;
        }
        if let Some(start) = STARTS.into_iter().find(|name| self.facts.is(name, &[], &[])) {
            body.extend(self.guest(start).map(Instruction::Call));
        }
        if let Some(function) = version.and_then(|version| self.guest(version)) {
            body.extend([Instruction::Call(function), Service::CheckVersion.call(&self.facts)]);
        }
        if let Some(init) = init.filter(|init| self.facts.is(init, &[], &[])) {
            body.extend(self.guest(init).map(Instruction::Call));
        }
        for name in STARTS.into_iter().chain(version).chain(init) {
            self.hidden.push(name.to_owned());
        }
        if !body.is_empty() {
            self.added.push(Added { export: "_initialize".to_owned(), locals: Vec::new(), body });
        }
    }

    /// Whether it starts as programs do and in no other way.
    fn is_program(&self) -> bool {
        self.facts.is("_start", &[], &[]) && !self.has("_initialize")
    }

    pub(super) fn finish(self) -> Result<Vec<u8>, Error> {
        rewrite::rewrite(&self).map_err(|error| Error::format(error.to_string()))
    }

    /// The new index of an exported function.
    fn guest(&self, export: &str) -> Option<u32> {
        self.facts.functions.get(export).map(|(index, _)| self.facts.moved(*index))
    }

    fn replace(&mut self, export: &str, body: Vec<Instruction<'static>>) {
        let locals = vec![ValType::I32, ValType::I32, ValType::I32, ValType::I64, ValType::I32];
        self.hidden.push(export.to_owned());
        self.added.push(Added { export: export.to_owned(), locals, body });
    }

    /// Has the host write to the place in `INPUT`, and told where the guest's stack ends, if that is known.
    fn offer(&self, body: &mut Vec<Instruction<'static>>, service: Service) {
        body.push(Instruction::LocalGet(INPUT));
        match self.facts.stack_pointer {
            // What the allocator has moved is no stack pointer.
            Some(global) => body.extend([
                Instruction::GlobalGet(global),
                Instruction::I32Const(0),
                Instruction::GlobalGet(global),
                Instruction::LocalGet(STACK),
                Instruction::I32Eq,
                Instruction::Select,
            ]),
            None => body.push(Instruction::I32Const(0)),
        }
        body.push(service.call(&self.facts));
    }

    /// Leaves in `INPUT` where `LENGTH` bytes are the host's to write.
    fn allocate(&self, body: &mut Vec<Instruction<'static>>) {
        if let Some(global) = self.facts.stack_pointer {
            body.extend([Instruction::GlobalGet(global), Instruction::LocalSet(STACK)]);
        }
        match self.allocator {
            Allocator::Bytes(function) => {
                body.extend([Instruction::LocalGet(LENGTH), Instruction::Call(function)]);
            }
            Allocator::Classed(function, kept) => {
                body.extend([
                    Instruction::LocalGet(LENGTH),
                    Instruction::I32Const(0),
                    Instruction::Call(function),
                ]);
                body.extend(kept.map(|(pin, _)| Instruction::Call(pin)));
            }
            Allocator::Realloc(function) => body.extend([
                Instruction::I32Const(0),
                Instruction::I32Const(0),
                Instruction::I32Const(8),
                Instruction::LocalGet(LENGTH),
                Instruction::Call(function),
            ]),
            Allocator::Pages => self.allocate_pages(body),
        }
        body.push(Instruction::LocalSet(INPUT));
    }

    /// Takes pages behind the guest's memory, those of the last call if they are enough.
    fn allocate_pages(&self, body: &mut Vec<Instruction<'static>>) {
        let (place, room) = self.facts.own_globals();
        body.extend([
            Instruction::LocalGet(LENGTH),
            Instruction::GlobalGet(room),
            Instruction::I32GtU,
            Instruction::If(BlockType::Empty),
            Instruction::LocalGet(LENGTH),
            Instruction::I32Const(0xffff),
            Instruction::I32Add,
            Instruction::I32Const(16),
            Instruction::I32ShrU,
            Instruction::LocalTee(CODE),
            Instruction::MemoryGrow(self.facts.memory),
            Instruction::LocalTee(INPUT),
            Instruction::I32Const(-1),
            Instruction::I32Eq,
            Instruction::If(BlockType::Empty),
            Service::NoRoom.call(&self.facts),
            Instruction::End,
            Instruction::LocalGet(INPUT),
            Instruction::I32Const(16),
            Instruction::I32Shl,
            Instruction::GlobalSet(place),
            Instruction::LocalGet(CODE),
            Instruction::I32Const(16),
            Instruction::I32Shl,
            Instruction::GlobalSet(room),
            Instruction::End,
            Instruction::GlobalGet(place),
        ]);
    }

    fn free(&self, body: &mut Vec<Instruction<'static>>) {
        if let Allocator::Classed(_, Some((_, unpin))) = self.allocator {
            body.extend([Instruction::LocalGet(INPUT), Instruction::Call(unpin)]);
        }
        match self.deallocator {
            Some(Deallocator::Sized(function)) => body.extend([
                Instruction::LocalGet(INPUT),
                Instruction::LocalGet(LENGTH),
                Instruction::Call(function),
            ]),
            Some(Deallocator::Plain(function)) => {
                body.extend([Instruction::LocalGet(INPUT), Instruction::Call(function)]);
            }
            None => {}
        }
    }

    /// Gives back what a packed answer was in. Of no length, it is in nothing.
    fn free_packed(&self, body: &mut Vec<Instruction<'static>>) {
        let Some(deallocator) = self.deallocator else { return };
        let pointer = [
            Instruction::LocalGet(PACKED),
            Instruction::I64Const(32),
            Instruction::I64ShrU,
            Instruction::I32WrapI64,
        ];
        let length = [Instruction::LocalGet(PACKED), Instruction::I32WrapI64];
        body.extend(length.clone());
        body.extend([Instruction::I32Const(0), Instruction::I32GtS]);
        // A guest may answer where its input is, which is given back as such.
        body.extend(pointer.clone());
        body.extend([Instruction::LocalGet(INPUT), Instruction::I32Ne, Instruction::I32And]);
        body.push(Instruction::If(BlockType::Empty));
        body.extend(pointer);
        match deallocator {
            Deallocator::Sized(function) => {
                body.extend(length);
                body.push(Instruction::Call(function));
            }
            Deallocator::Plain(function) => body.push(Instruction::Call(function)),
        }
        body.push(Instruction::End);
    }
}

impl<'a> Facts<'a> {
    fn read(bytes: &'a [u8]) -> wasmparser::Result<Self> {
        let mut facts = Self {
            bytes,
            functions: HashMap::new(),
            types: 0,
            imported: 0,
            defined: 0,
            globals: 0,
            stack_pointer: None,
            imports_memory: false,
            exports_memory: false,
            imports_services: false,
            unusable_memory: None,
            memory: 0,
            memory_bytes: 0,
        };
        let mut types: Vec<Option<FuncType>> = Vec::new();
        let mut functions: Vec<u32> = Vec::new();
        let mut exported = Vec::new();
        for payload in Parser::new(0).parse_all(bytes) {
            match payload? {
                Payload::TypeSection(section) => {
                    for group in section {
                        types.extend(group?.into_types().map(|ty| match ty.composite_type.inner {
                            CompositeInnerType::Func(ty) => Some(ty),
                            _ => None,
                        }));
                    }
                }
                Payload::ImportSection(section) => {
                    for import in section.into_imports() {
                        let import = import?;
                        facts.imports_services |= import.module == host::MODULE;
                        match import.ty {
                            TypeRef::Func(ty) | TypeRef::FuncExact(ty) => functions.push(ty),
                            TypeRef::Memory(memory) => {
                                facts.imports_memory = true;
                                facts.check_memory(memory);
                                facts.memory_bytes = memory.initial << 16;
                            }
                            TypeRef::Global(_) => facts.globals += 1,
                            TypeRef::Table(_) | TypeRef::Tag(_) => {}
                        }
                    }
                    facts.imported = u32::try_from(functions.len()).unwrap_or(u32::MAX);
                }
                Payload::FunctionSection(section) => {
                    facts.defined = section.count();
                    for ty in section {
                        functions.push(ty?);
                    }
                }
                Payload::MemorySection(section) => {
                    for memory in section {
                        let memory = memory?;
                        facts.check_memory(memory);
                        if facts.memory_bytes == 0 {
                            facts.memory_bytes = memory.initial << 16;
                        }
                    }
                }
                Payload::GlobalSection(section) => facts.read_globals(section)?,
                Payload::ExportSection(section) => {
                    for export in section {
                        let export = export?;
                        match export.kind {
                            ExternalKind::Func => exported.push((export.name, export.index)),
                            ExternalKind::Memory if export.name == "memory" => {
                                (facts.exports_memory, facts.memory) = (true, export.index);
                            }
                            _ if export.name == "memory" => {
                                facts.unusable_memory = Some("its export \"memory\" is no memory");
                            }
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
        }
        for (name, index) in exported {
            let ty = functions.get(index as usize).and_then(|ty| types.get(*ty as usize)?.clone());
            facts.functions.extend(ty.map(|ty| (name, (index, ty))));
        }
        facts.types = u32::try_from(types.len()).unwrap_or(u32::MAX);
        Ok(facts)
    }

    fn check_memory(&mut self, memory: wasmparser::MemoryType) {
        if memory.memory64 {
            self.unusable_memory =
                Some("it has a memory of 64-bit addresses, for which its convention has no room");
        }
    }

    /// The first mutable `i32` that begins inside of the memory and not at its beginning: where LLVM's linker puts it.
    fn read_globals(&mut self, section: wasmparser::GlobalSectionReader<'_>) -> wasmparser::Result<()> {
        let imported = self.globals;
        self.globals += section.count();
        let Some(first) = section.into_iter().next().transpose()? else { return Ok(()) };
        let plain = first.ty.mutable && first.ty.content_type == wasmparser::ValType::I32;
        if let Some(Operator::I32Const { value }) =
            first.init_expr.get_operators_reader().into_iter().next().transpose()?
            && plain
            && value >= 1 << 10
        {
            self.stack_pointer = Some(imported);
        }
        Ok(())
    }

    fn is(&self, export: &str, params: &[ValType], results: &[ValType]) -> bool {
        let same = |ours: &[ValType], theirs: &[wasmparser::ValType]| {
            ours.len() == theirs.len()
                && ours.iter().zip(theirs).all(|(ours, theirs)| match theirs {
                    wasmparser::ValType::I32 => *ours == ValType::I32,
                    wasmparser::ValType::I64 => *ours == ValType::I64,
                    _ => false,
                })
        };
        let found = self.functions.get(export);
        found.is_some_and(|(_, ty)| same(params, ty.params()) && same(results, ty.results()))
    }

    /// Indices of functions behind the host's new imports.
    fn moved(&self, function: u32) -> u32 {
        if function < self.imported { function } else { function + Service::COUNT }
    }

    /// The two globals that say which pages are the host's.
    fn own_globals(&self) -> (u32, u32) {
        (self.globals, self.globals + 1)
    }

    fn allocator(&self) -> Allocator {
        let i32s = |count: usize| vec![ValType::I32; count];
        for name in ALLOCATORS {
            let Some((index, _)) = self.functions.get(name) else { continue };
            let index = self.moved(*index);
            match name {
                "__new" if self.is(name, &i32s(2), &i32s(1)) => {
                    let other = |name: &str, results: usize| {
                        let there = self.is(name, &i32s(1), &i32s(results));
                        there.then(|| self.moved(self.functions[name].0))
                    };
                    return Allocator::Classed(index, other("__pin", 1).zip(other("__unpin", 0)));
                }
                "cabi_realloc" if self.is(name, &i32s(4), &i32s(1)) => return Allocator::Realloc(index),
                _ if self.is(name, &i32s(1), &i32s(1)) => return Allocator::Bytes(index),
                _ => {}
            }
        }
        Allocator::Pages
    }

    /// What takes back memory of the [allocator](Self::allocator): no other may be given it.
    fn deallocator(&self) -> Option<Deallocator> {
        let is_asked = |name: &str| self.is(name, &[ValType::I32], &[ValType::I32]);
        let asked = ALLOCATORS.into_iter().find(|name| is_asked(name))?;
        DEALLOCATORS.into_iter().filter(|(allocator, _)| *allocator == asked).find_map(|(_, name)| {
            let index = self.moved(self.functions.get(name)?.0);
            if self.is(name, &[ValType::I32, ValType::I32], &[]) {
                Some(Deallocator::Sized(index))
            } else if self.is(name, &[ValType::I32], &[]) {
                Some(Deallocator::Plain(index))
            } else {
                None
            }
        })
    }
}

#[cfg(test)]
mod tests;
