//! What happened: the visits of late with every decision, and what became of plugins.
//!
//! Everything here is bounded, and the newest pushes out the oldest. Who wants all of it follows.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use cardan_api::Fault;
use serde::Serialize;
use tokio::sync::broadcast;
use tokio::time::Instant;

use crate::decision::{Decision, TraceContext};

/// Visits that are kept.
const VISITS_MAX: usize = 1_024;
/// Events that are kept.
const EVENTS_MAX: usize = 1_024;
/// How far somebody who follows may fall behind.
const BEHIND_MAX: usize = 4_096;

/// What happened under one manager. Clones are the same ledger.
#[derive(Debug, Clone)]
pub struct Ledger {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    began: Instant,
    began_at: SystemTime,
    visits: Mutex<VecDeque<Arc<VisitRecord>>>,
    events: Mutex<Events>,
    live_visits: broadcast::Sender<Arc<VisitRecord>>,
    live_events: broadcast::Sender<Arc<Event>>,
}

#[derive(Debug, Default)]
struct Events {
    next: u64,
    kept: VecDeque<Arc<Event>>,
}

/// One visit that asked somebody, from its opening to its end.
#[derive(Debug, Clone)]
pub struct VisitRecord {
    /// As in the header `x-request-id`.
    pub id: String,
    /// Where the client's own trace goes on, if it sent one.
    pub trace: Option<TraceContext>,
    /// The snapshot it saw.
    pub generation: u64,
    /// When it was opened.
    pub began_at: SystemTime,
    /// From its opening to its end.
    pub duration: Duration,
    /// Method, host and path, as the first plugin was shown them, in a line of bounded length.
    pub subject: String,
    /// In order, of bounded number.
    pub decisions: Vec<Decision>,
    /// Those beyond.
    pub decisions_not_kept: u64,
}

/// Something that became of a plugin, or of all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Event {
    /// Counts from 1, without gaps.
    pub seq: u64,
    /// Milliseconds since 1970.
    pub at_ms: u64,
    /// The plugin's name, if it is about one.
    pub plugin: Option<String>,
    /// What happened.
    #[serde(flatten)]
    pub kind: EventKind,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum EventKind {
    /// A snapshot took effect.
    Applied {
        /// Its number.
        generation: u64,
    },
    /// A version is asked from now on.
    Activated {
        /// Its number within the name.
        version: u32,
        /// SHA-256 of its module.
        digest: String,
        /// What led to it.
        reason: Reason,
    },
    /// A version could not be activated. What ran before still runs.
    NotActivated {
        /// Why.
        why: String,
    },
    /// It is asked no more, until it is enabled.
    Disabled,
    /// It is asked again.
    Enabled,
    /// It is gone.
    Removed,
    /// It kept failing: its bindings' fault policies decide until it is tried again.
    Quarantined {
        /// The version.
        version: u32,
        /// Faults in a row.
        faults: u32,
        /// The last of them.
        last: Fault,
        /// When a visit tries it again, in milliseconds since 1970.
        until_ms: u64,
    },
    /// It gave a verdict again.
    Recovered {
        /// The version.
        version: u32,
    },
    /// An operator let it in again.
    Released {
        /// The version.
        version: u32,
    },
    /// A share of visits asks this version.
    CanaryStarted {
        /// The version.
        version: u32,
        /// In 10,000 visits.
        permyriad: u32,
    },
    /// The canary failed too often, or an operator stopped it: everybody asks the active version again.
    CanaryStopped {
        /// The version.
        version: u32,
        /// Why.
        why: String,
    },
}

/// What led to a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// It is new.
    Load,
    /// Its file or its configuration changed.
    Reload,
    /// An earlier version was put back.
    Rollback,
    /// A canary did well.
    Promotion,
    /// The process started again.
    Restart,
}

impl Ledger {
    pub(crate) fn new() -> Self {
        let shared = Shared {
            began: Instant::now(),
            began_at: SystemTime::now(),
            visits: Mutex::default(),
            events: Mutex::new(Events { next: 1, kept: VecDeque::new() }),
            live_visits: broadcast::channel(BEHIND_MAX).0,
            live_events: broadcast::channel(BEHIND_MAX).0,
        };
        Self { shared: Arc::new(shared) }
    }

    /// Milliseconds since this ledger was opened.
    pub(crate) fn ms(&self, at: Instant) -> u64 {
        millis(at.saturating_duration_since(self.shared.began))
    }

    /// The time of day of a moment.
    pub(crate) fn time_of(&self, at: Instant) -> SystemTime {
        self.shared.began_at + at.saturating_duration_since(self.shared.began)
    }

    /// Milliseconds since 1970 for milliseconds of this ledger.
    pub(crate) fn unix_ms(&self, ms: u64) -> u64 {
        let began = self.shared.began_at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        millis(began).saturating_add(ms)
    }

    pub(crate) fn event(&self, plugin: Option<&str>, kind: EventKind) {
        let at_ms = self.unix_ms(self.ms(Instant::now()));
        let mut events = lock(&self.shared.events);
        let event = Arc::new(Event { seq: events.next, at_ms, plugin: plugin.map(str::to_owned), kind });
        tracing::info!(target: "cardan::event", plugin, event = ?event.kind, "plugins");
        events.next += 1;
        push(&mut events.kept, event.clone(), EVENTS_MAX);
        // Nobody follows.
        let _ = self.shared.live_events.send(event);
    }

    pub(crate) fn visit(&self, record: VisitRecord) {
        let record = Arc::new(record);
        push(&mut lock(&self.shared.visits), record.clone(), VISITS_MAX);
        if self.shared.live_visits.receiver_count() > 0 {
            let _ = self.shared.live_visits.send(record);
        }
    }

    /// The last 1,024 visits that asked somebody, the newest first.
    pub fn visits(&self) -> Vec<Arc<VisitRecord>> {
        lock(&self.shared.visits).iter().rev().cloned().collect()
    }

    /// The events after this number that are still kept, the oldest first. 0 asks for all.
    pub fn events_after(&self, seq: u64) -> Vec<Arc<Event>> {
        lock(&self.shared.events).kept.iter().filter(|event| event.seq > seq).cloned().collect()
    }

    /// Visits from now on, as they end. Who falls behind by thousands loses the oldest, and is told.
    pub fn follow_visits(&self) -> broadcast::Receiver<Arc<VisitRecord>> {
        self.shared.live_visits.subscribe()
    }

    /// Events from now on.
    pub fn follow_events(&self) -> broadcast::Receiver<Arc<Event>> {
        self.shared.live_events.subscribe()
    }
}

impl Default for Ledger {
    fn default() -> Self {
        Self::new()
    }
}

fn push<T>(kept: &mut VecDeque<T>, new: T, max: usize) {
    if kept.len() >= max {
        kept.pop_front();
    }
    kept.push_back(new);
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
