//! One plugin: what its manifest says under what the operator says.

use std::path::Path;

use cardan_api::Capability;
use cardan_api::manifest::{Bytes, Milliseconds, PluginEntry};
use serde_json::Value;

use super::described::Described;
use super::grants::resolve_grants;
use super::hooks::resolve_binding;
use super::limits::{DEADLINE, overlaid, resolve_health, resolve_limits, resolve_ready, resolve_tick};
use super::locate::{Located, file_name};
use super::permissions::narrowed;
use super::{ResolveError, Warning, check_name, check_sha256, settings};
use crate::spec::{BindingSpec, Bindings, Owner, PluginSpec};

/// Makes the spec of a plugin that was found; `base` is what paths in the entry are relative to.
pub(super) fn assemble(
    entry: &PluginEntry,
    found: Located,
    base: &Path,
    owner: Owner,
) -> Result<(PluginSpec, Vec<Warning>), ResolveError> {
    let fail = |problem: String| ResolveError::new(&entry.name, problem);
    check_name(&entry.name).map_err(fail)?;
    let Located { module, manifest } = found;
    let (path, described) = match manifest {
        Some((path, described)) => (Some(path), *described),
        None => (None, Described::default()),
    };
    let mut warnings = described.warnings.clone();
    let mut spec = PluginSpec { owner, manifest: path, ..PluginSpec::new(&entry.name, module) };
    identify(&mut spec, entry, &described, &mut warnings).map_err(fail)?;
    bind(&mut spec, entry, &described).map_err(fail)?;
    grant(&mut spec, entry, &described, base, &mut warnings).map_err(fail)?;
    limit(&mut spec, entry, &described).map_err(fail)?;
    configure(&mut spec, entry, &described)
        .map_err(|problems| ResolveError { plugin: entry.name.clone(), problems })?;
    let manifest = spec.manifest.as_deref().map(file_name);
    let warnings = warnings.into_iter().map(|warning| {
        let told =
            manifest.as_ref().map_or(warning.0.clone(), |manifest| format!("{manifest}: {}", warning.0));
        Warning(told).about(&entry.name)
    });
    Ok((spec, warnings.collect()))
}

fn identify(
    spec: &mut PluginSpec,
    entry: &PluginEntry,
    described: &Described,
    warnings: &mut Vec<Warning>,
) -> Result<(), String> {
    if let Some(name) = described.name.as_ref().filter(|name| **name != entry.name) {
        warnings
            .push(Warning(format!("it calls the plugin {name}; it is {} here, as configured", entry.name)));
    }
    entry.sha256.as_deref().map_or(Ok(()), check_sha256)?;
    if let (Some(entry), Some(manifest)) = (&entry.sha256, &described.sha256)
        && !entry.eq_ignore_ascii_case(manifest)
    {
        return Err(format!(
            "sha256: it is {entry} here and {manifest} in the plugin's manifest; no module can be both, so take the \
             one that is out of date away"
        ));
    }
    spec.version = entry.version.clone().unwrap_or_else(|| described.version.clone());
    spec.sha256 = entry.sha256.clone().or_else(|| described.sha256.clone());
    spec.abi = entry.abi.or(described.abi);
    spec.abi_implied = described.abi_implied;
    spec.result_forms.clone_from(&described.result_forms);
    spec.dialect = entry.dialect.or(described.dialect);
    spec.snapshot = entry.snapshot;
    spec.mode = entry.instance.or(described.mode).unwrap_or_default();
    spec.about = described.about.clone();
    Ok(())
}

fn bind(spec: &mut PluginSpec, entry: &PluginEntry, described: &Described) -> Result<(), String> {
    match (&entry.bindings, &described.places) {
        (Some(bindings), _) => spec.bindings = Bindings::Listed(listed(bindings)?),
        (None, Some(places)) => {
            let mut bindings = places.bindings.clone();
            // What an operator says of time holds for every hook that only the manifest names.
            if let Some(most) = entry.limits.deadline.map(Milliseconds::duration) {
                bindings.iter_mut().for_each(|it| it.deadline = it.deadline.map(|it| it.min(most)));
            }
            spec.bindings = Bindings::Listed(bindings);
            spec.elsewhere.clone_from(&places.elsewhere);
        }
        (None, None) => {}
    }
    Ok(())
}

fn listed(bindings: &[cardan_api::manifest::BindingEntry]) -> Result<Vec<BindingSpec>, String> {
    if bindings.is_empty() {
        return Err("bindings: the list is empty, so the plugin would never be asked; leave the key out to \
                    bind it wherever it has an export, or say enabled: false"
            .to_owned());
    }
    let bindings = bindings.iter().enumerate();
    bindings
        .map(|(i, binding)| resolve_binding(binding).map_err(|why| format!("bindings[{i}].{why}")))
        .collect()
}

fn grant(
    spec: &mut PluginSpec,
    entry: &PluginEntry,
    described: &Described,
    base: &Path,
    warnings: &mut Vec<Warning>,
) -> Result<(), String> {
    spec.grants = resolve_grants(&entry.grants, base)?;
    let asks = |capability| described.requested.as_ref().is_none_or(|asked| asked.contains(&capability));
    if let (Some(http), Some(asked)) = (&mut spec.grants.http, &described.hosts) {
        let told;
        (http.hosts, told) = narrowed(&http.hosts, asked);
        warnings.extend(told);
    }
    for (granted, capability) in [
        (entry.grants.http.is_some(), Capability::Http),
        (!entry.grants.files.is_empty(), Capability::FilesRead),
    ] {
        if granted
            && !asks(capability)
            && !(capability == Capability::FilesRead && asks(Capability::FilesWrite))
        {
            warnings.push(Warning(format!(
                "it does not ask for {capability}, so what its entry grants of that counts for nothing"
            )));
        }
    }
    spec.requested.clone_from(&described.requested);
    Ok(())
}

fn limit(spec: &mut PluginSpec, entry: &PluginEntry, described: &Described) -> Result<(), String> {
    let asked = overlaid(&entry.limits, &described.limits)?;
    spec.limits = resolve_limits(&asked, described.deadline.unwrap_or(DEADLINE))?;
    spec.ready = resolve_ready(&asked, spec.mode);
    if let Some(min) = described.memory_min.filter(|min| *min > spec.limits.memory_bytes_max) {
        return Err(format!(
            "limits.memory: it is {}, and the plugin's manifest says that it needs {}",
            Bytes(spec.limits.memory_bytes_max),
            Bytes(min)
        ));
    }
    spec.health = resolve_health(entry.health, described.health)?;
    spec.tick = resolve_tick(entry.tick, described.tick)?;
    spec.versions_kept = entry.versions_kept.unwrap_or(PluginSpec::VERSIONS_KEPT);
    Ok(())
}

fn configure(spec: &mut PluginSpec, entry: &PluginEntry, described: &Described) -> Result<(), Vec<String>> {
    let mut config = Value::Object(entry.config.clone().into_iter().collect());
    if let Some(schema) = &described.config_schema {
        settings::complete(&mut config, schema)?;
    }
    spec.config = config;
    spec.config_schema.clone_from(&described.config_schema);
    Ok(())
}
