//! What the API shows of plugins, visits and hooks.

use std::collections::BTreeMap;
use std::time::Duration;

use cardan_api::{Fault, FaultPolicy, NamedHook};
use cardan_manager::{
    BindingStatus, CanaryStatus, Decision, HookCounts, Outcome, PluginStatus, SnapshotState, State, Tier,
    VersionStatus, VisitRecord,
};
use serde::Serialize;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use crate::time;

/// One plugin, as it stands. The first ten keys are LLMProxy's.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PluginView {
    name: String,
    /// The phase of its first binding, which LLMProxy calls a ring.
    hook: Option<&'static str>,
    /// Always `wasm`.
    r#type: &'static str,
    /// The author's version.
    version: String,
    author: String,
    description: String,
    /// Form fields, made from `config_schema`.
    #[schema(value_type = Option<Vec<Object>>)]
    ui_schema: Option<Value>,
    /// Whether visits ask it.
    enabled: bool,
    /// Time of one call.
    timeout_ms: Option<u64>,
    /// `closed` when a fault at its first binding refuses the request, else `open`.
    fail_policy: &'static str,
    license: Option<String>,
    /// `running`, `disabled` or `quarantined`.
    state: &'static str,
    /// When a visit tries it again, if it is in quarantine.
    quarantined_until: Option<String>,
    /// Why what its source holds now is not what runs. It may quote the guest, and not its configuration.
    trouble: Option<String>,
    /// `file`, `folder` or `operator`: who put it here, and so who may take it away.
    #[schema(value_type = String)]
    owner: cardan_manager::Owner,
    /// Where its file is.
    source: String,
    /// The hooks it is asked at.
    hooks: Vec<&'static str>,
    /// The version that is asked.
    active: VersionView,
    /// The version that some visits try.
    canary: Option<CanaryView>,
    /// Versions that can be rolled back to, the newest first.
    earlier: Vec<u32>,
    bindings: Vec<BindingView>,
    /// What it may use up.
    #[schema(value_type = Object)]
    limits: Value,
    /// What its configuration has to look like, as JSON Schema.
    #[schema(value_type = Option<Object>)]
    config_schema: Option<Value>,
    /// Capabilities that its manifest asks for.
    requested: Option<Vec<&'static str>>,
    /// Capabilities that its imports need.
    needed: Vec<&'static str>,
    /// When it is taken out, and let in again.
    #[schema(value_type = Object)]
    health: cardan_manager::HealthPolicy,
}

/// One version of a plugin.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct VersionView {
    /// Counts from 1 within the name.
    number: u32,
    /// The author's version.
    version: String,
    /// SHA-256 of its module.
    digest: String,
    size_bytes: u64,
    abi: String,
    dialect: Option<String>,
    /// `fresh`, `visit` or `shared`.
    mode: String,
    loaded_at: String,
    /// Whether its code is in memory. An earlier version may have to be read again first.
    loaded: bool,
    /// `baseline` while better code is compiled, then `optimised`. Nothing where its code is not in memory.
    tier: Option<&'static str>,
    /// Whether calls begin where initialisation ended: `taken`, `pending`, `refused`, `off` or `not_needed`.
    snapshot: Option<&'static str>,
    /// Why each instance is initialised, where a snapshot is `refused`.
    snapshot_refused: Option<String>,
    /// `instances`, `ready`, `waiting` calls, `started` since it was loaded, `memory_bytes_max_seen`.
    #[schema(value_type = Object)]
    usage: cardan_manager::Usage,
    calls: u64,
    faults: u64,
    mean_us: f64,
}

/// A version that a share of visits tries.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CanaryView {
    version: VersionView,
    /// Of visits.
    percent: f64,
    calls: u32,
    faults: u32,
    /// Whether it failed too often, so that nobody asks it any more.
    stopped: bool,
}

/// One plugin at one hook.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct BindingView {
    plugin: String,
    hook: &'static str,
    phase: &'static str,
    priority: i32,
    /// `skip` or `refuse`.
    #[schema(value_type = String)]
    on_fault: FaultPolicy,
    /// `none` or `whole`.
    #[schema(value_type = String)]
    body: cardan_api::BodyNeed,
    deadline_ms: Option<u64>,
    entry: Option<String>,
    paths: Vec<String>,
    hosts: Vec<String>,
    methods: Vec<String>,
}

/// Counts of one version at one hook.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CountsView {
    hook: &'static str,
    calls: u64,
    continued: u64,
    stopped: u64,
    skipped: u64,
    refused: u64,
    fell_back: u64,
    faults: BTreeMap<&'static str, u64>,
    mean_us: f64,
    p50_us: f64,
    p95_us: f64,
    p99_us: f64,
    max_us: f64,
}

/// One hook of the catalogue.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct HookView {
    name: &'static str,
    when: &'static str,
    /// The default first.
    phases: Vec<&'static str>,
    /// What follows from a fault unless a binding says otherwise.
    #[schema(value_type = String)]
    on_fault: FaultPolicy,
}

/// One visit that asked somebody.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct VisitView {
    /// As in the header `x-request-id`.
    id: String,
    /// The client's trace, in hexadecimal.
    trace_id: Option<String>,
    generation: u64,
    began_at: String,
    duration_us: u64,
    /// Method, host and path.
    subject: String,
    /// `stopped` or `refused` where somebody did that, else what came of the last question.
    outcome: Option<&'static str>,
    decisions: Vec<DecisionView>,
    /// Those beyond.
    decisions_not_kept: u64,
}

/// What came of asking one plugin.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DecisionView {
    plugin: String,
    version: u32,
    hook: &'static str,
    /// `continued`, `stopped`, `skipped`, `refused` or `fell_back`.
    outcome: &'static str,
    fault: Option<&'static str>,
    /// From the opening of the visit.
    since_us: u64,
    duration_us: u64,
    /// What the verdict changed: names of parts and fields, never values.
    changed: Option<String>,
    /// How it failed. It may quote the guest, and not its configuration.
    error: Option<String>,
}

impl From<PluginStatus> for PluginView {
    fn from(status: PluginStatus) -> Self {
        let first = status.bindings.first();
        let mut hooks: Vec<&'static str> = status.bindings.iter().map(|binding| binding.hook).collect();
        hooks.dedup();
        let limits = &status.limits;
        let timeout = first.and_then(|it| it.deadline_ms).or_else(|| limits.deadline.map(whole_ms));
        let closed = first.is_some_and(|binding| binding.on_fault == FaultPolicy::Refuse);
        let quarantined_until = match status.state {
            State::Quarantined { until_ms, .. } => Some(time::of_unix_ms(until_ms)),
            State::Running | State::Disabled => None,
        };
        Self {
            hook: first.map(|binding| binding.phase.name()),
            r#type: "wasm",
            version: status.active.version.clone(),
            author: status.about.author.unwrap_or_default(),
            description: status.about.description.unwrap_or_default(),
            ui_schema: status.config_schema.as_ref().and_then(ui_schema),
            enabled: status.enabled,
            timeout_ms: timeout,
            fail_policy: if closed { "closed" } else { "open" },
            license: status.about.license,
            state: status.state.name(),
            quarantined_until,
            trouble: status.trouble,
            owner: status.owner,
            source: status.source.display().to_string(),
            hooks,
            active: (&status.active).into(),
            canary: status.canary.as_ref().map(Into::into),
            earlier: status.earlier.iter().map(|version| version.number).collect(),
            limits: json!({
                "memory_bytes": limits.memory_bytes_max,
                "table_elements": limits.table_elements_max,
                "output_bytes": limits.output_bytes_max,
                "deadline_ms": limits.deadline.map(whole_ms),
                "instances": limits.instances_max,
                "var_bytes": limits.var_bytes_max,
            }),
            bindings: status.bindings.into_iter().map(Into::into).collect(),
            config_schema: status.config_schema,
            requested: status.requested.map(|all| all.iter().map(|one| one.name()).collect()),
            needed: status.needed.iter().map(|one| one.name()).collect(),
            health: status.health,
            name: status.name,
        }
    }
}

impl From<&VersionStatus> for VersionView {
    fn from(status: &VersionStatus) -> Self {
        Self {
            number: status.number,
            version: status.version.clone(),
            digest: status.digest.clone(),
            size_bytes: status.size_bytes,
            abi: status.abi.clone(),
            dialect: status.dialect.map(|dialect| dialect.to_string()),
            mode: status.mode.name().to_owned(),
            loaded_at: time::millis(status.loaded_at),
            loaded: status.loaded,
            tier: status.tier.map(|tier| match tier {
                Tier::Baseline => "baseline",
                Tier::Optimised => "optimised",
            }),
            snapshot: status.snapshot.as_ref().map(|snapshot| match snapshot {
                SnapshotState::NotNeeded => "not_needed",
                SnapshotState::Off => "off",
                SnapshotState::Pending => "pending",
                SnapshotState::Taken => "taken",
                SnapshotState::Refused(_) => "refused",
            }),
            snapshot_refused: match &status.snapshot {
                Some(SnapshotState::Refused(why)) => Some(why.clone()),
                _ => None,
            },
            usage: status.usage,
            calls: status.calls(),
            faults: status.faults(),
            mean_us: micros(status.mean().as_secs_f64()),
        }
    }
}

impl From<&CanaryStatus> for CanaryView {
    fn from(status: &CanaryStatus) -> Self {
        Self {
            version: (&status.version).into(),
            percent: f64::from(status.plan.share) / 100.0,
            calls: status.calls,
            faults: status.faults,
            stopped: status.stopped,
        }
    }
}

impl From<BindingStatus> for BindingView {
    fn from(status: BindingStatus) -> Self {
        let BindingStatus { plugin, hook, phase, priority, on_fault, body, deadline_ms, entry, .. } = status;
        let (paths, hosts, methods) = (status.paths, status.hosts, status.methods);
        let phase = phase.name();
        Self { plugin, hook, phase, priority, on_fault, body, deadline_ms, entry, paths, hosts, methods }
    }
}

impl From<&HookCounts> for CountsView {
    fn from(counts: &HookCounts) -> Self {
        let durations = &counts.durations;
        let mean = if durations.count == 0 { 0.0 } else { durations.sum_seconds / durations.count as f64 };
        Self {
            hook: counts.hook,
            calls: counts.calls,
            continued: counts.continued,
            stopped: counts.stopped,
            skipped: counts.skipped,
            refused: counts.refused,
            fell_back: counts.fell_back,
            faults: counts.faults.iter().map(|(fault, count)| (fault.label(), *count)).collect(),
            mean_us: micros(mean),
            p50_us: micros(durations.p50_seconds),
            p95_us: micros(durations.p95_seconds),
            p99_us: micros(durations.p99_seconds),
            max_us: micros(durations.max_seconds),
        }
    }
}

impl From<&NamedHook> for HookView {
    fn from(hook: &NamedHook) -> Self {
        let phases = hook.phases.iter().map(|phase| phase.name()).collect();
        Self { name: hook.name, when: hook.when, phases, on_fault: hook.on_fault }
    }
}

impl From<&VisitRecord> for VisitView {
    fn from(record: &VisitRecord) -> Self {
        Self {
            id: record.id.clone(),
            trace_id: record.trace.map(|trace| format!("{:032x}", trace.trace_id)),
            generation: record.generation,
            began_at: time::millis(record.began_at),
            duration_us: whole_us(record.duration),
            subject: record.subject.clone(),
            outcome: outcome_of(&record.decisions),
            decisions: record.decisions.iter().map(Into::into).collect(),
            decisions_not_kept: record.decisions_not_kept,
        }
    }
}

impl From<&Decision> for DecisionView {
    fn from(decision: &Decision) -> Self {
        Self {
            plugin: decision.plugin.to_string(),
            version: decision.version,
            hook: decision.hook,
            outcome: word(decision.outcome),
            fault: fault_of(decision.outcome).map(Fault::label),
            since_us: whole_us(decision.since),
            duration_us: whole_us(decision.duration),
            changed: decision.changed.clone(),
            error: decision.error.clone(),
        }
    }
}

fn outcome_of(decisions: &[Decision]) -> Option<&'static str> {
    let decisive = |decision: &&Decision| matches!(decision.outcome, Outcome::Stopped | Outcome::Refused(_));
    let decision = decisions.iter().find(decisive).or(decisions.last());
    decision.map(|decision| word(decision.outcome))
}

/// The outcome's name in documents and metrics.
pub(crate) fn word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Continued => "continued",
        Outcome::Stopped => "stopped",
        Outcome::Skipped(_) => "skipped",
        Outcome::Refused(_) => "refused",
        Outcome::FellBack(_) => "fell_back",
    }
}

pub(crate) fn fault_of(outcome: Outcome) -> Option<Fault> {
    match outcome {
        Outcome::Continued | Outcome::Stopped => None,
        Outcome::Skipped(fault) | Outcome::Refused(fault) | Outcome::FellBack(fault) => Some(fault),
    }
}

fn whole_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn whole_us(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// Microseconds with one decimal.
fn micros(seconds: f64) -> f64 {
    (seconds * 1e7).round() / 10.0
}

/// LLMProxy's form fields for a JSON Schema of an object.
fn ui_schema(schema: &Value) -> Option<Value> {
    let properties = schema.get("properties")?.as_object()?;
    let field = |(key, schema): (&String, &Value)| {
        let choices = schema.get("enum").filter(|choices| choices.is_array());
        let kind = match (choices, schema.get("type").and_then(Value::as_str)) {
            (Some(_), _) => "select",
            (None, Some("integer" | "number")) => "number",
            (None, Some("boolean")) => "boolean",
            (None, Some("array")) => "array",
            (None, Some("object")) => "textarea",
            (None, _) => "text",
        };
        let mut field = Map::new();
        field.insert("key".to_owned(), json!(key));
        field.insert("type".to_owned(), json!(kind));
        field.insert("label".to_owned(), schema.get("title").cloned().unwrap_or_else(|| json!(key)));
        let others = [
            ("description", schema.get("description")),
            ("default", schema.get("default")),
            ("min", schema.get("minimum")),
            ("max", schema.get("maximum")),
            ("options", choices),
        ];
        for (name, value) in others {
            if let Some(value) = value {
                field.insert(name.to_owned(), value.clone());
            }
        }
        Value::Object(field)
    };
    Some(properties.iter().map(field).collect())
}
