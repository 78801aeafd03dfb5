//! What a deployment asks for, resolved: no unknown names, no missing values, no syntax.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use cardan_api::{BodyNeed, Dialect, FaultPolicy, InstanceMode, Limits, NamedHook, Phase};
use serde_json::Value;

use crate::rule::MatchRule;

/// One plugin to be loaded, and where to ask it.
#[derive(Debug, Clone)]
pub struct PluginSpec {
    /// Unique within a deployment.
    pub name: String,
    /// For people.
    pub version: String,
    /// The module or manifest.
    pub source: PathBuf,
    /// What the module has to be, in hexadecimal.
    pub sha256: Option<String>,
    /// Where its exports do not tell.
    pub dialect: Option<Dialect>,
    /// How long its instances live.
    pub mode: InstanceMode,
    /// Instances to keep ready.
    pub ready: u32,
    /// What it may use up.
    pub limits: Limits,
    /// An object.
    pub config: Value,
    /// Hosts it may ask.
    pub allowed_hosts: Vec<String>,
    /// Directories it may open.
    pub allowed_paths: BTreeMap<String, String>,
    /// Where it is asked.
    pub bindings: Bindings,
}

impl PluginSpec {
    /// Whether a plugin loaded for `self` serves `other` as well: everything is the same but where it is
    /// asked and what people are told. What the file holds is compared apart.
    pub(crate) fn loads_like(&self, other: &Self) -> bool {
        // Taken apart without `..`, so that a new field is not forgotten here.
        #[rustfmt::skip]
        let Self {
            name, version: _, source, sha256, dialect, mode, ready, limits, config, allowed_hosts,
            allowed_paths, bindings: _,
        } = other;
        self.name == *name
            && self.source == *source
            && self.sha256 == *sha256
            && self.dialect == *dialect
            && self.mode == *mode
            && self.ready == *ready
            && self.limits == *limits
            && self.config == *config
            && self.allowed_hosts == *allowed_hosts
            && self.allowed_paths == *allowed_paths
    }
}

/// Where a plugin is asked.
#[derive(Debug, Clone)]
pub enum Bindings {
    /// At every hook that it has an export for, with each hook's defaults.
    Exported,
    /// At these.
    Listed(Vec<BindingSpec>),
}

/// One plugin at one hook.
#[derive(Debug, Clone)]
pub struct BindingSpec {
    /// The hook.
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
            phase: hook.phases[0],
            priority: Self::PRIORITY,
            deadline: None,
            on_fault: hook.on_fault,
            body: BodyNeed::Whole,
            rule: MatchRule::default(),
            entry: None,
        }
    }
}
