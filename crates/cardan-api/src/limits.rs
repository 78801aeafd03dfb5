//! What one plugin may use up.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Limits of one plugin. Every field has a default that suits a gateway hook.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// All linear memories of one instance together.
    pub memory_bytes_max: u64,
    /// Extism's `memory.max_pages`: a budget of 64 KiB pages for growth over one instance's life.
    /// Present only when a manifest asks for it; the rule is Extism's, not ours.
    pub growth_pages_max: Option<u32>,
    /// Elements of all tables of one instance together.
    pub table_elements_max: u64,
    /// Bytes of one call's output.
    pub output_bytes_max: u64,
    /// Wall-clock time of one call unless a binding says otherwise. `None`: no limit, for embedders.
    pub deadline: Option<Duration>,
    /// Wall-clock time of start section and initialisation together.
    pub start_deadline: Duration,
    /// Instances alive at once, over all modes.
    pub instances_max: u32,
    /// Calls that may wait for an instance to be free, while that many are in use. Those beyond are
    /// [`Fault::Busy`](crate::Fault::Busy) at once.
    pub queue_max: u32,
    /// Bytes of all variables together, keys included.
    pub var_bytes_max: u64,
    /// Bytes of one HTTP response body fetched by a guest.
    pub http_response_bytes_max: u64,
    /// Fuel for each call. Only for embedders that need determinism: it slows every loop.
    pub fuel: Option<u64>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory_bytes_max: 64 << 20,
            growth_pages_max: None,
            table_elements_max: 100_000,
            output_bytes_max: 64 << 20,
            deadline: None,
            start_deadline: Duration::from_secs(10),
            instances_max: 256,
            queue_max: 1024,
            var_bytes_max: 1 << 20,
            http_response_bytes_max: 50 << 20,
            fuel: None,
        }
    }
}
