//! Who gets in, and how far.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use cardan_admin::{Role, Token};
use serde_json::{Value, json};

use crate::house::{ADMIN, House, OPERATOR, PATIENCE, VIEWER, block_on};

/// Every operation that the document lists, with the role it names: nobody gets in without a token, and
/// nobody with a lesser role.
#[test]
fn every_route_asks_for_its_role() {
    block_on(async {
        let house = House::guarded().await;
        let document = serde_json::to_value(cardan_admin::openapi()).unwrap();
        let (mut checked, mut open) = (0, 0);
        for (path, operations) in document["paths"].as_object().unwrap() {
            for (method, operation) in operations.as_object().unwrap() {
                let path = fill(path, &[]);
                let method = method.to_ascii_uppercase();
                let Some(role) = operation["security"][0]["bearer"][0].as_str() else {
                    assert_ne!(house.ask(&method, &path, &Value::Null).await.status, 401, "{path}");
                    open += 1;
                    continue;
                };
                house.ask(&method, &path, &Value::Null).await.problem(401, "Authorization");
                let with = |token: &str| house.send(house.request(&method, &path).bearer_auth(token));
                with("wrong-0123456789abcdef").await.problem(401, "no such token");
                let lesser: &[&str] = match role {
                    "viewer" => &[],
                    "operator" => &[VIEWER],
                    _ => &[VIEWER, OPERATOR],
                };
                for token in lesser {
                    with(token).await.problem(403, "and this takes");
                }
                checked += 1;
            }
        }
        assert_eq!(open, 3, "health alone is open");
        assert!(checked > 50, "{checked}");
    });
}

/// A path with its parameters in place.
pub(crate) fn fill(path: &str, values: &[(&str, &str)]) -> String {
    let mut filled = path.to_owned();
    for (name, value) in values {
        filled = filled.replace(&format!("{{{name}}}"), value);
    }
    let others = [("name", "guard"), ("id", "0"), ("uuid", "0"), ("plugin", "guard"), ("key", "k")];
    others.iter().fold(filled, |path, (name, value)| path.replace(&format!("{{{name}}}"), value))
}

#[test]
fn what_a_viewer_does_not_see() {
    block_on(async {
        let house = House::guarded().await;
        let as_viewer = |path: &str| house.send(house.request("GET", path).bearer_auth(VIEWER));
        let as_admin = |path: &str| house.send(house.request("GET", path).bearer_auth(ADMIN));
        let text = |answer: &Value| answer["text"].clone();
        assert_eq!(text(&as_viewer("/api/v1/config").await.ok()), Value::Null);
        assert_eq!(text(&as_admin("/api/v1/config").await.ok()), "text: 1");
        let install = house.request("POST", "/api/v1/plugins/install").bearer_auth(ADMIN);
        let entry = json!({
            "name": "zoo", "hook": "pre_flight", "type": "wasm", "entrypoint": "llmproxy-zoo",
            "config": { "key": "hunter2" },
        });
        house.send(install.json(&entry)).await.ok();
        let shown = as_viewer("/api/v1/plugins/zoo/config").await;
        assert_eq!(shown.ok()["config"], json!({ "key": "(hidden)" }));
        assert_eq!(as_admin("/api/v1/plugins/zoo/config").await.ok()["config"]["key"], "hunter2");
        for path in
            ["/api/v1/plugins", "/api/v1/plugins/zoo", "/plugins", "/metrics", "/api/v1/plugins/stats"]
        {
            let answer = as_viewer(path).await;
            assert!(answer.status == 200 && !answer.body.contains("hunter2"), "{path}: {answer:?}");
        }
    });
}

#[test]
fn tokens_change_while_it_serves() {
    block_on(async {
        let house = House::guarded().await;
        let new = "another-0123456789abcdef";
        house.tokens.replace(vec![Token::new("new", Role::Viewer, new).unwrap()]);
        let with = |token: &str| house.send(house.request("GET", "/api/v1/plugins").bearer_auth(token));
        with(ADMIN).await.problem(401, "no such token");
        with(new).await.ok();
    });
}

#[test]
fn every_answer_is_for_one_reader_and_no_page() {
    block_on(async {
        let house = House::open().await;
        for path in ["/healthz", "/api/v1/plugins", "/nothing", "/metrics"] {
            let answer = house.get(path).await;
            assert_eq!(answer.headers["cache-control"], "no-store", "{path}");
            assert_eq!(answer.headers["x-content-type-options"], "nosniff", "{path}");
            assert!(!answer.headers.contains_key("access-control-allow-origin"), "{path}");
            let kind = answer.headers["content-type"].to_str().unwrap();
            assert!(!kind.contains("html"), "{path}: {kind}");
        }
        let foreign =
            house.request("POST", "/api/v1/plugins/guard:disable").header("origin", "http://evil.example");
        house.send(foreign).await.problem(403, "another site");
        let rebound = house.request("GET", "/api/v1/plugins").header("host", "evil.example");
        house.send(rebound).await.problem(403, "localhost");
        let form = house.request("POST", "/plugins/load").header("content-type", "text/plain").body("{}");
        house.send(form).await.problem(415, "application/json");
        assert_eq!(house.get("/api/v1/plugins/guard").await.ok()["enabled"], true);
    });
}

/// Speaks HTTP by hand and returns what comes back.
fn raw(house: &House, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(house.address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    // It may be refused before it is sent whole.
    _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn too_much_is_refused() {
    block_on(async {
        let house = House::open().await;
        let big = vec![b' '; (4 << 20) + 1];
        let request = house.request("POST", "/plugins/load").header("content-type", "application/json");
        house.send(request.body(big.clone())).await.problem(413, "4 MiB");
        let request =
            house.request("POST", "/api/v1/plugins/guard:try").header("content-type", "application/json");
        house.send(request.body(big)).await.problem(413, "4 MiB");
        let head = format!("GET /healthz HTTP/1.1\r\nhost: localhost\r\nx: {}\r\n\r\n", "y".repeat(64 << 10));
        let answer = tokio::task::block_in_place(|| raw(&house, head.as_bytes()));
        assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(10_000), "]".repeat(10_000));
        let request = house.request("POST", "/wasm").header("content-type", "application/json");
        house.send(request.body(deep)).await.problem(400, "JSON");
    });
}

/// Told to stop, it waits for nobody for ever.
#[test]
fn it_stops_while_clients_hang_on() {
    block_on(async {
        let mut house = House::open().await;
        let mut idle = TcpStream::connect(house.address).unwrap();
        idle.write_all(b"GET /api/v1/events?follow=true HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
        let mut half = TcpStream::connect(house.address).unwrap();
        half.write_all(b"POST /plugins/load HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9\r\n").unwrap();
        tokio::time::sleep(Duration::from_millis(200)).await;
        let began = Instant::now();
        house.stop();
        let served = house.served.take().unwrap();
        tokio::time::timeout(PATIENCE, served).await.unwrap().unwrap();
        assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    });
}
