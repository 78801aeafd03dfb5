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
use serde::{Deserialize, Deserializer, Serialize, de};
use serde_json::Value;
use serde_json::value::RawValue;

use super::{Circumstances, Malformed, ShownHeaders, check_field, write};

pub(super) mod life;
#[cfg(test)]
mod tests;

/// The export that answers `http.request`.
pub const REQUEST: &str = "http_request";
/// The export that answers `http.response`.
pub const RESPONSE: &str = "http_response";
/// The export that answers `http.complete`.
pub const COMPLETE: &str = "http_complete";
/// The export that answers `plugin.load`.
pub const LOAD: &str = "plugin_load";
/// The export that answers `plugin.unload`.
pub const UNLOAD: &str = "plugin_unload";
/// The export that answers `plugin.tick`.
pub const TICK: &str = "plugin_tick";

/// What a plugin is given.
#[derive(Serialize, JsonSchema)]
#[schemars(title = "Cardan event document")]
struct EventDocument<'a> {
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

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Request")]
struct RequestDocument<'a> {
    /// In upper case.
    method: &'a str,
    /// Without the port.
    host: &'a str,
    /// Percent-encoded as received, without the query.
    path: &'a str,
    /// What follows `?`, percent-encoded as received.
    query: Option<&'a str>,
    /// Address and port of the peer.
    client: &'a str,
    /// Names in lower case; fields of one name are joined with a comma.
    #[schemars(with = "BTreeMap<String, String>")]
    headers: ShownHeaders<'a>,
    /// At bindings with `body: whole`.
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<BodyDocument<'a>>,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Response")]
struct ResponseDocument<'a> {
    status: u16,
    /// As in a request.
    #[schemars(with = "BTreeMap<String, String>")]
    headers: ShownHeaders<'a>,
    /// Whether the client receives a stream of events. The body is the assembled document even so.
    streamed: bool,
    origin: Origin,
    /// At bindings with `body: whole`.
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<BodyDocument<'a>>,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Complete")]
struct CompleteDocument {
    /// The status the client was sent, if it was still there.
    status: Option<u16>,
    /// Bytes of response body the client was sent.
    sent_bytes: u64,
    /// From the request's head to the last byte of the response.
    duration_ms: u64,
    /// Whether the client left before the end.
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
#[derive(Debug, JsonSchema)]
#[schemars(title = "Cardan verdict document", tag = "verdict", rename_all = "lowercase", deny_unknown_fields)]
enum VerdictDocument {
    /// Ask the next plugin, with these edits applied.
    Continue {
        /// What to change about the event.
        edits: Option<EditsDocument>,
        /// Attributes to set for later plugins of the visit.
        attributes: Option<Attributes>,
    },
    /// Stop: the host answers with an error in the caller's own API shape.
    Refuse {
        /// 403 when absent (503 in the routing phase).
        #[schemars(range(min = 400, max = 599))]
        status: Option<u16>,
        /// A machine-readable kind; `refused` when absent.
        kind: Option<String>,
        /// For the client's eyes; `refused by policy` when absent.
        message: Option<String>,
    },
    /// Stop: the client gets this response.
    Respond {
        /// 200 when absent.
        #[schemars(range(min = 200, max = 599))]
        status: Option<u16>,
        /// Header fields.
        headers: Option<BTreeMap<String, String>>,
        /// Empty when absent.
        body: Option<NewBody>,
    },
}

/// Changes to an event. What a hook has not got cannot be changed there.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Edits")]
struct EditsDocument {
    /// Fields to set; `null` removes.
    #[serde(default)]
    headers: BTreeMap<String, Option<String>>,
    /// At `http.request`: a new path, percent-encoded, without query.
    #[serde(default)]
    path: Option<String>,
    /// At `http.response`.
    #[serde(default)]
    #[schemars(range(min = 200, max = 599))]
    status: Option<u16>,
    /// At bindings with `body: whole`.
    #[serde(default)]
    body: Option<NewBody>,
}

/// A body: exactly one of the three.
#[derive(Debug, JsonSchema)]
#[schemars(rename = "VerdictBody", rename_all = "lowercase")]
enum NewBody {
    /// Any JSON value.
    Json(#[schemars(with = "Value")] Box<RawValue>),
    /// UTF-8.
    Text(String),
    /// Standard alphabet, padded.
    Base64(String),
}

// By hand, since serde says of a second key of an enum no more than "expected value".
impl<'de> Deserialize<'de> for NewBody {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Keys {
            #[serde(default, deserialize_with = "present")]
            json: Option<Box<RawValue>>,
            text: Option<String>,
            base64: Option<String>,
        }
        let keys = Keys::deserialize(deserializer)?;
        match (keys.json, keys.text, keys.base64) {
            (Some(json), None, None) => Ok(Self::Json(json)),
            (None, Some(text), None) => Ok(Self::Text(text)),
            (None, None, Some(base64)) => Ok(Self::Base64(base64)),
            _ => Err(de::Error::custom("a body has exactly one of the keys `json`, `text` and `base64`")),
        }
    }
}

/// A value that is there, `null` included.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Box<RawValue>>, D::Error> {
    Box::<RawValue>::deserialize(deserializer).map(Some)
}

/// A verdict as it is read: every key there is, so that the document is read in one pass and bodies are
/// taken as they stand. Serde's own tagged enums keep what they read in an intermediate form, which can
/// hold no raw JSON.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    verdict: Word,
    edits: Option<EditsDocument>,
    attributes: Option<Attributes>,
    status: Option<u16>,
    kind: Option<String>,
    message: Option<String>,
    headers: Option<BTreeMap<String, String>>,
    body: Option<NewBody>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Word {
    Continue,
    Refuse,
    Respond,
}

impl Wire {
    /// Refuses keys of other verdicts: a plugin that believes it edited something has to hear of it.
    fn sort(self) -> Result<VerdictDocument, Malformed> {
        let Self { verdict, edits, attributes, status, kind, message, headers, body } = self;
        let is = |word: Word| verdict == word;
        let keys = [
            ("edits", edits.is_some(), is(Word::Continue)),
            ("attributes", attributes.is_some(), is(Word::Continue)),
            ("status", status.is_some(), !is(Word::Continue)),
            ("kind", kind.is_some(), is(Word::Refuse)),
            ("message", message.is_some(), is(Word::Refuse)),
            ("headers", headers.is_some(), is(Word::Respond)),
            ("body", body.is_some(), is(Word::Respond)),
        ];
        if let Some((key, ..)) = keys.iter().find(|(_, there, belongs)| *there && !*belongs) {
            let word = format!("{verdict:?}").to_ascii_lowercase();
            return Err(Malformed(format!("the verdict {word:?} has no key {key:?}")));
        }
        Ok(match verdict {
            Word::Continue => VerdictDocument::Continue { edits, attributes },
            Word::Refuse => VerdictDocument::Refuse { status, kind, message },
            Word::Respond => VerdictDocument::Respond { status, headers, body },
        })
    }
}

impl VerdictDocument {
    fn read(document: &[u8]) -> Result<Self, Malformed> {
        match document.trim_ascii_start().first() {
            None => Err(Malformed("the plugin set no output".to_owned())),
            // Serde would take the elements of an array for the fields, in order.
            Some(b'{') => serde_json::from_slice::<Wire>(document)?.sort(),
            Some(_) => Err(Malformed("the output is no JSON object".to_owned())),
        }
    }
}

impl EditsDocument {
    fn is_empty(&self) -> bool {
        self.headers.is_empty() && self.path.is_none() && self.status.is_none() && self.body.is_none()
    }
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

fn request<'a>(event: &'a RequestEvent, about: Circumstances<'_>) -> RequestDocument<'a> {
    RequestDocument {
        method: &event.method,
        host: &event.host,
        path: &event.path,
        query: event.query.as_deref(),
        client: &event.client,
        headers: ShownHeaders(&event.headers),
        body: about.shown(event.body.as_ref()).map(BodyDocument::of),
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
    let document = document::<HttpRequest>(request(event, about), about);
    write(&document, [about.shown(event.body.as_ref())])
}

pub(super) fn encode_response(event: &ResponseEvent, about: Circumstances<'_>) -> Result<Vec<u8>, Malformed> {
    let body = about.shown(event.body.as_ref());
    let response = ResponseDocument {
        status: event.status,
        headers: ShownHeaders(&event.headers),
        streamed: event.streamed,
        origin: event.origin,
        body: body.map(BodyDocument::of),
    };
    let document = EventDocument {
        response: Some(response),
        ..document::<HttpResponse>(request(&event.request, about), about)
    };
    write(&document, [body, about.shown(event.request.body.as_ref())])
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
        ..document::<HttpComplete>(request(&event.request, about), about)
    };
    write(&document, [about.shown(event.request.body.as_ref())])
}

pub(super) fn decode_request(document: &[u8]) -> Result<Verdict<HttpRequest>, Malformed> {
    decode(document, |edits| {
        if edits.status.is_some() {
            return Err(Malformed("a request has no status to edit".to_owned()));
        }
        if let Some(path) = &edits.path {
            check_path(path)?;
        }
        Ok(RequestEdits {
            headers: header_edits(edits.headers)?,
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
            headers: header_edits(edits.headers)?,
            body: edits.body.map(NewBody::bytes).transpose()?,
            request_body: None,
        })
    })
}

pub(super) fn decode_complete(document: &[u8]) -> Result<Verdict<HttpComplete>, Malformed> {
    match VerdictDocument::read(document)? {
        VerdictDocument::Continue { edits: None, attributes } => {
            Ok(Verdict { attributes: attributes.unwrap_or_default(), ..Verdict::pass() })
        }
        VerdictDocument::Continue { edits: Some(edits), attributes } if edits.is_empty() => {
            Ok(Verdict { attributes: attributes.unwrap_or_default(), ..Verdict::pass() })
        }
        VerdictDocument::Continue { .. } => {
            Err(Malformed("there is nothing left to edit at http.complete".to_owned()))
        }
        VerdictDocument::Refuse { .. } | VerdictDocument::Respond { .. } => {
            Err(Malformed("there is nothing left to stop at http.complete".to_owned()))
        }
    }
}

fn decode<H: Hook<Answer = HttpAnswer>>(
    document: &[u8],
    edits_of: impl FnOnce(EditsDocument) -> Result<H::Edits, Malformed>,
) -> Result<Verdict<H>, Malformed> {
    let answer = match VerdictDocument::read(document)? {
        VerdictDocument::Continue { edits, attributes } => {
            let edits = edits_of(edits.unwrap_or_default())?;
            let attributes = attributes.unwrap_or_default();
            return Ok(Verdict { flow: Flow::Continue, edits, attributes });
        }
        VerdictDocument::Refuse { status, kind, message } => {
            if let Some(status) = status {
                status_within(status, 400)?;
            }
            HttpAnswer::Refuse(Refusal {
                status,
                kind: kind.unwrap_or_else(|| "refused".to_owned()),
                message: message.unwrap_or_else(|| "refused by policy".to_owned()),
            })
        }
        VerdictDocument::Respond { status, headers, body } => {
            let status = status.unwrap_or(200);
            status_within(status, 200)?;
            let headers: Vec<_> = headers.unwrap_or_default().into_iter().collect();
            for (name, value) in &headers {
                check_field(name, value)?;
            }
            let body = body.map(NewBody::bytes).transpose()?.unwrap_or_default();
            HttpAnswer::Respond(Response { status, headers: Headers(headers), body })
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

/// A path that can stand in a request line: what it cannot hold is percent-encoded.
fn check_path(path: &str) -> Result<(), Malformed> {
    let fits = |byte: u8| byte.is_ascii_graphic() && !b"?#".contains(&byte);
    if path.starts_with('/') && path.bytes().all(fits) {
        return Ok(());
    }
    Err(Malformed(format!("{path:?} is no path: it begins with / and is percent-encoded, without query")))
}

fn header_edits(edits: BTreeMap<String, Option<String>>) -> Result<Vec<HeaderEdit>, Malformed> {
    let edit = |(name, value): (String, Option<String>)| {
        check_field(&name, value.as_deref().unwrap_or_default())?;
        Ok(match value {
            Some(value) => HeaderEdit::Set(name, value),
            None => HeaderEdit::Remove(name),
        })
    };
    edits.into_iter().map(edit).collect()
}

/// The JSON Schemas of the documents, generated from the types above: file name in `docs/schema`, and text.
pub fn schemas() -> [(&'static str, String); 3] {
    let text = |schema: schemars::Schema| format!("{:#}\n", schema.as_value());
    [
        ("event.schema.json", text(schemars::schema_for!(EventDocument<'static>))),
        ("verdict.schema.json", text(schemars::schema_for!(VerdictDocument))),
        ("life.schema.json", text(schemars::schema_for!(life::LifeDocument<'static>))),
    ]
}
