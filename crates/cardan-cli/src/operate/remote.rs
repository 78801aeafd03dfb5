//! One gateway, at the other end of its admin API.

use std::time::Duration;

use reqwest::{Method, Response, StatusCode};
use serde_json::Value;
use url::Url;

use super::args::{Form, Target};
use crate::output::Failure;

/// Loading may compile for long.
const TIMEOUT: Duration = Duration::from_secs(120);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Most bytes of an answer that is read whole.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// A gateway.
pub(super) struct Remote {
    http: reqwest::Client,
    base: Url,
    token: Option<String>,
    pub(super) form: Form,
}

/// What is sent with a request.
pub(super) enum Body {
    None,
    Json(Value),
    Module(Vec<u8>),
}

/// One request: the path's segments, which may have any characters in them, and the query.
pub(super) struct Ask<'a> {
    pub(super) method: Method,
    pub(super) path: &'a [&'a str],
    pub(super) query: Vec<(&'a str, String)>,
    pub(super) body: Body,
}

impl<'a> Ask<'a> {
    pub(super) fn get(path: &'a [&'a str]) -> Self {
        Self { method: Method::GET, path, query: Vec::new(), body: Body::None }
    }

    pub(super) fn post(path: &'a [&'a str], body: Body) -> Self {
        Self { method: Method::POST, path, query: Vec::new(), body }
    }

    pub(super) fn with(mut self, key: &'a str, value: Option<String>) -> Self {
        self.query.extend(value.map(|value| (key, value)));
        self
    }
}

impl Remote {
    pub(super) fn new(target: &Target) -> Result<Self, Failure> {
        let wrong = || {
            Failure::unusable(format_args!(
                "--server {:?} is no http or https URL, such as http://127.0.0.1:8081",
                target.server
            ))
        };
        let base: Url = target.server.parse().map_err(|_| wrong())?;
        if !["http", "https"].contains(&base.scheme()) || base.cannot_be_a_base() {
            return Err(wrong());
        }
        let token = match &target.token_file {
            None => target.token.clone(),
            Some(file) => Some(std::fs::read_to_string(file).map_err(|error| {
                Failure::unusable(format_args!("--token-file {}: {error}", file.display()))
            })?),
        };
        let token = token.map(|token| token.trim().to_owned()).filter(|token| !token.is_empty());
        let http = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            // Where to send a token the user said.
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build()
            .map_err(Failure::failed)?;
        Ok(Self { http, base, token, form: target.output })
    }

    pub(super) fn url(&self) -> &Url {
        &self.base
    }

    /// Sends a request and returns when the head of a good answer is there.
    pub(super) async fn send(&self, ask: Ask<'_>, timeout: Option<Duration>) -> Result<Response, Failure> {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(ask.path);
        }
        if !ask.query.is_empty() {
            url.query_pairs_mut().extend_pairs(&ask.query);
        }
        let mut request = self.http.request(ask.method, url);
        if let Some(timeout) = timeout {
            request = request.timeout(timeout);
        }
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        request = match ask.body {
            Body::None => request,
            Body::Json(value) => request.json(&value),
            Body::Module(bytes) => request.header("content-type", "application/wasm").body(bytes),
        };
        let response = request.send().await.map_err(|error| self.unreachable(&error))?;
        if response.status().is_success() { Ok(response) } else { Err(self.refused(response).await) }
    }

    /// Sends a request and returns the whole answer.
    pub(super) async fn ask(&self, ask: Ask<'_>) -> Result<Value, Failure> {
        let response = self.send(ask, Some(TIMEOUT)).await?;
        let bytes = self.whole(response).await?;
        serde_json::from_slice(&bytes).map_err(|error| self.foreign(&error))
    }

    async fn whole(&self, mut response: Response) -> Result<Vec<u8>, Failure> {
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.unreachable(&error))? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() > ANSWER_BYTES_MAX {
                return Err(Failure::failed(format_args!("{} answers without end", self.base)));
            }
        }
        Ok(bytes)
    }

    fn foreign(&self, why: &dyn std::fmt::Display) -> Failure {
        Failure::failed(format_args!("{} is no admin API of Cardan: {why}; name it with --server", self.base))
    }

    pub(super) fn unreachable(&self, error: &reqwest::Error) -> Failure {
        // The innermost cause says most.
        let mut cause: &dyn std::error::Error = error;
        while let Some(source) = cause.source() {
            cause = source;
        }
        let why =
            if error.is_timeout() { "it does not answer in time".to_owned() } else { cause.to_string() };
        Failure::unreachable(format_args!(
            "cannot reach {}: {why}; is `cardan serve` running there? Name its admin API with --server or \
             CARDAN_SERVER, and see what it logs about it at its start",
            self.base
        ))
    }

    async fn refused(&self, response: Response) -> Failure {
        let status = response.status();
        let bytes = self.whole(response).await.unwrap_or_default();
        let problem: Option<Value> = serde_json::from_slice(&bytes).ok();
        let detail = problem.as_ref().and_then(|problem| problem["detail"].as_str());
        let Some(detail) = detail else { return self.foreign(&format_args!("it answers {status}")) };
        match status {
            StatusCode::UNAUTHORIZED => Failure::denied(format_args!(
                "{detail}; give the token with --token-file, or in CARDAN_TOKEN"
            )),
            StatusCode::FORBIDDEN => Failure::denied(format_args!("{detail}; use a token with that role")),
            StatusCode::NOT_FOUND => {
                let plugin = problem.as_ref().is_some_and(|problem| !problem["plugin"].is_null());
                let hint = if plugin || detail.contains("plugin") {
                    "; `cardan get plugins` lists them"
                } else {
                    ""
                };
                Failure::not_found(format_args!("{detail}{hint}"))
            }
            StatusCode::BAD_REQUEST | StatusCode::UNSUPPORTED_MEDIA_TYPE => Failure::unusable(detail),
            _ => Failure::failed(detail),
        }
    }
}
