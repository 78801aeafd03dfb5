//! Components: SMG's worlds, the vLLM router's, and Cardan's own. `docs/abi/component.md` and
//! `docs/abi/smg.md` say what we do, and `docs/adr/0015-components.md` why the types are written by hand.

mod call;
mod fields;
mod link;
mod native;
mod output;
mod recognise;
mod smg;
mod state;
mod storage;
mod template;
#[cfg(test)]
mod tests;
mod vllm;
mod wasi;

pub(crate) use call::{Ask, Guest};
pub(crate) use link::Linking;
pub(crate) use recognise::{Found, MODULE_GIVEN, recognise};
pub(crate) use template::Template;
