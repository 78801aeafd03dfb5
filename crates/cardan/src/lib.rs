//! Runs WebAssembly plugins: load one, call it, give it only what it may have.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let engine = cardan::Engine::new(cardan::EngineConfig::default())?;
//! let plugin = engine.load("../../guests/prebuilt/count-vowels.wasm")?;
//! let output = plugin.call("count_vowels", "Hello, world!")?;
//! # assert!(String::from_utf8(output)?.starts_with(r#"{"count":3"#));
//! # Ok(())
//! # }
//! ```
//!
//! Any module made with an Extism PDK is a plugin, and so are Extism's manifests. A call runs on fresh
//! memory unless the plugin asks for another [`InstanceMode`]; it ends at its deadline, and takes no more
//! memory than its [`Limits`] say. Capabilities that the embedder did not give do not exist for the
//! guest.
//!
//! This crate knows engines, instances and conventions, and nothing of gateways, files of configuration
//! or the environment. It is the only one that names wasmtime.

mod abi;
pub mod dialect;
mod engine;
mod error;
mod grants;
mod host_function;
mod limits;
mod module;
mod plugin;
mod pool;
mod runtime;
mod source;

pub use abi::extism::manifest::{Manifest, MemoryLimits, WasmEntry};
pub use abi::extism::{GuestOutput, Report, SnapshotState};
pub use abi::{Abi, ResultForm};
pub use cardan_api::{self as api, Capability, Fault, Grants, InstanceMode, Limits, SnapshotPolicy};
pub use dialect::{Circumstances, Dialect};
pub use engine::{Engine, EngineConfig, Isolation, Tier};
pub use error::{Error, ErrorKind};
pub use grants::{
    Cache, CacheClaim, CacheKey, CacheLookup, HttpClient, HttpExchange, HttpFailure, HttpReply, KvEntry,
    KvPage, KvScan, KvSpace, KvStore, LogLevel, LogLine, LogSink, LogTail, Metrics, MetricsSpace, Sample,
    SampleKind, Secret, SecretStore, ServiceFailure, Services, SqlDatabase, SqlFailure, SqlQuery, SqlResult,
    TracingLog, Waiting,
};
pub use host_function::{HostCall, HostError, HostFunction, ValueType};
pub use limits::CancelHandle;
pub use plugin::{Held, Import, Inspection, Plugin, PluginBuilder, PluginInstance, Question, Usage};
pub use source::{Source, digest, file_digest};
pub use wasmtime::Val;
