//! Cardan's own world, as the fixture `guests/fixtures/world` answers it.

use cardan_api::access::{AccessAuthenticate, AccessAuthorize, AccessEvent, Identity, LoginEvent};
use cardan_api::cache::{CacheGet, CacheGetEvent, CacheSet, CacheSetEvent, CacheSubject};
use cardan_api::grants::{LogScope, Switch};
use cardan_api::http::{
    CompleteEvent, Headers, HttpComplete, HttpRequest, HttpResponse, Origin, RequestEvent, ResponseEvent,
};
use cardan_api::lifecycle::{PluginTick, PluginUnload, TickEvent};
use cardan_api::sql::{Node, NodeRole, QueryEvent, ResultEvent, RouteEvent, SqlQuery, SqlResult, SqlRoute};
use cardan_api::tool::{ToolCall, ToolCallEvent, ToolList, ToolListEvent};
use cardan_api::{Fault, Hook};

use super::*;
use crate::error::ErrorKind;

fn plan() -> Plan {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../guests/prebuilt/world.wasm");
    Plan::of(std::fs::read(path).unwrap())
}

fn request(path: &str) -> RequestEvent {
    RequestEvent {
        method: "POST".into(),
        host: "api.example".into(),
        path: path.into(),
        query: None,
        client: "192.0.2.1:4711".into(),
        headers: Headers(vec![("accept".into(), "*/*".into()), ("x-name".into(), "Zo\u{eb}".into())]),
        body: Some("abc".into()),
    }
}

fn response(path: &str) -> ResponseEvent {
    ResponseEvent {
        request: request(path),
        status: 200,
        headers: Headers::default(),
        body: Some("abc".into()),
        streamed: true,
        origin: Origin::Upstream,
    }
}

/// A verdict on one line, with whatever is not as it is by default.
fn shown<H: Hook>(verdict: &Verdict<H>) -> String {
    let attributes: Vec<String> =
        verdict.attributes.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let default = format!("{:?}", H::Edits::default());
    let edits = Some(format!("{:?}", verdict.edits)).filter(|edits| *edits != default).unwrap_or_default();
    format!("{:?} {edits} {}", verdict.flow, attributes.join(" ")).trim().to_owned()
}

#[track_caller]
fn check<H: Ask>(guest: &mut Guest, event: &H::Event, expected: &str)
where
    H::Event: Sync,
{
    let got = match ask::<H>(guest, event) {
        Ok(verdict) => shown(&verdict),
        Err(error) => format!("{:?}: {}", error.kind(), error.message()),
    };
    assert!(got.contains(expected) && (!expected.is_empty() || got.is_empty()), "{got}\n is not\n{expected}");
}

#[test]
fn requests() {
    let rows = [
        (
            "/visit",
            "Continue  id=\"visit-1\" session=\"alice\" phase=\"Phase::PreFlight\" config={\"limit\":3} \
             tenant=\"acme\" none=true all=1",
        ),
        (
            "/edit",
            "headers: [Set(\"x-host\", \"api.example\"), Add(\"x-client\", \"192.0.2.1:4711\"), Remove(\"accept\"), \
             Set(\"x-seen\", \"2 None\")], path: Some(\"/moved\"), body: Some(b\"cba\")",
        ),
        ("/refuse", "Stop(Refuse(Refusal { status: Some(451), kind: \"fixture\", message: \"not today\" }))"),
        (
            "/respond",
            "Stop(Respond(Response { status: 203, headers: Headers([(\"x-world\", \"yes\")]), body: b\"hello\" }))",
        ),
        ("/bad-status", "Call(Protocol): the status 99 is not between 200 and 599"),
        ("/bad-header", "Call(Protocol): \"x y\" is no name of a header field"),
        ("/bad-path", "Call(Protocol): \"nowhere\" is no path"),
        ("/bad-attribute", "Call(Protocol): the attribute \"a\" is no JSON"),
        ("/error", "Guest(1): as you wish"),
        ("/panic", "Call(Trap): wasm trap: wasm `unreachable` instruction executed"),
    ];
    let engine = Engine::new(EngineConfig::default()).unwrap();
    let template = plan().link(&engine).unwrap();
    for (path, expected) in rows {
        let mut guest = runtime::block_on(template.instantiate()).unwrap();
        check::<HttpRequest>(&mut guest, &request(path), expected);
    }
}

#[test]
fn an_exchange_keeps_its_state_from_hook_to_hook_where_the_visit_keeps_the_instance() {
    let complete = CompleteEvent {
        request: request("/"),
        status: Some(200),
        sent_bytes: 7,
        duration_ms: 3,
        aborted: false,
    };
    for (mode, response_sees, complete_sees) in
        [(InstanceMode::Visit, "asked=2", "after 3"), (InstanceMode::Shared, "asked=1", "after 1")]
    {
        let plan = Plan { mode, ..plan() };
        let mut guest = plan.start().unwrap();
        for _ in 0..2 {
            check::<HttpRequest>(&mut guest, &request("/count"), "asked=1 begun=\"visit-1\"");
            check::<HttpResponse>(&mut guest, &response("/count"), response_sees);
            check::<HttpComplete>(&mut guest, &complete, "Continue");
        }
        let lines = plan.log.0.lock().unwrap();
        assert!(lines.iter().any(|line| line.contains(complete_sees)), "{mode:?}: {lines:?}");
        let over = lines.iter().filter(|line| line.contains("the exchange visit-1 is over")).count();
        assert_eq!(over, if mode == InstanceMode::Visit { 2 } else { 6 }, "{mode:?}: {lines:?}");
    }
}

#[test]
fn responses() {
    let mut guest = plan().start().unwrap();
    check::<HttpResponse>(
        &mut guest,
        &response("/"),
        "status: Some(201), headers: [Add(\"x-streamed\", \"true\")], body: Some(b\"abc!\"), request_body: None",
    );
    check::<HttpResponse>(&mut guest, &response("/refuse"), "Refuse(Refusal { status: None, kind: \"k\"");
}

#[test]
fn life() {
    let plan = plan();
    let mut guest = plan.start().unwrap();
    let event = LifeEvent { plugin: "p".into(), version: String::new(), reason: LifeReason::Stop };
    check::<PluginUnload>(&mut guest, &event, "Continue");
    let event = TickEvent { plugin: "p".into(), version: String::new() };
    check::<PluginTick>(&mut guest, &event, "Continue");
    let lines = plan.log.0.lock().unwrap();
    let expected = [
        "info load p 1.2.3 Reason::Reload {\"greeting\":\"hello\"}",
        "info unload Reason::Stop",
        "info tick {\"limit\":3}",
    ];
    assert_eq!(*lines, expected);
}

#[test]
fn tools() {
    let mut guest = plan().start().unwrap();
    check::<ToolList>(&mut guest, &ToolListEvent, "Stop([Tool { name: \"echo\", description: \"for alice\"");
    let call = |tool: &str| ToolCallEvent { tool: tool.into(), arguments: "{\"a\":[1]}".into() };
    check::<ToolCall>(&mut guest, &call("echo"), "Stop(Done(Json(b\"{\\\"a\\\":[1]}\")))");
    check::<ToolCall>(&mut guest, &call("text"), "Stop(Done(Text(\"plain\")))");
    check::<ToolCall>(&mut guest, &call("failed"), "Stop(Failed(\"it did not work\"))");
    check::<ToolCall>(&mut guest, &call("bad"), "Call(Protocol): the tool returned no JSON");
    check::<ToolCall>(&mut guest, &call("error"), "Guest(1): as you wish");
    check::<ToolCall>(&mut guest, &call("other"), "Continue");
}

#[test]
fn access() {
    let mut guest = plan().start().unwrap();
    let login = |password: Option<&str>| LoginEvent {
        client: "c".into(),
        username: Some("u".into()),
        password: password.map(str::to_owned),
        database: Some("d".into()),
        headers: Headers(vec![("role".into(), "writer".into())]),
    };
    check::<AccessAuthenticate>(
        &mut guest,
        &login(Some("secret")),
        "Stop(Identity(Identity { user_id: \"u@d\", username: \"c\", roles: [\"writer\"], tenant_id: Some(\"acme\") }))",
    );
    check::<AccessAuthenticate>(
        &mut guest,
        &login(Some("x")),
        "Stop(Deny(Denial { message: \"wrong password\" }))",
    );
    check::<AccessAuthenticate>(&mut guest, &login(None), "Continue");
    let writer = Identity { roles: vec!["writer".into()], ..Identity::default() };
    let access = |identity: Option<Identity>, action: &str| AccessEvent {
        identity,
        action: action.into(),
        resource: "t".into(),
        client: "c".into(),
    };
    check::<AccessAuthorize>(&mut guest, &access(Some(writer), "write"), "Stop(Allow)");
    check::<AccessAuthorize>(
        &mut guest,
        &access(None, "write"),
        "Stop(Deny(Denial { message: \"not to t for c\" }))",
    );
    check::<AccessAuthorize>(&mut guest, &access(None, "read"), "Continue");
}

#[test]
fn caches() {
    let mut guest = plan().start().unwrap();
    let query = QueryEvent { normalized: "select ?".into(), ..QueryEvent::default() };
    let get = |key: &str, subject| CacheGetEvent { key: key.into(), subject };
    let of_query = || CacheSubject::Query(query.clone());
    check::<CacheGet>(&mut guest, &get("k", of_query()), "CacheGetEdits { key: Some(\"select ?\") }");
    check::<CacheGet>(&mut guest, &get("k", CacheSubject::Request(request("/"))), "Continue");
    let of_request = || CacheSubject::Request(request("/"));
    check::<CacheGet>(&mut guest, &get("hit", of_request()), "Stop(Hit(b\"kept\"))");
    check::<CacheGet>(&mut guest, &get("hit", of_query()), "Call(Protocol)");
    check::<CacheGet>(&mut guest, &get("skip", of_query()), "Stop(Skip)");
    let set = |value: &'static str| CacheSetEvent {
        key: "k".into(),
        subject: of_query(),
        ttl_ms: Some(10),
        value_bytes: value.len() as u64,
        value: Some(value.into()),
    };
    check::<CacheSet>(&mut guest, &set("abc"), "CacheSetEdits { key: Some(\"k:3:3\"), ttl_ms: Some(20) }");
    check::<CacheSet>(&mut guest, &set(""), "Stop(NotKept)");
}

#[test]
fn sql() {
    let mut guest = plan().start().unwrap();
    let query = |sql: &str| QueryEvent {
        sql: sql.into(),
        tables: vec!["a".into(), "b".into()],
        is_read_only: true,
        branch: Some("main".into()),
        settings: BTreeMap::from([("x".to_owned(), "y".to_owned())]),
        ..QueryEvent::default()
    };
    check::<SqlQuery>(&mut guest, &query("select"), "Continue");
    check::<SqlQuery>(&mut guest, &query("rewrite"), "sql: Some(\"a,b [(\\\"x\\\", \\\"y\\\")] true\")");
    check::<SqlQuery>(
        &mut guest,
        &query("rows"),
        "Stop(Rows(Rows { columns: [Column { name: \"n\", oid: 23 }], rows: [[Some(\"1\")], [None]] }))",
    );
    check::<SqlQuery>(
        &mut guest,
        &query("crooked"),
        "Call(Protocol): the row 0 of a result with 1 columns has 0 values",
    );
    check::<SqlQuery>(&mut guest, &query("refuse"), "Refuse(SqlRefusal { sqlstate: Some(\"42501\")");
    check::<SqlQuery>(&mut guest, &query("bad"), "Call(Protocol): \"no\" is no SQLSTATE");
    let node = |name: &str, is_healthy, lag_ms| Node {
        name: name.into(),
        role: NodeRole::Standby,
        is_healthy,
        lag_ms: Some(lag_ms),
    };
    let nodes = vec![node("far", true, 90), node("near", true, 5), node("ill", false, 0)];
    let route = |sql: &str| RouteEvent { query: query(sql), nodes: nodes.clone() };
    check::<SqlRoute>(&mut guest, &route("role"), "Stop(Role(Standby))");
    check::<SqlRoute>(&mut guest, &route("node"), "Stop(Node(\"near\"))");
    check::<SqlRoute>(&mut guest, &route("nobody"), "Call(Protocol): there is no node \"nobody\"");
    check::<SqlRoute>(&mut guest, &route("branch"), "Stop(Branch(\"main\"))");
    check::<SqlRoute>(&mut guest, &route("refuse"), "Stop(Refuse(SqlRefusal { sqlstate: None");
    check::<SqlRoute>(&mut guest, &route("select"), "Continue");
    let result = |is_success| ResultEvent {
        query: query("select"),
        is_success,
        error: Some("out of disk".into()),
        ..ResultEvent::default()
    };
    check::<SqlResult>(&mut guest, &result(true), "Continue");
    check::<SqlResult>(&mut guest, &result(false), "Guest(1): out of disk");
}

#[test]
fn what_is_not_granted_ends_the_call() {
    let rows = [
        ("/kv", "kv_set is not granted: add \"kv: write\" to the grants of plugin \"p\""),
        ("/cache", "cache_fill is not granted"),
        ("/sql", "execute_query is not granted"),
        ("/metrics", "metric_inc is not granted"),
        ("/secret", "secret_get is not granted"),
        ("/fetch/example.com", "http_fetch is not granted"),
        ("/time", "now is not granted: add \"clock: on\""),
        ("/random", "is not granted: add \"random: on\""),
    ];
    let mut plan = plan();
    plan.grants.clock = Switch::Off;
    plan.grants.random = Switch::Off;
    let engine = Engine::new(EngineConfig::default()).unwrap();
    let template = plan.link(&engine).unwrap();
    for (path, words) in rows {
        let mut guest = runtime::block_on(template.instantiate()).unwrap();
        let error = ask::<HttpRequest>(&mut guest, &request(path)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Call(Fault::Denied), "{path}: {error}");
        assert!(error.message().contains(words), "{path}: {error}");
    }
}

#[test]
fn wasi_is_what_is_granted() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("hello.txt"), "hello").unwrap();
    let mut plan = plan();
    plan.grants.files = BTreeMap::from([(format!("ro:{}", folder.path().display()), "/data".to_owned())]);
    plan.grants.env = BTreeMap::from([("WORLD".to_owned(), "round".to_owned())]);
    let mut guest = plan.start().unwrap();
    for (path, expected) in [
        ("/time", "got=true"),
        ("/random", "got=true"),
        ("/env", "got=\"round\""),
        ("/file", "got=\"hello\""),
        ("/config", "got=\"hello\""),
        ("/log", "got=true"),
    ] {
        check::<HttpRequest>(&mut guest, &request(path), expected);
    }
    let lines = plan.log.0.lock().unwrap();
    // What has no end of line is one when the call is over.
    let written: Vec<&String> = lines.iter().filter(|line| !line.contains("exchange")).collect();
    let expected = ["warn watch out", "info to standard output", "warn to standard error"];
    assert_eq!(written[1..], expected);
    drop(lines);
    let mut guest = super::world::plan().start().unwrap();
    check::<HttpRequest>(&mut guest, &request("/env"), "got=\"\"");
    check::<HttpRequest>(&mut guest, &request("/file"), "got=\"\"");
}

#[test]
fn a_guest_that_waits_or_leaves_is_stopped() {
    let mut guest = plan().start().unwrap();
    let (attributes, config) = (Attributes::new(), json!({}));
    let event = request("/sleep");
    let asked =
        guest.ask::<HttpRequest>(&event, about(&attributes, &config), Some(Duration::from_millis(50)));
    let began = std::time::Instant::now();
    let error = runtime::block_on(asked).unwrap_err();
    assert_eq!((error.fault(), error.message()), (Fault::Deadline, "timeout"));
    assert!(began.elapsed() < Duration::from_secs(5));
    let mut guest = plan().start().unwrap();
    check::<HttpRequest>(&mut guest, &request("/exit"), "Call(Trap): Exited with i32 exit status 1");
}

#[test]
fn no_log_is_no_log() {
    let mut plan = plan();
    plan.grants.log = LogScope::Off;
    let mut guest = plan.start().unwrap();
    check::<HttpRequest>(&mut guest, &request("/log"), "got=false");
    assert!(plan.log.0.lock().unwrap().is_empty());
}
