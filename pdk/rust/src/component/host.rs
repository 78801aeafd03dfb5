//! Capability calls, typed from end to end.

use std::time::Duration;

use serde_json::Value;

use super::imports::cardan::plugin::{
    cache, config, http, kv, log as host_log, metrics, secrets, sql, types,
};
use super::imports::wasi::{clocks::wall_clock, random::random};
use crate::http::{Failure as HttpFailure, Request, Response};
use crate::kv::{Entry, Page};
use crate::log::Level;
use crate::sql::{Failure as SqlFailure, Rows};

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

pub(crate) fn config_get(name: &str) -> Option<String> {
    config::get(name)
}

pub(crate) fn log(level: Level, text: &str) {
    let level = match level {
        Level::Trace => host_log::Level::Trace,
        Level::Debug => host_log::Level::Debug,
        Level::Info => host_log::Level::Info,
        Level::Warn => host_log::Level::Warn,
        Level::Error => host_log::Level::Error,
    };
    host_log::log(level, text);
}

pub(crate) fn kv_get(key: &str) -> Option<Vec<u8>> {
    kv::get(key)
}

pub(crate) fn kv_set(key: &str, value: &[u8], time: Option<Duration>) {
    kv::set(key, value, time.map(milliseconds));
}

pub(crate) fn kv_delete(key: &str) {
    kv::delete(key);
}

pub(crate) fn kv_add(key: &str, delta: i64) -> i64 {
    kv::add(key, delta)
}

pub(crate) fn kv_compare_and_set(key: &str, expected: Option<&[u8]>, value: &[u8]) -> bool {
    kv::compare_and_set(key, expected, value)
}

pub(crate) fn kv_scan(prefix: &str, after: Option<&str>, limit: u32) -> Page {
    let page = kv::scan(prefix, after, limit);
    let entry = |entry: kv::Entry| Entry { key: entry.key, value: entry.value };
    Page { entries: page.entries.into_iter().map(entry).collect(), next: page.next }
}

pub(crate) fn cache_get(key: &str) -> Option<Vec<u8>> {
    cache::get(key)
}

pub(crate) fn cache_set(key: &str, value: &[u8], time: Option<Duration>) {
    cache::set(key, value, time.map(milliseconds));
}

pub(crate) fn cache_delete(key: &str) {
    cache::delete(key);
}

pub(crate) fn cache_fill(key: &str) -> Option<Vec<u8>> {
    cache::fill(key)
}

pub(crate) fn sql_query(
    connection: Option<&str>,
    statement: &str,
    parameters: &[Value],
) -> Result<Rows, SqlFailure> {
    let unreadable = |error: serde_json::Error| SqlFailure {
        code: "protocol".to_owned(),
        message: format!("the host's rows cannot be read: {error}"),
    };
    let parameters = serde_json::to_string(parameters).map_err(unreadable)?;
    match sql::query(connection, statement, &parameters) {
        Ok(found) => {
            let rows = found.rows.iter().map(|row| serde_json::from_str(row).map_err(unreadable));
            Ok(Rows {
                columns: found.columns,
                rows: rows.collect::<Result<_, _>>()?,
                affected: found.affected,
            })
        }
        Err(failure) => Err(SqlFailure { code: failure.code, message: failure.message }),
    }
}

pub(crate) fn http_fetch(request: &Request) -> Result<Response, HttpFailure> {
    let field = |(name, value): &(String, String)| types::Field { name: name.clone(), value: value.clone() };
    let sent = http::Request {
        method: request.method.clone(),
        url: request.url.clone(),
        headers: request.headers.iter().map(field).collect(),
        body: request.body.clone(),
    };
    match http::fetch(&sent) {
        Ok(response) => Ok(Response {
            status: response.status,
            headers: response.headers.into_iter().map(|field| (field.name, field.value)).collect(),
            body: response.body,
        }),
        Err(failure) => Err(HttpFailure { kind: failure.kind, message: failure.message }),
    }
}

pub(crate) fn secret_get(name: &str) -> Option<Vec<u8>> {
    secrets::get(name)
}

pub(crate) fn time_now_ms() -> u64 {
    let now = wall_clock::now();
    now.seconds * 1000 + u64::from(now.nanoseconds / 1_000_000)
}

pub(crate) fn random_bytes(count: usize) -> Vec<u8> {
    random::get_random_bytes(count as u64)
}

fn labels(labels: &[(&str, &str)]) -> Vec<metrics::Label> {
    let label =
        |(name, value): &(&str, &str)| metrics::Label { name: (*name).into(), value: (*value).into() };
    labels.iter().map(label).collect()
}

pub(crate) fn metric_inc(name: &str, of: &[(&str, &str)], by: f64) {
    metrics::increment(name, &labels(of), by);
}

pub(crate) fn metric_gauge(name: &str, of: &[(&str, &str)], value: f64) {
    metrics::gauge(name, &labels(of), value);
}

pub(crate) fn metric_observe(name: &str, of: &[(&str, &str)], value: f64) {
    metrics::observe(name, &labels(of), value);
}
