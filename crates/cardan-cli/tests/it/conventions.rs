//! Plugins of every calling convention in one gateway: one source, asked side by side.

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::admin::Operated;
use crate::client::{block_on, conversation, http};
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
