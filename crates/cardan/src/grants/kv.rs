//! Key-value stores: small values that outlive calls, versions and restarts.

use std::sync::Arc;
use std::time::Duration;

use cardan_api::grants::KvLimits;

use super::Waiting;

/// Keeps the key-value stores of all plugins. The implementation is the embedder's: `cardan-services` has
/// one on SQLite and one in memory.
///
/// Called from many calls at once. Every operation is atomic, and holds for all that begin after it ended.
/// An entry that has expired is not there.
pub trait KvStore: Send + Sync + 'static {
    /// The value of a key.
    fn get(&self, space: &KvSpace, key: String) -> Waiting<Option<Vec<u8>>>;

    /// Sets a key. Without `ttl` the entry does not expire.
    fn set(&self, space: &KvSpace, entry: KvEntry, ttl: Option<Duration>) -> Waiting<()>;

    /// Removes a key. Whether it was there.
    fn delete(&self, space: &KvSpace, key: String) -> Waiting<bool>;

    /// Adds to a number written in decimal, and returns the sum. A key that is not there counts as 0; when
    /// one expires does not change, and a new one lives no longer than [`KvLimits::ttl_max`].
    fn add(&self, space: &KvSpace, key: String, delta: i64) -> Waiting<i64>;

    /// Sets a key if its value is `expected`, or, with `None`, if it is not there. Whether it did.
    /// When it expires is as for [`KvStore::add`].
    fn compare_and_set(&self, space: &KvSpace, entry: KvEntry, expected: Option<Vec<u8>>) -> Waiting<bool>;

    /// Entries in the order of their keys.
    fn scan(&self, space: &KvSpace, scan: KvScan) -> Waiting<KvPage>;
}

/// One plugin's store, and what it may hold.
#[derive(Debug, Clone)]
pub struct KvSpace {
    /// The plugin's name. Versions of a plugin share a store.
    pub plugin: Arc<str>,
    /// What the store may hold after a write. Keys and values of more than
    /// [`KvLimits::value_bytes_max`] do not get here.
    pub limits: KvLimits,
}

/// A key and its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KvEntry {
    /// The key.
    pub key: String,
    /// The value.
    pub value: Vec<u8>,
}

/// Which entries a scan is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KvScan {
    /// What keys begin with.
    pub prefix: String,
    /// Only keys after this one.
    pub after: Option<String>,
    /// Most entries to return.
    pub limit: usize,
    /// The page ends with the entry that reaches this many bytes of keys and values.
    pub bytes_max: usize,
}

/// What a scan found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KvPage {
    /// In the order of their keys.
    pub entries: Vec<KvEntry>,
    /// There is more after the last of them.
    pub more: bool,
}
