//! The authorities a plugin can ask for.

use std::fmt;

use serde::{Deserialize, Serialize};

/// One kind of authority. A plugin's imports and manifest ask for some; an operator grants some; the
/// intersection is linked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Capability {
    /// Outgoing HTTP requests to named hosts.
    Http,
    /// Variables that outlive a call, within the plugin.
    Vars,
    /// Log lines.
    Log,
    /// WASI preview 1: clocks, randomness and empty standard streams.
    Wasi,
    /// Directories of the host, through WASI.
    Files,
    /// Functions the embedding program defines itself.
    HostFunctions,
}

impl Capability {
    /// The name in configuration and in `cardan inspect`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Vars => "vars",
            Self::Log => "log",
            Self::Wasi => "wasi",
            Self::Files => "files",
            Self::HostFunctions => "host_functions",
        }
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
