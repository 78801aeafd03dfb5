//! A cache that plugins may share. Needs the grant `cache`. A value of no bytes is none.

use std::time::Duration;

use crate::host;

/// The value, if there is one.
pub fn get(key: &str) -> Option<Vec<u8>> {
    host::cache_get(key)
}

/// Keeps a value for a time; by default for five minutes.
pub fn set(key: &str, value: impl AsRef<[u8]>, time: Option<Duration>) {
    host::cache_set(key, value.as_ref(), time);
}

/// Deletes the key, if it is there.
pub fn delete(key: &str) {
    host::cache_delete(key);
}

/// As [`get`]. Of several calls that miss one key at once, one is told that there is nothing, and the others wait
/// until it has set it or is over.
pub fn fill(key: &str) -> Option<Vec<u8>> {
    host::cache_fill(key)
}
