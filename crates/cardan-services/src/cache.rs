//! Caches in memory, one for each space that plugins name.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use cardan::{Cache, CacheClaim, CacheKey, CacheLookup, ServiceFailure, Waiting};
use moka::Expiry;
use tokio::sync::watch;

/// What an entry takes beside its key and value, about.
const ENTRY_OVERHEAD_BYTES: usize = 128;

/// What each space may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheLimits {
    /// Keys and values of one space together, about. What is beyond makes place for others.
    pub space_bytes_max: u64,
    /// Spaces at once.
    pub spaces_max: usize,
}

impl Default for CacheLimits {
    fn default() -> Self {
        Self { space_bytes_max: 64 << 20, spaces_max: 256 }
    }
}

/// Caches in memory. Clones are the same caches.
#[derive(Clone)]
pub struct MemoryCache {
    limits: CacheLimits,
    spaces: Arc<Mutex<HashMap<String, Space>>>,
    claims: Claims,
}

type Space = moka::future::Cache<String, Entry>;

#[derive(Clone)]
struct Entry {
    value: Arc<[u8]>,
    ttl: Duration,
}

/// Values that somebody makes: others wait until it says `true`.
type Claims = Arc<Mutex<HashMap<CacheKey, Arc<watch::Sender<bool>>>>>;

impl fmt::Debug for MemoryCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryCache").field("limits", &self.limits).finish_non_exhaustive()
    }
}

/// Entries say themselves how long they live.
struct PerEntry;

impl Expiry<String, Entry> for PerEntry {
    fn expire_after_create(&self, _: &String, entry: &Entry, _: Instant) -> Option<Duration> {
        Some(entry.ttl)
    }

    fn expire_after_update(
        &self,
        _: &String,
        entry: &Entry,
        _: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        Some(entry.ttl)
    }
}

impl MemoryCache {
    /// Empty caches.
    pub fn new(limits: CacheLimits) -> Self {
        Self { limits, spaces: Arc::default(), claims: Arc::default() }
    }

    fn space(&self, name: &str) -> Result<Space, ServiceFailure> {
        let mut spaces = self.spaces.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(space) = spaces.get(name) {
            return Ok(space.clone());
        }
        if spaces.len() >= self.limits.spaces_max {
            let why = format!("more than {} spaces in the cache", self.limits.spaces_max);
            return Err(ServiceFailure::Unavailable(why));
        }
        let weigh = |key: &String, entry: &Entry| {
            let bytes = key.len() + entry.value.len() + ENTRY_OVERHEAD_BYTES;
            u32::try_from(bytes).unwrap_or(u32::MAX)
        };
        let space: Space = moka::future::Cache::builder()
            .max_capacity(self.limits.space_bytes_max)
            .weigher(weigh)
            .expire_after(PerEntry)
            .build();
        spaces.insert(name.to_owned(), space.clone());
        Ok(space)
    }

    /// Bytes that a space holds, about, once it has caught up with what was asked of it.
    pub async fn space_bytes(&self, name: &str) -> u64 {
        let space = self.spaces.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned();
        let Some(space) = space else { return 0 };
        space.run_pending_tasks().await;
        space.weighted_size()
    }
}

fn lock(claims: &Claims) -> MutexGuard<'_, HashMap<CacheKey, Arc<watch::Sender<bool>>>> {
    claims.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Somebody makes the value of a key.
struct Making {
    claims: Claims,
    key: CacheKey,
    over: Arc<watch::Sender<bool>>,
}

impl Making {
    /// `None`: somebody else was faster.
    fn begin(claims: &Claims, key: &CacheKey) -> Option<Self> {
        let mut held = lock(claims);
        if held.contains_key(key) {
            return None;
        }
        let over = Arc::new(watch::Sender::new(false));
        held.insert(key.clone(), over.clone());
        Some(Self { claims: claims.clone(), key: key.clone(), over })
    }
}

impl Drop for Making {
    fn drop(&mut self) {
        let mut claims = lock(&self.claims);
        // The value may have been set, and claimed again by somebody else since.
        if claims.get(&self.key).is_some_and(|over| Arc::ptr_eq(over, &self.over)) {
            claims.remove(&self.key);
        }
        self.over.send_replace(true);
    }
}

impl Cache for MemoryCache {
    fn get(&self, key: CacheKey) -> Waiting<Option<Vec<u8>>> {
        let space = self.space(&key.space);
        Box::pin(async move { Ok(space?.get(&key.key).await.map(|entry| entry.value.to_vec())) })
    }

    fn set(&self, key: CacheKey, value: Vec<u8>, ttl: Duration) -> Waiting<()> {
        let (space, claims) = (self.space(&key.space), self.claims.clone());
        Box::pin(async move {
            space?.insert(key.key.clone(), Entry { value: value.into(), ttl }).await;
            // Whoever waits sees the value now: there is nothing to be made any more.
            if let Some(over) = lock(&claims).remove(&key) {
                over.send_replace(true);
            }
            Ok(())
        })
    }

    fn delete(&self, key: CacheKey) -> Waiting<()> {
        let space = self.space(&key.space);
        Box::pin(async move {
            space?.invalidate(&key.key).await;
            Ok(())
        })
    }

    fn lookup_or_claim(&self, key: CacheKey) -> Waiting<CacheLookup> {
        let (space, claims) = (self.space(&key.space), self.claims.clone());
        Box::pin(async move {
            let space = space?;
            loop {
                if let Some(entry) = space.get(&key.key).await {
                    return Ok(CacheLookup::Hit(entry.value.to_vec()));
                }
                let known = lock(&claims).get(&key).map(|over| over.subscribe());
                if let Some(mut over) = known {
                    // An error says that it is over, too.
                    let _ = over.wait_for(|over| *over).await;
                    continue;
                }
                let Some(making) = Making::begin(&claims, &key) else { continue };
                // It may have been set since we looked.
                return Ok(match space.get(&key.key).await {
                    Some(entry) => CacheLookup::Hit(entry.value.to_vec()),
                    None => CacheLookup::Claimed(CacheClaim::new(making)),
                });
            }
        })
    }
}
