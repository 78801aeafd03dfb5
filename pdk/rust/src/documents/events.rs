//! What a host sends. Keys that are not known here are of later versions, and ignored.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use cardan_api::http::{CompleteEvent, Headers, Origin, RequestEvent, ResponseEvent};
use cardan_api::lifecycle::{LifeEvent, LifeReason, TickEvent};
use cardan_api::{Attributes, Phase};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::{Config, Error, Result, Visit};

/// At a hook of an exchange.
#[derive(Deserialize)]
pub(super) struct Asked<'a> {
    phase: Phase,
    visit: VisitDocument,
    #[serde(borrow)]
    config: Option<&'a RawValue>,
    #[serde(default)]
    attributes: Attributes,
    #[serde(borrow)]
    request: RequestDocument<'a>,
    #[serde(borrow)]
    response: Option<ResponseDocument<'a>>,
    complete: Option<CompleteDocument>,
}

#[derive(Deserialize)]
struct VisitDocument {
    id: String,
    session: String,
}

#[derive(Deserialize)]
struct RequestDocument<'a> {
    method: String,
    host: String,
    path: String,
    query: Option<String>,
    client: String,
    headers: Map<String, Value>,
    #[serde(borrow)]
    body: Option<BodyDocument<'a>>,
}

#[derive(Deserialize)]
struct ResponseDocument<'a> {
    status: u16,
    headers: Map<String, Value>,
    streamed: bool,
    origin: Origin,
    #[serde(borrow)]
    body: Option<BodyDocument<'a>>,
}

#[derive(Deserialize)]
struct CompleteDocument {
    status: Option<u16>,
    sent_bytes: u64,
    duration_ms: u64,
    aborted: bool,
}

/// A body: exactly one of the three.
#[derive(Deserialize)]
struct BodyDocument<'a> {
    #[serde(borrow, default, deserialize_with = "present")]
    json: Option<&'a RawValue>,
    text: Option<String>,
    base64: Option<String>,
}

/// A value that is there, `null` included.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

fn parse_config(text: Option<&RawValue>) -> Result<Config> {
    Config::parse(text.map(RawValue::get).unwrap_or_default())
}

impl<'a> Asked<'a> {
    /// The visit, and the configuration, which is read only if the plugin has to be made.
    pub(super) fn circumstances(&self) -> (Visit, impl FnOnce() -> Result<Config> + use<'a>) {
        let visit = Visit {
            id: self.visit.id.clone(),
            session: self.visit.session.clone(),
            phase: self.phase,
            attributes: self.attributes.clone(),
        };
        let config = self.config;
        (visit, move || parse_config(config))
    }

    pub(super) fn request(self) -> Result<RequestEvent> {
        self.request.event()
    }

    pub(super) fn response(self) -> Result<ResponseEvent> {
        let Some(response) = self.response else {
            return Err(Error::new("the host's document has no response"));
        };
        Ok(ResponseEvent {
            request: self.request.event()?,
            status: response.status,
            headers: headers(response.headers),
            body: response.body.map(BodyDocument::bytes).transpose()?,
            streamed: response.streamed,
            origin: response.origin,
        })
    }

    pub(super) fn complete(self) -> Result<CompleteEvent> {
        let Some(complete) = self.complete else {
            return Err(Error::new("the host's document does not say how the exchange ended"));
        };
        Ok(CompleteEvent {
            request: self.request.event()?,
            status: complete.status,
            sent_bytes: complete.sent_bytes,
            duration_ms: complete.duration_ms,
            aborted: complete.aborted,
        })
    }
}

impl RequestDocument<'_> {
    fn event(self) -> Result<RequestEvent> {
        Ok(RequestEvent {
            method: self.method,
            host: self.host,
            path: self.path,
            query: self.query,
            client: self.client,
            headers: headers(self.headers),
            body: self.body.map(BodyDocument::bytes).transpose()?,
        })
    }
}

fn headers(fields: Map<String, Value>) -> Headers {
    let text = |(name, value)| match value {
        Value::String(value) => (name, value),
        other => (name, other.to_string()),
    };
    Headers(fields.into_iter().map(text).collect())
}

impl BodyDocument<'_> {
    fn bytes(self) -> Result<Bytes> {
        match (self.json, self.text, self.base64) {
            (Some(json), None, None) => Ok(Bytes::copy_from_slice(json.get().as_bytes())),
            (None, Some(text), None) => Ok(text.into()),
            (None, None, Some(base64)) => Ok(STANDARD.decode(base64)?.into()),
            _ => Err(Error::new("a body in the host's document has none, or two, of json, text and base64")),
        }
    }
}

/// At a hook of the plugin's own life.
#[derive(Deserialize)]
pub(super) struct Life<'a> {
    plugin: PluginDocument,
    #[serde(default)]
    reason: LifeReason,
    #[serde(borrow)]
    config: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct PluginDocument {
    name: String,
    version: String,
}

impl<'a> Life<'a> {
    pub(super) fn config(&self) -> impl FnOnce() -> Result<Config> + use<'a> {
        let config = self.config;
        move || parse_config(config)
    }

    pub(super) fn event(&self) -> LifeEvent {
        let PluginDocument { name, version } = &self.plugin;
        LifeEvent { plugin: name.clone(), version: version.clone(), reason: self.reason }
    }

    pub(super) fn tick(&self) -> TickEvent {
        let PluginDocument { name, version } = &self.plugin;
        TickEvent { plugin: name.clone(), version: version.clone() }
    }
}
