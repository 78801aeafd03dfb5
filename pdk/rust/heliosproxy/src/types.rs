use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What a plugin says about itself.
#[derive(Debug, Clone, Serialize)]
pub struct PluginMetadata {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The hooks it answers.
    pub hooks: Vec<HookType>,
    /// What it wants to be granted.
    pub permissions: Vec<Permission>,
}

/// A hook, in a plugin's metadata.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum HookType {
    /// Before a statement is sent.
    PreQuery,
    /// After a statement was answered.
    PostQuery,
    /// Who a client is.
    Authenticate,
    /// What a client may do.
    Authorize,
    /// Before a cache is asked.
    CacheGet,
    /// Before an answer is kept.
    CacheSet,
    /// Where a statement is sent.
    Route,
    /// A statement in other words.
    Rewrite,
    /// Measuring.
    Metrics,
}

/// Something to be granted, in a plugin's metadata.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Permission {
    /// Run statements.
    QueryExecute,
    /// Read from the cache.
    CacheRead,
    /// Write to the cache.
    CacheWrite,
    /// Send requests.
    HttpFetch,
    /// Hashes.
    Crypto,
    /// Read from the key-value store.
    KvRead,
    /// Write to the key-value store.
    KvWrite,
    /// Metrics.
    Metrics,
    /// Configuration.
    ConfigRead,
}

/// Why a plugin cannot serve, or not this time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct PluginError(String);

impl PluginError {
    /// In the plugin's words.
    pub fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

impl fmt::Display for PluginError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for PluginError {}

/// A statement.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct QueryContext {
    /// Its text.
    pub query: String,
    /// The same without literals.
    #[serde(default)]
    pub normalized: String,
    /// Tables it reads or writes; empty where nobody looked.
    #[serde(default)]
    pub tables: Vec<String>,
    /// Whether it only reads.
    #[serde(default)]
    pub is_read_only: bool,
    /// Whose it is.
    #[serde(default)]
    pub hook_context: HookContext,
}

impl QueryContext {
    /// One attribute.
    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.hook_context.attributes.get(name).map(String::as_str)
    }
}

/// Whose a statement is.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct HookContext {
    /// The same at every hook of one statement.
    #[serde(default)]
    pub request_id: String,
    /// The connection.
    #[serde(default)]
    pub client_id: Option<String>,
    /// Who the client is.
    #[serde(default)]
    pub identity: Option<String>,
    /// The database.
    #[serde(default)]
    pub database: Option<String>,
    /// Its branch.
    #[serde(default)]
    pub branch: Option<String>,
    /// What the client, the host and other plugins have said.
    #[serde(default)]
    pub attributes: BTreeMap<String, String>,
}

/// What came of a statement.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct QueryResult {
    /// Whether it was carried out.
    #[serde(default)]
    pub success: bool,
    /// Which node answered.
    #[serde(default)]
    pub target_node: Option<String>,
    /// How long it took.
    #[serde(default)]
    pub elapsed_us: u64,
    /// Size of the answer.
    #[serde(default)]
    pub response_bytes: u64,
    /// Why it failed.
    #[serde(default)]
    pub error: Option<String>,
}

/// What becomes of a statement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "action", content = "value", rename_all = "snake_case")]
pub enum PreQueryResult {
    /// It is sent.
    Continue,
    /// Another one is sent.
    Rewrite(String),
    /// It is refused, and why.
    Block(String),
}

/// Where a statement is sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "action", rename_all = "snake_case")]
pub enum RouteResult {
    /// Where the host sends it.
    Default,
    /// To a node that takes writes.
    Primary,
    /// To a node that only reads.
    Standby,
    /// To the node of this name.
    Node {
        /// The name.
        target: String,
    },
    /// To a branch of the database.
    Branch {
        /// The name.
        target: String,
    },
    /// Nowhere.
    Block {
        /// Why.
        reason: String,
    },
}

/// A client that wants to be let in.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct AuthRequest {
    /// Header fields, or startup parameters.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// The name it gives itself.
    #[serde(default)]
    pub username: Option<String>,
    /// In clear text, where the protocol brings it so.
    #[serde(default)]
    pub password: Option<String>,
    /// Its address.
    #[serde(default)]
    pub client_ip: String,
    /// The database it wants.
    #[serde(default)]
    pub database: Option<String>,
}

impl AuthRequest {
    /// A header field, whose name compares without regard to case. Where it is missing, `?` denies.
    pub fn header(&self, name: &str) -> Result<String, AuthError> {
        let found = self.headers.iter().find(|(have, _)| have.eq_ignore_ascii_case(name));
        match found {
            Some((_, value)) => Ok(value.clone()),
            None => Err(AuthError::Denied(format!("the header {name} is missing"))),
        }
    }
}

/// Who a client is. Both members are JSON, as services answer: text, and a list of texts.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Identity {
    /// What never changes about it.
    pub user_id: Value,
    /// What it is trusted with.
    pub roles: Value,
}

/// Who a client is, or why nobody says so. `?` works in functions that return it.
pub type AuthResult = Result<Identity, AuthError>;

/// Why nobody says who a client is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuthError {
    /// It is not let in, and why.
    Denied(String),
    /// Others are to say.
    Defer,
    /// The plugin could not find out: a fault.
    Failed(String),
}

impl From<PluginError> for AuthError {
    fn from(error: PluginError) -> Self {
        Self::Failed(error.to_string())
    }
}

/// The names that the documents have for what [`AuthResult`] can be.
#[expect(non_snake_case, reason = "they stand for variants")]
pub trait AuthOutcome: Sized {
    /// This is who it is.
    fn Success(identity: Identity) -> Self;

    /// It is not let in, and why.
    fn Denied(message: impl Into<String>) -> Self;

    /// Others are to say.
    fn Defer() -> Self;
}

impl AuthOutcome for AuthResult {
    fn Success(identity: Identity) -> Self {
        Ok(identity)
    }

    fn Denied(message: impl Into<String>) -> Self {
        Err(AuthError::Denied(message.into()))
    }

    fn Defer() -> Self {
        Err(AuthError::Defer)
    }
}

/// A client that wants to do something.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct AuthorizeRequest {
    /// What: `connect`, `read`, `write`, or a method.
    pub action: String,
    /// What to: a database, a table, a path.
    pub resource: String,
    /// Whose it is.
    #[serde(default)]
    pub hook_context: HookContext,
}

/// Whether a client may do something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "action", content = "message", rename_all = "snake_case")]
pub enum AuthorizeResult {
    /// It may.
    Allow,
    /// It may not, and why.
    Deny(String),
    /// Others are to say.
    Defer,
}

/// How important a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// Every step.
    Trace,
    /// What helps to find a fault.
    Debug,
    /// What operators want to know.
    Info,
    /// What operators should look at.
    Warn,
    /// What failed.
    Error,
}
