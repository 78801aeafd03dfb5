//! The plugin's log.

use crate::host;

/// How important a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Every step.
    Trace,
    /// What helps to find a fault.
    Debug,
    /// What operators want to know.
    Info,
    /// What operators should look at.
    Warn,
    /// What failed.
    Error,
}

impl Level {
    /// In lower case.
    pub fn name(self) -> &'static str {
        match self {
            Self::Trace => "trace",
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }
}

/// Writes one line.
pub fn line(level: Level, text: &str) {
    host::log(level, text);
}

/// Writes a line of the level `info`.
pub fn info(text: &str) {
    line(Level::Info, text);
}

/// Writes a line of the level `warn`.
pub fn warn(text: &str) {
    line(Level::Warn, text);
}

/// Writes a line of the level `error`.
pub fn error(text: &str) {
    line(Level::Error, text);
}
