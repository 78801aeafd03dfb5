//! What is known of one exchange, from its first hook to its last.
//!
//! A client may leave at any moment, and then the exchange is dropped wherever it stands. So the
//! record belongs to whoever is alive, the exchange or the response body, and closing it is what
//! dropping it means: the access log line is written and `http.complete` is asked, on a task of its
//! own, which no client waits for.

use std::fmt;
use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use cardan_api::http::{CompleteEvent, Headers, HttpComplete, RequestEvent, ResponseEvent};
use cardan_manager::{Outcome, Progress, Visit};
use http::{Method, StatusCode, Uri, Version};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::body::Kept;
use crate::budget::Share;
use crate::busy::Busy;
use crate::core::Core;
use crate::plan::Plan;

/// The record of an exchange, closed when dropped.
pub(crate) struct Record(Option<Box<Entry>>);

/// What a [`Record`] holds.
pub(crate) struct Entry {
    pub(crate) core: Arc<Core>,
    pub(crate) plan: Arc<Plan>,
    pub(crate) visit: Visit,
    /// The request as plugins have left it, and the response once there is one.
    pub(crate) event: ResponseEvent,
    /// Whether some plugin is going to see the event.
    pub(crate) observed: bool,
    /// Delivers the request body for plugins that see it later, if it streamed past.
    pub(crate) copy: Option<oneshot::Receiver<Kept>>,
    /// What this exchange holds.
    pub(crate) share: Share,
    pub(crate) client: SocketAddr,
    pub(crate) method: Method,
    pub(crate) version: Version,
    /// As the client sent it.
    pub(crate) uri: Uri,
    pub(crate) began: Instant,
    pub(crate) route: Option<Arc<str>>,
    pub(crate) upstream: Option<Arc<str>>,
    /// The status the client was told.
    pub(crate) status: Option<StatusCode>,
    pub(crate) sent_bytes: u64,
    /// Whether the client's socket has taken everything.
    pub(crate) ended: bool,
    /// The plugin that stopped the exchange.
    pub(crate) stopped_by: Option<Arc<str>>,
    /// What went wrong, in a word.
    pub(crate) problem: Option<String>,
    /// Keeps the connection from being taken for an idle one.
    pub(crate) _busy: Busy,
}

impl Record {
    pub(crate) fn new(entry: Entry) -> Self {
        Self(Some(Box::new(entry)))
    }
}

impl Deref for Record {
    type Target = Entry;

    fn deref(&self) -> &Entry {
        self.0.as_ref().expect("a record is emptied only by its drop")
    }
}

impl DerefMut for Record {
    fn deref_mut(&mut self) -> &mut Entry {
        self.0.as_mut().expect("a record is emptied only by its drop")
    }
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record").field("visit", &self.visit.id()).finish_non_exhaustive()
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if let Some(entry) = self.0.take() {
            entry.close();
        }
    }
}

impl Entry {
    /// Looks at what `http.complete` would be shown if the exchange ended now.
    pub(crate) fn with_complete<T>(&mut self, look: impl FnOnce(&Visit, &CompleteEvent) -> T) -> T {
        let event = self.complete_event();
        let seen = look(&self.visit, &event);
        self.event.request = event.request;
        seen
    }

    /// Takes the request out of this entry.
    fn complete_event(&mut self) -> CompleteEvent {
        CompleteEvent {
            request: std::mem::replace(&mut self.event.request, blank_request()),
            status: self.status.map(|status| status.as_u16()),
            sent_bytes: self.sent_bytes,
            duration_ms: u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX),
            aborted: !self.ended,
        }
    }

    /// Puts the copy of a request body that streamed past into the event, if it has passed whole.
    pub(crate) fn fetch_copy(&mut self) {
        if let Some(copy) = &mut self.copy
            && let Ok(kept) = copy.try_recv()
        {
            self.event.request.body = Some(kept.bytes);
            self.share.absorb(kept.share);
            self.copy = None;
        }
    }

    fn close(mut self: Box<Self>) {
        self.log();
        self.fetch_copy();
        let event = self.complete_event();
        let Self { visit, core, plan, share, .. } = *self;
        let chain = visit.chain::<HttpComplete>(&event);
        if chain.is_done() {
            return;
        }
        // Without a runtime the process is ending.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let Some(busy) = Busy::one_of(&core.background, plan.limits.background_max) else {
            tracing::warn!(visit = visit.id(), "http.complete was not asked: background_max is reached");
            return;
        };
        runtime.spawn(async move {
            complete(visit, event).await;
            drop((busy, share));
        });
    }

    fn log(&self) {
        tracing::info!(
            target: "cardan::access",
            visit = self.visit.id(),
            client = %self.client,
            method = %self.method,
            path = self.uri.path(),
            route = self.route.as_deref(),
            upstream = self.upstream.as_deref(),
            status = self.status.map(|status| status.as_u16()),
            sent_bytes = self.sent_bytes,
            duration_ms = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX),
            aborted = !self.ended,
            problem = self.problem.as_deref(),
            stopped_by = self.stopped_by.as_deref(),
            faults = faults(&self.visit),
        );
    }
}

async fn complete(mut visit: Visit, mut event: CompleteEvent) {
    let mut chain = visit.chain::<HttpComplete>(&event);
    // Nothing can be read any more: bindings that want a body get it if it was kept.
    if let Progress::Stopped(stop) = visit.ask(&mut chain, &mut event).await {
        tracing::debug!(visit = visit.id(), plugin = %stop.plugin, "http.complete was stopped");
    }
}

/// The faults of an exchange, for its log line: `plugin:fault` and so on.
fn faults(visit: &Visit) -> Option<String> {
    let mut faults = String::new();
    for decision in visit.decisions() {
        if let Outcome::Skipped(fault) | Outcome::Refused(fault) = decision.outcome {
            let comma = if faults.is_empty() { "" } else { "," };
            faults.push_str(&format!("{comma}{}:{fault}", decision.plugin));
        }
    }
    (!faults.is_empty()).then_some(faults)
}

fn blank_request() -> RequestEvent {
    RequestEvent {
        method: String::new(),
        host: String::new(),
        path: String::new(),
        query: None,
        client: String::new(),
        headers: Headers::default(),
        body: None,
    }
}
