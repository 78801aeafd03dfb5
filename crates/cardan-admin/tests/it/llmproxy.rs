//! LLMProxy's nine routes.

use serde_json::{Value, json};

use crate::house::{House, block_on};

fn has(value: &Value, keys: &[&str]) {
    for key in keys {
        assert!(
            !value[key].is_null() || value.as_object().unwrap().contains_key(*key),
            "{key} is not in {value}"
        );
    }
}

fn entry() -> Value {
    json!({
        "name": "My WASM Plugin", "hook": "pre_flight", "priority": 25, "enabled": true, "type": "wasm",
        "entrypoint": "llmproxy-template.wasm", "version": "0.1.0", "timeout_ms": 1000,
        "config": { "my_setting": "value" },
    })
}

#[test]
fn the_nine_routes() {
    block_on(async {
        let house = House::open().await;
        let installed = house.post("/api/v1/plugins/install", &entry()).await.ok();
        assert_eq!(
            (&installed["status"], &installed["name"]),
            (&json!("installed"), &json!("My WASM Plugin"))
        );
        let list = house.get("/api/v1/plugins").await.ok();
        let ours = &list["plugins"][1];
        has(
            ours,
            &[
                "name",
                "hook",
                "type",
                "version",
                "author",
                "description",
                "ui_schema",
                "enabled",
                "timeout_ms",
                "fail_policy",
            ],
        );
        assert_eq!(
            (&ours["hook"], &ours["timeout_ms"], &ours["fail_policy"], &ours["version"]),
            (&json!("pre_flight"), &json!(1000), &json!("closed"), &json!("0.1.0")),
            "{ours}"
        );
        let stats = house.get("/api/v1/plugins/stats").await;
        assert!(!stats.body.contains("-0.0"), "{stats:?}");
        house.visit("hello").await;
        let stats = house.get("/api/v1/plugins/stats").await.ok();
        let one = &stats["My WASM Plugin"];
        has(
            one,
            &[
                "invocations",
                "errors",
                "blocks",
                "timeouts",
                "total_latency_ms",
                "consecutive_errors",
                "quarantined_until",
                "avg_latency_ms",
                "latency_percentiles",
            ],
        );
        has(&one["latency_percentiles"], &["p50", "p95", "p99"]);
        assert_eq!(
            (&one["invocations"], &one["errors"], &one["quarantined_until"]),
            (&json!(1), &json!(0), &json!(0.0))
        );

        let toggle = json!({ "name": "My WASM Plugin", "enabled": false });
        assert_eq!(house.post("/api/v1/plugins/toggle", &toggle).await.ok(), toggle);
        assert_eq!(house.get("/api/v1/plugins/My%20WASM%20Plugin").await.ok()["enabled"], false);
        house
            .post("/api/v1/plugins/toggle", &json!({ "name": "x", "enabled": true }))
            .await
            .problem(404, "x");

        let latency = house.get("/api/v1/metrics/latency").await.ok();
        for ring in ["ingress", "pre_flight", "routing", "post_flight", "background"] {
            has(&latency["rings"][ring], &["count", "p50", "p95", "p99"]);
        }
        has(&latency["plugins"]["My WASM Plugin"], &["avg_ms", "percentiles", "invocations"]);
        has(&latency["ttft"], &["samples", "p50", "p95", "p99"]);
        assert_eq!(latency["rings"]["pre_flight"]["count"], 1, "{latency}");
        let timeline = house.get("/api/v1/metrics/ring-timeline").await.ok();
        let trace = &timeline["traces"][0];
        has(trace, &["req_id", "timestamp", "rings", "total_ms", "upstream_ms", "ttft_ms"]);
        assert_eq!(
            (&timeline["count"], &trace["rings"]["pre_flight"]["plugins"][0]["name"]),
            (&json!(1), &json!("My WASM Plugin"))
        );

        let gone = house.ask("DELETE", "/api/v1/plugins/My%20WASM%20Plugin", &Value::Null).await.ok();
        assert_eq!(gone, json!({ "status": "uninstalled", "name": "My WASM Plugin" }));
        let gone = house.ask("DELETE", "/api/v1/plugins/My%20WASM%20Plugin", &Value::Null).await;
        gone.problem(404, "My WASM Plugin");
    });
}

#[test]
fn what_cannot_be_installed() {
    block_on(async {
        let house = House::open().await;
        let with = |key: &str, value: Value| {
            let mut entry = entry();
            entry[key] = value;
            entry
        };
        let rows = [
            (json!({ "name": "x" }), 400, "Missing fields: hook, entrypoint"),
            (with("hook", json!("nowhere")), 422, "nowhere"),
            (with("entrypoint", json!("missing")), 422, "missing"),
            (with("entrypoint", json!("../../Cargo.toml")), 422, ""),
            (with("type", json!("python")), 422, ""),
            (with("priority", json!("high")), 422, "high"),
        ];
        for (entry, status, says) in rows {
            house.post("/api/v1/plugins/install", &entry).await.problem(status, says);
        }
        assert_eq!(house.get("/api/v1/plugins").await.ok()["plugins"].as_array().unwrap().len(), 1);
    });
}

#[test]
fn what_install_leaves_alone() {
    block_on(async {
        let house = House::open().await;
        let mut off = entry();
        off["enabled"] = json!(false);
        house.post("/api/v1/plugins/install", &off).await.problem(422, "toggle");
        let path = house.copy("prebuilt/pii-mask.wasm", "deployed.wasm");
        let deployed = json!({ "modules": [{
            "name": "deployed", "file_path": path, "module_type": "Middleware",
            "attach_points": [{ "Middleware": "OnRequest" }],
        }] });
        house.post("/wasm", &deployed).await.ok();
        let mut over = entry();
        over["name"] = json!("deployed");
        house.post("/api/v1/plugins/install", &over).await.problem(409, "POST /wasm");
    });
}

#[test]
fn hot_swap_and_rollback() {
    block_on(async {
        let house = House::open().await;
        let good = r#"{"verdict":"continue"}"#;
        for name in ["one", "two"] {
            let path = house.answering(&format!("{name}.wat"), good);
            house.post("/api/v1/plugins", &json!({ "path": path })).await.ok();
        }
        house
            .post("/api/v1/plugins/rollback", &Value::Null)
            .await
            .problem(409, "no plugin has a version before");
        for name in ["one", "two"] {
            house.answering(&format!("{name}.wat"), r#"{"verdict":"refuse"}"#);
        }
        let swapped = house.post("/api/v1/plugins/hot-swap", &Value::Null).await.ok();
        assert_eq!(swapped, json!({ "status": "success", "message": "Plugin DAG reloaded" }));
        let active = async |name: &str| {
            house.get(&format!("/api/v1/plugins/{name}")).await.ok()["active"]["number"].clone()
        };
        assert_eq!((active("one").await, active("two").await), (json!(2), json!(2)));
        let back = house.post("/api/v1/plugins/rollback", &Value::Null).await.ok();
        assert_eq!(back["status"], "rolled_back");
        assert_eq!((active("one").await, active("two").await), (json!(1), json!(1)));
        // One that cannot be loaded undoes the other.
        house.answering("one.wat", r#"{"verdict":"continue","edits":{}}"#);
        std::fs::write(house.dir.path().join("two.wat"), "(module").unwrap();
        let undone = house.post("/api/v1/plugins/hot-swap", &Value::Null).await;
        assert_eq!((undone.status, &undone.json()["status"]), (200, &json!("rolled_back")), "{undone:?}");
        assert!(undone.json()["error"].as_str().unwrap().contains("two"), "{undone:?}");
        assert_eq!((active("one").await, active("two").await), (json!(1), json!(1)));
        let strict = house.post("/api/v1/plugins/hot-swap?strict=1", &Value::Null).await;
        assert_eq!((strict.status, &strict.json()["status"]), (422, &json!("rolled_back")));
        *house.configuration.reloads.lock().unwrap() = Err("cardan.yaml: line 3".to_owned());
        let undone = house.post("/api/v1/plugins/hot-swap", &Value::Null).await.ok();
        assert_eq!(undone["error"], "cardan.yaml: line 3");
    });
}

/// A plugin may be called like one of the fixed words.
#[test]
fn names_that_are_words_of_the_api() {
    block_on(async {
        let house = House::open().await;
        let path = house.answering("stats.wat", r#"{"verdict":"continue"}"#);
        house.post("/api/v1/plugins", &json!({ "path": path })).await.ok();
        assert!(house.get("/api/v1/plugins/stats").await.ok()["guard"].is_object());
        let found = house.get("/api/v1/plugins?name=stats").await.ok();
        assert_eq!(found["plugins"][0]["name"], "stats");
        house.post("/api/v1/plugins/stats:disable", &Value::Null).await.ok();
        assert_eq!(house.get("/api/v1/plugins/stats/versions").await.ok()["active"], 1);
        house.ask("DELETE", "/api/v1/plugins/stats", &Value::Null).await.ok();
        for word in ["toggle", "install", "hot-swap", "rollback"] {
            house.get(&format!("/api/v1/plugins/{word}")).await.problem(404, word);
            house.ask("DELETE", &format!("/api/v1/plugins/{word}"), &Value::Null).await.problem(404, word);
        }
    });
}
