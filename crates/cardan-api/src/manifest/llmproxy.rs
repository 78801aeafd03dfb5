//! LLMProxy's `manifest.yaml`, as it stands in the wild.
//!
//! The manifest is LLMProxy's, not ours: keys that it does not know are kept in `other`, so that loading
//! can warn about them instead of failing.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::hook::Phase;

/// A whole manifest file: a list, or the list under `plugins`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(untagged)]
#[expect(clippy::large_enum_variant, reason = "read once, at load")]
pub enum Document {
    /// `plugins:` and below it the list, with whatever else is there.
    Keyed {
        /// The entries.
        plugins: Vec<Entry>,
    },
    /// The list alone, as the documentation prints it.
    List(Vec<Entry>),
}

impl Document {
    /// The entries, in file order.
    pub fn into_entries(self) -> Vec<Entry> {
        match self {
            Self::Keyed { plugins } | Self::List(plugins) => plugins,
        }
    }
}

/// One plugin.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Display name and key; blanks allowed.
    pub name: String,
    /// The ring.
    pub hook: Phase,
    /// `module.path:Target` for Python, a path in one of three spellings for WebAssembly.
    pub entrypoint: String,
    /// Lower is asked earlier.
    #[serde(default = "default_priority")]
    pub priority: i32,
    /// Whether it is loaded.
    #[serde(default = "default_enabled")]
    pub enabled: bool,
    /// `python` or `wasm`; told by the entry point when missing.
    #[serde(default, rename = "type")]
    pub kind: Option<Kind>,
    /// For people.
    #[serde(default)]
    pub version: Option<String>,
    /// For people.
    #[serde(default)]
    pub author: Option<String>,
    /// For people.
    #[serde(default)]
    pub description: Option<String>,
    /// Time of one call.
    #[serde(default = "default_timeout_ms")]
    pub timeout_ms: u64,
    /// What follows from a fault; by ring when missing.
    #[serde(default)]
    pub fail_policy: Option<FailPolicy>,
    /// Handed to the plugin.
    #[serde(default)]
    pub config: Option<BTreeMap<String, Value>>,
    /// A form for the dashboard; not for the plugin.
    #[serde(default)]
    pub ui_schema: Option<Value>,
    /// Pins the module.
    #[serde(default)]
    pub sha256: Option<String>,
    /// For Python plugins only.
    #[serde(default)]
    pub allow_inprocess: Option<bool>,
    /// Ours: the export to call.
    #[serde(default)]
    pub entry: Option<String>,
    /// Keys that LLMProxy does not have.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

fn default_priority() -> i32 {
    100
}

fn default_enabled() -> bool {
    true
}

fn default_timeout_ms() -> u64 {
    500
}

/// What a plugin is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Runs in LLMProxy's own process, and nowhere else.
    Python,
    /// WebAssembly.
    Wasm,
}

/// LLMProxy's words for [`crate::FaultPolicy`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FailPolicy {
    /// Skip.
    Open,
    /// Refuse.
    Closed,
}

impl Entry {
    /// What the plugin is made of: as said, else by the entry point's ending.
    pub fn kind(&self) -> Kind {
        let wasm = self.entrypoint.ends_with(".wasm");
        self.kind.unwrap_or(if wasm { Kind::Wasm } else { Kind::Python })
    }
}
