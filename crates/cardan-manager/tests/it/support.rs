//! What the tests share: an engine, events, and the short way from YAML to a verdict.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use bytes::Bytes;
use cardan::{Engine, EngineConfig};
use cardan_api::http::{
    CompleteEvent, Headers, HttpAnswer, HttpComplete, HttpRequest, HttpResponse, Origin, RequestEvent,
    ResponseEvent,
};
use cardan_api::manifest::{PluginEntry, llmproxy};
use cardan_api::{Hook, Phase};
use cardan_manager::{
    Cause, Consulted, Manager, Outcome, PluginSpec, Progress, Visit, Warning, resolve_entry, resolve_llmproxy,
};
use serde_json::Value;

/// One engine for all tests, with a cache: most of them load the same few modules.
pub(crate) fn engine() -> Engine {
    static ENGINE: OnceLock<Engine> = OnceLock::new();
    let cache_dir = Some(concat!(env!("CARGO_TARGET_TMPDIR"), "/compiled").into());
    let make = || Engine::new(EngineConfig { cache_dir, ..EngineConfig::default() }).unwrap();
    ENGINE.get_or_init(make).clone()
}

/// The folder of guests; sources in the tests' YAML are relative to it.
pub(crate) fn guests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../guests")
}

/// List items that were indented like the code around them, as YAML wants them.
fn outdented(yaml: &str) -> String {
    yaml.lines()
        .map(|line| {
            format!("{}\n", if line.trim_start().starts_with("- ") { line.trim_start() } else { line })
        })
        .collect()
}

/// Specs of the entries under `plugins` of a `cardan.yaml`.
pub(crate) fn specs(yaml: &str) -> Vec<PluginSpec> {
    let entries: Vec<PluginEntry> = serde_saphyr::from_str(&outdented(yaml)).unwrap();
    entries.iter().map(|entry| resolve_entry(entry, &guests()).unwrap().0).collect()
}

/// Specs of an LLMProxy manifest whose plugins folder is `guests/prebuilt`, and what was warned of.
pub(crate) fn ring_specs(yaml: &str) -> (Vec<PluginSpec>, Vec<Warning>) {
    let manifest: llmproxy::Document = serde_saphyr::from_str(&outdented(yaml)).unwrap();
    let (mut specs, mut warnings) = (Vec::new(), Vec::new());
    for entry in manifest.into_entries() {
        let (spec, warned) = resolve_llmproxy(&entry, &guests().join("prebuilt")).unwrap();
        specs.extend(spec);
        warnings.extend(warned);
    }
    (specs, warnings)
}

pub(crate) fn manager_of(specs: &[PluginSpec]) -> Manager {
    let manager = Manager::new(engine(), 7);
    manager.apply(specs).unwrap();
    manager
}

pub(crate) fn manager(yaml: &str) -> Manager {
    manager_of(&specs(yaml))
}

/// A chat request with this body.
pub(crate) fn request(body: &str) -> RequestEvent {
    RequestEvent {
        method: "POST".to_owned(),
        host: "api.example".to_owned(),
        path: "/v1/chat/completions".to_owned(),
        query: None,
        client: "192.0.2.1:4711".to_owned(),
        headers: Headers(vec![("content-type".to_owned(), "application/json".to_owned())]),
        body: Some(Bytes::copy_from_slice(body.as_bytes())),
    }
}

pub(crate) fn response(request: RequestEvent, body: &str) -> ResponseEvent {
    ResponseEvent {
        request,
        status: 200,
        headers: Headers(vec![("content-type".to_owned(), "application/json".to_owned())]),
        body: Some(Bytes::copy_from_slice(body.as_bytes())),
        streamed: false,
        origin: Origin::Upstream,
    }
}

pub(crate) fn complete(request: RequestEvent) -> CompleteEvent {
    CompleteEvent { request, status: Some(200), sent_bytes: 12, duration_ms: 34, aborted: false }
}

/// Asks a hook's whole chain. The event is expected to show its body already.
pub(crate) async fn ask<H: Consulted>(visit: &mut Visit, event: &mut H::Event) -> Progress<H> {
    let mut chain = visit.chain::<H>(event);
    visit.ask(&mut chain, event).await
}

pub(crate) async fn ask_request(visit: &mut Visit, event: &mut RequestEvent) -> Progress<HttpRequest> {
    ask::<HttpRequest>(visit, event).await
}

pub(crate) async fn ask_response(visit: &mut Visit, event: &mut ResponseEvent) -> Progress<HttpResponse> {
    ask::<HttpResponse>(visit, event).await
}

pub(crate) async fn ask_complete(visit: &mut Visit, event: &mut CompleteEvent) -> Progress<HttpComplete> {
    ask::<HttpComplete>(visit, event).await
}

/// What became of a chain, in a line: `done`, `needs body`, `fault: trap`, `refuse 403 kind: message` or
/// `respond 200: body`.
pub(crate) fn told<H: Hook<Answer = HttpAnswer>>(progress: &Progress<H>) -> String {
    let stop = match progress {
        Progress::Done => return "done".to_owned(),
        Progress::NeedsBody => return "needs body".to_owned(),
        Progress::Stopped(stop) => stop,
    };
    match &stop.cause {
        Cause::Fault(fault) => format!("fault: {fault}"),
        Cause::Answer(HttpAnswer::Refuse(refusal)) => {
            let status = refusal.status.unwrap_or(stop.phase.refusal_status());
            format!("refuse {status} {}: {}", refusal.kind, refusal.message)
        }
        Cause::Answer(HttpAnswer::Respond(response)) => {
            format!("respond {}: {}", response.status, String::from_utf8_lossy(&response.body))
        }
    }
}

/// The plugins that were asked, with what came of it: `name`, `name!` for a stop, `name?trap` for a fault
/// that was skipped, `name!trap` for one that was not.
pub(crate) fn walked(visit: &Visit) -> String {
    let decisions = visit.decisions().iter().map(|decision| {
        let name = &decision.plugin;
        match decision.outcome {
            Outcome::Continued => name.to_string(),
            Outcome::Stopped => format!("{name}!"),
            Outcome::Skipped(fault) => format!("{name}?{fault}"),
            Outcome::Refused(fault) => format!("{name}!{fault}"),
            Outcome::FellBack(fault) => format!("{name}~{fault}"),
        }
    });
    decisions.collect::<Vec<_>>().join(" ")
}

pub(crate) fn json(body: Option<&Bytes>) -> Value {
    serde_json::from_slice(body.unwrap()).unwrap()
}

/// One LLMProxy plugin, the zoo, with this configuration in this ring.
pub(crate) fn zoo(ring: Phase, config: &str) -> Vec<PluginSpec> {
    let yaml = format!(
        "- {{name: zoo, hook: {ring}, type: wasm, entrypoint: llmproxy-zoo, timeout_ms: 2000, config: {config}}}"
    );
    ring_specs(&yaml).0
}

/// A module whose hooks all answer with these bytes, as text.
pub(crate) fn answering(document: &str) -> String {
    let quoted: String = document.bytes().map(|byte| format!("\\{byte:02x}")).collect();
    let length = document.len();
    format!(
        r#"(module
          (import "extism:host/env" "alloc" (func $alloc (param i64) (result i64)))
          (import "extism:host/env" "store_u8" (func $store_u8 (param i64 i32)))
          (import "extism:host/env" "output_set" (func $output_set (param i64 i64)))
          (memory 64)
          (data (i32.const 0) "{quoted}")
          (func (export "http_request") (export "http_response") (export "http_complete") (result i32)
            (local $block i64) (local $i i32)
            (local.set $block (call $alloc (i64.const {length})))
            (block $end (loop $next
              (br_if $end (i32.ge_u (local.get $i) (i32.const {length})))
              (call $store_u8 (i64.add (local.get $block) (i64.extend_i32_u (local.get $i)))
                (i32.load8_u (local.get $i)))
              (local.set $i (i32.add (local.get $i) (i32.const 1)))
              (br $next)))
            (call $output_set (local.get $block) (i64.const {length}))
            (i32.const 0)))"#
    )
}
