//! One thread that works for many plugins in turn.
//!
//! A database connection is one at a time. So that a plugin which asks without end makes the others wait for
//! no more than one batch, each plugin has a queue of its own, and a batch takes from all of them in turn.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Jobs of one plugin that may be queued at once; those beyond wait for their turn to be queued.
const QUEUED_MAX: usize = 64;
/// Jobs that are done together.
const BATCH_MAX: usize = 128;
/// Jobs of one plugin among them: enough to share the cost of a commit, and few enough for the others, who
/// wait for the whole batch.
const BATCH_EACH_MAX: usize = 8;

/// A queue per plugin, of jobs for one thread.
pub(super) struct Lane<J> {
    queues: Mutex<Queues<J>>,
    filled: Condvar,
}

struct Queues<J> {
    plugins: BTreeMap<Arc<str>, Queue<J>>,
    /// Whom the last batch ended with.
    last: Option<Arc<str>>,
    closed: bool,
}

struct Queue<J> {
    jobs: VecDeque<(J, OwnedSemaphorePermit)>,
    room: Arc<Semaphore>,
}

impl<J> Lane<J> {
    pub(super) fn new() -> Self {
        let queues = Queues { plugins: BTreeMap::new(), last: None, closed: false };
        Self { queues: Mutex::new(queues), filled: Condvar::new() }
    }

    /// Queues a job, once the plugin has room for it. `false`: nobody works here any more.
    pub(super) async fn push(&self, plugin: &Arc<str>, job: J) -> bool {
        let room = self.queues().of(plugin).room.clone();
        let Ok(permit) = room.acquire_owned().await else { return false };
        let mut queues = self.queues();
        if queues.closed {
            return false;
        }
        queues.of(plugin).jobs.push_back((job, permit));
        drop(queues);
        self.filled.notify_one();
        true
    }

    /// Jobs to be done together, one of each plugin in turn; none when nothing came for `idle`, and `None`
    /// once the lane is closed.
    pub(super) fn next_batch(&self, idle: Duration) -> Option<Vec<J>> {
        let mut queues = self.queues();
        if queues.is_empty() && !queues.closed {
            let waited =
                self.filled.wait_timeout_while(queues, idle, |queues| queues.is_empty() && !queues.closed);
            queues = waited.map_or_else(|poisoned| poisoned.into_inner().0, |(queues, _)| queues);
        }
        if queues.closed && queues.is_empty() { None } else { Some(queues.batch()) }
    }

    /// No more jobs are taken; those that are queued are done.
    pub(super) fn close(&self) {
        self.queues().closed = true;
        self.filled.notify_all();
    }

    /// Nobody works here any more: what is queued is dropped.
    pub(super) fn abandon(&self) {
        let mut queues = self.queues();
        queues.closed = true;
        queues.plugins.clear();
    }

    fn queues(&self) -> MutexGuard<'_, Queues<J>> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<J> Queues<J> {
    fn of(&mut self, plugin: &Arc<str>) -> &mut Queue<J> {
        let new = || Queue { jobs: VecDeque::new(), room: Arc::new(Semaphore::new(QUEUED_MAX)) };
        self.plugins.entry(plugin.clone()).or_insert_with(new)
    }

    fn is_empty(&self) -> bool {
        self.plugins.values().all(|queue| queue.jobs.is_empty())
    }

    fn batch(&mut self) -> Vec<J> {
        let mut batch = Vec::new();
        let names: Vec<Arc<str>> = self.plugins.keys().cloned().collect();
        // Begins after whom the last one ended with.
        let first = self.last.as_ref().map_or(0, |last| names.partition_point(|name| name <= last));
        for _ in 0..BATCH_EACH_MAX {
            for name in names[first..].iter().chain(&names[..first]) {
                let job = self.plugins.get_mut(name).and_then(|queue| queue.jobs.pop_front());
                if let Some((job, _room)) = job {
                    batch.push(job);
                    self.last = Some(name.clone());
                }
                if batch.len() >= BATCH_MAX {
                    return batch;
                }
            }
        }
        batch
    }
}
