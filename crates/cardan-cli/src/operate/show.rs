//! Lists, one plugin, one request.

use serde_json::Value;

use super::args::{Describe, Get, Trace, What};
use super::remote::{Ask, Remote};
use super::table::{Table, cell, items, names, print, yaml};
use crate::output::Failure;

pub(super) async fn get(remote: &Remote, get: &Get) -> Result<(), Failure> {
    let limit = get.limit.map(|limit| limit.to_string());
    match (get.what, &get.name) {
        (What::Plugins, name) => {
            let ask = Ask::get(&["api", "v1", "plugins"]).with("name", name.clone());
            print(remote.form, &remote.ask(ask).await?, |it| names(it, "plugins", "name"), plugins)
        }
        (What::Versions, Some(name)) => {
            let document = remote.ask(Ask::get(&["api", "v1", "plugins", name, "versions"])).await?;
            print(remote.form, &document, |it| names(it, "versions", "number"), versions)
        }
        (What::Versions, None) => Err(Failure::unusable(
            "name the plugin: `cardan get versions NAME`; `cardan get plugins` lists them",
        )),
        (What::Chains, _) => {
            let document = remote.ask(Ask::get(&["api", "v1", "chains"])).await?;
            print(remote.form, &document, |it| names(it, "chains", "hook"), chains)
        }
        (What::Hooks, _) => {
            let document = remote.ask(Ask::get(&["api", "v1", "hooks"])).await?;
            print(remote.form, &document, |it| names(it, "hooks", "name"), hooks)
        }
        (What::Events, _) => {
            let document = remote.ask(Ask::get(&["api", "v1", "events"])).await?;
            print(remote.form, &document, |it| names(it, "events", "seq"), events)
        }
        (What::Visits, plugin) => {
            let ask = Ask::get(&["api", "v1", "visits"])
                .with("plugin", plugin.clone())
                .with("outcome", get.outcome.clone())
                .with("fault", get.fault.clone())
                .with("limit", limit);
            print(remote.form, &remote.ask(ask).await?, |it| names(it, "visits", "id"), visits)
        }
        (What::Config, _) => {
            let document = remote.ask(Ask::get(&["api", "v1", "config"])).await?;
            print(remote.form, &document, |it| vec![cell(&it["path"])], config)
        }
    }
}

fn plugins(document: &Value) -> String {
    let mut table = Table::new(&[
        "NAME", "STATE", "VERSION", "NO", "ABI", "HOOKS", "CALLS", "FAULTS", "MEAN", "OWNER", "NOTE",
    ]);
    for plugin in items(document, "plugins") {
        let active = &plugin["active"];
        table.row([
            cell(&plugin["name"]),
            cell(&plugin["state"]),
            cell(&plugin["version"]),
            cell(&active["number"]),
            cell(&active["abi"]),
            cell(&plugin["hooks"]),
            cell(&active["calls"]),
            cell(&active["faults"]),
            format!("{} us", cell(&active["mean_us"])),
            cell(&plugin["owner"]),
            note(plugin),
        ]);
    }
    table.text()
}

/// What somebody should look at.
fn note(plugin: &Value) -> String {
    let mut notes = Vec::new();
    if !plugin["canary"].is_null() {
        let canary = &plugin["canary"];
        let percent = canary["percent"].as_f64().unwrap_or(0.0);
        let how = if canary["stopped"] == true { "stopped".to_owned() } else { format!("{percent}%") };
        notes.push(format!("canary {} {how}", canary["version"]["number"]));
    }
    if let Some(until) = plugin["quarantined_until"].as_str() {
        notes.push(format!("until {until}"));
    }
    if let Some(trouble) = plugin["trouble"].as_str() {
        notes.push(trouble.lines().next().unwrap_or_default().to_owned());
    }
    if notes.is_empty() { "-".to_owned() } else { notes.join("; ") }
}

fn versions(document: &Value) -> String {
    let mut table = Table::new(&["NO", "VERSION", "STATUS", "DIGEST", "CALLS", "FAULTS", "LOADED"]);
    for version in items(document, "versions") {
        let number = &version["number"];
        let status = if *number == document["active"] {
            "active"
        } else if *number == document["canary"] {
            "canary"
        } else {
            "earlier"
        };
        let digest = cell(&version["digest"]);
        table.row([
            cell(number),
            cell(&version["version"]),
            status.to_owned(),
            digest.chars().take(12).collect(),
            cell(&version["calls"]),
            cell(&version["faults"]),
            cell(&version["loaded_at"]),
        ]);
    }
    table.text()
}

fn chains(document: &Value) -> String {
    let mut table = Table::new(&["HOOK", "PHASE", "PRIORITY", "PLUGIN", "ON FAULT", "BODY", "MATCH"]);
    for chain in items(document, "chains") {
        for binding in items(chain, "bindings") {
            let rule = ["methods", "hosts", "paths"].map(|key| cell(&binding[key])).join(" ");
            table.row([
                cell(&chain["hook"]),
                cell(&binding["phase"]),
                cell(&binding["priority"]),
                cell(&binding["plugin"]),
                cell(&binding["on_fault"]),
                cell(&binding["body"]),
                rule,
            ]);
        }
    }
    table.text()
}

fn hooks(document: &Value) -> String {
    let mut table = Table::new(&["NAME", "PHASES", "ON FAULT", "WHEN"]);
    for hook in items(document, "hooks") {
        table.row(["name", "phases", "on_fault", "when"].map(|key| cell(&hook[key])));
    }
    table.text()
}

fn events(document: &Value) -> String {
    items(document, "events").map(event).collect()
}

/// One event in a line.
pub(super) fn event(event: &Value) -> String {
    let known = ["seq", "at_ms", "plugin", "event"];
    let details = event.as_object().into_iter().flatten().filter(|(key, _)| !known.contains(&key.as_str()));
    let details: Vec<String> = details.map(|(key, value)| format!("{key}={}", cell(value))).collect();
    let line = format!(
        "{} {} {} {} {}",
        cell(&event["seq"]),
        moment(event["at_ms"].as_u64().unwrap_or(0)),
        cell(&event["plugin"]),
        cell(&event["event"]),
        details.join(" ")
    );
    format!("{}\n", super::table::harmless(line.trim_end()))
}

/// Time of day in UTC.
fn moment(ms: u64) -> String {
    let (seconds, ms) = (ms / 1000 % 86_400, ms % 1000);
    format!("{:02}:{:02}:{:02}.{ms:03}Z", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

fn visits(document: &Value) -> String {
    let mut table = Table::new(&["ID", "BEGAN", "US", "OUTCOME", "FAULT", "PLUGINS", "SUBJECT"]);
    for visit in items(document, "visits") {
        let asked: Vec<String> =
            items(visit, "decisions").map(|decision| cell(&decision["plugin"])).collect();
        let fault = items(visit, "decisions").find_map(|decision| decision["fault"].as_str());
        table.row([
            cell(&visit["id"]),
            cell(&visit["began_at"]),
            cell(&visit["duration_us"]),
            cell(&visit["outcome"]),
            fault.unwrap_or("-").to_owned(),
            asked.join(","),
            cell(&visit["subject"]),
        ]);
    }
    table.text()
}

fn config(document: &Value) -> String {
    match document["text"].as_str() {
        Some(text) => text.to_owned(),
        None => yaml(&document["document"]),
    }
}

pub(super) async fn describe(remote: &Remote, describe: &Describe) -> Result<(), Failure> {
    let name = &describe.name;
    let list = remote.ask(Ask::get(&["api", "v1", "plugins"]).with("name", Some(name.clone()))).await?;
    let plugin = items(&list, "plugins").next().cloned().unwrap_or_default();
    let metrics = remote.ask(Ask::get(&["api", "v1", "plugins", name, "metrics"])).await?;
    print(
        remote.form,
        &plugin,
        |it| vec![cell(&it["name"])],
        |plugin| {
            let mut text = String::new();
            let rows = [
                ("name", &plugin["name"]),
                ("description", &plugin["description"]),
                ("author", &plugin["author"]),
                ("license", &plugin["license"]),
                ("state", &plugin["state"]),
                ("trouble", &plugin["trouble"]),
                ("owner", &plugin["owner"]),
                ("source", &plugin["source"]),
                ("version", &plugin["version"]),
                ("number", &plugin["active"]["number"]),
                ("digest", &plugin["active"]["digest"]),
                ("abi", &plugin["active"]["abi"]),
                ("dialect", &plugin["active"]["dialect"]),
                ("instances", &plugin["active"]["mode"]),
                ("compiled", &plugin["active"]["tier"]),
                ("snapshot", &plugin["active"]["snapshot"]),
                ("no snapshot", &plugin["active"]["snapshot_refused"]),
                ("memory", &plugin["active"]["usage"]["memory_bytes_max_seen"]),
                ("earlier", &plugin["earlier"]),
                ("asks for", &plugin["requested"]),
                ("needs", &plugin["needed"]),
            ];
            for (key, value) in rows {
                text.push_str(&format!("{key:<13}{}\n", super::table::harmless(&cell(value))));
            }
            text.push('\n');
            let mut bound =
                Table::new(&["HOOK", "PHASE", "PRIORITY", "ON FAULT", "BODY", "DEADLINE", "PATHS"]);
            for it in items(plugin, "bindings") {
                let keys = ["hook", "phase", "priority", "on_fault", "body", "deadline_ms", "paths"];
                bound.row(keys.map(|key| cell(&it[key])));
            }
            text.push_str(&bound.text());
            text.push('\n');
            text.push_str(&counts(&metrics));
            text
        },
    )
}

fn counts(metrics: &Value) -> String {
    let mut table = Table::new(&[
        "VERSION", "HOOK", "CALLS", "STOPPED", "SKIPPED", "REFUSED", "P50 US", "P99 US", "FAULTS",
    ]);
    for version in items(metrics, "versions") {
        for hook in items(version, "hooks") {
            let faults = hook["faults"].as_object().into_iter().flatten();
            let faults: Vec<String> = faults.map(|(fault, count)| format!("{fault}={count}")).collect();
            let mut row = vec![cell(&version["version"])];
            let keys = ["hook", "calls", "stopped", "skipped", "refused", "p50_us", "p99_us"];
            row.extend(keys.map(|key| cell(&hook[key])));
            row.push(if faults.is_empty() { "-".to_owned() } else { faults.join(",") });
            table.row(row);
        }
    }
    table.text()
}

pub(super) async fn trace(remote: &Remote, trace: &Trace) -> Result<(), Failure> {
    let document = remote.ask(Ask::get(&["api", "v1", "visits", &trace.visit])).await?;
    print(remote.form, &document, |it| names(it, "decisions", "plugin"), timeline)
}

fn timeline(visit: &Value) -> String {
    let mut text = super::table::harmless(&format!(
        "{} {}, {} us, generation {}, {}",
        cell(&visit["id"]),
        cell(&visit["began_at"]),
        cell(&visit["duration_us"]),
        cell(&visit["generation"]),
        cell(&visit["subject"])
    ));
    text.push_str("\n\n");
    let mut table =
        Table::new(&["AT US", "TOOK US", "HOOK", "PLUGIN", "VERSION", "OUTCOME", "CHANGED", "ERROR"]);
    for decision in items(visit, "decisions") {
        let outcome = match decision["fault"].as_str() {
            Some(fault) => format!("{}: {fault}", cell(&decision["outcome"])),
            None => cell(&decision["outcome"]),
        };
        table.row([
            cell(&decision["since_us"]),
            cell(&decision["duration_us"]),
            cell(&decision["hook"]),
            cell(&decision["plugin"]),
            cell(&decision["version"]),
            outcome,
            cell(&decision["changed"]),
            cell(&decision["error"]),
        ]);
    }
    text.push_str(&table.text());
    if visit["decisions_not_kept"].as_u64().unwrap_or(0) > 0 {
        text.push_str(&format!("and {} more that are not kept\n", visit["decisions_not_kept"]));
    }
    text
}
