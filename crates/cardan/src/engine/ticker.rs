//! The clock that interrupts guests.
//!
//! One thread advances the epoch of every wasmtime engine each millisecond. Stores have deadlines of
//! their own in these ticks, so that stopping one call never touches another. While no guest runs, the
//! thread sleeps and costs nothing.

use std::sync::atomic::{AtomicBool, AtomicIsize, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use wasmtime::EngineWeak;

use super::turns::{Part, Turns};

/// Time between two ticks.
pub(crate) const TICK: Duration = Duration::from_millis(1);
/// Ticks without a running guest after which the thread goes to sleep.
const IDLE_TICKS: u32 = 200;
/// Counters of running guests; each thread uses one, so that they do not share a cache line.
const STRIPES: usize = 16;

#[repr(align(128))]
#[derive(Default)]
struct Stripe(AtomicIsize);

pub(crate) struct Ticker {
    started: Instant,
    /// Milliseconds since `started`, as of the last tick.
    now: AtomicU64,
    running: [Stripe; STRIPES],
    asleep: AtomicBool,
    thread: OnceLock<Thread>,
    driven: Mutex<Vec<EngineWeak>>,
    turns: Arc<Turns>,
    /// Threads woken at each tick while something is to be done for them.
    followers: Mutex<Vec<(Weak<AtomicBool>, Thread)>>,
}

/// Held while a guest may run.
pub(crate) struct Running<'a> {
    ticker: &'a Ticker,
    stripe: usize,
    /// Whose turns end with it.
    part: OnceLock<Part>,
}

impl Ticker {
    pub(crate) fn start(turns: Arc<Turns>) -> Arc<Self> {
        let ticker = Arc::new(Self {
            started: Instant::now(),
            now: AtomicU64::new(0),
            running: Default::default(),
            asleep: AtomicBool::new(false),
            thread: OnceLock::new(),
            driven: Mutex::default(),
            turns,
            followers: Mutex::default(),
        });
        let weak = Arc::downgrade(&ticker);
        match thread::Builder::new().name("cardan-ticker".to_owned()).spawn(move || tick(&weak)) {
            Ok(handle) => {
                let _ = ticker.thread.set(handle.thread().clone());
            }
            Err(error) => tracing::error!(%error, "no thread for the guests' clock: deadlines cannot fire"),
        }
        ticker
    }

    /// Advances `engine`'s epoch from now on, as long as it lives.
    pub(crate) fn drive(&self, engine: &wasmtime::Engine) {
        self.driven.lock().unwrap_or_else(PoisonError::into_inner).push(engine.weak());
    }

    /// Wakes `thread` at each tick at which `wanted` is set.
    pub(crate) fn follow(&self, wanted: &Arc<AtomicBool>, thread: Thread) {
        let follower = (Arc::downgrade(wanted), thread);
        self.followers.lock().unwrap_or_else(PoisonError::into_inner).push(follower);
    }

    /// Keeps the clock running until the returned value is dropped.
    pub(crate) fn enter(&self) -> Running<'_> {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        thread_local! {
            static STRIPE: usize = NEXT.fetch_add(1, Ordering::Relaxed) % STRIPES;
        }
        let stripe = STRIPE.with(|stripe| *stripe);
        // Pairs with the fence-like order in `tick`: either it sees this guest, or we see it asleep.
        self.running[stripe].0.fetch_add(1, Ordering::SeqCst);
        if self.asleep.load(Ordering::SeqCst) {
            self.wake();
        }
        Running { ticker: self, stripe, part: OnceLock::new() }
    }

    pub(crate) fn turns(&self) -> &Arc<Turns> {
        &self.turns
    }

    /// Milliseconds on the guests' clock, as of the last tick: behind by one, by more where the ticker gets
    /// no time, and by any time while nothing runs. A deadline is not before its time by this clock if it
    /// was set by [`Ticker::elapsed_ms`].
    pub(crate) fn now_ms(&self) -> u64 {
        self.now.load(Ordering::Relaxed)
    }

    fn wake(&self) {
        self.now.store(self.elapsed_ms(), Ordering::Relaxed);
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }

    /// Milliseconds on the guests' clock, read from the system's.
    pub(crate) fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn is_idle(&self) -> bool {
        self.running.iter().map(|stripe| stripe.0.load(Ordering::SeqCst)).sum::<isize>() == 0
    }

    fn advance(&self) {
        self.now.store(self.elapsed_ms(), Ordering::Relaxed);
        self.driven.lock().unwrap_or_else(PoisonError::into_inner).retain(|engine| {
            let engine = engine.upgrade();
            if let Some(engine) = &engine {
                engine.increment_epoch();
            }
            engine.is_some()
        });
        self.turns.release_overdue(self.now_ms());
        self.followers.lock().unwrap_or_else(PoisonError::into_inner).retain(|(wanted, thread)| {
            let wanted = wanted.upgrade();
            if wanted.as_ref().is_some_and(|wanted| wanted.load(Ordering::Relaxed)) {
                thread.unpark();
            }
            wanted.is_some()
        });
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }
}

impl Running<'_> {
    /// Has turns that `part` gets end when nothing runs any longer.
    pub(crate) fn leaves(&self, part: &Part) {
        let _ = self.part.set(part.clone());
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if let Some(part) = self.part.get() {
            part.leave();
        }
        self.ticker.running[self.stripe].0.fetch_sub(1, Ordering::SeqCst);
    }
}

fn tick(weak: &Weak<Ticker>) {
    let mut idle = 0;
    loop {
        thread::sleep(TICK);
        let Some(ticker) = weak.upgrade() else { return };
        ticker.asleep.store(false, Ordering::SeqCst);
        ticker.advance();
        idle = if ticker.is_idle() { idle + 1 } else { 0 };
        if idle < IDLE_TICKS {
            continue;
        }
        idle = 0;
        ticker.asleep.store(true, Ordering::SeqCst);
        let idle_still = ticker.is_idle();
        drop(ticker);
        if idle_still {
            // A wake-up without reason costs one tick and nothing else.
            thread::park();
        }
    }
}
