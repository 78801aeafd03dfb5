//! What a deployment asks for, resolved: no unknown names, no missing values, no syntax.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use cardan_api::manifest::{Abi, ResultForm};
use cardan_api::{
    BodyNeed, Capability, Dialect, FaultPolicy, Grants, InstanceMode, Limits, NamedHook, Phase,
    SnapshotPolicy,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::rule::MatchRule;

/// One plugin to be loaded, and where to ask it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PluginSpec {
    /// Unique within a deployment.
    pub name: String,
    /// For people.
    pub version: String,
    /// The module or manifest.
    pub source: PathBuf,
    /// What the module has to be, in hexadecimal.
    pub sha256: Option<String>,
    /// The calling convention, as an operator or its own manifest says it.
    pub abi: Option<Abi>,
    /// The convention of the system whose manifest it has, which holds unless the module is plainly another's.
    pub abi_implied: Option<Abi>,
    /// What tools return that return nothing but an `i32`, by export, where it does not show.
    pub result_forms: BTreeMap<String, ResultForm>,
    /// Where its exports do not tell.
    pub dialect: Option<Dialect>,
    /// How long its instances live.
    pub mode: InstanceMode,
    /// Whether initialisation runs once, when it is loaded.
    pub snapshot: SnapshotPolicy,
    /// Instances to keep ready.
    pub ready: u32,
    /// What it may use up.
    pub limits: Limits,
    /// An object.
    pub config: Value,
    /// What it may reach outside, if it asks for it.
    pub grants: Grants,
    /// Where it is asked.
    pub bindings: Bindings,
    /// Hooks that it wants to be asked at and that no listener of this process asks at, by name.
    pub elsewhere: Vec<String>,
    /// The manifest that describes it, where there is one.
    pub manifest: Option<PathBuf>,
    /// For people, from its manifest.
    pub about: About,
    /// What its configuration has to look like, as JSON Schema.
    pub config_schema: Option<Value>,
    /// What its manifest asks for. `None` where there is no manifest to say it: what its imports need.
    pub requested: Option<BTreeSet<Capability>>,
    /// Who put it here, and so who may take it away.
    pub owner: Owner,
    /// When it is taken out, and let in again.
    pub health: HealthPolicy,
    /// Asked at `plugin.tick` this often.
    pub tick: Option<Duration>,
    /// Versions before the active one that can be rolled back to.
    pub versions_kept: u32,
}

/// What a plugin's author says about it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct About {
    /// In a sentence.
    pub description: Option<String>,
    /// A person or company.
    pub author: Option<String>,
    /// An SPDX expression.
    pub license: Option<String>,
    /// Where to read more.
    pub homepage: Option<String>,
    /// A form for dashboards, as its manifest has it.
    pub ui_schema: Option<Value>,
    /// What its manifest asks for, in the manifest's own words.
    pub permissions: Vec<String>,
}

/// Who put a plugin here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Owner {
    /// A configuration file names it: it goes when the file names it no more.
    #[default]
    File,
    /// It lies in the watched folder: it goes when its file does.
    Folder,
    /// An operator loaded it through the admin API.
    Operator,
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::File => "a configuration file names it",
            Self::Folder => "it lies in the watched folder",
            Self::Operator => "it was loaded through the admin API",
        })
    }
}

/// When a plugin that keeps failing is taken out, and let in again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthPolicy {
    /// Faults in a row after which it is in quarantine: not asked, its bindings' fault policies decide. 0: never.
    pub faults_max: u32,
    /// After this long one visit tries it. Doubles with each try that fails, up to sixteen times this.
    #[serde(with = "millis", rename = "backoff_ms")]
    pub backoff: Duration,
}

impl Default for HealthPolicy {
    /// LLMProxy's numbers.
    fn default() -> Self {
        Self { faults_max: 10, backoff: Duration::from_secs(60) }
    }
}

/// For what a later version of Cardan reads of an earlier one's state; a plugin has a name and a source.
impl Default for PluginSpec {
    fn default() -> Self {
        Self::new("", "")
    }
}

impl PluginSpec {
    /// Versions kept where nothing says otherwise.
    pub const VERSIONS_KEPT: u32 = 5;

    /// A plugin with every default, asked wherever it has an export.
    pub fn new(name: impl Into<String>, source: impl Into<PathBuf>) -> Self {
        Self {
            name: name.into(),
            version: String::new(),
            source: source.into(),
            sha256: None,
            abi: None,
            abi_implied: None,
            result_forms: BTreeMap::new(),
            dialect: None,
            mode: InstanceMode::default(),
            snapshot: SnapshotPolicy::default(),
            ready: 0,
            limits: Limits::default(),
            config: Value::Object(serde_json::Map::new()),
            grants: Grants::default(),
            bindings: Bindings::Exported,
            elsewhere: Vec::new(),
            manifest: None,
            about: About::default(),
            config_schema: None,
            requested: None,
            owner: Owner::default(),
            health: HealthPolicy::default(),
            tick: None,
            versions_kept: Self::VERSIONS_KEPT,
        }
    }

    /// Whether a plugin loaded for `self` serves `other` as well: everything is the same but where it is
    /// asked and what people are told. What the file holds is compared apart.
    pub(crate) fn loads_like(&self, other: &Self) -> bool {
        // Taken apart without `..`, so that a new field is not forgotten here.
        #[rustfmt::skip]
        let Self {
            name, version: _, source, sha256, abi, abi_implied, result_forms, dialect, mode, snapshot, ready, limits, config, grants,
            bindings: _, elsewhere: _, manifest: _, about: _, config_schema: _, requested, owner: _, health: _,
            tick: _, versions_kept: _,
        } = other;
        self.name == *name
            && self.source == *source
            && self.sha256 == *sha256
            && self.abi == *abi
            && self.abi_implied == *abi_implied
            && self.result_forms == *result_forms
            && self.dialect == *dialect
            && self.mode == *mode
            && self.snapshot == *snapshot
            && self.ready == *ready
            && self.limits == *limits
            && self.config == *config
            && self.grants == *grants
            && self.requested == *requested
    }
}

/// Where a plugin is asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bindings {
    /// At every hook that it has an export for, with each hook's defaults.
    Exported,
    /// At these.
    Listed(Vec<BindingSpec>),
}

/// One plugin at one hook.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BindingSpec {
    /// The hook.
    #[serde(with = "by_name")]
    pub hook: &'static NamedHook,
    /// One of the hook's phases.
    pub phase: Phase,
    /// Lower is asked earlier within the phase; the order of installation decides ties.
    pub priority: i32,
    /// Instead of the plugin's.
    pub deadline: Option<Duration>,
    /// What follows from a fault.
    pub on_fault: FaultPolicy,
    /// How much of the body has to be shown.
    pub body: BodyNeed,
    /// Which events.
    pub rule: MatchRule,
    /// Instead of the dialect's export.
    pub entry: Option<String>,
}

impl BindingSpec {
    /// Priority where none is given.
    pub const PRIORITY: i32 = 100;

    /// A binding with a hook's defaults. The whole body is shown: a plugin that does not need it says so,
    /// and one that silently did not get it would look as if it worked.
    pub fn at(hook: &'static NamedHook) -> Self {
        Self {
            hook,
            phase: hook.phases.first().copied().unwrap_or(Phase::Background),
            priority: Self::PRIORITY,
            deadline: None,
            on_fault: hook.on_fault,
            body: BodyNeed::Whole,
            rule: MatchRule::default(),
            entry: None,
        }
    }
}

/// A hook, written as its name.
mod by_name {
    use cardan_api::NamedHook;
    use serde::{Deserialize as _, Deserializer, Serializer, de};

    pub(super) fn serialize<S: Serializer>(hook: &NamedHook, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(hook.name)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<&'static NamedHook, D::Error> {
        let name = String::deserialize(deserializer)?;
        NamedHook::find(&name).ok_or_else(|| de::Error::custom(format_args!("there is no hook {name:?}")))
    }
}

/// A duration, written as milliseconds.
mod millis {
    use std::time::Duration;

    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        u64::deserialize(deserializer).map(Duration::from_millis)
    }
}
