//! The vocabulary that hosts, the runtime and guests share.
//!
//! Everything here is plain data without I/O, so that gateways, proxies and plugin authors need not
//! depend on a WebAssembly engine to talk about plugins, and so that it compiles to WebAssembly too.
//!
//! A [`Hook`] is a named point in a host's life. The host shows plugins an [`Hook::Event`]; a plugin
//! returns a [`Verdict`]: go on or stop with an answer, plus edits that the *host* applies once the
//! plugin has succeeded. What could not be asked of a plugin is a [`Fault`], and every binding says
//! what follows from one ([`FaultPolicy`]).

pub mod access;
pub mod address;
pub mod cache;
pub mod capability;
pub mod catalogue;
pub mod dialect;
pub mod fault;
pub mod grants;
pub mod hook;
pub mod http;
pub mod instance;
pub mod lifecycle;
pub mod limits;
pub mod manifest;
pub mod path;
pub mod snapshot;
pub mod sql;
pub mod storage;
pub mod tool;
pub mod verdict;

pub use capability::Capability;
pub use catalogue::NamedHook;
pub use dialect::Dialect;
pub use fault::{Fault, FaultPolicy};
pub use grants::Grants;
pub use hook::{Attributes, BodyNeed, Hook, Phase};
pub use instance::InstanceMode;
pub use limits::Limits;
pub use snapshot::SnapshotPolicy;
pub use verdict::{Flow, Verdict};
