//! Return codes and errors (section 6), each row as the reference has it.

use std::time::Duration;

use cardan::{Fault, HostFunction, Manifest, MemoryLimits, Val, ValueType};

use crate::support::{Linkage, guest, guest_importing, linked, prebuilt, with_memory, within};

/// One row: what the export `run` does, and what the call brings. Of the error, a part is enough.
#[track_caller]
fn check(run: &str, code: i32, error: Option<&str>, fault: Option<Fault>) {
    for linkage in Linkage::BOTH {
        let module = guest(run);
        let limits = within(Duration::from_millis(150));
        let plugin = linkage.plugin(module.as_bytes()).limits(limits).load().unwrap();
        let report = plugin.instance().unwrap().call("run", "");
        assert_eq!((report.code, report.fault), (code, fault), "{linkage:?}: {report:?}");
        match (error, &report.error) {
            (None, None) => {}
            (Some(""), Some(error)) => assert_eq!(error, "", "{linkage:?}"),
            (Some(part), Some(error)) => assert!(error.contains(part), "{linkage:?}: {error}"),
            (expected, found) => panic!("{linkage:?}: expected {expected:?}, found {found:?}"),
        }
    }
}

const TRAP: Option<Fault> = Some(Fault::Trap);
const BACKTRACE: &str = "error while executing at wasm backtrace:\n";

#[test]
fn what_the_export_returns() {
    check(r#"(func (export "run"))"#, 0, None, None);
    check(r#"(func (export "run") (result i32) (i32.const 0))"#, 0, None, None);
    check(r#"(func (export "run") (result i32) (i32.const 7))"#, 7, None, TRAP);
    check(r#"(func (export "run") (result i32) (i32.const -5))"#, -5, None, TRAP);
    check(r#"(func (export "run") (result i64) (i64.const 0))"#, -1, None, TRAP);
    check(r#"(func (export "run") (result f32) (f32.const 0))"#, -1, None, TRAP);
    check(r#"(func (export "run") (result f64) (f64.const 0))"#, -1, None, TRAP);
}

#[test]
fn errors_the_guest_sets() {
    let run = |body: &str| format!(r#"(func (export "run") (result i32) {body})"#);
    check(&run(r#"(call $error_set @"words") (i32.const 3)"#), 3, Some("words"), TRAP);
    check(&run(r#"(call $error_set @"words") (i32.const 0)"#), 0, Some("words"), TRAP);
    check(&run(r#"(call $error_set @"words") (call $error_set (i64.const 0)) (i32.const 0)"#), 0, None, None);
    check(&run(r#"(call $error_set @"words") (call $error_set (i64.const 0)) (i32.const 4)"#), 4, None, TRAP);
    check(&run(r#"(call $error_set (i64.const 0x1234)) (i32.const 4)"#), 4, Some(""), TRAP);
    check(&run(r#"(call $error_set (i64.const 0x7fffffffff)) (i32.const 4)"#), 4, None, TRAP);
    check(&run(r#"(call $error_set @"words") unreachable"#), -1, Some("words"), TRAP);
    check(
        &run(r#"(call $error_set @"words") (loop (br 0)) unreachable"#),
        -1,
        Some("words"),
        Some(Fault::Deadline),
    );
    check(
        &run(r#"(call $error_set @"first") (call $error_set @"second") (i32.const 1)"#),
        1,
        Some("second"),
        TRAP,
    );
}

#[test]
fn traps() {
    let run = |body: &str| format!(r#"(func $run (export "run") (result i32) {body})"#);
    check(&run("unreachable"), 134, Some(BACKTRACE), TRAP);
    check(&run("unreachable"), 134, Some("\n\nCaused by:\n    wasm trap: wasm `unreachable`"), TRAP);
    check(&run("(i32.div_u (i32.const 1) (i32.const 0))"), 134, Some("integer divide by zero"), TRAP);
    check(&run("(i32.load (i32.const -16))"), 134, Some("out of bounds memory access"), TRAP);
    check(&run("(i32.add (call $run) (i32.const 1))"), 134, Some("call stack exhausted"), TRAP);
    check(&run("(loop (br 0)) unreachable"), 134, Some("timeout"), Some(Fault::Deadline));
}

#[test]
fn errors_of_host_functions_have_their_cause() {
    let run = |body: &str| format!(r#"(func (export "run") (result i32) {body} (i32.const 0))"#);
    let bad_key = run("(drop (call $config_get (i64.const 12345)))");
    check(&bad_key, -1, Some(BACKTRACE), Some(Fault::Protocol));
    check(&bad_key, -1, Some("\n\nCaused by:\n    invalid handle offset: 12345"), Some(Fault::Protocol));
    let denied = run(r#"(drop (call $http_request @"{\22url\22: \22http://a.b/c\22}" (i64.const 0)))"#);
    check(
        &denied,
        -1,
        Some("Caused by:\n    HTTP request to http://a.b/c is not allowed"),
        Some(Fault::Denied),
    );
}

#[test]
fn exports_that_cannot_be_called() {
    let protocol = Some(Fault::Protocol);
    let cases = [
        (r#"(func (export "other"))"#, "Function not found: run"),
        (
            r#"(func (export "run") (result i32 i32) (i32.const 0) (i32.const 0))"#,
            "Function run has 2 results, expected 0 or 1",
        ),
        (r#"(func (export "run") (param i32))"#, "expected 1 arguments, got 0"),
        (
            r#"(func (export "run") (param i32 i64) (result i32) (i32.const 0))"#,
            "expected 2 arguments, got 0",
        ),
    ];
    for (run, error) in cases {
        check(run, -1, Some(error), protocol);
    }
    let plugin = prebuilt("echo").load().unwrap();
    let report = plugin.instance().unwrap().call("", "");
    assert_eq!((report.code, report.error.as_deref()), (-1, Some("Function not found: ")));
}

#[test]
fn callable_exports() {
    let module = r#"
        (func (export "unit"))
        (func (export "code") (result i32) (i32.const 0))
        (func (export "i64") (result i64) (i64.const 0))
        (func (export "f64") (result f64) (f64.const 0))
        (func (export "two") (result i32 i32) (i32.const 0) (i32.const 0))
        (func (export "parameter") (param i32))
        (global (export "global") i32 (i32.const 0))"#;
    let plugin = Linkage::Fused.plugin(guest(module).as_bytes()).load().unwrap();
    let callable = ["unit", "code", "i64", "f64", "two", "parameter", "global", "memory", "missing", ""]
        .map(|name| (name, plugin.has_export(name)));
    let expected = callable.map(|(name, _)| (name, ["unit", "code"].contains(&name)));
    assert_eq!(callable, expected);
}

#[test]
fn memory() {
    let grows = guest(
        r#"(func (export "run") (result i32) (memory.grow (i32.const 8)))
           (func (export "allocates") (result i32)
             (i32.eqz (i32.wrap_i64 (call $alloc (i64.const 1000000)))))
           (func (export "ok"))"#,
    );
    let budget = MemoryLimits { max_pages: Some(4), ..MemoryLimits::default() };
    for manifest in [
        with_memory(&grows, budget.clone()),
        Manifest { memory: budget, ..linked(&[("beside", "(module)"), ("main", &grows)]) },
    ] {
        let plugin = crate::support::engine().load(manifest).unwrap();
        let mut instance = plugin.instance().unwrap();
        for export in ["run", "allocates"] {
            let report = instance.call(export, "");
            assert_eq!((report.code, report.error.as_deref()), (-1, Some("oom")), "{export}");
            assert_eq!(report.fault, Some(Fault::Memory));
            assert_eq!(instance.call("ok", "").code, 0, "usable after {export}");
        }
        let report = instance.call("ok", vec![0; 1 << 20]);
        assert_eq!((report.code, report.error.as_deref()), (-1, Some("failed to allocate extism memory")));
        assert_eq!(instance.call("ok", "").code, 0);
    }
}

#[test]
fn fuel() {
    let module = guest(
        r#"(func (export "loop") (loop (br 0)))
           (func (export "short"))"#,
    );
    for linkage in Linkage::BOTH {
        let limits = cardan::Limits { fuel: Some(100_000), ..cardan::Limits::default() };
        let plugin = linkage.plugin(module.as_bytes()).limits(limits).load().unwrap();
        let mut instance = plugin.instance().unwrap();
        for _ in 0..2 {
            let report = instance.call("loop", "");
            assert_eq!((report.code, report.error.as_deref()), (-1, Some("plugin ran out of fuel")));
            assert_eq!(report.fault, Some(Fault::Deadline));
            assert_eq!(instance.call("short", "").code, 0, "every call gets all of the fuel");
        }
    }
}

#[test]
fn fuel_covers_the_start() {
    let module = guest(r#"(func (export "_initialize") (loop (br 0)))"#);
    let limits = cardan::Limits { fuel: Some(100_000), ..cardan::Limits::default() };
    let error = Linkage::Fused.plugin(module.as_bytes()).limits(limits).load().unwrap_err();
    assert!(error.message().contains("all fuel consumed by WebAssembly"), "{error}");
}

/// What `proc_exit` stands for. 126 and more are no exit codes for wasmtime's WASI.
#[test]
fn exits() {
    let rows: [(i32, i32, Option<&str>, Option<Fault>); 6] = [
        (0, 0, None, None),
        (1, 1, Some(BACKTRACE), TRAP),
        (100, 100, Some(BACKTRACE), TRAP),
        (125, 125, Some(BACKTRACE), TRAP),
        (126, -1, Some(BACKTRACE), Some(Fault::Protocol)),
        (-1, -1, Some(BACKTRACE), Some(Fault::Protocol)),
    ];
    let import = r#"(import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))"#;
    for (status, code, error, fault) in rows {
        let body = format!(
            r#"(func (export "run") (call $say @"kept") (call $exit (i32.const {status})))
               (func (export "explains") (call $error_set @"words") (call $exit (i32.const {status})))"#
        );
        let module = guest_importing(import, &body);
        let plugin = Linkage::Fused.plugin(module.as_bytes()).load().unwrap();
        let mut instance = plugin.instance().unwrap();
        let report = instance.call("run", "");
        assert_eq!((report.code, &*report.output, report.fault), (code, &b"kept"[..], fault), "{report:?}");
        assert_eq!(report.error.is_some(), error.is_some(), "exit {status}: {report:?}");
        assert!(report.error.unwrap_or_default().starts_with(error.unwrap_or_default()));
        let report = instance.call("explains", "");
        assert_eq!((report.code, report.error.as_deref()), (-1, Some("words")), "exit {status}");
    }
}

#[test]
fn a_host_function_with_the_wrong_result() {
    let wrong = HostFunction::raw("wrong", vec![], vec![ValueType::I64], |_, _, results| {
        results[0] = Val::I32(1);
        Ok(())
    });
    let import = r#"(import "extism:host/user" "wrong" (func $wrong (result i64)))"#;
    let module = guest_importing(import, r#"(func (export "run") (drop (call $wrong)))"#);
    let plugin = Linkage::Fused.plugin(module.as_bytes()).host_function(wrong).load().unwrap();
    let report = plugin.instance().unwrap().call("run", "");
    assert_eq!(report.code, -1);
    assert!(report.error.unwrap().contains("incompatible"));
}

#[test]
fn output_stays_beside_an_error() {
    let module = guest(
        r#"(func (export "traps") (call $say @"kept") unreachable)
           (func (export "returns") (result i32) (call $say @"kept") (i32.const 5))"#,
    );
    for linkage in Linkage::BOTH {
        let mut instance = linkage.plugin(module.as_bytes()).load().unwrap().instance().unwrap();
        assert_eq!(instance.call("traps", "").output, b"kept");
        assert_eq!(instance.call("returns", "").output, b"kept");
        assert_eq!(instance.call("missing", "").output, b"", "what an earlier call set is gone");
    }
}

/// The guest's own words for `Plugin::call`, and its code as a kind.
#[test]
fn as_errors() {
    let plugin = prebuilt("kitchen").load().unwrap();
    let error = plugin.call("fail", r#"{"code": 4, "message": "no"}"#).unwrap_err();
    assert_eq!((error.kind(), error.message()), (cardan::ErrorKind::Guest(4), "no"));
    assert_eq!(error.to_string(), "plugin kitchen: no");
    let error = plugin.call("fail", r#"{"code": 0, "message": "no"}"#).unwrap_err();
    assert_eq!((error.kind(), error.message()), (cardan::ErrorKind::Guest(0), "no"));
    let error = plugin.call("return_code", "9").unwrap_err();
    assert_eq!(
        (error.kind(), error.message()),
        (cardan::ErrorKind::Guest(9), "the guest returned the code 9")
    );
    let error = plugin.call("trap", "").unwrap_err();
    assert_eq!(error.kind(), cardan::ErrorKind::Call(Fault::Trap));
    let error = plugin.call("nowhere", "").unwrap_err();
    assert_eq!(error.to_string(), "plugin kitchen: Function not found: nowhere");
}
