//! Whether a plugin's initialisation is done once and kept.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Whether instances of a plugin begin where initialisation ended, which then runs once, when the plugin is
/// loaded. Only in the mode *fresh*.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SnapshotPolicy {
    /// If initialisation asks its host for nothing but its configuration and the log, so that it would come
    /// to the same end every time.
    #[default]
    Auto,
    /// Whatever it asks. What it was told, be it a random seed or the time, is then the same in every call.
    Always,
    /// Each instance is initialised anew.
    Never,
}
