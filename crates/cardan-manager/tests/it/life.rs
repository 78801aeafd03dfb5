//! The life of one plugin while the others run: versions, canaries, standing, restarts.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use cardan_api::http::HttpRequest;
use cardan_manager::{
    CanaryPlan, ControlError, EventKind, FolderWatch, HealthPolicy, Manager, Owner, PluginSpec, Reason, Scan,
    State, StateDir, Visit,
};
use serde_json::json;

use crate::support::{answering, ask_request, engine, request, specs, told, walked};

/// Replaces a plugin's file in one step.
fn write(file: &Path, module: &str) {
    let fresh = file.with_extension("fresh");
    std::fs::write(&fresh, module).unwrap();
    std::fs::rename(fresh, file).unwrap();
}

/// A module that stamps requests with a version, in the header `x-stamp`.
fn stamping(version: &str) -> String {
    answering(&json!({"verdict": "continue", "edits": {"headers": {"x-stamp": version}}}).to_string())
}

const TRAPS: &str = r#"(module (func (export "http_request") (result i32) unreachable))"#;

fn spec(name: &str, file: &Path) -> PluginSpec {
    let yaml = format!(
        "- {{name: {name}, source: {}, limits: {{deadline: 10s, start_deadline: 500ms}}, \
            bindings: [{{hook: http.request, on_fault: refuse}}]}}",
        file.display()
    );
    specs(&yaml).remove(0)
}

fn by_operator(name: &str, file: &Path) -> PluginSpec {
    PluginSpec { owner: Owner::Operator, ..spec(name, file) }
}

/// What one visit is stamped with, or what became of it.
async fn stamped(manager: &Manager) -> String {
    let mut visit = manager.open(None);
    let mut event = request("{}");
    match told(&ask_request(&mut visit, &mut event).await) {
        done if done == "done" => event.headers.get("x-stamp").unwrap_or("nothing").to_owned(),
        other => other,
    }
}

struct Rig {
    dir: tempfile::TempDir,
    manager: Manager,
}

impl Rig {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), manager: Manager::new(engine(), 11) }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

#[tokio::test]
async fn versions_go_forward_and_back() {
    let rig = Rig::new();
    let (manager, file) = (&rig.manager, rig.file("s.wat"));
    write(&file, &stamping("one"));
    assert_eq!(manager.install(&by_operator("s", &file)).unwrap().version, 1);
    assert!(matches!(manager.install(&by_operator("s", &file)), Err(ControlError::Conflict(_))));
    assert!(!manager.reload("s").unwrap().changed, "the file is as it was");
    write(&file, &stamping("two"));
    assert_eq!(stamped(manager).await, "one", "nothing happens by itself");
    assert_eq!(manager.reload("s").unwrap().version, 2);
    assert_eq!(stamped(manager).await, "two");

    write(&file, "(module (func");
    let error = manager.reload("s").unwrap_err();
    assert!(matches!(&error, ControlError::Refused(why) if why.starts_with("plugin s: ")), "{error}");
    assert_eq!(stamped(manager).await, "two", "last good stays");
    assert!(manager.plugin("s").unwrap().trouble.is_some());
    // One that does not return from being loaded.
    write(&file, r#"(module (func (export "plugin_load") (loop (br 0))) (func (export "http_request")))"#);
    let error = manager.reload("s").unwrap_err().to_string();
    assert!(error.contains("timeout"), "{error}");
    assert_eq!(stamped(manager).await, "two", "last good stays");

    write(&file, &stamping("three"));
    assert_eq!(manager.reload("s").unwrap().version, 3);
    assert_eq!(manager.plugin("s").unwrap().trouble, None);
    assert_eq!(manager.rollback("s", None).unwrap().version, 2);
    assert_eq!(stamped(manager).await, "two");
    assert!(!manager.replace(&by_operator("s", &file)).unwrap().changed, "declined until the file changes");
    assert_eq!(manager.rollback("s", Some(1)).unwrap().version, 1);
    assert_eq!(manager.rollback("s", Some(3)).unwrap().version, 3, "and forward again");
    let error = manager.rollback("s", Some(9)).unwrap_err().to_string();
    assert_eq!(error, "plugin s: it has no version 9 to go back to; there are 1, 2");
    write(&file, &stamping("four"));
    assert_eq!(manager.reload("s").unwrap().version, 4, "numbers never go back");

    manager.disable("s").unwrap();
    assert_eq!(stamped(manager).await, "nothing");
    assert_eq!(manager.plugin("s").unwrap().state, State::Disabled);
    manager.enable("s").unwrap();
    assert_eq!(stamped(manager).await, "four");
    manager.remove("s").unwrap();
    assert_eq!(stamped(manager).await, "nothing");
    for missing in [manager.reload("s").map(drop), manager.remove("s"), manager.disable("s").map(drop)] {
        assert_eq!(missing.unwrap_err(), ControlError::NotFound("there is no plugin \"s\"".to_owned()));
    }
    let reasons: Vec<Reason> =
        manager.ledger().events_after(0).iter().filter_map(|event| reason(&event.kind)).collect();
    use Reason::{Load, Reload, Rollback};
    assert_eq!(reasons, [Load, Reload, Reload, Rollback, Rollback, Rollback, Reload]);
}

fn reason(kind: &EventKind) -> Option<Reason> {
    match kind {
        EventKind::Activated { reason, .. } => Some(*reason),
        _ => None,
    }
}

#[tokio::test]
async fn who_put_it_there_decides() {
    let rig = Rig::new();
    let (manager, file) = (&rig.manager, rig.file("s.wat"));
    write(&file, &stamping("one"));
    manager.install(&by_operator("mine", &file)).unwrap();
    manager.apply(&[spec("filed", &file)]).unwrap();
    assert_eq!(manager.plugins().len(), 2, "a deployment leaves what an operator loaded");
    let why = manager.remove("filed").unwrap_err().to_string();
    assert_eq!(
        why,
        "plugin filed: a configuration file names it; take it out there and reload, or disable it"
    );
    let why = manager.apply(&[spec("mine", &file)]).unwrap_err().to_string();
    assert_eq!(why, "plugin mine: it was loaded through the admin API already; rename one");
    manager.disable("filed").unwrap();
    manager.apply(&[spec("filed", &file)]).unwrap();
    assert_eq!(manager.plugin("filed").unwrap().state, State::Disabled, "a reload switches nothing on");
    assert_eq!(manager.apply(&[]).unwrap().dropped, ["filed"]);
}

#[tokio::test]
async fn a_canary_is_asked_by_its_share_and_one_visit_sees_one_version() {
    let rig = Rig::new();
    let (manager, file) = (&rig.manager, rig.file("s.wat"));
    write(&file, &stamping("old"));
    manager.install(&by_operator("s", &file)).unwrap();
    let plan = CanaryPlan { share: 3_000, ..CanaryPlan::default() };
    let why = manager.start_canary("s", plan).unwrap_err().to_string();
    assert_eq!(why, "plugin s: its file holds what is active; replace the file first");
    write(&file, &stamping("new"));
    assert_eq!(manager.start_canary("s", plan).unwrap().version, 2);
    let mut new = 0;
    for _ in 0..1_000 {
        let mut visit = manager.open(None);
        let mut seen = Vec::new();
        for _ in 0..2 {
            let mut event = request("{}");
            ask_request(&mut visit, &mut event).await;
            seen.push(event.headers.get("x-stamp").unwrap().to_owned());
        }
        assert_eq!(seen[0], seen[1]);
        new += usize::from(seen[0] == "new");
    }
    assert!((230..370).contains(&new), "{new} of 1000 visits asked a canary of 30 percent");
    let canary = manager.plugin("s").unwrap().canary.unwrap();
    assert_eq!((canary.calls as usize, canary.faults, canary.stopped), (2 * new, 0, false));
    assert_eq!(manager.promote_canary("s").unwrap().version, 2);
    assert_eq!(stamped(manager).await, "new");
    assert!(manager.plugin("s").unwrap().canary.is_none());
    assert_eq!(manager.rollback("s", None).unwrap().version, 1);
    for number in 3..5 {
        write(&file, &stamping(&number.to_string()));
        assert_eq!(manager.start_canary("s", plan).unwrap().version, number, "numbers never go back");
        manager.stop_canary("s").unwrap();
    }
}

#[tokio::test]
async fn a_canary_that_fails_harms_no_visit_and_goes() {
    let rig = Rig::new();
    let (manager, file) = (&rig.manager, rig.file("s.wat"));
    write(&file, &stamping("old"));
    manager.install(&by_operator("s", &file)).unwrap();
    write(&file, TRAPS);
    manager.start_canary("s", CanaryPlan { share: 10_000, ..CanaryPlan::default() }).unwrap();
    let mut walks = Vec::new();
    for _ in 0..6 {
        let mut visit = manager.open(None);
        let mut event = request("{}");
        assert_eq!(told(&ask_request(&mut visit, &mut event).await), "done");
        assert_eq!(event.headers.get("x-stamp"), Some("old"), "the active version stood in");
        walks.push(walked(&visit));
    }
    assert_eq!(walks, ["s~trap s", "s~trap s", "s~trap s", "s", "s", "s"], "three were enough");
    let events = manager.ledger().events_after(0);
    let stopped = events.iter().filter(|event| matches!(event.kind, EventKind::CanaryStopped { .. })).count();
    assert_eq!(stopped, 1);
    let supervised = tokio::spawn(manager.clone().supervise());
    while manager.plugin("s").unwrap().canary.is_some() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    supervised.abort();
    assert!(!manager.replace(&by_operator("s", &file)).unwrap().changed, "the failed file is declined");
    assert_eq!(stamped(manager).await, "old");
}

#[tokio::test]
async fn a_canary_that_does_well_is_promoted() {
    let rig = Rig::new();
    let (manager, file) = (&rig.manager, rig.file("s.wat"));
    write(&file, &stamping("old"));
    manager.install(&by_operator("s", &file)).unwrap();
    write(&file, &stamping("new"));
    let promote_after = Some(Duration::from_millis(50));
    let plan = CanaryPlan { share: 5_000, calls_min: 5, promote_after, ..CanaryPlan::default() };
    manager.start_canary("s", plan).unwrap();
    let supervised = tokio::spawn(manager.clone().supervise());
    while manager.plugin("s").unwrap().active.number == 1 {
        assert!(["old", "new"].contains(&&*stamped(manager).await));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    supervised.abort();
    assert_eq!(stamped(manager).await, "new");
}

#[tokio::test]
async fn quarantine_stays_closed_half_opens_and_can_be_ended() {
    let rig = Rig::new();
    let (manager, file) = (&rig.manager, rig.file("s.wat"));
    write(&file, TRAPS);
    let health = HealthPolicy { faults_max: 3, backoff: Duration::from_millis(300) };
    manager.install(&PluginSpec { health, ..by_operator("s", &file) }).unwrap();
    for _ in 0..3 {
        assert_eq!(stamped(manager).await, "fault: trap");
    }
    assert_eq!(stamped(manager).await, "fault: quarantined", "a gate that fails does not stand open");
    let State::Quarantined { faults, until_ms } = manager.plugin("s").unwrap().state else { panic!() };
    assert_eq!(faults, 3);
    assert!(until_ms > 1_700_000_000_000, "a time of day");
    tokio::time::sleep(Duration::from_millis(310)).await;
    assert_eq!(stamped(manager).await, "fault: trap", "one visit tries it");
    assert_eq!(stamped(manager).await, "fault: quarantined");
    assert!(manager.release("s").unwrap() && !manager.release("s").unwrap());
    assert_eq!(stamped(manager).await, "fault: trap");
    assert_eq!(manager.plugin("s").unwrap().state, State::Running);
    write(&file, &stamping("mended"));
    manager.reload("s").unwrap();
    assert_eq!(stamped(manager).await, "mended", "another version has a standing of its own");
    let counts = &manager.plugin("s").unwrap().earlier[0].counts[0];
    assert_eq!((counts.calls, counts.refused), (7, 7));
    assert_eq!(format!("{:?}", counts.faults), "[(Trap, 5), (Quarantined, 2)]");
}

/// A plugin that stamps requests with `ticked` once it was asked twice at `plugin.tick`.
fn ticking() -> String {
    let [before, after] =
        [r#"{"verdict":"continue"}"#, r#"{"verdict":"continue","edits":{"headers":{"x-stamp":"ticked"}}}"#];
    let quoted = |text: &str| text.bytes().map(|byte| format!("\\{byte:02x}")).collect::<String>();
    format!(
        r#"(module
          (import "extism:host/env" "alloc" (func $alloc (param i64) (result i64)))
          (import "extism:host/env" "store_u8" (func $store_u8 (param i64 i32)))
          (import "extism:host/env" "output_set" (func $output_set (param i64 i64)))
          (memory 1)
          (global $ticks (mut i32) (i32.const 0))
          (data (i32.const 0) "{}") (data (i32.const 4096) "{}")
          (func $say (param $from i32) (param $length i32)
            (local $block i64) (local $i i32)
            (local.set $block (call $alloc (i64.extend_i32_u (local.get $length))))
            (loop $next
              (call $store_u8 (i64.add (local.get $block) (i64.extend_i32_u (local.get $i)))
                (i32.load8_u (i32.add (local.get $from) (local.get $i))))
              (br_if $next (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (local.get $length))))
            (call $output_set (local.get $block) (i64.extend_i32_u (local.get $length))))
          (func (export "plugin_tick")
            (global.set $ticks (i32.add (global.get $ticks) (i32.const 1)))
            (call $say (i32.const 0) (i32.const {})))
          (func (export "http_request")
            (if (i32.ge_u (global.get $ticks) (i32.const 2))
              (then (call $say (i32.const 4096) (i32.const {})))
              (else (call $say (i32.const 0) (i32.const {}))))))"#,
        quoted(before),
        quoted(after),
        before.len(),
        after.len(),
        before.len()
    )
}

#[tokio::test]
async fn a_plugin_is_asked_from_time_to_time() {
    let rig = Rig::new();
    let (manager, file) = (&rig.manager, rig.file("s.wat"));
    write(&file, &ticking());
    let tick = Some(Duration::from_millis(20));
    let mode = cardan_api::InstanceMode::Shared;
    manager.install(&PluginSpec { tick, mode, ..by_operator("s", &file) }).unwrap();
    assert_eq!(stamped(manager).await, "nothing");
    let supervised = tokio::spawn(manager.clone().supervise());
    while stamped(manager).await != "ticked" {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let (asked, failed) = manager.plugin("s").unwrap().active.ticks;
    assert!(asked >= 2 && failed == 0, "{asked} {failed}");
    manager.disable("s").unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let asked = manager.plugin("s").unwrap().active.ticks.0;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(manager.plugin("s").unwrap().active.ticks.0, asked, "not while it is switched off");
    supervised.abort();
}

#[tokio::test]
async fn visits_are_recorded_with_what_they_changed() {
    let rig = Rig::new();
    let (manager, file) = (&rig.manager, rig.file("s.wat"));
    let nobody = manager.open(None);
    drop(nobody);
    write(&file, &stamping("one"));
    manager.install(&by_operator("s", &file)).unwrap();
    let mut followed = manager.ledger().follow_visits();
    let mut visit: Visit = manager.open(None);
    let mut event = request("{}");
    ask_request(&mut visit, &mut event).await;
    let id = visit.id().to_owned();
    assert!(manager.ledger().visits().is_empty(), "it goes on");
    drop(visit);
    let [record] = &manager.ledger().visits()[..] else { panic!("one visit asked somebody") };
    assert_eq!((&record.id, &*record.subject), (&id, "POST api.example/v1/chat/completions"));
    let [decision] = &record.decisions[..] else { panic!("one decision") };
    assert_eq!((&*decision.plugin, decision.version, decision.hook), ("s", 1, "http.request"));
    assert_eq!((decision.changed.as_deref(), decision.error.as_deref()), (Some("+x-stamp"), None));
    assert_eq!(followed.recv().await.unwrap().id, id);
    for _ in 0..1_500 {
        ask_request(&mut manager.open(None), &mut event).await;
    }
    assert_eq!(manager.ledger().visits().len(), 1_024, "of bounded number");
}

/// What a manager is after the process ended without a word and another one started.
fn restarted(dir: &Path) -> Manager {
    let manager = Manager::with_state(engine(), 13, StateDir::open(dir).unwrap());
    let restored = manager.restore().unwrap();
    assert!(restored.lost.is_empty(), "{restored:?}");
    manager
}

#[tokio::test]
async fn what_was_active_is_active_after_a_restart() {
    let rig = Rig::new();
    let (file, state) = (rig.file("s.wat"), rig.file("state"));
    let manager = restarted(&state);
    write(&file, &stamping("one"));
    manager.install(&by_operator("s", &file)).unwrap();
    manager.install(&by_operator("off", &file)).unwrap();
    manager.disable("off").unwrap();
    for version in ["two", "three"] {
        write(&file, &stamping(version));
        manager.reload("s").unwrap();
    }
    manager.rollback("s", Some(2)).unwrap();
    let why = StateDir::open(&state).unwrap_err().to_string();
    assert!(why.contains("is in use by another process"), "{why}");
    drop(manager);

    // The file is gone, and still everything is as it was.
    std::fs::remove_file(&file).unwrap();
    let manager = restarted(&state);
    assert_eq!(stamped(&manager).await, "two");
    let status = manager.plugin("s").unwrap();
    assert_eq!((status.active.number, status.earlier.len()), (2, 2));
    assert_eq!(manager.plugin("off").unwrap().state, State::Disabled);
    assert_eq!(manager.rollback("s", Some(1)).unwrap().version, 1);
    assert_eq!(stamped(&manager).await, "one");
    manager.rollback("s", Some(3)).unwrap();
    assert_eq!(stamped(&manager).await, "three");
    manager.remove("s").unwrap();
    manager.remove("off").unwrap();
    assert_eq!(std::fs::read_dir(state.join("artifacts")).unwrap().count(), 0, "nothing is left over");
    drop(manager);
    assert!(restarted(&state).plugins().is_empty());
}

#[tokio::test]
async fn a_file_that_broke_meanwhile_does_not_keep_a_start_from_happening() {
    let rig = Rig::new();
    let (file, state) = (rig.file("s.wat"), rig.file("state"));
    let manager = restarted(&state);
    write(&file, &stamping("good"));
    manager.start_with(&[spec("s", &file)], Vec::new()).unwrap();
    drop(manager);
    write(&file, "half a modu");
    let manager = restarted(&state);
    manager.start_with(&[spec("s", &file)], Vec::new()).unwrap();
    assert_eq!(stamped(&manager).await, "good");
    assert!(manager.plugin("s").unwrap().trouble.is_some());
    assert!(manager.apply(&[spec("s", &file)]).is_err(), "later deployments are whole or nothing");
    let unknown = [spec("s", &file), spec("other", &file)];
    assert!(manager.start_with(&unknown, Vec::new()).is_err(), "nor does what never ran");
    drop(manager);
    write(&file, &stamping("better"));
    let manager = restarted(&state);
    manager.start_with(&[spec("s", &file)], Vec::new()).unwrap();
    assert_eq!(stamped(&manager).await, "better", "what files say at the start counts");
    assert_eq!(manager.plugin("s").unwrap().active.number, 2);
}

/// What a file says about a plugin counts, whichever of its modules runs.
#[tokio::test]
async fn a_rollback_brings_back_a_module_and_no_wish() {
    let rig = Rig::new();
    let (file, state) = (rig.file("s.wat"), rig.file("state"));
    let manager = restarted(&state);
    let granted = |capability: &str| {
        let mut spec = spec("s", &file);
        if !capability.is_empty() {
            spec.grants.env.insert("CAPABILITY".to_owned(), capability.to_owned());
        }
        spec
    };
    let grants = |manager: &Manager| manager.spec("s").unwrap().grants.env;
    write(&file, &stamping("one"));
    manager.apply(&[granted("much")]).unwrap();
    write(&file, &stamping("two"));
    manager.apply(&[granted("")]).unwrap();
    manager.rollback("s", None).unwrap();
    assert_eq!(stamped(&manager).await, "one");
    assert!(grants(&manager).is_empty(), "nobody gets back what is granted no more");
    assert_eq!(manager.apply(&[granted("")]).unwrap().kept, ["s"]);
    assert_eq!(stamped(&manager).await, "one", "declined");
    let mut other = granted("a little");
    other.config = json!({"a": 1});
    for _ in 0..2 {
        manager.apply(&[other.clone()]).unwrap();
        assert_eq!(stamped(&manager).await, "one", "declined, whatever else is wished");
        assert_eq!(grants(&manager)["CAPABILITY"], "a little");
        assert_eq!(manager.plugin("s").unwrap().config, json!({"a": 1}));
    }
    drop(manager);
    let manager = restarted(&state);
    manager.start_with(&[granted("")], Vec::new()).unwrap();
    assert_eq!((stamped(&manager).await.as_str(), grants(&manager).len()), ("one", 0));
    write(&file, &stamping("three"));
    manager.apply(&[granted("")]).unwrap();
    assert_eq!(stamped(&manager).await, "three");
    // A canary is promoted as it may run now.
    write(&file, &stamping("four"));
    manager.start_canary("s", CanaryPlan { share: 1, ..CanaryPlan::default() }).unwrap();
    manager.promote_canary("s").unwrap();
    assert_eq!((stamped(&manager).await.as_str(), grants(&manager).len()), ("four", 0));
    manager.undo("s", manager.plugin("s").unwrap().earlier[0].number).unwrap();
    assert_eq!(stamped(&manager).await, "three");
    manager.apply(&[granted("")]).unwrap();
    assert_eq!(stamped(&manager).await, "four", "what was undone is not declined");
}

/// What cannot be loaded at one start is there at the next, if it can be then.
#[tokio::test]
async fn what_was_lost_is_not_forgotten() {
    let rig = Rig::new();
    let (file, state) = (rig.file("s.wat"), rig.file("state"));
    let manager = restarted(&state);
    write(&file, &stamping("one"));
    manager.install(&by_operator("s", &file)).unwrap();
    manager.install(&by_operator("gone", &file)).unwrap();
    let artifact = state.join("artifacts").join(manager.plugin("s").unwrap().active.digest);
    drop(manager);
    let module = std::fs::read(&artifact).unwrap();
    std::fs::write(&artifact, "damaged").unwrap();
    std::fs::remove_file(&file).unwrap();
    for start in 0..3 {
        let manager = Manager::with_state(engine(), 13, StateDir::open(&state).unwrap());
        let lost = manager.restore().unwrap().lost;
        assert_eq!(lost.iter().map(|lost| &*lost.name).collect::<Vec<_>>(), ["s", "gone"], "{start}");
        assert!(manager.plugins().is_empty());
        manager.apply(&[]).unwrap();
    }
    std::fs::write(&artifact, module).unwrap();
    let manager = restarted(&state);
    assert_eq!(stamped(&manager).await, "one");
    assert!(!manager.forget_lost("gone").unwrap(), "it is not lost");
}

#[tokio::test]
async fn a_file_may_take_over_what_lies_in_the_folder() {
    let rig = Rig::new();
    let (manager, file) = (&rig.manager, rig.file("s.wat"));
    write(&file, &stamping("one"));
    manager.replace(&PluginSpec { owner: Owner::Folder, ..spec("s", &file) }).unwrap();
    manager.apply(&[spec("s", &file)]).unwrap();
    assert_eq!(manager.plugin("s").unwrap().owner, Owner::File);
    assert_eq!(manager.plugins().len(), 1);
    manager.apply(&[]).unwrap();
    manager.install(&by_operator("s", &file)).unwrap();
    assert!(manager.apply(&[spec("s", &file)]).is_err(), "an operator can take his out first");
    manager.start_with(&[spec("s", &file)], Vec::new()).unwrap();
    assert_eq!(manager.plugin("s").unwrap().owner, Owner::File, "at a start nobody can");
}

#[test]
fn state_that_cannot_be_read_is_an_error_and_not_an_empty_set() {
    let dir = tempfile::tempdir().unwrap();
    let document = dir.path().join("state.json");
    for (text, why) in [
        ("", "EOF while parsing"),
        ("{", "EOF while parsing"),
        (r#"{"format": 2, "plugins": []}"#, "it has the format 2, and this Cardan knows 1"),
        (r#"{"format": 1, "plugins": [], "more": 1}"#, "unknown field `more`"),
    ] {
        std::fs::write(&document, text).unwrap();
        let error = StateDir::open(dir.path()).unwrap_err().to_string();
        assert!(error.contains(why) && error.contains("move it away to start without it"), "{error}");
    }
    std::fs::remove_file(&document).unwrap();
    let state = StateDir::open(dir.path()).unwrap();
    assert_eq!(state.path(), dir.path());
}

#[tokio::test]
async fn a_folder_is_watched() {
    let rig = Rig::new();
    let folder = rig.file("plugins");
    std::fs::create_dir(&folder).unwrap();
    let look = |folder: &Path| {
        let mut scan = Scan::default();
        let mut files: Vec<PathBuf> =
            std::fs::read_dir(folder).unwrap().map(|it| it.unwrap().path()).collect();
        files.sort();
        for file in files.into_iter().filter(|file| file.extension().is_some_and(|it| it == "wat")) {
            scan.specs.push(spec(&file.file_stem().unwrap().to_string_lossy(), &file));
        }
        scan
    };
    let (manager, file) = (rig.manager.clone(), folder.join("s.wat"));
    write(&file, &stamping("one"));
    let watch = FolderWatch::start(manager.clone(), folder.clone(), Arc::new(look));
    assert_eq!(stamped(&manager).await, "one", "the first look is over when it starts");
    let until = async |wanted: &str| {
        for _ in 0..1_000 {
            if stamped(&manager).await == wanted {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("it never was {wanted:?}, it is {:?}", stamped(&manager).await);
    };
    write(&file, &stamping("two"));
    until("two").await;

    // Slowly, in place: what is half there is never asked.
    let module = stamping("three");
    let over = Arc::new(AtomicBool::new(false));
    let asked = tokio::spawn({
        let (manager, over) = (manager.clone(), over.clone());
        async move {
            while !over.load(Ordering::Relaxed) {
                let seen = stamped(&manager).await;
                assert!(["two", "three"].contains(&&*seen), "{seen}");
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    });
    for end in [module.len() / 3, module.len() / 2, module.len()] {
        std::fs::write(&file, &module[..end]).unwrap();
        tokio::time::sleep(Duration::from_millis(400)).await;
    }
    until("three").await;
    over.store(true, Ordering::Relaxed);
    asked.await.unwrap();

    // Removed and written again at once, as some tools do: the guard never stands open.
    std::fs::remove_file(&file).unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(stamped(&manager).await, "three");
    write(&file, &stamping("four"));
    until("four").await;
    std::fs::remove_file(&file).unwrap();
    until("nothing").await;
    write(&file, &stamping("five"));
    until("five").await;
    assert!(watch.problems().is_empty());
    drop(watch);
    write(&file, &stamping("six"));
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(stamped(&manager).await, "five", "nobody watches any more");
}

/// What a look no longer names goes, though its file is there; what a look could not read stays.
#[tokio::test]
async fn a_look_decides() {
    let rig = Rig::new();
    let folder = rig.file("plugins");
    std::fs::create_dir(&folder).unwrap();
    let file = folder.join("s.wat");
    write(&file, &stamping("one"));
    let wanted = Arc::new(std::sync::Mutex::new("named"));
    let look = {
        let wanted = wanted.clone();
        move |folder: &Path| {
            let problem =
                |path: PathBuf| Scan { problems: vec![(path, "why".to_owned())], ..Scan::default() };
            match *wanted.lock().unwrap() {
                "named" => Scan { specs: vec![spec("s", &folder.join("s.wat"))], ..Scan::default() },
                "unreadable folder" => problem(folder.to_owned()),
                "bad manifest" => problem(folder.join("s.yaml")),
                _ => problem(folder.join("other.yaml")),
            }
        }
    };
    let manager = rig.manager.clone();
    let _watch = FolderWatch::start(manager.clone(), folder.clone(), Arc::new(look));
    for what in ["unreadable folder", "bad manifest"] {
        *wanted.lock().unwrap() = what;
        std::fs::write(folder.join("touched"), what).unwrap();
        tokio::time::sleep(Duration::from_millis(2_500)).await;
        assert_eq!(stamped(&manager).await, "one", "{what}");
    }
    *wanted.lock().unwrap() = "not named";
    std::fs::write(folder.join("touched"), "").unwrap();
    for _ in 0..1_000 {
        if stamped(&manager).await == "nothing" {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it is still there");
}

/// A watch that is dropped has ended: what follows is not undone by a look that was under way.
#[tokio::test]
async fn a_dropped_watch_has_ended() {
    let rig = Rig::new();
    let folder = rig.file("plugins");
    std::fs::create_dir(&folder).unwrap();
    let file = rig.file("s.wat");
    write(&file, &stamping("one"));
    let (looks, over) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicBool::new(false)));
    let look = {
        let (looks, over, file) = (looks.clone(), over.clone(), file.clone());
        move |_: &Path| {
            let first = looks.fetch_add(1, Ordering::SeqCst) == 0;
            if !first {
                std::thread::sleep(Duration::from_millis(700));
                over.store(true, Ordering::SeqCst);
            }
            Scan { specs: vec![spec(if first { "s" } else { "late" }, &file)], ..Scan::default() }
        }
    };
    let manager = rig.manager.clone();
    let watch = FolderWatch::start(manager.clone(), folder.clone(), Arc::new(look));
    std::fs::write(folder.join("touched"), "").unwrap();
    while looks.load(Ordering::SeqCst) < 2 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(!over.load(Ordering::SeqCst), "the look is not under way");
    drop(watch);
    assert!(over.load(Ordering::SeqCst), "it is not waited for");
    let generation = manager.snapshot().generation();
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert_eq!(manager.snapshot().generation(), generation, "a watch that has ended changes something");
}

/// A hundred times: reload, roll back, canary, while visits go on. None fails, and none escapes the guard.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_changes_under_load() {
    let rig = Rig::new();
    let (file, guard) = (rig.file("s.wat"), rig.file("guard.wat"));
    let manager = restarted(&rig.file("state"));
    write(&file, &stamping("0"));
    write(&guard, &answering(r#"{"verdict": "continue", "attributes": {"guarded": true}}"#));
    manager.install(&by_operator("guard", &guard)).unwrap();
    manager.install(&by_operator("s", &file)).unwrap();
    manager.install(&by_operator("spare", &guard)).unwrap();
    let over = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let (manager, over) = (manager.clone(), over.clone());
            tokio::spawn(async move {
                let mut visits = 0u32;
                while !over.load(Ordering::Relaxed) {
                    let mut visit = manager.open(None);
                    let mut event = request("{}");
                    let mut chain = visit.chain::<HttpRequest>(&event);
                    let progress = visit.ask(&mut chain, &mut event).await;
                    assert_eq!(told(&progress), "done", "{:?}", visit.decisions());
                    assert_eq!(visit.attributes().get("guarded"), Some(&json!(true)));
                    assert!(event.headers.get("x-stamp").is_some());
                    visits += 1;
                    tokio::task::yield_now().await;
                }
                visits
            })
        })
        .collect();
    let changes = tokio::task::spawn_blocking({
        let manager = manager.clone();
        move || {
            for n in 1..=100 {
                write(&file, &if n % 10 == 9 { TRAPS.to_owned() } else { stamping(&n.to_string()) });
                match n % 5 {
                    // Every second one traps, and goes by itself.
                    4 => {
                        manager
                            .start_canary("s", CanaryPlan { share: 5_000, ..CanaryPlan::default() })
                            .unwrap();
                        std::thread::sleep(Duration::from_millis(10));
                        if n % 10 == 4 { manager.promote_canary("s") } else { manager.stop_canary("s") }
                            .unwrap();
                    }
                    3 => drop(manager.reload("s").and_then(|_| manager.rollback("s", None)).unwrap()),
                    2 => drop(manager.disable("spare").and_then(|_| manager.enable("spare")).unwrap()),
                    _ => drop(manager.reload("s").unwrap()),
                }
            }
        }
    });
    let changed = changes.await;
    over.store(true, Ordering::Relaxed);
    let mut visits = 0;
    for client in clients {
        visits += client.await.unwrap();
    }
    changed.unwrap();
    assert!(visits > 1_000, "{visits}");
}
