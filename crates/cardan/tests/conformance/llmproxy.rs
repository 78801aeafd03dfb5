//! LLMProxy's dialect over the convention that its plugins are of. The guest does what the binding's configuration
//! says: `guests/fixtures/llmproxy-zoo`.

use cardan::api::http::{HttpAnswer, HttpRequest, HttpResponse};
use cardan::api::{InstanceMode, Verdict};
use cardan::{Abi, Dialect, Error, Fault, Grants, Plugin};
use serde_json::{Value, json};

use crate::exchange::Exchange;
use crate::probe::{Bytes, Does, probe};
use crate::support::{
    LARGE, UNICODE, VISIT, Visit, counts, fails, granted, limits, plugin, prebuilt, refused, roomy,
};
use crate::table::{Behaviour, Cell, Column, Family};

const NO_HEADERS: &str =
    "LLMProxy's answer to a request has members for the body, and none for header fields.";

pub(crate) fn family() -> Family {
    Family {
        title: "LLMProxy's dialect",
        guests: "`guests/fixtures/llmproxy-zoo`; for capabilities a guest of a few lines (`probe.rs`).",
        columns: vec![
            Column::new("extism", "http.request", check::<HttpRequest>),
            Column::new("extism", "http.response", check::<HttpResponse>),
        ],
    }
}

fn load(mode: InstanceMode) -> Plugin {
    let plugin = prebuilt("llmproxy-zoo").mode(mode).limits(roomy()).load().unwrap();
    assert_eq!((plugin.inspection().abi, plugin.dialect()), (Abi::Extism, Some(Dialect::LlmProxy)));
    plugin
}

fn body(text: &str) -> Value {
    json!({"model": "m", "messages": [{"role": "user", "content": text}]})
}

fn ask<H: Exchange>(
    plugin: &Plugin,
    visit: &mut Visit,
    config: Value,
    text: &str,
) -> Result<(H::Event, Verdict<H>), Error> {
    visit.config = config;
    let event = H::event("/v1/chat/completions", &[], body(text).to_string().as_bytes());
    let verdict = visit.ask::<H>(plugin, H::PHASE, &event)?;
    Ok((event, verdict))
}

/// The answer that the guest is told to give, word for word.
fn says(answer: &Value) -> Value {
    json!({"behave": "answer", "answer": answer.to_string()})
}

/// The answer that replaces the body of what the hook is about.
fn replacing<H: Exchange>(body: &Value) -> Value {
    match H::ENTRY {
        "http_request" => says(&json!({"action": "modify", "body": body})),
        _ => says(&json!({"action": "modify", "response": {"body": body}})),
    }
}

fn edited<H: Exchange>(config: Value, text: &str) -> (H::Event, Value) {
    let (event, verdict) = ask::<H>(&load(InstanceMode::Fresh), &mut Visit::new(), config, text).unwrap();
    let event = H::applied(&event, verdict);
    let body = serde_json::from_slice(H::body(&event)).unwrap();
    (event, body)
}

fn check<H: Exchange>(row: Behaviour) -> Cell {
    let passthrough = || json!({"behave": "passthrough"});
    match row {
        Behaviour::Continue => {
            let plugin = load(InstanceMode::Fresh);
            let (event, verdict) = ask::<H>(&plugin, &mut Visit::new(), passthrough(), "hello").unwrap();
            assert_eq!(H::applied(&event, verdict), event);
            Cell::Pass
        }
        Behaviour::EditHead if H::ENTRY == "http_request" => Cell::Cannot(NO_HEADERS),
        Behaviour::EditHead => {
            let answer = says(&json!({"action": "modify", "response": {"headers": {"x-zoo": "1"}}}));
            let (event, _) = edited::<H>(answer, "hello");
            let field = |name| H::headers(&event).get(name);
            assert_eq!((field("x-zoo"), field("accept")), (Some("1"), Some("text/plain")));
            Cell::Pass
        }
        Behaviour::EditBody => {
            let (_, found) = edited::<H>(replacing::<H>(&body("another")), "hello");
            assert_eq!(found, body("another"));
            Cell::Pass
        }
        Behaviour::Stop => stop::<H>(),
        Behaviour::VisitState | Behaviour::CallState => {
            metadata::<H>();
            counts(row, load, |plugin, visit| {
                let (_, verdict) = ask::<H>(plugin, visit, json!({"behave": "count"}), "hello").unwrap();
                request_body::<H>(&verdict)["count"]["memory"].to_string()
            })
        }
        Behaviour::Capability => {
            let document = r#"{"action":"block","message":"kept"}"#;
            let module = probe(Bytes::Extism, "handle", Does::Keeps(document));
            let plugin = plugin(module.as_bytes()).grants(granted()).load().unwrap();
            let (_, verdict) = ask::<H>(&plugin, &mut Visit::new(), json!({}), "hello").unwrap();
            let HttpAnswer::Refuse(refusal) = H::stopped(verdict) else { panic!("expected a refusal") };
            assert_eq!(refusal.message, "kept");
            // And the variables of the plugin, which every call sees.
            let zoo = load(InstanceMode::Fresh);
            let counted = [(); 2].map(|()| {
                let counting = json!({"behave": "count"});
                let (_, verdict) = ask::<H>(&zoo, &mut Visit::new(), counting, "hello").unwrap();
                request_body::<H>(&verdict)["count"]["vars"].clone()
            });
            assert_eq!(counted, [json!(1), json!(2)]);
            Cell::Pass
        }
        Behaviour::Denied => {
            let module = probe(Bytes::Extism, "handle", Does::Keeps("{}"));
            let plugin = plugin(module.as_bytes()).grants(Grants::default()).load().unwrap();
            refused(Fault::Denied, ask::<H>(&plugin, &mut Visit::new(), json!({}), "hello"))
        }
        Behaviour::Trap | Behaviour::Deadline | Behaviour::Memory => {
            let (fault, behave, mut visit) = match row {
                Behaviour::Trap => (Fault::Trap, "trap", Visit::new()),
                Behaviour::Deadline => (Fault::Deadline, "loop", Visit::hurried()),
                _ => (Fault::Memory, "grow", Visit::new()),
            };
            let plugin = prebuilt("llmproxy-zoo").limits(limits()).load().unwrap();
            let bad = ask::<H>(&plugin, &mut visit, json!({ "behave": behave }), "hello");
            fails(fault, bad, || ask::<H>(&plugin, &mut Visit::new(), passthrough(), "hello"))
        }
        Behaviour::Garbage => {
            let plugin = load(InstanceMode::Fresh);
            for answer in ["", "{\"action\":", "[]", "{\"action\":\"blok\"}", "{\"action\":7}"] {
                let config = json!({"behave": "answer", "answer": answer});
                refused(Fault::Protocol, ask::<H>(&plugin, &mut Visit::new(), config, "hello"));
            }
            let config = json!({"behave": "answer", "answer_bytes": [255, 254]});
            refused(Fault::Protocol, ask::<H>(&plugin, &mut Visit::new(), config, "hello"))
        }
        Behaviour::Unicode => {
            let (_, found) = edited::<H>(replacing::<H>(&body(UNICODE)), UNICODE);
            assert_eq!(found, body(UNICODE));
            Cell::Pass
        }
        Behaviour::Empty => {
            let (_, found) = edited::<H>(replacing::<H>(&body("")), "");
            assert_eq!(found, body(""));
            Cell::Pass
        }
        Behaviour::Large => large::<H>(),
    }
}

fn stop<H: Exchange>() -> Cell {
    let plugin = load(InstanceMode::Fresh);
    let stopped = |config| H::stopped(ask::<H>(&plugin, &mut Visit::new(), config, "hello").unwrap().1);
    let HttpAnswer::Refuse(refusal) = stopped(json!({"behave": "block", "code": 451})) else {
        panic!("expected a refusal");
    };
    assert_eq!((refusal.status, &refusal.kind[..]), (Some(451), "zoo"));
    assert_eq!(refusal.message, "blocked by the zoo");
    let HttpAnswer::Respond(response) = stopped(json!({"behave": "cache_hit"})) else {
        panic!("expected a response");
    };
    let body: Value = serde_json::from_slice(&response.body).unwrap();
    assert_eq!(body["id"], "chatcmpl-zoo");
    Cell::Pass
}

/// What plugins of one visit tell each other, and the request's id, are shown as `metadata`.
fn metadata<H: Exchange>() {
    let (plugin, mut visit) = (load(InstanceMode::Fresh), Visit::new());
    ask::<H>(&plugin, &mut visit, says(&json!({"action": "modify", "message": "noted"})), "hello").unwrap();
    let (_, verdict) = ask::<H>(&plugin, &mut visit, json!({"behave": "echo_input"}), "hello").unwrap();
    let metadata = &request_body::<H>(&verdict)["metadata"];
    assert_eq!((&metadata["_plugin_message"], &metadata["req_id"]), (&json!("noted"), &json!(VISIT)));
}

/// What a verdict makes of the body of the request.
fn request_body<H: Exchange>(verdict: &Verdict<H>) -> Value {
    serde_json::from_slice(H::request_body(&verdict.edits).expect("a new body of the request")).unwrap()
}

/// The guest gives back the whole document that it was given.
fn large<H: Exchange>() -> Cell {
    let plugin = load(InstanceMode::Fresh);
    let text = "x".repeat(LARGE);
    let echo = json!({"behave": "echo_input"});
    let (_, verdict) = ask::<H>(&plugin, &mut Visit::new(), echo, &text).unwrap();
    let found = request_body::<H>(&verdict);
    let shown = if H::ENTRY == "http_request" { &found["body"] } else { &found["response"]["body"] };
    assert!(*shown == body(&text), "the body came back as another one");
    Cell::Pass
}
