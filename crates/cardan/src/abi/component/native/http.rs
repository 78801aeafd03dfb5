//! `http-request`, `http-response`, `http-complete`, and the three of them with state: `http-exchange`.

use bytes::Bytes;
use cardan_api::http::{
    CompleteEvent, HeaderEdit, Headers, HttpAnswer, HttpComplete, HttpRequest, HttpResponse, Origin, Refusal,
    RequestEdits, RequestEvent, Response, ResponseEdits, ResponseEvent,
};
use cardan_api::{Attributes, Flow, Verdict};
use wasmtime::component::{ComponentType, Lift, Lower, Resource, ResourceAny};

use super::{
    Ask, Attribute, Circumstances, Entry, Failure, Guest, Interface, Visit, attributes, enter, said,
};
use crate::abi::component::fields::{self, Field, Shown};
use crate::abi::component::{smg, vllm};
use crate::dialect::cardan::http::{check_path, status_within};
use crate::dialect::check_field;

type Of<T> = (Resource<Visit>, T);
type In<T> = (ResourceAny, Resource<Visit>, T);
type Said<T> = (Result<T, String>,);

const REQUEST: Entry =
    Entry::new::<Of<Request<'static>>, Said<RequestVerdict>>(Interface::HttpRequest, "on-request");
const RESPONSE: Entry = Entry::new::<
    (Resource<Visit>, Request<'static>, Reply<'static>),
    Said<ResponseVerdict>,
>(Interface::HttpResponse, "on-response");
const COMPLETE: Entry = Entry::new::<(Resource<Visit>, Request<'static>, Completion), Said<()>>(
    Interface::HttpComplete,
    "on-complete",
);
const BEGIN: Entry =
    Entry::new::<(Resource<Visit>,), (ResourceAny,)>(Interface::HttpExchange, "[constructor]exchange");
const REQUEST_IN: Entry = Entry::new::<In<Request<'static>>, Said<RequestVerdict>>(
    Interface::HttpExchange,
    "[method]exchange.on-request",
);
const RESPONSE_IN: Entry = Entry::new::<
    (ResourceAny, Resource<Visit>, Request<'static>, Reply<'static>),
    Said<ResponseVerdict>,
>(Interface::HttpExchange, "[method]exchange.on-response");
const COMPLETE_IN: Entry = Entry::new::<(ResourceAny, Resource<Visit>, Request<'static>, Completion), Said<()>>(
    Interface::HttpExchange,
    "[method]exchange.on-complete",
);

pub(super) const ENTRIES: [Entry; 7] =
    [REQUEST, RESPONSE, COMPLETE, BEGIN, REQUEST_IN, RESPONSE_IN, COMPLETE_IN];

#[derive(ComponentType, Lower)]
#[component(record)]
pub(super) struct Request<'a> {
    method: &'a str,
    host: &'a str,
    path: &'a str,
    query: Option<&'a str>,
    client: &'a str,
    headers: Vec<Shown<'a>>,
    body: Option<&'a [u8]>,
}

impl<'a> Request<'a> {
    pub(super) fn of(event: &'a RequestEvent, about: Circumstances<'_>) -> Self {
        Self {
            method: &event.method,
            host: &event.host,
            path: &event.path,
            query: event.query.as_deref(),
            client: &event.client,
            headers: fields::shown(&event.headers),
            body: about.shown(event.body.as_ref()).map(Bytes::as_ref),
        }
    }
}

#[derive(ComponentType, Lower, Clone, Copy)]
#[component(enum)]
#[repr(u8)]
enum Writer {
    #[component(name = "upstream")]
    Upstream,
    #[component(name = "plugin")]
    Plugin,
    #[component(name = "host")]
    Host,
}

impl From<Origin> for Writer {
    fn from(origin: Origin) -> Self {
        match origin {
            Origin::Upstream => Self::Upstream,
            Origin::Plugin => Self::Plugin,
            Origin::Host => Self::Host,
        }
    }
}

#[derive(ComponentType, Lower)]
#[component(record)]
struct Reply<'a> {
    status: u16,
    headers: Vec<Shown<'a>>,
    body: Option<&'a [u8]>,
    streamed: bool,
    origin: Writer,
}

impl<'a> Reply<'a> {
    fn of(event: &'a ResponseEvent, about: Circumstances<'_>) -> Self {
        Self {
            status: event.status,
            headers: fields::shown(&event.headers),
            body: about.shown(event.body.as_ref()).map(Bytes::as_ref),
            streamed: event.streamed,
            origin: event.origin.into(),
        }
    }
}

#[derive(ComponentType, Lower)]
#[component(record)]
struct Completion {
    status: Option<u16>,
    #[component(name = "sent-bytes")]
    sent_bytes: u64,
    #[component(name = "duration-ms")]
    duration_ms: u64,
    aborted: bool,
}

impl From<&CompleteEvent> for Completion {
    fn from(event: &CompleteEvent) -> Self {
        let CompleteEvent { status, sent_bytes, duration_ms, aborted, .. } = *event;
        Self { status, sent_bytes, duration_ms, aborted }
    }
}

#[derive(ComponentType, Lift)]
#[component(variant)]
enum FieldEdit {
    #[component(name = "set")]
    Set(Field),
    #[component(name = "add")]
    Add(Field),
    #[component(name = "remove")]
    Remove(String),
}

#[derive(ComponentType, Lift)]
#[component(record)]
struct RequestChanges {
    headers: Vec<FieldEdit>,
    path: Option<String>,
    body: Option<Vec<u8>>,
    attributes: Vec<Attribute>,
}

#[derive(ComponentType, Lift)]
#[component(record)]
struct ResponseChanges {
    status: Option<u16>,
    headers: Vec<FieldEdit>,
    body: Option<Vec<u8>>,
    attributes: Vec<Attribute>,
}

#[derive(ComponentType, Lift)]
#[component(record)]
struct Refused {
    status: Option<u16>,
    kind: String,
    message: String,
}

#[derive(ComponentType, Lift)]
#[component(record)]
struct Responded {
    status: u16,
    headers: Vec<Field>,
    body: Vec<u8>,
}

#[derive(ComponentType, Lift)]
#[component(variant)]
enum RequestVerdict {
    #[component(name = "continue")]
    Continue(RequestChanges),
    #[component(name = "refuse")]
    Refuse(Refused),
    #[component(name = "respond")]
    Respond(Responded),
}

#[derive(ComponentType, Lift)]
#[component(variant)]
enum ResponseVerdict {
    #[component(name = "continue")]
    Continue(ResponseChanges),
    #[component(name = "refuse")]
    Refuse(Refused),
    #[component(name = "respond")]
    Respond(Responded),
}

fn header_edits(edits: Vec<FieldEdit>) -> Result<Vec<HeaderEdit>, Failure> {
    let edit = |edit: FieldEdit| {
        let (name, value) = match &edit {
            FieldEdit::Set(field) | FieldEdit::Add(field) => (&*field.name, &*field.value),
            FieldEdit::Remove(name) => (&**name, ""),
        };
        check_field(name, value)?;
        Ok(match edit {
            FieldEdit::Set(field) => HeaderEdit::Set(field.name, field.value),
            FieldEdit::Add(field) => HeaderEdit::Add(field.name, field.value),
            FieldEdit::Remove(name) => HeaderEdit::Remove(name),
        })
    };
    edits.into_iter().map(edit).collect()
}

fn refuse(refused: Refused) -> Result<HttpAnswer, Failure> {
    let Refused { status, kind, message } = refused;
    status.map_or(Ok(()), |status| status_within(status, 400))?;
    Ok(HttpAnswer::Refuse(Refusal { status, kind, message }))
}

fn respond(responded: Responded) -> Result<HttpAnswer, Failure> {
    let Responded { status, headers, body } = responded;
    status_within(status, 200)?;
    let field = |field: Field| check_field(&field.name, &field.value).map(|()| (field.name, field.value));
    let headers = headers.into_iter().map(field).collect::<Result<_, _>>()?;
    Ok(HttpAnswer::Respond(Response { status, headers: Headers(headers), body: body.into() }))
}

fn request_verdict(verdict: RequestVerdict) -> Result<Verdict<HttpRequest>, Failure> {
    Ok(match verdict {
        RequestVerdict::Continue(changes) => {
            changes.path.as_deref().map_or(Ok(()), check_path)?;
            let edits = RequestEdits {
                headers: header_edits(changes.headers)?,
                path: changes.path,
                body: changes.body.map(Bytes::from),
            };
            Verdict { flow: Flow::Continue, edits, attributes: attributes(changes.attributes)? }
        }
        RequestVerdict::Refuse(refused) => Verdict::stop(refuse(refused)?),
        RequestVerdict::Respond(responded) => Verdict::stop(respond(responded)?),
    })
}

fn response_verdict(verdict: ResponseVerdict) -> Result<Verdict<HttpResponse>, Failure> {
    Ok(match verdict {
        ResponseVerdict::Continue(changes) => {
            changes.status.map_or(Ok(()), |status| status_within(status, 200))?;
            let edits = ResponseEdits {
                status: changes.status,
                headers: header_edits(changes.headers)?,
                body: changes.body.map(Bytes::from),
                request_body: None,
            };
            Verdict { flow: Flow::Continue, edits, attributes: attributes(changes.attributes)? }
        }
        ResponseVerdict::Refuse(refused) => Verdict::stop(refuse(refused)?),
        ResponseVerdict::Respond(responded) => Verdict::stop(respond(responded)?),
    })
}

/// The guest's own state of the exchange, made now if need be.
async fn exchange(guest: &mut Guest, about: Circumstances<'_>) -> Result<ResourceAny, Failure> {
    if let Some(exchange) = guest.exchange {
        return Ok(exchange);
    }
    let visit = enter(guest, about);
    let exchange: ResourceAny = guest.call(BEGIN, (visit,)).await?;
    guest.exchange = Some(exchange);
    Ok(exchange)
}

/// The guest is asked no more about this exchange, or by another visit next time.
async fn let_go(guest: &mut Guest, last: Last) -> Result<(), Failure> {
    if (last == Last::Yes || !guest.keeps_exchange())
        && let Some(exchange) = guest.exchange.take()
    {
        exchange.resource_drop_async(&mut guest.store).await?;
    }
    Ok(())
}

#[derive(PartialEq, Eq)]
enum Last {
    Yes,
    No,
}

impl Ask for HttpRequest {
    fn offered(interfaces: &[Interface]) -> Option<Interface> {
        use Interface as I;
        [I::HttpExchange, I::HttpRequest, I::SmgOnRequest, I::VllmOnRequest]
            .into_iter()
            .find(|known| interfaces.contains(known))
    }

    async fn ask(
        guest: &mut Guest,
        event: &RequestEvent,
        about: Circumstances<'_>,
    ) -> Result<Verdict<Self>, Failure> {
        let verdict = if guest.has(Interface::HttpExchange) {
            let exchange = exchange(guest, about).await?;
            let visit = enter(guest, about);
            let params = (exchange, visit, Request::of(event, about));
            let verdict = guest.call(REQUEST_IN, params).await?;
            let_go(guest, Last::No).await?;
            verdict
        } else if guest.has(Interface::HttpRequest) {
            let visit = enter(guest, about);
            guest.call(REQUEST, (visit, Request::of(event, about))).await?
        } else if guest.has(Interface::SmgOnRequest) {
            return smg::on_request(guest, event, about).await;
        } else {
            return vllm::handle(guest, event, about).await;
        };
        request_verdict(said(verdict)?)
    }
}

impl Ask for HttpResponse {
    fn offered(interfaces: &[Interface]) -> Option<Interface> {
        use Interface as I;
        [I::HttpExchange, I::HttpResponse, I::SmgOnResponse]
            .into_iter()
            .find(|known| interfaces.contains(known))
    }

    async fn ask(
        guest: &mut Guest,
        event: &ResponseEvent,
        about: Circumstances<'_>,
    ) -> Result<Verdict<Self>, Failure> {
        let verdict = if guest.has(Interface::HttpExchange) {
            let exchange = exchange(guest, about).await?;
            let visit = enter(guest, about);
            let request = Request::of(&event.request, about);
            let verdict =
                guest.call(RESPONSE_IN, (exchange, visit, request, Reply::of(event, about))).await?;
            let_go(guest, Last::No).await?;
            verdict
        } else if guest.has(Interface::HttpResponse) {
            let visit = enter(guest, about);
            let request = Request::of(&event.request, about);
            guest.call(RESPONSE, (visit, request, Reply::of(event, about))).await?
        } else {
            return smg::on_response(guest, event, about).await;
        };
        response_verdict(said(verdict)?)
    }
}

impl Ask for HttpComplete {
    fn offered(interfaces: &[Interface]) -> Option<Interface> {
        use Interface as I;
        [I::HttpExchange, I::HttpComplete].into_iter().find(|known| interfaces.contains(known))
    }

    async fn ask(
        guest: &mut Guest,
        event: &CompleteEvent,
        about: Circumstances<'_>,
    ) -> Result<Verdict<Self>, Failure> {
        let done: Result<(), String> = if guest.has(Interface::HttpExchange) {
            let exchange = exchange(guest, about).await?;
            let visit = enter(guest, about);
            let request = Request::of(&event.request, about);
            let done = guest.call(COMPLETE_IN, (exchange, visit, request, Completion::from(event))).await?;
            let_go(guest, Last::Yes).await?;
            done
        } else {
            let visit = enter(guest, about);
            let request = Request::of(&event.request, about);
            guest.call(COMPLETE, (visit, request, Completion::from(event))).await?
        };
        said(done)?;
        Ok(Verdict { flow: Flow::Continue, edits: (), attributes: Attributes::new() })
    }
}
