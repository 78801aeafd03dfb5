//! How long instances live, what they share, and how many there may be.

use std::sync::Arc;
use std::time::Duration;

use cardan::api::http::HttpRequest;
use cardan::{Engine, EngineConfig, ErrorKind, Fault, Held, InstanceMode, Isolation, Limits, Plugin};

use crate::support::{GENEROUS, Linkage, engine, guest, guests, prebuilt, within};
use crate::visits::ask;

fn kitchen(mode: InstanceMode) -> Plugin {
    prebuilt("kitchen").mode(mode).load().unwrap()
}

fn count(plugin: &Plugin) -> String {
    String::from_utf8(plugin.call("memory_count", "").unwrap()).unwrap()
}

#[test]
fn fresh_memory_for_every_call() {
    let plugin = kitchen(InstanceMode::Fresh);
    assert_eq!(plugin.mode(), InstanceMode::Fresh);
    for _ in 0..30 {
        assert_eq!(count(&plugin), "1");
    }
    assert!(plugin.call("count_and_trap", "").is_err());
    assert_eq!(count(&plugin), "1");
}

#[test]
fn shared_memory_until_a_fault() {
    let plugin = kitchen(InstanceMode::Shared);
    let counts: Vec<String> = (0..30).map(|_| count(&plugin)).collect();
    assert_eq!(counts, (1..=30).map(|n| n.to_string()).collect::<Vec<_>>());
    assert!(plugin.call("count_and_trap", "").is_err());
    assert_eq!(count(&plugin), "1", "a faulted instance is not used again");
    let error = plugin.call("fail", r#"{"code": 1, "message": "no"}"#).unwrap_err();
    assert_eq!(error.fault(), Fault::Trap);
    assert_eq!(count(&plugin), "1", "nor is one that reported an error");
}

#[test]
fn an_instance_of_ones_own() {
    let plugin = kitchen(InstanceMode::Fresh);
    let mut instance = plugin.instance().unwrap();
    let mut other = plugin.instance().unwrap();
    for n in 1..=3 {
        assert_eq!(instance.call("memory_count", "").output, n.to_string().into_bytes());
    }
    assert_eq!(instance.call("count_and_trap", "").code, 134);
    assert_eq!(instance.call("memory_count", "").output, b"5", "memory persists, also after a trap");
    assert_eq!(other.call("memory_count", "").output, b"1");
}

/// A guest for `http.request` that counts its calls and traps in the fourth.
const COUNTER: &str = r#"
    (global $calls (mut i32) (i32.const 0))
    (func (export "http_request") (result i32)
      (global.set $calls (i32.add (global.get $calls) (i32.const 1)))
      (if (i32.eq (global.get $calls) (i32.const 4)) (then unreachable))
      (call $say @"{\22verdict\22:\22continue\22}")
      (i32.const 0))"#;

/// How many questions of ten in one visit are answered, and in which place no answer comes.
#[tokio::test]
async fn one_instance_for_a_visit() {
    let rows = [
        (InstanceMode::Visit, vec![4, 8]),
        (InstanceMode::Fresh, vec![]),
        (InstanceMode::Shared, vec![4, 8]),
    ];
    for (mode, expected) in rows {
        let plugin = engine().plugin(guest(COUNTER).as_bytes()).mode(mode).load().unwrap();
        assert_eq!(plugin.entry_of::<HttpRequest>(), Some("http_request"));
        let mut held = Held::default();
        let mut unanswered = Vec::new();
        for n in 1..=10 {
            if let Err(error) = ask(&plugin, &mut held, None).await {
                assert_eq!(error.fault(), Fault::Trap, "{error}");
                unanswered.push(n);
            }
        }
        assert_eq!(unanswered, expected, "{mode:?}");
        // Another visit does not see this one's instance, nor its fault.
        let mut other = Held::default();
        for _ in 0..3 {
            let answered = ask(&plugin, &mut other, None).await.is_ok();
            assert!(answered || mode == InstanceMode::Shared, "{mode:?}");
        }
    }
}

#[test]
fn programs_start_anew() {
    let module = std::fs::read(guests().join("hostile/command_start.wat")).unwrap();
    for linkage in Linkage::BOTH {
        let plugin = linkage.plugin(&module).load().unwrap();
        let mut instance = plugin.instance().unwrap();
        for _ in 0..3 {
            assert_eq!(instance.call("_start", "").output, b"v1g1", "{linkage:?}");
        }
        assert_eq!(instance.call("run", "").output, b"v1g1", "{linkage:?}");
        assert_eq!(instance.call("run", "").output, b"v2g2", "other exports leave everything: {linkage:?}");
        assert_eq!(instance.call("_start", "").output, b"v3g3", "{linkage:?}");
        assert_eq!(instance.call("_start", "").output, b"v1g1", "{linkage:?}");
        for _ in 0..3 {
            assert_eq!(plugin.call("_start", "").unwrap(), b"v1g1", "{linkage:?}");
        }
    }
    let shared = engine().plugin(&*module).mode(InstanceMode::Shared).load().unwrap();
    for _ in 0..3 {
        assert_eq!(shared.call("_start", "").unwrap(), b"v1g1");
    }
}

/// What `_start` does not take away: the configuration that was set, and the right to stop the calls.
#[test]
fn what_survives_a_program() {
    let module = guest(
        r#"(func (export "_start"))
           (func (export "config") (call $say (call $config_get @"k")))
           (func (export "loop") (loop (br 0)))"#,
    );
    let plugin =
        engine().plugin(module.as_bytes()).config("k", "first").limits(within(GENEROUS)).load().unwrap();
    let mut instance = plugin.instance().unwrap();
    let cancel = instance.cancel_handle();
    instance.set_config([("k".to_owned(), "second".to_owned())].into());
    assert_eq!(instance.call("_start", "").code, 0);
    assert_eq!(instance.call("config", "").output, b"second");
    assert_eq!(instance.call("_start", "").code, 0);
    let stop = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(100));
        cancel.cancel();
    });
    let report = instance.call("loop", "");
    assert_eq!((report.code, report.error.as_deref()), (134, Some("timeout")));
    stop.join().unwrap();
}

/// A program's start section is its calls' business.
#[test]
fn a_program_that_cannot_start_loads() {
    let functions = r#"(func (export "_start")) (func $boom unreachable) (start $boom)"#;
    for linkage in Linkage::BOTH {
        let plugin = linkage.plugin(guest(functions).as_bytes()).load().unwrap();
        let error = plugin.call("_start", "").unwrap_err();
        assert_eq!(
            error.message(),
            "wasm trap: wasm `unreachable` instruction executed",
            "{linkage:?}: {error}"
        );
        let missing = format!(r#"{functions} (import "nowhere" "f" (func))"#);
        let missing = missing.replace(r#"(import "nowhere" "f" (func))"#, "");
        assert!(linkage.plugin(guest(&missing).as_bytes()).load().is_ok());
        let unlinked = r#"(module (import "nowhere" "f" (func)) (func (export "_start")))"#;
        let error = linkage.plugin(unlinked.as_bytes()).load().unwrap_err();
        assert!(error.message().contains("unknown import: `nowhere::f`"), "{linkage:?}: {error}");
    }
}

/// The order of guest runtime initialisation (5.2): which of the exports runs, and how often.
#[test]
fn initialisation() {
    // Each function appends a digit to a number that `run` returns.
    let step = |export: &str, ty: &str, digit: u32| {
        format!(
            r#"(func (export "{export}") {ty}
                 (global.set $steps (i32.add (i32.mul (global.get $steps) (i32.const 10)) (i32.const {digit}))))"#
        )
    };
    let start = r#"(func $start (global.set $steps (i32.add (i32.mul (global.get $steps) (i32.const 10))
        (i32.const 9)))) (start $start)"#
        .to_owned();
    let hs = |result: &str, value: &str| {
        format!(
            r#"(func (export "hs_init") (param i32 i32) {result}
                 (if (i32.or (local.get 0) (local.get 1)) (then unreachable))
                 (global.set $steps (i32.add (i32.mul (global.get $steps) (i32.const 10)) (i32.const 3))) {value})"#
        )
    };
    let rows: Vec<(String, i32)> = vec![
        (String::new(), 0),
        (start.clone(), 9),
        (step("_initialize", "", 1), 1),
        (start.clone() + &step("_initialize", "", 1), 91),
        (step("__wasm_call_ctors", "", 2), 2),
        (step("_initialize", "", 1) + &step("__wasm_call_ctors", "", 2), 2),
        (step("_initialize", "", 1) + &step("__wasm_call_ctors", "(param i32)", 2), 0),
        (step("_initialize", "(param i32)", 1), 0),
        (hs("", "") + &step("_initialize", "", 1), 13),
        (hs("(result i32)", "(i32.const 5)") + &step("_initialize", "", 1), 13),
        (hs("", "") + &step("__wasm_call_ctors", "", 2), 3),
        (hs("", "") + &step("_initialize", "(param i32)", 1), 3),
        (step("hs_init", "", 3) + &step("_initialize", "", 1), 1),
        (step("_start", "", 4), 0),
        (step("_start", "", 4) + &step("_initialize", "", 1), 1),
        (step("_start", "", 4) + &step("__wasm_call_ctors", "", 2), 2),
        (start + &step("_start", "", 4) + &step("_initialize", "", 1), 91),
    ];
    for linkage in Linkage::BOTH {
        for (functions, expected) in &rows {
            let module = guest(&format!(
                r#"(global $steps (mut i32) (i32.const 0))
                   (func (export "run") (result i32) (global.get $steps)) {functions}"#
            ));
            let plugin = linkage.plugin(module.as_bytes()).load().unwrap();
            let mut instance = plugin.instance().unwrap();
            assert_eq!(instance.call("run", "").code, *expected, "{linkage:?} {functions}");
            assert_eq!(instance.call("run", "").code, *expected, "once and no more: {linkage:?} {functions}");
        }
    }
}

#[test]
fn instances_made_ahead() {
    let plugin = prebuilt("kitchen").ready_instances(4).load().unwrap();
    let ready = |plugin: &Plugin, wanted: usize| {
        let start = std::time::Instant::now();
        while plugin.ready_instances() < wanted {
            assert!(start.elapsed() < GENEROUS, "only {} ready", plugin.ready_instances());
            std::thread::sleep(Duration::from_millis(2));
        }
    };
    ready(&plugin, 4);
    for _ in 0..50 {
        assert_eq!(count(&plugin), "1", "each is used once");
    }
    ready(&plugin, 4);
    assert_eq!(plugin.ready_instances(), 4);
    // After a pause in which the clock has gone to sleep.
    std::thread::sleep(Duration::from_millis(400));
    assert_eq!(count(&plugin), "1");
    ready(&plugin, 4);
    assert_eq!(kitchen(InstanceMode::Fresh).ready_instances(), 0);
}

/// A shared plugin's used instances serve before unused ones, whatever is made ahead meanwhile.
#[test]
fn shared_instances_that_served_come_first() {
    for ready in [1, 3] {
        let plugin = prebuilt("kitchen").mode(InstanceMode::Shared).ready_instances(ready).load().unwrap();
        for n in 1..=20 {
            assert_eq!(count(&plugin), n.to_string(), "{ready}");
            // For the thread that makes them.
            std::thread::sleep(Duration::from_millis(5));
        }
        let start = std::time::Instant::now();
        while plugin.ready_instances() < ready as usize && start.elapsed() < GENEROUS {
            std::thread::sleep(Duration::from_millis(2));
        }
        assert!(plugin.ready_instances() >= ready as usize, "there are unused ones, too");
        assert_eq!(count(&plugin), "21", "{ready}");
    }
}

/// More calls at once than the plugin may have instances: they wait, and the last give up.
#[tokio::test]
async fn more_calls_than_instances() {
    let function = cardan::HostFunction::suspending("wait", |_| async {
        tokio::time::sleep(Duration::from_millis(150)).await;
        Ok(Vec::new())
    });
    let module = crate::support::guest_importing(
        r#"(import "extism:host/user" "wait" (func $wait (param i64) (result i64)))"#,
        r#"(func (export "run") (drop (call $wait (i64.const 0))))"#,
    );
    let load = |deadline| {
        let limits = Limits { instances_max: 2, deadline: Some(deadline), ..Limits::default() };
        engine().plugin(module.as_bytes()).limits(limits).host_function(function.clone()).load().unwrap()
    };
    let all = |plugin: Plugin| async move {
        let calls: Vec<_> = (0..6)
            .map(|_| {
                let plugin = plugin.clone();
                tokio::spawn(
                    async move { plugin.call_async("run", b"").await.map_err(|error| error.fault()) },
                )
            })
            .collect();
        let mut ends = Vec::new();
        for call in calls {
            ends.push(call.await.unwrap());
        }
        ends
    };
    assert_eq!(all(load(GENEROUS)).await, vec![Ok(Vec::new()); 6]);
    let hurried = all(load(Duration::from_millis(20))).await;
    // Two get an instance and do not have the time; the others do not even get that.
    assert_eq!(hurried.iter().filter(|end| **end == Err(Fault::Deadline)).count(), 2, "{hurried:?}");
    assert_eq!(hurried.iter().filter(|end| **end == Err(Fault::Busy)).count(), 4, "{hurried:?}");
}

/// A call whose future is dropped leaves nothing behind: no permit, no instance in an unknown state.
#[tokio::test]
async fn dropped_calls() {
    let module = guest(
        r#"(global $calls (mut i32) (i32.const 0))
           (func (export "loop") (global.set $calls (i32.const 100)) (loop (br 0)))
           (func (export "run") (result i32)
             (call $tell (i64.extend_i32_u (global.get $calls))) (call $told)
             (global.set $calls (i32.add (global.get $calls) (i32.const 1))) (i32.const 0))"#,
    );
    for mode in [InstanceMode::Fresh, InstanceMode::Shared] {
        let limits = Limits { instances_max: 1, deadline: Some(GENEROUS), ..Limits::default() };
        let plugin = engine().plugin(module.as_bytes()).mode(mode).limits(limits).load().unwrap();
        for _ in 0..5 {
            let call = plugin.call_async("loop", b"");
            tokio::time::timeout(Duration::from_millis(20), call).await.unwrap_err();
            let output = plugin.call_async("run", b"").await.unwrap();
            assert_eq!(crate::support::told(&output)[0] % 100, crate::support::told(&output)[0], "{mode:?}");
        }
    }
    // An instance of one's own goes on after the call that was given up.
    let mut instance = engine().load(module.as_bytes()).unwrap().instance().unwrap();
    tokio::time::timeout(Duration::from_millis(20), instance.call_async("loop", b"")).await.unwrap_err();
    assert_eq!(crate::support::told(&instance.call_async("run", b"").await.output), [100]);
}

/// Thousands of plugins, loaded, called and alive (X4): the reference gives up at about 5,450.
#[test]
fn many_plugins() {
    let module = wat::parse_str(
        r#"(module
             (import "extism:host/env" "alloc" (func $alloc (param i64) (result i64)))
             (import "extism:host/env" "output_set" (func $output_set (param i64 i64)))
             (memory 1)
             (func (export "run") (call $output_set (call $alloc (i64.const 8)) (i64.const 8))))"#,
    )
    .unwrap();
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::new(EngineConfig {
        cache_dir: Some(dir.path().join("compiled")),
        pool_instances: Some(8),
        ..EngineConfig::default()
    });
    let engine = engine.unwrap();
    let mut plugins = Vec::new();
    for n in 0..6000 {
        let plugin = engine.load(module.clone()).unwrap_or_else(|error| panic!("plugin {n}: {error}"));
        assert_eq!(plugin.call("run", "").unwrap(), [0; 8]);
        plugins.push(plugin);
    }
    for plugin in &plugins {
        assert_eq!(plugin.call("run", "").unwrap(), [0; 8]);
    }
}

/// More instances of one's own than the process has room for: an error says so, and room that is given
/// back can be used again.
#[test]
fn the_pool_is_full() {
    let engine = Engine::new(EngineConfig { pool_instances: Some(8), ..EngineConfig::default() }).unwrap();
    let module = std::fs::read(guests().join("prebuilt/kitchen.wasm")).unwrap();
    let plugin = engine.load(module).unwrap();
    let mut held: Vec<_> = (0..8).map(|_| plugin.instance().unwrap()).collect();
    let full = |plugin: &Plugin| {
        let error = plugin.instance().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Call(Fault::Busy));
        assert!(error.message().contains("all instances of this process are in use"), "{error}");
        let error = plugin.call("echo", "x").unwrap_err();
        assert_eq!(error.fault(), Fault::Busy, "{error}");
    };
    full(&plugin);
    for instance in &mut held {
        assert_eq!(instance.call("echo", "x").output, b"x");
    }
    drop(held.pop());
    assert_eq!(plugin.call("echo", "x").unwrap(), b"x");
    held.push(plugin.instance().unwrap());
    full(&plugin);
    // Another plugin does not load by then either, since loading it starts it once.
    let error = engine.load(ECHO.as_bytes()).unwrap_err();
    assert_eq!(error.fault(), Fault::Busy, "{error}");
    held.clear();
    assert_eq!(engine.load(ECHO.as_bytes()).unwrap().call("run", "x").unwrap(), b"");
}

const ECHO: &str = r#"(module (func (export "run")))"#;

/// Used instances that wait to be cleared away do not stand in anybody's way.
#[test]
fn a_small_pool_and_instances_made_ahead() {
    let engine = Engine::new(EngineConfig { pool_instances: Some(6), ..EngineConfig::default() }).unwrap();
    let module = std::fs::read(guests().join("prebuilt/kitchen.wasm")).unwrap();
    let plugin = engine.plugin(module).ready_instances(2).load().unwrap();
    for _ in 0..300 {
        assert_eq!(count(&plugin), "1");
    }
}

/// A shared plugin whose calls overlap, so that it needs an instance for each; they have four pages.
fn slow_and_shared(engine: &Engine) -> Plugin {
    let wait = cardan::HostFunction::suspending("wait", |_| async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        Ok(Vec::new())
    });
    let module = crate::support::guest_importing(
        r#"(import "extism:host/user" "wait" (func $wait (param i64) (result i64)))"#,
        r#"(global $n (mut i64) (i64.const 0))
           (func (export "run")
             (drop (call $wait (i64.const 0)))
             (global.set $n (i64.add (global.get $n) (i64.const 1)))
             (call $tell (global.get $n)) (call $told))"#,
    );
    let plugin = engine.plugin(module.as_bytes()).mode(InstanceMode::Shared).host_function(wait);
    plugin.limits(within(GENEROUS)).load().unwrap()
}

/// Seven calls at once, after which seven instances wait.
async fn burst(plugin: &Plugin) {
    let call = |plugin: Plugin| async move { plugin.call_async("run", b"").await };
    let calls: Vec<_> = (0..7).map(|_| tokio::spawn(call(plugin.clone()))).collect();
    for call in calls {
        call.await.unwrap().unwrap();
    }
    assert_eq!(plugin.ready_instances(), 7);
}

/// Its instances have five pages.
const TWO_PAGES: &str = r#"(module (memory 2)
    (func (export "grow") (result i32) (i32.sub (memory.grow (i32.const 12)) (i32.const 2))))"#;

/// After a burst a shared plugin's instances may be all that the process has room for. They make room, but
/// for one.
#[tokio::test]
async fn idle_instances_give_way() {
    let few = EngineConfig { pool_instances: Some(8), ..EngineConfig::default() };
    // Strict, for instances of few pages.
    let (isolation, plain) = (Isolation::Strict, few.clone());
    let memory =
        |pages: u64| EngineConfig { memory_bytes_max: Some(pages << 16), isolation, ..plain.clone() };
    for config in [few.clone(), memory(7 * 4)] {
        let engine = Engine::new(config).unwrap();
        let plugin = slow_and_shared(&engine);
        burst(&plugin).await;
        let other = engine.load(TWO_PAGES.as_bytes()).unwrap();
        let own = [other.instance().unwrap(), other.instance().unwrap()];
        assert_eq!(plugin.ready_instances(), 1, "the others made room");
        assert_eq!(
            crate::support::told(&plugin.call_async("run", b"").await.unwrap()),
            [2],
            "it is still it"
        );
        drop(own);
        burst(&plugin).await;
    }
    // And a guest that grows needs it more than they do.
    let engine = Engine::new(memory(7 * 4 + 5 + 1)).unwrap();
    let plugin = slow_and_shared(&engine);
    let mut own = engine.load(TWO_PAGES.as_bytes()).unwrap().instance().unwrap();
    burst(&plugin).await;
    assert_eq!(own.call_async("grow", b"").await.code, 0);
    assert_eq!(plugin.ready_instances(), 1);
}

#[test]
fn many_threads() {
    for mode in [InstanceMode::Fresh, InstanceMode::Shared] {
        let plugin = Arc::new(prebuilt("kitchen").mode(mode).ready_instances(2).load().unwrap());
        std::thread::scope(|scope| {
            for thread in 0..16 {
                let plugin = plugin.clone();
                scope.spawn(move || {
                    for call in 0..40 {
                        let text = format!("{thread} {call}");
                        assert_eq!(plugin.call("echo", &text).unwrap(), text.as_bytes());
                        if call % 10 == 0 {
                            assert_eq!(plugin.call("trap", "").unwrap_err().fault(), Fault::Trap);
                        }
                    }
                });
            }
        });
    }
}
