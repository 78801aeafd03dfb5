//! What the bytes mean that byte conventions carry: the JSON documents of one system, both directions.
//!
//! Dialects are pure. They turn a hook's event into the document its plugins expect, and a plugin's
//! document into a verdict, and know neither instances nor sockets. A document that is not what the
//! dialect requires is [`Malformed`], never a guess.

pub mod cardan;
pub mod llmproxy;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod samples;

use std::fmt;
use std::sync::LazyLock;

use bytes::Bytes;
use cardan_api::http::{Headers, HttpComplete, HttpRequest, HttpResponse};
use cardan_api::lifecycle::{PluginLoad, PluginTick, PluginUnload};
use cardan_api::{Attributes, BodyNeed, Hook, Phase, Verdict};
use serde::{Serialize, Serializer};
use serde_json::Value;

pub use cardan_api::Dialect;

/// The dialect whose exports these are, if they are any's. Cardan's own wins.
pub(crate) fn recognise<'a>(exports: impl Iterator<Item = &'a str> + Clone) -> Option<Dialect> {
    let any = |names: &[&str]| exports.clone().any(|export| names.contains(&export));
    if any(&[cardan::REQUEST, cardan::RESPONSE, cardan::COMPLETE]) {
        Some(Dialect::Cardan)
    } else if any(&llmproxy::ENTRIES) {
        Some(Dialect::LlmProxy)
    } else if any(&[cardan::LOAD, cardan::UNLOAD, cardan::TICK]) {
        Some(Dialect::Cardan)
    } else {
        None
    }
}

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

/// A hook that dialects have documents for.
pub trait Spoken: Hook {
    /// Names of the exports that answer this hook, in order of preference. Empty where the dialect has
    /// no documents for the hook.
    fn entries(dialect: Dialect) -> &'static [&'static str];

    /// The document a plugin is given.
    ///
    /// # Errors
    ///
    /// When the dialect cannot say it, for instance a body that is no JSON.
    fn encode(dialect: Dialect, event: &Self::Event, about: Circumstances<'_>) -> Result<Vec<u8>, Malformed>;

    /// The verdict a plugin's document means.
    ///
    /// # Errors
    ///
    /// When it is not what the dialect requires.
    fn decode(dialect: Dialect, event: &Self::Event, document: &[u8]) -> Result<Verdict<Self>, Malformed>;
}

impl Spoken for HttpRequest {
    fn entries(dialect: Dialect) -> &'static [&'static str] {
        match dialect {
            Dialect::Cardan => &[cardan::REQUEST],
            Dialect::LlmProxy => &llmproxy::ENTRIES,
        }
    }

    fn encode(dialect: Dialect, event: &Self::Event, about: Circumstances<'_>) -> Result<Vec<u8>, Malformed> {
        match dialect {
            Dialect::Cardan => cardan::encode_request(event, about),
            Dialect::LlmProxy => llmproxy::encode_request(event, about),
        }
    }

    fn decode(dialect: Dialect, event: &Self::Event, document: &[u8]) -> Result<Verdict<Self>, Malformed> {
        match dialect {
            Dialect::Cardan => cardan::decode_request(document),
            Dialect::LlmProxy => llmproxy::decode_request(event, document),
        }
    }
}

impl Spoken for HttpResponse {
    fn entries(dialect: Dialect) -> &'static [&'static str] {
        match dialect {
            Dialect::Cardan => &[cardan::RESPONSE],
            Dialect::LlmProxy => &llmproxy::ENTRIES,
        }
    }

    fn encode(dialect: Dialect, event: &Self::Event, about: Circumstances<'_>) -> Result<Vec<u8>, Malformed> {
        match dialect {
            Dialect::Cardan => cardan::encode_response(event, about),
            Dialect::LlmProxy => llmproxy::encode_response(event, about),
        }
    }

    fn decode(dialect: Dialect, event: &Self::Event, document: &[u8]) -> Result<Verdict<Self>, Malformed> {
        match dialect {
            Dialect::Cardan => cardan::decode_response(document),
            Dialect::LlmProxy => llmproxy::decode_response(event, document),
        }
    }
}

impl Spoken for HttpComplete {
    fn entries(dialect: Dialect) -> &'static [&'static str] {
        match dialect {
            Dialect::Cardan => &[cardan::COMPLETE],
            Dialect::LlmProxy => &llmproxy::ENTRIES,
        }
    }

    fn encode(dialect: Dialect, event: &Self::Event, about: Circumstances<'_>) -> Result<Vec<u8>, Malformed> {
        match dialect {
            Dialect::Cardan => cardan::encode_complete(event, about),
            Dialect::LlmProxy => llmproxy::encode_complete(event, about),
        }
    }

    /// An observer's answer changes nothing; only that it is a document of the dialect is required.
    fn decode(dialect: Dialect, _event: &Self::Event, document: &[u8]) -> Result<Verdict<Self>, Malformed> {
        match dialect {
            Dialect::Cardan => cardan::decode_complete(document),
            Dialect::LlmProxy => llmproxy::decode_complete(document),
        }
    }
}

impl Spoken for PluginLoad {
    fn entries(dialect: Dialect) -> &'static [&'static str] {
        match dialect {
            Dialect::Cardan => &[cardan::LOAD],
            Dialect::LlmProxy => &[],
        }
    }

    fn encode(dialect: Dialect, event: &Self::Event, about: Circumstances<'_>) -> Result<Vec<u8>, Malformed> {
        match dialect {
            Dialect::Cardan => cardan::life::encode::<Self>(event, about),
            Dialect::LlmProxy => Err(unspoken::<Self>(dialect)),
        }
    }

    fn decode(dialect: Dialect, _event: &Self::Event, document: &[u8]) -> Result<Verdict<Self>, Malformed> {
        match dialect {
            Dialect::Cardan => cardan::life::decode_load(document),
            Dialect::LlmProxy => Err(unspoken::<Self>(dialect)),
        }
    }
}

impl Spoken for PluginUnload {
    fn entries(dialect: Dialect) -> &'static [&'static str] {
        match dialect {
            Dialect::Cardan => &[cardan::UNLOAD],
            Dialect::LlmProxy => &[],
        }
    }

    fn encode(dialect: Dialect, event: &Self::Event, about: Circumstances<'_>) -> Result<Vec<u8>, Malformed> {
        match dialect {
            Dialect::Cardan => cardan::life::encode::<Self>(event, about),
            Dialect::LlmProxy => Err(unspoken::<Self>(dialect)),
        }
    }

    fn decode(dialect: Dialect, _event: &Self::Event, document: &[u8]) -> Result<Verdict<Self>, Malformed> {
        match dialect {
            Dialect::Cardan => cardan::life::decode_done(document),
            Dialect::LlmProxy => Err(unspoken::<Self>(dialect)),
        }
    }
}

impl Spoken for PluginTick {
    fn entries(dialect: Dialect) -> &'static [&'static str] {
        match dialect {
            Dialect::Cardan => &[cardan::TICK],
            Dialect::LlmProxy => &[],
        }
    }

    fn encode(dialect: Dialect, event: &Self::Event, about: Circumstances<'_>) -> Result<Vec<u8>, Malformed> {
        match dialect {
            Dialect::Cardan => cardan::life::encode_tick(event, about),
            Dialect::LlmProxy => Err(unspoken::<Self>(dialect)),
        }
    }

    fn decode(dialect: Dialect, _event: &Self::Event, document: &[u8]) -> Result<Verdict<Self>, Malformed> {
        match dialect {
            Dialect::Cardan => cardan::life::decode_done(document),
            Dialect::LlmProxy => Err(unspoken::<Self>(dialect)),
        }
    }
}

/// For hooks that a dialect has no documents for, where configuration names an export all the same.
fn unspoken<H: Hook>(dialect: Dialect) -> Malformed {
    Malformed(format!("the dialect {dialect} has no document for the hook {}", H::NAME))
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
fn check_field(name: &str, value: &str) -> Result<(), Malformed> {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if name.is_empty() || !name.bytes().all(is_token) {
        return Err(Malformed(format!("{name:?} is no name of a header field")));
    }
    if value.bytes().any(|byte| byte != b'\t' && byte.is_ascii_control()) {
        return Err(Malformed(format!("the header field {name} has a control character in its value")));
    }
    Ok(())
}
