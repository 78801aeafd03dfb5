//! The documents of `cache.*`.

use bytes::Bytes;
use cardan_api::cache::{
    CacheAnswer, CacheGet, CacheGetEdits, CacheGetEvent, CacheSet, CacheSetEdits, CacheSetEvent,
    CacheSubject, NotKept,
};
use cardan_api::{Flow, Hook, Verdict};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::super::{Circumstances, Malformed, check_hit, write};
use super::body::{BodyDocument, NewBody};
use super::sql::QueryDocument;
use super::verdict::{self, EditsDocument, Judged, VerdictDocument, answer};
use super::{EventDocument, document, http};

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Cache")]
pub(super) struct CacheDocument<'a> {
    /// What the host would look for, or keep the answer under.
    key: &'a str,
    /// At `cache.set`: how long the host would keep it; absent where it has no end.
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl_ms: Option<u64>,
    /// At `cache.set`: the answer's size.
    #[serde(skip_serializing_if = "Option::is_none")]
    value_bytes: Option<u64>,
    /// At `cache.set`, at bindings with `body: whole`.
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<BodyDocument<'a>>,
}

/// The answer, or that none is to be looked for: exactly one of the two.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "lowercase")]
#[schemars(rename = "LookupAnswer")]
pub(super) enum LookupDocument {
    /// For a statement, a result; for a request, a body.
    Hit(NewBody),
    /// Neither look for an answer nor keep one.
    Skip(True),
}

/// That the answer is not to be kept.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "SkipAnswer")]
pub(super) struct SkipDocument {
    skip: True,
}

/// `true`: what a key that stands for itself has for a value.
#[derive(Debug, Deserialize)]
#[serde(try_from = "bool")]
pub(super) struct True;

impl TryFrom<bool> for True {
    type Error = &'static str;

    fn try_from(value: bool) -> Result<Self, Self::Error> {
        if value { Ok(Self) } else { Err("it is true, or its key is left out") }
    }
}

impl JsonSchema for True {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "True".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "const": true })
    }
}

/// An event about what is asked for, and the bodies it carries.
fn about_subject<'a, H: Hook>(
    subject: &'a CacheSubject,
    about: Circumstances<'a>,
) -> (EventDocument<'a>, Option<&'a Bytes>) {
    let document = document::<H>(about);
    match subject {
        CacheSubject::Query(query) => {
            (EventDocument { query: Some(QueryDocument::of(query)), ..document }, None)
        }
        CacheSubject::Request(request) => {
            let body = about.shown(request.body.as_ref());
            (EventDocument { request: Some(http::request(request, about)), ..document }, body)
        }
    }
}

pub(in super::super) fn encode_get(
    event: &CacheGetEvent,
    about: Circumstances<'_>,
) -> Result<Vec<u8>, Malformed> {
    let (document, body) = about_subject::<CacheGet>(&event.subject, about);
    let cache = CacheDocument { key: &event.key, ttl_ms: None, value_bytes: None, value: None };
    write(&EventDocument { cache: Some(cache), ..document }, [body])
}

pub(in super::super) fn encode_set(
    event: &CacheSetEvent,
    about: Circumstances<'_>,
) -> Result<Vec<u8>, Malformed> {
    let (document, body) = about_subject::<CacheSet>(&event.subject, about);
    let value = about.shown(event.value.as_ref());
    let cache = CacheDocument {
        key: &event.key,
        ttl_ms: event.ttl_ms,
        value_bytes: Some(event.value_bytes),
        value: value.map(BodyDocument::of),
    };
    write(&EventDocument { cache: Some(cache), ..document }, [body, value])
}

impl Judged for CacheGet {
    const KEYS: &'static [&'static str] = &["answer"];
    const EDITABLE: &'static [&'static str] = &["key"];

    fn edits(edits: EditsDocument) -> Result<CacheGetEdits, Malformed> {
        Ok(CacheGetEdits { key: edits.key })
    }

    fn stop(document: VerdictDocument) -> Result<CacheAnswer, Malformed> {
        Ok(match answer(&document.answer()?)? {
            LookupDocument::Hit(body) => CacheAnswer::Hit(body.bytes()?),
            LookupDocument::Skip(True) => CacheAnswer::Skip,
        })
    }
}

pub(in super::super) fn decode_get(
    event: &CacheGetEvent,
    document: &[u8],
) -> Result<Verdict<CacheGet>, Malformed> {
    let verdict = verdict::decode::<CacheGet>(event, document)?;
    if let Flow::Stop(CacheAnswer::Hit(hit)) = &verdict.flow {
        check_hit(&event.subject, hit)?;
    }
    Ok(verdict)
}

impl Judged for CacheSet {
    const KEYS: &'static [&'static str] = &["answer"];
    const EDITABLE: &'static [&'static str] = &["key", "ttl_ms"];

    fn edits(edits: EditsDocument) -> Result<CacheSetEdits, Malformed> {
        Ok(CacheSetEdits { key: edits.key, ttl_ms: edits.ttl_ms })
    }

    fn stop(document: VerdictDocument) -> Result<NotKept, Malformed> {
        let SkipDocument { skip: True } = answer(&document.answer()?)?;
        Ok(NotKept)
    }
}
