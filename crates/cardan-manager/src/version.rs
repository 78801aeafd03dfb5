//! One version of a plugin.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::SystemTime;

use cardan::Plugin;
use serde_json::Value;

use crate::health::Health;
use crate::spec::PluginSpec;
use crate::state::VersionRecord;
use crate::tally::Tally;

/// One version of a plugin: what was wished, and what runs for it.
///
/// Two versions may share what runs, if they differ only in where it is asked.
#[derive(Debug)]
pub(crate) struct Version {
    /// Counts from 1 within a name, and never goes back.
    pub(crate) number: u32,
    pub(crate) spec: PluginSpec,
    pub(crate) run: Arc<Run>,
    pub(crate) loaded_at: SystemTime,
}

/// What runs, and how it has been doing.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) plugin: Plugin,
    pub(crate) health: Health,
    pub(crate) tally: Tally,
    pub(crate) ticks: Ticks,
}

/// Ticks of one version.
#[derive(Debug, Default)]
pub(crate) struct Ticks {
    pub(crate) asked: AtomicU64,
    pub(crate) failed: AtomicU64,
    /// One is under way.
    pub(crate) busy: AtomicBool,
}

impl Run {
    pub(crate) fn new(plugin: Plugin) -> Self {
        Self { plugin, health: Health::default(), tally: Tally::default(), ticks: Ticks::default() }
    }
}

impl Version {
    pub(crate) fn name(&self) -> &Arc<str> {
        self.run.plugin.name()
    }

    pub(crate) fn plugin(&self) -> &Plugin {
        &self.run.plugin
    }

    pub(crate) fn config(&self) -> &Value {
        &self.spec.config
    }

    pub(crate) fn digest(&self) -> &str {
        &self.run.plugin.inspection().digest
    }

    /// For the state directory.
    pub(crate) fn record(&self) -> VersionRecord {
        let inspection = self.plugin().inspection();
        let since = self.loaded_at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        VersionRecord {
            number: self.number,
            digest: inspection.digest.clone(),
            size_bytes: inspection.size_bytes,
            abi: inspection.abi.name().to_owned(),
            dialect: self.plugin().dialect(),
            mode: self.plugin().mode(),
            loaded_at_ms: u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
            spec: self.spec.clone(),
        }
    }

    /// Whether the plugin's file still holds what was loaded from it. A manifest of several modules is
    /// always loaded again.
    pub(crate) fn is_same_file(&self) -> bool {
        let now = cardan::file_digest(&self.spec.source);
        now.is_some_and(|digest| digest == self.digest())
    }
}
