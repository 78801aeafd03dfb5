//! An answer on its way to the client: shown to plugins, edited, put into the form the client asked for.

use std::collections::VecDeque;

use bytes::Bytes;
use cardan_api::Fault;
use cardan_api::http::{Origin, Response as PluginResponse, ResponseEvent};
use http::header::{
    CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER, TRAILER,
};
use http::{Method, Response, StatusCode};
use http_body::Frame;
use serde_json::Value;

use crate::body::{self, BodyError, Held, Unheld, frames};
use crate::budget::Share;
use crate::completion::{self, Form, Usage};
use crate::error::{Problem, Told};
use crate::headers::{self, NotAField, REPLAYED};
use crate::reply::{EventRelay, Rest};
use crate::sse;
use crate::upstream::UpstreamBody;

/// An answer before plugins have judged it.
#[derive(Debug)]
pub(crate) struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    origin: Origin,
    body: AnswerBody,
    shown: Shown,
}

#[derive(Debug)]
enum AnswerBody {
    Whole(Bytes),
    /// A whole completion whose client wants a stream.
    Replay(Bytes, Usage),
    /// Not read yet.
    Upstream(UpstreamBody),
    /// Read, or as much of it as may be held.
    Held(Held<UpstreamBody>),
}

/// What plugins have been shown of the body.
#[derive(Debug)]
enum Shown {
    Nothing,
    Bytes(Bytes),
    /// The completion that a stream adds up to.
    Assembled(Bytes),
    /// It cannot be shown.
    Never(Fault),
}

/// An answer as the client gets it.
#[derive(Debug)]
pub(crate) struct Settled {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) queue: VecDeque<Frame<Bytes>>,
    pub(crate) rest: Option<Rest>,
}

impl Answer {
    pub(crate) fn of_upstream(response: Response<UpstreamBody>) -> Result<Self, Problem> {
        let (head, body) = response.into_parts();
        // We ask for no upgrade, so there is nothing to switch to.
        if head.status.is_informational() {
            return Err(Problem::UpstreamBroken);
        }
        Ok(Self {
            status: head.status,
            headers: head.headers,
            origin: Origin::Upstream,
            body: AnswerBody::Upstream(body),
            shown: Shown::Nothing,
        })
    }

    /// A document of the host's own.
    pub(crate) fn document(document: &Value) -> Self {
        Self {
            status: StatusCode::OK,
            headers: HeaderMap::from_iter([(CONTENT_TYPE, JSON)]),
            origin: Origin::Host,
            body: AnswerBody::Whole(document.to_string().into()),
            shown: Shown::Nothing,
        }
    }

    /// A plugin's response. A completion is streamed if that is the form the client asked for.
    pub(crate) fn of_plugin(response: PluginResponse, form: Form) -> Result<Self, Problem> {
        let status = sendable(response.status)?;
        let mut headers = headers::after_edits(HeaderMap::new(), &response.headers)
            .map_err(|NotAField| Problem::Unsendable)?;
        // How a message is framed is the connection's business, also in answer to HEAD.
        headers.remove(CONTENT_LENGTH);
        if !headers.contains_key(CONTENT_TYPE)
            && serde_json::from_slice::<serde::de::IgnoredAny>(&response.body).is_ok()
        {
            headers.insert(CONTENT_TYPE, JSON);
        }
        let body = match form {
            Form::Stream(usage) if completion::is_completion(&response.body) => {
                AnswerBody::Replay(response.body, usage)
            }
            _ => AnswerBody::Whole(response.body),
        };
        Ok(Self { status, headers, origin: Origin::Plugin, body, shown: Shown::Nothing })
    }

    /// Takes out what means another connection. A length stays where there is no body to tell it.
    pub(crate) fn strip_hop(&mut self, method: &Method) {
        headers::strip_hop(&mut self.headers);
        if method != Method::HEAD {
            self.headers.remove(CONTENT_LENGTH);
        }
    }

    /// Writes this answer into an event for plugins.
    pub(crate) fn describe(&self, event: &mut ResponseEvent) {
        event.status = self.status.as_u16();
        event.headers = headers::shown(&self.headers);
        event.body = None;
        event.streamed = matches!(self.body, AnswerBody::Replay(..)) || is_event_stream(&self.headers);
        event.origin = self.origin;
    }

    /// The body for a plugin to see, or why it cannot be had. Reads it if nobody has yet.
    pub(crate) async fn show(
        &mut self,
        bytes_max: usize,
        share: &mut Share,
    ) -> Result<Result<Bytes, Fault>, Problem> {
        if let Shown::Nothing = self.shown {
            let body = std::mem::replace(&mut self.body, AnswerBody::Whole(Bytes::new()));
            (self.body, self.shown) = self.look(body, bytes_max, share).await?;
        }
        Ok(match &self.shown {
            Shown::Bytes(bytes) | Shown::Assembled(bytes) => Ok(bytes.clone()),
            Shown::Never(fault) => Err(*fault),
            Shown::Nothing => Err(Fault::Host),
        })
    }

    async fn look(
        &self,
        body: AnswerBody,
        bytes_max: usize,
        share: &mut Share,
    ) -> Result<(AnswerBody, Shown), Problem> {
        let held = match body {
            AnswerBody::Upstream(body) => {
                body::hold(body, bytes_max, share).await.map_err(|error| match error {
                    BodyError::Idle | BodyError::Slow => Problem::UpstreamTimeout,
                    BodyError::TooLarge | BodyError::Stalled | BodyError::Lost(_) => Problem::UpstreamBroken,
                })?
            }
            AnswerBody::Held(held) => held,
            AnswerBody::Whole(bytes) => return Ok((AnswerBody::Whole(bytes.clone()), Shown::Bytes(bytes))),
            AnswerBody::Replay(bytes, usage) => {
                return Ok((AnswerBody::Replay(bytes.clone(), usage), Shown::Bytes(bytes)));
            }
        };
        let shown = match &held.rest {
            Some((_, Unheld::TooLong)) => Shown::Never(Fault::Host),
            Some((_, Unheld::NoRoom)) => Shown::Never(Fault::Busy),
            None => match self.read(&held.bytes, bytes_max) {
                // What was made of the bytes takes room beside them.
                Shown::Bytes(plain) if plain == held.bytes => Shown::Bytes(plain),
                Shown::Bytes(made) | Shown::Assembled(made) if share.grow(made.len()).is_err() => {
                    Shown::Never(Fault::Busy)
                }
                shown => shown,
            },
        };
        Ok((AnswerBody::Held(held), shown))
    }

    /// What plugins are shown of a whole body.
    fn read(&self, bytes: &Bytes, bytes_max: usize) -> Shown {
        match body::decode(&self.headers, bytes, bytes_max) {
            Err(body::Undecodable) => Shown::Never(Fault::Host),
            Ok(plain) if is_event_stream(&self.headers) => match completion::assemble(&plain) {
                Some(completion) => Shown::Assembled(completion.to_string().into()),
                None => Shown::Bytes(plain),
            },
            Ok(plain) => Shown::Bytes(plain),
        }
    }

    /// What the client gets: this answer with the edits that plugins have left in `asked`, or as it is
    /// when nobody was asked.
    pub(crate) fn settle(
        mut self,
        asked: Option<&ResponseEvent>,
        event_bytes_max: usize,
        share: &mut Share,
    ) -> Result<Settled, Problem> {
        let streamed = is_event_stream(&self.headers) && !body::is_encoded(&self.headers);
        let edited = match asked {
            Some(event) => self.take_edits(event)?,
            None => None,
        };
        if let AnswerBody::Held(held) = &mut self.body {
            // Plugins have judged the message without them.
            if held.trailers.take().is_some() {
                self.headers.remove(TRAILER);
            }
        }
        let settled = match (edited, self.shown, self.body) {
            (Some(body), Shown::Assembled(_), _) => replay(self.status, self.headers, &body, Usage::Send),
            (Some(body), _, AnswerBody::Replay(_, usage)) => replay(self.status, self.headers, &body, usage),
            (None, _, AnswerBody::Replay(body, usage)) => replay(self.status, self.headers, &body, usage),
            (Some(body), ..) => {
                headers::strip_of_the_bytes(&mut self.headers);
                Ok(whole(self.status, self.headers, body))
            }
            (None, _, AnswerBody::Whole(body)) => Ok(whole(self.status, self.headers, body)),
            (None, _, AnswerBody::Held(held)) => {
                return Ok(Settled {
                    status: self.status,
                    headers: self.headers,
                    queue: frames([held.bytes], None),
                    rest: held.rest.map(|(rest, _)| Rest::Bytes(rest)),
                });
            }
            (None, _, AnswerBody::Upstream(body)) => Ok(Settled {
                status: self.status,
                headers: self.headers,
                queue: VecDeque::new(),
                rest: Some(match streamed {
                    true => Rest::Events(EventRelay::new(body, event_bytes_max, share.sibling())),
                    false => Rest::Bytes(body),
                }),
            }),
        };
        // What came from plugins or was made here was not counted yet.
        let settled = settled?;
        share.grow(settled.queue.iter().filter_map(Frame::data_ref).map(Bytes::len).sum())?;
        Ok(settled)
    }

    /// Takes over status and header fields, and returns the body if it is not the one that was shown.
    fn take_edits(&mut self, event: &ResponseEvent) -> Result<Option<Bytes>, Problem> {
        if event.status != self.status.as_u16() {
            self.status = sendable(event.status)?;
        }
        let length = self.headers.get(CONTENT_LENGTH).cloned();
        self.headers = headers::after_edits(std::mem::take(&mut self.headers), &event.headers)
            .map_err(|NotAField| Problem::Unsendable)?;
        // Plugins do not frame messages: what they wrote about connection or length would be believed.
        headers::strip_hop(&mut self.headers);
        self.headers.remove(CONTENT_LENGTH);
        if let Some(length) = length {
            self.headers.insert(CONTENT_LENGTH, length);
        }
        match (&self.shown, &event.body) {
            (_, None) => Ok(None),
            (Shown::Bytes(shown) | Shown::Assembled(shown), Some(body)) => {
                Ok((body != shown).then(|| body.clone()))
            }
            (Shown::Nothing | Shown::Never(_), Some(_)) => Err(Problem::Unsendable),
        }
    }
}

impl From<Told> for Settled {
    fn from(told: Told) -> Self {
        let mut headers = HeaderMap::from_iter([(CONTENT_TYPE, JSON)]);
        headers.extend(told.retry_after.map(|seconds| (RETRY_AFTER, seconds)));
        whole(told.status, headers, told.document)
    }
}

const JSON: HeaderValue = HeaderValue::from_static("application/json");

fn whole(status: StatusCode, headers: HeaderMap, body: Bytes) -> Settled {
    Settled { status, headers, queue: frames([body], None), rest: None }
}

/// A completion as the stream that the client asked for.
fn replay(status: StatusCode, mut headers: HeaderMap, body: &[u8], usage: Usage) -> Result<Settled, Problem> {
    let completion: Value = serde_json::from_slice(body).map_err(|_| Problem::Unsendable)?;
    let events = completion::replay(&completion, usage).ok_or(Problem::Unsendable)?;
    headers::strip_of_the_bytes(&mut headers);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(sse::MEDIA_TYPE));
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-cache"));
    headers.insert(REPLAYED, HeaderValue::from_static("true"));
    Ok(Settled { status, headers, queue: frames(events, None), rest: None })
}

fn sendable(status: u16) -> Result<StatusCode, Problem> {
    let status = Some(status).filter(|status| (200..600).contains(status));
    status.and_then(|status| StatusCode::from_u16(status).ok()).ok_or(Problem::Unsendable)
}

fn is_event_stream(headers: &HeaderMap) -> bool {
    let media_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media_type = media_type.split_once(';').map_or(media_type, |(media_type, _)| media_type);
    media_type.trim().eq_ignore_ascii_case(sse::MEDIA_TYPE)
}
