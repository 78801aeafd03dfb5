//! SMG's `/wasm` routes.

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use axum::Json;
use axum::extract::{Path as Segment, State};
use axum::response::{IntoResponse as _, Response};
use cardan_api::manifest::smg::{AttachPoint, DeployRequest, Module};
use cardan_manager::{ControlError, Manager, resolve_smg};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::access::{Administrator, As, Viewer};
use crate::app::App;
use crate::files::write_atomically;
use crate::input::Json as Body;
use crate::problem::Problem;
use crate::time;

/// The modules that were deployed here. What they are and whether they run, the manager knows.
#[derive(Debug)]
pub(crate) struct Registry {
    /// Where the list is kept, if anywhere.
    file: Option<PathBuf>,
    modules: Mutex<Vec<Deployed>>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Deployed {
    uuid: Uuid,
    name: String,
    file_path: String,
    attach_points: Vec<AttachPoint>,
    created_at: String,
}

/// What was deployed, and what was executed.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Listing {
    modules: Vec<Listed>,
    metrics: Executions,
}

#[derive(Debug, Serialize, ToSchema)]
struct Listed {
    #[schema(value_type = String)]
    module_uuid: Uuid,
    module_meta: Meta,
}

#[derive(Debug, Serialize, ToSchema)]
struct Meta {
    name: String,
    file_path: String,
    sha256_hash: String,
    size_bytes: u64,
    created_at: String,
    /// When it was last asked, as far as the visits of late tell; when it was deployed before that.
    last_accessed_at: String,
    access_count: u64,
    #[schema(value_type = Vec<Object>)]
    attach_points: Vec<AttachPoint>,
    /// Not of SMG: `running`, `disabled` or `quarantined`.
    state: &'static str,
}

#[derive(Debug, Default, Serialize, ToSchema)]
struct Executions {
    total_executions: u64,
    successful_executions: u64,
    failed_executions: u64,
    total_execution_time_ms: u64,
    max_execution_time_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    average_execution_time_ms: Option<f64>,
}

impl Registry {
    pub(crate) fn open(manager: &Manager) -> Self {
        let file = manager.state().map(|state| state.path().join("smg.json"));
        let modules = file.as_ref().and_then(|file| {
            let text = std::fs::read_to_string(file).ok()?;
            let read = serde_json::from_str(&text);
            let whose = "the modules deployed with POST /wasm have new ids when they are deployed again";
            read.inspect_err(|error| tracing::error!(file = %file.display(), %error, "{whose}")).ok()
        });
        Self { file, modules: Mutex::new(modules.unwrap_or_default()) }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Deployed>> {
        self.modules.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Those that are still there: a module may have been removed by other means.
    fn deployed(&self, manager: &Manager) -> Vec<Deployed> {
        let mut modules = self.lock();
        modules.retain(|module| manager.plugin(&module.name).is_ok());
        modules.clone()
    }

    /// Whether the plugin of this name was deployed here.
    pub(crate) fn has(&self, manager: &Manager, name: &str) -> bool {
        self.deployed(manager).iter().any(|module| module.name == name)
    }

    fn change(&self, change: impl FnOnce(&mut Vec<Deployed>)) -> Result<(), String> {
        let mut modules = self.lock();
        change(&mut modules);
        let Some(file) = &self.file else { return Ok(()) };
        let text = serde_json::to_vec_pretty(&*modules).map_err(|error| error.to_string())?;
        write_atomically(file, &text).map_err(|error| format!("{}: {error}", file.display()))
    }
}

/// Deploys modules, one after another. Those that cannot be are reported, and the others stay.
#[utoipa::path(post, path = "/wasm", tag = "smg", request_body = Object,
    responses((status = 200, description = "every module was deployed", body = Object),
        (status = 400, description = "at least one was not: its `add_result` says why", body = Object),
        (status = 422, body = Problem)),
    security(("bearer" = ["admin"])))]
pub(crate) async fn deploy(
    _: As<Administrator>,
    State(app): State<App>,
    Body(request): Body<DeployRequest>,
) -> Result<Response, Problem> {
    // One at a time, so that the same bytes are not deployed twice at once.
    let deployed = app.change(move |app| {
        let (mut answers, mut status) = (Vec::new(), StatusCode::OK);
        for module in request.modules {
            let mut answer = serde_json::to_value(&module).map_err(Problem::internal)?;
            answer["add_result"] = match add(app, &module) {
                Ok(uuid) => json!({ "Success": uuid }),
                Err(why) => {
                    status = StatusCode::BAD_REQUEST;
                    json!({ "Error": why })
                }
            };
            answers.push(answer);
        }
        Ok((status, answers))
    });
    let (status, answers) = deployed.await?;
    Ok((status, Json(json!({ "modules": answers }))).into_response())
}

fn add(app: &App, module: &Module) -> Result<Uuid, String> {
    let spec = resolve_smg(module).map_err(|error| error.problems.join("; "))?;
    let manager = app.manager();
    let here = app.smg().deployed(manager);
    let digest = spec.sha256.clone();
    let same = here.iter().find(|other| {
        let other_digest = manager.plugin(&other.name).ok().map(|plugin| plugin.active.digest);
        digest.is_some() && digest == other_digest && same_points(&other.attach_points, &module.attach_points)
    });
    if let Some(same) = same {
        return Err(format!(
            "Duplicate SHA256 hash detected: module {:?} has the same bytes and the same attach points",
            same.name
        ));
    }
    manager.install(&spec).map_err(|error| match error {
        ControlError::Refused(why) if why.contains("component") => format!("Invalid WASM component: {why}"),
        error => error.to_string(),
    })?;
    let deployed = Deployed {
        uuid: Uuid::now_v7(),
        name: module.name.clone(),
        file_path: module.file_path.clone(),
        attach_points: module.attach_points.clone(),
        created_at: time::nanos(SystemTime::now()),
    };
    let uuid = deployed.uuid;
    app.smg().change(|modules| modules.push(deployed)).inspect_err(|_| {
        // A module that nobody could remove again is worse than none.
        let _ = manager.remove(&module.name);
    })?;
    Ok(uuid)
}

fn same_points(one: &[AttachPoint], other: &[AttachPoint]) -> bool {
    one.iter().all(|point| other.contains(point)) && other.iter().all(|point| one.contains(point))
}

/// Every module that was deployed here.
#[utoipa::path(get, path = "/wasm", tag = "smg", responses((status = 200, body = Listing)),
    security(("bearer" = ["viewer"])))]
pub(crate) async fn list(_: As<Viewer>, State(app): State<App>) -> Json<Listing> {
    let manager = app.manager();
    let visits = manager.ledger().visits();
    let (mut modules, mut metrics, mut seconds) = (Vec::new(), Executions::default(), 0.0);
    for deployed in app.smg().deployed(manager) {
        let Ok(plugin) = manager.plugin(&deployed.name) else { continue };
        let asked = visits.iter().find(|visit| visit.decisions.iter().any(|it| *it.plugin == *deployed.name));
        let (calls, faults) = (plugin.active.calls(), plugin.active.faults());
        metrics.total_executions += calls;
        metrics.failed_executions += faults;
        metrics.successful_executions += calls.saturating_sub(faults);
        for counts in &plugin.active.counts {
            seconds += counts.durations.sum_seconds;
            let max_ms = (counts.durations.max_seconds * 1e3).round() as u64;
            metrics.max_execution_time_ms = metrics.max_execution_time_ms.max(max_ms);
        }
        modules.push(Listed {
            module_uuid: deployed.uuid,
            module_meta: Meta {
                last_accessed_at: asked
                    .map_or_else(|| deployed.created_at.clone(), |it| time::nanos(it.began_at)),
                name: deployed.name,
                file_path: deployed.file_path,
                sha256_hash: plugin.active.digest,
                size_bytes: plugin.active.size_bytes,
                created_at: deployed.created_at,
                access_count: calls,
                attach_points: deployed.attach_points,
                state: plugin.state.name(),
            },
        });
    }
    metrics.total_execution_time_ms = (seconds * 1e3).round() as u64;
    metrics.average_execution_time_ms =
        (metrics.total_executions > 0).then(|| seconds * 1e3 / metrics.total_executions as f64);
    Json(Listing { modules, metrics })
}

/// Takes a module out.
#[utoipa::path(delete, path = "/wasm/{uuid}", tag = "smg", params(("uuid" = String, Path)),
    responses((status = 200, body = String), (status = 400, description = "no such module", body = String)),
    security(("bearer" = ["admin"])))]
pub(crate) async fn remove(
    _: As<Administrator>,
    State(app): State<App>,
    Segment(uuid): Segment<String>,
) -> Result<Response, Problem> {
    let Ok(uuid) = uuid.parse::<Uuid>() else {
        return Ok(StatusCode::BAD_REQUEST.into_response());
    };
    let removed = app.change(move |app| {
        let known = app.smg().deployed(app.manager()).into_iter().find(|module| module.uuid == uuid);
        let Some(module) = known else {
            return Ok(Err(format!("Module not found: {uuid}")));
        };
        Ok(app
            .manager()
            .remove(&module.name)
            .map_err(|error| error.to_string())
            .and_then(|()| app.smg().change(|modules| modules.retain(|module| module.uuid != uuid))))
    });
    Ok(match removed.await? {
        Ok(()) => "Module removed successfully".into_response(),
        Err(why) => (StatusCode::BAD_REQUEST, why).into_response(),
    })
}
