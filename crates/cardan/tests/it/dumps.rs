//! What is left of a call that failed in its guest: backtrace and core dump.

use cardan::Fault;
use wasmparser::{KnownCustom, Parser, Payload};

use crate::support::{Linkage, engine, guest, guest_importing, prebuilt, within};

/// `_ZN..E` names are what Rust's compiler writes.
const DEEP: &str = r#"
  (func $_ZN5guest5inner17h0123456789abcdefE (param $left i32)
    (if (i32.eqz (local.get $left)) (then unreachable))
    (call $_ZN5guest5inner17h0123456789abcdefE (i32.sub (local.get $left) (i32.const 1))))
  (global $mark (mut i32) (i32.const 5))
  (func $run (export "run")
    (global.set $mark (i32.const 77))
    (i32.store (i32.const 0x9000) (i32.const 0x5eed5eed))
    (drop @"a secret")
    (call $_ZN5guest5inner17h0123456789abcdefE (i32.const 2)))
  (func (export "deep") (call $_ZN5guest5inner17h0123456789abcdefE (i32.const 100)))
  (func (export "refuse") (result i32) (i32.const 3))
  (func (export "fine"))"#;

#[test]
fn backtraces_name_functions() {
    for linkage in Linkage::BOTH {
        let plugin = linkage.plugin(guest(DEEP).as_bytes()).load().unwrap();
        let error = plugin.call("run", "").unwrap_err();
        assert_eq!(error.message(), "wasm trap: wasm `unreachable` instruction executed", "{linkage:?}");
        let lines: Vec<&str> = error.backtrace().unwrap().lines().collect();
        assert_eq!(lines.len(), 4, "{lines:#?}");
        assert!(lines[..3].iter().all(|line| line.contains("!guest::inner")), "{lines:#?}");
        assert!(lines[3].ends_with("!run") && lines[3].contains("0x"), "{lines:#?}");

        let error = plugin.call("deep", "").unwrap_err();
        assert_eq!(error.backtrace().unwrap().lines().count(), 32, "the innermost ones");
        assert_eq!(plugin.call("refuse", "").unwrap_err().backtrace(), None, "it returned");
    }
    let long = format!("(func ${} (export \"run\") unreachable)", "n".repeat(90_000));
    let error = engine().load(guest(&long).as_bytes()).unwrap().call("run", "").unwrap_err();
    assert_eq!(error.backtrace().unwrap().len(), (8 << 10) + 3);

    let starts = guest("(func $boom unreachable) (start $boom)");
    let error = engine().load(starts.as_bytes()).unwrap_err();
    assert!(error.backtrace().unwrap().ends_with("!boom"), "{error:?} {:?}", error.backtrace());

    let slow = guest(r#"(func $spin (export "run") (loop (br 0)))"#);
    let limits = within(std::time::Duration::from_millis(20));
    let error = engine().plugin(slow.as_bytes()).limits(limits).load().unwrap().call("run", "").unwrap_err();
    assert_eq!((error.fault(), error.message()), (Fault::Deadline, "timeout"));
    assert!(error.backtrace().unwrap().ends_with("!spin"), "where its time went: {:?}", error.backtrace());
}

/// A Rust guest, built for release: its names are gone.
#[test]
fn functions_without_names_have_numbers() {
    let error = prebuilt("kitchen").load().unwrap().call("trap", "boo").unwrap_err();
    let mut lines = error.backtrace().unwrap().lines();
    assert!(lines.all(|line| line.contains("!<wasm function ")), "{:?}", error.backtrace());
}

#[test]
fn a_core_dump_is_left_when_one_was_asked_for() {
    for linkage in Linkage::BOTH {
        let plugin = linkage.plugin(guest(DEEP).as_bytes()).load().unwrap();
        plugin.call("run", "").unwrap_err();
        assert_eq!(plugin.take_core_dump(), None, "nobody asked");
        plugin.request_core_dump();
        plugin.call("fine", "").unwrap();
        assert_eq!(plugin.take_core_dump(), None, "nothing failed");
        plugin.call("run", "").unwrap_err();
        let dump = Dump::read(&plugin.take_core_dump().unwrap());
        assert_eq!(plugin.take_core_dump(), None, "taken");
        plugin.call("run", "").unwrap_err();
        assert_eq!(plugin.take_core_dump(), None, "one request, one dump");

        assert_eq!(dump.frames, 4, "{linkage:?}");
        assert!(dump.has(b"a secret"), "the kernel's memory");
        assert!(dump.has(&0x5eed_5eed_u32.to_le_bytes()), "the guest's");
        assert_eq!(dump.memories, 2);
        assert!(dump.bytes < 64 << 10, "{} bytes", dump.bytes);
        if linkage == Linkage::Fused {
            assert!(dump.globals.contains(&77), "{:?}", dump.globals);
        }
    }
    let plugin = engine().load(guest(DEEP).as_bytes()).unwrap();
    plugin.request_core_dump();
    plugin.call("refuse", "").unwrap_err();
    assert_eq!(Dump::read(&plugin.take_core_dump().unwrap()).frames, 0, "it returned");
}

/// A dump is of one call: nothing is in it of an earlier one, of another plugin, or of the host.
#[test]
fn a_core_dump_knows_what_its_call_knew() {
    let module = guest_importing(
        r#"(import "extism:host/user" "secret_get" (func $secret (param i64) (result i64)))"#,
        r#"(func $know (export "know") (call $say (call $secret @"api-key")))
           (func (export "trap") unreachable)
           (func (export "know_and_trap") (call $know) unreachable)"#,
    );
    let load = || crate::services::builder(&module, "knows", crate::services::everything()).load().unwrap();
    let plugin = load();
    let dump = |export: &str| {
        plugin.request_core_dump();
        plugin.call(export, "").unwrap_err();
        Dump::read(&plugin.take_core_dump().unwrap())
    };
    assert!(dump("know_and_trap").has(b"s3cret"), "this one knew it");
    let other = load();
    for _ in 0..20 {
        for plugin in [&plugin, &other] {
            assert_eq!(plugin.call("know", "").unwrap(), b"s3cret");
        }
        let dump = dump("trap");
        assert!(!dump.has(b"s3cret"));
        assert!(dump.bytes < 64 << 10, "{} bytes", dump.bytes);
    }
}

#[derive(Default)]
struct Dump {
    bytes: usize,
    frames: usize,
    memories: u32,
    globals: Vec<i32>,
    data: Vec<Vec<u8>>,
}

impl Dump {
    fn has(&self, text: &[u8]) -> bool {
        self.data.iter().any(|data| data.windows(text.len()).any(|window| window == text))
    }

    fn read(bytes: &[u8]) -> Self {
        let mut dump = Self { bytes: bytes.len(), ..Self::default() };
        let mut seen = Vec::new();
        for payload in Parser::new(0).parse_all(bytes) {
            match payload.unwrap() {
                Payload::MemorySection(section) => dump.memories = section.count(),
                Payload::GlobalSection(section) => {
                    for global in section {
                        let mut value = global.unwrap().init_expr.get_operators_reader();
                        if let wasmparser::Operator::I32Const { value } = value.read().unwrap() {
                            dump.globals.push(value);
                        }
                    }
                }
                Payload::DataSection(section) => {
                    dump.data = section.into_iter().map(|data| data.unwrap().data.to_vec()).collect();
                }
                Payload::CustomSection(section) => match section.as_known() {
                    KnownCustom::CoreDump(core) => seen.push(core.name.to_owned()),
                    KnownCustom::CoreDumpStack(stack) => {
                        assert_eq!(stack.name, "main");
                        dump.frames = stack.frames.len();
                        assert!(stack.frames.iter().all(|frame| frame.instanceidx == 0));
                    }
                    KnownCustom::CoreDumpModules(modules) => assert_eq!(modules.modules.len(), 1),
                    KnownCustom::CoreDumpInstances(instances) => {
                        assert_eq!(instances.instances.len(), 1);
                        assert_eq!(instances.instances[0].memories.len() as u32, dump.memories);
                    }
                    _ => panic!("a section {}", section.name()),
                },
                _ => {}
            }
        }
        assert_eq!(seen.len(), 1, "it says what it is");
        dump
    }
}
