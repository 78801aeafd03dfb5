//! What plugins' guests log, as a list or as a stream.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::time::Duration;

use axum::Json;
use axum::extract::{FromRequestParts, Path as Segment, State};
use axum::response::sse::{Event as Message, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use cardan_manager::{LogLine, Manager};
use futures_util::Stream;
use http::HeaderName;
use http::header::ACCEPT;
use http::request::Parts;
use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, watch};
use utoipa::{IntoParams, ToSchema};

use crate::access::{As, Viewer};
use crate::app::App;
use crate::input::Query;
use crate::problem::Problem;
use crate::server::Stopping;
use crate::time;

/// What is logged within this time is sent together.
const GATHERING: Duration = Duration::from_millis(20);
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Lines of one answer, and of one plugin at one look.
const LINES_MAX: usize = 1_000;
/// Lines of each plugin where nothing is said.
const LINES: usize = 100;

/// Which lines.
#[derive(Debug, Clone, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(crate) struct Which {
    /// Lines written at or after this moment, in milliseconds since 1970.
    since: Option<u64>,
    /// The last so many of each plugin; 100 unless said otherwise, 1,000 at most.
    limit: Option<usize>,
    /// Lines of this level and of more important ones: `trace`, `debug`, `info`, `warn`, `error`.
    level: Option<String>,
    /// Whether to answer with a stream (`text/event-stream`), as with `Accept: text/event-stream`.
    #[serde(default)]
    follow: bool,
}

/// A line that a plugin's guest logged.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct LineView {
    plugin: String,
    version: u32,
    /// Counts the version's lines from 1.
    seq: u64,
    at: String,
    at_ms: u64,
    level: &'static str,
    /// As the guest wrote it.
    text: String,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Lines {
    /// The oldest first.
    lines: Vec<LineView>,
    /// Lines of before, which are kept no more.
    lost: u64,
}

/// What every plugin logged. As a stream it is resumed with `Last-Event-ID`.
#[utoipa::path(get, path = "/api/v1/logs", tag = "observe", params(Which),
    responses((status = 200, content((Lines = "application/json"), (String = "text/event-stream")))),
    security(("bearer" = ["viewer"])))]
pub(crate) async fn all(_: As<Viewer>, State(app): State<App>, wanted: Wanted) -> Result<Response, Problem> {
    answer(&app, None, wanted)
}

/// What one plugin logged. As a stream it is resumed with `Last-Event-ID`.
#[utoipa::path(get, path = "/api/v1/plugins/{name}/logs", tag = "plugins",
    params(("name" = String, Path), Which),
    responses((status = 200, content((Lines = "application/json"), (String = "text/event-stream"))),
        (status = 404, body = Problem)),
    security(("bearer" = ["viewer"])))]
pub(crate) async fn of_one(
    _: As<Viewer>,
    State(app): State<App>,
    Segment(name): Segment<String>,
    wanted: Wanted,
) -> Result<Response, Problem> {
    app.manager().log_tail(&name, 0, 0)?;
    answer(&app, Some(name), wanted)
}

/// The same under HeliosProxy's path.
#[utoipa::path(get, path = "/plugins/{name}/logs", tag = "heliosproxy",
    params(("name" = String, Path), Which),
    responses((status = 200, content((Lines = "application/json"), (String = "text/event-stream"))),
        (status = 404, body = Problem)),
    security(("bearer" = ["viewer"])))]
pub(crate) async fn heliosproxy(
    who: As<Viewer>,
    app: State<App>,
    name: Segment<String>,
    wanted: Wanted,
) -> Result<Response, Problem> {
    of_one(who, app, name, wanted).await
}

/// Which lines, and whether those to come as well.
#[derive(Debug)]
pub(crate) struct Wanted {
    which: Which,
    /// The moment of the last line that the client has seen.
    last: Option<u64>,
    follow: bool,
    stopping: Stopping,
}

impl<S: Send + Sync> FromRequestParts<S> for Wanted {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Query(which) = Query::<Which>::from_request_parts(parts, state).await?;
        let text = |field| parts.headers.get(field)?.to_str().ok();
        let last = text(HeaderName::from_static("last-event-id")).and_then(|id| id.parse().ok());
        let follow = which.follow || text(ACCEPT).is_some_and(|it| it.contains("text/event-stream"));
        let stopping = parts.extensions.get::<Stopping>().cloned();
        let stopping = stopping.ok_or_else(|| Problem::internal("a route outside of the server"))?;
        Ok(Self { which, last, follow, stopping })
    }
}

fn answer(app: &App, name: Option<String>, wanted: Wanted) -> Result<Response, Problem> {
    let Wanted { which, last, follow, stopping } = wanted;
    let mut look = Look {
        manager: app.manager().clone(),
        name,
        // A line of that very moment is sent again: better twice than not at all.
        since: last.or(which.since).unwrap_or(0),
        least: least(which.level.as_deref())?,
        seen: BTreeMap::new(),
        lost: 0,
    };
    let limit = which.limit.unwrap_or(LINES).min(LINES_MAX);
    let lines = look.next(limit);
    if !follow {
        return Ok(Json(Lines { lines, lost: look.lost }).into_response());
    }
    let feed = Feed { look, backlog: lines.into(), stopping: stopping.0, _place: app.follow()? };
    Ok(Sse::new(feed.messages()).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response())
}

/// A level's place among all, the least important first.
fn least(level: Option<&str>) -> Result<usize, Problem> {
    let Some(level) = level else { return Ok(0) };
    let levels = cardan_api::grants::LogLevel::ALL;
    levels.iter().position(|known| known.name() == level).ok_or_else(|| {
        let known = levels.map(cardan_api::grants::LogLevel::name).join(", ");
        Problem::bad_request(format!("level: {level:?} is none of {known}"))
    })
}

/// What was seen so far of one plugin's log, or of all.
struct Look {
    manager: Manager,
    name: Option<String>,
    since: u64,
    least: usize,
    /// The version and its last line, by plugin.
    seen: BTreeMap<String, (u32, u64)>,
    lost: u64,
}

impl Look {
    fn names(&self) -> Vec<String> {
        match &self.name {
            Some(name) => vec![name.clone()],
            None => self.manager.snapshot().plugins().map(|plugin| plugin.name().to_string()).collect(),
        }
    }

    /// Ends when there may be something that was not there at this call: a line, another version, or a plugin.
    fn news(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut events = self.manager.ledger().follow_events();
        let logs = self.names().into_iter().filter_map(|name| self.manager.log_follow(&name).ok());
        let lines: Vec<_> = logs
            .map(|mut log| {
                Box::pin(async move {
                    // With its version a log ends, which the events tell.
                    if log.changed().await.is_err() {
                        std::future::pending::<()>().await;
                    }
                })
            })
            .collect();
        async move {
            // Nobody selects among nothing.
            let any_line = async {
                if lines.is_empty() {
                    std::future::pending::<()>().await;
                }
                futures_util::future::select_all(lines).await;
            };
            tokio::select! {
                () = any_line => {}
                // Having missed some is news too.
                _ = events.recv() => {}
            }
        }
    }

    /// What is new, the last `limit` lines of each plugin.
    fn next(&mut self, limit: usize) -> Vec<LineView> {
        let mut lines = Vec::new();
        for name in self.names() {
            let (known, after) = self.seen.get(&name).copied().unwrap_or((0, 0));
            let Ok(mut log) = self.manager.log_tail(&name, after, LINES_MAX) else { continue };
            if log.version != known && after > 0 {
                // Each version counts its own.
                match self.manager.log_tail(&name, 0, LINES_MAX) {
                    Ok(whole) => log = whole,
                    Err(_) => continue,
                }
            }
            self.lost = self.lost.saturating_add(log.tail.lost);
            self.seen.insert(name.clone(), (log.version, log.tail.next));
            let fitting = log.tail.lines.iter().filter(|line| self.fits(line));
            let fitting: Vec<LineView> = fitting.map(|line| view(&name, log.version, line)).collect();
            lines.extend(fitting.into_iter().rev().take(limit).rev());
        }
        lines.sort_by_key(|line| line.at_ms);
        lines
    }

    fn fits(&self, line: &LogLine) -> bool {
        line.unix_ms >= self.since && line.level as usize >= self.least
    }
}

fn view(plugin: &str, version: u32, line: &LogLine) -> LineView {
    LineView {
        plugin: plugin.to_owned(),
        version,
        seq: line.seq,
        at: time::of_unix_ms(line.unix_ms),
        at_ms: line.unix_ms,
        level: line.level.name(),
        text: line.text.to_string(),
    }
}

/// Lines for one client. A client that takes nothing asks for nothing, and what it misses is counted.
struct Feed {
    look: Look,
    backlog: VecDeque<LineView>,
    stopping: watch::Receiver<bool>,
    _place: OwnedSemaphorePermit,
}

impl Feed {
    fn messages(self) -> impl Stream<Item = Result<Message, Infallible>> {
        futures_util::stream::unfold(self, |mut feed| async move {
            let line = feed.next().await?;
            let document = serde_json::to_string(&line).unwrap_or_default();
            Some((Ok(Message::default().id(line.at_ms.to_string()).data(document)), feed))
        })
    }

    async fn next(&mut self) -> Option<LineView> {
        loop {
            if let Some(line) = self.backlog.pop_front() {
                return Some(line);
            }
            // From before the look, so that nothing is missed between the two.
            let news = self.look.news();
            self.backlog = self.look.next(LINES_MAX).into();
            if !self.backlog.is_empty() {
                continue;
            }
            let gathered = async {
                news.await;
                tokio::time::sleep(GATHERING).await;
            };
            tokio::select! {
                _ = self.stopping.wait_for(|stopping| *stopping) => return None,
                () = gathered => {}
            }
        }
    }
}
