//! The cache hooks: plugins say what is kept under which key and for how long; the storage is the host's.

use bytes::Bytes;

use crate::fault::FaultPolicy;
use crate::hook::Hook;
use crate::http::RequestEvent;
use crate::sql::QueryEvent;

/// `cache.get`: before the host looks for an answer it has kept.
#[derive(Debug)]
pub struct CacheGet;

/// `cache.set`: before the host keeps an answer.
#[derive(Debug)]
pub struct CacheSet;

/// What an answer is kept for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CacheSubject {
    /// A SQL statement.
    Query(QueryEvent),
    /// An HTTP request.
    Request(RequestEvent),
}

/// What `cache.get` plugins are shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheGetEvent {
    /// What the host would look for, after all edits so far.
    pub key: String,
    /// What is asked for.
    pub subject: CacheSubject,
}

/// What a `cache.get` plugin may change.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CacheGetEdits {
    /// Look for this, and keep the answer under it.
    pub key: Option<String>,
}

/// What a `cache.get` plugin may answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CacheAnswer {
    /// This is the answer: for a statement a result as [`Rows`](crate::sql::Rows) in JSON, for a request a body.
    Hit(Bytes),
    /// Neither look for an answer nor keep one.
    Skip,
}

/// What `cache.set` plugins are shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheSetEvent {
    /// What the host would keep it under, after all edits so far.
    pub key: String,
    /// What was asked for.
    pub subject: CacheSubject,
    /// How long the host would keep it, in milliseconds; `None` as long as there is room.
    pub ttl_ms: Option<u64>,
    /// The answer's size.
    pub value_bytes: u64,
    /// The answer, when a binding needs it.
    pub value: Option<Bytes>,
}

/// What a `cache.set` plugin may change.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CacheSetEdits {
    /// Keep it under this.
    pub key: Option<String>,
    /// Keep it this long, in milliseconds.
    pub ttl_ms: Option<u64>,
}

/// An answer is not to be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotKept;

impl Hook for CacheGet {
    const NAME: &'static str = "cache.get";
    const ON_FAULT: FaultPolicy = FaultPolicy::Skip;
    type Event = CacheGetEvent;
    type Answer = CacheAnswer;
    type Edits = CacheGetEdits;

    fn apply(event: &mut CacheGetEvent, edits: CacheGetEdits) {
        if let Some(key) = edits.key {
            event.key = key;
        }
    }
}

impl Hook for CacheSet {
    const NAME: &'static str = "cache.set";
    const ON_FAULT: FaultPolicy = FaultPolicy::Skip;
    type Event = CacheSetEvent;
    type Answer = NotKept;
    type Edits = CacheSetEdits;

    fn apply(event: &mut CacheSetEvent, edits: CacheSetEdits) {
        if let Some(key) = edits.key {
            event.key = key;
        }
        event.ttl_ms = edits.ttl_ms.or(event.ttl_ms);
    }
}
