//! What a plugin may use up, row by row.

use std::time::Duration;

use cardan::{Engine, EngineConfig, Fault, Isolation, Limits, MemoryLimits, Plugin};

use crate::support::{Linkage, engine, guest, guests, linked, told, with_memory, within};

const PAGE: u64 = 1 << 16;

/// A guest with this memory that grows it, by any number of pages; `run` takes them as bytes of its input
/// and tells what each `memory.grow` returned.
fn grower(memory: &str) -> String {
    format!(
        r#"(module
             (import "extism:host/env" "input_length" (func $input_length (result i64)))
             (import "extism:host/env" "input_load_u8" (func $input_load_u8 (param i64) (result i32)))
             (import "extism:host/env" "alloc" (func $alloc (param i64) (result i64)))
             (import "extism:host/env" "store_u64" (func $store_u64 (param i64 i64)))
             (import "extism:host/env" "output_set" (func $output_set (param i64 i64)))
             (memory {memory})
             (func (export "run") (local $i i64) (local $out i64)
               (local.set $out (call $alloc (i64.const 256)))
               (loop $more
                 (call $store_u64
                   (i64.add (local.get $out) (i64.mul (local.get $i) (i64.const 8)))
                   (i64.extend_i32_s (memory.grow (call $input_load_u8 (local.get $i)))))
                 (local.set $i (i64.add (local.get $i) (i64.const 1)))
                 (br_if $more (i64.lt_u (local.get $i) (call $input_length))))
               (call $output_set (local.get $out) (i64.mul (local.get $i) (i64.const 8)))))"#
    )
}

/// What each `memory.grow` returns, or that the call ended with `oom`.
#[track_caller]
fn check(limits: &Limits, memory: &str, grows: &[u8], expected: Option<&[i64]>) {
    for linkage in Linkage::BOTH {
        let plugin = linkage.plugin(grower(memory).as_bytes()).limits(limits.clone()).load().unwrap();
        let found = plugin.call("run", grows).map_err(|error| (error.fault(), error.message().to_owned()));
        let found = found.map(|output| told(&output).into_iter().map(u64::cast_signed).collect::<Vec<_>>());
        let expected = expected.map(<[i64]>::to_vec).ok_or((Fault::Memory, "oom".to_owned()));
        assert_eq!(found, expected, "{linkage:?} {memory} {grows:?}");
    }
}

fn bytes(memory_bytes_max: u64) -> Limits {
    Limits { memory_bytes_max, ..Limits::default() }
}

#[test]
fn memory() {
    let ten = bytes(10 * PAGE);
    check(&ten, "1", &[1, 2, 3], Some(&[1, 2, 4]));
    check(&ten, "1", &[9], Some(&[1]));
    check(&ten, "1", &[10], None);
    check(&ten, "10", &[0], Some(&[10]));
    check(&ten, "10", &[1], None);
    check(&ten, "0", &[10], Some(&[0]));
    // What the module itself forbids is refused without ending the call.
    check(&ten, "1 3", &[2, 1], Some(&[1, -1]));
    check(&ten, "1 3", &[3, 1], Some(&[-1, 1]));
    // Limits around what a slot of the pool holds, below and above.
    for limit in [63 << 20, 64 << 20, 65 << 20, 200 << 20] {
        let pages = i64::try_from(limit / PAGE).unwrap();
        check(&bytes(limit), &format!("{pages}"), &[0], Some(&[pages]));
        check(&bytes(limit), &format!("{}", pages - 4), &[4], Some(&[pages - 4]));
        check(&bytes(limit), &format!("{}", pages - 4), &[5], None);
    }
}

#[test]
fn memories_too_large_to_begin_with() {
    for (limit, memory, why) in [
        (10 * PAGE, "11", "oom: its memories may have 655360 bytes together"),
        (64 << 20, "1025", "oom: its memories may have 67108864 bytes together"),
        (100 << 20, "1700", "oom: its memories may have 104857600 bytes together"),
        (64 << 20, "65536", "oom: its memories may have 67108864 bytes together"),
    ] {
        for linkage in Linkage::BOTH {
            let error = linkage.plugin(grower(memory).as_bytes()).limits(bytes(limit)).load().unwrap_err();
            assert_eq!((error.fault(), error.message()), (Fault::Memory, why), "{linkage:?} {memory}");
        }
    }
}

/// A guest in the roomy engine, where memories may be larger than a slot.
#[test]
fn a_gigabyte() {
    let module = guest(
        r#"(func (export "run") (result i32)
             (drop (memory.grow (i32.const 16000)))
             (i32.store (i32.const 1000000000) (i32.const 7))
             (i32.sub (i32.load (i32.const 1000000000)) (i32.const 7)))"#,
    );
    let plugin = engine().plugin(module.as_bytes()).limits(bytes(1 << 30)).load().unwrap();
    assert_eq!(plugin.call("run", "").unwrap(), b"");
    let plugin = engine().plugin(module.as_bytes()).load().unwrap();
    assert_eq!(plugin.call("run", "").unwrap_err().fault(), Fault::Memory);
}

/// Extism's budget for growth (10.3): the row is pages, main's memory, growths, and what they return.
#[track_caller]
fn check_budget(max_pages: u32, memory: &str, grows: &[u8], expected: Option<&[i64]>) {
    let limits = MemoryLimits { max_pages: Some(max_pages), ..MemoryLimits::default() };
    let plugin = engine().load(with_memory(&grower(memory), limits)).unwrap();
    let found = plugin.call("run", grows).map_err(|error| error.fault());
    let found = found.map(|output| told(&output).into_iter().map(u64::cast_signed).collect::<Vec<_>>());
    assert_eq!(found, expected.map(<[i64]>::to_vec).ok_or(Fault::Memory), "{max_pages} {memory} {grows:?}");
}

#[test]
fn the_budget_for_growth() {
    // The first size has to fit, and is not taken from what may be grown by.
    check_budget(2, "2", &[2], Some(&[2]));
    check_budget(2, "2", &[1, 1], Some(&[2, 3]));
    check_budget(2, "2", &[3], None);
    check_budget(2, "2", &[1, 1, 1], None);
    check_budget(2, "3", &[0], None);
    check_budget(1, "2", &[0], None);
    check_budget(0, "0", &[0], Some(&[0]));
    check_budget(0, "0", &[1], None);
    check_budget(0, "1", &[0], None);
    check_budget(4, "4", &[4], Some(&[4]));
    // To the declared maximum and not beyond (X24).
    check_budget(8, "1 3", &[2], Some(&[1]));
    check_budget(8, "1 3", &[3, 2, 1], Some(&[-1, 1, -1]));
}

/// The kernel's memory counts as well: inputs, outputs, everything allocated. And a call that ran into it
/// does no harm to the next.
#[test]
fn the_budget_counts_the_kernel() {
    let module = guest(
        r#"(func (export "run") (result i32) (i32.eqz (i32.wrap_i64 (call $alloc (i64.const 100000)))))
           (func (export "ok"))"#,
    );
    let limits = MemoryLimits { max_pages: Some(2), ..MemoryLimits::default() };
    let plugin = engine().load(with_memory(&module, limits)).unwrap();
    let mut instance = plugin.instance().unwrap();
    assert_eq!(instance.call("run", "").code, 0, "two pages for 100,000 bytes");
    assert_eq!(instance.call("ok", vec![0; 100_000]).code, 0, "which are there now");
    let report = instance.call("ok", vec![0; 300_000]);
    assert_eq!((report.code, report.error.as_deref()), (-1, Some("failed to allocate extism memory")));
    assert_eq!(instance.call("ok", "").code, 0);
}

/// As the reference's own test of `max_pages`, with a guest of 17 pages.
#[test]
fn the_references_test_of_the_budget() {
    let module = guest(r#"(func (export "run"))"#).replacen(
        r#"(memory (export "memory") 1)"#,
        r#"(memory (export "memory") 17)"#,
        1,
    );
    for (max_pages, expected) in [(16, Err(Fault::Memory)), (17, Ok(Vec::new()))] {
        let limits = MemoryLimits { max_pages: Some(max_pages), ..MemoryLimits::default() };
        let plugin = engine().load(with_memory(&module, limits)).expect("it loads in any case");
        let found = plugin.call("run", vec![b'a'; 128 << 10]).map_err(|error| error.fault());
        assert_eq!(found, expected, "{max_pages}");
    }
}

#[test]
fn tables() {
    let module = r#"(module
        (table $t 10 funcref)
        (func (export "run") (result i32)
          (drop (table.grow $t (ref.null func) (i32.const 90)))
          (i32.sub (table.size $t) (i32.const 100)))
        (func (export "more") (result i32) (table.grow $t (ref.null func) (i32.const 91))))"#;
    for linkage in Linkage::BOTH {
        let limits = Limits { table_elements_max: 100, ..Limits::default() };
        let plugin = linkage.plugin(module.as_bytes()).limits(limits).load().unwrap();
        let mut instance = plugin.instance().unwrap();
        assert_eq!(instance.call("more", "").error.as_deref(), Some("oom"));
        assert_eq!(instance.call("run", "").code, 0);
        let limits = Limits { table_elements_max: 9, ..Limits::default() };
        let error = linkage.plugin(module.as_bytes()).limits(limits).load().unwrap_err();
        assert_eq!(error.message(), "oom: its tables may have 9 elements together");
    }
}

#[test]
fn output() {
    let limits = Limits { output_bytes_max: 1000, ..Limits::default() };
    let plugin = crate::support::prebuilt("kitchen").limits(limits).load().unwrap();
    assert_eq!(plugin.call("output", "1000").unwrap().len(), 1000);
    let error = plugin.call("output", "1001").unwrap_err();
    assert_eq!(error.fault(), Fault::Memory);
    assert_eq!(error.message(), "output of 1001 bytes is over the limit of 1000");
    // What a failed call had set does not hide why it failed.
    let limits = Limits { output_bytes_max: 1, ..Limits::default() };
    let module = guest(r#"(func (export "run") (call $say @"long") unreachable)"#);
    let plugin = engine().plugin(module.as_bytes()).limits(limits).load().unwrap();
    let report = plugin.instance().unwrap().call("run", "");
    assert_eq!((report.code, &*report.output, report.fault), (134, &b""[..], Some(Fault::Trap)));
}

#[test]
fn long_errors_are_cut() {
    let module = std::fs::read(guests().join("hostile/error_huge.wat")).unwrap();
    for linkage in Linkage::BOTH {
        let report = linkage.plugin(&module).load().unwrap().instance().unwrap().call("run", "");
        let error = report.error.unwrap();
        assert!(
            error.len() < (1 << 20) + 100 && error.ends_with("... (32505856 bytes more)"),
            "{}",
            error.len()
        );
    }
}

/// How many more instances the engine has memory for.
#[track_caller]
fn room(plugin: &Plugin) -> usize {
    let mut instances = Vec::new();
    loop {
        match plugin.instance() {
            Ok(instance) => instances.push(instance),
            Err(error) => {
                check_full(&error);
                check_full(&plugin.call("ok", "").unwrap_err());
                return instances.len();
            }
        }
    }
}

#[track_caller]
fn check_full(error: &cardan::Error) {
    assert_eq!(error.fault(), Fault::Busy, "{error}");
    assert!(error.message().contains("raise engine.memory"), "{error}");
}

const GROWS: &str = r#"
    (func (export "ok"))
    (func (export "grow")
      (call $tell (i64.extend_i32_s (memory.grow (call $input_load_u8 (i64.const 0))))) (call $told))
    (func (export "trap") unreachable)
    (func (export "loop") (loop (br 0)))"#;

/// The memory that all instances of an engine may have together is all there again after whatever they did.
#[tokio::test(flavor = "multi_thread")]
async fn the_engines_memory() {
    let engine = Engine::new(EngineConfig {
        memory_bytes_max: Some(16 * PAGE),
        pool_instances: Some(40),
        // Instances of few pages.
        isolation: Isolation::Strict,
        ..EngineConfig::default()
    });
    let engine = engine.unwrap();
    let text = guest(GROWS);
    let beside = linked(&[("bystander", "(module)"), ("main", &text)]);
    for source in [cardan::Source::from(text.as_bytes()), beside.into()] {
        let plugin = engine.plugin(source).limits(within(crate::support::GENEROUS)).load().unwrap();
        let all = room(&plugin);
        assert!((3..=10).contains(&all), "{all}");
        assert_eq!(room(&plugin), all);

        // Growth beyond it ends the call, as beyond the plugin's own limit, and takes nothing.
        let mut instance = plugin.instance().unwrap();
        let report = instance.call_async("grow", &[100]).await;
        assert_eq!((report.code, report.fault), (-1, Some(Fault::Memory)), "{report:?}");
        assert!(report.error.unwrap().contains("raise engine.memory"));
        assert_eq!(room(&plugin), all - 1);
        let report = instance.call_async("trap", &vec![0; 2 << 20]).await;
        assert_eq!(report.fault, Some(Fault::Memory), "{report:?}");
        assert!(report.error.unwrap().contains("raise engine.memory"));
        assert_eq!(told(&instance.call_async("grow", &[10]).await.output), [1]);
        assert!(room(&plugin) < all - 1);
        assert_eq!(instance.call_async("trap", b"").await.code, 134);
        drop(instance);
        assert_eq!(room(&plugin), all);

        let trap = plugin.call_async("trap", b"").await.unwrap_err();
        assert_eq!(trap.fault(), Fault::Trap);
        tokio::time::timeout(Duration::from_millis(20), plugin.call_async("loop", b"")).await.unwrap_err();
        for start in ["unreachable", "(drop (memory.grow (i32.const 100)))"] {
            let failing = guest(&format!("(func $start {start}) (start $start)"));
            engine.load(failing.as_bytes()).unwrap_err();
        }
        let large = guest("").replacen("(memory (export \"memory\") 1)", "(memory 16)", 1);
        check_full(&engine.load(large.as_bytes()).unwrap_err());
        assert_eq!(room(&plugin), all);

        std::thread::scope(|scope| {
            for _ in 0..12 {
                scope.spawn(|| {
                    for pages in 0..50_u8 {
                        let end = plugin.call("grow", [pages % 12]).map(drop).map_err(|error| error.fault());
                        assert!(matches!(end, Ok(()) | Err(Fault::Busy | Fault::Memory)), "{end:?}");
                    }
                });
            }
        });
        assert_eq!(room(&plugin), all);
    }
}

/// Used instances that wait to be cleared away make room, as they do in a full pool.
#[test]
fn the_engines_memory_and_instances_made_ahead() {
    for (isolation, pages) in [(Isolation::Strict, 16), (Isolation::Auto, 56)] {
        let config = EngineConfig { memory_bytes_max: Some(pages * PAGE), ..EngineConfig::default() };
        let engine = Engine::new(EngineConfig { pool_instances: Some(40), isolation, ..config }).unwrap();
        let plugin = engine.plugin(guest(GROWS).as_bytes()).ready_instances(2).load().unwrap();
        for _ in 0..300 {
            plugin.call("ok", "").unwrap();
        }
        // Instances that only wait in case they are needed make room for another plugin's.
        let other = engine.load(guest(GROWS).as_bytes()).unwrap();
        for _ in 0..20 {
            other.call("ok", "").unwrap();
            plugin.call("ok", "").unwrap();
        }
    }
}
