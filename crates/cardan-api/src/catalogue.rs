//! The hooks there are.

use crate::fault::FaultPolicy;
use crate::hook::{Hook, Phase};
use crate::http::{HttpComplete, HttpRequest, HttpResponse};
use crate::lifecycle::{PluginLoad, PluginTick, PluginUnload};

/// One row of [`HOOKS`]: what configuration, documents and `cardan inspect` say about a hook.
#[derive(Debug)]
pub struct NamedHook {
    /// [`Hook::NAME`].
    pub name: &'static str,
    /// The phases a binding may choose from, the default first. Empty for hooks of a plugin's own life, which
    /// nobody binds: the plugin is asked if it has the export.
    pub phases: &'static [Phase],
    /// [`Hook::ON_FAULT`].
    pub on_fault: FaultPolicy,
    /// When it is asked, in a sentence fragment.
    pub when: &'static str,
}

impl PartialEq for NamedHook {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl NamedHook {
    /// The row named `name`.
    pub fn find(name: &str) -> Option<&'static NamedHook> {
        HOOKS.iter().find(|hook| hook.name == name)
    }

    /// Whether configuration can bind a plugin here.
    pub fn is_bindable(&self) -> bool {
        !self.phases.is_empty()
    }

    const fn of<H: Hook>(phases: &'static [Phase], when: &'static str) -> Self {
        Self { name: H::NAME, phases, on_fault: H::ON_FAULT, when }
    }
}

/// Every hook.
pub static HOOKS: &[NamedHook] = &[
    NamedHook::of::<HttpRequest>(
        &[Phase::PreFlight, Phase::Ingress, Phase::Routing],
        "a request's head has arrived, and its body too if a binding needs it",
    ),
    NamedHook::of::<HttpResponse>(
        &[Phase::PostFlight],
        "before the first byte of a response is sent to the client",
    ),
    NamedHook::of::<HttpComplete>(&[Phase::Background], "after the last byte, or when the client has gone"),
    NamedHook::of::<PluginLoad>(&[], "a version of the plugin is about to serve"),
    NamedHook::of::<PluginUnload>(&[], "a version of the plugin has served its last call"),
    NamedHook::of::<PluginTick>(&[], "at the plugin's own interval, between calls"),
];
