//! Extism 1.x plugins. `docs/abi/extism.md` says what we do and where we differ from the reference.

mod call;
pub(crate) mod codec;
mod core_dump;
mod exports;
mod fuse;
mod host;
mod kernel;
mod link;
pub(crate) mod log;
pub(crate) mod manifest;
mod recognise;
mod rewind;
mod services;
mod snapshot;
mod state;
mod template;
mod vars;
pub(crate) mod wait;
pub(crate) mod wasi;

pub(crate) use call::{Call, Guest};
pub use codec::Report;
pub(crate) use core_dump::CoreDumps;
pub(crate) use link::{Later, Linking, Stage};
pub(crate) use recognise::{ImportKind, Inspection as ModuleInspection};
pub(crate) use services::capability;
pub(super) use services::{perform, perform_now, write_line};
pub use snapshot::SnapshotState;
pub(crate) use state::State;
pub(crate) use template::Template;
pub(crate) use vars::Vars;
pub use wasi::GuestOutput;
