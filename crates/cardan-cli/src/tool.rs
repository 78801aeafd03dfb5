//! `cardan plugin call`: one tool of one plugin, as an agent would call it.

use std::path::Path;
use std::time::Instant;

use cardan::api::tool::{Tool, ToolAnswer, ToolCall, ToolCallEvent, ToolOutput};
use cardan::api::{Flow, Hook as _};
use cardan::{Circumstances, Held, Plugin, Question};
use cardan_manager::{PluginSpec, resolve_folder};
use serde_json::{Map, Value, json};

use crate::args::{self, Shared};
use crate::call::{explain, read_input};
use crate::callee::{self, Callee};
use crate::output::{self, Failure, Format};
use crate::serve;

pub(crate) fn run(shared: &Shared, args: &args::ToolCall) -> Result<(), Failure> {
    serve::log(shared, "warn")?;
    let began = Instant::now();
    let called = call(shared, args);
    if args.reach.output == Format::Text {
        return match called? {
            ToolAnswer::Done(ToolOutput::Json(output)) => print(&output),
            ToolAnswer::Done(ToolOutput::Text(output)) => print(output.as_bytes()),
            ToolAnswer::Failed(why) => Err(failed(args, &why)),
        };
    }
    let (outcome, output, error) = match called {
        Ok(ToolAnswer::Done(ToolOutput::Json(json))) => {
            (Ok(()), serde_json::from_slice(&json).map_err(Failure::failed)?, None)
        }
        Ok(ToolAnswer::Done(ToolOutput::Text(text))) => (Ok(()), Value::String(text), None),
        Ok(ToolAnswer::Failed(why)) => (Err(failed(args, &why)), Value::Null, Some(why)),
        Err(failure) => {
            let why = failure.to_string();
            (Err(failure), Value::Null, Some(why))
        }
    };
    output::json(&json!({
        "plugin": args.plugin,
        "tool": args.tool,
        "success": outcome.is_ok(),
        "output": output,
        "error": error,
        "duration_us": began.elapsed().as_micros(),
    }))?;
    outcome
}

fn print(output: &[u8]) -> Result<(), Failure> {
    output::raw(output)?;
    if output::is_terminal() && !output.ends_with(b"\n") { output::raw(b"\n") } else { Ok(()) }
}

fn failed(args: &args::ToolCall, why: &str) -> Failure {
    Failure::failed(format_args!("plugin {}: the tool {:?} could not do it: {why}", args.plugin, args.tool))
}

fn call(shared: &Shared, args: &args::ToolCall) -> Result<ToolAnswer, Failure> {
    let arguments = arguments(&args.arguments)?;
    let path = Path::new(&args.plugin);
    let callee = if path.exists() || args.plugin.contains(std::path::MAIN_SEPARATOR) {
        Callee::at(shared, &args.reach, path)?
    } else {
        Callee::of(shared, &args.reach, find(&args.dir, &args.plugin)?)?
    };
    let Callee { builder, source } = callee.with_state();
    let plugin = builder.load().map_err(|error| explain(&source, &error))?;
    callee::tell(&plugin);
    if !plugin.inspection().hooks.contains(&ToolCall::NAME) {
        return export(&plugin, &source, &args.tool, &arguments);
    }
    let tools = plugin.tools().map_err(|error| explain(&source, &error))?;
    check(&plugin, &tools, &args.tool)?;
    let event = ToolCallEvent { tool: args.tool.clone(), arguments: arguments.into() };
    let config = Value::Object(Map::new());
    let about = Circumstances::of_life(&config);
    let question = Question::<ToolCall> { event: &event, about, entry: None, deadline: None };
    let began = Instant::now();
    let verdict = block_on(plugin.ask(&mut Held::default(), question))?;
    callee::tell_call(&plugin, &args.tool, began.elapsed());
    match verdict.map_err(|error| explain(&source, &error))?.flow {
        Flow::Stop(answer) => Ok(answer),
        Flow::Continue => Err(unknown(&plugin, &tools, &args.tool)),
    }
}

/// Of a plugin that has no tools, a function.
fn export(plugin: &Plugin, source: &Path, name: &str, arguments: &[u8]) -> Result<ToolAnswer, Failure> {
    if !plugin.has_export(name) {
        let exports = plugin.inspection().exports.join(", ");
        let name = format!("{name:?}");
        return Err(Failure::failed(format_args!(
            "plugin {}: it has no tools, and no function {name}; its exports are {exports}",
            plugin.name()
        )));
    }
    let began = Instant::now();
    let output = plugin.call(name, arguments);
    callee::tell_call(plugin, name, began.elapsed());
    let output = output.map_err(|error| explain(source, &error))?;
    Ok(ToolAnswer::Done(match serde_json::from_slice::<serde::de::IgnoredAny>(&output) {
        Ok(_) => ToolOutput::Json(output.into()),
        Err(_) => ToolOutput::Text(String::from_utf8_lossy(&output).into_owned()),
    }))
}

fn block_on<T>(future: impl Future<Output = T>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    Ok(runtime.map_err(Failure::failed)?.block_on(future))
}

/// An object, as it was written.
fn arguments(text: &str) -> Result<Vec<u8>, Failure> {
    let text = read_input(text)?;
    let text = if text.trim_ascii().is_empty() { b"{}".to_vec() } else { text };
    let advice = "write an object in quotation marks of the shell, as '{\"text\": \"hello\"}'";
    match serde_json::from_slice::<Value>(&text) {
        Ok(Value::Object(_)) => Ok(text),
        Ok(_) => Err(Failure::unusable(format_args!("the arguments are JSON and no object; {advice}"))),
        Err(error) => Err(Failure::unusable(format_args!("the arguments are no JSON: {error}; {advice}"))),
    }
}

/// The plugin of this name in a folder of plugins.
fn find(dir: &Path, name: &str) -> Result<PluginSpec, Failure> {
    let found = resolve_folder(dir).map_err(|why| Failure::unusable(format_args!("--dir: {why}")))?;
    if let Some(spec) = found.plugins.iter().find(|spec| spec.name == name) {
        let about = found.warnings.into_iter().filter(|it| it.0.contains(name));
        callee::tell_of(&about.collect::<Vec<_>>());
        return Ok(spec.clone());
    }
    if let Some(broken) = found.broken.iter().find(|broken| broken.plugin == name) {
        return Err(Failure::unusable(format_args!("{}: {}", broken.path.display(), broken.problem)));
    }
    let names: Vec<&str> = found.plugins.iter().map(|spec| spec.name.as_str()).collect();
    let names = if names.is_empty() { "no plugin at all".to_owned() } else { names.join(", ") };
    Err(Failure::not_found(format_args!(
        "there is no file {name}, and no plugin of this name in {}, which holds {names}; --dir names another folder",
        dir.display()
    )))
}

/// Refuses tools that are not there.
pub(crate) fn check(plugin: &Plugin, tools: &[Tool], name: &str) -> Result<(), Failure> {
    if tools.iter().any(|tool| tool.name == name) { Ok(()) } else { Err(unknown(plugin, tools, name)) }
}

fn unknown(plugin: &Plugin, tools: &[Tool], name: &str) -> Failure {
    let names: Vec<&str> = tools.iter().map(|tool| tool.name.as_str()).collect();
    let names = if names.is_empty() { "none".to_owned() } else { output::one_line(&names.join(", ")) };
    Failure::failed(format_args!(
        "plugin {}: there is no tool {name:?}; its tools are: {names}",
        plugin.name()
    ))
}
