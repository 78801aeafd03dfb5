//! What an operator has decided, resolved: names are checked, text is parsed, nothing is read from
//! files or the environment.
//!
//! Everything but [`Startup`] can be replaced while exchanges are under way
//! ([`crate::Gateway::replace`]); an exchange keeps what it began with.

use std::fmt;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method};
use rustls::pki_types::CertificateDer;

/// The whole of a gateway's configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Tried in this order; the first that matches takes the exchange.
    pub routes: Vec<RouteConfig>,
    /// The services that routes name.
    pub upstreams: Vec<UpstreamConfig>,
    /// Named maxima.
    pub limits: Limits,
    /// How long anybody may keep anybody waiting.
    pub timeouts: Timeouts,
    /// What happens to paths that two programs may read in two ways.
    pub ambiguous_paths: AmbiguousPaths,
    /// What happens to JSON that two programs may read in two ways, where a plugin is to be shown it.
    pub ambiguous_bodies: AmbiguousBodies,
    /// Whether to believe what clients say in `x-forwarded-*`.
    pub forwarded: Forwarded,
    /// The request header that names a session for plugins (LLMProxy's `session_id`).
    pub session_header: Option<HeaderName>,
    /// What stays as it is until the process starts again.
    pub startup: Startup,
}

impl Default for Config {
    /// No routes, so every request is answered with 404.
    fn default() -> Self {
        Self {
            routes: Vec::new(),
            upstreams: Vec::new(),
            limits: Limits::default(),
            timeouts: Timeouts::default(),
            ambiguous_paths: AmbiguousPaths::Refuse,
            ambiguous_bodies: AmbiguousBodies::Refuse,
            forwarded: Forwarded::Replace,
            session_header: Some(HeaderName::from_static("x-session-id")),
            startup: Startup::default(),
        }
    }
}

/// Which requests go to which upstream.
#[derive(Clone, PartialEq, Eq)]
pub struct RouteConfig {
    /// For logs.
    pub name: String,
    /// Any of these; empty: every host.
    pub hosts: Vec<HostMatch>,
    /// The path as the client sent it.
    pub path: PathMatch,
    /// Any of these; empty: every method.
    pub methods: Vec<Method>,
    /// The [`UpstreamConfig::name`] that requests are sent to.
    pub upstream: String,
    /// What takes the place of the matched part of the path.
    pub rewrite: Option<String>,
    /// Header fields set on the upstream request, after plugins have seen it: credentials. Neither
    /// clients nor plugins see them, nor does `Debug`.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

impl RouteConfig {
    /// A route for every host and method.
    pub fn new(name: impl Into<String>, path: PathMatch, upstream: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            hosts: Vec::new(),
            path,
            methods: Vec::new(),
            upstream: upstream.into(),
            rewrite: None,
            headers: Vec::new(),
        }
    }
}

impl fmt::Debug for RouteConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let headers: Vec<_> = self.headers.iter().map(|(name, _)| name).collect();
        f.debug_struct("RouteConfig")
            .field("name", &self.name)
            .field("hosts", &self.hosts)
            .field("path", &self.path)
            .field("methods", &self.methods)
            .field("upstream", &self.upstream)
            .field("rewrite", &self.rewrite)
            .field("headers", &headers)
            .finish()
    }
}

/// Hosts of a route, without port and in any letter case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostMatch {
    /// This host.
    Exact(String),
    /// Every host below this domain, but not the domain itself: what `*.example.com` says.
    Below(String),
}

impl HostMatch {
    /// Reads `host` or `*.domain`.
    pub fn parse(text: &str) -> Self {
        match text.strip_prefix("*.") {
            Some(domain) => Self::Below(domain.to_ascii_lowercase()),
            None => Self::Exact(text.to_ascii_lowercase()),
        }
    }
}

/// Paths of a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathMatch {
    /// This path and no other.
    Exact(String),
    /// This path and those below it, in whole segments: `/v1` matches `/v1` and `/v1/models`, not
    /// `/v10`.
    Prefix(String),
}

/// One or more copies of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamConfig {
    /// What routes call it.
    pub name: String,
    /// Where it is.
    pub service: Service,
    /// The models it serves. Not empty: `GET /v1/models` is answered from this list.
    pub models: Vec<String>,
    /// How many copies may be tried until one accepts a connection.
    pub tries_max: usize,
}

impl UpstreamConfig {
    /// Copies of a service at these base URLs: scheme, authority, and a path that goes before the
    /// request's.
    pub fn at(name: impl Into<String>, urls: &[&str]) -> Self {
        let urls = urls.iter().map(|url| (*url).to_owned()).collect();
        Self { name: name.into(), service: Service::Remote(urls), models: Vec::new(), tries_max: 3 }
    }

    /// The built-in service.
    pub fn builtin(name: impl Into<String>, builtin: Builtin) -> Self {
        Self { name: name.into(), service: Service::Builtin(builtin), models: Vec::new(), tries_max: 1 }
    }
}

/// Where a service is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Service {
    /// Behind `http` or `https` URLs, asked in turn.
    Remote(Vec<String>),
    /// In this process.
    Builtin(Builtin),
}

/// The built-in service: OpenAI's API with answers that are a function of the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Builtin {
    /// What `GET /v1/models` lists. Requests may name any model.
    pub models: Vec<String>,
    /// The time written into answers, in seconds since 1970: the same request has the same answer.
    pub created: u64,
    /// Pause before each event of a stream.
    pub pace: Duration,
}

impl Default for Builtin {
    fn default() -> Self {
        Self {
            models: vec!["cardan-echo".to_owned()],
            created: 1_750_000_000,
            pace: Duration::from_millis(20),
        }
    }
}

/// Named maxima. Sizes are in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// A request body that is passed on as it comes.
    pub request_body_bytes_max: u64,
    /// A request body that is held for plugins or for the built-in service.
    pub held_request_bytes_max: usize,
    /// A response body that is held for plugins, as sent and as decoded.
    pub held_response_bytes_max: usize,
    /// All that is held at once, over all exchanges: bodies of requests and responses, copies, and streams
    /// that were made from whole answers. What finds no room is answered with 503 or, where a plugin was to
    /// be shown a response, is the fault `busy`.
    pub held_bytes_max: usize,
    /// One event of a relayed stream; a longer one is passed on in pieces.
    pub event_bytes_max: usize,
    /// Requests at once on one HTTP/2 connection.
    pub streams_per_connection_max: u32,
    /// `http.complete` chains under way at once. More are not asked, and that is logged.
    pub background_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            request_body_bytes_max: 1 << 30,
            held_request_bytes_max: 10 << 20,
            held_response_bytes_max: 10 << 20,
            held_bytes_max: 1 << 30,
            event_bytes_max: 1 << 20,
            streams_per_connection_max: 128,
            background_max: 1_000,
        }
    }
}

/// How long anybody may keep anybody waiting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timeouts {
    /// A client, from the first byte of a request's head to its last, and between two requests.
    pub header_read: Duration,
    /// A client, between two pieces of a request body.
    pub request_idle: Duration,
    /// A client, from when its request body is first read to the end of it, however steadily it comes.
    pub request: Duration,
    /// A client, before it takes more of a response.
    pub send_stall: Duration,
    /// A connection on which nothing is asked.
    pub connection_idle: Duration,
    /// An upstream, from the end of a request to the head of its response.
    pub response_head: Duration,
    /// An upstream, between two pieces of a response body.
    pub response_idle: Duration,
    /// Exchanges under way when the gateway is told to stop.
    pub drain: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            header_read: Duration::from_secs(30),
            request_idle: Duration::from_secs(60),
            request: Duration::from_secs(300),
            send_stall: Duration::from_secs(60),
            connection_idle: Duration::from_secs(120),
            // Models may think for minutes before their first word.
            response_head: Duration::from_secs(300),
            response_idle: Duration::from_secs(120),
            drain: Duration::from_secs(30),
        }
    }
}

/// Paths with empty segments, encoded slashes, backslashes, semicolons, encoded NUL, or what is
/// percent-encoded twice. Upstreams disagree about them, so a plugin bound to `/v1/chat/completions`
/// could be passed by as `/v1//chat/completions` or `/v1/chat/completions;x`.
/// Dot segments are refused and needless percent-encoding is undone in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AmbiguousPaths {
    /// 400.
    Refuse,
    /// Sent on as they are, for upstreams that need them, such as object stores.
    PassOn,
}

/// Request bodies that are meant to be JSON, by their media type or as a `POST` to an endpoint of an LLM
/// API, and that parsers read in several ways or not at all: repeated names, a byte order mark, other
/// encodings than UTF-8, anything before or after the document. A guard could be shown one `messages`
/// and the upstream obey another. A body that no plugin is shown is not looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AmbiguousBodies {
    /// 400, before any plugin is shown the body.
    Refuse,
    /// Shown and sent on as they are.
    PassOn,
}

/// What becomes of the `x-forwarded-for`, `-proto` and `-host` a client sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forwarded {
    /// Replaced: clients reach this gateway directly and could write anything.
    Replace,
    /// Kept and continued: only trusted proxies reach this gateway.
    Append,
}

/// What stays as it is until the process starts again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Startup {
    /// Client connections at once, over all listeners. More wait in the kernel's queue.
    pub connections_max: usize,
    /// Connections kept open to each copy of an upstream.
    pub idle_connections_per_upstream_max: usize,
    /// A request's or response's line and header fields together; at least 8 KiB.
    pub header_bytes_max: usize,
    /// How long connecting to an upstream may take.
    pub connect_timeout: Duration,
    /// Whose certificates `https` upstreams may show.
    pub trust: Trust,
}

impl Default for Startup {
    fn default() -> Self {
        Self {
            connections_max: 10_000,
            idle_connections_per_upstream_max: 64,
            header_bytes_max: 64 << 10,
            connect_timeout: Duration::from_secs(5),
            trust: Trust::Bundled,
        }
    }
}

/// Whose certificates `https` upstreams may show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trust {
    /// Mozilla's root certificates, compiled in.
    Bundled,
    /// Those and these.
    BundledAnd(Vec<CertificateDer<'static>>),
    /// These alone.
    Only(Vec<CertificateDer<'static>>),
}

/// A configuration that cannot be served. Says which part, and what would do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError(Kind);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    UnknownUpstream { route: String, upstream: String },
    DuplicateUpstream { upstream: String },
    NoUrl { upstream: String },
    BadUrl { upstream: String, number: usize, why: &'static str },
    BadPath { route: String, path: String },
    HeaderBytes { what: &'static str },
    Zero { what: &'static str },
    TooMany { what: &'static str, max: usize },
    Certificate { why: String },
    NeedsRestart,
}

impl From<Kind> for ConfigError {
    fn from(kind: Kind) -> Self {
        Self(kind)
    }
}

impl ConfigError {
    /// Whether the new configuration is fine but changes what only a restart can change.
    pub fn needs_restart(&self) -> bool {
        self.0 == Kind::NeedsRestart
    }
}

impl ConfigError {
    /// The same with the names that the operator knows settings by, such as the keys of a file.
    #[must_use]
    pub fn named(mut self, name_of: impl Fn(&'static str) -> &'static str) -> Self {
        if let Kind::HeaderBytes { what } | Kind::Zero { what } | Kind::TooMany { what, .. } = &mut self.0 {
            *what = name_of(what);
        }
        self
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::UnknownUpstream { route, upstream } => {
                write!(f, "route `{route}` names the upstream `{upstream}`, which is not defined")
            }
            Kind::DuplicateUpstream { upstream } => write!(f, "two upstreams are called `{upstream}`"),
            Kind::NoUrl { upstream } => write!(f, "upstream `{upstream}` has no URL"),
            // Not the URL itself: it may hold a password or a key from the environment.
            Kind::BadUrl { upstream, number, why } => {
                write!(f, "URL {number} of upstream `{upstream}` cannot be used: a URL here {why}")
            }
            Kind::BadPath { route, path } => {
                write!(
                    f,
                    "route `{route}` has the path `{path}`; a path begins with `/`, has no `.` or `..` segment and no `?`"
                )
            }
            Kind::HeaderBytes { what } => write!(f, "{what} is below 8192"),
            Kind::Zero { what } => write!(f, "{what} is zero; it has to be at least one"),
            Kind::TooMany { what, max } => write!(f, "{what} is too large; it can be {max} at most"),
            Kind::Certificate { why } => write!(f, "a root certificate cannot be used: {why}"),
            Kind::NeedsRestart => write!(
                f,
                "connection limits, header_bytes_max, connect_timeout and trust cannot change while the gateway runs; restart it"
            ),
        }
    }
}

impl std::error::Error for ConfigError {}
