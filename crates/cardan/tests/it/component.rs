//! Components as plugins: loaded, asked and inspected through the public interface, with the real services.

use std::sync::OnceLock;

use cardan::api::grants::{HttpScope, LogScope};
use cardan::api::http::{
    Headers, HttpAnswer, HttpRequest, HttpResponse, Origin, RequestEvent, ResponseEvent,
};
use cardan::api::lifecycle::PluginTick;
use cardan::api::storage::{StorageBefore, StorageEvent, StorageOperation};
use cardan::api::{Attributes, BodyNeed, Flow, Phase, Verdict};
use cardan::dialect::Spoken;
use cardan::{
    Abi, Capability, Circumstances, Dialect, Error, ErrorKind, Fault, Grants, Held, HostFunction,
    InstanceMode, Plugin, PluginBuilder, Question, SnapshotState,
};
use serde_json::json;

use crate::server::port;
use crate::services::{House, everything};
use crate::support::{GENEROUS, engine, guests, prebuilt, within};

fn request(path: &str, headers: &[(&str, &str)]) -> RequestEvent {
    RequestEvent {
        method: "POST".into(),
        host: "api.example".into(),
        path: path.into(),
        query: None,
        client: "192.0.2.1:4711".into(),
        headers: Headers(headers.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()),
        body: Some("{}".into()),
    }
}

fn ask_in<H: Spoken>(plugin: &Plugin, held: &mut Held, event: &H::Event) -> Result<Verdict<H>, Error>
where
    H::Event: Sync,
{
    let (attributes, config) = (Attributes::new(), json!({}));
    let about = Circumstances {
        phase: Phase::Ingress,
        body: BodyNeed::Whole,
        visit: "visit-1",
        session: "default",
        attributes: &attributes,
        config: &config,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(plugin.ask(held, Question { event, about, entry: None, deadline: None }))
}

fn ask<H: Spoken>(plugin: &Plugin, event: &H::Event) -> Result<Verdict<H>, Error>
where
    H::Event: Sync,
{
    ask_in(plugin, &mut Held::default(), event)
}

fn smg(name: &str) -> PluginBuilder {
    prebuilt(name).limits(within(GENEROUS))
}

fn status(verdict: &Verdict<HttpRequest>) -> u16 {
    match &verdict.flow {
        Flow::Continue => 200,
        Flow::Stop(HttpAnswer::Respond(response)) => response.status,
        Flow::Stop(other) => panic!("{other:?}"),
    }
}

#[test]
fn guests_of_smg_run_unchanged() {
    let auth = smg("smg-auth").load().unwrap();
    let key = "Bearer secret-api-key-12345";
    for (path, headers, expected) in [
        ("/v1/models", &[][..], 401),
        ("/v1/models", &[("authorization", "Bearer no")][..], 401),
        ("/v1/models", &[("Authorization", key)][..], 200),
        ("/public", &[][..], 200),
    ] {
        let verdict = ask::<HttpRequest>(&auth, &request(path, headers)).unwrap();
        assert_eq!(status(&verdict), expected, "{path} {headers:?}");
    }
    let logging = smg("smg-logging").load().unwrap();
    let verdict = ask::<HttpRequest>(&logging, &request("/v1/x", &[])).unwrap();
    let mut event = request("/v1/x", &[("x-request-id", "r-1")]);
    <HttpRequest as cardan::api::Hook>::apply(&mut event, verdict.edits);
    assert_eq!(event.headers.get("x-wasm-processed"), Some("true"));
    assert_eq!(event.headers.get("x-api-route"), Some("true"));
    let event = ResponseEvent {
        request: event,
        status: 500,
        headers: Headers::default(),
        body: None,
        streamed: false,
        origin: Origin::Upstream,
    };
    assert_eq!(ask::<HttpResponse>(&logging, &event).unwrap().edits.status, Some(503));
}

#[test]
fn a_rate_limit_in_memory_limits_where_instances_are_shared() {
    for (mode, expected) in [(InstanceMode::Fresh, 200), (InstanceMode::Shared, 429)] {
        let plugin = smg("smg-rate-limit").mode(mode).load().unwrap();
        let event = request("/v1/x", &[("x-api-key", "k")]);
        let last = (0..61).map(|_| status(&ask::<HttpRequest>(&plugin, &event).unwrap())).last();
        assert_eq!(last, Some(expected), "{mode:?}");
    }
}

#[test]
fn storage_hooks_need_a_tenant() {
    let plugin = smg("smg-storage").load().unwrap();
    let event = |context: &[(&str, &str)]| StorageEvent {
        operation: StorageOperation::StoreResponse,
        context: context.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect(),
        payload: "{}".into(),
        columns: Vec::new(),
    };
    let Flow::Stop(refusal) = ask::<StorageBefore>(&plugin, &event(&[])).unwrap().flow else {
        panic!("it is stored")
    };
    assert!(refusal.message.contains("tenant_id"), "{}", refusal.message);
    let verdict = ask::<StorageBefore>(&plugin, &event(&[("tenant_id", "acme"), ("user_id", "u")])).unwrap();
    let columns: Vec<String> =
        verdict.edits.columns.iter().map(|column| format!("{}={}", column.name, column.value)).collect();
    assert_eq!(columns, ["TENANT_ID=acme", "STORED_BY=u"]);
}

#[test]
fn guests_of_the_vllm_router_run_unchanged() {
    let plugin = smg("vllm-on-request").load().unwrap();
    let verdict = ask::<HttpRequest>(&plugin, &request("/v1/chat/completions", &[])).unwrap();
    let mut event = request("/v1/chat/completions", &[]);
    <HttpRequest as cardan::api::Hook>::apply(&mut event, verdict.edits);
    assert_eq!(event.headers.get("x-wasm-middleware"), Some("example"));
}

/// With a database of its own.
fn house() -> &'static House {
    static HOUSE: OnceLock<House> = OnceLock::new();
    HOUSE.get_or_init(|| House::with("component.sqlite"))
}

fn world(grants: Grants) -> Plugin {
    let file = guests().join("prebuilt/world.wasm");
    house().engine.plugin(file).name("world").limits(within(GENEROUS)).grants(grants).load().unwrap()
}

#[track_caller]
fn check(plugin: &Plugin, path: &str, expected: &str) {
    let got = match ask::<HttpRequest>(plugin, &request(path, &[])) {
        Ok(verdict) => verdict.attributes.get("got").map(ToString::to_string).unwrap_or_default(),
        Err(error) => format!("{error}"),
    };
    assert_eq!(got, expected, "{path}");
}

#[test]
fn every_import_does_what_it_says() {
    let http = HttpScope::hosts(["127.0.0.1".to_owned()]);
    let plugin = world(Grants { http: Some(http), log: LogScope::default(), ..everything() });
    check(&plugin, "/kv", "[83,true,\"2\",3,\"b\"]");
    check(&plugin, "/cache", "[true,\"v\",true]");
    check(&plugin, "/sql", "[true,2,[1],[2],true]");
    check(&plugin, "/metrics", "true");
    check(&plugin, "/secret", "\"s3cret\"");
    check(&plugin, &format!("/fetch/127.0.0.1:{}/status/418", port()), "[418,\"the body\"]");
    check(&plugin, "/fetch/127.0.0.1:9/", "\"failed\"");
    let families = format!("{:?}", house().metrics.families());
    assert!(families.contains("\"kind\"") && families.contains("\"test\""), "{families}");
}

#[test]
fn a_visit_keeps_an_instance_and_its_exchange() {
    let plugin = house()
        .engine
        .plugin(guests().join("prebuilt/world.wasm"))
        .mode(InstanceMode::Visit)
        .limits(within(GENEROUS))
        .load()
        .unwrap();
    let mut held = Held::default();
    for asked in 1..=3 {
        let verdict = ask_in::<HttpRequest>(&plugin, &mut held, &request("/count", &[])).unwrap();
        assert_eq!(verdict.attributes["asked"], asked);
    }
    let before = plugin.usage().started;
    ask_in::<HttpRequest>(&plugin, &mut held, &request("/error", &[])).unwrap_err();
    let verdict = ask_in::<HttpRequest>(&plugin, &mut held, &request("/count", &[])).unwrap();
    assert_eq!(verdict.attributes["asked"], 1, "an instance that failed is not used again");
    assert_eq!(plugin.usage().started, before + 1);
}

#[test]
fn instances_are_made_ahead() {
    let plugin = smg("smg-auth").ready_instances(2).load().unwrap();
    for _ in 0..20 {
        ask::<HttpRequest>(&plugin, &request("/public", &[])).unwrap();
    }
    let began = std::time::Instant::now();
    while plugin.ready_instances() < 2 && began.elapsed() < GENEROUS {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    assert_eq!(plugin.ready_instances(), 2);
}

#[test]
fn one_source_for_every_convention_is_a_component_too() {
    let plugin = smg("universal-component").load().unwrap();
    let asked = |wish: &str| ask::<HttpRequest>(&plugin, &request("/", &[("x-do", wish)]));
    assert!(matches!(asked("pass").unwrap().flow, Flow::Continue));
    assert_eq!(asked("path").unwrap().edits.path.as_deref(), Some("/moved"));
    assert_eq!(status(&asked("respond").unwrap()), 203);
    assert_eq!(asked("panic").unwrap_err().fault(), Fault::Trap);
    assert!(plugin.entry_of::<PluginTick>().is_some());
    let refused =
        smg("universal-component").config_object(&json!({ "refuse_load": true })).load().unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Refused, "{refused}");
}

#[test]
fn inspection() {
    let plugin = smg("world").load().unwrap();
    let found = plugin.inspection();
    assert_eq!((found.abi, found.dialect, plugin.dialect()), (Abi::Component, None, None));
    assert_eq!(
        found.hooks,
        [
            "access.authenticate",
            "access.authorize",
            "cache.get",
            "cache.set",
            "http.complete",
            "http.request",
            "http.response",
            "sql.query",
            "sql.result",
            "sql.route",
            "tool.call",
            "tool.list"
        ]
    );
    assert_eq!(found.lifecycle, ["plugin.load", "plugin.tick", "plugin.unload"]);
    for capability in [Capability::KvWrite, Capability::Http, Capability::Secrets, Capability::Clock] {
        assert!(found.capabilities.contains(&capability), "{:?}", found.capabilities);
    }
    assert!(found.imports.iter().any(|import| import.module == "cardan:plugin" && import.name == "kv@0.1.0"));
    assert!(matches!(plugin.snapshot_state(), SnapshotState::Refused(_)));
    assert_eq!(cardan::file_digest(&guests().join("prebuilt/world.wasm")), Some(found.digest.clone()));
}

#[test]
fn what_is_not_for_components_says_so() {
    let plugin = smg("smg-auth").load().unwrap();
    let error = plugin.call("on-request", "").unwrap_err();
    assert!(error.message().contains("a component is asked at hooks"), "{error}");
    assert!(plugin.instance().is_err());
    let error = ask::<PluginTick>(
        &plugin,
        &cardan::api::lifecycle::TickEvent { plugin: String::new(), version: String::new() },
    );
    assert!(error.unwrap_err().message().contains("no interface for the hook plugin.tick"));
    let rows: [(PluginBuilder, &str); 5] = [
        (
            smg("smg-auth").abi(Abi::Extism),
            "expected a WebAssembly module but was given a WebAssembly component",
        ),
        (smg("smg-auth").dialect(Dialect::Cardan), "a component speaks no dialect"),
        (smg("smg-auth").digest("00"), "Hash mismatch"),
        (
            smg("smg-auth").host_function(HostFunction::bytes("f", |_| Ok(Vec::new()))),
            "the embedding program",
        ),
        (engine().plugin(&b"(module)"[..]).abi(Abi::Component), "wasm-tools component new"),
    ];
    for (builder, words) in rows {
        let error = builder.load().unwrap_err();
        assert!(error.message().contains(words), "{error}");
    }
}
