//! Why a plugin could not be asked, and what follows from it.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The closed set of ways in which asking a plugin can fail.
///
/// It is what code branches on and what metrics are labelled with; the text for people travels
/// separately and never reaches a client or another guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// The guest stopped abnormally: `unreachable`, an out-of-bounds access, stack exhaustion, or an
    /// error it reported itself.
    Trap,
    /// The guest ran, or waited, past its deadline, or used up its fuel.
    Deadline,
    /// The guest asked for more memory or table elements than its limits allow.
    Memory,
    /// The guest used an authority it was not granted.
    Denied,
    /// The guest's answer is not in the form its dialect requires, or an export is missing.
    Protocol,
    /// No instance was free within the plugin's limits, or there was no room for one in the process.
    Busy,
    /// The host itself failed: a capability's backend, an internal limit.
    Host,
    /// The plugin kept failing and was not asked.
    Quarantined,
}

impl Fault {
    /// Every fault, in the order metrics list them.
    pub const ALL: [Fault; 8] = [
        Self::Trap,
        Self::Deadline,
        Self::Memory,
        Self::Denied,
        Self::Protocol,
        Self::Busy,
        Self::Host,
        Self::Quarantined,
    ];

    /// The metric label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Trap => "trap",
            Self::Deadline => "deadline",
            Self::Memory => "memory",
            Self::Denied => "denied",
            Self::Protocol => "protocol",
            Self::Busy => "busy",
            Self::Host => "host",
            Self::Quarantined => "quarantined",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

/// What a host does at a binding whose plugin faulted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FaultPolicy {
    /// Go on as if the plugin had said "continue" without edits. The fault is still recorded.
    Skip,
    /// Stop, with an answer the host writes itself.
    Refuse,
}
