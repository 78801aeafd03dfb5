//! From manifests as written to specs: names looked up, defaults filled in, paths found.

use std::fmt;
use std::path::{Component, Path, PathBuf};

use cardan_api::manifest::{BindingEntry, MatchEntry, PluginEntry, llmproxy};
use cardan_api::{BodyNeed, Dialect, FaultPolicy, HookInfo, InstanceMode, Limits, Phase};
use glob::Pattern;
use serde_json::Value;

use crate::spec::{BindingSpec, Bindings, MatchRule, PluginSpec};

/// Time of one call where nothing says otherwise.
const DEADLINE_MS: u64 = 500;
/// Instances kept ready where nothing says otherwise.
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
/// When it names a hook or a phase that does not exist, or a pattern that is none.
pub fn resolve_entry(entry: &PluginEntry, base: &Path) -> Result<PluginSpec, ResolveError> {
    let fail = |message: String| ResolveError { plugin: entry.name.clone(), message };
    let bindings = match &entry.bindings {
        None => Bindings::Exported,
        Some(bindings) => {
            Bindings::Listed(bindings.iter().map(resolve_binding).collect::<Result<_, _>>().map_err(fail)?)
        }
    };
    let defaults = Limits::default();
    let asked = &entry.limits;
    let limits = Limits {
        memory_bytes_max: asked.memory.map_or(defaults.memory_bytes_max, |it| it.0),
        table_elements_max: asked.table_elements.unwrap_or(defaults.table_elements_max),
        output_bytes_max: asked.output.map_or(defaults.output_bytes_max, |it| it.0),
        deadline: Some(
            asked.deadline.map_or(std::time::Duration::from_millis(DEADLINE_MS), |it| it.duration()),
        ),
        start_deadline: asked.start_deadline.map_or(defaults.start_deadline, |it| it.duration()),
        instances_max: asked.instances.unwrap_or(defaults.instances_max),
        var_bytes_max: asked.vars.map_or(defaults.var_bytes_max, |it| it.0),
        http_response_bytes_max: asked.http_response.map_or(defaults.http_response_bytes_max, |it| it.0),
        ..defaults
    };
    if limits.instances_max == 0 {
        return Err(fail("limits.instances is 0: a plugin without instances cannot be asked".to_owned()));
    }
    Ok(PluginSpec {
        name: entry.name.clone(),
        version: entry.version.clone().unwrap_or_default(),
        source: base.join(&entry.source),
        sha256: entry.sha256.clone(),
        dialect: entry.dialect,
        mode: entry.instance,
        ready: asked.ready.unwrap_or(READY),
        limits,
        config: Value::Object(entry.config.clone().into_iter().collect()),
        allowed_hosts: entry.grants.http.clone(),
        allowed_paths: entry
            .grants
            .files
            .iter()
            .map(|(host, guest)| (based(host, base), guest.clone()))
            .collect(),
        bindings,
    })
}

/// A granted directory, relative to the configuration file like everything in it.
fn based(host: &str, base: &Path) -> String {
    let (mark, path) = host.strip_prefix("ro:").map_or(("", host), |path| ("ro:", path));
    format!("{mark}{}", base.join(path).display())
}

fn resolve_binding(entry: &BindingEntry) -> Result<BindingSpec, String> {
    let hook = HookInfo::find(&entry.hook).ok_or_else(|| {
        let known = cardan_api::hook::HOOKS.iter().map(|hook| hook.name).collect::<Vec<_>>().join(", ");
        format!("there is no hook {:?}; there are {known}", entry.hook)
    })?;
    let mut binding = BindingSpec::at(hook);
    if let Some(phase) = entry.phase {
        if !hook.phases.contains(&phase) {
            return Err(format!("the hook {} has no phase {phase:?}; it has {:?}", hook.name, hook.phases));
        }
        binding.phase = phase;
    }
    binding.priority = entry.priority.unwrap_or(binding.priority);
    binding.deadline = entry.deadline.map(cardan_api::manifest::Milliseconds::duration);
    binding.on_fault = entry.on_fault.unwrap_or(binding.on_fault);
    binding.body = entry.body.unwrap_or(binding.body);
    binding.rule = resolve_rule(&entry.rule)?;
    binding.entry.clone_from(&entry.entry);
    Ok(binding)
}

fn resolve_rule(rule: &MatchEntry) -> Result<MatchRule, String> {
    let patterns = |texts: &[String]| {
        texts
            .iter()
            .map(|text| Pattern::new(text).map_err(|error| format!("{text:?} is no pattern: {error}")))
            .collect::<Result<Vec<_>, _>>()
    };
    Ok(MatchRule {
        paths: patterns(&rule.paths)?,
        methods: rule.methods.iter().map(|method| method.to_ascii_uppercase()).collect(),
        hosts: patterns(&rule.hosts.iter().map(|host| host.to_ascii_lowercase()).collect::<Vec<_>>())?,
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
    let mut warnings: Vec<Warning> = entry
        .other
        .keys()
        .map(|key| {
            Warning(format!("plugin {}: LLMProxy's manifest has no key {key:?}; it is ignored", entry.name))
        })
        .collect();
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
    let source = entry_point(&entry.entrypoint, folder).map_err(fail)?;
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
    let deadline = Some(std::time::Duration::from_millis(entry.timeout_ms));
    let spec = PluginSpec {
        name: entry.name.clone(),
        version: entry.version.clone().unwrap_or_else(|| "0.0.0".to_owned()),
        source,
        sha256: entry.sha256.clone(),
        dialect: Some(Dialect::LlmProxy),
        // The original keeps one instance alive, and plugins count in its memory.
        mode: InstanceMode::Shared,
        ready: READY,
        limits: Limits { deadline, ..Limits::default() },
        config: Value::Object(entry.config.clone().unwrap_or_default().into_iter().collect()),
        allowed_hosts: Vec::new(),
        allowed_paths: std::collections::BTreeMap::new(),
        bindings: Bindings::Listed(vec![binding]),
    };
    Ok((Some(spec), warnings))
}

/// The hook that a ring is a phase of.
fn ring_hook(ring: Phase) -> &'static HookInfo {
    let hook = cardan_api::hook::HOOKS.iter().find(|hook| hook.phases.contains(&ring));
    hook.unwrap_or(&cardan_api::hook::HOOKS[0])
}

/// Finds the file of an LLMProxy entry point, in any of the spellings in use. It has to lie inside of
/// `folder`, links followed.
fn entry_point(entry: &str, folder: &Path) -> Result<PathBuf, String> {
    let relative = Path::new(entry);
    if relative.is_absolute() || relative.components().any(|part| part == Component::ParentDir) {
        return Err(format!("the entry point {entry:?} leaves the plugins folder"));
    }
    let mut tries = vec![folder.join(relative)];
    if let Some(name) = folder.file_name()
        && let Ok(rest) = relative.strip_prefix(name)
    {
        tries.push(folder.join(rest));
    }
    let mut suffixed: Vec<PathBuf> = tries.iter().map(|path| with_suffix(path)).collect();
    tries.append(&mut suffixed);
    tries.push(with_suffix(&folder.join(entry.replace('.', "/"))));
    let found = tries.iter().find(|path| path.is_file()).ok_or_else(|| {
        let tried = tries.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ");
        format!("the entry point {entry:?} is no file; tried {tried}")
    })?;
    let inside = match (found.canonicalize(), folder.canonicalize()) {
        (Ok(found), Ok(folder)) => found.starts_with(folder),
        _ => false,
    };
    if inside {
        Ok(found.clone())
    } else {
        Err(format!("the entry point {entry:?} leaves the plugins folder"))
    }
}

fn with_suffix(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".wasm");
    name.into()
}
