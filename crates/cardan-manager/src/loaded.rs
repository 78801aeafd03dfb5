//! A plugin and what it was loaded for.

use std::sync::Arc;

use cardan::Plugin;
use serde_json::Value;

use crate::spec::PluginSpec;

/// One plugin, loaded for a spec.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) spec: PluginSpec,
    pub(crate) plugin: Plugin,
}

impl Loaded {
    pub(crate) fn name(&self) -> &Arc<str> {
        self.plugin.name()
    }

    pub(crate) fn config(&self) -> &Value {
        &self.spec.config
    }

    /// Whether the plugin's file still holds what was loaded from it. A manifest of several modules is
    /// always loaded again.
    pub(crate) fn is_same_file(&self) -> bool {
        let now = cardan::file_digest(&self.spec.source);
        now.is_some_and(|digest| digest == self.plugin.inspection().digest)
    }
}
