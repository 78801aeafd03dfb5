//! A live instance, and one question to it.

use std::future::Future;
use std::time::Duration;

use cardan_api::{Fault, Hook, InstanceMode, Verdict};
use wasmtime::Store;
use wasmtime::component::{
    ComponentExportIndex, ComponentNamedList, Func, Instance, InstancePre, Lift, Lower, ResourceAny,
};

use super::recognise::Interface;
use super::state::State;
use crate::Error;
use crate::abi::extism::codec;
use crate::abi::extism::wait::Wait;
use crate::dialect::{Circumstances, Malformed};
use crate::error::ErrorKind;
use crate::limits::{Exceeded, Pace};
use crate::runtime::Nested;

/// Guests that may be inside of one another on one thread.
const NESTED_MAX: u32 = 16;

/// What a guest's own error counts as.
const GUEST_ERROR: i32 = 1;

/// A live instance of a component. Calls are exclusive by type: an instance is never entered twice.
pub struct Guest {
    pub(super) store: Store<State>,
    pub(super) instance: Instance,
    /// What the guest keeps of the exchange that its visit is.
    pub(super) exchange: Option<ResourceAny>,
}

/// A function that hosts call.
#[derive(Clone, Copy)]
pub(super) struct Entry {
    interface: Interface,
    function: &'static str,
    check: fn(Func, &Store<State>) -> wasmtime::Result<()>,
}

impl Entry {
    pub(super) const fn new<P, R>(interface: Interface, function: &'static str) -> Self
    where
        P: ComponentNamedList + Lower,
        R: ComponentNamedList + Lift,
    {
        Self { interface, function, check: |func, store| func.typed::<P, R>(store).map(drop) }
    }
}

/// Those of the functions that a component exports.
pub(super) struct Entries(Vec<(Entry, ComponentExportIndex)>);

impl Entries {
    pub(super) fn of(
        pre: &InstancePre<State>,
        exports: &[String],
        known: impl Iterator<Item = Entry>,
    ) -> Result<Self, Error> {
        let component = pre.component();
        let mut entries = Vec::new();
        for entry in known {
            let Some(name) = exports.iter().find(|name| Interface::named(name) == Some(entry.interface))
            else {
                continue;
            };
            let instance = component.get_export_index(None, name);
            let function = instance.and_then(|it| component.get_export_index(Some(&it), entry.function));
            let Some(function) = function else {
                let what = entry.function;
                return Err(Error::link(format!("its {name} has no function {what}")));
            };
            entries.push((entry, function));
        }
        Ok(Self(entries))
    }

    pub(super) fn has(&self, interface: Interface) -> bool {
        self.0.iter().any(|(entry, _)| entry.interface == interface)
    }

    pub(super) fn interfaces(&self) -> Vec<Interface> {
        self.0.iter().map(|(entry, _)| entry.interface).collect()
    }

    fn find(&self, wanted: &Entry) -> Option<ComponentExportIndex> {
        let found = self
            .0
            .iter()
            .find(|(entry, _)| entry.interface == wanted.interface && entry.function == wanted.function);
        found.map(|(_, index)| *index)
    }
}

/// Why a guest has no verdict.
#[derive(Debug)]
pub enum Failure {
    /// It was stopped.
    Stopped(wasmtime::Error),
    /// It reports an error itself, in these words.
    Reported(String),
    /// What it returned cannot be meant.
    Protocol(String),
}

impl From<wasmtime::Error> for Failure {
    fn from(error: wasmtime::Error) -> Self {
        Self::Stopped(error)
    }
}

impl From<Malformed> for Failure {
    fn from(why: Malformed) -> Self {
        Self::Protocol(why.0)
    }
}

/// A hook that components can be asked at.
pub trait Ask: Hook {
    /// Through which of these interfaces a component is asked, if any.
    fn offered(interfaces: &[Interface]) -> Option<Interface>;

    /// Asks an instance, whose clock runs.
    fn ask<'a>(
        guest: &'a mut Guest,
        event: &'a Self::Event,
        about: Circumstances<'a>,
    ) -> impl Future<Output = Result<Verdict<Self>, Failure>> + Send + 'a;
}

impl Guest {
    /// Asks at a hook. It is the caller who decides whether the instance is used again.
    pub(crate) async fn ask<H: Ask>(
        &mut self,
        event: &H::Event,
        about: Circumstances<'_>,
        deadline: Option<Duration>,
    ) -> Result<Verdict<H>, Error> {
        if Nested::depth() >= NESTED_MAX {
            let why = format!("more than {NESTED_MAX} calls inside of each other");
            return Err(Error::call(Fault::Busy, why));
        }
        let ticker = self.store.data().clock.ticker().clone();
        let running = ticker.enter();
        let state = self.store.data_mut();
        // The last call may have been given up before its end.
        state.end_call();
        state.open_files().map_err(|error| Error::call(Fault::Host, format!("{error:#}")))?;
        let fuel = state.shared.limits.fuel;
        let slice = state.clock.begin(&running, deadline, Pace::Suspendable);
        self.store.set_epoch_deadline(slice);
        if let Some(fuel) = fuel {
            self.store.set_fuel(fuel).map_err(|error| Error::host(error.to_string()))?;
        }
        let asked = H::ask(self, event, about).await;
        let state = self.store.data_mut();
        state.clock.end();
        state.end_call();
        asked.map_err(|failure| error(&failure))
    }

    /// Whether it has this interface.
    pub(super) fn has(&self, interface: Interface) -> bool {
        self.store.data().shared.entries.has(interface)
    }

    pub(super) fn keeps_exchange(&self) -> bool {
        self.store.data().shared.mode == InstanceMode::Visit
    }

    /// Calls one function. The clock has to run.
    pub(super) async fn call<P, R>(&mut self, entry: Entry, params: P) -> wasmtime::Result<R>
    where
        P: ComponentNamedList + Lower + Send + Sync,
        R: Lift + Send + Sync + 'static,
    {
        let function = self.function(&entry)?.typed::<P, (R,)>(&self.store)?;
        let wait = Wait::interrupted(&self.store.data().clock);
        let (result,) = wait.within(function.call_async(&mut self.store, params)).await?;
        Ok(result)
    }

    /// Whether its functions have the types that they are called with.
    pub(super) fn check(&mut self) -> Result<(), Error> {
        let shared = self.store.data().shared.clone();
        for (entry, index) in &shared.entries.0 {
            let function = self.instance.get_func(&mut self.store, index);
            let checked = match function {
                Some(function) => (entry.check)(function, &self.store),
                None => Err(wasmtime::format_err!("it is not there")),
            };
            checked.map_err(|why| {
                let (interface, function) = (entry.interface.name(), entry.function);
                Error::link(format!("its {interface}#{function} is not of the type it has here: {why:#}"))
            })?;
        }
        Ok(())
    }

    fn function(&mut self, entry: &Entry) -> wasmtime::Result<Func> {
        let index = self.store.data().shared.entries.find(entry);
        let function = index.and_then(|index| self.instance.get_func(&mut self.store, index));
        function.ok_or_else(|| wasmtime::format_err!("it exports no {}", entry.interface.name()))
    }
}

/// What a failure is for the host.
pub(super) fn error(failure: &Failure) -> Error {
    let stopped = match failure {
        Failure::Stopped(error) => error,
        Failure::Reported(words) => return Error::new(ErrorKind::Guest(GUEST_ERROR), words.clone()),
        Failure::Protocol(why) => return Error::call(Fault::Protocol, why.clone()),
    };
    let (fault, text) = explain(stopped);
    Error::call(fault, text).with_backtrace(codec::backtrace(stopped))
}

/// What stopped a guest.
pub(super) fn explain(stopped: &wasmtime::Error) -> (Fault, String) {
    if is_too_much(stopped) {
        let why = "what it returned or passed at once is over the limit of limits.output (Limits::output_bytes_max)";
        return (Fault::Memory, why.to_owned());
    }
    let text = match (stopped.downcast_ref::<Exceeded>(), stopped.downcast_ref::<wasmtime::Trap>()) {
        (Some(exceeded), _) => exceeded.to_string(),
        (None, Some(wasmtime::Trap::Interrupt)) => "timeout".to_owned(),
        (None, Some(wasmtime::Trap::OutOfFuel)) => "plugin ran out of fuel".to_owned(),
        (None, _) => codec::brief_text(stopped),
    };
    (codec::classify(stopped), text)
}

/// wasmtime has no type for this error.
fn is_too_much(stopped: &wasmtime::Error) -> bool {
    stopped.chain().any(|cause| cause.to_string().contains("fuel allocated for hostcalls"))
}
