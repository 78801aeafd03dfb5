//! The configuration file.

use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use http::{HeaderMap, StatusCode, header};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::{IntoParams, ToSchema};

use crate::access::{Administrator, As, Operator, Role, Viewer};
use crate::app::App;
use crate::host::{Configuration, ConfigurationError, Document};
use crate::input::{self, Query, TEXT_BYTES_MAX};
use crate::problem::Problem;
use std::sync::Arc;

/// The configuration that is in force.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ConfigurationView {
    /// Where it is.
    path: String,
    /// As in the field `ETag`.
    revision: String,
    /// Why it cannot be replaced, if it cannot.
    read_only: Option<String>,
    /// As it was written. For administrators only.
    text: Option<String>,
    /// The same as a document, with the values of secrets taken out.
    #[schema(value_type = Object)]
    document: Value,
    /// What is valid and probably not meant.
    warnings: Vec<String>,
}

/// How it is meant.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(crate) struct Dry {
    /// `1`: find out what is wrong with it, and leave everything as it is.
    #[serde(default)]
    dry_run: Option<String>,
}

/// What a dry run found.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Checked {
    valid: bool,
    warnings: Vec<String>,
}

fn configuration(app: &App) -> Result<Arc<dyn Configuration>, Problem> {
    let configuration = app.host().configuration.clone();
    configuration.ok_or_else(|| Problem::not_found("this process has no configuration file"))
}

fn problem(error: &ConfigurationError) -> Problem {
    let status = match error {
        ConfigurationError::Invalid(_) => StatusCode::UNPROCESSABLE_ENTITY,
        ConfigurationError::Changed(_) => StatusCode::PRECONDITION_FAILED,
        ConfigurationError::ReadOnly(_) => StatusCode::CONFLICT,
        ConfigurationError::Unreadable(_) => StatusCode::SERVICE_UNAVAILABLE,
    };
    Problem::new(status, error.to_string())
}

/// What is wrong with a configuration may quote it, secrets included: in full for administrators only.
pub(crate) fn for_role(error: ConfigurationError, role: Role) -> ConfigurationError {
    match error {
        ConfigurationError::Invalid(why) if role < Role::Admin => {
            tracing::error!(target: "cardan::admin", "configuration not reloaded: {why}");
            ConfigurationError::Invalid(
                "the configuration cannot be put in force; the process's log says why, and so does \
                 `cardan validate`"
                    .to_owned(),
            )
        }
        error => error,
    }
}

fn shown(document: Document, role: Role) -> Response {
    let etag = format!("\"{}\"", document.revision);
    let view = ConfigurationView {
        path: document.path.display().to_string(),
        revision: document.revision,
        read_only: document.read_only,
        text: (role >= Role::Admin).then_some(document.text),
        document: document.redacted,
        warnings: document.warnings,
    };
    ([(header::ETAG, etag)], Json(view)).into_response()
}

/// What is in force. The text is for administrators; others see a document without its secrets.
#[utoipa::path(get, path = "/api/v1/config", tag = "configuration",
    responses((status = 200, body = ConfigurationView)), security(("bearer" = ["viewer"])))]
pub(crate) async fn show(who: As<Viewer>, State(app): State<App>) -> Result<Response, Problem> {
    let document = app.blocking(|app| configuration(app)?.current().map_err(|error| problem(&error))).await?;
    Ok(shown(document, who.caller.role))
}

/// Puts a text in force and into the file. `If-Match` names the revision that it was made from, or `*`
/// for any; with `?dry_run=1` nothing is changed.
#[utoipa::path(put, path = "/api/v1/config", tag = "configuration",
    params(Dry, ("If-Match" = Option<String>, Header, description = "needed but for a dry run")),
    request_body(content = String, content_type = "application/yaml"),
    responses((status = 200, content((ConfigurationView), (Checked = "application/json"))),
        (status = 409, description = "the file cannot be written", body = Problem),
        (status = 412, description = "the file is another one", body = Problem),
        (status = 422, description = "the text is not valid", body = Problem),
        (status = 428, description = "If-Match is missing", body = Problem)),
    security(("bearer" = ["admin"])))]
pub(crate) async fn put(
    who: As<Administrator>,
    State(app): State<App>,
    Query(dry): Query<Dry>,
    request: Request,
) -> Result<Response, Problem> {
    let kinds = ["application/yaml", "application/x-yaml", "text/yaml", "application/json"];
    if !input::media_type(request.headers()).is_some_and(|it| kinds.contains(&it.as_str())) {
        let why = "send the text with `Content-Type: application/yaml`";
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, why));
    }
    let dry_run = match dry.dry_run.as_deref() {
        None | Some("0" | "false") => false,
        Some("" | "1" | "true") => true,
        Some(other) => return Err(Problem::bad_request(format!("dry_run: {other:?} is neither 0 nor 1"))),
    };
    let revision = if_match(request.headers());
    let bytes = input::bytes(request, TEXT_BYTES_MAX).await?;
    let text =
        String::from_utf8(bytes.to_vec()).map_err(|_| Problem::unprocessable("the text is not UTF-8"))?;
    if dry_run {
        let warnings =
            app.blocking(move |app| configuration(app)?.check(&text).map_err(|error| problem(&error)));
        return Ok(Json(Checked { valid: true, warnings: warnings.await? }).into_response());
    }
    let revision = revision.ok_or_else(precondition)?;
    let replace = move |app: &App| {
        let configuration = configuration(app)?;
        let revision = match revision.as_str() {
            "*" => configuration.current().map_err(|error| problem(&error))?.revision,
            _ => revision,
        };
        configuration.replace(&text, &revision).map_err(|error| problem(&error))
    };
    let document = app.change(replace).await?;
    Ok(shown(document, who.caller.role))
}

/// Reads the file again, as at SIGHUP.
#[utoipa::path(post, path = "/api/v1/config:reload", tag = "configuration",
    responses((status = 200, body = Object), (status = 422, body = Problem)),
    security(("bearer" = ["operator"])))]
pub(crate) async fn reload(who: As<Operator>, State(app): State<App>) -> Result<Json<Value>, Problem> {
    let role = who.caller.role;
    let reload =
        move |app: &App| configuration(app)?.reload().map_err(|error| problem(&for_role(error, role)));
    app.change(reload).await?;
    Ok(Json(json!({ "status": "reloaded", "generation": app.manager().snapshot().generation() })))
}

/// The revision that a change was made from.
pub(crate) fn if_match(headers: &HeaderMap) -> Option<String> {
    let field = headers.get(header::IF_MATCH)?.to_str().ok()?.trim();
    Some(field.trim_start_matches("W/").trim_matches('"').to_owned())
}

pub(crate) fn precondition() -> Problem {
    let why = "send `If-Match` with the ETag of what the change was made from";
    Problem::new(StatusCode::PRECONDITION_REQUIRED, why)
}
