//! For load balancers and supervisors, who have no token.

use std::path::PathBuf;

use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Json, Router};
use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use crate::app::App;

/// Whether the process is up, or ready.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Health {
    /// `ok`, or `unavailable`.
    status: &'static str,
    /// The program's version.
    version: &'static str,
    /// Why it is not ready.
    reasons: Vec<String>,
    /// Plugins that do not run as they should. They keep nobody from being ready: their bindings' fault
    /// policies decide.
    plugins_in_trouble: Vec<Trouble>,
    /// Files of the folder of plugins that cannot be meant, by name; /api/v1/status says why. They keep nobody
    /// from being ready either: whoever was loaded from them before stays.
    folder_problems: Vec<String>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Trouble {
    plugin: String,
    /// `quarantined`, or `not_activated`.
    state: &'static str,
}

pub(crate) fn routes() -> Router<App> {
    Router::new().route("/healthz", get(healthz)).route("/livez", get(livez)).route("/readyz", get(readyz))
}

/// Whether the process answers at all.
#[utoipa::path(get, path = "/healthz", tag = "health", responses((status = 200, body = Health)))]
pub(crate) async fn healthz(State(app): State<App>) -> Json<Health> {
    alive(&app)
}

/// As /healthz.
#[utoipa::path(get, path = "/livez", tag = "health", responses((status = 200, body = Health)))]
pub(crate) async fn livez(State(app): State<App>) -> Json<Health> {
    alive(&app)
}

fn alive(app: &App) -> Json<Health> {
    let version = app.host().version;
    let (reasons, plugins_in_trouble, folder_problems) = (Vec::new(), Vec::new(), Vec::new());
    Json(Health { status: "ok", version, reasons, plugins_in_trouble, folder_problems })
}

/// Whether plugins are applied and clients are served.
#[utoipa::path(get, path = "/readyz", tag = "health", responses(
    (status = 200, body = Health), (status = 503, description = "`reasons` says why", body = Health),
))]
pub(crate) async fn readyz(State(app): State<App>) -> Response {
    let reasons = app.host().readiness.reasons();
    let trouble = |plugin: cardan_manager::PluginStatus| {
        let quarantined = matches!(plugin.state, cardan_manager::State::Quarantined { .. });
        let state =
            if quarantined { "quarantined" } else { plugin.trouble.as_ref().map(|_| "not_activated")? };
        Some(Trouble { plugin: plugin.name, state })
    };
    let plugins_in_trouble = app.manager().plugins().into_iter().filter_map(trouble).collect();
    let problems = app.host().folder_problems();
    let name = |(path, _): (PathBuf, String)| Some(path.file_name()?.to_string_lossy().into_owned());
    let folder_problems = problems.into_iter().filter_map(name).collect();
    let (code, status) = if reasons.is_empty() {
        (StatusCode::OK, "ok")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "unavailable")
    };
    let version = app.host().version;
    (code, Json(Health { status, version, reasons, plugins_in_trouble, folder_problems })).into_response()
}
