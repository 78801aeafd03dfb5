//! HeliosProxy's documents, all spellings that its host, its guest crate and its documentation use.
//!
//! A plugin decides: the tag is `action` or `kind`, in any letter case, and nothing at all is the default outcome.
//! Where the original takes what it cannot read for consent, we call it malformed and let the binding's fault
//! policy decide.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use cardan_api::access::Identity;
use cardan_api::http::{CompleteEvent, RequestEvent};
use cardan_api::sql::{QueryEvent, ResultEvent};
use cardan_api::{Attributes, Hook, Verdict};
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::fields::Fields;
use super::{Circumstances, Malformed, write};

pub(super) mod access;
pub(super) mod cache;
pub(super) mod life;
pub(super) mod sql;
#[cfg(test)]
mod tests;
pub(super) mod tool;

/// The export that answers `sql.query`.
pub const PRE_QUERY: &str = "pre_query";
/// The export that is asked at `sql.query` after [`PRE_QUERY`], or where that is not there.
pub const REWRITE: &str = "rewrite";
/// The export that answers `sql.route`.
pub const ROUTE: &str = "route";
/// The export that answers `sql.result`.
pub const POST_QUERY: &str = "post_query";
/// The export that is asked at `sql.result` after [`POST_QUERY`], or where that is not there, and at
/// `http.complete`.
pub const METRICS: &str = "metrics";
/// The export that answers `access.authenticate`.
pub const AUTHENTICATE: &str = "authenticate";
/// The export that answers `access.authorize`.
pub const AUTHORIZE: &str = "authorize";
/// The export that answers `cache.get`.
pub const CACHE_GET: &str = "cache_get";
/// The export that answers `cache.set`.
pub const CACHE_SET: &str = "cache_set";
/// The export that answers `tool.list`.
pub const LIST_TOOLS: &str = "list_tools";
/// The export that answers `tool.call`.
pub const EXECUTE_TOOL: &str = "execute_tool";
/// The export that answers `plugin.load`.
pub const ON_LOAD: &str = "on_load";
/// The export that answers `plugin.unload`.
pub const ON_UNLOAD: &str = "on_unload";

/// A statement, as `pre_query` and most others are shown it.
#[derive(Serialize)]
struct QueryContext<'a> {
    query: Cow<'a, str>,
    normalized: Cow<'a, str>,
    tables: &'a [String],
    is_read_only: bool,
    hook_context: HookContext<'a>,
}

#[derive(Serialize)]
struct HookContext<'a> {
    /// The visit's, so that it is the same at every hook.
    request_id: &'a str,
    client_id: Option<&'a str>,
    identity: Option<&'a str>,
    database: Option<&'a str>,
    branch: Option<&'a str>,
    attributes: BTreeMap<&'a str, Cow<'a, str>>,
}

/// What came of a statement.
#[derive(Serialize)]
struct Outcome<'a> {
    success: bool,
    target_node: Option<&'a str>,
    elapsed_us: u64,
    response_bytes: u64,
    error: Option<Cow<'a, str>>,
}

/// What is known about a client, beside what plugins have said.
#[derive(Debug, Clone, Copy, Default)]
struct Client<'a> {
    identity: Option<&'a Identity>,
    address: &'a str,
    database: Option<&'a str>,
    branch: Option<&'a str>,
    settings: Option<&'a BTreeMap<String, String>>,
}

impl<'a> HookContext<'a> {
    fn of(client: Client<'a>, about: Circumstances<'a>) -> Self {
        Self {
            request_id: about.visit,
            client_id: Some(about.session).filter(|session| *session != "default"),
            identity: client.identity.map(|identity| identity.user_id.as_str()),
            database: client.database,
            branch: client.branch,
            attributes: attributes(client, about.attributes),
        }
    }
}

/// Attributes as text: what the client says of itself, unless a plugin says otherwise, and over both what the
/// host knows.
fn attributes<'a>(client: Client<'a>, set: &'a Attributes) -> BTreeMap<&'a str, Cow<'a, str>> {
    let said = client.settings.into_iter().flatten();
    let said = said.filter(|(name, _)| *name == "application_name" || name.starts_with("helios."));
    let mut shown: BTreeMap<&str, Cow<'_, str>> =
        said.map(|(name, value)| (name.as_str(), Cow::Borrowed(value.as_str()))).collect();
    for (name, value) in set {
        match value {
            Value::Null => {}
            Value::String(text) => drop(shown.insert(name, Cow::Borrowed(text))),
            other => drop(shown.insert(name, Cow::Owned(other.to_string()))),
        }
    }
    shown.insert("client_ip", address_alone(client.address));
    if let Some(identity) = client.identity {
        shown.insert("identity.roles", Cow::Owned(identity.roles.join(",")));
        match &identity.tenant_id {
            Some(tenant) => drop(shown.insert("tenant_id", Cow::Borrowed(tenant))),
            // Of no tenant, whatever anybody else says.
            None => drop(shown.remove("tenant_id")),
        }
    }
    shown
}

/// An address without its port.
fn address_alone(address: &str) -> Cow<'_, str> {
    match (address.parse::<SocketAddr>(), address.parse::<IpAddr>()) {
        (Ok(socket), _) => Cow::Owned(socket.ip().to_string()),
        _ => Cow::Borrowed(address),
    }
}

impl<'a> QueryContext<'a> {
    fn of(event: &'a QueryEvent, about: Circumstances<'a>) -> Self {
        let client = Client {
            identity: event.identity.as_ref(),
            address: &event.client,
            database: event.database.as_deref(),
            branch: event.branch.as_deref(),
            settings: Some(&event.settings),
        };
        Self {
            query: Cow::Borrowed(&event.sql),
            normalized: Cow::Borrowed(&event.normalized),
            tables: &event.tables,
            is_read_only: event.is_read_only,
            hook_context: HookContext::of(client, about),
        }
    }

    /// A request, for plugins that know statements: its method and path stand for the text.
    fn of_request(event: &'a RequestEvent, about: Circumstances<'a>) -> Self {
        let normalized = format!("{} {}", event.method, event.path);
        let query = match &event.query {
            Some(query) => format!("{normalized}?{query}"),
            None => normalized.clone(),
        };
        let client = Client { address: &event.client, ..Client::default() };
        Self {
            query: Cow::Owned(query),
            normalized: Cow::Owned(normalized),
            tables: &[],
            is_read_only: ["GET", "HEAD", "OPTIONS"].contains(&event.method.as_str()),
            hook_context: HookContext::of(client, about),
        }
    }
}

pub(super) fn encode_complete(event: &CompleteEvent, about: Circumstances<'_>) -> Result<Vec<u8>, Malformed> {
    let failure = match event.status {
        None => Some(Cow::Borrowed("the client left before it was answered")),
        Some(_) if event.aborted => Some(Cow::Borrowed("the client left before the end")),
        Some(status @ 400..) => Some(Cow::Owned(format!("status {status}"))),
        Some(_) => None,
    };
    let outcome = Outcome {
        success: failure.is_none(),
        target_node: None,
        elapsed_us: event.duration_ms.saturating_mul(1000),
        response_bytes: event.sent_bytes,
        error: failure,
    };
    write(&(QueryContext::of_request(&event.request, about), outcome), [])
}

/// Whatever an observer returns: the original reads and drops it.
#[expect(clippy::unnecessary_wraps, reason = "the form of all that read documents")]
pub(super) fn observed<H: Hook>(_event: &H::Event, _document: &[u8]) -> Result<Verdict<H>, Malformed> {
    Ok(Verdict::pass())
}

impl<'a> Outcome<'a> {
    fn of(event: &'a ResultEvent) -> Self {
        Self {
            success: event.is_success,
            target_node: event.node.as_deref(),
            elapsed_us: event.elapsed_us,
            response_bytes: event.response_bytes,
            error: event.error.as_deref().map(Cow::Borrowed),
        }
    }
}

/// A decision, read as far as all have the same form.
struct Decision<'a> {
    fields: Fields<'a>,
    /// In lower case.
    word: String,
}

impl<'a> Decision<'a> {
    /// `None` for the default outcome, which is what an empty document means.
    fn read(document: &'a [u8]) -> Result<Option<Self>, Malformed> {
        if document.trim_ascii().is_empty() {
            return Ok(None);
        }
        let fields = Fields::read(document, "the output")?;
        let word = match (tag(&fields, "action")?, tag(&fields, "kind")?) {
            (Some(action), Some(kind)) if action != kind => {
                return Err(Malformed(format!("its action is {action:?} and its kind is {kind:?}")));
            }
            (Some(word), _) | (None, Some(word)) => word,
            (None, None) => return Err(Malformed("it has neither `action` nor `kind`".to_owned())),
        };
        Ok(Some(Self { fields, word }))
    }

    fn unknown(&self) -> Malformed {
        Malformed(format!("unknown action {:?}", self.word))
    }

    /// Text under the first of these names that is there.
    fn text(&self, names: &[&str]) -> Result<Option<String>, Malformed> {
        let Some((name, value)) = self.first(names) else { return Ok(None) };
        match serde_json::from_str(value.get()) {
            Ok(text) => Ok(Some(text)),
            Err(_) => Err(Malformed(format!("`{name}` is no string"))),
        }
    }

    /// Text that has to be there.
    fn needed(&self, names: &[&str]) -> Result<String, Malformed> {
        self.text(names)?.ok_or_else(|| self.lacks(names))
    }

    /// Why it says no, or that it said no more.
    fn reason(&self, names: &[&str]) -> Result<String, Malformed> {
        Ok(self.text(names)?.filter(|text| !text.is_empty()).unwrap_or_else(|| BLOCKED.to_owned()))
    }

    /// Bytes, as a list of numbers.
    fn bytes(&self) -> Result<Vec<u8>, Malformed> {
        let names = ["data", "bytes"];
        let (name, value) = self.first(&names).ok_or_else(|| self.lacks(&names))?;
        serde_json::from_str(value.get()).map_err(|_| Malformed(format!("`{name}` is no list of bytes")))
    }

    /// A count of milliseconds.
    fn millis(&self, name: &str) -> Result<Option<u64>, Malformed> {
        let Some(value) = self.fields.get(name) else { return Ok(None) };
        let millis = serde_json::from_str(value.get());
        millis.map(Some).map_err(|_| Malformed(format!("`{name}` is no number of milliseconds")))
    }

    fn first<'n>(&self, names: &[&'n str]) -> Option<(&'n str, &'a RawValue)> {
        names.iter().find_map(|name| self.fields.get(name).map(|value| (*name, value)))
    }

    fn lacks(&self, names: &[&str]) -> Malformed {
        Malformed(format!("the action {:?} has no `{}`", self.word, names.join("` or `")))
    }
}

/// What a refusal says whose plugin said nothing.
const BLOCKED: &str = "blocked by plugin";

fn tag(fields: &Fields<'_>, name: &str) -> Result<Option<String>, Malformed> {
    let Some(value) = fields.get(name) else { return Ok(None) };
    match serde_json::from_str::<String>(value.get()) {
        Ok(word) => Ok(Some(word.trim().to_ascii_lowercase())),
        Err(_) => Err(Malformed(format!("`{name}` is no string"))),
    }
}
