//! Who is asked how often, now.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use super::args::{Form, Top};
use super::remote::{Ask, Remote};
use super::table::{Table, cell, items, say};
use crate::output::{self, Failure};

/// Puts the cursor into the corner and takes away what was there.
const CLEAR: &str = "\u{1b}[H\u{1b}[2J";

pub(super) async fn top(remote: &Remote, top: &Top) -> Result<(), Failure> {
    let screen = output::is_terminal() && remote.form == Form::Table;
    let times = top.times.unwrap_or(if screen { u64::MAX } else { 1 });
    let mut before: Option<(Instant, BTreeMap<String, f64>)> = None;
    for round in 0..times {
        if round > 0 {
            tokio::time::sleep(Duration::from_secs(top.interval)).await;
        }
        let document = remote.ask(Ask::get(&["api", "v1", "plugins", "stats"])).await?;
        let list = remote.ask(Ask::get(&["api", "v1", "plugins"])).await?;
        let now = Instant::now();
        let rates = before.as_ref().map(|(at, calls)| (now.duration_since(*at).as_secs_f64(), calls));
        let text = match remote.form {
            Form::Table => table(&list, &document, rates),
            Form::Name => super::table::names(&list, "plugins", "name").join("\n") + "\n",
            Form::Json | Form::Yaml => format!("{document}\n"),
        };
        let clear = if screen { CLEAR } else { "" };
        if say(&format!("{clear}{text}"))? == ControlFlow::Break(()) {
            return Ok(());
        }
        before = Some((now, calls(&document)));
    }
    Ok(())
}

fn calls(stats: &Value) -> BTreeMap<String, f64> {
    let stats = stats.as_object().into_iter().flatten();
    stats.map(|(name, it)| (name.clone(), it["invocations"].as_f64().unwrap_or(0.0))).collect()
}

/// The busiest first.
fn table(list: &Value, stats: &Value, rates: Option<(f64, &BTreeMap<String, f64>)>) -> String {
    let heading = [
        "NAME",
        "STATE",
        "CALLS/S",
        "CALLS",
        "FAULTS",
        "BLOCKS",
        "AVG MS",
        "P50 MS",
        "P99 MS",
        "INSTANCES",
        "WAITING",
        "MEMORY",
    ];
    let mut table = Table::new(&heading);
    let mut rows: Vec<(f64, Vec<String>)> = Vec::new();
    for plugin in items(list, "plugins") {
        let name = cell(&plugin["name"]);
        let it = &stats[name.as_str()];
        let calls = it["invocations"].as_f64().unwrap_or(0.0);
        let rate = rates.map(|(seconds, before)| {
            // Another version counts from the beginning.
            (calls - before.get(&name).copied().unwrap_or(calls)).max(0.0) / seconds.max(0.001)
        });
        let usage = &plugin["active"]["usage"];
        let mib = usage["memory_bytes_max_seen"].as_f64().unwrap_or(0.0) / f64::from(1 << 20);
        let row = vec![
            name,
            cell(&plugin["state"]),
            rate.map_or_else(|| "-".to_owned(), |rate| format!("{rate:.1}")),
            cell(&it["invocations"]),
            cell(&it["errors"]),
            cell(&it["blocks"]),
            cell(&it["avg_latency_ms"]),
            cell(&it["latency_percentiles"]["p50"]),
            cell(&it["latency_percentiles"]["p99"]),
            cell(&usage["instances"]),
            cell(&usage["waiting"]),
            format!("{mib:.1} MiB"),
        ];
        rows.push((rate.unwrap_or(calls), row));
    }
    rows.sort_by(|(one, _), (other, _)| other.total_cmp(one));
    rows.into_iter().for_each(|(_, row)| table.row(row));
    table.text()
}
