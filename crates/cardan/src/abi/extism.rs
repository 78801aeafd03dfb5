//! Extism 1.x plugins. `docs/abi/extism.md` says what we do and where we differ from the reference.

mod call;
mod codec;
mod fuse;
mod host;
mod kernel;
mod link;
pub(crate) mod manifest;
mod recognise;
mod rewind;
mod vars;
mod wasi;

pub(crate) use call::{Call, Guest, State};
pub use codec::Report;
pub(crate) use link::{Linking, Template};
pub(crate) use recognise::inspect;
pub(crate) use vars::Vars;
pub use wasi::GuestOutput;
