//! The SQL hooks: a statement before it is sent, where it is sent, and what came of it.

use std::collections::BTreeMap;
use std::convert::Infallible;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::access::Identity;
use crate::fault::FaultPolicy;
use crate::hook::Hook;

/// `sql.query`: a statement has arrived, as a simple query or to be prepared.
#[derive(Debug)]
pub struct SqlQuery;

/// `sql.route`: a statement is about to be sent to one of several nodes.
#[derive(Debug)]
pub struct SqlRoute;

/// `sql.result`: a statement has been answered. Observers only.
#[derive(Debug)]
pub struct SqlResult;

/// What `sql.query` plugins are shown.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct QueryEvent {
    /// The statement, after all edits so far.
    pub sql: String,
    /// The same with its literals taken out, so that statements of one shape are alike.
    pub normalized: String,
    /// Names of tables it reads or writes, as they are spelt in it; empty where nobody looked.
    pub tables: Vec<String>,
    /// Whether it only reads, as far as its text tells.
    pub is_read_only: bool,
    /// Address and port of the peer.
    pub client: String,
    /// Who the client is; `None` where nobody has said so.
    pub identity: Option<Identity>,
    /// The database it is connected to.
    pub database: Option<String>,
    /// The branch of the database, where it has any.
    pub branch: Option<String>,
    /// What the client has said about its connection: `application_name` and settings. Nobody has checked it.
    pub settings: BTreeMap<String, String>,
}

/// What a `sql.query` plugin may change.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct QueryEdits {
    /// A new statement.
    pub sql: Option<String>,
}

/// What a `sql.query` plugin may put in place of a database's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QueryAnswer {
    /// A result.
    Rows(Rows),
    /// An error.
    Refuse(SqlRefusal),
}

/// A refusal in a plugin's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SqlRefusal {
    /// Five digits and capital letters; `None` leaves it to the host, which says `42000`.
    pub sqlstate: Option<String>,
    /// For the client's eyes.
    pub message: String,
}

/// A whole result, in text.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rows {
    /// At least one.
    #[schemars(length(min = 1))]
    pub columns: Vec<Column>,
    /// Each as long as there are columns; `None` is NULL.
    pub rows: Vec<Vec<Option<String>>>,
}

/// A column of a result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// PostgreSQL's number of its type; 25, `text`, unless said otherwise.
    #[serde(default = "Column::text")]
    pub oid: u32,
}

impl Column {
    /// PostgreSQL's number of the type `text`.
    pub const TEXT: u32 = 25;

    fn text() -> u32 {
        Self::TEXT
    }
}

/// What `sql.route` plugins are shown.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RouteEvent {
    /// The statement, as it will be sent.
    pub query: QueryEvent,
    /// Where it can be sent.
    pub nodes: Vec<Node>,
}

/// A database server that the host knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Node {
    /// Its name in the configuration.
    pub name: String,
    /// What it is for.
    pub role: NodeRole,
    /// Whether it takes statements at this moment.
    pub is_healthy: bool,
    /// How far it is behind its primary, in milliseconds, where that is known.
    pub lag_ms: Option<u64>,
}

/// What a node is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum NodeRole {
    /// It takes writes.
    Primary,
    /// It follows a primary, and only reads.
    Standby,
}

/// Where a `sql.route` plugin wants a statement sent. One that continues leaves it to the next, and in the end to
/// the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RouteAnswer {
    /// To any node of this role.
    Role(NodeRole),
    /// To this one, of those it was shown.
    Node(String),
    /// To this branch of the database.
    Branch(String),
    /// Nowhere.
    Refuse(SqlRefusal),
}

/// What `sql.result` plugins are shown.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ResultEvent {
    /// The statement, as it was sent.
    pub query: QueryEvent,
    /// Whether it was carried out.
    pub is_success: bool,
    /// Which node answered; `None` where the host or a plugin did.
    pub node: Option<String>,
    /// From the statement's arrival to the last byte of its answer.
    pub elapsed_us: u64,
    /// Bytes of answer the client was sent.
    pub response_bytes: u64,
    /// The database's words, where it failed.
    pub error: Option<String>,
}

impl Hook for SqlQuery {
    const NAME: &'static str = "sql.query";
    const ON_FAULT: FaultPolicy = FaultPolicy::Refuse;
    type Event = QueryEvent;
    type Answer = QueryAnswer;
    type Edits = QueryEdits;

    /// What was found out about the old statement is not known of a new one: a host that can look does so again
    /// before it asks on, and until then nothing is claimed.
    fn apply(event: &mut QueryEvent, edits: QueryEdits) {
        if let Some(sql) = edits.sql {
            event.normalized.clone_from(&sql);
            event.sql = sql;
            event.tables.clear();
            event.is_read_only = false;
        }
    }
}

impl Hook for SqlRoute {
    const NAME: &'static str = "sql.route";
    const ON_FAULT: FaultPolicy = FaultPolicy::Skip;
    type Event = RouteEvent;
    type Answer = RouteAnswer;
    type Edits = ();

    fn apply(_event: &mut RouteEvent, _edits: ()) {}
}

impl Hook for SqlResult {
    const NAME: &'static str = "sql.result";
    const ON_FAULT: FaultPolicy = FaultPolicy::Skip;
    type Event = ResultEvent;
    type Answer = Infallible;
    type Edits = ();

    fn apply(_event: &mut ResultEvent, _edits: ()) {}
}
