//! `cardan call`: one function of one plugin.

use std::io::Read as _;
use std::path::Path;
use std::time::{Duration, Instant};

use cardan::{Abi, Error, ErrorKind, Fault, Limits, Plugin};
use serde_json::{Value, json};

use crate::args::{Call, Shared};
use crate::callee::{self, Callee};
use crate::output::{self, Failure, Format};
use crate::{serve, tool};

pub(crate) fn run(shared: &Shared, args: &Call) -> Result<(), Failure> {
    serve::log(shared, "warn")?;
    let mut timed = Timed::default();
    let called = call(shared, args, &mut timed);
    if args.reach.output == Format::Text && args.times > 1 && timed.count() > 0 {
        output::aside(timed.text());
    }
    match (args.reach.output, called) {
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
            "duration_us": timed.mean().as_micros(),
            "calls": timed.document(),
        })),
        (Format::Json, Err(missed)) => {
            output::json(&json!({
                "plugin": args.plugin,
                "export": args.export,
                "fault": missed.fault,
                "code": missed.code,
                "error": missed.error,
                "calls": timed.document(),
            }))?;
            Err(missed.failure)
        }
    }
}

struct Called {
    /// Of the last call.
    output: Vec<u8>,
}

/// How long calls took, and how many failed.
#[derive(Default)]
struct Timed {
    durations: Vec<Duration>,
    failures: usize,
}

impl Timed {
    fn count(&self) -> usize {
        self.durations.len()
    }

    fn mean(&self) -> Duration {
        let sum: Duration = self.durations.iter().sum();
        sum / u32::try_from(self.count()).unwrap_or(u32::MAX).max(1)
    }

    /// The time that so many of a hundred calls stayed within, in nanoseconds; 0 without calls.
    fn percentile_ns(&mut self, percent: usize) -> u128 {
        self.durations.sort_unstable();
        let rank = (self.count() * percent).div_ceil(100).saturating_sub(1);
        self.durations.get(rank).map_or(0, Duration::as_nanos)
    }

    fn document(&mut self) -> Value {
        let (p50, p99) = (self.percentile_ns(50), self.percentile_ns(99));
        json!({ "count": self.count(), "failures": self.failures, "p50_ns": p50, "p99_ns": p99 })
    }

    fn text(&mut self) -> String {
        let (p50, p99) = (self.percentile_ns(50), self.percentile_ns(99));
        format!("{} calls, {} failed, p50 {p50} ns, p99 {p99} ns", self.count(), self.failures)
    }
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

/// Calls as often as is asked for. One failure makes the whole a failure, and the first is the one that is
/// told about.
fn call(shared: &Shared, args: &Call, timed: &mut Timed) -> Result<Called, Missed> {
    let Callee { builder, source } = Callee::at(shared, &args.reach, &args.plugin)?;
    let plugin = builder.mode(args.instance).load().map_err(|error| Missed::of(&source, &error))?;
    callee::tell(&plugin);
    if !plugin.can_call(&args.export) {
        return Err(not_callable(&plugin, &args.export).into());
    }
    if !plugin.has_export(&args.export) {
        let tools = plugin.tools().map_err(|error| Missed::of(&source, &error))?;
        tool::check(&plugin, &tools, &args.export)?;
    }
    let input = read_input(&args.input)?;
    let mut outcome = Ok(Called { output: Vec::new() });
    for _ in 0..args.times {
        let started = Instant::now();
        let result = plugin.call(&args.export, &input);
        timed.durations.push(started.elapsed());
        callee::tell_call(&plugin, &args.export, started.elapsed());
        timed.failures += usize::from(result.is_err());
        if let Ok(called) = &mut outcome {
            match result {
                Ok(output) => called.output = output,
                Err(error) => outcome = Err(Missed::of(&source, &error)),
            }
        }
    }
    outcome
}

fn not_callable(plugin: &Plugin, export: &str) -> Failure {
    if plugin.inspection().abi == Abi::Component {
        return Failure::failed(format_args!(
            "plugin {}: it is a component, whose functions do not take bytes; `cardan plugin call` calls its tools, and a \
             gateway asks it at {}",
            plugin.name(),
            plugin.inspection().hooks.join(", ")
        ));
    }
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

pub(crate) fn read_input(input: &str) -> Result<Vec<u8>, Failure> {
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
    let message = format!("{error}{}{}", advice(plugin, error), stopped_at(error));
    match error.kind() {
        ErrorKind::Source | ErrorKind::Format => Failure::unusable(message),
        _ => Failure::failed(message),
    }
}

/// Where the guest was.
fn stopped_at(error: &Error) -> String {
    let Some(backtrace) = error.backtrace() else { return String::new() };
    // A module without names has only numbers for its functions.
    let hint = match backtrace.contains("<wasm function ") {
        true => "\n(functions have names where the plugin is built without stripping them)",
        false => "",
    };
    format!("\nwhere the guest was, innermost first:\n{backtrace}{hint}")
}

fn advice(plugin: &Path, error: &Error) -> String {
    let file = plugin.display();
    match error.kind() {
        ErrorKind::Format => {
            match beginning(plugin).as_slice() {
                [] => format!("; {file} is empty"),
                // A component, as the layer in the upper half of the version says: the message says what it lacks.
                [0, b'a', b's', b'm', _, _, 1, 0, ..] => String::new(),
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
