//! `cache_get` and `cache_set`. No host of the original calls them, so that what they are given is ours: what
//! `pre_query` is given, and beside it `cache`.

use cardan_api::Verdict;
use cardan_api::cache::{
    CacheAnswer, CacheGet, CacheGetEdits, CacheGetEvent, CacheSet, CacheSetEdits, CacheSetEvent,
    CacheSubject, NotKept,
};
use serde::Serialize;

use super::super::{Circumstances, Malformed, write};
use super::{Decision, QueryContext, sql};

#[derive(Serialize)]
struct CacheContext<'a> {
    #[serde(flatten)]
    subject: QueryContext<'a>,
    cache: Entry<'a>,
}

#[derive(Serialize)]
struct Entry<'a> {
    key: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_bytes: Option<u64>,
}

fn encode(subject: &CacheSubject, about: Circumstances<'_>, cache: Entry<'_>) -> Result<Vec<u8>, Malformed> {
    let subject = match subject {
        CacheSubject::Query(query) => QueryContext::of(query, about),
        CacheSubject::Request(request) => QueryContext::of_request(request, about),
    };
    write(&CacheContext { subject, cache }, [])
}

pub(in super::super) fn encode_get(
    event: &CacheGetEvent,
    about: Circumstances<'_>,
) -> Result<Vec<u8>, Malformed> {
    encode(&event.subject, about, Entry { key: &event.key, ttl_ms: None, value_bytes: None })
}

pub(in super::super) fn encode_set(
    event: &CacheSetEvent,
    about: Circumstances<'_>,
) -> Result<Vec<u8>, Malformed> {
    let entry = Entry { key: &event.key, ttl_ms: event.ttl_ms, value_bytes: Some(event.value_bytes) };
    encode(&event.subject, about, entry)
}

/// What functions of the documented kit return in place of a decision: `cache_key` a key or nothing,
/// `should_cache` a yes or no.
fn plain<T: serde::de::DeserializeOwned>(document: &[u8]) -> Option<T> {
    serde_json::from_slice(document).ok()
}

pub(in super::super) fn decode_get(
    event: &CacheGetEvent,
    document: &[u8],
) -> Result<Verdict<CacheGet>, Malformed> {
    if let Some(key) = plain::<Option<String>>(document) {
        return Ok(Verdict::edit(CacheGetEdits { key }));
    }
    let Some(decision) = Decision::read(document)? else { return Ok(Verdict::pass()) };
    Ok(match decision.word.as_str() {
        "continue" | "default" | "miss" => Verdict::pass(),
        "key" => Verdict::edit(CacheGetEdits { key: Some(decision.needed(&["key"])?) }),
        "hit" | "cached" => {
            let bytes = decision.bytes()?;
            let hit = match &event.subject {
                CacheSubject::Query(_) => serde_json::to_vec(&sql::rows(&bytes)?)?,
                CacheSubject::Request(_) => bytes,
            };
            Verdict::stop(CacheAnswer::Hit(hit.into()))
        }
        "skip" => get_code(None),
        _ => return Err(decision.unknown()),
    })
}

pub(in super::super) fn get_code(_words: Option<&str>) -> Verdict<CacheGet> {
    Verdict::stop(CacheAnswer::Skip)
}

pub(in super::super) fn decode_set(
    _event: &CacheSetEvent,
    document: &[u8],
) -> Result<Verdict<CacheSet>, Malformed> {
    if let Some(is_kept) = plain::<bool>(document) {
        return Ok(if is_kept { Verdict::pass() } else { set_code(None) });
    }
    let Some(decision) = Decision::read(document)? else { return Ok(Verdict::pass()) };
    Ok(match decision.word.as_str() {
        "continue" | "default" | "store" => {
            let (key, ttl_ms) = (decision.text(&["key"])?, decision.millis("ttl_ms")?);
            Verdict::edit(CacheSetEdits { key, ttl_ms })
        }
        "skip" => set_code(None),
        _ => return Err(decision.unknown()),
    })
}

pub(in super::super) fn set_code(_words: Option<&str>) -> Verdict<CacheSet> {
    Verdict::stop(NotKept)
}
