//! The body a client receives, and what happens when it has ended or the client has gone.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf as _, Bytes};
use http::{HeaderMap, Version};
use http_body::{Body, Frame, SizeHint};
use serde_json::Value;

use crate::body::BodyError;
use crate::budget::Share;
use crate::delivery::{Delivery, Piece};
use crate::error::Problem;
use crate::record::Record;
use crate::sse::{self, Splitter};
use crate::upstream::UpstreamBody;

/// Most bytes of a frame that leaves. The server takes frames whole, whatever the client takes of them.
const PIECE_BYTES_MAX: usize = 64 << 10;

/// A response body: frames at hand, then what still comes from the upstream. The record of its exchange is
/// closed when the client's socket has taken the last byte, or with the client.
#[derive(Debug)]
pub(crate) struct ReplyBody(Arc<Delivery>);

/// What is still to be handed to the server.
#[derive(Debug)]
pub(crate) struct Pending {
    /// What is left of a frame that leaves in pieces. It goes before the queue.
    cut: Bytes,
    queue: VecDeque<Frame<Bytes>>,
    rest: Option<Rest>,
    pub(crate) end: End,
    /// Why there was an error, in a word.
    pub(crate) problem: Option<String>,
}

/// How far the server has come with a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// It may ask for more.
    Open,
    /// It has all.
    Handed,
    /// There is more, and it will not get it.
    Broken,
}

#[derive(Debug)]
pub(crate) enum Rest {
    /// Passed on as it comes.
    Bytes(UpstreamBody),
    /// Passed on event by event.
    Events(EventRelay),
}

/// A relayed event stream. Each event leaves as one frame as soon as it is whole; one that is cut
/// short because the upstream breaks off is not sent, so that what the client read stays a valid
/// stream, and the error that follows it is an event too.
#[derive(Debug)]
pub(crate) struct EventRelay {
    body: UpstreamBody,
    splitter: Splitter,
    event_bytes_max: usize,
    /// For the event that is not complete yet.
    share: Share,
    trailers: Option<HeaderMap>,
    ended: bool,
}

impl ReplyBody {
    pub(crate) fn new(queue: VecDeque<Frame<Bytes>>, rest: Option<Rest>, record: Record) -> Self {
        let pending = Pending { cut: Bytes::new(), queue, rest, end: End::Open, problem: None };
        // On HTTP/1 a client that takes nothing stops the socket, which is watched. On HTTP/2 it may keep one
        // stream waiting while the socket goes on.
        let stall = (record.version == Version::HTTP_2).then_some(record.plan.timeouts.send_stall);
        let delivery = Delivery::new(pending, record);
        if let Some(stall) = stall {
            delivery.watch(stall);
        }
        Self(delivery)
    }
}

impl Body for ReplyBody {
    type Data = Piece;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Piece>, BodyError>>> {
        let polled = self.0.pending().poll_frame(cx);
        self.0.asked(polled.is_ready());
        let frame = std::task::ready!(polled);
        Poll::Ready(frame.map(|frame| frame.map(|frame| frame.map_data(|data| self.0.piece(data)))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.pending().is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.pending().size_hint()
    }
}

impl Drop for ReplyBody {
    fn drop(&mut self) {
        // The upstream need not wait for what the server still has to send.
        self.0.pending().leave();
    }
}

impl Pending {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.end == End::Broken {
            return Poll::Ready(Some(Err(BodyError::Stalled)));
        }
        let frame = match self.take_piece() {
            Some(piece) => Some(Ok(Frame::data(piece))),
            None => match self.queue.pop_front() {
                Some(frame) => Some(Ok(self.cut(frame))),
                None => std::task::ready!(self.poll_rest(cx)).map(|frame| frame.map(|frame| self.cut(frame))),
            },
        };
        match &frame {
            Some(Err(_)) => self.end = End::Broken,
            // The server does not ask again when it knows that there is no more.
            Some(Ok(_)) if !self.is_end_stream() => {}
            Some(Ok(_)) | None => self.end = End::Handed,
        }
        Poll::Ready(frame)
    }

    /// The first piece of a frame that is too long to leave at once, and other frames as they are.
    fn cut(&mut self, frame: Frame<Bytes>) -> Frame<Bytes> {
        match frame.into_data() {
            Ok(data) if data.len() > PIECE_BYTES_MAX => {
                self.cut = data;
                Frame::data(self.take_piece().unwrap_or_default())
            }
            Ok(data) => Frame::data(data),
            Err(frame) => frame,
        }
    }

    /// A copy, so that a piece which the server cannot get rid of does not keep all the others.
    fn take_piece(&mut self) -> Option<Bytes> {
        let len = self.cut.len().min(PIECE_BYTES_MAX);
        let piece = (len > 0).then(|| Bytes::copy_from_slice(&self.cut[..len]));
        self.cut.advance(len);
        if self.cut.is_empty() {
            self.cut = Bytes::new();
        }
        piece
    }

    fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let polled = match &mut self.rest {
            None => return Poll::Ready(None),
            Some(Rest::Bytes(body)) => Pin::new(body).poll_frame(cx),
            Some(Rest::Events(relay)) => relay.poll_frame(cx),
        };
        let failure = match std::task::ready!(polled) {
            Some(Ok(frame)) => return Poll::Ready(Some(Ok(frame))),
            None => {
                self.rest = None;
                return Poll::Ready(None);
            }
            Some(Err(failure)) => failure,
        };
        let problem = match failure {
            BodyError::Idle | BodyError::Slow => Problem::UpstreamTimeout,
            BodyError::TooLarge | BodyError::Stalled | BodyError::Lost(_) => Problem::UpstreamBroken,
        };
        self.problem = Some(problem.code().to_owned());
        match self.rest.take() {
            // Past the status line an error can only be told in the stream's own form.
            Some(Rest::Events(_)) => match serde_json::from_slice::<Value>(&problem.tell().document) {
                Ok(document) => Poll::Ready(Some(Ok(Frame::data(sse::event(&document))))),
                Err(_) => Poll::Ready(Some(Err(failure))),
            },
            // Breaking the connection off tells a client that this was not all.
            _ => Poll::Ready(Some(Err(failure))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.end != End::Broken
            && self.cut.is_empty()
            && self.queue.is_empty()
            && match &self.rest {
                None => true,
                Some(Rest::Bytes(body)) => body.is_end_stream(),
                Some(Rest::Events(relay)) => relay.is_end_stream(),
            }
    }

    fn size_hint(&self) -> SizeHint {
        let queued: u64 = self.queue.iter().filter_map(Frame::data_ref).map(|data| data.len() as u64).sum();
        let rest = match &self.rest {
            None => SizeHint::with_exact(0),
            Some(Rest::Bytes(body)) => body.size_hint(),
            Some(Rest::Events(_)) => SizeHint::new(),
        };
        match rest.exact() {
            Some(rest) => SizeHint::with_exact(self.cut.len() as u64 + queued + rest),
            None => SizeHint::new(),
        }
    }

    /// The server asks no more. A body without bytes it does not ask for at all.
    fn leave(&mut self) {
        if self.end == End::Open {
            self.end = if self.is_end_stream() { End::Handed } else { End::Broken };
        }
        self.drop_held();
    }

    /// The client will not get what is left.
    pub(crate) fn stall(&mut self) {
        self.end = End::Broken;
        self.problem = Some("client_stalled".to_owned());
        self.drop_held();
    }

    fn drop_held(&mut self) {
        (self.cut, self.queue, self.rest) = (Bytes::new(), VecDeque::new(), None);
    }
}

impl EventRelay {
    pub(crate) fn new(body: UpstreamBody, event_bytes_max: usize, share: Share) -> Self {
        Self { body, splitter: Splitter::default(), event_bytes_max, share, trailers: None, ended: false }
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        loop {
            if let Some(event) = self.splitter.next_event() {
                return Poll::Ready(Some(Ok(Frame::data(event))));
            }
            let pending = self.splitter.pending_bytes();
            // An event for which there is no room is passed on in pieces, as one that is too long is.
            let too_long = pending > self.event_bytes_max || self.share.resize(pending).is_err();
            if too_long || (self.ended && pending > 0) {
                return Poll::Ready(Some(Ok(Frame::data(self.splitter.take_pending()))));
            }
            if self.ended {
                return Poll::Ready(self.trailers.take().map(|trailers| Ok(Frame::trailers(trailers))));
            }
            match std::task::ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.splitter.push(&data),
                    Err(frame) => self.trailers = frame.into_trailers().ok(),
                },
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => self.ended = true,
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.splitter.pending_bytes() == 0
            && self.trailers.is_none()
            && (self.ended || self.body.is_end_stream())
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;
    use proptest::prelude::*;

    use super::*;
    use crate::upstream::builtin::Reply;

    /// Relays chunks and returns the frames.
    fn relay(chunks: Vec<Bytes>, event_bytes_max: usize) -> Vec<Bytes> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let share = Share::of(Arc::default(), usize::MAX);
            let mut relay = EventRelay::new(UpstreamBody::Builtin(Reply::of(chunks)), event_bytes_max, share);
            let mut frames = Vec::new();
            while let Some(frame) = std::future::poll_fn(|cx| relay.poll_frame(cx)).await {
                frames.push(frame.unwrap().into_data().unwrap());
            }
            assert!(relay.is_end_stream());
            frames
        })
    }

    proptest! {
        #[test]
        fn events_leave_one_by_one_and_unchanged(
            chunks in proptest::collection::vec("(data: [a-z]{0,9}|\\n|\\r\\n|: c){0,6}", 0..8),
            event_bytes_max in prop_oneof![Just(1 << 20), 0_usize..20],
        ) {
            let chunks: Vec<Bytes> = chunks.into_iter().map(Bytes::from).collect();
            let whole = chunks.concat();
            let frames = relay(chunks, event_bytes_max);
            prop_assert_eq!(frames.concat(), &whole[..]);
            if event_bytes_max == 1 << 20 {
                prop_assert_eq!(frames, sse::split_all(&whole));
            }
        }
    }

    #[test]
    fn a_body_ends_when_its_last_frame_is_out() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let body = Reply::of(vec!["a".into(), "b".into()]);
        let bytes = runtime.block_on(UpstreamBody::Builtin(body).collect()).unwrap().to_bytes();
        assert_eq!(bytes, "ab");
    }
}
