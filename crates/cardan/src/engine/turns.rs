//! Turns of guests that compute for long.
//!
//! Guests on stacks of their own share the threads of whoever calls them. Those that only compute would make
//! each step of a call that is done soon wait for a round of all of them. So a call that has computed for some
//! time goes on in turns: only so many at once, which leaves a processor to the others, and of the plugins
//! that wait each in turn, so that many calls of one do not crowd out the one of another.

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::num::NonZero;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::thread;

use crate::limits::CancelHandle;

/// Who may compute for long, of one engine.
pub(crate) struct Turns {
    lines: Mutex<Lines>,
}

struct Lines {
    /// Turns that nobody has. None are left while somebody waits.
    free: usize,
    /// Who waits, by plugin.
    waiting: BTreeMap<LineId, VecDeque<Waiting>>,
    /// Whose turn was the last.
    last: LineId,
}

struct Waiting {
    seat: Arc<Seat>,
    due_ms: Option<u64>,
    cancelled: CancelHandle,
}

/// Who waits together: the calls of one plugin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct LineId(u64);

impl LineId {
    pub(crate) fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// Where one instance stands.
#[derive(Default)]
struct Seat(Mutex<Standing>);

#[derive(Default)]
enum Standing {
    /// Neither has a turn nor asked for one, or need not wait for it any longer.
    #[default]
    Apart,
    Waiting(Option<Waker>),
    /// Has a turn, and has not gone on yet.
    Granted,
    Computing,
}

/// One instance's part in the turns.
#[derive(Clone)]
pub(crate) struct Part {
    turns: Arc<Turns>,
    line: LineId,
    seat: Arc<Seat>,
}

impl Turns {
    /// `at_once`: calls that may compute for long at the same time; `None` leaves one processor to the others.
    pub(crate) fn new(at_once: Option<NonZero<usize>>) -> Arc<Self> {
        let processors = || thread::available_parallelism().map_or(1, NonZero::get);
        let free = at_once.map_or_else(|| processors().saturating_sub(1).max(1), NonZero::get);
        let lines = Lines { free, waiting: BTreeMap::new(), last: LineId(0) };
        Arc::new(Self { lines: Mutex::new(lines) })
    }

    pub(crate) fn part(self: &Arc<Self>, line: LineId) -> Part {
        Part { turns: self.clone(), line, seat: Arc::default() }
    }

    /// Those whose time is over by now, or who were cancelled, need not wait for a turn to be told.
    pub(crate) fn release_overdue(&self, now_ms: u64) {
        let mut released = Vec::new();
        self.lines().waiting.retain(|_, line| {
            line.retain(|waiting| {
                let over =
                    waiting.due_ms.is_some_and(|due| now_ms >= due) || waiting.cancelled.is_requested();
                if over {
                    released.push(waiting.seat.becomes(Standing::Apart));
                }
                !over
            });
            !line.is_empty()
        });
        released.into_iter().for_each(Standing::wake);
    }

    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lines {
    /// The next of the plugin after the one whose turn was the last.
    fn pop(&mut self) -> Option<Waiting> {
        let after = |last: LineId| LineId(last.0 + 1)..;
        let next = self.waiting.range(after(self.last)).next().or_else(|| self.waiting.iter().next());
        let id = *next?.0;
        let line = self.waiting.get_mut(&id)?;
        let waiting = line.pop_front();
        if line.is_empty() {
            self.waiting.remove(&id);
        }
        self.last = id;
        waiting
    }
}

impl Seat {
    /// Changes where it stands. Whoever waited for that is to be [woken](Standing::wake) once no lock is held.
    #[must_use]
    fn becomes(&self, standing: Standing) -> Standing {
        std::mem::replace(&mut *self.standing(), standing)
    }

    fn standing(&self) -> MutexGuard<'_, Standing> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Standing {
    fn wake(self) {
        if let Self::Waiting(Some(waker)) = self {
            waker.wake();
        }
    }
}

impl Part {
    /// Ends the turn, if there is one; or no longer waits for it.
    pub(crate) fn leave(&self) {
        let mut lines = self.turns.lines();
        match self.seat.becomes(Standing::Apart) {
            Standing::Apart => {}
            Standing::Waiting(_) => {
                if let Some(line) = lines.waiting.get_mut(&self.line) {
                    line.retain(|waiting| !Arc::ptr_eq(&waiting.seat, &self.seat));
                    if line.is_empty() {
                        lines.waiting.remove(&self.line);
                    }
                }
            }
            Standing::Granted | Standing::Computing => {
                let Some(next) = lines.pop() else {
                    lines.free += 1;
                    return;
                };
                let waited = next.seat.becomes(Standing::Granted);
                drop(lines);
                waited.wake();
            }
        }
    }

    /// The guest is suspended. Whatever it waits for, it does not compute meanwhile: its turn is over, unless it is a turn that it waits for.
    pub(crate) fn suspended(&self) {
        let computing = matches!(*self.seat.standing(), Standing::Computing);
        if computing {
            self.leave();
        }
    }

    /// Ends the turn and asks for another one, behind those who wait. Ready when it is there, or when nothing is left to wait for:
    /// at `due_ms` on the guests' clock, or when the call is cancelled. In any case others get a chance to run.
    pub(crate) fn another(&self, due_ms: Option<u64>, cancelled: CancelHandle) -> Another {
        self.leave();
        let mut lines = self.turns.lines();
        let _apart = if let Some(free) = lines.free.checked_sub(1) {
            lines.free = free;
            lines.last = self.line;
            self.seat.becomes(Standing::Granted)
        } else {
            let waiting = Waiting { seat: self.seat.clone(), due_ms, cancelled };
            lines.waiting.entry(self.line).or_default().push_back(waiting);
            self.seat.becomes(Standing::Waiting(None))
        };
        Another { seat: self.seat.clone(), gave_way: false }
    }
}

/// Waits for a turn. Whoever gives up waiting has to [leave](Part::leave).
pub(crate) struct Another {
    seat: Arc<Seat>,
    gave_way: bool,
}

impl Future for Another {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if !self.gave_way {
            self.gave_way = true;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let waker = context.waker().clone();
        let mut standing = self.seat.standing();
        if matches!(*standing, Standing::Granted) {
            *standing = Standing::Computing;
        }
        let Standing::Waiting(waiting) = &mut *standing else { return Poll::Ready(()) };
        let before = waiting.replace(waker);
        drop(standing);
        drop(before);
        Poll::Pending
    }
}

#[cfg(test)]
mod tests;
