//! What a plugin returns.

use std::collections::BTreeMap;
use std::convert::Infallible;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use cardan_api::access::{AccessAnswer, AccessAuthenticate, AccessAuthorize, LoginAnswer};
use cardan_api::cache::{CacheAnswer, CacheGet, CacheSet, NotKept};
use cardan_api::http::{HeaderEdit, HttpAnswer, HttpRequest, HttpResponse};
use cardan_api::sql::{QueryAnswer, RouteAnswer, SqlQuery, SqlRoute};
use cardan_api::tool::Tool;
use cardan_api::{Attributes, Flow, Hook, Verdict};
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Value, json};

use crate::{Error, Result, ToolError};

#[derive(Default, Serialize)]
struct Document<'a> {
    verdict: &'static str,
    #[serde(skip_serializing_if = "Edits::is_empty")]
    edits: Edits<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    attributes: Option<&'a Attributes>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sqlstate: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    answer: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    headers: Option<BTreeMap<String, Option<&'a str>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<Body<'a>>,
}

#[derive(Default, Serialize)]
struct Edits<'a> {
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    headers: BTreeMap<String, Option<&'a str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<Body<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sql: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl_ms: Option<u64>,
}

impl Edits<'_> {
    fn is_empty(&self) -> bool {
        let Self { headers, path, status, body, sql, key, ttl_ms } = self;
        let http = headers.is_empty() && path.is_none() && status.is_none() && body.is_none();
        http && sql.is_none() && key.is_none() && ttl_ms.is_none()
    }
}

#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
enum Body<'a> {
    Json(&'a RawValue),
    Text(&'a str),
    Base64(String),
}

impl<'a> Body<'a> {
    fn of(bytes: &'a Bytes) -> Self {
        // Blanks around JSON are part of the body, and would get lost.
        match serde_json::from_slice::<&RawValue>(bytes) {
            Ok(json) if json.get().len() == bytes.len() => return Self::Json(json),
            _ => {}
        }
        match std::str::from_utf8(bytes) {
            Ok(text) => Self::Text(text),
            Err(_) => Self::Base64(STANDARD.encode(bytes)),
        }
    }
}

/// The last change to a field is the one that holds.
fn header_edits(edits: &[HeaderEdit]) -> Result<BTreeMap<String, Option<&str>>> {
    let mut fields = BTreeMap::new();
    for edit in edits {
        match edit {
            HeaderEdit::Set(name, value) => fields.insert(name.to_ascii_lowercase(), Some(value.as_str())),
            HeaderEdit::Remove(name) => fields.insert(name.to_ascii_lowercase(), None),
            HeaderEdit::Add(name, _) => {
                return Err(Error::new(format_args!(
                    "{name:?} is to be added beside what is there, and this convention can only set fields"
                )));
            }
        };
    }
    Ok(fields)
}

fn write(document: &Document<'_>) -> Result<Vec<u8>> {
    Ok(serde_json::to_vec(document)?)
}

fn going_on<'a>(edits: Edits<'a>, attributes: &'a Attributes) -> Document<'a> {
    let attributes = (!attributes.is_empty()).then_some(attributes);
    Document { verdict: "continue", edits, attributes, ..Document::default() }
}

fn write_answer(answer: &HttpAnswer) -> Result<Vec<u8>> {
    match answer {
        HttpAnswer::Refuse(refusal) => write(&Document {
            verdict: "refuse",
            status: refusal.status,
            kind: Some(&refusal.kind),
            message: Some(&refusal.message),
            ..Document::default()
        }),
        HttpAnswer::Respond(response) => {
            let mut headers = BTreeMap::new();
            for (name, value) in &response.headers.0 {
                if headers.insert(name.to_ascii_lowercase(), Some(value.as_str())).is_some() {
                    return Err(Error::new(format_args!(
                        "the response has two fields {name:?}, and this convention carries one of a name"
                    )));
                }
            }
            write(&Document {
                verdict: "respond",
                status: Some(response.status),
                headers: (!headers.is_empty()).then_some(headers),
                body: (!response.body.is_empty()).then(|| Body::of(&response.body)),
                ..Document::default()
            })
        }
    }
}

pub(super) fn of_request(verdict: Verdict<HttpRequest>) -> Result<Vec<u8>> {
    match &verdict.flow {
        Flow::Stop(answer) => write_answer(answer),
        Flow::Continue => {
            let edits = Edits {
                headers: header_edits(&verdict.edits.headers)?,
                path: verdict.edits.path.as_deref(),
                body: verdict.edits.body.as_ref().map(Body::of),
                ..Edits::default()
            };
            write(&going_on(edits, &verdict.attributes))
        }
    }
}

pub(super) fn of_response(verdict: Verdict<HttpResponse>) -> Result<Vec<u8>> {
    match &verdict.flow {
        Flow::Stop(answer) => write_answer(answer),
        Flow::Continue => {
            let edits = Edits {
                headers: header_edits(&verdict.edits.headers)?,
                status: verdict.edits.status,
                body: verdict.edits.body.as_ref().map(Body::of),
                ..Edits::default()
            };
            write(&going_on(edits, &verdict.attributes))
        }
    }
}

/// At hooks where there is nothing to stop.
pub(super) fn of_observer<H: Hook<Answer = Infallible>>(verdict: Verdict<H>) -> Result<Vec<u8>> {
    match verdict.flow {
        Flow::Stop(never) => match never {},
        Flow::Continue => write(&going_on(Edits::default(), &verdict.attributes)),
    }
}

fn write_refusal(sqlstate: Option<&str>, message: &str) -> Result<Vec<u8>> {
    write(&Document { verdict: "refuse", sqlstate, message: Some(message), ..Document::default() })
}

fn write_found(answer: &impl Serialize) -> Result<Vec<u8>> {
    write(&Document { verdict: "answer", answer: Some(to_raw_value(answer)?), ..Document::default() })
}

pub(super) fn of_login(verdict: Verdict<AccessAuthenticate>) -> Result<Vec<u8>> {
    match &verdict.flow {
        Flow::Continue => write(&going_on(Edits::default(), &verdict.attributes)),
        Flow::Stop(LoginAnswer::Identity(identity)) => write_found(&json!({ "identity": identity })),
        Flow::Stop(LoginAnswer::Deny(denial)) => write_refusal(None, &denial.message),
    }
}

pub(super) fn of_access(verdict: Verdict<AccessAuthorize>) -> Result<Vec<u8>> {
    match &verdict.flow {
        Flow::Continue => write(&going_on(Edits::default(), &verdict.attributes)),
        Flow::Stop(AccessAnswer::Allow) => write_found(&json!({ "allow": true })),
        Flow::Stop(AccessAnswer::Deny(denial)) => write_refusal(None, &denial.message),
    }
}

pub(super) fn of_cache_get(verdict: Verdict<CacheGet>) -> Result<Vec<u8>> {
    #[derive(Serialize)]
    struct Hit<'a> {
        hit: Body<'a>,
    }
    match &verdict.flow {
        Flow::Continue => {
            let edits = Edits { key: verdict.edits.key.as_deref(), ..Edits::default() };
            write(&going_on(edits, &verdict.attributes))
        }
        Flow::Stop(CacheAnswer::Hit(bytes)) => write_found(&Hit { hit: Body::of(bytes) }),
        Flow::Stop(CacheAnswer::Skip) => write_found(&json!({ "skip": true })),
    }
}

pub(super) fn of_cache_set(verdict: Verdict<CacheSet>) -> Result<Vec<u8>> {
    match &verdict.flow {
        Flow::Continue => {
            let (key, ttl_ms) = (verdict.edits.key.as_deref(), verdict.edits.ttl_ms);
            write(&going_on(Edits { key, ttl_ms, ..Edits::default() }, &verdict.attributes))
        }
        Flow::Stop(NotKept) => write_found(&json!({ "skip": true })),
    }
}

pub(super) fn of_query(verdict: Verdict<SqlQuery>) -> Result<Vec<u8>> {
    match &verdict.flow {
        Flow::Continue => {
            let edits = Edits { sql: verdict.edits.sql.as_deref(), ..Edits::default() };
            write(&going_on(edits, &verdict.attributes))
        }
        Flow::Stop(QueryAnswer::Rows(rows)) => write_found(rows),
        Flow::Stop(QueryAnswer::Refuse(refusal)) => {
            write_refusal(refusal.sqlstate.as_deref(), &refusal.message)
        }
    }
}

pub(super) fn of_route(verdict: Verdict<SqlRoute>) -> Result<Vec<u8>> {
    match &verdict.flow {
        Flow::Continue => write(&going_on(Edits::default(), &verdict.attributes)),
        Flow::Stop(RouteAnswer::Role(role)) => write_found(&json!({ "role": role })),
        Flow::Stop(RouteAnswer::Node(node)) => write_found(&json!({ "node": node })),
        Flow::Stop(RouteAnswer::Branch(branch)) => write_found(&json!({ "branch": branch })),
        Flow::Stop(RouteAnswer::Refuse(refusal)) => {
            write_refusal(refusal.sqlstate.as_deref(), &refusal.message)
        }
    }
}

pub(super) fn of_tools(tools: &[Tool]) -> Result<Vec<u8>> {
    write_found(&json!({ "tools": tools }))
}

pub(super) fn of_tool(result: Result<Value, ToolError>) -> Result<Vec<u8>> {
    match result {
        Ok(Value::String(text)) => write_found(&json!({ "text": text })),
        Ok(value) => write_found(&json!({ "json": value })),
        Err(ToolError::Failed(why)) => write_found(&json!({ "error": why })),
        Err(ToolError::Unknown) => Ok(done()),
    }
}

/// Go on, where there is nothing else to say.
pub(super) fn done() -> Vec<u8> {
    br#"{"verdict":"continue"}"#.to_vec()
}

pub(super) fn not_loaded(error: &Error) -> Result<Vec<u8>> {
    let message = error.to_string();
    write(&Document { verdict: "refuse", message: Some(&message), ..Document::default() })
}
