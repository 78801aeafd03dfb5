//! How much a server may say.
//!
//! A row is held whole before anybody can count it, and one of its values may be a gigabyte. So it is counted where it
//! is read: a connection that is told more than it may be ends.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::Socket;
use tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream};
use tokio_postgres_rustls::MakeRustlsConnect;

/// Bytes that a connection may still read. Clones are the same ration.
#[derive(Clone)]
pub(super) struct Ration(Arc<AtomicU64>);

impl Ration {
    pub(super) fn new(bytes: u64) -> Self {
        Self(Arc::new(AtomicU64::new(bytes)))
    }

    pub(super) fn set(&self, bytes: u64) {
        self.0.store(bytes, Ordering::Relaxed);
    }

    pub(super) fn is_used_up(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 0
    }

    fn take(&self, bytes: u64) -> io::Result<()> {
        let left = self.0.load(Ordering::Relaxed).saturating_sub(bytes);
        self.0.store(left, Ordering::Relaxed);
        if left == 0 { Err(io::Error::other("the server said more than it may")) } else { Ok(()) }
    }
}

type Encrypted = <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream;

/// A connection to a server.
pub(super) struct Line {
    stream: Stream,
    ration: Ration,
}

enum Stream {
    Bare(Socket),
    Encrypted(Box<Encrypted>),
}

trait Duplex: AsyncRead + AsyncWrite + Unpin {}

impl<S: AsyncRead + AsyncWrite + Unpin> Duplex for S {}

impl Line {
    fn stream(&mut self) -> Pin<&mut dyn Duplex> {
        match &mut self.stream {
            Stream::Bare(stream) => Pin::new(stream),
            Stream::Encrypted(stream) => Pin::new(stream),
        }
    }
}

impl AsyncRead for Line {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        match self.stream().poll_read(context, buffer) {
            Poll::Ready(Ok(())) => Poll::Ready(self.ration.take((buffer.filled().len() - before) as u64)),
            other => other,
        }
    }
}

impl AsyncWrite for Line {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.stream().poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_shutdown(context)
    }
}

impl TlsStream for Line {
    fn channel_binding(&self) -> ChannelBinding {
        match &self.stream {
            Stream::Bare(_) => ChannelBinding::none(),
            Stream::Encrypted(stream) => stream.channel_binding(),
        }
    }
}

/// Makes connections that count, with TLS or, where there is none to be, without.
#[derive(Clone)]
pub(super) struct Connector {
    pub(super) tls: Option<MakeRustlsConnect>,
    pub(super) ration: Ration,
}

/// The same for one host.
pub(super) struct ToHost {
    tls: Option<<MakeRustlsConnect as MakeTlsConnect<Socket>>::TlsConnect>,
    ration: Ration,
}

impl MakeTlsConnect<Socket> for Connector {
    type Stream = Line;
    type TlsConnect = ToHost;
    type Error = std::convert::Infallible;

    fn make_tls_connect(&mut self, host: &str) -> Result<ToHost, Self::Error> {
        let tls = match &mut self.tls {
            Some(tls) => Some(MakeTlsConnect::<Socket>::make_tls_connect(tls, host)?),
            None => None,
        };
        Ok(ToHost { tls, ration: self.ration.clone() })
    }
}

impl TlsConnect<Socket> for ToHost {
    type Stream = Line;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Line>> + Send>>;

    fn connect(self, socket: Socket) -> Self::Future {
        let ration = self.ration;
        match self.tls {
            None => Box::pin(std::future::ready(Ok(Line { stream: Stream::Bare(socket), ration }))),
            Some(tls) => {
                let connecting = tls.connect(socket);
                Box::pin(async move {
                    Ok(Line { stream: Stream::Encrypted(Box::new(connecting.await?)), ration })
                })
            }
        }
    }
}
