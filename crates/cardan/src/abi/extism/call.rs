//! A live instance, and one call to it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use cardan_api::Fault;
use wasmtime::{Func, Instance, ModuleExport, Store, TypedFunc, Val, WasmParams, WasmResults};

use super::codec::{self, Report};
use super::core_dump;
use super::exports::{Export, Shape};
use super::kernel::Kernel;
use super::rewind::Rewindable;
use super::state::{Heritage, LastResponse, State};
use super::wait::Wait;
use crate::abi::capability;
use crate::abi::lowering::host::Stage;
use crate::limits::{CancelHandle, Pace};
use crate::runtime::Nested;

/// Guests that may be inside of one another on one thread: an embedder's function may call a plugin,
/// whose call may end in the same function, and every level takes some of the thread's stack.
const NESTED_MAX: u32 = 16;

/// Calls after which an instance is worn whose libraries leave instances behind. A store has room for 10,000
/// of them, and a call may make several.
const WORN_CALLS: u32 = 500;

/// A live instance of a plugin. Calls are exclusive by type: an instance is never entered twice.
pub(crate) struct Guest {
    pub(super) store: Store<State>,
    pub(super) main: Instance,
    pub(super) kernel: Kernel,
    pub(super) calls: u32,
    /// `_start` has run: the next call wants a new instance.
    pub(super) spent: bool,
    /// What it takes to put this instance back to its beginning, where that can be done.
    pub(super) rewindable: Option<Rewindable>,
    /// The function that was called last, which most often is called next.
    pub(super) last: Option<(usize, TypedFunc<(), i32>)>,
}

/// One call to make.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Call<'a> {
    pub(crate) export: &'a str,
    pub(crate) input: &'a [u8],
    pub(crate) deadline: Option<Duration>,
}

impl Guest {
    /// Calls an export. What the call did to the instance stays, as Extism promises, also after a trap;
    /// it is the caller who decides whether the instance is used again.
    pub(crate) async fn call(&mut self, call: Call<'_>) -> Report {
        if !self.store.data().shared.is_dispatched(call.export) {
            let report = self.enter(call).await;
            let decided = report.fault.is_none() && report.code == 0;
            return if decided { Report { code: self.store.data().stage.code, ..report } } else { report };
        }
        let input = capability::framed(call.export, call.input);
        let report = self.enter(Call { export: capability::CALL, input: &input, ..call }).await;
        capability::unframed(report, self.store.data().stage.code)
    }

    async fn enter(&mut self, call: Call<'_>) -> Report {
        let shared = &self.store.data().shared;
        let Some(export) = shared.exports.get(call.export) else {
            return Report::refused(Fault::Protocol, format!("Function not found: {}", call.export));
        };
        if Nested::depth() >= NESTED_MAX {
            return Report::refused(
                Fault::Busy,
                format!("more than {NESTED_MAX} calls inside of each other"),
            );
        }
        let pace = shared.pace(call.deadline);
        // A call inside of another has a stack of its own, since the other one's is not endless.
        let pace = if Nested::depth() > 0 { Pace::Suspendable } else { pace };
        let (fuel, output_bytes_max) = (shared.limits.fuel, shared.limits.output_bytes_max);
        let ticker = self.store.data().clock.ticker().clone();
        let running = ticker.enter();
        let state = self.store.data_mut();
        // The last call may have been given up before its end.
        state.end_log();
        // Made for the call and not before: its clock begins with it, and its directories are today's.
        if let (None, Some(grant)) = (&state.wasi, &state.shared.wasi) {
            match grant.context() {
                Ok(context) => state.wasi = Some(context),
                Err(error) => return Report::refused(Fault::Host, format!("{error:#}")),
            }
        }
        let slice = state.clock.begin(&running, call.deadline, pace);
        self.store.set_epoch_deadline(slice);
        if let Some(fuel) = fuel
            && let Err(error) = self.store.set_fuel(fuel)
        {
            return Report::refused(Fault::Host, error.to_string());
        }
        let lowered = self.store.data().shared.lowered;
        let state = self.store.data_mut();
        (state.answer, state.stage, state.allocates) = (None, Stage::default(), false);
        state.input = if lowered { call.input.to_vec() } else { Vec::new() };
        let input = if lowered { &[] } else { call.input };
        match self.kernel.begin(&mut self.store, input) {
            Ok(true) => {}
            Ok(false) => return Report::refused(Fault::Memory, "failed to allocate extism memory"),
            Err(error) if codec::classify(&error) == Fault::Memory => {
                let why = codec::all_taken(&error);
                let why = why.unwrap_or_else(|| "failed to allocate extism memory".to_owned());
                return Report::refused(Fault::Memory, why);
            }
            Err(error) => return Report::refused(Fault::Host, codec::text(&error)),
        }
        self.calls = self.calls.saturating_add(1);
        let result = self.run(call.export, export, pace).await;
        self.store.data_mut().clock.end();
        self.store.data_mut().end_log();
        if call.export == "_start" {
            self.spent = true;
            self.store.data().vars.clear();
        }
        let report = Report::read(&mut self.store, self.kernel, &result, output_bytes_max);
        match report.fault {
            Some(_) => self.leave_core_dump(result.as_ref().err()),
            None => self.store.data().shared.returned(),
        }
        report
    }

    async fn run(&mut self, name: &str, export: Export, pace: Pace) -> wasmtime::Result<i32> {
        let refused = |why: String| Err(wasmtime::Error::msg(why));
        match export.shape {
            Shape::Unit => self.invoke::<(), ()>(export.id, (), pace).await.map(|()| 0),
            Shape::Code => {
                let function = match self.last.take().filter(|(index, _)| *index == export.index) {
                    Some((_, function)) => function,
                    None => self.function(export.id)?.typed(&self.store)?,
                };
                let code = self.proceed(&function, (), pace).await;
                self.last = Some((export.index, function));
                code
            }
            Shape::Results(n) => refused(format!("Function {name} has {n} results, expected 0 or 1")),
            Shape::Parameters(n) => refused(format!("expected {n} arguments, got 0")),
            Shape::OtherResult => {
                // As the reference does it: the function runs, what it returns is lost.
                let function = self.function(export.id)?;
                let mut lost = [Val::I32(0)];
                let wait = Wait::of(&self.store);
                wait.within(function.call_async(&mut self.store, &[], &mut lost)).await.map(|()| -1)
            }
        }
    }

    /// Calls one function of the guest, on this stack or on one of its own. The clock has to run.
    pub(super) async fn invoke<P, R>(
        &mut self,
        id: ModuleExport,
        params: P,
        pace: Pace,
    ) -> wasmtime::Result<R>
    where
        P: WasmParams + Sync,
        R: WasmResults + Sync,
    {
        let function = self.function(id)?.typed(&self.store)?;
        self.proceed(&function, params, pace).await
    }

    async fn proceed<P, R>(
        &mut self,
        function: &TypedFunc<P, R>,
        params: P,
        pace: Pace,
    ) -> wasmtime::Result<R>
    where
        P: WasmParams + Sync,
        R: WasmResults + Sync,
    {
        match pace {
            Pace::Inline => {
                let _nested = Nested::enter();
                function.call(&mut self.store, params)
            }
            Pace::Suspendable => {
                let wait = Wait::of(&self.store);
                wait.within(function.call_async(&mut self.store, params)).await
            }
        }
    }

    fn function(&mut self, id: ModuleExport) -> wasmtime::Result<Func> {
        self.main
            .get_module_export(&mut self.store, &id)
            .and_then(wasmtime::Extern::into_func)
            .ok_or_else(|| wasmtime::format_err!("a function is gone from its module"))
    }

    /// What is left of the time that the instance may take now.
    pub(crate) fn time_left(&self) -> Option<Duration> {
        self.store.data().clock.left()
    }

    /// Forgets input and output of a call that belongs to the start.
    pub(crate) fn forget_call(&mut self) -> wasmtime::Result<()> {
        self.calls = 0;
        self.store.data_mut().http = LastResponse::default();
        self.kernel.begin(&mut self.store, &[]).map(drop)
    }

    /// If somebody asked for one.
    fn leave_core_dump(&mut self, cause: Option<&wasmtime::Error>) {
        let core_dumps = self.store.data().shared.core_dumps.clone();
        if core_dumps.is_due() {
            core_dumps.keep(core_dump::write(&mut self.store, &self.main, self.kernel, cause));
        }
    }

    /// Calls will leave what they did.
    pub(crate) fn kept_as_it_is(mut self) -> Self {
        self.rewindable = None;
        self
    }

    pub(crate) fn cancel_handle(&self) -> CancelHandle {
        self.store.data().clock.cancel_handle()
    }

    pub(crate) fn set_config(&mut self, config: Arc<BTreeMap<String, String>>) {
        self.store.data_mut().config = config;
    }

    /// What the instance in this one's place will share with it.
    pub(crate) fn heritage(&self) -> Heritage {
        let State { vars, config, .. } = self.store.data();
        Heritage { vars: vars.clone(), config: config.clone(), cancelled: self.cancel_handle() }
    }

    /// Whether so much was left behind in the store that the instance had better not be shared any longer.
    pub(crate) fn is_worn(&self) -> bool {
        let State { shared, meter, .. } = self.store.data();
        shared.leaves_instances && (self.calls >= WORN_CALLS || meter.is_crowded())
    }

    /// Whether the next call needs another instance.
    pub(crate) fn is_spent(&self) -> bool {
        self.spent
    }
}
