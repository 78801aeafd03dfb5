//! The real capabilities behind plugins' grants.
//!
//! The runtime defines what a capability is and checks who may use it; this crate does it. Only the
//! binary, or an embedder, names both.

mod cache;
mod http;
mod kv;
mod metrics;
mod secrets;
mod sql;

pub use cache::{CacheLimits, MemoryCache};
pub use http::{HttpService, HttpServiceError, Lookup, install_tls_provider};
pub use kv::{KvError, MemoryKv, SqliteKv, WallClock, wall_clock};
pub use metrics::{BUCKETS, MetricFamily, MetricsRegistry, Number};
pub use secrets::MemorySecrets;
pub use sql::{SqlError, SqlPools, SqlTarget};
