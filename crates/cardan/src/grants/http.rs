//! Outgoing HTTP: who may be asked, at which addresses, over which redirects.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use cardan_api::grants::Reach;
use url::{Host, Url};

/// Most redirects that are followed for one request.
const REDIRECTS_MAX: usize = 10;

/// What guests do not say themselves: how a message is framed and what becomes of its connection is the
/// client's to say, or the connection's next user reads what a guest has written. In lower case.
const CLIENTS_HEADERS: [&str; 10] = [
    "connection",
    "content-length",
    "expect",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Sends one HTTP request. The implementation is the embedder's: `cardan-services` has one.
///
/// Called once for every hop of every request a guest makes, after the hop was found to be allowed; it
/// must therefore not follow redirects by itself. May be called from many calls at once.
///
/// It has to check [`HttpExchange::reach`] for the address that it really connects to, after it resolved
/// the name, and must not lend a connection to a request with another reach, or of another plugin.
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
    /// Whose request it is. All requests of one loaded plugin share this allocation, which ends with it.
    pub plugin: Arc<str>,
    /// Upper case.
    pub method: String,
    /// `http` or `https`.
    pub url: Url,
    /// As the guest gave them, names in lower case, without those that are the client's to say.
    pub headers: Vec<(String, String)>,
    /// Its length is the client's to say. `None` says nothing of one; where one is due, it is among the
    /// headers.
    pub body: Option<Vec<u8>>,
    /// A longer response is [`HttpFailure::TooLarge`].
    pub response_bytes_max: u64,
    /// A longer exchange is [`HttpFailure::Timeout`].
    pub timeout: Option<Duration>,
    /// Addresses that may be connected to; any other is [`HttpFailure::Private`].
    pub reach: Reach,
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
    /// The host's only addresses are ones that may not be connected to, such as this.
    Private(IpAddr),
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
    /// An allocation of its own: see [`HttpExchange::plugin`].
    pub(crate) plugin: Arc<str>,
    pub(crate) client: Arc<dyn HttpClient>,
    pub(crate) hosts: HostList,
    /// What the plugin's manifest asks for, where it says so.
    pub(crate) requested_hosts: Option<HostList>,
    /// Empty: all.
    pub(crate) methods: BTreeSet<String>,
    pub(crate) reach: Reach,
    pub(crate) response_bytes_max: u64,
    pub(crate) timeout: Option<Duration>,
}

impl fmt::Debug for HttpGrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpGrant")
            .field("hosts", &self.hosts)
            .field("reach", &self.reach)
            .finish_non_exhaustive()
    }
}

/// Hosts that may be asked, as Extism writes them: glob patterns on the host alone.
#[derive(Debug, Clone, Default)]
pub(crate) struct HostList(Vec<String>);

/// Why a request a guest made has no response.
#[derive(Debug, Clone)]
pub(crate) enum HttpRefusal {
    /// What has to be written where to allow it.
    NotAllowed {
        url: Box<Url>,
        why: String,
    },
    Failed(String),
    Timeout,
    TooLarge(u64),
    Malformed(String),
}

impl HttpRefusal {
    /// Nothing of HTTP is granted, or asked for: `why`.
    pub(crate) fn not_allowed(url: Url, why: impl Into<String>) -> Self {
        Self::NotAllowed { url: Box::new(url), why: why.into() }
    }
}

impl fmt::Display for HttpRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAllowed { url, why } => write!(f, "HTTP request to {url} is not allowed: {why}"),
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
    /// Sends a request and follows redirects, each of which has to be allowed like the first. Reach and
    /// limits are the grant's.
    pub(crate) async fn fetch(&self, mut request: HttpExchange) -> Result<HttpReply, HttpRefusal> {
        request.plugin = self.plugin.clone();
        request.reach = self.reach.clone();
        request.response_bytes_max = request.response_bytes_max.min(self.response_bytes_max);
        request.timeout = match (request.timeout, self.timeout) {
            (Some(left), Some(most)) => Some(left.min(most)),
            (left, most) => left.or(most),
        };
        let Some(timeout) = request.timeout else { return self.follow(request).await };
        tokio::time::timeout(timeout, self.follow(request)).await.unwrap_or(Err(HttpRefusal::Timeout))
    }

    async fn follow(&self, mut request: HttpExchange) -> Result<HttpReply, HttpRefusal> {
        for _ in 0..=REDIRECTS_MAX {
            self.check(&request)?;
            let reply = self.client.send(request.clone()).await.map_err(|failure| match failure {
                HttpFailure::Timeout => HttpRefusal::Timeout,
                HttpFailure::TooLarge => HttpRefusal::TooLarge(request.response_bytes_max),
                HttpFailure::Private(address) => self.private(&request.url, address),
                HttpFailure::Other(why) => HttpRefusal::Failed(why),
            })?;
            match redirect(&request, &reply)? {
                Some(next) => request = next,
                None => return Ok(reply),
            }
        }
        Err(HttpRefusal::Failed(format!("more than {REDIRECTS_MAX} redirects")))
    }

    /// Whether a request may be sent, as far as that can be told before its host's name is resolved.
    fn check(&self, request: &HttpExchange) -> Result<(), HttpRefusal> {
        let (url, plugin) = (&request.url, &self.plugin);
        if !matches!(url.scheme(), "http" | "https") {
            return Err(HttpRefusal::Failed(format!("the scheme of {url} is neither http nor https")));
        }
        let host = url.host_str().unwrap_or_default();
        if !self.hosts.has(host) {
            let why = format!("add {:?} to the grants of plugin {plugin:?}", format!("http: [{host}]"));
            return Err(HttpRefusal::not_allowed(url.clone(), why));
        }
        if self.requested_hosts.as_ref().is_some_and(|requested| !requested.has(host)) {
            let why =
                format!("the manifest of plugin {plugin:?} has to list {host:?} among its allowed_hosts");
            return Err(HttpRefusal::not_allowed(url.clone(), why));
        }
        if !self.methods.is_empty() && !self.methods.contains(&request.method) {
            let method = &request.method;
            let why = format!("add {method:?} to http.methods in the grants of plugin {plugin:?}");
            return Err(HttpRefusal::not_allowed(url.clone(), why));
        }
        // A URL's parser has read every spelling of an address there is.
        let address = match url.host() {
            Some(Host::Ipv4(address)) => IpAddr::V4(address),
            Some(Host::Ipv6(address)) => IpAddr::V6(address),
            Some(Host::Domain(_)) | None => return Ok(()),
        };
        if self.reach.permits(host, address) { Ok(()) } else { Err(self.private(url, address)) }
    }

    fn private(&self, url: &Url, address: IpAddr) -> HttpRefusal {
        let plugin = &self.plugin;
        let why = format!(
            "{address} is not on the public Internet; add \"http: {{private: [{address}]}}\" to the grants of \
             plugin {plugin:?}"
        );
        HttpRefusal::not_allowed(url.clone(), why)
    }
}

/// A request as guests write it, but for its body.
pub(crate) struct Head {
    pub(crate) url: String,
    /// In any letter case; GET where there is none.
    pub(crate) method: Option<String>,
    pub(crate) headers: BTreeMap<String, String>,
}

impl Head {
    /// The request that is meant.
    pub(crate) fn exchange(self, body: Option<Vec<u8>>) -> Result<HttpExchange, HttpRefusal> {
        let url = self.url.parse();
        let url: Url =
            url.map_err(|error| HttpRefusal::Malformed(format!("{:?} is no URL: {error}", self.url)))?;
        let method = self.method.as_deref().unwrap_or("GET").to_ascii_uppercase();
        const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"];
        if ["CONNECT", "TRACE"].contains(&&*method) {
            let why = format!("plugins may not send {method:?}: use one of {}", METHODS.join(", "));
            return Err(HttpRefusal::Malformed(why));
        }
        if !METHODS.contains(&method.as_str()) {
            return Err(HttpRefusal::Malformed(format!("{method:?} is no HTTP method")));
        }
        let headers = self.headers.into_iter().map(|(name, value)| (name.to_ascii_lowercase(), value));
        let mut headers: Vec<(String, String)> = headers.collect();
        headers.retain(|(name, value)| match name.as_str() {
            // Otherwise a server that is granted would answer for a neighbour that is not.
            "host" => is_authority(value, &url),
            name => !CLIENTS_HEADERS.contains(&name),
        });
        if body.is_none() && ["POST", "PUT", "PATCH"].contains(&&*method) {
            // Servers refuse these methods when nothing says how long the body is (RFC 9110, section 8.6).
            headers.push(("content-length".to_owned(), "0".to_owned()));
        }
        // What a grant allows is filled in by the grant.
        let (response_bytes_max, reach) = (u64::MAX, Reach::EVERYWHERE);
        let plugin = Arc::default();
        Ok(HttpExchange { plugin, method, url, headers, body, response_bytes_max, timeout: None, reach })
    }
}

/// Whether a `host` header says what the URL says.
fn is_authority(value: &str, url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let default = url.port_or_known_default().map(|port| format!("{host}:{port}"));
    let short = url.port().is_none() && value.eq_ignore_ascii_case(host);
    short || default.is_some_and(|full| value.eq_ignore_ascii_case(&full))
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

    fn has(&self, host: &str) -> bool {
        self.0.iter().any(|pattern| matches_glob(pattern, host))
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
