//! The plugin's own key-value store. Needs the grant `kv`. A value of no bytes is none.

use std::time::Duration;

use crate::host;

/// One key and its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// Its value.
    pub value: Vec<u8>,
}

/// What a scan found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// In the order of their keys.
    pub entries: Vec<Entry>,
    /// What to scan after for the next page, if there is one.
    pub next: Option<String>,
}

/// The value, if there is one.
pub fn get(key: &str) -> Option<Vec<u8>> {
    host::kv_get(key)
}

/// Keeps a value until it is deleted or replaced.
pub fn set(key: &str, value: impl AsRef<[u8]>) {
    host::kv_set(key, value.as_ref(), None);
}

/// Keeps a value for a time.
pub fn set_for(key: &str, value: impl AsRef<[u8]>, time: Duration) {
    host::kv_set(key, value.as_ref(), Some(time));
}

/// Deletes the key, if it is there.
pub fn delete(key: &str) {
    host::kv_delete(key);
}

/// Adds to a number and returns the sum, in one step. What is not there is 0.
pub fn add(key: &str, delta: i64) -> i64 {
    host::kv_add(key, delta)
}

/// Sets the value if it is still the expected one; `None` expects that there is none. Returns whether it was.
pub fn compare_and_set(key: &str, expected: Option<&[u8]>, value: impl AsRef<[u8]>) -> bool {
    host::kv_compare_and_set(key, expected, value.as_ref())
}

/// Keys that begin with `prefix` and come after `after`. At most 1,000 at once.
pub fn scan(prefix: &str, after: Option<&str>, limit: u32) -> Page {
    host::kv_scan(prefix, after, limit)
}
