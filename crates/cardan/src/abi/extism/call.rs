//! A live instance, and one call to it.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use cardan_api::Fault;
use wasmtime::{Instance, ModuleExport, Store, TypedFunc, WasmParams, WasmResults};
use wasmtime_wasi::p1::WasiP1Ctx;

use super::codec::{self, Report};
use super::kernel::Kernel;
use super::link::{Export, Shape, Shared, Template};
use super::vars::Vars;
use crate::limits::{CancelHandle, Clock, Meter, Metered, Pace};

/// How much longer than its deadline a waiting call may take: the clock's own resolution, twice.
const DEADLINE_SLACK: Duration = Duration::from_millis(2);

/// What a store of this convention holds.
pub(crate) struct State {
    pub(super) shared: Arc<Shared>,
    pub(super) kernel: Option<Kernel>,
    pub(super) config: Arc<BTreeMap<String, String>>,
    pub(super) vars: Arc<Vars>,
    pub(super) http: LastResponse,
    pub(super) wasi: Option<Box<WasiP1Ctx>>,
    pub(super) clock: Clock,
    pub(super) meter: Meter,
}

/// What guests can ask about their last HTTP request, also in a later call.
#[derive(Debug, Default)]
pub(super) struct LastResponse {
    pub(super) status: u16,
    /// A JSON object.
    pub(super) headers: Option<String>,
}

impl State {
    pub(super) fn kernel(&self) -> wasmtime::Result<Kernel> {
        self.kernel.ok_or_else(|| wasmtime::format_err!("the plugin's memory is not there yet"))
    }
}

impl Metered for State {
    fn clock(&mut self) -> &mut Clock {
        &mut self.clock
    }

    fn meter(&mut self) -> &mut Meter {
        &mut self.meter
    }
}

/// A live instance of a plugin. Calls are exclusive by type: an instance is never entered twice.
pub(crate) struct Guest {
    pub(super) store: Store<State>,
    pub(super) main: Instance,
    pub(super) kernel: Kernel,
    /// `_start` has run: the next call wants a new instance.
    pub(super) spent: bool,
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
    pub(crate) async fn call(&mut self, template: &Template, call: Call<'_>) -> Report {
        let Some(export) = template.export(call.export) else {
            return Report::refused(Fault::Protocol, format!("Function not found: {}", call.export));
        };
        let pace = template.pace();
        let slice = self.store.data_mut().clock.begin(call.deadline, pace);
        self.store.set_epoch_deadline(slice);
        if let Some(fuel) = template.shared().limits.fuel
            && let Err(error) = self.store.set_fuel(fuel)
        {
            return Report::refused(Fault::Host, error.to_string());
        }
        match self.kernel.begin(&mut self.store, call.input) {
            Ok(true) => {}
            Ok(false) => return Report::refused(Fault::Memory, "failed to allocate extism memory"),
            Err(error) if codec::classify(&error) == Fault::Memory => {
                return Report::refused(Fault::Memory, "oom");
            }
            Err(error) => return Report::refused(Fault::Host, codec::text(&error)),
        }
        let result = self.run(export, pace).await;
        self.spent = call.export == "_start";
        Report::read(&self.store, self.kernel, result, template.shared().limits.output_bytes_max)
    }

    async fn run(&mut self, export: &Export, pace: Pace) -> wasmtime::Result<i32> {
        let refused = |why: String| Err(wasmtime::Error::msg(why));
        match export.shape {
            Shape::Unit => self.enter::<(), ()>(export.id, (), pace).await.map(|()| 0),
            Shape::Code => self.enter::<(), i32>(export.id, (), pace).await,
            Shape::Results(n) => {
                refused(format!("Function {} has {n} results, expected 0 or 1", export.name))
            }
            Shape::Parameters(n) => refused(format!("expected {n} arguments, got 0")),
            Shape::OtherResult => {
                refused(format!("Function {} returns neither nothing nor an i32", export.name))
            }
        }
    }

    /// Calls one function of the guest, on this stack or on one of its own.
    pub(super) async fn enter<P, R>(&mut self, id: ModuleExport, params: P, pace: Pace) -> wasmtime::Result<R>
    where
        P: WasmParams + Sync,
        R: WasmResults + Sync,
    {
        let function =
            self.main.get_module_export(&mut self.store, &id).and_then(wasmtime::Extern::into_func);
        let function = function.ok_or_else(|| wasmtime::format_err!("a function is gone from its module"))?;
        let function: TypedFunc<P, R> = function.typed(&self.store)?;
        let ticker = self.store.data().clock.ticker().clone();
        let _running = ticker.enter();
        match pace {
            Pace::Inline => function.call(&mut self.store, params),
            Pace::Suspendable => {
                let left = self.store.data().clock.left().filter(|_| self.store.data().shared.may_wait);
                within(left, function.call_async(&mut self.store, params)).await
            }
        }
    }

    pub(crate) fn cancel_handle(&self) -> CancelHandle {
        self.store.data().clock.cancel_handle()
    }

    pub(crate) fn set_config(&mut self, config: Arc<BTreeMap<String, String>>) {
        self.store.data_mut().config = config;
    }

    pub(crate) fn config(&self) -> Arc<BTreeMap<String, String>> {
        self.store.data().config.clone()
    }

    pub(crate) fn vars(&self) -> Arc<Vars> {
        self.store.data().vars.clone()
    }

    /// Whether the next call needs another instance.
    pub(crate) fn is_spent(&self) -> bool {
        self.spent
    }
}

/// Waits for a guest that may itself be waiting, where no epoch interrupts it.
pub(super) async fn within<T>(
    left: Option<Duration>,
    future: impl Future<Output = wasmtime::Result<T>>,
) -> wasmtime::Result<T> {
    match left {
        None => future.await,
        Some(left) => match tokio::time::timeout(left + DEADLINE_SLACK, future).await {
            Ok(result) => result,
            Err(_) => Err(wasmtime::Trap::Interrupt.into()),
        },
    }
}
