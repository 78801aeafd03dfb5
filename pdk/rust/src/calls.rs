//! Capability calls for the conventions that carry bytes. Text and numbers are UTF-8 text, numbers in decimal;
//! what has parts is JSON; nothing is no bytes.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::convention;
use crate::http::{Failure as HttpFailure, Request, Response};
use crate::kv::{Entry, Page};
use crate::log::Level;
use crate::sql::{Failure as SqlFailure, Rows};

/// Every call there is, by the name that hosts know it by, for a macro that declares them in a convention.
macro_rules! every {
    ($declare:ident) => {
        $declare! {
            kv_get(key);
            kv_set(key, value, options);
            kv_delete(key);
            kv_add(key, delta);
            kv_cas(key, expected, value);
            kv_scan(options);
            cache_get(key);
            cache_set(key, value, seconds);
            cache_delete(key);
            cache_fill(key);
            execute_query(query);
            metric_inc(metric, value);
            metric_gauge(metric, value);
            metric_observe(metric, value);
            http_fetch(request);
            secret_get(name);
            time_now_ms();
            random_bytes(count);
        }
    };
}
pub(crate) use every;

fn there(bytes: Vec<u8>) -> Option<Vec<u8>> {
    if bytes.is_empty() { None } else { Some(bytes) }
}

/// What a host that keeps to the contract answers can be read; another one's is its operator's to mend, and ends
/// the call.
fn read<'a, T: Deserialize<'a>>(call: &str, bytes: &'a [u8]) -> T {
    match serde_json::from_slice(bytes) {
        Ok(value) => value,
        Err(error) => panic!("the host's answer to {call} cannot be read: {error}"),
    }
}

fn seconds(time: Duration) -> f64 {
    time.as_secs_f64()
}

pub(crate) fn config_get(name: &str) -> Option<String> {
    there(convention::config_get(name.as_bytes())).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

pub(crate) fn log(level: Level, text: &str) {
    convention::log(level, text);
}

pub(crate) fn kv_get(key: &str) -> Option<Vec<u8>> {
    there(convention::kv_get(key.as_bytes()))
}

pub(crate) fn kv_set(key: &str, value: &[u8], time: Option<Duration>) {
    let options = time.map(|time| json!({ "ttl_seconds": seconds(time) }).to_string()).unwrap_or_default();
    convention::kv_set(key.as_bytes(), value, options.as_bytes());
}

pub(crate) fn kv_delete(key: &str) {
    convention::kv_delete(key.as_bytes());
}

pub(crate) fn kv_add(key: &str, delta: i64) -> i64 {
    read("kv_add", &convention::kv_add(key.as_bytes(), delta.to_string().as_bytes()))
}

pub(crate) fn kv_compare_and_set(key: &str, expected: Option<&[u8]>, value: &[u8]) -> bool {
    convention::kv_cas(key.as_bytes(), expected.unwrap_or_default(), value) == b"1"
}

pub(crate) fn kv_scan(prefix: &str, after: Option<&str>, limit: u32) -> Page {
    #[derive(Deserialize)]
    struct Found {
        entries: Vec<Pair>,
        next: Option<String>,
    }
    #[derive(Deserialize)]
    struct Pair {
        key: String,
        value: Option<String>,
        value_base64: Option<String>,
    }
    let mut options = json!({ "prefix": prefix, "limit": limit });
    if let Some(after) = after {
        options["after"] = after.into();
    }
    let answer = convention::kv_scan(options.to_string().as_bytes());
    if answer.is_empty() {
        return Page::default();
    }
    let found: Found = read("kv_scan", &answer);
    let entry = |pair: Pair| Entry { value: bytes("kv_scan", pair.value, pair.value_base64), key: pair.key };
    Page { entries: found.entries.into_iter().map(entry).collect(), next: found.next }
}

/// Bytes that stand in JSON as text, or under another name in base64.
fn bytes(call: &str, text: Option<String>, encoded: Option<String>) -> Vec<u8> {
    match (text, encoded) {
        (Some(text), _) => text.into_bytes(),
        (None, Some(encoded)) => match STANDARD.decode(encoded) {
            Ok(bytes) => bytes,
            Err(error) => panic!("the host's answer to {call} has bad base64: {error}"),
        },
        (None, None) => Vec::new(),
    }
}

pub(crate) fn cache_get(key: &str) -> Option<Vec<u8>> {
    there(convention::cache_get(key.as_bytes()))
}

pub(crate) fn cache_set(key: &str, value: &[u8], time: Option<Duration>) {
    let time = time.map(|time| seconds(time).to_string()).unwrap_or_default();
    convention::cache_set(key.as_bytes(), value, time.as_bytes());
}

pub(crate) fn cache_delete(key: &str) {
    convention::cache_delete(key.as_bytes());
}

pub(crate) fn cache_fill(key: &str) -> Option<Vec<u8>> {
    there(convention::cache_fill(key.as_bytes()))
}

pub(crate) fn sql_query(
    connection: Option<&str>,
    statement: &str,
    parameters: &[Value],
) -> Result<Rows, SqlFailure> {
    #[derive(Deserialize)]
    struct Answer {
        error: Option<Failed>,
        #[serde(default)]
        columns: Vec<String>,
        #[serde(default)]
        rows: Vec<Vec<Value>>,
        #[serde(default)]
        affected: u64,
    }
    #[derive(Deserialize)]
    struct Failed {
        code: String,
        message: String,
    }
    let mut query = json!({ "sql": statement, "params": parameters });
    if let Some(connection) = connection {
        query["connection"] = connection.into();
    }
    let answer: Answer = read("execute_query", &convention::execute_query(query.to_string().as_bytes()));
    match answer.error {
        Some(Failed { code, message }) => Err(SqlFailure { code, message }),
        None => Ok(Rows { columns: answer.columns, rows: answer.rows, affected: answer.affected }),
    }
}

pub(crate) fn http_fetch(request: &Request) -> Result<Response, HttpFailure> {
    #[derive(Deserialize)]
    struct Answer {
        error: Option<Failed>,
        #[serde(default)]
        status: u16,
        #[serde(default)]
        headers: Map<String, Value>,
        body: Option<String>,
        body_base64: Option<String>,
    }
    #[derive(Deserialize)]
    struct Failed {
        kind: String,
        message: String,
    }
    // Several fields of one name mean the same as one with their values in a list.
    let mut headers: Map<String, Value> = Map::new();
    for (name, value) in &request.headers {
        let name = name.to_ascii_lowercase();
        let joined = match headers.get(&name).and_then(Value::as_str) {
            Some(before) => format!("{before}, {value}"),
            None => value.clone(),
        };
        headers.insert(name, joined.into());
    }
    let mut document = json!({ "url": request.url, "method": request.method, "headers": headers });
    match request.body.as_deref().map(std::str::from_utf8) {
        None => {}
        Some(Ok(text)) => document["body"] = text.into(),
        Some(Err(_)) => {
            document["body_base64"] = STANDARD.encode(request.body.as_deref().unwrap_or_default()).into();
        }
    }
    let answer: Answer = read("http_fetch", &convention::http_fetch(document.to_string().as_bytes()));
    if let Some(Failed { kind, message }) = answer.error {
        return Err(HttpFailure { kind, message });
    }
    let field = |(name, value): (String, Value)| match value {
        Value::String(text) => (name, text),
        other => (name, other.to_string()),
    };
    Ok(Response {
        status: answer.status,
        headers: answer.headers.into_iter().map(field).collect(),
        body: bytes("http_fetch", answer.body, answer.body_base64),
    })
}

pub(crate) fn secret_get(name: &str) -> Option<Vec<u8>> {
    there(convention::secret_get(name.as_bytes()))
}

pub(crate) fn time_now_ms() -> u64 {
    read("time_now_ms", &convention::time_now_ms())
}

pub(crate) fn random_bytes(count: usize) -> Vec<u8> {
    convention::random_bytes(count.to_string().as_bytes())
}

fn metric(name: &str, labels: &[(&str, &str)]) -> String {
    if labels.is_empty() {
        return name.to_owned();
    }
    let labels: Map<String, Value> =
        labels.iter().map(|(name, value)| ((*name).to_owned(), Value::from(*value))).collect();
    json!({ "name": name, "labels": labels }).to_string()
}

pub(crate) fn metric_inc(name: &str, labels: &[(&str, &str)], by: f64) {
    convention::metric_inc(metric(name, labels).as_bytes(), by.to_string().as_bytes());
}

pub(crate) fn metric_gauge(name: &str, labels: &[(&str, &str)], value: f64) {
    convention::metric_gauge(metric(name, labels).as_bytes(), value.to_string().as_bytes());
}

pub(crate) fn metric_observe(name: &str, labels: &[(&str, &str)], value: f64) {
    convention::metric_observe(metric(name, labels).as_bytes(), value.to_string().as_bytes());
}
