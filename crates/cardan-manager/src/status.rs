//! How plugins are doing, for people and dashboards.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use cardan::{SnapshotState, Tier, Usage};
use cardan_api::{BodyNeed, Capability, Dialect, Fault, FaultPolicy, InstanceMode, Limits, Phase};
use serde::Serialize;
use serde_json::Value;

use crate::chain::{Binding, bindings};
use crate::control::{ControlError, missing};
use crate::installed::{Canary, CanaryPlan, Earlier, Installed};
use crate::manager::Manager;
use crate::seat::Seat;
use crate::spec::{About, BindingSpec, HealthPolicy, Owner};
use crate::state::VersionRecord;
use crate::tally::HookCounts;
use crate::version::Version;

/// Most bytes of why there is no snapshot, which may quote the guest.
const REASON_BYTES_MAX: usize = 1 << 10;

/// One plugin, as it stands.
#[derive(Debug, Clone)]
pub struct PluginStatus {
    /// Unique.
    pub name: String,
    /// What its author says.
    pub about: About,
    /// Who put it here.
    pub owner: Owner,
    /// Where its file is.
    pub source: PathBuf,
    /// Whether visits ask it.
    pub enabled: bool,
    /// How it is doing.
    pub state: State,
    /// Faults without a verdict between them.
    pub faults_in_a_row: u32,
    /// Why what its source holds now is not what runs.
    pub trouble: Option<String>,
    /// The active version.
    pub active: VersionStatus,
    /// The version that some visits try.
    pub canary: Option<CanaryStatus>,
    /// Versions that can be rolled back to, the newest first.
    pub earlier: Vec<VersionStatus>,
    /// Where it is asked.
    pub bindings: Vec<BindingStatus>,
    /// What it may use up.
    pub limits: Limits,
    /// Its configuration. Values may be secret: not for everybody's eyes.
    pub config: Value,
    /// What that has to look like, if its manifest says so.
    pub config_schema: Option<Value>,
    /// When it is taken out.
    pub health: HealthPolicy,
    /// Capabilities that its manifest asks for.
    pub requested: Option<Vec<Capability>>,
    /// Capabilities that its imports need.
    pub needed: Vec<Capability>,
}

/// How a plugin is doing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum State {
    /// It is asked.
    Running,
    /// It is switched off.
    Disabled,
    /// It kept failing, and its bindings' fault policies decide.
    Quarantined {
        /// When a visit tries it again, in milliseconds since 1970.
        until_ms: u64,
        /// Faults in a row.
        faults: u32,
    },
}

impl State {
    /// The word alone.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Disabled => "disabled",
            Self::Quarantined { .. } => "quarantined",
        }
    }
}

/// One version of a plugin.
#[derive(Debug, Clone)]
pub struct VersionStatus {
    /// Counts from 1 within the name.
    pub number: u32,
    /// The author's version, for people.
    pub version: String,
    /// SHA-256 of its module.
    pub digest: String,
    /// Bytes of its modules.
    pub size_bytes: u64,
    /// The convention its functions are called in.
    pub abi: String,
    /// The documents it understands.
    pub dialect: Option<Dialect>,
    /// How long its instances live.
    pub mode: InstanceMode,
    /// When it was loaded.
    pub loaded_at: SystemTime,
    /// Whether its code is in memory. An earlier version may have to be read again first.
    pub loaded: bool,
    /// Which compiler made its code; `None` where that is not in memory.
    pub tier: Option<Tier>,
    /// Whether its instances begin where initialisation ended; `None` where its code is not in memory.
    pub snapshot: Option<SnapshotState>,
    /// Instances that wait for a call.
    pub ready_instances: usize,
    /// What its instances use.
    pub usage: Usage,
    /// What it was asked, hook by hook.
    pub counts: Vec<HookCounts>,
    /// Times it was asked at `plugin.tick`, and how many of them failed.
    pub ticks: (u64, u64),
}

impl VersionStatus {
    /// Questions at all hooks together.
    pub fn calls(&self) -> u64 {
        self.counts.iter().map(|counts| counts.calls).sum()
    }

    /// Faults of all kinds at all hooks.
    pub fn faults(&self) -> u64 {
        self.counts.iter().flat_map(|counts| &counts.faults).map(|(_, count)| count).sum()
    }

    /// Faults by kind, over all hooks.
    pub fn faults_by_kind(&self) -> BTreeMap<&'static str, u64> {
        let mut kinds = BTreeMap::new();
        for (fault, count) in self.counts.iter().flat_map(|counts| &counts.faults) {
            *kinds.entry(Fault::label(*fault)).or_default() += count;
        }
        kinds
    }

    /// Mean time of a question, over all hooks; zero before the first.
    pub fn mean(&self) -> Duration {
        let durations = self.counts.iter().map(|counts| &counts.durations);
        let (count, sum) =
            durations.fold((0, 0.0), |(count, sum), it| (count + it.count, sum + it.sum_seconds));
        if count == 0 { Duration::ZERO } else { Duration::from_secs_f64(sum / count as f64) }
    }
}

/// A version that some visits try.
#[derive(Debug, Clone)]
pub struct CanaryStatus {
    /// The version.
    pub version: VersionStatus,
    /// How it is tried.
    pub plan: CanaryPlan,
    /// Calls so far.
    pub calls: u32,
    /// Faults among them.
    pub faults: u32,
    /// Whether it failed too often, so that nobody asks it any more.
    pub stopped: bool,
}

/// One plugin at one hook.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BindingStatus {
    /// The plugin.
    pub plugin: String,
    /// The hook.
    pub hook: &'static str,
    /// Where in the hook.
    pub phase: Phase,
    /// Lower is asked earlier within the phase.
    pub priority: i32,
    /// What follows from a fault.
    pub on_fault: FaultPolicy,
    /// How much of the body it is shown.
    pub body: BodyNeed,
    /// Time of one call; the plugin's own where there is none.
    pub deadline_ms: Option<u64>,
    /// The export that is called, where it is not the dialect's.
    pub entry: Option<String>,
    /// Patterns on the path, on the host, and methods. Empty ones match all.
    pub paths: Vec<String>,
    /// As `paths`.
    pub hosts: Vec<String>,
    /// As `paths`.
    pub methods: Vec<String>,
}

/// The order in which plugins are asked at one hook.
#[derive(Debug, Clone, Serialize)]
pub struct ChainStatus {
    /// The hook.
    pub hook: &'static str,
    /// In order.
    pub bindings: Vec<BindingStatus>,
}

impl Manager {
    /// Every plugin, in the order of installation.
    pub fn plugins(&self) -> Vec<PluginStatus> {
        self.snapshot().plugins.iter().map(|installed| self.status_of(installed)).collect()
    }

    /// One plugin.
    ///
    /// # Errors
    ///
    /// [`ControlError::NotFound`].
    pub fn plugin(&self, name: &str) -> Result<PluginStatus, ControlError> {
        let snapshot = self.snapshot();
        let installed = snapshot.find(name).ok_or_else(|| missing(name))?;
        Ok(self.status_of(installed))
    }

    /// Who is asked at which hook, in order. Plugins that are switched off are in none.
    pub fn chains(&self) -> Vec<ChainStatus> {
        let snapshot = self.snapshot();
        let chain = |seat: Seat| {
            let bindings = snapshot.chains.at(seat).iter();
            let bindings = bindings.map(|Binding { plugin, spec }| BindingStatus::of(plugin.name(), spec));
            ChainStatus { hook: seat.hook(), bindings: bindings.collect() }
        };
        Seat::ALL.into_iter().map(chain).collect()
    }

    fn status_of(&self, installed: &Installed) -> PluginStatus {
        let active = &installed.active;
        let spec = installed.spec();
        let state = match active.run.health.quarantined_until_ms() {
            _ if !installed.enabled => State::Disabled,
            Some(until_ms) => State::Quarantined {
                until_ms: self.ledger().unix_ms(until_ms),
                faults: active.run.health.faults_in_a_row(),
            },
            None => State::Running,
        };
        let bound = bindings(active).unwrap_or_default();
        PluginStatus {
            name: spec.name.clone(),
            about: spec.about.clone(),
            owner: spec.owner,
            source: spec.source.clone(),
            enabled: installed.enabled,
            state,
            faults_in_a_row: active.run.health.faults_in_a_row(),
            trouble: installed.trouble.clone(),
            active: version_status(active),
            canary: installed.canary.as_deref().map(canary_status),
            earlier: installed.earlier.iter().map(|earlier| earlier_status(earlier)).collect(),
            bindings: bound.iter().map(|binding| BindingStatus::of(&spec.name, binding)).collect(),
            limits: spec.limits.clone(),
            config: spec.config.clone(),
            config_schema: spec.config_schema.clone(),
            health: spec.health,
            requested: spec.requested.as_ref().map(|asked| asked.iter().copied().collect()),
            needed: active.plugin().inspection().capabilities.clone(),
        }
    }
}

fn version_status(version: &Version) -> VersionStatus {
    let ticks = &version.run.ticks;
    let snapshot = match version.plugin().snapshot_state() {
        SnapshotState::Refused(why) => SnapshotState::Refused(version.spec.redacted(&why, REASON_BYTES_MAX)),
        state => state,
    };
    VersionStatus {
        loaded: true,
        tier: Some(version.plugin().tier()),
        snapshot: Some(snapshot),
        ready_instances: version.plugin().ready_instances(),
        usage: version.plugin().usage(),
        counts: version.run.tally.counts(),
        ticks: (ticks.asked.load(Ordering::Relaxed), ticks.failed.load(Ordering::Relaxed)),
        ..recorded_status(&version.record())
    }
}

fn earlier_status(earlier: &Earlier) -> VersionStatus {
    match &earlier.version {
        Some(version) => version_status(version),
        None => recorded_status(&earlier.record),
    }
}

fn recorded_status(record: &VersionRecord) -> VersionStatus {
    VersionStatus {
        number: record.number,
        version: record.spec.version.clone(),
        digest: record.digest.clone(),
        size_bytes: record.size_bytes,
        abi: record.abi.clone(),
        dialect: record.dialect,
        mode: record.mode,
        loaded_at: SystemTime::UNIX_EPOCH + Duration::from_millis(record.loaded_at_ms),
        loaded: false,
        tier: None,
        snapshot: None,
        ready_instances: 0,
        usage: Usage::default(),
        counts: Vec::new(),
        ticks: (0, 0),
    }
}

fn canary_status(canary: &Canary) -> CanaryStatus {
    let (calls, faults) = canary.score();
    let (version, stopped) = (version_status(&canary.version), canary.is_stopped());
    CanaryStatus { version, plan: canary.plan, calls, faults, stopped }
}

impl BindingStatus {
    fn of(plugin: &str, spec: &BindingSpec) -> Self {
        let texts = |patterns: &[glob::Pattern]| patterns.iter().map(ToString::to_string).collect();
        Self {
            plugin: plugin.to_owned(),
            hook: spec.hook.name,
            phase: spec.phase,
            priority: spec.priority,
            on_fault: spec.on_fault,
            body: spec.body,
            deadline_ms: spec.deadline.map(|it| u64::try_from(it.as_millis()).unwrap_or(u64::MAX)),
            entry: spec.entry.clone(),
            paths: texts(&spec.rule.paths),
            hosts: texts(&spec.rule.hosts),
            methods: spec.rule.methods.clone(),
        }
    }
}
