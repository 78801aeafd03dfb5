//! A linked component, which instances are made of.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use cardan_api::Fault;
use cardan_api::Flow;
use cardan_api::lifecycle::PluginLoad;
use wasmtime::Store;
use wasmtime::component::InstancePre;

use super::call::{self, Ask, Failure, Guest};
use super::recognise::Interface;
use super::state::{Shared, State};
use crate::Error;
use crate::abi::extism::codec;
use crate::abi::extism::wait::Wait;
use crate::dialect::Circumstances;
use crate::engine::ticker::Running;
use crate::engine::{self, Engine};
use crate::error::ErrorKind;
use crate::limits::{self, CancelHandle, Clock, MemoryFull, Meter, Pace};

/// A linked component: instances come from here.
pub(crate) struct Template {
    shared: Arc<Shared>,
    engine: Engine,
    pre: InstancePre<State>,
    /// An instance's functions were seen to have the types that they are called with.
    checked: AtomicBool,
}

impl Template {
    pub(super) fn new(engine: Engine, pre: InstancePre<State>, shared: Shared) -> Self {
        Self { shared: Arc::new(shared), engine, pre, checked: AtomicBool::new(false) }
    }

    /// The interface through which it is asked at a hook.
    pub(crate) fn entry_of<H: Ask>(&self) -> Option<&'static str> {
        H::offered(&self.shared.entries.interfaces()).map(Interface::name)
    }

    /// How many of the pool's instances one of ours takes.
    pub(crate) fn pool_slots(&self) -> u32 {
        self.engine.pool_slots_of_component(self.pre.component())
    }

    /// Makes an instance and initialises it.
    pub(crate) async fn instantiate(&self) -> Result<Guest, Error> {
        let ticker = self.engine.ticker().clone();
        let running = ticker.enter();
        let mut store = self.store(&running)?;
        let wait = Wait::interrupted(&store.data().clock);
        let instance = wait.within(self.pre.instantiate_async(&mut store)).await;
        let instance = instance.map_err(|error: wasmtime::Error| start_error(&error))?;
        store.data_mut().meter.started();
        let mut guest = Guest { store, instance, exchange: None };
        if !self.checked.load(Ordering::Relaxed) {
            guest.check()?;
            self.checked.store(true, Ordering::Relaxed);
        }
        if guest.has(Interface::Life) {
            self.load(&mut guest).await?;
        }
        guest.store.data_mut().end_call();
        Ok(guest)
    }

    async fn load(&self, guest: &mut Guest) -> Result<(), Error> {
        let about = Circumstances::of_life(&self.shared.config_document);
        let verdict =
            PluginLoad::ask(guest, &self.shared.life, about).await.map_err(|failure| match &failure {
                Failure::Stopped(error) => start_error(error),
                Failure::Reported(_) | Failure::Protocol(_) => call::error(&failure),
            })?;
        match verdict.flow {
            Flow::Continue => Ok(()),
            Flow::Stop(refusal) => {
                Err(Error::new(ErrorKind::Refused, format!("it refuses to be loaded: {}", refusal.message)))
            }
        }
    }

    fn store(&self, running: &Running<'_>) -> Result<Store<State>, Error> {
        let shared = &self.shared;
        let limits = &shared.limits;
        let mut clock =
            Clock::new(self.engine.ticker().clone(), shared.haste.clone(), CancelHandle::default());
        let slice = clock.begin(running, Some(limits.start_deadline), Pace::Suspendable);
        let meter = Meter::new(limits, self.engine.memory(), shared.tally.clone());
        let mut store = Store::new(self.pre.engine(), State::new(shared.clone(), clock, meter));
        limits::limit(&mut store);
        // What a guest returns, or passes at once: each string of a list may be all of its memory.
        store.set_hostcall_fuel(usize::try_from(limits.output_bytes_max).unwrap_or(usize::MAX));
        store.set_epoch_deadline(slice);
        if let Some(fuel) = limits.fuel {
            store.set_fuel(fuel).map_err(|error| Error::host(error.to_string()))?;
        }
        let opened = store.data_mut().open_files();
        opened.map_err(|error| Error::source(format!("{error:#}")))?;
        Ok(store)
    }
}

fn start_error(error: &wasmtime::Error) -> Error {
    if engine::is_pool_full(error) {
        return Error::call(
            Fault::Busy,
            "all instances of this process are in use; raise engine.instances (EngineConfig::pool_instances) \
             to allow more",
        );
    }
    if let Some(full) = error.downcast_ref::<MemoryFull>() {
        return Error::call(Fault::Busy, full.to_string());
    }
    let (fault, text) = call::explain(error);
    let text = if text == "timeout" { "timeout while starting".to_owned() } else { text };
    Error::new(ErrorKind::Start(fault), text).with_backtrace(codec::backtrace(error))
}
