//! Authority as values.
//!
//! A guest reaches outside only through a grant that its store holds. What was not granted has no value
//! here, so there is nothing to check and nothing to forget.

use std::borrow::Cow;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use url::Url;

/// Most redirects that are followed for one request.
const REDIRECTS_MAX: usize = 10;

/// Sends one HTTP request. The implementation is the embedder's: `cardan-services` has one.
///
/// Called once for every hop of every request a guest makes, after the hop was found to be allowed; it
/// must therefore not follow redirects by itself. May be called from many calls at once.
pub trait HttpClient: Send + Sync + 'static {
    /// Sends `request` and reads the whole response.
    fn send(
        &self,
        request: HttpExchange,
    ) -> Pin<Box<dyn Future<Output = Result<HttpReply, HttpFailure>> + Send>>;
}

/// One request, for [`HttpClient`].
#[derive(Debug, Clone)]
pub struct HttpExchange {
    /// Upper case.
    pub method: String,
    /// `http` or `https`.
    pub url: Url,
    /// As the guest gave them.
    pub headers: Vec<(String, String)>,
    /// `None` says nothing of a length; where one is due, it is among the headers.
    pub body: Option<Vec<u8>>,
    /// A longer response is [`HttpFailure::TooLarge`].
    pub response_bytes_max: u64,
    /// A longer exchange is [`HttpFailure::Timeout`].
    pub timeout: Option<Duration>,
}

/// One response, for [`HttpClient`].
#[derive(Debug, Clone)]
pub struct HttpReply {
    /// 100 to 599; every status is a reply, not a failure.
    pub status: u16,
    /// Names in lower case. Values are bytes, as on the wire.
    pub headers: Vec<(String, Vec<u8>)>,
    /// Decoded.
    pub body: Vec<u8>,
}

/// Why there is no response.
#[derive(Debug, Clone)]
pub enum HttpFailure {
    /// Not within the time allowed.
    Timeout,
    /// Longer than allowed.
    TooLarge,
    /// Anything else, in words.
    Other(String),
}

/// Stands in where the embedder gave no client, so that the refusal says what is missing.
#[derive(Debug)]
pub(crate) struct NoClient;

impl HttpClient for NoClient {
    fn send(
        &self,
        _request: HttpExchange,
    ) -> Pin<Box<dyn Future<Output = Result<HttpReply, HttpFailure>> + Send>> {
        let why = "this engine was made without an HTTP client";
        Box::pin(std::future::ready(Err(HttpFailure::Other(why.to_owned()))))
    }
}

/// Outgoing HTTP to some hosts.
#[derive(Clone)]
pub(crate) struct HttpGrant {
    pub(crate) client: Arc<dyn HttpClient>,
    pub(crate) hosts: HostList,
    pub(crate) response_bytes_max: u64,
}

/// Hosts that may be asked, as Extism writes them: glob patterns on the host alone.
#[derive(Debug, Clone, Default)]
pub(crate) struct HostList(Vec<String>);

/// Why a request a guest made has no response.
#[derive(Debug)]
pub(crate) enum HttpRefusal {
    NotAllowed(Url),
    Failed(String),
    Timeout,
    TooLarge(u64),
    Malformed(String),
}

impl fmt::Display for HttpRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAllowed(url) => write!(
                f,
                "HTTP request to {url} is not allowed: add the host {:?} to allowed_hosts of this plugin to \
                 allow it",
                url.host_str().unwrap_or_default()
            ),
            Self::Failed(why) => write!(f, "HTTP request failed: {why}"),
            Self::Timeout => f.write_str("timeout"),
            Self::TooLarge(max) => {
                write!(f, "HTTP response exceeds the configured maximum number of bytes: {max}")
            }
            Self::Malformed(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for HttpRefusal {}

impl HttpGrant {
    /// Sends a request and follows redirects, each of which has to be allowed like the first.
    pub(crate) async fn fetch(&self, mut request: HttpExchange) -> Result<HttpReply, HttpRefusal> {
        for _ in 0..=REDIRECTS_MAX {
            self.hosts.check(&request.url)?;
            let reply = self.client.send(request.clone()).await.map_err(|failure| match failure {
                HttpFailure::Timeout => HttpRefusal::Timeout,
                HttpFailure::TooLarge => HttpRefusal::TooLarge(self.response_bytes_max),
                HttpFailure::Other(why) => HttpRefusal::Failed(why),
            })?;
            match redirect(&request, &reply)? {
                Some(next) => request = next,
                None => return Ok(reply),
            }
        }
        Err(HttpRefusal::Failed(format!("more than {REDIRECTS_MAX} redirects")))
    }
}

/// The request that a redirect asks for (RFC 9110, section 15.4), if the reply is one.
fn redirect(request: &HttpExchange, reply: &HttpReply) -> Result<Option<HttpExchange>, HttpRefusal> {
    if !matches!(reply.status, 301 | 302 | 303 | 307 | 308) {
        return Ok(None);
    }
    let location = reply.headers.iter().find(|(name, _)| name == "location");
    let Some(location) = location.and_then(|(_, value)| std::str::from_utf8(value).ok()) else {
        return Ok(None);
    };
    let url = request
        .url
        .join(location)
        .map_err(|error| HttpRefusal::Failed(format!("redirected to {location:?}: {error}")))?;
    let mut next = HttpExchange { url, ..request.clone() };
    let becomes_get = reply.status == 303 || (matches!(reply.status, 301 | 302) && request.method == "POST");
    if becomes_get && request.method != "HEAD" {
        next.method = "GET".to_owned();
        next.body = None;
        next.headers.retain(|(name, _)| !name.to_ascii_lowercase().starts_with("content-"));
    }
    if next.url.origin() != request.url.origin() {
        // What was meant for one server is not shown to another.
        next.headers.retain(|(name, _)| {
            !["authorization", "cookie", "proxy-authorization", "host"]
                .contains(&name.to_ascii_lowercase().as_str())
        });
    }
    Ok(Some(next))
}

impl HostList {
    pub(crate) fn new(patterns: impl IntoIterator<Item = String>) -> Self {
        Self(patterns.into_iter().collect())
    }

    /// Every host there is.
    pub(crate) fn all() -> Self {
        Self(vec!["*".to_owned()])
    }

    fn check(&self, url: &Url) -> Result<(), HttpRefusal> {
        if !matches!(url.scheme(), "http" | "https") {
            return Err(HttpRefusal::Failed(format!("the scheme of {url} is neither http nor https")));
        }
        let host = url.host_str().unwrap_or_default();
        if self.0.iter().any(|pattern| matches_glob(pattern, host)) {
            Ok(())
        } else {
            Err(HttpRefusal::NotAllowed(url.clone()))
        }
    }
}

/// Whether `text` matches a pattern of `*`, `?` and `[...]`, as the reference's `glob` crate does it;
/// a pattern that is not well formed matches only itself.
pub(crate) fn matches_glob(pattern: &str, text: &str) -> bool {
    match glob::Pattern::new(pattern) {
        Ok(glob) => glob.matches(text),
        Err(_) => pattern == text,
    }
}

/// How important a guest's log line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// Most detailed.
    Trace,
    /// For the plugin's author.
    Debug,
    /// Worth keeping.
    Info,
    /// Something is off.
    Warn,
    /// Something failed.
    Error,
}

/// Takes the log lines of one plugin's guests.
///
/// Called inside a guest's call, possibly from several threads at once: it must not block.
pub trait LogSink: Send + Sync + 'static {
    /// Least important level to be reported, or `None` for no logging. Guests ask, to save themselves
    /// the work of writing lines that nobody reads.
    fn level(&self) -> Option<LogLevel>;
    /// Takes one line.
    fn line(&self, level: LogLevel, text: &str);
}

/// Sends guests' lines to `tracing`, target `cardan::guest`.
#[derive(Debug, Clone)]
pub struct TracingLog {
    /// Named in each event.
    pub plugin: Arc<str>,
}

impl LogSink for TracingLog {
    fn level(&self) -> Option<LogLevel> {
        use tracing::level_filters::LevelFilter;
        match LevelFilter::current() {
            LevelFilter::OFF => None,
            LevelFilter::TRACE => Some(LogLevel::Trace),
            LevelFilter::DEBUG => Some(LogLevel::Debug),
            LevelFilter::INFO => Some(LogLevel::Info),
            LevelFilter::WARN => Some(LogLevel::Warn),
            _ => Some(LogLevel::Error),
        }
    }

    fn line(&self, level: LogLevel, text: &str) {
        let plugin = &*self.plugin;
        let text = one_line(text);
        match level {
            LogLevel::Trace => tracing::trace!(target: "cardan::guest", plugin, "{text}"),
            LogLevel::Debug => tracing::debug!(target: "cardan::guest", plugin, "{text}"),
            LogLevel::Info => tracing::info!(target: "cardan::guest", plugin, "{text}"),
            LogLevel::Warn => tracing::warn!(target: "cardan::guest", plugin, "{text}"),
            LogLevel::Error => tracing::error!(target: "cardan::guest", plugin, "{text}"),
        }
    }
}

/// A guest's text as one line of a log: what would end the line, or steer a terminal, is spelt out.
fn one_line(text: &str) -> Cow<'_, str> {
    if !text.contains(char::is_control) {
        return Cow::Borrowed(text);
    }
    let mut line = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            '\t' => line.push(c),
            c if c.is_control() => line.extend(c.escape_default()),
            c => line.push(c),
        }
    }
    Cow::Owned(line)
}
