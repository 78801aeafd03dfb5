//! A plugin by name: the version that is asked, the one that is tried, and those that were.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use cardan_api::Fault;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::spec::PluginSpec;
use crate::state::{PluginRecord, VersionRecord};
use crate::version::Version;

/// One name among the plugins of a snapshot.
#[derive(Debug, Clone)]
pub(crate) struct Installed {
    /// What visits ask.
    pub(crate) active: Arc<Version>,
    /// What some of them ask in its place.
    pub(crate) canary: Option<Arc<Canary>>,
    /// The newest first.
    pub(crate) earlier: Vec<Arc<Earlier>>,
    /// The highest number that a version of it ever had.
    pub(crate) numbered: u32,
    /// Whether visits ask it at all.
    pub(crate) enabled: bool,
    /// What was rolled back from, or was no good as a canary: not activated again until its file changes.
    pub(crate) declined: Option<Declined>,
    /// Why what its source holds now is not what runs.
    pub(crate) trouble: Option<String>,
}

/// A module that is not to be activated by itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Declined {
    pub(crate) digest: String,
    /// What was wished when it was declined. A wish that differs is one for what runs.
    pub(crate) wish: Box<PluginSpec>,
}

/// A version that was active, and can be again.
#[derive(Debug)]
pub(crate) struct Earlier {
    pub(crate) record: VersionRecord,
    /// While it is still loaded. Otherwise its module is in the state directory.
    pub(crate) version: Option<Arc<Version>>,
}

/// A version that a share of visits asks.
#[derive(Debug)]
pub(crate) struct Canary {
    pub(crate) version: Arc<Version>,
    pub(crate) plan: CanaryPlan,
    calls: AtomicU32,
    faults: AtomicU32,
    /// From this moment on everybody asks the active version; the next snapshot is without it.
    stopped: AtomicBool,
    since: Instant,
}

/// How a canary is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CanaryPlan {
    /// Visits that ask it, in 10,000.
    pub share: u32,
    /// Faults in 10,000 calls beyond which it is stopped.
    pub faults_max: u32,
    /// Calls before that is judged. Three faults that are most of its calls stop it at once.
    pub calls_min: u32,
    /// After this long, and `calls_min` calls, without being stopped it becomes the active version. `None`:
    /// when an operator says so.
    pub promote_after: Option<Duration>,
}

impl Default for CanaryPlan {
    /// One visit in ten; stopped beyond one fault in twenty calls, after twenty calls.
    fn default() -> Self {
        Self { share: 1_000, faults_max: 500, calls_min: 20, promote_after: None }
    }
}

impl Installed {
    pub(crate) fn new(version: Arc<Version>) -> Self {
        Self {
            numbered: version.number,
            active: version,
            canary: None,
            earlier: Vec::new(),
            enabled: true,
            declined: None,
            trouble: None,
        }
    }

    pub(crate) fn name(&self) -> &Arc<str> {
        self.active.name()
    }

    pub(crate) fn spec(&self) -> &PluginSpec {
        &self.active.spec
    }

    /// The number of the next version.
    pub(crate) fn next_number(&self) -> u32 {
        self.numbered + 1
    }

    /// The same with another version active; the one before can be rolled back to.
    pub(crate) fn with_active(&self, version: Arc<Version>) -> Self {
        let keep = usize::try_from(version.spec.versions_kept).unwrap_or(usize::MAX);
        let mut earlier = self.earlier.clone();
        earlier.insert(0, Arc::new(Earlier::of(self.active.clone())));
        earlier.retain(|earlier| earlier.record.number != version.number);
        earlier.truncate(keep);
        let canary = self.canary.clone().filter(|canary| canary.version.number != version.number);
        let numbered = self.numbered.max(version.number);
        Self { active: version, earlier, canary, numbered, declined: None, trouble: None, ..self.clone() }
    }

    /// For the state directory.
    pub(crate) fn record(&self) -> PluginRecord {
        let earlier = self.earlier.iter().map(|earlier| earlier.record.clone());
        PluginRecord {
            name: self.name().to_string(),
            owner: self.spec().owner,
            numbered: self.numbered,
            enabled: self.enabled,
            declined: self.declined.clone(),
            versions: std::iter::once(self.active.record()).chain(earlier).collect(),
        }
    }

    pub(crate) fn declined_digest(&self) -> Option<&str> {
        self.declined.as_ref().map(|declined| declined.digest.as_str())
    }

    /// The version for a visit that drew this lot.
    pub(crate) fn canary_for(&self, lot: u32) -> Option<&Arc<Canary>> {
        self.canary.as_ref().filter(|canary| lot < canary.plan.share && !canary.is_stopped())
    }
}

impl Earlier {
    pub(crate) fn of(version: Arc<Version>) -> Self {
        Self { record: version.record(), version: Some(version) }
    }
}

impl Canary {
    pub(crate) fn new(version: Arc<Version>, plan: CanaryPlan) -> Self {
        Self {
            version,
            plan,
            calls: AtomicU32::new(0),
            faults: AtomicU32::new(0),
            stopped: AtomicBool::new(false),
            since: Instant::now(),
        }
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    /// Whether it has done well for long enough, and was asked often enough, to become the active version.
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        let long_enough = |after| now.saturating_duration_since(self.since) >= after;
        self.plan.promote_after.is_some_and(long_enough)
            && self.calls.load(Ordering::Relaxed) >= self.plan.calls_min
            && !self.is_stopped()
    }

    /// So many calls, and so many faults among them.
    pub(crate) fn score(&self) -> (u32, u32) {
        (self.calls.load(Ordering::Relaxed), self.faults.load(Ordering::Relaxed))
    }

    /// Counts a call. Says why the canary is stopped, to the one call that stops it.
    pub(crate) fn judge(&self, fault: Option<Fault>) -> Option<String> {
        let calls = self.calls.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        let fault = fault?;
        let faults = self.faults.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        let most = faults >= 3 && faults.saturating_mul(2) > calls;
        let too_many = calls >= self.plan.calls_min
            && u64::from(faults) * 10_000 > u64::from(self.plan.faults_max) * u64::from(calls);
        let first = (most || too_many) && !self.stopped.swap(true, Ordering::AcqRel);
        first.then(|| format!("{faults} of {calls} calls failed, the last with the fault {fault}"))
    }
}
