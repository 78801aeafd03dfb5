//! Guests of the capability convention, as CortexPrism's are: one export for each capability, or all behind one.

use std::sync::Arc;
use std::time::Duration;

use cardan::api::grants::{Access, KvLimits, KvScope};
use cardan::{
    Abi, Engine, EngineConfig, Error, ErrorKind, Fault, Grants, InstanceMode, LogLevel, Plugin, ResultForm,
    Services,
};
use cardan_services::MemoryKv;

use crate::support::{GENEROUS, within};

fn engine() -> Engine {
    let services = Services { kv: Some(Arc::new(MemoryKv::default())), ..Services::default() };
    Engine::new(EngineConfig { pool_instances: Some(100), services, ..EngineConfig::default() }).unwrap()
}

fn granted() -> Grants {
    Grants { kv: Some(KvScope { access: Access::Write, limits: KvLimits::default() }), ..Grants::default() }
}

fn load(module: &str) -> Result<Plugin, Error> {
    engine()
        .plugin(module.as_bytes())
        .grants(granted())
        .config("color", "green")
        .keep_log(LogLevel::Info)
        .limits(within(GENEROUS))
        .load()
}

/// What a call of a tool is given: the name's length, the name, the arguments.
fn call_of(name: &str, arguments: &str) -> Vec<u8> {
    let mut call = (name.len() as u32).to_le_bytes().to_vec();
    call.extend_from_slice(name.as_bytes());
    call.extend_from_slice(arguments.as_bytes());
    call
}

/// An allocator that begins where the module's data ends.
const ALLOC: &str = r#"
    (global $next (mut i32) (i32.const 8192))
    (func (export "malloc") (param $n i32) (result i32) (local $at i32)
      (local.set $at (global.get $next))
      (global.set $next (i32.and (i32.add (i32.add (local.get $at) (local.get $n)) (i32.const 8)) (i32.const -8)))
      (block $fits
        (br_if $fits (i32.le_u (global.get $next) (i32.mul (memory.size) (i32.const 65536))))
        (drop (memory.grow (i32.add (i32.const 1) (i32.shr_u (local.get $n) (i32.const 16))))))
      (local.get $at))"#;

#[test]
fn a_result_is_a_pointer() {
    let data = r#"(data (i32.const 16) "{\"a\":1}\00") (data (i32.const 64) "\04\00\00\00[12]junk")
                  (data (i32.const 128) "words\00") (data (i32.const 160) "\ff\ff\ff\7f{}")
                  (data (i32.const 192) "\0a\00\00\00\"a\\u0000b\"")"#;
    let at = |name: &str, at: u32| {
        format!(r#"(func (export "{name}") (param i32 i32) (result i32) (i32.const {at}))"#)
    };
    let exports: String = [
        ("nul", 16),
        ("len", 64),
        ("words", 128),
        ("far", 160),
        ("inner", 192),
        ("number", 42),
        ("beyond", 9_000_000),
    ]
    .map(|(name, place)| at(name, place))
    .concat();
    let module = format!(r#"(module (memory (export "memory") 1) {ALLOC} {data} {exports})"#);
    let plugin = engine()
        .plugin(module.as_bytes())
        .result_form("number", ResultForm::Int)
        .limits(within(GENEROUS))
        .load()
        .unwrap();
    assert_eq!(plugin.inspection().abi, Abi::Capability);
    for (name, result) in
        [("nul", r#"{"a":1}"#), ("len", "[12]"), ("inner", r#""a\u0000b""#), ("number", "42")]
    {
        assert_eq!(String::from_utf8_lossy(&plugin.call(name, "{}").unwrap()), result, "{name}");
    }
    for (name, why) in [
        ("words", r#"read up to a NUL byte it is "words""#),
        ("far", "a length beyond its memory"),
        ("beyond", "lies outside of its memory"),
    ] {
        let error = plugin.call(name, "{}").unwrap_err();
        assert_eq!(error.fault(), Fault::Protocol);
        assert!(error.to_string().contains(why), "{error}");
    }
}

/// A guest with its own memory, one that is given its memory, and one that is given it and exports it.
fn memories() -> [(&'static str, &'static str); 3] {
    [
        ("own", r#"(memory (export "memory") 4)"#),
        ("given", r#"(import "env" "memory" (memory 256 512))"#),
        ("both", r#"(import "env" "memory" (memory 256 512)) (export "memory" (memory 0))"#),
    ]
}

const ABI_V1: &str = r#"
    (import "env" "host_log" (func $log (param i32 i32)))
    (import "env" "host_get_config" (func $config (param i32 i32 i32 i32) (result i32)))
    (import "env" "host_set_state" (func $set (param i32 i32 i32 i32)))
    (import "env" "host_get_state" (func $get (param i32 i32 i32 i32) (result i32)))
    (import "env" "host_alloc" (func $alloc (param i32) (result i32)))
    (import "env" "host_get_time_ms" (func $now (result i64)))
    (import "env" "host_random" (func $random (param i32 i32)))"#;

const TOOLS: &str = r#"
    (data (i32.const 0x120000) "{\"abi_version\":1,\"tools\":[{\"name\":\"echo\",\"description\":\"d\"}]}")
    (data (i32.const 0x120100) "failed")
    (func (export "plugin_get_abi_version") (result i32) (i32.const 1))
    (func (export "plugin_get_capabilities") (param $out i32) (param $len i32) (result i32)
      (memory.copy (local.get $out) (i32.const 0x120000) (i32.const 62))
      (i32.store (local.get $len) (i32.const 62))
      (i32.const 0))
    (func (export "plugin_execute_tool")
      (param $name i32) (param $name_len i32) (param $args i32) (param $args_len i32) (param $out i32) (param $len i32)
      (result i32) (local $kind i32)
      (local.set $kind (i32.load8_u (local.get $name)))
      ;; echo: the arguments
      (if (i32.eq (local.get $kind) (i32.const 101)) (then
        (if (i32.gt_u (local.get $args_len) (i32.load (local.get $len))) (then (return (i32.const 1))))
        (memory.copy (local.get $out) (local.get $args) (local.get $args_len))
        (i32.store (local.get $len) (local.get $args_len))
        (return (i32.const 0))))
      ;; name: its own name
      (if (i32.eq (local.get $kind) (i32.const 110)) (then
        (memory.copy (local.get $out) (local.get $name) (local.get $name_len))
        (i32.store (local.get $len) (local.get $name_len))
        (return (i32.const 0))))
      ;; config: the value of the key in the arguments
      (if (i32.eq (local.get $kind) (i32.const 99)) (then
        (return (call $config (local.get $args) (local.get $args_len) (local.get $out) (local.get $len)))))
      ;; set, get: state under the first letter of the arguments
      (if (i32.eq (local.get $kind) (i32.const 115)) (then
        (call $set (local.get $args) (i32.const 1) (local.get $args) (local.get $args_len))
        (i32.store (local.get $len) (i32.const 0))
        (return (i32.const 0))))
      (if (i32.eq (local.get $kind) (i32.const 103)) (then
        (return (call $get (local.get $args) (i32.const 1) (local.get $out) (local.get $len)))))
      ;; memory: two blocks from the host are apart, and can be written to
      (if (i32.eq (local.get $kind) (i32.const 109)) (then
        (i32.store (call $alloc (i32.const 70000)) (i32.const 7))
        (i32.store (call $alloc (i32.const 2000000)) (i32.const 7))
        (i32.store (local.get $len) (i32.const 0))
        (return (i32.eqz (call $alloc (i32.const 8))))))
      ;; log, and the time and random bytes as they come
      (if (i32.eq (local.get $kind) (i32.const 108)) (then
        (call $log (local.get $args) (local.get $args_len))
        (i64.store (local.get $out) (call $now))
        (call $random (i32.add (local.get $out) (i32.const 8)) (i32.const 8))
        (i32.store (local.get $len) (i32.const 0))
        (return (i64.lt_s (call $now) (i64.const 1700000000000)))))
      ;; trap, loop, lie
      (if (i32.eq (local.get $kind) (i32.const 116)) (then (unreachable)))
      (if (i32.eq (local.get $kind) (i32.const 111)) (then (loop (br 0))))
      (if (i32.eq (local.get $kind) (i32.const 98)) (then
        (i32.store (local.get $len) (i32.const 0x7fffffff))
        (return (i32.const 0))))
      (memory.copy (local.get $out) (i32.const 0x120100) (i32.const 6))
      (i32.store (local.get $len) (i32.const 6))
      (i32.const 3))"#;

fn tools(memory: &str) -> String {
    let grow = if memory.contains("export \"memory\") 4") {
        memory.replace(") 4", ") 20")
    } else {
        memory.to_owned()
    };
    let (imports, rest) = if grow.contains("import") {
        let end = grow.find("))").unwrap() + 2;
        (grow[..end].to_owned(), grow[end..].to_owned())
    } else {
        (String::new(), grow)
    };
    format!("(module {imports} {ABI_V1} {rest} {TOOLS})")
}

#[test]
fn tools_behind_one_export() {
    for (what, memory) in memories() {
        let plugin = load(&tools(memory)).unwrap_or_else(|error| panic!("{what}: {error}"));
        let listed = plugin.call("plugin_get_capabilities", "").unwrap();
        assert!(String::from_utf8_lossy(&listed).contains(r#""name":"echo""#), "{what}");
        let ok = |output: &str| format!(r#"{{"success":true,"output":"{output}"}}"#);
        let failed = |error: &str| format!(r#"{{"success":false,"output":"","error":"{error}"}}"#);
        for (name, arguments, result) in [
            ("echo", "hello", ok("hello")),
            ("echo", "", ok("")),
            ("name of some length", "x", ok("name of some length")),
            ("config", "color", ok("green")),
            ("config", "colour", failed("WASM tool execution failed")),
            ("get", "k", failed("WASM tool execution failed")),
            ("set", "kind", ok("")),
            ("get", "k", ok("kind")),
            ("memory", "", ok("")),
            ("log", "a line", ok("")),
            ("unknown", "", failed("failed")),
        ] {
            let output = plugin.call("plugin_execute_tool", call_of(name, arguments)).unwrap();
            assert_eq!(String::from_utf8_lossy(&output), result, "{what}: {name} {arguments}");
        }
        assert!(format!("{:?}", plugin.log_tail(0, 10)).contains("a line"), "{what}");
    }
}

/// CortexPrism's own runtime traps unless both lengths are 3 modulo 4.
#[test]
fn any_lengths() {
    for (what, memory) in memories() {
        let plugin = load(&tools(memory)).unwrap();
        for name_bytes in 1..=40 {
            let name = "n".repeat(name_bytes);
            let output = plugin.call("plugin_execute_tool", call_of(&name, "")).unwrap();
            assert!(String::from_utf8_lossy(&output).contains(&format!("{name}\"")), "{what}");
        }
        for bytes in (0..=100).chain([65_535, 65_536]) {
            let arguments = "a".repeat(bytes);
            let output = plugin.call("plugin_execute_tool", call_of("echo", &arguments)).unwrap();
            assert!(
                String::from_utf8_lossy(&output).contains(&format!("\"{arguments}\"")),
                "{what}: {bytes}"
            );
        }
        for bytes in [65_537, 1_200_000, 10_000_000] {
            let arguments = "a".repeat(bytes);
            let output = plugin.call("plugin_execute_tool", call_of("echo", &arguments)).unwrap();
            // It has to say so itself, since its buffer is smaller.
            assert!(String::from_utf8_lossy(&output).contains("false"), "{what}: {bytes}");
            let output = plugin.call("plugin_execute_tool", call_of("echo", "again")).unwrap();
            assert!(String::from_utf8_lossy(&output).contains("again"), "{what}: {bytes}");
        }
    }
}

#[test]
fn tools_that_misbehave() {
    let module = tools(memories()[0].1);
    let plugin =
        engine().plugin(module.as_bytes()).limits(within(Duration::from_millis(100))).load().unwrap();
    for (name, fault) in [("trap", Fault::Trap), ("oops", Fault::Deadline), ("big", Fault::Protocol)] {
        let error = plugin.call("plugin_execute_tool", call_of(name, "")).unwrap_err();
        assert_eq!(error.fault(), fault, "{error}");
        let output = plugin.call("plugin_execute_tool", call_of("echo", "still here")).unwrap();
        assert!(String::from_utf8_lossy(&output).contains("still here"));
    }
    // Output is text.
    let output = plugin.call("plugin_execute_tool", call_of("echo", "x")).unwrap();
    assert!(String::from_utf8_lossy(&output).contains('x'));
    let mut bytes = call_of("echo", "");
    bytes.extend([0xff, 0xfe]);
    let error = plugin.call("plugin_execute_tool", bytes).unwrap_err();
    assert_eq!(error.fault(), Fault::Protocol, "{error}");
    assert!(error.to_string().contains("its output is no UTF-8"), "{error}");
    for short in [&b"\x01"[..], b"\xff\xff\xff\xffname"] {
        let error = plugin.call("plugin_execute_tool", short).unwrap_err();
        assert!(error.to_string().contains("has no name of a tool"), "{error}");
    }
}

/// Version, initialiser, and programs that are run before their first call.
#[test]
fn what_comes_before_the_first_call() {
    let version = tools(memories()[0].1).replace(
        r#""plugin_get_abi_version") (result i32) (i32.const 1)"#,
        r#""plugin_get_abi_version") (result i32) (i32.const 42)"#,
    );
    let error = load(&version).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Start(Fault::Protocol));
    assert!(error.to_string().contains("version 42"), "{error}");
    let module = |start: &str| {
        format!(
            r#"(module (memory (export "memory") 1) {ALLOC}
                 (func (export "{start}") (i32.store8 (i32.const 16) (i32.add (i32.load8_u (i32.const 16)) (i32.const 49))))
                 (func (export "seen") (param i32 i32) (result i32) (i32.const 16)))"#
        )
    };
    for start in ["_start", "_initialize", "__wasm_call_ctors"] {
        for mode in [InstanceMode::Fresh, InstanceMode::Shared] {
            let plugin = engine().plugin(module(start).as_bytes()).mode(mode).load().unwrap();
            for _ in 0..3 {
                assert_eq!(plugin.call("seen", "{}").unwrap(), b"1", "{start} {mode:?}");
            }
        }
    }
    let init = tools(memories()[0].1).replace(
        "(data (i32.const 0x120100)",
        r#"(func (export "plugin_init") unreachable) (data (i32.const 0x120100)"#,
    );
    assert_eq!(load(&init).unwrap_err().kind(), ErrorKind::Start(Fault::Trap));
}

/// What cannot be called is said when it is loaded, in the words of the module that was given.
#[test]
fn what_does_not_fit() {
    let tool = r#"(func (export "t") (param i32 i32) (result i32) (i32.const 0))"#;
    for (module, why) in [
        (r#"(module (memory (export "memory") 1) (func (export "plugin_execute_tool") (param i32) (result i32) (i32.const 0)))"#.to_owned(),
         "\"plugin_execute_tool\" has another type than (i32 i32 i32 i32 i32 i32) -> (i32)"),
        (format!(r#"(module (memory (export "memory") 1) {} (func (export "plugin_get_abi_version") (result i64) (i64.const 1)))"#,
            r#"(func (export "plugin_get_capabilities") (param i32 i32) (result i32) (i32.const 0))"#),
         "\"plugin_get_abi_version\" has another type than () -> (i32)"),
        (format!(r#"(module (memory i64 1) {tool})"#), "a memory of 64-bit addresses"),
        (format!(r#"(module (memory 1) (global (export "memory") i32 (i32.const 0)) {tool})"#), "\"memory\" is no memory"),
    ] {
        let error = load(&module).unwrap_err().to_string();
        assert!(error.contains(why), "{why}: {error}");
    }
}

/// A length may look like a digit.
#[test]
fn lengths_that_look_like_numbers() {
    for length in [47_usize, 48, 53, 57, 58] {
        let text = format!("\"{}\"", "x".repeat(length - 2));
        let module = format!(
            r#"(module (memory (export "memory") 1) (data (i32.const 16) "\{length:02x}\00\00\00{}")
                 (func (export "t") (param i32 i32) (result i32) (i32.const 16)))"#,
            text.replace('"', r"\22")
        );
        assert_eq!(load(&module).unwrap().call("t", "{}").unwrap(), text.as_bytes(), "{length}");
    }
    let digit = r#"(module (memory (export "memory") 1) (data (i32.const 16) "7\00\00\00")
                     (func (export "t") (param i32 i32) (result i32) (i32.const 16)))"#;
    assert_eq!(load(digit).unwrap().call("t", "{}").unwrap(), b"7");
}
