//! Events, as a list or as a stream.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::sse::{Event as Message, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Json};
use cardan_manager::{Event, Ledger};
use futures_util::Stream;
use http::{HeaderMap, header};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::broadcast::{Receiver, error::RecvError};
use tokio::sync::{OwnedSemaphorePermit, watch};
use utoipa::{IntoParams, ToSchema};

use crate::access::{As, Viewer};
use crate::app::App;
use crate::input::Query;
use crate::problem::Problem;
use crate::server::Stopping;

/// A comment goes out this often, so that whoever is gone is noticed.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// From where on.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(crate) struct Since {
    /// Events after the one with this number; all that are kept unless said otherwise.
    since: Option<u64>,
    /// Whether to answer with a stream (`text/event-stream`), as with `Accept: text/event-stream`.
    #[serde(default)]
    follow: bool,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Events {
    /// The oldest first. `seq`, `at_ms`, `plugin`, `event`, and what belongs to the event.
    #[schema(value_type = Vec<Object>)]
    events: Vec<Value>,
    /// What to pass as `since` to get what comes next.
    next: u64,
}

/// What became of plugins: those kept, or, as a stream, those and all to come. A stream is resumed with the
/// field `Last-Event-ID`, as browsers do.
#[utoipa::path(get, path = "/api/v1/events", tag = "observe", params(Since),
    responses((status = 200, content((Events = "application/json"), (String = "text/event-stream")))),
    security(("bearer" = ["viewer"])))]
pub(crate) async fn events(
    _: As<Viewer>,
    State(app): State<App>,
    Extension(stopping): Extension<Stopping>,
    Query(since): Query<Since>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let ledger = app.manager().ledger().clone();
    let last = headers.get("last-event-id").and_then(|id| id.to_str().ok()?.parse().ok());
    let after = last.or(since.since).unwrap_or(0);
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    if !since.follow && !accept.is_some_and(|accept| accept.contains("text/event-stream")) {
        let events = ledger.events_after(after);
        let next = events.last().map_or(after, |event| event.seq);
        let events = events.iter().map(|event| document(event)).collect();
        return Ok(Json(Events { events, next }).into_response());
    }
    let feed = Feed {
        live: ledger.follow_events(),
        backlog: ledger.events_after(after).into(),
        ledger,
        last: after,
        stopping: stopping.0,
        _place: app.follow()?,
    };
    Ok(Sse::new(feed.messages()).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response())
}

fn document(event: &Event) -> Value {
    serde_json::to_value(event).unwrap_or(Value::Null)
}

/// Events for one client. What is held for it is what the ledger holds anyhow: a client that takes nothing
/// asks for nothing.
struct Feed {
    ledger: Ledger,
    live: Receiver<Arc<Event>>,
    backlog: std::collections::VecDeque<Arc<Event>>,
    last: u64,
    stopping: watch::Receiver<bool>,
    _place: OwnedSemaphorePermit,
}

impl Feed {
    fn messages(self) -> impl Stream<Item = Result<Message, Infallible>> {
        futures_util::stream::unfold(self, |mut feed| async move {
            let event = feed.next().await?;
            let message = Message::default().id(event.seq.to_string()).data(document(&event).to_string());
            Some((Ok(message), feed))
        })
    }

    async fn next(&mut self) -> Option<Arc<Event>> {
        loop {
            while let Some(event) = self.backlog.pop_front() {
                // What was in the backlog comes live as well.
                if event.seq > self.last {
                    self.last = event.seq;
                    return Some(event);
                }
            }
            let received = tokio::select! {
                _ = self.stopping.wait_for(|stopping| *stopping) => return None,
                received = self.live.recv() => received,
            };
            match received {
                Ok(event) => self.backlog.push_back(event),
                // It was slow. What is still kept it is given; numbers that are missing say the rest.
                Err(RecvError::Lagged(_)) => self.backlog.extend(self.ledger.events_after(self.last)),
                Err(RecvError::Closed) => return None,
            }
        }
    }
}
