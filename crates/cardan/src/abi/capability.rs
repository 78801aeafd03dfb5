//! The capability convention: tools that a guest exports, by name or behind one export. CortexPrism's plugins are of it.
//! `docs/abi/capability.md` says what we do, and where its documents leave something open.

mod dispatch;
mod host;

use std::collections::BTreeMap;

use wasm_encoder::ValType::I32;

use super::imported::Row;
use super::lowering::host::Service;
use super::lowering::{Answer, Lowering, ResultForm};
use super::packed::NO_ENTRIES;
use crate::Error;

pub(super) static IMPORTS: &[Row] = host::ROWS;

pub(super) use dispatch::{framed, unframed};

pub(crate) const CALL: &str = "plugin_execute_tool";
pub(crate) const LIST: &str = "plugin_get_capabilities";
const VERSION: &str = "plugin_get_abi_version";
const INIT: &str = "plugin_init";
const ENTRY: &str = "(type (func (param i32 i32) (result i32)))";

/// Whether a module is of this convention, by its imports and its exports with their types.
pub(super) fn recognise<'a>(exports: &[(&'a str, &'a str)], imports: &[(&'a str, &'a str)]) -> bool {
    let exports_any = |names: &[&str]| exports.iter().any(|(name, _)| names.contains(name));
    if exports_any(&[CALL, LIST])
        || imports.iter().any(|(from, name)| *from == "env" && name.starts_with("host_"))
    {
        return true;
    }
    let entry = exports.iter().any(|(name, ty)| *ty == ENTRY && is_capability(name));
    let starts = ["_start", "_initialize", "__wasm_call_ctors", "hs_init"];
    let callable = |ty: &str| ty == "(type (func))" || ty == "(type (func (result i32)))";
    // What toolchains add begins with two underscores.
    let own = |name: &str| !starts.contains(&name) && !name.starts_with("__");
    entry && !exports.iter().any(|(name, ty)| callable(ty) && own(name))
}

/// Whether an export of the right type is a capability: every one is, but allocators and what begins with `_`.
pub(crate) fn is_capability(name: &str) -> bool {
    !NO_ENTRIES.contains(&name) && !name.starts_with('_') && !["alloc", "malloc"].contains(&name)
}

/// The guest as it is called. `forms`: what results are, by capability.
pub(super) fn lower(module: &[u8], forms: &BTreeMap<String, ResultForm>) -> Result<Vec<u8>, Error> {
    let mut lowering = Lowering::of(module)?;
    if lowering.has(CALL) || lowering.has(LIST) {
        const { assert!(STAGED.len() == 6) }
        lowering.check(CALL, &[I32; 6], &[I32])?;
        lowering.check(LIST, &[I32; 2], &[I32])?;
        lowering.check(VERSION, &[], &[I32])?;
        lowering.staged_entry(CALL, &STAGED, Service::AnswerTool);
        lowering.staged_entry(LIST, &STAGED[4..], Service::AnswerDocument);
        lowering.start_as_reactor(Some(VERSION), Some(INIT));
    } else {
        for name in lowering.exports(&[I32, I32], &[I32]) {
            if is_capability(name) {
                let form = forms.get(name).copied().unwrap_or_default();
                lowering.entry(name, Answer::Pointer(form));
            }
        }
        lowering.host_entry(LIST, Service::AnswerExports);
        lowering.start_as_reactor(None, None);
    }
    lowering.finish()
}

/// The arguments of [`CALL`]: name, arguments and output, with a length each; the output's is a place.
const STAGED: [i32; 6] = [0, 1, 2, 3, 4, 5];
