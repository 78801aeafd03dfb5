//! What a plugin may use up, as it is written.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Bytes, Milliseconds};

/// Limits in `cardan.yaml`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsEntry {
    /// Linear memory of one instance; 64 MiB unless said otherwise.
    pub memory: Option<Bytes>,
    /// Elements of one instance's tables; 100,000 unless said otherwise.
    pub table_elements: Option<u64>,
    /// Output of one call; 64 MiB unless said otherwise.
    pub output: Option<Bytes>,
    /// Time of one call; 500 ms unless said otherwise.
    pub deadline: Option<Milliseconds>,
    /// Time for start section and initialisation; 10 s unless said otherwise.
    pub start_deadline: Option<Milliseconds>,
    /// Instances alive at once; 256 unless said otherwise.
    pub instances: Option<u32>,
    /// Calls that may wait for an instance to be free; 1,024 unless said otherwise. Those beyond fail at once.
    pub queue: Option<u32>,
    /// Instances kept ready for calls to come; 2 unless said otherwise, none where instances are shared.
    pub ready: Option<u32>,
    /// All variables together; 1 MiB unless said otherwise.
    pub vars: Option<Bytes>,
    /// One HTTP response that the plugin fetches; 50 MiB unless said otherwise.
    pub http_response: Option<Bytes>,
    /// Fuel of one call: about one for each instruction. The same call then stops at the same place on every
    /// machine. Every loop is slower, and the start has this much as well. Unmeasured unless said otherwise.
    pub fuel: Option<u64>,
}
