//! LLMProxy's documents, all spellings that its code, its documentation and its plugins use.
//!
//! Rings are phases: `ingress`, `pre_flight` and `routing` of `http.request`, `post_flight` of
//! `http.response`, `background` of `http.complete`. Where the original takes a malformed answer for
//! consent, we call it malformed and let the binding's fault policy decide.

use std::borrow::Cow;
use std::collections::BTreeMap;

use bytes::Bytes;
use cardan_api::http::{
    CompleteEvent, HeaderEdit, Headers, HttpAnswer, HttpComplete, HttpRequest, HttpResponse, Refusal,
    RequestEdits, RequestEvent, Response, ResponseEdits, ResponseEvent,
};
use cardan_api::{Attributes, Hook, Phase, Verdict};
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::fields::Fields;
use super::{Circumstances, Malformed, ShownHeaders, check_field, write};

#[cfg(test)]
mod tests;

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
    response: Option<ResponseInput<'a>>,
}

/// The attributes and the request's id, which no plugin can forge.
struct Metadata<'a> {
    id: &'a str,
    attributes: &'a Attributes,
}

impl Serialize for Metadata<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let id = Cow::Owned(Value::String(self.id.to_owned()));
        let attributes = self.attributes.iter().map(|(name, value)| (name.as_str(), Cow::Borrowed(value)));
        let attributes = attributes.filter(|(name, _)| *name != REQUEST_ID);
        serializer.collect_map(std::iter::once((REQUEST_ID, id)).chain(attributes))
    }
}

#[derive(Serialize)]
struct ResponseInput<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    headers: ShownHeaders<'a>,
    body: ResponseBody<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    duration_ms: Option<u64>,
}

/// A response's body as JSON, else as text; `null` where there is none to be seen.
#[derive(Serialize)]
#[serde(untagged)]
enum ResponseBody<'a> {
    Json(&'a RawValue),
    Text(Cow<'a, str>),
    None,
}

impl<'a> ResponseBody<'a> {
    fn of(body: Option<&'a Bytes>) -> Self {
        match body {
            None => Self::None,
            Some(body) => match serde_json::from_slice(body) {
                Ok(json) => Self::Json(json),
                Err(_) => Self::Text(String::from_utf8_lossy(body)),
            },
        }
    }
}

fn encode(
    body: Option<&Bytes>,
    about: Circumstances<'_>,
    response: Option<(ResponseInput<'_>, Option<&Bytes>)>,
) -> Result<Vec<u8>, Malformed> {
    let shown = about.shown(body).filter(|body| !body.is_empty());
    let body: &RawValue = serde_json::from_slice(shown.map_or(b"{}", |body| body))
        .map_err(|_| Malformed("an LLMProxy plugin can only be shown a JSON body".to_owned()))?;
    let (response, response_body) = response.unzip();
    let input = Input {
        body,
        metadata: Metadata { id: about.visit, attributes: about.attributes },
        session_id: about.session,
        config: about.config,
        hook: about.phase,
        response,
    };
    write(&input, [shown, response_body.flatten()])
}

pub(super) fn encode_request(event: &RequestEvent, about: Circumstances<'_>) -> Result<Vec<u8>, Malformed> {
    encode(event.body.as_ref(), about, None)
}

pub(super) fn encode_response(event: &ResponseEvent, about: Circumstances<'_>) -> Result<Vec<u8>, Malformed> {
    let body = about.shown(event.body.as_ref());
    let response = ResponseInput {
        status: Some(event.status),
        headers: ShownHeaders(&event.headers),
        body: ResponseBody::of(body),
        duration_ms: None,
    };
    encode(event.request.body.as_ref(), about, Some((response, body)))
}

pub(super) fn encode_complete(event: &CompleteEvent, about: Circumstances<'_>) -> Result<Vec<u8>, Malformed> {
    let response = ResponseInput {
        status: event.status,
        headers: ShownHeaders(&Headers(Vec::new())),
        body: ResponseBody::None,
        duration_ms: Some(event.duration_ms),
    };
    encode(event.request.body.as_ref(), about, Some((response, None)))
}

/// An action, its spellings sorted out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Passthrough,
    Modify,
    Block,
    CacheHit,
}

impl Fields<'_> {
    fn action(&self) -> Result<Action, Malformed> {
        let Some(action) = self.0.get("action") else { return Ok(Action::Passthrough) };
        let action: String = serde_json::from_str(action.get())
            .map_err(|_| Malformed("the action is no string".to_owned()))?;
        match action.trim().to_ascii_lowercase().as_str() {
            "allow" | "passthrough" => Ok(Action::Passthrough),
            "modify" | "modified" => Ok(Action::Modify),
            "block" => Ok(Action::Block),
            "cache_hit" => Ok(Action::CacheHit),
            other => Err(Malformed(format!("unknown action {other:?}"))),
        }
    }

    /// The body to put in place, if there is one. An empty one changes nothing, as in the original.
    fn body(&self) -> Result<Option<Bytes>, Malformed> {
        let Some(body) = self.get("body").map(RawValue::get) else { return Ok(None) };
        let Some(members) = body.strip_prefix('{') else {
            return Err(Malformed("the body is JSON, but no object".to_owned()));
        };
        let is_empty = members.trim_start().starts_with('}');
        Ok((!is_empty).then(|| Bytes::copy_from_slice(body.as_bytes())))
    }

    fn refusal(&self) -> Refusal {
        let message = self.text("message").or_else(|| self.text("reason"));
        Refusal {
            status: block_status(self.get("status_code")),
            kind: self.text("error_type").unwrap_or_else(|| "wasm_block".to_owned()),
            message: message.unwrap_or_else(|| "Blocked by WASM plugin".to_owned()),
        }
    }

    fn cached(&self) -> Result<Response, Malformed> {
        let response = self.get("response");
        let response = response.ok_or_else(|| Malformed("a cache_hit without a response".to_owned()))?;
        Ok(Response {
            status: 200,
            headers: Headers(vec![("x-llmproxy-cache".to_owned(), "HIT".to_owned())]),
            body: text_or_json(response)?,
        })
    }
}

/// A block's status: a number, or one in a string, cut to a whole one; `None` when the plugin names none.
/// What is no status of an error becomes 403: whatever else is wrong with it, a block blocks.
fn block_status(value: Option<&RawValue>) -> Option<u16> {
    let number = match serde_json::from_str(value?.get()) {
        Ok(Value::Number(number)) => number.as_f64(),
        Ok(Value::String(digits)) => digits.trim().parse().ok(),
        _ => None,
    };
    Some(match number {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 400 and 600")]
        Some(number) if (400.0..600.0).contains(&number) => number as u16,
        _ => 403,
    })
}

/// A new body: a string's text, or JSON as it stands.
fn text_or_json(value: &RawValue) -> Result<Bytes, Malformed> {
    if value.get().starts_with('"') {
        return Ok(serde_json::from_str::<String>(value.get())?.into());
    }
    Ok(Bytes::copy_from_slice(value.get().as_bytes()))
}

/// Takes one attribute after another, for the few that the original sets itself.
fn attributes<const N: usize>(set: [(&str, Value); N]) -> Attributes {
    set.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn verdict<H: Hook<Answer = HttpAnswer>>(
    document: &[u8],
    modify: impl FnOnce(&Fields<'_>) -> Result<H::Edits, Malformed>,
) -> Result<Verdict<H>, Malformed> {
    let output = Fields::read(document, OUTPUT)?;
    match output.action()? {
        Action::Passthrough => Ok(Verdict::pass()),
        Action::Block => {
            let refusal = output.refusal();
            // Where later plugins of the original look for what happened.
            let attributes = attributes([
                ("_block_status", json!(refusal.status.unwrap_or(403))),
                ("_block_error_type", json!(refusal.kind)),
            ]);
            Ok(Verdict { attributes, ..Verdict::stop(HttpAnswer::Refuse(refusal)) })
        }
        Action::CacheHit => {
            let attributes = attributes([("_cache_hit", json!(true))]);
            Ok(Verdict { attributes, ..Verdict::stop(HttpAnswer::Respond(output.cached()?)) })
        }
        Action::Modify => {
            let edits = modify(&output)?;
            let message = output.text("message");
            let attributes =
                message.map(|text| attributes([("_plugin_message", json!(text))])).unwrap_or_default();
            Ok(Verdict { attributes, ..Verdict::edit(edits) })
        }
    }
}

/// What a plugin returns, in errors.
const OUTPUT: &str = "the output";

pub(super) fn decode_request(
    event: &RequestEvent,
    document: &[u8],
) -> Result<Verdict<HttpRequest>, Malformed> {
    verdict(document, |output| {
        let body = match (output.body()?, output.text("clean_prompt")) {
            (None, Some(prompt)) => Some(with_prompt(event.body.as_ref(), &prompt)?),
            (body, _) => body,
        };
        Ok(RequestEdits { body, ..RequestEdits::default() })
    })
}

/// At `post_flight` a guest that knows of responses returns one; an older one returns the request's
/// body, which changes what later plugins see and nothing else.
pub(super) fn decode_response(
    event: &ResponseEvent,
    document: &[u8],
) -> Result<Verdict<HttpResponse>, Malformed> {
    verdict(document, |output| {
        let mut edits = ResponseEdits { request_body: output.body()?, ..ResponseEdits::default() };
        if let Some(response) = output.get("response") {
            let response = Fields::read(response.get().as_bytes(), "the response")?;
            edits.status = response.get("status").map(response_status).transpose()?;
            edits.headers = changed_headers(&event.headers, response.get("headers"))?;
            edits.body = response.get("body").map(text_or_json).transpose()?;
        }
        Ok(edits)
    })
}

fn response_status(status: &RawValue) -> Result<u16, Malformed> {
    match serde_json::from_str(status.get()) {
        Ok(status) if (200..600).contains(&status) => Ok(status),
        _ => Err(Malformed("the response's status is no HTTP status".to_owned())),
    }
}

/// The fields that a guest has changed or added in the object it was shown. What it left out stays: most
/// guests hand back only what they mean to change.
fn changed_headers(shown: &Headers, new: Option<&RawValue>) -> Result<Vec<HeaderEdit>, Malformed> {
    let Some(new) = new else { return Ok(Vec::new()) };
    let new: BTreeMap<String, String> = serde_json::from_str(new.get())
        .map_err(|error| Malformed(format!("the response's headers are no object of strings: {error}")))?;
    let shown: BTreeMap<String, String> = serde_json::from_value(serde_json::to_value(ShownHeaders(shown))?)?;
    let mut edits = Vec::new();
    for (name, value) in new {
        if shown.get(&name.to_ascii_lowercase()) != Some(&value) {
            check_field(&name, &value)?;
            edits.push(HeaderEdit::Set(name, value));
        }
    }
    Ok(edits)
}

/// An observer's action has no effect; only that it is a document of the dialect is required.
pub(super) fn decode_complete(document: &[u8]) -> Result<Verdict<HttpComplete>, Malformed> {
    Fields::read(document, OUTPUT)?.action()?;
    Ok(Verdict::pass())
}

/// The body with the text of its last user message replaced. Images and other parts of it stay.
fn with_prompt(body: Option<&Bytes>, prompt: &str) -> Result<Bytes, Malformed> {
    let missing = || Malformed("a clean_prompt, but no user message to put it into".to_owned());
    let mut body: Value = serde_json::from_slice(body.ok_or_else(missing)?)?;
    let messages = body.get_mut("messages").and_then(Value::as_array_mut).ok_or_else(missing)?;
    let last = messages.iter_mut().rev().filter_map(Value::as_object_mut);
    let mut last = last.filter(|message| message.get("role").is_some_and(|role| role == "user"));
    let last = last.next().ok_or_else(missing)?;
    match last.get_mut("content") {
        Some(Value::Array(parts)) => {
            parts.retain(|part| part.get("type").is_none_or(|kind| kind != "text"));
            parts.insert(0, json!({"type": "text", "text": prompt}));
        }
        _ => drop(last.insert("content".to_owned(), json!(prompt))),
    }
    Ok(serde_json::to_vec(&body)?.into())
}
