//! HeliosProxy's plugin routes.

use axum::Json;
use axum::extract::{Path as Segment, State};
use axum::response::{IntoResponse as _, Response};
use cardan_manager::{PluginStatus, State as Standing};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::{IntoParams, ToSchema};

use crate::access::{Administrator, As, Operator, Viewer};
use crate::api::plugins::{Load, load_path};
use crate::api::views::CountsView;
use crate::app::App;
use crate::input::{Json as Body, Query};
use crate::problem::Problem;

/// One plugin, with the keys of HeliosProxy's documentation and of its code.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Entry {
    name: String,
    version: String,
    description: String,
    /// `running`, `disabled` or `quarantined`.
    status: &'static str,
    /// The same with a capital letter.
    state: &'static str,
    hooks: Vec<&'static str>,
    /// Most memory that one of its instances has had, such as `2.3MB`.
    memory_used: String,
    invocations: u64,
    errors: u64,
    avg_latency_us: u64,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Entries {
    plugins: Vec<Entry>,
}

/// Which form.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(crate) struct Form {
    /// `list` for the bare list that HeliosProxy's code answers with, instead of the documented object.
    format: Option<String>,
}

impl From<PluginStatus> for Entry {
    fn from(status: PluginStatus) -> Self {
        let mut hooks: Vec<&'static str> = status.bindings.iter().map(|binding| binding.hook).collect();
        hooks.dedup();
        let state = match status.state {
            Standing::Running => "Running",
            Standing::Disabled => "Disabled",
            Standing::Quarantined { .. } => "Quarantined",
        };
        Self {
            version: status.active.version.clone(),
            description: status.about.description.clone().unwrap_or_default(),
            status: status.state.name(),
            state,
            hooks,
            memory_used: memory(status.active.usage.memory_bytes_max_seen),
            invocations: status.active.calls(),
            errors: status.active.faults(),
            avg_latency_us: u64::try_from(status.active.mean().as_micros()).unwrap_or(u64::MAX),
            name: status.name,
        }
    }
}

fn memory(bytes: u64) -> String {
    format!("{:.1}MB", bytes as f64 / f64::from(1 << 20))
}

/// Every plugin.
#[utoipa::path(get, path = "/plugins", tag = "heliosproxy", params(Form),
    responses((status = 200, body = Entries)), security(("bearer" = ["viewer"])))]
pub(crate) async fn list(
    _: As<Viewer>,
    State(app): State<App>,
    Query(form): Query<Form>,
) -> Result<Response, Problem> {
    let plugins: Vec<Entry> = app.manager().plugins().into_iter().map(Into::into).collect();
    match form.format.as_deref() {
        None | Some("object") => Ok(Json(Entries { plugins }).into_response()),
        Some("list") => Ok(Json(plugins).into_response()),
        Some(other) => Err(Problem::bad_request(format!("format: {other:?} is neither `object` nor `list`"))),
    }
}

fn told(app: &App, what: &str, name: &str) -> Result<Json<Value>, Problem> {
    let entry = Entry::from(app.manager().plugin(name)?);
    Ok(Json(json!({ "status": what, "name": name, "plugin": entry })))
}

/// Loads a plugin that lies on the server.
#[utoipa::path(post, path = "/plugins/load", tag = "heliosproxy", request_body = Load,
    responses((status = 200, body = Object), (status = 409, body = Problem), (status = 422, body = Problem)),
    security(("bearer" = ["admin"])))]
pub(crate) async fn load(
    _: As<Administrator>,
    State(app): State<App>,
    Body(load): Body<Load>,
) -> Result<Json<Value>, Problem> {
    let activated = load_path(&app, load).await?;
    told(&app, "loaded", &activated.name)
}

/// Reads a plugin's file again.
#[utoipa::path(post, path = "/plugins/{name}/reload", tag = "heliosproxy", params(("name" = String, Path)),
    responses((status = 200, body = Object), (status = 404, body = Problem), (status = 422, body = Problem)),
    security(("bearer" = ["operator"])))]
pub(crate) async fn reload(
    _: As<Operator>,
    State(app): State<App>,
    Segment(name): Segment<String>,
) -> Result<Json<Value>, Problem> {
    app.control_one(&name, |manager, name| manager.reload(name)).await?;
    told(&app, "reloaded", &name)
}

/// Has a plugin asked again.
#[utoipa::path(post, path = "/plugins/{name}/enable", tag = "heliosproxy", params(("name" = String, Path)),
    responses((status = 200, body = Object), (status = 404, body = Problem)),
    security(("bearer" = ["operator"])))]
pub(crate) async fn enable(
    _: As<Operator>,
    State(app): State<App>,
    Segment(name): Segment<String>,
) -> Result<Json<Value>, Problem> {
    app.control_one(&name, |manager, name| manager.enable(name)).await?;
    told(&app, "enabled", &name)
}

/// Has a plugin asked no more, without unloading it.
#[utoipa::path(post, path = "/plugins/{name}/disable", tag = "heliosproxy", params(("name" = String, Path)),
    responses((status = 200, body = Object), (status = 404, body = Problem)),
    security(("bearer" = ["operator"])))]
pub(crate) async fn disable(
    _: As<Operator>,
    State(app): State<App>,
    Segment(name): Segment<String>,
) -> Result<Json<Value>, Problem> {
    app.control_one(&name, |manager, name| manager.disable(name)).await?;
    told(&app, "disabled", &name)
}

/// Unloads a plugin.
#[utoipa::path(delete, path = "/plugins/{name}", tag = "heliosproxy", params(("name" = String, Path)),
    responses((status = 200, body = Object), (status = 404, body = Problem), (status = 409, body = Problem)),
    security(("bearer" = ["admin"])))]
pub(crate) async fn unload(
    _: As<Administrator>,
    State(app): State<App>,
    Segment(name): Segment<String>,
) -> Result<Json<Value>, Problem> {
    crate::api::plugins::take_out(&app, &name).await?;
    Ok(Json(json!({ "status": "unloaded", "name": name })))
}

/// A plugin's counts.
#[utoipa::path(get, path = "/plugins/{name}/metrics", tag = "heliosproxy", params(("name" = String, Path)),
    responses((status = 200, body = Object), (status = 404, body = Problem)),
    security(("bearer" = ["viewer"])))]
pub(crate) async fn metrics(
    _: As<Viewer>,
    State(app): State<App>,
    Segment(name): Segment<String>,
) -> Result<Json<Value>, Problem> {
    let status = app.manager().plugin(&name)?;
    let hooks: Vec<CountsView> = status.active.counts.iter().map(Into::into).collect();
    let faults = status.active.faults_by_kind();
    let mut document = serde_json::to_value(Entry::from(status)).unwrap_or_default();
    document["errors_by_kind"] = json!(faults);
    document["by_hook"] = json!(hooks);
    Ok(Json(document))
}
