//! Makes instances before they are needed, and clears used ones away, off the callers' path.
//!
//! Callers never wake this thread, which would cost them more than an instance does: they set a flag,
//! and the ticker, which is awake anyway while guests run, passes it on within a millisecond. A plugin
//! that is called faster than that finds no instance ready and makes its own.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::Duration;

use super::ticker::Ticker;

/// How long the thread sleeps at most, to notice that its engine is gone.
const CHECK: Duration = Duration::from_secs(5);

/// Something with instances to make or to clear away.
pub(crate) trait Nursed: Send + Sync {
    /// Brings the number of ready instances to what it should be. Called on the nursery's thread.
    fn tend(&self);
    /// Clears used instances away. Returns whether there were any. Called on callers' threads, when the
    /// process has no room for another instance.
    fn clear_spent(&self) -> bool;
    /// Throws away instances that only wait in case they are needed again. Returns whether there were any.
    /// Called as [`Nursed::clear_spent`] is.
    fn give_way(&self) -> bool;
}

#[derive(Default)]
pub(crate) struct Nursery {
    wanted: Arc<AtomicBool>,
    waiting: Mutex<Vec<Weak<dyn Nursed>>>,
    /// Those with instances that can give way, the longest kept first.
    keeping: Mutex<VecDeque<Weak<dyn Nursed>>>,
}

impl Nursery {
    pub(crate) fn start(ticker: &Ticker) -> Arc<Self> {
        let nursery = Arc::new(Self::default());
        let weak = Arc::downgrade(&nursery);
        match thread::Builder::new().name("cardan-nursery".to_owned()).spawn(move || tend_all(&weak)) {
            Ok(handle) => ticker.follow(&nursery.wanted, handle.thread().clone()),
            Err(error) => tracing::warn!(%error, "no thread to make instances ahead: calls make their own"),
        }
        nursery
    }

    /// Asks for `nursed` to be tended soon. Callers ask once, not for every call.
    pub(crate) fn ask(&self, nursed: Weak<dyn Nursed>) {
        lock(&self.waiting).push(nursed);
        self.wanted.store(true, Ordering::Relaxed);
    }

    /// Has everybody who waits to be tended clear away used instances now. Returns whether that made room.
    pub(crate) fn clear_spent(&self) -> bool {
        let waiting = lock(&self.waiting).clone();
        // Each has to be asked, hence no short cut.
        waiting.iter().filter_map(Weak::upgrade).filter(|nursed| nursed.clear_spent()).count() > 0
    }

    /// Notes that `nursed` keeps instances that can give way. To be noted once until it was asked to.
    pub(crate) fn keeps(&self, nursed: Weak<dyn Nursed>) {
        lock(&self.keeping).push_back(nursed);
    }

    /// Has somebody throw away instances that wait for a call. Returns whether that made room.
    pub(crate) fn make_room(&self) -> bool {
        loop {
            // Not to be held while instances are thrown away.
            let Some(longest) = lock(&self.keeping).pop_front() else { return false };
            if longest.upgrade().is_some_and(|nursed| nursed.give_way()) {
                return true;
            }
        }
    }

    fn take(&self) -> Vec<Weak<dyn Nursed>> {
        self.wanted.store(false, Ordering::Relaxed);
        std::mem::take(&mut *lock(&self.waiting))
    }
}

fn tend_all(nursery: &Weak<Nursery>) {
    loop {
        thread::park_timeout(CHECK);
        let Some(strong) = nursery.upgrade() else { return };
        let waiting = strong.take();
        drop(strong);
        for nursed in waiting.iter().filter_map(Weak::upgrade) {
            nursed.tend();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
