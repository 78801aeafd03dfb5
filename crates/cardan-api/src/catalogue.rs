//! The hooks there are.

use crate::access::{AccessAuthenticate, AccessAuthorize};
use crate::cache::{CacheGet, CacheSet};
use crate::fault::FaultPolicy;
use crate::hook::{Hook, Phase};
use crate::http::{HttpComplete, HttpRequest, HttpResponse};
use crate::lifecycle::{PluginLoad, PluginTick, PluginUnload};
use crate::sql::{SqlQuery, SqlResult, SqlRoute};
use crate::tool::{ToolCall, ToolList};

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
    /// Who asks.
    pub asker: Asker,
}

/// Who asks at a hook.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Asker {
    /// The gateway, for each of its exchanges.
    Gateway,
    /// The runtime and the manager, on the plugin's own account.
    Keeper,
    /// A program that embeds the runtime: no listener of ours.
    Embedder,
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

    /// Whether plugins there let things pass or not: one that says nothing has not done so.
    pub fn judges(&self) -> bool {
        self.is_bindable() && self.on_fault == FaultPolicy::Refuse
    }

    /// Whether configuration can bind a plugin here.
    pub fn is_bindable(&self) -> bool {
        !self.phases.is_empty()
    }

    const fn of<H: Hook>(asker: Asker, phases: &'static [Phase], when: &'static str) -> Self {
        Self { name: H::NAME, phases, on_fault: H::ON_FAULT, when, asker }
    }
}

/// Phases of a hook that stands before what it is about; the default first.
const BEFORE: &[Phase] = &[Phase::PreFlight, Phase::Ingress, Phase::Routing];

/// Every hook.
pub static HOOKS: &[NamedHook] = &[
    NamedHook::of::<HttpRequest>(
        Asker::Gateway,
        BEFORE,
        "a request's head has arrived, and its body too if a binding needs it",
    ),
    NamedHook::of::<HttpResponse>(
        Asker::Gateway,
        &[Phase::PostFlight],
        "before the first byte of a response is sent to the client",
    ),
    NamedHook::of::<HttpComplete>(
        Asker::Gateway,
        &[Phase::Background],
        "after the last byte, or when the client has gone",
    ),
    NamedHook::of::<AccessAuthenticate>(Asker::Embedder, &[Phase::Ingress], "a client says who it is"),
    NamedHook::of::<AccessAuthorize>(
        Asker::Embedder,
        &[Phase::Ingress],
        "a client whose identity is settled wants to do something",
    ),
    NamedHook::of::<CacheGet>(
        Asker::Embedder,
        &[Phase::PreFlight],
        "before the host looks for an answer it has kept",
    ),
    NamedHook::of::<CacheSet>(Asker::Embedder, &[Phase::PostFlight], "before the host keeps an answer"),
    NamedHook::of::<SqlQuery>(
        Asker::Embedder,
        BEFORE,
        "a statement has arrived, as a simple query or to be prepared",
    ),
    NamedHook::of::<SqlRoute>(
        Asker::Embedder,
        &[Phase::Routing],
        "a statement is about to be sent to a node",
    ),
    NamedHook::of::<SqlResult>(Asker::Embedder, &[Phase::Background], "a statement has been answered"),
    NamedHook::of::<ToolList>(
        Asker::Embedder,
        &[Phase::PreFlight],
        "somebody wants to know a plugin's tools",
    ),
    NamedHook::of::<ToolCall>(
        Asker::Embedder,
        &[Phase::PreFlight],
        "an agent, or a person, calls a tool by name",
    ),
    NamedHook::of::<PluginLoad>(Asker::Keeper, &[], "a version of the plugin is about to serve"),
    NamedHook::of::<PluginUnload>(Asker::Keeper, &[], "a version of the plugin has served its last call"),
    NamedHook::of::<PluginTick>(Asker::Keeper, &[], "at the plugin's own interval, between calls"),
];
