//! What a statement writes into temporary files.
//!
//! SQLite sorts and joins in files that nobody sees, and bounds them by the disk. It works on the thread that
//! asked it, and one that only reads writes nothing else: what the kernel counts for the thread is what they hold.

use std::fs;
use std::time::{Duration, Instant};

/// Most bytes that one statement writes into temporary files, about.
pub(super) const SPILL_BYTES_MAX: u64 = 64 << 20;
/// Time between two looks.
const PAUSE: Duration = Duration::from_millis(2);

/// A count that began on this thread.
pub(super) struct Spill {
    before: Option<u64>,
    next: Instant,
}

impl Spill {
    pub(super) fn begin() -> Self {
        Self { before: written(), next: Instant::now() + PAUSE }
    }

    /// On the thread where it began.
    pub(super) fn is_too_much(&mut self) -> bool {
        let Some(before) = self.before else { return false };
        if Instant::now() < self.next {
            return false;
        }
        let now = written().unwrap_or(before);
        self.next = Instant::now() + PAUSE;
        now.saturating_sub(before) > SPILL_BYTES_MAX
    }
}

/// Bytes that this thread has written so far. `None` where the system does not count them.
fn written() -> Option<u64> {
    let counts = fs::read_to_string("/proc/thread-self/io").ok()?;
    counts.lines().find_map(|line| line.strip_prefix("wchar: "))?.trim().parse().ok()
}
