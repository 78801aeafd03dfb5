//! Bodies under limits: relayed, lent, held, decoded.
//!
//! A body is either passed on frame by frame, with backpressure all the way because nobody asks the
//! sender for more than the receiver takes, or it is held whole, up to a named maximum.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, Read};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http::header::CONTENT_ENCODING;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::sync::oneshot;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::budget::{Exhausted, Share};

/// Why a body ended early.
#[derive(Debug)]
pub(crate) enum BodyError {
    /// Its sender was silent for too long.
    Idle,
    /// Its sender took too long over all of it.
    Slow,
    /// Its receiver took nothing for too long.
    Stalled,
    /// It passed its limit.
    TooLarge,
    /// Its sender broke off.
    Lost(hyper::Error),
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Idle => "the body's sender was silent for too long",
            Self::Slow => "the body took too long to arrive",
            Self::Stalled => "the body's receiver took nothing for too long",
            Self::TooLarge => "the body is too large",
            Self::Lost(_) => "the body's sender broke off",
        })
    }
}

impl std::error::Error for BodyError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Lost(error) => Some(error),
            Self::Idle | Self::Slow | Self::Stalled | Self::TooLarge => None,
        }
    }
}

/// How long a body's sender may keep us waiting.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    /// Between two pieces.
    pub(crate) idle: Duration,
    /// For the whole, from when it is first read. `None`: a response may go on for as long as it likes.
    pub(crate) whole: Option<Duration>,
}

/// A body from the network whose sender may neither fall silent nor go on for ever.
#[derive(Debug)]
pub(crate) struct Paced {
    body: Incoming,
    pace: Pace,
    /// When the whole has to be there, once it is being read.
    due: Option<Instant>,
    /// Bytes that may still come.
    left: u64,
    /// Runs while we wait for the sender, and only then.
    alarm: Option<Pin<Box<Sleep>>>,
    waiting: bool,
}

impl Paced {
    pub(crate) fn new(body: Incoming, pace: Pace, bytes_max: u64) -> Self {
        Self { body, pace, due: None, left: bytes_max, alarm: None, waiting: false }
    }

    /// Why there is no use in waiting any longer.
    fn overdue(&mut self, cx: &mut Context<'_>) -> Option<BodyError> {
        if !self.waiting {
            self.waiting = true;
            let idle = Instant::now() + self.pace.idle;
            let deadline = self.due.map_or(idle, |due| due.min(idle));
            match &mut self.alarm {
                Some(alarm) => alarm.as_mut().reset(deadline),
                None => self.alarm = Some(Box::pin(sleep_until(deadline))),
            }
        }
        let rang = self.alarm.as_mut().is_some_and(|alarm| alarm.as_mut().poll(cx).is_ready());
        rang.then(|| if self.is_due() { BodyError::Slow } else { BodyError::Idle })
    }

    fn is_due(&self) -> bool {
        self.due.is_some_and(|due| due <= Instant::now())
    }
}

impl Body for Paced {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let (None, Some(whole)) = (self.due, self.pace.whole) {
            self.due = Some(Instant::now() + whole);
        }
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        let Poll::Ready(frame) = polled else {
            return match self.overdue(cx) {
                Some(error) => Poll::Ready(Some(Err(error))),
                None => Poll::Pending,
            };
        };
        self.waiting = false;
        Poll::Ready(frame.map(|frame| {
            // A sender that trickles may always have a byte ready.
            if self.is_due() {
                return Err(BodyError::Slow);
            }
            let frame = frame.map_err(BodyError::Lost)?;
            let bytes = frame.data_ref().map_or(0, Bytes::len) as u64;
            self.left = self.left.checked_sub(bytes).ok_or(BodyError::TooLarge)?;
            Ok(frame)
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The beginning of a body, and what is still to come of it if it was too long to hold.
#[derive(Debug)]
pub(crate) struct Held<B> {
    pub(crate) bytes: Bytes,
    pub(crate) trailers: Option<HeaderMap>,
    pub(crate) rest: Option<(B, Unheld)>,
}

/// Why a body is not held to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unheld {
    TooLong,
    /// What all exchanges hold together is as much as may be.
    NoRoom,
}

/// Reads a body to its end, or to the frame that takes it beyond `bytes_max` or what `share` can take.
pub(crate) async fn hold<B>(mut body: B, bytes_max: usize, share: &mut Share) -> Result<Held<B>, BodyError>
where
    B: Body<Data = Bytes, Error = BodyError> + Unpin,
{
    // Announced to be too long: then nobody need wait for it.
    if body.size_hint().lower() > bytes_max as u64 {
        return Ok(Held { bytes: Bytes::new(), trailers: None, rest: Some((body, Unheld::TooLong)) });
    }
    let mut held = BytesMut::new();
    let mut only: Option<Bytes> = None;
    let mut trailers = None;
    while let Some(frame) = body.frame().await {
        let frame = frame?;
        let room = share.grow(frame.data_ref().map_or(0, Bytes::len));
        match frame.into_data() {
            // Small bodies are one frame, which need not be copied.
            Ok(data) if only.is_none() && held.is_empty() => only = Some(data),
            Ok(data) => {
                if let Some(first) = only.take() {
                    held.extend_from_slice(&first);
                }
                held.extend_from_slice(&data);
            }
            Err(frame) => trailers = frame.into_trailers().ok(),
        }
        let unheld = match room {
            Err(Exhausted) => Unheld::NoRoom,
            Ok(()) if only.as_ref().map_or(held.len(), Bytes::len) > bytes_max => Unheld::TooLong,
            Ok(()) => continue,
        };
        let bytes = only.unwrap_or_else(|| held.freeze());
        return Ok(Held { bytes, trailers, rest: Some((body, unheld)) });
    }
    Ok(Held { bytes: only.unwrap_or_else(|| held.freeze()), trailers, rest: None })
}

/// A client's request body, of which a copy may be kept for plugins that see it later.
#[derive(Debug)]
pub(crate) struct Source {
    body: Paced,
    copy: Option<Copy>,
    trailers: Trailers,
}

/// What becomes of fields behind a client's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trailers {
    PassedOn,
    Dropped,
}

#[derive(Debug)]
struct Copy {
    bytes: BytesMut,
    bytes_max: usize,
    share: Share,
    ready: oneshot::Sender<Kept>,
}

/// A copy of a body that has passed.
#[derive(Debug)]
pub(crate) struct Kept {
    pub(crate) bytes: Bytes,
    pub(crate) share: Share,
}

impl Source {
    pub(crate) fn new(body: Paced) -> Self {
        Self { body, copy: None, trailers: Trailers::PassedOn }
    }

    /// Keeps a copy of what passes, unless it is more than `bytes_max` or `share` can take. It can be had
    /// once the body has passed to its end.
    pub(crate) fn keep_copy(&mut self, bytes_max: usize, share: Share) -> oneshot::Receiver<Kept> {
        let (ready, copy) = oneshot::channel();
        self.copy = Some(Copy { bytes: BytesMut::new(), bytes_max, share, ready });
        copy
    }

    /// Nobody gets what comes behind the body: no plugin was shown it, and upstreams may take it for header fields.
    pub(crate) fn drop_trailers(&mut self) {
        self.trailers = Trailers::Dropped;
    }

    /// How long the body is at least, as far as the client has said.
    pub(crate) fn bytes_at_least(&self) -> u64 {
        self.body.size_hint().lower()
    }

    /// Reads the body to its end, or beyond `bytes_max` or what `share` can take.
    pub(crate) async fn hold(self, bytes_max: usize, share: &mut Share) -> Result<Held<Paced>, BodyError> {
        let held = hold(self.body, bytes_max, share).await?;
        if let (Some(mut copy), None) = (self.copy, &held.rest)
            && held.bytes.len() <= copy.bytes_max
            && copy.share.grow(held.bytes.len()).is_ok()
        {
            // Nobody may be left to take it.
            let _ = copy.ready.send(Kept { bytes: held.bytes.clone(), share: copy.share });
        }
        Ok(held)
    }

    fn note(&mut self, data: Option<&Bytes>) {
        let ended = self.body.is_end_stream();
        let Some(mut copy) = self.copy.take() else { return };
        match data {
            Some(data) if copy.bytes.len() + data.len() > copy.bytes_max => return,
            Some(data) if copy.share.grow(data.len()).is_err() => return,
            Some(data) => copy.bytes.extend_from_slice(data),
            None => {}
        }
        if ended || data.is_none() {
            // Nobody may be left to take it.
            let _ = copy.ready.send(Kept { bytes: copy.bytes.freeze(), share: copy.share });
        } else {
            self.copy = Some(copy);
        }
    }
}

/// The body of an upstream request.
#[derive(Debug)]
pub(crate) enum Outgoing {
    Whole(Option<Bytes>),
    Lent(Loan),
}

/// A client's body, lent to one attempt at an upstream. If the attempt ends before it has begun to
/// read, as it does when no connection can be made, the body comes home for the next attempt.
#[derive(Debug)]
pub(crate) struct Loan {
    source: Option<Source>,
    home: Option<oneshot::Sender<Source>>,
    /// Counts frames, so that a long upload is not taken for a silent upstream.
    progress: Arc<AtomicU64>,
}

impl Loan {
    pub(crate) fn new(source: Source, progress: Arc<AtomicU64>) -> (Self, oneshot::Receiver<Source>) {
        let (home, back) = oneshot::channel();
        (Self { source: Some(source), home: Some(home), progress }, back)
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        if let (Some(home), Some(source)) = (self.home.take(), self.source.take()) {
            // The exchange may be gone, and its body with it.
            let _ = home.send(source);
        }
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut *self {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Lent(loan) => {
                loan.home = None;
                let Some(source) = &mut loan.source else { return Poll::Ready(None) };
                let frame = std::task::ready!(Pin::new(&mut source.body).poll_frame(cx));
                loan.progress.fetch_add(1, Ordering::Relaxed);
                match &frame {
                    Some(Ok(frame)) if frame.is_data() => source.note(frame.data_ref()),
                    Some(Ok(_)) if source.trailers == Trailers::Dropped => {
                        source.note(None);
                        return Poll::Ready(None);
                    }
                    Some(Ok(_)) => {}
                    Some(Err(_)) => source.copy = None,
                    None => source.note(None),
                }
                Poll::Ready(frame)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.as_ref().is_none_or(Bytes::is_empty),
            Self::Lent(loan) => loan.source.as_ref().is_none_or(|source| source.body.is_end_stream()),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
            Self::Lent(loan) => {
                loan.source.as_ref().map_or_else(SizeHint::new, |source| source.body.size_hint())
            }
        }
    }
}

/// Frames at hand, as a queue that becomes a body.
pub(crate) fn frames(
    data: impl IntoIterator<Item = Bytes>,
    trailers: Option<HeaderMap>,
) -> VecDeque<Frame<Bytes>> {
    let data = data.into_iter().filter(|data| !data.is_empty()).map(Frame::data);
    data.chain(trailers.map(Frame::trailers)).collect()
}

/// A body cannot be decoded: an unknown coding, damaged, or more than the limit.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Undecodable;

/// Whether a message's body is sent in some coding.
pub(crate) fn is_encoded(headers: &HeaderMap) -> bool {
    headers.get_all(CONTENT_ENCODING).iter().any(|value| !value.as_bytes().eq_ignore_ascii_case(b"identity"))
}

/// A body without its content codings. `bytes_max` bounds what comes out, so that a small body cannot
/// become a large one unseen.
pub(crate) fn decode(headers: &HeaderMap, body: &Bytes, bytes_max: usize) -> Result<Bytes, Undecodable> {
    let mut codings = Vec::new();
    for value in headers.get_all(CONTENT_ENCODING) {
        let value = value.to_str().map_err(|_| Undecodable)?;
        codings.extend(value.split(',').map(|coding| coding.trim().to_ascii_lowercase()));
    }
    let mut decoded = body.clone();
    // Listed in the order in which they were applied.
    for coding in codings.iter().rev() {
        decoded = match coding.as_str() {
            "identity" | "" => continue,
            // HEAD and 304 have the field and no body.
            _ if decoded.is_empty() => continue,
            "gzip" | "x-gzip" => read(flate2::read::MultiGzDecoder::new(&*decoded), bytes_max)?,
            "br" => read(brotli::Decompressor::new(&*decoded, 4096), bytes_max)?,
            // Meant is zlib; some servers send bare deflate.
            "deflate" => match read(flate2::read::ZlibDecoder::new(&*decoded), bytes_max) {
                Ok(decoded) => decoded,
                Err(Undecodable) => read(flate2::read::DeflateDecoder::new(&*decoded), bytes_max)?,
            },
            _ => return Err(Undecodable),
        };
    }
    Ok(decoded)
}

fn read(decoder: impl Read, bytes_max: usize) -> Result<Bytes, Undecodable> {
    let mut decoded = Vec::new();
    let limit = u64::try_from(bytes_max).unwrap_or(u64::MAX).saturating_add(1);
    let read: io::Result<usize> = decoder.take(limit).read_to_end(&mut decoded);
    match read {
        Ok(len) if len <= bytes_max => Ok(decoded.into()),
        Ok(_) | Err(_) => Err(Undecodable),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn encode(coding: &str, body: &[u8]) -> Vec<u8> {
        match coding {
            "gzip" => {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                encoder.write_all(body).unwrap();
                encoder.finish().unwrap()
            }
            "deflate" => {
                let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
                encoder.write_all(body).unwrap();
                encoder.finish().unwrap()
            }
            "raw deflate" => {
                let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::fast());
                encoder.write_all(body).unwrap();
                encoder.finish().unwrap()
            }
            "br" => {
                let mut encoded = Vec::new();
                brotli::BrotliCompress(
                    &mut &*body,
                    &mut encoded,
                    &brotli::enc::BrotliEncoderParams::default(),
                )
                .unwrap();
                encoded
            }
            _ => body.to_vec(),
        }
    }

    fn field(coding: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(CONTENT_ENCODING, HeaderValue::from_static(coding))])
    }

    #[track_caller]
    fn check(field_value: &'static str, encoded: Vec<u8>, expected: Result<&[u8], Undecodable>) {
        let decoded = decode(&field(field_value), &Bytes::from(encoded), 100);
        assert_eq!(decoded.as_deref(), expected.as_ref().map(|bytes| *bytes));
    }

    #[test]
    fn codings_are_undone_within_the_limit() {
        let hello = b"hello hello hello";
        check("gzip", encode("gzip", hello), Ok(hello));
        check("X-GZIP", encode("gzip", hello), Ok(hello));
        check("deflate", encode("deflate", hello), Ok(hello));
        check("deflate", encode("raw deflate", hello), Ok(hello));
        check("br", encode("br", hello), Ok(hello));
        check("gzip, br", encode("br", &encode("gzip", hello)), Ok(hello));
        check("identity", hello.to_vec(), Ok(hello));
        check("gzip", Vec::new(), Ok(b""));
        check("gzip", encode("gzip", &[0; 100]), Ok(&[0; 100]));
        check("gzip", encode("gzip", &[0; 101]), Err(Undecodable));
        check("br", encode("br", &[0; 1 << 20]), Err(Undecodable));
        check("gzip", hello.to_vec(), Err(Undecodable));
        check("gzip", encode("gzip", hello)[..12].to_vec(), Err(Undecodable));
        check("zstd", hello.to_vec(), Err(Undecodable));
    }

    proptest! {
        #[test]
        fn decoding_undoes_encoding(
            body in proptest::collection::vec(any::<u8>(), 0..300),
            coding in prop_oneof![Just("gzip"), Just("deflate"), Just("br")],
        ) {
            let decoded = decode(&field(coding), &Bytes::from(encode(coding, &body)), 300);
            prop_assert_eq!(decoded.unwrap(), body);
        }

        #[test]
        fn damaged_bodies_never_panic(
            body in proptest::collection::vec(any::<u8>(), 0..300),
            coding in prop_oneof![Just("gzip"), Just("deflate"), Just("br")],
        ) {
            let _ = decode(&field(coding), &Bytes::from(body), 1000);
        }
    }
}
