//! CortexPrism's plugin manifest, `manifest.json` or `cortex.json`, as it stands in the wild: with the keys
//! of its documentation (`type`, `wasm`) and with those of its code (`kind`, `runtime`, `capabilities`).

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::ResultForm;

/// A whole manifest.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(title = "CortexPrism plugin manifest")]
pub struct Manifest {
    /// The plugin's name.
    pub name: String,
    /// For people.
    pub version: String,
    /// For people.
    #[serde(default)]
    pub description: Option<String>,
    /// What it is made of: `wasm`, or something that does not run here.
    #[serde(default)]
    pub kind: Option<String>,
    /// The same, in the documentation.
    #[serde(default, rename = "type")]
    pub module_type: Option<String>,
    /// The same, in the original's code.
    #[serde(default)]
    pub runtime: Option<String>,
    /// The module: relative, absolute, or a `file://` address.
    pub entry_point: String,
    /// Extension points; `tools` without it.
    #[serde(default)]
    pub capabilities: Option<Vec<String>>,
    /// What it may do.
    #[serde(default)]
    pub permissions: Vec<String>,
    /// Limits on memory.
    #[serde(default)]
    pub wasm: Wasm,
    /// SHA-256 of the module in hexadecimal, perhaps behind `sha256:`.
    #[serde(default)]
    pub hash: Option<String>,
    /// For people.
    #[serde(default)]
    pub author: Option<String>,
    /// For people.
    #[serde(default)]
    pub homepage: Option<String>,
    /// For people.
    #[serde(default)]
    pub license: Option<String>,
    /// For people.
    #[serde(default)]
    pub repository: Option<String>,
    /// Tools with their parameters, where the module does not list them.
    #[serde(default)]
    pub tools: Option<Value>,
    /// What tools return that have an export each, by export, where it does not show. Cardan's own key.
    #[serde(default)]
    pub result: BTreeMap<String, ResultForm>,
    /// Keys that have no effect here, and keys that CortexPrism does not have.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

/// Limits on memory, in pages of 64 KiB.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Wasm {
    /// It cannot run with less.
    pub memory_pages: Option<u32>,
    /// It may have no more.
    pub max_memory_pages: Option<u32>,
    /// For people: the runtime finds the allocator among the exports.
    pub allocator: Option<String>,
    /// Keys that CortexPrism does not have.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

/// Keys of the original that only its own process can do something with.
pub const ELSEWHERE: [&str; 8] =
    ["signature", "dependencies", "peerDependencies", "cliCommands", "ui", "config", "events", "trust"];
