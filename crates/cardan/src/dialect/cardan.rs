//! Cardan's own documents.
//!
//! One export for each hook, named like it with `_` for `.`; one event document in, one verdict document
//! out. The types here are the contract: the JSON Schemas in `docs/schema` are generated from them.

use cardan_api::sql::Node;
use cardan_api::{Attributes, Hook, Phase};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use super::Circumstances;

pub(super) mod access;
mod body;
pub(super) mod cache;
pub(crate) mod http;
pub(super) mod life;
pub(super) mod sql;
#[cfg(test)]
mod tests;
pub(super) mod tool;
pub(super) mod verdict;

/// The export that answers `http.request`.
pub const REQUEST: &str = "http_request";
/// The export that answers `http.response`.
pub const RESPONSE: &str = "http_response";
/// The export that answers `http.complete`.
pub const COMPLETE: &str = "http_complete";
/// The export that answers `access.authenticate`.
pub const AUTHENTICATE: &str = "access_authenticate";
/// The export that answers `access.authorize`.
pub const AUTHORIZE: &str = "access_authorize";
/// The export that answers `cache.get`.
pub const CACHE_GET: &str = "cache_get";
/// The export that answers `cache.set`.
pub const CACHE_SET: &str = "cache_set";
/// The export that answers `sql.query`.
pub const QUERY: &str = "sql_query";
/// The export that answers `sql.route`.
pub const ROUTE: &str = "sql_route";
/// The export that answers `sql.result`.
pub const RESULT: &str = "sql_result";
/// The export that answers `tool.list`.
pub const TOOL_LIST: &str = "tool_list";
/// The export that answers `tool.call`.
pub const TOOL_CALL: &str = "tool_call";
/// The export that answers `plugin.load`.
pub const LOAD: &str = "plugin_load";
/// The export that answers `plugin.unload`.
pub const UNLOAD: &str = "plugin_unload";
/// The export that answers `plugin.tick`.
pub const TICK: &str = "plugin_tick";

/// What a plugin is given. Each hook has its own of the keys below `attributes`.
#[derive(Serialize, JsonSchema)]
#[schemars(title = "Cardan event document")]
struct EventDocument<'a> {
    /// The hook's name, for instance `http.request`.
    hook: &'static str,
    /// Where in the hook's chain the plugin is bound.
    phase: Phase,
    visit: VisitDocument<'a>,
    /// The binding's configuration.
    config: &'a Value,
    /// What plugins of this visit have set so far.
    attributes: &'a Attributes,
    /// At `http.*`; at `cache.*` what the answer is for, where that is a request.
    #[serde(skip_serializing_if = "Option::is_none")]
    request: Option<http::RequestDocument<'a>>,
    /// At `http.response`.
    #[serde(skip_serializing_if = "Option::is_none")]
    response: Option<http::ResponseDocument<'a>>,
    /// At `http.complete`.
    #[serde(skip_serializing_if = "Option::is_none")]
    complete: Option<http::CompleteDocument>,
    /// At `access.authenticate`.
    #[serde(skip_serializing_if = "Option::is_none")]
    login: Option<access::LoginDocument<'a>>,
    /// At `access.authorize`.
    #[serde(skip_serializing_if = "Option::is_none")]
    access: Option<access::AccessDocument<'a>>,
    /// At `sql.*`; at `cache.*` what the answer is for, where that is a statement.
    #[serde(skip_serializing_if = "Option::is_none")]
    query: Option<sql::QueryDocument<'a>>,
    /// At `sql.route`: where the statement can be sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    nodes: Option<&'a [Node]>,
    /// At `sql.result`.
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<sql::ResultDocument<'a>>,
    /// At `cache.*`.
    #[serde(skip_serializing_if = "Option::is_none")]
    cache: Option<cache::CacheDocument<'a>>,
    /// At `tool.call`.
    #[serde(skip_serializing_if = "Option::is_none")]
    tool: Option<tool::ToolDocument<'a>>,
}

/// The request or session that all hooks of a visit belong to.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Visit")]
struct VisitDocument<'a> {
    /// The same at every hook, and in the header `x-request-id`.
    id: &'a str,
    /// The client's session, `default` when unknown.
    session: &'a str,
}

/// What every hook has in common.
fn document<H: Hook>(about: Circumstances<'_>) -> EventDocument<'_> {
    EventDocument {
        hook: H::NAME,
        phase: about.phase,
        visit: VisitDocument { id: about.visit, session: about.session },
        config: about.config,
        attributes: about.attributes,
        request: None,
        response: None,
        complete: None,
        login: None,
        access: None,
        query: None,
        nodes: None,
        result: None,
        cache: None,
        tool: None,
    }
}

/// The JSON Schemas of the documents, generated from the types above: file name in `docs/schema`, and text.
pub fn schemas() -> [(&'static str, String); 3] {
    let text = |schema: schemars::Schema| format!("{:#}\n", schema.as_value());
    [
        ("event.schema.json", text(schemars::schema_for!(EventDocument<'static>))),
        ("verdict.schema.json", text(schemars::schema_for!(verdict::VerdictDocument))),
        ("life.schema.json", text(schemars::schema_for!(life::LifeDocument<'static>))),
    ]
}
