//! What one request sees of the plugins, from its first hook to its last.

use std::sync::Arc;

use cardan::Plugin;

use crate::chain::Chains;
use crate::installed::Installed;
use crate::pairing::{Pairs, Slot};

/// An immutable set of plugins, the order in which they are asked, and what hosts keep beside them.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    pub(crate) generation: u64,
    pub(crate) plugins: Vec<Arc<Installed>>,
    pub(crate) chains: Arc<Chains>,
    pub(crate) pairs: Pairs,
}

impl Snapshot {
    /// The next one, with other plugins.
    pub(crate) fn with(&self, plugins: Vec<Arc<Installed>>, pairs: Pairs) -> Self {
        let chains = Arc::new(Chains::compile(&plugins));
        Self { generation: self.generation + 1, plugins, chains, pairs }
    }

    /// Counts the deployments of a manager, from 0 for the empty one.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The active versions, in the order of installation, those included that are switched off.
    pub fn plugins(&self) -> impl Iterator<Item = &Plugin> {
        self.plugins.iter().map(|installed| installed.active.plugin())
    }

    pub(crate) fn find(&self, name: &str) -> Option<&Arc<Installed>> {
        self.plugins.iter().find(|installed| &**installed.name() == name)
    }

    /// What the host with this slot keeps beside the plugins. `None` for a slot made after this snapshot,
    /// or by another manager.
    pub fn paired<T: Send + Sync + 'static>(&self, slot: &Slot<T>) -> Option<Arc<T>> {
        self.pairs.get(slot)
    }
}
