//! Events for the dialects' tests.

use bytes::Bytes;
use cardan_api::http::{CompleteEvent, Headers, Origin, RequestEvent, ResponseEvent};
use cardan_api::{Attributes, BodyNeed, Phase};
use serde_json::{Value, json};

use super::Circumstances;

/// What a plugin is told beside the event, owned.
pub(super) struct About {
    pub(super) attributes: Attributes,
    pub(super) config: Value,
}

impl About {
    pub(super) fn sample() -> Self {
        let Value::Object(attributes) = json!({"user": "alice", "req_id": "forged"}) else {
            unreachable!("an object")
        };
        Self { attributes, config: json!({"my_setting": "v"}) }
    }

    pub(super) fn at(&self, phase: Phase, body: BodyNeed) -> Circumstances<'_> {
        Circumstances {
            phase,
            body,
            visit: "0123456789abcdef",
            session: "default",
            attributes: &self.attributes,
            config: &self.config,
        }
    }
}

pub(super) fn request(body: Option<&'static [u8]>) -> RequestEvent {
    let fields = [
        ("Content-Type", "application/json"),
        ("accept", "text/html"),
        ("x-quoted", "a \"b\" \\c"),
        ("Accept", "*/*;q=0.1"),
    ];
    RequestEvent {
        method: "POST".to_owned(),
        host: "api.example".to_owned(),
        path: "/v1/chat/completions".to_owned(),
        query: Some("beta=true".to_owned()),
        client: "192.0.2.1:4711".to_owned(),
        headers: Headers(fields.map(|(name, value)| (name.to_owned(), value.to_owned())).into()),
        body: body.map(Bytes::from_static),
    }
}

pub(super) fn response(body: Option<&'static [u8]>) -> ResponseEvent {
    ResponseEvent {
        request: request(Some(br#"{"model":"m","messages":[]}"#)),
        status: 200,
        headers: Headers(vec![("content-type".to_owned(), "application/json".to_owned())]),
        body: body.map(Bytes::from_static),
        streamed: true,
        origin: Origin::Upstream,
    }
}

pub(super) fn complete() -> CompleteEvent {
    CompleteEvent {
        request: request(Some(br#"{"model":"m","messages":[]}"#)),
        status: Some(200),
        sent_bytes: 512,
        duration_ms: 34,
        aborted: false,
    }
}
