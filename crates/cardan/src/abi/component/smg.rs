//! SMG's middleware (`smg:gateway`) and the vLLM router's share what an action means; this is the former.

use bytes::Bytes;
use cardan_api::http::{
    Headers, HttpAnswer, HttpRequest, HttpResponse, RequestEdits, RequestEvent, Response, ResponseEdits,
    ResponseEvent,
};
use cardan_api::{Hook, Verdict};
use wasmtime::component::{ComponentType, Lift, Lower};

use super::call::{Entry, Failure, Guest};
use super::fields::{self, Field, Shown};
use super::recognise::Interface;
use crate::dialect::Circumstances;
use crate::grants::unix_ms;

pub(super) const ON_REQUEST: Entry =
    Entry::new::<(Request<'static>,), (Action,)>(Interface::SmgOnRequest, "on-request");
pub(super) const ON_RESPONSE: Entry =
    Entry::new::<(Reply<'static>,), (Action,)>(Interface::SmgOnResponse, "on-response");

/// Header fields that a request's id is taken from, in this order.
const ID_FIELDS: [&str; 2] = ["x-request-id", "x-correlation-id"];

/// What a status becomes that nobody can send.
const BAD_STATUS: u16 = 400;

#[derive(ComponentType, Lower)]
#[component(record)]
pub(super) struct Request<'a> {
    method: &'a str,
    path: &'a str,
    query: &'a str,
    headers: Vec<Shown<'a>>,
    body: &'a [u8],
    #[component(name = "request-id")]
    request_id: &'a str,
    #[component(name = "now-epoch-ms")]
    now_epoch_ms: u64,
}

#[derive(ComponentType, Lower)]
#[component(record)]
pub(super) struct Reply<'a> {
    status: u16,
    headers: Vec<Shown<'a>>,
    body: &'a [u8],
}

#[derive(ComponentType, Lift)]
#[component(record)]
pub(super) struct Modify {
    status: Option<u16>,
    #[component(name = "headers-set")]
    headers_set: Vec<Field>,
    #[component(name = "headers-add")]
    headers_add: Vec<Field>,
    #[component(name = "headers-remove")]
    headers_remove: Vec<String>,
    #[component(name = "body-replace")]
    body_replace: Option<Vec<u8>>,
}

#[derive(ComponentType, Lift)]
#[component(variant)]
pub(super) enum Action {
    #[component(name = "continue")]
    Continue,
    #[component(name = "reject")]
    Reject(u16),
    #[component(name = "modify")]
    Modify(Modify),
}

pub(super) async fn on_request(
    guest: &mut Guest,
    event: &RequestEvent,
    about: Circumstances<'_>,
) -> Result<Verdict<HttpRequest>, Failure> {
    let request = Request {
        method: &event.method,
        path: &event.path,
        query: event.query.as_deref().unwrap_or_default(),
        headers: visible(&event.headers),
        body: about.shown(event.body.as_ref()).map(Bytes::as_ref).unwrap_or_default(),
        request_id: request_id(event, about),
        now_epoch_ms: unix_ms(),
    };
    Ok(match guest.call(ON_REQUEST, (request,)).await? {
        Action::Continue => Verdict::pass(),
        Action::Reject(status) => reject(status),
        Action::Modify(modify) => {
            let headers = modify.headers();
            // `status` means nothing here.
            Verdict::edit(RequestEdits { headers: headers.0, path: None, body: headers.1 })
        }
    })
}

pub(super) async fn on_response(
    guest: &mut Guest,
    event: &ResponseEvent,
    about: Circumstances<'_>,
) -> Result<Verdict<HttpResponse>, Failure> {
    let reply = Reply {
        status: event.status,
        headers: visible(&event.headers),
        body: about.shown(event.body.as_ref()).map(Bytes::as_ref).unwrap_or_default(),
    };
    Ok(match guest.call(ON_RESPONSE, (reply,)).await? {
        Action::Continue => Verdict::pass(),
        Action::Reject(status) => reject(status),
        Action::Modify(modify) => {
            let status = modify.status.filter(|status| can_be_sent(*status));
            let (headers, body) = modify.headers();
            Verdict::edit(ResponseEdits { status, headers, body, request_body: None })
        }
    })
}

impl Modify {
    fn headers(self) -> (Vec<cardan_api::http::HeaderEdit>, Option<Bytes>) {
        let pairs = |fields: Vec<Field>| fields.into_iter().map(|field| (field.name, field.value));
        let edits = fields::edits(pairs(self.headers_set), pairs(self.headers_add), self.headers_remove);
        (edits, self.body_replace.map(Bytes::from))
    }
}

/// Fields that a guest of SMG is shown: the others stay as they are.
fn visible(headers: &Headers) -> Vec<Shown<'_>> {
    let visible = headers.0.iter().filter(|(_, value)| fields::is_visible(value));
    visible.map(|(name, value)| Shown { name, value }).collect()
}

/// The id that a request came with, else the visit's.
pub(super) fn request_id<'a>(event: &'a RequestEvent, about: Circumstances<'a>) -> &'a str {
    let given = ID_FIELDS.iter().find_map(|name| event.headers.get(name));
    given.filter(|id| !id.is_empty() && fields::is_visible(id)).unwrap_or(about.visit)
}

/// An answer without header fields and body.
pub(super) fn reject<H: Hook<Answer = HttpAnswer>>(status: u16) -> Verdict<H> {
    let status = if can_be_sent(status) { status } else { BAD_STATUS };
    Verdict::stop(HttpAnswer::Respond(Response { status, headers: Headers::default(), body: Bytes::new() }))
}

fn can_be_sent(status: u16) -> bool {
    (200..600).contains(&status)
}
