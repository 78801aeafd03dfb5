//! A plugin's instances: how many there may be, who gets which, and what becomes of one after a call.

use std::collections::VecDeque;
use std::num::NonZero;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use cardan_api::{Fault, InstanceMode};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError};

use crate::Error;
use crate::abi::extism::{Guest, Template, Vars};
use crate::engine::nursery::{Nursed, Nursery};
use crate::runtime;

/// Used instances that wait to be cleared away. Beyond that, callers clear away their own.
const SPENT_MAX: usize = 64;
/// How often, and after which time, an instance is asked for again when the process has no room for one.
const FULL_TRIES: u32 = 8;
const FULL_PAUSE: Duration = Duration::from_millis(1);
/// Instances that were put back to their beginning and wait for a call, for each thread of the machine
/// that could call one, beside those that are wanted anyway.
const KEPT_PER_THREAD: usize = 1;
/// How long a call without a deadline waits for an instance.
const WAIT_MAX: Duration = Duration::from_secs(30);

/// A plugin's instances.
pub(crate) struct Pool {
    pub(crate) template: Template,
    pub(crate) vars: Arc<Vars>,
    mode: InstanceMode,
    ready_wanted: usize,
    ready_max: usize,
    permits: Arc<Semaphore>,
    nursery: Arc<Nursery>,
    this: Weak<Pool>,
    asked: AtomicBool,
    /// The nursery knows that instances here can give way.
    listed: AtomicBool,
    idle: Mutex<Idle>,
    /// Instances that served and are to be thrown away.
    spent: Mutex<Vec<Guest>>,
}

/// Instances that wait to be called.
#[derive(Default)]
struct Idle {
    /// Those that nobody has called yet, or that are as good as new.
    ready: Vec<Guest>,
    /// Those that are to be put back to their beginning, the longest unused first.
    used: VecDeque<Guest>,
    /// Those of shared plugins that served and may serve again.
    served: Vec<Guest>,
}

impl Idle {
    /// One that served before others, since what it remembers is why it is shared.
    fn pop(&mut self) -> Option<Guest> {
        self.served.pop().or_else(|| self.ready.pop())
    }

    /// How many can be called as they are.
    fn callable(&self) -> usize {
        self.ready.len() + self.served.len()
    }
}

/// The right to have one more instance. Given back when dropped.
pub(crate) struct Permit(#[expect(dead_code, reason = "held for its destructor")] OwnedSemaphorePermit);

/// What the pool is set up with.
pub(crate) struct PoolPlan {
    pub(crate) mode: InstanceMode,
    pub(crate) instances_max: u32,
    /// Instances to keep ready ahead of calls.
    pub(crate) ready_wanted: u32,
}

impl Pool {
    pub(crate) fn new(template: Template, plan: &PoolPlan, nursery: Arc<Nursery>) -> Arc<Self> {
        let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
        let ready_wanted = plan.ready_wanted.min(plan.instances_max) as usize;
        Arc::new_cyclic(|this| Self {
            template,
            vars: Arc::default(),
            mode: plan.mode,
            ready_wanted,
            ready_max: ready_wanted + threads * KEPT_PER_THREAD,
            permits: Arc::new(Semaphore::new(plan.instances_max.max(1) as usize)),
            nursery,
            this: this.clone(),
            asked: AtomicBool::new(false),
            listed: AtomicBool::new(false),
            idle: Mutex::default(),
            spent: Mutex::default(),
        })
    }

    /// Waits for the right to an instance, at most as long as the call may take. Returns what is left of
    /// that time.
    pub(crate) async fn permit(
        &self,
        deadline: Option<Duration>,
    ) -> Result<(Permit, Option<Duration>), Error> {
        match self.permits.clone().try_acquire_owned() {
            Ok(permit) => return Ok((Permit(permit), deadline)),
            Err(TryAcquireError::NoPermits) => {}
            Err(TryAcquireError::Closed) => return Err(Error::host("the plugin's instances are gone")),
        }
        let busy = || {
            Error::call(
                Fault::Busy,
                "all instances of the plugin are in use; raise instances_max to allow more",
            )
        };
        let since = Instant::now();
        let waited = tokio::time::timeout(deadline.unwrap_or(WAIT_MAX), self.permits.clone().acquire_owned());
        match waited.await {
            Ok(Ok(permit)) => {
                Ok((Permit(permit), deadline.map(|deadline| deadline.saturating_sub(since.elapsed()))))
            }
            Ok(Err(_)) | Err(_) => Err(busy()),
        }
    }

    /// A ready instance, else one that can be put back to its beginning, else a new one.
    pub(crate) async fn take(&self) -> Result<Guest, Error> {
        let ready = lock(&self.idle).pop();
        if !self.template.rewinds() {
            self.ask_for_more();
        }
        match ready.or_else(|| self.put_back_used()) {
            Some(guest) => Ok(guest),
            None => self.make().await,
        }
    }

    /// The instance that was used last, whose memory is likely to be near, as good as new.
    fn put_back_used(&self) -> Option<Guest> {
        loop {
            let used = lock(&self.idle).used.pop_back()?;
            if let Some(guest) = self.template.rewound(used) {
                return Some(guest);
            }
        }
    }

    /// A new instance for the plugin's calls.
    pub(crate) async fn make(&self) -> Result<Guest, Error> {
        self.with_room(|| self.template.instantiate(self.vars.clone())).await
    }

    /// Makes a new instance. If the process has no room for one, used instances of this and of other
    /// plugins are cleared away first, then those that only wait in case they are needed: a new version
    /// finds the place taken by what its predecessors left.
    pub(crate) async fn with_room<F>(&self, make: impl Fn() -> F) -> Result<Guest, Error>
    where
        F: Future<Output = Result<Guest, Error>>,
    {
        let mut made = make().await;
        for _ in 0..FULL_TRIES {
            if !made.as_ref().is_err_and(|error| error.fault() == Fault::Busy) {
                break;
            }
            let own = self.clear_spent();
            if !self.nursery.clear_spent() && !own && !self.nursery.make_room() {
                // The nursery may have them, and be about to clear them away itself.
                tokio::time::sleep(FULL_PAUSE).await;
            }
            made = make().await;
        }
        made
    }

    /// Takes an instance back after a call that went well.
    pub(crate) fn put_back(&self, guest: Guest) {
        match self.mode {
            InstanceMode::Shared if !guest.is_spent() => lock(&self.idle).served.push(guest),
            InstanceMode::Fresh if self.template.rewinds() => self.keep(guest),
            _ => self.discard(guest),
        }
    }

    /// Keeps an instance for a later call, which will find it as it was before its first one. Where
    /// instances are wanted ahead of calls, putting it back is not this caller's work.
    fn keep(&self, guest: Guest) {
        {
            let idle = lock(&self.idle);
            if idle.ready.len() + idle.used.len() >= self.ready_max {
                return;
            }
        }
        if self.ready_wanted > 0 {
            lock(&self.idle).used.push_back(guest);
            self.ask_for_more();
        } else if let Some(guest) = self.template.rewound(guest) {
            lock(&self.idle).ready.push(guest);
        }
        if !self.listed.load(Ordering::Relaxed) && !self.listed.swap(true, Ordering::Relaxed) {
            self.nursery.keeps(self.this.clone());
        }
    }

    /// Clears an instance away, if possible later and elsewhere.
    pub(crate) fn discard(&self, guest: Guest) {
        let mut spent = lock(&self.spent);
        if self.ready_wanted > 0 && spent.len() < SPENT_MAX {
            spent.push(guest);
        }
        drop(spent);
        self.ask_for_more();
    }

    /// Adds an instance made at load, if instances are wanted ahead of calls at all: the instances of
    /// plugins that nobody calls would be missing where somebody does.
    pub(crate) fn stock(&self, guest: Guest) {
        if self.ready_wanted > 0 {
            lock(&self.idle).ready.push(guest);
            self.ask_for_more();
        }
    }

    /// How many instances wait to be called.
    pub(crate) fn ready_count(&self) -> usize {
        lock(&self.idle).callable()
    }

    fn ask_for_more(&self) {
        if self.ready_wanted > 0
            && !self.asked.load(Ordering::Relaxed)
            && !self.asked.swap(true, Ordering::Relaxed)
        {
            self.nursery.ask(self.this.clone());
        }
    }
}

impl Nursed for Pool {
    fn clear_spent(&self) -> bool {
        let spent = std::mem::take(&mut *lock(&self.spent));
        !spent.is_empty()
    }

    fn give_way(&self) -> bool {
        self.listed.store(false, Ordering::Relaxed);
        let (ready, used) = {
            let mut idle = lock(&self.idle);
            let kept = idle.ready.len().min(self.ready_wanted);
            (idle.ready.split_off(kept), std::mem::take(&mut idle.used))
        };
        !ready.is_empty() || !used.is_empty()
    }

    fn tend(&self) {
        self.asked.store(false, Ordering::Relaxed);
        self.clear_spent();
        while lock(&self.idle).callable() < self.ready_wanted {
            let used = lock(&self.idle).used.pop_front();
            if let Some(used) = used {
                if let Some(guest) = self.template.rewound(used) {
                    lock(&self.idle).ready.push(guest);
                }
                continue;
            }
            match runtime::block_on(self.template.instantiate(self.vars.clone())) {
                Ok(guest) => lock(&self.idle).ready.push(guest),
                Err(error) => {
                    // The next call makes its own instance and reports why it cannot.
                    tracing::debug!(%error, "no instance made ahead");
                    return;
                }
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
