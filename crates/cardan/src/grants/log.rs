//! Where guests' log lines go: to the embedder's sink, and into a ring of the plugin's own.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use cardan_api::grants::{LogLevel, LogScope};
use tokio::sync::watch;

/// Lines that are kept of one plugin.
const RING_LINES_MAX: usize = 1_000;
/// Bytes of them together.
const RING_BYTES_MAX: usize = 256 << 10;

/// Takes the log lines of one plugin's guests.
///
/// Called inside a guest's call, possibly from several threads at once: it must not block.
pub trait LogSink: Send + Sync + 'static {
    /// Least important level to be reported, or `None` for no logging. Guests ask, to save themselves
    /// the work of writing lines that nobody reads.
    fn level(&self) -> Option<LogLevel>;
    /// Takes one line.
    fn line(&self, level: LogLevel, text: &str);
}

/// Sends guests' lines to `tracing`, target `cardan::guest`.
#[derive(Debug, Clone)]
pub struct TracingLog {
    /// Named in each event.
    pub plugin: Arc<str>,
}

impl LogSink for TracingLog {
    fn level(&self) -> Option<LogLevel> {
        use tracing::level_filters::LevelFilter;
        match LevelFilter::current() {
            LevelFilter::OFF => None,
            LevelFilter::TRACE => Some(LogLevel::Trace),
            LevelFilter::DEBUG => Some(LogLevel::Debug),
            LevelFilter::INFO => Some(LogLevel::Info),
            LevelFilter::WARN => Some(LogLevel::Warn),
            _ => Some(LogLevel::Error),
        }
    }

    fn line(&self, level: LogLevel, text: &str) {
        let plugin = &*self.plugin;
        let text = one_line(text);
        match level {
            LogLevel::Trace => tracing::trace!(target: "cardan::guest", plugin, "{text}"),
            LogLevel::Debug => tracing::debug!(target: "cardan::guest", plugin, "{text}"),
            LogLevel::Info => tracing::info!(target: "cardan::guest", plugin, "{text}"),
            LogLevel::Warn => tracing::warn!(target: "cardan::guest", plugin, "{text}"),
            LogLevel::Error => tracing::error!(target: "cardan::guest", plugin, "{text}"),
        }
    }
}

/// A guest's text as one line of a log: what would end the line, or steer a terminal, is spelt out.
fn one_line(text: &str) -> Cow<'_, str> {
    if !text.contains(char::is_control) {
        return Cow::Borrowed(text);
    }
    let mut line = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            '\t' => line.push(c),
            c if c.is_control() => line.extend(c.escape_default()),
            c => line.push(c),
        }
    }
    Cow::Owned(line)
}

/// One line that was kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// Counts the plugin's lines from 1, those that were dropped since included.
    pub seq: u64,
    /// When, in milliseconds since 1970.
    pub unix_ms: u64,
    /// How important it is.
    pub level: LogLevel,
    /// As the guest wrote it: it may have control characters in it.
    pub text: Arc<str>,
}

/// A stretch of a plugin's log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogTail {
    /// Oldest first.
    pub lines: Vec<LogLine>,
    /// What to pass as `after` to get what comes next.
    pub next: u64,
    /// Lines after the one that was asked for which are no longer kept.
    pub lost: u64,
}

/// Everything that becomes of one plugin's log lines.
pub(crate) struct PluginLog {
    sink: Arc<dyn LogSink>,
    scope: LogScope,
    /// Least important level that is kept where the sink takes less.
    kept_from: Option<LogLevel>,
    ring: Mutex<Ring>,
    written: watch::Sender<u64>,
}

#[derive(Default)]
struct Ring {
    lines: VecDeque<LogLine>,
    bytes: usize,
    last: u64,
}

impl fmt::Debug for PluginLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PluginLog").field("scope", &self.scope).finish_non_exhaustive()
    }
}

impl PluginLog {
    pub(crate) fn new(sink: Arc<dyn LogSink>, scope: LogScope, kept_from: Option<LogLevel>) -> Self {
        Self { sink, scope, kept_from, ring: Mutex::default(), written: watch::Sender::new(0) }
    }

    /// Lines after `after`, at most `max` of them. A number that no line has had yet is from another
    /// version's log, and means the beginning.
    pub(crate) fn tail(&self, after: u64, max: usize) -> LogTail {
        let ring = self.ring();
        let after = if after > ring.last { 0 } else { after };
        let first = ring.lines.front().map_or(ring.last + 1, |line| line.seq);
        let lost = first.saturating_sub(after + 1);
        let lines: Vec<LogLine> =
            ring.lines.iter().filter(|line| line.seq > after).take(max).cloned().collect();
        LogTail { next: lines.last().map_or(after, |line| line.seq), lines, lost }
    }

    /// The number of the last line, and of those to come.
    pub(crate) fn follow(&self) -> watch::Receiver<u64> {
        self.written.subscribe()
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self, level: LogLevel, text: &str) {
        let line = LogLine { seq: 0, unix_ms: unix_ms(), level, text: text.into() };
        let mut ring = self.ring();
        ring.push(line);
        let last = ring.last;
        drop(ring);
        self.written.send_replace(last);
    }
}

impl LogSink for PluginLog {
    fn level(&self) -> Option<LogLevel> {
        match self.scope {
            LogScope::Off => None,
            LogScope::From(level) => Some(level),
            LogScope::Asked => match (self.sink.level(), self.kept_from) {
                (Some(sink), Some(kept)) => Some(sink.min(kept)),
                (sink, kept) => sink.or(kept),
            },
        }
    }

    fn line(&self, level: LogLevel, text: &str) {
        if self.level().is_none_or(|least| level < least) {
            return;
        }
        self.keep(level, text);
        if self.sink.level().is_some_and(|least| level >= least) {
            self.sink.line(level, text);
        }
    }
}

impl Ring {
    fn push(&mut self, line: LogLine) {
        self.last += 1;
        self.bytes += line.text.len();
        self.lines.push_back(LogLine { seq: self.last, ..line });
        while self.lines.len() > RING_LINES_MAX || self.bytes > RING_BYTES_MAX {
            match self.lines.pop_front() {
                Some(line) => self.bytes -= line.text.len(),
                None => return,
            }
        }
    }
}

/// The time of day, in milliseconds since 1970.
pub(crate) fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
