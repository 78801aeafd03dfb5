//! The documents of `http.*`.

use std::collections::BTreeMap;

use cardan_api::http::{
    CompleteEvent, HeaderEdit, Headers, HttpAnswer, HttpComplete, HttpRequest, HttpResponse, Origin, Refusal,
    RequestEdits, RequestEvent, Response, ResponseEdits, ResponseEvent,
};
use schemars::JsonSchema;
use serde::Serialize;

use super::super::{Circumstances, Malformed, ShownHeaders, check_field, write};
use super::body::{BodyDocument, NewBody};
use super::verdict::{EditsDocument, Judged, VerdictDocument, message_or_policy};
use super::{EventDocument, document};

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Request")]
pub(super) struct RequestDocument<'a> {
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
pub(super) struct ResponseDocument<'a> {
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
pub(super) struct CompleteDocument {
    /// The status the client was sent, if it was still there.
    status: Option<u16>,
    /// Bytes of response body the client was sent.
    sent_bytes: u64,
    /// From the request's head to the last byte of the response.
    duration_ms: u64,
    /// Whether the client left before the end.
    aborted: bool,
}

pub(super) fn request<'a>(event: &'a RequestEvent, about: Circumstances<'_>) -> RequestDocument<'a> {
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

pub(in super::super) fn encode_request(
    event: &RequestEvent,
    about: Circumstances<'_>,
) -> Result<Vec<u8>, Malformed> {
    let document = EventDocument { request: Some(request(event, about)), ..document::<HttpRequest>(about) };
    write(&document, [about.shown(event.body.as_ref())])
}

pub(in super::super) fn encode_response(
    event: &ResponseEvent,
    about: Circumstances<'_>,
) -> Result<Vec<u8>, Malformed> {
    let body = about.shown(event.body.as_ref());
    let response = ResponseDocument {
        status: event.status,
        headers: ShownHeaders(&event.headers),
        streamed: event.streamed,
        origin: event.origin,
        body: body.map(BodyDocument::of),
    };
    let document = EventDocument {
        request: Some(request(&event.request, about)),
        response: Some(response),
        ..document::<HttpResponse>(about)
    };
    write(&document, [body, about.shown(event.request.body.as_ref())])
}

pub(in super::super) fn encode_complete(
    event: &CompleteEvent,
    about: Circumstances<'_>,
) -> Result<Vec<u8>, Malformed> {
    let complete = CompleteDocument {
        status: event.status,
        sent_bytes: event.sent_bytes,
        duration_ms: event.duration_ms,
        aborted: event.aborted,
    };
    let document = EventDocument {
        request: Some(request(&event.request, about)),
        complete: Some(complete),
        ..document::<HttpComplete>(about)
    };
    write(&document, [about.shown(event.request.body.as_ref())])
}

/// Keys of verdicts where there is a client to answer.
const KEYS: &[&str] = &["status", "kind", "message", "headers", "body"];

impl Judged for HttpRequest {
    const KEYS: &'static [&'static str] = KEYS;
    const EDITABLE: &'static [&'static str] = &["headers", "path", "body"];

    fn edits(edits: EditsDocument) -> Result<RequestEdits, Malformed> {
        if let Some(path) = &edits.path {
            check_path(path)?;
        }
        Ok(RequestEdits {
            headers: header_edits(edits.headers)?,
            path: edits.path,
            body: edits.body.map(NewBody::bytes).transpose()?,
        })
    }

    fn stop(document: VerdictDocument) -> Result<HttpAnswer, Malformed> {
        stop(document)
    }
}

impl Judged for HttpResponse {
    const KEYS: &'static [&'static str] = KEYS;
    const EDITABLE: &'static [&'static str] = &["headers", "status", "body"];

    fn edits(edits: EditsDocument) -> Result<ResponseEdits, Malformed> {
        if let Some(status) = edits.status {
            status_within(status, 200)?;
        }
        Ok(ResponseEdits {
            status: edits.status,
            headers: header_edits(edits.headers)?,
            body: edits.body.map(NewBody::bytes).transpose()?,
            request_body: None,
        })
    }

    fn stop(document: VerdictDocument) -> Result<HttpAnswer, Malformed> {
        stop(document)
    }
}

impl Judged for HttpComplete {}

fn stop(document: VerdictDocument) -> Result<HttpAnswer, Malformed> {
    match document {
        VerdictDocument::Refuse { status, kind, message, .. } => {
            if let Some(status) = status {
                status_within(status, 400)?;
            }
            Ok(HttpAnswer::Refuse(Refusal {
                status,
                kind: kind.unwrap_or_else(|| "refused".to_owned()),
                message: message_or_policy(message),
            }))
        }
        VerdictDocument::Respond { status, headers, body } => {
            let status = status.unwrap_or(200);
            status_within(status, 200)?;
            let headers: Vec<_> = headers.unwrap_or_default().into_iter().collect();
            for (name, value) in &headers {
                check_field(name, value)?;
            }
            let body = body.map(NewBody::bytes).transpose()?.unwrap_or_default();
            Ok(HttpAnswer::Respond(Response { status, headers: Headers(headers), body }))
        }
        _ => Err(Malformed("a client is refused or responded to, and nothing else".to_owned())),
    }
}

pub(crate) fn status_within(status: u16, least: u16) -> Result<(), Malformed> {
    if (least..600).contains(&status) {
        return Ok(());
    }
    Err(Malformed(format!("the status {status} is not between {least} and 599")))
}

/// A path that can stand in a request line: what it cannot hold is percent-encoded.
pub(crate) fn check_path(path: &str) -> Result<(), Malformed> {
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
