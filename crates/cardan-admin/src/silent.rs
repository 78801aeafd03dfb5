//! Connections on which nothing was asked yet.
//!
//! Whoever can reach the port can open as many as there are places, and ask nothing. So the first head has to
//! come soon, and where places run out the oldest of these connections makes room: probes ask at once.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

/// A client may take this long for its first head.
const FIRST_HEAD: Duration = Duration::from_secs(5);

/// Clones are the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Silent {
    connections: Arc<Mutex<Connections>>,
}

#[derive(Debug, Default)]
struct Connections {
    /// Numbers them in the order of their coming.
    next: u64,
    /// What hangs up on each.
    waiting: BTreeMap<u64, oneshot::Sender<()>>,
}

/// A connection's first head, which is expected.
#[derive(Clone, Debug)]
pub(crate) struct FirstHead {
    silent: Silent,
    number: u64,
}

impl Silent {
    /// Another connection, and what ends when it has to be closed: before it has asked anything, or never.
    pub(crate) fn expect(&self) -> (FirstHead, impl Future<Output = ()> + use<>) {
        let (hang_up, hung_up) = oneshot::channel();
        let mut connections = self.lock();
        let number = connections.next;
        connections.next += 1;
        connections.waiting.insert(number, hang_up);
        let overdue = async move {
            // The other end is dropped once the head is there.
            if let Ok(Err(_)) = tokio::time::timeout(FIRST_HEAD, hung_up).await {
                std::future::pending::<()>().await;
            }
        };
        (FirstHead { silent: self.clone(), number }, overdue)
    }

    /// Closes the one that has been silent for longest, if there is one.
    pub(crate) fn close_oldest(&self) {
        if let Some((_, hang_up)) = self.lock().waiting.pop_first() {
            // It may be ending by itself.
            let _ = hang_up.send(());
        }
    }

    fn lock(&self) -> MutexGuard<'_, Connections> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl FirstHead {
    /// It is there, or its connection has ended.
    pub(crate) fn arrived(&self) {
        self.silent.lock().waiting.remove(&self.number);
    }
}
