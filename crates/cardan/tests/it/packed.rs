//! Guests of the packed convention, as HeliosProxy's are: a pointer and a length in, both in one `i64` out.

use std::sync::Arc;
use std::time::Duration;

use cardan::api::grants::{Access, KvLimits, KvScope};
use cardan::{
    Abi, Capability, Engine, EngineConfig, Error, Fault, Grants, InstanceMode, LogLevel, Plugin, Services,
};
use cardan_services::{MemoryKv, MetricsRegistry};

use crate::support::{GENEROUS, within};

/// The allocator of HeliosProxy's own guests: it starts at 64 KiB, never frees and never grows.
const BUMP: &str = r#"
    (global $sp (mut i32) (i32.const 1048576))
    (global $next (mut i32) (i32.const 65536))
    (func (export "alloc") (param i32) (result i32)
      (global.get $next)
      (global.set $next (i32.and (i32.add (i32.add (global.get $next) (local.get 0)) (i32.const 7)) (i32.const -8))))
    (func (export "dealloc") (param i32 i32))"#;

/// `(pointer << 32) | length`.
const PACK: &str = r#"
    (func $pack (param i32 i32) (result i64)
      (i64.or (i64.shl (i64.extend_i32_u (local.get 0)) (i64.const 32)) (i64.extend_i32_u (local.get 1))))"#;

fn guest(imports: &str, rest: &str) -> String {
    format!(r#"(module {imports} (memory (export "memory") 17) {BUMP} {PACK} {rest})"#)
}

fn engine() -> Engine {
    let services = Services {
        kv: Some(Arc::new(MemoryKv::default())),
        metrics: Some(Arc::new(MetricsRegistry::default())),
        ..Services::default()
    };
    Engine::new(EngineConfig { pool_instances: Some(100), services, ..EngineConfig::default() }).unwrap()
}

fn granted() -> Grants {
    Grants { kv: Some(KvScope { access: Access::Write, limits: KvLimits::default() }), ..Grants::default() }
}

fn load(module: &str) -> Result<Plugin, Error> {
    engine().plugin(module.as_bytes()).grants(granted()).limits(within(GENEROUS)).load()
}

const ECHO: &str =
    r#"(func (export "pre_query") (param i32 i32) (result i64) (call $pack (local.get 0) (local.get 1)))"#;

#[test]
fn bytes_go_in_and_come_back() {
    let plugin = load(&guest("", ECHO)).unwrap();
    assert_eq!(plugin.inspection().abi, Abi::Packed);
    for input in ["", "x", "grün", &"y".repeat(100_000)] {
        assert_eq!(plugin.call("pre_query", input).unwrap(), input.as_bytes(), "{} bytes", input.len());
    }
}

/// The allocator never gives back: every call begins with fresh memory, whatever the mode says about waiting instances.
#[test]
fn calls_begin_with_fresh_memory() {
    let counting = guest(
        "",
        r#"(func (export "count") (param i32 i32) (result i64)
             (i32.store8 (i32.const 16) (i32.add (i32.load8_u (i32.const 16)) (i32.const 1)))
             (i32.store8 (i32.const 17) (i32.add (i32.const 48) (i32.load8_u (i32.const 16))))
             (call $pack (i32.const 17) (i32.const 1)))"#,
    );
    let plugin = load(&counting).unwrap();
    for _ in 0..1_000 {
        assert_eq!(plugin.call("count", "0123456789".repeat(100)).unwrap(), b"1");
    }
    assert!(plugin.usage().started < 100, "instances are put back: {:?}", plugin.usage());
    let shared = engine().plugin(counting.as_bytes()).mode(InstanceMode::Shared).load().unwrap();
    assert_eq!((0..3).map(|_| shared.call("count", "").unwrap()).collect::<Vec<_>>(), [b"1", b"2", b"3"]);
}

#[test]
fn observers_and_decisions() {
    let plugin = load(&guest(
        "",
        r#"(func (export "post_query") (param i32 i32))
           (func (export "decide") (param i32 i32) (result i32) (local.get 1))
           (func (export "nothing") (param i32 i32) (result i64) (i64.const 0))
           (func (export "empty") (param i32 i32) (result i64) (i64.const 0x100000000))"#,
    ))
    .unwrap();
    for (export, input, output) in [
        ("post_query", "x", ""),
        ("decide", "", ""),
        ("decide", "xyz", "3"),
        ("nothing", "x", ""),
        ("empty", "x", ""),
    ] {
        assert_eq!(plugin.call(export, input).unwrap(), output.as_bytes(), "{export}");
    }
}

/// What guests claim about places is checked.
#[test]
fn lies_about_places() {
    let answer = |pointer: &str, length: &str| {
        format!(
            r#"(func (export "run") (param i32 i32) (result i64) (call $pack (i32.const {pointer}) (i32.const {length})))"#
        )
    };
    let outside = "lies outside of its memory of";
    let rows = [
        (guest("", &answer("2000000", "2")), "x".to_owned(), outside),
        (guest("", &answer("-1", "2147483647")), "x".to_owned(), outside),
        (guest("", &answer("0", "2147483647")), "x".to_owned(), outside),
        (guest("", &answer("-1", "-1")), "x".to_owned(), outside),
        (guest("", &answer("1024", "-2147483648")), "x".to_owned(), outside),
        (guest("", &answer("-65536", "0")), "x".to_owned(), outside),
        // SQL of half a megabyte is in the document twice: HeliosProxy's own guests then answer wrongly.
        (guest("", ECHO), "x".repeat(1_000_000), "its allocator gave a place in its stack for 1000000 bytes"),
        (guest("", ECHO), "x".repeat(2_000_000), "its allocator gave a place in its stack for 2000000 bytes"),
        (
            guest("", ECHO).replace("(i32.const 65536)", "(i32.const 2000000)"),
            "x".repeat(1_000),
            "the place that its allocator gave for the input, 1000 bytes from 2000000, lies outside",
        ),
    ];
    for (module, input, why) in rows {
        let export = if module.contains("pre_query") { "pre_query" } else { "run" };
        let error = load(&module).unwrap().call(export, input).unwrap_err();
        assert_eq!(error.fault(), Fault::Protocol, "{error}");
        assert!(error.to_string().contains(why), "{error}");
    }
    for bytes in [100_000, 400_000, 900_000] {
        let input = "x".repeat(bytes);
        assert_eq!(load(&guest("", ECHO)).unwrap().call("pre_query", &input).unwrap(), input.as_bytes());
    }
}

/// Without an allocator the input is in pages behind the guest's memory, the same ones each time.
#[test]
fn guests_without_an_allocator() {
    let module = format!(
        r#"(module (memory (export "memory") 1) {PACK}
             (func (export "pre_query") (param i32 i32) (result i64) (call $pack (local.get 0) (local.get 1)))
             (func (export "pages") (param i32 i32) (result i32) (memory.size)))"#
    );
    let load = |mode| {
        let builder = engine().plugin(module.as_bytes()).abi(Abi::Packed).mode(mode);
        builder.limits(within(GENEROUS)).load().unwrap()
    };
    for mode in [InstanceMode::Fresh, InstanceMode::Shared] {
        let plugin = load(mode);
        for input in ["x".repeat(10), "x".repeat(300_000), "x".repeat(200_000)] {
            assert_eq!(plugin.call("pre_query", &input).unwrap(), input.as_bytes());
        }
        let pages = plugin.call("pages", "xx").unwrap();
        assert_eq!(plugin.call("pages", "xx").unwrap(), pages, "{mode:?}");
    }
}

const KV: &str = r#"
    (import "env" "kv_get" (func $get (param i32 i32 i32 i32) (result i32)))
    (import "env" "kv_set" (func $set (param i32 i32 i32 i32) (result i32)))
    (import "env" "kv_delete" (func $delete (param i32 i32) (result i32)))
    (import "env" "sha256_hex" (func $sha (param i32 i32 i32) (result i32)))"#;

/// HeliosProxy's published functions, with its own status numbers.
#[test]
fn helios_functions() {
    let module = guest(
        KV,
        r#"(func $say (param i32) (result i64)
             (i32.store8 (i32.const 100) (i32.add (i32.const 65) (local.get 0))) (call $pack (i32.const 100) (i32.const 1)))
           (func (export "set") (param i32 i32) (result i64)
             (call $say (call $set (local.get 0) (i32.const 1) (local.get 0) (local.get 1))))
           (func (export "delete") (param i32 i32) (result i64)
             (call $say (call $delete (local.get 0) (i32.const 1))))
           (func (export "get") (param i32 i32) (result i64) (local $n i32)
             (local.set $n (call $get (local.get 0) (i32.const 1) (i32.const 200) (i32.const 4)))
             (if (result i64) (i32.lt_s (local.get $n) (i32.const 0))
               (then (call $say (local.get $n)))
               (else (call $pack (i32.const 200) (local.get $n)))))
           (func (export "sha") (param i32 i32) (result i64)
             (call $pack (i32.const 200) (call $sha (local.get 0) (local.get 1) (i32.const 200))))"#,
    );
    let plugin = load(&module).unwrap();
    assert!(plugin.inspection().capabilities.contains(&Capability::KvWrite));
    // `@` is -1, `?` -2, `A` 0.
    for (export, input, output) in [
        ("get", "k", "@"),
        ("set", "key", "A"),
        ("get", "k", "key"),
        ("set", "k long", "A"),
        ("get", "k", "?"),
        ("delete", "k", "A"),
        ("delete", "k", "A"),
        ("get", "k", "@"),
        ("sha", "abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
    ] {
        assert_eq!(String::from_utf8_lossy(&plugin.call(export, input).unwrap()), output, "{export} {input}");
    }
    let ungranted = engine().plugin(module.as_bytes()).grants(Grants::default()).load().unwrap();
    let error = ungranted.call("get", "k").unwrap_err();
    assert_eq!(error.fault(), Fault::Denied);
    assert!(error.to_string().contains("kv_get is not granted: add \"kv: read\""), "{error}");
}

/// The calls that every convention has, with results in a place of the guest's own allocator.
#[test]
fn cardan_functions() {
    let module = guest(
        r#"(import "cardan" "kv_add" (func $add (param i32 i32 i32 i32) (result i64)))
           (import "cardan" "config_get" (func $config (param i32 i32) (result i64)))
           (import "helios" "log" (func $log (param i32 i32 i32)))"#,
        r#"(data (i32.const 300) "7")
           (func (export "add") (param i32 i32) (result i64)
             (call $add (local.get 0) (local.get 1) (i32.const 300) (i32.const 1)))
           (func (export "config") (param i32 i32) (result i64) (call $config (local.get 0) (local.get 1)))
           (func (export "log") (param i32 i32) (call $log (i32.const 3) (local.get 0) (local.get 1)))"#,
    );
    let plugin = engine()
        .plugin(module.as_bytes())
        .grants(granted())
        .config("color", "green")
        .keep_log(LogLevel::Info)
        .limits(within(GENEROUS))
        .load()
        .unwrap();
    for (export, input, output) in [
        ("add", "n", "7"),
        ("add", "n", "14"),
        ("config", "color", "green"),
        ("config", "colour", ""),
        ("log", "hm", ""),
    ] {
        assert_eq!(String::from_utf8_lossy(&plugin.call(export, input).unwrap()), output, "{export}");
    }
    let tail = plugin.log_tail(0, 10);
    assert!(format!("{tail:?}").contains("hm"), "{tail:?}");
}

#[test]
fn endless_and_trapping_guests() {
    let module = guest(
        "",
        r#"(func (export "loop") (param i32 i32) (result i64) (loop (br 0)) unreachable)
           (func (export "trap") (param i32 i32) (result i64) unreachable)
           (func (export "fine") (param i32 i32) (result i64) (i64.const 0))"#,
    );
    let plugin = engine().plugin(module.as_bytes()).limits(within(Duration::from_millis(50))).load().unwrap();
    for _ in 0..3 {
        assert_eq!(plugin.call("loop", "x").unwrap_err().fault(), Fault::Deadline);
        let trap = plugin.call("trap", "x").unwrap_err();
        assert_eq!(trap.fault(), Fault::Trap);
        assert!(trap.backtrace().is_some());
        plugin.call("fine", "x").unwrap();
    }
}

/// What cannot be linked is said when it is loaded.
#[test]
fn imports_that_nobody_has() {
    let missing = guest(r#"(import "env" "launch" (func (param i32)))"#, ECHO);
    let error = load(&missing).unwrap_err().to_string();
    assert!(error.contains("env::launch"), "{error}");
    let mistyped = guest(r#"(import "env" "kv_get" (func (param i32 i32) (result i32)))"#, ECHO);
    let error = load(&mistyped).unwrap_err().to_string();
    assert!(error.contains("env::kv_get"), "{error}");
}

/// Each block is given back once, to whom it is from: an answer may be where the input is.
#[test]
fn blocks_are_given_back_once() {
    // Blocks of `alloc` are counted; one too many given back is the end.
    let counting = |alloc: &str, dealloc: &str| {
        format!(
            r#"(module (memory (export "memory") 2) (global $out (mut i32) (i32.const 0)) {PACK}
                 (func (export "{alloc}") (param i32) (result i32)
                   (global.set $out (i32.add (global.get $out) (i32.const 1))) (i32.const 4096))
                 (func (export "{dealloc}") (param i32 i32)
                   (if (i32.eqz (global.get $out)) (then unreachable))
                   (global.set $out (i32.sub (global.get $out) (i32.const 1))))
                 {ECHO})"#
        )
    };
    for (alloc, dealloc) in
        [("alloc", "dealloc"), ("malloc", "free"), ("nothing", "dealloc"), ("alloc", "free")]
    {
        let module = counting(alloc, dealloc);
        let builder = engine().plugin(module.as_bytes()).abi(Abi::Packed).mode(InstanceMode::Shared);
        let plugin = builder.limits(within(GENEROUS)).load().unwrap();
        for _ in 0..3 {
            assert_eq!(plugin.call("pre_query", "mine").unwrap(), b"mine", "{alloc} {dealloc}");
        }
    }
}

/// An allocator that asks for what has to be put into memory of its own would ask for ever, a stack for each time.
#[test]
fn an_allocator_asks_for_no_memory() {
    let module = format!(
        r#"(module (import "cardan" "config_get" (func $config (param i32 i32) (result i64)))
             (memory (export "memory") 1) (data (i32.const 16) "k") {PACK}
             (func (export "alloc") (param i32) (result i32)
               (drop (call $config (i32.const 16) (i32.const 1))) (i32.const 1024))
             {ECHO})"#
    );
    let plugin = engine().plugin(module.as_bytes()).config("k", "v").limits(within(GENEROUS)).load().unwrap();
    let error = plugin.call("pre_query", "x").unwrap_err();
    assert_eq!(error.fault(), Fault::Protocol, "{error}");
    assert!(error.to_string().contains("its allocator asks for what has to be put into memory"), "{error}");
}

/// What an index beyond its own would name is the host's.
#[test]
fn what_is_no_module() {
    let own = "(import \"cardan:lowered\" \"input_length\" (func (result i32)))";
    for (module, why) in [
        (
            guest(
                "",
                &format!(
                    "{ECHO} (func (export \"f\") (param i32 i32) (result i64) (drop (call 20)) (i64.const 0))"
                ),
            ),
            "unknown function",
        ),
        (
            guest(
                "",
                &format!(
                    "{ECHO} (func (export \"f\") (param i32 i32) (result i64) (global.set 2 (i32.const 0)) (i64.const 0))"
                ),
            ),
            "unknown global",
        ),
        (
            guest(
                "",
                &format!(
                    "{ECHO} (func (export \"f\") (param i32 i32) (result i64) (i64.load 1 (i32.const 0)))"
                ),
            ),
            "unknown memory 1",
        ),
        (guest(own, ECHO), "no import of any guest's"),
    ] {
        let error = load(&module).unwrap_err().to_string();
        assert!(error.contains(why), "{why}: {error}");
    }
}

/// The memory that counts is the exported one.
#[test]
fn of_several_memories() {
    let module = format!(
        r#"(module (memory $a 1) (memory $b (export "memory") 2) {PACK}
             (data (memory $b) (i32.const 65536) "mine")
             (func (export "pre_query") (param i32 i32) (result i64) (call $pack (i32.const 65536) (i32.const 4))))"#
    );
    let plugin = engine().plugin(module.as_bytes()).abi(Abi::Packed).limits(within(GENEROUS)).load().unwrap();
    assert_eq!(plugin.call("pre_query", "yours").unwrap(), b"mine");
}
