//! LLMProxy's plugin routes beside those that are Cardan's own as well.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use cardan_api::manifest::llmproxy::Entry;
use cardan_manager::{
    Activated, ControlError, Decision, Durations, HookCounts, Manager, Owner, PluginStatus,
    State as Standing, VisitRecord, resolve_llmproxy,
};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use utoipa::{IntoParams, ToSchema};

use crate::access::{Administrator, As, Operator, Role, Viewer};
use crate::api::configuration::for_role;
use crate::app::App;
use crate::input::{Json as Body, Query};
use crate::problem::Problem;
use crate::time;

const RINGS: [&str; 5] = ["ingress", "pre_flight", "routing", "post_flight", "background"];
/// Traces that one answer holds.
const TRACES_MAX: usize = 20;

/// A plugin's name, and whether it shall be asked.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct Toggle {
    name: String,
    enabled: bool,
}

/// How failure is told.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(crate) struct Strict {
    /// `1`: with a status of its own, where LLMProxy answers 200.
    #[serde(default)]
    strict: Option<String>,
}

/// Counts of every plugin, by name.
#[utoipa::path(get, path = "/api/v1/plugins/stats", tag = "llmproxy", responses((status = 200, body = Object)),
    security(("bearer" = ["viewer"])))]
pub(crate) async fn stats(_: As<Viewer>, State(app): State<App>) -> Json<Value> {
    let plugins = app.manager().plugins();
    Json(plugins.iter().map(|plugin| (plugin.name.clone(), stats_of(plugin))).collect())
}

fn stats_of(plugin: &PluginStatus) -> Value {
    let counts = &plugin.active.counts;
    let faults = plugin.active.faults_by_kind();
    let seconds: f64 = counts.iter().map(|counts| counts.durations.sum_seconds).sum();
    let until = match plugin.state {
        Standing::Quarantined { until_ms, .. } => until_ms as f64 / 1e3,
        Standing::Running | Standing::Disabled => 0.0,
    };
    json!({
        "invocations": plugin.active.calls(),
        "errors": plugin.active.faults(),
        "blocks": counts.iter().map(|counts| counts.stopped).sum::<u64>(),
        "timeouts": faults.get("deadline").copied().unwrap_or(0),
        "total_latency_ms": round(seconds * 1e3),
        "consecutive_errors": plugin.faults_in_a_row,
        "quarantined_until": until,
        "avg_latency_ms": ms(plugin.active.mean()),
        "latency_percentiles": percentiles_of(counts),
    })
}

/// Milliseconds with three decimals. A sum of nothing is -0.0, which is no duration.
fn round(ms: f64) -> f64 {
    (ms * 1e3).round() / 1e3 + 0.0
}

fn ms(duration: Duration) -> f64 {
    round(duration.as_secs_f64() * 1e3)
}

/// Over all hooks of a plugin. Of more than one, each is known to within a factor of two.
fn percentiles_of(counts: &[HookCounts]) -> Value {
    let at = |share: f64, exact: fn(&Durations) -> f64| {
        let seconds = match counts {
            [one] => exact(&one.durations),
            many => quantile(many, share),
        };
        round(seconds * 1e3)
    };
    json!({ "p50": at(0.5, |it| it.p50_seconds), "p95": at(0.95, |it| it.p95_seconds), "p99": at(0.99, |it| it.p99_seconds) })
}

fn quantile(counts: &[HookCounts], share: f64) -> f64 {
    let total: u64 = counts.iter().map(|counts| counts.durations.count).sum();
    let longest = counts.iter().map(|counts| counts.durations.max_seconds).fold(0.0, f64::max);
    let bounds = counts.first().map_or(0, |counts| counts.durations.cumulative.len());
    let below = |i: usize| -> u64 {
        counts.iter().filter_map(|counts| counts.durations.cumulative.get(i)).map(|(_, count)| count).sum()
    };
    let at = (0..bounds).find(|i| below(*i) as f64 >= total as f64 * share);
    let bound = at.and_then(|i| counts.first()?.durations.cumulative.get(i)).map(|(bound, _)| *bound);
    if total == 0 { 0.0 } else { bound.unwrap_or(longest).min(longest) }
}

/// Switches a plugin on or off.
#[utoipa::path(post, path = "/api/v1/plugins/toggle", tag = "llmproxy", request_body = Toggle,
    responses((status = 200, body = Toggle), (status = 404, body = Problem)),
    security(("bearer" = ["operator"])))]
pub(crate) async fn toggle(
    _: As<Operator>,
    State(app): State<App>,
    Body(toggle): Body<Toggle>,
) -> Result<Json<Toggle>, Problem> {
    let enabled = toggle.enabled;
    let switch = move |manager: &Manager, name: &str| {
        if enabled { manager.enable(name) } else { manager.disable(name) }
    };
    app.control_one(&toggle.name, switch).await?;
    Ok(Json(toggle))
}

/// Loads the plugin of a manifest entry.
#[utoipa::path(post, path = "/api/v1/plugins/install", tag = "llmproxy", request_body = Object,
    responses((status = 200, body = Object), (status = 400, body = Problem), (status = 409, body = Problem),
        (status = 422, body = Problem)),
    security(("bearer" = ["admin"])))]
pub(crate) async fn install(
    _: As<Administrator>,
    State(app): State<App>,
    Body(entry): Body<Map<String, Value>>,
) -> Result<Json<Value>, Problem> {
    let missing = |key: &&str| entry.get(*key).and_then(Value::as_str).is_none_or(str::is_empty);
    let missing: Vec<&str> = ["name", "hook", "entrypoint"].into_iter().filter(missing).collect();
    if !missing.is_empty() {
        return Err(Problem::bad_request(format!("Missing fields: {}", missing.join(", "))));
    }
    if entry.get("enabled") == Some(&Value::Bool(false)) {
        return Err(Problem::unprocessable(
            "`enabled` is false: an entry that is switched off installs nothing; install it with true, and switch \
             it off with POST /api/v1/plugins/toggle",
        ));
    }
    let entry: Entry = serde_json::from_value(Value::Object(entry))
        .map_err(|error| Problem::unprocessable(format!("the entry cannot be meant: {error}")))?;
    let name = entry.name.clone();
    let installed = app.change(move |app| {
        let folder = app.host().llmproxy_folder.clone().unwrap_or_default();
        let resolved = resolve_llmproxy(&entry, &folder);
        let (spec, warnings) = resolved.map_err(|error| Problem::unprocessable(error.to_string()))?;
        let said: Vec<String> = warnings.into_iter().map(|warning| warning.0).collect();
        let Some(mut spec) = spec else {
            let said = if said.is_empty() {
                "the entry names nothing to install".to_owned()
            } else {
                said.join("; ")
            };
            return Err(Problem::unprocessable(said));
        };
        spec.owner = Owner::Operator;
        if app.smg().has(app.manager(), &spec.name) {
            let why = "there is a module of this name that came by POST /wasm; take it out with DELETE \
                       /wasm/UUID, or choose another name";
            return Err(Problem::conflict(why));
        }
        app.manager().replace(&spec).map_err(|error| match Problem::of(&error) {
            problem if problem.status() == StatusCode::CONFLICT => problem,
            problem => Problem::unprocessable(problem.detail()),
        })?;
        Ok(said)
    });
    let warnings = installed.await.map_err(|problem| problem.about(&name))?;
    let mut answer = json!({ "status": "installed", "name": name });
    if !warnings.is_empty() {
        answer["warnings"] = json!(warnings);
    }
    Ok(Json(answer))
}

/// Reads the configuration and every plugin's file again: all of it, or nothing.
#[utoipa::path(post, path = "/api/v1/plugins/hot-swap", tag = "llmproxy", params(Strict),
    responses((status = 200, description = "`status` is `success`, or `rolled_back` with an `error`", body = Object),
        (status = 422, description = "with ?strict=1, in place of 200", body = Object)),
    security(("bearer" = ["operator"])))]
pub(crate) async fn hot_swap(
    who: As<Operator>,
    State(app): State<App>,
    Query(strict): Query<Strict>,
) -> Result<Response, Problem> {
    let role = who.caller.role;
    let swapped = app.change(move |app| Ok(swap(app, role))).await?;
    Ok(match swapped {
        Ok(()) => Json(json!({ "status": "success", "message": "Plugin DAG reloaded" })).into_response(),
        Err(why) => {
            let strict = strict.strict.as_deref().is_some_and(|it| it != "0" && it != "false");
            let status = if strict { StatusCode::UNPROCESSABLE_ENTITY } else { StatusCode::OK };
            (status, Json(json!({ "status": "rolled_back", "error": why }))).into_response()
        }
    })
}

fn swap(app: &App, role: Role) -> Result<(), String> {
    let manager = app.manager();
    let before = active(manager);
    let reload_all = || {
        if let Some(configuration) = &app.host().configuration {
            configuration.reload().map_err(|error| for_role(error, role).to_string())?;
        }
        let others = manager
            .plugins()
            .into_iter()
            .filter(|plugin| plugin.owner != Owner::File || app.host().configuration.is_none());
        others
            .map(|plugin| manager.reload(&plugin.name))
            .try_for_each(|done| done.map(drop).map_err(|error| error.to_string()))
    };
    let outcome = reload_all();
    let after = active(manager);
    let changed =
        before.into_iter().filter(|(name, number)| after.get(name).is_some_and(|now| now != number));
    let changed: Vec<(String, u32)> = changed.collect();
    if outcome.is_err() {
        for (name, number) in &changed {
            if let Err(error) = undo(manager, name, *number) {
                tracing::error!(plugin = name, %error, "not rolled back");
            }
        }
    } else if !changed.is_empty() {
        *app.swapped() = changed;
    }
    outcome
}

/// The versions that are left were good, and may be tried again: it was another one that failed.
fn undo(manager: &Manager, name: &str, to: u32) -> Result<Activated, ControlError> {
    manager.undo(name, to)
}

fn active(manager: &Manager) -> BTreeMap<String, u32> {
    manager.plugins().into_iter().map(|plugin| (plugin.name, plugin.active.number)).collect()
}

/// Puts back the versions that the last hot swap replaced, or else the version before of the plugin that
/// changed last.
#[utoipa::path(post, path = "/api/v1/plugins/rollback", tag = "llmproxy",
    responses((status = 200, body = Object), (status = 409, body = Problem)),
    security(("bearer" = ["operator"])))]
pub(crate) async fn rollback(_: As<Operator>, State(app): State<App>) -> Result<Json<Value>, Problem> {
    let plugins = app.change(|app| {
        let swapped = std::mem::take(&mut *app.swapped());
        let manager = app.manager();
        let back: Vec<(String, u32)> = if swapped.is_empty() { last_change(manager) } else { swapped };
        if back.is_empty() {
            return Err(Problem::conflict("no plugin has a version before the one that runs"));
        }
        for (name, number) in &back {
            manager.rollback(name, Some(*number)).map_err(|error| Problem::of(&error).about(name))?;
        }
        Ok(back.into_iter().map(|(name, _)| name).collect::<Vec<_>>())
    });
    Ok(Json(json!({ "status": "rolled_back", "plugins": plugins.await? })))
}

fn last_change(manager: &Manager) -> Vec<(String, u32)> {
    let plugins = manager.plugins().into_iter().filter_map(|plugin| {
        Some((plugin.active.loaded_at, plugin.name.clone(), plugin.earlier.first()?.number))
    });
    let last = plugins.max_by_key(|(loaded_at, ..)| *loaded_at);
    last.map(|(_, name, number)| (name, number)).into_iter().collect()
}

/// The ring of each plugin at each hook.
struct Rings(BTreeMap<(&'static str, String), &'static str>);

impl Rings {
    fn of(manager: &Manager) -> Self {
        let bindings = manager.plugins().into_iter().flat_map(|plugin| plugin.bindings);
        Self(bindings.map(|it| ((it.hook, it.plugin), it.phase.name())).collect())
    }

    /// Of a plugin that is gone, the ring that its hook has.
    fn ring(&self, decision: &Decision) -> &'static str {
        let known = self.0.get(&(decision.hook, decision.plugin.to_string()));
        known.copied().unwrap_or(match decision.hook {
            "http.response" => "post_flight",
            "http.complete" => "background",
            _ => "pre_flight",
        })
    }

    /// What each ring took of a visit.
    fn durations(&self, visit: &VisitRecord) -> BTreeMap<&'static str, Duration> {
        let mut durations = BTreeMap::new();
        for decision in &visit.decisions {
            *durations.entry(self.ring(decision)).or_default() += decision.duration;
        }
        durations
    }
}

/// How long rings and plugins take. Times to the first token are not measured: there are no samples of them.
#[utoipa::path(get, path = "/api/v1/metrics/latency", tag = "llmproxy", responses((status = 200, body = Object)),
    security(("bearer" = ["viewer"])))]
pub(crate) async fn latency(_: As<Viewer>, State(app): State<App>) -> Json<Value> {
    let manager = app.manager();
    let rings = Rings::of(manager);
    let mut samples: BTreeMap<&str, Vec<f64>> = RINGS.iter().map(|ring| (*ring, Vec::new())).collect();
    for visit in manager.ledger().visits() {
        for (ring, duration) in rings.durations(&visit) {
            samples.entry(ring).or_default().push(ms(duration));
        }
    }
    let by_ring: Map<String, Value> = samples
        .into_iter()
        .map(|(ring, mut samples)| {
            samples.sort_by(f64::total_cmp);
            let at = |share: f64| {
                let rank = (samples.len() as f64 * share).ceil() as usize;
                samples.get(rank.saturating_sub(1)).copied().unwrap_or(0.0)
            };
            let value = json!({ "count": samples.len(), "p50": at(0.5), "p95": at(0.95), "p99": at(0.99) });
            (ring.to_owned(), value)
        })
        .collect();
    let plugins = manager.plugins().into_iter().map(|plugin| {
        let value = json!({
            "avg_ms": ms(plugin.active.mean()),
            "percentiles": percentiles_of(&plugin.active.counts),
            "invocations": plugin.active.calls(),
        });
        (plugin.name, value)
    });
    let plugins: Map<String, Value> = plugins.collect();
    let ttft = json!({ "samples": 0, "p50": 0.0, "p95": 0.0, "p99": 0.0 });
    Json(json!({ "rings": by_ring, "plugins": plugins, "ttft": ttft }))
}

/// The last visits, ring by ring. What the upstream took, and the first token, are not measured here: `null`.
#[utoipa::path(get, path = "/api/v1/metrics/ring-timeline", tag = "llmproxy",
    responses((status = 200, body = Object)), security(("bearer" = ["viewer"])))]
pub(crate) async fn ring_timeline(_: As<Viewer>, State(app): State<App>) -> Json<Value> {
    let rings = Rings::of(app.manager());
    let visits = app.manager().ledger().visits();
    let traces: Vec<Value> = visits.iter().take(TRACES_MAX).map(|visit| trace(&rings, visit)).collect();
    Json(json!({ "count": traces.len(), "traces": traces }))
}

fn trace(rings: &Rings, visit: &VisitRecord) -> Value {
    let mut by_ring = Map::new();
    for (ring, duration) in rings.durations(visit) {
        let asked = visit.decisions.iter().filter(|decision| rings.ring(decision) == ring);
        let plugins: Vec<Value> =
            asked.map(|it| json!({ "name": &*it.plugin, "ms": ms(it.duration) })).collect();
        by_ring.insert(ring.to_owned(), json!({ "duration_ms": ms(duration), "plugins": plugins }));
    }
    json!({
        "req_id": visit.id,
        "timestamp": time::unix_seconds(visit.began_at),
        "rings": by_ring,
        "total_ms": ms(visit.duration),
        "upstream_ms": null,
        "ttft_ms": null,
    })
}
