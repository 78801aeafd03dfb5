//! Write a Cardan plugin once, and ship it in whichever convention its host speaks.
//!
//! A plugin is a struct, a trait with defaults, and one line that names the hooks it answers:
//!
//! ```
//! use cardan_pdk::prelude::*;
//!
//! struct Stamp {
//!     name: String,
//! }
//!
//! impl Plugin for Stamp {
//!     fn new(config: Config) -> Result<Self> {
//!         Ok(Self { name: config.text("name")?.unwrap_or_else(|| "nobody".to_owned()) })
//!     }
//!
//!     fn http_request(&mut self, _visit: &Visit, request: RequestEvent) -> Result<Verdict<HttpRequest>> {
//!         if request.headers.get("authorization").is_none() {
//!             return Ok(refuse(401, "no_key", "send an API key"));
//!         }
//!         Ok(Verdict::pass().with_header("x-stamp", &self.name))
//!     }
//! }
//!
//! cardan_pdk::export!(Stamp: http_request);
//! ```
//!
//! The crate's features choose the convention; the source is the same for all:
//!
//! | feature | what comes out | compile for |
//! |---|---|---|
//! | `component` | a component of the world `cardan:plugin` | `wasm32-wasip2` |
//! | `extism` | a module for Extism's kernel | `wasm32-unknown-unknown` |
//! | `packed` | a module with `alloc`, `dealloc` and packed results | `wasm32-unknown-unknown` |
//! | `capability` | a module of CortexPrism's conventions | `wasm32-unknown-unknown` |
//!
//! Link with `-Clink-arg=-zstack-size=65536`, in `.cargo/config.toml`: the shadow stack is part of the memory that
//! a host gives every call. What a call returns as `Err` is a fault, for operators; what is to reach a client is
//! a [`refuse`] or a [`respond`].

#[cfg(all(
    target_arch = "wasm32",
    not(any(feature = "component", feature = "extism", feature = "packed", feature = "capability"))
))]
compile_error!(
    "choose the convention of this build by one of cardan-pdk's features: component, extism, packed or capability"
);
#[cfg(any(
    all(feature = "component", any(feature = "extism", feature = "packed", feature = "capability")),
    all(feature = "extism", any(feature = "packed", feature = "capability")),
    all(feature = "packed", feature = "capability"),
))]
compile_error!(
    "a build has one convention: switch on exactly one of component, extism, packed and capability"
);

pub mod cache;
pub mod clock;
mod config;
mod error;
pub mod host_config;
pub mod http;
pub mod kv;
pub mod log;
pub mod metrics;
mod plugin;
pub mod random;
pub mod secrets;
pub mod sql;
mod tool;
mod verdict;
mod visit;

#[cfg(not(feature = "component"))]
mod calls;
#[cfg(feature = "component")]
#[doc(hidden)]
pub mod component;
#[cfg(not(feature = "component"))]
#[doc(hidden)]
pub mod documents;
mod export;

#[cfg(all(target_arch = "wasm32", feature = "capability"))]
#[doc(hidden)]
#[path = "convention/capability.rs"]
pub mod convention;
#[cfg(all(target_arch = "wasm32", feature = "extism"))]
#[doc(hidden)]
#[path = "convention/extism.rs"]
pub mod convention;
#[cfg(all(target_arch = "wasm32", feature = "packed"))]
#[doc(hidden)]
#[path = "convention/packed.rs"]
pub mod convention;
#[cfg(all(not(target_arch = "wasm32"), not(feature = "component")))]
#[doc(hidden)]
#[path = "convention/none.rs"]
pub mod convention;

#[cfg(not(feature = "component"))]
use calls as host;
#[cfg(feature = "component")]
use component::{self as convention, host};

pub use cardan_api as api;
pub use cardan_api::tool::Tool;
pub use config::Config;
pub use error::{Error, Result};
pub use plugin::{Exported, Plugin};
pub use tool::{Described, ToolError, tool};
pub use verdict::{Edited, refuse, respond};
pub use visit::Visit;

/// What most plugins use.
pub mod prelude {
    pub use cardan_api::access::{AccessAuthenticate, AccessAuthorize, AccessEvent, LoginEvent};
    pub use cardan_api::cache::{CacheGet, CacheGetEvent, CacheSet, CacheSetEvent};
    pub use cardan_api::http::{
        CompleteEvent, Headers, HttpComplete, HttpRequest, HttpResponse, Origin, RequestEvent, ResponseEvent,
    };
    pub use cardan_api::lifecycle::{LifeEvent, LifeReason, TickEvent};
    pub use cardan_api::sql::{QueryEvent, ResultEvent, RouteEvent, SqlQuery, SqlResult, SqlRoute};
    pub use cardan_api::tool::Tool;
    pub use cardan_api::{Attributes, Phase, Verdict};
    pub use serde_json::{Value, json};

    pub use crate::{
        Config, Described, Edited, Error, Plugin, Result, ToolError, Visit, refuse, respond, tool,
    };
}
