//! Versions that serve no new visit, until their last visit has ended and they were told.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use cardan_api::lifecycle::{LifeReason, PluginUnload};

use crate::installed::Installed;
use crate::snapshot::Snapshot;
use crate::version::{Run, Version};

/// Versions that wait. Beyond that the oldest go without having been told.
const WAITING_MAX: usize = 1_024;

/// Versions with something to do when they go.
#[derive(Debug, Default)]
pub(crate) struct Retiring {
    /// Whether anybody will ever tell them.
    is_supervised: AtomicBool,
    waiting: Mutex<Vec<Retired>>,
}

/// One of them.
#[derive(Debug)]
pub(crate) struct Retired {
    pub(crate) run: Arc<Run>,
    /// The author's.
    pub(crate) version: String,
    pub(crate) config: serde_json::Value,
    pub(crate) reason: LifeReason,
}

impl Retired {
    pub(crate) fn of(version: &Version, reason: LifeReason) -> Self {
        let spec = &version.spec;
        Self { run: version.run.clone(), version: spec.version.clone(), config: spec.config.clone(), reason }
    }
}

impl Retiring {
    pub(crate) fn supervise(&self) {
        self.is_supervised.store(true, Ordering::Relaxed);
    }

    /// Notes who is in the one snapshot and not in the other.
    pub(crate) fn note(&self, before: &Snapshot, now: &Snapshot) {
        if !self.is_supervised.load(Ordering::Relaxed) {
            return;
        }
        let stays = |run: &Arc<Run>| {
            now.plugins
                .iter()
                .flat_map(|plugin| plugin.loaded())
                .any(|version| Arc::ptr_eq(&version.run, run))
        };
        for plugin in &before.plugins {
            let is_there = now.find(plugin.name()).is_some();
            let reason = if is_there { LifeReason::Reload } else { LifeReason::Remove };
            for version in plugin.loaded().filter(|version| is_told(version) && !stays(&version.run)) {
                let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
                if waiting.iter().any(|waits| Arc::ptr_eq(&waits.run, &version.run)) {
                    continue;
                }
                if waiting.len() >= WAITING_MAX {
                    waiting.remove(0);
                }
                waiting.push(Retired::of(version, reason));
            }
        }
    }

    /// Those whom no visit sees any more.
    pub(crate) fn take(&self) -> Vec<Retired> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.extract_if(.., |retired| Arc::strong_count(&retired.run) == 1).collect()
    }
}

/// Whether a version has something to do when it goes.
pub(crate) fn is_told(version: &Version) -> bool {
    version.plugin().entry_of::<PluginUnload>().is_some()
}

impl Installed {
    /// Its versions that are in memory.
    fn loaded(&self) -> impl Iterator<Item = &Arc<Version>> {
        let canary = self.canary.iter().map(|canary| &canary.version);
        let earlier = self.earlier.iter().filter_map(|earlier| earlier.version.as_ref());
        std::iter::once(&self.active).chain(canary).chain(earlier)
    }
}
