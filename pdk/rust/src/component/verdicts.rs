//! What a plugin returns.

use bytes::Bytes;
use cardan_api::http::{HeaderEdit, HttpAnswer, HttpRequest, HttpResponse};
use cardan_api::{Attributes, Flow, Verdict};

use super::imports::cardan::plugin::http_types::{
    HeaderEdit as HeaderEditCase, Reply, RequestEdits, RequestVerdict, ResponseEdits, ResponseVerdict,
};
use super::imports::cardan::plugin::types::{Attribute, Field, Refusal};

/// The two ways to stop, before they become one of two types.
enum Stop {
    Refuse(Refusal),
    Respond(Reply),
}

fn stop(answer: HttpAnswer) -> Stop {
    match answer {
        HttpAnswer::Refuse(refusal) => {
            Stop::Refuse(Refusal { status: refusal.status, kind: refusal.kind, message: refusal.message })
        }
        HttpAnswer::Respond(response) => Stop::Respond(Reply {
            status: response.status,
            headers: response.headers.0.into_iter().map(|(name, value)| Field { name, value }).collect(),
            body: response.body.into(),
        }),
    }
}

fn headers(edits: Vec<HeaderEdit>) -> Vec<HeaderEditCase> {
    let case = |edit| match edit {
        HeaderEdit::Set(name, value) => HeaderEditCase::Set(Field { name, value }),
        HeaderEdit::Add(name, value) => HeaderEditCase::Add(Field { name, value }),
        HeaderEdit::Remove(name) => HeaderEditCase::Remove(name),
    };
    edits.into_iter().map(case).collect()
}

fn attributes(set: Attributes) -> Vec<Attribute> {
    set.into_iter().map(|(name, value)| Attribute { name, value: value.to_string() }).collect()
}

pub(super) fn of_request(verdict: Verdict<HttpRequest>) -> RequestVerdict {
    match verdict.flow {
        Flow::Continue => RequestVerdict::Continue(RequestEdits {
            headers: headers(verdict.edits.headers),
            path: verdict.edits.path,
            body: verdict.edits.body.map(Bytes::into),
            attributes: attributes(verdict.attributes),
        }),
        Flow::Stop(answer) => match stop(answer) {
            Stop::Refuse(refusal) => RequestVerdict::Refuse(refusal),
            Stop::Respond(reply) => RequestVerdict::Respond(reply),
        },
    }
}

pub(super) fn of_response(verdict: Verdict<HttpResponse>) -> ResponseVerdict {
    match verdict.flow {
        Flow::Continue => ResponseVerdict::Continue(ResponseEdits {
            status: verdict.edits.status,
            headers: headers(verdict.edits.headers),
            body: verdict.edits.body.map(Bytes::into),
            attributes: attributes(verdict.attributes),
        }),
        Flow::Stop(answer) => match stop(answer) {
            Stop::Refuse(refusal) => ResponseVerdict::Refuse(refusal),
            Stop::Respond(reply) => ResponseVerdict::Respond(reply),
        },
    }
}
