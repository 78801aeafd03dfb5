//! The time of day. Needs the grant `clock`, which plugins have unless it is switched off.

use crate::host;

/// Milliseconds since 1970.
pub fn now_ms() -> u64 {
    host::time_now_ms()
}
