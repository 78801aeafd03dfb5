//! Core dumps of guests.

use axum::Json;
use axum::extract::{Path as Segment, State};
use axum::response::{IntoResponse as _, Response};
use http::{StatusCode, header};
use serde_json::{Value, json};

use crate::access::{Administrator, As};
use crate::app::App;
use crate::problem::Problem;

/// Has the next call that fails in its guest leave a core dump.
#[utoipa::path(post, path = "/api/v1/plugins/{name}/coredump", tag = "plugins", params(("name" = String, Path)),
    responses((status = 202, body = Object), (status = 404, body = Problem)),
    security(("bearer" = ["admin"])))]
pub(crate) async fn request(
    _: As<Administrator>,
    State(app): State<App>,
    Segment(name): Segment<String>,
) -> Result<(StatusCode, Json<Value>), Problem> {
    app.manager().request_core_dump(&name)?;
    Ok((StatusCode::ACCEPTED, Json(json!({ "name": name, "status": "armed" }))))
}

/// The core dump that a call has left, once. It holds whatever the guest knew.
#[utoipa::path(get, path = "/api/v1/plugins/{name}/coredump", tag = "plugins", params(("name" = String, Path)),
    responses((status = 200, content_type = "application/wasm", body = Vec<u8>), (status = 404, body = Problem)),
    security(("bearer" = ["admin"])))]
pub(crate) async fn take(
    _: As<Administrator>,
    State(app): State<App>,
    Segment(name): Segment<String>,
) -> Result<Response, Problem> {
    let dump = app.manager().take_core_dump(&name)?;
    let dump = dump.ok_or_else(|| {
        let why = "no call has left a core dump; ask for one with POST to this path, and wait for a fault";
        Problem::not_found(why).about(&name)
    })?;
    let fields = [
        (header::CONTENT_TYPE, "application/wasm"),
        (header::CONTENT_DISPOSITION, "attachment; filename=\"core.wasm\""),
    ];
    Ok((fields, dump).into_response())
}
