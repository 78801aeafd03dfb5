//! What a guest writes to standard output and standard error: lines of its plugin's log.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::AsyncWrite;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};

use crate::abi::extism::log::LogQuota;
use crate::grants::{LogLevel, LogSink};

/// What is taken at once.
const WRITE_BYTES_MAX: usize = 64 << 10;
/// A line that has no end is one by then.
const LINE_BYTES_MAX: usize = 64 << 10;

/// The log of one instance: its own lines, and those of its streams.
#[derive(Clone)]
pub(super) struct GuestLog(Arc<Mutex<Lines>>);

struct Lines {
    sink: Arc<dyn LogSink>,
    quota: LogQuota,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

/// One of the streams.
#[derive(Clone)]
pub(super) struct Stream {
    log: GuestLog,
    name: Name,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Name {
    Stdout,
    Stderr,
}

impl Name {
    fn level(self) -> LogLevel {
        match self {
            Self::Stdout => LogLevel::Info,
            Self::Stderr => LogLevel::Warn,
        }
    }
}

impl GuestLog {
    pub(super) fn new(sink: Arc<dyn LogSink>) -> Self {
        let lines = Lines { sink, quota: LogQuota::default(), stdout: Vec::new(), stderr: Vec::new() };
        Self(Arc::new(Mutex::new(lines)))
    }

    pub(super) fn stream(&self, name: Name) -> Stream {
        Stream { log: self.clone(), name }
    }

    /// Whether anybody reads lines of this level.
    pub(super) fn wants(&self, level: LogLevel) -> bool {
        self.lines().wants(level)
    }

    pub(super) fn line(&self, level: LogLevel, text: String) {
        self.lines().line(level, text);
    }

    /// A call is over: what was begun is a line, and the next call may log as much again.
    pub(super) fn end(&self) {
        let mut lines = self.lines();
        for name in [Name::Stdout, Name::Stderr] {
            let rest = std::mem::take(lines.part(name));
            if !rest.is_empty() {
                lines.bytes(name, &rest);
            }
        }
        let Lines { sink, quota, .. } = &mut *lines;
        quota.renew(&**sink);
    }

    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lines {
    fn wants(&self, level: LogLevel) -> bool {
        self.sink.level().is_some_and(|least| level >= least)
    }

    fn line(&mut self, level: LogLevel, text: String) {
        if self.wants(level) && self.quota.has_room(level) {
            self.quota.line(&*self.sink, level, text);
        }
    }

    fn part(&mut self, name: Name) -> &mut Vec<u8> {
        match name {
            Name::Stdout => &mut self.stdout,
            Name::Stderr => &mut self.stderr,
        }
    }

    fn bytes(&mut self, name: Name, line: &[u8]) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        self.line(name.level(), String::from_utf8_lossy(line).into_owned());
    }

    fn write(&mut self, name: Name, bytes: &[u8]) {
        let mut part = std::mem::take(self.part(name));
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            part.extend_from_slice(piece);
            if let Some(line) = part.strip_suffix(b"\n") {
                self.bytes(name, line);
                part.clear();
            } else if part.len() >= LINE_BYTES_MAX {
                self.bytes(name, &part);
                part.clear();
            }
        }
        *self.part(name) = part;
    }
}

impl IsTerminal for Stream {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Stream {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

impl OutputStream for Stream {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.log.lines().write(self.name, &bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(WRITE_BYTES_MAX)
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for Stream {
    async fn ready(&mut self) {}
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        _context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        self.log.lines().write(self.name, bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
