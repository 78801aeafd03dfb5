//! Chains, hooks and visits.

use std::path::Path;

use axum::Json;
use axum::extract::{Path as Segment, State};
use cardan_api::catalogue::HOOKS;
use cardan_manager::StateDir;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::views::{BindingView, HookView, VisitView, fault_of, word};
use crate::access::{As, Role, Viewer};
use crate::app::App;
use crate::input::Query;
use crate::problem::Problem;

/// The order in which plugins are asked at one hook.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ChainView {
    hook: &'static str,
    bindings: Vec<BindingView>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Chains {
    /// The snapshot's number.
    generation: u64,
    chains: Vec<ChainView>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Hooks {
    hooks: Vec<HookView>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Visits {
    /// The newest first.
    visits: Vec<VisitView>,
}

/// Which visits.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(crate) struct Filter {
    /// That asked this plugin.
    plugin: Option<String>,
    /// With a decision that ended so: `continued`, `stopped`, `skipped`, `refused`, `fell_back`.
    outcome: Option<String>,
    /// With this fault, or `any`.
    fault: Option<String>,
    /// At most so many; 100 unless said otherwise.
    limit: Option<usize>,
}

/// Who is asked at which hook, in order.
#[utoipa::path(get, path = "/api/v1/chains", tag = "observe", responses((status = 200, body = Chains)),
    security(("bearer" = ["viewer"])))]
pub(crate) async fn chains(_: As<Viewer>, State(app): State<App>) -> Json<Chains> {
    let chains = app.manager().chains().into_iter().map(|chain| ChainView {
        hook: chain.hook,
        bindings: chain.bindings.into_iter().map(Into::into).collect(),
    });
    Json(Chains { generation: app.manager().snapshot().generation(), chains: chains.collect() })
}

/// The hooks that there are.
#[utoipa::path(get, path = "/api/v1/hooks", tag = "observe", responses((status = 200, body = Hooks)),
    security(("bearer" = ["viewer"])))]
pub(crate) async fn hooks(_: As<Viewer>) -> Json<Hooks> {
    Json(Hooks { hooks: HOOKS.iter().map(Into::into).collect() })
}

/// The visits of late that asked somebody, with every decision.
#[utoipa::path(get, path = "/api/v1/visits", tag = "observe", params(Filter),
    responses((status = 200, body = Visits)), security(("bearer" = ["viewer"])))]
pub(crate) async fn visits(
    _: As<Viewer>,
    State(app): State<App>,
    Query(filter): Query<Filter>,
) -> Result<Json<Visits>, Problem> {
    let records = app.manager().ledger().visits();
    let matches = |decision: &cardan_manager::Decision| {
        let fault = fault_of(decision.outcome);
        filter.plugin.as_deref().is_none_or(|plugin| plugin == &*decision.plugin)
            && filter.outcome.as_deref().is_none_or(|outcome| outcome == word(decision.outcome))
            && match filter.fault.as_deref() {
                None => true,
                Some("any") => fault.is_some(),
                Some(wanted) => fault.is_some_and(|fault| fault.label() == wanted),
            }
    };
    let matching = records.iter().filter(|record| record.decisions.iter().any(matches));
    let visits = matching.take(filter.limit.unwrap_or(100)).map(|record| (&**record).into()).collect();
    Ok(Json(Visits { visits }))
}

/// One visit, by its id or by its trace's.
#[utoipa::path(get, path = "/api/v1/visits/{id}", tag = "observe", params(("id" = String, Path)),
    responses((status = 200, body = VisitView), (status = 404, body = Problem)),
    security(("bearer" = ["viewer"])))]
pub(crate) async fn visit(
    _: As<Viewer>,
    State(app): State<App>,
    Segment(id): Segment<String>,
) -> Result<Json<VisitView>, Problem> {
    let records = app.manager().ledger().visits();
    let trace = u128::from_str_radix(&id, 16).ok().filter(|_| id.len() == 32);
    let wanted = records.iter().find(|record| {
        record.id == id || trace.is_some_and(|trace| record.trace.is_some_and(|it| it.trace_id == trace))
    });
    let record = wanted.ok_or_else(|| {
        Problem::not_found(format!(
            "there is no visit {id:?} among the last {} that asked a plugin; its id is in the header x-request-id",
            records.len()
        ))
    })?;
    Ok(Json((&**record).into()))
}

/// The process, for those who look after it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ProcessView {
    version: &'static str,
    /// Why it is not ready, if it is not.
    not_ready: Vec<String>,
    /// Where clients are served, once they are.
    serves_at: Option<String>,
    /// The snapshot's number.
    generation: u64,
    /// Whether tokens are asked for.
    tokens: bool,
    /// Where what survives a restart is kept.
    state_dir: DirView,
    /// Where compiled plugins are kept.
    cache_dir: DirView,
    /// Files of the folder of plugins that cannot be meant.
    folder_problems: Vec<FolderProblem>,
}

/// A file of the folder of plugins that cannot be meant. Whoever was loaded from it before stays.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct FolderProblem {
    path: String,
    /// For administrators only: it may quote the file.
    why: Option<String>,
}

/// A directory of the process.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DirView {
    path: Option<String>,
    /// Why it cannot be written, if it cannot.
    problem: Option<String>,
}

/// How the process is doing.
#[utoipa::path(get, path = "/api/v1/status", tag = "observe", responses((status = 200, body = ProcessView)),
    security(("bearer" = ["viewer"])))]
pub(crate) async fn status(who: As<Viewer>, State(app): State<App>) -> Result<Json<ProcessView>, Problem> {
    let admin = who.caller.role >= Role::Admin;
    app.blocking(move |app| {
        let problems = app
            .host()
            .folder_problems()
            .into_iter()
            .map(|(path, why)| FolderProblem { path: path.display().to_string(), why: admin.then_some(why) });
        Ok(Json(ProcessView {
            version: app.host().version,
            not_ready: app.host().readiness.reasons(),
            serves_at: app.host().readiness.address().map(|address| address.to_string()),
            generation: app.manager().snapshot().generation(),
            tokens: app.access().asks_for_tokens(),
            state_dir: DirView::of(app.manager().state().map(StateDir::path)),
            cache_dir: DirView::of(app.host().cache_dir.as_deref()),
            folder_problems: problems.collect(),
        }))
    })
    .await
}

impl DirView {
    fn of(dir: Option<&Path>) -> Self {
        // The only way to know is to try.
        let problem = dir.and_then(|dir| tempfile::tempfile_in(dir).err());
        let path = dir.map(|dir| dir.display().to_string());
        Self { path, problem: problem.map(|error| error.to_string()) }
    }
}
