//! Manifest documents: what an operator or a plugin author writes about plugins, as they wrote it.
//!
//! The types here only say which keys there are. What they mean is resolved where it is acted on, in
//! `cardan-manager`.

mod abi;
pub mod cortex;
mod grants;
pub mod helios;
mod limits;
pub mod llmproxy;
pub mod plugin;
pub mod smg;
mod units;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, de};
use serde_json::Value;

use crate::dialect::Dialect;
use crate::fault::FaultPolicy;
use crate::hook::{BodyNeed, Phase};
use crate::instance::InstanceMode;
use crate::snapshot::SnapshotPolicy;

pub use abi::{Abi, ResultForm};
pub use grants::{
    AccessEntry, CacheEntry, EnvEntry, GrantsEntry, HttpEntry, KvEntry, LogEntry, MetricsEntry, PrivateEntry,
    Short, Shorthand, SqlEntry, SwitchEntry,
};
pub use limits::LimitsEntry;
pub use units::{Bytes, Milliseconds};

/// One plugin in `cardan.yaml`. What it says wins over what the plugin's own manifest says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PluginEntry {
    /// Names the plugin in logs, metrics, errors and refusals.
    pub name: String,
    /// A module, its text form, a manifest, or a folder that holds one of these; relative to the
    /// configuration file.
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
    /// The calling convention, where exports and imports do not tell.
    #[serde(default)]
    pub abi: Option<Abi>,
    /// The documents it understands, where its exports do not tell.
    #[serde(default)]
    pub dialect: Option<Dialect>,
    /// How long its instances live; `fresh` unless said otherwise.
    #[serde(default)]
    pub instance: Option<InstanceMode>,
    /// Whether initialisation runs once, when it is loaded, and calls begin where that ended.
    #[serde(default)]
    pub snapshot: SnapshotPolicy,
    /// Handed to the plugin with every event, and through `config_get`. What the plugin's manifest has
    /// defaults for may be left out.
    #[serde(default)]
    pub config: BTreeMap<String, Value>,
    /// What it may use up.
    #[serde(default)]
    pub limits: LimitsEntry,
    /// What it may reach outside.
    #[serde(default)]
    pub grants: GrantsEntry,
    /// Where it is asked. Without this, where its manifest says, or at every hook it has an export for.
    #[serde(default)]
    pub bindings: Option<Vec<BindingEntry>>,
    /// When it is taken out because it fails, and let in again.
    #[serde(default)]
    pub health: HealthEntry,
    /// How often it is asked at `plugin.tick`; never unless said.
    #[serde(default)]
    pub tick: Option<Milliseconds>,
    /// Versions before the active one that can be rolled back to; 5 unless said otherwise.
    #[serde(default)]
    pub versions_kept: Option<u32>,
}

impl PluginEntry {
    /// An entry that says nothing but the name and the source.
    pub fn new(name: impl Into<String>, source: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            source: source.into(),
            version: None,
            sha256: None,
            enabled: true,
            abi: None,
            dialect: None,
            instance: None,
            snapshot: SnapshotPolicy::default(),
            config: BTreeMap::new(),
            limits: LimitsEntry::default(),
            grants: GrantsEntry::default(),
            bindings: None,
            health: HealthEntry::default(),
            tick: None,
            versions_kept: None,
        }
    }
}

fn yes() -> bool {
    true
}

/// When a plugin that keeps failing is taken out, and let in again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct HealthEntry {
    /// Faults in a row after which it is asked no more; 10 unless said otherwise, 0 for never.
    pub faults: Option<u32>,
    /// After this long one visit tries it again; 60 s unless said otherwise.
    pub backoff: Option<Milliseconds>,
}

/// YAML takes a bare `1.0` for a number; as a version it is text.
fn text_or_number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    match Value::deserialize(deserializer)? {
        Value::Null => Ok(None),
        Value::String(text) => Ok(Some(text)),
        Value::Number(number) => Ok(Some(number.to_string())),
        _ => Err(de::Error::custom("a version is text")),
    }
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
