//! Finding again what was active when the process ended.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use cardan_api::lifecycle::LifeReason;

use crate::installed::{Earlier, Installed};
use crate::ledger::{EventKind, Reason};
use crate::manager::Manager;
use crate::state::{PluginRecord, VersionRecord};
use crate::version::{Run, Version};

/// What [`Manager::restore`] found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Restored {
    /// Plugins that are active again, each in the version that was.
    pub plugins: Vec<String>,
    /// Those that are not, and why.
    pub lost: Vec<(String, String)>,
}

impl Manager {
    /// Activates what was active when the process that last held the state directory ended, file by file
    /// from the modules that are kept there, whatever their sources hold by now. To be called once, before
    /// a deployment is applied: that then finds its plugins loaded, or replaces them.
    ///
    /// # Errors
    ///
    /// When the state directory cannot be written. A plugin that cannot be loaded any more is among the
    /// lost and in nobody's way.
    pub fn restore(&self) -> Result<Restored, String> {
        let change = self.begin();
        let Some(state) = self.state() else { return Ok(Restored::default()) };
        let (mut plugins, mut restored) = (Vec::new(), Restored::default());
        for record in &state.found().plugins {
            match self.restored(record) {
                Ok(installed) => {
                    restored.plugins.push(record.name.clone());
                    plugins.push(Arc::new(installed));
                }
                Err(why) => restored.lost.push((record.name.clone(), why)),
            }
        }
        if restored == Restored::default() {
            return Ok(restored);
        }
        let versions: Vec<Arc<Version>> = plugins.iter().map(|plugin| plugin.active.clone()).collect();
        let pairs = change.old.pairs.clone();
        change.publish(plugins, pairs)?;
        for version in versions {
            let (number, digest) = (version.number, version.digest().to_owned());
            let kind = EventKind::Activated { version: number, digest, reason: Reason::Restart };
            self.ledger().event(Some(version.name()), kind);
        }
        for (name, why) in &restored.lost {
            self.ledger().event(Some(name), EventKind::NotActivated { why: why.clone() });
        }
        Ok(restored)
    }

    fn restored(&self, record: &PluginRecord) -> Result<Installed, String> {
        let (active, earlier) = record.versions.split_first().ok_or("it has no version")?;
        let earlier = earlier.iter().map(|record| Earlier { record: record.clone(), version: None });
        Ok(Installed {
            numbered: record.numbered,
            enabled: record.enabled,
            declined: record.declined.clone(),
            earlier: earlier.map(Arc::new).collect(),
            ..Installed::new(self.loaded_again(active, LifeReason::Start)?)
        })
    }

    /// An earlier version, loaded.
    pub(crate) fn revive(&self, earlier: &Earlier) -> Result<Arc<Version>, String> {
        earlier.version.clone().map_or_else(|| self.loaded_again(&earlier.record, LifeReason::Rollback), Ok)
    }

    fn loaded_again(&self, record: &VersionRecord, reason: LifeReason) -> Result<Arc<Version>, String> {
        let spec = &record.spec;
        let kept = self.state().map(|state| state.artifact(&record.digest)).filter(|kept| kept.exists());
        // A manifest of several modules is not kept.
        let plugin = self.load_from(spec, kept.as_deref().unwrap_or(&spec.source), reason)?;
        let found = &plugin.inspection().digest;
        if *found != record.digest {
            return Err(format!(
                "plugin {}: version {} had the digest {}, and what is left of it has {found}",
                spec.name, record.number, record.digest
            ));
        }
        let loaded_at = SystemTime::UNIX_EPOCH + Duration::from_millis(record.loaded_at_ms);
        let version =
            Version { number: record.number, spec: spec.clone(), run: Arc::new(Run::new(plugin)), loaded_at };
        Ok(Arc::new(version))
    }
}
