//! What a plugin returns.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use cardan_api::http::{HeaderEdit, HttpAnswer, HttpComplete, HttpRequest, HttpResponse};
use cardan_api::{Attributes, Flow, Verdict};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::{Error, Result};

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
    message: Option<&'a str>,
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
}

impl Edits<'_> {
    fn is_empty(&self) -> bool {
        self.headers.is_empty() && self.path.is_none() && self.status.is_none() && self.body.is_none()
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
fn header_edits(edits: &[HeaderEdit]) -> BTreeMap<String, Option<&str>> {
    fn entry(edit: &HeaderEdit) -> (String, Option<&str>) {
        match edit {
            HeaderEdit::Set(name, value) => (name.to_ascii_lowercase(), Some(value)),
            HeaderEdit::Remove(name) => (name.to_ascii_lowercase(), None),
        }
    }
    edits.iter().map(entry).collect()
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
                headers: header_edits(&verdict.edits.headers),
                path: verdict.edits.path.as_deref(),
                status: None,
                body: verdict.edits.body.as_ref().map(Body::of),
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
                headers: header_edits(&verdict.edits.headers),
                path: None,
                status: verdict.edits.status,
                body: verdict.edits.body.as_ref().map(Body::of),
            };
            write(&going_on(edits, &verdict.attributes))
        }
    }
}

pub(super) fn of_complete(verdict: Verdict<HttpComplete>) -> Result<Vec<u8>> {
    match verdict.flow {
        Flow::Stop(never) => match never {},
        Flow::Continue => write(&going_on(Edits::default(), &verdict.attributes)),
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
