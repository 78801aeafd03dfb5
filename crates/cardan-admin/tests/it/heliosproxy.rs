//! HeliosProxy's documented calls, sent as its documentation writes them.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::house::{House, block_on};

const LISTING: &str = include_str!("seeds/heliosproxy_plugins.json");
const LOAD: &str = include_str!("seeds/heliosproxy_load.json");

fn keys(value: &Value) -> BTreeSet<String> {
    value.as_object().unwrap().keys().cloned().collect()
}

#[test]
fn every_documented_call() {
    block_on(async {
        let house = House::open().await;
        let path = house.answering("new-plugin.wasm", r#"{"verdict":"continue"}"#);
        // POST /plugins/load
        let body = LOAD.replace("/etc/heliosproxy/plugins/new-plugin.wasm", &path);
        let request =
            house.request("POST", "/plugins/load").header("content-type", "application/json").body(body);
        let loaded = house.send(request).await.ok();
        assert_eq!((&loaded["status"], &loaded["name"]), (&json!("loaded"), &json!("new-plugin")));
        house.visit("hello").await;
        // GET /plugins
        let listing = house.get("/plugins").await.ok();
        let documented: Value = serde_json::from_str(LISTING).unwrap();
        let (ours, theirs) = (&listing["plugins"][1], &documented["plugins"][0]);
        assert!(keys(&listing) == keys(&documented) && keys(ours).is_superset(&keys(theirs)), "{listing}");
        for (key, value) in theirs.as_object().unwrap() {
            assert_eq!(std::mem::discriminant(value), std::mem::discriminant(&ours[key]), "{key}: {listing}");
        }
        // What its code answers with beside that.
        assert!(
            keys(ours).is_superset(&["description", "state", "errors"].map(str::to_owned).into()),
            "{ours}"
        );
        assert_eq!((&ours["status"], &ours["state"]), (&json!("running"), &json!("Running")));
        assert_eq!((&ours["invocations"], &ours["errors"]), (&json!(1), &json!(0)));
        let memory = ours["memory_used"].as_str().unwrap();
        assert!(memory.strip_suffix("MB").unwrap().parse::<f64>().unwrap() > 0.0, "{memory}");
        assert!(house.get("/plugins?format=list").await.ok().is_array());
        house.get("/plugins?format=xml").await.problem(400, "object");
        // POST /plugins/{name}/reload, POST /plugins/{name}/disable, and enable beside them
        for (verb, state) in [("reload", "running"), ("disable", "disabled"), ("enable", "running")] {
            let done = house.post(&format!("/plugins/new-plugin/{verb}"), &Value::Null).await.ok();
            assert_eq!(done["plugin"]["status"], state, "{verb}: {done}");
            house.post(&format!("/plugins/nobody/{verb}"), &Value::Null).await.problem(404, "nobody");
        }
        // GET /plugins/{name}/logs, GET /plugins/{name}/metrics
        assert_eq!(house.get("/plugins/new-plugin/logs").await.ok()["lines"], json!([]));
        let metrics = house.get("/plugins/new-plugin/metrics").await.ok();
        assert_eq!(
            (&metrics["invocations"], &metrics["by_hook"][0]["hook"]),
            (&json!(1), &json!("http.request"))
        );
        // DELETE /plugins/{name}
        let gone = house.ask("DELETE", "/plugins/new-plugin", &Value::Null).await.ok();
        assert_eq!(gone["status"], "unloaded");
        house.ask("DELETE", "/plugins/new-plugin", &Value::Null).await.problem(404, "new-plugin");
        house.ask("DELETE", "/plugins/guard", &Value::Null).await.problem(409, "take it out there");
    });
}

#[test]
fn stored_values() {
    block_on(async {
        let house = House::open().await;
        let put = |key: &str, value: &str| {
            house.send(house.request("PUT", &format!("/admin/kv/auth/{key}")).body(value.to_owned()))
        };
        for (key, value) in [("a/b", "1"), ("a/c%3Fd", "2"), ("z", "3")] {
            assert_eq!(put(key, value).await.ok(), json!({ "ok": true }));
        }
        let one = house.get("/admin/kv/auth/a/b").await.ok();
        assert_eq!(one, json!({ "plugin": "auth", "key": "a/b", "value": "1" }));
        let keys = house.get("/admin/kv/auth/?prefix=a%2F").await.ok();
        assert_eq!(keys, json!({ "plugin": "auth", "keys": ["a/b", "a/c?d"] }));
        for _ in 0..2 {
            assert_eq!(
                house.ask("DELETE", "/admin/kv/auth/z", &Value::Null).await.ok(),
                json!({ "ok": true })
            );
        }
        house.get("/admin/kv/auth/z").await.problem(404, "\"z\"");
        put("big", &"x".repeat(101)).await.problem(413, "100 bytes");
        house.get("/admin/kv/auth").await.problem(400, "/admin/kv/PLUGIN/KEY");
        house.get("/admin/kv//x").await.problem(400, "empty");
        put("", "x").await.problem(400, "the key is empty");
        house.post("/admin/kv/auth/a", &json!({})).await.problem(405, "POST");
    });
}
