//! The vLLM router's middleware (`vllm:router-middleware@0.1.0`).

use bytes::Bytes;
use cardan_api::Verdict;
use cardan_api::http::{HttpRequest, RequestEdits, RequestEvent};
use wasmtime::component::{ComponentType, Lift, Lower};

use super::call::{Entry, Failure, Guest};
use super::recognise::Interface;
use super::{fields, smg};
use crate::dialect::Circumstances;

pub(super) const HANDLE: Entry =
    Entry::new::<(Request<'static>,), (Action,)>(Interface::VllmOnRequest, "handle");

/// Fields that guests are not shown: whoever holds what is in them is the client.
const CREDENTIALS: [&str; 5] = ["authorization", "proxy-authorization", "cookie", "x-api-key", "api-key"];

#[derive(ComponentType, Lower)]
#[component(record)]
pub(super) struct Header<'a> {
    name: &'a str,
    value: &'a [u8],
}

#[derive(ComponentType, Lower)]
#[component(record)]
pub(super) struct Request<'a> {
    method: &'a str,
    path: &'a str,
    query: &'a str,
    headers: Vec<Header<'a>>,
    body: &'a [u8],
    #[component(name = "request-id")]
    request_id: &'a str,
}

#[derive(ComponentType, Lift)]
#[component(record)]
pub(super) struct NewHeader {
    name: String,
    value: Vec<u8>,
}

#[derive(ComponentType, Lift)]
#[component(record)]
pub(super) struct Modify {
    #[component(name = "headers-set")]
    headers_set: Vec<NewHeader>,
    #[component(name = "headers-add")]
    headers_add: Vec<NewHeader>,
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

pub(super) async fn handle(
    guest: &mut Guest,
    event: &RequestEvent,
    about: Circumstances<'_>,
) -> Result<Verdict<HttpRequest>, Failure> {
    let is_credential = |name: &str| CREDENTIALS.iter().any(|hidden| name.eq_ignore_ascii_case(hidden));
    let shown = event.headers.0.iter().filter(|(name, _)| !is_credential(name));
    let request = Request {
        method: &event.method,
        path: &event.path,
        query: event.query.as_deref().unwrap_or_default(),
        headers: shown.map(|(name, value)| Header { name, value: value.as_bytes() }).collect(),
        body: about.shown(event.body.as_ref()).map(Bytes::as_ref).unwrap_or_default(),
        request_id: smg::request_id(event, about),
    };
    Ok(match guest.call(HANDLE, (request,)).await? {
        Action::Continue => Verdict::pass(),
        Action::Reject(status) => smg::reject(status),
        Action::Modify(modify) => {
            let headers =
                fields::edits(text(modify.headers_set), text(modify.headers_add), modify.headers_remove);
            Verdict::edit(RequestEdits { headers, path: None, body: modify.body_replace.map(Bytes::from) })
        }
    })
}

/// Fields whose values are text; the others cannot be set.
fn text(headers: Vec<NewHeader>) -> impl Iterator<Item = (String, String)> {
    headers.into_iter().filter_map(|header| Some((header.name, String::from_utf8(header.value).ok()?)))
}
