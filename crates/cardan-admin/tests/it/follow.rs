//! Streams: resumed, bounded, ended.

use std::time::Duration;

use serde_json::{Value, json};

use crate::house::{House, PATIENCE, block_on};

/// Reads documents until there are so many.
async fn documents(response: &mut reqwest::Response, count: usize) -> Vec<(u64, Value)> {
    let (mut text, mut found) = (String::new(), Vec::new());
    while found.len() < count {
        let chunk = tokio::time::timeout(PATIENCE, response.chunk()).await.unwrap().unwrap().unwrap();
        text.push_str(std::str::from_utf8(&chunk).unwrap());
        while let Some(end) = text.find("\n\n") {
            let message: String = text.drain(..end + 2).collect();
            let field = |name: &str| message.lines().find_map(|line| line.strip_prefix(name));
            if let (Some(id), Some(data)) = (field("id: "), field("data: ")) {
                found.push((id.parse().unwrap(), serde_json::from_str(data).unwrap()));
            }
        }
    }
    found
}

#[test]
fn events_are_resumed_without_gaps() {
    block_on(async {
        let house = House::open().await;
        let list = house.get("/api/v1/events").await.ok();
        let next = list["next"].as_u64().unwrap();
        assert!(next >= 1, "{list}");
        let follow = |last: u64| {
            let request = house.request("GET", "/api/v1/events").header("accept", "text/event-stream");
            request.header("last-event-id", last.to_string()).send()
        };
        let mut stream = follow(next).await.unwrap();
        assert_eq!(stream.headers()["content-type"], "text/event-stream");
        for action in ["disable", "enable", "disable"] {
            house.post(&format!("/api/v1/plugins/guard:{action}"), &Value::Null).await.ok();
        }
        let seen = documents(&mut stream, 6).await;
        let numbers: Vec<u64> = seen.iter().map(|(id, _)| *id).collect();
        assert_eq!(numbers, (next + 1..=next + 6).collect::<Vec<_>>(), "{seen:?}");
        assert!(
            seen.iter().any(|(_, event)| event["event"] == "disabled" && event["plugin"] == "guard"),
            "{seen:?}"
        );
        drop(stream);
        let mut resumed = follow(next + 2).await.unwrap();
        let seen = documents(&mut resumed, 4).await;
        assert_eq!(seen[0].0, next + 3);
        let rest = house.get(&format!("/api/v1/events?since={}", next + 5)).await.ok();
        assert_eq!(rest["events"].as_array().unwrap().len(), 1, "{rest}");
    });
}

#[test]
fn so_many_follow_and_no_more() {
    block_on(async {
        let house = House::open().await;
        let mut streams = Vec::new();
        for _ in 0..64 {
            let stream = house.request("GET", "/api/v1/events?follow=true").send().await.unwrap();
            assert_eq!(stream.status(), 200);
            streams.push(stream);
        }
        house.get("/api/v1/logs?follow=true").await.problem(503, "64 clients");
        house.get("/api/v1/plugins").await.ok();
        streams.clear();
        // A place is free once the server has noticed.
        let began = std::time::Instant::now();
        while house.request("GET", "/api/v1/events?follow=true").send().await.unwrap().status() != 200 {
            assert!(began.elapsed() < PATIENCE);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
}

/// Logs its answer.
const LOGGING: &str = r#"(module
  (import "extism:host/env" "alloc" (func $alloc (param i64) (result i64)))
  (import "extism:host/env" "store_u8" (func $store_u8 (param i64 i32)))
  (import "extism:host/env" "output_set" (func $output_set (param i64 i64)))
  (import "extism:host/env" "log_warn" (func $log_warn (param i64)))
  (memory 1)
  (data (i32.const 0) "{\22verdict\22:\22continue\22}")
  (func $answer (result i64) (local $block i64) (local $i i32)
    (local.set $block (call $alloc (i64.const 22)))
    (loop $next
      (call $store_u8 (i64.add (local.get $block) (i64.extend_i32_u (local.get $i)))
        (i32.load8_u (local.get $i)))
      (local.set $i (i32.add (local.get $i) (i32.const 1)))
      (br_if $next (i32.lt_u (local.get $i) (i32.const 22))))
    (local.get $block))
  (func (export "http_request") (result i32)
    (call $log_warn (call $answer))
    (call $output_set (call $answer) (i64.const 22))
    (i32.const 0)))"#;

/// Lines are told when they are there, and not at the next look.
#[test]
fn lines_are_told_at_once() {
    block_on(async {
        let house = House::open().await;
        let mut stream = house.request("GET", "/api/v1/logs?follow=true").send().await.unwrap();
        // It comes after the stream has begun.
        let path = house.dir.path().join("logging.wat");
        std::fs::write(&path, LOGGING).unwrap();
        house.post("/api/v1/plugins", &json!({ "path": path })).await.ok();
        let mut waits = Vec::new();
        for n in 1..=11 {
            // At another moment of any clock.
            tokio::time::sleep(Duration::from_millis(300 + n * 23)).await;
            house.visit("hello").await;
            let began = std::time::Instant::now();
            let told = documents(&mut stream, 1).await;
            waits.push(began.elapsed());
            assert_eq!(told[0].1["seq"], n, "{told:?}");
        }
        // Another version counts its own.
        std::fs::write(&path, LOGGING.replace("(memory 1)", "(memory 2)")).unwrap();
        house.post("/api/v1/plugins/logging:reload", &Value::Null).await.ok();
        house.visit("hello").await;
        let told = documents(&mut stream, 1).await;
        assert_eq!((&told[0].1["version"], &told[0].1["seq"]), (&json!(2), &json!(1)), "{told:?}");
        waits.sort();
        assert!(waits[waits.len() / 2] < Duration::from_millis(100), "{waits:?}");
    });
}

#[test]
fn what_guests_log() {
    block_on(async {
        let house = House::open().await;
        let path = house.copy("hostile/log_flood.wat", "flood.wat");
        let made = house.post("/api/v1/plugins", &json!({ "path": path })).await;
        assert_eq!(made.status, 201, "{made:?}");
        house.visit("hello").await;
        let logs = house.get("/api/v1/plugins/flood/logs?limit=5").await.ok();
        let lines = logs["lines"].as_array().unwrap();
        assert_eq!(lines.len(), 5, "{logs}");
        assert_eq!(lines[0]["plugin"], "flood");
        assert_eq!(house.get("/plugins/flood/logs").await.ok()["lines"].as_array().unwrap().len(), 100);
        let loud = house.get("/api/v1/logs?level=error").await.ok();
        assert_eq!(loud["lines"].as_array().unwrap().len(), 100, "{loud}");
        assert_eq!(house.get("/api/v1/logs?since=99999999999999").await.ok()["lines"], json!([]));
        house.get("/api/v1/logs?level=loud").await.problem(400, "trace, debug");
        house.get("/api/v1/plugins/nobody/logs").await.problem(404, "nobody");
        let mut stream =
            house.request("GET", "/api/v1/plugins/flood/logs?follow=true&limit=3").send().await.unwrap();
        let seen = documents(&mut stream, 3).await;
        house.visit("again").await;
        let more = documents(&mut stream, 3).await;
        assert!(more[0].1["seq"].as_u64() > seen[2].1["seq"].as_u64(), "{seen:?} {more:?}");
    });
}
