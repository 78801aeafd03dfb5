//! Names of hooks, ours and other systems', and bindings.

use std::time::Duration;

use cardan_api::NamedHook;
use cardan_api::catalogue::{Asker, HOOKS};
use cardan_api::manifest::plugin::HookEntry;
use cardan_api::manifest::{BindingEntry, MatchEntry, Milliseconds};
use glob::Pattern;

use super::Warning;
use super::limits::check_modest_time;
use crate::document::nearest;
use crate::rule::{MatchRule, path_pattern};
use crate::spec::BindingSpec;

/// Names that are kept for hooks of later versions: a plugin may want them already.
const LATER: [&str; 18] = [
    "http.error",
    "llm.request",
    "llm.route",
    "llm.attempt",
    "llm.events",
    "llm.response",
    "llm.guard",
    "sql.rows",
    "branch.access",
    "branch.merge",
    "history.read",
    "replication.mode",
    "vector.distance",
    "vector.quantize",
    "embed.text",
    "embed.similarity",
    "rag.retrieve",
    "rag.rerank",
];

/// HeliosProxy's names, ours, and the export.
const HELIOS: [(&[&str], &str, &str); 12] = [
    (&["pre_query", "prequery"], "sql.query", "pre_query"),
    (&["post_query", "postquery"], "sql.result", "post_query"),
    (&["authenticate", "auth"], "access.authenticate", "authenticate"),
    (&["authorize"], "access.authorize", "authorize"),
    (&["cache_get", "cacheget"], "cache.get", "cache_get"),
    (&["cache_set", "cacheset"], "cache.set", "cache_set"),
    (&["route", "routing"], "sql.route", "route"),
    (&["rewrite"], "sql.query", "rewrite"),
    (&["metrics"], "http.complete", "metrics"),
    (&["on_connect", "connect"], "on_connect", "on_connect"),
    (&["on_disconnect", "disconnect"], "on_disconnect", "on_disconnect"),
    (&["custom"], "custom", "custom_hook"),
];

/// What HeliosProxy calls so, in any letter case: our name of the hook, or theirs where we have none, and
/// the export.
pub(crate) fn helios_hook(name: &str) -> Option<(&'static str, &'static str)> {
    let name = name.to_ascii_lowercase();
    let row = HELIOS.iter().find(|(names, ..)| names.contains(&name.as_str()));
    row.map(|(_, hook, export)| (*hook, *export))
}

/// Where a plugin wants to be asked.
#[derive(Debug, Clone, Default)]
pub(super) struct Places {
    pub(super) bindings: Vec<BindingSpec>,
    /// Names of hooks that nobody asks at.
    pub(super) elsewhere: Vec<String>,
}

impl Places {
    /// Puts a plugin at a hook of another system, under our name for it, with that system's export.
    pub(super) fn add(&mut self, name: &str, entry: Option<&str>) {
        match bindable(name) {
            Some(hook) => {
                self.bind(BindingSpec { entry: entry.map(ToOwned::to_owned), ..BindingSpec::at(hook) });
            }
            None => self.add_elsewhere(name),
        }
    }

    /// Says so where nobody of this process asks: other programs may.
    fn bind(&mut self, binding: BindingSpec) {
        if binding.hook.asker == Asker::Embedder {
            self.add_elsewhere(binding.hook.name);
        }
        self.bindings.push(binding);
    }

    fn add_elsewhere(&mut self, name: &str) {
        if !self.elsewhere.iter().any(|known| known == name) {
            self.elsewhere.push(name.to_owned());
        }
    }

    /// One sentence for each hook that nobody asks at.
    pub(super) fn warnings(&self) -> impl Iterator<Item = Warning> {
        self.elsewhere.iter().map(|name| Warning(nobody_asks(name)))
    }
}

fn nobody_asks(name: &str) -> String {
    format!("no listener of this process asks at {name} yet")
}

/// Hooks of a plugin's own life: it is asked if it has the export.
fn is_of_life(name: &str) -> bool {
    NamedHook::find(name).is_some_and(|hook| !hook.is_bindable())
}

/// The row of a hook that plugins can be bound to.
fn bindable(name: &str) -> Option<&'static NamedHook> {
    NamedHook::find(name).filter(|hook| hook.is_bindable())
}

/// What a manifest says about hooks. One that nobody asks at may be asked at by another host, and is no
/// error here. An error begins with the key.
pub(super) fn wanted(entries: &[HookEntry]) -> Result<Places, String> {
    let mut places = Places::default();
    for (i, entry) in entries.iter().enumerate() {
        let (name, key) = match entry {
            HookEntry::Named(name) => (name, format!("hooks[{i}]")),
            HookEntry::Bound(binding) => (&binding.hook, format!("hooks[{i}].hook")),
        };
        if is_of_life(name) {
            continue;
        }
        if LATER.contains(&name.as_str()) {
            places.add_elsewhere(name);
            continue;
        }
        let hook = bindable(name).ok_or_else(|| format!("{key}: {}", no_hook(name)))?;
        places.bind(match entry {
            HookEntry::Named(_) => BindingSpec::at(hook),
            HookEntry::Bound(binding) => {
                let binding = resolve_binding(binding).map_err(|why| format!("hooks[{i}].{why}"))?;
                check_modest_time(binding.deadline).map_err(|why| format!("hooks[{i}].deadline: {why}"))?;
                binding
            }
        });
    }
    Ok(places)
}

fn no_hook(name: &str) -> String {
    if let Some((ours, _)) = helios_hook(name)
        && ours.contains('.')
    {
        return format!("there is no hook {name:?}; what HeliosProxy calls so is {ours}");
    }
    let asked = HOOKS.iter().filter(|hook| hook.asker == Asker::Gateway);
    let known: Vec<&str> = asked.map(|hook| hook.name).collect();
    let all: Vec<&str> = HOOKS.iter().map(|hook| hook.name).chain(LATER).collect();
    match nearest(name, &all) {
        Some(near) => {
            format!("there is no hook {name:?}; did you mean {near}? There are {}", known.join(", "))
        }
        None => format!("there is no hook {name:?}; there are {}", known.join(", ")),
    }
}

/// What an operator says about a hook. An error begins with the key below the binding.
pub(super) fn resolve_binding(entry: &BindingEntry) -> Result<BindingSpec, String> {
    let name = entry.hook.as_str();
    if is_of_life(name) {
        return Err(format!(
            "hook: {name} cannot be bound: every plugin that has an export for it is asked; take this binding out"
        ));
    }
    let unasked = bindable(name).is_some_and(|hook| hook.asker == Asker::Embedder);
    if unasked || LATER.contains(&name) {
        return Err(format!("hook: {}; take this binding out", nobody_asks(name)));
    }
    let hook = bindable(name).ok_or_else(|| format!("hook: {}", no_hook(name)))?;
    let mut binding = BindingSpec::at(hook);
    if let Some(phase) = entry.phase {
        if !hook.phases.contains(&phase) {
            let phases: Vec<&str> = hook.phases.iter().map(|phase| phase.name()).collect();
            return Err(format!(
                "phase: the hook {} has no phase {phase}; it has {}",
                hook.name,
                phases.join(", ")
            ));
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
