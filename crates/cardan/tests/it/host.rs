//! Host functions: Extism's (2.2, 2.3, 2.5) and the embedder's (4).

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use cardan::{
    Error, ErrorKind, Fault, HostFunction, Limits, LogLevel, Plugin, PluginBuilder, Val, ValueType,
};

use crate::support::{
    ENV, GENEROUS, Linkage, Recorder, engine, guest, guest_importing, guests, linked, prebuilt, told, within,
};

/// Loads a guest with these functions.
fn load(linkage: Linkage, functions: &str) -> PluginBuilder {
    linkage.plugin(guest(functions).as_bytes())
}

/// The output of `run`, or the error's first and last lines.
fn run(plugin: &Plugin) -> Result<Vec<u8>, (Fault, String)> {
    plugin.call("run", "").map_err(|error| {
        let cause = error.message().lines().last().unwrap_or_default().trim().to_owned();
        (error.fault(), cause)
    })
}

#[test]
fn config_get() {
    let key = "(global $key (mut i64) (i64.const 0))";
    let rows: [(&str, Result<&[u64], (Fault, &str)>); 8] = [
        // The host frees the key.
        (
            r#"(global.set $key @"greeting") (drop (call $config_get (global.get $key)))
            (call $tell (call $length (global.get $key)))"#,
            Ok(&[0]),
        ),
        // Go's PDK frees it once more when it has the value.
        (
            r#"(local $value i64) (global.set $key @"greeting")
            (local.set $value (call $config_get (global.get $key))) (call $free (global.get $key))
            (call $tell (call $length (local.get $value)))"#,
            Ok(&[5]),
        ),
        (r#"(call $tell (call $length (call $config_get @"greeting")))"#, Ok(&[5])),
        (r#"(call $tell (call $config_get @"missing"))"#, Ok(&[0])),
        (r#"(call $tell (call $config_get @"empty"))"#, Ok(&[0])),
        (r#"(call $tell (call $length (call $config_get (i64.const 0))))"#, Ok(&[7])),
        (r#"(drop (call $config_get (i64.const 99)))"#, Err((Fault::Protocol, "invalid handle offset: 99"))),
        (
            r#"(drop (call $config_get @"\ff"))"#,
            Err((Fault::Protocol, "invalid utf-8 sequence of 1 bytes from index 0")),
        ),
    ];
    for linkage in Linkage::BOTH {
        for (body, expected) in rows {
            let plugin = load(linkage, &format!(r#"{key} (func (export "run") {body} (call $told))"#))
                .config("greeting", "hello")
                .config("empty", "")
                .config("", "nothing")
                .load()
                .unwrap();
            let expected = expected.map(<[u64]>::to_vec).map_err(|(fault, why)| (fault, why.to_owned()));
            assert_eq!(run(&plugin).map(|output| told(&output)), expected, "{linkage:?} {body}");
        }
    }
}

#[test]
fn config_can_be_replaced() {
    let plugin = prebuilt("kitchen").config("k", "first").load().unwrap();
    let mut instance = plugin.instance().unwrap();
    assert_eq!(instance.call("config_get", "k").output, b"first");
    instance.set_config([("k".to_owned(), "second".to_owned())].into());
    assert_eq!(instance.call("config_get", "k").output, b"second");
    assert_eq!(plugin.call("config_get", "k").unwrap(), b"first", "only this instance's");
    assert_eq!(plugin.call("config_get", "none").unwrap(), b"<unset>");
}

/// Sets variables one after the other, as `key` and bytes of value; the row says which are taken.
#[track_caller]
fn check_vars(bytes_max: u64, sets: &[(&str, usize, bool)]) {
    let limits = Limits { var_bytes_max: bytes_max, ..Limits::default() };
    let mut instance = prebuilt("kitchen").limits(limits).load().unwrap().instance().unwrap();
    for &(key, bytes, taken) in sets {
        let report = instance.call("var_fill", format!(r#"{{"key": "{key}", "bytes": {bytes}}}"#));
        assert_eq!(report.code, if taken { 0 } else { -1 }, "{key} {bytes}: {report:?}");
        if !taken {
            assert!(report.error.unwrap().ends_with("Variable store is full"));
            assert_eq!(report.fault, Some(Fault::Memory));
        }
    }
}

#[test]
fn vars_have_the_references_limits() {
    check_vars(100, &[("k", 52, false), ("k", 51, true)]);
    // The reference's default is a byte less than the 1 MiB it is said to be.
    check_vars(1 << 20, &[("k", 1_048_528, false), ("k", 1_048_527, true)]);
    // What is replaced counts as well.
    check_vars(200, &[("k", 100, true), ("k", 50, false)]);
    check_vars(300, &[("k", 100, true), ("k", 50, true), ("k", 100, true)]);
    check_vars(150, &[("a", 20, true), ("b", 20, true), ("c", 20, false)]);
}

#[test]
fn vars() {
    let key = "(global $key (mut i64) (i64.const 0)) (global $value (mut i64) (i64.const 0))";
    let rows: [(&str, Result<&[u64], (Fault, &str)>); 8] = [
        // Both blocks are freed; the value comes back in a block of its own.
        (
            r#"(global.set $key @"k") (global.set $value @"value")
            (call $var_set (global.get $key) (global.get $value))
            (call $tell (call $length (global.get $key))) (call $tell (call $length (global.get $value)))
            (call $tell (call $length (call $var_get @"k")))"#,
            Ok(&[0, 0, 5]),
        ),
        (r#"(call $tell (call $var_get @"missing"))"#, Ok(&[0])),
        (
            r#"(call $var_set @"k" @"v") (call $var_set @"k" (i64.const 0)) (call $tell (call $var_get @"k"))"#,
            Ok(&[0]),
        ),
        (
            r#"(call $var_set (i64.const 0) @"abc") (call $tell (call $length (call $var_get (i64.const 0))))"#,
            Ok(&[3]),
        ),
        (r#"(call $var_set @"k" (i64.const 77))"#, Err((Fault::Protocol, "invalid handle offset: 77"))),
        (r#"(call $var_set (i64.const 77) @"v")"#, Err((Fault::Protocol, "invalid handle offset: 77"))),
        (r#"(drop (call $var_get (i64.const 77)))"#, Err((Fault::Protocol, "invalid handle offset: 77"))),
        (
            r#"(call $var_set @"\ff" @"v")"#,
            Err((Fault::Protocol, "invalid utf-8 sequence of 1 bytes from index 0")),
        ),
    ];
    for linkage in Linkage::BOTH {
        for (body, expected) in rows {
            let plugin =
                load(linkage, &format!(r#"{key} (func (export "run") {body} (call $told))"#)).load().unwrap();
            let expected = expected.map(<[u64]>::to_vec).map_err(|(fault, why)| (fault, why.to_owned()));
            assert_eq!(run(&plugin).map(|output| told(&output)), expected, "{linkage:?} {body}");
        }
    }
}

#[test]
fn vars_may_be_forbidden() {
    for (bytes_max, set, remove) in [(0, false, false), (1, false, true)] {
        let limits = Limits { var_bytes_max: bytes_max, ..Limits::default() };
        let mut instance = prebuilt("kitchen").limits(limits).load().unwrap().instance().unwrap();
        let report = instance.call("var_set", r#"{"key": "k", "value": "v"}"#);
        assert_eq!(report.code == 0, set, "{bytes_max}: {report:?}");
        let report = instance.call("var_remove", "k");
        assert_eq!(report.code == 0, remove, "{bytes_max}: {report:?}");
        if bytes_max == 0 {
            assert!(report.error.unwrap().ends_with("Vars are disabled by this host"));
            assert_eq!(report.fault, Some(Fault::Denied));
        }
    }
}

#[test]
fn vars_outlive_what_they_should() {
    let plugin = prebuilt("kitchen").load().unwrap();
    let set = r#"{"key": "k", "value": "v"}"#;
    plugin.call("var_set", set).unwrap();
    assert_eq!(plugin.call("var_get", "k").unwrap(), b"v", "the plugin's instances share them");
    let mut own = plugin.instance().unwrap();
    assert_eq!(own.call("var_get", "k").output, b"<unset>", "an instance of one's own has its own");
    own.call("var_set", r#"{"key": "k", "value": "own"}"#);
    assert_eq!(own.call("trap", "").code, 134);
    assert_eq!(own.call("var_get", "k").output, b"own", "also after a trap");
    assert_eq!(plugin.call("var_get", "k").unwrap(), b"v");
    assert_eq!(prebuilt("kitchen").load().unwrap().call("var_get", "k").unwrap(), b"<unset>");
}

/// What the five functions log at a level, all of them given the same text.
#[track_caller]
fn check_log(level: Option<LogLevel>, text: &[u8], expected: &[(LogLevel, &str)]) {
    let log = Recorder::at(level);
    let plugin = prebuilt("kitchen").log(log.clone()).load().unwrap();
    plugin.call("log_unasked", text).unwrap();
    let expected: Vec<_> = expected.iter().map(|&(level, text)| (level, text.to_owned())).collect();
    assert_eq!(log.take(), expected);
}

#[test]
fn logging() {
    use LogLevel::{Debug, Error, Info, Trace, Warn};
    let all = [(Trace, "text"), (Debug, "text"), (Info, "text"), (Warn, "text"), (Error, "text")];
    check_log(Some(Trace), b"text", &all);
    check_log(Some(Info), b"text", &all[2..]);
    check_log(Some(Error), b"text", &all[4..]);
    check_log(None, b"text", &[]);
    check_log(Some(Error), b"", &[(Error, "")]);
    let unreadable = "log message is not UTF-8: invalid utf-8 sequence of 1 bytes from index 0";
    check_log(Some(Warn), b"\xff", &[(Error, unreadable), (Error, unreadable)]);

    for (level, number) in [(None, i32::MAX), (Some(Trace), 0), (Some(Info), 2), (Some(Error), 4)] {
        let plugin = prebuilt("kitchen").log(Recorder::at(level)).load().unwrap();
        assert_eq!(plugin.call("log_level", "").unwrap(), number.to_string().into_bytes());
    }
    let log = Recorder::at(Some(Warn));
    prebuilt("kitchen").log(log.clone()).load().unwrap().call("log", "x").unwrap();
    assert_eq!(log.take(), [(Warn, "warn: x".to_owned()), (Error, "error: x".to_owned())]);
}

#[test]
fn logging_frees_and_checks_handles() {
    let rows: [(Option<LogLevel>, &str, Result<u64, &str>); 4] = [
        (Some(LogLevel::Info), r#"(global.set $h @"text") (call $log_info (global.get $h))"#, Ok(0)),
        (None, r#"(global.set $h @"text") (call $log_info (global.get $h))"#, Ok(0)),
        (Some(LogLevel::Warn), "(call $log_info (i64.const 77))", Ok(0)),
        (Some(LogLevel::Info), "(call $log_info (i64.const 77))", Err("invalid handle offset: 77")),
    ];
    for linkage in Linkage::BOTH {
        for (level, body, expected) in rows {
            let functions = format!(
                r#"(global $h (mut i64) (i64.const 0))
                   (func (export "run") {body} (call $tell (call $length (global.get $h))) (call $told))"#
            );
            let plugin = load(linkage, &functions).log(Recorder::at(level)).load().unwrap();
            let found = run(&plugin).map(|output| told(&output)[0]).map_err(|(_, why)| why);
            assert_eq!(found, expected.map_err(str::to_owned), "{linkage:?} {level:?} {body}");
        }
    }
}

#[test]
fn long_lines_are_cut() {
    let module = guest(
        r#"(func (export "run") (local $p i64)
             (local.set $p (call $alloc (i64.const 100000)))
             (call $log_info (local.get $p)))"#,
    );
    let log = Recorder::at(Some(LogLevel::Info));
    engine().plugin(module.as_bytes()).log(log.clone()).load().unwrap().call("run", "").unwrap();
    let lines = log.take();
    assert_eq!(lines.len(), 1);
    assert!(lines[0].1.ends_with("... (34464 bytes more)"), "{}", &lines[0].1[65536..]);
}

/// What a recorder got of some calls: lines, bytes of them, and the last one.
fn taken(log: &Recorder) -> (usize, usize, String) {
    let lines = log.take();
    let bytes = lines.iter().map(|(_, line)| line.len()).sum();
    (lines.len(), bytes, lines.last().map(|(_, line)| line.clone()).unwrap_or_default())
}

#[track_caller]
fn check_dropped((lines, bytes, last): &(usize, usize, String)) {
    assert!(*lines <= 1001 && *bytes < (256 << 10) + 1000, "{lines} lines of {bytes} bytes");
    let said = "more lines were dropped: one call may log 1000 lines of 262144 bytes together";
    assert!(last.ends_with(said), "{last:?}");
}

/// Each call, and each start, has so much room in the log and no more, however it ends.
#[tokio::test]
async fn a_flooded_log() {
    for linkage in Linkage::BOTH {
        let load = |name: &str| {
            let module = std::fs::read(guests().join("hostile").join(name).with_extension("wat")).unwrap();
            let log = Recorder::at(Some(LogLevel::Info));
            let limits = within(Duration::from_millis(if name == "log_flood" { 1_000 } else { 20_000 }));
            // Every instance is to start for itself.
            let plugin = linkage.plugin(&module).limits(limits).log(log.clone());
            let plugin = plugin.snapshot(cardan::SnapshotPolicy::Never);
            (plugin.load().unwrap(), log)
        };
        let (plugin, log) = load("log_flood_bytes");
        let mut instance = plugin.instance().unwrap();
        for _ in 0..2 {
            assert_eq!(instance.call_async("run", b"").await.code, 0);
            let found = taken(&log);
            check_dropped(&found);
            // Four whole lines, most of a fifth, and the report on the others.
            assert_eq!((found.0, found.2.split(' ').next()), (6, Some("96")), "{linkage:?}");
        }
        let (plugin, log) = load("initialize_log_flood");
        log.take();
        plugin.call_async("run", b"").await.unwrap();
        let lines = log.take();
        assert_eq!(lines.len(), 1002, "{linkage:?}");
        assert!(lines[1000].1.starts_with("4000 more lines were dropped"), "{:?}", lines[1000]);
        assert_eq!(lines[1001].1, "\0".repeat(8));

        // To the deadline; given up, and followed by another; given up for good.
        let (plugin, log) = load("log_flood");
        let mut instance = plugin.instance().unwrap();
        assert_eq!(instance.call_async("run", b"").await.fault, Some(Fault::Deadline));
        check_dropped(&taken(&log));
        let given_up = async |instance: &mut cardan::PluginInstance| {
            let call = instance.call_async("run", b"");
            tokio::time::timeout(Duration::from_millis(100), call).await.unwrap_err();
        };
        given_up(&mut instance).await;
        let (lines, _, last) = taken(&log);
        assert_eq!((lines, &*last), (1000, "again"), "{linkage:?}");
        given_up(&mut instance).await;
        let report = log.take().swap_remove(0);
        assert!(report.1.contains(" more lines were dropped: "), "{report:?}");
        assert_eq!(report.0, LogLevel::Error, "as the lines were");
        drop(instance);
        check_dropped(&taken(&log));
    }
}

/// The import by each name is there, with its type, in both linkages.
#[test]
fn every_function_is_there() {
    for linkage in Linkage::BOTH {
        load(linkage, r#"(func (export "run"))"#).load().unwrap().call("run", "").unwrap();
        for (name, ty) in ENV {
            let module = format!(r#"(module (import "extism:host/env" "{name}" (func {ty})))"#);
            linkage
                .plugin(module.as_bytes())
                .load()
                .unwrap_or_else(|error| panic!("{linkage:?} {name}: {error}"));
            let wrong =
                format!(r#"(module (import "extism:host/env" "{name}" (func (param f64) (result f64))))"#);
            let error = linkage.plugin(wrong.as_bytes()).load().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Link, "{linkage:?} {name}: {error}");
            assert!(
                error.message().contains("types incompatible: expected type"),
                "{linkage:?} {name}: {error}"
            );
        }
    }
}

/// Why a module does not link.
#[track_caller]
fn check_unlinked(module: &str, why: &str) {
    for linkage in Linkage::BOTH {
        let error = linkage.plugin(module.as_bytes()).load().unwrap_err();
        assert!(error.message().starts_with(why), "{linkage:?}: {error}");
        assert_eq!(error.kind(), ErrorKind::Link, "{linkage:?}: {error}");
    }
}

#[test]
fn imports_that_are_not_there() {
    check_unlinked(
        r#"(module (import "extism:host/env" "teleport" (func (param i64))))"#,
        "Invalid function import from extism:host/env: teleport (type (func (param i64)))\n\n",
    );
    check_unlinked(
        r#"(module (import "extism:host/env" "begin" (func (param i64) (result i64))))"#,
        "Invalid function import from extism:host/env: begin (type (func (param i64) (result i64)))\n\n",
    );
    for import in [
        r#""memory" (memory 1)"#,
        r#""extism_context" (global (mut externref))"#,
        r#""__data_end" (global i32)"#,
        r#""alloc" (table 1 funcref)"#,
    ] {
        check_unlinked(
            &format!(r#"(module (import "extism:host/env" {import}))"#),
            "linked modules cannot access non-function exports of extism kernel",
        );
    }
    check_unlinked(
        r#"(module (import "extism:host/user" "missing" (func)))"#,
        "unknown import: `extism:host/user::missing` has not been defined",
    );
    check_unlinked(
        r#"(module (import "env" "extism_alloc" (func (param i64) (result i64))))"#,
        "unknown import: `env::extism_alloc` has not been defined",
    );
    check_unlinked(
        r#"(module (import "wasi_unstable" "fd_write" (func (param i32 i32 i32 i32) (result i32))))"#,
        "unknown import: `wasi_unstable::fd_write` has not been defined",
    );
    // Also in a module that main only imports from.
    let manifest = linked(&[
        ("lib", r#"(module (import "extism:host/env" "memory" (memory 1)))"#),
        ("main", "(module)"),
    ]);
    let error = engine().load(manifest).unwrap_err();
    assert!(error.message().starts_with("linked modules cannot access non-function"), "{error}");
}

/// An embedder's function with a new name in `extism:host/env` does not exist for guests.
#[test]
fn only_existing_names_can_be_shadowed() {
    let function =
        HostFunction::raw("teleport", vec![], vec![], |_, _, _| Ok(())).in_module("extism:host/env");
    let module = r#"(module (import "extism:host/env" "teleport" (func)))"#;
    let error = engine().plugin(module.as_bytes()).host_function(function).load().unwrap_err();
    assert!(error.message().starts_with("Invalid function import from extism:host/env: teleport"), "{error}");
}

#[test]
fn shadowing() {
    for linkage in Linkage::BOTH {
        // A kernel function, one of the host's, and one of WASI's, with WASI and without.
        let number = |number: i64| {
            move |_: &mut cardan::HostCall<'_>, _: &[Val], results: &mut [Val]| {
                results[0] = Val::I64(number);
                Ok(())
            }
        };
        let plugin = load(
            linkage,
            r#"(func (export "run") (call $tell (call $length (i64.const 1))) (call $tell (call $config_get @"k"))
                 (call $told))"#,
        )
        .config("k", "value")
        .host_function(
            HostFunction::raw("length_unsafe", vec![ValueType::I64], vec![ValueType::I64], number(1))
                .in_module("extism:host/env"),
        )
        .host_function(
            HostFunction::raw("config_get", vec![ValueType::I64], vec![ValueType::I64], number(4242))
                .in_module("extism:host/env"),
        )
        .load()
        .unwrap();
        assert_eq!(told(&run(&plugin).unwrap()), [0, 4242], "{linkage:?}");

        let module = r#"(module
            (import "extism:host/env" "alloc" (func $alloc (param i64) (result i64)))
            (func (export "run") (result i32) (i32.wrap_i64 (call $alloc (i64.const 1)))))"#;
        let alloc = HostFunction::raw("alloc", vec![ValueType::I64], vec![ValueType::I64], number(4242));
        let plugin = linkage.plugin(module.as_bytes()).host_function(alloc.in_module("extism:host/env"));
        assert_eq!(plugin.load().unwrap().instance().unwrap().call("run", "").code, 4242, "{linkage:?}");

        let module = r#"(module
            (import "wasi_snapshot_preview1" "sched_yield" (func $yield (result i32)))
            (func (export "run") (result i32) (call $yield)))"#;
        for wasi in [true, false] {
            let own = HostFunction::raw("sched_yield", vec![], vec![ValueType::I32], |_, _, results| {
                results[0] = Val::I32(77);
                Ok(())
            });
            let builder = linkage.plugin(module.as_bytes());
            let builder = builder.host_function(own.in_module("wasi_snapshot_preview1"));
            let plugin = if wasi { builder } else { builder.without_wasi() }.load().unwrap();
            assert_eq!(plugin.instance().unwrap().call("run", "").code, 77, "{linkage:?}, WASI {wasi}");
        }
    }
}

const UPPER: &str = r#"(import "extism:host/user" "upper" (func $upper (param i64) (result i64)))"#;
const CALLS_UPPER: &str = r#"(func (export "run") (call $say (call $upper (call $input_offset))))"#;

fn upper(input: &[u8]) -> Result<Vec<u8>, String> {
    match input {
        b"" => Ok(Vec::new()),
        b"fail" => Err("no capitals today".to_owned()),
        _ => Ok(input.to_ascii_uppercase()),
    }
}

#[test]
fn functions_from_bytes_to_bytes() {
    let module = guest_importing(UPPER, CALLS_UPPER);
    let waiting = HostFunction::suspending("upper", |input| async move {
        tokio::time::sleep(Duration::from_millis(2)).await;
        upper(&input)
    });
    for linkage in Linkage::BOTH {
        for function in [HostFunction::bytes("upper", upper), waiting.clone()] {
            let plugin = linkage.plugin(module.as_bytes()).host_function(function).load().unwrap();
            assert_eq!(plugin.call("run", "hello").unwrap(), b"HELLO");
            assert_eq!(plugin.call("run", "").unwrap(), b"");
            let error = plugin.call("run", "fail").unwrap_err();
            assert_eq!(error.fault(), Fault::Host);
            assert_eq!(error.message(), "no capitals today");
            assert!(error.backtrace().is_some(), "the guest was in the middle of it");
        }
    }
    let error = engine().load(module.as_bytes()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Link);
}

#[test]
fn the_last_registration_wins() {
    let module = guest_importing(UPPER, CALLS_UPPER);
    let plugin = engine()
        .plugin(module.as_bytes())
        .host_function(HostFunction::bytes("upper", |_| Ok(b"first".to_vec())))
        .host_function(HostFunction::bytes("upper", |_| Ok(b"last".to_vec())))
        .load()
        .unwrap();
    assert_eq!(plugin.call("run", "x").unwrap(), b"last");
}

#[test]
fn functions_of_any_type_in_any_module() {
    let imports = r#"
        (import "env" "add" (func $add (param f64 f32 i32 i64) (result f64)))
        (import "my space" "swap" (func $swap (param i32 i64) (result i64 i32)))
        (import "host" "upper" (func $upper (param i64) (result i64)))"#;
    let run = r#"(func (export "run") (local $n i32) (local $w i64)
        (call $tell (i64.trunc_f64_s (call $add (f64.const 1.5) (f32.const 2.5) (i32.const -3) (i64.const 4000))))
        (call $swap (i32.const -1) (i64.const 9))
        (local.set $n) (local.set $w)
        (call $tell (local.get $w)) (call $tell (i64.extend_i32_s (local.get $n)))
        (call $told))
      (func (export "upper") (call $say (call $upper (call $input_offset))))"#;
    let add = HostFunction::raw(
        "add",
        vec![ValueType::F64, ValueType::F32, ValueType::I32, ValueType::I64],
        vec![ValueType::F64],
        |_, params, results| {
            let [Val::F64(a), Val::F32(b), Val::I32(c), Val::I64(d)] = params else {
                return Err(cardan::HostError::msg("other types"));
            };
            let sum = f64::from_bits(*a) + f64::from(f32::from_bits(*b)) + f64::from(*c) + *d as f64;
            results[0] = Val::F64(sum.to_bits());
            Ok(())
        },
    );
    let swap = HostFunction::raw(
        "swap",
        vec![ValueType::I32, ValueType::I64],
        vec![ValueType::I64, ValueType::I32],
        |_, params, results| {
            results.clone_from_slice(&[params[1], params[0]]);
            Ok(())
        },
    );
    let upper =
        HostFunction::raw("upper", vec![ValueType::I64], vec![ValueType::I64], |call, params, results| {
            let handle = params[0].unwrap_i64().cast_unsigned();
            assert_eq!(call.length(handle), 5);
            assert_eq!(call.length(handle + 1), 0);
            assert!(call.read(handle + 1).is_err());
            assert_eq!(call.read(0).unwrap(), b"");
            let input = call.read(handle)?;
            call.free(handle);
            assert_eq!(call.length(handle), 0);
            let block = call.write(&input.to_ascii_uppercase())?;
            results[0] = Val::I64(block.cast_signed());
            Ok(())
        });
    let module = guest_importing(imports, run);
    for linkage in Linkage::BOTH {
        let plugin = linkage
            .plugin(module.as_bytes())
            .host_function(add.clone().in_module("env"))
            .host_function(swap.clone().in_module("my space"))
            .host_function(upper.clone().in_module("host"))
            .load()
            .unwrap();
        assert_eq!(told(&plugin.call("run", "").unwrap()), [4001, 9, u64::MAX], "{linkage:?}");
        assert_eq!(plugin.call("upper", "hello").unwrap(), b"HELLO", "{linkage:?}");
    }
}

/// Host functions work while the guest starts: the reference crashes there.
#[test]
fn while_starting() {
    let functions = r#"
        (global $first (mut i64) (i64.const 0))
        (func $init
          (call $var_set @"v" (call $upper (call $config_get @"k")))
          (call $log_info @"early"))
        (func (export "run") (call $say (call $var_get @"v")))"#;
    for entry in [
        "(start $init)",
        r#"(export "_initialize" (func $init))"#,
        r#"(export "__wasm_call_ctors" (func $init))"#,
    ] {
        for linkage in Linkage::BOTH {
            let module = guest_importing(UPPER, &format!("{functions} {entry}"));
            let log = Recorder::at(Some(LogLevel::Info));
            let plugin = linkage
                .plugin(module.as_bytes())
                .config("k", "early")
                .log(log.clone())
                .host_function(HostFunction::bytes("upper", upper))
                .load()
                .unwrap();
            assert_eq!(plugin.call("run", "").unwrap(), b"EARLY", "{linkage:?} {entry}");
            assert_eq!(log.take()[0], (LogLevel::Info, "early".to_owned()), "{linkage:?} {entry}");
        }
    }
}

/// A guest that has the host call the plugin again, and so on: an error ends it.
#[test]
fn calls_may_not_nest_without_end() {
    let module = std::fs::read(guests().join("hostile/recursion_host.wat")).unwrap();
    let again: Arc<OnceLock<Plugin>> = Arc::default();
    let inner = again.clone();
    let call_again = HostFunction::bytes("call_again", move |_| {
        inner
            .get()
            .map_or(Ok(Vec::new()), |plugin| plugin.call("run", "").map_err(|error: Error| error.to_string()))
    });
    let limits = within(GENEROUS);
    let plugin = engine().plugin(&*module).limits(limits).host_function(call_again).load().unwrap();
    // Past the plugin's probation, so that the outer call runs on this stack.
    for _ in 0..20 {
        plugin.call("run", "").unwrap();
    }
    again.set(plugin.clone()).unwrap();
    let error = plugin.call("run", "").unwrap_err();
    assert!(error.message().contains("more than 16 calls inside of each other"), "{error}");
    let in_runtime = tokio::runtime::Runtime::new().unwrap();
    let error = in_runtime.block_on(plugin.call_async("run", b"")).unwrap_err();
    assert!(error.message().contains("more than 16 calls inside of each other"), "{error}");
}

/// A panic of the embedder's goes to the embedder, past the guest.
#[test]
fn panics_pass_through() {
    let module = guest_importing(UPPER, CALLS_UPPER);
    let function = HostFunction::bytes("upper", |input| match input {
        b"panic" => panic!("the embedder's own"),
        _ => Ok(input.to_vec()),
    });
    let plugin = engine().plugin(module.as_bytes()).host_function(function).load().unwrap();
    for _ in 0..20 {
        let call = std::panic::AssertUnwindSafe(|| plugin.call("run", "panic"));
        let panic = std::panic::catch_unwind(call).unwrap_err();
        assert_eq!(panic.downcast_ref(), Some(&"the embedder's own"));
        assert_eq!(plugin.call("run", "fine").unwrap(), b"fine");
    }
}
