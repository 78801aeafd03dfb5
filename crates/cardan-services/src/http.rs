//! Outgoing HTTP on `reqwest`.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use cardan::api::grants::{PrivateAddresses, Reach};
use cardan::{HttpClient, HttpExchange, HttpFailure, HttpReply};
use futures_util::StreamExt as _;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::Host;

/// How long a connection may take to be made, within the time of the whole exchange.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Time of an exchange whose guest has no deadline.
const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(60);
/// Plugins whose connections are kept, times what they may reach.
const CLIENTS_MAX: usize = 256;
/// Connections of one plugin to one host that are kept while nobody uses them, and for how long.
const IDLE_MAX: usize = 8;
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// Makes ring the process's TLS implementation. To be called once, first thing; later calls do nothing.
pub fn install_tls_provider() {
    // An error says that there is one already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// An HTTP client with connections that are kept, shared by all plugins of a process.
///
/// It does not follow redirects: who may be asked is checked for every hop, by the runtime. Which *addresses*
/// may be connected to is checked here, on those that are really connected to: names are resolved by a
/// resolver that leaves out what the exchange's [`Reach`] does not permit. Connections are kept apart by
/// reach, so that nobody is lent one that leads where he may not go, and by plugin, so that what one has done to
/// a connection is nobody else's. Those of a plugin that is gone are closed when the next request of any is sent, or
/// when they have not been used for 30 seconds. Proxies of the environment are not used:
/// they would connect in our place.
#[derive(Clone)]
pub struct HttpService {
    lookup: Lookup,
    clients: Arc<Mutex<Vec<Kept>>>,
}

/// A client with its connections, and whose they are.
struct Kept {
    plugin: Weak<str>,
    reach: Reach,
    client: reqwest::Client,
}

/// Finds the addresses of a host.
pub type Lookup =
    Arc<dyn Fn(String) -> Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send>> + Send + Sync>;

impl fmt::Debug for HttpService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpService").finish_non_exhaustive()
    }
}

/// Why there is no HTTP client.
#[derive(Debug)]
pub struct HttpServiceError(reqwest::Error);

impl fmt::Display for HttpServiceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no HTTP client for plugins: {}", self.0)
    }
}

impl std::error::Error for HttpServiceError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0)
    }
}

impl HttpService {
    /// A client that resolves names as this machine does.
    ///
    /// # Errors
    ///
    /// When the machine's root certificates cannot be used.
    pub fn new() -> Result<Self, HttpServiceError> {
        let lookup = |host: String| {
            Box::pin(async move { Ok(tokio::net::lookup_host((host, 0)).await?.collect()) }) as Pin<Box<_>>
        };
        Self::with_lookup(Arc::new(lookup))
    }

    /// A client that resolves names in its own way.
    ///
    /// # Errors
    ///
    /// As [`HttpService::new`].
    pub fn with_lookup(lookup: Lookup) -> Result<Self, HttpServiceError> {
        install_tls_provider();
        let service = Self { lookup, clients: Arc::default() };
        // So that what is wrong with the machine is known now.
        let nobody = Arc::default();
        service.client(&nobody, &Reach::from(PrivateAddresses::default())).map_err(HttpServiceError)?;
        Ok(service)
    }

    /// The client for requests of this plugin with this reach.
    fn client(&self, plugin: &Arc<str>, reach: &Reach) -> Result<reqwest::Client, reqwest::Error> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        clients.retain(|kept| kept.plugin.strong_count() > 0);
        let plugin = Arc::downgrade(plugin);
        let known = clients.iter().position(|kept| kept.plugin.ptr_eq(&plugin) && kept.reach == *reach);
        if let Some(index) = known {
            // The ones that are used are the last to go.
            let found = clients.remove(index);
            let client = found.client.clone();
            clients.push(found);
            return Ok(client);
        }
        let resolver = Resolver { lookup: self.lookup.clone(), reach: reach.clone() };
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .pool_max_idle_per_host(IDLE_MAX)
            .pool_idle_timeout(IDLE_TIMEOUT)
            .no_proxy()
            .dns_resolver(Arc::new(resolver))
            .user_agent(concat!("cardan/", env!("CARGO_PKG_VERSION")))
            .build()?;
        if clients.len() >= CLIENTS_MAX {
            clients.remove(0);
        }
        clients.push(Kept { plugin, reach: reach.clone(), client: client.clone() });
        Ok(client)
    }
}

impl HttpClient for HttpService {
    fn send(
        &self,
        exchange: HttpExchange,
    ) -> Pin<Box<dyn Future<Output = Result<HttpReply, HttpFailure>> + Send>> {
        // No name is resolved for a host that is an address.
        let host = exchange.url.host_str().unwrap_or_default();
        let address = match exchange.url.host() {
            Some(Host::Ipv4(address)) => Some(IpAddr::V4(address)),
            Some(Host::Ipv6(address)) => Some(IpAddr::V6(address)),
            Some(Host::Domain(_)) | None => None,
        };
        if let Some(address) = address.filter(|address| !exchange.reach.permits(host, *address)) {
            return Box::pin(std::future::ready(Err(HttpFailure::Private(address))));
        }
        let client = self.client(&exchange.plugin, &exchange.reach);
        Box::pin(async move {
            let client = client.map_err(|error| failure(&error))?;
            let timeout = exchange.timeout.unwrap_or(EXCHANGE_TIMEOUT);
            match tokio::time::timeout(timeout, send(&client, exchange)).await {
                Ok(result) => result,
                Err(_) => Err(HttpFailure::Timeout),
            }
        })
    }
}

/// Resolves names to those of their addresses that may be connected to.
struct Resolver {
    lookup: Lookup,
    reach: Reach,
}

/// A name has no address that may be connected to.
#[derive(Debug)]
struct PrivateAddress(IpAddr);

impl fmt::Display for PrivateAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is not on the public Internet", self.0)
    }
}

impl std::error::Error for PrivateAddress {}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let host = name.as_str().to_owned();
        let (found, reach) = ((self.lookup)(host.clone()), self.reach.clone());
        Box::pin(async move {
            let found = found.await?;
            let refused = found.iter().map(SocketAddr::ip).find(|address| !reach.permits(&host, *address));
            let mut permitted = found;
            permitted.retain(|address| reach.permits(&host, address.ip()));
            match refused {
                Some(address) if permitted.is_empty() => Err(PrivateAddress(address).into()),
                _ => Ok(Box::new(permitted.into_iter()) as Addrs),
            }
        })
    }
}

async fn send(client: &reqwest::Client, exchange: HttpExchange) -> Result<HttpReply, HttpFailure> {
    let max = exchange.response_bytes_max;
    let method = exchange.method.parse().map_err(|_| other("the method is no method"))?;
    let mut request = client.request(method, exchange.url);
    for (name, value) in exchange.headers {
        request = request.header(name, value);
    }
    if let Some(body) = exchange.body {
        request = request.body(body);
    }
    let response = request.send().await.map_err(|error| failure(&error))?;
    let status = response.status().as_u16();
    let headers = response.headers().iter();
    let headers =
        headers.map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec())).collect();
    let mut body = Vec::new();
    let mut chunks = response.bytes_stream();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|error| failure(&error))?;
        if (body.len() + chunk.len()) as u64 > max {
            return Err(HttpFailure::TooLarge);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(HttpReply { status, headers, body })
}

fn failure(error: &reqwest::Error) -> HttpFailure {
    if error.is_timeout() {
        return HttpFailure::Timeout;
    }
    // The innermost cause is the one that tells: reqwest's own words are "error sending request".
    let mut innermost: &dyn std::error::Error = error;
    while let Some(cause) = innermost.source() {
        innermost = cause;
        if let Some(PrivateAddress(address)) = cause.downcast_ref() {
            return HttpFailure::Private(*address);
        }
    }
    other(&innermost.to_string())
}

fn other(why: &str) -> HttpFailure {
    HttpFailure::Other(why.to_owned())
}
