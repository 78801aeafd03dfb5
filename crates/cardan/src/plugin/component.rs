//! Loading a component.

use std::sync::Arc;

use arc_swap::ArcSwap;
use cardan_api::NamedHook;
use cardan_api::lifecycle::LifeEvent;
use serde_json::Value;

use super::builder::PluginBuilder;
use super::{Admitted, Import, Inspection, Plugin, Serving};
use crate::abi::component::{Found, Linking, recognise};
use crate::abi::extism::{CoreDumps, SnapshotState};
use crate::abi::{Abi, Template};
use crate::engine::Tier;
use crate::limits::Tally;
use crate::pool::Pool;
use crate::{Error, module, runtime};

/// What a component is, read from its bytes.
pub(super) fn examine(bytes: &[u8]) -> Result<(Inspection, Found), Error> {
    let found = recognise(bytes)?;
    let is_bindable = |hook: &&str| NamedHook::find(hook).is_some_and(NamedHook::is_bindable);
    let (hooks, lifecycle) = found.hooks().into_iter().partition(is_bindable);
    let import = |name: &String| {
        let (module, name) = name.split_once('/').unwrap_or(("", name));
        Import { module: module.to_owned(), name: name.to_owned() }
    };
    let inspection = Inspection {
        abi: Abi::Component,
        dialect: None,
        hooks,
        lifecycle,
        exports: found.exports.clone(),
        imports: found.imports.iter().map(import).collect(),
        memories: found.memories.clone(),
        capabilities: found.capabilities(),
        digest: module::digest(bytes),
        size_bytes: bytes.len() as u64,
        modules: 1,
    };
    Ok((inspection, found))
}

impl PluginBuilder {
    pub(super) fn load_component(mut self, name: &Arc<str>, bytes: Vec<u8>) -> Result<Plugin, Error> {
        self.check_fit_for_component()?;
        let (inspection, found) = examine(&bytes)?;
        self.check_digest(&inspection.digest)?;
        let authority = self.authority(name);
        let log = authority.log().clone();
        let (plan, deadline, tally) = (self.pool_plan(), self.limits.deadline, Arc::<Tally>::default());
        let life = LifeEvent { plugin: name.to_string(), version: self.version, reason: self.reason };
        let has_life = inspection.lifecycle.contains(&"plugin.load");
        let linking = Linking {
            bytes,
            digest: inspection.digest.clone(),
            found,
            mode: self.mode,
            limits: self.limits,
            config: self.config,
            config_document: Value::Object(self.config_values),
            life,
            authority: Arc::new(authority),
            output: self.wasi,
            tally: tally.clone(),
        };
        let template = linking.link(&self.engine)?;
        let pool = Pool::new(Template::Component(template), plan);
        pool.stock(runtime::block_on(pool.make())?);
        let snapshot = if has_life {
            SnapshotState::Refused("the memory inside of a component cannot be taken".to_owned())
        } else {
            SnapshotState::NotNeeded
        };
        let admitted = Admitted {
            name: name.clone(),
            mode: self.mode,
            deadline,
            dialect: None,
            inspection,
            log,
            serving: ArcSwap::from_pointee(Serving { pool, tier: Tier::Optimised, snapshot }),
            core_dumps: Arc::<CoreDumps>::default(),
            tally,
        };
        Ok(Plugin { admitted: Arc::new(admitted) })
    }

    /// Refuses options that could do nothing.
    fn check_fit_for_component(&self) -> Result<(), Error> {
        if self.abi.is_some_and(|abi| abi != Abi::Component) {
            return Err(Error::format(module::COMPONENT_GIVEN));
        }
        // What a manifest of another system implies is for modules.
        if let Some(dialect) = self.dialect.filter(|_| self.abi_implied.is_none()) {
            return Err(Error::format(format!(
                "a component speaks no dialect, since its world has types: take out `dialect: {dialect}`"
            )));
        }
        if let Some(function) = self.functions.first() {
            let name = &function.name;
            return Err(Error::link(format!(
                "a component cannot import the embedding program's function {name}"
            )));
        }
        Ok(())
    }
}
