//! Large modules begin on the baseline compiler and go on with the optimising one.

use std::time::{Duration, Instant};

use cardan::{
    Circumstances, Engine, EngineConfig, Fault, Held, InstanceMode, Limits, Plugin, Question, SnapshotState,
    Tier,
};
use serde_json::json;

use crate::support::{GENEROUS, guest, told, within};

/// An engine for which everything is large.
fn engine() -> Engine {
    let config =
        EngineConfig { baseline_bytes_min: Some(0), pool_instances: Some(8), ..EngineConfig::default() };
    Engine::new(config).unwrap()
}

fn wait_for(plugin: &Plugin, tier: Tier) {
    let started = Instant::now();
    while plugin.tier() != tier {
        assert!(started.elapsed() < GENEROUS, "it stays {:?}", plugin.tier());
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Many functions, so that the optimising compiler takes its time.
fn heavy(functions: &str) -> String {
    let mut body = String::new();
    for index in 0..400 {
        body.push_str(&format!(
            "(func $f{index} (param i64) (result i64) {})",
            format!("(local.set 0 (i64.add (i64.mul (local.get 0) (i64.const {index})) (i64.const 3)))")
                .repeat(30)
                + "(local.get 0)"
        ));
    }
    guest(&format!("{body} {functions}"))
}

const COUNT: &str = r#"
  (global $calls (mut i64) (i64.const 0))
  (func (export "run")
    (call $var_set @"n" (call $put (i32.const 0) (i32.const 1)))
    (global.set $calls (i64.add (global.get $calls) (i64.const 1)))
    (call $tell (global.get $calls)) (call $tell (call $f7 (i64.const 1))) (call $told))
  (func (export "seen") (call $tell (call $var_get @"n")) (call $told))
  (func (export "spin") (loop (br 0)))"#;

#[test]
fn a_plugin_serves_before_its_best_code_is_there() {
    let engine = engine();
    let plugin =
        engine.plugin(heavy(COUNT).as_bytes()).limits(within(Duration::from_millis(300))).load().unwrap();
    assert_eq!(plugin.tier(), Tier::Baseline);
    let first = told(&plugin.call("run", "").unwrap());
    // Deadlines hold there, too.
    let started = Instant::now();
    assert_eq!(plugin.call("spin", "").unwrap_err().fault(), Fault::Deadline);
    assert!(started.elapsed() < Duration::from_secs(5));
    let made = plugin.usage().started;
    wait_for(&plugin, Tier::Optimised);
    for _ in 0..3 {
        assert_eq!(told(&plugin.call("run", "").unwrap()), first, "the same result, fresh memory");
    }
    assert_ne!(told(&plugin.call("seen", "").unwrap()), [0], "variables have moved along");
    assert!(plugin.usage().started > made, "usage goes on");
    assert_eq!(plugin.call("spin", "").unwrap_err().fault(), Fault::Deadline);
}

#[test]
fn no_call_fails_while_code_is_swapped() {
    let engine = engine();
    for _ in 0..3 {
        let plugin = engine.plugin(heavy(COUNT).as_bytes()).load().unwrap();
        let expected = told(&plugin.call("run", "").unwrap());
        let mut calls = 0;
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..8)
                .map(|_| {
                    scope.spawn(|| {
                        let mut calls = 0;
                        let mut after = 0;
                        while after < 20 {
                            assert_eq!(told(&plugin.call("run", "").unwrap()), expected);
                            calls += 1;
                            after += usize::from(plugin.tier() == Tier::Optimised);
                        }
                        calls
                    })
                })
                .collect();
            calls = workers.into_iter().map(|worker| worker.join().unwrap()).sum();
        });
        assert!(calls >= 8 * 20);
    }
}

/// A visit's instance remembers until the visit is over, on the code it began with.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_visit_goes_on_where_it_began() {
    use cardan::api::lifecycle::{PluginTick, TickEvent};
    let ticks = r#"(global $ticks (mut i32) (i32.const 0))
        (func (export "plugin_tick")
          (global.set $ticks (i32.add (global.get $ticks) (i32.const 1)))
          (if (i32.gt_u (global.get $ticks) (i32.const 2)) (then unreachable))
          (call $say @"{\22verdict\22:\22continue\22}"))"#;
    let engine = engine();
    let plugin = engine.plugin(heavy(ticks).as_bytes()).mode(InstanceMode::Visit).load().unwrap();
    assert_eq!(plugin.tier(), Tier::Baseline);
    let config = json!({});
    let event = TickEvent { plugin: "a".to_owned(), version: String::new() };
    let ask = async |held: &mut Held| {
        let about = Circumstances::of_life(&config);
        plugin.ask(held, Question::<PluginTick> { event: &event, about, entry: None, deadline: None }).await
    };
    let mut held = Held::default();
    ask(&mut held).await.unwrap();
    ask(&mut held).await.unwrap();
    wait_for(&plugin, Tier::Optimised);
    ask(&mut Held::default()).await.unwrap();
    assert_eq!(ask(&mut held).await.unwrap_err().fault(), Fault::Trap, "it has counted to three");
    ask(&mut Held::default()).await.unwrap();
}

#[test]
fn a_start_that_is_kept_comes_with_the_best_code() {
    let module = heavy(
        r#"(global $starts (mut i64) (i64.const 0))
           (func (export "_initialize") (global.set $starts (i64.add (global.get $starts) (i64.const 1))))
           (func (export "run") (call $tell (global.get $starts)) (call $told))"#,
    );
    let engine = engine();
    let plugin = engine.load(module.as_bytes()).unwrap();
    assert_eq!((plugin.tier(), plugin.snapshot_state()), (Tier::Baseline, SnapshotState::Pending));
    assert_eq!(told(&plugin.call("run", "").unwrap()), [1]);
    wait_for(&plugin, Tier::Optimised);
    assert_eq!(plugin.snapshot_state(), SnapshotState::Taken);
    assert_eq!(told(&plugin.call("run", "").unwrap()), [1]);
}

#[test]
fn plugins_that_are_optimised_at_once() {
    let tier = |engine: &Engine, module: &str, mode, limits| {
        engine.plugin(module.as_bytes()).mode(mode).limits(limits).load().unwrap().tier()
    };
    let plain = guest(r#"(func (export "run"))"#);
    let (fresh, usual) = (InstanceMode::Fresh, Limits::default);
    assert_eq!(tier(&engine(), &plain, fresh, usual()), Tier::Baseline);
    assert_eq!(tier(&engine(), &plain, InstanceMode::Shared, usual()), Tier::Optimised);
    let fuel = Limits { fuel: Some(1_000_000), ..usual() };
    assert_eq!(tier(&engine(), &plain, fresh, fuel), Tier::Optimised);
    // What the baseline compiler has not got.
    let tail = guest(r#"(func $f) (func (export "run") (return_call $f))"#);
    assert_eq!(tier(&engine(), &tail, fresh, usual()), Tier::Optimised);
    // What is small, and what is in the cache.
    let config = EngineConfig { pool_instances: Some(2), ..EngineConfig::default() };
    assert_eq!(tier(&Engine::new(config).unwrap(), &plain, fresh, usual()), Tier::Optimised);
    let dir = tempfile::tempdir().unwrap();
    let config = EngineConfig {
        baseline_bytes_min: Some(0),
        pool_instances: Some(2),
        cache_dir: Some(dir.path().join("cache")),
        ..EngineConfig::default()
    };
    let engine = Engine::new(config).unwrap();
    let plugin = engine.load(plain.as_bytes()).unwrap();
    assert_eq!(plugin.tier(), Tier::Baseline);
    wait_for(&plugin, Tier::Optimised);
    assert_eq!(engine.load(plain.as_bytes()).unwrap().tier(), Tier::Optimised);
}

/// Whoever drops a plugin, or its engine, waits for no compiler.
#[test]
fn plugins_that_are_dropped_are_not_compiled_on() {
    let engine = engine();
    let plugins: Vec<Plugin> = (0..6)
        .map(|n| engine.load(heavy(&format!("(func (export \"run{n}\"))")).as_bytes()).unwrap())
        .collect();
    let started = Instant::now();
    drop(plugins);
    let last = engine.load(heavy(r#"(func (export "last"))"#).as_bytes()).unwrap();
    drop(engine);
    assert!(started.elapsed() < GENEROUS / 2);
    wait_for(&last, Tier::Optimised);
    last.call("last", "").unwrap();
}
