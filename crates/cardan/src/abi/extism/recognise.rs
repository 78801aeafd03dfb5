//! What a module is, read from its bytes alone.

use wasmparser::{ExternalKind, Parser, Payload, TypeRef};

use crate::Error;

/// What a module's imports and exports say about it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Inspection {
    /// Module, name and kind of each import.
    pub(crate) imports: Vec<(String, String, ImportKind)>,
    /// Exported functions.
    pub(crate) functions: Vec<String>,
    /// Declared memories: first and greatest size in bytes.
    pub(crate) memories: Vec<(u64, Option<u64>)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ImportKind {
    Function,
    Other,
}

/// Reads imports and exports. The module need not be valid for that.
pub(crate) fn inspect(module: &[u8]) -> Result<Inspection, Error> {
    read(module).map_err(|error| Error::format(error.to_string()))
}

fn read(module: &[u8]) -> wasmparser::Result<Inspection> {
    let mut found = Inspection::default();
    for payload in Parser::new(0).parse_all(module) {
        match payload? {
            Payload::ImportSection(section) => {
                for import in section.into_imports() {
                    let import = import?;
                    let kind = match import.ty {
                        TypeRef::Func(_) | TypeRef::FuncExact(_) => ImportKind::Function,
                        _ => ImportKind::Other,
                    };
                    found.imports.push((import.module.to_owned(), import.name.to_owned(), kind));
                }
            }
            Payload::MemorySection(section) => {
                for memory in section {
                    let memory = memory?;
                    let page_bytes = 1 << memory.page_size_log2.unwrap_or(16).min(16);
                    let bytes = |pages: u64| pages.saturating_mul(page_bytes);
                    found.memories.push((bytes(memory.initial), memory.maximum.map(bytes)));
                }
            }
            Payload::ExportSection(section) => {
                for export in section {
                    let export = export?;
                    if export.kind == ExternalKind::Func {
                        found.functions.push(export.name.to_owned());
                    }
                }
            }
            _ => {}
        }
    }
    Ok(found)
}
