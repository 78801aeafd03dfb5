//! Changing something.

use std::fs;
use std::io::Read as _;
use std::path::Path;

use reqwest::Method;
use serde_json::{Value, json};

use super::args::{Canary, Form, Load, Plugin, Rollback, Try};
use super::remote::{Ask, Body, Remote};
use super::table::{cell, harmless, print, yaml};
use crate::output::Failure;

/// Most bytes of an event or of a module.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// Prints what came of it: a line for people.
fn done(form: Form, document: &Value, said: &str) -> Result<(), Failure> {
    print(
        form,
        document,
        |it| vec![cell(&it["name"])],
        |it| {
            let version =
                it["version"].as_u64().map(|number| format!(", version {number}")).unwrap_or_default();
            let unchanged = if it["changed"] == false { " (as it was)" } else { "" };
            harmless(&format!("{} {said}{version}{unchanged}", cell(&it["name"]))) + "\n"
        },
    )
}

async fn action(remote: &Remote, name: &str, action: &str, body: Body) -> Result<Value, Failure> {
    let target = format!("{name}:{action}");
    remote.ask(Ask::post(&["api", "v1", "plugins", &target], body)).await
}

pub(super) async fn plain(remote: &Remote, plugin: &Plugin, word: &str) -> Result<(), Failure> {
    let document = action(remote, &plugin.name, word, Body::None).await?;
    let said = match word {
        "reload" => "reloaded",
        "enable" => "enabled",
        "disable" => "disabled",
        "promote" => "promoted",
        "stop-canary" => "asked without a canary",
        _ if document["was_quarantined"] == true => "released",
        _ => "was not in quarantine",
    };
    done(remote.form, &document, said)
}

pub(super) async fn rollback(remote: &Remote, rollback: &Rollback) -> Result<(), Failure> {
    let body = Body::Json(json!({ "to": rollback.to }));
    done(remote.form, &action(remote, &rollback.name, "rollback", body).await?, "rolled back")
}

pub(super) async fn canary(remote: &Remote, canary: &Canary) -> Result<(), Failure> {
    let body = Body::Json(json!({
        "percent": canary.percent,
        "faults_percent": canary.faults_percent,
        "promote_after_s": canary.promote_after,
    }));
    let said = format!("has a canary for {}% of visits", canary.percent);
    done(remote.form, &action(remote, &canary.name, "canary", body).await?, &said)
}

pub(super) async fn remove(remote: &Remote, plugin: &Plugin) -> Result<(), Failure> {
    let path = ["api", "v1", "plugins", &plugin.name];
    let ask = Ask { method: Method::DELETE, ..Ask::get(&path) };
    done(remote.form, &remote.ask(ask).await?, "removed")
}

pub(super) async fn load(remote: &Remote, load: &Load) -> Result<(), Failure> {
    let file = |error| Failure::unusable(format_args!("{}: {error}", load.path.display()));
    let path = ["api", "v1", "plugins"];
    let ask = if load.upload {
        let stem = load.path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
        let name = load.name.clone().or(stem);
        let replace = load.replace.then(|| "true".to_owned());
        let body = Body::Module(read(&load.path)?);
        Ask::post(&path, body).with("name", name).with("replace", replace)
    } else {
        // The gateway is somewhere else in the file tree. What is not here may be there.
        let absolute = load.path.canonicalize().or_else(|_| std::path::absolute(&load.path)).map_err(file)?;
        let mut body = json!({ "path": absolute });
        if let Some(name) = &load.name {
            body["name"] = json!(name);
        }
        Ask::post(&path, Body::Json(body))
    };
    done(remote.form, &remote.ask(ask).await?, "loaded")
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let wrong = |why: &dyn std::fmt::Display| Failure::unusable(format_args!("{}: {why}", path.display()));
    let mut bytes = Vec::new();
    let mut take = |from: &mut dyn std::io::Read| from.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes);
    if path == Path::new("-") {
        take(&mut std::io::stdin().lock()).map_err(|error| wrong(&error))?;
    } else {
        take(&mut fs::File::open(path).map_err(|error| wrong(&error))?).map_err(|error| wrong(&error))?;
    }
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(wrong(&format_args!("it is larger than {} MiB", FILE_BYTES_MAX >> 20)));
    }
    Ok(bytes)
}

pub(super) async fn trial(remote: &Remote, trial: &Try) -> Result<(), Failure> {
    let mut body = json!({ "hook": trial.hook, "version": trial.version });
    if let Some(file) = &trial.event {
        let event: Value = serde_json::from_slice(&read(file)?)
            .map_err(|error| Failure::unusable(format_args!("--event {}: {error}", file.display())))?;
        body["event"] = event;
    }
    let document = action(remote, &trial.name, "try", Body::Json(body)).await?;
    print(
        remote.form,
        &document,
        |it| vec![cell(&it["plugin"])],
        |it| {
            let took = format!(
                "{} version {} at {}: {} us\n",
                cell(&it["plugin"]),
                it["version"],
                cell(&it["hook"]),
                it["duration_us"]
            );
            let said = if it["fault"].is_null() { yaml(&it["verdict"]) } else { String::new() };
            let trace = it["backtrace"].as_str().unwrap_or_default().lines();
            let trace: String = trace.map(|line| harmless(line) + "\n").collect();
            harmless(took.trim_end()) + "\n" + &said + &trace
        },
    )?;
    match document["fault"].as_str() {
        Some(fault) => Err(Failure::failed(format_args!("fault {fault}: {}", cell(&document["error"])))),
        None => Ok(()),
    }
}
