//! Cardan's own documents.
//!
//! One export for each hook, named like it with `_` for `.`; one event document in, one verdict document
//! out. The types here are the contract: the JSON Schemas in `docs/schema` are generated from them.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use cardan_api::http::{
    CompleteEvent, HeaderEdit, Headers, HttpAnswer, HttpComplete, HttpRequest, HttpResponse, Origin, Refusal,
    RequestEdits, RequestEvent, Response, ResponseEdits, ResponseEvent,
};
use cardan_api::{Attributes, Flow, Hook, Phase, Verdict};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use super::{Circumstances, Malformed};

/// The export that answers `http.request`.
pub const REQUEST: &str = "http_request";
/// The export that answers `http.response`.
pub const RESPONSE: &str = "http_response";
/// The export that answers `http.complete`.
pub const COMPLETE: &str = "http_complete";

/// What a plugin is given.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(title = "Cardan event document")]
pub struct EventDocument<'a> {
    /// The hook's name, for instance `http.request`.
    hook: &'static str,
    /// Where in the hook's chain the plugin is bound.
    phase: Phase,
    visit: VisitDocument<'a>,
    /// The binding's configuration.
    config: &'a Value,
    /// What plugins of this visit have set so far.
    attributes: &'a Attributes,
    request: RequestDocument<'a>,
    /// At `http.response`.
    #[serde(skip_serializing_if = "Option::is_none")]
    response: Option<ResponseDocument<'a>>,
    /// At `http.complete`.
    #[serde(skip_serializing_if = "Option::is_none")]
    complete: Option<CompleteDocument>,
}

/// The request or session that all hooks of a visit belong to.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Visit")]
struct VisitDocument<'a> {
    /// The same at every hook, and in the header `x-request-id`.
    id: &'a str,
    /// The client's session, `default` when unknown.
    session: &'a str,
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Request")]
struct RequestDocument<'a> {
    method: &'a str,
    host: &'a str,
    path: &'a str,
    query: Option<&'a str>,
    /// Address and port of the peer.
    client: &'a str,
    /// Names in lower case; fields of one name are joined with a comma.
    headers: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<BodyDocument<'a>>,
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Response")]
struct ResponseDocument<'a> {
    status: u16,
    headers: BTreeMap<String, String>,
    /// Whether the client receives a stream of events. The body is the assembled document even so.
    streamed: bool,
    /// `upstream`, `plugin` or `host`: who wrote the response.
    #[schemars(with = "String")]
    origin: Origin,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<BodyDocument<'a>>,
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Complete")]
struct CompleteDocument {
    /// The status the client was sent, if it was still there.
    status: Option<u16>,
    sent_bytes: u64,
    duration_ms: u64,
    aborted: bool,
}

/// A body: JSON as it is, other UTF-8 as text, anything else in base64.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "EventBody")]
enum BodyDocument<'a> {
    Json(#[schemars(with = "Value")] &'a RawValue),
    Text(&'a str),
    Base64(String),
}

/// What a plugin returns.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(tag = "verdict", rename_all = "lowercase", deny_unknown_fields)]
#[schemars(title = "Cardan verdict document")]
pub enum VerdictDocument {
    /// Ask the next plugin, with these edits applied.
    Continue {
        /// What to change about the event.
        #[serde(default)]
        edits: EditsDocument,
        /// Attributes to set for later plugins of the visit.
        #[serde(default)]
        attributes: Attributes,
    },
    /// Stop: the host answers with an error in the caller's own API shape.
    Refuse {
        /// 400 to 599; 403 when absent (503 in the routing phase).
        #[serde(default)]
        status: Option<u16>,
        /// A machine-readable kind.
        #[serde(default = "default_kind")]
        kind: String,
        /// For the client's eyes.
        #[serde(default = "default_message")]
        message: String,
    },
    /// Stop: the client gets this response.
    Respond {
        /// 200 to 599.
        #[serde(default = "default_status")]
        status: u16,
        /// Header fields.
        #[serde(default)]
        headers: BTreeMap<String, String>,
        /// Empty when absent.
        #[serde(default)]
        body: Option<NewBody>,
    },
}

/// Changes to an event. What a hook has not got cannot be changed there.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Edits")]
pub struct EditsDocument {
    /// Fields to set; `null` removes.
    #[serde(default)]
    headers: BTreeMap<String, Option<String>>,
    /// At `http.request`.
    #[serde(default)]
    path: Option<String>,
    /// At `http.response`.
    #[serde(default)]
    status: Option<u16>,
    #[serde(default)]
    body: Option<NewBody>,
}

/// A body: exactly one of the three.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "VerdictBody")]
pub enum NewBody {
    /// Any JSON value.
    Json(#[schemars(with = "Value")] Box<RawValue>),
    /// UTF-8.
    Text(String),
    /// Standard alphabet, padded.
    Base64(String),
}

fn default_kind() -> String {
    "refused".to_owned()
}

fn default_message() -> String {
    "refused by policy".to_owned()
}

fn default_status() -> u16 {
    200
}

impl<'a> BodyDocument<'a> {
    fn of(body: &'a Bytes) -> Self {
        if let Ok(json) = serde_json::from_slice::<&RawValue>(body) {
            return Self::Json(json);
        }
        match std::str::from_utf8(body) {
            Ok(text) => Self::Text(text),
            Err(_) => Self::Base64(STANDARD.encode(body)),
        }
    }
}

impl NewBody {
    fn bytes(self) -> Result<Bytes, Malformed> {
        match self {
            Self::Json(json) => Ok(Box::<str>::from(json).into_string().into()),
            Self::Text(text) => Ok(text.into()),
            Self::Base64(text) => match STANDARD.decode(text) {
                Ok(bytes) => Ok(bytes.into()),
                Err(error) => Err(Malformed(format!("a body's base64 is not valid: {error}"))),
            },
        }
    }
}

fn headers(headers: &Headers) -> BTreeMap<String, String> {
    let mut shown = BTreeMap::<String, String>::new();
    for (name, value) in &headers.0 {
        shown
            .entry(name.to_ascii_lowercase())
            .and_modify(|joined| {
                joined.push_str(", ");
                joined.push_str(value);
            })
            .or_insert_with(|| value.clone());
    }
    shown
}

fn request(event: &RequestEvent) -> RequestDocument<'_> {
    RequestDocument {
        method: &event.method,
        host: &event.host,
        path: &event.path,
        query: event.query.as_deref(),
        client: &event.client,
        headers: headers(&event.headers),
        body: event.body.as_ref().map(BodyDocument::of),
    }
}

fn document<'a, H: Hook>(request: RequestDocument<'a>, about: Circumstances<'a>) -> EventDocument<'a> {
    EventDocument {
        hook: H::NAME,
        phase: about.phase,
        visit: VisitDocument { id: about.visit, session: about.session },
        config: about.config,
        attributes: about.attributes,
        request,
        response: None,
        complete: None,
    }
}

pub(super) fn encode_request(event: &RequestEvent, about: Circumstances<'_>) -> Result<Vec<u8>, Malformed> {
    Ok(serde_json::to_vec(&document::<HttpRequest>(request(event), about))?)
}

pub(super) fn encode_response(event: &ResponseEvent, about: Circumstances<'_>) -> Result<Vec<u8>, Malformed> {
    let response = ResponseDocument {
        status: event.status,
        headers: headers(&event.headers),
        streamed: event.streamed,
        origin: event.origin,
        body: event.body.as_ref().map(BodyDocument::of),
    };
    let document = EventDocument {
        response: Some(response),
        ..document::<HttpResponse>(request(&event.request), about)
    };
    Ok(serde_json::to_vec(&document)?)
}

pub(super) fn encode_complete(event: &CompleteEvent, about: Circumstances<'_>) -> Result<Vec<u8>, Malformed> {
    let complete = CompleteDocument {
        status: event.status,
        sent_bytes: event.sent_bytes,
        duration_ms: event.duration_ms,
        aborted: event.aborted,
    };
    let document = EventDocument {
        complete: Some(complete),
        ..document::<HttpComplete>(request(&event.request), about)
    };
    Ok(serde_json::to_vec(&document)?)
}

pub(super) fn decode_request(document: &[u8]) -> Result<Verdict<HttpRequest>, Malformed> {
    decode(document, |edits| {
        if edits.status.is_some() {
            return Err(Malformed("a request has no status to edit".to_owned()));
        }
        if edits.path.as_ref().is_some_and(|path| !path.starts_with('/')) {
            return Err(Malformed("a path begins with /".to_owned()));
        }
        Ok(RequestEdits {
            headers: header_edits(edits.headers),
            path: edits.path,
            body: edits.body.map(NewBody::bytes).transpose()?,
        })
    })
}

pub(super) fn decode_response(document: &[u8]) -> Result<Verdict<HttpResponse>, Malformed> {
    decode(document, |edits| {
        if edits.path.is_some() {
            return Err(Malformed("a response has no path to edit".to_owned()));
        }
        if let Some(status) = edits.status {
            status_within(status, 200)?;
        }
        Ok(ResponseEdits {
            status: edits.status,
            headers: header_edits(edits.headers),
            body: edits.body.map(NewBody::bytes).transpose()?,
            request_body: None,
        })
    })
}

pub(super) fn decode_complete(document: &[u8]) -> Result<Verdict<HttpComplete>, Malformed> {
    match serde_json::from_slice(document)? {
        VerdictDocument::Continue { .. } => Ok(Verdict::pass()),
        VerdictDocument::Refuse { .. } | VerdictDocument::Respond { .. } => {
            Err(Malformed("there is nothing left to stop at http.complete".to_owned()))
        }
    }
}

fn decode<H: Hook<Answer = HttpAnswer>>(
    document: &[u8],
    edits_of: impl FnOnce(EditsDocument) -> Result<H::Edits, Malformed>,
) -> Result<Verdict<H>, Malformed> {
    let answer = match serde_json::from_slice(document)? {
        VerdictDocument::Continue { edits, attributes } => {
            return Ok(Verdict { flow: Flow::Continue, edits: edits_of(edits)?, attributes });
        }
        VerdictDocument::Refuse { status, kind, message } => {
            if let Some(status) = status {
                status_within(status, 400)?;
            }
            HttpAnswer::Refuse(Refusal { status, kind, message })
        }
        VerdictDocument::Respond { status, headers, body } => {
            status_within(status, 200)?;
            HttpAnswer::Respond(Response {
                status,
                headers: Headers(headers.into_iter().collect()),
                body: body.map(NewBody::bytes).transpose()?.unwrap_or_default(),
            })
        }
    };
    Ok(Verdict::stop(answer))
}

fn status_within(status: u16, least: u16) -> Result<(), Malformed> {
    if (least..600).contains(&status) {
        return Ok(());
    }
    Err(Malformed(format!("the status {status} is not between {least} and 599")))
}

fn header_edits(edits: BTreeMap<String, Option<String>>) -> Vec<HeaderEdit> {
    let edit = |(name, value)| match value {
        Some(value) => HeaderEdit::Set(name, value),
        None => HeaderEdit::Remove(name),
    };
    edits.into_iter().map(edit).collect()
}
