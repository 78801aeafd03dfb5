//! What plugins are granted, and how guests reach it: by name, with handles.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use cardan::api::grants::{
    Access, CacheScope, HttpScope, KvLimits, KvScope, LogScope, MetricsScope, SqlScope, Switch,
};
use cardan::{
    Capability, Engine, EngineConfig, Error, Fault, Grants, HostFunction, LogLevel, Plugin, PluginBuilder,
    Secret, Services,
};
use cardan_services::{
    CacheLimits, MemoryCache, MemoryKv, MemorySecrets, MetricsRegistry, SqlPools, SqlTarget,
};
use serde_json::{Value, json};

use crate::support::{GENEROUS, Recorder, guest, guest_importing, within};

/// An engine with every service, and what the tests look at from outside.
pub(crate) struct House {
    pub(crate) engine: Engine,
    pub(crate) metrics: MetricsRegistry,
}

pub(crate) fn house() -> &'static House {
    static HOUSE: OnceLock<House> = OnceLock::new();
    HOUSE.get_or_init(|| House::with("services.sqlite"))
}

impl House {
    /// With a new database in this file.
    pub(crate) fn with(database: &str) -> Self {
        let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(database);
        let _ = std::fs::remove_file(&file);
        let metrics = MetricsRegistry::default();
        let secrets = [("api-key".to_owned(), Secret::new("s3cret")), ("other".to_owned(), Secret::new("x"))];
        let services = Services {
            http: Some(Arc::new(cardan_services::HttpService::new().unwrap())),
            kv: Some(Arc::new(MemoryKv::default())),
            cache: Some(Arc::new(MemoryCache::new(CacheLimits::default()))),
            sql: Some(Arc::new(SqlPools::new([("main".to_owned(), SqlTarget::Sqlite(file))]).unwrap())),
            metrics: Some(Arc::new(metrics.clone())),
            secrets: Some(Arc::new(MemorySecrets::from_iter(secrets))),
        };
        let config = EngineConfig { pool_instances: Some(100), services, ..EngineConfig::default() };
        Self { engine: Engine::new(config).unwrap(), metrics }
    }
}

/// Everything there is to be granted.
pub(crate) fn everything() -> Grants {
    Grants {
        http: Some(HttpScope::hosts(["*".to_owned()])),
        kv: Some(KvScope { access: Access::Write, limits: KvLimits::default() }),
        cache: Some(CacheScope::shared(Access::Write)),
        sql: [("main".to_owned(), SqlScope::new(Access::Write))].into(),
        metrics: Some(MetricsScope::default()),
        secrets: ["api-key".to_owned()].into(),
        ..Grants::default()
    }
}

const TWO: &str = "(param i64 i64) (result i64)";
const ONE: &str = "(param i64) (result i64)";

/// The calls, with the types they are imported with here, arguments that work and what they need.
const CALLS: [(&str, &str, &[&str], Capability); 19] = [
    ("kv_get", ONE, &["key"], Capability::KvRead),
    ("kv_set", "(param i64 i64 i64)", &["key", "value", ""], Capability::KvWrite),
    ("kv_delete", "(param i64)", &["gone"], Capability::KvWrite),
    ("kv_add", TWO, &["count", "1"], Capability::KvWrite),
    ("kv_cas", "(param i64 i64 i64) (result i64)", &["cas", "", "new"], Capability::KvWrite),
    ("kv_scan", ONE, &["k"], Capability::KvRead),
    ("cache_get", ONE, &["key"], Capability::CacheRead),
    ("cache_set", "(param i64 i64 i64)", &["key", "value", "60"], Capability::CacheWrite),
    ("cache_delete", "(param i64)", &["gone"], Capability::CacheWrite),
    ("cache_fill", ONE, &["filled"], Capability::CacheWrite),
    ("execute_query", ONE, &["SELECT 1"], Capability::SqlRead),
    ("metric_inc", "(param i64 i64)", &["asked", "1"], Capability::Metrics),
    ("metric_gauge", "(param i64 i64)", &["level", "1"], Capability::Metrics),
    ("metric_observe", "(param i64 i64)", &["took", "0.1"], Capability::Metrics),
    ("log", "(param i64 i64)", &["info", "a line"], Capability::Log),
    ("http_fetch", ONE, &["http://public.invalid/"], Capability::Http),
    ("secret_get", ONE, &["api-key"], Capability::Secrets),
    ("time_now_ms", "(result i64)", &[], Capability::Clock),
    ("random_bytes", ONE, &["16"], Capability::Random),
];

/// A module whose `run` makes one call after the other; the output is what the last one returned.
pub(crate) fn calls(calls: &[(&str, &[&str])]) -> String {
    let mut imports = String::new();
    let mut body = String::new();
    let mut names = BTreeSet::new();
    for (index, (name, args)) in calls.iter().enumerate() {
        let (_, ty, ..) = CALLS.iter().find(|(known, ..)| known == name).unwrap();
        if names.insert(name) {
            imports.push_str(&format!("(import \"extism:host/user\" \"{name}\" (func $user_{name} {ty}))\n"));
        }
        let args: Vec<String> = args.iter().map(|arg| text(arg)).collect();
        let call = format!("(call $user_{name} {})", args.join(" "));
        body.push_str(&match (ty.contains("result"), index + 1 == calls.len()) {
            (true, true) => format!("(local.set $answer {call}) (if (i64.ne (local.get $answer) (i64.const 0)) (then (call $say (local.get $answer))))"),
            (true, false) => format!("(drop {call})"),
            (false, _) => call,
        });
    }
    guest_importing(&imports, &format!("(func (export \"run\") (local $answer i64) {body})"))
}

/// A block with a text, or no block.
fn text(text: &str) -> String {
    if text.is_empty() {
        return "(i64.const 0)".to_owned();
    }
    let escaped: String = text.bytes().map(|byte| format!("\\{byte:02x}")).collect();
    format!("@\"{escaped}\"")
}

pub(crate) fn builder(module: &str, name: &str, grants: Grants) -> PluginBuilder {
    house().engine.plugin(module.as_bytes()).name(name).limits(within(GENEROUS)).grants(grants)
}

pub(crate) fn ask(name: &str, grants: Grants, made: &[(&str, &[&str])]) -> Result<Vec<u8>, Error> {
    builder(&calls(made), name, grants).load().unwrap().call("run", "")
}

fn answer(name: &str, made: &[(&str, &[&str])]) -> String {
    String::from_utf8(ask(name, everything(), made).unwrap()).unwrap()
}

/// The last line of what a call that is refused says.
fn refusal(found: Result<Vec<u8>, Error>) -> (Fault, String) {
    let error = found.unwrap_err();
    (error.fault(), error.message().lines().last().unwrap_or_default().trim().to_owned())
}

#[test]
fn every_call_is_denied_by_its_sentence() {
    for (name, _, args, needs) in CALLS {
        let made: &[(&str, &[&str])] = &[(name, args)];
        assert!(ask("granted", everything(), made).is_ok(), "{name}");
        let mut nothing = Grants { clock: Switch::Off, random: Switch::Off, ..Grants::default() };
        if needs == Capability::Log {
            // Lines that nobody takes are no reason to end a call.
            nothing.log = LogScope::Off;
            assert!(ask("denied", nothing, made).is_ok());
            continue;
        }
        let grant = needs.grant();
        let denied = format!("{name} is not granted: add \"{grant}\" to the grants of plugin \"denied\"");
        assert_eq!(refusal(ask("denied", nothing.clone(), made)), (Fault::Denied, denied));
        // Granted, and not asked for by the manifest.
        if [Capability::Clock, Capability::Random].contains(&needs) {
            continue;
        }
        let asks = |grants: Grants| {
            let plugin = builder(&calls(made), "silent", grants).requests(BTreeSet::new()).load();
            refusal(plugin.unwrap().call("run", ""))
        };
        let silent = format!(
            "{name} is not asked for: the manifest of plugin \"silent\" has to list \"{needs}\" among its permissions"
        );
        assert_eq!(asks(everything()), (Fault::Denied, silent));
        let (fault, why) = asks(nothing);
        assert!(fault == Fault::Denied && why.contains("is neither asked for nor granted"), "{why}");
        let asked = builder(&calls(made), "asks", everything()).requests([needs].into()).load().unwrap();
        assert!(asked.call("run", "").is_ok(), "{name}: asked for and granted");
    }
}

/// Taking one permission away stops the calls that need it, and no others.
#[test]
fn exactly_those_calls() {
    type Take = fn(&mut Grants);
    let rows: [(Take, &[Capability]); 8] = [
        (|grants| grants.kv = None, &[Capability::KvRead, Capability::KvWrite]),
        (|grants| grants.kv.as_mut().unwrap().access = Access::Read, &[Capability::KvWrite]),
        (|grants| grants.cache = None, &[Capability::CacheRead, Capability::CacheWrite]),
        (|grants| grants.cache.as_mut().unwrap().access = Access::Read, &[Capability::CacheWrite]),
        (|grants| grants.sql.clear(), &[Capability::SqlRead]),
        (|grants| grants.metrics = None, &[Capability::Metrics]),
        (|grants| grants.http = None, &[Capability::Http]),
        (|grants| grants.secrets.clear(), &[Capability::Secrets]),
    ];
    for (take, stopped) in rows {
        let mut grants = everything();
        take(&mut grants);
        for (name, _, args, needs) in CALLS {
            let found = ask("x", grants.clone(), &[(name, args)]);
            assert_eq!(found.is_err(), stopped.contains(&needs), "without {stopped:?}: {name}: {found:?}");
        }
    }
    // A whole service that the engine has not.
    let own = Engine::new(EngineConfig { pool_instances: Some(2), ..EngineConfig::default() }).unwrap();
    for (name, service) in [
        ("kv_get", "kv"),
        ("cache_get", "cache"),
        ("execute_query", "sql"),
        ("metric_inc", "metrics"),
        ("secret_get", "secrets"),
    ] {
        let (_, _, args, _) = CALLS.iter().find(|(known, ..)| *known == name).unwrap();
        let plugin = own.plugin(calls(&[(name, args)]).as_bytes()).grants(everything()).load().unwrap();
        let (fault, why) = refusal(plugin.call("run", ""));
        assert_eq!(fault, Fault::Host);
        assert!(why.starts_with(&format!("{name}: this engine was made without {service} ")), "{why}");
    }
}

/// The same calls as a program makes them that is written with the Rust PDK.
#[test]
fn calls_of_the_rust_pdk() {
    let module = std::fs::read(crate::support::guests().join("prebuilt/services.wasm")).unwrap();
    let load = |grants: Grants| {
        house().engine.plugin(&module[..]).name("pdk").limits(within(GENEROUS)).grants(grants).load().unwrap()
    };
    let (plugin, bare) = (load(everything()), load(Grants::default()));
    let made = |plugin: &Plugin, name: &str, args: &[&str]| {
        plugin.call("call", json!({ "name": name, "args": args }).to_string())
    };
    for (name, _, args, needs) in CALLS {
        assert!(made(&plugin, name, args).is_ok(), "{name}");
        let free = [Capability::Log, Capability::Clock, Capability::Random].contains(&needs);
        let denied = made(&bare, name, args).map_err(|error| error.fault());
        assert_eq!(denied.is_ok(), free, "{name}: {denied:?}");
        assert!(plugin.inspection().capabilities.contains(&needs), "{name}");
    }
    assert_eq!(made(&plugin, "kv_set", &["k", "value", ""]).unwrap(), b"");
    assert_eq!(made(&plugin, "kv_get", &["k"]).unwrap(), b"value");
    assert_eq!(made(&plugin, "kv_get", &["missing"]).unwrap(), b"");
    assert_eq!(made(&plugin, "kv_cas", &["k", "value", "new"]).unwrap(), b"1");
    assert_eq!(made(&plugin, "random_bytes", &["9"]).unwrap().len(), 9);
}

#[test]
fn inspection() {
    for (name, _, args, needs) in CALLS {
        let found = house().engine.plugin(calls(&[(name, args)]).as_bytes()).inspect().unwrap();
        assert!(found.capabilities.contains(&needs), "{name}: {:?}", found.capabilities);
        assert!(!found.capabilities.contains(&Capability::HostFunctions), "{name}: {:?}", found.capabilities);
    }
}

#[test]
fn key_values() {
    let stored = |made| answer("kv", made);
    assert_eq!(stored(&[("kv_get", &["a"])]), "");
    assert_eq!(stored(&[("kv_set", &["a", "value", ""]), ("kv_get", &["a"])]), "value");
    assert_eq!(stored(&[("kv_get", &["a"])]), "value", "in another plugin of that name");
    assert_eq!(answer("other", &[("kv_get", &["a"])]), "");
    assert_eq!(stored(&[("kv_delete", &["a"]), ("kv_get", &["a"])]), "");
    assert_eq!(stored(&[("kv_set", &["b", "v", ""]), ("kv_set", &["b", "", ""]), ("kv_get", &["b"])]), "");
    assert_eq!(stored(&[("kv_add", &["n", "5"]), ("kv_add", &["n", "-7"])]), "-2");
    assert_eq!(stored(&[("kv_cas", &["c", "", "x"])]), "1");
    assert_eq!(stored(&[("kv_cas", &["c", "", "y"])]), "0");
    assert_eq!(stored(&[("kv_cas", &["c", "x", "y"]), ("kv_get", &["c"])]), "y");
    let page: Value = serde_json::from_str(&stored(&[
        ("kv_set", &["s/1", "one", ""]),
        ("kv_set", &["s/2", "two", r#"{"ttl_seconds": 60}"#]),
        ("kv_scan", &[r#"{"prefix": "s/", "limit": 1}"#]),
    ]))
    .unwrap();
    assert_eq!(page, json!({"entries": [{"key": "s/1", "value": "one"}], "next": "s/1"}));
    let page = stored(&[("kv_scan", &[r#"{"prefix": "s/", "after": "s/1"}"#])]);
    assert_eq!(page, r#"{"entries":[{"key":"s/2","value":"two"}]}"#);
    let set: &[(&str, &[&str])] = &[("kv_set", &["t", "v", r#"{"ttl_seconds": 0.05}"#])];
    stored(set);
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(stored(&[("kv_get", &["t"])]), "", "it has expired");
    let rows: [(&str, &[&str], &str); 9] = [
        ("kv_get", &[""], "kv_get: the key is empty"),
        ("kv_set", &["k", "v", "60"], "kv_set: invalid type: integer `60`"),
        ("kv_set", &["k", "v", r#"{"ttl": 1}"#], "kv_set: unknown field `ttl`"),
        ("kv_set", &["k", "v", r#"{"ttl_seconds": 0}"#], "is no time to live"),
        ("kv_set", &["k", "v", r#"{"ttl_seconds": -1}"#], "is no time to live"),
        ("kv_add", &["n", "one"], "argument 2 is \"one\", and has to be a decimal number"),
        ("kv_add", &["c", "1"], "kv_add: the value is no whole number in decimal"),
        ("kv_cas", &["c", "y", ""], "the new value is empty"),
        ("kv_scan", &[r#"{"limit": 1001}"#], "the limit is 1001"),
    ];
    for (name, args, why) in rows {
        let found = refusal(ask("kv", everything(), &[(name, args)]));
        assert!(found.0 == Fault::Protocol && found.1.contains(why), "{name} {args:?}: {found:?}");
    }
}

/// A plugin that fills its store meets its cap; its neighbour does not notice.
#[test]
fn caps_of_the_store() {
    let limits = KvLimits { keys_max: 2, value_bytes_max: 10, ..KvLimits::default() };
    let small = || Grants { kv: Some(KvScope { access: Access::Write, limits }), ..Grants::default() };
    let full = ask(
        "full",
        small(),
        &[("kv_set", &["1", "v", ""]), ("kv_set", &["2", "v", ""]), ("kv_set", &["3", "v", ""])],
    );
    let why = "kv_set: one key more than the 2 allowed: raise kv.keys in the grants of plugin \"full\"";
    assert_eq!(refusal(full), (Fault::Memory, why.to_owned()));
    let why = "kv_set: a value of 11 bytes is more than the 10 allowed: raise kv.value in the grants of plugin \"full\"";
    let large = ask("full", small(), &[("kv_set", &["1", "eleven byte", ""])]);
    assert_eq!(refusal(large), (Fault::Memory, why.to_owned()));
    assert_eq!(ask("full", small(), &[("kv_get", &["2"])]).unwrap(), b"v", "what was there is there");
    assert!(ask("neighbour", small(), &[("kv_set", &["3", "v", ""])]).is_ok());
}

#[test]
fn caches() {
    assert_eq!(answer("cache", &[("cache_get", &["k1"])]), "");
    assert_eq!(answer("cache", &[("cache_set", &["k1", "v", "60"]), ("cache_get", &["k1"])]), "v");
    assert_eq!(answer("another", &[("cache_get", &["k1"])]), "v", "plugins share it");
    let mut apart = everything();
    apart.cache.as_mut().unwrap().space = "apart".to_owned();
    assert_eq!(ask("another", apart, &[("cache_get", &["k1"])]).unwrap(), b"");
    assert_eq!(answer("cache", &[("cache_delete", &["k1"]), ("cache_get", &["k1"])]), "");
    assert_eq!(answer("cache", &[("cache_set", &["k2", "v", ""]), ("cache_fill", &["k2"])]), "v");
    answer("cache", &[("cache_set", &["k3", "v", "0.05"])]);
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(answer("cache", &[("cache_get", &["k3"])]), "");
    let (fault, why) = refusal(ask("cache", everything(), &[("cache_set", &["k", "v", "soon"])]));
    assert!(fault == Fault::Protocol && why.contains("has to be a decimal number"), "{why}");
}

/// Whoever is told to make a value holds up the others until it did, or until its call is over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_is_made_once() {
    let makes = guest_importing(
        r#"(import "extism:host/user" "cache_fill" (func $fill (param i64) (result i64)))
           (import "extism:host/user" "cache_set" (func $set (param i64 i64 i64)))
           (import "extism:host/user" "kv_add" (func $add (param i64 i64) (result i64)))"#,
        r#"(func (export "make") (local $found i64)
             (local.set $found (call $fill @"once"))
             (if (i64.eqz (local.get $found)) (then
               (drop (call $add @"made" @"1"))
               (local.set $found @"value")
               (call $set @"once" (local.get $found) @"60")))
             (call $say (local.get $found)))
           (func (export "give_up") (drop (call $fill @"never")) (unreachable))"#,
    );
    let plugin = builder(&makes, "maker", everything()).load().unwrap();
    let asked = (0..40).map(|_| {
        let plugin = plugin.clone();
        tokio::spawn(async move { plugin.call_async("make", b"").await.unwrap() })
    });
    for asked in asked.collect::<Vec<_>>() {
        assert_eq!(asked.await.unwrap(), b"value");
    }
    assert_eq!(answer("maker", &[("kv_get", &["made"])]), "1");
    // A trap is an end, too.
    for _ in 0..3 {
        let ended = tokio::time::timeout(Duration::from_secs(10), plugin.call_async("give_up", b"")).await;
        assert_eq!(ended.unwrap().unwrap_err().fault(), Fault::Trap);
    }
}

#[test]
fn queries() {
    let ask_sql = |grants: Grants, argument: &str| ask("sql", grants, &[("execute_query", &[argument])]);
    let found = |argument: &str| -> Value {
        serde_json::from_slice(&ask_sql(everything(), argument).unwrap()).unwrap()
    };
    assert_eq!(found("CREATE TABLE IF NOT EXISTS t (id integer, name text)")["affected"], 0);
    found("DELETE FROM t");
    let insert = json!({"sql": "INSERT INTO t VALUES ($1, $2)", "params": [1, "it's"]}).to_string();
    assert_eq!(found(&insert), json!({"columns": [], "rows": [], "affected": 1}));
    let select =
        json!({"connection": "main", "sql": "SELECT * FROM t WHERE id = $1", "params": [1]}).to_string();
    assert_eq!(found(&select), json!({"columns": ["id", "name"], "rows": [[1, "it's"]], "affected": 0}));
    // What a guest can handle is an answer.
    let error = &found("SELECT absent FROM t")["error"];
    assert!(error["message"].as_str().unwrap().contains("no such column"), "{error}");
    let mut few = everything();
    few.sql.get_mut("main").unwrap().rows_max = 1;
    let many: Value = serde_json::from_slice(&ask_sql(few, "SELECT 1 UNION SELECT 2").unwrap()).unwrap();
    assert_eq!(many["error"], json!({"code": "too_large", "message": "more than 1 rows"}));
    // What an operator has to allow ends the call.
    let reads =
        Grants { sql: [("main".to_owned(), SqlScope::new(Access::Read))].into(), ..Grants::default() };
    assert!(ask_sql(reads.clone(), "SELECT * FROM t").is_ok());
    let denied = "execute_query that changes something on connection \"main\" is not granted: add \
                  \"sql: {main: write}\" to the grants of plugin \"sql\"";
    assert_eq!(refusal(ask_sql(reads, "DELETE FROM t")), (Fault::Denied, denied.to_owned()));
    let other = json!({"connection": "other", "sql": "SELECT 1"}).to_string();
    let denied = "execute_query on connection \"other\" is not granted: add \"sql: {other: read}\" to the grants of \
                  plugin \"sql\"";
    assert_eq!(refusal(ask_sql(everything(), &other)), (Fault::Denied, denied.to_owned()));
    let mut two = everything();
    two.sql.insert("nowhere".to_owned(), SqlScope::new(Access::Read));
    let (fault, why) = refusal(ask_sql(two.clone(), "SELECT 1"));
    assert_eq!((fault, &*why), (Fault::Protocol, "execute_query: name one of the connections main, nowhere"));
    let nowhere = json!({"connection": "nowhere", "sql": "SELECT 1"}).to_string();
    let (fault, why) = refusal(ask_sql(two, &nowhere));
    assert!(fault == Fault::Host && why.contains("add it to services.sql"), "{why}");
}

/// The call's deadline ends a statement that takes longer.
#[test]
fn a_call_that_waits_too_long() {
    let endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT 1 FROM n) SELECT count(*) FROM n";
    let module = calls(&[("execute_query", &[endless])]);
    let plugin =
        builder(&module, "slow", everything()).limits(within(Duration::from_millis(200))).load().unwrap();
    let start = Instant::now();
    let found = plugin.call("run", "");
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    match found {
        Ok(output) => assert!(String::from_utf8_lossy(&output).contains("timeout"), "{output:?}"),
        Err(error) => assert_eq!(error.fault(), Fault::Deadline, "{error}"),
    }
}

#[test]
fn measuring() {
    answer(
        "measures",
        &[
            ("metric_inc", &["asked", "1"]),
            ("metric_inc", &[r#"{"name": "asked", "labels": {"who": "me"}}"#, "2.5"]),
            ("metric_gauge", &["level", "-3"]),
            ("metric_observe", &["took", "0.02"]),
        ],
    );
    let families = house().metrics.families();
    let names: Vec<_> =
        families.iter().filter(|family| &*family.plugin == "measures").map(|family| &*family.name).collect();
    assert_eq!(names, ["asked", "level", "took"]);
    let rows: [(&str, &[&str], &str); 5] = [
        ("metric_inc", &["asked", "-1"], "cannot fall"),
        ("metric_gauge", &["asked", "1"], "is a counter"),
        ("metric_inc", &["a b", "1"], "is no name of a metric"),
        ("metric_inc", &["asked", "many"], "has to be a decimal number"),
        ("metric_inc", &["asked", "inf"], "is no value of a metric"),
    ];
    for (name, args, why) in rows {
        let found = refusal(ask("measures", everything(), &[(name, args)]));
        assert!(found.0 == Fault::Protocol && found.1.contains(why), "{name} {args:?}: {found:?}");
    }
}

#[test]
fn secrets() {
    assert_eq!(answer("secret", &[("secret_get", &["api-key"])]), "s3cret");
    let denied =
        "secret_get of \"other\" is not granted: add \"secrets: [other]\" to the grants of plugin \"secret\"";
    let found = refusal(ask("secret", everything(), &[("secret_get", &["other"])]));
    assert_eq!(found, (Fault::Denied, denied.to_owned()));
    let shown = format!("{:?} {:?}", Secret::new("s3cret"), house().engine);
    assert!(!shown.contains("s3cret"), "{shown}");
}

#[test]
fn time_and_chance() {
    let now: u128 = answer("time", &[("time_now_ms", &[])]).parse().unwrap();
    let here = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
    assert!(here.abs_diff(now) < 60_000, "{now} {here}");
    let random = || ask("random", everything(), &[("random_bytes", &["32"])]).unwrap();
    let (one, other) = (random(), random());
    assert!(one.len() == 32 && one != other);
    let (fault, why) = refusal(ask("random", everything(), &[("random_bytes", &["65537"])]));
    assert!(fault == Fault::Protocol && why.contains("more than 65536 at once"), "{why}");
    // The same through WASI.
    let wasi = |name: &str, ty: &str, args: &str| {
        format!(
            "(module (import \"wasi_snapshot_preview1\" \"{name}\" (func $f {ty})) (memory (export \"memory\") 1) \
             (func (export \"run\") (result i32) (call $f {args})))"
        )
    };
    let clock = wasi(
        "clock_time_get",
        "(param i32 i64 i32) (result i32)",
        "(i32.const 0) (i64.const 0) (i32.const 0)",
    );
    let random = wasi("random_get", "(param i32 i32) (result i32)", "(i32.const 0) (i32.const 8)");
    for (module, name, grant) in
        [(clock, "clock_time_get", "clock: on"), (random, "random_get", "random: on")]
    {
        assert!(builder(&module, "wasi", Grants::default()).load().unwrap().call("run", "").is_ok());
        let off = Grants { clock: Switch::Off, random: Switch::Off, ..Grants::default() };
        let denied = format!("{name} is not granted: add \"{grant}\" to the grants of plugin \"wasi\"");
        assert_eq!(
            refusal(builder(&module, "wasi", off).load().unwrap().call("run", "")),
            (Fault::Denied, denied)
        );
    }
}

#[test]
fn environment_variables() {
    let module = r#"(module
        (import "wasi_snapshot_preview1" "environ_sizes_get" (func $sizes (param i32 i32) (result i32)))
        (memory (export "memory") 1)
        (func (export "run") (result i32) (drop (call $sizes (i32.const 0) (i32.const 4))) (i32.load (i32.const 4))))"#;
    let bytes =
        |grants| builder(module, "env", grants).load().unwrap().instance().unwrap().call("run", "").code;
    assert_eq!(bytes(Grants::default()), 0);
    let env = [("NAME".to_owned(), "value".to_owned())].into();
    assert_eq!(bytes(Grants { env, ..Grants::default() }), "NAME=value\0".len() as i32);
}

#[test]
fn lines() {
    let module = calls(&[("log", &["info", "one"]), ("log", &["3", "two"]), ("log", &["DEBUG", "three"])]);
    let said = |plugin: &Plugin| {
        plugin.call("run", "").unwrap();
        let lines = plugin.log_tail(0, 100).lines;
        lines.into_iter().map(|line| (line.level, line.text.to_string())).collect::<Vec<_>>()
    };
    let (one, two, three) = (
        (LogLevel::Info, "one".to_owned()),
        (LogLevel::Warn, "two".to_owned()),
        (LogLevel::Debug, "three".to_owned()),
    );
    let recorder = |level| Recorder::at(level);
    // Kept beside the process log, whatever that takes.
    let deaf = recorder(None);
    let plugin = builder(&module, "lines", Grants::default())
        .log(deaf.clone())
        .keep_log(LogLevel::Info)
        .load()
        .unwrap();
    assert_eq!(said(&plugin), [one.clone(), two.clone()]);
    assert_eq!(deaf.take(), []);
    // As the grant says, for both.
    let keen = recorder(Some(LogLevel::Trace));
    let warn = Grants { log: LogScope::From(LogLevel::Warn), ..Grants::default() };
    let plugin = builder(&module, "lines", warn).log(keen.clone()).load().unwrap();
    assert_eq!(said(&plugin), std::slice::from_ref(&two));
    assert_eq!(keen.take(), std::slice::from_ref(&two));
    let plugin = builder(&module, "lines", Grants::default()).log(keen.clone()).load().unwrap();
    assert_eq!(said(&plugin), [one, two, three]);
    let off = Grants { log: LogScope::Off, ..Grants::default() };
    let plugin = builder(&module, "lines", off).log(keen.clone()).keep_log(LogLevel::Info).load().unwrap();
    keen.take();
    assert_eq!((said(&plugin), keen.take()), (vec![], vec![]));
    let (fault, why) = refusal(ask("lines", everything(), &[("log", &["loud", "x"])]));
    assert!(fault == Fault::Protocol && why.contains("is no level"), "{why}");
}

/// The ring keeps the last lines, says how many are gone, and can be followed.
#[test]
fn a_plugin_that_fills_its_log() {
    let module = guest(
        r#"(func (export "run") (local $n i32)
             (loop $next
               (call $log_info @"a line of some length")
               (local.set $n (i32.add (local.get $n) (i32.const 1)))
               (br_if $next (i32.lt_u (local.get $n) (i32.const 400)))))"#,
    );
    let plugin = builder(&module, "fills", Grants::default())
        .log(Recorder::at(None))
        .keep_log(LogLevel::Info)
        .load()
        .unwrap();
    let follow = plugin.log_follow();
    assert_eq!(*follow.borrow(), 0);
    for _ in 0..5 {
        plugin.call("run", "").unwrap();
    }
    assert_eq!(*follow.borrow(), 2000);
    assert!(follow.has_changed().unwrap());
    let tail = plugin.log_tail(0, 10);
    assert_eq!((tail.lost, tail.lines.len(), tail.lines[0].seq, tail.next), (1000, 10, 1001, 1010));
    assert_eq!(plugin.log_tail(0, usize::MAX).lines.len(), 1000);
    let tail = plugin.log_tail(1995, 100);
    assert_eq!((tail.lost, tail.lines.len(), tail.next), (0, 5, 2000));
    let tail = plugin.log_tail(2000, 100);
    assert_eq!((tail.lost, tail.lines.len(), tail.next), (0, 0, 2000));
    assert_eq!(plugin.log_tail(9999, 1).lines[0].seq, 1001, "a number of another version's");
}

/// An embedder's own function of a name wins, and one of another type is nobody's.
#[test]
fn functions_of_the_embedder() {
    let own = HostFunction::bytes("kv_get", |key| Ok([b"own ", key].concat()));
    let plugin = builder(&calls(&[("kv_get", &["k"])]), "own", Grants::default()).host_function(own);
    assert_eq!(plugin.load().unwrap().call("run", "").unwrap(), b"own k");
    let other = r#"(module (import "extism:host/user" "kv_get" (func (param i32))))"#;
    let error = builder(other, "other", everything()).load().unwrap_err();
    assert!(error.message().contains("unknown import: `extism:host/user::kv_get`"), "{error}");
    // What returns nothing may be imported as returning a handle, which is 0.
    let module = guest_importing(
        r#"(import "extism:host/user" "kv_set" (func $set (param i64 i64 i64) (result i64)))
           (import "extism:host/user" "kv_add" (func $add (param i64 i64)))"#,
        r#"(func (export "run") (call $add @"nothing" @"1") (call $tell (call $set @"k" @"v" (i64.const 0))) (call $told))"#,
    );
    let plugin = builder(&module, "other", everything()).load().unwrap();
    assert_eq!(crate::support::told(&plugin.call("run", "").unwrap()), [0]);
}

/// Handles that are none, and arguments that are not text.
#[test]
fn lying_guests() {
    let rows = [
        ("(drop (call $f (i64.const 12345)))", "invalid handle offset: 12345"),
        ("(drop (call $f @\"\\ff\\fe\"))", "kv_get: argument 1 is not UTF-8"),
        ("(drop (call $f (i64.const -1)))", "invalid handle offset"),
    ];
    for (body, why) in rows {
        let module = guest_importing(
            r#"(import "extism:host/user" "kv_get" (func $f (param i64) (result i64)))"#,
            &format!("(func (export \"run\") {body})"),
        );
        let found = refusal(builder(&module, "lies", everything()).load().unwrap().call("run", ""));
        assert!(found.0 == Fault::Protocol && found.1.contains(why), "{body}: {found:?}");
    }
}

/// A guest on one thread does not keep others from theirs while it waits.
#[tokio::test(flavor = "current_thread")]
async fn waiting_is_not_blocking() {
    let slow = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300000) SELECT max(i) FROM n";
    let waits = builder(&calls(&[("execute_query", &[slow])]), "waits", everything()).load().unwrap();
    let quick = builder(&calls(&[("time_now_ms", &[])]), "quick", everything()).load().unwrap();
    let waiting = tokio::spawn(async move { waits.call_async("run", b"").await });
    tokio::task::yield_now().await;
    let mut done = 0;
    while !waiting.is_finished() {
        quick.call_async("run", b"").await.unwrap();
        tokio::task::yield_now().await;
        done += 1;
    }
    assert!(waiting.await.unwrap().is_ok());
    assert!(done > 3, "{done} calls while another waited");
}
