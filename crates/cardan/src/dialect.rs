//! What the bytes mean that byte conventions carry: the JSON documents of one system, both directions.
//!
//! Dialects are pure. They turn a hook's event into the document its plugins expect, and a plugin's
//! document into a verdict, and know neither instances nor sockets. A document that is not what the
//! dialect requires is [`Malformed`], never a guess.

pub mod cardan;
pub mod cortexprism;
mod fields;
pub mod heliosproxy;
pub mod llmproxy;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod samples;
mod table;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::LazyLock;

use bytes::Bytes;
use cardan_api::cache::CacheSubject;
use cardan_api::http::Headers;
use cardan_api::sql::{Node, Rows};
use cardan_api::tool::{Tool, ToolCallEvent};
use cardan_api::{Attributes, BodyNeed, Phase};
use serde::{Serialize, Serializer};
use serde_json::Value;
use serde_json::value::RawValue;

pub use cardan_api::Dialect;
pub use table::{Entries, Spoken};
pub(crate) use table::{answered, entries_at, recognise};

/// What a plugin is told beside the event.
#[derive(Debug, Clone, Copy)]
pub struct Circumstances<'a> {
    /// Where in the hook the binding stands.
    pub phase: Phase,
    /// How much of the bodies it is shown. What the event carries because others need it is left out.
    pub body: BodyNeed,
    /// The same at every hook of one request or session.
    pub visit: &'a str,
    /// The client's session, `default` when unknown.
    pub session: &'a str,
    /// What plugins of this visit have set so far.
    pub attributes: &'a Attributes,
    /// The binding's configuration, an object.
    pub config: &'a Value,
}

impl<'a> Circumstances<'a> {
    /// At a hook of the plugin's own life, where there is no visit and no binding.
    pub fn of_life(config: &'a Value) -> Self {
        static NONE: LazyLock<Attributes> = LazyLock::new(Attributes::new);
        Self {
            phase: Phase::Background,
            body: BodyNeed::None,
            visit: "",
            session: "default",
            attributes: &NONE,
            config,
        }
    }
}

impl Circumstances<'_> {
    /// A body of the event, if this binding is shown bodies.
    fn shown<'b>(&self, body: Option<&'b Bytes>) -> Option<&'b Bytes> {
        body.filter(|_| self.body == BodyNeed::Whole)
    }
}

/// A document that is not what its dialect requires. The text may quote the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Malformed(pub String);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Malformed {}

impl From<serde_json::Error> for Malformed {
    fn from(error: serde_json::Error) -> Self {
        Self(error.to_string())
    }
}

/// Header fields as documents show them: an object, names in lower case, fields of one name joined with a
/// comma (RFC 9110, section 5.2).
struct ShownHeaders<'a>(&'a Headers);

impl Serialize for ShownHeaders<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let fields = &self.0.0;
        let is = |name: &str, other: &str| name.eq_ignore_ascii_case(other);
        let first = fields
            .iter()
            .enumerate()
            .filter(|(i, (name, _))| !fields[..*i].iter().any(|(it, _)| is(it, name)));
        serializer.collect_map(first.map(|(i, (name, _))| {
            let same = fields[i..].iter().filter(|(it, _)| is(it, name));
            (Lowercase(name), Joined(same.map(|(_, value)| value.as_str())))
        }))
    }
}

/// Header names come in lower case already, where they come from HTTP.
struct Lowercase<'a>(&'a str);

impl Serialize for Lowercase<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0.bytes().any(|byte| byte.is_ascii_uppercase()) {
            serializer.serialize_str(&self.0.to_ascii_lowercase())
        } else {
            serializer.serialize_str(self.0)
        }
    }
}

struct Joined<I>(I);

impl<'a, I: Iterator<Item = &'a str> + Clone> fmt::Display for Joined<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, value) in self.0.clone().enumerate() {
            f.write_str(if i == 0 { "" } else { ", " })?;
            f.write_str(value)?;
        }
        Ok(())
    }
}

impl<'a, I: Iterator<Item = &'a str> + Clone> Serialize for Joined<I> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What a document takes beside its bodies, for most requests.
const DOCUMENT_BYTES: usize = 2048;

/// Writes a document in one go; `bodies` are those it carries.
fn write<'b>(
    document: &impl Serialize,
    bodies: impl IntoIterator<Item = Option<&'b Bytes>>,
) -> Result<Vec<u8>, Malformed> {
    let bodies: usize = bodies.into_iter().flatten().map(Bytes::len).sum();
    let mut written = Vec::with_capacity(DOCUMENT_BYTES + bodies);
    serde_json::to_writer(&mut written, document)?;
    Ok(written)
}

/// Refuses a header field that cannot stand on the wire (RFC 9110, sections 5.1 and 5.5): after a line
/// break in a value would come another field.
pub(crate) fn check_field(name: &str, value: &str) -> Result<(), Malformed> {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if name.is_empty() || !name.bytes().all(is_token) {
        return Err(Malformed(format!("{name:?} is no name of a header field")));
    }
    if value.bytes().any(|byte| byte != b'\t' && byte.is_ascii_control()) {
        return Err(Malformed(format!("the header field {name} has a control character in its value")));
    }
    Ok(())
}

/// Refuses a result that no database could have given.
fn check_rows(rows: &Rows) -> Result<(), Malformed> {
    let columns = rows.columns.len();
    if columns == 0 {
        return Err(Malformed("a result has at least one column".to_owned()));
    }
    match rows.rows.iter().position(|row| row.len() != columns) {
        Some(odd) => {
            let values = rows.rows[odd].len();
            Err(Malformed(format!("the row {odd} of a result with {columns} columns has {values} values")))
        }
        None => Ok(()),
    }
}

/// A cached answer to a statement has to be a result.
fn check_hit(subject: &CacheSubject, hit: &[u8]) -> Result<(), Malformed> {
    match subject {
        CacheSubject::Query(_) => check_rows(&serde_json::from_slice(hit)?),
        CacheSubject::Request(_) => Ok(()),
    }
}

/// A plugin without any authority of its own must not make the host dial whatever it names.
fn check_node(nodes: &[Node], name: &str) -> Result<(), Malformed> {
    if nodes.iter().any(|node| node.name == name) {
        return Ok(());
    }
    Err(Malformed(format!("there is no node {name:?} to send the statement to")))
}

/// Tools are called by their names.
fn check_tools(tools: &[Tool]) -> Result<(), Malformed> {
    let mut names = BTreeSet::new();
    for tool in tools {
        if tool.name.is_empty() {
            return Err(Malformed("a tool has no name".to_owned()));
        }
        if !names.insert(&tool.name) {
            return Err(Malformed(format!("there are two tools {:?}", tool.name)));
        }
    }
    Ok(())
}

/// A tool's arguments as they stand, if they are what every tool expects.
fn arguments(event: &ToolCallEvent) -> Result<&RawValue, Malformed> {
    match event.arguments.trim_ascii_start().first() {
        None => Ok(serde_json::from_slice(b"{}")?),
        Some(b'{') => Ok(serde_json::from_slice(&event.arguments)?),
        Some(_) => Err(Malformed("a tool can only be given a JSON object of arguments".to_owned())),
    }
}
