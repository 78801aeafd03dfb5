//! The HTTP hooks: what plugins are shown of an exchange, and what they may do about it.

use bytes::Bytes;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::fault::FaultPolicy;
use crate::hook::Hook;

/// `http.request`: the head has arrived, and the body too if a binding needs it.
#[derive(Debug)]
pub struct HttpRequest;

/// `http.response`: before the first byte of the response is sent.
#[derive(Debug)]
pub struct HttpResponse;

/// `http.complete`: the exchange is over. Observers only.
#[derive(Debug)]
pub struct HttpComplete;

/// Header fields in the order they were received. Names compare without regard to case (RFC 9110,
/// section 5.1). Bytes of values that are not UTF-8 are shown to plugins as U+FFFD, and pass unchanged where
/// nobody edits the field.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Headers(pub Vec<(String, String)>);

impl Headers {
    /// The first value of a field.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(have, _)| have.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// Replaces every field of this name with one.
    pub fn set(&mut self, name: &str, value: &str) {
        self.remove(name);
        self.0.push((name.to_ascii_lowercase(), value.to_owned()));
    }

    /// Adds a field beside those of this name.
    pub fn add(&mut self, name: &str, value: &str) {
        self.0.push((name.to_ascii_lowercase(), value.to_owned()));
    }

    /// Removes every field of this name.
    pub fn remove(&mut self, name: &str) {
        self.0.retain(|(have, _)| !have.eq_ignore_ascii_case(name));
    }
}

/// One change to header fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeaderEdit {
    /// Replace every field of this name with one.
    Set(String, String),
    /// Add a field beside those of this name.
    Add(String, String),
    /// Remove every field of this name.
    Remove(String),
}

impl HeaderEdit {
    fn apply_all(edits: Vec<HeaderEdit>, headers: &mut Headers) {
        for edit in edits {
            match edit {
                Self::Set(name, value) => headers.set(&name, &value),
                Self::Add(name, value) => headers.add(&name, &value),
                Self::Remove(name) => headers.remove(&name),
            }
        }
    }
}

/// What `http.request` plugins are shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestEvent {
    /// `GET`, `POST`, ... in upper case.
    pub method: String,
    /// The authority the client asked for, without the port it reached us on.
    pub host: String,
    /// The path without the query, percent-encoded where it has to be ([`crate::path`]): `%61` is shown as
    /// `a`, so that rules on paths cannot be written around.
    pub path: String,
    /// What follows `?`, percent-encoded as received.
    pub query: Option<String>,
    /// Address and port of the peer.
    pub client: String,
    /// The request's header fields.
    pub headers: Headers,
    /// The whole body, when a binding needs it.
    pub body: Option<Bytes>,
}

/// What an `http.request` plugin may change.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RequestEdits {
    /// In order.
    pub headers: Vec<HeaderEdit>,
    /// A new path, percent-encoded, without query.
    pub path: Option<String>,
    /// A new body. Refused by hosts that did not show one.
    pub body: Option<Bytes>,
}

impl Hook for HttpRequest {
    const NAME: &'static str = "http.request";
    const ON_FAULT: FaultPolicy = FaultPolicy::Refuse;
    type Event = RequestEvent;
    type Answer = HttpAnswer;
    type Edits = RequestEdits;

    fn apply(event: &mut RequestEvent, edits: RequestEdits) {
        HeaderEdit::apply_all(edits.headers, &mut event.headers);
        if let Some(path) = edits.path {
            event.path = path;
        }
        if let Some(body) = edits.body {
            event.body = Some(body);
        }
    }
}

/// Who wrote a response, so that a plugin can tell an upstream's words from the house's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// The upstream the request was sent to.
    Upstream,
    /// A plugin that stopped the request.
    Plugin,
    /// The host: an error, a limit, a list of models.
    Host,
}

/// What `http.response` plugins are shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResponseEvent {
    /// The request as it was sent upstream, after all edits.
    pub request: RequestEvent,
    /// 100 to 599.
    pub status: u16,
    /// The response's header fields.
    pub headers: Headers,
    /// The whole body, when a binding needs it. Of a streamed chat completion it is the assembled
    /// completion object, so that a plugin sees the same document whether the client streams or not.
    pub body: Option<Bytes>,
    /// Whether the client receives the body as a stream of events.
    pub streamed: bool,
    /// Who wrote it.
    pub origin: Origin,
}

/// What an `http.response` plugin may change.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ResponseEdits {
    /// A new status, 100 to 599.
    pub status: Option<u16>,
    /// In order.
    pub headers: Vec<HeaderEdit>,
    /// A new body. Of a stream, the new completion object, which the host streams again.
    pub body: Option<Bytes>,
    /// Also edits the request body shown to later plugins, for LLMProxy guests that only know `body`.
    pub request_body: Option<Bytes>,
}

impl Hook for HttpResponse {
    const NAME: &'static str = "http.response";
    const ON_FAULT: FaultPolicy = FaultPolicy::Skip;
    type Event = ResponseEvent;
    type Answer = HttpAnswer;
    type Edits = ResponseEdits;

    fn apply(event: &mut ResponseEvent, edits: ResponseEdits) {
        HeaderEdit::apply_all(edits.headers, &mut event.headers);
        if let Some(status) = edits.status {
            event.status = status;
        }
        if let Some(body) = edits.body {
            event.body = Some(body);
        }
        if let Some(body) = edits.request_body {
            event.request.body = Some(body);
        }
    }
}

/// What `http.complete` plugins are shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompleteEvent {
    /// The request as it was sent upstream. Its body is there if a binding needs it.
    pub request: RequestEvent,
    /// The status the client was sent; `None` when it left before that.
    pub status: Option<u16>,
    /// Bytes of response body the client was sent.
    pub sent_bytes: u64,
    /// From the request's head to the last byte of the response.
    pub duration_ms: u64,
    /// Whether the client left before the end.
    pub aborted: bool,
}

impl Hook for HttpComplete {
    const NAME: &'static str = "http.complete";
    const ON_FAULT: FaultPolicy = FaultPolicy::Skip;
    type Event = CompleteEvent;
    type Answer = std::convert::Infallible;
    type Edits = ();

    fn apply(_event: &mut CompleteEvent, _edits: ()) {}
}

/// What a plugin may put in place of an upstream's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HttpAnswer {
    /// An error that the host writes in the caller's own API shape.
    Refuse(Refusal),
    /// A whole response.
    Respond(Response),
}

/// A refusal in a plugin's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// 400 to 599; `None` leaves it to the phase ([`crate::Phase::refusal_status`]).
    pub status: Option<u16>,
    /// A machine-readable kind, such as `injection_detected`.
    pub kind: String,
    /// For the client's eyes.
    pub message: String,
}

/// A whole response in a plugin's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// 200 to 599.
    pub status: u16,
    /// Header fields; `content-type` defaults to JSON when the body is JSON.
    pub headers: Headers,
    /// The body, unencoded.
    pub body: Bytes,
}
