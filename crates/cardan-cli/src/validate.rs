//! `cardan validate`: everything `serve` would do but serving, and the same for manifests.

use std::path::Path;

use cardan_api::manifest::smg::DeployRequest;
use cardan_gateway::Gateway;
use cardan_manager::document::{self, Format, Kind};
use cardan_manager::{Bindings, Manager, Owner, PluginSpec, resolve_path, resolve_smg};
use serde_json::json;

use crate::advice;
use crate::args::{Shared, Validate};
use crate::config::{self, Capabilities, EngineBounds, environment};
use crate::output::{self, Failure, Format as Output};
use crate::serve;

/// What was found to be right.
#[derive(Debug)]
struct Valid {
    /// Unless it is a configuration of Cardan.
    kind: Option<Kind>,
    /// The plugins that load, by name.
    plugins: Vec<String>,
    warnings: Vec<String>,
}

pub(crate) fn run(shared: &Shared, args: &Validate) -> Result<(), Failure> {
    serve::log(shared, "warn")?;
    let outcome = check(shared, &args.config);
    if args.output == Output::Json {
        output::json(&match &outcome {
            Ok(Valid { kind, plugins, warnings }) => {
                let kind = kind.unwrap_or(Kind::Config).name();
                json!({ "valid": true, "kind": kind, "plugins": plugins, "warnings": warnings })
            }
            Err(failure) => json!({ "valid": false, "error": failure.to_string() }),
        })?;
        return outcome.map(|_| ());
    }
    let Valid { kind, plugins, warnings } = outcome?;
    for warning in warnings {
        output::aside(format_args!("warning: {warning}"));
    }
    let path = args.config.display();
    match kind {
        None => output::line(format_args!("{path} is valid: {} plugin(s) load", plugins.len())),
        Some(kind) => output::line(format_args!("{path} is valid: {kind}; {} plugin(s) load", plugins.len())),
    }
}

fn check(shared: &Shared, path: &Path) -> Result<Valid, Failure> {
    match kind_of(path) {
        Some(kind @ (Kind::Plugin | Kind::HeliosPlugin | Kind::Cortex | Kind::Extism)) => {
            let (spec, warnings) = resolve_path(path, Owner::Operator)
                .map_err(|error| Failure::unusable(format_args!("{}: {error}", path.display())))?;
            let warnings = warnings.into_iter().map(|warning| warning.0).collect();
            load(shared, Some(kind), &[spec], warnings)
        }
        Some(Kind::SmgDeploy) => deploy(shared, path),
        kind => configuration(shared, path, kind.filter(|kind| *kind != Kind::Config)),
    }
}

/// What a regular file is. Pipes are read once, by whoever acts on what they bring.
fn kind_of(path: &Path) -> Option<Kind> {
    let text = document::read(path).ok()?;
    Kind::of(&document::value(&text, Format::of(path)).ok()??)
}

fn configuration(shared: &Shared, path: &Path, kind: Option<Kind>) -> Result<Valid, Failure> {
    let resolved = config::read(path, &environment)?;
    let mut plugins = resolved.plugins;
    if let Some(folder) = &resolved.folder {
        let found = (folder.look)(&folder.path);
        if let Some((file, problem)) = found.problems.first() {
            return Err(Failure::unusable(format_args!("{}: {problem}", file.display())));
        }
        plugins.extend(found.specs);
    }
    let manager = Manager::new(serve::engine(shared, resolved.engine, Capabilities::passing()?.services)?, 0);
    let applied = serve::apply(&manager, &plugins, Vec::new())?;
    let mut warnings = resolved.warnings;
    warnings.extend(advice::about(&plugins, &resolved.entries, &manager.snapshot()));
    Gateway::new(resolved.gateway, manager).map_err(|error| {
        Failure::unusable(format_args!("{}: {}", path.display(), error.named(config::key_of)))
    })?;
    Ok(Valid { kind, plugins: applied.loaded, warnings })
}

fn deploy(shared: &Shared, path: &Path) -> Result<Valid, Failure> {
    let fail = |why: String| Failure::unusable(format_args!("{}: {why}", path.display()));
    let text = document::read(path).map_err(fail)?;
    let request: Option<DeployRequest> = document::parse(&text, Format::of(path)).map_err(fail)?;
    let modules = request.map(|request| request.modules).unwrap_or_default();
    let specs = modules.iter().map(|module| resolve_smg(module).map_err(|error| fail(error.to_string())));
    let specs = specs.collect::<Result<Vec<_>, _>>()?;
    let unasked = specs.iter().flat_map(|spec| {
        let hooks = spec.elsewhere.iter();
        hooks.map(|hook| format!("plugin {}: no listener of this process asks at {hook} yet", spec.name))
    });
    let warnings = unasked.chain(specs.iter().filter_map(never_asked)).collect();
    load(shared, Some(Kind::SmgDeploy), &specs, warnings)
}

fn never_asked(spec: &PluginSpec) -> Option<String> {
    let nowhere = matches!(&spec.bindings, Bindings::Listed(bindings) if bindings.is_empty());
    nowhere.then(|| format!("plugin {}: it is attached nowhere, so it is never asked", spec.name))
}

fn load(
    shared: &Shared,
    kind: Option<Kind>,
    specs: &[PluginSpec],
    warnings: Vec<String>,
) -> Result<Valid, Failure> {
    let manager =
        Manager::new(serve::engine(shared, EngineBounds::default(), Capabilities::passing()?.services)?, 0);
    let applied = serve::apply(&manager, specs, Vec::new())?;
    Ok(Valid { kind, plugins: applied.loaded, warnings })
}
