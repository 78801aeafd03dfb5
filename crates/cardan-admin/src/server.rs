//! Listening: few connections, small heads, nobody kept waiting for ever.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use cardan_manager::Manager;
use http::{HeaderName, HeaderValue, Method, StatusCode, header};
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use percent_encoding::percent_decode_str;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::access::{Access, ExposedError};
use crate::app::App;
use crate::host::Host;
use crate::problem::Problem;
use crate::silent::{Answering, Place, Silent};
use crate::{api, facade, health, metrics, openapi};

/// Connections at once.
const CONNECTIONS_MAX: usize = 256;
/// Bytes of a request's head.
const HEAD_BYTES_MAX: usize = 32 << 10;
/// A client that takes nothing of an answer for so long loses it.
const SEND_STALL: Duration = Duration::from_secs(30);
/// A client may take this long for a body.
const BODY_READ: Duration = Duration::from_secs(60);
/// A connection on which nothing comes or goes for so long is closed. Longer than loading a plugin should take.
const QUIET: Duration = Duration::from_secs(300);
/// Requests under way may take this long once the process is told to stop.
const DRAIN: Duration = Duration::from_secs(3);
/// How long to wait before accepting again when accepting fails.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The admin API at one listener.
#[derive(Debug)]
pub struct Admin {
    app: App,
    listener: TcpListener,
}

/// Tells those who follow that the process stops.
#[derive(Clone, Debug)]
pub(crate) struct Stopping(pub(crate) watch::Receiver<bool>);

/// Who is at the other end.
#[derive(Clone, Copy, Debug)]
struct Peer(SocketAddr);

impl Admin {
    /// The API over this listener.
    ///
    /// # Errors
    ///
    /// When others than this machine could reach it without a token.
    pub fn new(manager: Manager, host: Host, listener: TcpListener) -> Result<Self, ExposedError> {
        // Unspecified unless the system says otherwise, so that it takes a token.
        let local = listener.local_addr().unwrap_or_else(|_| ([0, 0, 0, 0], 0).into());
        let access = Access::new(host.tokens.clone(), local)?;
        Ok(Self { app: App::new(manager, host, access), listener })
    }

    /// Serves until `shutdown`, then lets requests under way finish for a moment.
    pub async fn serve(self, shutdown: impl Future<Output = ()>) {
        let Self { app, listener } = self;
        let (stop, stopping) = watch::channel(false);
        let router = router(app, Stopping(stopping));
        let mut shutdown = std::pin::pin!(shutdown);
        let graceful = GracefulShutdown::new();
        let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let silent = Silent::default();
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                biased;
                () = &mut shutdown => break,
                Some(_) = connections.join_next() => continue,
                accepted = accept(&listener) => accepted,
            };
            let Some((stream, peer)) = accepted else { continue };
            let permit = tokio::select! {
                biased;
                () = &mut shutdown => break,
                permit = place(&permits, &silent) => permit,
            };
            let seat = silent.enter();
            let overdue = seat.overdue();
            let router =
                router.clone().layer(axum::Extension(Peer(peer))).layer(axum::Extension(seat.clone()));
            let watcher = graceful.watcher();
            connections.spawn(async move {
                let stream = TokioIo::new(Steady::new(stream, seat.clone()));
                let service = TowerToHyperService::new(router);
                let served = builder().serve_connection(stream, service);
                tokio::select! {
                    served = watcher.watch(served) => if let Err(error) = served {
                        tracing::debug!(target: "cardan::admin", %peer, %error, "connection ended early");
                    },
                    () = overdue => {
                        tracing::debug!(target: "cardan::admin", %peer, "closed: it asked nothing for too long, or another one needed its place");
                    }
                }
                seat.leave();
                drop(permit);
            });
        }
        drop(listener);
        // Whoever follows is told, or it would be waited for in vain.
        stop.send_replace(true);
        if tokio::time::timeout(DRAIN, graceful.shutdown()).await.is_err() {
            connections.shutdown().await;
        }
    }
}

fn builder() -> http1::Builder {
    let mut builder = http1::Builder::new();
    // How long a head may take is a matter of its place.
    builder.max_buf_size(HEAD_BYTES_MAX);
    builder
}

/// One of the places, for which a connection on which nothing is asked may have to go. `None` only when there
/// are none any more.
async fn place(permits: &Arc<Semaphore>, silent: &Silent) -> Option<OwnedSemaphorePermit> {
    if let Ok(permit) = permits.clone().try_acquire_owned() {
        return Some(permit);
    }
    let freed = permits.clone().acquire_owned();
    let mut freed = std::pin::pin!(freed);
    tokio::select! {
        permit = &mut freed => return permit.ok(),
        () = silent.close_oldest() => {}
    }
    freed.await.ok()
}

async fn accept(listener: &TcpListener) -> Option<(TcpStream, SocketAddr)> {
    match listener.accept().await {
        Ok(accepted) => Some(accepted),
        Err(error) => {
            tracing::warn!(target: "cardan::admin", %error, "failed to accept a connection");
            tokio::time::sleep(ACCEPT_PAUSE).await;
            None
        }
    }
}

fn router(app: App, stopping: Stopping) -> Router {
    let guarded = Router::new()
        .merge(api::routes())
        .merge(facade::routes())
        .merge(metrics::routes())
        .merge(openapi::routes())
        .fallback(nothing_here)
        .method_not_allowed_fallback(not_allowed)
        .layer(axum::Extension(stopping))
        .layer(from_fn_with_state(app.clone(), admit));
    // Health asks for no token, and so is beside what does.
    let open = health::routes().method_not_allowed_fallback(not_allowed);
    open.merge(guarded).layer(from_fn(finish)).with_state(app)
}

async fn nothing_here(request: Request) -> Problem {
    let path = request.uri().path();
    Problem::not_found(format!("there is nothing at {path:?}; /api/openapi.json lists what there is"))
}

async fn not_allowed(method: Method) -> Problem {
    let why = format!("{method} is not what this path takes; /api/openapi.json says what it takes");
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, why)
}

/// Lets nobody in who is not known, and writes down who changed what.
async fn admit(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<Peer>().map(|Peer(peer)| *peer);
    let method = request.method().clone();
    // Without the query, in which somebody may have put what belongs in a header.
    let path = request.uri().path().to_owned();
    let caller = match app.access().caller(request.uri(), request.headers()) {
        Ok(caller) => caller,
        Err(problem) => {
            let (status, why) = (problem.status().as_u16(), problem.detail());
            tracing::warn!(target: "cardan::admin", ?peer, %method, path, status, why, "refused");
            return problem.into_response();
        }
    };
    let name = caller.name.clone();
    request.extensions_mut().insert(caller);
    let response = next.run(request).await;
    let status = response.status().as_u16();
    if method == Method::GET || method == Method::HEAD {
        tracing::debug!(target: "cardan::admin", ?peer, caller = &*name, %method, path, status, "request");
    } else {
        tracing::info!(target: "cardan::admin", ?peer, caller = &*name, %method, path, status, "request");
    }
    response
}

/// What every answer has, and how long its request may take to arrive.
async fn finish(request: Request, next: Next) -> Response {
    let place = request.extensions().get::<Place>().cloned();
    let answering = place.map(|place| {
        place.asked();
        Answering(place)
    });
    let request = request.map(|body| axum::body::Body::new(Timely::new(body)));
    let mut response = if percent_decode_str(request.uri().path()).decode_utf8().is_ok() {
        next.run(request).await
    } else {
        Problem::bad_request("what the percent signs of the path stand for is not UTF-8").into_response()
    };
    let fields = [
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ];
    for (name, value) in fields {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response.map(|body| axum::body::Body::new(Answer { body, _answering: answering }))
}

/// The body of an answer, which is complete when hyper drops it.
struct Answer {
    body: axum::body::Body,
    _answering: Option<Answering>,
}

impl hyper::body::Body for Answer {
    type Data = bytes::Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<hyper::body::Frame<Self::Data>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        self.body.size_hint()
    }
}

/// A body that has to be there in time.
struct Timely {
    body: axum::body::Body,
    deadline: Pin<Box<Sleep>>,
}

impl Timely {
    fn new(body: axum::body::Body) -> Self {
        Self { body, deadline: Box::pin(sleep_until(Instant::now() + BODY_READ)) }
    }
}

impl hyper::body::Body for Timely {
    type Data = bytes::Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<hyper::body::Frame<Self::Data>, Self::Error>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            return Poll::Ready(frame);
        }
        let overdue = self.deadline.as_mut().poll(cx);
        overdue.map(|()| Some(Err(axum::Error::new(io::Error::from(io::ErrorKind::TimedOut)))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        self.body.size_hint()
    }
}

/// A socket whose peer may not stop reading, or be there for nothing: a client that follows and never reads, or
/// connects and never asks, would keep its place.
#[derive(Debug)]
struct Steady {
    stream: TcpStream,
    place: Place,
    /// Rings when nothing has come or gone for long.
    quiet: Pin<Box<Sleep>>,
    alarm: Option<Pin<Box<Sleep>>>,
    waiting: bool,
}

impl Steady {
    fn new(stream: TcpStream, place: Place) -> Self {
        let quiet = Box::pin(sleep_until(Instant::now() + QUIET));
        Self { stream, place, quiet, alarm: None, waiting: false }
    }

    fn stir(&mut self) {
        self.quiet.as_mut().reset(Instant::now() + QUIET);
    }

    fn hurry<T>(&mut self, cx: &mut Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.waiting = false;
            self.stir();
            return polled;
        }
        let deadline = Instant::now() + SEND_STALL;
        let alarm = self.alarm.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if !self.waiting {
            self.waiting = true;
            alarm.as_mut().reset(deadline);
        }
        alarm.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Steady {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        if polled.is_ready() {
            self.stir();
            return polled;
        }
        self.quiet.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncWrite for Steady {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.hurry(cx, polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.hurry(cx, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Hyper flushes once it has nothing left to write.
        let polled = Pin::new(&mut self.stream).poll_flush(cx);
        if polled.is_ready() {
            self.place.flushed();
        }
        polled
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
