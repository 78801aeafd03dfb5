//! Requests to hosts that the operator has named. Needs the grant `http`.

use std::fmt;

use crate::host;

/// A request to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// `GET`, `POST` and so on.
    pub method: String,
    /// `http` or `https`.
    pub url: String,
    /// Header fields.
    pub headers: Vec<(String, String)>,
    /// The body, if there is one.
    pub body: Option<Vec<u8>>,
}

impl Request {
    /// A request without body.
    pub fn get(url: &str) -> Self {
        Self { method: "GET".to_owned(), url: url.to_owned(), headers: Vec::new(), body: None }
    }

    /// A request with a body.
    pub fn post(url: &str, body: impl Into<Vec<u8>>) -> Self {
        Self { method: "POST".to_owned(), body: Some(body.into()), ..Self::get(url) }
    }

    /// With one more header field.
    #[must_use]
    pub fn with_header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }
}

/// A response. Every status is one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// 100 to 599.
    pub status: u16,
    /// Names are in lower case.
    pub headers: Vec<(String, String)>,
    /// The whole body.
    pub body: Vec<u8>,
}

/// Why there is no response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// `timeout`, `too_large` or `failed`.
    pub kind: String,
    /// In words.
    pub message: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

/// Sends a request and waits for the whole response.
pub fn fetch(request: &Request) -> Result<Response, Failure> {
    host::http_fetch(request)
}
