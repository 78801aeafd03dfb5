//! A store in one SQLite file.
//!
//! One thread writes, one reads and one scans, each on a connection of its own (in WAL mode none waits for
//! another): a scan takes as long as hundreds of reads, and whoever reads a key is not to wait for it. Most reads do not
//! even go to their thread: they are done where they are asked for, which takes microseconds, a fraction of what two
//! changes of threads do, and depends on nobody else's turn on the processors. The thread has those that find another one there.
//! The writer puts what is queued into one transaction, in which every operation has a savepoint: a plugin
//! that meets its cap undoes its own operation only. Callers are answered after the commit. Committed is what
//! the operating system has: it survives this process being killed at any moment.

use std::fmt;
use std::fs::OpenOptions;
use std::io;
use std::ops::Bound;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use cardan::{KvEntry, KvPage, KvScan, KvSpace, KvStore, ServiceFailure, Waiting};
use rusqlite::{Connection, OptionalExtension as _, Transaction, TransactionBehavior, params};
use tokio::sync::oneshot;

use super::lane::Lane;
use super::{Usage, WallClock, after_prefix, check, latest_ms, sum};

/// Said in the file, so that another layout is not mistaken for this one.
const LAYOUT: i64 = 1;
/// How long the writer waits for something to do before it looks for what has expired.
const SWEEP_EVERY: Duration = Duration::from_secs(5);
/// Expired entries that are removed at once: in between, others have their turn.
const SWEEP_MAX: u32 = 500;
/// How long another process may hold the file, such as a backup.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Usage is counted where the entries are, so that both are true together. Value and key are compared as
/// bytes.
const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS space (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, keys INTEGER NOT NULL DEFAULT 0,
    bytes INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE TABLE IF NOT EXISTS entry (
    id INTEGER PRIMARY KEY, space INTEGER NOT NULL REFERENCES space (id), key TEXT NOT NULL,
    value BLOB NOT NULL, expires_ms INTEGER, UNIQUE (space, key)
) STRICT;
CREATE INDEX IF NOT EXISTS entry_expires ON entry (expires_ms) WHERE expires_ms IS NOT NULL;
CREATE TRIGGER IF NOT EXISTS entry_inserted AFTER INSERT ON entry BEGIN
    UPDATE space SET keys = keys + 1, bytes = bytes + octet_length(new.key) + octet_length(new.value)
    WHERE id = new.space;
END;
CREATE TRIGGER IF NOT EXISTS entry_updated AFTER UPDATE OF value ON entry BEGIN
    UPDATE space SET bytes = bytes + octet_length(new.value) - octet_length(old.value) WHERE id = new.space;
END;
CREATE TRIGGER IF NOT EXISTS entry_deleted AFTER DELETE ON entry BEGIN
    UPDATE space SET keys = keys - 1, bytes = bytes - octet_length(old.key) - octet_length(old.value)
    WHERE id = old.space;
END;
";

/// Keeps key-value stores in one SQLite file.
#[derive(Clone)]
pub struct SqliteKv {
    threads: Arc<Threads>,
    clock: WallClock,
}

/// Why there is no store.
#[derive(Debug)]
pub struct KvError(String);

impl fmt::Display for KvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for KvError {}

impl fmt::Debug for SqliteKv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteKv").finish_non_exhaustive()
    }
}

type Job = Box<dyn FnOnce(&Transaction<'_>, u64) -> Reply + Send>;
/// Answers the caller, once what was done holds.
type Reply = Box<dyn FnOnce(Option<&ServiceFailure>) + Send>;

struct Threads {
    /// For reads at once, one at a time.
    at_once: Mutex<Connection>,
    reads: Arc<Lane<Job>>,
    scans: Arc<Lane<Job>>,
    writes: Arc<Lane<Job>>,
    handles: Vec<JoinHandle<()>>,
}

/// What is queued is done first.
impl Drop for Threads {
    fn drop(&mut self) {
        self.reads.close();
        self.scans.close();
        self.writes.close();
        for handle in self.handles.drain(..) {
            // One that panicked has said so.
            let _ = handle.join();
        }
    }
}

impl SqliteKv {
    /// Opens the store in `file`, or makes it. `clock` tells what has expired.
    ///
    /// # Errors
    ///
    /// When the file cannot be opened or is no such store.
    pub fn open(file: &Path, clock: WallClock) -> Result<Self, KvError> {
        let fail = |error: rusqlite::Error| {
            KvError(format!("the key-value store {} cannot be used: {error}", file.display()))
        };
        make_private(file).map_err(|error| {
            KvError(format!("the key-value store {} cannot be made: {error}", file.display()))
        })?;
        let writer = connect(file).map_err(fail)?;
        let layout: i64 = writer.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(fail)?;
        if layout > LAYOUT {
            return Err(KvError(format!(
                "the key-value store {} has the layout {layout}, and this program knows {LAYOUT}",
                file.display()
            )));
        }
        writer.execute_batch(SCHEMA).map_err(fail)?;
        writer.pragma_update(None, "user_version", LAYOUT).map_err(fail)?;
        let connect_to_read = || connect_to_read(file).map_err(fail);
        let (at_once, reader, scanner) = (connect_to_read()?, connect_to_read()?, connect_to_read()?);
        // Whoever would have to wait asks the thread.
        at_once.busy_timeout(Duration::ZERO).map_err(fail)?;
        let [reads, scans, writes] = [(); 3].map(|()| Arc::new(Lane::new()));
        let spawn = |name: &str, work: Box<dyn FnOnce() + Send>| {
            let spawned = std::thread::Builder::new().name(name.to_owned()).spawn(work);
            spawned.map_err(|error| KvError(format!("no thread for the key-value store: {error}")))
        };
        let (at_once, lane, now) = (Mutex::new(at_once), reads.clone(), clock.clone());
        let read = spawn("cardan-kv-read", Box::new(move || work(reader, &lane, &now, Sweep::Never)))?;
        let mut threads =
            Threads { at_once, reads, scans: scans.clone(), writes: writes.clone(), handles: vec![read] };
        let now = clock.clone();
        let scan = move || work(scanner, &scans, &now, Sweep::Never);
        threads.handles.push(spawn("cardan-kv-scan", Box::new(scan))?);
        let now = clock.clone();
        let write = move || work(writer, &writes, &now, Sweep::WhenIdle);
        threads.handles.push(spawn("cardan-kv-write", Box::new(write))?);
        Ok(Self { threads: Arc::new(threads), clock })
    }

    fn queue<T: Send + 'static>(
        &self,
        lane: &Arc<Lane<Job>>,
        space: &KvSpace,
        work: impl FnOnce(&Transaction<'_>, Scope<'_>) -> Result<T, Trouble> + Send + 'static,
    ) -> Waiting<T> {
        let (lane, space) = (lane.clone(), space.clone());
        Box::pin(async move {
            let (answer, answered) = oneshot::channel();
            let plugin = space.plugin.clone();
            let job: Job = Box::new(move |transaction, now_ms| {
                // Nobody waits for it any more.
                if answer.is_closed() {
                    return Box::new(|_| {});
                }
                let result = work(transaction, Scope { space: &space, now_ms });
                let result = result.map_err(|Trouble(failure)| failure);
                Box::new(move |failed| {
                    drop(answer.send(failed.map_or(result, |failure| Err(failure.clone()))));
                })
            });
            let gone = || ServiceFailure::Unavailable("the key-value store is closed".to_owned());
            if !lane.push(&plugin, job).await {
                return Err(gone());
            }
            answered.await.unwrap_or_else(|_| Err(gone()))
        })
    }
}

/// What plugins keep is for nobody else on the machine. SQLite gives the files beside this one the same mode.
/// One that is there is not even opened: closing it would end the locks that SQLite has on it in this process.
fn make_private(file: &Path) -> io::Result<()> {
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(file) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

fn connect(file: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(file)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.pragma_update(None, "journal_mode", "wal")?;
    connection.pragma_update(None, "synchronous", "normal")?;
    connection.set_prepared_statement_cache_capacity(32);
    Ok(connection)
}

fn connect_to_read(file: &Path) -> rusqlite::Result<Connection> {
    let connection = connect(file)?;
    connection.pragma_update(None, "query_only", true)?;
    Ok(connection)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sweep {
    WhenIdle,
    Never,
}

/// A thread's life: one transaction per batch.
fn work(mut connection: Connection, lane: &Lane<Job>, clock: &WallClock, sweep: Sweep) {
    let behavior = match sweep {
        Sweep::WhenIdle => TransactionBehavior::Immediate,
        Sweep::Never => TransactionBehavior::Deferred,
    };
    let _left = Left(lane);
    let mut swept_ms = clock();
    let mut idle = SWEEP_EVERY;
    while let Some(batch) = lane.next_batch(idle) {
        let now_ms = clock();
        if !batch.is_empty() {
            run(&mut connection, behavior, batch, now_ms);
        }
        let due = now_ms.saturating_sub(swept_ms) >= SWEEP_EVERY.as_millis() as u64;
        if sweep == Sweep::WhenIdle && due {
            let removed = remove_expired(&connection, now_ms).unwrap_or_else(|error| {
                tracing::warn!(%error, "expired keys of plugins were not removed");
                0
            });
            // Where there may be more, go on as soon as nobody else has anything to do.
            let more = removed >= SWEEP_MAX as usize;
            (swept_ms, idle) = if more { (swept_ms, Duration::ZERO) } else { (now_ms, SWEEP_EVERY) };
        }
    }
}

/// However a thread ends, nobody waits for it.
struct Left<'a>(&'a Lane<Job>);

impl Drop for Left<'_> {
    fn drop(&mut self) {
        self.0.abandon();
    }
}

fn run(connection: &mut Connection, behavior: TransactionBehavior, batch: Vec<Job>, now_ms: u64) {
    let mut replies = Vec::with_capacity(batch.len());
    let result = connection.transaction_with_behavior(behavior).and_then(|transaction| {
        replies.extend(batch.into_iter().map(|job| job(&transaction, now_ms)));
        transaction.commit()
    });
    let failure = result.err().map(|error| unavailable(&error));
    for reply in replies {
        reply(failure.as_ref());
    }
}

fn unavailable(error: &rusqlite::Error) -> ServiceFailure {
    ServiceFailure::Unavailable(format!("the key-value store failed: {error}"))
}

fn remove_expired(connection: &Connection, now_ms: u64) -> rusqlite::Result<usize> {
    connection
        .prepare_cached(
            "DELETE FROM entry WHERE id IN
             (SELECT id FROM entry WHERE expires_ms <= ?1 ORDER BY expires_ms LIMIT ?2)",
        )?
        .execute(params![now_ms.cast_signed(), SWEEP_MAX])
}

/// Why an operation failed.
struct Trouble(ServiceFailure);

impl From<rusqlite::Error> for Trouble {
    fn from(error: rusqlite::Error) -> Self {
        Self(unavailable(&error))
    }
}

impl From<ServiceFailure> for Trouble {
    fn from(failure: ServiceFailure) -> Self {
        Self(failure)
    }
}

/// One plugin's store, now.
#[derive(Clone, Copy)]
struct Scope<'a> {
    space: &'a KvSpace,
    now_ms: u64,
}

impl Scope<'_> {
    /// `None`: nothing was ever written.
    fn id(self, transaction: &Transaction<'_>) -> Result<Option<i64>, Trouble> {
        let mut statement = transaction.prepare_cached("SELECT id FROM space WHERE name = ?1")?;
        Ok(statement.query_row([&*self.space.plugin], |row| row.get(0)).optional()?)
    }

    fn id_or_new(self, transaction: &Transaction<'_>) -> Result<i64, Trouble> {
        if let Some(id) = self.id(transaction)? {
            return Ok(id);
        }
        transaction.prepare_cached("INSERT INTO space (name) VALUES (?1)")?.execute([&*self.space.plugin])?;
        Ok(transaction.last_insert_rowid())
    }

    fn usage(transaction: &Transaction<'_>, id: i64) -> Result<Usage, Trouble> {
        let mut statement = transaction.prepare_cached("SELECT keys, bytes FROM space WHERE id = ?1")?;
        let usage = statement.query_row([id], |row| {
            let (keys, bytes): (i64, i64) = (row.get(0)?, row.get(1)?);
            Ok(Usage { keys: keys.unsigned_abs(), bytes: bytes.unsigned_abs() })
        });
        Ok(usage?)
    }

    fn value(self, transaction: &Transaction<'_>, id: i64, key: &str) -> Result<Option<Vec<u8>>, Trouble> {
        let mut statement = transaction.prepare_cached(
            "SELECT value FROM entry
             WHERE space = ?1 AND key = ?2 AND (expires_ms IS NULL OR expires_ms > ?3)",
        )?;
        let found = statement.query_row(params![id, key, self.now_ms.cast_signed()], |row| row.get(0));
        Ok(found.optional()?)
    }

    /// The same where the store's number is not known.
    fn find(self, connection: &Connection, key: &str) -> Result<Option<Vec<u8>>, Trouble> {
        let mut statement = connection.prepare_cached(
            "SELECT value FROM entry
             WHERE space = (SELECT id FROM space WHERE name = ?1) AND key = ?2
               AND (expires_ms IS NULL OR expires_ms > ?3)",
        )?;
        let sought = params![&*self.space.plugin, key, self.now_ms.cast_signed()];
        Ok(statement.query_row(sought, |row| row.get(0)).optional()?)
    }

    /// Writes an entry, if the store may be that large. `expires_ms` of `None` leaves it as it is,
    /// and lets a new entry live as long as its store allows.
    fn put(
        self,
        transaction: &Transaction<'_>,
        id: i64,
        entry: &KvEntry,
        expires_ms: Option<Option<i64>>,
    ) -> Result<(), Trouble> {
        let KvEntry { key, value } = entry;
        transaction.execute_batch("SAVEPOINT operation")?;
        let written = self.write(transaction, id, (key, value), expires_ms);
        let end = match written {
            Ok(()) => "RELEASE operation",
            Err(_) => "ROLLBACK TO operation; RELEASE operation",
        };
        transaction.execute_batch(end)?;
        written
    }

    fn write(
        self,
        transaction: &Transaction<'_>,
        id: i64,
        (key, value): (&str, &[u8]),
        expires_ms: Option<Option<i64>>,
    ) -> Result<(), Trouble> {
        // An expired entry is not there; what it would have kept is not kept.
        let mut expired = transaction
            .prepare_cached("DELETE FROM entry WHERE space = ?1 AND key = ?2 AND expires_ms <= ?3")?;
        expired.execute(params![id, key, self.now_ms.cast_signed()])?;
        let before = Self::usage(transaction, id)?;
        let mut statement = transaction.prepare_cached(match expires_ms {
            Some(_) => {
                "INSERT INTO entry (space, key, value, expires_ms) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT (space, key) DO UPDATE SET value = ?3, expires_ms = ?4"
            }
            None => {
                "INSERT INTO entry (space, key, value, expires_ms) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT (space, key) DO UPDATE SET value = ?3"
            }
        })?;
        let latest = || latest_ms(self.space, self.now_ms).map(|ms| i64::try_from(ms).unwrap_or(i64::MAX));
        statement.execute(params![id, key, value, expires_ms.unwrap_or_else(latest)])?;
        let after = Self::usage(transaction, id)?;
        if check(self.space, before, after).is_ok() {
            return Ok(());
        }
        // What has expired takes no room; only now is it worth looking for.
        let mut sweep =
            transaction.prepare_cached("DELETE FROM entry WHERE space = ?1 AND expires_ms <= ?2")?;
        let swept = sweep.execute(params![id, self.now_ms.cast_signed()])?;
        let after = if swept > 0 { Self::usage(transaction, id)? } else { after };
        Ok(check(self.space, before, after)?)
    }
}

impl KvStore for SqliteKv {
    fn get(&self, space: &KvSpace, key: String) -> Waiting<Option<Vec<u8>>> {
        let (store, space) = (self.clone(), space.clone());
        Box::pin(async move {
            let found =
                store.threads.at_once.try_lock().ok().map(|connection| {
                    Scope { space: &space, now_ms: (store.clock)() }.find(&connection, &key)
                });
            if let Some(Ok(value)) = found {
                return Ok(value);
            }
            store
                .queue(&store.threads.reads, &space, move |transaction, scope| scope.find(transaction, &key))
                .await
        })
    }

    fn set(&self, space: &KvSpace, entry: KvEntry, ttl: Option<Duration>) -> Waiting<()> {
        self.queue(&self.threads.writes, space, move |transaction, scope| {
            let expires = ttl.map(|ttl| scope.now_ms.saturating_add(ttl.as_millis() as u64));
            let expires = expires.map(|ms| i64::try_from(ms).unwrap_or(i64::MAX));
            let id = scope.id_or_new(transaction)?;
            scope.put(transaction, id, &entry, Some(expires))
        })
    }

    fn delete(&self, space: &KvSpace, key: String) -> Waiting<bool> {
        self.queue(&self.threads.writes, space, move |transaction, scope| {
            let Some(id) = scope.id(transaction)? else { return Ok(false) };
            let there = scope.value(transaction, id, &key)?.is_some();
            let mut statement =
                transaction.prepare_cached("DELETE FROM entry WHERE space = ?1 AND key = ?2")?;
            statement.execute(params![id, key])?;
            Ok(there)
        })
    }

    fn add(&self, space: &KvSpace, key: String, delta: i64) -> Waiting<i64> {
        self.queue(&self.threads.writes, space, move |transaction, scope| {
            let id = scope.id_or_new(transaction)?;
            let sum = sum(scope.value(transaction, id, &key)?.as_deref(), delta)?;
            let entry = KvEntry { key, value: sum.to_string().into_bytes() };
            scope.put(transaction, id, &entry, None)?;
            Ok(sum)
        })
    }

    fn compare_and_set(&self, space: &KvSpace, entry: KvEntry, expected: Option<Vec<u8>>) -> Waiting<bool> {
        self.queue(&self.threads.writes, space, move |transaction, scope| {
            let id = scope.id_or_new(transaction)?;
            if scope.value(transaction, id, &entry.key)? != expected {
                return Ok(false);
            }
            scope.put(transaction, id, &entry, None).map(|()| true)
        })
    }

    fn scan(&self, space: &KvSpace, scan: KvScan) -> Waiting<KvPage> {
        self.queue(&self.threads.scans, space, move |transaction, scope| {
            let Some(id) = scope.id(transaction)? else { return Ok(KvPage::default()) };
            let from = match scan.after {
                Some(after) if after >= scan.prefix => Bound::Excluded(after),
                _ => Bound::Included(scan.prefix.clone()),
            };
            let (least, with_least) = match from {
                Bound::Excluded(after) => (after, 0),
                Bound::Included(key) => (key, 1),
                Bound::Unbounded => (String::new(), 1),
            };
            let end = after_prefix(&scan.prefix);
            let mut statement = transaction.prepare_cached(
                "SELECT key, value FROM entry
                 WHERE space = ?1 AND (key > ?2 OR (?3 AND key = ?2)) AND key >= ?2
                   AND (?4 IS NULL OR key < ?4) AND (expires_ms IS NULL OR expires_ms > ?5)
                 ORDER BY key",
            )?;
            let mut rows =
                statement.query(params![id, least, with_least, end, scope.now_ms.cast_signed()])?;
            let mut page = KvPage::default();
            let mut bytes = 0;
            while let Some(row) = rows.next()? {
                if page.entries.len() >= scan.limit || bytes >= scan.bytes_max {
                    page.more = true;
                    break;
                }
                let entry = KvEntry { key: row.get(0)?, value: row.get(1)? };
                bytes += entry.key.len() + entry.value.len();
                page.entries.push(entry);
            }
            Ok(page)
        })
    }
}
