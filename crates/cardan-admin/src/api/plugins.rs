//! Plugins: what there is, bringing one, taking one away.

use std::path::{Component, PathBuf};

use axum::Json;
use axum::extract::{Path as Segment, Request, State};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use cardan_manager::{Activated, ControlError, Manager, Owner, PluginSpec, resolve_path};
use http::{StatusCode, header};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::views::{CountsView, PluginView, VersionView};
use crate::access::{Administrator, As, Viewer};
use crate::app::App;
use crate::input::{self, Query, UPLOAD_BYTES_MAX};
use crate::problem::Problem;

/// Every plugin.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Plugins {
    plugins: Vec<PluginView>,
}

/// Which of them.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(crate) struct Which {
    /// Only the one of this name, also where the name is one of the fixed words below `/api/v1/plugins`.
    name: Option<String>,
}

/// Every version of a plugin.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Versions {
    /// The number of the version that is asked.
    active: u32,
    /// The number of the version that some visits try.
    canary: Option<u32>,
    /// The active one first, then the canary, then those that can be rolled back to, the newest first.
    versions: Vec<VersionView>,
}

/// Counts of every version that is here.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Metrics {
    name: String,
    versions: Vec<VersionMetrics>,
}

/// Counts of one version.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct VersionMetrics {
    version: u32,
    calls: u64,
    faults: u64,
    hooks: Vec<CountsView>,
}

/// A plugin that lies on the server.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Load {
    /// An absolute path of a module or a manifest.
    pub(crate) path: String,
    /// Instead of the file's or the manifest's.
    #[serde(default)]
    pub(crate) name: Option<String>,
}

/// How an upload is meant.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(crate) struct Upload {
    /// The plugin's name.
    name: Option<String>,
    /// Whether one of this name that was loaded through this API is replaced by a new version.
    #[serde(default)]
    replace: bool,
}

/// What is active after a change.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ActivatedView {
    pub(crate) name: String,
    /// The active version.
    pub(crate) version: u32,
    /// SHA-256 of its module.
    pub(crate) digest: String,
    /// Whether it is another one than before.
    pub(crate) changed: bool,
}

/// LLMProxy's words, which say it all.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Removed {
    /// Always `uninstalled`.
    status: &'static str,
    name: String,
}

impl From<Activated> for ActivatedView {
    fn from(it: Activated) -> Self {
        Self { name: it.name, version: it.version, digest: it.digest, changed: it.changed }
    }
}

/// Every plugin, in the order of installation.
#[utoipa::path(get, path = "/api/v1/plugins", tag = "plugins", params(Which),
    responses((status = 200, body = Plugins)), security(("bearer" = ["viewer"])))]
pub(crate) async fn list(
    _: As<Viewer>,
    State(app): State<App>,
    Query(which): Query<Which>,
) -> Result<Json<Plugins>, Problem> {
    let plugins = match &which.name {
        Some(name) => vec![app.manager().plugin(name)?],
        None => app.manager().plugins(),
    };
    Ok(Json(Plugins { plugins: plugins.into_iter().map(Into::into).collect() }))
}

/// One plugin.
#[utoipa::path(get, path = "/api/v1/plugins/{name}", tag = "plugins", params(("name" = String, Path)),
    responses((status = 200, body = PluginView), (status = 404, body = Problem)),
    security(("bearer" = ["viewer"])))]
pub(crate) async fn show(
    _: As<Viewer>,
    State(app): State<App>,
    Segment(name): Segment<String>,
) -> Result<Json<PluginView>, Problem> {
    Ok(Json(app.manager().plugin(&name)?.into()))
}

/// Every version of a plugin.
#[utoipa::path(get, path = "/api/v1/plugins/{name}/versions", tag = "plugins", params(("name" = String, Path)),
    responses((status = 200, body = Versions), (status = 404, body = Problem)),
    security(("bearer" = ["viewer"])))]
pub(crate) async fn versions(
    _: As<Viewer>,
    State(app): State<App>,
    Segment(name): Segment<String>,
) -> Result<Json<Versions>, Problem> {
    let status = app.manager().plugin(&name)?;
    let canary = status.canary.as_ref().map(|canary| &canary.version);
    let all = std::iter::once(&status.active).chain(canary).chain(&status.earlier);
    Ok(Json(Versions {
        active: status.active.number,
        canary: canary.map(|version| version.number),
        versions: all.map(Into::into).collect(),
    }))
}

/// What a plugin was asked and how long it took.
#[utoipa::path(get, path = "/api/v1/plugins/{name}/metrics", tag = "plugins", params(("name" = String, Path)),
    responses((status = 200, body = Metrics), (status = 404, body = Problem)),
    security(("bearer" = ["viewer"])))]
pub(crate) async fn metrics(
    _: As<Viewer>,
    State(app): State<App>,
    Segment(name): Segment<String>,
) -> Result<Json<Metrics>, Problem> {
    let status = app.manager().plugin(&name)?;
    let canary = status.canary.iter().map(|canary| &canary.version);
    let all = std::iter::once(&status.active).chain(canary).chain(&status.earlier);
    let versions = all.map(|version| VersionMetrics {
        version: version.number,
        calls: version.calls(),
        faults: version.faults(),
        hooks: version.counts.iter().map(Into::into).collect(),
    });
    Ok(Json(Metrics { versions: versions.collect(), name }))
}

/// Loads a plugin beside the others: from a file on the server, or from the body.
#[utoipa::path(post, path = "/api/v1/plugins", tag = "plugins", params(Upload),
    request_body(content((Load = "application/json"), (Vec<u8> = "application/wasm"))),
    responses((status = 201, body = ActivatedView), (status = 409, body = Problem), (status = 422, body = Problem)),
    security(("bearer" = ["admin"])))]
pub(crate) async fn install(
    _: As<Administrator>,
    State(app): State<App>,
    Query(upload): Query<Upload>,
    request: Request,
) -> Result<Response, Problem> {
    let media_type = input::media_type(request.headers());
    let activated = match media_type.as_deref() {
        Some("application/json") => {
            let bytes = input::bytes(request, input::TEXT_BYTES_MAX).await?;
            let load: Load = serde_json::from_slice(&bytes).map_err(|error| {
                Problem::bad_request(format!("the body is not of the form {{\"path\": ...}}: {error}"))
            })?;
            load_path(&app, load).await?
        }
        Some("application/wasm") => {
            let bytes = input::bytes(request, UPLOAD_BYTES_MAX).await?;
            take_upload(&app, upload, bytes).await?
        }
        _ => {
            let why = "send {\"path\": ...} as application/json, or a module as application/wasm with ?name=";
            return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, why));
        }
    };
    let location = format!("/api/v1/plugins/{}", encoded(&activated.name));
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json(ActivatedView::from(activated)))
        .into_response())
}

/// A name as one segment of a path.
fn encoded(name: &str) -> String {
    let keep = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    name.bytes()
        .map(|byte| if keep(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

pub(crate) async fn load_path(app: &App, load: Load) -> Result<Activated, Problem> {
    let path = PathBuf::from(&load.path);
    if !path.is_absolute() || path.components().any(|part| part == Component::ParentDir) {
        return Err(Problem::unprocessable(format!(
            "path: {:?} has to be absolute, and without `..`: it is a path on the server",
            load.path
        )));
    }
    app.control(move |manager| {
        let resolved = resolve_path(&path, Owner::Operator);
        let (mut spec, warnings) = resolved.map_err(|error| ControlError::Refused(error.to_string()))?;
        for warning in warnings {
            tracing::warn!(target: "cardan::admin", plugin = spec.name, "{}", warning.0);
        }
        if let Some(name) = load.name {
            spec.name = name;
        }
        install_spec(manager, &spec)
    })
    .await
}

pub(crate) fn install_spec(manager: &Manager, spec: &PluginSpec) -> Result<Activated, ControlError> {
    check_name(&spec.name)?;
    manager.install(spec)
}

/// A name stands in log lines, metrics and paths.
fn check_name(name: &str) -> Result<(), ControlError> {
    if name.trim().is_empty() || name.chars().count() > 128 || name.chars().any(char::is_control) {
        let why = format!(
            "the name {name:?} is empty, longer than 128 characters, or has a control character in it"
        );
        return Err(ControlError::Refused(why));
    }
    Ok(())
}

async fn take_upload(app: &App, upload: Upload, bytes: Bytes) -> Result<Activated, Problem> {
    let Some(name) = upload.name else {
        return Err(Problem::bad_request("name the plugin in the query: POST /api/v1/plugins?name=NAME"));
    };
    let about = name.clone();
    let done = app.control(move |manager| {
        check_name(&name)?;
        if !upload.replace && manager.plugin(&name).is_ok() {
            let why = format!(
                "plugin {name}: there is one of this name; say &replace=true to make a new version of it"
            );
            return Err(ControlError::Conflict(why));
        }
        let spec = defaults(&name, &bytes)?;
        manager.upload(&spec, &bytes)
    });
    done.await.map_err(|problem| problem.about(&about))
}

/// What a module without a manifest is given, its deadline above all.
fn defaults(name: &str, module: &[u8]) -> Result<PluginSpec, ControlError> {
    let refused = |why: &dyn std::fmt::Display| ControlError::Refused(format!("plugin {name}: {why}"));
    // In a folder of its own, so that nobody's manifest beside it is taken for its own.
    let folder = tempfile::tempdir().map_err(|error| refused(&error))?;
    let file = folder.path().join("upload.wasm");
    std::fs::write(&file, module).map_err(|error| refused(&error))?;
    let (spec, _) = resolve_path(&file, Owner::Operator).map_err(|error| refused(&error))?;
    Ok(PluginSpec { name: name.to_owned(), ..spec })
}

/// Takes a plugin out for good. Those that a file names or that lie in the watched folder go when it does.
#[utoipa::path(delete, path = "/api/v1/plugins/{name}", tag = "plugins", params(("name" = String, Path)),
    responses((status = 200, body = Removed), (status = 404, body = Problem), (status = 409, body = Problem)),
    security(("bearer" = ["admin"])))]
pub(crate) async fn remove(
    _: As<Administrator>,
    State(app): State<App>,
    Segment(name): Segment<String>,
) -> Result<Json<Removed>, Problem> {
    take_out(&app, &name).await?;
    Ok(Json(Removed { status: "uninstalled", name }))
}

pub(crate) async fn take_out(app: &App, name: &str) -> Result<(), Problem> {
    app.control_one(name, |manager, name| manager.remove(name)).await
}
