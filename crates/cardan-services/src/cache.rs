//! Caches in memory, one for each space that plugins name.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use cardan::{Cache, CacheClaim, CacheKey, CacheLookup, ServiceFailure, Waiting};
use moka::Expiry;
use tokio::sync::watch;
use tokio::time::timeout_at;

/// What an entry takes beside its key and value, about.
const ENTRY_OVERHEAD_BYTES: usize = 128;
/// Longest wait of one call for values that other plugins say they make.
const STALL_MAX: Duration = Duration::from_millis(250);

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

/// Values that somebody makes, and for each key the plugins that do, at most once each.
type Claims = Arc<Mutex<HashMap<CacheKey, Vec<Claim>>>>;

#[derive(Clone)]
struct Claim {
    plugin: Arc<str>,
    /// Others wait until it says `true`.
    over: Arc<watch::Sender<bool>>,
}

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

fn lock(claims: &Claims) -> MutexGuard<'_, HashMap<CacheKey, Vec<Claim>>> {
    claims.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Somebody makes the value of a key.
struct Making {
    claims: Claims,
    key: CacheKey,
    over: Arc<watch::Sender<bool>>,
}

impl Making {
    /// `None`: another call of the plugin was faster.
    fn begin(claims: &Claims, key: &CacheKey, plugin: &Arc<str>) -> Option<Self> {
        let mut held = lock(claims);
        let held = held.entry(key.clone()).or_default();
        if held.iter().any(|claim| claim.plugin == *plugin) {
            return None;
        }
        let over = Arc::new(watch::Sender::new(false));
        held.push(Claim { plugin: plugin.clone(), over: over.clone() });
        Some(Self { claims: claims.clone(), key: key.clone(), over })
    }
}

impl Drop for Making {
    fn drop(&mut self) {
        let mut claims = lock(&self.claims);
        // The value may have been set, and claimed again by somebody else since.
        if let Some(held) = claims.get_mut(&self.key) {
            held.retain(|claim| !Arc::ptr_eq(&claim.over, &self.over));
            if held.is_empty() {
                claims.remove(&self.key);
            }
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
            for claim in lock(&claims).remove(&key).into_iter().flatten() {
                claim.over.send_replace(true);
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

    fn lookup_or_claim(&self, key: CacheKey, plugin: Arc<str>) -> Waiting<CacheLookup> {
        let (space, claims) = (self.space(&key.space), self.claims.clone());
        Box::pin(async move {
            let space = space?;
            let stalled_until = tokio::time::Instant::now() + STALL_MAX;
            loop {
                if let Some(entry) = space.get(&key.key).await {
                    return Ok(CacheLookup::Hit(entry.value.to_vec()));
                }
                let known = lock(&claims).get(&key).cloned().unwrap_or_default();
                // An error of waiting says that it is over, too.
                if let Some(own) = known.iter().find(|claim| claim.plugin == plugin) {
                    let _ = own.over.subscribe().wait_for(|over| *over).await;
                    continue;
                }
                if let Some(first) = known.first() {
                    let mut over = first.over.subscribe();
                    // Others' claims end one after the other, or the patience with all of them does.
                    if matches!(timeout_at(stalled_until, over.wait_for(|over| *over)).await, Ok(Ok(_))) {
                        continue;
                    }
                }
                let Some(making) = Making::begin(&claims, &key, &plugin) else { continue };
                // It may have been set since we looked.
                return Ok(match space.get(&key.key).await {
                    Some(entry) => CacheLookup::Hit(entry.value.to_vec()),
                    None => CacheLookup::Claimed(CacheClaim::new(making)),
                });
            }
        })
    }
}
