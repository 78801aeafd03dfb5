//! HeliosProxy's routes for what plugins have stored: `/admin/kv/{plugin}/{key}`.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path as Segment, Request, State};
use axum::response::{IntoResponse as _, Response};
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::IntoParams;

use crate::access::{Administrator, As};
use crate::app::App;
use crate::host::{KeyValues, KvError};
use crate::input::{self, Query, TEXT_BYTES_MAX};
use crate::problem::Problem;

/// Most keys of one listing.
const KEYS_MAX: usize = 10_000;

/// Which keys.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(crate) struct Prefix {
    /// How they begin.
    #[serde(default)]
    prefix: String,
}

fn store(app: &App) -> Result<Arc<dyn KeyValues>, Problem> {
    app.host().kv.clone().ok_or_else(|| Problem::unavailable("this process keeps nothing for plugins"))
}

fn problem(error: KvError) -> Problem {
    match error {
        KvError::Full(why) => Problem::new(StatusCode::PAYLOAD_TOO_LARGE, why),
        KvError::Failed(why) => Problem::internal(why),
    }
}

/// A key may have `/` in it.
fn split(path: &str) -> Result<(String, String), Problem> {
    let (plugin, key) = path.split_once('/').ok_or_else(|| {
        Problem::bad_request("the path is /admin/kv/PLUGIN/KEY, or /admin/kv/PLUGIN/?prefix= for a list")
    })?;
    if plugin.is_empty() {
        return Err(Problem::bad_request("the plugin's name is empty"));
    }
    Ok((plugin.to_owned(), key.to_owned()))
}

fn with_key(path: &str) -> Result<(String, String), Problem> {
    let (plugin, key) = split(path)?;
    if key.is_empty() { Err(Problem::bad_request("the key is empty")) } else { Ok((plugin, key)) }
}

/// One value, as text, or the keys with a prefix.
#[utoipa::path(get, path = "/admin/kv/{plugin}/{key}", tag = "heliosproxy",
    params(("plugin" = String, Path), ("key" = String, Path), Prefix),
    responses((status = 200, body = Object), (status = 400, body = Problem), (status = 404, body = Problem),
        (status = 503, body = Problem)),
    security(("bearer" = ["admin"])))]
pub(crate) async fn read(
    _: As<Administrator>,
    State(app): State<App>,
    Segment(path): Segment<String>,
    Query(Prefix { prefix }): Query<Prefix>,
) -> Result<Response, Problem> {
    let (plugin, key) = split(&path)?;
    let store = store(&app)?;
    let document = app.blocking(move |_| -> Result<Value, Problem> {
        if key.is_empty() {
            let keys = store.keys(&plugin, &prefix, KEYS_MAX).map_err(problem)?;
            return Ok(json!({ "plugin": plugin, "keys": keys }));
        }
        let value = store.get(&plugin, &key).map_err(problem)?;
        let value =
            value.ok_or_else(|| Problem::not_found(format!("there is no key {key:?}")).about(&plugin))?;
        Ok(json!({ "plugin": plugin, "key": key, "value": String::from_utf8_lossy(&value) }))
    });
    Ok(Json(document.await?).into_response())
}

/// Stores the body.
#[utoipa::path(put, path = "/admin/kv/{plugin}/{key}", tag = "heliosproxy",
    params(("plugin" = String, Path), ("key" = String, Path)),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses((status = 200, body = Object), (status = 400, body = Problem), (status = 413, body = Problem),
        (status = 503, body = Problem)),
    security(("bearer" = ["admin"])))]
pub(crate) async fn write(
    _: As<Administrator>,
    State(app): State<App>,
    Segment(path): Segment<String>,
    request: Request,
) -> Result<Json<Value>, Problem> {
    let (plugin, key) = with_key(&path)?;
    let store = store(&app)?;
    let value = input::bytes(request, TEXT_BYTES_MAX).await?;
    app.blocking(move |_| store.put(&plugin, &key, &value).map_err(problem)).await?;
    Ok(Json(json!({ "ok": true })))
}

/// Takes a value out, if it is there.
#[utoipa::path(delete, path = "/admin/kv/{plugin}/{key}", tag = "heliosproxy",
    params(("plugin" = String, Path), ("key" = String, Path)),
    responses((status = 200, body = Object), (status = 400, body = Problem), (status = 503, body = Problem)),
    security(("bearer" = ["admin"])))]
pub(crate) async fn remove(
    _: As<Administrator>,
    State(app): State<App>,
    Segment(path): Segment<String>,
) -> Result<Json<Value>, Problem> {
    let (plugin, key) = with_key(&path)?;
    let store = store(&app)?;
    app.blocking(move |_| store.delete(&plugin, &key).map_err(problem)).await?;
    Ok(Json(json!({ "ok": true })))
}
