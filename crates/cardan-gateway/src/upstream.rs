//! Where answers come from: groups of copies of a service, asked in turn.
//!
//! A request is tried on the next copy only while no connection could be made, which is the one case
//! in which nobody can have seen any of it. A client's body that streams through is lent to an
//! attempt and comes home from one that never began to read.

pub(crate) mod builtin;

use std::error::Error as _;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{HOST, HeaderMap, HeaderValue};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Method, Request, Response, Uri};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::RootCertStore;
use serde_json::Value;
use tokio::sync::oneshot;

use crate::body::{BodyError, Held, Loan, Outgoing, Pace, Paced, Source, Unheld};
use crate::budget::Share;
use crate::config::{
    AmbiguousPaths, Builtin, ConfigError, Kind, Limits, Service, Startup, Timeouts, Trust, UpstreamConfig,
};
use crate::error::Problem;
use crate::path::normalise;

/// Copies of one service.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) name: Arc<str>,
    service: Resolved,
    /// What `GET /v1/models` says; `None`: ask the service.
    models: Option<Vec<String>>,
    tries_max: usize,
    /// Whose turn it is.
    turn: AtomicUsize,
}

#[derive(Debug)]
enum Resolved {
    Remote(Vec<Base>),
    Builtin(Builtin),
}

/// A base URL.
#[derive(Debug)]
struct Base {
    scheme: Scheme,
    authority: Authority,
    host: HeaderValue,
    /// Without final slash.
    prefix: String,
}

impl Group {
    pub(crate) fn resolve(config: &UpstreamConfig) -> Result<Self, ConfigError> {
        let service = match &config.service {
            Service::Builtin(builtin) => Resolved::Builtin(builtin.clone()),
            Service::Remote(urls) if urls.is_empty() => {
                return Err(Kind::NoUrl { upstream: config.name.clone() }.into());
            }
            Service::Remote(urls) => {
                let base = |(i, url): (usize, &String)| {
                    Base::parse(url).map_err(|why| Kind::BadUrl {
                        upstream: config.name.clone(),
                        number: i + 1,
                        why,
                    })
                };
                Resolved::Remote(urls.iter().enumerate().map(base).collect::<Result<_, _>>()?)
            }
        };
        if config.tries_max == 0 {
            return Err(Kind::Zero { what: "tries_max" }.into());
        }
        Ok(Self {
            name: config.name.as_str().into(),
            service,
            models: (!config.models.is_empty()).then(|| config.models.clone()),
            tries_max: config.tries_max,
            turn: AtomicUsize::new(0),
        })
    }

    /// The answer to `GET` on this upstream path, if it is about models and the operator listed them.
    pub(crate) fn models_document(&self, path: &str) -> Option<Value> {
        let names = self.models.as_ref()?;
        // When the models were made is not known here, and clients only display it.
        const CREATED: u64 = 0;
        if path == "/v1/models" {
            return Some(builtin::models(names.iter().map(String::as_str), CREATED));
        }
        let asked = path.strip_prefix("/v1/models/")?;
        names.iter().find(|name| *name == asked).map(|name| builtin::model(name, CREATED))
    }
}

impl Base {
    fn parse(url: &str) -> Result<Self, &'static str> {
        let uri: Uri = url.parse().map_err(|_| "begins with http:// or https://")?;
        let parts = uri.into_parts();
        let scheme = parts.scheme.filter(|scheme| *scheme == Scheme::HTTP || *scheme == Scheme::HTTPS);
        let scheme = scheme.ok_or("begins with http:// or https://")?;
        let authority = parts.authority.ok_or("names a host")?;
        if authority.as_str().contains('@') {
            return Err("has no user or password; set a header on the route");
        }
        let path = parts.path_and_query.unwrap_or_else(|| PathAndQuery::from_static("/"));
        if path.query().is_some() {
            return Err("has no query");
        }
        let prefix = normalise(path.path(), AmbiguousPaths::Refuse).map_err(|_| "has a plain path")?;
        let prefix = prefix.trim_end_matches('/').to_owned();
        let host = HeaderValue::from_str(authority.as_str()).map_err(|_| "names a host")?;
        Ok(Self { scheme, authority, host, prefix })
    }

    fn uri(&self, path_and_query: &str) -> Result<Uri, http::Error> {
        Uri::builder()
            .scheme(self.scheme.clone())
            .authority(self.authority.clone())
            .path_and_query(format!("{}{path_and_query}", self.prefix))
            .build()
    }
}

/// A request for an upstream, before it is known which copy gets it.
#[derive(Debug)]
pub(crate) struct Draft {
    pub(crate) method: Method,
    /// Percent-encoded, the route's rewrite done.
    pub(crate) path: String,
    pub(crate) query: Option<String>,
    pub(crate) headers: HeaderMap,
    pub(crate) body: DraftBody,
}

/// The body of a [`Draft`].
#[derive(Debug)]
pub(crate) enum DraftBody {
    Whole(Bytes),
    Client(Source),
}

/// What sending a request may use up.
#[derive(Debug)]
pub(crate) struct Terms<'a> {
    pub(crate) limits: &'a Limits,
    pub(crate) timeouts: &'a Timeouts,
    pub(crate) share: &'a mut Share,
}

/// What came back from an upstream, to be relayed or held.
#[derive(Debug)]
pub(crate) enum UpstreamBody {
    Remote(Paced),
    Builtin(builtin::Reply),
}

impl Body for UpstreamBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut *self {
            Self::Remote(body) => Pin::new(body).poll_frame(cx),
            Self::Builtin(reply) => Pin::new(reply)
                .poll_frame(cx)
                .map(|frame| frame.map(|frame| frame.map_err(|never| match never {}))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Remote(body) => body.is_end_stream(),
            Self::Builtin(reply) => reply.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Remote(body) => body.size_hint(),
            Self::Builtin(reply) => reply.size_hint(),
        }
    }
}

/// Connections to upstreams, kept and shared by all exchanges and all configurations.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    http: legacy::Client<HttpsConnector<HttpConnector>, Outgoing>,
}

impl Client {
    pub(crate) fn new(startup: &Startup) -> Result<Self, ConfigError> {
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(startup.connect_timeout));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| Kind::Certificate { why: error.to_string() })?
            .with_root_certificates(roots(&startup.trust)?)
            .with_no_client_auth();
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .enable_http2()
            .wrap_connector(connector);
        let http = legacy::Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_max_idle_per_host(startup.idle_connections_per_upstream_max)
            .http1_max_buf_size(startup.header_bytes_max)
            .http2_max_header_list_size(u32::try_from(startup.header_bytes_max).unwrap_or(u32::MAX))
            .set_host(false)
            .build(connector);
        Ok(Self { http })
    }

    /// Sends a request to a copy of the service and waits for the head of its response.
    pub(crate) async fn send(
        &self,
        group: &Group,
        draft: Draft,
        terms: Terms<'_>,
    ) -> Result<Response<UpstreamBody>, Problem> {
        match &group.service {
            Resolved::Remote(bases) => self.send_remote(group, bases, draft, terms.timeouts).await,
            Resolved::Builtin(builtin) => {
                let body = match draft.body {
                    DraftBody::Whole(body) => body,
                    DraftBody::Client(source) => {
                        hold_request(source, terms.limits.held_request_bytes_max, terms.share).await?
                    }
                };
                let response = builtin::answer(builtin, &draft.method, &draft.path, &body);
                terms.share.grow(response.body().bytes())?;
                Ok(response.map(UpstreamBody::Builtin))
            }
        }
    }

    async fn send_remote(
        &self,
        group: &Group,
        bases: &[Base],
        draft: Draft,
        timeouts: &Timeouts,
    ) -> Result<Response<UpstreamBody>, Problem> {
        let path_and_query = match &draft.query {
            Some(query) => format!("{}?{query}", draft.path),
            None => draft.path,
        };
        let mut body = Some(draft.body);
        let tries = group.tries_max.min(bases.len());
        let turn = group.turn.fetch_add(1, Ordering::Relaxed);
        for base in bases.iter().cycle().skip(turn % bases.len()).take(tries) {
            let Some(this_body) = body.take() else { break };
            let progress = Arc::new(AtomicU64::new(0));
            let (outgoing, back) = match this_body {
                DraftBody::Whole(bytes) => (Outgoing::Whole(Some(bytes.clone())), Back::Whole(bytes)),
                DraftBody::Client(source) => {
                    let (loan, home) = Loan::new(source, progress.clone());
                    (Outgoing::Lent(loan), Back::Client(home))
                }
            };
            let mut request = Request::new(outgoing);
            *request.method_mut() = draft.method.clone();
            *request.uri_mut() = base.uri(&path_and_query).map_err(|_| Problem::Unsendable)?;
            *request.headers_mut() = draft.headers.clone();
            request.headers_mut().insert(HOST, base.host.clone());
            match head(self.http.request(request), &progress, timeouts).await {
                Ok(response) => return Ok(response),
                Err(Failure::Connect) => {
                    tracing::warn!(upstream = %group.name, url = %base.authority, "no connection");
                    body = back.fetch();
                }
                Err(Failure::Final(problem, cause)) => {
                    let cause = cause.as_ref().map(|cause| cause as &dyn std::error::Error);
                    tracing::warn!(upstream = %group.name, url = %base.authority, cause, "no response");
                    return Err(problem);
                }
            }
        }
        Err(Problem::Unreachable)
    }
}

fn roots(trust: &Trust) -> Result<RootCertStore, ConfigError> {
    let (bundled, given) = match trust {
        Trust::Bundled => (webpki_roots::TLS_SERVER_ROOTS, &[][..]),
        Trust::BundledAnd(given) => (webpki_roots::TLS_SERVER_ROOTS, &given[..]),
        Trust::Only(given) => (&[][..], &given[..]),
    };
    let mut roots = RootCertStore { roots: bundled.to_vec() };
    for certificate in given {
        roots.add(certificate.clone()).map_err(|error| Kind::Certificate { why: error.to_string() })?;
    }
    Ok(roots)
}

/// Where to fetch a body again after an attempt that made no connection.
enum Back {
    Whole(Bytes),
    Client(oneshot::Receiver<Source>),
}

impl Back {
    fn fetch(self) -> Option<DraftBody> {
        match self {
            Self::Whole(bytes) => Some(DraftBody::Whole(bytes)),
            Self::Client(mut home) => home.try_recv().ok().map(DraftBody::Client),
        }
    }
}

enum Failure {
    Connect,
    Final(Problem, Option<legacy::Error>),
}

/// Waits for a response head, but no longer than the timeout since the request last made progress.
async fn head(
    response: legacy::ResponseFuture,
    progress: &AtomicU64,
    timeouts: &Timeouts,
) -> Result<Response<UpstreamBody>, Failure> {
    let mut response = std::pin::pin!(response);
    let mut seen = progress.load(Ordering::Relaxed);
    let answered = loop {
        match tokio::time::timeout(timeouts.response_head, response.as_mut()).await {
            Ok(answered) => break answered,
            Err(_) => {
                let now = progress.load(Ordering::Relaxed);
                if now == seen {
                    return Err(Failure::Final(Problem::UpstreamTimeout, None));
                }
                seen = now;
            }
        }
    };
    match answered {
        Ok(response) => {
            let pace = Pace { idle: timeouts.response_idle, whole: None };
            Ok(response.map(|body: Incoming| UpstreamBody::Remote(Paced::new(body, pace, u64::MAX))))
        }
        Err(error) if error.is_connect() => Err(Failure::Connect),
        Err(error) => Err(Failure::Final(problem_of(&error), Some(error))),
    }
}

/// Whether an upstream request failed for the client's part or the upstream's.
fn problem_of(error: &legacy::Error) -> Problem {
    let mut cause = error.source();
    while let Some(error) = cause {
        match error.downcast_ref() {
            Some(BodyError::Idle | BodyError::Slow) => return Problem::BodyTimeout,
            // The limit is in the answer to a request that announced its length; here it was found out.
            Some(BodyError::TooLarge) => return Problem::BodyTooLarge(None),
            Some(BodyError::Stalled | BodyError::Lost(_)) => return Problem::BodyBroken,
            None => cause = error.source(),
        }
    }
    Problem::UpstreamBroken
}

/// A client's body, whole.
pub(crate) async fn hold_request(
    source: Source,
    bytes_max: usize,
    share: &mut Share,
) -> Result<Bytes, Problem> {
    let too_large = Problem::BodyTooLarge(Some(bytes_max as u64));
    match source.hold(bytes_max, share).await {
        Ok(Held { rest: Some((_, Unheld::TooLong)), .. }) => Err(too_large),
        Ok(Held { rest: Some((_, Unheld::NoRoom)), .. }) => Err(Problem::Overloaded),
        Ok(held) => Ok(held.bytes),
        Err(BodyError::Idle | BodyError::Slow) => Err(Problem::BodyTimeout),
        Err(BodyError::TooLarge) => Err(too_large),
        Err(BodyError::Stalled | BodyError::Lost(_)) => Err(Problem::BodyBroken),
    }
}
