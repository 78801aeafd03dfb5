//! Who may use one of the connections of a pool.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};

use super::{CONNECTIONS_EACH, CONNECTIONS_MAX};

/// Turns of all plugins, of which one plugin has no more than half at once: what it does with them holds up
/// itself, and nobody else.
pub(super) struct Turns {
    all: Arc<Semaphore>,
    plugins: Mutex<HashMap<Arc<str>, Weak<Semaphore>>>,
}

/// A turn, until it is dropped.
pub(super) struct Turn {
    _of_all: OwnedSemaphorePermit,
    _of_plugin: OwnedSemaphorePermit,
}

impl Turns {
    pub(super) fn new() -> Self {
        Self { all: Arc::new(Semaphore::new(CONNECTIONS_MAX)), plugins: Mutex::default() }
    }

    /// Waits in the plugin's own queue first, so that it has no more than its share in the one of all.
    pub(super) async fn take(&self, plugin: &Arc<str>) -> Result<Turn, AcquireError> {
        let of_plugin = self.of(plugin).acquire_owned().await?;
        let of_all = self.all.clone().acquire_owned().await?;
        Ok(Turn { _of_all: of_all, _of_plugin: of_plugin })
    }

    /// The turns of one plugin, which are there while somebody has one or waits for one.
    fn of(&self, plugin: &Arc<str>) -> Arc<Semaphore> {
        let mut plugins = self.plugins.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = plugins.get(plugin).and_then(Weak::upgrade) {
            return known;
        }
        plugins.retain(|_, turns| turns.strong_count() > 0);
        let turns = Arc::new(Semaphore::new(CONNECTIONS_EACH));
        plugins.insert(plugin.clone(), Arc::downgrade(&turns));
        turns
    }
}
