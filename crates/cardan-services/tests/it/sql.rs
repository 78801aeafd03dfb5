//! Databases: a SQLite file and a real PostgreSQL server.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use cardan::api::grants::Access;
use cardan::{SqlDatabase, SqlFailure, SqlQuery, SqlResult};
use cardan_services::{SqlPools, SqlTarget};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::postgres::Server;

const TIMEOUT: Duration = Duration::from_secs(20);

fn query(access: Access, statement: &str, parameters: Value) -> SqlQuery {
    SqlQuery {
        plugin: "one".into(),
        connection: "main".to_owned(),
        access,
        statement: statement.to_owned(),
        parameters: parameters.as_array().unwrap().clone(),
        rows_max: 100,
        result_bytes_max: 100_000,
        timeout: TIMEOUT,
    }
}

fn pools(address: &str) -> SqlPools {
    SqlPools::new([("main".to_owned(), SqlTarget::parse(address).unwrap())]).unwrap()
}

fn sqlite(directory: &Path) -> SqlPools {
    pools(&format!("sqlite:{}", directory.join("data.sqlite").display()))
}

async fn write(pools: &SqlPools, statement: &str) -> SqlResult {
    pools.query(query(Access::Write, statement, json!([]))).await.unwrap()
}

async fn read(pools: &SqlPools, statement: &str, parameters: Value) -> Result<SqlResult, SqlFailure> {
    pools.query(query(Access::Read, statement, parameters)).await
}

#[track_caller]
fn check_code(found: Result<SqlResult, SqlFailure>, code: &str, why: &str) {
    let Err(SqlFailure::Statement { code: found, message }) = &found else { panic!("{why}: {found:?}") };
    assert!(found == code, "{why}: {found} {message}");
}

/// Both databases, each with a table of three rows.
async fn with_both(test: impl AsyncFn(&SqlPools, &str)) {
    let directory = tempfile::tempdir().unwrap();
    let sqlite = sqlite(directory.path());
    let server = Server::start(&[], &[]).unwrap_or_else(|why| panic!("no PostgreSQL server: {why}"));
    let postgres = pools(&server.address());
    for (pools, name) in [(&sqlite, "sqlite"), (&postgres, "postgres")] {
        write(pools, "CREATE TABLE item (id integer primary key, name text)").await;
        let inserted = write(pools, "INSERT INTO item VALUES (1, 'one'), (2, 'two'), (3, NULL)").await;
        assert_eq!(inserted.affected, 3, "{name}");
        test(pools, name).await;
    }
}

#[tokio::test]
async fn rows_and_parameters() {
    with_both(async |pools, name| {
        let found =
            read(pools, "SELECT id, name FROM item WHERE id > $1 ORDER BY id", json!([1])).await.unwrap();
        assert_eq!(found.columns, ["id", "name"], "{name}");
        assert_eq!(found.rows, [vec![json!(2), json!("two")], vec![json!(3), json!(null)]], "{name}");
        // Parameters are values, whatever is in them; one may be used twice, and in any order.
        let evil = "' OR 1=1; DROP TABLE item; --";
        let found =
            read(pools, "SELECT count(*) FROM item WHERE name = $1 OR name = $1", json!([evil])).await;
        assert_eq!(found.unwrap().rows, [[json!(0)]], "{name}");
        let found = read(pools, "SELECT name FROM item WHERE id = $2 AND name = $1", json!(["two", 2])).await;
        assert_eq!(found.unwrap().rows, [[json!("two")]], "{name}");
        for parameters in [json!([]), json!([1, 2])] {
            let found = read(pools, "SELECT 1 FROM item WHERE id = $1", parameters).await;
            assert!(matches!(found, Err(SqlFailure::Statement { .. })), "{name}: {found:?}");
        }
        let returned = pools
            .query(query(Access::Write, "UPDATE item SET name = $1 WHERE id < 3 RETURNING id", json!(["x"])))
            .await
            .unwrap();
        assert_eq!((returned.rows.len(), returned.affected), (2, 2), "{name}");
        let found = read(pools, "SELECT absent FROM item", json!([])).await;
        assert!(matches!(found, Err(SqlFailure::Statement { .. })), "{name}: {found:?}");
        let unknown =
            SqlQuery { connection: "other".to_owned(), ..query(Access::Read, "SELECT 1", json!([])) };
        assert_eq!(pools.query(unknown).await, Err(SqlFailure::Unknown));
    })
    .await;
}

/// The databases themselves refuse to write where reading was granted, however it is asked for.
#[tokio::test]
async fn read_only() {
    with_both(async |pools, name| {
        let statements = [
            "INSERT INTO item VALUES (4, 'four')",
            "DELETE FROM item",
            "UPDATE item SET name = 'x'",
            "CREATE TABLE other (id integer)",
            "DROP TABLE item",
            "ALTER TABLE item ADD COLUMN more text",
            "INSERT INTO item VALUES (4, 'four') RETURNING id",
        ];
        for statement in statements {
            let found = read(pools, statement, json!([])).await;
            assert_eq!(found, Err(SqlFailure::ReadOnly), "{name}: {statement}");
        }
        let count = read(pools, "SELECT count(*) FROM item", json!([])).await.unwrap();
        assert_eq!(count.rows, [[json!(3)]], "{name}");
    })
    .await;
}

/// One statement is one statement, and none is about anything else than the data.
#[tokio::test]
async fn statements_that_are_refused() {
    with_both(async |pools, name| {
        let more = if name == "sqlite" { "SQLITE_MISUSE" } else { "42601" };
        for statement in ["SELECT 1; SELECT 2", "SELECT 1; DELETE FROM item"] {
            for access in [Access::Read, Access::Write] {
                check_code(pools.query(query(access, statement, json!([]))).await, more, statement);
            }
        }
        assert!(read(pools, "SELECT 1;", json!([])).await.is_ok(), "{name}: one that ends");
        for statement in ["", " ", "-- nothing", "BEGIN", "COMMIT", "ROLLBACK", "SAVEPOINT a"] {
            for access in [Access::Read, Access::Write] {
                let found = pools.query(query(access, statement, json!([]))).await;
                assert!(matches!(found, Err(SqlFailure::Statement { .. })), "{name}: {statement}: {found:?}");
            }
        }
        assert_eq!(read(pools, "SELECT 1", json!([])).await.unwrap().rows, [[json!(1)]], "{name}");
    })
    .await;
}

#[tokio::test]
async fn caps() {
    with_both(async |pools, name| {
        let numbers =
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < $1) SELECT i FROM n";
        let typed = numbers.replace("$1", "CAST($1 AS integer)");
        let found = read(pools, &typed, json!([100])).await.unwrap();
        assert_eq!(found.rows.len(), 100, "{name}");
        let found = read(pools, &typed, json!([101])).await;
        assert!(
            matches!(&found, Err(SqlFailure::TooLarge(why)) if why.contains("100 rows")),
            "{name}: {found:?}"
        );
        let wide =
            SqlQuery { result_bytes_max: 10, ..query(Access::Read, "SELECT 'eleven bytes'", json!([])) };
        assert!(matches!(pools.query(wide).await, Err(SqlFailure::TooLarge(_))), "{name}");
        // A write that returns too much has not happened.
        let found =
            SqlQuery { rows_max: 2, ..query(Access::Write, "DELETE FROM item RETURNING id", json!([])) };
        assert!(matches!(pools.query(found).await, Err(SqlFailure::TooLarge(_))), "{name}");
        let count = read(pools, "SELECT count(*) FROM item", json!([])).await.unwrap();
        assert_eq!(count.rows, [[json!(3)]], "{name}");
        let start = Instant::now();
        let endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT 1 FROM n) SELECT count(*) FROM n";
        let slow =
            SqlQuery { timeout: Duration::from_millis(300), ..query(Access::Read, endless, json!([])) };
        assert_eq!(pools.query(slow).await, Err(SqlFailure::Timeout), "{name}");
        assert!(start.elapsed() < Duration::from_secs(5), "{name}: {:?}", start.elapsed());
    })
    .await;
}

/// A statement whose caller is gone ends, and its connection is free again.
#[tokio::test]
async fn callers_that_leave() {
    with_both(async |pools, name| {
        let endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT 1 FROM n) SELECT count(*) FROM n";
        // More than there are connections.
        for _ in 0..20 {
            let left = tokio::time::timeout(Duration::from_millis(30), read(pools, endless, json!([]))).await;
            assert!(left.is_err(), "{name}");
        }
        let start = Instant::now();
        assert!(read(pools, "SELECT 1", json!([])).await.is_ok(), "{name}");
        assert!(start.elapsed() < Duration::from_secs(10), "{name}: {:?}", start.elapsed());
    })
    .await;
}

/// What only SQLite has.
#[tokio::test]
async fn sqlite_stays_in_its_file() {
    let directory = tempfile::tempdir().unwrap();
    let pools = sqlite(directory.path());
    write(&pools, "CREATE TABLE item (id integer primary key, data blob, real real)").await;
    let other = directory.path().join("other");
    let statements = [
        format!("ATTACH '{}' AS other", other.display()),
        format!("VACUUM INTO '{}'", other.display()),
        "VACUUM".to_owned(),
        "PRAGMA query_only = off".to_owned(),
        "PRAGMA journal_mode".to_owned(),
        "SELECT * FROM pragma_table_info('item')".to_owned(),
        "SELECT load_extension('x')".to_owned(),
        "CREATE TEMP TABLE t (x)".to_owned(),
        "DETACH main".to_owned(),
    ];
    for statement in &statements {
        for access in [Access::Read, Access::Write] {
            let found = pools.query(query(access, statement, json!([]))).await;
            assert!(matches!(found, Err(SqlFailure::Statement { .. })), "{access:?}: {statement}: {found:?}");
        }
    }
    assert!(!other.exists());
    // Values.
    let bytes = json!({ "base64": "AP8=" });
    pools
        .query(query(
            Access::Write,
            "INSERT INTO item VALUES (?, ?, ?)",
            json!([9007199254740993_i64, bytes, 0.5]),
        ))
        .await
        .unwrap();
    let found = read(&pools, "SELECT id, data, real, true FROM item", json!([])).await.unwrap();
    assert_eq!(found.rows, [[json!(9007199254740993_i64), bytes, json!(0.5), json!(1)]]);
    // A blob larger than the machine.
    let found = read(&pools, "SELECT length(zeroblob(2000000000))", json!([])).await;
    assert!(matches!(found, Err(SqlFailure::Statement { .. })), "{found:?}");
    // A file that is not there is not made for reading.
    let missing = tempfile::tempdir().unwrap();
    let found = read(&sqlite(missing.path()), "SELECT 1", json!([])).await;
    assert!(matches!(found, Err(SqlFailure::Unavailable(_))), "{found:?}");
}

/// No call of a function takes long, however large its arguments: the statement ends when it is to.
#[tokio::test]
async fn sqlite_work_is_bounded() {
    let directory = tempfile::tempdir().unwrap();
    let pools = sqlite(directory.path());
    write(&pools, "CREATE TABLE item (id integer)").await;
    let long = "replace(hex(zeroblob(2000000)), '0', 'a')";
    let half = "replace(hex(zeroblob(1000000)), '0', 'a') || 'b'";
    let set = "replace(hex(zeroblob(1000000)), '0', 'b') || 'a'";
    let object = |letter: &str| {
        format!(
            "(SELECT '{{' || group_concat('\"{letter}' || i || '\":1') || '}}' FROM (WITH RECURSIVE n(i) AS \
             (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200000) SELECT i FROM n))"
        )
    };
    let repeated = (0..2_000).map(|_| "length(hex(randomblob(2000000)))").collect::<Vec<_>>().join(", ");
    let held = (0..1_000).map(|_| "hex(zeroblob(2000000))").collect::<Vec<_>>().join(", ");
    let rows = [
        format!("SELECT instr({long}, {half})"),
        format!("SELECT length(replace({long}, {half}, 'x'))"),
        format!("SELECT length(trim({long}, {set}))"),
        format!("SELECT length(unhex(hex(zeroblob(2)) || {long}, {set}))"),
        format!("SELECT {long} LIKE '%{}b'", "a".repeat(190)),
        format!("SELECT length(json_patch({}, {}))", object("a"), object("b")),
        "SELECT length(printf('%.*c', 4000000, 'x'))".to_owned(),
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT sum(length(hex(randomblob(2000000)))) FROM n"
            .to_owned(),
        format!("SELECT {repeated}"),
        format!("SELECT coalesce(NULL, {held})"),
        format!("SELECT length({})", ["hex(zeroblob(2000000))"; 90].join(" || ")),
    ];
    for statement in rows {
        let shown = &statement[..statement.len().min(80)];
        let start = Instant::now();
        // All turns that a plugin has, which it gets back only when they have ended.
        let asked = (0..4).map(|_| {
            let asked = SqlQuery {
                timeout: Duration::from_millis(100),
                result_bytes_max: 4 << 20,
                ..query(Access::Read, &statement, json!([]))
            };
            tokio::spawn(pools.query(asked))
        });
        for asked in asked.collect::<Vec<_>>() {
            let found = asked.await.unwrap();
            let answered = start.elapsed();
            assert!(answered < Duration::from_secs(2), "{shown}: answered after {answered:?}: {found:?}");
        }
        let found = read(&pools, "SELECT count(*) FROM item", json!([])).await;
        assert!(found.is_ok(), "{shown}: {found:?}");
        assert!(start.elapsed() < Duration::from_secs(15), "{shown}: ended after {:?}", start.elapsed());
    }
}

/// What a statement that reads puts into temporary files has an end.
#[tokio::test]
async fn sqlite_temporary_files_are_bounded() {
    let directory = tempfile::tempdir().unwrap();
    let pools = sqlite(directory.path());
    write(&pools, "CREATE TABLE item (id integer)").await;
    let sorted = |mebibytes: u32| {
        format!(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {mebibytes}) \
             SELECT length(it) FROM (SELECT randomblob(1 << 20) AS it FROM n ORDER BY it) LIMIT 1"
        )
    };
    let distinct = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) \
                    SELECT count(DISTINCT randomblob(1 << 20)) FROM n";
    assert!(read(&pools, &sorted(20), json!([])).await.is_ok());
    for statement in [&*sorted(1_000), distinct] {
        let found = read(&pools, statement, json!([])).await;
        assert!(
            matches!(&found, Err(SqlFailure::TooLarge(why)) if why.contains("temporary files")),
            "{statement}: {found:?}"
        );
    }
}

/// One plugin has half of a pool at most, whatever it runs there: the others have the rest.
#[tokio::test]
async fn one_plugin_does_not_take_all_turns() {
    with_both(async |pools, name| {
        let endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT 1 FROM n) SELECT count(*) FROM n";
        let greedy = (0..20).map(|_| {
            let asked =
                SqlQuery { timeout: Duration::from_secs(3), ..query(Access::Read, endless, json!([])) };
            tokio::spawn(pools.query(asked))
        });
        let greedy = greedy.collect::<Vec<_>>();
        tokio::time::sleep(Duration::from_millis(200)).await;
        let start = Instant::now();
        let other = SqlQuery { plugin: "other".into(), ..query(Access::Read, "SELECT 1", json!([])) };
        assert!(pools.query(other).await.is_ok(), "{name}");
        assert!(start.elapsed() < Duration::from_secs(2), "{name}: {:?}", start.elapsed());
        for asked in greedy {
            assert_eq!(asked.await.unwrap(), Err(SqlFailure::Timeout), "{name}");
        }
    })
    .await;
}

/// What was answered with a timeout did not happen.
#[tokio::test]
async fn a_write_that_takes_too_long_did_not_happen() {
    let directory = tempfile::tempdir().unwrap();
    let pools = sqlite(directory.path());
    write(&pools, "CREATE TABLE item (id integer)").await;
    let mut inserted = 0;
    for micros in (0..40).map(|n| n * 250) {
        let asked = SqlQuery {
            timeout: Duration::from_micros(micros),
            ..query(Access::Write, "INSERT INTO item VALUES (1)", json!([]))
        };
        match pools.query(asked).await {
            Ok(_) => inserted += 1,
            found => assert_eq!(found, Err(SqlFailure::Timeout)),
        }
    }
    // Behind whatever still runs.
    write(&pools, "INSERT INTO item VALUES (2)").await;
    let found = read(&pools, "SELECT count(*) FROM item WHERE id = 1", json!([])).await.unwrap();
    assert_eq!(found.rows, [[json!(inserted)]]);
}

/// What only PostgreSQL has: a session that guests could change.
#[tokio::test]
async fn postgres_sessions() {
    let pools = pools(&Server::shared().address());
    write(&pools, "CREATE TABLE session_item (id integer)").await;
    let refused = [
        "SET default_transaction_read_only = off",
        "SET TRANSACTION READ WRITE",
        "SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE",
        "RESET ALL",
        "DISCARD ALL",
        "COPY (SELECT 1) TO PROGRAM 'touch /tmp/cardan-was-here'",
        "COPY session_item TO STDOUT",
        "DO $$ BEGIN PERFORM 1; END $$",
        "CALL nothing()",
        "LISTEN x",
        "PREPARE p AS SELECT 1",
        "EXECUTE p",
        "LOCK session_item",
        "/* comment */ SET ROLE postgres",
        "END",
        "ABORT",
        "START TRANSACTION",
    ];
    for statement in refused {
        for access in [Access::Read, Access::Write] {
            check_code(pools.query(query(access, statement, json!([]))).await, "0A000", statement);
        }
    }
    let switches = [
        "SELECT set_config('transaction_read_only', 'off', false)",
        "SELECT set_config('transaction_read_only', 'off', true)",
    ];
    for statement in switches {
        let found = read(&pools, statement, json!([])).await;
        assert!(found.is_err(), "{statement}: {found:?}");
    }
    for statement in [
        "SELECT set_config('default_transaction_read_only', 'off', false)",
        "SELECT set_config('statement_timeout', '0', false)",
        "SELECT set_config('search_path', 'pg_temp', false)",
        "SELECT pg_advisory_lock(1)",
    ] {
        read(&pools, statement, json!([])).await.unwrap();
        pools.query(query(Access::Write, statement, json!([]))).await.unwrap();
        assert_eq!(
            read(&pools, "INSERT INTO session_item VALUES (1)", json!([])).await,
            Err(SqlFailure::ReadOnly),
            "after {statement}"
        );
    }
    // Whoever comes next has a session like the first.
    tokio::time::sleep(Duration::from_millis(100)).await;
    for _ in 0..10 {
        let found = read(
            &pools,
            "SELECT current_setting('search_path'), current_setting('default_transaction_read_only')",
            json!([]),
        )
        .await
        .unwrap();
        assert_eq!(found.rows, [[json!("\"$user\", public"), json!("on")]]);
        let locks =
            read(&pools, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'", json!([])).await;
        assert_eq!(locks.unwrap().rows, [[json!(0)]]);
    }
    // A write that is hidden in a query.
    for statement in [
        "WITH gone AS (DELETE FROM session_item RETURNING id) SELECT * FROM gone",
        "EXPLAIN ANALYZE INSERT INTO session_item VALUES (1)",
        "SELECT 1 INTO other_table",
        "TRUNCATE session_item",
    ] {
        assert_eq!(read(&pools, statement, json!([])).await, Err(SqlFailure::ReadOnly), "{statement}");
    }
}

/// A value that is more than a result may be is not read to its end.
#[tokio::test]
async fn postgres_values_without_measure() {
    let (port, told) = relay(Server::shared().port()).await;
    let pools = pools(&format!("postgres://postgres@127.0.0.1:{port}/postgres"));
    for statement in [
        "SELECT repeat('x', 200000000)",
        "SELECT convert_to(repeat('x', 200000000), 'UTF8')",
        "SELECT array_fill(1, ARRAY[20000000])",
        "SELECT i, repeat('x', 20000000) FROM generate_series(1, 50) AS i",
    ] {
        told.store(0, Ordering::Relaxed);
        let found = read(&pools, statement, json!([])).await;
        assert!(matches!(found, Err(SqlFailure::TooLarge(_))), "{statement}: {found:?}");
        // What the machine holds on the way is some MiB.
        let told = told.load(Ordering::Relaxed);
        assert!(told < 16 << 20, "{statement}: {told} bytes");
        assert_eq!(read(&pools, "SELECT 1", json!([])).await.unwrap().rows, [[json!(1)]], "{statement}");
    }
    // What is allowed is not in the way of itself, however it is written on the wire.
    let empty = "SELECT ".to_owned() + &["'{}'::int[]"; 400].join(", ") + " FROM generate_series(1, 100)";
    for statement in ["SELECT repeat('x', 90000)", "SELECT array_fill(''::text, ARRAY[20000])", &empty] {
        let found = read(&pools, statement, json!([])).await;
        assert!(found.is_ok(), "{statement}: {found:?}");
    }
}

/// Stands before a server and counts what it says.
async fn relay(server: u16) -> (u16, Arc<AtomicU64>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let told = Arc::new(AtomicU64::new(0));
    let counter = told.clone();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = TcpStream::connect(("127.0.0.1", server)).await.unwrap();
            let (mut from_client, mut to_client) = client.into_split();
            let (mut from_server, mut to_server) = server.into_split();
            let counter = counter.clone();
            tokio::spawn(async move {
                let _ = tokio::io::copy(&mut from_client, &mut to_server).await;
            });
            tokio::spawn(async move {
                let mut buffer = vec![0; 1 << 16];
                while let Ok(read @ 1..) = from_server.read(&mut buffer).await {
                    counter.fetch_add(read as u64, Ordering::Relaxed);
                    if to_client.write_all(&buffer[..read]).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    (port, told)
}

#[tokio::test]
async fn postgres_values() {
    let pools = pools(&Server::shared().address());
    let rows = [
        ("true", json!(true)),
        ("1::int2", json!(1)),
        ("-5", json!(-5)),
        ("9007199254740993", json!(9007199254740993_i64)),
        ("1.5::float8", json!(1.5)),
        ("'NaN'::float8", json!("NaN")),
        ("12345.678900::numeric", json!("12345.678900")),
        ("-0.00012::numeric", json!("-0.00012")),
        ("100000000::numeric", json!("100000000")),
        ("0::numeric", json!("0")),
        ("'a'::text", json!("a")),
        ("'a'::varchar", json!("a")),
        ("'x'::name", json!("x")),
        ("'{\"a\": [1]}'::jsonb", json!({"a": [1]})),
        ("'[1]'::json", json!([1])),
        ("'\\x00ff'::bytea", json!({"base64": "AP8="})),
        ("'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'::uuid", json!("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11")),
        ("'2024-02-29'::date", json!("2024-02-29")),
        ("'1969-12-31'::date", json!("1969-12-31")),
        ("'0001-01-01'::date", json!("0001-01-01")),
        ("'infinity'::date", json!("infinity")),
        ("'2024-02-29 13:14:15.5'::timestamp", json!("2024-02-29T13:14:15.5")),
        ("'2024-02-29 13:14:15+02'::timestamptz", json!("2024-02-29T11:14:15Z")),
        ("'13:14:15'::time", json!("13:14:15")),
        ("ARRAY[1, NULL, 3]", json!([1, null, 3])),
        ("ARRAY[['a','b'],['c','d']]", json!([["a", "b"], ["c", "d"]])),
        ("'{}'::text[]", json!([])),
        ("NULL::int", json!(null)),
    ];
    for (expression, expected) in rows {
        let found = read(&pools, &format!("SELECT {expression}"), json!([])).await.unwrap();
        assert_eq!(found.rows, [[expected]], "{expression}");
    }
    let found = read(&pools, "SELECT '(1,2)'::point AS p", json!([])).await;
    check_code(found, "0A000", "a type without a form in JSON");
    // As parameters.
    let rows = [
        ("$1::int + 1", json!(41), json!(42)),
        ("$1::int8", json!("9007199254740993"), json!(9007199254740993_i64)),
        ("$1::bool", json!(true), json!(true)),
        ("$1::text", json!("a'b\"c\\"), json!("a'b\"c\\")),
        ("$1::text", json!(null), json!(null)),
        ("$1::jsonb", json!({"a": "b"}), json!({"a": "b"})),
        ("$1::jsonb", json!("text"), json!("text")),
        ("$1::text[]", json!(["a,b", "c\"d", null, "e\\f"]), json!(["a,b", "c\"d", null, "e\\f"])),
        ("$1::int[]", json!([[1, 2], [3, 4]]), json!([[1, 2], [3, 4]])),
        ("$1::bytea", json!({"base64": "AP8="}), json!({"base64": "AP8="})),
        ("$1::timestamptz", json!("2024-02-29T11:14:15Z"), json!("2024-02-29T11:14:15Z")),
        ("$1::numeric", json!(1.5), json!("1.5")),
    ];
    for (expression, parameter, expected) in rows {
        let found = read(&pools, &format!("SELECT {expression}"), json!([parameter])).await.unwrap();
        assert_eq!(found.rows, [[expected]], "{expression}");
    }
    check_code(read(&pools, "SELECT $1::int", json!(["x"])).await, "22P02", "no number");
}

#[tokio::test]
async fn servers_that_are_not_there() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let found =
        read(&pools(&format!("postgres://a:secret@127.0.0.1:{closed}/x")), "SELECT 1", json!([])).await;
    let Err(SqlFailure::Unavailable(why)) = found else { panic!("{found:?}") };
    assert!(!why.contains("secret"), "{why}");
    let asked = format!("postgres://postgres@127.0.0.1:{}/postgres?sslmode=require", Server::shared().port());
    let found = read(&pools(&asked), "SELECT 1", json!([])).await;
    assert!(matches!(found, Err(SqlFailure::Unavailable(_))), "no TLS there: {found:?}");
    for address in ["", "mysql://a", "sqlite:", "sqlite::memory:", "postgres://a:secret@[::x/"] {
        let error = SqlTarget::parse(address).unwrap_err().to_string();
        assert!(!error.contains("secret"), "{error}");
    }
}

/// A pool is bounded: many at once wait for each other, and all have their answer.
#[tokio::test]
async fn many_at_once() {
    with_both(async |pools, name| {
        let asked = (0..60).map(|n| {
            let pools = pools.clone();
            tokio::spawn(
                async move { read(&pools, "SELECT CAST($1 AS integer)", json!([n])).await.unwrap().rows },
            )
        });
        for (n, asked) in asked.collect::<Vec<_>>().into_iter().enumerate() {
            assert_eq!(asked.await.unwrap(), [[json!(n)]], "{name}");
        }
    })
    .await;
}

/// With `sslmode=require` the server's certificate is checked, by name too.
#[tokio::test]
async fn postgres_over_tls() {
    use base64::Engine as _;
    let pem = |kind: &str, der: &[u8]| {
        let encoded = base64::engine::general_purpose::STANDARD.encode(der);
        format!("-----BEGIN {kind}-----\n{encoded}\n-----END {kind}-----\n").into_bytes()
    };
    let certificate = pem("CERTIFICATE", include_bytes!("tls/localhost.crt.der"));
    let key = pem("PRIVATE KEY", include_bytes!("tls/localhost.key.der"));
    let files: [(&str, &[u8]); 2] = [("server.crt", &certificate), ("server.key", &key)];
    let server = Server::start(&["ssl=on"], &files).unwrap();
    let asked = async |host: &str, ca: Option<&[u8]>| {
        let address = format!("postgres://postgres@{host}:{}/postgres?sslmode=require", server.port());
        let SqlTarget::Postgres(config, _) = SqlTarget::parse(&address).unwrap() else { panic!() };
        let target = SqlTarget::Postgres(config, ca.map(<[u8]>::to_vec));
        let pools = SqlPools::new([("main".to_owned(), target)]).unwrap();
        let statement = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
        read(&pools, statement, json!([])).await.map(|found| found.rows)
    };
    assert_eq!(asked("localhost", Some(&certificate)).await, Ok(vec![vec![json!(true)]]));
    for (host, ca) in [("localhost", None), ("127.0.0.1", Some(&*certificate))] {
        let found = asked(host, ca).await;
        assert!(matches!(found, Err(SqlFailure::Unavailable(_))), "{host} {}: {found:?}", ca.is_some());
    }
    // A statement that takes too long is cancelled over TLS as well.
    let SqlTarget::Postgres(config, _) = SqlTarget::parse(&format!(
        "postgres://postgres@localhost:{}/postgres?sslmode=require",
        server.port()
    ))
    .unwrap() else {
        panic!()
    };
    let target = SqlTarget::Postgres(config, Some(certificate.clone()));
    let pools = SqlPools::new([("main".to_owned(), target)]).unwrap();
    let slow = SqlQuery {
        timeout: Duration::from_millis(300),
        ..query(Access::Read, "SELECT pg_sleep(600)", json!([]))
    };
    assert_eq!(pools.query(slow).await, Err(SqlFailure::Timeout));
    let running = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(600)%' AND pid <> pg_backend_pid() AND state = 'active'";
    for _ in 0..100 {
        if read(&pools, running, json!([])).await.unwrap().rows == [[json!(0)]] {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the statement still runs");
}
