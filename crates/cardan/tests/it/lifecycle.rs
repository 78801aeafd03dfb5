//! The hooks of a plugin's own life.

use std::time::{Duration, Instant};

use cardan::api::lifecycle::{LifeEvent, LifeReason, PluginTick, PluginUnload, TickEvent};
use cardan::{
    Circumstances, Dialect, Engine, EngineConfig, ErrorKind, Fault, Held, InstanceMode, Limits, Question,
};
use serde_json::json;

use crate::support::{engine, guest};

const CONTINUE: &str = r#"@"{\22verdict\22:\22continue\22}""#;

/// A guest that counts in `$loads` how often it was loaded and `$calls` how often it was called, and whose
/// answer to `plugin.load` is this.
fn counting(answer: &str) -> String {
    guest(&format!(
        r#"(global $loads (mut i64) (i64.const 0)) (global $calls (mut i64) (i64.const 0))
        (func (export "plugin_load")
          (global.set $loads (i64.add (global.get $loads) (i64.const 1)))
          {answer})
        (func (export "count")
          (global.set $calls (i64.add (global.get $calls) (i64.const 1)))
          (call $tell (global.get $loads)) (call $tell (global.get $calls)) (call $told))"#
    ))
}

#[test]
fn every_instance_is_asked_once_before_its_first_call() {
    #[track_caller]
    fn check(mode: InstanceMode, expected: [[u64; 2]; 3]) {
        let module = counting(&format!("(call $say {CONTINUE})"));
        let plugin = engine().plugin(module.as_bytes()).mode(mode).load().unwrap();
        for expected in expected {
            assert_eq!(crate::support::told(&plugin.call("count", "").unwrap()), expected, "{mode:?}");
        }
        assert_eq!(plugin.inspection().lifecycle, ["plugin.load"]);
        assert_eq!(plugin.inspection().hooks, [""; 0], "nobody binds it");
    }
    check(InstanceMode::Fresh, [[1, 1]; 3]);
    check(InstanceMode::Visit, [[1, 1]; 3]);
    check(InstanceMode::Shared, [[1, 1], [1, 2], [1, 3]]);
}

#[test]
fn a_version_that_does_not_accept_is_not_loaded() {
    #[track_caller]
    fn check(answer: &str, kind: ErrorKind, message: &str) {
        let error = engine().plugin(counting(answer).as_bytes()).load().unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.message().starts_with(message), "{error}");
    }
    check(
        r#"(call $say @"{\22verdict\22:\22refuse\22,\22message\22:\22no key\22}")"#,
        ErrorKind::Refused,
        "it refuses to be loaded: no key",
    );
    check("", ErrorKind::Start(Fault::Protocol), "plugin.load: returned no document of the dialect cardan");
    check(
        r#"(call $say @"{\22verdict\22:\22continue\22,\22attributes\22:{\22a\22:1}}")"#,
        ErrorKind::Start(Fault::Protocol),
        "plugin.load: returned no document",
    );
    check("unreachable", ErrorKind::Start(Fault::Trap), "plugin.load: ");
    check(r#"(call $error_set @"broken")"#, ErrorKind::Guest(0), "broken");
    // Its time is that of a start, also where calls have none.
    let endless = counting("(loop (br 0))");
    for snapshot in [cardan::SnapshotPolicy::default(), cardan::SnapshotPolicy::Never] {
        let limits =
            Limits { start_deadline: Duration::from_millis(60), deadline: None, ..Limits::default() };
        let start = Instant::now();
        let plugin = engine().plugin(endless.as_bytes()).snapshot(snapshot).limits(limits);
        assert_eq!(plugin.load().unwrap_err().kind(), ErrorKind::Start(Fault::Deadline), "{snapshot:?}");
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    }
}

/// The document, as the guest sees it.
#[test]
fn what_a_plugin_is_told() {
    let module = guest(&format!(
        r#"(func (export "plugin_load")
          (call $var_set @"seen" (call $input_offset)) (call $say {CONTINUE}))
        (func (export "seen") (call $say (call $var_get @"seen")))"#
    ));
    let plugin = engine()
        .plugin(module.as_bytes())
        .name("counter")
        .version("1.2.0")
        .life_reason(LifeReason::Rollback)
        .config("text", "a")
        .config_object(&json!({ "list": [1, 2] }))
        .load()
        .unwrap();
    let seen: serde_json::Value = serde_json::from_slice(&plugin.call("seen", "").unwrap()).unwrap();
    assert_eq!(
        seen,
        json!({
            "hook": "plugin.load",
            "plugin": { "name": "counter", "version": "1.2.0" },
            "reason": "rollback",
            "config": { "text": "a", "list": [1, 2] },
        })
    );
}

#[tokio::test]
async fn unload_and_tick_are_asked_as_hooks_are() {
    let module = guest(&format!(
        r#"(func (export "plugin_unload") (call $say {CONTINUE}))
        (func (export "plugin_tick") (call $say @"{{\22verdict\22:\22refuse\22}}"))"#
    ));
    let plugin = engine().load(module.as_bytes()).unwrap();
    assert_eq!(plugin.dialect(), Some(Dialect::Cardan));
    assert_eq!(plugin.inspection().lifecycle, ["plugin.unload", "plugin.tick"]);
    let config = json!({});
    let event = LifeEvent { plugin: "a".to_owned(), version: String::new(), reason: LifeReason::Remove };
    let about = Circumstances::of_life(&config);
    let question = Question::<PluginUnload> { event: &event, about, entry: None, deadline: None };
    plugin.ask(&mut Held::default(), question).await.unwrap();
    let event = TickEvent { plugin: "a".to_owned(), version: String::new() };
    let question = Question::<PluginTick> { event: &event, about, entry: None, deadline: None };
    let error = plugin.ask(&mut Held::default(), question).await.unwrap_err();
    assert_eq!(error.fault(), Fault::Protocol, "{error}");
    assert!(error.message().contains("nothing to refuse"), "{error}");
}

/// Where instances cannot be put back to their beginning, each new one is asked.
#[test]
fn new_instances_are_asked_again() {
    let isolation = cardan::Isolation::Strict;
    let engine = Engine::new(EngineConfig { isolation, pool_instances: Some(4), ..EngineConfig::default() });
    let module = counting(&format!("(call $say {CONTINUE})"));
    let plugin = engine.unwrap().load(module.as_bytes()).unwrap();
    for _ in 0..3 {
        assert_eq!(crate::support::told(&plugin.call("count", "").unwrap()), [1, 1]);
    }
}
