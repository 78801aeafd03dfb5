//! What a host sends. Keys that are not known here are of later versions, and ignored.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use cardan_api::access::{AccessEvent, Identity, LoginEvent};
use cardan_api::cache::{CacheGetEvent, CacheSetEvent, CacheSubject};
use cardan_api::http::{CompleteEvent, Headers, Origin, RequestEvent, ResponseEvent};
use cardan_api::lifecycle::{LifeEvent, LifeReason, TickEvent};
use cardan_api::sql::{Node, NodeRole, QueryEvent, ResultEvent, RouteEvent};
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
    request: Option<RequestDocument<'a>>,
    #[serde(borrow)]
    response: Option<ResponseDocument<'a>>,
    complete: Option<CompleteDocument>,
    login: Option<LoginDocument>,
    access: Option<AccessDocument>,
    query: Option<QueryDocument>,
    #[serde(default)]
    nodes: Vec<NodeDocument>,
    result: Option<ResultDocument>,
    #[serde(borrow)]
    cache: Option<CacheDocument<'a>>,
    tool: Option<ToolDocument>,
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

#[derive(Deserialize)]
struct LoginDocument {
    client: String,
    username: Option<String>,
    password: Option<String>,
    database: Option<String>,
    #[serde(default)]
    headers: Map<String, Value>,
}

#[derive(Deserialize)]
struct AccessDocument {
    identity: Option<Who>,
    action: String,
    resource: String,
    client: String,
}

/// An identity, whose type refuses keys that it does not know.
#[derive(Deserialize)]
struct Who {
    user_id: String,
    username: String,
    #[serde(default)]
    roles: Vec<String>,
    tenant_id: Option<String>,
}

impl From<Who> for Identity {
    fn from(Who { user_id, username, roles, tenant_id }: Who) -> Self {
        Self { user_id, username, roles, tenant_id }
    }
}

#[derive(Deserialize)]
struct QueryDocument {
    sql: String,
    normalized: String,
    tables: Vec<String>,
    is_read_only: bool,
    client: String,
    identity: Option<Who>,
    database: Option<String>,
    branch: Option<String>,
    #[serde(default)]
    settings: BTreeMap<String, String>,
}

impl From<QueryDocument> for QueryEvent {
    fn from(query: QueryDocument) -> Self {
        Self {
            sql: query.sql,
            normalized: query.normalized,
            tables: query.tables,
            is_read_only: query.is_read_only,
            client: query.client,
            identity: query.identity.map(Into::into),
            database: query.database,
            branch: query.branch,
            settings: query.settings,
        }
    }
}

#[derive(Deserialize)]
struct NodeDocument {
    name: String,
    role: NodeRole,
    is_healthy: bool,
    lag_ms: Option<u64>,
}

#[derive(Deserialize)]
struct ResultDocument {
    is_success: bool,
    node: Option<String>,
    elapsed_us: u64,
    response_bytes: u64,
    error: Option<String>,
}

#[derive(Deserialize)]
struct CacheDocument<'a> {
    key: String,
    ttl_ms: Option<u64>,
    #[serde(default)]
    value_bytes: u64,
    #[serde(borrow)]
    value: Option<BodyDocument<'a>>,
}

#[derive(Deserialize)]
struct ToolDocument {
    name: String,
    arguments: Value,
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

/// A part of the document that belongs to the hook.
fn there<T>(part: Option<T>, name: &str) -> Result<T> {
    part.ok_or_else(|| Error::new(format_args!("the host's document has no `{name}`")))
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
        there(self.request, "request")?.event()
    }

    pub(super) fn response(self) -> Result<ResponseEvent> {
        let response = there(self.response, "response")?;
        Ok(ResponseEvent {
            request: there(self.request, "request")?.event()?,
            status: response.status,
            headers: headers(response.headers),
            body: response.body.map(BodyDocument::bytes).transpose()?,
            streamed: response.streamed,
            origin: response.origin,
        })
    }

    pub(super) fn complete(self) -> Result<CompleteEvent> {
        let complete = there(self.complete, "complete")?;
        Ok(CompleteEvent {
            request: there(self.request, "request")?.event()?,
            status: complete.status,
            sent_bytes: complete.sent_bytes,
            duration_ms: complete.duration_ms,
            aborted: complete.aborted,
        })
    }

    pub(super) fn login(self) -> Result<LoginEvent> {
        let login = there(self.login, "login")?;
        Ok(LoginEvent {
            client: login.client,
            username: login.username,
            password: login.password,
            database: login.database,
            headers: headers(login.headers),
        })
    }

    pub(super) fn access(self) -> Result<AccessEvent> {
        let access = there(self.access, "access")?;
        Ok(AccessEvent {
            identity: access.identity.map(Into::into),
            action: access.action,
            resource: access.resource,
            client: access.client,
        })
    }

    pub(super) fn query(self) -> Result<QueryEvent> {
        Ok(there(self.query, "query")?.into())
    }

    pub(super) fn route(self) -> Result<RouteEvent> {
        let node = |node: NodeDocument| Node {
            name: node.name,
            role: node.role,
            is_healthy: node.is_healthy,
            lag_ms: node.lag_ms,
        };
        let nodes = self.nodes.into_iter().map(node).collect();
        Ok(RouteEvent { query: there(self.query, "query")?.into(), nodes })
    }

    pub(super) fn result(self) -> Result<ResultEvent> {
        let result = there(self.result, "result")?;
        Ok(ResultEvent {
            query: there(self.query, "query")?.into(),
            is_success: result.is_success,
            node: result.node,
            elapsed_us: result.elapsed_us,
            response_bytes: result.response_bytes,
            error: result.error,
        })
    }

    pub(super) fn cache_get(self) -> Result<CacheGetEvent> {
        let key = there(self.cache, "cache")?.key;
        Ok(CacheGetEvent { key, subject: subject(self.request, self.query)? })
    }

    pub(super) fn cache_set(self) -> Result<CacheSetEvent> {
        let cache = there(self.cache, "cache")?;
        Ok(CacheSetEvent {
            key: cache.key,
            subject: subject(self.request, self.query)?,
            ttl_ms: cache.ttl_ms,
            value_bytes: cache.value_bytes,
            value: cache.value.map(BodyDocument::bytes).transpose()?,
        })
    }

    /// Name and arguments.
    pub(super) fn tool(self) -> Result<(String, Value)> {
        let tool = there(self.tool, "tool")?;
        Ok((tool.name, tool.arguments))
    }
}

fn subject(request: Option<RequestDocument<'_>>, query: Option<QueryDocument>) -> Result<CacheSubject> {
    match (request, query) {
        (_, Some(query)) => Ok(CacheSubject::Query(query.into())),
        (Some(request), None) => Ok(CacheSubject::Request(request.event()?)),
        (None, None) => Err(Error::new("the host's document does not say what is cached")),
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
