//! What a running guest uses up: memory, tables, time.

use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use cardan_api::Limits;
use tokio::sync::Notify;
use wasmtime::{ResourceLimiter, StoreContextMut, Trap, UpdateDeadline};

use crate::engine::nursery::Nursery;
use crate::engine::ticker::{Running, TICK, Ticker};
use crate::engine::turns::{LineId, Part};

pub(crate) const PAGE_BYTES: u64 = 1 << 16;
/// Ticks after which a call that runs inline counts as slow, and its plugin gets a fiber from then on.
const INLINE_TICKS: u64 = 2;
/// What a deadline of 0 means: loops end at once, and what returns at once succeeds, as in Extism's
/// reference, also when the machine is busy.
const AT_ONCE_MS: u64 = 8;
/// What a call that is done soon computes at most, in milliseconds on the guests' clock: one that goes on takes [turns](Turns).
const SHORT_MS: u64 = 2;
/// Long calls in a row after which a plugin's next one takes turns from the beginning.
const LONG_CALLS: u32 = 2;
/// Ticks between two looks at whether a long call was cancelled.
const SLICE_TICKS: u64 = 5;
/// How many plugins' idle instances have to give way to one that needs more memory.
const ROOM_TRIES: u32 = 16;

/// How a call runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pace {
    /// On the caller's stack, to its end.
    Inline,
    /// On a stack of its own: it may wait, and gives way at each tick.
    Suspendable,
}

/// The error with which a call ends that asked for more memory than it may have: the limit it met.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Exceeded {
    MemoryBytes(u64),
    TableElements(u64),
    GrowthPages(u64),
    /// The limit of all instances together.
    EngineBytes(u64),
}

impl fmt::Display for Exceeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MemoryBytes(max) => write!(f, "oom: its memories may have {max} bytes together"),
            Self::TableElements(max) => write!(f, "oom: its tables may have {max} elements together"),
            Self::GrowthPages(max) => write!(f, "oom: its memories may grow by {max} pages of 64 KiB"),
            Self::EngineBytes(max) => write!(f, "oom: {}", MemoryFull(*max)),
        }
    }
}

impl std::error::Error for Exceeded {}

/// The error with which an instance is not even made, since others have all the memory of the engine.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MemoryFull(u64);

impl fmt::Display for MemoryFull {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the instances of this process may have {} bytes of memory together; raise engine.memory \
             (EngineConfig::memory_bytes_max) to allow more",
            self.0
        )
    }
}

impl std::error::Error for MemoryFull {}

/// The linear memory that all instances of an engine may have together.
pub(crate) struct MemoryBudget {
    bytes_max: u64,
    bytes_taken: AtomicU64,
    /// Who can have idle instances give theirs back.
    nursery: Arc<Nursery>,
}

impl MemoryBudget {
    pub(crate) fn new(bytes_max: u64, nursery: Arc<Nursery>) -> Self {
        Self { bytes_max, bytes_taken: AtomicU64::new(0), nursery }
    }

    /// Takes some, unless there is too little. What does not fit is not taken for a moment either, so that
    /// it is in nobody's way.
    fn take(&self, bytes: u64) -> bool {
        let more = |taken: u64| taken.checked_add(bytes).filter(|taken| *taken <= self.bytes_max);
        self.bytes_taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }
}

/// What one instance has of a [`MemoryBudget`]. Given back when dropped.
struct Share {
    budget: Arc<MemoryBudget>,
    bytes: u64,
}

impl Share {
    fn grow(&mut self, bytes: u64) -> bool {
        for _ in 0..ROOM_TRIES {
            if self.budget.take(bytes) {
                self.bytes += bytes;
                return true;
            }
            let nursery = &self.budget.nursery;
            if bytes > self.budget.bytes_max || (!nursery.clear_spent() && !nursery.make_room()) {
                break;
            }
        }
        false
    }

    fn shrink(&mut self, bytes: u64) {
        self.bytes -= bytes;
        self.budget.bytes_taken.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.bytes_taken.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// What all instances of one plugin have come to, counted.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) alive: AtomicUsize,
    pub(crate) started: AtomicU64,
    pub(crate) memory_bytes_seen: AtomicU64,
}

/// One instance among them, alive until it is dropped.
struct Counted(Arc<Tally>);

impl Counted {
    fn new(tally: Arc<Tally>) -> Self {
        tally.alive.fetch_add(1, Ordering::Relaxed);
        Self(tally)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.alive.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Counts an instance's memory and tables.
pub(crate) struct Meter {
    memory_bytes_max: u64,
    memory_bytes_left: u64,
    table_elements_max: u64,
    table_elements_left: u64,
    growth: Option<Growth>,
    share: Option<Share>,
    counted: Counted,
    memory_bytes: u64,
    starting: bool,
    /// First sizes of the memories that were made after the start.
    late_bytes: u64,
    /// What was agreed to last and may yet fail.
    agreed_bytes: u64,
}

/// Extism's `max_pages`: a budget that all growth is taken from and that nothing is given back to.
#[derive(Debug)]
struct Growth {
    pages_max: u64,
    pages_left: u64,
}

impl Meter {
    pub(crate) fn new(limits: &Limits, budget: Option<&Arc<MemoryBudget>>, tally: Arc<Tally>) -> Self {
        let growth = limits.growth_pages_max.map(u64::from);
        Self {
            memory_bytes_max: limits.memory_bytes_max,
            memory_bytes_left: limits.memory_bytes_max,
            table_elements_max: limits.table_elements_max,
            table_elements_left: limits.table_elements_max,
            growth: growth.map(|pages| Growth { pages_max: pages, pages_left: pages }),
            share: budget.map(|budget| Share { budget: budget.clone(), bytes: 0 }),
            counted: Counted::new(tally),
            memory_bytes: 0,
            starting: true,
            late_bytes: 0,
            agreed_bytes: 0,
        }
    }

    /// Instantiation will ask for this many pages on the host's own account.
    pub(crate) fn allow_pages(&mut self, pages: u64) {
        self.memory_bytes_left = self.memory_bytes_left.saturating_add(pages * PAGE_BYTES);
        self.allow_growth(pages);
    }

    /// Instantiation will ask for this many pages that `max_pages` does not count.
    pub(crate) fn allow_growth(&mut self, pages: u64) {
        if let Some(growth) = &mut self.growth {
            growth.pages_left = growth.pages_left.saturating_add(pages);
        }
    }

    /// Whether memories that were made after the start take most of what the instance may have.
    pub(crate) fn is_crowded(&self) -> bool {
        self.late_bytes > self.memory_bytes_max / 2
    }

    /// Instantiation is over; from here on only growth counts against `max_pages`.
    pub(crate) fn started(&mut self) {
        self.starting = false;
        self.counted.0.started.fetch_add(1, Ordering::Relaxed);
        self.note_memory();
        if let Some(growth) = &mut self.growth {
            growth.pages_left = growth.pages_max;
        }
    }
}

impl Meter {
    fn note_memory(&self) {
        self.counted.0.memory_bytes_seen.fetch_max(self.memory_bytes, Ordering::Relaxed);
    }
}

impl ResourceLimiter for Meter {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        self.agreed_bytes = 0;
        // Beyond what the module declared, `memory.grow` answers -1 whatever we say.
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false);
        }
        let bytes = (desired - current) as u64;
        if let Some(growth) = &mut self.growth {
            match growth.pages_left.checked_sub(bytes.div_ceil(PAGE_BYTES)) {
                Some(left) => growth.pages_left = left,
                None => return Err(Exceeded::GrowthPages(growth.pages_max).into()),
            }
        }
        let Some(own_left) = self.memory_bytes_left.checked_sub(bytes) else {
            return Err(Exceeded::MemoryBytes(self.memory_bytes_max).into());
        };
        if let Some(share) = &mut self.share
            && !share.grow(bytes)
        {
            let max = share.budget.bytes_max;
            // The first size of a memory is what the instance cannot be made without.
            return Err(match self.starting && current == 0 {
                true => MemoryFull(max).into(),
                false => Exceeded::EngineBytes(max).into(),
            });
        }
        self.memory_bytes_left = own_left;
        self.agreed_bytes = bytes;
        self.memory_bytes += bytes;
        if !self.starting {
            self.note_memory();
        }
        if !self.starting && current == 0 {
            self.late_bytes += bytes;
        }
        Ok(true)
    }

    /// The engine had no room: `memory.grow` answers -1, and nothing was taken.
    fn memory_grow_failed(&mut self, _error: wasmtime::Error) -> wasmtime::Result<()> {
        let bytes = std::mem::take(&mut self.agreed_bytes);
        self.memory_bytes_left += bytes;
        self.memory_bytes -= bytes;
        if let Some(growth) = &mut self.growth {
            growth.pages_left += bytes.div_ceil(PAGE_BYTES);
        }
        if let Some(share) = &mut self.share {
            share.shrink(bytes);
        }
        Ok(())
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false);
        }
        match self.table_elements_left.checked_sub((desired - current) as u64) {
            Some(left) => self.table_elements_left = left,
            None => return Err(Exceeded::TableElements(self.table_elements_max).into()),
        }
        Ok(true)
    }
}

/// Stops calls from outside. Clones stop the same call.
#[derive(Debug, Clone, Default)]
pub struct CancelHandle(Arc<Cancelled>);

#[derive(Debug, Default)]
struct Cancelled {
    /// What a guest that computes is stopped by.
    requested: AtomicBool,
    /// What one that waits is woken by.
    wake: Notify,
}

impl CancelHandle {
    /// Ends the call in progress, if there is one, within a few milliseconds, as if its deadline had
    /// passed, whether the guest computes or waits. A later call is not affected.
    pub fn cancel(&self) {
        self.0.requested.store(true, Ordering::Relaxed);
        self.0.wake.notify_waiters();
    }

    pub(crate) fn is_requested(&self) -> bool {
        self.0.requested.load(Ordering::Relaxed)
    }

    /// Waits until the call is cancelled.
    pub(crate) async fn requested(&self) {
        loop {
            let mut wake = pin!(self.0.wake.notified());
            // From here on a wake-up is not lost, so the flag may be looked at.
            wake.as_mut().enable();
            if self.is_requested() {
                return;
            }
            wake.await;
        }
    }
}

/// An instance's clock: when the current call has to end, and how it gives way until then.
pub(crate) struct Clock {
    ticker: Arc<Ticker>,
    deadline_ms: Option<u64>,
    pace: Pace,
    cancelled: CancelHandle,
    part: Part,
    /// When the current call began, moved on by the time it spent outside of the guest.
    began_ms: u64,
    /// Since when the host works for the guest.
    outside_since_ms: Option<u64>,
    /// It has asked for a turn, and goes on because there is nothing left to wait for.
    asked: bool,
    haste: Arc<Haste>,
}

/// What a plugin's instances know of how soon its calls are done.
pub(crate) struct Haste {
    /// Set by the first call that ran inline for too long.
    slow: AtomicBool,
    /// How many calls in a row computed for long.
    long_calls: AtomicU32,
    line: LineId,
}

impl Default for Haste {
    fn default() -> Self {
        Self { slow: AtomicBool::new(false), long_calls: AtomicU32::new(0), line: LineId::next() }
    }
}

impl Haste {
    /// A call ran inline for too long.
    pub(crate) fn is_slow(&self) -> bool {
        self.slow.load(Ordering::Relaxed)
    }

    /// Whether the next call is expected to be done soon.
    fn is_brief(&self) -> bool {
        self.long_calls.load(Ordering::Relaxed) < LONG_CALLS
    }

    /// A call is over that computed for so long.
    fn note(&self, computed_ms: u64) {
        let long = computed_ms > SHORT_MS;
        let calls = self.long_calls.load(Ordering::Relaxed);
        let calls = if long { calls.saturating_add(1) } else { 0 };
        self.long_calls.store(calls, Ordering::Relaxed);
    }
}

impl Clock {
    pub(crate) fn new(ticker: Arc<Ticker>, haste: Arc<Haste>, cancelled: CancelHandle) -> Self {
        let part = ticker.turns().part(haste.line);
        Self {
            ticker,
            deadline_ms: None,
            pace: Pace::Inline,
            cancelled,
            part,
            began_ms: 0,
            outside_since_ms: None,
            asked: false,
            haste,
        }
    }

    /// Sets the deadline of the call that begins now. Returns the ticks until [`Clock::due`] wants to
    /// be asked. The ticker must be awake by then, or nothing would end the call. The call's turns end with `running`.
    pub(crate) fn begin(&mut self, running: &Running<'_>, deadline: Option<Duration>, pace: Pace) -> u64 {
        running.leaves(&self.part);
        self.cancelled.0.requested.store(false, Ordering::Relaxed);
        self.pace = pace;
        self.began_ms = self.ticker.elapsed_ms();
        self.outside_since_ms = None;
        self.deadline_ms = deadline.map(|deadline| {
            let ms = match u64::try_from(deadline.as_millis()) {
                Ok(0) => AT_ONCE_MS,
                Ok(ms) => ms,
                Err(_) => u64::MAX,
            };
            // The tick under way is not over yet, hence one more.
            self.began_ms.saturating_add(ms).saturating_add(1)
        });
        self.asked = false;
        match pace {
            Pace::Inline => self.slice(INLINE_TICKS),
            Pace::Suspendable if self.haste.is_brief() => 1,
            // It begins with waiting for its turn.
            Pace::Suspendable => 0,
        }
    }

    /// The call is over.
    pub(crate) fn end(&mut self) {
        // It may have ended while the host worked for it.
        self.step_inside();
        self.haste.note(self.computed_ms());
    }

    /// Time since the call began, without what it spent outside.
    fn computed_ms(&self) -> u64 {
        self.ticker.now_ms().saturating_sub(self.began_ms)
    }

    /// The guest waits for its host now: its turn is somebody else's, and the time does not count as computing.
    pub(crate) fn step_outside(&mut self) {
        self.part.leave();
        self.outside_since_ms = Some(self.ticker.now_ms());
    }

    /// The host is done.
    pub(crate) fn step_inside(&mut self) {
        if let Some(since) = self.outside_since_ms.take() {
            self.began_ms = self.began_ms.saturating_add(self.ticker.now_ms().saturating_sub(since));
        }
    }

    /// How the current call runs: whoever enters the guest has to enter it that way.
    pub(crate) fn pace(&self) -> Pace {
        self.pace
    }

    /// Time left of the current call; `None` without a deadline.
    pub(crate) fn left(&self) -> Option<Duration> {
        let deadline = self.deadline_ms?;
        Some(Duration::from_millis(deadline.saturating_sub(self.ticker.now_ms())))
    }

    pub(crate) fn cancel_handle(&self) -> CancelHandle {
        self.cancelled.clone()
    }

    pub(crate) fn part(&self) -> &Part {
        &self.part
    }

    pub(crate) fn ticker(&self) -> &Arc<Ticker> {
        &self.ticker
    }

    fn slice(&self, ticks: u64) -> u64 {
        let left = self
            .left()
            .map_or(u64::MAX, |left| u64::try_from(left.as_millis() / TICK.as_millis()).unwrap_or(u64::MAX));
        ticks.min(left).max(1)
    }

    /// What wasmtime asks at the end of each slice.
    fn due(&mut self) -> wasmtime::Result<UpdateDeadline> {
        let expired = self.deadline_ms.is_some_and(|deadline| self.ticker.now_ms() >= deadline);
        if expired || self.cancelled.is_requested() {
            return Err(Trap::Interrupt.into());
        }
        match self.pace {
            Pace::Inline => {
                self.haste.slow.store(true, Ordering::Relaxed);
                Ok(UpdateDeadline::Continue(self.slice(SLICE_TICKS)))
            }
            Pace::Suspendable if self.haste.is_brief() && self.computed_ms() <= SHORT_MS => {
                Ok(UpdateDeadline::Yield(1))
            }
            Pace::Suspendable if self.asked => {
                self.asked = false;
                Ok(UpdateDeadline::Continue(1))
            }
            Pace::Suspendable => {
                self.asked = true;
                let another = self.part.another(self.deadline_ms, self.cancelled.clone());
                // Then this is asked again at once: it may have been the deadline that was waited for.
                Ok(UpdateDeadline::YieldCustom(0, Box::pin(another)))
            }
        }
    }
}

/// What every convention's store holds beside its own state.
pub(crate) trait Metered: Send + 'static {
    fn clock(&mut self) -> &mut Clock;
    fn meter(&mut self) -> &mut Meter;
}

/// Puts a new store under its limits.
pub(crate) fn limit<T: Metered>(store: &mut wasmtime::Store<T>) {
    store.limiter(|state| state.meter());
    store.epoch_deadline_callback(|mut context: StoreContextMut<'_, T>| context.data_mut().clock().due());
}
