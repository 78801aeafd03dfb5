//! SMG's documented calls: by curl as its documentation writes them, and the acceptance cases of its tests.

use std::process::Command;

use serde_json::{Value, json};

use crate::house::{Answer, House, block_on};

const DEPLOY: &str = include_str!("seeds/smg_deploy.sh");
const LIST: &str = include_str!("seeds/smg_list.sh");
const REMOVE: &str = include_str!("seeds/smg_remove.sh");
const METRICS: &str = include_str!("seeds/smg_metrics.json");

/// Runs a documented command line with this server in place of `localhost:3000`.
fn shell(house: &House, line: &str, replace: &[(&str, &str)]) -> String {
    let mut line = line.replace("http://localhost:3000", &format!("http://{}", house.address));
    for (from, to) in replace {
        line = line.replace(from, to);
    }
    let line = line.replace("curl ", "curl -s --noproxy '*' ");
    let output = Command::new("sh").arg("-c").arg(&line).output().unwrap();
    assert!(output.status.success(), "{line}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_documentation_by_curl() {
    block_on(async {
        let house = House::open().await;
        let path = house.copy("prebuilt/smg-auth.wasm", "my-component.component.wasm");
        let run = |line: &'static str, replace: Vec<(&'static str, String)>| {
            let replace: Vec<(&str, &str)> = replace.iter().map(|(from, to)| (*from, to.as_str())).collect();
            tokio::task::block_in_place(|| shell(&house, line, &replace))
        };
        let deployed = run(DEPLOY, vec![("/path/to/my-component.component.wasm", path.clone())]);
        let deployed: Value = serde_json::from_str(&deployed).unwrap();
        let module = &deployed["modules"][0];
        let uuid =
            module["add_result"]["Success"].as_str().unwrap_or_else(|| panic!("{deployed}")).to_owned();
        assert_eq!((&module["name"], &module["file_path"]), (&json!("my-middleware"), &json!(path)));
        assert_eq!(module["attach_points"], json!([{ "Middleware": "OnRequest" }]));
        assert_eq!(&uuid[14..15], "7", "{uuid} is of version 7");
        house.visit("hello").await;
        let list: Value = serde_json::from_str(&run(LIST, Vec::new())).unwrap();
        let documented: Value = serde_json::from_str(METRICS).unwrap();
        for (key, value) in documented.as_object().unwrap() {
            assert_eq!(value.is_f64(), list["metrics"][key].is_f64(), "{key}: {list}");
        }
        let meta = &list["modules"][0]["module_meta"];
        assert_eq!((&list["modules"][0]["module_uuid"], &meta["access_count"]), (&json!(uuid), &json!(1)));
        for key in ["created_at", "last_accessed_at"] {
            let at = meta[key].as_str().unwrap();
            assert!(at.len() == "2026-08-01T09:00:00.000000000Z".len() && at.ends_with('Z'), "{at}");
        }
        assert_eq!(meta["sha256_hash"].as_str().unwrap().len(), 64);
        let removed = run(REMOVE, vec![("{module-uuid}", uuid)]);
        assert_eq!(removed, "Module removed successfully");
        let list: Value = serde_json::from_str(&run(LIST, Vec::new())).unwrap();
        assert_eq!(list["modules"], json!([]));
        assert!(list["metrics"].get("average_execution_time_ms").is_none(), "{list}");
    });
}

fn module(name: &str, path: &str, points: &[&str]) -> Value {
    let points: Vec<Value> = points.iter().map(|point| json!({ "Middleware": point })).collect();
    json!({ "name": name, "file_path": path, "module_type": "Middleware", "attach_points": points })
}

async fn deploy(house: &House, modules: &[Value]) -> Answer {
    house.post("/wasm", &json!({ "modules": modules })).await
}

#[track_caller]
fn refused(answer: &Answer, says: &str) {
    assert_eq!(answer.status, 400, "{answer:?}");
    let error = answer.json()["modules"][0]["add_result"]["Error"].as_str().unwrap_or_default().to_owned();
    assert!(error.contains(says), "{says:?} is not in {error:?}");
}

#[test]
fn registration_rules() {
    block_on(async {
        let house = House::open().await;
        let good = house.copy("prebuilt/pii-mask.wasm", "mask.wasm");
        let other = house.copy("prebuilt/api-key.wasm", "key.WASM");
        let write = |name: &str, bytes: &[u8]| {
            let path = house.dir.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let garbage = write("garbage.wasm", b"garbage");
        let empty = write("empty.wasm", b"");
        let component = write("component.wasm", b"\0asm\x0d\0\x01\0");
        let text = write("text.txt", b"\0asm");
        let link = house.dir.path().join("link.wasm");
        std::os::unix::fs::symlink("/etc/hostname", &link).unwrap();
        let dotted = format!("{}/../x.wasm", house.dir.path().display());
        let rows = [
            (module("", &good, &["OnRequest"]), "name"),
            (module("a", "", &["OnRequest"]), "empty"),
            (module("a", "mask.wasm", &["OnRequest"]), "must be absolute"),
            (module("a", &dotted, &["OnRequest"]), "Path traversal (..) not allowed"),
            (module("a", &text, &["OnRequest"]), "must have .wasm extension"),
            (module("a", "/etc/x.wasm", &["OnRequest"]), "/etc/"),
            (module("a", "/proc/self/x.wasm", &["OnRequest"]), "/proc/"),
            (module("a", link.to_str().unwrap(), &["OnRequest"]), "not allowed"),
            (module("a", "/nowhere/x.wasm", &["OnRequest"]), "/nowhere/x.wasm"),
            (module("a", &empty, &["OnRequest"]), "empty"),
            (module("a", &garbage, &["OnRequest"]), "Invalid WASM component"),
            (module("a", &component, &["OnRequest"]), "component"),
            (module("guard", &good, &["OnRequest"]), "there is one of this name"),
        ];
        for (module, says) in rows {
            refused(&deploy(&house, &[module]).await, says);
        }
        let first = deploy(&house, &[module("one", &good, &["OnRequest"])]).await;
        assert_eq!(first.status, 200, "{first:?}");
        refused(
            &deploy(&house, &[module("two", &good, &["OnRequest"])]).await,
            "Duplicate SHA256 hash detected",
        );
        refused(&deploy(&house, &[module("one", &other, &["OnRequest"])]).await, "one of this name");
        assert_eq!(deploy(&house, &[module("three", &good, &["OnRequest", "OnResponse"])]).await.status, 200);
        assert_eq!(deploy(&house, &[module("four", &other, &[])]).await.status, 200);
        assert_eq!(deploy(&house, &[]).await.ok(), json!({ "modules": [] }));
        // Some are good: those stay.
        let path = house.copy("prebuilt/prompt-guard.wasm", "five.wasm");
        let mixed = deploy(&house, &[module("five", &path, &["OnRequest"]), module("six", "x", &[])]).await;
        assert_eq!(mixed.status, 400);
        assert!(mixed.json()["modules"][0]["add_result"]["Success"].is_string(), "{mixed:?}");
        let list = house.get("/wasm").await.ok();
        assert_eq!(list["modules"].as_array().unwrap().len(), 4, "{list}");
        let request = house.request("POST", "/wasm").header("content-type", "application/json");
        house.send(request.body("{")).await.problem(400, "JSON");
        house.post("/wasm", &json!({ "modules": [{ "name": "a" }] })).await.problem(422, "file_path");
    });
}

#[test]
fn removal() {
    block_on(async {
        let house = House::open().await;
        let remove = |uuid: &str| house.send(house.request("DELETE", &format!("/wasm/{uuid}")));
        let answer = remove("not-a-uuid").await;
        assert_eq!((answer.status, answer.body.as_str()), (400, ""));
        let answer = remove("0197f3a2-6c1e-7d10-9a55-0d6f0c1f2b3a").await;
        assert_eq!(answer.status, 400);
        assert!(answer.body.contains("not found"), "{answer:?}");
        let path = house.copy("prebuilt/pii-mask.wasm", "mask.wasm");
        let deployed = deploy(&house, &[module("mask", &path, &["OnRequest"])]).await.ok();
        let uuid = deployed["modules"][0]["add_result"]["Success"].as_str().unwrap();
        // By other means it goes from the list as well.
        house.ask("DELETE", "/api/v1/plugins/mask", &Value::Null).await.ok();
        assert_eq!(house.get("/wasm").await.ok()["modules"], json!([]));
        assert_eq!(remove(uuid).await.status, 400);
    });
}
