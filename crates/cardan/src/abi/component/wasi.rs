//! WASI 0.2 for guests: `wasmtime-wasi`, as far as it is granted.

use std::sync::Arc;

use cardan_api::Capability;
use wasmtime::component::types::{ComponentInstance, ComponentItem};
use wasmtime::component::{Component, Linker, LinkerInstance, ResourceType};
use wasmtime_wasi::p2::{self, DynInputStream, DynOutputStream, DynPollable, IoError};

use super::state::State;
use crate::grants::Authority;

/// Stands for any resource that nobody can make.
struct Withheld;

/// What has to be granted for an interface, beside those that everybody has. What is not listed needs nothing.
fn needs(interface: &str) -> Option<Capability> {
    match interface {
        "wasi:clocks/wall-clock" | "wasi:clocks/monotonic-clock" => Some(Capability::Clock),
        "wasi:random/random" | "wasi:random/insecure" | "wasi:random/insecure-seed" => {
            Some(Capability::Random)
        }
        _ => None,
    }
}

/// Packages that are there, whichever version of WASI 0.2 a guest names.
const THERE: [&str; 6] =
    ["wasi:cli/", "wasi:clocks/", "wasi:filesystem/", "wasi:io/", "wasi:random/", "wasi:sockets/"];

/// Defines WASI. Files, environment and sockets are as the guest's context has them: nothing unless granted.
pub(super) fn define(
    linker: &mut Linker<State>,
    component: &Component,
    authority: &Arc<Authority>,
) -> wasmtime::Result<()> {
    p2::add_to_linker_async(linker)?;
    let ty = component.component_type();
    let engine = component.engine().clone();
    for (name, item) in ty.imports(&engine) {
        let ComponentItem::ComponentInstance(instance) = item.ty else { continue };
        let Some(withheld) = withheld(name, authority) else { continue };
        let mut defined = linker.instance(name)?;
        refuse(&mut defined, &instance, &withheld, (&engine, authority))?;
    }
    Ok(())
}

/// Why an imported interface is there and does nothing.
#[derive(Clone)]
enum Withholding {
    Not(Capability),
    /// Nobody has it. Toolchains import it all the same.
    Nobody,
}

fn withheld(name: &str, authority: &Authority) -> Option<Withholding> {
    let bare = name.split_once('@').map_or(name, |(bare, _)| bare);
    if !bare.starts_with("wasi:") {
        return None;
    }
    if !THERE.iter().any(|package| bare.starts_with(package)) {
        return Some(Withholding::Nobody);
    }
    needs(bare).filter(|capability| !authority.grants().has(*capability)).map(Withholding::Not)
}

/// Defines an interface whose functions end the call.
fn refuse(
    defined: &mut LinkerInstance<'_, State>,
    instance: &ComponentInstance,
    withheld: &Withholding,
    (engine, authority): (&wasmtime::Engine, &Arc<Authority>),
) -> wasmtime::Result<()> {
    for (name, item) in instance.exports(engine) {
        match item.ty {
            ComponentItem::ComponentFunc(_) => {
                let (what, withheld, authority) = (name.to_owned(), withheld.clone(), authority.clone());
                defined.func_new(name, move |_, _, _, _| {
                    Err(match withheld {
                        Withholding::Not(capability) => authority.denied(&what, capability),
                        Withholding::Nobody => authority.denied_to_all(&what),
                    }
                    .into())
                })?;
            }
            ComponentItem::Resource(_) => defined.resource(name, resource(name), |_, _| Ok(()))?,
            _ => {}
        }
    }
    Ok(())
}

/// The type that a resource's name means everywhere in WASI 0.2.
fn resource(name: &str) -> ResourceType {
    match name {
        "pollable" => ResourceType::host::<DynPollable>(),
        "input-stream" => ResourceType::host::<DynInputStream>(),
        "output-stream" => ResourceType::host::<DynOutputStream>(),
        "error" | "io-error" => ResourceType::host::<IoError>(),
        _ => ResourceType::host::<Withheld>(),
    }
}
