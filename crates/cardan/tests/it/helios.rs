//! HeliosProxy's own plugins by behaviour, asked at their hooks: the documents, the packed convention and the store.

use std::collections::BTreeMap;
use std::sync::Arc;

use cardan::api::access::{AccessAuthenticate, Identity, LoginAnswer, LoginEvent};
use cardan::api::grants::{Access, KvLimits, KvScope};
use cardan::api::sql::{
    Node, NodeRole, QueryAnswer, QueryEvent, ResultEvent, RouteAnswer, RouteEvent, SqlQuery, SqlResult,
    SqlRoute,
};
use cardan::api::{Attributes, BodyNeed, Flow, Hook, Phase, Verdict};
use cardan::dialect::Spoken;
use cardan::{
    Abi, Circumstances, Dialect, Engine, EngineConfig, Error, Fault, Grants, Held, KvEntry, KvSpace, KvStore,
    Plugin, Question, Services,
};
use cardan_services::MemoryKv;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::support::{GENEROUS, guests, within};

const VISIT: &str = "00000000000000ab";

/// One plugin with a store of its own.
struct Helios {
    plugin: Plugin,
    kv: Arc<MemoryKv>,
}

impl Helios {
    fn load(name: &str) -> Self {
        let kv = Arc::new(MemoryKv::default());
        let services = Services { kv: Some(kv.clone()), ..Services::default() };
        let engine =
            Engine::new(EngineConfig { pool_instances: Some(20), services, ..EngineConfig::default() });
        let scope = KvScope { access: Access::Write, limits: KvLimits::default() };
        let plugin = engine
            .unwrap()
            .plugin(guests().join(format!("prebuilt/helios-{name}.wasm")).as_path())
            .grants(Grants { kv: Some(scope), ..Grants::default() })
            .limits(within(GENEROUS))
            .load()
            .unwrap();
        let found = plugin.inspection();
        assert_eq!((found.abi, found.dialect), (Abi::Packed, Some(Dialect::HeliosProxy)), "{name}");
        Self { plugin, kv }
    }

    fn space(&self) -> KvSpace {
        KvSpace { plugin: self.plugin.name().clone(), limits: KvLimits::default() }
    }

    async fn set(&self, key: &str, value: Value) {
        let entry = KvEntry { key: key.to_owned(), value: value.to_string().into_bytes() };
        self.kv.set(&self.space(), entry, None).await.unwrap();
    }

    async fn get(&self, key: &str) -> Option<Vec<u8>> {
        self.kv.get(&self.space(), key.to_owned()).await.unwrap()
    }

    async fn get_json(&self, key: &str) -> Value {
        serde_json::from_slice(&self.get(key).await.unwrap_or_else(|| panic!("{key} is not there"))).unwrap()
    }

    async fn ask<H: Spoken>(&self, event: &H::Event, attributes: &Attributes) -> Result<Verdict<H>, Error> {
        let config = json!({});
        let about = Circumstances {
            phase: Phase::PreFlight,
            body: BodyNeed::Whole,
            visit: VISIT,
            session: "default",
            attributes,
            config: &config,
        };
        let question = Question { event, about, entry: None, deadline: None };
        self.plugin.ask(&mut Held::default(), question).await
    }

    /// `None`: it has nothing against the statement, nor changes it.
    async fn query(&self, event: &QueryEvent) -> Option<Result<String, String>> {
        let verdict = self.ask::<SqlQuery>(event, &Attributes::new()).await.unwrap();
        match (verdict.flow, verdict.edits.sql) {
            (Flow::Continue, sql) => sql.map(Ok),
            (Flow::Stop(QueryAnswer::Refuse(refusal)), _) => Some(Err(refusal.message)),
            (other, _) => panic!("{other:?}"),
        }
    }

    async fn route(&self, query: QueryEvent) -> Flow<RouteAnswer> {
        let nodes = ["eu-1", "vectors"].map(|name| Node {
            name: name.to_owned(),
            role: NodeRole::Standby,
            is_healthy: true,
            lag_ms: None,
        });
        let event = RouteEvent { query, nodes: nodes.into() };
        self.ask::<SqlRoute>(&event, &Attributes::new()).await.unwrap().flow
    }
}

fn statement(sql: &str, settings: &[(&str, &str)]) -> QueryEvent {
    let settings = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    QueryEvent {
        sql: sql.to_owned(),
        normalized: sql.to_owned(),
        client: "10.1.2.3:5000".to_owned(),
        settings: settings.collect::<BTreeMap<_, _>>(),
        ..QueryEvent::default()
    }
}

fn of_tenant(sql: &str, tenant: &str, roles: &[&str]) -> QueryEvent {
    let identity = Identity {
        user_id: "u1".to_owned(),
        username: "ada".to_owned(),
        roles: roles.iter().map(ToString::to_string).collect(),
        tenant_id: Some(tenant.to_owned()),
    };
    QueryEvent { identity: Some(identity), ..statement(sql, &[]) }
}

fn answered(query: QueryEvent) -> ResultEvent {
    ResultEvent {
        query,
        is_success: true,
        node: Some("eu-1".to_owned()),
        elapsed_us: 2_000_000,
        response_bytes: 64_000_000,
        error: None,
    }
}

/// What statements cost is added up after them, and looked at before them, until a limit is reached.
#[tokio::test]
async fn cost_governor() {
    let plugin = Helios::load("cost-governor");
    let query = of_tenant("SELECT 1", "acme", &[]);
    assert_eq!(plugin.query(&query).await, None, "without a budget");
    plugin.set("tenant:acme:budget", json!({ "minute": 3.5, "hour": 0.0, "day": 0.0 })).await;
    for spent in ["nothing yet", "3.0 of 3.5"] {
        assert_eq!(plugin.query(&query).await, None, "{spent}");
        let verdict = plugin.ask::<SqlResult>(&answered(query.clone()), &Attributes::new()).await.unwrap();
        assert_eq!(verdict.flow, Flow::Continue);
    }
    // A million rows at 1e-6 and two seconds at 1e-3 for each millisecond, twice.
    assert_eq!(plugin.get_json("tenant:acme:usage").await["minute"], json!(6.0));
    let refused = plugin.query(&query).await.unwrap().unwrap_err();
    assert!(refused.contains("acme") && refused.ends_with("(retry in 60s)"), "{refused}");
    plugin.set("tenant:acme:budget", json!({ "minute": 1.0, "hour": 1.0, "day": 1.0 })).await;
    let refused = plugin.query(&query).await.unwrap().unwrap_err();
    assert!(refused.ends_with("(retry in 86400s)"), "the day is looked at first: {refused}");
    assert_eq!(plugin.query(&of_tenant("SELECT 1", "other", &[])).await, None);
    assert_eq!(plugin.query(&statement("SELECT 1", &[])).await, None, "without a tenant");
}

/// However long the statement, whoever is over budget is refused: never a silent way through.
#[tokio::test]
async fn long_statements_are_no_way_round() {
    let plugin = Helios::load("cost-governor");
    plugin.set("tenant:acme:budget", json!({ "minute": 1.0 })).await;
    plugin.set("tenant:acme:usage", json!({ "minute": 1.0 })).await;
    for kib in [0, 1, 63, 64, 65, 100, 128, 400, 450, 480, 500, 520, 1024, 2048] {
        let sql = format!("SELECT 1 /* {} */", "x".repeat(kib << 10));
        let refused = plugin.query(&of_tenant(&sql, "acme", &[])).await;
        assert!(matches!(refused, Some(Err(_))), "{kib} KiB: {refused:?}");
    }
}

/// The guardrail has the published guests' shape: the tag `kind`, and memory that is never taken back.
#[tokio::test]
async fn llm_guardrail() {
    let plugin = Helios::load("llm-guardrail");
    let model = [("application_name", "my-GPT-tool")];
    for (sql, settings, refused) in [
        ("DROP TABLE users", &model[..], true),
        ("TRUNCATE events", &model[..], true),
        ("DELETE FROM a", &model[..], true),
        ("DELETE FROM a WHERE id = 1", &model[..], false),
        ("SELECT * FROM events WHERE tenant_id = 1", &model[..], true),
        ("SELECT * FROM events WHERE tenant_id = 1 LIMIT 5", &model[..], false),
        ("SELECT * FROM users LIMIT 5", &model[..], true),
        ("DROP TABLE users", &[("helios.ai_traffic", "true")][..], true),
        ("DROP TABLE users", &[("application_name", "psql")][..], false),
        ("DROP TABLE users", &[][..], false),
    ] {
        let verdict = plugin.query(&statement(sql, settings)).await;
        assert_eq!(verdict.is_some(), refused, "{sql} {settings:?}: {verdict:?}");
        if let Some(told) = verdict {
            assert!(told.unwrap_err().starts_with("llm-guardrail: "), "{sql}");
        }
    }
    // Its region would be used up after three of these, were memory not fresh.
    let long = format!("DROP TABLE a /* {} */", "x".repeat(300_000));
    for _ in 0..20 {
        assert!(plugin.query(&statement(&long, &model)).await.is_some());
    }
}

/// What one plugin rewrites is what the next one is shown.
#[tokio::test]
async fn column_mask_before_guardrail() {
    let (mask, guardrail) = (Helios::load("column-mask"), Helios::load("llm-guardrail"));
    let rules = json!([
        { "table": "people", "column": "email", "mask_function": "hide", "unmask_role": "auditor" },
        { "table": "people", "column": "kind", "mask_function": "DROP ", "unmask_role": "" },
    ]);
    mask.set("rules", rules).await;
    let ask = |roles: &'static [&'static str]| QueryEvent {
        settings: BTreeMap::from([("application_name".to_owned(), "agent".to_owned())]),
        ..of_tenant("SELECT email FROM people", "acme", roles)
    };
    assert_eq!(mask.query(&ask(&["auditor"])).await, None);
    let mut event = ask(&["clerk"]);
    let masked = mask.ask::<SqlQuery>(&event, &Attributes::new()).await.unwrap();
    SqlQuery::apply(&mut event, masked.edits);
    assert_eq!(event.sql, "SELECT hide(email) AS email FROM people");
    assert_eq!(guardrail.query(&event).await, None);
    assert_eq!(mask.query(&event).await, None, "it is not masked twice");
    event.sql = "SELECT kind FROM people".to_owned();
    assert_eq!(guardrail.query(&event).await, None);
    let masked = mask.ask::<SqlQuery>(&event, &Attributes::new()).await.unwrap();
    SqlQuery::apply(&mut event, masked.edits);
    let refused = guardrail.query(&event).await;
    assert!(matches!(refused, Some(Err(_))), "it is shown the new statement, {:?}: {refused:?}", event.sql);
}

/// One request id at all hooks, and what clients say about themselves.
#[tokio::test]
async fn ai_classifier() {
    let plugin = Helios::load("ai-classifier");
    let marked = format!("req:{VISIT}:ai_traffic");
    assert_eq!(plugin.query(&statement("SELECT 1", &[("application_name", "psql")])).await, None);
    assert_eq!(plugin.get(&marked).await, None);
    let settings =
        [("application_name", "claude-code"), ("helios.agent_id", "a7"), ("helios.model_id", "m1")];
    assert_eq!(plugin.query(&statement("SELECT 1", &settings)).await, None);
    assert_eq!(plugin.get(&marked).await.as_deref(), Some(&b"true"[..]));
    for (key, value) in [("agent_id", "a7"), ("model_id", "m1")] {
        let found = plugin.get(&format!("req:{VISIT}:{key}")).await;
        assert_eq!(found.as_deref(), Some(value.as_bytes()), "{key}");
    }
    let other = Helios::load("ai-classifier");
    assert_eq!(other.query(&statement("SELECT 1 /* Generated by a model */", &[])).await, None);
    assert!(other.get(&marked).await.is_some());
}

/// What other plugins have said reaches it as attributes.
#[tokio::test]
async fn token_budget() {
    let plugin = Helios::load("token-budget");
    let attributes: Attributes = [("agent_id", "a7"), ("model_id", "m1")]
        .map(|(name, value)| (name.to_owned(), json!(value)))
        .into_iter()
        .collect();
    let query = statement("SELECT 1", &[]);
    plugin.set("agent:a7:m1:budget", json!({ "minute": 20_000.0 })).await;
    let ask = || plugin.ask::<SqlQuery>(&query, &attributes);
    for _ in 0..2 {
        assert_eq!(ask().await.unwrap().flow, Flow::Continue);
        plugin.ask::<SqlResult>(&answered(query.clone()), &attributes).await.unwrap();
    }
    assert_eq!(plugin.get_json("agent:a7:m1:spend").await["minute"], json!(32_000.0));
    let Flow::Stop(QueryAnswer::Refuse(refusal)) = ask().await.unwrap().flow else { panic!("not refused") };
    assert!(refusal.message.ends_with("(retry in 60s)"), "{refusal:?}");
    assert_eq!(plugin.query(&query).await, None, "nobody says whose statement it is");
}

#[tokio::test]
async fn residency_router() {
    let plugin = Helios::load("residency-router");
    let from = |region: &str| statement("SELECT 1", &[("helios.region", region)]);
    assert_eq!(plugin.route(statement("SELECT 1", &[])).await, Flow::Continue);
    plugin.set("region_map", json!([["eu", "eu-1"], ["mars", "mars-1"]])).await;
    assert_eq!(plugin.route(from("eu")).await, Flow::Stop(RouteAnswer::Node("eu-1".to_owned())));
    assert_eq!(plugin.route(from("us")).await, Flow::Continue);
    plugin.set("enforce", json!(true)).await;
    let Flow::Stop(RouteAnswer::Refuse(refusal)) = plugin.route(from("us")).await else { panic!("routed") };
    assert_eq!(refusal.message, "no in-region replica for user");
    // A node that nobody knows is dialled by nobody.
    let event = RouteEvent { query: from("mars"), nodes: Vec::new() };
    let error = plugin.ask::<SqlRoute>(&event, &Attributes::new()).await.unwrap_err();
    assert!(error.to_string().contains("there is no node \"mars-1\""), "{error}");
}

#[tokio::test]
async fn pgvector_router() {
    let plugin = Helios::load("pgvector-router");
    let set = [("helios.vector_node", "vectors")];
    let search = "SELECT id FROM docs ORDER BY embedding <=> '[1,2]' LIMIT 3";
    assert_eq!(
        plugin.route(statement(search, &set)).await,
        Flow::Stop(RouteAnswer::Node("vectors".to_owned()))
    );
    assert_eq!(plugin.route(statement("SELECT 1", &set)).await, Flow::Continue);
    assert_eq!(plugin.route(statement(search, &[])).await, Flow::Continue);
}

fn sha256_hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Each record has the hash of the one before, also beyond the 1,024 keys of the original.
#[tokio::test]
async fn audit_chain() {
    let plugin = Helios::load("audit-chain");
    let event = answered(of_tenant("SELECT 1", "acme", &[]));
    for _ in 0..3 {
        plugin.ask::<SqlResult>(&event, &Attributes::new()).await.unwrap();
    }
    let mut before = "GENESIS".to_owned();
    for seq in 0..3 {
        let record = plugin.get(&format!("record:{seq}")).await.unwrap();
        let said: Value = serde_json::from_slice(&record).unwrap();
        assert_eq!(said["prev_hash"], json!(before), "{seq}");
        assert_eq!(
            (&said["client_ip"], &said["identity"], &said["timestamp"]),
            (&json!("10.1.2.3"), &json!("u1"), &json!(VISIT))
        );
        assert_eq!(said["query_fingerprint"], json!(sha256_hex(b"SELECT 1")));
        before = sha256_hex(&record);
    }
    assert_eq!(plugin.get("tail_hash").await.as_deref(), Some(before.as_bytes()));
}

/// The sample of the documents: without its header it denies, and it asks no server that nobody let it reach.
#[tokio::test]
async fn custom_auth() {
    let plugin = Helios::load("custom-auth");
    let mut login = LoginEvent::default();
    let verdict = plugin.ask::<AccessAuthenticate>(&login, &Attributes::new()).await.unwrap();
    let Flow::Stop(LoginAnswer::Deny(denial)) = verdict.flow else { panic!("let in") };
    assert_eq!(denial.message, "the header X-Custom-Token is missing");
    login.headers.0.push(("x-custom-token".to_owned(), "t".to_owned()));
    let error = plugin.ask::<AccessAuthenticate>(&login, &Attributes::new()).await.unwrap_err();
    assert_eq!(error.fault(), Fault::Denied);
    assert!(error.to_string().contains("http_fetch is not granted"), "{error}");
}

/// Its own plugins ask for nothing and use the store: that is an operator's to grant.
#[tokio::test]
async fn without_a_grant() {
    let engine = Engine::new(EngineConfig { pool_instances: Some(20), ..EngineConfig::default() }).unwrap();
    let path = guests().join("prebuilt/helios-column-mask.wasm");
    let plugin =
        engine.plugin(path.as_path()).grants(Grants::default()).limits(within(GENEROUS)).load().unwrap();
    let (attributes, config) = (Attributes::new(), json!({}));
    let about = Circumstances { attributes: &attributes, ..Circumstances::of_life(&config) };
    let event = statement("SELECT 1", &[]);
    let question = Question::<SqlQuery> { event: &event, about, entry: None, deadline: None };
    let error = plugin.ask(&mut Held::default(), question).await.unwrap_err().to_string();
    assert!(error.contains("kv_get is not granted: add \"kv: read\""), "{error}");
}

/// Exports that decide with a number: 0 is no objection.
#[tokio::test]
async fn numbers_decide() {
    let module = r#"(module (memory (export "memory") 2)
        (func (export "alloc") (param i32) (result i32) (i32.const 65536))
        (func (export "dealloc") (param i32 i32))
        (func (export "pre_query") (param i32 i32) (result i32) (i32.gt_u (local.get 1) (i32.const 1000))))"#;
    let engine = Engine::new(EngineConfig { pool_instances: Some(20), ..EngineConfig::default() }).unwrap();
    let builder = engine.plugin(module.as_bytes()).abi(Abi::Packed).dialect(Dialect::HeliosProxy);
    let plugin = builder.limits(within(GENEROUS)).load().unwrap();
    let helios = Helios { plugin, kv: Arc::new(MemoryKv::default()) };
    assert_eq!(helios.query(&statement("SELECT 1", &[])).await, None);
    let long = statement(&"x".repeat(1_000), &[]);
    assert_eq!(helios.query(&long).await, Some(Err("blocked by plugin".to_owned())));
}
