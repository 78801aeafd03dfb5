//! How long an instance of a plugin lives.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How long an instance of a plugin lives, and so what a guest finds in its memory.
///
/// The choice is the plugin's, within what its convention promises; `docs/adr/0001-instance-modes.md`.
/// Variables (`var_get`, `var_set`) belong to the plugin and outlive instances in every mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum InstanceMode {
    /// Every call finds the memory as initialisation left it. Nothing leaks from call to call.
    #[default]
    Fresh,
    /// One instance for all hooks of one request or session, then never again.
    Visit,
    /// Instances are reused, by one call at a time, until one faults. Guest memory persists, but which
    /// of several instances serves a call is not said.
    Shared,
}

impl InstanceMode {
    /// The name in configuration and in what operators are shown.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fresh => "fresh",
            Self::Visit => "visit",
            Self::Shared => "shared",
        }
    }
}
