//! What guests of the world import: typed fronts of the calls in `grants/calls.rs`.

use std::collections::BTreeMap;

use base64::Engine as _;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use wasmtime::StoreContextMut;
use wasmtime::component::{ComponentType, Lift, Linker, Lower};

use super::super::fields::Field;
use super::super::state::State;
use super::{define_visit, interface};
use crate::grants::calls::{Arguments, Function, Outcome, Situation};
use crate::grants::{LogLevel, Refusal};

type Store<'a> = StoreContextMut<'a, State>;
type Bytes = Vec<u8>;

/// Defines the world's imports.
pub(in crate::abi::component) fn define(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    define_visit(linker)?;
    define_log(linker)?;
    define_kv(linker)?;
    define_cache(linker)?;
    define_sql(linker)?;
    define_http(linker)?;
    define_metrics(linker)?;
    linker.instance(&interface("secrets"))?.func_wrap_async("get", |mut store, (name,): (String,)| {
        Box::new(async move { Ok((some(call(&mut store, "secret_get", vec![name.into()]).await?),)) })
    })
}

/// Makes one of the calls.
async fn call(store: &mut Store<'_>, name: &str, arguments: Vec<Bytes>) -> wasmtime::Result<Bytes> {
    let function = function(name)?;
    let state = store.data_mut();
    let situation = Situation { left: state.clock.left(), claims: state.claims.len() };
    let authority = state.shared.authority.clone();
    state.clock.step_outside();
    let outcome = authority.call(function, Arguments(arguments), situation).await?;
    let state = store.data_mut();
    state.clock.step_inside();
    Ok(finish(state, outcome))
}

/// Makes one that is done at once.
fn call_now(state: &mut State, name: &str, arguments: Vec<Bytes>) -> wasmtime::Result<Bytes> {
    let outcome = state.shared.authority.clone().call_now(function(name)?, Arguments(arguments))?;
    Ok(finish(state, outcome))
}

fn finish(state: &mut State, outcome: Outcome) -> Bytes {
    let Outcome { bytes, claim, note } = outcome;
    if let Some(note) = note {
        state.log.line(LogLevel::Warn, note);
    }
    state.claims.extend(claim);
    bytes
}

fn function(name: &str) -> wasmtime::Result<&'static Function> {
    Function::find(name).ok_or_else(|| wasmtime::format_err!("there is no call {name}"))
}

/// No bytes are nothing.
fn some(bytes: Bytes) -> Option<Bytes> {
    Some(bytes).filter(|bytes| !bytes.is_empty())
}

/// A time to live, in the seconds that calls take.
fn seconds(ttl_ms: u64) -> String {
    format!("{}.{:03}", ttl_ms / 1000, ttl_ms % 1000)
}

/// A document that the host itself has written.
fn read<'de, T: Deserialize<'de>>(document: &'de [u8]) -> wasmtime::Result<T> {
    serde_json::from_slice(document)
        .map_err(|why| Refusal::host(format!("a result is no document: {why}")).into())
}

/// Bytes of a document, which are text or in base64.
fn bytes_of(text: Option<String>, base64: Option<String>) -> wasmtime::Result<Bytes> {
    let Some(encoded) = base64 else { return Ok(text.unwrap_or_default().into()) };
    let decoded = base64::engine::general_purpose::STANDARD.decode(encoded);
    decoded.map_err(|why| Refusal::host(format!("a result is no base64: {why}")).into())
}

#[derive(ComponentType, Lift, Clone, Copy)]
#[component(enum)]
#[repr(u8)]
#[expect(dead_code, reason = "wasmtime makes them of what guests pass")]
enum Level {
    #[component(name = "trace")]
    Trace,
    #[component(name = "debug")]
    Debug,
    #[component(name = "info")]
    Info,
    #[component(name = "warn")]
    Warn,
    #[component(name = "error")]
    Error,
}

impl From<Level> for LogLevel {
    fn from(level: Level) -> Self {
        match level {
            Level::Trace => Self::Trace,
            Level::Debug => Self::Debug,
            Level::Info => Self::Info,
            Level::Warn => Self::Warn,
            Level::Error => Self::Error,
        }
    }
}

/// `log`, and `config`, which is as plain.
fn define_log(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    let mut log = linker.instance(&interface("log"))?;
    log.func_wrap("log", |store: Store<'_>, (level, message): (Level, String)| {
        store.data().log.line(level.into(), message);
        Ok(())
    })?;
    log.func_wrap("enabled", |store: Store<'_>, (level,): (Level,)| {
        Ok((store.data().log.wants(level.into()),))
    })?;
    linker.instance(&interface("config"))?.func_wrap("get", |store: Store<'_>, (name,): (String,)| {
        Ok((store.data().shared.config.get(&name).cloned(),))
    })
}

#[derive(ComponentType, Lower)]
#[component(record)]
struct Entry {
    key: String,
    value: Bytes,
}

#[derive(ComponentType, Lower)]
#[component(record)]
struct Page {
    entries: Vec<Entry>,
    next: Option<String>,
}

#[derive(Deserialize)]
struct PageDocument {
    entries: Vec<EntryDocument>,
    next: Option<String>,
}

#[derive(Deserialize)]
struct EntryDocument {
    key: String,
    value: Option<String>,
    value_base64: Option<String>,
}

fn page(document: &[u8]) -> wasmtime::Result<Page> {
    let PageDocument { entries, next } = read(document)?;
    let entry = |entry: EntryDocument| {
        Ok(Entry { key: entry.key, value: bytes_of(entry.value, entry.value_base64)? })
    };
    Ok(Page { entries: entries.into_iter().map(entry).collect::<wasmtime::Result<_>>()?, next })
}

fn define_kv(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    let mut kv = linker.instance(&interface("kv"))?;
    kv.func_wrap_async("get", |mut store, (key,): (String,)| {
        Box::new(async move { Ok((some(call(&mut store, "kv_get", vec![key.into()]).await?),)) })
    })?;
    kv.func_wrap_async("set", |mut store, (key, value, ttl): (String, Bytes, Option<u64>)| {
        Box::new(async move {
            let options = ttl.map(|ttl| format!("{{\"ttl_seconds\":{}}}", seconds(ttl))).unwrap_or_default();
            call(&mut store, "kv_set", vec![key.into(), value, options.into()]).await.map(drop)
        })
    })?;
    kv.func_wrap_async("delete", |mut store, (key,): (String,)| {
        Box::new(async move { call(&mut store, "kv_delete", vec![key.into()]).await.map(drop) })
    })?;
    kv.func_wrap_async("add", |mut store, (key, delta): (String, i64)| {
        Box::new(async move {
            let sum = call(&mut store, "kv_add", vec![key.into(), delta.to_string().into()]).await?;
            Ok((read::<i64>(&sum)?,))
        })
    })?;
    kv.func_wrap_async(
        "compare-and-set",
        |mut store, (key, expected, value): (String, Option<Bytes>, Bytes)| {
            Box::new(async move {
                let arguments = vec![key.into(), expected.unwrap_or_default(), value];
                Ok((call(&mut store, "kv_cas", arguments).await? == b"1",))
            })
        },
    )?;
    kv.func_wrap_async("scan", |mut store, (prefix, after, limit): (String, Option<String>, u32)| {
        Box::new(async move {
            let options = json!({ "prefix": prefix, "after": after, "limit": limit }).to_string();
            Ok((page(&call(&mut store, "kv_scan", vec![options.into()]).await?)?,))
        })
    })
}

fn define_cache(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    let mut cache = linker.instance(&interface("cache"))?;
    for (name, operation) in [("get", "cache_get"), ("fill", "cache_fill")] {
        cache.func_wrap_async(name, move |mut store, (key,): (String,)| {
            Box::new(async move { Ok((some(call(&mut store, operation, vec![key.into()]).await?),)) })
        })?;
    }
    cache.func_wrap_async("set", |mut store, (key, value, ttl): (String, Bytes, Option<u64>)| {
        Box::new(async move {
            let ttl = ttl.map(seconds).unwrap_or_default();
            call(&mut store, "cache_set", vec![key.into(), value, ttl.into()]).await.map(drop)
        })
    })?;
    cache.func_wrap_async("delete", |mut store, (key,): (String,)| {
        Box::new(async move { call(&mut store, "cache_delete", vec![key.into()]).await.map(drop) })
    })
}

#[derive(ComponentType, Lower)]
#[component(record)]
struct Rows {
    columns: Vec<String>,
    rows: Vec<String>,
    affected: u64,
}

#[derive(ComponentType, Lower)]
#[component(record)]
struct SqlFailure {
    code: String,
    message: String,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum RowsDocument {
    Failed { error: SqlFailureDocument },
    Done { columns: Vec<String>, rows: Vec<Value>, affected: Option<u64> },
}

#[derive(Deserialize)]
struct SqlFailureDocument {
    code: String,
    message: String,
}

fn define_sql(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    linker.instance(&interface("sql"))?.func_wrap_async(
        "query",
        |mut store, (connection, statement, parameters): (Option<String>, String, String)| {
            Box::new(async move {
                let parameters: Vec<Value> = match parameters.trim() {
                    "" => Vec::new(),
                    list => serde_json::from_str(list).map_err(|why| {
                        Refusal::protocol(format!("sql.query: the parameters are no list: {why}"))
                    })?,
                };
                let query = json!({ "connection": connection, "sql": statement, "params": parameters });
                let document = call(&mut store, "execute_query", vec![query.to_string().into()]).await?;
                let result = match read(&document)? {
                    RowsDocument::Failed { error: SqlFailureDocument { code, message } } => {
                        Err(SqlFailure { code, message })
                    }
                    RowsDocument::Done { columns, rows, affected } => {
                        let rows = rows.iter().map(ToString::to_string).collect();
                        Ok(Rows { columns, rows, affected: affected.unwrap_or(0) })
                    }
                };
                Ok((result,))
            })
        },
    )
}

#[derive(ComponentType, Lift)]
#[component(record)]
struct HttpRequest {
    method: String,
    url: String,
    headers: Vec<Field>,
    body: Option<Bytes>,
}

#[derive(ComponentType, Lower)]
#[component(record)]
struct HttpField {
    name: String,
    value: String,
}

#[derive(ComponentType, Lower)]
#[component(record)]
struct HttpResponse {
    status: u16,
    headers: Vec<HttpField>,
    body: Bytes,
}

#[derive(ComponentType, Lower)]
#[component(record)]
struct HttpFailure {
    kind: String,
    message: String,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum ReplyDocument {
    Failed {
        error: HttpFailureDocument,
    },
    Reply {
        status: u16,
        headers: BTreeMap<String, String>,
        body: Option<String>,
        body_base64: Option<String>,
    },
}

#[derive(Deserialize)]
struct HttpFailureDocument {
    kind: String,
    message: String,
}

fn request_document(request: HttpRequest) -> Value {
    let mut headers: Map<String, Value> = Map::new();
    for Field { name, value } in request.headers {
        match headers.get_mut(&name) {
            // Fields of one name are a list (RFC 9110, section 5.3).
            Some(Value::String(values)) => values.extend([", ", &value]),
            _ => drop(headers.insert(name, value.into())),
        }
    }
    let mut document = json!({ "method": request.method, "url": request.url, "headers": headers });
    if let Some(body) = request.body {
        let (name, value) = match String::from_utf8(body) {
            Ok(text) => ("body", text),
            Err(error) => {
                ("body_base64", base64::engine::general_purpose::STANDARD.encode(error.into_bytes()))
            }
        };
        document[name] = value.into();
    }
    document
}

fn reply(document: &[u8]) -> wasmtime::Result<Result<HttpResponse, HttpFailure>> {
    Ok(match read(document)? {
        ReplyDocument::Failed { error: HttpFailureDocument { kind, message } } => {
            Err(HttpFailure { kind, message })
        }
        ReplyDocument::Reply { status, headers, body, body_base64 } => {
            let headers = headers.into_iter().map(|(name, value)| HttpField { name, value }).collect();
            Ok(HttpResponse { status, headers, body: bytes_of(body, body_base64)? })
        }
    })
}

fn define_http(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    linker.instance(&interface("http"))?.func_wrap_async("fetch", |mut store, (request,): (HttpRequest,)| {
        Box::new(async move {
            let request = request_document(request).to_string();
            Ok((reply(&call(&mut store, "http_fetch", vec![request.into()]).await?)?,))
        })
    })
}

#[derive(ComponentType, Lift)]
#[component(record)]
struct Label {
    name: String,
    value: String,
}

fn define_metrics(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    let mut metrics = linker.instance(&interface("metrics"))?;
    for (name, operation) in
        [("increment", "metric_inc"), ("gauge", "metric_gauge"), ("observe", "metric_observe")]
    {
        metrics.func_wrap(
            name,
            move |mut store: Store<'_>, (name, labels, value): (String, Vec<Label>, f64)| {
                let labels: Map<String, Value> =
                    labels.into_iter().map(|label| (label.name, label.value.into())).collect();
                let named = json!({ "name": name, "labels": labels }).to_string();
                let arguments = vec![named.into(), value.to_string().into()];
                call_now(store.data_mut(), operation, arguments).map(drop)
            },
        )?;
    }
    Ok(())
}
