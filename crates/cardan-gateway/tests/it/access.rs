//! The access log: one line for each exchange.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, Once};
use std::time::{Duration, Instant};

use cardan_api::FaultPolicy;
use serde_json::json;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

use crate::house::{House, PATIENCE, at, builtin, nobody};
use crate::plugins::{REQUEST, RESPONSE, on_fault, says, traps};

static LINES: Mutex<Vec<BTreeMap<String, String>>> = Mutex::new(Vec::new());

struct Collector;

impl Subscriber for Collector {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "cardan::access"
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line(BTreeMap::new());
        event.record(&mut line);
        LINES.lock().unwrap().push(line.0);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

struct Line(BTreeMap<String, String>);

impl Visit for Line {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().to_owned(), value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name().to_owned(), format!("{value:?}"));
    }
}

fn listen() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| tracing::subscriber::set_global_default(Collector).unwrap());
}

/// Compares these fields of a visit's line.
async fn check(visit: &str, expected: &[(&str, Option<&str>)]) {
    let until = Instant::now() + PATIENCE;
    let line = loop {
        let found = LINES.lock().unwrap().iter().find(|line| line["visit"] == visit).cloned();
        match found {
            Some(line) => break line,
            None => tokio::time::sleep(Duration::from_millis(5)).await,
        }
        assert!(Instant::now() < until, "no line for {visit}");
    };
    let got: Vec<_> = expected.iter().map(|(name, _)| (*name, line.get(*name).map(String::as_str))).collect();
    assert_eq!(got, expected);
}

#[tokio::test]
async fn an_exchange_is_one_line() {
    listen();
    let skipped = on_fault(traps("observer", RESPONSE), FaultPolicy::Skip);
    let house = House::open(builtin(), &[skipped]).await;
    let reply = house.get("/v1/models?key=secret").await;
    let bytes = reply.body.len().to_string();
    let line = [
        ("method", Some("GET")),
        ("path", Some("/v1/models")),
        ("route", Some("all")),
        ("upstream", Some("builtin")),
        ("status", Some("200")),
        ("sent_bytes", Some(bytes.as_str())),
        ("aborted", Some("false")),
        ("problem", None),
        ("stopped_by", None),
        ("faults", Some("observer:trap")),
    ];
    check(reply.header("x-request-id").unwrap(), &line).await;
}

#[tokio::test]
async fn what_went_wrong_is_in_the_line() {
    listen();
    let refuse = says("law", REQUEST, &json!({ "verdict": "refuse", "kind": "pii" }));
    let house = House::open(builtin(), &[refuse]).await;
    let line =
        [("status", Some("403")), ("problem", Some("pii")), ("stopped_by", Some("law")), ("route", None)];
    check(house.get("/").await.header("x-request-id").unwrap(), &line).await;

    let house = House::open(at(&[nobody().await]), &[]).await;
    let line = [("status", Some("502")), ("problem", Some("upstream_unreachable")), ("stopped_by", None)];
    check(house.get("/").await.header("x-request-id").unwrap(), &line).await;
}
