//! `cardan inspect`: what a plugin is.

use cardan::{Inspection, Plugin};
use serde_json::json;

use crate::args::{Inspect, Shared};
use crate::call::explain;
use crate::config::EngineBounds;
use crate::output::{self, Failure, Format};
use crate::serve;

pub(crate) fn run(shared: &Shared, args: &Inspect) -> Result<(), Failure> {
    serve::log(shared, "warn")?;
    let engine = serve::engine(shared, EngineBounds::default())?;
    let found = match engine.plugin(args.plugin.as_path()).inspect() {
        Ok(found) => found,
        Err(error) => {
            if args.output == Format::Json {
                output::json(&json!({ "plugin": args.plugin, "error": error.message() }))?;
            }
            return Err(explain(&args.plugin, &error));
        }
    };
    // Whether it also links and starts here is worth knowing, and no reason not to print the rest.
    let loads = engine.load(args.plugin.as_path());
    match args.output {
        Format::Json => {
            let mut document = serde_json::to_value(&found).map_err(Failure::failed)?;
            document["loads"] = json!(loads.is_ok());
            document["load_error"] = json!(loads.as_ref().err().map(ToString::to_string));
            output::json(&document)
        }
        Format::Text => output::raw(text(&found, &loads).as_bytes()),
    }
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
            "loads",
            match loads {
                Ok(_) => "yes".to_owned(),
                Err(error) => format!("no: {}", error),
            },
        ),
    ];
    rows.iter().map(|(name, value)| format!("{name:<10}{value}\n")).collect()
}
