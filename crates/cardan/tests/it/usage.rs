//! Who waits for whom, what is used, and every kind of fault.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use cardan::{Engine, EngineConfig, ErrorKind, Fault, HostFunction, InstanceMode, Limits, Plugin};
use tokio::sync::Semaphore;

use crate::support::{GENEROUS, engine, guest, guest_importing, guests, told};

/// A plugin whose calls wait until they are let go, and how many are waiting so.
fn waiting_guest(limits: Limits) -> (Plugin, Arc<Semaphore>, Arc<AtomicUsize>) {
    let (gate, inside) = (Arc::new(Semaphore::new(0)), Arc::<AtomicUsize>::default());
    let (their_gate, their_inside) = (gate.clone(), inside.clone());
    let wait = HostFunction::suspending("wait", move |input| {
        let (gate, inside) = (their_gate.clone(), their_inside.clone());
        async move {
            inside.fetch_add(1, Ordering::SeqCst);
            let _through = gate.acquire().await;
            inside.fetch_sub(1, Ordering::SeqCst);
            Ok(input)
        }
    });
    let module = guest_importing(
        r#"(import "extism:host/user" "wait" (func $wait (param i64) (result i64)))"#,
        r#"(func (export "run") (call $say (call $wait @"done")))"#,
    );
    let plugin = engine().plugin(module.as_bytes()).limits(limits).host_function(wait).load().unwrap();
    (plugin, gate, inside)
}

#[track_caller]
fn until(what: impl Fn() -> bool) -> impl Future<Output = ()> {
    let asked = std::panic::Location::caller();
    wait_until(what, asked)
}

async fn wait_until(what: impl Fn() -> bool, asked: &std::panic::Location<'_>) {
    let started = Instant::now();
    while !what() {
        assert!(started.elapsed() < GENEROUS, "it never came: {asked}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_has_an_end() {
    let limits = Limits { instances_max: 1, queue_max: 2, deadline: Some(2 * GENEROUS), ..Limits::default() };
    let (plugin, gate, inside) = waiting_guest(limits);
    let call = || {
        let plugin = plugin.clone();
        tokio::spawn(async move { plugin.call_async("run", b"").await })
    };
    let mut served = vec![call()];
    until(|| inside.load(Ordering::SeqCst) == 1).await;
    served.extend([call(), call()]);
    until(|| plugin.usage().waiting == 2).await;
    let error = call().await.unwrap().unwrap_err();
    assert_eq!(error.fault(), Fault::Busy);
    assert!(error.message().contains("raise limits.queue"), "{error}");
    // Who gives up waiting makes room.
    served.pop().unwrap().abort();
    until(|| plugin.usage().waiting == 1).await;
    served.push(call());
    until(|| plugin.usage().waiting == 2).await;
    gate.add_permits(16);
    for call in served {
        assert_eq!(call.await.unwrap().unwrap(), b"done");
    }
    assert_eq!(plugin.usage().waiting, 0);

    let none = Limits { instances_max: 1, queue_max: 0, ..Limits::default() };
    let (plugin, gate, inside) = waiting_guest(none);
    let first = tokio::spawn({
        let plugin = plugin.clone();
        async move { plugin.call_async("run", b"").await }
    });
    until(|| inside.load(Ordering::SeqCst) == 1).await;
    assert_eq!(plugin.call_async("run", b"").await.unwrap_err().fault(), Fault::Busy);
    gate.add_permits(1);
    first.await.unwrap().unwrap();
}

#[test]
fn what_is_used_is_counted() {
    let module = guest(
        r#"(func (export "grow") (drop (memory.grow (i32.const 20))))
           (func (export "fine"))
           (func (export "trap") unreachable)"#,
    );
    let plugin = engine()
        .plugin(module.as_bytes())
        .mode(InstanceMode::Shared)
        .limits(Limits::default())
        .load()
        .unwrap();
    let start = plugin.usage();
    assert_eq!(
        (start.instances, start.waiting, start.started),
        (0, 0, 1),
        "one was made to see that it starts"
    );
    plugin.call("fine", "").unwrap();
    plugin.call("fine", "").unwrap();
    let served = plugin.usage();
    assert_eq!((served.instances, served.ready, served.started), (1, 1, 2), "{served:?}");
    let before = served.memory_bytes_max_seen;
    assert!((1 << 16..2 << 20).contains(&before), "{before}");
    plugin.call("grow", "").unwrap();
    let grown = plugin.usage().memory_bytes_max_seen;
    assert!(grown >= before + (12 << 16), "{grown}");
    plugin.call("trap", "").unwrap_err();
    let lost = plugin.usage();
    assert_eq!((lost.instances, lost.ready, lost.started), (0, 0, 2), "{lost:?}");
    assert_eq!(lost.memory_bytes_max_seen, grown, "a high-water mark");
}

/// One bound for all plugins of an engine.
#[test]
fn stack() {
    let depth = |stack_bytes: Option<u32>| {
        let config = EngineConfig { stack_bytes, pool_instances: Some(2), ..EngineConfig::default() };
        let module = guest(
            r#"(global $depth (mut i32) (i32.const 0))
               (func $down (export "down")
                 (global.set $depth (i32.add (global.get $depth) (i32.const 1))) (call $down)
                 (drop (i32.load (i32.const 0))))
               (func (export "depth") (call $tell (i64.extend_i32_u (global.get $depth))) (call $told))"#,
        );
        let plugin = Engine::new(config).unwrap().load(module.as_bytes()).unwrap();
        let mut instance = plugin.instance().unwrap();
        let report = instance.call("down", "");
        assert_eq!(report.fault, Some(Fault::Trap));
        assert!(report.error.unwrap().contains("call stack exhausted"));
        told(&instance.call("depth", "").output)[0]
    };
    let (little, usual, much) = (depth(Some(64 << 10)), depth(None), depth(Some(1 << 20)));
    assert!(little * 6 < usual && usual * 3 < much * 2, "{little} {usual} {much}");
    for bytes in [0, 4096, (1 << 20) + 1, u32::MAX] {
        let error = Engine::new(EngineConfig { stack_bytes: Some(bytes), ..EngineConfig::default() });
        let error = error.unwrap_err();
        assert!(error.message().contains("engine.stack"), "{error}");
    }
}

/// Each kind of fault, as a call brings it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_fault_is_provoked() {
    let hostile = |name: &str| engine().plugin(guests().join("hostile").join(name).with_extension("wat"));
    for fault in Fault::ALL {
        let error = match fault {
            Fault::Trap => hostile("trap_unreachable").load().unwrap().call_async("run", b"").await,
            Fault::Deadline => {
                let limits = crate::support::within(Duration::from_millis(50));
                hostile("loop_forever").limits(limits).load().unwrap().call_async("run", b"").await
            }
            Fault::Memory => hostile("memory_bomb").load().unwrap().call_async("run", b"").await,
            Fault::Denied => {
                let module = guest(
                    r#"(func (export "run")
                         (drop (call $http_request @"{\22url\22: \22http://a.b/c\22}" (i64.const 0))))"#,
                );
                engine().load(module.as_bytes()).unwrap().call_async("run", b"").await
            }
            Fault::Protocol => hostile("trap_unreachable").load().unwrap().call_async("missing", b"").await,
            Fault::Busy => {
                let limits = Limits { instances_max: 1, queue_max: 0, ..Limits::default() };
                let (plugin, gate, inside) = waiting_guest(limits);
                let first = tokio::spawn({
                    let plugin = plugin.clone();
                    async move { plugin.call_async("run", b"").await }
                });
                until(|| inside.load(Ordering::SeqCst) == 1).await;
                let second = plugin.call_async("run", b"").await;
                gate.add_permits(1);
                first.await.unwrap().unwrap();
                second
            }
            Fault::Host => {
                let broken = HostFunction::bytes("broken", |_| Err("the backend is gone".to_owned()));
                let module = guest_importing(
                    r#"(import "extism:host/user" "broken" (func $broken (param i64) (result i64)))"#,
                    r#"(func (export "run") (drop (call $broken (i64.const 0))))"#,
                );
                let plugin = engine().plugin(module.as_bytes()).host_function(broken).load().unwrap();
                plugin.call_async("run", b"").await
            }
            // The runtime knows no quarantine: whoever asks decides not to.
            Fault::Quarantined => continue,
        };
        assert_eq!(error.as_ref().err().map(cardan::Error::fault), Some(fault), "{error:?}");
    }
}

#[test]
fn a_fault_of_the_host_is_no_kind_of_link_error() {
    let error = engine().load("no such file.wasm").unwrap_err();
    assert_eq!((error.kind(), error.fault()), (ErrorKind::Source, Fault::Host));
}
