//! A linked plugin, which instances are made of.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use cardan_api::{Fault, InstanceMode};
use wasmtime::{Instance, InstancePre, Linker, Module, ModuleExport, Store};

use super::call::Guest;
use super::codec;
use super::exports::{Initialiser, Shape, is_command};
use super::fuse::ENV;
use super::kernel::Kernel;
use super::log::LogQuota;
use super::manifest::MAIN;
use super::rewind::Rewinding;
use super::state::{Heritage, LastResponse, Shared, State};
use super::vars::Vars;
use super::wait::Wait;
use super::wasi::WasiGrant;
use crate::Error;
use crate::abi::lowering::host::Stage;
use crate::engine::ticker::Running;
use crate::engine::{self, Engine};
use crate::error::ErrorKind;
use crate::limits::{self, CancelHandle, Clock, Exceeded, MemoryFull, Meter, Pace};

/// Ticks within which a start has to be over for the next one to run on its caller's stack.
const PROMPT_MS: u64 = 2;

/// A linked plugin: instances come from here.
pub(crate) struct Template {
    shared: Arc<Shared>,
    engine: Engine,
    linked: Linked,
    /// `None` where every call needs a new instance.
    rewinding: Option<Rewinding>,
    /// Starting has been seen to take next to no time.
    starts_promptly: AtomicBool,
}

/// Why there is no instance.
enum StartFailure {
    /// The modules do not fit together, whatever they do.
    Link(wasmtime::Error),
    /// What the guest did when it started, or what was missing for it here and now.
    Run(wasmtime::Error),
}

impl From<wasmtime::Error> for StartFailure {
    fn from(error: wasmtime::Error) -> Self {
        Self::Run(error)
    }
}

/// What linking makes of modules.
pub(super) struct Linked {
    pub(super) wasmtime: wasmtime::Engine,
    pub(super) main: Module,
    pub(super) linkage: Linkage,
    /// Of the kernel's memory, at first.
    pub(super) kernel_pages: u32,
}

impl Linked {
    /// The same of a module whose instances begin initialised.
    pub(super) fn initialised(mut self) -> Self {
        if let Linkage::Fused { start, .. } = &mut self.linkage {
            *start = None;
        }
        self
    }
}

/// How the kernel and the guest come together.
pub(super) enum Linkage {
    /// The kernel is part of the guest.
    Fused { pre: InstancePre<State>, kernel: ModuleExport, start: Option<ModuleExport> },
    /// The kernel is a module beside the guest's modules, main among them, which are linked in this order
    /// for each instance.
    Beside { linker: Linker<State>, kernel: Module, modules: Vec<(String, Module)>, shadowed: Vec<String> },
}

impl Template {
    pub(super) fn new(engine: Engine, linked: Linked, shared: Arc<Shared>) -> Self {
        let Linked { main, linkage, .. } = &linked;
        let rewinding = match linkage {
            Linkage::Fused { start, .. } if shared.mode != InstanceMode::Shared => {
                // What a guest finds out when it starts (a random number, the time, a variable) differs
                // from instance to instance. One that asks nobody always begins the same.
                let starts =
                    start.is_some() || shared.load.is_some() || !shared.exports.initialisers().is_empty();
                let asks = starts && main.imports().len() > 0;
                engine.dirty_pages().filter(|_| !asks).and_then(|pages| Rewinding::plan(main, pages))
            }
            _ => None,
        };
        Self { shared, engine, linked, rewinding, starts_promptly: AtomicBool::new(false) }
    }

    /// Whether `name` can be called: no parameters, and no result or one code.
    pub(crate) fn is_callable(&self, name: &str) -> bool {
        let export = self.shared.exports.get(name);
        export.is_some_and(|export| matches!(export.shape, Shape::Unit | Shape::Code))
    }

    /// Whether one export answers for tools of any name, this one's among them.
    pub(crate) fn is_dispatched(&self, name: &str) -> bool {
        self.shared.is_dispatched(name)
    }

    /// How many of the pool's instances one of ours takes.
    pub(crate) fn pool_slots(&self) -> u32 {
        let slots = |module| self.engine.pool_slots(module);
        match &self.linked.linkage {
            Linkage::Fused { .. } => slots(&self.linked.main),
            Linkage::Beside { kernel, modules, .. } => {
                slots(kernel) + modules.iter().map(|(_, module)| slots(module)).sum::<u32>()
            }
        }
    }

    /// Whether main runs as a command: its start section is its program's, not the plugin's.
    pub(crate) fn is_command(&self) -> bool {
        is_command(&self.linked.main)
    }

    /// Makes an instance with these variables and initialises it.
    pub(crate) async fn instantiate(&self, vars: Arc<Vars>) -> Result<Guest, Error> {
        let config = self.shared.config.clone();
        self.succeed(Heritage { vars, config, cancelled: CancelHandle::default() }).await
    }

    /// Makes an instance in the place of another one.
    pub(crate) async fn succeed(&self, heritage: Heritage) -> Result<Guest, Error> {
        let ticker = self.engine.ticker().clone();
        let running = ticker.enter();
        let started_ms = ticker.now_ms();
        let mut store = self.store(&running, heritage)?;
        let (main, kernel) = self.start(&mut store).await.map_err(|failure| start_error(&failure))?;
        store.data_mut().meter.started();
        let mut guest = Guest { store, main, kernel, calls: 0, spent: false, rewindable: None, last: None };
        let initialised = self.initialise(&mut guest).await;
        initialised.map_err(|error| start_error(&StartFailure::Run(error)))?;
        if let Some(load) = &self.shared.load {
            load.ask(&mut guest).await?;
        }
        guest.store.data_mut().end_log();
        guest.rewindable =
            self.rewinding.as_ref().and_then(|rewinding| rewinding.prepare(&guest.main, &mut guest.store));
        if guest.rewindable.is_some() {
            // Nobody has seen it.
            guest.store.data_mut().wasi = None;
        }
        if ticker.now_ms().saturating_sub(started_ms) <= PROMPT_MS {
            self.starts_promptly.store(true, Ordering::Relaxed);
        }
        Ok(guest)
    }

    /// Whether instances can be put back to their beginning.
    pub(crate) fn rewinds(&self) -> bool {
        self.rewinding.is_some()
    }

    /// Puts an instance back to where it was before its first call: for the next one it is as good as
    /// new. To be asked only after calls that all went well. `None` where that cannot be done.
    pub(crate) fn rewound(&self, mut guest: Guest) -> Option<Guest> {
        let rewindable = guest.rewindable.as_mut().filter(|_| !guest.spent)?;
        self.rewinding.as_ref()?.rewind(rewindable, &mut guest.store).ok()?;
        let state = guest.store.data_mut();
        state.http = LastResponse::default();
        state.wasi = None;
        state.heap = None;
        Some(guest)
    }

    /// Links a command without running it: its start section belongs to its calls. Modules beside it are
    /// started, as they are for other plugins.
    pub(crate) async fn check_command(&self) -> Result<(), Error> {
        let Linkage::Beside { modules, .. } = &self.linked.linkage else { return Ok(()) };
        let ticker = self.engine.ticker().clone();
        let running = ticker.enter();
        let config = self.shared.config.clone();
        let heritage = Heritage { vars: Arc::default(), config, cancelled: CancelHandle::default() };
        let mut store = self.store(&running, heritage)?;
        let before_main = modules.iter().take_while(|(name, _)| name != MAIN);
        let checked = async {
            let (mut linker, _) = self.link_kernel(&mut store).await?;
            let wait = Wait::of(&store);
            wait.within(self.link_modules(&mut linker, &mut store, before_main)).await?;
            linker.instantiate_pre(&self.linked.main).map(drop).map_err(StartFailure::Link)
        };
        checked.await.map_err(|failure| start_error(&failure))
    }

    fn store(&self, running: &Running<'_>, heritage: Heritage) -> Result<Store<State>, Error> {
        let shared = self.shared.clone();
        let wasi = shared.wasi.as_ref().map(WasiGrant::context).transpose();
        let wasi = wasi.map_err(|error| Error::source(format!("{error:#}")))?;
        let Heritage { vars, config, cancelled } = heritage;
        let mut clock = Clock::new(self.engine.ticker().clone(), shared.haste.clone(), cancelled);
        let slice = clock.begin(running, Some(shared.limits.start_deadline), self.start_pace());
        let mut meter = Meter::new(&shared.limits, self.engine.memory(), shared.tally.clone());
        // The kernel's memory, which no guest asked for.
        meter.allow_pages(u64::from(self.linked.kernel_pages));
        let fuel = shared.limits.fuel;
        let state = State {
            input: Vec::new(),
            answer: None,
            stage: Stage::default(),
            heap: None,
            memory: None,
            allocates: false,
            config,
            shared,
            kernel: None,
            vars,
            http: LastResponse::default(),
            log: LogQuota::default(),
            wasi,
            claims: Vec::new(),
            clock,
            meter,
        };
        let mut store = Store::new(&self.linked.wasmtime, state);
        limits::limit(&mut store);
        store.set_epoch_deadline(slice);
        if let Some(fuel) = fuel {
            store.set_fuel(fuel).map_err(|error| Error::host(error.to_string()))?;
        }
        Ok(store)
    }

    fn start_pace(&self) -> Pace {
        let shared = &self.shared;
        let trusted = self.starts_promptly.load(Ordering::Relaxed) && !shared.haste.is_slow();
        if shared.may_wait || !trusted { Pace::Suspendable } else { Pace::Inline }
    }

    async fn start(&self, store: &mut Store<State>) -> Result<(Instance, Kernel), StartFailure> {
        match &self.linked.linkage {
            Linkage::Fused { pre, kernel, .. } => {
                let main = match store.data().clock.pace() {
                    Pace::Suspendable => pre.instantiate_async(&mut *store).await?,
                    Pace::Inline => pre.instantiate(&mut *store)?,
                };
                let memory = main.get_module_export(&mut *store, kernel).and_then(|it| it.into_memory());
                let memory = memory.ok_or_else(|| wasmtime::format_err!("the fused kernel is not there"))?;
                let kernel = Kernel::new(memory);
                store.data_mut().kernel = Some(kernel);
                Ok((main, kernel))
            }
            Linkage::Beside { modules, .. } => {
                let (mut linker, kernel) = self.link_kernel(store).await?;
                let wait = Wait::of(store);
                let main = wait.within(self.link_modules(&mut linker, store, modules.iter())).await?;
                let main = main.ok_or_else(|| wasmtime::format_err!("the main module is gone"))?;
                Ok((main, kernel))
            }
        }
    }

    /// A linker with the kernel's functions, for a plugin with the kernel beside it.
    async fn link_kernel(&self, store: &mut Store<State>) -> Result<(Linker<State>, Kernel), StartFailure> {
        let Linkage::Beside { linker, kernel, shadowed, .. } = &self.linked.linkage else {
            return Err(wasmtime::format_err!("the kernel is part of the guest").into());
        };
        let mut linker = linker.clone();
        let instance = linker.instantiate_async(&mut *store, kernel).await?;
        let memory = instance.get_memory(&mut *store, "memory");
        let memory = memory.ok_or_else(|| wasmtime::format_err!("the kernel has no memory"))?;
        let handle = Kernel::new(memory);
        store.data_mut().kernel = Some(handle);
        for export in kernel.exports() {
            let own = shadowed.iter().any(|name| name == export.name());
            if let Some(function) = instance.get_func(&mut *store, export.name()).filter(|_| !own) {
                linker.define(&mut *store, ENV, export.name(), function)?;
            }
        }
        Ok((linker, handle))
    }

    /// Starts modules and defines each for those after it. Returns the instance of main if it is among
    /// them; main's initialisation comes after all.
    async fn link_modules(
        &self,
        linker: &mut Linker<State>,
        store: &mut Store<State>,
        modules: impl Iterator<Item = &(String, Module)>,
    ) -> Result<Option<Instance>, StartFailure> {
        let mut main = None;
        for (name, module) in modules {
            let is_main = name == MAIN;
            if is_command(module) && !is_main {
                linker.module_async(&mut *store, name, module).await.map_err(StartFailure::Link)?;
                continue;
            }
            if !is_main {
                store.data_mut().meter.allow_growth(initial_pages(module));
            }
            let pre = linker.instantiate_pre(module).map_err(StartFailure::Link)?;
            let instance = pre.instantiate_async(&mut *store).await?;
            if is_main {
                main = Some(instance);
            } else if let Ok(initialize) = instance.get_typed_func::<(), ()>(&mut *store, "_initialize") {
                initialize.call_async(&mut *store, ()).await?;
            }
            linker.instance(&mut *store, name, instance)?;
        }
        Ok(main)
    }

    async fn initialise(&self, guest: &mut Guest) -> wasmtime::Result<()> {
        let pace = guest.store.data().clock.pace();
        if let Linkage::Fused { start: Some(start), .. } = &self.linked.linkage {
            guest.invoke::<(), ()>(*start, (), pace).await?;
        }
        for initialiser in self.shared.exports.initialisers() {
            match initialiser {
                Initialiser::Plain(id) => guest.invoke::<(), ()>(*id, (), pace).await?,
                Initialiser::Haskell(id, false) => guest.invoke::<(i32, i32), ()>(*id, (0, 0), pace).await?,
                Initialiser::Haskell(id, true) => {
                    guest.invoke::<(i32, i32), i32>(*id, (0, 0), pace).await?;
                }
            }
        }
        Ok(())
    }
}

fn start_error(failure: &StartFailure) -> Error {
    let error = match failure {
        StartFailure::Link(error) => return Error::link(format!("{error:#}")),
        StartFailure::Run(error) => error,
    };
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
    let text = match (error.downcast_ref::<Exceeded>(), error.downcast_ref::<wasmtime::Trap>()) {
        (Some(exceeded), _) => exceeded.to_string(),
        (None, Some(wasmtime::Trap::Interrupt)) => "timeout while starting".to_owned(),
        (None, _) => codec::brief_text(error),
    };
    Error::new(ErrorKind::Start(codec::classify(error)), text).with_backtrace(codec::backtrace(error))
}

/// At least as many pages as a module's memories have at first.
fn initial_pages(module: &Module) -> u64 {
    let needs = module.resources_required();
    u64::from(needs.num_memories).saturating_mul(needs.max_initial_memory_size.unwrap_or(0))
}
