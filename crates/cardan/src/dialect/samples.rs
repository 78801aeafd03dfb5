//! Events for the dialects' tests.

use std::collections::BTreeMap;

use bytes::Bytes;
use cardan_api::access::{AccessEvent, Identity, LoginEvent};
use cardan_api::cache::{CacheGetEvent, CacheSetEvent, CacheSubject};
use cardan_api::http::{CompleteEvent, Headers, Origin, RequestEvent, ResponseEvent};
use cardan_api::lifecycle::{LifeEvent, LifeReason};
use cardan_api::sql::{Node, NodeRole, QueryEvent, ResultEvent, RouteEvent};
use cardan_api::tool::ToolCallEvent;
use cardan_api::{Attributes, BodyNeed, Hook, Phase, Verdict};
use serde_json::{Value, json};

use super::{Circumstances, Malformed};

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

pub(super) fn identity() -> Identity {
    Identity {
        user_id: "u-7".to_owned(),
        username: "alice".to_owned(),
        roles: vec!["reader".to_owned(), "auditor".to_owned()],
        tenant_id: Some("acme".to_owned()),
    }
}

pub(super) fn login() -> LoginEvent {
    LoginEvent {
        client: "192.0.2.1:4711".to_owned(),
        username: Some("alice".to_owned()),
        password: Some("s3cret".to_owned()),
        database: Some("shop".to_owned()),
        headers: Headers(vec![("X-Custom-Token".to_owned(), "t".to_owned())]),
    }
}

pub(super) fn access() -> AccessEvent {
    AccessEvent {
        identity: Some(identity()),
        action: "write".to_owned(),
        resource: "orders".to_owned(),
        client: "[2001:db8::1]:4711".to_owned(),
    }
}

pub(super) fn query() -> QueryEvent {
    let settings = [
        ("application_name", "chatbot"),
        ("helios.region", "eu"),
        ("identity.roles", "admin"),
        ("search_path", "public"),
        ("tenant_id", "forged"),
    ];
    QueryEvent {
        sql: "SELECT \"a\" FROM events WHERE note = 'x\\n'".to_owned(),
        normalized: "SELECT \"a\" FROM events WHERE note = $1".to_owned(),
        tables: vec!["events".to_owned()],
        is_read_only: true,
        client: "192.0.2.1:4711".to_owned(),
        identity: Some(identity()),
        database: Some("shop".to_owned()),
        branch: None,
        settings: BTreeMap::from(settings.map(|(name, value)| (name.to_owned(), value.to_owned()))),
    }
}

pub(super) fn route() -> RouteEvent {
    let node = |name: &str, role, lag_ms| Node {
        name: name.to_owned(),
        role,
        is_healthy: lag_ms != Some(900),
        lag_ms,
    };
    RouteEvent {
        query: query(),
        nodes: vec![
            node("pg-1", NodeRole::Primary, None),
            node("pg-2", NodeRole::Standby, Some(12)),
            node("pg-3", NodeRole::Standby, Some(900)),
        ],
    }
}

pub(super) fn result() -> ResultEvent {
    ResultEvent {
        query: query(),
        is_success: false,
        node: Some("pg-2".to_owned()),
        elapsed_us: 1234,
        response_bytes: 64,
        error: Some("relation \"events\" does not exist".to_owned()),
    }
}

pub(super) fn cache_get(subject: CacheSubject) -> CacheGetEvent {
    CacheGetEvent { key: "k-1".to_owned(), subject }
}

pub(super) fn cache_set(subject: CacheSubject) -> CacheSetEvent {
    CacheSetEvent {
        key: "k-1".to_owned(),
        subject,
        ttl_ms: Some(60_000),
        value_bytes: 10,
        value: Some(Bytes::from_static(br#"{"id":"x"}"#)),
    }
}

pub(super) fn tool_call(tool: &str, arguments: &'static str) -> ToolCallEvent {
    ToolCallEvent { tool: tool.to_owned(), arguments: Bytes::from_static(arguments.as_bytes()) }
}

pub(super) fn life() -> LifeEvent {
    LifeEvent { plugin: "mask".to_owned(), version: "1.0.0".to_owned(), reason: LifeReason::Reload }
}

/// What a verdict means, in a line.
pub(super) fn told<H: Hook>(read: Result<Verdict<H>, Malformed>) -> String {
    let verdict = match read {
        Ok(verdict) => verdict,
        // The columns that serde names say nothing in a document of one line.
        Err(why) => return format!("malformed: {}", why.0.split(" at line ").next().unwrap_or_default()),
    };
    let mut told = format!("{:?}", verdict.flow);
    let edits = format!("{:?}", verdict.edits);
    if edits != format!("{:?}", H::Edits::default()) {
        told.push_str("; ");
        told.push_str(&edits);
    }
    told.extend(verdict.attributes.iter().map(|(name, value)| format!("; attribute {name} {value}")));
    told
}
