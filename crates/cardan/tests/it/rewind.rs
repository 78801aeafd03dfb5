//! Instances that are put back to their beginning: nobody can tell them from new ones.

use std::time::Duration;

use cardan::{Engine, EngineConfig, Held, HostFunction, InstanceMode, Isolation, Plugin};

use crate::support::{engine, guest, guest_importing, prebuilt, told};
use crate::visits::ask;

/// Loads a guest once so that its instances are put back, and once so that each is new.
fn both(functions: &str) -> [(&'static str, Plugin); 2] {
    let strict = EngineConfig { isolation: Isolation::Strict, ..EngineConfig::default() };
    let strict = Engine::new(strict).unwrap();
    let load = |engine: &Engine| {
        engine.plugin(guest(functions).as_bytes()).mode(InstanceMode::Fresh).load().unwrap()
    };
    [("put back", load(engine())), ("new", load(&strict))]
}

/// What `run` tells in one call, and in each of many more: the same.
fn check(what: &str, functions: &str, expected: &[u64]) {
    for (how, plugin) in both(functions) {
        for call in 0..40 {
            assert_eq!(told(&plugin.call("run", "in").unwrap()), expected, "{what}, {how}, call {call}");
        }
    }
}

#[test]
fn nothing_stays() {
    let memory = r#"
        (data (i32.const 8192) "\07")
        (data (i32.const 40960) "\09")
        (func (export "run") (result i32)
          (local $at i32)
          (call $tell (i64.load8_u (i32.const 8192)))
          (call $tell (i64.load8_u (i32.const 40960)))
          (call $tell (i64.load (i32.const 20480)))
          (call $tell (i64.load (i32.const 65528)))
          (i64.store (i32.const 8192) (i64.const 1))
          (i64.store (i32.const 20480) (i64.const 2))
          (i64.store (i32.const 65528) (i64.const 3))
          (call $told) (i32.const 0))"#;
    check("memory", memory, &[7, 9, 0, 0]);

    let globals = r#"
        (global $a (mut i32) (i32.const 5))
        (global $b (mut i64) (i64.const -1))
        (global $c (mut f64) (f64.const 1.5))
        (global $d (mut v128) (v128.const i64x2 3 4))
        (func (export "run") (result i32)
          (call $tell (i64.extend_i32_u (global.get $a)))
          (call $tell (global.get $b))
          (call $tell (i64.reinterpret_f64 (global.get $c)))
          (call $tell (i64x2.extract_lane 1 (global.get $d)))
          (global.set $a (i32.const 6)) (global.set $b (i64.const 6)) (global.set $c (f64.const 6))
          (global.set $d (v128.const i64x2 6 6))
          (call $told) (i32.const 0))"#;
    check("globals", globals, &[5, u64::MAX, 1.5f64.to_bits(), 4]);

    let grown = r#"
        (func (export "run") (result i32)
          (call $tell (i64.extend_i32_u (memory.size)))
          (call $tell (i64.extend_i32_u (memory.grow (i32.const 1))))
          (i32.store (i32.const 65540) (i32.const 1))
          (call $tell (i64.extend_i32_u (memory.grow (i32.const 9))))
          (call $told) (i32.const 0))"#;
    check("memory that grows beyond the reserve", grown, &[1, 1, 2]);

    let table = r#"
        (table $t 4 funcref)
        (elem declare func $f)
        (func $f)
        (func (export "run") (result i32)
          (call $tell (i64.extend_i32_u (ref.is_null (table.get $t (i32.const 1)))))
          (call $tell (i64.extend_i32_u (table.size $t)))
          (table.set $t (i32.const 1) (ref.func $f))
          (drop (table.grow $t (ref.null func) (i32.const 2)))
          (call $told) (i32.const 0))"#;
    check("tables", table, &[1, 4]);

    let segments = r#"
        (data $d "\2a")
        (func (export "run") (result i32)
          (memory.init $d (i32.const 30000) (i32.const 0) (i32.const 1))
          (data.drop $d)
          (call $tell (i64.load8_u (i32.const 30000)))
          (call $told) (i32.const 0))"#;
    check("segments", segments, &[42]);

    let references = r#"
        (global $r (mut funcref) (ref.null func))
        (elem declare func $f)
        (func $f)
        (func (export "run") (result i32)
          (call $tell (i64.extend_i32_u (ref.is_null (global.get $r))))
          (global.set $r (ref.func $f))
          (call $told) (i32.const 0))"#;
    check("references in globals", references, &[1]);
}

/// Which pages calls write to differs from call to call, and most of them hold something at first.
#[test]
fn pages_that_are_written_now_and_then() {
    let functions = r#"
        (data (i32.const 20480) "\01") (data (i32.const 24576) "\01") (data (i32.const 28672) "\01")
        (data (i32.const 32768) "\01") (data (i32.const 36864) "\01") (data (i32.const 40960) "\01")
        (func (export "run") (result i32)
          (local $page i32)
          (local.set $page (i32.const 20480))
          (loop $next
            (call $tell (i64.load8_u (local.get $page)))
            (local.set $page (i32.add (local.get $page) (i32.const 4096)))
            (br_if $next (i32.lt_u (local.get $page) (i32.const 45056))))
          (i32.store8
            (i32.add (i32.const 20480)
              (i32.mul (i32.const 4096) (i32.rem_u (i32.wrap_i64 (call $input_length)) (i32.const 6))))
            (i32.const 7))
          (call $told) (i32.const 0))"#;
    for (how, plugin) in both(functions) {
        for call in 0..200 {
            let input = "x".repeat((call * 7) % 23);
            assert_eq!(told(&plugin.call("run", &input).unwrap()), [1; 6], "{how}, call {call}");
        }
    }
}

/// An instance is put back, not thrown away: after a call it waits for the next one.
#[test]
fn instances_wait_for_the_next_call() {
    let plugin = prebuilt("json-edit").load().unwrap();
    assert_eq!(plugin.ready_instances(), 0);
    plugin.call("edit", r#"{"messages": []}"#).unwrap();
    assert_eq!(plugin.ready_instances(), 1);
    for ((_, plugin), waiting) in both(r#"(func (export "run"))"#).into_iter().zip([1, 0]) {
        for _ in 0..3 {
            plugin.call("run", "").unwrap();
            assert_eq!(plugin.ready_instances(), waiting);
        }
    }
}

/// Calls that grow memories by more than was there ahead: neither they nor other calls can tell, and no
/// guest gets beyond its limit by growing again and again.
#[test]
fn memories_that_calls_grow() {
    let functions = r#"
        (func (export "run") (result i32)
          (local $block i64)
          (call $tell (i64.extend_i32_u (memory.size)))
          (call $tell (i64.extend_i32_u (memory.grow (i32.const 20))))
          (call $tell (i64.extend_i32_u (memory.size)))
          (call $tell (i64.load (i32.const 500000)))
          (i64.store (i32.const 500000) (i64.const 1))
          (call $tell (call $memory_bytes))
          (local.set $block (call $alloc (i64.const 700000)))
          (call $tell (call $load_u64 (i64.add (local.get $block) (i64.const 699992))))
          (call $store_u64 (i64.add (local.get $block) (i64.const 699992)) (i64.const 1))
          (call $told) (i32.const 0))
        (func (export "look") (result i32)
          (call $tell (call $memory_bytes))
          (call $tell (i64.load (i32.const 1300000)))
          (call $told) (i32.const 0))
        (func (export "all") (result i32)
          (local $pages i64)
          (loop $more
            (local.set $pages (i64.add (local.get $pages) (i64.const 1)))
            (call $tell (i64.const 0))
            (br_if $more (i32.ne (memory.grow (i32.const 1)) (i32.const -1))))
          (call $told) (i32.const 0))"#;
    for (how, plugin) in both(functions) {
        let first = told(&plugin.call("run", "").unwrap());
        assert_eq!((&first[..4], first[5]), (&[1, 1, 21, 0][..], 0), "{how}");
        for _ in 0..20 {
            assert_eq!(told(&plugin.call("run", "").unwrap()), first, "{how}");
            assert!(
                plugin.call("look", "").is_err(),
                "{how}: beyond the memory is a trap, whoever grew before"
            );
        }
        let error = |plugin: &Plugin| plugin.call("all", "").unwrap_err().message().to_owned();
        let first = error(&plugin);
        assert!((0..20).all(|_| error(&plugin) == first), "{how}: {first}");
    }
}

/// What the engine has no room for is not counted, and the next call finds its limit where it was.
#[test]
fn growth_that_fails() {
    let functions = r#"
        (func (export "run") (result i32)
          (call $tell (i64.extend_i32_s (memory.grow (i32.const 900))))
          (call $told) (i32.const 0))
        (func (export "more") (result i32)
          (call $tell (i64.extend_i32_s (memory.grow (i32.const 1020))))
          (call $told) (i32.const 0))"#;
    for (how, plugin) in both(functions) {
        for call in 0..6 {
            let _ = plugin.call("more", "");
            assert_eq!(told(&plugin.call("run", "").unwrap()), [1], "{how}, call {call}");
        }
    }
}

/// What a guest finds out when it starts is found out anew for every call.
#[test]
fn a_guest_that_asks_while_it_starts() {
    let functions = r#"
        (global $seen (mut i64) (i64.const 0))
        (func (export "_initialize") (global.set $seen (call $length (call $var_get @"v"))))
        (func (export "run") (result i32)
          (call $tell (global.get $seen)) (call $told)
          (call $var_set @"v" @"four") (i32.const 0))"#;
    for (how, plugin) in both(functions) {
        let seen: Vec<u64> = (0..6).flat_map(|_| told(&plugin.call("run", "").unwrap())).collect();
        assert_eq!(seen, [0, 4, 4, 4, 4, 4], "{how}");
    }
}

/// A call that fails, is given up, or writes more than is worth clearing leaves no instance behind.
#[tokio::test]
async fn instances_that_are_not_put_back() {
    let functions = r#"
        (global $dirty (mut i64) (i64.const 0))
        (func (export "run") (result i32) (call $tell (global.get $dirty)) (call $told) (i32.const 0))
        (func (export "fail") (result i32) (global.set $dirty (i64.const 1)) (i32.const 3))
        (func (export "trap") (global.set $dirty (i64.const 1)) unreachable)
        (func (export "loop") (global.set $dirty (i64.const 1)) (loop (br 0)))"#;
    for (how, plugin) in both(functions) {
        for _ in 0..3 {
            assert!(plugin.call_async("fail", b"").await.is_err());
            assert!(plugin.call_async("trap", b"").await.is_err());
            let given_up = plugin.call_async("loop", b"");
            tokio::time::timeout(Duration::from_millis(20), given_up).await.unwrap_err();
            assert_eq!(plugin.ready_instances(), 0, "{how}");
            assert_eq!(told(&plugin.call_async("run", b"").await.unwrap()), [0], "{how}");
        }
    }
}

/// The kernel's memory is cleared as well: what an earlier call's input was cannot be read.
#[test]
fn inputs_of_earlier_calls() {
    let functions = r#"
        (func (export "run") (result i32)
          (local $at i64) (local $found i64)
          ;; Behind this call's own input, all that a guest can look at.
          (local.set $at (i64.add (call $input_offset) (i64.and (i64.add (call $input_length) (i64.const 15)) (i64.const -8))))
          (loop $next
            (local.set $found (i64.or (local.get $found) (call $load_u64 (local.get $at))))
            (local.set $at (i64.add (local.get $at) (i64.const 8)))
            (br_if $next (i64.lt_u (local.get $at) (i64.const 65000))))
          (call $tell (local.get $found)) (call $told) (i32.const 0))"#;
    for (how, plugin) in both(functions) {
        for secret in ["a long secret ".repeat(900), "b".repeat(9000), "c".to_owned(), "d".repeat(400)] {
            assert_eq!(told(&plugin.call("run", &secret).unwrap()), [0], "{how}");
        }
    }
}

/// Guests cannot name their own exports so that the host takes them for state to put back.
#[test]
fn reserved_names_are_refused_as_state() {
    let module = guest_importing(
        "",
        r#"(memory (export "cardan:rewound/memory/0") 1)
           (global (export "cardan:rewound/global/0") (mut i32) (i32.const 1))
           (func (export "run"))"#,
    );
    if let Ok(plugin) = engine().plugin(module.as_bytes()).load() {
        plugin.call("run", "").unwrap();
        assert_eq!(plugin.ready_instances(), 0);
    }
}

/// An instance that a visit kept is put back when the visit is over, whatever its calls have written.
#[tokio::test]
async fn instances_of_visits() {
    let functions = r#"
        (data (i32.const 40960) "\09")
        (global $calls (mut i32) (i32.const 0))
        (func (export "http_request") (result i32)
          ;; Every call of a visit writes to another page, and traps where an earlier visit was.
          (if (i32.load (i32.add (i32.const 65532) (i32.mul (global.get $calls) (i32.const -4096))))
            (then unreachable))
          (i32.store (i32.add (i32.const 65532) (i32.mul (global.get $calls) (i32.const -4096))) (i32.const 1))
          (if (i32.ne (i32.load8_u (i32.const 40960)) (i32.sub (i32.const 9) (global.get $calls)))
            (then unreachable))
          (i32.store8 (i32.const 40960) (i32.sub (i32.load8_u (i32.const 40960)) (i32.const 1)))
          (global.set $calls (i32.add (global.get $calls) (i32.const 1)))
          (call $say @"{\22verdict\22:\22continue\22}")
          (i32.const 0))"#;
    let plugin = engine().plugin(guest(functions).as_bytes()).mode(InstanceMode::Visit).load().unwrap();
    for visit in 0..40 {
        let mut held = Held::default();
        for call in 0..=visit % 5 {
            let asked = ask(&plugin, &mut held, None).await;
            asked.unwrap_or_else(|error| panic!("visit {visit}, call {call}: {error}"));
        }
        assert_eq!(plugin.ready_instances(), 0, "the only one is out");
        drop(held);
        assert_eq!(plugin.ready_instances(), 1);
    }
}

/// A host function may write from a thread of its own, where the guest's thread sees no page fault. What it
/// wrote is found even so, in the first calls and in those that no longer start on a stack of their own.
#[test]
fn what_another_thread_wrote() {
    let write = HostFunction::raw("secret", vec![], vec![], |call, _, _| {
        let written = std::thread::scope(|scope| scope.spawn(|| call.write(&[7; 60_000])).join());
        written.unwrap().map(drop)
    });
    let module = guest_importing(
        r#"(import "extism:host/user" "secret" (func $secret))"#,
        r#"(func (export "hide") (call $secret))
           (func (export "run") (result i32)
             (local $block i64) (local $at i64) (local $found i64)
             (local.set $block (call $alloc (i64.const 60000)))
             (loop $next
               (local.set $found
                 (i64.or (local.get $found) (call $load_u64 (i64.add (local.get $block) (local.get $at)))))
               (local.set $at (i64.add (local.get $at) (i64.const 8)))
               (br_if $next (i64.lt_u (local.get $at) (i64.const 60000))))
             (call $tell (local.get $found)) (call $told) (i32.const 0))"#,
    );
    let plugin = engine().plugin(module.as_bytes()).host_function(write).load().unwrap();
    for call in 0..60 {
        // So that the instance that is written to has had no such page before.
        let quiet = plugin.call("run", "").unwrap();
        assert_eq!(told(&quiet), [0], "call {call}");
        plugin.call("hide", "").unwrap();
        assert_eq!(plugin.ready_instances(), 1, "it was put back");
    }
}

/// The clock of WASI begins with the call, not with the instance: it does not tell when the plugin was
/// called before.
#[test]
fn the_clock_begins_with_the_call() {
    let module = guest_importing(
        r#"(import "wasi_snapshot_preview1" "clock_time_get" (func $clock (param i32 i64 i32) (result i32)))"#,
        r#"(func (export "run") (result i32)
             (drop (call $clock (i32.const 1) (i64.const 1) (i32.const 512)))
             (call $tell (i64.load (i32.const 512))) (call $told) (i32.const 0))"#,
    );
    let plugin = engine().plugin(module.as_bytes()).load().unwrap();
    plugin.call("run", "").unwrap();
    assert_eq!(plugin.ready_instances(), 1);
    // Far more than a call takes on a busy machine.
    let pause = Duration::from_secs(3);
    std::thread::sleep(pause);
    let seen = Duration::from_nanos(told(&plugin.call("run", "").unwrap())[0]);
    assert!(seen < pause, "{seen:?} since the call before");
}
