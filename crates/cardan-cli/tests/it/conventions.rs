//! Plugins of every calling convention in one gateway: one source, and plugins of three systems, asked side by side.

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::admin::Operated;
use crate::client::{Answer, block_on, conversation, http};
use crate::process::guest;

const CONVENTIONS: [&str; 3] = ["packed", "capability", "extism"];

/// Asked in the order of [`CONVENTIONS`], which is not that of the file.
fn chain() -> Operated {
    let plugin = |(i, abi): (usize, &&str)| {
        let bindings: Vec<Value> = ["http.request", "http.response"]
            .iter()
            .map(|hook| json!({ "hook": hook, "priority": 10 * (i + 1) }))
            .collect();
        json!({
            "name": abi,
            "source": guest(&format!("universal-{abi}.wasm")),
            "config": { "name": abi },
            "bindings": bindings,
        })
    };
    let mut plugins: Vec<Value> = CONVENTIONS.iter().enumerate().map(plugin).collect();
    plugins.reverse();
    Operated::with(&json!({ "plugins": plugins }))
}

/// Status, the header `x-universal`, and the body.
fn ask(gateway: &Operated, wish: &str, path: &str, body: Option<String>) -> (u16, String, String) {
    block_on(async {
        let url = format!("http://{}{path}", gateway.server.address);
        let request = match body {
            Some(body) => http().post(url).header("content-type", "application/json").body(body),
            None => http().get(url),
        };
        let response = request.header("x-do", wish).send().await.unwrap();
        let status = response.status().as_u16();
        let header = response.headers().get("x-universal").map(|it| it.to_str().unwrap().to_owned());
        (status, header.unwrap_or_default(), response.text().await.unwrap())
    })
}

/// What came of asking each plugin in the newest visit, in order.
fn decisions(gateway: &Operated) -> Vec<(String, String, String)> {
    let visits = gateway.run(&["get", "visits", "--limit", "1", "-o", "json"]).json();
    let decisions =
        visits["visits"][0]["decisions"].as_array().unwrap_or_else(|| panic!("{visits:#}")).clone();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    decisions.iter().map(|it| (text(&it["hook"]), text(&it["plugin"]), text(&it["outcome"]))).collect()
}

fn everybody(hooks: &[&str]) -> Vec<(String, String, String)> {
    let at = |hook: &&str| {
        CONVENTIONS.map(|abi| ((*hook).to_owned(), abi.to_owned(), "continued".to_owned())).to_vec()
    };
    hooks.iter().flat_map(at).collect()
}

#[test]
fn one_chain() {
    let gateway = chain();
    let listed = gateway.run(&["get", "plugins", "-o", "json"]).json();
    for abi in CONVENTIONS {
        let plugin =
            listed["plugins"].as_array().unwrap().iter().find(|plugin| plugin["name"] == abi).unwrap();
        assert_eq!((&plugin["active"]["abi"], &plugin["active"]["dialect"]), (&json!(abi), &json!("cardan")));
    }
    let both = ["http.request", "http.response"];
    // The last one's name stays; everybody was asked, in order.
    let (status, header, body) = ask(&gateway, "head", "/v1/models", None);
    assert_eq!((status, header.as_str()), (200, "extism"), "{body}");
    assert_eq!(decisions(&gateway), everybody(&both));
    // Turned round three times.
    let (_, _, plain) = ask(&gateway, "pass", "/v1/models", None);
    let (status, _, turned) = ask(&gateway, "body", "/v1/models", None);
    assert_eq!((status, turned.chars().rev().collect::<String>()), (200, plain));
    assert_eq!(decisions(&gateway), everybody(&both));
    let chat = |stream| Some(conversation("Hello there", stream));
    for stream in [false, true] {
        let (status, header, body) = ask(&gateway, "head", "/v1/chat/completions", chat(stream));
        assert_eq!((status, header.as_str()), (200, "extism"), "{body}");
        assert_eq!(body.starts_with("data: "), stream, "{body}");
        assert!(body.contains("Hello"), "{body}");
        assert_eq!(decisions(&gateway), everybody(&both), "streamed: {stream}");
        // The first one's answer is the answer, and nobody else is asked at that hook.
        let (status, _, body) = ask(&gateway, "refuse", "/v1/chat/completions", chat(stream));
        assert_eq!(status, 451, "{body}");
        let stopped = ("http.request".to_owned(), "packed".to_owned(), "stopped".to_owned());
        assert_eq!(decisions(&gateway)[0], stopped);
        assert!(decisions(&gateway).iter().skip(1).all(|(hook, _, _)| hook != "http.request"));
    }
    // Who responds is the first one, and then each one at the response.
    let (status, header, body) = ask(&gateway, "respond", "/v1/models", None);
    assert_eq!((status, header.is_empty()), (203, false), "{body}");
    assert!(body.starts_with("hello from "), "{body}");
}

/// A plugin that fails, with each policy.
#[test]
fn faults() {
    let plugins = CONVENTIONS.map(|abi| {
        let binding = |policy: &str| {
            let paths = [format!("/{abi}/{policy}")];
            json!({ "hook": "http.request", "on_fault": policy, "match": { "paths": paths } })
        };
        json!({
            "name": abi,
            "source": guest(&format!("universal-{abi}.wasm")),
            "limits": { "deadline": "300ms", "memory": "32MiB" },
            "health": { "faults": 0 },
            "bindings": [binding("refuse"), binding("skip")],
        })
    });
    let gateway = Operated::with(&json!({ "plugins": plugins }));
    for abi in CONVENTIONS {
        for (wish, faults) in [
            ("panic", &["trap"][..]),
            ("loop", &["deadline"]),
            ("memory", &["trap", "memory"]),
            ("error", &["trap", "protocol"]),
        ] {
            let (status, _, body) = ask(&gateway, wish, &format!("/{abi}/refuse"), None);
            assert_eq!(status, 503, "{abi} {wish}: {body}");
            let refusal: Value = serde_json::from_str(&body).unwrap();
            let code = refusal["error"]["code"].as_str().unwrap_or_default();
            assert!(faults.contains(&code), "{abi} {wish}: {body}");
            assert_eq!(decisions(&gateway)[0].2, "refused", "{abi} {wish}");
            // The upstream has nothing there.
            let (status, _, body) = ask(&gateway, wish, &format!("/{abi}/skip"), None);
            assert_eq!(status, StatusCode::NOT_FOUND.as_u16(), "{abi} {wish}: {body}");
            assert_eq!(decisions(&gateway)[0].2, "skipped", "{abi} {wish}");
        }
        let (status, _, body) = ask(&gateway, "refuse", &format!("/{abi}/refuse"), None);
        assert_eq!(status, 451, "it answers again: {body}");
    }
}

/// A plugin made for LLMProxy, one for SMG, and a component of Cardan's world, in the order of their priorities.
/// Each writes its name in front of `~`.
const SYSTEMS: [(&str, &str); 3] =
    [("llmproxy", "llmproxy-zoo.wasm"), ("smg", "smg-sign.wasm"), ("cardan", "universal-component.wasm")];

/// All three on one route, in another order in the file, with these policies at both hooks.
fn systems(order: [usize; 3], policy: &str) -> Operated {
    let plugins = order.map(|at| {
        let (name, module) = SYSTEMS[at];
        // LLMProxy's rings say themselves when they come; other bindings do not.
        let hooks = if name == "llmproxy" {
            vec!["http.request"]
        } else {
            vec!["http.request", "http.response"]
        };
        let bindings: Vec<Value> = hooks
            .iter()
            .map(|hook| json!({ "hook": hook, "priority": 10 * (at + 1), "body": "whole", "on_fault": policy }))
            .collect();
        let config = if name == "llmproxy" {
            json!({ "behave": "sign", "text": name })
        } else {
            json!({ "name": name })
        };
        json!({
            "name": name, "source": guest(module), "bindings": bindings, "health": { "faults": 0 },
            "config": config,
        })
    });
    Operated::with(&json!({ "plugins": plugins }))
}

/// What is said back, or the refusal's status.
fn say(gateway: &Operated, text: &str, stream: bool) -> (u16, String) {
    let body = Some(conversation(text, stream));
    let (status, _, body) = ask(gateway, "sign", "/v1/chat/completions", body);
    let answer = Answer { status, body };
    let said = if status == 200 { answer.text() } else { answer.body };
    (status, said)
}

/// What each of them decided at a hook.
fn at(gateway: &Operated, hook: &str) -> Vec<(String, String)> {
    let decisions = decisions(gateway).into_iter();
    decisions.filter(|(at, ..)| at == hook).map(|(_, plugin, outcome)| (plugin, outcome)).collect()
}

fn outcomes(rows: &[(&str, &str)]) -> Vec<(String, String)> {
    rows.iter().map(|(plugin, outcome)| ((*plugin).to_owned(), (*outcome).to_owned())).collect()
}

#[test]
fn three_systems_on_one_route() {
    for order in [[0, 1, 2], [2, 0, 1]] {
        let gateway = systems(order, "refuse");
        for stream in [false, true] {
            let (status, said) = say(&gateway, "Hello ~", stream);
            // At the request all three, at the response the two that are bound there.
            let expected = "You said: Hello llmproxy smg cardan smg cardan ~";
            assert_eq!((status, said.as_str()), (200, expected), "streamed: {stream}");
            let all = [("llmproxy", "continued"), ("smg", "continued"), ("cardan", "continued")];
            assert_eq!(at(&gateway, "http.request"), outcomes(&all), "streamed: {stream}");
            assert_eq!(at(&gateway, "http.response"), outcomes(&all[1..]), "streamed: {stream}");
        }
    }
}

#[test]
fn a_fault_in_each_of_three_systems() {
    let (refuse, skip) = (systems([1, 2, 0], "refuse"), systems([1, 2, 0], "skip"));
    for (failing, (name, _)) in SYSTEMS.iter().enumerate() {
        for stream in [false, true] {
            let text = format!("Hello ~ {name}!");
            let (status, said) = say(&refuse, &text, stream);
            assert_eq!(status, 503, "{name}, streamed {stream}: {said}");
            let refusal: Value = serde_json::from_str(&said).unwrap();
            assert_eq!(refusal["error"]["code"], "trap", "{name}, streamed {stream}: {said}");
            let before = SYSTEMS[..failing].iter().map(|(name, _)| (*name, "continued"));
            let asked: Vec<_> = before.chain([(*name, "refused")]).collect();
            assert_eq!(at(&refuse, "http.request"), outcomes(&asked), "{name}, streamed {stream}");
            // Without the one that fails, here and on the way back.
            let (status, said) = say(&skip, &text, stream);
            let others: Vec<&str> =
                ["llmproxy", "smg", "cardan", "smg", "cardan"].into_iter().filter(|it| it != name).collect();
            let expected = format!("You said: Hello {} ~ {name}!", others.join(" "));
            assert_eq!((status, said), (200, expected), "{name}, streamed {stream}");
            let outcome = |other: &str| if other == *name { "skipped" } else { "continued" };
            let all = SYSTEMS.map(|(name, _)| (name, outcome(name)));
            assert_eq!(at(&skip, "http.request"), outcomes(&all), "{name}, streamed {stream}");
            assert_eq!(at(&skip, "http.response"), outcomes(&all[1..]), "{name}, streamed {stream}");
        }
    }
}

/// SMG's own guest, deployed by SMG's own call: the gateway's clients need the key from then on.
#[test]
fn a_component_is_deployed() {
    let gateway = Operated::with(&json!({}));
    let keyed = |key: Option<&str>| {
        block_on(async {
            let mut request = http().get(format!("http://{}/v1/models", gateway.server.address));
            if let Some(key) = key {
                request = request.header("x-api-key", key);
            }
            request.send().await.unwrap().status().as_u16()
        })
    };
    assert_eq!(keyed(None), 200);
    let module = json!({
        "name": "auth", "file_path": guest("smg-auth.wasm"), "module_type": "Middleware",
        "attach_points": [{ "Middleware": "OnRequest" }],
    });
    let deployed: Value = block_on(async {
        let request = http().post(format!("http://{}/wasm", gateway.admin));
        request.json(&json!({ "modules": [module] })).send().await.unwrap().json().await.unwrap()
    });
    let id = deployed["modules"][0]["add_result"]["Success"].as_str();
    let id = id.unwrap_or_else(|| panic!("{deployed:#}"));
    assert_eq!([keyed(None), keyed(Some("another")), keyed(Some("secret-api-key-12345"))], [401, 401, 200]);
    let removed = block_on(async {
        http().delete(format!("http://{}/wasm/{id}", gateway.admin)).send().await.unwrap().status().as_u16()
    });
    assert_eq!((removed, keyed(None)), (200, 200));
}
