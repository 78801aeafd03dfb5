//! Instances that begin where initialisation ended.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use cardan::{
    Engine, EngineConfig, Fault, HostFunction, InstanceMode, Isolation, Limits, LogLevel, PluginBuilder,
    SnapshotPolicy, SnapshotState,
};

use crate::support::{GENEROUS, Recorder, engine, guest, guest_importing, linked, prebuilt, told};

const CONTINUE: &str = r#"(call $say @"{\22verdict\22:\22continue\22}")"#;

/// An engine that always makes new instances, so that what is seen is not the work of putting them back.
fn strict() -> Engine {
    let (isolation, pool_instances) = (Isolation::Strict, Some(8));
    Engine::new(EngineConfig { isolation, pool_instances, ..EngineConfig::default() }).unwrap()
}

/// A guest that fills 1 KiB at 0x10000 when it starts, by `start`, an initialiser or `plugin_load`, and
/// counts starts and calls in globals.
fn initialising(export: &str) -> String {
    let fill = r#"
        (global.set $starts (i64.add (global.get $starts) (i64.const 1)))
        (global.set $real (f64.const 2.5))
        (drop (memory.grow (i32.const 3)))
        (memory.fill (i32.const 0x10000) (i32.const 7) (i32.const 1024))"#;
    let init = match export {
        "start" => format!("(func $begin {fill}) (start $begin)"),
        "plugin_load" => format!("(func (export \"plugin_load\") {fill} {CONTINUE})"),
        name => format!("(func (export \"{name}\") {fill})"),
    };
    guest(&format!(
        r#"(global $starts (mut i64) (i64.const 0)) (global $calls (mut i64) (i64.const 0))
        (global $real (mut f64) (f64.const 0))
        {init}
        (func (export "run")
          (global.set $calls (i64.add (global.get $calls) (i64.const 1)))
          (call $tell (global.get $starts)) (call $tell (global.get $calls))
          (call $tell (i64.trunc_f64_s (f64.mul (global.get $real) (f64.const 2))))
          (call $tell (i64.load (i32.const 0x10000)))
          (call $tell (i64.load (i32.const 0x103f8)))
          (call $tell (i64.extend_i32_u (memory.size)))
          ;; What the next call must not find.
          (i64.store (i32.const 0x10000) (i64.const 0x5ec2e7))
          (i64.store (i32.const 0x20000) (i64.const 0x5ec2e7))
          (call $tell (i64.extend_i32_u (memory.grow (i32.const 2))))
          (i64.store (i32.const 0x48000) (i64.const 0x5ec2e7))
          (global.set $real (f64.const 100))
          (call $told))
        (func (export "secrets") (call $tell (i64.load (i32.const 0x20000)))
          (drop (memory.grow (i32.const 2))) (call $tell (i64.load (i32.const 0x48000))) (call $told))"#
    ))
}

#[test]
fn calls_begin_initialised_and_pristine() {
    let strict = strict();
    for export in ["start", "_initialize", "__wasm_call_ctors", "plugin_load"] {
        for engine in [engine(), &strict] {
            let module = initialising(export);
            let plain = engine.plugin(module.as_bytes()).snapshot(SnapshotPolicy::Never).load().unwrap();
            assert_eq!(plain.snapshot_state(), SnapshotState::Off, "{export}");
            let snapped = engine.plugin(module.as_bytes()).load().unwrap();
            assert_eq!(snapped.snapshot_state(), SnapshotState::Taken, "{export}");
            let sevens = u64::from_le_bytes([7; 8]);
            for _ in 0..5 {
                for plugin in [&plain, &snapped] {
                    let found = told(&plugin.call("run", "").unwrap());
                    assert_eq!(found, [1, 1, 5, sevens, sevens, 4, 4], "{export}");
                    assert_eq!(told(&plugin.call("secrets", "").unwrap()), [0, 0], "{export}");
                }
            }
            // An instance of one's own begins so too, and then remembers.
            let mut own = snapped.instance().unwrap();
            assert_eq!(told(&own.call("run", "").output)[..2], [1, 1]);
            assert_eq!(told(&own.call("run", "").output)[..2], [1, 2]);
            assert!(!snapped.has_export("_initialize"), "it has run");
        }
    }
}

/// With a snapshot an instance can be put back also where initialisation asks for configuration.
#[test]
fn instances_with_a_snapshot_are_put_back() {
    let plugin = engine().load(initialising("_initialize").as_bytes()).unwrap();
    if !cfg!(target_os = "linux") {
        return;
    }
    plugin.call("secrets", "").unwrap();
    let before = plugin.usage().started;
    for _ in 0..20 {
        plugin.call("secrets", "").unwrap();
    }
    let made = plugin.usage().started - before;
    assert!(made <= 2, "{made} instances for 20 calls");
}

#[track_caller]
fn check_refused(plugin: PluginBuilder, why: &str) {
    let plugin = plugin.load().unwrap();
    match plugin.snapshot_state() {
        SnapshotState::Refused(reason) => assert!(reason.contains(why), "{reason}"),
        other => panic!("{other:?}"),
    }
    plugin.call("run", "").unwrap();
}

#[test]
fn starts_that_ask_are_not_kept() {
    let asking =
        |body: &str| guest(&format!(r#"(func (export "_initialize") {body}) (func (export "run"))"#));
    let load = |module: &str| engine().plugin(module.as_bytes());
    check_refused(load(&asking(r#"(drop (call $var_get @"seen"))"#)), "extism:host/env::var_get");
    check_refused(
        load(&asking(r#"(call $var_set @"seen" @"yes")"#)),
        "extism:host/env::var_set while it started",
    );
    let clock = r#"(module
        (import "wasi_snapshot_preview1" "clock_time_get" (func $clock (param i32 i64 i32) (result i32)))
        (memory (export "memory") 1)
        (func (export "_initialize") (drop (call $clock (i32.const 0) (i64.const 1) (i32.const 8))))
        (func (export "run") (result i32) (i64.eqz (i64.load (i32.const 8)))))"#;
    check_refused(load(clock), "clock_time_get");
    // `always` keeps the first answer.
    let always = load(clock).snapshot(SnapshotPolicy::Always).load().unwrap();
    assert_eq!(always.snapshot_state(), SnapshotState::Taken);
    always.call("run", "").unwrap();

    // A grant of the embedder's is nobody else's business, and asked once for each instance as before.
    let asked = Arc::<AtomicUsize>::default();
    let theirs = asked.clone();
    let count = HostFunction::bytes("count", move |_| {
        theirs.fetch_add(1, Ordering::SeqCst);
        Ok(Vec::new())
    });
    let module = guest_importing(
        r#"(import "extism:host/user" "count" (func $count (param i64) (result i64)))"#,
        r#"(func (export "_initialize") (drop (call $count (i64.const 0)))) (func (export "run"))"#,
    );
    check_refused(load(&module).host_function(count), "extism:host/user::count");
    assert!((1..=2).contains(&asked.load(Ordering::SeqCst)), "the trial asks nobody");
}

#[test]
fn guests_that_cannot_be_written_down() {
    let load = |module: &str| engine().plugin(module.as_bytes());
    for body in [
        "(table.set (i32.const 0) (ref.null func))",
        "(drop (table.grow (ref.null func) (i32.const 1)))",
        "(elem.drop 0)",
        "(data.drop 0)",
        "(table.copy (i32.const 0) (i32.const 1) (i32.const 1))",
    ] {
        let module = format!(
            r#"(module (memory (export "memory") 1) (table 4 funcref) (elem func $other) (data "x")
                 (func $other) (func (export "_initialize") {body}) (func (export "run")))"#
        );
        check_refused(load(&module), "its calls can change more than");
    }
    check_refused(
        load(
            r#"(module (global (mut funcref) (ref.null func)) (func (export "_initialize")) (func (export "run")))"#,
        ),
        "its calls can change more than",
    );
    let main = r#"(module (import "side" "f" (func)) (func (export "_initialize")) (func (export "run")))"#;
    let several = linked(&[("side", r#"(module (func (export "f")))"#), ("main", main)]);
    check_refused(engine().plugin(several), "several modules");
    let both = r#"(module (func (export "_initialize")) (func (export "_start")) (func (export "run")))"#;
    check_refused(load(both), "it is a program");
    let init = guest(r#"(func (export "_initialize")) (func (export "run"))"#);
    let budgeted = Limits { growth_pages_max: Some(100), ..Limits::default() };
    check_refused(load(&init).limits(budgeted), "max_pages");

    let state = |plugin: PluginBuilder| plugin.load().unwrap().snapshot_state();
    assert_eq!(state(load(&init).mode(InstanceMode::Visit)), SnapshotState::Off);
    assert_eq!(state(load(&init).mode(InstanceMode::Shared)), SnapshotState::Off);
    assert_eq!(state(load(&guest(r#"(func (export "run"))"#))), SnapshotState::NotNeeded);
    let command = r#"(module (func (export "_start")))"#;
    assert_eq!(state(load(command)), SnapshotState::NotNeeded);
}

/// What the start says is heard once, whether the first try counts or not.
#[test]
fn the_log_of_a_start() {
    let lines = |body: &str| {
        let module = guest(&format!(
            r#"(func (export "_initialize") (call $log_info @"hello") {body}) (func (export "run"))"#
        ));
        let recorder = Recorder::at(Some(LogLevel::Info));
        engine().plugin(module.as_bytes()).log(recorder.clone()).config("run", body).load().unwrap();
        recorder.take()
    };
    let hello = [(LogLevel::Info, "hello".to_owned())];
    assert_eq!(lines(""), hello);
    assert_eq!(lines(r#"(drop (call $var_get @"seen"))"#), hello);
}

/// What configuration decides is not another configuration's.
#[test]
fn configuration_is_part_of_what_is_kept() {
    let module = guest(
        r#"(global $key (mut i64) (i64.const 0))
           (func (export "_initialize") (global.set $key (call $load_u64 (call $config_get @"key"))))
           (func (export "run") (call $tell (global.get $key)) (call $told))"#,
    );
    for _ in 0..2 {
        for key in ["first---", "second--"] {
            let plugin = engine().plugin(module.as_bytes()).config("key", key).load().unwrap();
            assert_eq!(plugin.snapshot_state(), SnapshotState::Taken);
            for _ in 0..3 {
                assert_eq!(plugin.call("run", "").unwrap(), key.as_bytes());
            }
        }
    }
}

#[test]
fn limits_hold_for_what_is_kept() {
    let module = |pages: u32| {
        guest(&format!(
            r#"(func (export "_initialize") (drop (memory.grow (i32.const {pages}))))
               (func (export "run") (call $tell (i64.extend_i32_u (memory.size))) (call $told))
               (func (export "grow") (drop (memory.grow (i32.const 8))) (drop (memory.grow (i32.const 9))))"#
        ))
    };
    let limits = Limits { memory_bytes_max: 20 << 16, ..Limits::default() };
    let load = |pages| engine().plugin(module(pages).as_bytes()).limits(limits.clone()).load();
    let plugin = load(10).unwrap();
    assert_eq!(plugin.snapshot_state(), SnapshotState::Taken);
    for _ in 0..3 {
        assert_eq!(told(&plugin.call("run", "").unwrap()), [11]);
        assert_eq!(plugin.call("grow", "").unwrap_err().fault(), Fault::Memory);
    }
    assert_eq!(load(30).unwrap_err().fault(), Fault::Memory, "the start itself");
    let looping = guest(r#"(func (export "_initialize") (loop (br 0))) (func (export "run"))"#);
    let limits = Limits { start_deadline: Duration::from_millis(60), ..Limits::default() };
    let error = engine().plugin(looping.as_bytes()).limits(limits).load().unwrap_err();
    assert_eq!(error.fault(), Fault::Deadline);
}

/// Guests as compilers make them.
#[test]
fn compiled_guests() {
    let state = |name: &str| {
        let plugin = prebuilt(name).load().unwrap();
        (plugin.snapshot_state(), plugin)
    };
    // Go's runtime seeds itself.
    let (found, _) = state("redact-go");
    assert!(
        matches!(&found, SnapshotState::Refused(why) if why.contains("wasi_snapshot_preview1::")),
        "{found:?}"
    );
    let always = prebuilt("redact-go").snapshot(SnapshotPolicy::Always).load().unwrap();
    let plain = prebuilt("redact-go").snapshot(SnapshotPolicy::Never).load().unwrap();
    let event = r#"{"hook":"pre_flight","config":{"words":["zeus"],"max_messages":9},
        "body":{"messages":[{"role":"user","content":"zeus said so"}]}}"#;
    let agree = || {
        for _ in 0..3 {
            let (kept, anew) = (always.call("handle", event).unwrap(), plain.call("handle", event).unwrap());
            assert_eq!(String::from_utf8_lossy(&kept), String::from_utf8_lossy(&anew));
        }
    };
    agree();
    // It is large, so the code comes later than the snapshot.
    let started = Instant::now();
    while always.snapshot_state() == SnapshotState::Pending {
        assert!(started.elapsed() < 6 * GENEROUS, "it never came");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(always.snapshot_state(), SnapshotState::Taken);
    agree();
    for name in ["limit-c", "pii-mask", "wasi-files", "kitchen", "llmproxy-template"] {
        assert_eq!(state(name).0, SnapshotState::NotNeeded, "{name}");
    }
}

/// The second load finds the code and runs nothing.
#[test]
fn a_snapshot_is_cached() {
    let dir = tempfile::tempdir().unwrap();
    let config = EngineConfig {
        cache_dir: Some(dir.path().join("cache")),
        pool_instances: Some(4),
        ..EngineConfig::default()
    };
    let engine = Engine::new(config).unwrap();
    let module = guest(
        r#"(global $starts (mut i64) (i64.const 0))
           (func (export "_initialize") (call $log_info @"started") (global.set $starts (i64.const 1)))
           (func (export "run") (call $tell (global.get $starts)) (call $told))"#,
    );
    let heard: Vec<usize> = (0..2)
        .map(|_| {
            let recorder = Recorder::at(Some(LogLevel::Info));
            let plugin = engine.plugin(module.as_bytes()).log(recorder.clone()).load().unwrap();
            assert_eq!(plugin.snapshot_state(), SnapshotState::Taken);
            assert_eq!(told(&plugin.call("run", "").unwrap()), [1]);
            recorder.take().len()
        })
        .collect();
    assert_eq!(heard, [1, 0]);
}

/// What `always` keeps is this process's, and this load's.
#[test]
fn what_was_told_is_not_cached() {
    let dir = tempfile::tempdir().unwrap();
    let config = EngineConfig {
        cache_dir: Some(dir.path().join("cache")),
        pool_instances: Some(4),
        ..EngineConfig::default()
    };
    let engine = Engine::new(config).unwrap();
    let module = r#"(module
        (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
        (import "extism:host/env" "alloc" (func $alloc (param i64) (result i64)))
        (import "extism:host/env" "store_u64" (func $store (param i64 i64)))
        (import "extism:host/env" "output_set" (func $output (param i64 i64)))
        (memory (export "memory") 1)
        (func (export "_initialize") (drop (call $random (i32.const 0) (i32.const 8))))
        (func (export "run") (local $at i64)
          (local.set $at (call $alloc (i64.const 8)))
          (call $store (local.get $at) (i64.load (i32.const 0)))
          (call $output (local.get $at) (i64.const 8))))"#;
    let load = |policy| engine.plugin(module.as_bytes()).snapshot(policy).load().unwrap();
    let seeds: Vec<u64> = (0..2)
        .map(|_| {
            let plugin = load(SnapshotPolicy::Always);
            let seeds: Vec<u64> = (0..3).map(|_| told(&plugin.call("run", "").unwrap())[0]).collect();
            assert!(seeds.iter().all(|seed| *seed == seeds[0] && *seed != 0), "one start: {seeds:?}");
            seeds[0]
        })
        .collect();
    assert_ne!(seeds[0], seeds[1], "each load asks anew");
    let plugin = load(SnapshotPolicy::Auto);
    assert_ne!(plugin.call("run", "").unwrap(), plugin.call("run", "").unwrap(), "a seed for each instance");
}

/// One plugin in every convention of core modules: what it does at its load is done once in each.
#[test]
fn conventions() {
    for guest in ["universal-extism", "universal-packed", "universal-capability"] {
        let load = |snapshot| {
            let builder = prebuilt(guest)
                .snapshot(snapshot)
                .config("name", "ada")
                .limits(Limits { memory_bytes_max: 64 << 20, ..crate::support::within(GENEROUS) });
            builder.load().unwrap()
        };
        let (once, each) = (load(SnapshotPolicy::Auto), load(SnapshotPolicy::Never));
        assert_eq!(once.snapshot_state(), SnapshotState::Taken, "{guest}");
        let event = r#"{"hook":"http.request","phase":"pre_flight","visit":{"id":"v","session":"s"},"attributes":{},
            "config":{"name":"ada"},"request":{"method":"GET","host":"h","path":"/","query":null,"client":"192.0.2.1:1",
            "headers":{"x-do":"respond"}}}"#;
        let answers: Vec<Vec<u8>> = [&once, &once, &each]
            .map(|plugin| {
                plugin.call("http_request", event).unwrap_or_else(|error| panic!("{guest}: {error}"))
            })
            .into();
        assert!(String::from_utf8_lossy(&answers[0]).contains("hello from ada"), "{guest}: {answers:?}");
        assert!(answers.windows(2).all(|pair| pair[0] == pair[1]), "{guest}: {answers:?}");
    }
}
