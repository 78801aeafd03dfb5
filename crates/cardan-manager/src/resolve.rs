//! From manifests as written to specs: names looked up, defaults filled in, paths found.

mod grants;

use std::fmt;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use cardan_api::catalogue::HOOKS;
use cardan_api::manifest::{BindingEntry, LimitsEntry, MatchEntry, Milliseconds, PluginEntry, llmproxy};
use cardan_api::{BodyNeed, Dialect, FaultPolicy, InstanceMode, Limits, NamedHook, Phase};
use glob::Pattern;
use serde_json::Value;

use crate::rule::{MatchRule, path_pattern};
use crate::spec::{BindingSpec, Bindings, PluginSpec};
use grants::resolve_grants;

/// Time of one call where nothing says otherwise.
const DEADLINE: Duration = Duration::from_millis(500);
/// Instances kept ready where nothing says otherwise. Shared ones are used again, and a new one beside
/// them would have forgotten what they count.
const READY: u32 = 2;

/// Why a manifest's entry cannot be meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolveError {
    /// The plugin's name.
    pub plugin: String,
    /// What is wrong, and what would be right.
    pub message: String,
}

impl fmt::Display for ResolveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "plugin {}: {}", self.plugin, self.message)
    }
}

impl std::error::Error for ResolveError {}

/// Something about a foreign manifest that its author should know, and that stops nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning(pub String);

/// Resolves an entry of `cardan.yaml`; `base` is where the file lies.
///
/// # Errors
///
/// When a value cannot be meant: a hook or a phase that does not exist, a pattern that is none, a limit
/// of nothing. The message begins with the key's path within the entry.
pub fn resolve_entry(entry: &PluginEntry, base: &Path) -> Result<PluginSpec, ResolveError> {
    resolved(entry, base).map_err(|message| ResolveError { plugin: entry.name.clone(), message })
}

fn resolved(entry: &PluginEntry, base: &Path) -> Result<PluginSpec, String> {
    check_name(&entry.name)?;
    entry.sha256.as_deref().map_or(Ok(()), check_sha256)?;
    let bindings = match &entry.bindings {
        None => Bindings::Exported,
        Some(bindings) if bindings.is_empty() => {
            return Err(
                "bindings: the list is empty, so the plugin would never be asked; leave the key out to \
                        bind it wherever it has an export, or say enabled: false"
                    .to_owned(),
            );
        }
        Some(bindings) => {
            let bindings = bindings
                .iter()
                .enumerate()
                .map(|(i, binding)| resolve_binding(binding).map_err(|why| format!("bindings[{i}].{why}")));
            Bindings::Listed(bindings.collect::<Result<_, _>>()?)
        }
    };
    Ok(PluginSpec {
        version: entry.version.clone().unwrap_or_default(),
        sha256: entry.sha256.clone(),
        dialect: entry.dialect,
        mode: entry.instance,
        ready: resolve_ready(&entry.limits, entry.instance),
        limits: resolve_limits(&entry.limits, DEADLINE)?,
        config: Value::Object(entry.config.clone().into_iter().collect()),
        grants: resolve_grants(&entry.grants, base)?,
        bindings,
        ..PluginSpec::new(&entry.name, base.join(&entry.source))
    })
}

/// A plugin's name stands in log lines, metrics and error messages.
fn check_name(name: &str) -> Result<(), String> {
    if name.trim().is_empty() {
        return Err("name: it is empty".to_owned());
    }
    if name.chars().any(char::is_control) {
        return Err(format!("name: {name:?} has a control character in it"));
    }
    Ok(())
}

fn check_sha256(digest: &str) -> Result<(), String> {
    if digest.len() == 64 && digest.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(());
    }
    Err(format!("sha256: {digest:?} is no SHA-256 digest: 64 hexadecimal digits, as sha256sum prints them"))
}

fn resolve_limits(asked: &LimitsEntry, deadline: Duration) -> Result<Limits, String> {
    let defaults = Limits::default();
    let limits = Limits {
        memory_bytes_max: asked.memory.map_or(defaults.memory_bytes_max, |it| it.0),
        table_elements_max: asked.table_elements.unwrap_or(defaults.table_elements_max),
        output_bytes_max: asked.output.map_or(defaults.output_bytes_max, |it| it.0),
        deadline: Some(asked.deadline.map_or(deadline, Milliseconds::duration)),
        start_deadline: asked.start_deadline.map_or(defaults.start_deadline, Milliseconds::duration),
        instances_max: asked.instances.unwrap_or(defaults.instances_max),
        var_bytes_max: asked.vars.map_or(defaults.var_bytes_max, |it| it.0),
        http_response_bytes_max: asked.http_response.map_or(defaults.http_response_bytes_max, |it| it.0),
        ..defaults
    };
    let never = |key: &str| Err(format!("limits.{key}: it is 0, so the plugin could never answer"));
    if limits.instances_max == 0 {
        return never("instances");
    }
    if limits.deadline == Some(Duration::ZERO) {
        return never("deadline");
    }
    if limits.start_deadline == Duration::ZERO {
        return never("start_deadline");
    }
    Ok(limits)
}

fn resolve_ready(asked: &LimitsEntry, mode: InstanceMode) -> u32 {
    asked.ready.unwrap_or(match mode {
        InstanceMode::Shared => 0,
        InstanceMode::Fresh | InstanceMode::Visit => READY,
    })
}

/// An error begins with the key below the binding.
fn resolve_binding(entry: &BindingEntry) -> Result<BindingSpec, String> {
    let hook = NamedHook::find(&entry.hook).ok_or_else(|| {
        let known = listed(HOOKS.iter().map(|hook| hook.name));
        format!("hook: there is no hook {:?}; there are {known}", entry.hook)
    })?;
    let mut binding = BindingSpec::at(hook);
    if let Some(phase) = entry.phase {
        if !hook.phases.contains(&phase) {
            let phases = listed(hook.phases.iter().map(|phase| phase.name()));
            return Err(format!("phase: the hook {} has no phase {phase}; it has {phases}", hook.name));
        }
        binding.phase = phase;
    }
    binding.priority = entry.priority.unwrap_or(binding.priority);
    binding.deadline = entry.deadline.map(Milliseconds::duration);
    if binding.deadline == Some(Duration::ZERO) {
        return Err("deadline: it is 0, so the plugin could never answer".to_owned());
    }
    binding.on_fault = entry.on_fault.unwrap_or(binding.on_fault);
    binding.body = entry.body.unwrap_or(binding.body);
    binding.rule = resolve_rule(&entry.rule).map_err(|why| format!("match.{why}"))?;
    binding.entry.clone_from(&entry.entry);
    Ok(binding)
}

fn listed<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.collect::<Vec<_>>().join(", ")
}

fn resolve_rule(rule: &MatchEntry) -> Result<MatchRule, String> {
    let patterns = |key: &str, texts: &[String], read: fn(&str) -> Result<Pattern, String>| {
        let patterns = texts.iter().enumerate();
        let patterns = patterns.map(|(i, text)| read(text).map_err(|why| format!("{key}[{i}]: {why}")));
        patterns.collect::<Result<Vec<_>, _>>()
    };
    let plain = |text: &str| Pattern::new(text).map_err(|error| format!("{text:?} is no pattern: {error}"));
    Ok(MatchRule {
        paths: patterns("paths", &rule.paths, path_pattern)?,
        methods: rule.methods.iter().map(|method| method.to_ascii_uppercase()).collect(),
        hosts: patterns("hosts", &rule.hosts, plain)?,
    })
}

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
    let fail = |message: String| ResolveError { plugin: entry.name.clone(), message };
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
