//! What the bytes mean that byte conventions carry: the JSON documents of one system, both directions.
//!
//! Dialects are pure. They turn a hook's event into the document its plugins expect, and a plugin's
//! document into a verdict, and know neither instances nor sockets. A document that is not what the
//! dialect requires is [`Malformed`], never a guess.

pub mod cardan;
pub mod llmproxy;

use std::fmt;

use cardan_api::http::{HttpComplete, HttpRequest, HttpResponse};
use cardan_api::{Attributes, Hook, Phase, Verdict};
use serde_json::Value;

pub use cardan_api::Dialect;

/// The dialect whose exports these are, if they are any's. Cardan's own wins.
pub(crate) fn recognise<'a>(exports: impl Iterator<Item = &'a str> + Clone) -> Option<Dialect> {
    let any = |names: &[&str]| exports.clone().any(|export| names.contains(&export));
    if any(&[cardan::REQUEST, cardan::RESPONSE, cardan::COMPLETE]) {
        Some(Dialect::Cardan)
    } else if any(&llmproxy::ENTRIES) {
        Some(Dialect::LlmProxy)
    } else {
        None
    }
}

/// What a plugin is told beside the event.
#[derive(Debug, Clone, Copy)]
pub struct Circumstances<'a> {
    /// Where in the hook the binding stands.
    pub phase: Phase,
    /// The same at every hook of one request or session.
    pub visit: &'a str,
    /// The client's session, `default` when unknown.
    pub session: &'a str,
    /// What plugins of this visit have set so far.
    pub attributes: &'a Attributes,
    /// The binding's configuration, an object.
    pub config: &'a Value,
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
