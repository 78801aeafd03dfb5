//! `state` in `cardan.yaml`.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

/// What survives a restart.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "State")]
pub(crate) struct StateEntry {
    /// A directory for this gateway alone, relative to this file. Unless said otherwise: `$STATE_DIRECTORY`,
    /// or a folder for this file in the user's state directory.
    pub(crate) dir: Option<PathBuf>,
}
