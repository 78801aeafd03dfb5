//! Listening: connections in, within their limits, until told to stop.

use std::convert::Infallible;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::busy::Busy;
use crate::core::Core;
use crate::exchange;
use crate::plan::Plan;

/// How long to wait before accepting again when accepting fails, as it does without free file
/// descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves a listener until `shutdown`, then lets exchanges finish within the drain timeout.
pub(crate) async fn serve(core: Arc<Core>, listener: TcpListener, shutdown: impl Future<Output = ()>) {
    let mut shutdown = std::pin::pin!(shutdown);
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut shutdown => break,
            Some(_) = connections.join_next() => continue,
            accepted = accept(&core, &listener) => accepted,
        };
        if let Some((stream, peer, permit)) = accepted {
            connections.spawn(connection(core.clone(), stream, peer, graceful.watcher(), permit));
        }
    }
    // Whoever connects from now on is refused, and can go to another process.
    drop(listener);
    let deadline = Instant::now() + core.plan().timeouts.drain;
    if tokio::time::timeout_at(deadline, graceful.shutdown()).await.is_err() {
        tracing::warn!(connections = connections.len(), "drain timeout: exchanges under way are cut off");
        connections.shutdown().await;
    }
    if tokio::time::timeout_at(deadline, core.background.subscribe().wait_for(|count| *count == 0))
        .await
        .is_err()
    {
        tracing::warn!("drain timeout: http.complete plugins are cut off");
    }
}

/// The next connection, once one more is allowed. `None`: try again.
async fn accept(
    core: &Core,
    listener: &TcpListener,
) -> Option<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let permit = core.connections.clone().acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, peer)) => Some((stream, peer, permit)),
        Err(error) => {
            tracing::warn!(%error, "failed to accept a connection");
            tokio::time::sleep(ACCEPT_PAUSE).await;
            None
        }
    }
}

async fn connection(
    core: Arc<Core>,
    stream: TcpStream,
    peer: SocketAddr,
    watcher: Watcher,
    _permit: OwnedSemaphorePermit,
) {
    // Events are small and must not wait for more to come.
    let _ = stream.set_nodelay(true);
    let plan = core.plan();
    let stream = Steady { stream, stall: plan.timeouts.send_stall, alarm: None, waiting: false };
    let (in_flight, watched) = watch::channel(0_usize);
    let in_flight = Arc::new(in_flight);
    let service = service_fn(move |request| {
        let busy = Busy::new(in_flight.clone());
        let core = core.clone();
        async move { Ok::<_, Infallible>(exchange::answer(core, peer, busy, request).await) }
    });
    let builder = builder(&plan);
    let served = watcher.watch(builder.serve_connection(TokioIo::new(stream), service).into_owned());
    tokio::select! {
        served = served => if let Err(error) = served {
            tracing::debug!(%peer, %error, "connection ended early");
        },
        () = idle(watched, plan.timeouts.connection_idle) => {}
    }
}

fn builder(plan: &Plan) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(plan.timeouts.header_read)
        .max_buf_size(plan.startup.header_bytes_max);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(plan.timeouts.send_stall)
        .max_header_list_size(u32::try_from(plan.startup.header_bytes_max).unwrap_or(u32::MAX))
        .max_concurrent_streams(plan.limits.streams_per_connection_max);
    builder
}

/// Ends when nothing has been under way on a connection for `limit`. Hyper bounds the wait for a
/// request's head on HTTP/1 once it has seen a first byte of it, and nothing else.
async fn idle(mut in_flight: watch::Receiver<usize>, limit: Duration) {
    loop {
        if in_flight.wait_for(|count| *count == 0).await.is_err() {
            // The connection is gone and its other future will say so.
            return std::future::pending().await;
        }
        match tokio::time::timeout(limit, in_flight.wait_for(|count| *count > 0)).await {
            Err(_) => return,
            Ok(_) => continue,
        }
    }
}

/// A socket whose peer may not stop reading: hyper would keep a response for it for ever.
#[derive(Debug)]
struct Steady {
    stream: TcpStream,
    stall: Duration,
    alarm: Option<Pin<Box<Sleep>>>,
    waiting: bool,
}

impl Steady {
    /// Fails a write that has waited too long.
    fn hurry<T>(&mut self, cx: &mut Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.waiting = false;
            return polled;
        }
        if !self.waiting {
            self.waiting = true;
            let deadline = Instant::now() + self.stall;
            match &mut self.alarm {
                Some(alarm) => alarm.as_mut().reset(deadline),
                None => self.alarm = Some(Box::pin(sleep_until(deadline))),
            }
        }
        let overdue = self.alarm.as_mut().is_some_and(|alarm| alarm.as_mut().poll(cx).is_ready());
        if overdue { Poll::Ready(Err(io::ErrorKind::TimedOut.into())) } else { Poll::Pending }
    }
}

impl AsyncRead for Steady {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
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
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
