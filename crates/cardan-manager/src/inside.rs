//! The inside of one plugin: its configuration, its log, and what it left when it failed.

use cardan::{LogTail, Plugin};
use serde_json::Value;
use tokio::sync::watch;

use crate::control::{Activated, ControlError, missing};
use crate::manager::Manager;
use crate::resolve::settings;
use crate::spec::PluginSpec;

/// A stretch of the log of a plugin's active version.
#[derive(Debug, Clone)]
pub struct VersionLog {
    /// Whose it is: each version counts its lines from 1.
    pub version: u32,
    /// The lines.
    pub tail: LogTail,
}

impl Manager {
    /// What the guests of a plugin's active version logged after its line `after`, at most `max` lines of it, and
    /// without values of its configuration.
    ///
    /// # Errors
    ///
    /// [`ControlError::NotFound`].
    pub fn log_tail(&self, name: &str, after: u64, max: usize) -> Result<VersionLog, ControlError> {
        let (plugin, version) = self.active(name)?;
        let mut tail = plugin.log_tail(after, max);
        if !tail.lines.is_empty() {
            let spec = self.spec(name)?;
            tail.lines.iter_mut().for_each(|line| line.text = spec.redacted(&line.text, usize::MAX).into());
        }
        Ok(VersionLog { version, tail })
    }

    /// Changes with every line that the active version's guests log, for following [`Manager::log_tail`]. It ends
    /// with the version.
    ///
    /// # Errors
    ///
    /// [`ControlError::NotFound`].
    pub fn log_follow(&self, name: &str) -> Result<watch::Receiver<u64>, ControlError> {
        Ok(self.active(name)?.0.log_follow())
    }

    /// Gives a plugin that was loaded through the admin API another configuration, as a new version of it.
    /// Defaults of its manifest are filled in.
    ///
    /// # Errors
    ///
    /// Those of [`Manager::replace`]; [`ControlError::Refused`] when the manifest's schema refuses it.
    pub fn configure(&self, name: &str, mut config: Value) -> Result<Activated, ControlError> {
        let spec = self.spec(name)?;
        if let Some(schema) = &spec.config_schema {
            let wrong = settings::complete(&mut config, schema);
            wrong.map_err(|wrong| ControlError::Refused(format!("plugin {name}: {}", wrong.join("; "))))?;
        }
        self.replace(&PluginSpec { config, ..spec })
    }

    /// Has the next call of the active version that fails in its guest leave a core dump.
    ///
    /// # Errors
    ///
    /// [`ControlError::NotFound`].
    pub fn request_core_dump(&self, name: &str) -> Result<(), ControlError> {
        self.active(name)?.0.request_core_dump();
        Ok(())
    }

    /// The core dump that a call of the active version has left, once. It holds whatever the guest knew.
    ///
    /// # Errors
    ///
    /// [`ControlError::NotFound`] when there is no such plugin.
    pub fn take_core_dump(&self, name: &str) -> Result<Option<Vec<u8>>, ControlError> {
        Ok(self.active(name)?.0.take_core_dump())
    }

    fn active(&self, name: &str) -> Result<(Plugin, u32), ControlError> {
        let snapshot = self.snapshot();
        let installed = snapshot.find(name).ok_or_else(|| missing(name))?;
        Ok((installed.active.plugin().clone(), installed.active.number))
    }
}
