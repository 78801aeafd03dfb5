//! What a host shows.

use cardan_api::http::{CompleteEvent, Headers, Origin, RequestEvent, ResponseEvent};
use cardan_api::{Attributes, Phase};

use super::imports::cardan::plugin::http_types::{Completion, Origin as OriginCase, Request, Response};
use super::imports::cardan::plugin::types::{self, Field};
use crate::{Error, Result, Visit};

pub(super) fn visit(visit: &types::Visit) -> Result<Visit> {
    let mut attributes = Attributes::new();
    for attribute in visit.attributes() {
        let value = serde_json::from_str(&attribute.value)
            .map_err(|error| Error::new(format_args!("the attribute {:?}: {error}", attribute.name)))?;
        attributes.insert(attribute.name, value);
    }
    let phase = match visit.phase() {
        types::Phase::Ingress => Phase::Ingress,
        types::Phase::PreFlight => Phase::PreFlight,
        types::Phase::Routing => Phase::Routing,
        types::Phase::PostFlight => Phase::PostFlight,
        types::Phase::Background => Phase::Background,
    };
    Ok(Visit { id: visit.id(), session: visit.session(), phase, attributes })
}

pub(super) fn headers(fields: Vec<Field>) -> Headers {
    Headers(fields.into_iter().map(|field| (field.name, field.value)).collect())
}

pub(super) fn request(request: Request) -> RequestEvent {
    RequestEvent {
        method: request.method,
        host: request.host,
        path: request.path,
        query: request.query,
        client: request.client,
        headers: headers(request.headers),
        body: request.body.map(Into::into),
    }
}

pub(super) fn response(of: Request, response: Response) -> ResponseEvent {
    ResponseEvent {
        request: request(of),
        status: response.status,
        headers: headers(response.headers),
        body: response.body.map(Into::into),
        streamed: response.streamed,
        origin: match response.origin {
            OriginCase::Upstream => Origin::Upstream,
            OriginCase::Plugin => Origin::Plugin,
            OriginCase::Host => Origin::Host,
        },
    }
}

pub(super) fn completion(of: Request, completion: Completion) -> CompleteEvent {
    CompleteEvent {
        request: request(of),
        status: completion.status,
        sent_bytes: completion.sent_bytes,
        duration_ms: completion.duration_ms,
        aborted: completion.aborted,
    }
}
