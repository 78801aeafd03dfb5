//! What came of asking one plugin, as it is counted, recorded and shown.

use std::sync::Arc;
use std::time::Duration;

use cardan_api::Fault;

/// What came of asking one plugin.
#[derive(Debug, Clone)]
pub struct Decision {
    /// Its name.
    pub plugin: Arc<str>,
    /// Which of its versions.
    pub version: u32,
    /// [`Hook::NAME`].
    pub hook: &'static str,
    /// What it said, or how it failed.
    pub outcome: Outcome,
    /// From the opening of the visit to the question.
    pub since: Duration,
    /// From the question to the verdict.
    pub duration: Duration,
    /// What the verdict changed, for people: names of parts and fields, never values.
    pub changed: Option<String>,
    /// How it failed, in words of bounded length, which may quote the guest.
    pub error: Option<String>,
}

/// Where a client's own trace goes on (W3C Trace Context).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceContext {
    /// Not 0.
    pub trace_id: u128,
    /// The client's span, not 0.
    pub parent_id: u64,
    /// Whether the client records its part.
    pub sampled: bool,
}

impl TraceContext {
    /// Reads the field `traceparent`. `None` for what is not well formed, which is to be ignored.
    pub fn parse(field: &str) -> Option<Self> {
        let mut parts = field.trim().split('-');
        let (version, trace, parent, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let hex = |text: &str, len: usize| {
            text.len() == len && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        };
        let is_later = version != "00";
        let well_formed = hex(version, 2) && hex(trace, 32) && hex(parent, 16) && hex(flags, 2);
        if !well_formed || version == "ff" || (!is_later && parts.next().is_some()) {
            return None;
        }
        let trace_id = u128::from_str_radix(trace, 16).ok().filter(|id| *id != 0)?;
        let parent_id = u64::from_str_radix(parent, 16).ok().filter(|id| *id != 0)?;
        let sampled = u8::from_str_radix(flags, 16).ok()? & 1 == 1;
        Some(Self { trace_id, parent_id, sampled })
    }
}

/// What one plugin said, or how it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Go on.
    Continued,
    /// Stop.
    Stopped,
    /// It could not be asked, and the binding's policy was to go on.
    Skipped(Fault),
    /// It could not be asked, and the binding's policy was to stop.
    Refused(Fault),
    /// This canary could not be asked, and the active version was asked in its place.
    FellBack(Fault),
}
