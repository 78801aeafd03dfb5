//! Tools of agents, as CortexPrism's plugins are: called from the command line and through a gateway.

use std::fs;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::admin::Operated;
use crate::process::{Finished, cardan, finish, guest, root};

const REVERSE: &str = r#"{"text":"hello","mode":"reverse"}"#;
const LANGUAGES: [&str; 5] = ["rust", "go", "c", "zig", "as"];
const MEMORIES: [&str; 3] = ["own", "imported", "shared"];

fn run(dir: &TempDir, arguments: &[&str]) -> Finished {
    finish(cardan().current_dir(dir.path()).args(arguments), b"")
}

fn path(guest_name: &str) -> String {
    guest(guest_name).display().to_string()
}

/// The seed's manifest and module, in a folder of plugins.
fn text_processor() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("text");
    fs::create_dir(&folder).unwrap();
    let manifest = root().join("crates/cardan-manager/tests/fixtures/seeds/cortex.json");
    fs::copy(manifest, folder.join("manifest.json")).unwrap();
    fs::copy(guest("transform-rust.wasm"), folder.join("text_processor.wasm")).unwrap();
    dir
}

#[track_caller]
fn check(run: &Finished, says: &str) {
    assert!(run.code == Some(0) && run.text().contains(says), "{says}: {run:?}");
}

#[track_caller]
fn check_error(run: &Finished, code: i32, says: &[&str]) {
    assert_eq!((run.code, run.text()), (Some(code), ""), "{run:?}");
    assert_eq!(run.stderr.lines().filter(|line| line.starts_with("cardan: ")).count(), 1, "{run:?}");
    for words in says {
        assert!(run.stderr.contains(words), "{words:?} is not in {run:?}");
    }
}

/// `cortex --verbose plugin call text-processor transform '...'`, with another word at its beginning.
#[test]
fn the_command_of_the_documents() {
    let dir = text_processor();
    let quiet = run(&dir, &["plugin", "call", "text-processor", "transform", REVERSE]);
    check(&quiet, "olleh");
    assert_eq!(quiet.stderr, "");
    let result: Value = serde_json::from_slice(&quiet.stdout).unwrap();
    assert_eq!((&result["result"], &result["length"]), (&json!("olleh"), &json!(5)));
    for command in ["plugin", "plugins"] {
        let told = run(&dir, &["--verbose", command, "call", "text-processor", "transform", REVERSE]);
        check(&told, "olleh");
        for words in ["loaded", "abi=capability", "called=\"transform\"", "took_us="] {
            assert!(told.stderr.contains(words), "{words}: {told:?}");
        }
    }
    for plugin in ["text", "text/manifest.json", "text/text_processor.wasm"] {
        check(&run(&dir, &["plugin", "call", plugin, "transform", REVERSE]), "olleh");
        check(&run(&dir, &["call", plugin, "transform", REVERSE]), "olleh");
    }
    let elsewhere = tempfile::tempdir().unwrap();
    let named = dir.path().display().to_string();
    check(
        &run(&elsewhere, &["plugin", "call", "text-processor", "transform", REVERSE, "--dir", &named]),
        "olleh",
    );
    let document =
        run(&dir, &["plugin", "call", "text-processor", "transform", REVERSE, "-o", "json"]).json();
    assert_eq!((&document["success"], &document["output"]["result"]), (&json!(true), &json!("olleh")));
    assert_eq!(document["error"], Value::Null);
}

#[test]
fn what_cannot_be_called() {
    let dir = text_processor();
    let call = |arguments: &[&str]| run(&dir, &[&["plugin", "call"], arguments].concat());
    check_error(
        &call(&["text-processor", "transfrom", "{}"]),
        1,
        &["there is no tool \"transfrom\"; its tools are: transform"],
    );
    check_error(
        &call(&["no-such", "transform"]),
        3,
        &["there is no file no-such", "which holds text-processor"],
    );
    check_error(
        &call(&["text-processor", "transform", "{text: 1}"]),
        2,
        &["the arguments are no JSON", "'{\"text\""],
    );
    check_error(&call(&["text-processor", "transform", "[1]"]), 2, &["the arguments are JSON and no object"]);
    check_error(
        &call(&["a", "b", "{}", "--dir", "nowhere"]),
        2,
        &["--dir: the folder nowhere cannot be read"],
    );
    check_error(
        &call(&[&path("tools-own-memory.wasm"), "nothing"]),
        1,
        &["there is no tool \"nothing\"; its tools are: echo, count, config"],
    );
    check_error(
        &run(&dir, &["call", &path("tools-own-memory.wasm"), "nothing"]),
        1,
        &["there is no tool \"nothing\"; its tools are: echo, count, config"],
    );
    check_error(
        &call(&[&path("echo.wasm"), "ecko"]),
        1,
        &["it has no tools, and no function \"ecko\"", "echo"],
    );
    let manifest = dir.path().join("text/manifest.json");
    let text = fs::read_to_string(&manifest).unwrap();
    fs::write(&manifest, text.replace("text_processor.wasm", "gone.wasm")).unwrap();
    check_error(&call(&["text", "transform", "{}"]), 2, &["entryPoint: ", "gone.wasm is no file"]);
}

/// The documents' example in every language they name.
#[test]
fn languages() {
    let dir = tempfile::tempdir().unwrap();
    for language in LANGUAGES {
        let module = path(&format!("transform-{language}.wasm"));
        check(&run(&dir, &["plugin", "call", &module, "transform", REVERSE]), "olleh");
        check(&run(&dir, &["call", &module, "transform", REVERSE]), "olleh");
        let told = run(&dir, &["inspect", &module]);
        for row in ["abi       capability\n", "dialect   cortexprism\n", "loads     yes\n"] {
            assert!(told.text().contains(row), "{language}: {row:?}: {told:?}");
        }
        let tools =
            told.text().lines().find(|line| line.starts_with("tools ")).unwrap_or_default().to_owned();
        assert!(tools.contains("transform"), "{language}: {told:?}");
        let told = run(&dir, &["inspect", &module, "-o", "json"]).json();
        assert!(told["tools"].as_array().unwrap().iter().any(|tool| tool["name"] == "transform"), "{told:#}");
    }
}

/// Tools behind one export, with each of the three kinds of memory.
#[test]
fn tools_behind_one_export() {
    let dir = tempfile::tempdir().unwrap();
    for memory in MEMORIES {
        let module = path(&format!("tools-{memory}-memory.wasm"));
        let call = |arguments: &[&str]| run(&dir, &[&["call", &module], arguments].concat());
        check(&call(&["echo", "a b"]), "echo a b");
        check(&run(&dir, &["plugin", "call", &module, "echo", r#"{"text":"x"}"#]), r#"echo {"text":"x"}"#);
        check(&call(&["config", "color", "--config", "color=green"]), "green");
        check_error(
            &call(&["config", "colour", "--config", "color=green"]),
            1,
            &["WASM tool execution failed"],
        );
        check_error(&call(&["fail"]), 1, &["it never works"]);
        check_error(&call(&["trap"]), 1, &["unreachable"]);
        check_error(&call(&["loop", "--deadline-ms", "200"]), 1, &["--deadline-ms allows it more time"]);
        check_error(&call(&["lie"]), 1, &["into a buffer of"]);
        let tools = run(&dir, &["inspect", &module]);
        check(&tools, "tools     echo, count, config, fetch, time, random, fail, trap, loop, lie\n");
        // What it keeps is there for the next process, and not without a directory.
        let state = dir.path().join(memory).display().to_string();
        for count in 1..=3 {
            let kept = call(&["count", "--state", &state]);
            check(&kept, &count.to_string());
        }
        check(&run(&dir, &["plugin", "call", &module, "count", "--state", &state]), "4");
        check(&run(&dir, &["plugin", "call", &module, "count"]), "1");
        // Nobody may be asked over HTTP unless somebody says so.
        check_error(&call(&["fetch", "http://127.0.0.1:1/"]), 1, &["403"]);
        let asked = call(&["fetch", "http://127.0.0.1:1/", "--allow-host", "127.0.0.1"]);
        assert!(asked.code == Some(1) && !asked.stderr.contains("403"), "{asked:?}");
    }
}

/// The gateway's store outlives the gateway, and its tools are there for whoever operates it.
#[test]
fn tools_of_a_gateway() {
    let plugin =
        |name: &str, file: &str| json!({ "name": name, "source": guest(file), "grants": { "kv": "write" } });
    let plugins = [plugin("tools", "tools-own-memory.wasm"), plugin("text", "transform-rust.wasm")];
    let mut gateway = Operated::with(&json!({ "plugins": plugins }));
    let try_it = |gateway: &Operated, plugin: &str, hook: &str, event: &Value| {
        let run = gateway.run_with(
            &["try", plugin, "--hook", hook, "--event", "-", "-o", "json"],
            event.to_string().as_bytes(),
        );
        run.json()
    };
    for start in 0..2 {
        for count in 1..=2 {
            let event = json!({ "tool": { "name": "count" } });
            let tried = try_it(&gateway, "tools", "tool.call", &event);
            assert_eq!(tried["verdict"]["answer"], json!({ "json": 2 * start + count }), "{tried:#}");
        }
        let Operated { dir, server, .. } = gateway;
        drop(server);
        gateway = Operated::start(dir, &[]);
    }
    let listed = try_it(&gateway, "tools", "tool.list", &json!({}));
    let tools = listed["verdict"]["answer"]["tools"].as_array().unwrap();
    assert_eq!((tools.len(), &tools[0]["name"]), (10, &json!("echo")), "{listed:#}");
    let listed = try_it(&gateway, "text", "tool.list", &json!({}));
    assert!(listed["verdict"]["answer"]["tools"].to_string().contains("transform"), "{listed:#}");
    let event =
        json!({ "tool": { "name": "transform", "arguments": { "text": "hello", "mode": "reverse" } } });
    let tried = try_it(&gateway, "text", "tool.call", &event);
    assert_eq!(tried["verdict"]["answer"]["json"]["result"], json!("olleh"), "{tried:#}");
    let tried = try_it(&gateway, "tools", "tool.call", &json!({ "tool": { "name": "fail" } }));
    assert_eq!(tried["verdict"]["answer"], json!({ "error": "it never works" }), "{tried:#}");
    let tried = try_it(&gateway, "tools", "tool.call", &json!({ "tool": { "name": "trap" } }));
    assert_eq!((&tried["fault"], &tried["verdict"]), (&json!("trap"), &Value::Null), "{tried:#}");
    let refused = gateway.run_with(&["try", "tools", "--hook", "tool.call", "--event", "-"], b"{}");
    assert!(refused.code != Some(0) && refused.stderr.contains("tool.name is missing"), "{refused:?}");
}

/// Components are named by their worlds, and have no functions for bytes.
#[test]
fn components() {
    let dir = tempfile::tempdir().unwrap();
    for (file, world) in [
        ("universal-component.wasm", "cardan:plugin"),
        ("smg-auth.wasm", "smg:gateway"),
        ("smg-storage.wasm", "smg:storage"),
        ("vllm-on-request.wasm", "vllm:router-middleware"),
    ] {
        let told = run(&dir, &["inspect", &path(file)]);
        check(&told, "abi       component\n");
        check(&told, &format!("worlds    {world}"));
        check(&told, "loads     yes\n");
    }
    check_error(
        &run(&dir, &["call", &path("universal-component.wasm"), "http_request", "{}"]),
        1,
        &["it is a component, whose functions do not take bytes", "http.request"],
    );
}
