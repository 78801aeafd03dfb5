//! What a module is, read from its bytes alone.

use wasmparser::{CompositeInnerType, ExternalKind, FuncType, Parser, Payload, TypeRef, ValType};

use crate::Error;

/// What a module's imports and exports say about it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Inspection {
    /// Module, name and type of each import.
    pub(crate) imports: Vec<(String, String, ImportKind)>,
    /// Exported functions.
    pub(crate) functions: Vec<String>,
    /// Their types as text, in the same order.
    pub(crate) function_types: Vec<String>,
    /// Declared memories: first and greatest size in bytes.
    pub(crate) memories: Vec<(u64, Option<u64>)>,
    /// It has a start section.
    pub(crate) starts: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ImportKind {
    /// With its type as text.
    Function(String),
    Other,
}

impl ImportKind {
    /// Whether it is a function of a type, written as lists of value types with spaces between.
    pub(crate) fn is_function(&self, params: &str, results: &str) -> bool {
        let Self::Function(ty) = self else { return false };
        let part = |keyword: &str, types: &str| {
            if types.is_empty() { String::new() } else { format!(" ({keyword} {types})") }
        };
        *ty == format!("(type (func{}{}))", part("param", params), part("result", results))
    }
}

/// Reads imports and exports. The module need not be valid for that.
pub(crate) fn inspect(module: &[u8]) -> Result<Inspection, Error> {
    read(module).map_err(|error| Error::format(error.to_string()))
}

fn read(module: &[u8]) -> wasmparser::Result<Inspection> {
    let mut found = Inspection::default();
    let mut types: Vec<String> = Vec::new();
    let mut declared: Vec<u32> = Vec::new();
    for payload in Parser::new(0).parse_all(module) {
        match payload? {
            Payload::TypeSection(section) => {
                for group in section {
                    types.extend(group?.into_types().map(|ty| match ty.composite_type.inner {
                        CompositeInnerType::Func(ty) => function_text(&ty),
                        _ => String::new(),
                    }));
                }
            }
            Payload::ImportSection(section) => {
                for import in section.into_imports() {
                    let import = import?;
                    let kind = match import.ty {
                        TypeRef::Func(ty) | TypeRef::FuncExact(ty) => {
                            declared.push(ty);
                            ImportKind::Function(types.get(ty as usize).cloned().unwrap_or_default())
                        }
                        _ => ImportKind::Other,
                    };
                    found.imports.push((import.module.to_owned(), import.name.to_owned(), kind));
                }
            }
            Payload::FunctionSection(section) => {
                for ty in section {
                    declared.push(ty?);
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
            Payload::StartSection { .. } => found.starts = true,
            Payload::ExportSection(section) => {
                for export in section {
                    let export = export?;
                    if export.kind == ExternalKind::Func {
                        found.functions.push(export.name.to_owned());
                        let ty = declared.get(export.index as usize).and_then(|ty| types.get(*ty as usize));
                        found.function_types.push(ty.cloned().unwrap_or_default());
                    }
                }
            }
            _ => {}
        }
    }
    Ok(found)
}

/// A type as wasmtime, and so the reference, writes it.
fn function_text(ty: &FuncType) -> String {
    let list = |keyword: &str, types: &[ValType]| {
        let types: String = types.iter().map(|ty| format!(" {ty}")).collect();
        if types.is_empty() { types } else { format!(" ({keyword}{types})") }
    };
    format!("(type (func{}{}))", list("param", ty.params()), list("result", ty.results()))
}
