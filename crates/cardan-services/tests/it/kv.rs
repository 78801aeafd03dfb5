//! Key-value stores: the one on disk and the one in memory do the same.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use cardan::api::grants::KvLimits;
use cardan::{KvEntry, KvPage, KvScan, KvSpace, KvStore, ServiceFailure};
use cardan_services::{MemoryKv, SqliteKv, WallClock, wall_clock};

fn space(plugin: &str) -> KvSpace {
    KvSpace { plugin: plugin.into(), limits: KvLimits::default() }
}

fn entry(key: &str, value: impl AsRef<[u8]>) -> KvEntry {
    KvEntry { key: key.to_owned(), value: value.as_ref().to_vec() }
}

fn scan(prefix: &str, after: Option<&str>, limit: usize) -> KvScan {
    KvScan { prefix: prefix.to_owned(), after: after.map(str::to_owned), limit, bytes_max: 1 << 20 }
}

fn keys(page: &KvPage) -> Vec<&str> {
    page.entries.iter().map(|entry| &*entry.key).collect()
}

/// A clock that stands until it is moved.
fn standing() -> (WallClock, Arc<AtomicU64>) {
    let now = Arc::new(AtomicU64::new(1_000_000));
    let shown = now.clone();
    (Arc::new(move || shown.load(Ordering::Relaxed)), now)
}

/// Both stores, one after the other.
async fn with_both<F: Future<Output = ()>>(test: impl Fn(Arc<dyn KvStore>, Arc<AtomicU64>) -> F) {
    let directory = tempfile::tempdir().unwrap();
    let (clock, now) = standing();
    let sqlite = SqliteKv::open(&directory.path().join("kv.sqlite"), clock).unwrap();
    test(Arc::new(sqlite), now).await;
    let (clock, now) = standing();
    test(Arc::new(MemoryKv::new(clock)), now).await;
}

#[tokio::test]
async fn what_is_set_is_there() {
    with_both(async |kv, _| {
        let (a, b) = (space("a"), space("b"));
        assert_eq!(kv.get(&a, "k".to_owned()).await.unwrap(), None);
        kv.set(&a, entry("k", "v"), None).await.unwrap();
        assert_eq!(kv.get(&a, "k".to_owned()).await.unwrap().as_deref(), Some(&b"v"[..]));
        assert_eq!(kv.get(&b, "k".to_owned()).await.unwrap(), None, "a plugin has its own");
        kv.set(&a, entry("k", b"\x00\xff"), None).await.unwrap();
        assert_eq!(kv.get(&a, "k".to_owned()).await.unwrap().as_deref(), Some(&b"\x00\xff"[..]));
        assert!(!kv.delete(&b, "k".to_owned()).await.unwrap());
        assert!(kv.delete(&a, "k".to_owned()).await.unwrap());
        assert!(!kv.delete(&a, "k".to_owned()).await.unwrap());
        assert_eq!(kv.get(&a, "k".to_owned()).await.unwrap(), None);
    })
    .await;
}

#[tokio::test]
async fn what_expired_is_gone() {
    with_both(async |kv, now| {
        let a = space("a");
        kv.set(&a, entry("short", "v"), Some(Duration::from_secs(10))).await.unwrap();
        kv.set(&a, entry("long", "v"), Some(Duration::from_secs(20))).await.unwrap();
        kv.set(&a, entry("count", "1"), Some(Duration::from_secs(10))).await.unwrap();
        now.fetch_add(9_999, Ordering::Relaxed);
        assert_eq!(kv.add(&a, "count".to_owned(), 1).await.unwrap(), 2);
        assert!(kv.get(&a, "short".to_owned()).await.unwrap().is_some());
        now.fetch_add(1, Ordering::Relaxed);
        assert_eq!(kv.get(&a, "short".to_owned()).await.unwrap(), None);
        assert_eq!(keys(&kv.scan(&a, scan("", None, 10)).await.unwrap()), ["long"]);
        // Adding kept when it expires, and begins anew after that.
        assert_eq!(kv.add(&a, "count".to_owned(), 5).await.unwrap(), 5);
        now.fetch_add(1_000_000, Ordering::Relaxed);
        assert!(kv.get(&a, "count".to_owned()).await.unwrap().is_some(), "the new one does not expire");
        assert!(kv.compare_and_set(&a, entry("long", "new"), None).await.unwrap(), "it is not there");
        assert!(!kv.delete(&a, "short".to_owned()).await.unwrap());
    })
    .await;
}

/// The longest that a store allows holds for keys that no `set` made.
#[tokio::test]
async fn what_is_made_without_a_word_expires() {
    with_both(async |kv, now| {
        let limits = KvLimits { ttl_max: Some(Duration::from_secs(10)), ..KvLimits::default() };
        let a = KvSpace { limits, ..space("a") };
        assert_eq!(kv.add(&a, "count".to_owned(), 1).await.unwrap(), 1);
        assert!(kv.compare_and_set(&a, entry("leader", "x"), None).await.unwrap());
        now.fetch_add(9_999, Ordering::Relaxed);
        assert_eq!(kv.add(&a, "count".to_owned(), 1).await.unwrap(), 2);
        assert!(kv.compare_and_set(&a, entry("leader", "y"), Some(b"x".to_vec())).await.unwrap());
        now.fetch_add(1, Ordering::Relaxed);
        assert_eq!(kv.get(&a, "count".to_owned()).await.unwrap(), None);
        assert_eq!(kv.get(&a, "leader".to_owned()).await.unwrap(), None);
    })
    .await;
}

#[tokio::test]
async fn atomic_operations() {
    with_both(async |kv, _| {
        let a = space("a");
        let adds = (0..200).map(|_| tokio::spawn(kv.add(&a, "n".to_owned(), 3)));
        for add in adds.collect::<Vec<_>>() {
            add.await.unwrap().unwrap();
        }
        assert_eq!(kv.add(&a, "n".to_owned(), -600).await.unwrap(), 0);
        let races =
            (0..50).map(|n| tokio::spawn(kv.compare_and_set(&a, entry("leader", n.to_string()), None)));
        let mut won = 0;
        for race in races.collect::<Vec<_>>() {
            won += u32::from(race.await.unwrap().unwrap());
        }
        assert_eq!(won, 1);
        let leader = kv.get(&a, "leader".to_owned()).await.unwrap();
        assert!(!kv.compare_and_set(&a, entry("leader", "x"), Some(b"other".to_vec())).await.unwrap());
        assert!(kv.compare_and_set(&a, entry("leader", "x"), leader).await.unwrap());
        kv.set(&a, entry("text", "abc"), None).await.unwrap();
        for (key, delta) in [("text", 1), ("n", i64::MIN)] {
            kv.add(&a, "n".to_owned(), -1).await.unwrap();
            let failure = kv.add(&a, key.to_owned(), delta).await.unwrap_err();
            assert!(matches!(failure, ServiceFailure::Invalid(_)), "{failure:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn scans() {
    with_both(async |kv, _| {
        let a = space("a");
        for key in ["a", "b/1", "b/2", "b/3", "b0", "c", "b/\u{10ffff}", "é"] {
            kv.set(&a, entry(key, key), None).await.unwrap();
        }
        let rows: [(&str, Option<&str>, usize, &[&str], bool); 8] = [
            ("b/", None, 10, &["b/1", "b/2", "b/3", "b/\u{10ffff}"], false),
            ("b/", None, 2, &["b/1", "b/2"], true),
            ("b/", Some("b/2"), 10, &["b/3", "b/\u{10ffff}"], false),
            ("b/", Some("a"), 1, &["b/1"], true),
            ("b/", Some("c"), 10, &[], false),
            ("", None, 3, &["a", "b/1", "b/2"], true),
            ("", Some("c"), 10, &["é"], false),
            ("zz", None, 10, &[], false),
        ];
        for (prefix, after, limit, expected, more) in rows {
            let page = kv.scan(&a, scan(prefix, after, limit)).await.unwrap();
            assert_eq!((keys(&page), page.more), (expected.to_vec(), more), "{prefix:?} {after:?} {limit}");
        }
        let small = KvScan { bytes_max: 7, ..scan("b/", None, 10) };
        let page = kv.scan(&a, small).await.unwrap();
        assert_eq!((keys(&page), page.more), (vec!["b/1", "b/2"], true), "by bytes");
    })
    .await;
}

#[tokio::test]
async fn caps() {
    with_both(async |kv, now| {
        let limits = KvLimits { keys_max: 3, total_bytes_max: 20, ..KvLimits::default() };
        let a = KvSpace { limits, ..space("a") };
        for key in ["1", "2", "3"] {
            kv.set(&a, entry(key, "v"), Some(Duration::from_secs(60))).await.unwrap();
        }
        let full = kv.set(&a, entry("4", "v"), None).await.unwrap_err();
        assert!(matches!(&full, ServiceFailure::Full(why) if why.contains("raise kv.keys")), "{full:?}");
        assert_eq!(kv.get(&a, "4".to_owned()).await.unwrap(), None);
        assert!(kv.add(&a, "4".to_owned(), 1).await.is_err());
        assert!(kv.compare_and_set(&a, entry("4", "v"), None).await.is_err());
        // What is there may still change, up to the other cap.
        kv.set(&a, entry("1", "twelve bytes"), Some(Duration::from_secs(60))).await.unwrap();
        let full = kv.set(&a, entry("1", "this is far too long"), None).await.unwrap_err();
        assert!(matches!(&full, ServiceFailure::Full(why) if why.contains("raise kv.total")), "{full:?}");
        assert_eq!(kv.get(&a, "1".to_owned()).await.unwrap().as_deref(), Some(&b"twelve bytes"[..]));
        kv.set(&space("b"), entry("4", "v"), None).await.unwrap();
        // What has expired takes no room.
        now.fetch_add(60_000, Ordering::Relaxed);
        for key in ["5", "6", "7"] {
            kv.set(&a, entry(key, "v"), None).await.unwrap();
        }
        assert!(kv.set(&a, entry("8", "v"), None).await.is_err());
        assert!(kv.delete(&a, "5".to_owned()).await.unwrap());
        kv.set(&a, entry("8", "v"), None).await.unwrap();
        // Limits that were lowered let a store shrink.
        let lower = KvSpace { limits: KvLimits { keys_max: 1, ..limits }, ..space("a") };
        kv.set(&lower, entry("8", "w"), None).await.unwrap();
        assert!(kv.delete(&lower, "8".to_owned()).await.unwrap());
    })
    .await;
}

/// What has expired leaves the file by itself, however much of it there is.
#[tokio::test]
async fn sweeping() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("kv.sqlite");
    let (clock, now) = standing();
    let kv = SqliteKv::open(&file, clock).unwrap();
    let writes = (0..1200).map(|n| {
        let write = kv.set(&space("a"), entry(&n.to_string(), "v"), Some(Duration::from_secs(10)));
        tokio::spawn(write)
    });
    for write in writes.collect::<Vec<_>>() {
        write.await.unwrap().unwrap();
    }
    now.fetch_add(10_000, Ordering::Relaxed);
    kv.set(&space("b"), entry("k", "v"), None).await.unwrap();
    let reader = rusqlite::Connection::open(&file).unwrap();
    let start = Instant::now();
    loop {
        let entries: i64 = reader.query_row("SELECT count(*) FROM entry", [], |row| row.get(0)).unwrap();
        if entries == 1 {
            break;
        }
        assert!(start.elapsed() < Duration::from_secs(30), "{entries} entries are left");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let used: i64 =
        reader.query_row("SELECT keys + bytes FROM space WHERE name = 'a'", [], |row| row.get(0)).unwrap();
    assert_eq!(used, 0);
}

#[tokio::test]
async fn restarts() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("kv.sqlite");
    for run in 1..=3 {
        let kv = SqliteKv::open(&file, wall_clock()).unwrap();
        assert_eq!(kv.add(&space("a"), "runs".to_owned(), 1).await.unwrap(), run);
        for name in ["kv.sqlite", "kv.sqlite-wal", "kv.sqlite-shm"] {
            use std::os::unix::fs::PermissionsExt as _;
            let metadata = std::fs::metadata(directory.path().join(name)).unwrap();
            assert_eq!(metadata.permissions().mode() & 0o777, 0o600, "{name}");
        }
    }
    std::fs::write(directory.path().join("other"), "no database at all, and long enough to be seen").unwrap();
    let error = SqliteKv::open(&directory.path().join("other"), wall_clock()).unwrap_err();
    assert!(error.to_string().contains("other cannot be used: "), "{error}");
}

/// Not a test by itself: the process that [`killed_at_any_moment`] kills.
#[test]
#[ignore = "writes until it is killed"]
fn writes_until_killed() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let kv = SqliteKv::open(Path::new("kv.sqlite"), wall_clock()).unwrap();
        let a = space("a");
        loop {
            let n = kv.add(&a, "n".to_owned(), 1).await.unwrap();
            kv.set(&a, entry(&format!("entry/{n:06}"), n.to_string()), None).await.unwrap();
            // Only now does anybody know.
            println!("written {n}.");
        }
    });
}

/// Whatever a writer was told is written is there after it was killed, and the counts are right.
#[tokio::test]
async fn killed_at_any_moment() {
    use std::io::{BufRead as _, BufReader};
    let directory = tempfile::tempdir().unwrap();
    // What was told, of all rounds: a number that was only added is no promise about its entry.
    let mut told = BTreeSet::new();
    for round in 0..50 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "kv::writes_until_killed", "--ignored", "--nocapture"])
            .current_dir(directory.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let before = told.len();
        let written = |line: &str| line.rsplit_once("written ")?.1.strip_suffix('.')?.parse::<i64>().ok();
        // At another moment each time.
        let enough: usize = 3 + round * 7 % 90;
        while let Some(Ok(line)) = lines.next() {
            told.extend(written(&line));
            if told.len() - before > enough {
                break;
            }
        }
        child.kill().unwrap();
        child.wait().unwrap();
        told.extend(lines.map_while(Result::ok).filter_map(|line| written(&line)));
        let kv = SqliteKv::open(&directory.path().join("kv.sqlite"), wall_clock()).unwrap();
        let a = space("a");
        let n = kv.add(&a, "n".to_owned(), 0).await.unwrap();
        let last = *told.last().unwrap();
        assert!(n >= last, "round {round}: {n} is less than {last}");
        for n in &told {
            let value = kv.get(&a, format!("entry/{n:06}")).await.unwrap();
            assert_eq!(value, Some(n.to_string().into_bytes()), "round {round}");
        }
    }
}

/// A plugin that writes without end makes others wait for a batch, not for its queue.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plugin_that_hammers() {
    let directory = tempfile::tempdir().unwrap();
    let kv = Arc::new(SqliteKv::open(&directory.path().join("kv.sqlite"), wall_clock()).unwrap());
    let quiet = space("quiet");
    let median = async |what: &str| {
        let mut times = Vec::new();
        for n in 0..100 {
            let start = Instant::now();
            kv.set(&quiet, entry("k", n.to_string()), None).await.unwrap();
            assert!(kv.get(&quiet, "k".to_owned()).await.unwrap().is_some());
            times.push(start.elapsed());
        }
        times.sort_unstable();
        println!("{what}: set and get take {:?}, 99th percentile {:?}", times[50], times[98]);
        times[50]
    };
    let alone = median("alone").await;
    let hammers: Vec<_> = (0..500)
        .map(|n| {
            let (kv, loud) = (kv.clone(), space("loud"));
            tokio::spawn(async move {
                let mut done = 0_u64;
                loop {
                    let _ = kv.set(&loud, entry(&format!("{n}/{}", done % 10), vec![b'x'; 1000]), None).await;
                    done += 1;
                }
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(200)).await;
    let beside = median("beside one that hammers").await;
    hammers.iter().for_each(tokio::task::JoinHandle::abort);
    // 500 writers are queued: in a line behind them it would be seconds for 100 rounds.
    assert!(beside < Duration::from_millis(100).max(alone * 50), "{beside:?}, {alone:?} alone");
}
