//! What every route is given.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cardan_manager::{ControlError, Manager};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::access::Access;
use crate::facade::smg::Registry;
use crate::host::Host;
use crate::problem::Problem;

/// Clients that follow events or logs at once.
const FOLLOWERS_MAX: usize = 64;

/// Clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct App {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    manager: Manager,
    host: Host,
    access: Access,
    /// Held during a change, from the reading of what it changes on.
    changing: Arc<tokio::sync::Mutex<()>>,
    followers: Arc<Semaphore>,
    smg: Registry,
    /// Plugins that LLMProxy's last hot swap changed, and the versions before.
    swapped: Mutex<Vec<(String, u32)>>,
}

impl App {
    pub(crate) fn new(manager: Manager, host: Host, access: Access) -> Self {
        let smg = Registry::open(&manager);
        let shared = Shared {
            manager,
            host,
            access,
            changing: Arc::default(),
            followers: Arc::new(Semaphore::new(FOLLOWERS_MAX)),
            smg,
            swapped: Mutex::default(),
        };
        Self { shared: Arc::new(shared) }
    }

    pub(crate) fn manager(&self) -> &Manager {
        &self.shared.manager
    }

    pub(crate) fn host(&self) -> &Host {
        &self.shared.host
    }

    pub(crate) fn access(&self) -> &Access {
        &self.shared.access
    }

    pub(crate) fn smg(&self) -> &Registry {
        &self.shared.smg
    }

    pub(crate) fn swapped(&self) -> MutexGuard<'_, Vec<(String, u32)>> {
        self.shared.swapped.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes plugins or the configuration: one change at a time, each to its end, also when its client has
    /// gone by then.
    pub(crate) async fn change<T: Send + 'static>(
        &self,
        work: impl FnOnce(&App) -> Result<T, Problem> + Send + 'static,
    ) -> Result<T, Problem> {
        let alone = self.shared.changing.clone().lock_owned().await;
        self.blocking(move |app| {
            let _alone = alone;
            work(app)
        })
        .await
    }

    /// A place among those who follow.
    pub(crate) fn follow(&self) -> Result<OwnedSemaphorePermit, Problem> {
        let permit = self.shared.followers.clone().try_acquire_owned();
        permit.map_err(|_| {
            Problem::unavailable(format!("{FOLLOWERS_MAX} clients follow already; try again later"))
        })
    }

    /// A change that is the manager's alone.
    pub(crate) async fn control<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Manager) -> Result<T, ControlError> + Send + 'static,
    ) -> Result<T, Problem> {
        self.change(move |app| work(app.manager()).map_err(Problem::from)).await
    }

    /// The same for what is about one plugin.
    pub(crate) async fn control_one<T: Send + 'static>(
        &self,
        plugin: &str,
        work: impl FnOnce(&Manager, &str) -> Result<T, ControlError> + Send + 'static,
    ) -> Result<T, Problem> {
        let name = plugin.to_owned();
        let done = self.control(move |manager| work(manager, &name)).await;
        done.map_err(|problem| problem.about(plugin))
    }

    /// Does what blocks where it may block.
    pub(crate) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&App) -> Result<T, Problem> + Send + 'static,
    ) -> Result<T, Problem> {
        let app = self.clone();
        let done = tokio::task::spawn_blocking(move || work(&app)).await;
        done.unwrap_or_else(|error| Err(Problem::internal(error)))
    }
}
