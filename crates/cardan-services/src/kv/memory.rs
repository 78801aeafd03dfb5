//! A store that is gone with its process, for tests and embedders.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::ops::Bound;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cardan::{KvEntry, KvPage, KvScan, KvSpace, KvStore, ServiceFailure, Waiting};

use super::{Usage, WallClock, check, latest_ms, sum, wall_clock};

/// Keeps key-value stores in memory.
#[derive(Clone)]
pub struct MemoryKv {
    clock: WallClock,
    spaces: Arc<Mutex<HashMap<String, Space>>>,
}

#[derive(Debug, Default)]
struct Space {
    entries: BTreeMap<String, Stored>,
    bytes: u64,
}

#[derive(Debug)]
struct Stored {
    value: Vec<u8>,
    expires_ms: Option<u64>,
}

/// When an entry that is written expires.
enum Expires {
    At(Option<u64>),
    /// When it did; a new one as late as its store allows.
    AsBefore {
        now_ms: u64,
    },
}

impl Default for MemoryKv {
    fn default() -> Self {
        Self::new(wall_clock())
    }
}

impl fmt::Debug for MemoryKv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryKv").finish_non_exhaustive()
    }
}

impl MemoryKv {
    /// An empty one that goes by `clock`.
    pub fn new(clock: WallClock) -> Self {
        Self { clock, spaces: Arc::default() }
    }

    fn within<T: Send + 'static>(
        &self,
        space: &KvSpace,
        work: impl FnOnce(&mut Space, u64) -> Result<T, ServiceFailure>,
    ) -> Waiting<T> {
        let now_ms = (self.clock)();
        let mut spaces = self.spaces.lock().unwrap_or_else(PoisonError::into_inner);
        let space = spaces.entry(space.plugin.to_string()).or_default();
        let result = work(space, now_ms);
        Box::pin(std::future::ready(result))
    }
}

impl Space {
    /// Whatever has expired is not there.
    fn value(&mut self, key: &str, now_ms: u64) -> Option<&[u8]> {
        let expired = |stored: &Stored| stored.expires_ms.is_some_and(|expires| expires <= now_ms);
        if self.entries.get(key).is_some_and(expired) {
            self.remove(key);
        }
        self.entries.get(key).map(|stored| &*stored.value)
    }

    fn remove(&mut self, key: &str) -> bool {
        let removed = self.entries.remove(key);
        self.bytes -= removed.as_ref().map_or(0, |old| (key.len() + old.value.len()) as u64);
        removed.is_some()
    }

    fn sweep(&mut self, now_ms: u64) {
        self.entries.retain(|_, stored| stored.expires_ms.is_none_or(|expires| expires > now_ms));
        self.bytes = self.entries.iter().map(|(key, stored)| (key.len() + stored.value.len()) as u64).sum();
    }

    fn put(&mut self, space: &KvSpace, entry: KvEntry, expires: Expires) -> Result<(), ServiceFailure> {
        let KvEntry { key, value } = entry;
        let usage = Usage { keys: self.entries.len() as u64, bytes: self.bytes };
        let old = self.entries.get(&key);
        let old_bytes = old.map_or(0, |old| (key.len() + old.value.len()) as u64);
        let after = Usage {
            keys: usage.keys + u64::from(old.is_none()),
            bytes: usage.bytes - old_bytes + (key.len() + value.len()) as u64,
        };
        check(space, usage, after)?;
        let expires_ms = match expires {
            Expires::At(expires_ms) => expires_ms,
            Expires::AsBefore { now_ms } => {
                old.map_or_else(|| latest_ms(space, now_ms), |old| old.expires_ms)
            }
        };
        self.bytes = after.bytes;
        self.entries.insert(key, Stored { value, expires_ms });
        Ok(())
    }
}

impl KvStore for MemoryKv {
    fn get(&self, space: &KvSpace, key: String) -> Waiting<Option<Vec<u8>>> {
        self.within(space, |it, now_ms| Ok(it.value(&key, now_ms).map(<[u8]>::to_vec)))
    }

    fn set(&self, space: &KvSpace, entry: KvEntry, ttl: Option<Duration>) -> Waiting<()> {
        self.within(space, |it, now_ms| {
            it.sweep(now_ms);
            let expires_ms = ttl.map(|ttl| now_ms.saturating_add(ttl.as_millis() as u64));
            it.put(space, entry, Expires::At(expires_ms))
        })
    }

    fn delete(&self, space: &KvSpace, key: String) -> Waiting<bool> {
        self.within(space, |it, now_ms| Ok(it.value(&key, now_ms).is_some() && it.remove(&key)))
    }

    fn add(&self, space: &KvSpace, key: String, delta: i64) -> Waiting<i64> {
        self.within(space, |it, now_ms| {
            it.sweep(now_ms);
            let sum = sum(it.value(&key, now_ms), delta)?;
            it.put(
                space,
                KvEntry { key, value: sum.to_string().into_bytes() },
                Expires::AsBefore { now_ms },
            )?;
            Ok(sum)
        })
    }

    fn compare_and_set(&self, space: &KvSpace, entry: KvEntry, expected: Option<Vec<u8>>) -> Waiting<bool> {
        self.within(space, |it, now_ms| {
            it.sweep(now_ms);
            if it.value(&entry.key, now_ms) != expected.as_deref() {
                return Ok(false);
            }
            it.put(space, entry, Expires::AsBefore { now_ms }).map(|()| true)
        })
    }

    fn scan(&self, space: &KvSpace, scan: KvScan) -> Waiting<KvPage> {
        self.within(space, |it, now_ms| {
            it.sweep(now_ms);
            let from = match &scan.after {
                Some(after) if *after >= scan.prefix => Bound::Excluded(after.clone()),
                _ => Bound::Included(scan.prefix.clone()),
            };
            let mut page = KvPage::default();
            let mut bytes = 0;
            for (key, stored) in it.entries.range((from, Bound::Unbounded)) {
                if !key.starts_with(&scan.prefix) {
                    break;
                }
                if page.entries.len() >= scan.limit || bytes >= scan.bytes_max {
                    page.more = true;
                    break;
                }
                bytes += key.len() + stored.value.len();
                page.entries.push(KvEntry { key: key.clone(), value: stored.value.clone() });
            }
            Ok(page)
        })
    }
}
