//! The authorities a plugin can ask for.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One kind of authority. A plugin's imports and manifest ask for some; an operator grants some; the
/// intersection is linked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Capability {
    /// Outgoing HTTP requests to named hosts.
    Http,
    /// Reading the plugin's own key-value store.
    KvRead,
    /// Writing to it.
    KvWrite,
    /// Reading the cache that plugins share.
    CacheRead,
    /// Writing to it.
    CacheWrite,
    /// Queries on named connections.
    SqlRead,
    /// Statements that change something.
    SqlWrite,
    /// Counters, gauges and histograms of its own.
    Metrics,
    /// Log lines.
    Log,
    /// The time of day, and of a clock that never goes back.
    Clock,
    /// Random bytes.
    Random,
    /// Reading directories of the host, through WASI.
    FilesRead,
    /// Writing to them.
    FilesWrite,
    /// Secrets by name.
    Secrets,
    /// Environment variables, as the operator sets them.
    Env,
    /// Variables that outlive a call, within the plugin.
    Vars,
    /// WASI preview 1: arguments, empty standard streams, and whatever else has no name of its own here.
    Wasi,
    /// Functions the embedding program defines itself.
    HostFunctions,
}

impl Capability {
    /// Every one, in the order documents list them.
    pub const ALL: [Self; 18] = [
        Self::Http,
        Self::KvRead,
        Self::KvWrite,
        Self::CacheRead,
        Self::CacheWrite,
        Self::SqlRead,
        Self::SqlWrite,
        Self::Metrics,
        Self::Log,
        Self::Clock,
        Self::Random,
        Self::FilesRead,
        Self::FilesWrite,
        Self::Secrets,
        Self::Env,
        Self::Vars,
        Self::Wasi,
        Self::HostFunctions,
    ];

    /// The name in configuration and in `cardan inspect`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::KvRead => "kv_read",
            Self::KvWrite => "kv_write",
            Self::CacheRead => "cache_read",
            Self::CacheWrite => "cache_write",
            Self::SqlRead => "sql_read",
            Self::SqlWrite => "sql_write",
            Self::Metrics => "metrics",
            Self::Log => "log",
            Self::Clock => "clock",
            Self::Random => "random",
            Self::FilesRead => "files_read",
            Self::FilesWrite => "files_write",
            Self::Secrets => "secrets",
            Self::Env => "env",
            Self::Vars => "vars",
            Self::Wasi => "wasi",
            Self::HostFunctions => "host_functions",
        }
    }

    /// What an operator adds to a plugin's grants so that it may, where that is how it is granted.
    pub fn grant(self) -> &'static str {
        match self {
            Self::Http => "http: [HOST]",
            Self::KvRead => "kv: read",
            Self::KvWrite => "kv: write",
            Self::CacheRead => "cache: read",
            Self::CacheWrite => "cache: write",
            Self::SqlRead => "sql: {CONNECTION: read}",
            Self::SqlWrite => "sql: {CONNECTION: write}",
            Self::Metrics => "metrics: on",
            Self::Log => "log: info",
            Self::Clock => "clock: on",
            Self::Random => "random: on",
            Self::FilesRead => "files: {\"ro:DIRECTORY\": GUEST_PATH}",
            Self::FilesWrite => "files: {DIRECTORY: GUEST_PATH}",
            Self::Secrets => "secrets: [NAME]",
            Self::Env => "env: [NAME]",
            Self::Vars => "limits: {vars: 1MiB}",
            // The embedding program decides these.
            Self::Wasi | Self::HostFunctions => "",
        }
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
