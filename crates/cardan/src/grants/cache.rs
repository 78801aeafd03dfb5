//! Caches: values that may be gone at any time.

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::Waiting;

/// Keeps caches that plugins share. The implementation is the embedder's: `cardan-services` has one.
///
/// Called from many calls at once.
pub trait Cache: Send + Sync + 'static {
    /// The value of a key.
    fn get(&self, key: CacheKey) -> Waiting<Option<Vec<u8>>>;

    /// Sets a key for `ttl`, and wakes those who wait for its value. A cache may forget what it took at
    /// once.
    fn set(&self, key: CacheKey, value: Vec<u8>, ttl: Duration) -> Waiting<()>;

    /// Removes a key.
    fn delete(&self, key: CacheKey) -> Waiting<()>;

    /// The value of a key, or the right to be the one who makes it: while a call of the same plugin holds that,
    /// others wait for the value, so that it is not made many times at once. What other plugins hold may be waited
    /// for shortly and no longer: they need not mean to make anything.
    fn lookup_or_claim(&self, key: CacheKey, plugin: Arc<str>) -> Waiting<CacheLookup>;
}

/// A key in one of the caches.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CacheKey {
    /// Which of the caches.
    pub space: String,
    /// The key within it.
    pub key: String,
}

/// What [`Cache::lookup_or_claim`] found.
#[derive(Debug)]
pub enum CacheLookup {
    /// The value.
    Hit(Vec<u8>),
    /// Nothing, and no other call of the plugin makes it.
    Claimed(CacheClaim),
}

/// The right to make a value. Dropping it, with the value set or not, gives the right to somebody who waits.
pub struct CacheClaim(Box<dyn Any + Send + Sync>);

impl CacheClaim {
    /// A claim that ends when `guard` is dropped.
    pub fn new(guard: impl Send + Sync + 'static) -> Self {
        Self(Box::new(guard))
    }
}

impl fmt::Debug for CacheClaim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(_held) = self;
        f.write_str("CacheClaim")
    }
}
