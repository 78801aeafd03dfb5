//! Deadlines, cancellation, and giving way: nobody waits longer for a guest than was said.

use std::num::NonZero;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use cardan::{
    Engine, EngineConfig, ErrorKind, Fault, HostFunction, InstanceMode, Limits, Plugin, PluginInstance,
    Report, SnapshotPolicy,
};

use crate::support::{GENEROUS, Linkage, engine, guest, guest_importing, guests, prebuilt, within};

const SOON: Duration = Duration::from_millis(120);

/// A guest that computes, and one that waits: for a host function, and in WASI.
fn endless() -> Vec<(&'static str, Plugin)> {
    let forever = HostFunction::suspending("wait", |_| std::future::pending());
    let waits = guest_importing(
        r#"(import "extism:host/user" "wait" (func $wait (param i64) (result i64)))"#,
        r#"(func (export "run") (drop (call $wait (i64.const 0)))) (func (export "ok"))"#,
    );
    let computes = guest(r#"(func (export "run") (loop (br 0))) (func (export "ok"))"#);
    let sleeps = std::fs::read_to_string(guests().join("hostile/sleep_long.wat")).unwrap();
    let sleeps = sleeps.replacen("(memory", r#"(func (export "ok")) (memory"#, 1);
    let mut plugins = Vec::new();
    for linkage in Linkage::BOTH {
        let limited = |module: &str| linkage.plugin(module.as_bytes()).limits(within(SOON));
        plugins.push(("computes", limited(&computes).load().unwrap()));
        plugins.push(("waits", limited(&waits).host_function(forever.clone()).load().unwrap()));
        plugins.push(("sleeps", limited(&sleeps).load().unwrap()));
    }
    plugins
}

#[track_caller]
fn check_timeout(what: &str, report: &Report) {
    assert_eq!((report.code, report.error.as_deref()), (134, Some("timeout")), "{what}");
    assert_eq!(report.fault, Some(Fault::Deadline), "{what}");
}

#[test]
fn deadlines_fire_whatever_the_guest_does() {
    for (what, plugin) in endless() {
        let start = Instant::now();
        assert_eq!(plugin.call("run", "").unwrap_err().kind(), ErrorKind::Call(Fault::Deadline), "{what}");
        assert!(start.elapsed() >= SOON, "{what} ended after {:?}", start.elapsed());
        let mut instance = plugin.instance().unwrap();
        for _ in 0..2 {
            check_timeout(what, &instance.call("run", ""));
            assert_eq!(instance.call("ok", "").code, 0, "{what} can be called again");
        }
    }
}

/// Calls that may take long are never on the threads that serve others, however well the plugin behaved before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn patient_calls_leave_the_threads_to_others() {
    let module = guest(r#"(func (export "run") (loop (br 0))) (func (export "ok"))"#);
    let patient =
        engine().plugin(module.as_bytes()).limits(within(Duration::from_secs(3_600))).load().unwrap();
    for _ in 0..20 {
        patient.call_async("ok", b"").await.unwrap();
    }
    let endless: Vec<_> = (0..40)
        .map(|_| {
            let plugin = patient.clone();
            tokio::spawn(async move { plugin.call_async("run", b"").await })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(200)).await;
    let other = engine().plugin(module.as_bytes()).limits(within(GENEROUS)).load().unwrap();
    tokio::time::timeout(GENEROUS, other.call_async("ok", b"")).await.unwrap().unwrap();
    for call in endless {
        call.abort();
        // A client that leaves takes its guest with it.
        assert!(tokio::time::timeout(GENEROUS, call).await.unwrap().unwrap_err().is_cancelled());
    }
}

/// The same on the caller's stack, where a plugin runs after some calls that went well.
#[test]
fn deadlines_fire_inline() {
    let module = guest(r#"(func (export "run") (loop (br 0))) (func (export "ok"))"#);
    for _ in 0..3 {
        let plugin = engine().plugin(module.as_bytes()).limits(within(SOON)).load().unwrap();
        for _ in 0..20 {
            plugin.call("ok", "").unwrap();
        }
        for _ in 0..3 {
            let start = Instant::now();
            assert_eq!(plugin.call("run", "").unwrap_err().fault(), Fault::Deadline);
            assert!(start.elapsed() >= SOON);
            plugin.call("ok", "").unwrap();
        }
    }
}

/// The clock sleeps while no guest runs. Neither a call nor a start takes the time it slept for its own.
#[test]
fn after_a_long_pause() {
    let busy = r#"(func $busy (local $i i32)
        (loop $more
          (local.set $i (i32.add (local.get $i) (i32.const 1)))
          (br_if $more (i32.lt_u (local.get $i) (i32.const 30000000)))))"#;
    let module =
        guest(&format!(r#"{busy} (func (export "run") (call $busy)) (export "_initialize" (func $busy))"#));
    let limits = Limits { deadline: Some(GENEROUS), start_deadline: GENEROUS, ..Limits::default() };
    // An engine of its own: other tests would keep its clock awake.
    let own =
        cardan::Engine::new(cardan::EngineConfig { pool_instances: Some(4), ..Default::default() }).unwrap();
    let plugin = own.plugin(module.as_bytes()).limits(limits).load().unwrap();
    let short = Limits { deadline: Some(Duration::from_millis(600)), ..Limits::default() };
    let hurried = own.plugin(guest(busy).as_bytes()).limits(short.clone()).load();
    drop(hurried.unwrap());
    std::thread::sleep(Duration::from_millis(1500));
    plugin.call("run", "").unwrap();
    // And it wakes up for deadlines.
    let endless =
        own.plugin(guest(r#"(func (export "run") (loop (br 0)))"#).as_bytes()).limits(short).load().unwrap();
    std::thread::sleep(Duration::from_millis(500));
    let start = Instant::now();
    assert_eq!(endless.call("run", "").unwrap_err().fault(), Fault::Deadline);
    assert!(start.elapsed() >= Duration::from_millis(590), "{:?}", start.elapsed());
}

/// A deadline of 0 stops loops at once; what returns at once is not stopped.
#[test]
fn a_deadline_of_zero() {
    let module = guest(r#"(func (export "run") (loop (br 0))) (func (export "ok"))"#);
    for linkage in Linkage::BOTH {
        let plugin = linkage.plugin(module.as_bytes()).limits(within(Duration::ZERO)).load().unwrap();
        // A call may be unlucky on a machine that gives it no time.
        let succeed = (0..30).filter(|_| plugin.call("ok", "").is_ok()).count();
        assert!(succeed > 20, "{linkage:?}: {succeed} of 30 calls succeed");
        assert_eq!(plugin.call("run", "").unwrap_err().fault(), Fault::Deadline, "{linkage:?}");
    }
}

fn cancelled(instance: &mut PluginInstance) -> Report {
    let cancel = instance.cancel_handle();
    // A request before the call is for none.
    cancel.cancel();
    let stop = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(50));
        cancel.cancel();
    });
    let report = instance.call("run", "");
    stop.join().unwrap();
    report
}

#[test]
fn cancelling_ends_what_a_deadline_would() {
    for (what, plugin) in endless() {
        // Far beyond the deadline of these plugins, which ends them otherwise.
        let mut instance = plugin.instance().unwrap();
        check_timeout(what, &instance.call("run", ""));
        drop(plugin);
    }
    let forever = HostFunction::suspending("wait", |_| std::future::pending());
    let waits = guest_importing(
        r#"(import "extism:host/user" "wait" (func $wait (param i64) (result i64)))"#,
        r#"(func (export "run") (drop (call $wait (i64.const 0)))) (func (export "ok"))"#,
    );
    let computes = guest(r#"(func (export "run") (loop (br 0))) (func (export "ok"))"#);
    let sleeps = std::fs::read(guests().join("hostile/sleep_long.wat")).unwrap();
    for linkage in Linkage::BOTH {
        // No deadline at all.
        let waits = linkage.plugin(waits.as_bytes()).host_function(forever.clone()).load().unwrap();
        let computes = linkage.plugin(computes.as_bytes()).load().unwrap();
        let sleeps = linkage.plugin(&sleeps).load().unwrap();
        for (what, plugin) in [("waits", waits), ("computes", computes), ("sleeps", sleeps)] {
            let mut instance = plugin.instance().unwrap();
            check_timeout(what, &cancelled(&mut instance));
            check_timeout(what, &cancelled(&mut instance));
            if what != "sleeps" {
                assert_eq!(instance.call("ok", "").code, 0, "{what}: a later call is not affected");
            }
        }
    }
}

/// Stopping one of several calls of the same plugin stops no other (X11).
#[test]
fn only_the_one_that_is_meant() {
    let module = guest(
        r#"(func (export "run") (loop (br 0)))
           (func (export "work") (result i32) (local $i i32)
             (loop $more
               (local.set $i (i32.add (local.get $i) (i32.const 1)))
               (br_if $more (i32.lt_u (local.get $i) (i32.const 100000000))))
             (i32.const 0))"#,
    );
    let plugin = engine().plugin(module.as_bytes()).limits(within(GENEROUS)).load().unwrap();
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..3)
            .map(|_| {
                let plugin = &plugin;
                scope.spawn(move || plugin.instance().unwrap().call("work", ""))
            })
            .collect();
        let mut stopped = plugin.instance().unwrap();
        check_timeout("the one", &cancelled(&mut stopped));
        for worker in workers {
            assert_eq!(worker.join().unwrap().code, 0);
        }
    });
}

/// How often another task runs on the only thread while `call` takes its time.
async fn ticks_beside(
    call: impl Future<Output = Result<Vec<u8>, cardan::Error>>,
) -> (u32, Result<Vec<u8>, Fault>) {
    let ticks = Arc::new(AtomicU32::new(0));
    let counter = ticks.clone();
    let other = tokio::spawn(async move {
        loop {
            tokio::time::sleep(Duration::from_millis(2)).await;
            counter.fetch_add(1, Ordering::Relaxed);
        }
    });
    let result = call.await.map_err(|error| error.fault());
    other.abort();
    (ticks.load(Ordering::Relaxed), result)
}

#[tokio::test(flavor = "current_thread")]
async fn a_guest_that_computes_gives_way() {
    let module = guest(r#"(func (export "run") (loop (br 0))) (func (export "ok"))"#);
    let deadline = Duration::from_millis(300);
    for linkage in Linkage::BOTH {
        let plugin = linkage.plugin(module.as_bytes()).limits(within(deadline)).load().unwrap();
        let (ticks, result) = ticks_beside(plugin.call_async("run", b"")).await;
        assert_eq!(result, Err(Fault::Deadline));
        assert!(ticks > 5, "{linkage:?}: the other task ran {ticks} times");
    }
    // A plugin that has earned its caller's stack keeps it for one slow call, and for no other.
    let plugin = engine().plugin(module.as_bytes()).limits(within(deadline)).load().unwrap();
    for _ in 0..20 {
        plugin.call_async("ok", b"").await.unwrap();
    }
    let (pinned, result) = ticks_beside(plugin.call_async("run", b"")).await;
    assert_eq!(result, Err(Fault::Deadline));
    assert!(pinned <= 2, "the call was not on the caller's stack: {pinned}");
    for _ in 0..2 {
        let (ticks, result) = ticks_beside(plugin.call_async("run", b"")).await;
        assert_eq!(result, Err(Fault::Deadline));
        assert!(ticks > 5, "the other task ran {ticks} times");
    }
}

#[tokio::test(flavor = "current_thread")]
async fn a_guest_that_waits_gives_way() {
    for (what, plugin) in endless().into_iter().filter(|(what, _)| *what != "computes") {
        let (ticks, result) = ticks_beside(plugin.call_async("run", b"")).await;
        assert_eq!(result, Err(Fault::Deadline), "{what}");
        assert!(ticks > 5, "{what}: the other task ran {ticks} times");
    }
}

/// Many waiting calls on one thread take as long as one.
#[tokio::test(flavor = "current_thread")]
async fn waiting_calls_overlap() {
    let module = guest_importing(
        r#"(import "extism:host/user" "nap" (func $nap (param i64) (result i64)))"#,
        r#"(func (export "run") (call $say (call $nap (call $input_offset))))"#,
    );
    let napping = Arc::new(AtomicU32::new(0));
    let most = Arc::new(AtomicU32::new(0));
    let nap = {
        let (napping, most) = (napping.clone(), most.clone());
        HostFunction::suspending("nap", move |input| {
            let (napping, most) = (napping.clone(), most.clone());
            async move {
                most.fetch_max(napping.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(100)).await;
                napping.fetch_sub(1, Ordering::SeqCst);
                Ok(input)
            }
        })
    };
    let plugin = engine().plugin(module.as_bytes()).host_function(nap).load().unwrap();
    let calls: Vec<_> = (0..50)
        .map(|n| {
            let plugin = plugin.clone();
            tokio::spawn(async move { plugin.call_async("run", n.to_string().as_bytes()).await.unwrap() })
        })
        .collect();
    for (n, call) in calls.into_iter().enumerate() {
        assert_eq!(call.await.unwrap(), n.to_string().into_bytes());
    }
    assert!(most.load(Ordering::SeqCst) > 25, "{} at once", most.load(Ordering::SeqCst));
}

/// A guest that starts for ever does not load, and gives way meanwhile as every guest.
#[test]
fn starts_have_a_deadline() {
    let limits = Limits { start_deadline: SOON, deadline: Some(GENEROUS), ..Limits::default() };
    let waits = r#"(import "extism:host/user" "wait" (func $wait (param i64) (result i64)))"#;
    let forever = HostFunction::suspending("wait", |_| std::future::pending());
    for linkage in Linkage::BOTH {
        for body in ["(loop (br 0))", "(drop (call $wait (i64.const 0)))"] {
            for entry in [
                "(start $f)",
                r#"(export "_initialize" (func $f))"#,
                r#"(export "__wasm_call_ctors" (func $f))"#,
            ] {
                let module = guest_importing(waits, &format!("(func $f {body}) {entry}"));
                let loading = linkage.plugin(module.as_bytes()).limits(limits.clone());
                let error = loading.host_function(forever.clone()).load().unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Start(Fault::Deadline), "{linkage:?} {body} {entry}");
                assert_eq!(error.message(), "timeout while starting");
            }
        }
    }
}

/// A slow start in a fresh instance does not pin its caller's thread.
#[tokio::test(flavor = "current_thread")]
async fn a_guest_that_starts_slowly_gives_way() {
    let module = guest(
        r#"(func (export "_initialize") (local $i i32)
             (loop $more
               (local.set $i (i32.add (local.get $i) (i32.const 1)))
               (br_if $more (i32.lt_u (local.get $i) (i32.const 200000000)))))
           (func (export "run"))"#,
    );
    let limits = Limits { start_deadline: GENEROUS, ..Limits::default() };
    let plugin = engine().plugin(module.as_bytes()).limits(limits);
    let plugin = plugin.snapshot(SnapshotPolicy::Never).load().unwrap();
    let start = Instant::now();
    let (ticks, result) = ticks_beside(plugin.call_async("run", b"")).await;
    assert_eq!(result, Ok(Vec::new()));
    assert!(u128::from(ticks) * 20 >= start.elapsed().as_millis(), "{ticks} in {:?}", start.elapsed());
}

/// Under an executor that is not Tokio's, and blocking inside of one that is.
#[test]
fn any_executor() {
    let module = guest_importing(
        r#"(import "extism:host/user" "nap" (func $nap (param i64) (result i64)))"#,
        r#"(func (export "run") (call $say (call $nap (call $input_offset))))"#,
    );
    let nap = HostFunction::suspending("nap", |input| async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        Ok(input)
    });
    let limits = Limits { instances_max: 1, ..within(GENEROUS) };
    let plugin = engine().plugin(module.as_bytes()).limits(limits).host_function(nap).load().unwrap();
    let sleeper = prebuilt("wasi-files").limits(within(GENEROUS)).load().unwrap();
    let both = || {
        assert_eq!(plugin.call("run", "x").unwrap(), b"x");
        assert!(sleeper.call("sleep_ms", "20").unwrap().starts_with(b"slept"));
    };
    both();
    // By hand: a waker that unparks this thread.
    assert_eq!(poll_to_end(plugin.call_async("run", b"y")).unwrap(), b"y");
    assert!(poll_to_end(sleeper.call_async("sleep_ms", b"20")).unwrap().starts_with(b"slept"));
    // On a runtime whose only thread this then is.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { both() });
    runtime.block_on(async { assert_eq!(plugin.call_async("run", b"z").await.unwrap(), b"z") });
    // On one without timers.
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async { both() });
}

fn poll_to_end<F: Future>(future: F) -> F::Output {
    struct Unpark(std::thread::Thread);
    impl std::task::Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Arc::new(Unpark(std::thread::current())).into();
    let mut context = std::task::Context::from_waker(&waker);
    let mut future = std::pin::pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            std::task::Poll::Ready(output) => return output,
            std::task::Poll::Pending => std::thread::park(),
        }
    }
}

/// What waiting for an instance took is not there for the call any more.
#[test]
fn the_deadline_counts_from_the_call() {
    let module = guest(r#"(func (export "run") (loop (br 0)))"#);
    let limits = Limits { instances_max: 1, deadline: Some(Duration::from_millis(400)), ..Limits::default() };
    let plugin = engine().plugin(module.as_bytes()).mode(InstanceMode::Fresh).limits(limits).load().unwrap();
    std::thread::scope(|scope| {
        let start = Instant::now();
        let calls: Vec<_> =
            (0..2).map(|_| scope.spawn(|| plugin.call("run", "").unwrap_err().fault())).collect();
        let mut faults: Vec<_> = calls.into_iter().map(|call| call.join().unwrap()).collect();
        faults.sort_by_key(|fault| fault.label());
        // The second one gets the instance when hardly any time is left, or just not.
        assert!(faults.contains(&Fault::Deadline), "{faults:?}");
        assert!(start.elapsed() < Duration::from_millis(760), "{:?}", start.elapsed());
    });
}

/// A guest's function that computes until its deadline, and one that computes `n` rounds of some milliseconds.
const COMPUTES: &str = r#"
    (func $rounds (param $n i32) (local $i i32)
      (loop $next
        (local.set $i (i32.add (local.get $i) (i32.const 1)))
        (br_if $next (i32.lt_u (local.get $i) (i32.mul (local.get $n) (i32.const 1000000))))))
    (func (export "long") (call $rounds (i32.const 40)))
    (func (export "run") (loop (br 0)))"#;

fn one_long_call() -> Engine {
    Engine::new(EngineConfig { long_calls_max: NonZero::new(1), ..EngineConfig::default() }).unwrap()
}

/// However many wait for a turn: their deadlines are theirs, and those who leave take their place in the line along.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiting_for_a_turn_is_not_waiting_for_ever() {
    let engine = one_long_call();
    let load = |limits: Limits| engine.plugin(guest(COMPUTES).as_bytes()).limits(limits).load().unwrap();
    let (due, patient) = (load(within(SOON)), load(within(GENEROUS)));
    let call = |plugin: &Plugin| {
        let plugin = plugin.clone();
        tokio::spawn(async move { plugin.call_async("run", b"").await })
    };
    let left: Vec<_> = (0..20).map(|_| call(&patient)).collect();
    let overdue: Vec<_> = (0..100).map(|_| call(&due)).collect();
    for call in overdue {
        let outcome = tokio::time::timeout(GENEROUS / 2, call).await.unwrap().unwrap();
        assert_eq!(outcome.unwrap_err().kind(), ErrorKind::Call(Fault::Deadline));
    }
    for call in left {
        call.abort();
        let _ = call.await;
    }
    let plugin = load(within(GENEROUS));
    plugin.call_async("long", b"").await.unwrap();
}

/// Whoever waits for another plugin has no turn meanwhile, or that one would never get it.
#[test]
fn plugins_inside_of_each_other_share_one_turn() {
    let engine = one_long_call();
    let load = |module: &str, functions: Vec<HostFunction>| {
        // Patient ones run on stacks of their own.
        let builder = engine.plugin(module.as_bytes()).limits(within(GENEROUS));
        functions
            .into_iter()
            .fold(builder, |builder, function| builder.host_function(function))
            .load()
            .unwrap()
    };
    let inner = load(&guest(COMPUTES), Vec::new());
    let asks = guest_importing(
        r#"(import "extism:host/user" "ask" (func $ask (param i64) (result i64)))"#,
        &format!(
            r#"{COMPUTES} (func (export "both") (call $rounds (i32.const 40)) (drop (call $ask (i64.const 0)))
                   (call $rounds (i32.const 40)))"#
        ),
    );
    let (blocking, suspending) = (inner.clone(), inner);
    let kinds = [
        HostFunction::bytes("ask", move |_| blocking.call("long", "").map_err(|error| error.to_string())),
        HostFunction::suspending("ask", move |_| {
            let inner = suspending.clone();
            async move { inner.call_async("long", b"").await.map_err(|error| error.to_string()) }
        }),
    ];
    for function in kinds {
        load(&asks, vec![function]).call("both", "").unwrap();
    }
}

/// A guest that sleeps does not compute: whatever it did before, its turn is somebody else's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sleeping_is_no_turn() {
    let sleeps = std::fs::read_to_string(guests().join("hostile/sleep_long.wat")).unwrap();
    let rounds = COMPUTES.split("(func (export").next().unwrap();
    let sleeps = sleeps.replacen("(memory", &format!("{rounds} (memory"), 1).replacen(
        "(call $poll_oneoff",
        "(call $rounds (i32.const 20)) (call $poll_oneoff",
        1,
    );
    let engine = one_long_call();
    let limits = || within(Duration::from_secs(3_600));
    let sleeper = engine.plugin(sleeps.as_bytes()).limits(limits()).load().unwrap();
    let computes = engine.plugin(guest(COMPUTES).as_bytes()).limits(limits()).load().unwrap();
    let asleep: Vec<_> = (0..4)
        .map(|_| {
            let plugin = sleeper.clone();
            tokio::spawn(async move { plugin.call_async("run", b"").await })
        })
        .collect();
    for _ in 0..5 {
        tokio::time::timeout(GENEROUS, computes.call_async("long", b"")).await.unwrap().unwrap();
    }
    assert!(asleep.iter().all(|call| !call.is_finished()));
    asleep.iter().for_each(tokio::task::JoinHandle::abort);
}
