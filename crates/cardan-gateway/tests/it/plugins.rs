//! Plugins whose verdicts a test writes down.

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use cardan::{Engine, EngineConfig, HttpClient, HttpExchange, HttpFailure, HttpReply};
use cardan_api::grants::HttpScope;
use cardan_api::{BodyNeed, FaultPolicy, Grants, NamedHook};
use cardan_manager::{BindingSpec, Bindings, Manager, PluginSpec};
use serde_json::Value;

use crate::house::PATIENCE;

pub(crate) const REQUEST: &str = "http.request";
pub(crate) const RESPONSE: &str = "http.response";
pub(crate) const COMPLETE: &str = "http.complete";

/// A plugin bound once.
pub(crate) fn plugin(name: &str, module: &str, hook: &str) -> PluginSpec {
    let file = tempfile(name, module);
    let mut binding = BindingSpec::at(NamedHook::find(hook).unwrap());
    binding.on_fault = FaultPolicy::Refuse;
    PluginSpec {
        version: "1".to_owned(),
        grants: Grants { http: Some(HttpScope::hosts(["recorder".to_owned()])), ..Grants::default() },
        bindings: Bindings::Listed(vec![binding]),
        ..PluginSpec::new(name, file)
    }
}

/// A plugin that always says the same.
pub(crate) fn says(name: &str, hook: &str, verdict: &Value) -> PluginSpec {
    plugin(name, &module(hook, &verdict.to_string(), ""), hook)
}

/// A plugin that hands the documents it sees to [`seen`] and goes on.
pub(crate) fn watches(name: &str, hook: &str) -> PluginSpec {
    let tell =
        r#"(drop (call $http_request (call $put (i32.const 65536) (i32.const 51)) (call $input_offset)))"#;
    plugin(name, &module(hook, r#"{"verdict":"continue"}"#, tell), hook)
}

/// A plugin that traps.
pub(crate) fn traps(name: &str, hook: &str) -> PluginSpec {
    plugin(name, &module(hook, "", "(unreachable)"), hook)
}

/// A plugin that never comes back.
pub(crate) fn spins(name: &str, hook: &str) -> PluginSpec {
    plugin(name, &module(hook, "", "(loop $for_ever (br $for_ever))"), hook)
}

/// A prebuilt guest.
pub(crate) fn prebuilt(name: &str, hooks: &[&str]) -> PluginSpec {
    let mut spec = plugin(name, "", REQUEST);
    spec.source =
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("../../guests/prebuilt/{name}.wasm"));
    let bindings = hooks.iter().map(|hook| BindingSpec::at(NamedHook::find(hook).unwrap())).collect();
    spec.bindings = Bindings::Listed(bindings);
    spec
}

pub(crate) fn on_fault(mut spec: PluginSpec, policy: FaultPolicy) -> PluginSpec {
    binding(&mut spec).on_fault = policy;
    spec
}

pub(crate) fn head_only(mut spec: PluginSpec) -> PluginSpec {
    binding(&mut spec).body = BodyNeed::None;
    spec
}

fn binding(spec: &mut PluginSpec) -> &mut BindingSpec {
    match &mut spec.bindings {
        Bindings::Listed(bindings) => &mut bindings[0],
        Bindings::Exported => panic!("no binding"),
    }
}

/// A manager without plugins, on the engine of all tests.
pub(crate) fn manager() -> Manager {
    static ENGINE: OnceLock<Engine> = OnceLock::new();
    let engine = ENGINE.get_or_init(|| {
        let http: Arc<dyn HttpClient> = Arc::new(Recorder);
        Engine::new(EngineConfig { pool_instances: Some(64), http: Some(http), ..EngineConfig::default() })
            .unwrap()
    });
    static SEED: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    Manager::new(engine.clone(), SEED.fetch_add(1 << 32, std::sync::atomic::Ordering::Relaxed))
}

/// What plugins that watch were shown in this visit, waiting for at least one document.
pub(crate) async fn seen(visit: &str) -> Vec<Value> {
    let until = Instant::now() + PATIENCE;
    loop {
        let seen: Vec<Value> = {
            let documents = DOCUMENTS.lock().unwrap();
            documents.iter().filter(|document| document["visit"]["id"] == visit).cloned().collect()
        };
        if !seen.is_empty() {
            return seen;
        }
        assert!(Instant::now() < until, "nobody saw the visit {visit}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// What was shown at `http.complete` in some visit on this path.
pub(crate) async fn completed(path: &str) -> Value {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = find_completed(path) {
            return found;
        }
        assert!(Instant::now() < until, "http.complete was not asked about {path}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Whether `http.complete` has been asked about some visit on this path.
pub(crate) fn was_completed(path: &str) -> bool {
    find_completed(path).is_some()
}

fn find_completed(path: &str) -> Option<Value> {
    let documents = DOCUMENTS.lock().unwrap();
    let of_path = |document: &&Value| document["hook"] == COMPLETE && document["request"]["path"] == path;
    documents.iter().find(of_path).cloned()
}

static DOCUMENTS: Mutex<Vec<Value>> = Mutex::new(Vec::new());

struct Recorder;

impl HttpClient for Recorder {
    fn send(
        &self,
        request: HttpExchange,
    ) -> Pin<Box<dyn Future<Output = Result<HttpReply, HttpFailure>> + Send>> {
        let document = serde_json::from_slice(&request.body.unwrap_or_default()).unwrap();
        DOCUMENTS.lock().unwrap().push(document);
        Box::pin(async { Ok(HttpReply { status: 200, headers: Vec::new(), body: Vec::new() }) })
    }
}

/// A module that does `first` and then gives this output.
fn module(hook: &str, output: &str, first: &str) -> String {
    let export = hook.replace('.', "_");
    let escaped: String = output.bytes().map(|byte| format!("\\{byte:02x}")).collect();
    let length = output.len();
    format!(
        r#"(module
  (import "extism:host/env" "alloc" (func $alloc (param i64) (result i64)))
  (import "extism:host/env" "store_u8" (func $store_u8 (param i64 i32)))
  (import "extism:host/env" "output_set" (func $output_set (param i64 i64)))
  (import "extism:host/env" "input_offset" (func $input_offset (result i64)))
  (import "extism:host/env" "http_request" (func $http_request (param i64 i64) (result i64)))
  (memory 3)
  (data (i32.const 0) "{escaped}")
  (data (i32.const 65536) "{{\"method\":\"POST\",\"url\":\"http://recorder/documents\"}}")
  (func $put (param $from i32) (param $size i32) (result i64)
    (local $block i64) (local $i i32)
    (local.set $block (call $alloc (i64.extend_i32_u (local.get $size))))
    (block $done
      (loop $next
        (br_if $done (i32.ge_u (local.get $i) (local.get $size)))
        (call $store_u8
          (i64.add (local.get $block) (i64.extend_i32_u (local.get $i)))
          (i32.load8_u (i32.add (local.get $from) (local.get $i))))
        (local.set $i (i32.add (local.get $i) (i32.const 1)))
        (br $next)))
    (local.get $block))
  (func (export "{export}") (result i32)
    {first}
    (call $output_set (call $put (i32.const 0) (i32.const {length})) (i64.const {length}))
    (i32.const 0)))"#
    )
}

/// Modules live as long as the test process.
fn tempfile(name: &str, module: &str) -> PathBuf {
    static FOLDER: OnceLock<tempfile::TempDir> = OnceLock::new();
    static COUNT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    let count = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let folder = FOLDER.get_or_init(|| tempfile::tempdir().unwrap());
    let path = folder.path().join(format!("{count}-{name}.wat"));
    std::fs::write(&path, module).unwrap();
    path
}
