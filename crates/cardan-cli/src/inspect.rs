//! `cardan inspect`: what a plugin is.

use std::collections::BTreeSet;
use std::path::Path;

use cardan::api::tool::Tool;
use cardan::{Abi, Inspection, Plugin};
use cardan_manager::{Bindings, Owner, PluginSpec, document, resolve_path};
use serde_json::{Value, json};

use crate::args::{Inspect, Shared};
use crate::call::explain;
use crate::callee::{Resolved, described};
use crate::config::{Capabilities, EngineBounds};
use crate::output::{self, Failure, Format};
use crate::serve;

pub(crate) fn run(shared: &Shared, args: &Inspect) -> Result<(), Failure> {
    serve::log(shared, "warn")?;
    let engine = serve::engine(shared, EngineBounds::default(), Capabilities::passing()?.services)?;
    let resolved = resolve_path(&args.plugin, Owner::Operator);
    // What cannot be resolved may still be a module worth a look.
    let source = match &resolved {
        Ok((spec, _)) => spec.source.clone(),
        Err(_) => args.plugin.clone(),
    };
    let builder = || match &resolved {
        // What it is set up with is the affair of whoever runs it.
        Ok((spec, _)) => described(&engine, &PluginSpec { config: json!({}), ..spec.clone() }),
        Err(_) => Ok(engine.plugin(source.as_path())),
    };
    let found = match builder()?.inspect() {
        Ok(found) => found,
        Err(error) => {
            if args.output == Format::Json {
                output::json(&json!({ "plugin": args.plugin, "error": error.message() }))?;
            }
            return Err(match &resolved {
                Err(resolved) if !locates_nothing(&args.plugin) => Failure::unusable(resolved),
                _ => explain(&source, &error),
            });
        }
    };
    // Whether it also links and starts here is worth knowing, and no reason not to print the rest.
    let loads = builder()?.load();
    let tools = loads.as_ref().ok().map(Plugin::tools);
    match args.output {
        Format::Json => {
            let mut document = serde_json::to_value(&found).map_err(Failure::failed)?;
            document["loads"] = json!(loads.is_ok());
            document["snapshot"] =
                json!(loads.as_ref().ok().map(|plugin| plugin.snapshot_state().to_string()));
            document["load_error"] = json!(loads.as_ref().err().map(ToString::to_string));
            if let Some(tools) = &tools {
                document["tools"] = json!(tools.as_ref().ok());
                document["tools_error"] = json!(tools.as_ref().err().map(ToString::to_string));
            }
            document["manifest"] = manifest_json(&resolved);
            output::json(&document)
        }
        Format::Text => {
            let mut text = text(&found, &loads);
            text.extend(worlds_text(&found));
            text.extend(tools.as_ref().and_then(tools_text));
            text.extend(manifest_text(&resolved));
            output::raw(text.as_bytes())
        }
    }
}

/// Whether a path is nothing that could have a manifest.
fn locates_nothing(path: &Path) -> bool {
    path.is_file()
        && !path.extension().is_some_and(|ending| document::Format::ENDINGS.iter().any(|it| ending == *it))
}

/// `null` for a plugin without a manifest.
fn manifest_json(resolved: &Resolved) -> Value {
    match resolved {
        Err(error) => json!({ "problems": error.problems }),
        Ok((spec, _)) if spec.manifest.is_none() => Value::Null,
        Ok((spec, warnings)) => json!({
            "path": spec.manifest,
            "name": spec.name,
            "version": spec.version,
            "about": spec.about,
            "config_schema": spec.config_schema,
            "asked_at": asked_at(spec),
            "asked_elsewhere": spec.elsewhere,
            "warnings": warnings.iter().map(|warning| &warning.0).collect::<Vec<_>>(),
        }),
    }
}

/// The hooks that a manifest names; `null` where exports decide.
fn asked_at(spec: &PluginSpec) -> Option<Vec<&'static str>> {
    match &spec.bindings {
        Bindings::Exported => None,
        Bindings::Listed(bindings) => Some(bindings.iter().map(|binding| binding.hook.name).collect()),
    }
}

fn manifest_text(resolved: &Resolved) -> Vec<String> {
    let row = |name: &str, value: &str| format!("{name:<10}{}\n", output::one_line(value));
    let (spec, warnings) = match resolved {
        Err(error) => {
            return error
                .problems
                .iter()
                .map(|problem| row("manifest", &format!("broken: {problem}")))
                .collect();
        }
        Ok((spec, warnings)) => (spec, warnings),
    };
    let Some(manifest) = &spec.manifest else { return Vec::new() };
    let mut rows = vec![row("manifest", &manifest.display().to_string())];
    rows.push(row("name", &format!("{} {}", spec.name, spec.version)));
    rows.extend(spec.about.description.as_ref().map(|about| row("about", about)));
    let hooks = asked_at(spec).map(|hooks| hooks.join(", "));
    rows.extend(hooks.filter(|hooks| !hooks.is_empty()).map(|hooks| row("asked at", &hooks)));
    if !spec.about.permissions.is_empty() {
        rows.push(row("wants", &spec.about.permissions.join(", ")));
    }
    rows.extend(warnings.iter().map(|warning| row("warning", &warning.0)));
    rows
}

/// Of a component: packages of what it exports.
fn worlds_text(found: &Inspection) -> Option<String> {
    if found.abi != Abi::Component {
        return None;
    }
    let package = |export: &String| {
        let (package, interface) = export.split_once('/')?;
        let version = interface.split_once('@').map(|(_, version)| format!("@{version}"));
        Some(format!("{package}{}", version.unwrap_or_default()))
    };
    let worlds: BTreeSet<String> = found.exports.iter().filter_map(package).collect();
    let worlds: Vec<&str> = worlds.iter().map(String::as_str).collect();
    Some(format!("{:<10}{}\n", "worlds", output::one_line(&worlds.join(", ")))).filter(|_| !worlds.is_empty())
}

fn tools_text(tools: &Result<Vec<Tool>, cardan::Error>) -> Option<String> {
    let told = match tools {
        Ok(tools) if tools.is_empty() => return None,
        Ok(tools) => tools.iter().map(|tool| tool.name.as_str()).collect::<Vec<_>>().join(", "),
        Err(error) => format!("it has no list of them: {error}"),
    };
    Some(format!("{:<10}{}\n", "tools", output::one_line(&told)))
}

fn text(found: &Inspection, loads: &Result<Plugin, cardan::Error>) -> String {
    let list = |items: &[String]| if items.is_empty() { "-".to_owned() } else { items.join(", ") };
    let memories: Vec<String> = found
        .memories
        .iter()
        .map(|(first, most)| match most {
            Some(most) => format!("{first} to {most} bytes"),
            None => format!("{first} bytes, no maximum"),
        })
        .collect();
    let hooks: Vec<String> = found.hooks.iter().map(ToString::to_string).collect();
    let capabilities: Vec<String> = found.capabilities.iter().map(ToString::to_string).collect();
    let imports: Vec<String> =
        found.imports.iter().map(|import| format!("{}::{}", import.module, import.name)).collect();
    let rows = [
        ("abi", found.abi.to_string()),
        ("dialect", found.dialect.map_or_else(|| "-".to_owned(), |dialect| dialect.to_string())),
        ("hooks", list(&hooks)),
        ("exports", list(&found.exports)),
        ("imports", list(&imports)),
        ("memory", list(&memories)),
        ("asks for", list(&capabilities)),
        ("sha256", found.digest.clone()),
        ("size", format!("{} bytes in {} module(s)", found.size_bytes, found.modules)),
        (
            "snapshot",
            loads.as_ref().map_or_else(|_| "-".to_owned(), |plugin| plugin.snapshot_state().to_string()),
        ),
        (
            "loads",
            match loads {
                Ok(_) => "yes".to_owned(),
                Err(error) => format!("no: {}", error),
            },
        ),
    ];
    rows.iter().map(|(name, value)| format!("{name:<10}{}\n", output::one_line(value))).collect()
}
