//! Both hooks of an HTTP exchange, seen alike.

use bytes::Bytes;
use cardan::api::http::{
    Headers, HttpAnswer, HttpRequest, HttpResponse, Origin, RequestEdits, RequestEvent, ResponseEdits,
    ResponseEvent,
};
use cardan::api::{Flow, Hook, Phase, Verdict};
use cardan::dialect::Spoken;

pub(crate) trait Exchange:
    Spoken + Hook<Answer = HttpAnswer, Event: Clone + PartialEq + std::fmt::Debug>
{
    /// The export of Cardan's dialect.
    const ENTRY: &'static str;
    const PHASE: Phase;

    /// With these header fields on either side.
    fn event(path: &str, fields: &[(&str, &str)], body: &[u8]) -> Self::Event;
    fn headers(event: &Self::Event) -> &Headers;
    fn body(event: &Self::Event) -> &[u8];
    /// What is to become of the body of the request.
    fn request_body(edits: &Self::Edits) -> Option<&Bytes>;

    /// The event as the next plugin, and in the end the host, sees it.
    fn applied(event: &Self::Event, verdict: Verdict<Self>) -> Self::Event {
        assert_eq!(verdict.flow, Flow::Continue);
        let mut event = event.clone();
        Self::apply(&mut event, verdict.edits);
        event
    }

    fn stopped(verdict: Verdict<Self>) -> HttpAnswer {
        match verdict.flow {
            Flow::Stop(answer) => answer,
            Flow::Continue => panic!("expected an answer, and it goes on with {:?}", verdict.edits),
        }
    }
}

fn headers(fields: &[(&str, &str)]) -> Headers {
    let given = [("accept", "text/plain"), ("x-remove", "1")];
    let all = given.iter().chain(fields);
    Headers(all.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
}

impl Exchange for HttpRequest {
    const ENTRY: &'static str = "http_request";
    const PHASE: Phase = Phase::PreFlight;

    fn event(path: &str, fields: &[(&str, &str)], body: &[u8]) -> RequestEvent {
        RequestEvent {
            method: "POST".to_owned(),
            host: "api.example".to_owned(),
            path: path.to_owned(),
            query: None,
            client: "192.0.2.1:4711".to_owned(),
            headers: headers(fields),
            body: Some(Bytes::copy_from_slice(body)),
        }
    }

    fn headers(event: &RequestEvent) -> &Headers {
        &event.headers
    }

    fn body(event: &RequestEvent) -> &[u8] {
        event.body.as_deref().unwrap()
    }

    fn request_body(edits: &RequestEdits) -> Option<&Bytes> {
        edits.body.as_ref()
    }
}

impl Exchange for HttpResponse {
    const ENTRY: &'static str = "http_response";
    const PHASE: Phase = Phase::PostFlight;

    fn event(path: &str, fields: &[(&str, &str)], body: &[u8]) -> ResponseEvent {
        ResponseEvent {
            request: HttpRequest::event(path, fields, b"{}"),
            status: 200,
            headers: headers(fields),
            body: Some(Bytes::copy_from_slice(body)),
            streamed: false,
            origin: Origin::Upstream,
        }
    }

    fn headers(event: &ResponseEvent) -> &Headers {
        &event.headers
    }

    fn body(event: &ResponseEvent) -> &[u8] {
        event.body.as_deref().unwrap()
    }

    fn request_body(edits: &ResponseEdits) -> Option<&Bytes> {
        edits.request_body.as_ref()
    }
}
