//! A gateway, upstreams and clients for one test.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use cardan_gateway::{Builtin, Config, Gateway, PathMatch, RouteConfig, UpstreamConfig};
use cardan_manager::{Manager, PluginSpec};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::plugins;

/// Long enough for anything on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct House {
    pub(crate) addr: SocketAddr,
    pub(crate) gateway: Gateway,
    pub(crate) manager: Manager,
    stop: Option<oneshot::Sender<()>>,
    served: JoinHandle<()>,
}

/// A reply, read to its end.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Reply {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("not JSON: {}", self.text()))
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

/// All paths to one upstream.
pub(crate) fn to(upstream: UpstreamConfig) -> Config {
    Config {
        routes: vec![RouteConfig::new("all", PathMatch::Prefix("/".into()), upstream.name.clone())],
        upstreams: vec![upstream],
        ..Config::default()
    }
}

/// All paths to servers at these addresses.
pub(crate) fn at(addrs: &[SocketAddr]) -> Config {
    let urls: Vec<String> = addrs.iter().map(|addr| format!("http://{addr}")).collect();
    let urls: Vec<&str> = urls.iter().map(String::as_str).collect();
    to(UpstreamConfig::at("upstream", &urls))
}

/// All paths to the built-in service, without pauses.
pub(crate) fn builtin() -> Config {
    to(UpstreamConfig::builtin("builtin", Builtin { pace: Duration::ZERO, ..Builtin::default() }))
}

impl House {
    pub(crate) async fn open(config: Config, plugins: &[PluginSpec]) -> Self {
        let manager = plugins::manager();
        manager.apply(plugins).unwrap();
        let gateway = Gateway::new(config, manager.clone()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let served = tokio::spawn({
            let gateway = gateway.clone();
            async move { gateway.serve(listener, async { _ = stopped.await }).await }
        });
        Self { addr, gateway, manager, stop: Some(stop), served }
    }

    pub(crate) async fn fetch(&self, request: http::request::Builder, body: impl Into<Bytes>) -> Reply {
        let response = self.send(request, body).await;
        let (head, body) = response.into_parts();
        let body = tokio::time::timeout(PATIENCE, body.collect()).await.unwrap().unwrap().to_bytes();
        Reply { status: head.status, headers: head.headers, body }
    }

    pub(crate) async fn get(&self, path: &str) -> Reply {
        self.fetch(Request::get(path), "").await
    }

    pub(crate) async fn post(&self, path: &str, body: impl Into<Bytes>) -> Reply {
        self.fetch(Request::post(path), body).await
    }

    /// Sends a request and returns as soon as the response's head is there.
    pub(crate) async fn send(
        &self,
        request: http::request::Builder,
        body: impl Into<Bytes>,
    ) -> Response<Incoming> {
        let mut request = request.body(Full::new(body.into())).unwrap();
        *request.uri_mut() = format!("http://{}{}", self.addr, request.uri()).parse().unwrap();
        let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
        tokio::time::timeout(PATIENCE, client.request(request)).await.unwrap().unwrap()
    }

    /// Sends bytes and reads until the connection is closed.
    pub(crate) async fn raw(&self, bytes: &str) -> String {
        let mut stream = TcpStream::connect(self.addr).await.unwrap();
        stream.write_all(bytes.as_bytes()).await.unwrap();
        read_to_end(&mut stream).await
    }

    /// Tells the gateway to stop and waits until it has.
    pub(crate) async fn close(mut self) {
        self.stop.take();
        tokio::time::timeout(PATIENCE, self.served).await.unwrap().unwrap();
    }

    /// Tells the gateway to stop, and returns what ends when it has.
    pub(crate) fn begin_close(mut self) -> JoinHandle<()> {
        self.stop.take();
        self.served
    }
}

pub(crate) async fn read_to_end(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    // A reset is an end too.
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut bytes)).await.unwrap();
    String::from_utf8(bytes).unwrap()
}

/// An upstream that answers each connection's one request with these bytes and hangs up. Returns what it
/// was sent, request by request.
pub(crate) async fn scripted(response: impl Into<Vec<u8>>) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let response = response.into();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = seen.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let request = read_request(&mut stream).await;
            log.lock().unwrap().push(request);
            let _ = stream.write_all(&response).await;
        }
    });
    (addr, seen)
}

/// Reads one HTTP/1 request, as far as its head says.
pub(crate) async fn read_request(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let head = head.to_ascii_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            let length: usize = length.map_or(0, |length| length.parse().unwrap());
            let ended = !head.contains("transfer-encoding") || body.ends_with("0\r\n\r\n");
            if ended && body.len() >= length {
                return text;
            }
        }
        let mut buffer = [0; 4096];
        match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => return text,
            Ok(count) => bytes.extend_from_slice(&buffer[..count]),
        }
    }
}

/// An address where nobody listens.
pub(crate) async fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

/// A listener and a connected pair, for tests that play the upstream by hand.
pub(crate) struct Upstream {
    listener: TcpListener,
    pub(crate) addr: SocketAddr,
}

impl Upstream {
    pub(crate) async fn listen() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self { addr: listener.local_addr().unwrap(), listener }
    }

    /// The next connection, its request's head read.
    pub(crate) async fn accept_head(&self) -> TcpStream {
        let (mut stream, _) = self.listener.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        stream
    }

    /// The next request, and the connection to answer it on.
    pub(crate) async fn accept(&self) -> (TcpStream, String) {
        let (mut stream, _) = tokio::time::timeout(PATIENCE, self.listener.accept()).await.unwrap().unwrap();
        let request = tokio::time::timeout(PATIENCE, read_request(&mut stream)).await.unwrap();
        (stream, request)
    }
}

/// Serves requests with a function, on HTTP/1.
pub(crate) async fn server<F>(answer: F) -> SocketAddr
where
    F: Fn(Request<Bytes>) -> Response<Bytes> + Clone + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let answer = answer.clone();
            let service = hyper::service::service_fn(move |request: Request<Incoming>| {
                let answer = answer.clone();
                async move {
                    let (head, body) = request.into_parts();
                    let body = body.collect().await?.to_bytes();
                    Ok::<_, hyper::Error>(answer(Request::from_parts(head, body)).map(Full::new))
                }
            });
            tokio::spawn(
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service),
            );
        }
    });
    addr
}
