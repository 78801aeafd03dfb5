//! `cardan call`: one function of one plugin.

use std::io::Read as _;
use std::time::{Duration, Instant};

use cardan::{Error, ErrorKind, Limits, Plugin};
use serde_json::json;

use crate::args::{Call, Shared};
use crate::output::{self, Failure, Format};
use crate::serve;

pub(crate) fn run(shared: &Shared, args: &Call) -> Result<(), Failure> {
    serve::log(shared, "warn")?;
    let plugin = load(shared, args)?;
    if !plugin.has_export(&args.export) {
        let callable: Vec<&str> = plugin
            .inspection()
            .exports
            .iter()
            .map(String::as_str)
            .filter(|name| plugin.has_export(name))
            .collect();
        return Err(Failure::failed(format_args!(
            "plugin {} has no function {:?} that can be called; it has {}",
            plugin.name(),
            args.export,
            if callable.is_empty() { "none".to_owned() } else { callable.join(", ") }
        )));
    }
    let input = read_input(&args.input)?;
    let started = Instant::now();
    let mut result = Ok(Vec::new());
    for _ in 0..args.times.max(1) {
        result = plugin.call(&args.export, &input);
    }
    let duration = started.elapsed() / args.times.max(1);
    match (args.output, result) {
        (Format::Text, Ok(output)) => {
            output::raw(&output)?;
            // A shell prompt right behind the output helps nobody; a pipe gets the bytes alone.
            if output::is_terminal() && !output.ends_with(b"\n") { output::raw(b"\n") } else { Ok(()) }
        }
        (Format::Text, Err(error)) => Err(explain(&error)),
        (Format::Json, Ok(output)) => output::json(&json!({
            "plugin": &**plugin.name(),
            "export": args.export,
            "output": String::from_utf8_lossy(&output),
            "duration_us": duration.as_micros(),
        })),
        (Format::Json, Err(error)) => {
            let code = if let ErrorKind::Guest(code) = error.kind() { Some(code) } else { None };
            output::json(&json!({
                "plugin": &**plugin.name(),
                "export": args.export,
                "fault": error.fault().label(),
                "code": code,
                "error": error.message(),
            }))?;
            Err(explain(&error))
        }
    }
}

fn load(shared: &Shared, args: &Call) -> Result<Plugin, Failure> {
    let engine = serve::engine(shared)?;
    let limits = Limits { deadline: Some(Duration::from_millis(args.deadline_ms)), ..Limits::default() };
    let mut plugin = engine
        .plugin(args.plugin.as_path())
        .mode(args.instance)
        .limits(limits)
        .with_wasi(cardan::GuestOutput::Inherit);
    for pair in &args.config {
        let (key, value) = split(pair, "--config", "KEY=VALUE")?;
        plugin = plugin.config(key, value);
    }
    for host in &args.allow_host {
        plugin = plugin.allow_host(host);
    }
    for pair in &args.allow_path {
        let (host, guest) = split(pair, "--allow-path", "HOST=GUEST")?;
        plugin = plugin.allow_path(host, guest);
    }
    plugin.load().map_err(|error| explain(&error))
}

fn split<'a>(pair: &'a str, option: &str, form: &str) -> Result<(&'a str, &'a str), Failure> {
    pair.split_once('=').ok_or_else(|| Failure::unusable(format_args!("{option} {pair:?} is not {form}")))
}

fn read_input(input: &str) -> Result<Vec<u8>, Failure> {
    if input != "-" {
        return Ok(input.as_bytes().to_owned());
    }
    let mut bytes = Vec::new();
    match std::io::stdin().lock().read_to_end(&mut bytes) {
        Ok(_) => Ok(bytes),
        Err(error) => Err(Failure::failed(format_args!("cannot read standard input: {error}"))),
    }
}

/// The error, with what to do about it where that is not in its words.
pub(crate) fn explain(error: &Error) -> Failure {
    match error.kind() {
        ErrorKind::Source | ErrorKind::Format => Failure::unusable(error),
        _ => Failure::failed(error),
    }
}
