//! `cardan call`: one function of one plugin.

use std::io::Read as _;
use std::path::Path;
use std::time::{Duration, Instant};

use cardan::{Error, ErrorKind, Fault, Limits, Plugin, PluginBuilder};
use serde_json::json;

use crate::args::{Call, Shared};
use crate::output::{self, Failure, Format};
use crate::serve;

pub(crate) fn run(shared: &Shared, args: &Call) -> Result<(), Failure> {
    serve::log(shared, "warn")?;
    match (args.output, call(shared, args)) {
        (Format::Text, Ok(called)) => {
            output::raw(&called.output)?;
            // A shell prompt right behind the output helps nobody; a pipe gets the bytes alone.
            let bare = output::is_terminal() && !called.output.ends_with(b"\n");
            if bare { output::raw(b"\n") } else { Ok(()) }
        }
        (Format::Text, Err(missed)) => Err(missed.failure),
        (Format::Json, Ok(called)) => output::json(&json!({
            "plugin": args.plugin,
            "export": args.export,
            "output": String::from_utf8_lossy(&called.output),
            "duration_us": called.duration.as_micros(),
        })),
        (Format::Json, Err(missed)) => {
            output::json(&json!({
                "plugin": args.plugin,
                "export": args.export,
                "fault": missed.fault,
                "code": missed.code,
                "error": missed.error,
            }))?;
            Err(missed.failure)
        }
    }
}

struct Called {
    output: Vec<u8>,
    /// Of one call.
    duration: Duration,
}

/// Why there is no output.
struct Missed {
    failure: Failure,
    /// What the plugin did wrong, if it was the plugin.
    fault: Option<&'static str>,
    /// What it returned, if it reported an error itself.
    code: Option<i32>,
    /// The whole message, with the guest's call stack where there is one.
    error: String,
}

impl From<Failure> for Missed {
    fn from(failure: Failure) -> Self {
        Self { fault: None, code: None, error: failure.to_string(), failure }
    }
}

impl Missed {
    fn of(plugin: &Path, error: &Error) -> Self {
        let (fault, code) = match error.kind() {
            ErrorKind::Guest(code) => (Some(error.fault()), Some(code)),
            ErrorKind::Start(fault) | ErrorKind::Call(fault) => (Some(fault), None),
            _ => (None, None),
        };
        Self {
            failure: explain(plugin, error),
            fault: fault.map(Fault::label),
            code,
            error: error.message().to_owned(),
        }
    }
}

fn call(shared: &Shared, args: &Call) -> Result<Called, Missed> {
    let plugin = prepare(shared, args)?.load().map_err(|error| Missed::of(&args.plugin, &error))?;
    if !plugin.has_export(&args.export) {
        return Err(not_callable(&plugin, &args.export).into());
    }
    let input = read_input(&args.input)?;
    let started = Instant::now();
    let mut result = Ok(Vec::new());
    for _ in 0..args.times {
        result = plugin.call(&args.export, &input);
    }
    let duration = started.elapsed() / args.times;
    let output = result.map_err(|error| Missed::of(&args.plugin, &error))?;
    Ok(Called { output, duration })
}

fn not_callable(plugin: &Plugin, export: &str) -> Failure {
    let exports = &plugin.inspection().exports;
    let callable: Vec<&str> =
        exports.iter().map(String::as_str).filter(|name| plugin.has_export(name)).collect();
    let callable = if callable.is_empty() { "none".to_owned() } else { callable.join(", ") };
    let why = if exports.iter().any(|name| name == export) {
        "cannot be called: it must take nothing and return nothing or one i32"
    } else {
        "is missing"
    };
    Failure::failed(format_args!(
        "plugin {}: the function {export:?} {why}; those that can be called: {callable}",
        plugin.name()
    ))
}

fn prepare(shared: &Shared, args: &Call) -> Result<PluginBuilder, Failure> {
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
    Ok(plugin)
}

fn split<'a>(pair: &'a str, option: &str, form: &str) -> Result<(&'a str, &'a str), Failure> {
    pair.split_once('=').ok_or_else(|| Failure::unusable(format_args!("{option} {pair:?} is not {form}")))
}

fn read_input(input: &str) -> Result<Vec<u8>, Failure> {
    if input != "-" {
        return Ok(input.as_bytes().to_owned());
    }
    // A plugin is given its input in its memory, so more than this would not reach it.
    let bytes_max = Limits::default().memory_bytes_max;
    let mut bytes = Vec::new();
    match std::io::stdin().lock().take(bytes_max + 1).read_to_end(&mut bytes) {
        Ok(_) if bytes.len() as u64 > bytes_max => Err(Failure::unusable(format_args!(
            "standard input is more than {} MiB, which is all the memory that the plugin has",
            bytes_max >> 20
        ))),
        Ok(_) => Ok(bytes),
        Err(error) => Err(Failure::failed(format_args!("cannot read standard input: {error}"))),
    }
}

/// What a file begins with, as much of it as tells what it is.
fn beginning(file: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    let read = std::fs::File::open(file).and_then(|file| file.take(8).read_to_end(&mut bytes));
    // Only advice is lost with it.
    read.map_or_else(|_| Vec::new(), |_| bytes)
}

/// The error, with what to do about it where that is not in its words.
pub(crate) fn explain(plugin: &Path, error: &Error) -> Failure {
    let message = format!("{}{}", output::brief(&error.to_string()), advice(plugin, error));
    match error.kind() {
        ErrorKind::Source | ErrorKind::Format => Failure::unusable(message),
        _ => Failure::failed(message),
    }
}

fn advice(plugin: &Path, error: &Error) -> String {
    let file = plugin.display();
    match error.kind() {
        ErrorKind::Format => {
            match beginning(plugin).as_slice() {
                [] => format!("; {file} is empty"),
                // The layer, in the upper half of the version, is 1.
                [0, b'a', b's', b'm', _, _, 1, 0, ..] => {
                    format!("; {file} was built as a component, and has to be built as a module")
                }
                [0, b'a', b's', b'm', ..] => format!("; {file} is damaged, or was not copied whole"),
                // The text form: the message says where.
                [b'(' | b';', ..] => String::new(),
                _ => format!(
                    "; {file} should be a WebAssembly module, its text form, or an Extism manifest in JSON \
                     or TOML"
                ),
            }
        }
        ErrorKind::Call(Fault::Deadline) => "; --deadline-ms allows it more time".to_owned(),
        ErrorKind::Call(Fault::Memory) | ErrorKind::Start(Fault::Memory) => {
            format!("; it wanted more than {} MiB of memory", Limits::default().memory_bytes_max >> 20)
        }
        ErrorKind::Guest(code) if !error.message().contains(&code.to_string()) => {
            format!(" (it returned {code})")
        }
        _ => String::new(),
    }
}
