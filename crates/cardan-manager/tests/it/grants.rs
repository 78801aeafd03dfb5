//! Grants, as an operator writes them.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use cardan_api::grants::{
    Access, CacheScope, Grants, HttpScope, KvLimits, KvScope, LogLevel, LogScope, MetricsScope,
    PrivateAddresses, SqlScope, Switch,
};
use cardan_api::manifest::PluginEntry;
use cardan_manager::resolve_entry;

fn resolve(grants: &str) -> Result<Grants, String> {
    let text = format!("{{name: a, source: a.wasm, grants: {grants}}}");
    let entry: PluginEntry = serde_saphyr::from_str(&text).map_err(|error| error.to_string())?;
    // What is written is read as the same again.
    let again = serde_json::to_string(&entry.grants).unwrap();
    assert_eq!(
        serde_json::from_str::<cardan_api::manifest::GrantsEntry>(&again).unwrap(),
        entry.grants,
        "{again}"
    );
    resolve_entry(&entry, Path::new("/etc")).map(|(spec, _)| spec.grants).map_err(|error| error.to_string())
}

fn hosts(hosts: &[&str]) -> HttpScope {
    HttpScope::hosts(hosts.iter().map(|host| (*host).to_owned()))
}

#[test]
fn what_is_granted() {
    let kv = |access, limits| Grants { kv: Some(KvScope { access, limits }), ..Grants::default() };
    let cache = |cache| Grants { cache: Some(cache), ..Grants::default() };
    let sql = |scope| Grants { sql: [("main".to_owned(), scope)].into(), ..Grants::default() };
    let http = |http| Grants { http: Some(http), ..Grants::default() };
    let metrics = |metrics| Grants { metrics: Some(metrics), ..Grants::default() };
    let log = |log| Grants { log, ..Grants::default() };
    let minute = Duration::from_secs(60);
    let limits =
        KvLimits { keys_max: 5, value_bytes_max: 1024, total_bytes_max: 1 << 20, ttl_max: Some(minute) };
    let private = PrivateAddresses::Listed {
        ranges: ["10.0.0.0/8".parse().unwrap(), "::1".parse().unwrap()].into(),
        hosts: ["db.internal".to_owned()].into(),
    };
    let env = [("A".to_owned(), "1".to_owned())].into();
    let rows = [
        ("{}", Grants::default()),
        ("{http: [a.example, '[::1]']}", http(hosts(&["a.example", "[::1]"]))),
        ("{http: {hosts: [a.example]}}", http(hosts(&["a.example"]))),
        (
            "{http: {hosts: ['*'], methods: [get, POST], private: [10.0.0.0/8, '[::1]', DB.internal], response: 1kB, timeout: 1m}}",
            http(HttpScope {
                methods: ["GET".to_owned(), "POST".to_owned()].into(),
                private,
                response_bytes_max: Some(1000),
                timeout: Some(minute),
                ..hosts(&["*"])
            }),
        ),
        (
            "{http: {hosts: ['*'], private: any}}",
            http(HttpScope { private: PrivateAddresses::Any, ..hosts(&["*"]) }),
        ),
        ("{kv: read}", kv(Access::Read, KvLimits::default())),
        ("{kv: write}", kv(Access::Write, KvLimits::default())),
        ("{kv: {access: write, keys: 5, value: 1KiB, total: 1MiB, ttl: 1m}}", kv(Access::Write, limits)),
        ("{cache: read}", cache(CacheScope::shared(Access::Read))),
        (
            "{cache: {access: write, space: own, value: 1KiB, ttl: 1m}}",
            cache(CacheScope {
                access: Access::Write,
                space: "own".to_owned(),
                value_bytes_max: 1024,
                ttl_max: minute,
            }),
        ),
        ("{sql: {main: read}}", sql(SqlScope::new(Access::Read))),
        (
            "{sql: {main: {access: write, rows: 5, result: 1KiB, timeout: 1m}}}",
            sql(SqlScope { access: Access::Write, rows_max: 5, result_bytes_max: 1024, timeout: minute }),
        ),
        ("{metrics: on}", metrics(MetricsScope::default())),
        ("{metrics: true}", metrics(MetricsScope::default())),
        ("{metrics: {names: 1, series: 2}}", metrics(MetricsScope { names_max: 1, series_max: 2 })),
        ("{log: warn}", log(LogScope::From(LogLevel::Warn))),
        ("{log: off}", log(LogScope::Off)),
        ("{clock: off, random: on}", Grants { clock: Switch::Off, ..Grants::default() }),
        ("{random: false}", Grants { random: Switch::Off, ..Grants::default() }),
        (
            "{secrets: [a, b]}",
            Grants { secrets: BTreeSet::from(["a".to_owned(), "b".to_owned()]), ..Grants::default() },
        ),
        ("{env: {A: '1'}}", Grants { env, ..Grants::default() }),
        (
            "{files: {'ro:d': /d}}",
            Grants { files: [("ro:/etc/d".to_owned(), "/d".to_owned())].into(), ..Grants::default() },
        ),
    ];
    for (text, expected) in rows {
        assert_eq!(resolve(text).unwrap(), expected, "{text}");
    }
}

#[test]
fn what_is_none() {
    let rows = [
        ("{htp: [a]}", "unknown field `htp`"),
        ("{http: {host: [a]}}", "unknown field `host`"),
        ("{http: a.example}", "a list of hosts, or a map with"),
        ("{http: ['https://a']}", "grants.http[0]: \"https://a\" is more than a host"),
        ("{http: {hosts: [a], private: all}}", "a list of address ranges and hosts, or `any`"),
        (
            "{http: {hosts: [a], private: [10.0.0.0/33]}}",
            "grants.http.private[0]: \"10.0.0.0/33\" is no host",
        ),
        ("{http: {hosts: [a], private: ['*.internal']}}", "grants.http.private[0]"),
        ("{kv: all}", "`read`, `write`, or a map with access"),
        ("{kv: {keys: 1}}", "missing field `access`"),
        ("{kv: {access: write, size: 1}}", "unknown field `size`"),
        ("{kv: {access: write, ttl: 0}}", "grants.kv.ttl: it is 0"),
        ("{cache: {access: read, space: ''}}", "grants.cache.space: it is empty"),
        ("{sql: read}", "expected mapping start"),
        ("{sql: {main: {access: read, timeout: 0}}}", "grants.sql.main.timeout: it is 0"),
        ("{metrics: off}", "`on`, or a map with names and series"),
        ("{log: loud}", "`trace`, `debug`, `info`, `warn`, `error` or `off`"),
        ("{clock: maybe}", "`on` or `off`"),
        ("{env: [HOME]}", "grants.env: nobody has looked up"),
        ("{env: {'A=B': x}}", "grants.env: \"A=B\" is no name"),
        ("{secrets: {a: b}}", "expected sequence start"),
    ];
    for (text, says) in rows {
        let error = resolve(text).unwrap_err();
        assert!(error.contains(says), "{text}\n{error}");
    }
}
