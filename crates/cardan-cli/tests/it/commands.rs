//! What people see of the commands: results, and for every kind of bad input one message that says what
//! is wrong and one exit code.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::process::{Finished, PATIENCE, Server, cardan, finish, guest, root};

/// The exit code for what was tried and did not work.
const FAILED: i32 = 1;
/// The exit code for what makes no sense.
const UNUSABLE: i32 = 2;

const COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0";

/// A folder with bad plugins of every kind, and good ones under short names.
fn shelf() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let kitchen = fs::read(guest("kitchen.wasm")).unwrap();
    let files: [(&str, &[u8]); 12] = [
        ("text.wasm", b"hello"),
        ("bytes.wasm", b"\xff\xfe\0"),
        ("empty.wasm", b""),
        ("component.wasm", COMPONENT),
        ("truncated.wasm", &kitchen[..1000]),
        ("version.wasm", b"\0asm\x02\0\0\0"),
        ("open.wat", b"(module (func"),
        ("manifest.json", b"{}"),
        ("nowhere.json", br#"{"wasm":[{"path":"nowhere.wasm"}]}"#),
        ("key.json", br#"{"wasm":[{"path":"kitchen.wasm"}],"memroy":{}}"#),
        ("pin.json", br#"{"wasm":[{"path":"kitchen.wasm","hash":"00"}]}"#),
        ("kitchen.wasm", &kitchen),
    ];
    for (name, bytes) in files {
        fs::write(dir.path().join(name), bytes).unwrap();
    }
    for name in ["echo.wasm", "pii-mask.wasm", "api-key.wasm", "wasi-files.wasm"] {
        fs::copy(guest(name), dir.path().join(name)).unwrap();
    }
    fs::create_dir(dir.path().join("folder")).unwrap();
    dir
}

fn run(dir: &TempDir, arguments: &[&str]) -> Finished {
    run_with(dir, arguments, b"")
}

fn run_with(dir: &TempDir, arguments: &[&str], input: &[u8]) -> Finished {
    finish(cardan().current_dir(dir.path()).args(arguments), input)
}

/// What no output of ours has in it: signs of a panic, backtraces, colours where nobody looks.
#[track_caller]
fn check_civil(run: &Finished, about: &str) {
    for sign in ["panicked", "RUST_BACKTRACE", "stack backtrace", "wasm backtrace", "\u{1b}["] {
        assert!(!run.stderr.contains(sign), "{about}: {sign}: {run:?}");
    }
}

/// Nothing on standard output, one message with these words, this exit code.
#[track_caller]
fn check_error(run: &Finished, code: i32, says: &[&str]) {
    let about = says.join(" ... ");
    assert_eq!(run.code, Some(code), "{about}: {run:?}");
    assert_eq!(run.text(), "", "{about}: {run:?}");
    check_told(run, &about, says);
}

#[track_caller]
fn check_told(run: &Finished, about: &str, says: &[&str]) {
    check_civil(run, about);
    let messages = run.stderr.lines().filter(|line| line.starts_with("cardan: ")).count();
    assert_eq!(messages, 1, "{about}: {run:?}");
    for words in says {
        assert!(run.stderr.contains(words), "{words}\n  is not in: {}", run.stderr);
    }
}

/// An error that clap reports, with its usage.
#[track_caller]
fn check_usage(dir: &TempDir, arguments: &[&str], says: &str) {
    let run = run(dir, arguments);
    check_civil(&run, says);
    assert_eq!((run.code, run.text()), (Some(UNUSABLE), ""), "{run:?}");
    assert!(run.stderr.starts_with("error: ") && run.stderr.contains(says), "{says}: {run:?}");
}

#[track_caller]
fn check_output(dir: &TempDir, arguments: &[&str], output: &str) {
    check_output_of(&run(dir, arguments), output);
}

#[test]
fn what_is_no_plugin() {
    let dir = shelf();
    let rows: [(&str, &[&str]); 12] = [
        ("text.wasm", &["plugin text: ", "text.wasm should be a WebAssembly module"]),
        ("bytes.wasm", &["plugin bytes: ", "bytes.wasm should be a WebAssembly module"]),
        ("empty.wasm", &["plugin empty: ", "empty.wasm is empty"]),
        ("component.wasm", &["plugin component: ", "the component is of no world that can be asked here"]),
        ("truncated.wasm", &["plugin truncated: ", "is damaged, or was not copied whole"]),
        ("version.wasm", &["unknown binary version", "is damaged"]),
        ("open.wat", &["plugin open: ", "open.wat", "1:14", "expected `)`"]),
        ("manifest.json", &["No wasm files specified in Extism manifest"]),
        ("nowhere.json", &["nowhere.wasm", "entity not found"]),
        ("pin.json", &["Hash mismatch", "expected 00"]),
        ("folder", &["folder: ", "folder has no module and no plugin.yaml in it"]),
        ("missing.wasm", &["missing.wasm", "entity not found"]),
    ];
    for (file, says) in rows {
        check_error(&run(&dir, &["call", file, "run"]), UNUSABLE, says);
        // `inspect` reads the same files. What is wrong inside a manifest's modules it says too.
        let inspected = run(&dir, &["inspect", file]);
        assert_eq!(inspected.code, Some(UNUSABLE), "{inspected:?}");
        check_told(&inspected, file, &[]);
    }
}

/// Whatever a path leads to, reading it ends, and soon.
#[test]
fn what_is_no_file_of_a_plugin() {
    let dir = shelf();
    let fifo = dir.path().join("fifo");
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    // Sparse: it takes up no room.
    fs::File::create(dir.path().join("huge.wasm")).unwrap().set_len(10 << 30).unwrap();
    fs::write(dir.path().join("huge.json"), r#"{"wasm":[{"path":"huge.wasm"}]}"#).unwrap();
    for (path, says) in [
        ("fifo", "fifo\": is not a regular file"),
        ("/dev/zero", "/dev/zero\": is not a regular file"),
        ("huge.wasm", "is larger than 256 MiB"),
        ("huge.json", "is larger than 256 MiB"),
    ] {
        check_error(&run(&dir, &["call", path, "run"]), UNUSABLE, &[says]);
        check_error(&run(&dir, &["inspect", path]), UNUSABLE, &[says]);
        fs::write(dir.path().join("c.yaml"), format!("plugins: [{{name: a, source: {path}}}]")).unwrap();
        check_error(&run(&dir, &["validate", "-c", "c.yaml"]), UNUSABLE, &["plugin a: ", says]);
    }
    let empty = "plugin folder: folder has no module and no plugin.yaml in it";
    check_error(&run(&dir, &["call", "folder", "run"]), UNUSABLE, &[empty]);
    check_error(&run(&dir, &["inspect", "folder"]), UNUSABLE, &[empty]);
    check_error(&run(&dir, &["validate", "-c", "/dev/zero"]), UNUSABLE, &["it is larger than 16 MiB"]);
    let piped = run_with(&dir, &["call", "kitchen.wasm", "consume", "-"], &vec![7; (64 << 20) + 1]);
    check_error(&piped, UNUSABLE, &["standard input is more than 64 MiB"]);
}

#[test]
fn what_does_not_link() {
    let dir = shelf();
    let hostile = |name: &str| root().join("guests/hostile").join(name).display().to_string();
    let call = |file: &str, export: &str, says: &[&str]| {
        check_error(&run(&dir, &["call", file, export]), FAILED, says);
    };
    call(&hostile("import_unknown.wat"), "run", &["extism:host/env", "no_such_function"]);
    call(&hostile("recursion_host.wat"), "run", &["extism:host/user", "call_again"]);
    call(&hostile("import_memory.wat"), "run", &["plugin import_memory: "]);
    call("kitchen.wasm", "nope", &["the function \"nope\" is missing; those that can be called: ", "echo"]);
    for name in ["run_takes_params", "run_returns_f64", "run_returns_i64", "run_returns_two"] {
        let says = ["the function \"run\" cannot be called: it must take nothing", "called: none"];
        call(&hostile(&format!("{name}.wat")), "run", &says);
    }
    call(&hostile("run_is_memory.wat"), "run", &["the function \"run\" is missing"]);
    call(&hostile("run_is_global.wat"), "run", &["the function \"run\" is missing"]);
}

#[test]
fn what_fails_when_it_is_called() {
    let dir = shelf();
    let hostile = |name: &str| root().join("guests/hostile").join(name).display().to_string();
    let call = |arguments: &[&str], says: &[&str]| {
        check_error(&run(&dir, &[&["call"], arguments].concat()), FAILED, says);
    };
    let failing = r#"{"code":7,"message":"no luck"}"#;
    call(&["kitchen.wasm", "fail", failing], &["plugin kitchen: no luck (it returned 7)"]);
    call(&["kitchen.wasm", "fail", "garbage"], &["plugin kitchen: expected value at line 1 column 1"]);
    call(&["kitchen.wasm", "return_code", "-5"], &["plugin kitchen: ", "returned the code -5"]);
    call(
        &["kitchen.wasm", "trap", "boo"],
        &["plugin kitchen: wasm trap: wasm `unreachable` instruction executed"],
    );
    call(&["kitchen.wasm", "spin", "--deadline-ms", "100"], &["timeout; --deadline-ms allows it more time"]);
    call(&[&hostile("memory_bomb.wat"), "run"], &["oom; it wanted more than 64 MiB of memory"]);
    call(&[&hostile("start_traps.wat"), "run"], &["plugin start_traps: ", "wasm trap"]);
    call(&["kitchen.wasm", "http_request", r#"{"url":"http://127.0.0.1:1/"}"#], &["127.0.0.1"]);
}

#[test]
fn what_makes_no_sense_on_the_command_line() {
    let dir = shelf();
    check_usage(&dir, &["frobnicate"], "unrecognized subcommand 'frobnicate'");
    check_usage(&dir, &["call", "kitchen.wasm"], "<EXPORT>");
    check_usage(&dir, &["call", "kitchen.wasm", "echo", "--frob"], "unexpected argument '--frob'");
    check_usage(&dir, &["call", "kitchen.wasm", "echo", "--deadline-ms", "x"], "invalid value 'x'");
    check_usage(&dir, &["call", "kitchen.wasm", "echo", "--deadline-ms", "0"], "0 is not in 1..");
    check_usage(&dir, &["call", "kitchen.wasm", "echo", "--times", "0"], "0 is not in 1..");
    check_usage(&dir, &["call", "kitchen.wasm", "echo", "--instance", "visit"], "neither fresh nor shared");
    check_usage(&dir, &["call", "kitchen.wasm", "echo", "-o", "yaml"], "invalid value 'yaml'");
    check_usage(&dir, &["serve", "--listen", "here"], "invalid socket address");
    check_usage(&dir, &["schema", "everything"], "invalid value 'everything'");
    let bad = |more: &[&str], says: &[&str]| {
        check_error(&run(&dir, &[&["call", "kitchen.wasm", "echo"], more].concat()), UNUSABLE, says);
    };
    bad(&["--config", "key"], &["--config \"key\" is not KEY=VALUE"]);
    bad(&["--allow-path", "/tmp"], &["--allow-path \"/tmp\" is not HOST=GUEST"]);
    bad(&["--log", "=="], &["--log \"==\" is no filter", "try `info`"]);
}

#[test]
fn results_of_calls() {
    let dir = shelf();
    fs::write(dir.path().join("note.txt"), "a note").unwrap();
    let kitchen = |export: &str, more: &[&str], output: &str| {
        check_output(&dir, &[&["call", "kitchen.wasm", export], more].concat(), output);
    };
    kitchen("echo", &["hi"], "hi");
    kitchen("nothing", &[], "");
    kitchen("consume", &["Grüße"], "7");
    kitchen("config_get", &["k", "--config", "k=v=w", "--config", "l="], "v=w");
    kitchen("config_get", &["m", "--config", "k=v"], "<unset>");
    // Memory is new for each call, unless the instance is shared; variables are the plugin's.
    let thrice = |export: &str, more: &[&str], output: &str| {
        let run = run(&dir, &[&["call", "kitchen.wasm", export, "--times", "3"], more].concat());
        assert_eq!((run.code, run.text()), (Some(0), output), "{run:?}");
        assert!(
            run.stderr.starts_with("3 calls, 0 failed, p50 ") && run.stderr.ends_with(" ns\n"),
            "{run:?}"
        );
    };
    thrice("memory_count", &[], "1");
    thrice("memory_count", &["--instance", "shared"], "3");
    thrice("var_count", &[], "3");
    let piped = run_with(&dir, &["call", "kitchen.wasm", "consume", "-"], &[7; 100_000]);
    assert_eq!((piped.code, piped.text()), (Some(0), "100000"), "{piped:?}");
    let echoed = run_with(&dir, &["call", "echo.wasm", "echo", "-"], b"\0\xff\x80\n");
    assert_eq!((echoed.code, echoed.stdout.as_slice()), (Some(0), &b"\0\xff\x80\n"[..]), "{echoed:?}");
}

/// One failure among many calls is a failure, and the times tell of all of them.
#[test]
fn times_of_calls() {
    let dir = shelf();
    // Counts in its memory, and traps at the third call; a new instance takes its place.
    let source = r#"(module
        (global $calls (mut i32) (i32.const 0))
        (func (export "run")
            (global.set $calls (i32.add (global.get $calls) (i32.const 1)))
            (if (i32.ge_u (global.get $calls) (i32.const 3)) (then unreachable))))"#;
    fs::write(dir.path().join("third.wat"), source).unwrap();
    let call = |times: &str, format: &str| {
        run(&dir, &["call", "third.wat", "run", "--instance", "shared", "--times", times, "-o", format])
    };
    let whole = call("2", "json");
    assert_eq!((whole.code, &whole.json()["calls"]["failures"]), (Some(0), &json!(0)), "{whole:?}");
    let failed = call("5", "json");
    let calls = &failed.json()["calls"];
    assert_eq!((failed.code, &calls["count"], &calls["failures"]), (Some(FAILED), &json!(5), &json!(1)));
    let [p50, p99] = ["p50_ns", "p99_ns"].map(|key| calls[key].as_u64().unwrap());
    assert!(0 < p50 && p50 <= p99, "{failed:?}");
    assert_eq!(failed.json()["fault"], "trap", "{failed:?}");
    let text = call("5", "text");
    check_error(&text, FAILED, &["5 calls, 1 failed, p50 ", "plugin third: wasm trap"]);
    check_usage(&dir, &["call", "third.wat", "run", "--times", "10000001"], "is not in 1..=10000000");
}

/// A guard that lets pass what it cannot read is none, whatever the operator's failure policy.
#[test]
fn example_guards_refuse_what_they_cannot_read() {
    let surrogate = r#"{"messages":"\ud800"}"#.to_owned();
    let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
    let check = |module: &str, export: &str, event: String, says: &str| {
        let run = finish(cardan().arg("call").arg(guest(module)).args([export, event.as_str()]), b"");
        assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""), "{module}: {run:?}");
        assert!(run.text().contains(says), "{module} {export}: {says} is not in {}", run.text());
    };
    for body in [&surrogate, &deep] {
        let event = |of: &str| format!(r#"{{"{of}":{{"body":{{"json":{body}}}}}}}"#);
        check("pii-mask.wasm", "http_request", event("request"), r#""verdict":"refuse","status":400"#);
        check("pii-mask.wasm", "http_response", event("response"), r#""verdict":"refuse","status":502"#);
        check("prompt-guard.wasm", "handle", format!(r#"{{"body":{body}}}"#), r#""status_code":400"#);
    }
    let text = r#"{"request":{"body":{"text":"{\"messages\":"}}}"#.to_owned();
    check("pii-mask.wasm", "http_request", text, r#""kind":"unreadable_body""#);
    let pieces = r#"{"response":{"body":{"text":"data: {\"t\":\"a@\"}\ndata: {\"t\":\"b.example\"}"}}}"#;
    check("pii-mask.wasm", "http_response", pieces.to_owned(), r#""kind":"unreadable_answer""#);
    let words = r#""config":{"words":["zeus"],"max_messages":1}"#;
    check("redact-go.wasm", "handle", format!(r#"{{{words},"body":{deep}}}"#), r#""status_code":400"#);
    check("redact-go.wasm", "handle", format!(r#"{{{words},"body":{surrogate}}}"#), r#""status_code":400"#);
    check("limit-c.wasm", "handle", format!(r#"{{{words},"body":{{"n":{deep}}}}}"#), r#""status_code":400"#);
}

#[test]
fn json_documents() {
    let dir = shelf();
    #[track_caller]
    fn check(run: &Finished, code: i32, expected: &[(&str, Value)]) {
        assert_eq!(run.code, Some(code), "{run:?}");
        check_civil(run, "json");
        let document = run.json();
        for (pointer, value) in expected {
            assert_eq!(document.pointer(pointer), Some(value), "{pointer}: {document:#}");
        }
    }
    let call =
        |file: &str, export: &str, input: &str| run(&dir, &["call", file, export, input, "-o", "json"]);
    check(&call("kitchen.wasm", "echo", "hi"), 0, &[("/output", json!("hi")), ("/export", json!("echo"))]);
    let failed = call("kitchen.wasm", "fail", r#"{"code":7,"message":"no luck"}"#);
    check(&failed, FAILED, &[("/code", json!(7)), ("/error", json!("no luck")), ("/fault", json!("trap"))]);
    check(&call("kitchen.wasm", "trap", ""), FAILED, &[("/code", Value::Null), ("/fault", json!("trap"))]);
    check(&call("kitchen.wasm", "nope", ""), FAILED, &[("/fault", Value::Null), ("/export", json!("nope"))]);
    check(
        &call("text.wasm", "run", ""),
        UNUSABLE,
        &[("/fault", Value::Null), ("/plugin", json!("text.wasm"))],
    );

    let inspect = |file: &str| run(&dir, &["inspect", file, "-o", "json"]);
    let kitchen = inspect("kitchen.wasm");
    check(&kitchen, 0, &[("/abi", json!("extism")), ("/loads", json!(true)), ("/modules", json!(1))]);
    check(&inspect("component.wasm"), UNUSABLE, &[("/plugin", json!("component.wasm"))]);
    let traps = root().join("guests/hostile/start_traps.wat");
    check(&inspect(traps.to_str().unwrap()), 0, &[("/loads", json!(false))]);

    let validate = |yaml: &str| {
        fs::write(dir.path().join("c.yaml"), yaml).unwrap();
        run(&dir, &["validate", "--config", "c.yaml", "-o", "json"])
    };
    check(
        &validate("plugins: [{name: key, source: api-key.wasm}]"),
        0,
        &[("/valid", json!(true)), ("/plugins", json!(["key"])), ("/warnings", json!([]))],
    );
    check(&validate("lisen: 1"), UNUSABLE, &[("/valid", json!(false))]);

    for of in [
        "config",
        "event",
        "verdict",
        "life",
        "plugin",
        "helios-plugin",
        "helios-config",
        "cortex",
        "llmproxy",
        "smg-deploy",
    ] {
        let schema = run(&dir, &["schema", of]);
        check(&schema, 0, &[("/$schema", json!("https://json-schema.org/draft/2020-12/schema"))]);
    }
    let titles = ["event", "verdict"].map(|of| run(&dir, &["schema", of]).json());
    assert_ne!(titles[0], titles[1]);
    assert!(titles[0].to_string().contains("body"), "{}", titles[0]);
}

/// A mask that fails open on the way back is valid, and hardly ever meant.
#[test]
fn guards_that_let_answers_pass() {
    let dir = shelf();
    let validate = |bindings: &str, format: &str| {
        let yaml = format!("plugins: [{{name: mask, source: pii-mask.wasm{bindings}}}]");
        fs::write(dir.path().join("c.yaml"), yaml).unwrap();
        run(&dir, &["validate", "--config", "c.yaml", "-o", format])
    };
    let check = |bindings: &str, warnings: usize| {
        let json = validate(bindings, "json");
        assert_eq!(json.code, Some(0), "{bindings}: {json:?}");
        assert_eq!(json.json()["warnings"].as_array().unwrap().len(), warnings, "{bindings}: {json:?}");
        let text = validate(bindings, "text");
        assert_eq!((text.code, text.text()), (Some(0), "c.yaml is valid: 1 plugin(s) load\n"), "{text:?}");
        let warned =
            text.stderr.matches("warning: plugin mask: when it fails, requests are refused, but").count();
        assert_eq!((warned, text.stderr.lines().count()), (warnings, warnings), "{bindings}: {text:?}");
    };
    check("", 1);
    check(", bindings: [{hook: http.request}, {hook: http.response}]", 1);
    check(
        ", bindings: [{hook: http.request, on_fault: refuse}, {hook: http.response, phase: post_flight}]",
        1,
    );
    check(", bindings: [{hook: http.request}, {hook: http.response, on_fault: refuse}]", 0);
    check(", bindings: [{hook: http.request}, {hook: http.response, on_fault: skip}]", 0);
    check(", bindings: [{hook: http.request, on_fault: skip}, {hook: http.response}]", 0);
    check(", bindings: [{hook: http.response}]", 0);
    check(", bindings: [{hook: http.request}]", 0);
    validate("", "text");
    let server = Server::serve(&dir.path().join("c.yaml"));
    server.wait_for(0, "plugin mask: when it fails, requests are refused, but answers pass");
}

#[test]
fn wrong_configurations() {
    let dir = shelf();
    let traps = root().join("guests/hostile/start_traps.wat").display().to_string();
    let rows: [(&str, &[&str]); 17] = [
        ("# soon\n", &["c.yaml: it is empty, or has nothing but comments"]),
        ("listen: [", &["c.yaml: ", "line 1"]),
        ("lisen: 1", &["lisen: unknown key; did you mean listen?", "listen", "line 1, column 1"]),
        (
            "plugins:\n  - {name: a, source: b, limts: {}}",
            &["plugins[0].limts: unknown key; did you mean limits?", "line 2, column 26"],
        ),
        (
            "plugins: [{name: a, source: b, limits: {memry: 1}}]",
            &["plugins[0].limits.memry: unknown key; did you mean memory?", "column 41"],
        ),
        ("plugins: [{name: a, source: nope.wasm}]", &["plugin a: ", "nope.wasm", "entity not found"]),
        ("plugins: [{name: a, source: component.wasm}]", &["plugin a: the component is of no world"]),
        (
            "plugins: [{name: a, source: pii-mask.wasm}, {name: a, source: api-key.wasm}]",
            &["plugin a: there are two of this name; rename one"],
        ),
        (
            "plugins: [{name: a, source: pii-mask.wasm, sha256: '00'}]",
            &["plugin a: sha256: ", "64 hexadecimal"],
        ),
        (
            "plugins: [{name: a, source: pii-mask.wasm, sha256: '0000000000000000000000000000000000000000000000000000000000000000'}]",
            &["plugin a: Hash mismatch", "expected 0000"],
        ),
        (
            "plugins: [{name: a, source: pii-mask.wasm, bindings: [{hook: http.reqest}]}]",
            &["plugin a: bindings[0].hook: there is no hook \"http.reqest\"", "http.request"],
        ),
        ("plugins: [{name: a, source: echo.wasm}]", &["plugin a: it has no export", "dialect"]),
        ("plugins: [{name: a, source: START_TRAPS}]", &["plugin a: ", "wasm trap"]),
        ("routes: [{path: /, upstream: x}]", &["route `/` names the upstream `x`, which is not defined"]),
        (
            "upstreams: [{name: x, urls: ['ftp://h']}]",
            &["URL 1 of upstream `x`", "begins with http:// or https://"],
        ),
        ("upstreams: [{name: x, builtin: {}}, {name: x, builtin: {}}]", &["two upstreams are called `x`"]),
        ("timeouts: {drain: soon}", &["\"soon\"", "a time such as \"100ms\""]),
    ];
    for (yaml, says) in rows {
        fs::write(dir.path().join("c.yaml"), yaml.replace("START_TRAPS", &traps)).unwrap();
        check_error(&run(&dir, &["validate", "--config", "c.yaml"]), UNUSABLE, says);
        // What cannot be valid is not served either, and says so in the same words.
        check_error(&run(&dir, &["serve", "--config", "c.yaml", "--listen", "127.0.0.1:0"]), UNUSABLE, says);
    }
    let nowhere = ["cannot read nowhere.yaml", "name one with --config"];
    check_error(&run(&dir, &["validate", "--config", "nowhere.yaml"]), UNUSABLE, &nowhere);
    check_error(&run(&dir, &["serve", "--config", "nowhere.yaml"]), UNUSABLE, &nowhere);
    check_error(&run(&dir, &["validate", "--config", "folder"]), UNUSABLE, &["cannot read folder"]);
    check_error(&run(&dir, &["validate", "--config", "bytes.wasm"]), UNUSABLE, &["cannot read bytes.wasm"]);

    // Everything that is wrong with the plugins, at once.
    fs::write(
        dir.path().join("c.yaml"),
        "plugins: [{name: a, source: nope.wasm}, {name: b, source: echo.wasm}]",
    )
    .unwrap();
    check_error(
        &run(&dir, &["validate", "--config", "c.yaml"]),
        UNUSABLE,
        &["cardan: plugin a: ", "\nplugin b: "],
    );
}

#[test]
fn a_port_in_use() {
    let dir = shelf();
    fs::write(dir.path().join("c.yaml"), "{}").unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let serve = run(&dir, &["serve", "--config", "c.yaml", "--listen", &address]);
    check_error(&serve, FAILED, &[&format!("cannot listen on {address}"), "choose another with --listen"]);
}

#[test]
fn the_compile_cache() {
    let dir = shelf();
    let call = |more: &[&str]| {
        let mut command = cardan();
        command.env_remove("CARDAN_CACHE_DIR").env("HOME", dir.path()).env_remove("XDG_CACHE_HOME");
        finish(command.current_dir(dir.path()).args(["call", "echo.wasm", "echo", "hi"]).args(more), b"")
    };
    let files = |cache: &str| {
        let entries = fs::read_dir(dir.path().join(cache));
        entries.map_or(0, |entries| entries.filter(|e| is_compiled(&e.as_ref().unwrap().path())).count())
    };
    #[track_caller]
    fn check(run: &Finished) {
        assert_eq!((run.code, run.text(), run.stderr.as_str()), (Some(0), "hi", ""), "{run:?}");
    }
    check(&call(&["--no-cache"]));
    assert_eq!(files(".cache/cardan"), 0);
    check(&call(&[]));
    check(&call(&["--cache-dir", "own"]));
    assert_eq!((files(".cache/cardan"), files("own")), (1, 1));
    // Made for this user alone, since what lies there is executed.
    let mode = fs::metadata(dir.path().join("own")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700, "{mode:o}");
    check(&call(&["--cache-dir", "own"]));
    assert_eq!(files("own"), 1);

    fs::create_dir(dir.path().join("open")).unwrap();
    fs::set_permissions(dir.path().join("open"), fs::Permissions::from_mode(0o777)).unwrap();
    let open = call(&["--cache-dir", "open"]);
    check_error(&open, FAILED, &["open: other users may write there", "run chmod go-w on it", "--no-cache"]);
    // Nobody can make a folder here, not even root.
    let advice = ["compile cache /proc/nowhere", "or run with --no-cache"];
    check_error(&call(&["--cache-dir", "/proc/nowhere"]), FAILED, &advice);
    check_error(&call(&["--cache-dir", "echo.wasm"]), FAILED, &["compile cache echo.wasm", "--no-cache"]);
    check(&call(&["--cache-dir", "/proc/nowhere", "--no-cache"]));
}

/// Variables that are empty or relative count as not set, and nothing is left where the command was run.
#[test]
fn a_cache_without_a_place() {
    let dir = shelf();
    let check = |variables: [(&str, &str); 3], cache: &str| {
        let mut command = cardan();
        command.envs(variables).env("CARDAN_LOG", "cardan_cli=info,cardan=info,warn");
        let run = finish(command.current_dir(dir.path()).args(["call", "echo.wasm", "echo", "hi"]), b"");
        assert_eq!((run.code, run.text()), (Some(0), "hi"), "{variables:?}: {run:?}");
        assert_eq!(run.stderr.contains("no compile cache"), cache.is_empty(), "{variables:?}: {run:?}");
        let there = |path: &str| dir.path().join(path).exists();
        assert!(cache.is_empty() || there(cache), "{variables:?}");
        assert!(![".cache", "cardan", "rel"].into_iter().any(there), "{variables:?}");
    };
    let home = dir.path().join("home").display().to_string();
    let xdg = format!("{home}/xdg");
    let variables = |own, xdg, home| [("CARDAN_CACHE_DIR", own), ("XDG_CACHE_HOME", xdg), ("HOME", home)];
    check(variables("", "", ""), "");
    check(variables("", "rel", "rel"), "");
    check(variables("", "rel", &home), "home/.cache/cardan");
    check(variables("", &xdg, ""), "home/xdg/cardan");
    check(variables("own", "", ""), "own");
}

fn is_compiled(path: &std::path::Path) -> bool {
    path.extension().is_some_and(|extension| extension == "cwasm")
}

/// `cardan ... | head -c 1`
#[test]
fn a_reader_that_leaves_is_no_failure() {
    let dir = shelf();
    for arguments in [&["call", "kitchen.wasm", "output", "10000000"][..], &["schema", "config"][..]] {
        let mut child = cardan()
            .current_dir(dir.path())
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut first = [0];
        child.stdout.take().unwrap().read_exact(&mut first).unwrap();
        let output = child.wait_with_output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), stderr.as_ref()), (Some(0), ""), "{arguments:?}");
    }
}

#[test]
fn an_upstream_that_is_not_there() {
    let dir = shelf();
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let yaml =
        format!("upstreams: [{{name: x, urls: ['http://{gone}']}}]\nroutes: [{{path: /, upstream: x}}]");
    fs::write(dir.path().join("c.yaml"), yaml).unwrap();
    let server = Server::serve(&dir.path().join("c.yaml"));
    let (status, body) = crate::client::get(server.address, "/v1/models");
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(status, 502);
    assert_eq!(body["error"]["type"], "upstream_error", "{body}");
    assert_eq!(body["error"]["code"], "upstream_unreachable", "{body}");
    assert!(!body.to_string().contains(&gone.to_string()), "an address inside the house: {body}");
    server.wait_for(0, &gone.to_string());
    assert!(!server.log().contains('\u{1b}'), "colours for nobody: {}", server.log());
}

#[test]
fn files_that_are_granted() {
    let dir = shelf();
    fs::create_dir(dir.path().join("data")).unwrap();
    fs::write(dir.path().join("data/note.txt"), "a note").unwrap();
    let at = |path: &str, export: &str, more: &[&str]| {
        let config = format!("path={path}");
        run(&dir, &[&["call", "wasi-files.wasm", export, "text", "--config", &config], more].concat())
    };
    let note = "/data/note.txt";
    let readable = ["--allow-path", "ro:data=/data"];
    check_output_of(&at(note, "try_read", &readable), "a note");
    check_error(&at(note, "try_write", &readable), FAILED, &["plugin wasi-files: "]);
    check_error(&at("/data/../kitchen.wasm", "try_read", &readable), FAILED, &["plugin wasi-files: "]);
    check_error(&at(note, "try_read", &[]), FAILED, &["plugin wasi-files: "]);
    check_output_of(&at("/data/new.txt", "try_write", &["--allow-path", "data=/data"]), "");
    assert_eq!(fs::read_to_string(dir.path().join("data/new.txt")).unwrap(), "text");
    check_error(
        &at(note, "try_read", &["--allow-path", "nowhere=/data"]),
        UNUSABLE,
        &["allowed path \"nowhere\""],
    );
}

#[track_caller]
fn check_output_of(run: &Finished, output: &str) {
    assert_eq!((run.code, run.text(), run.stderr.as_str()), (Some(0), output, ""));
}

/// Each ends by itself with a message of ours, whatever it tries.
#[test]
fn hostile_guests() {
    let mut files: Vec<PathBuf> =
        fs::read_dir(root().join("guests/hostile")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() > 100, "{}", files.len());
    let next = AtomicUsize::new(0);
    let wrong = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while let Some(file) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let call =
                        finish(cardan().arg("call").arg(file).args(["run", "--deadline-ms", "300"]), b"");
                    if let Err(why) = judge(&call) {
                        let said: String = call.stderr.chars().take(500).collect();
                        let (code, took) = (call.code, call.took);
                        let line = format!("{}: {why}: {code:?} after {took:?}: {said}", file.display());
                        wrong.lock().unwrap().push(line);
                    }
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), files.len(), wrong.join("\n"));
}

fn judge(call: &Finished) -> Result<(), &'static str> {
    const SLOW: Duration = PATIENCE.checked_div(3).unwrap();
    let messages = call.stderr.lines().filter(|line| line.starts_with("cardan: ")).count();
    match (call.code, messages) {
        (Some(0), 0) | (Some(FAILED | UNUSABLE), 1) => {}
        (Some(0 | FAILED | UNUSABLE), _) => return Err("not one message"),
        _ => return Err("ended in another way"),
    }
    if call.stderr.contains("panicked") || call.stderr.contains("backtrace") {
        return Err("a panic");
    }
    // Lines before it are what the guest logged.
    if call.stderr.split_once("cardan: ").is_some_and(|(_, message)| message.len() > 20_000) {
        return Err("an endless message");
    }
    if call.took > SLOW { Err("too slow") } else { Ok(()) }
}

/// What a module calls its exports can neither add lines to a report nor move the cursor.
#[test]
fn names_stay_in_their_line() {
    let dir = tempfile::tempdir().unwrap();
    let module = r#"(module (memory (export "memory") 1)
        (func (export "a\0a\1b[2Ksigned    yes") (result i32) (i32.const 0)))"#;
    fs::write(dir.path().join("spoof.wat"), module).unwrap();
    let report = run(&dir, &["inspect", "spoof.wat"]);
    assert!(report.text().contains("signed"), "{report:?}");
    assert!(!report.text().contains('\u{1b}'), "{report:?}");
    assert!(
        report.text().lines().all(|line| !line.contains("signed") || line.starts_with("exports")),
        "{report:?}"
    );
}
