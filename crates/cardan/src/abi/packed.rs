//! The packed convention: `alloc` and `dealloc`, a pointer and a length in, both in one `i64` out. HeliosProxy's
//! plugins are of it. `docs/abi/packed.md` says what we do.

mod host;

use wasm_encoder::ValType::{I32, I64};

use super::imported::Row;
use super::lowering::{Answer, Lowering};
use crate::Error;

pub(super) static IMPORTS: &[Row] = host::ROWS;

/// Exports that look like entries and are something else.
pub(super) const NO_ENTRIES: [&str; 8] =
    ["dealloc", "free", "__new", "realloc", "cabi_realloc", "__pin", "main", "__main_argc_argv"];

/// Types of entries that answer.
pub(super) const ANSWERING: [&str; 2] =
    ["(type (func (param i32 i32) (result i64)))", "(type (func (param i32 i32) (result i32)))"];

/// Whether exported functions, by name and type, are of this convention.
pub(super) fn recognise<'a>(exports: impl Iterator<Item = (&'a str, &'a str)>) -> bool {
    let (mut allocates, mut packed) = (false, false);
    for (name, ty) in exports {
        allocates |= name == "alloc" && ty == "(type (func (param i32) (result i32)))";
        packed |= ty == ANSWERING[0];
    }
    allocates && packed
}

/// The guest as it is called.
pub(super) fn lower(module: &[u8]) -> Result<Vec<u8>, Error> {
    let mut lowering = Lowering::of(module)?;
    let forms: [(&[wasm_encoder::ValType], Answer); 3] =
        [(&[I64], Answer::Packed), (&[I32], Answer::Decision), (&[], Answer::Nothing)];
    for (results, answer) in forms {
        for name in lowering.exports(&[I32, I32], results) {
            if !NO_ENTRIES.contains(&name) && !name.starts_with('_') {
                lowering.entry(name, answer);
            }
        }
    }
    lowering.start_as_reactor(None, None);
    lowering.finish()
}
