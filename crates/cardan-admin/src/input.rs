//! What requests bring: bodies and queries, within bounds, with errors in our own words.

use axum::extract::{FromRequest, FromRequestParts, Request};
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, StatusCode, header};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde::de::DeserializeOwned;

use crate::problem::Problem;

/// Most bytes of a JSON document, a configuration or a stored value.
pub(crate) const TEXT_BYTES_MAX: usize = 4 << 20;
/// Most bytes of an uploaded plugin.
pub(crate) const UPLOAD_BYTES_MAX: usize = 64 << 20;

/// A body that says that it is JSON. A page of another site cannot say so without being asked first.
#[derive(Debug)]
pub(crate) struct Json<T>(pub(crate) T);

/// As [`Json`], and the default where there is no body at all.
#[derive(Debug)]
pub(crate) struct MaybeJson<T>(pub(crate) T);

/// A query, with unknown keys refused by the types that are read.
#[derive(Debug)]
pub(crate) struct Query<T>(pub(crate) T);

pub(crate) async fn bytes(request: Request, max: usize) -> Result<Bytes, Problem> {
    let too_large =
        || Problem::new(StatusCode::PAYLOAD_TOO_LARGE, format!("the body is more than {} MiB", max >> 20));
    let body = Limited::new(request.into_body(), max);
    match body.collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.downcast_ref::<LengthLimitError>().is_some() => Err(too_large()),
        Err(error) => Err(Problem::bad_request(format!("the body did not arrive whole: {error}"))),
    }
}

pub(crate) fn media_type(headers: &HeaderMap) -> Option<String> {
    let field = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    Some(field.split(';').next().unwrap_or(field).trim().to_ascii_lowercase())
}

fn is_json(headers: &HeaderMap) -> bool {
    media_type(headers).is_some_and(|it| it == "application/json" || it.ends_with("+json"))
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    // As SMG tells them apart: 400 for what is no JSON, 422 for JSON of another shape.
    serde_json::from_slice(bytes).map_err(|error| match error.classify() {
        serde_json::error::Category::Data => {
            Problem::unprocessable(format!("the body is not of the form this route takes: {error}"))
        }
        _ => Problem::bad_request(format!("the body is no JSON: {error}")),
    })
}

fn wrong_type() -> Problem {
    let why = "send the body as JSON, with `Content-Type: application/json`";
    Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, why)
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Problem> {
        if !is_json(request.headers()) {
            return Err(wrong_type());
        }
        parse(&bytes(request, TEXT_BYTES_MAX).await?).map(Self)
    }
}

impl<S: Send + Sync, T: DeserializeOwned + Default> FromRequest<S> for MaybeJson<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Problem> {
        let is_json = is_json(request.headers());
        let bytes = bytes(request, TEXT_BYTES_MAX).await?;
        match (bytes.is_empty(), is_json) {
            (true, _) => Ok(Self(T::default())),
            (false, true) => parse(&bytes).map(Self),
            (false, false) => Err(wrong_type()),
        }
    }
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        let query = axum::extract::Query::<T>::try_from_uri(&parts.uri);
        let axum::extract::Query(query) = query.map_err(|error| {
            Problem::bad_request(format!("the query cannot be meant: {}", error.body_text()))
        })?;
        Ok(Self(query))
    }
}
