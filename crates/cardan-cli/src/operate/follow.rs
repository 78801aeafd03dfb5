//! What has no end: logs and events.

use std::ops::ControlFlow;

use serde_json::Value;

use super::args::{Events, Form, Logs};
use super::remote::{Ask, Remote};
use super::show;
use super::table::{cell, harmless, items, print, say};
use crate::output::Failure;

/// Most bytes of one line of a stream.
const LINE_BYTES_MAX: usize = 4 << 20;

pub(super) async fn logs(remote: &Remote, logs: &Logs) -> Result<(), Failure> {
    let one = logs.name.as_deref().unwrap_or_default();
    let (all, of_one) = (["api", "v1", "logs"], ["api", "v1", "plugins", one, "logs"]);
    let path: &[&str] = if logs.name.is_some() { &of_one } else { &all };
    let ask = Ask::get(path).with("limit", Some(logs.tail.to_string())).with("level", logs.level.clone());
    if logs.follow {
        return follow(remote, ask, line).await;
    }
    let document = remote.ask(ask).await?;
    print(
        remote.form,
        &document,
        |it| super::table::names(it, "lines", "text"),
        |document| items(document, "lines").map(line).collect(),
    )
}

fn line(line: &Value) -> String {
    let level = cell(&line["level"]).to_ascii_uppercase();
    let text = line["text"].as_str().unwrap_or_default();
    let line = format!("{} {level:<5} {}: {text}", cell(&line["at"]), cell(&line["plugin"]));
    harmless(&line) + "\n"
}

pub(super) async fn events(remote: &Remote, events: &Events) -> Result<(), Failure> {
    let path = ["api", "v1", "events"];
    let ask = Ask::get(&path).with("since", Some(events.since.to_string()));
    if events.follow {
        return follow(remote, ask, show::event).await;
    }
    let document = remote.ask(ask).await?;
    print(
        remote.form,
        &document,
        |it| super::table::names(it, "events", "seq"),
        |document| items(document, "events").map(show::event).collect(),
    )
}

/// Prints the documents of a stream of events, until it ends or nobody reads.
async fn follow(remote: &Remote, ask: Ask<'_>, text: impl Fn(&Value) -> String) -> Result<(), Failure> {
    let mut response = remote.send(ask.with("follow", Some("true".to_owned())), None).await?;
    let mut buffer = Vec::new();
    loop {
        let chunk = response.chunk().await.map_err(|error| remote.unreachable(&error))?;
        let Some(chunk) = chunk else {
            return Err(Failure::unreachable(format_args!("{} has stopped", remote.url())));
        };
        buffer.extend_from_slice(&chunk);
        while let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = buffer.drain(..=end).collect();
            let Some(data) = line.strip_prefix(b"data:") else { continue };
            let Ok(document) = serde_json::from_slice::<Value>(data) else { continue };
            let text = match remote.form {
                Form::Table | Form::Name => text(&document),
                // One document in each line, which is YAML too.
                Form::Json | Form::Yaml => format!("{document}\n"),
            };
            if say(&text)? == ControlFlow::Break(()) {
                return Ok(());
            }
        }
        if buffer.len() > LINE_BYTES_MAX {
            return Err(Failure::failed(format_args!("{} sends a line without end", remote.url())));
        }
    }
}
