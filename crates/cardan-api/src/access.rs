//! Who a client is, and what it may do: for HTTP and SQL alike.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::fault::FaultPolicy;
use crate::hook::Hook;
use crate::http::Headers;

/// `access.authenticate`: a client says who it is, before anything is done for it.
#[derive(Debug)]
pub struct AccessAuthenticate;

/// `access.authorize`: a client whose identity is settled wants to do something.
#[derive(Debug)]
pub struct AccessAuthorize;

/// Who a client is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// What never changes about it.
    pub user_id: String,
    /// What people call it.
    pub username: String,
    /// What it is trusted with.
    #[serde(default)]
    pub roles: Vec<String>,
    /// The customer it belongs to.
    #[serde(default)]
    pub tenant_id: Option<String>,
}

/// What `access.authenticate` plugins are shown.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct LoginEvent {
    /// Address and port of the peer.
    pub client: String,
    /// The name the client gives itself.
    pub username: Option<String>,
    /// In clear text, where the protocol brings it so.
    pub password: Option<String>,
    /// The database it wants to be connected to.
    pub database: Option<String>,
    /// The request's header fields; of a database connection, its startup parameters.
    pub headers: Headers,
}

// By hand: what is logged must not hold passwords, nor tokens in header fields.
impl std::fmt::Debug for LoginEvent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LoginEvent")
            .field("client", &self.client)
            .field("username", &self.username)
            .field("database", &self.database)
            .finish_non_exhaustive()
    }
}

/// What an `access.authenticate` plugin may answer. One that continues leaves it to the next, and in the end to the
/// host's own way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LoginAnswer {
    /// This is who it is; nobody else is asked.
    Identity(Identity),
    /// It is not who it says.
    Deny(Denial),
}

/// A refusal of access, in a plugin's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denial {
    /// For the client's eyes.
    pub message: String,
}

/// What `access.authorize` plugins are shown.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AccessEvent {
    /// Who wants to do it; `None` where nobody has said who the client is.
    pub identity: Option<Identity>,
    /// What it wants to do: `connect`, `read` or `write` for SQL, the method in lower case for HTTP.
    pub action: String,
    /// What it wants to do it to: a database, a table, a path.
    pub resource: String,
    /// Address and port of the peer.
    pub client: String,
}

/// What an `access.authorize` plugin may answer. One that continues has no objection, and leaves it to the next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccessAnswer {
    /// It may; nobody else is asked.
    Allow,
    /// It may not.
    Deny(Denial),
}

impl Hook for AccessAuthenticate {
    const NAME: &'static str = "access.authenticate";
    const ON_FAULT: FaultPolicy = FaultPolicy::Refuse;
    type Event = LoginEvent;
    type Answer = LoginAnswer;
    type Edits = ();

    fn apply(_event: &mut LoginEvent, _edits: ()) {}
}

impl Hook for AccessAuthorize {
    const NAME: &'static str = "access.authorize";
    const ON_FAULT: FaultPolicy = FaultPolicy::Refuse;
    type Event = AccessEvent;
    type Answer = AccessAnswer;
    type Edits = ();

    fn apply(_event: &mut AccessEvent, _edits: ()) {}
}
