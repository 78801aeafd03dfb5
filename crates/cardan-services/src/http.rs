//! Outgoing HTTP on `reqwest`.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use cardan::{HttpClient, HttpExchange, HttpFailure, HttpReply};
use futures_util::StreamExt as _;

/// How long a connection may take to be made, within the time of the whole exchange.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Time of an exchange whose guest has no deadline.
const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(60);

/// Makes ring the process's TLS implementation. To be called once, first thing; later calls do nothing.
pub fn install_tls_provider() {
    // An error says that there is one already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// An HTTP client with connections that are kept, shared by all plugins of a process.
///
/// It does not follow redirects: who may be asked is checked for every hop, by the runtime.
#[derive(Debug, Clone)]
pub struct HttpService {
    client: reqwest::Client,
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
    /// A client.
    ///
    /// # Errors
    ///
    /// When the machine's root certificates cannot be used.
    pub fn new() -> Result<Self, HttpServiceError> {
        install_tls_provider();
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .user_agent(concat!("cardan/", env!("CARGO_PKG_VERSION")))
            .build();
        client.map(|client| Self { client }).map_err(HttpServiceError)
    }
}

impl HttpClient for HttpService {
    fn send(
        &self,
        exchange: HttpExchange,
    ) -> Pin<Box<dyn Future<Output = Result<HttpReply, HttpFailure>> + Send>> {
        let client = self.client.clone();
        Box::pin(async move {
            let timeout = exchange.timeout.unwrap_or(EXCHANGE_TIMEOUT);
            match tokio::time::timeout(timeout, send(&client, exchange)).await {
                Ok(result) => result,
                Err(_) => Err(HttpFailure::Timeout),
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
    }
    other(&innermost.to_string())
}

fn other(why: &str) -> HttpFailure {
    HttpFailure::Other(why.to_owned())
}
