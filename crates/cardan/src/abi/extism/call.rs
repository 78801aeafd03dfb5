//! A live instance, and one call to it.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use cardan_api::Fault;
use wasmtime::{Func, Instance, ModuleExport, Store, TypedFunc, Val, WasmParams, WasmResults};
use wasmtime_wasi::p1::WasiP1Ctx;

use super::codec::{self, Report};
use super::kernel::Kernel;
use super::link::{Export, Heritage, Shape, Shared, Template};
use super::rewind::Rewindable;
use super::vars::Vars;
use super::wasi::WasiGrant;
use crate::limits::{CancelHandle, Clock, Meter, Metered, Pace};

/// How much longer than its deadline a waiting call may take: the clock's own resolution, twice.
const DEADLINE_SLACK: Duration = Duration::from_millis(2);
/// Guests that may be inside of one another on one thread: an embedder's function may call a plugin,
/// whose call may end in the same function, and every level takes some of the thread's stack.
const NESTED_MAX: u32 = 16;

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
    /// What it takes to put this instance back to its beginning, where that can be done.
    pub(super) rewindable: Option<Rewindable>,
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
        if Nested::depth() >= NESTED_MAX {
            return Report::refused(
                Fault::Busy,
                format!("more than {NESTED_MAX} calls inside of each other"),
            );
        }
        let pace = template.pace();
        // A call inside of another has a stack of its own, since the other one's is not endless.
        let pace = if Nested::depth() > 0 { Pace::Suspendable } else { pace };
        let ticker = self.store.data().clock.ticker().clone();
        let running = ticker.enter();
        let slice = self.store.data_mut().clock.begin(&running, call.deadline, pace);
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
                return Report::refused(Fault::Memory, "failed to allocate extism memory");
            }
            Err(error) => return Report::refused(Fault::Host, codec::text(&error)),
        }
        let result = self.run(export, pace).await;
        if call.export == "_start" {
            self.spent = true;
            self.store.data().vars.clear();
        }
        Report::read(&self.store, self.kernel, result, template.shared().limits.output_bytes_max)
    }

    async fn run(&mut self, export: &Export, pace: Pace) -> wasmtime::Result<i32> {
        let refused = |why: String| Err(wasmtime::Error::msg(why));
        match export.shape {
            Shape::Unit => self.invoke::<(), ()>(export.id, (), pace).await.map(|()| 0),
            Shape::Code => self.invoke::<(), i32>(export.id, (), pace).await,
            Shape::Results(n) => {
                refused(format!("Function {} has {n} results, expected 0 or 1", export.name))
            }
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
        let function: TypedFunc<P, R> = self.function(id)?.typed(&self.store)?;
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

    /// Puts the instance back to where it was before its first call: for the next one it is as good as
    /// new. To be asked only after calls that went well. `None` where that cannot be done.
    pub(crate) fn rewound(mut self, template: &Template) -> Option<Self> {
        let rewindable = self.rewindable.as_mut().filter(|_| !self.spent)?;
        template.rewinding()?.rewind(rewindable, &mut self.store).ok()?;
        let state = self.store.data_mut();
        state.http = LastResponse::default();
        state.wasi = state.shared.wasi.as_ref().map(WasiGrant::context).transpose().ok()?;
        Some(self)
    }

    /// Whether the next call needs another instance.
    pub(crate) fn is_spent(&self) -> bool {
        self.spent
    }
}

/// How a guest on a stack of its own is waited for.
pub(super) struct Wait {
    /// Only for a guest that may itself wait, where no epoch interrupts it.
    interruption: Option<(Option<Duration>, CancelHandle)>,
}

impl Wait {
    pub(super) fn of(store: &Store<State>) -> Self {
        let State { shared, clock, .. } = store.data();
        Self { interruption: shared.may_wait.then(|| (clock.left(), clock.cancel_handle())) }
    }

    /// Waits for `future`, at most until the deadline or until the call is cancelled.
    pub(super) async fn within<T, E: From<wasmtime::Error>>(
        self,
        future: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let mut future = pin!(future);
        let guest = std::future::poll_fn(move |context| {
            let _nested = Nested::enter();
            future.as_mut().poll(context)
        });
        let Some((left, cancelled)) = self.interruption else { return guest.await };
        let deadline = async {
            match left {
                Some(left) => tokio::time::sleep(left + DEADLINE_SLACK).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            // The guest first: most often it is ready at once.
            biased;
            result = guest => result,
            () = deadline => Err(wasmtime::Error::from(wasmtime::Trap::Interrupt).into()),
            () = cancelled.requested() => Err(wasmtime::Error::from(wasmtime::Trap::Interrupt).into()),
        }
    }
}

/// Held while a guest is on this thread's stack.
struct Nested;

impl Nested {
    fn enter() -> Self {
        DEPTH.set(DEPTH.get() + 1);
        Self
    }

    fn depth() -> u32 {
        DEPTH.get()
    }
}

impl Drop for Nested {
    fn drop(&mut self) {
        DEPTH.set(DEPTH.get() - 1);
    }
}

thread_local! {
    static DEPTH: Cell<u32> = const { Cell::new(0) };
}
