//! Manifest documents: what an operator or a plugin author writes about plugins, as they wrote it.
//!
//! The types here only say which keys there are. What they mean is resolved where it is acted on, in
//! `cardan-manager`.

mod grants;
pub mod llmproxy;
mod units;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::dialect::Dialect;
use crate::fault::FaultPolicy;
use crate::hook::{BodyNeed, Phase};
use crate::instance::InstanceMode;

pub use grants::{
    AccessEntry, CacheEntry, EnvEntry, GrantsEntry, HttpEntry, KvEntry, LogEntry, MetricsEntry, PrivateEntry,
    Short, Shorthand, SqlEntry, SwitchEntry,
};
pub use units::{Bytes, Milliseconds};

/// One plugin in `cardan.yaml`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PluginEntry {
    /// Names the plugin in logs, metrics, errors and refusals.
    pub name: String,
    /// A module, its text form, or an Extism manifest; relative to the configuration file.
    pub source: String,
    /// The plugin author's version, for people.
    #[serde(default)]
    pub version: Option<String>,
    /// Refuses any other module than the one with this SHA-256, in hexadecimal.
    #[serde(default)]
    pub sha256: Option<String>,
    /// Whether the plugin is loaded at all.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// The documents it understands, where its exports do not tell.
    #[serde(default)]
    pub dialect: Option<Dialect>,
    /// How long its instances live.
    #[serde(default)]
    pub instance: InstanceMode,
    /// Handed to the plugin with every event, and through `config_get`.
    #[serde(default)]
    pub config: BTreeMap<String, Value>,
    /// What it may use up.
    #[serde(default)]
    pub limits: LimitsEntry,
    /// What it may reach outside.
    #[serde(default)]
    pub grants: GrantsEntry,
    /// Where it is asked. Without this, at every hook it has an export for.
    #[serde(default)]
    pub bindings: Option<Vec<BindingEntry>>,
}

fn yes() -> bool {
    true
}

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
    /// Instances kept ready for calls to come; 2 unless said otherwise, none where instances are shared.
    pub ready: Option<u32>,
    /// All variables together; 1 MiB unless said otherwise.
    pub vars: Option<Bytes>,
    /// One HTTP response that the plugin fetches; 50 MiB unless said otherwise.
    pub http_response: Option<Bytes>,
}

/// One binding in `cardan.yaml`: a plugin at a hook.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BindingEntry {
    /// The hook's name, for instance `http.request`.
    pub hook: String,
    /// Where in the hook; the hook's default phase unless said otherwise.
    #[serde(default)]
    pub phase: Option<Phase>,
    /// Lower is asked earlier within a phase; 100 unless said otherwise.
    #[serde(default)]
    pub priority: Option<i32>,
    /// Time of one call, instead of the plugin's.
    #[serde(default)]
    pub deadline: Option<Milliseconds>,
    /// What follows when the plugin cannot be asked; the hook's default unless said otherwise.
    #[serde(default)]
    pub on_fault: Option<FaultPolicy>,
    /// How much of the body the plugin has to see; the whole unless said otherwise.
    #[serde(default)]
    pub body: Option<BodyNeed>,
    /// Which events; all unless said otherwise.
    #[serde(default, rename = "match")]
    pub rule: MatchEntry,
    /// The export to call, instead of the dialect's.
    #[serde(default)]
    pub entry: Option<String>,
}

/// Which events a binding is for. Every list that is not empty has to match; within a list, one entry.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct MatchEntry {
    /// Glob patterns on the path: `*` is any text, `/` included; `/v1/*` is for `/v1` too. What is
    /// percent-encoded may be so here or not.
    pub paths: Vec<String>,
    /// Methods, in any letter case.
    pub methods: Vec<String>,
    /// Glob patterns on the host the client asked for.
    pub hosts: Vec<String>,
}
