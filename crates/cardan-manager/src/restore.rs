//! Finding again what was active when the process ended.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use cardan_api::lifecycle::LifeReason;

use crate::installed::{Earlier, Installed};
use crate::ledger::{EventKind, Reason};
use crate::manager::Manager;
use crate::spec::Owner;
use crate::state::{PluginRecord, VersionRecord};
use crate::version::{Run, Version};

/// What [`Manager::restore`] found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Restored {
    /// Plugins that are active again, each in the version that was.
    pub plugins: Vec<String>,
    /// Those that are not. They are remembered until a plugin of the same name takes their place.
    pub lost: Vec<Lost>,
}

/// A plugin that was active and cannot be loaded any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lost {
    /// Its name.
    pub name: String,
    /// Who put it there, and so who may bring it back.
    pub owner: Owner,
    /// Whether it was asked.
    pub enabled: bool,
    /// Why.
    pub why: String,
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
                Err(why) => {
                    state.lose(record.clone());
                    restored.lost.push(Lost {
                        name: record.name.clone(),
                        owner: record.owner,
                        enabled: record.enabled,
                        why,
                    });
                }
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
        for Lost { name, why, .. } in &restored.lost {
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
            ..Installed::new(self.loaded_again(active)?)
        })
    }

    fn loaded_again(&self, record: &VersionRecord) -> Result<Arc<Version>, String> {
        let (spec, number) = (record.spec.clone(), record.number);
        let plugin = self.load_kept(&spec, &record.digest, LifeReason::Start)?;
        let loaded_at = SystemTime::UNIX_EPOCH + Duration::from_millis(record.loaded_at_ms);
        Ok(Arc::new(Version { number, spec, run: Arc::new(Run::new(plugin)), loaded_at }))
    }

    /// Remembers no more what was lost of this name. Whether anything was.
    ///
    /// # Errors
    ///
    /// When the state directory cannot be written.
    pub fn forget_lost(&self, name: &str) -> Result<bool, String> {
        let change = self.begin();
        let Some(state) = self.state().filter(|state| state.lost(name).is_some()) else { return Ok(false) };
        state.forget(name);
        let (plugins, pairs) = (change.old.plugins.clone(), change.old.pairs.clone());
        change.publish(plugins, pairs)?;
        Ok(true)
    }
}
