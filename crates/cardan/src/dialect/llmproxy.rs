//! LLMProxy's documents, all spellings that its code, its documentation and its plugins use.
//!
//! Rings are phases: `ingress`, `pre_flight` and `routing` of `http.request`, `post_flight` of
//! `http.response`, `background` of `http.complete`. Where the original takes a malformed answer for
//! consent, we call it malformed and let the binding's fault policy decide.

use bytes::Bytes;
use cardan_api::http::{
    CompleteEvent, Headers, HttpAnswer, HttpComplete, HttpRequest, HttpResponse, Refusal, RequestEdits,
    RequestEvent, Response, ResponseEdits, ResponseEvent,
};
use cardan_api::{Attributes, Hook, Phase, Verdict};
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::{Circumstances, Malformed};

/// The exports of ring plugins, in order of preference: the code's name, and the documentation's.
pub const ENTRIES: [&str; 2] = ["handle", "execute"];

/// Attribute that LLMProxy's plugins read the request's id from.
const REQUEST_ID: &str = "req_id";

#[derive(Serialize)]
struct Input<'a> {
    body: &'a RawValue,
    metadata: Metadata<'a>,
    session_id: &'a str,
    config: &'a Value,
    hook: Phase,
    #[serde(skip_serializing_if = "Option::is_none")]
    response: Option<ResponseInput>,
}

#[derive(Serialize)]
struct Metadata<'a> {
    req_id: &'a str,
    #[serde(flatten)]
    attributes: &'a Attributes,
}

#[derive(Serialize)]
struct ResponseInput {
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    headers: Map<String, Value>,
    body: Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    duration_ms: Option<u64>,
}

fn encode(
    body: Option<&Bytes>,
    about: Circumstances<'_>,
    response: Option<ResponseInput>,
) -> Result<Vec<u8>, Malformed> {
    let body = match body {
        Some(body) if !body.is_empty() => body,
        _ => &Bytes::from_static(b"{}"),
    };
    let body: &RawValue = serde_json::from_slice(body)
        .map_err(|_| Malformed("an LLMProxy plugin can only be shown a JSON body".to_owned()))?;
    let mut attributes = about.attributes.clone();
    attributes.remove(REQUEST_ID);
    let input = Input {
        body,
        metadata: Metadata { req_id: about.visit, attributes: &attributes },
        session_id: about.session,
        config: about.config,
        hook: about.phase,
        response,
    };
    Ok(serde_json::to_vec(&input)?)
}

pub(super) fn encode_request(event: &RequestEvent, about: Circumstances<'_>) -> Result<Vec<u8>, Malformed> {
    encode(event.body.as_ref(), about, None)
}

pub(super) fn encode_response(event: &ResponseEvent, about: Circumstances<'_>) -> Result<Vec<u8>, Malformed> {
    let headers = event.headers.0.iter().map(|(name, value)| (name.to_ascii_lowercase(), json!(value)));
    let response = ResponseInput {
        status: Some(event.status),
        headers: headers.collect(),
        body: event.body.as_ref().map_or(Value::Null, body_value),
        duration_ms: None,
    };
    encode(event.request.body.as_ref(), about, Some(response))
}

pub(super) fn encode_complete(event: &CompleteEvent, about: Circumstances<'_>) -> Result<Vec<u8>, Malformed> {
    let response = ResponseInput {
        status: event.status,
        headers: Map::new(),
        body: Value::Null,
        duration_ms: Some(event.duration_ms),
    };
    encode(event.request.body.as_ref(), about, Some(response))
}

/// A response body as JSON, else as text.
fn body_value(body: &Bytes) -> Value {
    serde_json::from_slice(body).unwrap_or_else(|_| Value::String(String::from_utf8_lossy(body).into_owned()))
}

/// An action, its spellings sorted out.
enum Action {
    Passthrough,
    Modify,
    Block(Refusal),
    CacheHit(Response),
}

struct Output {
    action: Action,
    fields: Map<String, Value>,
}

impl Output {
    fn read(document: &[u8]) -> Result<Self, Malformed> {
        if document.is_empty() {
            return Err(Malformed("the plugin set no output".to_owned()));
        }
        let Value::Object(fields) = serde_json::from_slice(document)? else {
            return Err(Malformed("the output is JSON, but no object".to_owned()));
        };
        let action = match fields.get("action") {
            None => Action::Passthrough,
            Some(Value::String(action)) => match action.trim().to_ascii_lowercase().as_str() {
                "allow" | "passthrough" => Action::Passthrough,
                "modify" | "modified" => Action::Modify,
                "block" => Action::Block(refusal(&fields)?),
                "cache_hit" => Action::CacheHit(cached(&fields)?),
                other => return Err(Malformed(format!("unknown action {other:?}"))),
            },
            Some(_) => return Err(Malformed("the action is no string".to_owned())),
        };
        Ok(Self { action, fields })
    }

    /// The body to put in place, if there is one. An empty one changes nothing, as in the original.
    fn body(&mut self) -> Result<Option<Bytes>, Malformed> {
        match self.fields.remove("body") {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Object(body)) if body.is_empty() => Ok(None),
            Some(body @ Value::Object(_)) => Ok(Some(serde_json::to_vec(&body)?.into())),
            Some(_) => Err(Malformed("the body is JSON, but no object".to_owned())),
        }
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.fields.get(name).and_then(Value::as_str).filter(|text| !text.is_empty())
    }

    /// A message that comes with a modification goes to where LLMProxy puts it.
    fn attributes(&self) -> Attributes {
        let message = self.text("message").map(|text| ("_plugin_message".to_owned(), json!(text)));
        message.into_iter().collect()
    }
}

fn refusal(fields: &Map<String, Value>) -> Result<Refusal, Malformed> {
    let text = |name: &str| fields.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    Ok(Refusal {
        status: status(fields.get("status_code"))?,
        kind: text("error_type").unwrap_or("wasm_block").to_owned(),
        message: text("message").or(text("reason")).unwrap_or("Blocked by WASM plugin").to_owned(),
    })
}

/// A block's status: a number, digits in a string, or nothing. Below 400 it is no status for a block.
fn status(value: Option<&Value>) -> Result<Option<u16>, Malformed> {
    let number = match value {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Number(number)) => number.as_f64(),
        Some(Value::String(digits)) => digits.trim().parse().ok(),
        Some(_) => None,
    };
    match number {
        Some(number) if number < 400.0 => Ok(Some(403)),
        // The cast truncates, which is what is wanted of 429.0.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 400 and 600")]
        Some(number) if number < 600.0 => Ok(Some(number as u16)),
        _ => Err(Malformed("the status_code of a block is no HTTP status".to_owned())),
    }
}

fn cached(fields: &Map<String, Value>) -> Result<Response, Malformed> {
    match fields.get("response") {
        None | Some(Value::Null) => Err(Malformed("a cache_hit without a response".to_owned())),
        Some(response) => Ok(Response {
            status: 200,
            headers: Headers(vec![("x-llmproxy-cache".to_owned(), "HIT".to_owned())]),
            body: match response {
                Value::String(text) => text.clone().into(),
                json => serde_json::to_vec(json)?.into(),
            },
        }),
    }
}

fn verdict<H: Hook<Answer = HttpAnswer>>(
    document: &[u8],
    modify: impl FnOnce(&mut Output) -> Result<H::Edits, Malformed>,
) -> Result<Verdict<H>, Malformed> {
    let mut output = Output::read(document)?;
    match output.action {
        Action::Passthrough => Ok(Verdict::pass()),
        Action::Block(refusal) => {
            // Where later plugins of the original look for what happened.
            let attributes = [
                ("_block_status".to_owned(), json!(refusal.status.unwrap_or(403))),
                ("_block_error_type".to_owned(), json!(refusal.kind)),
            ];
            let attributes = attributes.into_iter().collect();
            Ok(Verdict { attributes, ..Verdict::stop(HttpAnswer::Refuse(refusal)) })
        }
        Action::CacheHit(response) => {
            let attributes = [("_cache_hit".to_owned(), json!(true))].into_iter().collect();
            Ok(Verdict { attributes, ..Verdict::stop(HttpAnswer::Respond(response)) })
        }
        Action::Modify => {
            let edits = modify(&mut output)?;
            Ok(Verdict { attributes: output.attributes(), ..Verdict::edit(edits) })
        }
    }
}

pub(super) fn decode_request(
    event: &RequestEvent,
    document: &[u8],
) -> Result<Verdict<HttpRequest>, Malformed> {
    verdict(document, |output| {
        let body = match (output.body()?, output.text("clean_prompt")) {
            (None, Some(prompt)) => Some(with_prompt(event.body.as_ref(), prompt)?),
            (body, _) => body,
        };
        Ok(RequestEdits { body, ..RequestEdits::default() })
    })
}

/// At `post_flight` a guest that knows of responses returns one; an older one returns the request's
/// body, which changes what later plugins see and nothing else.
pub(super) fn decode_response(
    _event: &ResponseEvent,
    document: &[u8],
) -> Result<Verdict<HttpResponse>, Malformed> {
    verdict(document, |output| {
        let mut edits = ResponseEdits { request_body: output.body()?, ..ResponseEdits::default() };
        if let Some(response) = output.fields.get("response") {
            let Value::Object(response) = response else {
                return Err(Malformed("the response is JSON, but no object".to_owned()));
            };
            edits.status = match response.get("status") {
                None | Some(Value::Null) => None,
                Some(status) => match status.as_u64().and_then(|status| u16::try_from(status).ok()) {
                    Some(status) if (200..600).contains(&status) => Some(status),
                    _ => return Err(Malformed("the response's status is no HTTP status".to_owned())),
                },
            };
            edits.body = match response.get("body") {
                None | Some(Value::Null) => None,
                Some(Value::String(text)) => Some(text.clone().into()),
                Some(body) => Some(serde_json::to_vec(body)?.into()),
            };
        }
        Ok(edits)
    })
}

pub(super) fn decode_complete(document: &[u8]) -> Result<Verdict<HttpComplete>, Malformed> {
    Output::read(document)?;
    Ok(Verdict::pass())
}

/// The body with the text of its last user message replaced.
fn with_prompt(body: Option<&Bytes>, prompt: &str) -> Result<Bytes, Malformed> {
    let missing = || Malformed("a clean_prompt, but no user message to put it into".to_owned());
    let mut body: Value = serde_json::from_slice(body.ok_or_else(missing)?)?;
    let messages = body.get_mut("messages").and_then(Value::as_array_mut).ok_or_else(missing)?;
    let last = messages.iter_mut().rev().find(|message| message["role"] == "user").ok_or_else(missing)?;
    last["content"] = json!(prompt);
    Ok(serde_json::to_vec(&body)?.into())
}
