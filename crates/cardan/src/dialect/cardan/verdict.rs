//! The verdict document, and what it may say at each hook.

use std::collections::BTreeMap;

use cardan_api::{Attributes, Flow, Hook, Verdict};
use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::super::Malformed;
use super::access::{AllowDocument, IdentityDocument};
use super::body::NewBody;
use super::cache::{LookupDocument, SkipDocument};
use super::sql::TargetDocument;
use super::tool::{OutputDocument, ToolsDocument};

/// What a plugin returns.
#[derive(Debug, JsonSchema)]
#[schemars(title = "Cardan verdict document", tag = "verdict", rename_all = "lowercase", deny_unknown_fields)]
pub(in super::super) enum VerdictDocument {
    /// Ask the next plugin, with these edits applied.
    Continue {
        /// What to change about the event.
        edits: Option<EditsDocument>,
        /// Attributes to set for later plugins of the visit.
        attributes: Option<Attributes>,
    },
    /// Stop: the host answers with an error in the caller's own API shape.
    Refuse {
        /// At `http.*`: 403 when absent (503 in the routing phase).
        #[schemars(range(min = 400, max = 599))]
        status: Option<u16>,
        /// At `http.*`: a machine-readable kind; `refused` when absent.
        kind: Option<String>,
        /// At `sql.*`: five digits and capital letters; `42000` when absent.
        #[schemars(regex(pattern = "^[0-9A-Z]{5}$"))]
        sqlstate: Option<String>,
        /// For the client's eyes; `refused by policy` when absent.
        message: Option<String>,
    },
    /// Stop, at `http.*`: the client gets this response.
    Respond {
        /// 200 when absent.
        #[schemars(range(min = 200, max = 599))]
        status: Option<u16>,
        /// Header fields.
        headers: Option<BTreeMap<String, String>>,
        /// Empty when absent.
        body: Option<NewBody>,
    },
    /// Stop, at other hooks: this is what the host would have found out itself.
    Answer {
        /// As the hook has it.
        #[schemars(with = "AnswerDocument")]
        answer: Box<RawValue>,
    },
}

/// What hooks other than `http.*` have for answers.
#[derive(JsonSchema)]
#[schemars(rename = "Answer", untagged)]
#[expect(dead_code, reason = "the schema is made of it; each hook reads its own")]
enum AnswerDocument {
    /// At `access.authenticate`.
    Identity(IdentityDocument),
    /// At `access.authorize`.
    Allow(AllowDocument),
    /// At `cache.get`.
    Lookup(LookupDocument),
    /// At `cache.set`.
    Skip(SkipDocument),
    /// At `sql.query`.
    Rows(cardan_api::sql::Rows),
    /// At `sql.route`.
    Target(TargetDocument),
    /// At `tool.list`.
    Tools(ToolsDocument),
    /// At `tool.call`.
    Output(OutputDocument),
}

/// Changes to an event. What a hook has not got cannot be changed there.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Edits")]
pub(in super::super) struct EditsDocument {
    /// Fields to set; `null` removes.
    #[serde(default)]
    pub(super) headers: BTreeMap<String, Option<String>>,
    /// At `http.request`: a new path, percent-encoded, without query.
    #[serde(default)]
    pub(super) path: Option<String>,
    /// At `http.response`.
    #[serde(default)]
    #[schemars(range(min = 200, max = 599))]
    pub(super) status: Option<u16>,
    /// At bindings with `body: whole`.
    #[serde(default)]
    pub(super) body: Option<NewBody>,
    /// At `sql.query`: a new statement.
    #[serde(default)]
    pub(super) sql: Option<String>,
    /// At `cache.*`: another key.
    #[serde(default)]
    pub(super) key: Option<String>,
    /// At `cache.set`: how long to keep the answer.
    #[serde(default)]
    pub(super) ttl_ms: Option<u64>,
}

/// A verdict as it is read: every key there is, so that the document is read in one pass and bodies are
/// taken as they stand. Serde's own tagged enums keep what they read in an intermediate form, which can
/// hold no raw JSON.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    verdict: Word,
    edits: Option<EditsDocument>,
    attributes: Option<Attributes>,
    status: Option<u16>,
    kind: Option<String>,
    sqlstate: Option<String>,
    message: Option<String>,
    headers: Option<BTreeMap<String, String>>,
    body: Option<NewBody>,
    answer: Option<Box<RawValue>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Word {
    Continue,
    Refuse,
    Respond,
    Answer,
}

impl Wire {
    /// Refuses keys of other verdicts: a plugin that believes it edited something has to hear of it.
    fn sort(self) -> Result<VerdictDocument, Malformed> {
        let Self { verdict, edits, attributes, status, kind, sqlstate, message, headers, body, answer } =
            self;
        let is = |word: Word| verdict == word;
        let keys = [
            ("edits", edits.is_some(), is(Word::Continue)),
            ("attributes", attributes.is_some(), is(Word::Continue)),
            ("status", status.is_some(), is(Word::Refuse) || is(Word::Respond)),
            ("kind", kind.is_some(), is(Word::Refuse)),
            ("sqlstate", sqlstate.is_some(), is(Word::Refuse)),
            ("message", message.is_some(), is(Word::Refuse)),
            ("headers", headers.is_some(), is(Word::Respond)),
            ("body", body.is_some(), is(Word::Respond)),
            ("answer", answer.is_some(), is(Word::Answer)),
        ];
        if let Some((key, ..)) = keys.iter().find(|(_, there, belongs)| *there && !*belongs) {
            let word = format!("{verdict:?}").to_ascii_lowercase();
            return Err(Malformed(format!("the verdict {word:?} has no key {key:?}")));
        }
        Ok(match verdict {
            Word::Continue => VerdictDocument::Continue { edits, attributes },
            Word::Refuse => VerdictDocument::Refuse { status, kind, sqlstate, message },
            Word::Respond => VerdictDocument::Respond { status, headers, body },
            Word::Answer => VerdictDocument::Answer {
                answer: answer.ok_or_else(|| Malformed("missing field `answer`".to_owned()))?,
            },
        })
    }
}

impl VerdictDocument {
    pub(super) fn read(document: &[u8]) -> Result<Self, Malformed> {
        match document.trim_ascii_start().first() {
            None => Err(Malformed("the plugin set no output".to_owned())),
            // Serde would take the elements of an array for the fields, in order.
            Some(b'{') => serde_json::from_slice::<Wire>(document)?.sort(),
            Some(_) => Err(Malformed("the output is no JSON object".to_owned())),
        }
    }

    /// The answer of a verdict at a hook where that is the only way to stop.
    pub(super) fn answer(self) -> Result<Box<RawValue>, Malformed> {
        match self {
            Self::Answer { answer } => Ok(answer),
            _ => Err(Malformed("there is nothing but to continue or to answer".to_owned())),
        }
    }

    /// Refuses what there is none of at a hook whose verdicts may have these keys.
    fn fit(&self, hook: &str, keys: &[&str]) -> Result<(), Malformed> {
        let has = |key: &str| keys.contains(&key);
        let wrong = match self {
            Self::Refuse { .. } if !has("message") => format!("there is nothing to refuse at {hook}"),
            Self::Refuse { status, kind, sqlstate, .. } => {
                let there = [
                    ("status", status.is_some()),
                    ("kind", kind.is_some()),
                    ("sqlstate", sqlstate.is_some()),
                ];
                match there.iter().find(|(key, there)| *there && !has(key)) {
                    Some((key, _)) => format!("a refusal at {hook} has no {key}"),
                    None => return Ok(()),
                }
            }
            Self::Respond { .. } if !has("body") => format!("there is nobody to respond to at {hook}"),
            Self::Answer { .. } if !has("answer") => format!("there is nothing to answer at {hook}"),
            _ => return Ok(()),
        };
        Err(Malformed(wrong))
    }
}

impl EditsDocument {
    /// What it would change.
    fn parts(&self) -> impl Iterator<Item = &'static str> {
        let parts = [
            ("headers", !self.headers.is_empty()),
            ("path", self.path.is_some()),
            ("status", self.status.is_some()),
            ("body", self.body.is_some()),
            ("sql", self.sql.is_some()),
            ("key", self.key.is_some()),
            ("ttl_ms", self.ttl_ms.is_some()),
        ];
        parts.into_iter().filter_map(|(part, there)| there.then_some(part))
    }

    pub(super) fn fit(&self, hook: &str, editable: &[&str]) -> Result<(), Malformed> {
        match self.parts().find(|part| !editable.contains(part)) {
            Some(_) if editable.is_empty() => Err(Malformed(format!("there is nothing to edit at {hook}"))),
            Some(part) => Err(Malformed(format!("there is no {part} to edit at {hook}"))),
            None => Ok(()),
        }
    }
}

/// What verdicts may say at a hook, and what it means there.
pub(in super::super) trait Judged: Hook {
    /// Keys they may have beside `verdict`, `edits` and `attributes`. With `message` they may refuse, with `body`
    /// respond, with `answer` answer.
    const KEYS: &'static [&'static str] = &[];
    /// Keys of `edits`.
    const EDITABLE: &'static [&'static str] = &[];

    /// Reads edits that have no other keys.
    fn edits(_edits: EditsDocument) -> Result<Self::Edits, Malformed> {
        Ok(Self::Edits::default())
    }

    /// Reads a verdict that stops, and has no other keys.
    fn stop(_document: VerdictDocument) -> Result<Self::Answer, Malformed> {
        Err(Malformed(format!("there is nothing to stop at {}", Self::NAME)))
    }
}

pub(in super::super) fn decode<H: Judged>(_: &H::Event, document: &[u8]) -> Result<Verdict<H>, Malformed> {
    let document = VerdictDocument::read(document)?;
    document.fit(H::NAME, H::KEYS)?;
    match document {
        VerdictDocument::Continue { edits, attributes } => {
            let edits = edits.unwrap_or_default();
            edits.fit(H::NAME, H::EDITABLE)?;
            let attributes = attributes.unwrap_or_default();
            Ok(Verdict { flow: Flow::Continue, edits: H::edits(edits)?, attributes })
        }
        stop => Ok(Verdict::stop(H::stop(stop)?)),
    }
}

/// A refusal's message, or the one that stands for none.
pub(super) fn message_or_policy(message: Option<String>) -> String {
    message.unwrap_or_else(|| "refused by policy".to_owned())
}

/// Reads an answer as the hook has it.
pub(super) fn answer<T: DeserializeOwned>(answer: &RawValue) -> Result<T, Malformed> {
    match answer.get().as_bytes().first() {
        Some(b'{') => Ok(serde_json::from_str(answer.get())?),
        _ => Err(Malformed("the answer is no JSON object".to_owned())),
    }
}
