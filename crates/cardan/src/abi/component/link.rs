//! From a component's bytes to a template.

use std::collections::BTreeMap;
use std::sync::Arc;

use cardan_api::lifecycle::LifeEvent;
use cardan_api::{InstanceMode, Limits};
use serde_json::Value;
use wasmtime::component::{Component, InstancePre, Linker};

use super::call::Entries;
use super::recognise::Found;
use super::state::{Shared, State};
use super::template::Template;
use super::{native, wasi};
use crate::Error;
use crate::abi::extism::GuestOutput;
use crate::abi::extism::wasi::WasiGrant;
use crate::engine::{Engine, Room};
use crate::grants::Authority;
use crate::limits::Tally;

/// What the compile cache keeps components under.
const RECIPE: &str = "component";

/// What a plugin that is a component is linked from.
pub(crate) struct Linking {
    pub(crate) bytes: Vec<u8>,
    /// Of the bytes.
    pub(crate) digest: String,
    pub(crate) found: Found,
    pub(crate) mode: InstanceMode,
    pub(crate) limits: Limits,
    pub(crate) config: BTreeMap<String, String>,
    pub(crate) config_document: Value,
    pub(crate) life: LifeEvent,
    pub(crate) authority: Arc<Authority>,
    /// `None`: WASI is not defined.
    pub(crate) output: Option<GuestOutput>,
    pub(crate) tally: Arc<Tally>,
}

impl Linking {
    /// Compiles and links.
    pub(crate) fn link(self, engine: &Engine) -> Result<Template, Error> {
        let component = self.compile(engine)?;
        let pre = self.instance_pre(&component)?;
        let entries = Entries::of(&pre, &self.found.exports, native::entries())?;
        let wasi = WasiGrant::new(self.authority.grants(), self.output.unwrap_or_default())?;
        let shared = Shared {
            limits: self.limits,
            log: self.authority.log().clone(),
            authority: self.authority,
            tally: self.tally,
            mode: self.mode,
            entries,
            config: Arc::new(self.config),
            config_document: self.config_document,
            life: self.life,
            wasi,
            haste: Arc::default(),
        };
        Ok(Template::new(engine.clone(), pre, shared))
    }

    fn compile(&self, engine: &Engine) -> Result<Component, Error> {
        let room = engine.room_of_components(&self.limits);
        let component = self.compile_in(engine, room)?;
        if room == Room::Components && !Engine::has_room_for(&component) {
            return self.compile_in(engine, Room::Roomy);
        }
        Ok(component)
    }

    fn compile_in(&self, engine: &Engine, room: Room) -> Result<Component, Error> {
        let wasmtime = engine.wasmtime(room)?;
        let compile = || Component::from_binary(wasmtime, &self.bytes).map_err(|error| format!("{error:#}"));
        let compiled = match engine.cache() {
            Some(cache) => cache.get_or_compile(wasmtime, &self.digest, RECIPE, compile),
            None => compile(),
        };
        compiled.map_err(Error::format)
    }

    fn instance_pre(&self, component: &Component) -> Result<InstancePre<State>, Error> {
        let link = || {
            let mut linker = Linker::new(component.engine());
            linker.allow_shadowing(true);
            if self.output.is_some() {
                wasi::define(&mut linker, component, &self.authority)?;
            }
            native::define(&mut linker)?;
            linker.instantiate_pre(component)
        };
        link().map_err(|error: wasmtime::Error| Error::link(format!("{error:#}")))
    }
}
