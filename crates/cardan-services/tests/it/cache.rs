//! Caches.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use cardan::{Cache, CacheKey, CacheLookup};
use cardan_services::{CacheLimits, MemoryCache};

const LONG: Duration = Duration::from_secs(60);

fn key(key: &str) -> CacheKey {
    CacheKey { space: "shared".to_owned(), key: key.to_owned() }
}

#[tokio::test]
async fn what_is_cached() {
    let cache = MemoryCache::new(CacheLimits::default());
    cache.set(key("k"), b"v".to_vec(), LONG).await.unwrap();
    assert_eq!(cache.get(key("k")).await.unwrap().as_deref(), Some(&b"v"[..]));
    let other = CacheKey { space: "other".to_owned(), ..key("k") };
    assert_eq!(cache.get(other).await.unwrap(), None, "a space has its own");
    cache.delete(key("k")).await.unwrap();
    assert_eq!(cache.get(key("k")).await.unwrap(), None);
    cache.set(key("k"), b"v".to_vec(), Duration::from_millis(50)).await.unwrap();
    tokio::time::sleep(Duration::from_millis(80)).await;
    assert_eq!(cache.get(key("k")).await.unwrap(), None, "it has expired");
}

#[tokio::test]
async fn bounds() {
    let cache = MemoryCache::new(CacheLimits { space_bytes_max: 100_000, spaces_max: 2 });
    for n in 0..1000 {
        cache.set(key(&n.to_string()), vec![b'x'; 1000], LONG).await.unwrap();
    }
    let bytes = cache.space_bytes("shared").await;
    assert!(bytes <= 100_000 && bytes > 50_000, "{bytes}");
    let space = |space: &str| CacheKey { space: space.to_owned(), key: "k".to_owned() };
    assert!(cache.get(space("second")).await.is_ok());
    assert!(cache.get(space("third")).await.is_err());
}

/// Of many that want a value at once, one makes it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_makes_it() {
    let cache = Arc::new(MemoryCache::new(CacheLimits::default()));
    let made = Arc::new(AtomicU32::new(0));
    let tasks = (0..50).map(|_| {
        let (cache, made) = (cache.clone(), made.clone());
        tokio::spawn(async move {
            match cache.lookup_or_claim(key("k")).await.unwrap() {
                CacheLookup::Hit(value) => value,
                CacheLookup::Claimed(_claim) => {
                    made.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    cache.set(key("k"), b"v".to_vec(), LONG).await.unwrap();
                    b"v".to_vec()
                }
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        assert_eq!(task.await.unwrap(), b"v");
    }
    assert_eq!(made.load(Ordering::Relaxed), 1);
}

/// One who gave up makes place for the next; setting the value wakes all, while the claim is still held.
#[tokio::test]
async fn claims_end() {
    let cache = MemoryCache::new(CacheLimits::default());
    let CacheLookup::Claimed(first) = cache.lookup_or_claim(key("k")).await.unwrap() else { panic!() };
    let mut second = cache.lookup_or_claim(key("k"));
    let early = tokio::time::timeout(Duration::from_millis(50), &mut second).await;
    assert!(early.is_err(), "the first one makes it");
    drop(first);
    let CacheLookup::Claimed(_second) = second.await.unwrap() else { panic!("nobody made it") };
    let third = cache.lookup_or_claim(key("k"));
    cache.set(key("k"), b"v".to_vec(), LONG).await.unwrap();
    let CacheLookup::Hit(value) = third.await.unwrap() else { panic!("it is there") };
    assert_eq!(value, b"v");
}
