//! One exchange, walked: receive, ask, forward, ask, reply.
//!
//! What no plugin is bound to is not paid for: a body is held only when a binding says on the way that
//! it needs it, so that an API-key check can refuse before the body is read. What a plugin has to see
//! and cannot (too long, compressed beyond our means) is a fault of that binding, never a way round it.
//!
//! `http.response` is asked about every answer: an upstream's, a plugin's (`Respond` at
//! `http.request`), and documents the host writes itself, such as its list of models. Errors and
//! refusals are not answers and pass nobody.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use cardan_api::http::{
    Headers, HttpAnswer, HttpComplete, HttpRequest, HttpResponse, Origin, RequestEvent,
    Response as PluginResponse, ResponseEvent,
};
use cardan_api::{BodyNeed, Hook};
use cardan_manager::{Cause, Progress, Stop, TraceContext};
use http::header::{CONTENT_LENGTH, HOST, TRAILER};
use http::request::Parts;
use http::{HeaderMap, HeaderName, Method, Request, Response, StatusCode, Version};
use http_body::Body as _;
use hyper::body::Incoming;
use tokio::time::Instant;
use tracing::Instrument;

use crate::answer::{Answer, Settled};
use crate::body::{Pace, Paced, Source, is_encoded};
use crate::budget::Share;
use crate::busy::Busy;
use crate::completion::{self, Form, Usage};
use crate::config::AmbiguousBodies;
use crate::core::Core;
use crate::error::Problem;
use crate::headers::{self, NotAField, Provenance, REQUEST_ID, ResponseUse};
use crate::ijson;
use crate::media_type;
use crate::path::{host_of, normalise};
use crate::record::{Entry, Record};
use crate::reply::ReplyBody;
use crate::route::Route;
use crate::upstream::{Draft, DraftBody, Terms, hold_request};

/// What an upstream called its part of the exchange, since `x-request-id` is what we call it.
const UPSTREAM_REQUEST_ID: HeaderName = HeaderName::from_static("x-upstream-request-id");

/// Answers a request. Never fails: what goes wrong is an answer too.
pub(crate) async fn answer(
    core: Arc<Core>,
    client: SocketAddr,
    busy: Busy,
    request: Request<Incoming>,
) -> Response<ReplyBody> {
    let (mut exchange, inbound) = Exchange::receive(core, client, busy, request);
    let span = tracing::info_span!("exchange", visit = exchange.record.visit.id());
    let settled = match exchange.walk(inbound).instrument(span).await {
        Ok(settled) => settled,
        Err(problem) => {
            exchange.record.problem = Some(problem.code().to_owned());
            problem.tell().into()
        }
    };
    exchange.reply(settled)
}

/// The client's own trace. Two of them are none.
fn trace(headers: &HeaderMap) -> Option<TraceContext> {
    let mut fields = headers.get_all("traceparent").iter();
    let field = fields.next().filter(|_| fields.next().is_none())?;
    TraceContext::parse(field.to_str().ok()?)
}

struct Exchange {
    record: Record,
}

/// A request apart from what its event shows.
struct Inbound {
    headers: HeaderMap,
    /// As the client wrote it, port included.
    authority: Result<String, Problem>,
    body: RequestBody,
    /// Whether everybody reads the body alike, so far as that is asked for.
    unambiguous: bool,
}

enum RequestBody {
    Unread(Source),
    Whole(Bytes),
}

impl Exchange {
    /// Opens the visit and the record. From here on the record is closed, whatever happens.
    fn receive(
        core: Arc<Core>,
        client: SocketAddr,
        busy: Busy,
        request: Request<Incoming>,
    ) -> (Self, Inbound) {
        let began = Instant::now();
        let (mut head, body) = request.into_parts();
        // Before plugins set fields that a client's `Connection` could name, and so take out again.
        headers::strip_hop(&mut head.headers);
        let snapshot = core.manager.snapshot();
        let plan = core.plan_of(&snapshot);
        let session = plan.session_header.as_ref().and_then(|name| head.headers.get(name)?.to_str().ok());
        let mut visit = core.manager.open_on(snapshot, session);
        if let Some(trace) = trace(&head.headers) {
            visit.continue_trace(trace);
        }
        let authority = authority(&head);
        let body = if body.is_end_stream() {
            RequestBody::Whole(Bytes::new())
        } else {
            let pace = Pace { idle: plan.timeouts.request_idle, whole: Some(plan.timeouts.request) };
            RequestBody::Unread(Source::new(Paced::new(body, pace, plan.limits.request_body_bytes_max)))
        };
        let record = Record::new(Entry {
            share: Share::of(core.held.clone(), plan.limits.held_bytes_max),
            core,
            plan,
            visit,
            event: event(&head, client, authority.as_deref().unwrap_or_default()),
            observed: false,
            copy: None,
            client,
            method: head.method,
            version: head.version,
            uri: head.uri,
            began,
            route: None,
            upstream: None,
            status: None,
            sent_bytes: 0,
            ended: false,
            stopped_by: None,
            problem: None,
            _busy: busy,
        });
        (Self { record }, Inbound { headers: head.headers, authority, body, unambiguous: false })
    }

    async fn walk(&mut self, mut inbound: Inbound) -> Result<Settled, Problem> {
        let admitted = self.admit(&inbound);
        self.record.observe(&inbound.headers);
        admitted?;
        let answer = match self.ask_request(&mut inbound).await? {
            Some(answer) => answer,
            None => self.forward(inbound).await?,
        };
        self.ask_response(answer).await
    }

    /// Refuses what no plugin and no upstream should have to think about.
    fn admit(&mut self, inbound: &Inbound) -> Result<(), Problem> {
        inbound.authority.as_ref().map_err(Problem::clone)?;
        let entry = &mut *self.record;
        // TRACE would show clients the fields that routes add.
        if matches!(entry.method, Method::CONNECT | Method::TRACE) {
            return Err(Problem::MethodUnsupported);
        }
        let path = normalise(&entry.event.request.path, entry.plan.ambiguous_paths);
        if let Cow::Owned(path) = path.map_err(Problem::BadPath)? {
            entry.event.request.path = path;
        }
        let max = entry.plan.limits.request_body_bytes_max;
        match &inbound.body {
            RequestBody::Unread(source) if source.bytes_at_least() > max => {
                Err(Problem::BodyTooLarge(Some(max)))
            }
            _ => Ok(()),
        }
    }

    /// Asks `http.request`. An answer means that no upstream is needed.
    async fn ask_request(&mut self, inbound: &mut Inbound) -> Result<Option<Answer>, Problem> {
        let entry = &mut *self.record;
        let mut chain = entry.visit.chain::<HttpRequest>(&entry.event.request);
        loop {
            match entry.visit.ask(&mut chain, &mut entry.event.request).await {
                // A path that was edited is brought to its one form, for which others may have to be asked.
                Progress::Done if entry.normalise_edits()? => continue,
                Progress::Done => {
                    // Plugins may have made it a request whose body has to be JSON.
                    inbound.check_shown(entry, &entry.event.request.path)?;
                    return Ok(None);
                }
                Progress::NeedsBody => inbound.show(entry).await?,
                Progress::Stopped(stop) => {
                    let response = self.stopped(stop)?;
                    let form = self.form_of(&response, inbound).await?;
                    return Answer::of_plugin(response, form).map(Some);
                }
            }
        }
    }

    /// What a stop means: a plugin's response, or an error.
    fn stopped<H: Hook<Answer = HttpAnswer>>(&mut self, stop: Stop<H>) -> Result<PluginResponse, Problem> {
        self.record.stopped_by = Some(stop.plugin.clone());
        match stop.cause {
            Cause::Answer(HttpAnswer::Respond(response)) => Ok(response),
            Cause::Answer(HttpAnswer::Refuse(refusal)) => {
                Err(Problem::Refused { phase: stop.phase, refusal })
            }
            Cause::Fault(fault) => Err(Problem::Faulted { plugin: stop.plugin, fault }),
        }
    }

    /// The form in which the client wants a plugin's response to its request.
    async fn form_of(&mut self, response: &PluginResponse, inbound: &mut Inbound) -> Result<Form, Problem> {
        let entry = &mut *self.record;
        if entry.method != Method::POST || !completion::is_completion(&response.body) {
            return Ok(Form::Whole);
        }
        // Only the body says whether the client wants a stream.
        if entry.event.request.body.is_none() {
            inbound.show(entry).await?;
        }
        Ok(Form::of_request(entry.event.request.body.as_deref().unwrap_or_default()))
    }

    /// Sends the request, as plugins left it, to the upstream of its route.
    async fn forward(&mut self, mut inbound: Inbound) -> Result<Answer, Problem> {
        let entry = &mut *self.record;
        let plan = entry.plan.clone();
        let request = &entry.event.request;
        let route = plan.routes.find(&entry.method, &request.host, &request.path).ok_or(Problem::NoRoute)?;
        entry.route = Some(route.name.clone());
        let path = route.upstream_path(&request.path).into_owned();
        // What the client's path does not tell, the upstream's may.
        inbound.check_shown(entry, &path)?;
        if matches!(entry.method, Method::GET | Method::HEAD)
            && let Some(document) = route.group.models_document(&path)
        {
            return Ok(Answer::document(&document));
        }
        entry.upstream = Some(route.group.name.clone());
        let draft = entry.draft(inbound, route, path)?;
        let terms = Terms { limits: &plan.limits, timeouts: &plan.timeouts, share: &mut entry.share };
        let response = entry.core.client.send(&route.group, draft, terms).await?;
        entry.fetch_copy();
        Answer::of_upstream(response)
    }

    /// Asks `http.response`, and puts together what the client gets.
    async fn ask_response(&mut self, mut answer: Answer) -> Result<Settled, Problem> {
        let entry = &mut *self.record;
        let limits = &entry.plan.limits;
        let share = &mut entry.share;
        answer.strip_hop(&entry.method);
        let mut chain = entry.visit.chain::<HttpResponse>(&entry.event);
        if chain.is_done() {
            return answer.settle(None, limits.event_bytes_max, share);
        }
        answer.describe(&mut entry.event);
        loop {
            let progress = match entry.visit.ask(&mut chain, &mut entry.event).await {
                Progress::Done => return answer.settle(Some(&entry.event), limits.event_bytes_max, share),
                Progress::NeedsBody => match answer.show(limits.held_response_bytes_max, share).await? {
                    Ok(body) => {
                        entry.event.body = Some(body);
                        continue;
                    }
                    Err(fault) => entry.visit.cannot_show(&mut chain, fault),
                },
                stopped => stopped,
            };
            // After a fault that was skipped there may be others to ask.
            if let Progress::Stopped(stop) = progress {
                let form = match (&entry.event.request.body, entry.event.streamed) {
                    (Some(request), _) => Form::of_request(request),
                    (None, true) => Form::Stream(Usage::Omit),
                    (None, false) => Form::Whole,
                };
                let event_bytes_max = limits.event_bytes_max;
                let mut answer = Answer::of_plugin(self.stopped(stop)?, form)?;
                answer.strip_hop(&self.record.method);
                return answer.settle(None, event_bytes_max, &mut self.record.share);
            }
        }
    }

    fn reply(mut self, settled: Settled) -> Response<ReplyBody> {
        let Settled { status, mut headers, queue, rest } = settled;
        if let Some(theirs) = headers.remove(REQUEST_ID) {
            headers.insert(UPSTREAM_REQUEST_ID, theirs);
        }
        headers::set(&mut headers, REQUEST_ID, self.record.visit.id());
        self.record.status = Some(status);
        // Such answers have no body, so that nobody will see its end. HTTP/1 would leave it out by itself.
        let bodiless = self.record.method == Method::HEAD
            || matches!(
                status,
                StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT | StatusCode::NOT_MODIFIED
            );
        if matches!(status, StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT) {
            headers.remove(CONTENT_LENGTH);
        }
        let (queue, rest) = if bodiless { (VecDeque::new(), None) } else { (queue, rest) };
        self.record.ended = bodiless;
        let mut response = Response::new(ReplyBody::new(queue, rest, self.record));
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        response
    }
}

impl Inbound {
    /// Puts the body into the event.
    async fn show(&mut self, entry: &mut Entry) -> Result<(), Problem> {
        let whole = match std::mem::replace(&mut self.body, RequestBody::Whole(Bytes::new())) {
            RequestBody::Whole(bytes) => bytes,
            RequestBody::Unread(_) if is_encoded(&self.headers) => return Err(Problem::BodyEncoded),
            RequestBody::Unread(source) => {
                hold_request(source, entry.plan.limits.held_request_bytes_max, &mut entry.share).await?
            }
        };
        self.body = RequestBody::Whole(whole.clone());
        entry.event.request.body = Some(whole);
        self.check_shown(entry, &entry.event.request.path)
    }

    /// Refuses a body that plugins are shown if others, at `path`, could read it in another way. What plugins
    /// have put in its place is theirs to answer for.
    fn check_shown(&mut self, entry: &Entry, path: &str) -> Result<(), Problem> {
        let request = &entry.event.request;
        let (RequestBody::Whole(read), Some(shown)) = (&self.body, &request.body) else { return Ok(()) };
        let pass = entry.plan.ambiguous_bodies == AmbiguousBodies::PassOn;
        if pass || read != shown {
            return Ok(());
        }
        if !read.is_empty() {
            media_type::check(&self.headers, &request.headers).map_err(Problem::TypeAmbiguous)?;
        }
        if self.unambiguous || !ijson::is_meant(request, path) {
            return Ok(());
        }
        ijson::check(request, read).map_err(Problem::BodyAmbiguous)?;
        self.unambiguous = true;
        Ok(())
    }
}

impl Entry {
    /// Fills in the header fields if anybody is going to see them.
    fn observe(&mut self, headers: &HeaderMap) {
        self.observed = !self.visit.chain::<HttpRequest>(&self.event.request).is_done()
            || !self.visit.chain::<HttpResponse>(&self.event).is_done()
            || !self.with_complete(|visit, event| visit.chain::<HttpComplete>(event).is_done());
        if self.observed {
            self.event.request.headers = headers::shown(headers);
        }
    }

    /// Brings the path that plugins have left to the form that everybody reads alike. Whether it was in
    /// another.
    fn normalise_edits(&mut self) -> Result<bool, Problem> {
        let path = normalise(&self.event.request.path, self.plan.ambiguous_paths);
        let Cow::Owned(path) = path.map_err(|_| Problem::Unsendable)? else { return Ok(false) };
        let changed = path != self.event.request.path;
        self.event.request.path = path;
        Ok(changed)
    }

    /// The upstream request: the client's, with the edits of plugins and what the route adds.
    fn draft(&mut self, inbound: Inbound, route: &Route, path: String) -> Result<Draft, Problem> {
        let Inbound { mut headers, authority, body, unambiguous: _ } = inbound;
        let encoded = is_encoded(&headers);
        if self.observed {
            headers = headers::after_edits(headers, &self.event.request.headers)
                .map_err(|NotAField| Problem::Unsendable)?;
            // What comes behind the body no plugin has seen.
            headers.remove(TRAILER);
        }
        let response_use = match self.visit.body_need::<HttpResponse>(&self.event) {
            BodyNeed::None => ResponseUse::PassedOn,
            BodyNeed::Whole => ResponseUse::Read,
        };
        let seen_later = response_use == ResponseUse::Read
            || self.with_complete(|visit, event| visit.body_need::<HttpComplete>(event)) == BodyNeed::Whole;
        let body = match (body, &mut self.event.request.body) {
            (RequestBody::Whole(read), Some(left)) => {
                if read != *left {
                    self.share.grow(left.len())?;
                    headers::strip_of_the_bytes(&mut headers);
                }
                DraftBody::Whole(left.clone())
            }
            (RequestBody::Whole(read), unseen) => {
                *unseen = seen_later.then(|| read.clone());
                DraftBody::Whole(read)
            }
            // A body that nobody was shown cannot have been edited.
            (RequestBody::Unread(_), Some(_)) => return Err(Problem::Unsendable),
            (RequestBody::Unread(mut source), None) => {
                if self.observed {
                    source.drop_trailers();
                }
                if seen_later && !encoded {
                    self.copy =
                        Some(source.keep_copy(self.plan.limits.held_request_bytes_max, self.share.sibling()));
                }
                DraftBody::Client(source)
            }
        };
        let about = Provenance {
            client: self.client.ip(),
            authority: &authority?,
            forwarded: self.plan.forwarded,
            visit: self.visit.id(),
        };
        headers::for_upstream(&mut headers, &about, response_use);
        headers.extend(route.headers.clone());
        Ok(Draft {
            method: self.method.clone(),
            path,
            query: self.event.request.query.clone(),
            headers,
            body,
        })
    }
}

/// The one host a request is for (RFC 9112, section 3.2).
fn authority(head: &Parts) -> Result<String, Problem> {
    let mut fields = head.headers.get_all(HOST).iter();
    let field = fields.next();
    if fields.next().is_some() {
        return Err(Problem::BadHost);
    }
    match (head.uri.authority(), field) {
        // The request line wins: absolute form, or `:authority` in HTTP/2.
        (Some(authority), _) => Ok(authority.as_str().to_owned()),
        (None, Some(field)) => field.to_str().map(str::to_owned).map_err(|_| Problem::BadHost),
        (None, None) if head.version < Version::HTTP_11 => Ok(String::new()),
        (None, None) => Err(Problem::BadHost),
    }
}

/// A request as plugins are shown it, but for its header fields, in an answer yet to come.
fn event(head: &Parts, client: SocketAddr, authority: &str) -> ResponseEvent {
    ResponseEvent {
        request: RequestEvent {
            method: head.method.as_str().to_owned(),
            host: host_of(authority),
            path: head.uri.path().to_owned(),
            query: head.uri.query().map(str::to_owned),
            client: client.to_string(),
            headers: Headers::default(),
            body: None,
        },
        status: StatusCode::OK.as_u16(),
        headers: Headers::default(),
        body: None,
        streamed: false,
        origin: Origin::Host,
    }
}
