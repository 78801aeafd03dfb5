//! `cardan validate`: everything `serve` would do but serving.

use cardan_gateway::Gateway;
use cardan_manager::Manager;
use serde_json::json;

use crate::advice;
use crate::args::{Shared, Validate};
use crate::config::{self, environment};
use crate::output::{self, Failure, Format};
use crate::serve;

pub(crate) fn run(shared: &Shared, args: &Validate) -> Result<(), Failure> {
    serve::log(shared, "warn")?;
    let outcome = check(shared, args);
    if args.output == Format::Json {
        output::json(&match &outcome {
            Ok((plugins, warnings)) => json!({ "valid": true, "plugins": plugins, "warnings": warnings }),
            Err(failure) => json!({ "valid": false, "error": failure.to_string() }),
        })?;
        return outcome.map(|_| ());
    }
    let (plugins, warnings) = outcome?;
    for warning in warnings {
        output::aside(format_args!("warning: {warning}"));
    }
    output::line(format_args!("{} is valid: {} plugin(s) load", args.config.display(), plugins.len()))
}

fn check(shared: &Shared, args: &Validate) -> Result<(Vec<String>, Vec<String>), Failure> {
    let resolved = config::read(&args.config, &environment)?;
    let manager = Manager::new(serve::engine(shared, resolved.engine)?, 0);
    let applied = serve::apply(&manager, &resolved.plugins, Vec::new())?;
    let mut warnings = resolved.warnings;
    warnings.extend(advice::about(&resolved.plugins, &resolved.entries, &manager.snapshot()));
    Gateway::new(resolved.gateway, manager).map_err(|error| {
        Failure::unusable(format_args!("{}: {}", args.config.display(), error.named(config::key_of)))
    })?;
    Ok((applied.loaded, warnings))
}
