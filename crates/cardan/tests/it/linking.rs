//! Several modules (8): who imports from whom, what each is, and who goes first.

use cardan::{Abi, ErrorKind, Fault, HostFunction, InstanceMode, Manifest, Val, ValueType};

use crate::support::{engine, entry, guest, guest_importing, linked, prebuilt, told};

const ADD_ONE: &str = r#"(module (func (export "add_one") (param i32) (result i32)
    (i32.add (local.get 0) (i32.const 1))))"#;

/// What main's `run` returns.
#[track_caller]
fn check(modules: &[(&str, &str)], code: i32) {
    let plugin = engine().load(linked(modules)).unwrap();
    let mut instance = plugin.instance().unwrap();
    for call in 0..3 {
        let report = instance.call("run", "");
        assert_eq!((report.code, report.error), (code, None), "call {call}");
    }
    assert!(code == 0 || plugin.call("run", "").is_err());
}

#[track_caller]
fn check_refused(modules: &[(&str, &str)], why: &str) {
    let error = engine().load(linked(modules)).unwrap_err();
    assert_eq!((error.kind(), error.message()), (ErrorKind::Link, why));
}

fn main_adding(module: &str) -> String {
    format!(
        r#"(module (import "{module}" "add_one" (func $f (param i32) (result i32)))
             (func (export "run") (result i32) (call $f (i32.const 41))))"#
    )
}

#[test]
fn libraries() {
    let main = main_adding("rhs");
    check(&[("rhs", ADD_ONE), ("main", &main)], 42);
    check(&[("main", &main), ("rhs", ADD_ONE)], 42);
    // By way of another, whatever the order.
    let middle = r#"(module (import "rhs" "add_one" (func $f (param i32) (result i32)))
        (func (export "add_one") (param i32) (result i32) (call $f (call $f (local.get 0)))))"#;
    let main = main_adding("middle");
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let modules = [("rhs", ADD_ONE), ("middle", middle), ("main", &*main)];
        check(&order.map(|n| modules[n]), 43);
    }
    // Memories, tables and globals are shared as functions are.
    let lib = r#"(module (memory (export "memory") 1) (data (i32.const 8) "*")
        (global (export "number") i32 (i32.const 1)) (table (export "table") 1 funcref))"#;
    let main = r#"(module (import "lib" "memory" (memory 1)) (import "lib" "number" (global i32))
        (import "lib" "table" (table 1 funcref))
        (func (export "run") (result i32) (i32.add (i32.load8_u (i32.const 8)) (global.get 0))))"#;
    check(&[("lib", lib), ("main", main)], 43);
    // A library that nobody asks for is there as well.
    check(&[("unused", "(module)"), ("rhs", ADD_ONE), ("main", &main_adding("rhs"))], 42);
}

#[test]
fn what_is_not_there() {
    check_refused(
        &[("other", ADD_ONE), ("main", &main_adding("rhs"))],
        "unknown import: `rhs::add_one` has not been defined",
    );
    check_refused(
        &[("rhs", "(module)"), ("main", &main_adding("rhs"))],
        "unknown import: `rhs::add_one` has not been defined",
    );
    let error = engine().load(main_adding("rhs").as_bytes()).unwrap_err();
    assert_eq!(error.message(), "unknown import: `rhs::add_one` has not been defined");
    let other = r#"(module (func (export "add_one")))"#;
    let error = engine().load(linked(&[("rhs", other), ("main", &main_adding("rhs"))])).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Link);
    assert!(
        error.message().contains("types incompatible: expected type `(func (param i32) (result i32))`"),
        "{error}"
    );
}

#[test]
fn circles() {
    let of = |from: &str| {
        format!(r#"(module (import "{from}" "f" (func)) (func (export "f")) (func (export "run")))"#)
    };
    let circle = "modules import from each other in a circle: ";
    check_refused(&[("a", &of("b")), ("b", &of("a")), ("main", "(module)")], &format!("{circle}a -> b -> a"));
    check_refused(&[("a", &of("main")), ("main", &of("a"))], &format!("{circle}a -> main -> a"));
    check_refused(&[("a", "(module)"), ("main", &of("main"))], &format!("{circle}main -> main"));
    let error = engine().load(of("main").as_bytes()).unwrap_err();
    assert_eq!(error.message(), format!("{circle}main -> main"));
    // Long chains are no circles, and do not take the stack for themselves.
    let names: Vec<String> = (0..60).map(|n| format!("m{n}")).collect();
    let mut modules = vec![("m0".to_owned(), r#"(module (func (export "f")))"#.to_owned())];
    modules.extend((1..60).map(|n| (names[n].clone(), of(&names[n - 1]))));
    modules.push(("main".to_owned(), of("m59")));
    let modules: Vec<(&str, &str)> = modules.iter().map(|(name, text)| (&**name, &**text)).collect();
    check(&modules, 0);
}

/// A module may import from main, if main does not import from it.
#[test]
fn modules_after_main() {
    let main = r#"(module (global $calls (mut i32) (i32.const 5))
        (func (export "bump") (global.set $calls (i32.add (global.get $calls) (i32.const 1))))
        (func (export "run") (result i32) (global.get $calls)))"#;
    let after = r#"(module (import "main" "bump" (func $bump)) (start $bump))"#;
    check(&[("after", after), ("main", main)], 6);
}

/// Commands (`_start`) are instantiated for each call of an export, reactors once.
#[test]
fn commands_and_reactors() {
    let counting = |entry: &str| {
        format!(
            r#"(module (global $n (mut i32) (i32.const 0))
                 (func (export "next") (result i32)
                   (global.set $n (i32.add (global.get $n) (i32.const 1))) (global.get $n))
                 {entry})"#
        )
    };
    let main = r#"(module (import "lib" "next" (func $next (result i32)))
        (func (export "run") (result i32) (drop (call $next)) (drop (call $next)) (call $next)))"#;
    let start = r#"(func (export "_start") unreachable)"#;
    let initialize = r#"(func (export "_initialize") (global.set $n (i32.const 10)))"#;
    check(&[("lib", &counting(start)), ("main", main)], 1);
    for (entry, codes) in
        [("", [3, 6]), (initialize, [13, 16]), (&*format!("{start} {initialize}"), [13, 16])]
    {
        let plugin = engine().load(linked(&[("lib", &counting(entry)), ("main", main)])).unwrap();
        let mut instance = plugin.instance().unwrap();
        assert_eq!([instance.call("run", "").code, instance.call("run", "").code], codes, "{entry}");
        let shared = engine().plugin(linked(&[("lib", &counting(entry)), ("main", main)]));
        let shared = shared.mode(InstanceMode::Shared).load().unwrap();
        assert!(shared.call("run", "").is_err(), "a code is an error here");
    }
}

/// As in Go's SDK: a library and a main that are both commands, call after call.
#[test]
fn a_command_that_uses_a_command() {
    let lib = guest(
        r#"(func (export "_start"))
           (func (export "capitalize") (param $h i64) (result i64)
             (call $store_u8 (local.get $h) (i32.sub (call $load_u8 (local.get $h)) (i32.const 32)))
             (local.get $h))"#,
    );
    let main = guest_importing(
        r#"(import "lib" "capitalize" (func $capitalize (param i64) (result i64)))"#,
        r#"(func (export "_start"))
           (func (export "run") (call $say (call $capitalize (call $input_offset))))"#,
    );
    let plugin = engine().load(linked(&[("lib", &lib), ("main", &main)])).unwrap();
    let mut instance = plugin.instance().unwrap();
    for _ in 0..20 {
        assert_eq!(instance.call("run", "benjamin").output, b"Benjamin");
        assert_eq!(plugin.call("run", "benjamin").unwrap(), b"Benjamin");
    }
    // Instances of the library that a loop leaves behind count towards the plugin's memory.
    let greedy = guest_importing(
        r#"(import "lib" "capitalize" (func $capitalize (param i64) (result i64)))"#,
        r#"(func (export "run") (loop $more (drop (call $capitalize (call $input_offset))) (br $more)))"#,
    );
    let plugin = engine().load(linked(&[("lib", &lib), ("main", &greedy)])).unwrap();
    assert_eq!(plugin.call("run", "x").unwrap_err().fault(), Fault::Memory);
    assert_eq!(prebuilt("echo").load().unwrap().call("echo", "x").unwrap(), b"x");
}

/// What libraries leave behind in a shared instance costs no call: the instance is replaced in time.
#[test]
fn what_commands_leave_behind() {
    for (memory, calls) in [("", 11_000), ("(memory 100)", 100)] {
        let lib = format!(
            r#"(module {memory} (func (export "_start")) (func (export "one") (result i32) (i32.const 1)))"#
        );
        let main = guest_importing(
            r#"(import "lib" "one" (func $one (result i32)))"#,
            r#"(global $n (mut i32) (i32.const 0))
               (func (export "run")
                 (global.set $n (i32.add (global.get $n) (call $one)))
                 (call $tell (i64.extend_i32_u (global.get $n))) (call $told))"#,
        );
        let modules = linked(&[("lib", &lib), ("main", &main)]);
        let plugin = engine().plugin(modules).mode(InstanceMode::Shared).load().unwrap();
        let counts: Vec<u64> = (0..calls).map(|_| told(&plugin.call("run", "").unwrap())[0]).collect();
        assert!(counts.iter().is_sorted_by(|&a, &b| *b == *a + 1 || *b == 1), "{memory}");
        assert!(counts.iter().max() > Some(&3), "{memory}: {counts:?}");
    }
}

/// All modules share the kernel's memory; a module may stand in for the embedder's functions.
#[test]
fn standing_in_for_host_functions() {
    let upper = guest(
        r#"(func (export "host_reflect") (param $h i64) (result i64) (local $i i64)
             (loop $more
               (call $store_u8 (i64.add (local.get $h) (local.get $i))
                 (i32.and (call $load_u8 (i64.add (local.get $h) (local.get $i))) (i32.const 0xdf)))
               (local.set $i (i64.add (local.get $i) (i64.const 1)))
               (br_if $more (i64.lt_u (local.get $i) (call $length (local.get $h)))))
             (local.get $h))"#,
    );
    let reflect = guest_importing(
        r#"(import "extism:host/user" "host_reflect" (func $host_reflect (param i64) (result i64)))"#,
        r#"(func (export "reflect") (call $say (call $host_reflect (call $input_offset))))"#,
    );
    let function = || HostFunction::bytes("host_reflect", |input| Ok([input, b" by the host"].concat()));
    let alone = engine().plugin(reflect.as_bytes()).host_function(function()).load().unwrap();
    assert_eq!(alone.call("reflect", "hello").unwrap(), b"hello by the host");
    // A module takes precedence over the embedder.
    let both = linked(&[("extism:host/user", &upper), ("main", &reflect)]);
    for builder in [engine().plugin(both.clone()), engine().plugin(both).host_function(function())] {
        assert_eq!(builder.load().unwrap().call("reflect", "hello").unwrap(), b"HELLO");
    }
    // What it does not export is the embedder's still.
    let main = r#"(module (import "extism:host/user" "host_reflect" (func (param i64) (result i64)))
        (import "extism:host/user" "seven" (func $seven (result i32)))
        (func (export "run") (result i32) (call $seven)))"#;
    let seven = HostFunction::raw("seven", vec![], vec![ValueType::I32], |_, _, results| {
        results[0] = Val::I32(7);
        Ok(())
    });
    let plugin =
        engine().plugin(linked(&[("extism:host/user", &upper), ("main", main)])).host_function(seven);
    assert_eq!(plugin.load().unwrap().instance().unwrap().call("run", "").code, 7);
    // WASI's name is as good as any.
    let wasi = r#"(module (func (export "sched_yield") (result i32) (i32.const 9)))"#;
    let main = r#"(module (import "wasi_snapshot_preview1" "sched_yield" (func $yield (result i32)))
        (func (export "run") (result i32) (call $yield)))"#;
    check(&[("wasi_snapshot_preview1", wasi), ("main", main)], 9);
}

/// Every module that starts does so at creation, in the order of imports, host functions at hand.
#[test]
fn starting() {
    let step = |name: &str, imports: &str| {
        guest_importing(
            imports,
            &format!(
                r#"(func (export "f"))
                   (func $add (param $digit i64) (local $old i64)
                     (local.set $old (call $var_get @"order"))
                     (call $var_set @"order" (call $alloc (i64.add (call $length (local.get $old)) (i64.const 1))))
                     (call $log_info @"{name}"))
                   (func $start (call $add (i64.const 1))) (start $start)
                   (func (export "_initialize") (call $log_info @"{name} initialised"))"#
            ),
        )
    };
    let first = step("first", "");
    let second = step("second", r#"(import "first" "f" (func))"#);
    let main = step("main", r#"(import "second" "f" (func))"#);
    let log = crate::support::Recorder::at(Some(cardan::LogLevel::Info));
    let plugin = engine()
        .plugin(linked(&[("main", &main), ("second", &second), ("first", &first)]))
        .log(log.clone())
        .load()
        .unwrap();
    let lines: Vec<String> = log.take().into_iter().map(|(_, line)| line).collect();
    let expected = ["first", "first initialised", "second", "second initialised", "main", "main initialised"];
    assert_eq!(lines, expected);
    assert!(plugin.has_export("f"));
    // What fails there fails the creation.
    for bad in ["(start $f)", r#"(export "_initialize" (func $f))"#] {
        let lib = format!("(module (func $f unreachable) {bad})");
        let error = engine().load(linked(&[("lib", &lib), ("main", "(module)")])).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Start(Fault::Trap), "{bad}: {error}");
    }
}

/// A budget for growth does not count what other modules begin with.
#[test]
fn budgets() {
    let lib = "(module (memory 5))";
    let main = r#"(module (memory 1) (func (export "run") (result i32) (i32.sub (memory.grow (i32.const 2)) (i32.const 1))))"#;
    let memory = cardan::MemoryLimits { max_pages: Some(2), ..cardan::MemoryLimits::default() };
    let plugin = engine().load(Manifest { memory, ..linked(&[("lib", lib), ("main", main)]) }).unwrap();
    assert_eq!(plugin.instance().unwrap().call("run", "").code, 0);
}

/// Fused or beside, every prebuilt guest answers the same.
#[test]
fn prebuilt_guests_answer_alike() {
    let chat = r#"{"model":"m","messages":[{"role":"user","content":"call 555 1234"}]}"#;
    let request = r#"{"method":"GET","path":"/","headers":[],"body":null}"#;
    let inputs = [
        "",
        "hello world",
        "42",
        "1000",
        chat,
        request,
        r#"{"key": "k", "value": "v"}"#,
        r#"{"code": 3, "message": "no"}"#,
    ];
    let skipped = ["spin", "sleep_ms", "read_clock", "random_bytes", "allocations", "alloc_free"];
    let mut compared = 0;
    for name in crate::support::files("prebuilt") {
        let path = crate::support::guests().join("prebuilt").join(&name).with_extension("wasm");
        let Ok(module) = std::fs::read(&path) else { continue };
        // Other conventions have one module and one linkage.
        let Ok(fused) = engine().load(&*module) else { continue };
        if fused.inspection().abi != Abi::Extism {
            continue;
        }
        let beside = Manifest {
            wasm: vec![entry("bystander", b"(module)"), entry("main", &module)],
            ..Manifest::default()
        };
        let beside = engine().load(beside).unwrap();
        for export in fused.inspection().exports.clone() {
            if !fused.has_export(&export) || skipped.contains(&&*export) {
                continue;
            }
            assert!(beside.has_export(&export));
            let (mut fused, mut beside) = (fused.instance().unwrap(), beside.instance().unwrap());
            for input in inputs {
                let (mut a, mut b) = (fused.call(&export, input), beside.call(&export, input));
                // Offsets of code differ in backtraces.
                for report in [&mut a, &mut b] {
                    report.backtrace = None;
                    report.error =
                        report.error.take().map(|error| error.replace(|c: char| c.is_ascii_hexdigit(), ""));
                    report.error = report
                        .error
                        .take()
                        .map(|error| error.lines().filter(|line| !line.contains("<unknown>")).collect());
                }
                assert_eq!(a, b, "{name} {export} {input:?}");
                compared += 1;
            }
        }
    }
    assert!(compared > 300, "{compared}");
    let _ = told(&[]);
}

/// What an index beyond a module's own would name is the kernel's.
#[test]
fn invalid_modules() {
    for (body, why) in [
        ("(i32.store (i32.const 0) (i32.const 7)) (i32.load (i32.const 0))", "unknown memory 0"),
        ("(call 9)", "unknown function 9"),
        ("(global.get 0)", "unknown global"),
    ] {
        for import in ["", r#"(import "extism:host/env" "input_length" (func (result i64)))"#] {
            let module = format!(r#"(module {import} (func (export "f") (result i32) {body}))"#);
            let error = engine().load(module.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(why), "{body}: {error}");
        }
    }
    let second = r#"(module (memory (export "memory") 1) (func (export "f") (result i32) (i32.load 1 (i32.const 8))))"#;
    let error = engine().load(second.as_bytes()).unwrap_err().to_string();
    assert!(error.contains("unknown memory 1"), "{error}");
}
