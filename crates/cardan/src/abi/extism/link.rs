//! From modules to a template that instances are made of.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use cardan_api::{Fault, Limits};
use wasmtime::{ExternType, FuncType, Instance, InstancePre, Linker, Module, ModuleExport, Store, ValType};

use super::call::{Guest, LastResponse, State, Wait};
use super::codec;
use super::fuse::{self, ENV};
use super::host::{self, Outgoing};
use super::kernel::Kernel;
use super::manifest::{MAIN, NamedModule};
use super::recognise::{ImportKind, inspect};
use super::rewind::Rewinding;
use super::vars::Vars;
use super::wasi::{GuestOutput, WasiGrant};
use crate::Error;
use crate::engine::ticker::Running;
use crate::engine::{self, Engine, Room};
use crate::error::ErrorKind;
use crate::grants::{HttpGrant, LogSink};
use crate::host_function::HostFunction;
use crate::limits::{self, CancelHandle, Clock, Exceeded, Meter, PAGE_BYTES, Pace};

const WASI: &str = "wasi_snapshot_preview1";
/// Pages behind a fused guest's memory that its first `memory.grow` may take.
const RESERVE_PAGES: u32 = 2;
/// Pages of a kernel's memory, which no guest asked for.
const KERNEL_PAGES: u64 = 1;
/// Calls on a stack of their own before a plugin is trusted to return by itself.
const PROBATION_CALLS: u32 = 16;
/// Ticks within which a start has to be over for the next one to run on its caller's stack.
const PROMPT_MS: u64 = 2;

/// Everything that linking needs to know; what the loader decided.
pub(crate) struct Linking {
    pub(crate) name: Arc<str>,
    pub(crate) modules: Vec<NamedModule>,
    pub(crate) limits: Limits,
    pub(crate) config: BTreeMap<String, String>,
    pub(crate) http: Option<HttpGrant>,
    /// Whether guests may read response headers, which the reference makes an option.
    pub(crate) http_headers: bool,
    /// `None` leaves the imports of WASI undefined.
    pub(crate) wasi: Option<(BTreeMap<String, String>, GuestOutput)>,
    pub(crate) functions: Vec<HostFunction>,
    pub(crate) log: Arc<dyn LogSink>,
}

/// What all instances of one plugin share.
pub(crate) struct Shared {
    pub(super) limits: Limits,
    pub(super) http: Option<HttpGrant>,
    pub(super) http_headers: bool,
    pub(super) log: Arc<dyn LogSink>,
    pub(super) may_wait: bool,
    config: Arc<BTreeMap<String, String>>,
    pub(super) wasi: Option<WasiGrant>,
    slow: Arc<AtomicBool>,
}

/// A linked plugin: instances come from here.
pub(crate) struct Template {
    shared: Arc<Shared>,
    engine: Engine,
    wasmtime: wasmtime::Engine,
    linkage: Linkage,
    main: Module,
    exports: HashMap<String, Export>,
    initialisers: Vec<Initialiser>,
    /// `None` where every call needs a new instance.
    rewinding: Option<Rewinding>,
    /// Calls left until the plugin may run on its caller's stack.
    probation: AtomicU32,
    /// Starting has been seen to take next to no time.
    starts_promptly: AtomicBool,
}

/// What an instance shares with the one it replaces.
#[derive(Clone)]
pub(crate) struct Heritage {
    pub(crate) vars: Arc<Vars>,
    pub(crate) config: Arc<BTreeMap<String, String>>,
    pub(crate) cancelled: CancelHandle,
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

/// How the kernel and the guest come together.
enum Linkage {
    /// The kernel is part of the guest.
    Fused { pre: InstancePre<State>, kernel: ModuleExport, start: Option<ModuleExport> },
    /// The kernel is a module beside the guest's modules, main among them, which are linked in this order
    /// for each instance.
    Beside { linker: Linker<State>, kernel: Module, modules: Vec<(String, Module)>, shadowed: Vec<String> },
}

/// An exported function of the main module.
pub(super) struct Export {
    pub(super) name: String,
    pub(super) id: ModuleExport,
    pub(super) shape: Shape,
}

/// Whether and how an export can be called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// Returns nothing.
    Unit,
    /// Returns a code.
    Code,
    /// Returns one value that is no `i32`.
    OtherResult,
    /// Returns this many values.
    Results(usize),
    /// Wants this many arguments.
    Parameters(usize),
}

impl Shape {
    fn of(ty: &FuncType) -> Self {
        if ty.results().len() > 1 {
            return Self::Results(ty.results().len());
        }
        if ty.params().len() > 0 {
            return Self::Parameters(ty.params().len());
        }
        match ty.result(0) {
            None => Self::Unit,
            Some(ValType::I32) => Self::Code,
            Some(_) => Self::OtherResult,
        }
    }
}

/// One step of guest runtime initialisation.
#[derive(Clone, Copy)]
enum Initialiser {
    /// `_initialize` or `__wasm_call_ctors`.
    Plain(ModuleExport),
    /// Haskell's `hs_init`, which is given no arguments: a count of 0 and a null pointer.
    Haskell(ModuleExport, bool),
}

impl Template {
    /// Links a plugin.
    pub(crate) fn link(engine: &Engine, linking: Linking) -> Result<Self, Error> {
        let main = main_module(&linking.modules)?;
        check_imports(&linking)?;
        let imports = |name: &str| {
            linking.modules.iter().any(|module| {
                inspect(&module.bytes).is_ok_and(|found| found.imports.iter().any(|import| import.0 == name))
            })
        };
        let imports_http = imports_function(main, "http_request") || linking.modules.len() > 1;
        let wasi = match &linking.wasi {
            Some((paths, output)) => Some(WasiGrant::new(paths, *output)?).filter(|_| imports(WASI)),
            None => None,
        };
        let http = match linking.http {
            Some(_) if imports_http => Outgoing::Granted,
            _ => Outgoing::Denied,
        };
        let may_wait = wasi.is_some()
            || http == Outgoing::Granted
            || linking.functions.iter().any(HostFunction::suspends);
        let shadowed: Vec<String> = linking
            .functions
            .iter()
            .filter(|function| function.module == ENV)
            .map(|function| function.name.clone())
            .collect();

        let built = Build { engine, linking: &linking, shadowed: &shadowed, http, wasi: wasi.is_some() };
        let (wasmtime, main, linkage) = built.link(main)?;
        let beside = matches!(linkage, Linkage::Beside { .. });
        let shared = Arc::new(Shared {
            may_wait: may_wait || beside,
            config: Arc::new(linking.config),
            limits: linking.limits,
            http: linking.http,
            http_headers: linking.http_headers,
            log: linking.log,
            wasi,
            slow: Arc::default(),
        });
        let initialisers = initialisers(&main);
        let rewinding = match &linkage {
            Linkage::Fused { start, .. } => {
                // What a guest finds out when it starts (a random number, the time, a variable) differs
                // from instance to instance. One that asks nobody always begins the same.
                let asks = (start.is_some() || !initialisers.is_empty()) && main.imports().len() > 0;
                engine.dirty_pages().filter(|_| !asks).and_then(|pages| Rewinding::plan(&main, pages))
            }
            Linkage::Beside { .. } => None,
        };
        Ok(Self {
            shared,
            engine: engine.clone(),
            wasmtime,
            linkage,
            exports: exports(&main),
            initialisers,
            rewinding,
            main,
            probation: AtomicU32::new(PROBATION_CALLS),
            starts_promptly: AtomicBool::new(false),
        })
    }

    pub(super) fn export(&self, name: &str) -> Option<&Export> {
        self.exports.get(name).filter(|_| !name.starts_with(fuse::RESERVED))
    }

    /// Whether `name` can be called: no parameters, and no result or one code.
    pub(crate) fn is_callable(&self, name: &str) -> bool {
        self.export(name).is_some_and(|export| matches!(export.shape, Shape::Unit | Shape::Code))
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// How the next call runs. A plugin that may wait always has a stack of its own. Any other runs on
    /// its caller's stack, after some calls that showed it returns quickly and until one that does not.
    pub(crate) fn pace(&self) -> Pace {
        if self.shared.may_wait || self.shared.slow.load(Ordering::Relaxed) {
            return Pace::Suspendable;
        }
        let left = self.probation.load(Ordering::Relaxed);
        if left == 0 {
            return Pace::Inline;
        }
        self.probation.store(left - 1, Ordering::Relaxed);
        Pace::Suspendable
    }

    /// Whether main runs as a command: its start section is its program's, not the plugin's.
    pub(crate) fn is_command(&self) -> bool {
        is_command(&self.main)
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
        let mut guest = Guest { store, main, kernel, spent: false, rewindable: None };
        let initialised = self.initialise(&mut guest).await;
        initialised.map_err(|error| start_error(&StartFailure::Run(error)))?;
        guest.rewindable =
            self.rewinding.as_ref().and_then(|rewinding| rewinding.prepare(&guest.main, &mut guest.store));
        if ticker.now_ms().saturating_sub(started_ms) <= PROMPT_MS {
            self.starts_promptly.store(true, Ordering::Relaxed);
        }
        Ok(guest)
    }

    /// Whether instances can be put back to their beginning.
    pub(crate) fn rewinds(&self) -> bool {
        self.rewinding.is_some()
    }

    pub(super) fn rewinding(&self) -> Option<&Rewinding> {
        self.rewinding.as_ref()
    }

    /// Links a command without running it: its start section belongs to its calls. Modules beside it are
    /// started, as they are for other plugins.
    pub(crate) async fn check_command(&self) -> Result<(), Error> {
        let Linkage::Beside { modules, .. } = &self.linkage else { return Ok(()) };
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
            linker.instantiate_pre(&self.main).map(drop).map_err(StartFailure::Link)
        };
        checked.await.map_err(|failure| start_error(&failure))
    }

    fn store(&self, running: &Running<'_>, heritage: Heritage) -> Result<Store<State>, Error> {
        let shared = self.shared.clone();
        let wasi = shared.wasi.as_ref().map(WasiGrant::context).transpose();
        let wasi = wasi.map_err(|error| Error::source(format!("{error:#}")))?;
        let Heritage { vars, config, cancelled } = heritage;
        let mut clock = Clock::new(self.engine.ticker().clone(), shared.slow.clone(), cancelled);
        let slice = clock.begin(running, Some(shared.limits.start_deadline), self.start_pace());
        let mut meter = Meter::new(&shared.limits);
        meter.allow_pages(KERNEL_PAGES);
        let fuel = shared.limits.fuel;
        let state =
            State { config, shared, kernel: None, vars, http: LastResponse::default(), wasi, clock, meter };
        let mut store = Store::new(&self.wasmtime, state);
        limits::limit(&mut store);
        store.set_epoch_deadline(slice);
        if let Some(fuel) = fuel {
            store.set_fuel(fuel).map_err(|error| Error::host(error.to_string()))?;
        }
        Ok(store)
    }

    fn start_pace(&self) -> Pace {
        let shared = &self.shared;
        let trusted = self.starts_promptly.load(Ordering::Relaxed) && !shared.slow.load(Ordering::Relaxed);
        if shared.may_wait || !trusted { Pace::Suspendable } else { Pace::Inline }
    }

    async fn start(&self, store: &mut Store<State>) -> Result<(Instance, Kernel), StartFailure> {
        match &self.linkage {
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
        let Linkage::Beside { linker, kernel, shadowed, .. } = &self.linkage else {
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
        if let Linkage::Fused { start: Some(start), .. } = &self.linkage {
            guest.invoke::<(), ()>(*start, (), pace).await?;
        }
        for initialiser in &self.initialisers {
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
        return Error::call(Fault::Busy, "all instances of this process are in use");
    }
    let text = match (error.downcast_ref::<Exceeded>(), error.downcast_ref::<wasmtime::Trap>()) {
        (Some(exceeded), _) => exceeded.to_string(),
        (None, Some(wasmtime::Trap::Interrupt)) => "timeout while starting".to_owned(),
        (None, _) => codec::text(error),
    };
    Error::new(ErrorKind::Start(codec::classify(error)), text)
}

/// At least as many pages as a module's memories have at first.
fn initial_pages(module: &Module) -> u64 {
    let needs = module.resources_required();
    u64::from(needs.num_memories).saturating_mul(needs.max_initial_memory_size.unwrap_or(0))
}

/// What [`Template::link`] works with.
struct Build<'a> {
    engine: &'a Engine,
    linking: &'a Linking,
    shadowed: &'a [String],
    http: Outgoing,
    wasi: bool,
}

impl Build<'_> {
    fn link(&self, main: &NamedModule) -> Result<(wasmtime::Engine, Module, Linkage), Error> {
        if let [only] = &self.linking.modules[..] {
            let plan = fuse::Plan { shadowed: self.shadowed, reserve_pages: self.reserve_pages(only)? };
            let recipe = format!("fused {} {plan:?}", fuse::VERSION);
            match self.compile(&only.bytes, &recipe, || fuse::fuse(&only.bytes, plan).map_err(|no| no.0)) {
                Ok((room, module)) => {
                    let wasmtime = self.engine.wasmtime(room)?.clone();
                    let linker = self.linker(&wasmtime)?;
                    if let Ok(pre) = linker.instantiate_pre(&module)
                        && let Some(kernel) = module.get_export_index(&fuse::reserved("memory"))
                    {
                        let start = module.get_export_index(fuse::START);
                        return Ok((wasmtime, module, Linkage::Fused { pre, kernel, start }));
                    }
                }
                Err(why) => tracing::debug!(plugin = %self.linking.name, why, "kernel not fused"),
            }
        }
        self.link_beside(main)
    }

    /// Pages of reserve that the guest may have: none where growth is accounted for page by page, and no
    /// more than it could grow to.
    fn reserve_pages(&self, module: &NamedModule) -> Result<u32, Error> {
        let limits = &self.linking.limits;
        if limits.growth_pages_max.is_some() {
            return Ok(0);
        }
        let first: u64 = inspect(&module.bytes)?.memories.iter().map(|(first, _)| first).sum();
        let left = limits.memory_bytes_max.saturating_sub(first) / PAGE_BYTES;
        Ok(RESERVE_PAGES.min(u32::try_from(left).unwrap_or(RESERVE_PAGES)))
    }

    fn link_beside(&self, main: &NamedModule) -> Result<(wasmtime::Engine, Module, Linkage), Error> {
        let mut room = Room::Pooled;
        let mut compiled = HashMap::new();
        for module in &self.linking.modules {
            let (needs, made) =
                self.compile(&module.bytes, "plain", || Ok(module.bytes.clone())).map_err(Error::format)?;
            if needs != Room::Pooled {
                room = needs;
            }
            // Every call of a command's export leaves an instance behind, which is not to cost a slot.
            if room == Room::Pooled && module.name != MAIN && is_command(&made) {
                room = Room::Roomy;
            }
            compiled.insert(module.name.clone(), made);
        }
        let wasmtime = self.engine.wasmtime(room)?.clone();
        if room != Room::Pooled {
            for module in &self.linking.modules {
                let made = self.compile_in(room, &module.bytes, "plain", || Ok(module.bytes.clone()));
                compiled.insert(module.name.clone(), made.map_err(Error::format)?);
            }
        }
        let kernel = self.compile_in(room, &fuse::KERNEL, "plain", || Ok(fuse::KERNEL.clone()));
        let kernel = kernel.map_err(Error::host)?;
        let order = link_order(&self.linking.modules)?;
        let modules =
            order.into_iter().filter_map(|name| Some((name.clone(), compiled.get(name)?.clone()))).collect();
        let linker = self.linker(&wasmtime)?;
        let module = compiled.remove(&main.name).ok_or_else(|| Error::format("the main module is gone"))?;
        let shadowed = self.shadowed.to_vec();
        Ok((wasmtime, module, Linkage::Beside { linker, kernel, modules, shadowed }))
    }

    /// Compiles for the pool, and again for another room if the module turns out not to fit a slot.
    fn compile(
        &self,
        wasm: &[u8],
        recipe: &str,
        make: impl Fn() -> Result<Vec<u8>, String>,
    ) -> Result<(Room, Module), String> {
        let first = self.engine.room_at_first(&self.linking.limits);
        let tried = self.compile_in(first, wasm, recipe, &make);
        let room = match &tried {
            Ok(module) if first == Room::Pooled => Engine::room_for(module),
            // A module that no slot could ever hold is refused when it is compiled for the pool.
            Err(_) if first == Room::Pooled => Room::Roomy,
            _ => first,
        };
        if room == first {
            return Ok((room, tried?));
        }
        Ok((room, self.compile_in(room, wasm, recipe, make)?))
    }

    fn compile_in(
        &self,
        room: Room,
        wasm: &[u8],
        recipe: &str,
        make: impl FnOnce() -> Result<Vec<u8>, String>,
    ) -> Result<Module, String> {
        let engine = self.engine.wasmtime(room).map_err(|error| error.message().to_owned())?;
        let compile = || {
            let wasm = make()?;
            Module::from_binary(engine, &wasm).map_err(|error| format!("{error:#}"))
        };
        match self.engine.cache() {
            Some(cache) => cache.get_or_compile(engine, wasm, recipe, compile),
            None => compile(),
        }
    }

    fn linker(&self, engine: &wasmtime::Engine) -> Result<Linker<State>, Error> {
        let mut linker = Linker::new(engine);
        linker.allow_shadowing(true);
        let host = |error: wasmtime::Error| Error::host(format!("{error:#}"));
        host::define(&mut linker, self.http).map_err(host)?;
        if self.wasi {
            wasmtime_wasi::p1::add_to_linker_async(&mut linker, wasi_context).map_err(host)?;
        }
        host::define_user(&mut linker, &self.linking.functions)?;
        Ok(linker)
    }
}

#[expect(clippy::expect_used, reason = "WASI is linked only into plugins whose stores have a context")]
fn wasi_context(state: &mut State) -> &mut wasmtime_wasi::p1::WasiP1Ctx {
    state.wasi.as_mut().expect("a store of a plugin with WASI has a WASI context")
}

fn main_module(modules: &[NamedModule]) -> Result<&NamedModule, Error> {
    modules
        .iter()
        .find(|module| module.name == MAIN)
        .ok_or_else(|| Error::format("No wasm files specified in Extism manifest"))
}

fn imports_function(module: &NamedModule, name: &str) -> bool {
    inspect(&module.bytes)
        .is_ok_and(|found| found.imports.iter().any(|import| import.0 == ENV && import.1 == name))
}

/// Refuses what the reference refuses of imports from `extism:host/env`, in its words.
fn check_imports(linking: &Linking) -> Result<(), Error> {
    for module in &linking.modules {
        for (from, name, kind) in &inspect(&module.bytes)?.imports {
            if from != ENV {
                continue;
            }
            let ImportKind::Function(ty) = kind else {
                return Err(Error::link(
                    "linked modules cannot access non-function exports of extism kernel",
                ));
            };
            if !fuse::is_kernel_function(name) && !host::NAMES.contains(&name.as_str()) {
                return Err(Error::link(format!(
                    "Invalid function import from extism:host/env: {name} {ty}\n\n\
                     Note: this may indicate that the plugin's PDK is newer than this host"
                )));
            }
        }
    }
    Ok(())
}

/// All modules, each after those it imports from.
fn link_order(modules: &[NamedModule]) -> Result<Vec<&String>, Error> {
    fn visit<'a>(
        modules: &'a [NamedModule],
        name: &str,
        path: &mut Vec<String>,
        order: &mut Vec<&'a String>,
    ) -> Result<(), Error> {
        let Some(module) = modules.iter().find(|module| module.name == name) else { return Ok(()) };
        if path.iter().any(|visited| visited == name) {
            path.push(name.to_owned());
            return Err(Error::link(format!(
                "modules import from each other in a circle: {}",
                path.join(" -> ")
            )));
        }
        if order.contains(&&module.name) {
            return Ok(());
        }
        path.push(name.to_owned());
        for (from, _, _) in inspect(&module.bytes)?.imports {
            visit(modules, &from, path, order)?;
        }
        path.pop();
        order.push(&module.name);
        Ok(())
    }
    let mut order = Vec::new();
    for module in modules {
        visit(modules, &module.name, &mut Vec::new(), &mut order)?;
    }
    Ok(order)
}

fn exports(main: &Module) -> HashMap<String, Export> {
    main.exports()
        .filter_map(|export| {
            let ExternType::Func(ty) = export.ty() else { return None };
            let name = export.name().to_owned();
            let id = main.get_export_index(&name)?;
            Some((name.clone(), Export { name, id, shape: Shape::of(&ty) }))
        })
        .collect()
}

fn function_type(module: &Module, name: &str) -> Option<FuncType> {
    match module.get_export(name)? {
        ExternType::Func(ty) => Some(ty),
        _ => None,
    }
}

fn is_plain(module: &Module, name: &str) -> bool {
    function_type(module, name).is_some_and(|ty| ty.params().len() == 0 && ty.results().len() == 0)
}

/// A module with a program to run and no other way to be initialised. One that has both, as some
/// toolchains make, is taken for what it can be called as.
fn is_command(module: &Module) -> bool {
    is_plain(module, "_start") && !is_plain(module, "_initialize")
}

/// The steps of guest runtime initialisation, in the reference's order: Haskell's, else the
/// constructors, else the reactor's. An export of another type hides the later ones and is not called.
fn initialisers(main: &Module) -> Vec<Initialiser> {
    let plain = |name: &str| {
        let id = main.get_export_index(name).filter(|_| is_plain(main, name));
        id.map(Initialiser::Plain)
    };
    if let (Some(ty), Some(id)) = (function_type(main, "hs_init"), main.get_export_index("hs_init")) {
        let returns = match (ty.param(0), ty.param(1), ty.result(0)) {
            (Some(ValType::I32), Some(ValType::I32), None) if ty.params().len() == 2 => Some(false),
            (Some(ValType::I32), Some(ValType::I32), Some(ValType::I32)) if ty.params().len() == 2 => {
                Some(true)
            }
            _ => None,
        };
        let haskell = returns.map(|returns| Initialiser::Haskell(id, returns));
        return plain("_initialize").into_iter().chain(haskell).collect();
    }
    if main.get_export_index("__wasm_call_ctors").is_some() {
        return plain("__wasm_call_ctors").into_iter().collect();
    }
    plain("_initialize").into_iter().collect()
}
