//! Cardan's own world, `cardan:plugin`: what hooks are in it, and the visit that guests can ask about.

mod access;
mod cache;
mod host;
mod http;
mod life;
mod sql;
mod tools;

use cardan_api::{Attributes, Phase};
use serde_json::Value;
use wasmtime::component::{ComponentType, Lift, Linker, Lower, Resource, ResourceType};

use super::call::{Ask, Entry, Failure, Guest};
use super::recognise::Interface;
use super::state::State;
use super::{smg, vllm};
use crate::dialect::Circumstances;

pub(super) use host::define;

/// The version under which interfaces are defined for guests of any compatible one.
const VERSION: &str = "0.1.0";

/// Every function that hosts call.
pub(super) fn entries() -> impl Iterator<Item = Entry> {
    let of_others =
        [smg::ON_REQUEST, smg::ON_RESPONSE, super::storage::BEFORE, super::storage::AFTER, vllm::HANDLE];
    of_others
        .into_iter()
        .chain(http::ENTRIES)
        .chain(life::ENTRIES)
        .chain(tools::ENTRIES)
        .chain(access::ENTRIES)
        .chain(cache::ENTRIES)
        .chain(sql::ENTRIES)
}

/// The host's side of `resource visit`. There is one at a time.
pub(super) struct Visit;

/// What a guest may ask about the visit that its call belongs to.
pub(super) struct VisitFacts {
    id: String,
    session: String,
    phase: Phase,
    config: Value,
    attributes: Attributes,
}

/// A verdict in attributes.
#[derive(ComponentType, Lift, Lower)]
#[component(record)]
struct Attribute {
    name: String,
    value: String,
}

#[derive(ComponentType, Lift, Lower, Clone, Copy)]
#[component(enum)]
#[repr(u8)]
enum PhaseName {
    #[component(name = "ingress")]
    Ingress,
    #[component(name = "pre-flight")]
    PreFlight,
    #[component(name = "routing")]
    Routing,
    #[component(name = "post-flight")]
    PostFlight,
    #[component(name = "background")]
    Background,
}

impl From<Phase> for PhaseName {
    fn from(phase: Phase) -> Self {
        match phase {
            Phase::Ingress => Self::Ingress,
            Phase::PreFlight => Self::PreFlight,
            Phase::Routing => Self::Routing,
            Phase::PostFlight => Self::PostFlight,
            Phase::Background => Self::Background,
        }
    }
}

/// Has the guest's questions about the visit answered until the call is over.
fn enter(guest: &mut Guest, about: Circumstances<'_>) -> Resource<Visit> {
    let facts = VisitFacts {
        id: about.visit.to_owned(),
        session: about.session.to_owned(),
        phase: about.phase,
        config: about.config.clone(),
        attributes: about.attributes.clone(),
    };
    guest.store.data_mut().visit = Some(Box::new(facts));
    Resource::new_borrow(0)
}

/// Attributes that a guest sets.
fn attributes(given: Vec<Attribute>) -> Result<Attributes, Failure> {
    let read = |attribute: Attribute| {
        let value = serde_json::from_str(&attribute.value).map_err(|why| {
            Failure::Protocol(format!("the attribute {:?} is no JSON: {why}", attribute.name))
        })?;
        Ok((attribute.name, value))
    };
    given.into_iter().map(read).collect()
}

/// What an interface of the world is defined as.
fn interface(name: &str) -> String {
    format!("cardan:plugin/{name}@{VERSION}")
}

/// Defines `types`, with the visit.
fn define_visit(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    type Of = (Resource<Visit>,);
    let mut types = linker.instance(&interface("types"))?;
    types.resource("visit", ResourceType::host::<Visit>(), |_, _| Ok(()))?;
    types.func_wrap("[method]visit.id", |store, (_,): Of| Ok((facts(store.data())?.id.clone(),)))?;
    types
        .func_wrap("[method]visit.session", |store, (_,): Of| Ok((facts(store.data())?.session.clone(),)))?;
    types.func_wrap("[method]visit.phase", |store, (_,): Of| {
        Ok((PhaseName::from(facts(store.data())?.phase),))
    })?;
    types.func_wrap("[method]visit.config", |store, (_,): Of| {
        Ok((facts(store.data())?.config.to_string(),))
    })?;
    types.func_wrap("[method]visit.attribute", |store, (_, name): (Resource<Visit>, String)| {
        let value = facts(store.data())?.attributes.get(&name);
        Ok((value.map(ToString::to_string),))
    })?;
    types.func_wrap("[method]visit.attributes", |store, (_,): Of| {
        let all = facts(store.data())?.attributes.iter();
        let all = all.map(|(name, value)| Attribute { name: name.clone(), value: value.to_string() });
        Ok((all.collect::<Vec<_>>(),))
    })
}

fn facts(state: &State) -> wasmtime::Result<&VisitFacts> {
    state.visit.as_deref().ok_or_else(|| wasmtime::format_err!("the visit is over"))
}

/// What a guest returned, or its own error.
fn said<T>(result: Result<T, String>) -> Result<T, Failure> {
    result.map_err(Failure::Reported)
}
