//! Writes the module that a [`Lowering`] describes.

use wasm_encoder::reencode::{self, Reencode};
use wasm_encoder::{
    CodeSection, ConstExpr, DataCountSection, DataSection, ElementSection, EntityType, ExportKind,
    ExportSection, Function, FunctionSection, GlobalSection, GlobalType, ImportSection, MemorySection,
    Module, NameSection, StartSection, TableSection, TagSection, TypeSection, ValType,
};
use wasmparser::{KnownCustom, Parser, Payload, TypeRef};

use super::host::{MODULE, Service};
use super::{Facts, Lowering};

/// Its own memory, by the name that every convention knows it by.
const MEMORY: &str = "memory";

pub(super) fn rewrite(lowering: &Lowering<'_>) -> Result<Vec<u8>, reencode::Error> {
    let mut out = Sections::default();
    let mut guest = Guest { facts: &lowering.facts };
    for payload in Parser::new(0).parse_all(lowering.facts.bytes) {
        out.copy(&mut guest, payload?, lowering)?;
    }
    out.add(lowering);
    Ok(out.finish())
}

/// Copies the guest with functions moved behind the host's new imports.
struct Guest<'a> {
    facts: &'a Facts<'a>,
}

impl Reencode for Guest<'_> {
    type Error = std::convert::Infallible;

    fn function_index(&mut self, index: u32) -> Result<u32, reencode::Error> {
        Ok(self.facts.moved(index))
    }
}

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
    start: Option<u32>,
    elements: ElementSection,
    data_count: Option<u32>,
    codes: CodeSection,
    data: DataSection,
    names: Option<NameSection>,
}

impl Sections {
    fn copy(
        &mut self,
        guest: &mut Guest<'_>,
        payload: Payload<'_>,
        lowering: &Lowering<'_>,
    ) -> Result<(), reencode::Error> {
        match payload {
            Payload::TypeSection(section) => guest.parse_type_section(&mut self.types, section),
            Payload::ImportSection(section) => self.copy_imports(guest, section),
            Payload::FunctionSection(section) => guest.parse_function_section(&mut self.functions, section),
            Payload::TableSection(section) => guest.parse_table_section(&mut self.tables, section),
            Payload::MemorySection(section) => guest.parse_memory_section(&mut self.memories, section),
            Payload::TagSection(section) => guest.parse_tag_section(&mut self.tags, section),
            Payload::GlobalSection(section) => guest.parse_global_section(&mut self.globals, section),
            Payload::ExportSection(section) => {
                for export in section {
                    let export = export?;
                    if !lowering.hidden.iter().any(|hidden| hidden == export.name) {
                        guest.parse_export(&mut self.exports, export)?;
                    }
                }
                Ok(())
            }
            Payload::StartSection { func, .. } => {
                self.start = Some(guest.function_index(func)?);
                Ok(())
            }
            Payload::ElementSection(section) => guest.parse_element_section(&mut self.elements, section),
            Payload::DataCountSection { count, .. } => {
                self.data_count = Some(count);
                Ok(())
            }
            Payload::DataSection(section) => guest.parse_data_section(&mut self.data, section),
            Payload::CodeSectionEntry(body) => guest.parse_function_body(&mut self.codes, body),
            Payload::CustomSection(section) => {
                // Debug names serve backtraces; without them nothing is lost but names.
                if let KnownCustom::Name(names) = section.as_known() {
                    self.names = guest.custom_name_section(names).ok();
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// A memory that the host was to provide is the guest's own from here on.
    fn copy_imports(
        &mut self,
        guest: &mut Guest<'_>,
        section: wasmparser::ImportSectionReader<'_>,
    ) -> Result<(), reencode::Error> {
        for import in section.into_imports() {
            let import = import?;
            match import.ty {
                TypeRef::Memory(memory) => {
                    self.memories.memory(guest.memory_type(memory)?);
                }
                _ => guest.parse_import(&mut self.imports, import)?,
            }
        }
        Ok(())
    }

    fn add(&mut self, lowering: &Lowering<'_>) {
        let facts = &lowering.facts;
        for (ty, service) in (facts.types..).zip(Service::ALL) {
            let (params, results) = service.signature();
            self.types.ty().function(params.iter().copied(), results.iter().copied());
            self.imports.import(MODULE, service.name(), EntityType::Function(ty));
        }
        let entry = facts.types + Service::COUNT;
        self.types.ty().function([], [ValType::I32]);
        self.types.ty().function([], []);
        let first = facts.imported + Service::COUNT + facts.defined;
        for (index, added) in (first..).zip(&lowering.added) {
            let is_entry = !added.locals.is_empty();
            self.functions.function(if is_entry { entry } else { entry + 1 });
            let mut function = Function::new_with_locals_types(added.locals.iter().copied());
            for instruction in &added.body {
                function.instruction(instruction);
            }
            function.instruction(&wasm_encoder::Instruction::End);
            self.codes.function(&function);
            self.exports.export(&added.export, ExportKind::Func, index);
        }
        for _ in 0..2 {
            let ty = GlobalType { val_type: ValType::I32, mutable: true, shared: false };
            self.globals.global(ty, &ConstExpr::i32_const(0));
        }
        if !facts.exports_memory && !self.memories.is_empty() {
            self.exports.export(MEMORY, ExportKind::Memory, 0);
        }
    }

    fn finish(self) -> Vec<u8> {
        let mut module = Module::new();
        module.section(&self.types).section(&self.imports).section(&self.functions);
        if !self.tables.is_empty() {
            module.section(&self.tables);
        }
        if !self.memories.is_empty() {
            module.section(&self.memories);
        }
        if !self.tags.is_empty() {
            module.section(&self.tags);
        }
        module.section(&self.globals).section(&self.exports);
        if let Some(function_index) = self.start {
            module.section(&StartSection { function_index });
        }
        module.section(&self.elements);
        if let Some(count) = self.data_count {
            module.section(&DataCountSection { count });
        }
        module.section(&self.codes).section(&self.data);
        if let Some(names) = &self.names {
            module.section(names);
        }
        module.finish()
    }
}
