//! What of an instance its calls can change.

use wasmparser::{Operator, Parser, Payload, TypeRef, ValType, Validator, WasmFeatures};

/// Most mutable globals of a guest whose instances are put back: each costs some nanoseconds.
const GLOBALS_MAX: usize = 64;

/// The mutable globals of a guest, if they and its own memories are all that its calls can change.
///
/// Everything else that a module may have is either out of reach of the proposals allowed here (objects
/// of the garbage collector, exceptions, threads), or excluded by name: imported state, references in
/// globals, and whatever writes to a table or drops a segment.
pub(super) fn rewound(guest: &[u8]) -> Option<Vec<u32>> {
    let features = WasmFeatures::WASM2
        | WasmFeatures::TAIL_CALL
        | WasmFeatures::RELAXED_SIMD
        | WasmFeatures::EXTENDED_CONST
        | WasmFeatures::MULTI_MEMORY
        | WasmFeatures::MEMORY64;
    Validator::new_with_features(features).validate_all(guest).ok()?;
    let mut globals = Vec::new();
    for payload in Parser::new(0).parse_all(guest) {
        match payload.ok()? {
            Payload::ImportSection(section) => {
                let mut imports = section.into_imports();
                if !imports.all(|import| import.is_ok_and(|import| matches!(import.ty, TypeRef::Func(_)))) {
                    return None;
                }
            }
            Payload::GlobalSection(section) => {
                for (index, global) in (0..).zip(section) {
                    let ty = global.ok()?.ty;
                    match ty.content_type {
                        ValType::Ref(_) => return None,
                        _ if ty.mutable => globals.push(index),
                        _ => {}
                    }
                }
            }
            Payload::CodeSectionEntry(body) => {
                for operator in body.get_operators_reader().ok()? {
                    if changes_more(&operator.ok()?) {
                        return None;
                    }
                }
            }
            _ => {}
        }
    }
    (globals.len() <= GLOBALS_MAX).then_some(globals)
}

fn changes_more(operator: &Operator<'_>) -> bool {
    matches!(
        operator,
        Operator::TableSet { .. }
            | Operator::TableGrow { .. }
            | Operator::TableFill { .. }
            | Operator::TableCopy { .. }
            | Operator::TableInit { .. }
            | Operator::ElemDrop { .. }
            | Operator::DataDrop { .. }
    )
}
