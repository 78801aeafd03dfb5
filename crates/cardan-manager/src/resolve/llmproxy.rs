//! LLMProxy's manifest.

use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use cardan_api::catalogue::HOOKS;
use cardan_api::manifest::llmproxy;
use cardan_api::{BodyNeed, Dialect, FaultPolicy, InstanceMode, NamedHook, Phase};
use serde_json::Value;

use super::grants::resolve_grants;
use super::limits::{resolve_limits, resolve_ready};
use super::{ResolveError, Warning, check_name, check_sha256};
use crate::spec::{About, BindingSpec, Bindings, PluginSpec};

/// Resolves an entry of LLMProxy's `manifest.yaml`; `folder` is the plugins folder that entry points are
/// relative to. `None` for what is switched off, or is no WebAssembly, which is worth a warning.
///
/// # Errors
///
/// When the entry point leads nowhere, or out of the folder.
pub fn resolve_llmproxy(
    entry: &llmproxy::Entry,
    folder: &Path,
) -> Result<(Option<PluginSpec>, Vec<Warning>), ResolveError> {
    let fail = |problem: String| ResolveError::new(&entry.name, problem);
    let ignored = |key: &String| {
        Warning(format!("plugin {}: LLMProxy's manifest has no key {key:?}; it is ignored", entry.name))
    };
    let mut warnings: Vec<Warning> = entry.other.keys().map(ignored).collect();
    if !entry.enabled {
        return Ok((None, warnings));
    }
    if entry.kind() == llmproxy::Kind::Python {
        warnings.push(Warning(format!(
            "plugin {}: it is written in Python for LLMProxy's own process and does not run here; \
             ship it as WebAssembly, or set enabled: false",
            entry.name
        )));
        return Ok((None, warnings));
    }
    Ok((Some(ring_plugin(entry, folder).map_err(fail)?), warnings))
}

/// The original keeps one instance alive, and plugins count in its memory.
const MODE: InstanceMode = InstanceMode::Shared;

fn ring_plugin(entry: &llmproxy::Entry, folder: &Path) -> Result<PluginSpec, String> {
    check_name(&entry.name)?;
    entry.sha256.as_deref().map_or(Ok(()), check_sha256)?;
    if entry.timeout_ms == 0 {
        return Err("timeout_ms: it is 0, so the plugin could never answer".to_owned());
    }
    let binding = BindingSpec {
        phase: entry.hook,
        priority: entry.priority,
        on_fault: match (entry.fail_policy, entry.hook) {
            (Some(llmproxy::FailPolicy::Open), _) => FaultPolicy::Skip,
            (Some(llmproxy::FailPolicy::Closed), _) => FaultPolicy::Refuse,
            (None, Phase::PostFlight | Phase::Background) => FaultPolicy::Skip,
            (None, Phase::Ingress | Phase::PreFlight | Phase::Routing) => FaultPolicy::Refuse,
        },
        body: BodyNeed::Whole,
        entry: entry.entry.clone(),
        ..BindingSpec::at(ring_hook(entry.hook))
    };
    let source = entry_point(&entry.entrypoint, folder).map_err(|why| format!("entrypoint: {why}"))?;
    Ok(PluginSpec {
        version: entry.version.clone().unwrap_or_else(|| "0.0.0".to_owned()),
        sha256: entry.sha256.clone(),
        dialect: Some(Dialect::LlmProxy),
        mode: MODE,
        ready: resolve_ready(&entry.limits, MODE),
        limits: resolve_limits(&entry.limits, Duration::from_millis(entry.timeout_ms))?,
        config: Value::Object(entry.config.clone().unwrap_or_default().into_iter().collect()),
        grants: resolve_grants(&entry.grants, folder)?,
        bindings: Bindings::Listed(vec![binding]),
        about: About {
            description: entry.description.clone(),
            author: entry.author.clone(),
            ui_schema: entry.ui_schema.clone(),
            ..About::default()
        },
        ..PluginSpec::new(&entry.name, source)
    })
}

/// The hook that a ring is a phase of.
fn ring_hook(ring: Phase) -> &'static NamedHook {
    HOOKS.iter().find(|hook| hook.phases.contains(&ring)).unwrap_or(&HOOKS[0])
}

/// Finds the file of an LLMProxy entry point, in any of the spellings in use. It has to lie inside of
/// `folder`, links followed.
fn entry_point(entry: &str, folder: &Path) -> Result<PathBuf, String> {
    let relative = Path::new(entry);
    if relative.is_absolute() || relative.components().any(|part| part == Component::ParentDir) {
        return Err(format!("{entry:?} leaves the plugins folder"));
    }
    let real = folder
        .canonicalize()
        .map_err(|error| format!("the plugins folder {} cannot be read: {error}", folder.display()))?;
    let mut tries = vec![folder.join(relative)];
    if let Some(name) = real.file_name()
        && let Ok(rest) = relative.strip_prefix(name)
    {
        tries.push(folder.join(rest));
    }
    let mut suffixed: Vec<PathBuf> = tries.iter().map(|path| with_suffix(path)).collect();
    tries.append(&mut suffixed);
    tries.push(with_suffix(&folder.join(entry.replace('.', "/"))));
    let found = tries.iter().find(|path| path.is_file()).ok_or_else(|| {
        let tried = tries.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ");
        format!("{entry:?} is no file; tried {tried}")
    })?;
    match found.canonicalize() {
        Ok(real_file) if real_file.starts_with(real) => Ok(found.clone()),
        _ => Err(format!("{entry:?} leaves the plugins folder")),
    }
}

fn with_suffix(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".wasm");
    name.into()
}
