//! Replacing what runs: all or nothing, and nobody notices.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use cardan_api::http::HttpRequest;
use cardan_manager::{Applied, Manager, PluginSpec};
use serde_json::json;

use crate::support::{answering, ask_request, engine, json, manager_of, request, specs, told, walked};

/// A counter by name, at `http.request` with this priority.
fn counter(name: &str, priority: i32) -> PluginSpec {
    let spec = specs(&format!(
        "- {{name: {name}, source: prebuilt/llmproxy-zoo.wasm, config: {{behave: count}}, limits: {{deadline: 5s}}, \
            bindings: [{{hook: http.request, priority: {priority}}}]}}"
    ));
    spec.into_iter().next().unwrap()
}

/// A plugin whose file is in `dir` and that stamps requests with its version, in the header `x-NAME`.
fn stamp(dir: &Path, name: &str, version: usize) -> PluginSpec {
    let source = dir.join(format!("{name}.wat"));
    let field = format!("x-{name}");
    let verdict = json!({"verdict": "continue", "edits": {"headers": {field: version.to_string()}}});
    // Replaced in one step, as a careful deployment does it.
    let fresh = dir.join(format!("{name}.new"));
    std::fs::write(&fresh, answering(&verdict.to_string())).unwrap();
    std::fs::rename(fresh, &source).unwrap();
    specs(&format!("- {{name: {name}, source: {}, limits: {{deadline: 10s}}}}", source.display())).remove(0)
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

async fn vars_count(manager: &Manager) -> serde_json::Value {
    let mut event = request("{}");
    assert_eq!(told(&ask_request(&mut manager.open(None), &mut event).await), "done");
    json(event.body.as_ref())["count"]["vars"].clone()
}

#[tokio::test]
async fn what_did_not_change_is_kept_with_its_variables() {
    let manager = manager_of(&[counter("a", 1)]);
    assert_eq!(vars_count(&manager).await, 1);
    let applied = manager.apply(&[counter("b", 9), counter("a", 5)]).unwrap();
    assert_eq!(
        applied,
        Applied { generation: 2, loaded: names(&["b"]), kept: names(&["a"]), dropped: names(&[]) }
    );
    let mut visit = manager.open(None);
    let mut event = request("{}");
    ask_request(&mut visit, &mut event).await;
    assert_eq!(walked(&visit), "a b", "another priority took effect without a reload");
    let applied = manager.apply(&[counter("a", 5)]).unwrap();
    assert_eq!((applied.kept, applied.dropped), (names(&["a"]), names(&["b"])));
    assert_eq!(vars_count(&manager).await, 3, "a counts on");
    let mut other = counter("a", 5);
    other.config["text"] = json!("different");
    assert_eq!(manager.apply(&[other]).unwrap().loaded, names(&["a"]));
    assert_eq!(vars_count(&manager).await, 1, "another configuration is another plugin");
}

#[tokio::test]
async fn a_changed_file_is_loaded_again() {
    let dir = tempfile::tempdir().unwrap();
    let manager = manager_of(&[stamp(dir.path(), "s", 1)]);
    let seen = async |manager: &Manager| {
        let mut event = request("{}");
        ask_request(&mut manager.open(None), &mut event).await;
        event.headers.get("x-s").map(str::to_owned)
    };
    assert_eq!(seen(&manager).await.as_deref(), Some("1"));
    let same = stamp(dir.path(), "s", 1);
    assert_eq!(manager.apply(&[same]).unwrap().kept, names(&["s"]), "written anew with the same content");
    let changed = stamp(dir.path(), "s", 2);
    assert_eq!(seen(&manager).await.as_deref(), Some("1"), "nothing happens by itself");
    assert_eq!(manager.apply(&[changed]).unwrap().loaded, names(&["s"]));
    assert_eq!(seen(&manager).await.as_deref(), Some("2"));
}

#[tokio::test]
async fn all_or_nothing_and_everything_that_is_wrong() {
    let manager = manager_of(&[counter("a", 1)]);
    let mut wrong = specs(
        "- {name: gone, source: prebuilt/gone.wasm}
         - {name: garbage, source: README.md}
         - {name: no-hook, source: prebuilt/echo.wasm}
         - {name: no-export, source: prebuilt/api-key.wasm, bindings: [{hook: http.response}]}
         - {name: no-entry, source: prebuilt/api-key.wasm, bindings: [{hook: http.request, entry: nope}]}
         - {name: no-dialect, source: prebuilt/echo.wasm, bindings: [{hook: http.request, entry: echo}]}
         - {name: hostile, source: hostile/start_traps.wat}",
    );
    wrong.push(counter("a", 1));
    wrong.push(counter("a", 2));
    let error = manager.apply(&wrong).unwrap_err();
    let prefixes = [
        "plugin gone: ",
        "plugin garbage: ",
        "plugin no-hook: it has no export that any hook could be asked at; its exports are ",
        "plugin no-export: it has no export that answers http.response; its exports are ",
        "plugin no-entry: it has no export that answers nope; its exports are ",
        "plugin no-dialect: its exports are of no known dialect; name one with `dialect`",
        "plugin hostile: ",
        "plugin a: there are two of this name; rename one",
    ];
    assert_eq!(error.0.len(), prefixes.len(), "{error}");
    for (line, prefix) in error.0.iter().zip(prefixes) {
        assert!(line.starts_with(prefix), "{line}\nis not\n{prefix}");
    }
    assert_eq!(manager.snapshot().generation(), 1);
    assert_eq!(vars_count(&manager).await, 1, "what ran before still runs");
}

#[tokio::test]
async fn a_dropped_plugin_goes_with_its_last_visit() {
    let manager = manager_of(&[counter("a", 1)]);
    let snapshot = Arc::downgrade(&manager.snapshot());
    let mut visit = manager.open(None);
    manager.apply(&[]).unwrap();
    assert!(snapshot.upgrade().is_some(), "pinned by the visit");
    assert_eq!(visit.generation(), 1);
    assert_eq!(told(&ask_request(&mut visit, &mut request("{}")).await), "done");
    assert_eq!(walked(&visit), "a", "a visit sees its snapshot to the end");
    assert!(manager.open(None).chain::<HttpRequest>(&request("{}")).is_done());
    drop(visit);
    assert!(snapshot.upgrade().is_none());
}

#[tokio::test]
async fn ids_are_unique_and_sixteen_digits() {
    let managers = [1, 2].map(|seed| Manager::new(engine(), seed << 32));
    let ids: HashSet<String> = (0..10_000).map(|i| managers[i % 2].open(None).id().to_owned()).collect();
    assert_eq!(ids.len(), 10_000);
    assert!(ids.iter().all(|id| id.len() == 16 && id.bytes().all(|byte| byte.is_ascii_hexdigit())));
}

/// Two plugins, always of one version, replaced twenty times while at least 200 visits are open: none
/// fails, and none sees a mixture, between plugins or between its two questions.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replaced_under_load() {
    const VISITS: usize = 240;
    const SWAPS: usize = 20;
    let dir = tempfile::tempdir().unwrap();
    let deployment = |version| [stamp(dir.path(), "one", version), stamp(dir.path(), "two", version)];
    let manager = manager_of(&deployment(0));
    let over = Arc::new(AtomicBool::new(false));
    let open = Arc::new(AtomicUsize::new(0));
    let clients = (0..VISITS).map(|i| {
        let (manager, over, open) = (manager.clone(), over.clone(), open.clone());
        tokio::spawn(async move {
            let mut seen = HashSet::new();
            while !over.load(Ordering::Relaxed) {
                let mut visit = manager.open(None);
                open.fetch_add(1, Ordering::Relaxed);
                let mut versions = Vec::new();
                for _ in 0..2 {
                    let mut event = request("{}");
                    assert_eq!(told(&ask_request(&mut visit, &mut event).await), "done");
                    let version = |name| event.headers.get(name).unwrap().to_owned();
                    versions.extend([version("x-one"), version("x-two")]);
                    tokio::time::sleep(Duration::from_millis(1 + i as u64 % 7)).await;
                }
                open.fetch_sub(1, Ordering::Relaxed);
                assert!(versions.iter().all(|version| *version == versions[0]), "{versions:?}");
                seen.insert(versions.swap_remove(0));
            }
            seen
        })
    });
    let clients: Vec<_> = clients.collect();
    let mut most = 0;
    for version in 1..=SWAPS {
        let (manager, specs) = (manager.clone(), deployment(version));
        let applied = tokio::task::spawn_blocking(move || manager.apply(&specs)).await.unwrap().unwrap();
        assert_eq!(applied.loaded, names(&["one", "two"]));
        most = most.max(open.load(Ordering::Relaxed));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    over.store(true, Ordering::Relaxed);
    let mut seen = HashSet::new();
    for client in clients {
        seen.extend(client.await.unwrap());
    }
    assert!(most >= 200, "{most} visits were open at once");
    assert!(seen.len() > SWAPS / 2, "visits saw {} of {SWAPS} versions", seen.len());
    assert_eq!(manager.snapshot().generation(), SWAPS as u64 + 1);
}
