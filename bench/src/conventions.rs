//! Rows about conventions other than Extism's, beside what their systems have or promise.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail, ensure};
use cardan::api::http::{Headers, HttpRequest, RequestEvent};
use cardan::api::{Attributes, BodyNeed, Flow, Phase};
use cardan::{Abi, Circumstances, Held, InstanceMode, Plugin, Question};
use serde_json::{Value, json};
use smg_wasm::smg::gateway::middleware_types::{Action, Header, Request};
use smg_wasm::{
    MiddlewareAttachPoint, WasmComponentInput, WasmComponentOutput, WasmModuleAttachPoint, WasmRuntime,
};

use crate::args::Args;
use crate::contest::Contest;
use crate::life::asked;
use crate::load::Loads;
use crate::ours::Nursed;
use crate::row::{Figure, Row, Target};
use crate::{memory, ours, payload, peer};

/// What CortexPrism's documents give.
const PROMISED: &str = "CortexPrism, as documented";
const SMG: &str = "smg-wasm";
/// The key that the guest `smg-auth` lets through.
const KEY: &str = "secret-api-key-12345";

/// A guest of the packed convention that returns a copy of its input, as the Extism guest `echo` does.
const ECHO: &str = r#"(module
  (memory (export "memory") 17)
  (global $next (mut i32) (i32.const 65536))
  (func $alloc (export "alloc") (param $n i32) (result i32) (local $at i32)
    (local.set $at (global.get $next))
    (global.set $next
      (i32.and (i32.add (i32.add (local.get $at) (local.get $n)) (i32.const 7)) (i32.const -8)))
    (local.get $at))
  (func (export "dealloc") (param i32 i32))
  (func (export "echo") (param $at i32) (param $n i32) (result i64) (local $to i32)
    (local.set $to (call $alloc (local.get $n)))
    (memory.copy (local.get $to) (local.get $at) (local.get $n))
    (i64.or (i64.shl (i64.extend_i32_u (local.get $to)) (i64.const 32)) (i64.extend_i32_u (local.get $n)))))"#;

pub(crate) fn rows(args: &Args) -> Result<Vec<Row>> {
    let mut rows = packed(args)?;
    rows.extend(capability(args)?);
    rows.extend(middleware(args, "100 B", 100, 0.25)?);
    rows.extend(middleware(args, "64 KB", 64 << 10, 0.2)?);
    Ok(rows)
}

fn row(name: &str, ours: Figure, peer: &str, theirs: Figure, target: Option<f64>) -> Row {
    let target = target.map(Target::AtMost);
    Row { name: name.to_owned(), peer: peer.to_owned(), ours, theirs, target }
}

/// The packed convention beside the peer's own, for the same work.
fn packed(args: &Args) -> Result<Vec<Row>> {
    let cache = tempfile::tempdir()?;
    let engine = ours::engine(cache.path())?;
    let input = payload::plain(1 << 10);
    let fresh = ours::load(&engine, ECHO.as_bytes(), InstanceMode::Fresh)?;
    ensure!(fresh.inspection().abi == Abi::Packed);
    let nursed = RefCell::new(Nursed::load(&engine, ECHO.as_bytes())?);
    let ready = nursed.borrow().plugin();
    let mut reused = extism::Plugin::new_from_compiled(&peer::compile(&args.guest("echo")?)?)?;
    for output in [fresh.call("echo", &input)?, peer::call(&mut reused, "echo", &input)?] {
        ensure!(output == input, "the sides do not agree on the output");
    }
    let mut contest = Contest::default();
    contest.add("fresh", || Ok(fresh.call("echo", &input)?));
    contest.add_prepared("ready", || nursed.borrow_mut().prepare(), || Ok(ready.call("echo", &input)?));
    contest.add("peer", || peer::call(&mut reused, "echo", &input));
    let results = contest.run(args.rounds, args.turn())?;
    let figure = |id| Ok::<_, anyhow::Error>(Figure::Time(results.get(id)?));
    let line = |what: &str, id, target| {
        let name = format!("packed convention, echo 1 KB, {what}");
        Ok::<_, anyhow::Error>(row(&name, figure(id)?, peer::REUSED, figure("peer")?, Some(target)))
    };
    Ok(vec![line("fresh instance", "fresh", 0.5)?, line("ready instance", "ready", 0.1)?])
}

/// CortexPrism's figures, for the sample of its documents.
fn capability(args: &Args) -> Result<Vec<Row>> {
    let wasm = args.guest("transform-rust")?;
    let cache = tempfile::tempdir()?;
    let engine = ours::engine(cache.path())?;
    let plugin = ours::load(&engine, &wasm, InstanceMode::Fresh)?;
    ensure!(plugin.inspection().abi == Abi::Capability);
    let large = transform(&"x".repeat(1 << 20), json!(null));
    // The guest reads all of it, and has use for two members.
    let chat: Value = serde_json::from_slice(&payload::chat(100 << 10))?;
    let parsed = transform("x", chat);
    let small = transform("x", json!(null));
    let output: Value = serde_json::from_slice(&plugin.call("transform", &large)?)?;
    ensure!(output["result"] == "X".repeat(1 << 20), "not in upper case");
    let mut contest = Contest::default();
    contest.add("large", || Ok(plugin.call("transform", &large)?));
    contest.add("parsed", || Ok(plugin.call("transform", &parsed)?));
    let results = contest.run(args.rounds, args.turn() * 4)?;
    let mut cold = Loads::default();
    for _ in 0..args.rounds * 10 {
        cold.time(|| Ok(ours::load(&engine, &wasm, InstanceMode::Fresh)?.call("transform", &small)?))?;
    }
    let bytes = memory::tool(args, "transform-rust")?;
    let time = |id| Ok::<_, anyhow::Error>(Figure::Time(results.get(id)?));
    let within = |micros| asked(Duration::from_micros(micros));
    let line = |what: &str, ours, theirs| {
        row(&format!("capability convention, {what}"), ours, PROMISED, theirs, Some(1.0))
    };
    Ok(vec![
        line("1 MB of text in upper case", time("large")?, within(5_000)),
        line("100 KB of JSON parsed", time("parsed")?, within(300)),
        line("load from cache and call", cold.figure(), within(1_000)),
        line("resident memory per called plugin", Figure::Bytes(bytes), Figure::Bytes(5e6)),
    ])
}

fn transform(text: &str, besides: Value) -> Vec<u8> {
    json!({"text": text, "mode": "uppercase", "besides": besides}).to_string().into_bytes()
}

/// SMG's published world: a request that its sample of a key check lets through, in an instance of its own.
fn middleware(args: &Args, size: &str, bytes: usize, target: f64) -> Result<Vec<Row>> {
    let wasm = args.guest("smg-auth")?;
    let cache = tempfile::tempdir()?;
    let engine = ours::engine(cache.path())?;
    let fresh = ours::load(&engine, &wasm, InstanceMode::Fresh)?;
    let shared = ours::load(&engine, &wasm, InstanceMode::Shared)?;
    ensure!(fresh.inspection().abi == Abi::Component);
    let event = event(bytes);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let peer = Peer { runtime: WasmRuntime::with_default_config(), wasm: Arc::new(wasm), event: &event };
    let mut contest = Contest::default();
    contest.add("fresh", || runtime.block_on(ask(&fresh, &event)));
    contest.add("shared", || runtime.block_on(ask(&shared, &event)));
    contest.add("peer", || runtime.block_on(peer.ask()));
    let results = contest.run(args.rounds, args.turn())?;
    let figure = |id| Ok::<_, anyhow::Error>(Figure::Time(results.get(id)?));
    let line = |what: &str, id, target| {
        let name = format!("SMG's key check, {size}, {what}");
        Ok::<_, anyhow::Error>(row(&name, figure(id)?, SMG, figure("peer")?, target))
    };
    Ok(vec![line("fresh instance", "fresh", Some(target))?, line("shared instance", "shared", None)?])
}

fn event(bytes: usize) -> RequestEvent {
    let mut headers: Vec<_> = (0..15).map(|i| (format!("x-field-{i}"), format!("value {i}"))).collect();
    headers.push(("authorization".to_owned(), format!("Bearer {KEY}")));
    RequestEvent {
        method: "POST".to_owned(),
        host: "api.example".to_owned(),
        path: "/v1/chat/completions".to_owned(),
        query: None,
        client: "192.0.2.1:4711".to_owned(),
        headers: Headers(headers),
        body: Some(payload::plain(bytes).into()),
    }
}

async fn ask(plugin: &Plugin, event: &RequestEvent) -> Result<()> {
    let (attributes, config) = (Attributes::new(), Value::Null);
    let about = Circumstances {
        phase: Phase::PreFlight,
        body: BodyNeed::Whole,
        visit: "9f86d081884c7d65",
        session: "default",
        attributes: &attributes,
        config: &config,
    };
    let question = Question::<HttpRequest> { event, about, entry: None, deadline: None };
    let verdict = plugin.ask(&mut Held::default(), question).await?;
    ensure!(verdict.flow == Flow::Continue, "the key is not let through");
    Ok(())
}

/// The crate that SMG runs its middleware with, as it comes.
struct Peer<'a> {
    runtime: WasmRuntime,
    wasm: Arc<Vec<u8>>,
    event: &'a RequestEvent,
}

impl Peer<'_> {
    async fn ask(&self) -> Result<()> {
        let point = WasmModuleAttachPoint::Middleware(MiddlewareAttachPoint::OnRequest);
        let input = WasmComponentInput::MiddlewareRequest(self.request()?);
        // The hash is the key of its cache and nothing else.
        let output = self.runtime.execute_component_async([1; 32], self.wasm.clone(), point, input).await;
        match output.map_err(|error| anyhow::anyhow!("{error}"))? {
            WasmComponentOutput::MiddlewareAction(Action::Continue) => Ok(()),
            WasmComponentOutput::MiddlewareAction(other) => bail!("the key is not let through: {other:?}"),
        }
    }

    /// What its gateway makes of each request.
    fn request(&self) -> Result<Request> {
        let event = self.event;
        let field = |(name, value): &(String, String)| Header { name: name.clone(), value: value.clone() };
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
        Ok(Request {
            method: event.method.clone(),
            path: event.path.clone(),
            query: event.query.clone().unwrap_or_default(),
            headers: event.headers.0.iter().map(field).collect(),
            body: event.body.as_deref().context("a body")?.to_vec(),
            request_id: "9f86d081884c7d65".to_owned(),
            now_epoch_ms: u64::try_from(now.as_millis())?,
        })
    }
}
