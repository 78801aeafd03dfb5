//! The official `openai` client for Python, through the gateway of `cardan demo`: plugins of both
//! dialects are in the chain, and whatever they decide has to reach a program as that client's own
//! types and exceptions.
//!
//! `openai_client.py` does everything in one run and prints what it saw; the tests here judge it.

use std::process::Command;
use std::sync::LazyLock;

use serde_json::{Value, json};

use crate::process::{Server, cardan, finish, root};

struct Seen {
    client: Value,
    /// The gateway's log lines about exchanges that ended before their answers did.
    aborted: String,
}

static SEEN: LazyLock<Seen> = LazyLock::new(|| {
    let python = root().join("target/venv/bin/python");
    let has_client = || {
        python.exists() && finish(Command::new(&python).args(["-c", "import openai"]), b"").code == Some(0)
    };
    if !has_client() {
        let mut setup = Command::new(env!("CARGO"));
        let setup = finish(setup.current_dir(root()).args(["xtask", "setup"]), b"");
        assert!(has_client(), "`cargo xtask setup` did not install it: {}\n{}", setup.text(), setup.stderr);
    }
    let server = Server::start(cardan().args(["demo", "--listen", "127.0.0.1:0"]).env("CARDAN_LOG", "info"));
    let script = root().join("crates/cardan-cli/tests/it/openai_client.py");
    let run = finish(Command::new(&python).arg(script).arg(format!("http://{}", server.address)), b"");
    assert_eq!(run.code, Some(0), "{}\n{}", run.stderr, server.log());
    Seen { client: run.json(), aborted: server.wait_for(0, "aborted=true") }
});

#[track_caller]
fn check(pointer: &str, expected: Value) {
    let seen = SEEN.client.pointer(pointer);
    assert_eq!(seen, Some(&expected), "{pointer}");
}

/// One failed call: its exception, and in it the error document the gateway sent.
#[track_caller]
fn check_failure(name: &str, raised: (&str, u16), kind: &str, code: Value, message: &str) {
    let seen = &SEEN.client["failures"][name];
    let expected = json!({ "raised": raised.0, "status": raised.1, "type": kind, "code": code });
    for key in ["raised", "status", "type", "code"] {
        assert_eq!(seen[key], expected[key], "{name}: {key}: {seen:#}");
    }
    assert_eq!(seen["body"]["type"], kind, "{name}: {seen:#}");
    let says = seen["body"]["message"].as_str().unwrap_or_default();
    assert!(says.contains(message), "{name}: {seen:#}");
    assert!(seen["request_id"].as_str().is_some_and(|id| !id.is_empty()), "{name}: {seen:#}");
}

#[test]
fn whole_answers() {
    check("/plain/text", json!("You said: Hello, plugins!"));
    check("/plain/role", json!("assistant"));
    check("/plain/finish", json!("stop"));
    check("/plain/object", json!("chat.completion"));
    check("/plain/model", json!("cardan-echo"));
    check("/plain/usage", json!({ "prompt_tokens": 2, "completion_tokens": 4, "total_tokens": 6 }));
    check("/masked", json!("You said: Write to [EMAIL] about the weather, please"));
    check("/text", json!("You said: Grüße, 世界 🦀"));
    check("/parts", json!("You said: parts of a message"));
    check("/choices", json!(["You said: twice", "You said: twice"]));
    check("/completion", json!("You said: old times"));
    check("/key", json!("You said: Hello"));
    check("/skipped", json!("You said: Hello"));
}

#[test]
fn streams_are_masked_and_come_over_time() {
    check("/streamed/text", json!("You said: Write to [EMAIL] about the weather, please"));
    check("/streamed/role", json!("assistant"));
    check("/streamed/finish", json!("stop"));
    check("/streamed/objects", json!(["chat.completion.chunk"]));
    check("/streamed/ids", json!(1));
    let times: Vec<f64> = serde_json::from_value(SEEN.client["streamed"]["times"].clone()).unwrap();
    // The demo's upstream pauses for 30 ms before each of the eleven events. A stream that was held
    // somewhere comes all at once; half of that time leaves room for a busy machine.
    assert_eq!(times.len(), 11, "{times:?}");
    assert!(times[10] > 0.15, "{times:?}");
    let gaps = times.windows(2).filter(|pair| pair[1] - pair[0] > 0.005).count();
    assert!(gaps > 5, "{times:?}");
    check("/helper/text", json!("You said: Write to [EMAIL] about the weather, please"));
}

#[test]
fn a_stream_says_what_it_cost_when_asked() {
    let usage = SEEN.client["usage"]["usage"].as_array().unwrap();
    let (last, others) = usage.split_last().unwrap();
    assert_eq!(last["total_tokens"], 6, "{usage:?}");
    assert!(others.iter().all(Value::is_null), "{usage:?}");
    check("/usage/text", json!("You said: count me"));
}

#[test]
fn other_endpoints() {
    check("/models", json!(["cardan-echo"]));
    check("/model", json!("cardan-echo"));
    check("/embeddings", json!({ "lengths": [8, 8], "same": true }));
}

#[test]
fn failures_are_the_clients_own_exceptions() {
    let denied = ("PermissionDeniedError", 403);
    for name in ["blocked", "blocked_stream"] {
        check_failure(name, denied, "injection_detected", json!("injection_detected"), "the prompt contains");
    }
    let unknown = ("AuthenticationError", 401);
    for name in ["no_key", "no_key_stream"] {
        check_failure(name, unknown, "invalid_api_key", json!("invalid_api_key"), "is not known here");
    }
    let unavailable = ("InternalServerError", 503);
    for name in ["refused", "refused_stream"] {
        check_failure(name, unavailable, "plugin_unavailable", json!("trap"), "`traps-refused`");
    }
    let (invalid, not_found) = ("invalid_request_error", ("NotFoundError", 404));
    check_failure("bad_request", ("BadRequestError", 400), invalid, Value::Null, "`messages` must be a list");
    check_failure("no_model", not_found, invalid, json!("model_not_found"), "`nobody` does not exist");
    check_failure("no_route", not_found, invalid, json!("route_not_found"), "nothing is served");
}

#[test]
fn headers_reach_the_client() {
    let raw = &SEEN.client["raw"];
    let header = |name: &str| raw["headers"][name].as_str().unwrap_or_default().to_owned();
    assert_eq!(raw["status"], 200);
    assert_eq!(header("content-type"), "application/json");
    assert!(!header("x-request-id").is_empty(), "{raw:#}");
    assert_eq!(raw["request_id"], header("x-request-id"));
    assert_ne!(raw["request_id"], SEEN.client["plain"]["request_id"], "ids are of one exchange each");
    check("/raw/text", json!("You said: Hello"));
    check("/raw/last_line", json!("data: [DONE]"));
    assert!(raw["stream_type"].as_str().unwrap().starts_with("text/event-stream"), "{raw:#}");
}

#[test]
fn a_client_may_hang_up() {
    check("/closed_early/first", json!("chat.completion.chunk"));
    check("/closed_early/after", json!("You said: still here"));
    // What was left of the stream was not sent to nobody.
    let sent = SEEN.aborted.split("sent_bytes=").nth(1).and_then(|rest| rest.split(' ').next()).unwrap();
    assert!(sent.parse::<u64>().unwrap() < 6_000, "{}", SEEN.aborted);
}

#[test]
fn the_async_client_at_once() {
    let said = |how: &str| (0..10).map(|i| json!(format!("You said: {how} {i} [EMAIL]"))).collect::<Vec<_>>();
    check("/concurrent/models", json!(["cardan-echo"]));
    check("/concurrent/whole", Value::Array(said("plain")));
    check("/concurrent/streamed", Value::Array(said("streamed")));
    check("/concurrent/attacks", json!(vec!["injection_detected"; 5]));
}
