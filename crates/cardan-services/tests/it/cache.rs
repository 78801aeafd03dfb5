//! Caches.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

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
            match cache.lookup_or_claim(key("k"), "one".into()).await.unwrap() {
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
    let CacheLookup::Claimed(first) = cache.lookup_or_claim(key("k"), "one".into()).await.unwrap() else {
        panic!()
    };
    let mut second = cache.lookup_or_claim(key("k"), "one".into());
    let early = tokio::time::timeout(Duration::from_millis(50), &mut second).await;
    assert!(early.is_err(), "the first one makes it");
    drop(first);
    let CacheLookup::Claimed(_second) = second.await.unwrap() else { panic!("nobody made it") };
    let third = cache.lookup_or_claim(key("k"), "one".into());
    cache.set(key("k"), b"v".to_vec(), LONG).await.unwrap();
    let CacheLookup::Hit(value) = third.await.unwrap() else { panic!("it is there") };
    assert_eq!(value, b"v");
}

/// Who claims and makes nothing holds up other plugins for a moment, however often, and its own calls as before.
#[tokio::test]
async fn claims_of_other_plugins() {
    let cache = MemoryCache::new(CacheLimits::default());
    let claim = |plugin: &str| cache.lookup_or_claim(key("k"), plugin.into());
    let CacheLookup::Claimed(idle) = claim("idle").await.unwrap() else { panic!() };
    let start = Instant::now();
    let CacheLookup::Claimed(own) = claim("other").await.unwrap() else { panic!("nobody made it") };
    let took = start.elapsed();
    assert!((200..2_000).contains(&took.as_millis()), "{took:?}");
    // Each plugin makes it once at most.
    for plugin in ["idle", "other"] {
        assert!(tokio::time::timeout(Duration::from_millis(400), claim(plugin)).await.is_err(), "{plugin}");
    }
    // A value that comes in time is waited for, whoever makes it; nobody is held up by one claim after the other.
    let (third, own_call) = (claim("third"), claim("other"));
    let set = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        cache.set(key("k"), b"v".to_vec(), LONG).await.unwrap();
    };
    let (third, own_call, ()) = tokio::join!(third, own_call, set);
    for found in [third, own_call] {
        assert!(matches!(found, Ok(CacheLookup::Hit(value)) if value == b"v"));
    }
    cache.delete(key("k")).await.unwrap();
    drop((idle, own));
    let churn = async {
        for n in 0..40 {
            let CacheLookup::Claimed(_held) = claim(&format!("idle{n}")).await.unwrap() else { panic!() };
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let victim = async {
        tokio::time::sleep(Duration::from_millis(10)).await;
        let start = Instant::now();
        assert!(matches!(claim("victim").await, Ok(CacheLookup::Claimed(_))));
        start.elapsed()
    };
    let took = tokio::select! {
        took = victim => took,
        () = churn => panic!("the others are done"),
    };
    assert!(took < Duration::from_secs(1), "{took:?}");
}
