//! Times as text.

use std::time::SystemTime;

use jiff::Timestamp;

/// RFC 3339 in UTC, with nine decimals.
pub(crate) fn nanos(at: SystemTime) -> String {
    Timestamp::try_from(at).map_or_else(|_| String::new(), |at| format!("{at:.9}"))
}

/// RFC 3339 in UTC, with milliseconds.
pub(crate) fn millis(at: SystemTime) -> String {
    Timestamp::try_from(at).map_or_else(|_| String::new(), |at| format!("{at:.3}"))
}

/// RFC 3339 for milliseconds since 1970.
pub(crate) fn of_unix_ms(ms: u64) -> String {
    let at = i64::try_from(ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
    at.map_or_else(String::new, |at| format!("{at:.3}"))
}

/// Seconds since 1970.
pub(crate) fn unix_seconds(at: SystemTime) -> f64 {
    at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}
