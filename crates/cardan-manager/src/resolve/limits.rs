//! What a plugin may use up: an operator's word, else its manifest's within bounds, else the defaults.

use std::time::Duration;

use cardan_api::manifest::{HealthEntry, LimitsEntry, Milliseconds};
use cardan_api::{InstanceMode, Limits};
use serde_json::Value;

use crate::spec::HealthPolicy;

/// Time of one call where nothing says otherwise.
pub(super) const DEADLINE: Duration = Duration::from_millis(500);
/// Instances kept ready where nothing says otherwise. Shared ones are used again, and a new one beside
/// them would have forgotten what they count.
const READY: u32 = 2;

/// Most bytes that a manifest may give its plugin without an operator's word: HeliosProxy's number.
pub(super) const MANIFEST_BYTES_MAX: u64 = 256 << 20;
/// Longest time, likewise.
const MANIFEST_TIME_MAX: Duration = Duration::from_secs(60);
/// Most of what is counted, likewise.
const MANIFEST_COUNT_MAX: u64 = 1_000_000;

/// What `over` says, and what `under` does where it says nothing.
pub(super) fn overlaid(over: &LimitsEntry, under: &LimitsEntry) -> Result<LimitsEntry, String> {
    let whole =
        |limits: &LimitsEntry| serde_json::to_value(limits).map_err(|error| format!("limits: {error}"));
    let (over, mut both) = (whole(over)?, whole(under)?);
    if let (Value::Object(over), Value::Object(both)) = (over, &mut both) {
        both.extend(over.into_iter().filter(|(_, value)| !value.is_null()));
    }
    serde_json::from_value(both).map_err(|error| format!("limits: {error}"))
}

/// The same for the time of one call at a hook.
pub(super) fn check_modest_time(deadline: Option<Duration>) -> Result<(), String> {
    if deadline.is_none_or(|deadline| deadline <= MANIFEST_TIME_MAX) {
        return Ok(());
    }
    Err(format!(
        "a manifest may say {} s at most; whoever runs the plugin can say more, in bindings of its entry in cardan.yaml",
        MANIFEST_TIME_MAX.as_secs()
    ))
}

/// A manifest grants nothing: what it takes beyond these bounds, an operator has to say.
pub(super) fn check_modest(limits: &LimitsEntry) -> Result<(), String> {
    let too_much = |key: &str, most: String| {
        Err(format!(
            "limits.{key}: a manifest may say {most} at most; whoever runs the plugin can say more, as limits.{key} of \
             its entry in cardan.yaml"
        ))
    };
    for (key, size) in [
        ("memory", limits.memory),
        ("output", limits.output),
        ("vars", limits.vars),
        ("http_response", limits.http_response),
    ] {
        if size.is_some_and(|size| size.0 > MANIFEST_BYTES_MAX) {
            return too_much(key, format!("{} MiB", MANIFEST_BYTES_MAX >> 20));
        }
    }
    for (key, time) in [("deadline", limits.deadline), ("start_deadline", limits.start_deadline)] {
        if time.is_some_and(|time| time.duration() > MANIFEST_TIME_MAX) {
            return too_much(key, format!("{} s", MANIFEST_TIME_MAX.as_secs()));
        }
    }
    if limits.table_elements.is_some_and(|elements| elements > MANIFEST_COUNT_MAX) {
        return too_much("table_elements", MANIFEST_COUNT_MAX.to_string());
    }
    for (key, count, most) in
        [("instances", limits.instances, 1024), ("ready", limits.ready, 16), ("queue", limits.queue, 10_000)]
    {
        if count.is_some_and(|count| count > most) {
            return too_much(key, most.to_string());
        }
    }
    Ok(())
}

pub(super) fn resolve_limits(asked: &LimitsEntry, deadline: Duration) -> Result<Limits, String> {
    let defaults = Limits::default();
    let limits = Limits {
        memory_bytes_max: asked.memory.map_or(defaults.memory_bytes_max, |it| it.0),
        table_elements_max: asked.table_elements.unwrap_or(defaults.table_elements_max),
        output_bytes_max: asked.output.map_or(defaults.output_bytes_max, |it| it.0),
        deadline: Some(asked.deadline.map_or(deadline, Milliseconds::duration)),
        start_deadline: asked.start_deadline.map_or(defaults.start_deadline, Milliseconds::duration),
        instances_max: asked.instances.unwrap_or(defaults.instances_max),
        queue_max: asked.queue.unwrap_or(defaults.queue_max),
        fuel: asked.fuel,
        var_bytes_max: asked.vars.map_or(defaults.var_bytes_max, |it| it.0),
        http_response_bytes_max: asked.http_response.map_or(defaults.http_response_bytes_max, |it| it.0),
        ..defaults
    };
    let never = |key: &str| Err(format!("limits.{key}: it is 0, so the plugin could never answer"));
    if limits.instances_max == 0 {
        return never("instances");
    }
    if limits.fuel == Some(0) {
        return never("fuel");
    }
    if limits.deadline == Some(Duration::ZERO) {
        return never("deadline");
    }
    if limits.start_deadline == Duration::ZERO {
        return never("start_deadline");
    }
    Ok(limits)
}

pub(super) fn resolve_ready(asked: &LimitsEntry, mode: InstanceMode) -> u32 {
    asked.ready.unwrap_or(match mode {
        InstanceMode::Shared => 0,
        InstanceMode::Fresh | InstanceMode::Visit => READY,
    })
}

pub(super) fn resolve_health(over: HealthEntry, under: HealthEntry) -> Result<HealthPolicy, String> {
    let default = HealthPolicy::default();
    let policy = HealthPolicy {
        faults_max: over.faults.or(under.faults).unwrap_or(default.faults_max),
        backoff: over.backoff.or(under.backoff).map_or(default.backoff, Milliseconds::duration),
    };
    if policy.backoff.is_zero() {
        return Err(
            "health.backoff: it is 0, so a plugin that fails would be asked on and on; faults: 0 says so"
                .to_owned(),
        );
    }
    Ok(policy)
}

/// How often a plugin is asked at `plugin.tick`.
pub(super) fn resolve_tick(
    over: Option<Milliseconds>,
    under: Option<Milliseconds>,
) -> Result<Option<Duration>, String> {
    /// Less would keep a plugin busy with nothing else.
    const TICK_MIN: Duration = Duration::from_millis(10);
    let tick = over.or(under).map(Milliseconds::duration);
    match tick {
        Some(tick) if tick < TICK_MIN => Err(format!("tick: it is shorter than {} ms", TICK_MIN.as_millis())),
        _ => Ok(tick),
    }
}
