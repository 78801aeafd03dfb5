//! A plugin's instances: how many there may be, who gets which, and what becomes of one after a call.

use std::collections::VecDeque;
use std::num::NonZero;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use cardan_api::{Fault, InstanceMode};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::Error;
use crate::abi::extism::Vars;
use crate::abi::{Guest, Template};
use crate::engine::nursery::{Nursed, Nursery};
use crate::engine::visit_slots::VisitSlots;
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
    plan: PoolPlan,
    mode: InstanceMode,
    ready_wanted: usize,
    ready_max: usize,
    /// What each visit's instance is taken from beside the permits, and how much of it.
    visit_slots: Option<(VisitSlots, u32)>,
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
#[expect(dead_code, reason = "held for its destructor")]
pub(crate) struct Permit {
    instance: OwnedSemaphorePermit,
    visit_slots: Option<OwnedSemaphorePermit>,
}

/// What a plugin's pools have in common, while one takes the place of another.
pub(crate) struct Common {
    permits: Arc<Semaphore>,
    queue_max: usize,
    waiting: AtomicUsize,
    pub(crate) vars: Arc<Vars>,
}

impl Common {
    /// With so many instances at once, and so many calls that may wait for one of them.
    pub(crate) fn new(instances_max: u32, queue_max: u32) -> Arc<Self> {
        Arc::new(Self {
            permits: Arc::new(Semaphore::new(instances_max.max(1) as usize)),
            queue_max: queue_max as usize,
            waiting: AtomicUsize::new(0),
            vars: Arc::default(),
        })
    }
}

/// What the pool is set up with.
#[derive(Clone)]
pub(crate) struct PoolPlan {
    pub(crate) mode: InstanceMode,
    pub(crate) common: Arc<Common>,
    /// Instances to keep ready ahead of calls.
    pub(crate) ready_wanted: u32,
    pub(crate) nursery: Arc<Nursery>,
    /// What visits of all plugins may keep.
    pub(crate) visit_slots: VisitSlots,
}

impl Pool {
    pub(crate) fn new(template: Template, plan: PoolPlan) -> Arc<Self> {
        let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
        let ready_wanted = plan.ready_wanted as usize;
        let slots = template.pool_slots();
        let visits = plan.mode == InstanceMode::Visit && slots > 0;
        Arc::new_cyclic(|this| Self {
            template,
            mode: plan.mode,
            ready_wanted,
            ready_max: ready_wanted + threads * KEPT_PER_THREAD,
            visit_slots: visits.then(|| (plan.visit_slots.clone(), slots)),
            nursery: plan.nursery.clone(),
            plan,
            this: this.clone(),
            asked: AtomicBool::new(false),
            listed: AtomicBool::new(false),
            idle: Mutex::default(),
            spent: Mutex::default(),
        })
    }

    /// A pool that can take this one's place.
    pub(crate) fn successor(&self, template: Template) -> Arc<Self> {
        Self::new(template, self.plan.clone())
    }

    /// Waits for the right to an instance, at most as long as the call may take. Returns what is left of
    /// that time.
    pub(crate) async fn permit(
        &self,
        deadline: Option<Duration>,
    ) -> Result<(Permit, Option<Duration>), Error> {
        let own = self.acquire(&self.plan.common.permits, 1, deadline).await?;
        let (instance, deadline) = own.ok_or_else(|| {
            busy(
                "all instances of the plugin are in use; raise limits.instances of the plugin \
                 (Limits::instances_max) to allow more",
            )
        })?;
        let Some((of_all, slots)) = &self.visit_slots else {
            return Ok((Permit { instance, visit_slots: None }, deadline));
        };
        // More than there are would never come.
        let count = of_all.max.min(*slots);
        let kept = self.acquire(&of_all.free, count, deadline).await?;
        let (kept, deadline) = kept.ok_or_else(|| {
            busy(format!(
                "visits keep all {} slots of the pool that visits of all plugins may keep; raise engine.instances \
                 (EngineConfig::pool_instances) to allow more",
                of_all.max
            ))
        })?;
        Ok((Permit { instance, visit_slots: Some(kept) }, deadline))
    }

    /// Waits for some of `permits`, at most for `left`, unless too many wait already. Returns what is left of
    /// that time; `None` when it is over.
    async fn acquire(
        &self,
        permits: &Arc<Semaphore>,
        count: u32,
        left: Option<Duration>,
    ) -> Result<Option<(OwnedSemaphorePermit, Option<Duration>)>, Error> {
        if let Ok(permit) = permits.clone().try_acquire_many_owned(count) {
            return Ok(Some((permit, left)));
        }
        let Common { waiting, queue_max, .. } = &*self.plan.common;
        let _waiting = Waiting::enter(waiting, *queue_max).ok_or_else(|| {
            busy(format!(
                "{queue_max} calls wait for an instance already; raise limits.queue of the plugin \
                 (Limits::queue_max) to let more wait, or limits.instances to have them served"
            ))
        })?;
        Ok(acquire(permits, count, left).await)
    }

    /// How many calls wait for an instance to be free.
    pub(crate) fn waiting(&self) -> usize {
        self.plan.common.waiting.load(Ordering::Relaxed)
    }

    /// A ready instance, else one that can be put back to its beginning, else a new one.
    pub(crate) async fn take(&self) -> Result<Guest, Error> {
        let ready = lock(&self.idle).pop();
        if !self.template.rewinds() {
            self.ask_for_more();
        }
        match ready.or_else(|| self.put_back_used()) {
            Some(guest) => Ok(guest),
            // Apart: a call that finds one ready does not carry the room for making one.
            None => Box::pin(self.make()).await,
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

    pub(crate) fn vars(&self) -> &Arc<Vars> {
        &self.plan.common.vars
    }

    /// A new instance for the plugin's calls.
    pub(crate) async fn make(&self) -> Result<Guest, Error> {
        self.with_room(|| self.template.instantiate(self.vars().clone())).await
    }

    /// Makes a new instance. If the process has no room for one, used instances of this and of other
    /// plugins are cleared away first, then those that only wait in case they are needed: a new version
    /// finds the place taken by what its predecessors left.
    pub(crate) async fn with_room<F, G>(&self, make: impl Fn() -> F) -> Result<G, Error>
    where
        F: Future<Output = Result<G, Error>>,
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

    /// Takes an instance back after calls that went well.
    pub(crate) fn put_back(&self, guest: Guest) {
        match self.mode {
            InstanceMode::Shared if !guest.is_spent() && !guest.is_worn() => {
                lock(&self.idle).served.push(guest);
                self.list();
            }
            InstanceMode::Fresh | InstanceMode::Visit if self.template.rewinds() => self.keep(guest),
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
        self.list();
    }

    /// Has the nursery know that instances here can give way.
    fn list(&self) {
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
        let others = {
            let mut idle = lock(&self.idle);
            let kept = idle.ready.len().min(self.ready_wanted);
            let ready = idle.ready.split_off(kept);
            let used = std::mem::take(&mut idle.used);
            // The one that would serve next stays: it has what the plugin remembers.
            let next = idle.served.pop();
            let served = std::mem::take(&mut idle.served);
            idle.served.extend(next);
            Idle { ready, used, served }
        };
        !others.used.is_empty() || others.callable() > 0
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
            match runtime::block_on(self.template.instantiate(self.vars().clone())) {
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

/// A call among those that wait, until it is dropped.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn enter(waiting: &'a AtomicUsize, max: usize) -> Option<Self> {
        let more = |now: usize| (now < max).then_some(now + 1);
        waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok().map(|_| Self(waiting))
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Waits for some of `permits`, at most for `left`. Returns what is left of that time.
async fn acquire(
    permits: &Arc<Semaphore>,
    count: u32,
    left: Option<Duration>,
) -> Option<(OwnedSemaphorePermit, Option<Duration>)> {
    let since = Instant::now();
    let waited = permits.clone().acquire_many_owned(count);
    let permit = tokio::time::timeout(left.unwrap_or(WAIT_MAX), waited).await.ok()?.ok()?;
    Some((permit, left.map(|left| left.saturating_sub(since.elapsed()))))
}

fn busy(why: impl Into<String>) -> Error {
    Error::call(Fault::Busy, why)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
