//! A small HTTP client: requests in, whole answers or pieces of streams out.

use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::{Request, Response};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::process::PATIENCE;

/// Clones share connections.
#[derive(Clone)]
pub(crate) struct Client {
    http: legacy::Client<HttpConnector, Full<Bytes>>,
    address: SocketAddr,
}

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
}

impl Client {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self { http: legacy::Client::builder(TokioExecutor::new()).build_http(), address }
    }

    /// Sends a request and returns when the head of its answer is there.
    pub(crate) async fn send(
        &self,
        method: &str,
        path: &str,
        body: String,
    ) -> Result<Response<Incoming>, String> {
        let request = Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", self.address))
            .header("content-type", "application/json")
            .body(Full::new(body.into()))
            .unwrap();
        let answered = timeout(PATIENCE, self.http.request(request)).await;
        answered.map_err(|_| "no answer in time".to_owned())?.map_err(|error| format!("{error:?}"))
    }

    pub(crate) async fn fetch(&self, method: &str, path: &str, body: String) -> Result<Answer, String> {
        let response = self.send(method, path, body).await?;
        let status = response.status().as_u16();
        Ok(Answer { status, body: rest(response.into_body()).await? })
    }

    /// A chat completion of one message.
    pub(crate) async fn chat(&self, path: &str, text: &str) -> Result<Answer, String> {
        self.fetch("POST", path, conversation(text, false)).await
    }
}

/// What is left of a body.
pub(crate) async fn rest(body: Incoming) -> Result<String, String> {
    let body = timeout(PATIENCE, body.collect()).await.map_err(|_| "no end in time".to_owned())?;
    let bytes = body.map_err(|error| format!("{error:?}"))?.to_bytes();
    String::from_utf8(bytes.into()).map_err(|error| error.to_string())
}

pub(crate) fn conversation(text: &str, stream: bool) -> String {
    json!({ "model": "m", "stream": stream, "messages": [{ "role": "user", "content": text }] }).to_string()
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// What the model said, streamed or not.
    pub(crate) fn text(&self) -> String {
        let Some(_) = self.body.strip_prefix("data: ") else {
            return self.json()["choices"][0]["message"]["content"].as_str().unwrap_or_default().to_owned();
        };
        let events = self.body.lines().filter_map(|line| line.strip_prefix("data: "));
        let events = events.filter_map(|event| serde_json::from_str::<Value>(event).ok());
        events
            .map(|event| event["choices"][0]["delta"]["content"].as_str().unwrap_or_default().to_owned())
            .collect()
    }
}

/// Runs one test that waits for sockets.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(future)
}

pub(crate) fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let answer = block_on(Client::new(address).fetch("GET", path, String::new())).unwrap();
    (answer.status, answer.body)
}

/// A client for anything, over any number of connections.
pub(crate) fn http() -> reqwest::Client {
    cardan_services::install_tls_provider();
    reqwest::Client::builder().no_proxy().timeout(PATIENCE).build().unwrap()
}
