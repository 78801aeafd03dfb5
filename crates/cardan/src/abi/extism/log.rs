//! How much of what a guest logs is kept.

use std::fmt::Write as _;

use crate::grants::{LogLevel, LogSink};

/// Longest line; what is beyond is cut off.
const LINE_BYTES_MAX: usize = 64 << 10;
/// Lines that one call may log, or one start. Those beyond are counted instead.
const CALL_LINES_MAX: u32 = 1_000;
/// Bytes of them together.
const CALL_BYTES_MAX: usize = 256 << 10;

/// What the current call may still log.
#[derive(Debug)]
pub(crate) struct LogQuota {
    lines_left: u32,
    bytes_left: usize,
    dropped: u64,
    /// Of the lines that were dropped, the most important one's.
    level: LogLevel,
}

impl Default for LogQuota {
    fn default() -> Self {
        Self { lines_left: CALL_LINES_MAX, bytes_left: CALL_BYTES_MAX, dropped: 0, level: LogLevel::Trace }
    }
}

impl LogQuota {
    /// Whether there is room for another line. If not, it is counted.
    pub(crate) fn has_room(&mut self, level: LogLevel) -> bool {
        let room = self.lines_left > 0 && self.bytes_left > 0;
        if !room {
            self.dropped += 1;
            self.level = self.level.max(level);
        }
        room
    }

    /// Logs a line that there was room for, as much of it as there is.
    pub(crate) fn line(&mut self, sink: &dyn LogSink, level: LogLevel, mut text: String) {
        let bytes = text.len();
        let kept = text.floor_char_boundary(LINE_BYTES_MAX.min(self.bytes_left));
        self.lines_left = self.lines_left.saturating_sub(1);
        self.bytes_left -= kept;
        if kept < bytes {
            text.truncate(kept);
            let _ = write!(text, "... ({} bytes more)", bytes - kept);
        }
        sink.line(level, &text);
    }

    /// The call is over: says what was dropped, and has all its room again.
    pub(crate) fn renew(&mut self, sink: &dyn LogSink) {
        let Self { dropped, level, .. } = std::mem::take(self);
        if dropped > 0 {
            let text = format!(
                "{dropped} more lines were dropped: one call may log {CALL_LINES_MAX} lines of \
                 {CALL_BYTES_MAX} bytes together"
            );
            sink.line(level, &text);
        }
    }
}
