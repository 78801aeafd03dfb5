//! Connections on which nothing is asked.
//!
//! Whoever can reach the port can open as many as there are places, and ask nothing, or nothing more. So the
//! next head has to come soon, and where places run out the connection that has waited for longest makes room:
//! probes ask at once.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};

/// A client may take this long for a whole head, from connecting or from the end of the last answer.
const NEXT_HEAD: Duration = Duration::from_secs(5);

/// Clones are the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Silent {
    connections: Arc<Mutex<Connections>>,
    /// Another one waits.
    grown: Arc<Notify>,
}

#[derive(Debug, Default)]
struct Connections {
    /// Numbers waits in the order of their beginning.
    next: u64,
    /// Those that wait.
    waiting: BTreeMap<u64, Arc<watch::Sender<Phase>>>,
}

impl Connections {
    /// Whether there was one to close.
    fn close_oldest(&mut self) -> bool {
        let oldest = self.waiting.pop_first();
        oldest.is_some_and(|(_, phase)| phase.send_replace(Phase::Closed) != Phase::Closed)
    }
}

/// What a connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Waiting for a head, under this number.
    Waiting(u64),
    /// Being answered.
    Answering,
    /// The answer is complete, and its last bytes may not have been taken yet.
    Flushing,
    /// To be closed.
    Closed,
}

/// The place of one connection. Clones are the same; the connection itself calls [`Place::leave`].
#[derive(Clone, Debug)]
pub(crate) struct Place {
    silent: Silent,
    phase: Arc<watch::Sender<Phase>>,
}

impl Silent {
    /// Another connection, which waits for its first head.
    pub(crate) fn enter(&self) -> Place {
        let place = Place { silent: self.clone(), phase: Arc::new(watch::Sender::new(Phase::Flushing)) };
        place.flushed();
        place
    }

    /// Closes the one that has waited for longest, once there is one.
    pub(crate) async fn close_oldest(&self) {
        loop {
            if self.lock().close_oldest() {
                return;
            }
            // One that begins to wait in between leaves its permit here.
            self.grown.notified().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Connections> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// A head is there.
    pub(crate) fn asked(&self) {
        self.turn(|phase| (phase != Phase::Closed).then_some(Phase::Answering));
    }

    /// Nothing more comes of the answer.
    pub(crate) fn answered(&self) {
        self.turn(|phase| (phase == Phase::Answering).then_some(Phase::Flushing));
    }

    /// All that was written so far was taken.
    pub(crate) fn flushed(&self) {
        if *self.phase.borrow() != Phase::Flushing {
            return;
        }
        let mut connections = self.silent.lock();
        let number = connections.next;
        connections.next += 1;
        connections.waiting.insert(number, self.phase.clone());
        self.phase.send_replace(Phase::Waiting(number));
        drop(connections);
        self.silent.grown.notify_one();
    }

    /// The connection has ended.
    pub(crate) fn leave(&self) {
        self.turn(|_| Some(Phase::Closed));
    }

    fn turn(&self, next: impl FnOnce(Phase) -> Option<Phase>) {
        let mut connections = self.silent.lock();
        let before = *self.phase.borrow();
        let Some(next) = next(before) else { return };
        if let Phase::Waiting(number) = before {
            connections.waiting.remove(&number);
        }
        self.phase.send_replace(next);
    }

    /// Ends when the connection has to be closed: when it has waited for too long, or another one needs its place.
    pub(crate) fn overdue(&self) -> impl Future<Output = ()> + use<> {
        let mut phases = self.phase.subscribe();
        async move {
            loop {
                let phase = *phases.borrow_and_update();
                let changed = match phase {
                    Phase::Closed => return,
                    Phase::Waiting(_) => match tokio::time::timeout(NEXT_HEAD, phases.changed()).await {
                        Ok(changed) => changed,
                        Err(_) => return,
                    },
                    Phase::Answering | Phase::Flushing => phases.changed().await,
                };
                if changed.is_err() {
                    return std::future::pending().await;
                }
            }
        }
    }
}

/// Tells a place that its answer is complete, or was given up.
#[derive(Debug)]
pub(crate) struct Answering(pub(crate) Place);

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.answered();
    }
}
