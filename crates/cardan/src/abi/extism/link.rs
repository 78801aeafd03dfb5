//! From modules to a template that instances are made of.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use cardan_api::{InstanceMode, Limits, SnapshotPolicy};
use wasmtime::{Linker, Module};

use super::core_dump::CoreDumps;
use super::exports::{Exports, is_command};
use super::fuse::{self, ENV};
use super::host::{self, Outgoing};
use super::manifest::{MAIN, NamedModule};
use super::recognise::ImportKind;
use super::services::{self, Imported};
use super::snapshot::{self, SnapshotState};
use super::state::{Probation, Shared, State};
use super::template::{Linkage, Linked, Template};
use super::vars::Vars;
use super::wasi::{self, GuestOutput, WasiGrant};
use crate::abi::{self, Abi, Imported as Foreign};
use crate::engine::{self, Engine, Room, Tier};
use crate::error::ErrorKind;
use crate::grants::{Authority, LogSink};
use crate::host_function::HostFunction;
use crate::limits::{PAGE_BYTES, Tally};
use crate::plugin::LoadQuestion;
use crate::{Error, module, runtime};

/// Exports that are called before anything else, if they are of the right type.
const INITIALISERS: [&str; 3] = ["hs_init", "__wasm_call_ctors", "_initialize"];
/// Pages behind a fused guest's memory that its first `memory.grow` may take.
const RESERVE_PAGES: u32 = 2;
/// The same where instances are put back to their beginning, which is in vain after a real `memory.grow`.
const RESERVE_PAGES_REWOUND: u32 = 8;
/// Pages of a kernel's memory at first; of one linked beside its guests as `kernel.wat` says.
const KERNEL_PAGES: u32 = 1;
/// The same where instances are put back to their beginning: inputs and outputs of 100 KiB have room.
const KERNEL_PAGES_REWOUND: u32 = engine::SPARE_PAGES;

/// Everything that linking needs to know; what the loader decided.
pub(crate) struct Linking {
    pub(crate) name: Arc<str>,
    /// What the modules were before they were lowered.
    pub(crate) abi: Abi,
    /// What main imports in the words of that convention.
    pub(crate) foreign: Vec<Foreign>,
    /// It was to be given its memory.
    pub(crate) given_memory: bool,
    pub(crate) modules: Vec<NamedModule>,
    pub(crate) mode: InstanceMode,
    pub(crate) limits: Limits,
    pub(crate) config: BTreeMap<String, String>,
    /// What it may reach.
    pub(crate) authority: Arc<Authority>,
    /// Whether guests may read response headers, which the reference makes an option.
    pub(crate) http_headers: bool,
    /// `None` leaves the imports of WASI undefined.
    pub(crate) wasi: Option<GuestOutput>,
    pub(crate) functions: Vec<HostFunction>,
    /// What a new instance is asked before it serves.
    pub(crate) load: Option<Arc<LoadQuestion>>,
    pub(crate) snapshot: SnapshotPolicy,
    pub(crate) core_dumps: Arc<CoreDumps>,
    pub(crate) tally: Arc<Tally>,
}

/// A plugin as far as it has come.
pub(crate) struct Stage {
    pub(crate) template: Template,
    pub(crate) tier: Tier,
    pub(crate) snapshot: SnapshotState,
    /// What will take its place.
    pub(crate) later: Option<Later>,
}

/// Better code, still to be compiled.
pub(crate) struct Later {
    linking: Arc<Linking>,
    engine: Engine,
    /// Of the module that begins initialised, if there is one.
    initialised: Option<Vec<u8>>,
    snapshot: SnapshotState,
}

impl Later {
    /// Compiles and links it. Takes as long as that takes.
    pub(crate) fn link(self) -> Result<Stage, Error> {
        let build = Build::of(&self.engine, &self.linking)?;
        let main = main_module(&self.linking.modules)?;
        match self.initialised {
            Some(wasm) => build.initialised(&build.fusion(main)?, wasm),
            None => build.plain(main, self.snapshot),
        }
    }
}

impl Linking {
    /// Links a plugin. `vars` are what its start sees, if it runs here.
    pub(crate) fn link(self: &Arc<Self>, engine: &Engine, vars: &Arc<Vars>) -> Result<Stage, Error> {
        check_imports(self)?;
        Build::of(engine, self)?.stage(main_module(&self.modules)?, vars)
    }

    /// The calls for grants that the modules import. The embedder's own function of a name wins, and so does
    /// the first type that a name is imported with.
    fn imported(&self) -> Result<Vec<Imported>, Error> {
        let mut imported: Vec<Imported> = Vec::new();
        for module in &self.modules {
            for (from, name, kind) in &module.inspect()?.imports {
                let own = self.functions.iter().any(|own| own.module == *from && own.name == *name);
                let found = services::imported(from, name, kind).filter(|_| !own);
                imported.extend(found.filter(|found| !imported.iter().any(|other| other.is_same(*found))));
            }
        }
        Ok(imported)
    }

    /// What its start and its calls are told, and how: whatever is not in the module and decides what a
    /// snapshot holds.
    fn circumstances(&self) -> String {
        let load = self.load.as_ref().map(|load| &load.document);
        let log_level = self.authority.log().level();
        let Self { config, limits, http_headers, snapshot, .. } = self;
        module::digest(
            format!("{config:?} {load:?} {limits:?} {http_headers} {snapshot:?} {log_level:?}").as_bytes(),
        )
    }
}

/// What [`Linking::link`] works with.
struct Build<'a> {
    engine: &'a Engine,
    linking: &'a Arc<Linking>,
    shadowed: Vec<String>,
    http: Outgoing,
    imported: Vec<Imported>,
    wasi: Option<WasiGrant>,
    may_wait: bool,
}

/// A guest and its kernel as one module, still to be made.
struct Fusion<'a> {
    guest: &'a NamedModule,
    plan: fuse::Plan<'a>,
    recipe: String,
}

impl Fusion<'_> {
    fn wasm(&self) -> Result<Vec<u8>, String> {
        fuse::fuse(&self.guest.bytes, self.plan).map_err(|no| no.0)
    }
}

/// Who hears of an instance.
struct Ears {
    log: Arc<dyn LogSink>,
    tally: Arc<Tally>,
    core_dumps: Arc<CoreDumps>,
}

/// Why there is no snapshot.
enum Unsnapped {
    /// Instances are initialised one by one.
    Refused(String),
    /// The plugin itself does not want to serve.
    Unwilling(Error),
}

impl<'a> Build<'a> {
    fn of(engine: &'a Engine, linking: &'a Arc<Linking>) -> Result<Self, Error> {
        let main = main_module(&linking.modules)?;
        let imports = |name: &str| {
            linking.modules.iter().any(|module| {
                module.inspect().is_ok_and(|found| found.imports.iter().any(|import| import.0 == name))
            })
        };
        let imports_http = imports_function(main, "http_request") || linking.modules.len() > 1;
        let grants = linking.authority.grants();
        let wasi = match &linking.wasi {
            Some(output) => Some(WasiGrant::new(grants, *output)?).filter(|_| imports(wasi::MODULE)),
            None => None,
        };
        let http = match linking.authority.http() {
            Some(_) if imports_http => Outgoing::Granted,
            _ => Outgoing::Denied,
        };
        let imported = linking.imported()?;
        let may_wait = wasi.is_some()
            || http == Outgoing::Granted
            || linking.functions.iter().any(HostFunction::suspends)
            || imported.iter().any(|imported| imported.suspends(&linking.authority))
            || linking.foreign.iter().any(|foreign| foreign.suspends(&linking.authority));
        let shadowed: Vec<String> = linking
            .functions
            .iter()
            .filter(|function| function.module == ENV)
            .map(|function| function.name.clone())
            .collect();
        Ok(Self { engine, linking, shadowed, http, imported, wasi, may_wait })
    }

    /// The best that there is without waiting for the optimising compiler, if waiting would take long.
    fn stage(&self, main: &NamedModule, vars: &Arc<Vars>) -> Result<Stage, Error> {
        let wanted = self.wants_snapshot(main)?;
        if self.linking.modules.len() > 1 {
            return self.plain(main, wanted.err().unwrap_or(SnapshotState::Off));
        }
        let fusion = self.fusion(main)?;
        if wanted.is_ok()
            && let Some(recipe) = self.initialised_recipe(&fusion)
            && let Some((room, module)) = self.cached(main, &recipe)
            && let Ok(template) = self.initialised_template(room, module, &fusion)
        {
            let (tier, snapshot) = (Tier::Optimised, SnapshotState::Taken);
            return Ok(Stage { template, tier, snapshot, later: None });
        }
        let best = self.cached(main, &fusion.recipe).map(|(_, module)| module);
        let large = best.is_none() && self.is_for_baseline(main);
        let quick = if best.is_none() && (large || wanted.is_ok()) { self.baseline(&fusion) } else { None };
        let initialised = match wanted {
            Ok(()) => match self.run_start(best.as_ref().or(quick.as_ref()), &fusion, vars) {
                Ok(wasm) => Ok(wasm),
                Err(Unsnapped::Refused(why)) => Err(SnapshotState::Refused(why)),
                Err(Unsnapped::Unwilling(error)) => return Err(error),
            },
            Err(state) => Err(state),
        };
        let Some(code) = quick.filter(|_| large) else {
            return match (initialised, best) {
                (Ok(wasm), _) => self.initialised(&fusion, wasm),
                (Err(state), Some(code)) => self.plain_of(code, main, state),
                (Err(state), None) => self.plain(main, state),
            };
        };
        self.baseline_stage(code, &fusion, initialised)
    }

    /// Code that is there already serves until better code is.
    fn baseline_stage(
        &self,
        code: Module,
        fusion: &Fusion<'_>,
        initialised: Result<Vec<u8>, SnapshotState>,
    ) -> Result<Stage, Error> {
        let linker = self.linker(code.engine())?;
        let linked = fused(code, &linker, fusion).map_err(Error::link)?;
        let (initialised, snapshot) = match initialised {
            Ok(wasm) => (Some(wasm), SnapshotState::Pending),
            Err(state) => (None, state),
        };
        let later = Later {
            linking: self.linking.clone(),
            engine: self.engine.clone(),
            initialised,
            snapshot: snapshot.clone(),
        };
        let template = self.template(linked, Start::Anew, self.ears());
        Ok(Stage { template, tier: Tier::Baseline, snapshot, later: Some(later) })
    }

    /// Every instance initialised by itself, on the best code.
    fn plain(&self, main: &NamedModule, snapshot: SnapshotState) -> Result<Stage, Error> {
        let template = self.template(self.link(main)?, Start::Anew, self.ears());
        Ok(Stage { template, tier: Tier::Optimised, snapshot, later: None })
    }

    /// The same of code that has been read from the cache.
    fn plain_of(&self, code: Module, main: &NamedModule, snapshot: SnapshotState) -> Result<Stage, Error> {
        let linker = self.linker(code.engine())?;
        let Ok(linked) = fused(code, &linker, &self.fusion(main)?) else { return self.plain(main, snapshot) };
        let template = self.template(linked, Start::Anew, self.ears());
        Ok(Stage { template, tier: Tier::Optimised, snapshot, later: None })
    }

    /// Every instance as this module begins, on the best code.
    fn initialised(&self, fusion: &Fusion<'_>, wasm: Vec<u8>) -> Result<Stage, Error> {
        let recipe = self.initialised_recipe(fusion);
        let compiled = self.compile(fusion.guest.digest(), recipe.as_deref(), || Ok(wasm.clone()));
        let (room, module) = compiled.map_err(Error::format)?;
        let template = self.initialised_template(room, module, fusion)?;
        let (tier, snapshot) = (Tier::Optimised, SnapshotState::Taken);
        Ok(Stage { template, tier, snapshot, later: None })
    }

    fn initialised_template(
        &self,
        room: Room,
        module: Module,
        fusion: &Fusion<'_>,
    ) -> Result<Template, Error> {
        let linker = self.linker(self.engine.wasmtime(room)?)?;
        let linked = fused(module, &linker, fusion).map_err(Error::link)?;
        Ok(self.template(linked, Start::Done, self.ears()))
    }

    /// What the snapshot is cached under. `None` where what the start was told decides as well, which may be
    /// something else at the next load.
    fn initialised_recipe(&self, fusion: &Fusion<'_>) -> Option<String> {
        let wasi = &self.wasi;
        let about = self.linking.circumstances();
        (self.linking.snapshot == SnapshotPolicy::Auto)
            .then(|| format!("snapshot {} {about} {wasi:?} {}", snapshot::VERSION, fusion.recipe))
    }

    /// Whether a snapshot is to be tried, as far as can be told before anything is compiled.
    fn wants_snapshot(&self, main: &NamedModule) -> Result<Result<(), SnapshotState>, Error> {
        let Linking { mode, limits, snapshot, load, modules, .. } = &**self.linking;
        let found = main.inspect()?;
        let exports = |name: &str| found.functions.iter().any(|function| function == name);
        let starts = found.starts || load.is_some() || INITIALISERS.iter().any(|name| exports(name));
        let refused = |why: &str| Err(SnapshotState::Refused(why.to_owned()));
        Ok(if !starts {
            Err(SnapshotState::NotNeeded)
        } else if *snapshot == SnapshotPolicy::Never || *mode != InstanceMode::Fresh {
            Err(SnapshotState::Off)
        } else if modules.len() > 1 {
            refused("it consists of several modules")
        } else if exports("_start") {
            refused("it is a program, which its calls run from the beginning")
        } else if limits.growth_pages_max.is_some() {
            refused("max_pages counts what each start grows its memory by")
        } else {
            Ok(())
        })
    }

    /// Starts the guest once and makes a module of where it has come to.
    fn run_start(
        &self,
        code: Option<&Module>,
        fusion: &Fusion<'_>,
        vars: &Arc<Vars>,
    ) -> Result<Vec<u8>, Unsnapped> {
        let refused = |why: String| Unsnapped::Refused(why);
        let compiled;
        let code = match code {
            Some(code) => code,
            None => {
                compiled = self
                    .compile(fusion.guest.digest(), Some(&fusion.recipe), || fusion.wasm())
                    .map_err(refused)?
                    .1;
                &compiled
            }
        };
        if let Some(why) = snapshot::obstacle(code) {
            return Err(refused(why.to_owned()));
        }
        let host = |error: wasmtime::Error| refused(format!("{error:#}"));
        let mut linker = self.linker(code.engine()).map_err(|error| refused(error.to_string()))?;
        let asked = match self.linking.snapshot {
            SnapshotPolicy::Always => Arc::default(),
            SnapshotPolicy::Auto | SnapshotPolicy::Never => {
                snapshot::withhold(&mut linker, code, &self.linking.foreign).map_err(host)?
            }
        };
        let linked = fused(code.clone(), &linker, fusion).map_err(refused)?;
        let log = snapshot::Deferred::new(self.linking.authority.log().clone());
        let ears = Ears { log: log.clone(), tally: Arc::default(), core_dumps: Arc::default() };
        let template = self.template(linked, Start::Anew, ears);
        let mut guest =
            runtime::block_on(template.instantiate(vars.clone())).map_err(|error| match asked.get() {
                Some(name) => refused(format!(
                    "it asked for {name} while it started, which may answer otherwise the next time; \
                 `snapshot: always` keeps the first answer"
                )),
                None if error.kind() == ErrorKind::Refused => Unsnapped::Unwilling(error),
                None => refused(format!("it did not start: {}", error.message())),
            })?;
        log.release();
        let wasm = fusion.wasm().map_err(refused)?;
        runtime::block_on(snapshot::take(&mut guest, &wasm, fusion.plan.reserve_pages)).map_err(refused)
    }

    fn ears(&self) -> Ears {
        let Linking { authority, tally, core_dumps, .. } = &**self.linking;
        Ears { log: authority.log().clone(), tally: tally.clone(), core_dumps: core_dumps.clone() }
    }

    fn template(&self, linked: Linked, start: Start, ears: Ears) -> Template {
        let linking = self.linking;
        let beside = matches!(linked.linkage, Linkage::Beside { .. });
        let leaves_instances = match &linked.linkage {
            Linkage::Fused { .. } => false,
            Linkage::Beside { modules, .. } => {
                modules.iter().any(|(name, module)| name != MAIN && is_command(module))
            }
        };
        let exports = Exports::of(&linked.main);
        let (exports, load, linked) = match start {
            Start::Anew => (exports, linking.load.clone(), linked),
            Start::Done => (exports.initialised(), None, linked.initialised()),
        };
        let shared = Arc::new(Shared {
            may_wait: self.may_wait || beside,
            lowered: linking.abi != Abi::Extism,
            dispatches: linking.abi == Abi::Capability,
            given_memory: linking.given_memory,
            leaves_instances,
            mode: linking.mode,
            exports,
            config: Arc::new(linking.config.clone()),
            limits: linking.limits.clone(),
            authority: linking.authority.clone(),
            http_headers: linking.http_headers,
            log: ears.log,
            load,
            core_dumps: ears.core_dumps,
            tally: ears.tally,
            wasi: self.wasi.clone(),
            haste: Arc::default(),
            probation: Probation::default(),
        });
        Template::new(self.engine.clone(), linked, shared)
    }

    fn is_for_baseline(&self, main: &NamedModule) -> bool {
        let Linking { mode, limits, .. } = &**self.linking;
        *mode != InstanceMode::Shared
            && limits.fuel.is_none()
            && limits.memory_bytes_max <= engine::slot_bytes()
            && self.engine.is_large(main.bytes.len() as u64)
    }

    /// Code that is made soon, where the module needs nothing that its compiler has not got.
    fn baseline(&self, fusion: &Fusion<'_>) -> Option<Module> {
        let engine = self.engine.baseline()?;
        let made = Module::from_binary(engine, &fusion.wasm().ok()?);
        made.inspect_err(
            |error| tracing::debug!(plugin = %self.linking.name, "not for the baseline: {error:#}"),
        )
        .ok()
    }

    fn fusion<'m>(&'m self, guest: &'m NamedModule) -> Result<Fusion<'m>, Error> {
        let (reserve_pages, kernel_pages) = self.pages_ahead(guest)?;
        let plan = fuse::Plan { shadowed: &self.shadowed, reserve_pages, kernel_pages };
        Ok(Fusion { guest, plan, recipe: format!("fused {} {plan:?}", fuse::VERSION) })
    }

    fn link(&self, main: &NamedModule) -> Result<Linked, Error> {
        if let [only] = &self.linking.modules[..] {
            let fusion = self.fusion(only)?;
            match self.compile(only.digest(), Some(&fusion.recipe), || fusion.wasm()) {
                Ok((room, module)) => {
                    let linker = self.linker(self.engine.wasmtime(room)?)?;
                    if let Ok(linked) = fused(module, &linker, &fusion) {
                        return Ok(linked);
                    }
                }
                Err(why) => tracing::debug!(plugin = %self.linking.name, why, "kernel not fused"),
            }
        }
        self.link_beside(main)
    }

    /// Pages of reserve that the guest may have, and pages of its kernel's memory: none ahead of need where
    /// growth is accounted for page by page, and no more reserve than the guest could grow to.
    fn pages_ahead(&self, module: &NamedModule) -> Result<(u32, u32), Error> {
        let limits = &self.linking.limits;
        if limits.growth_pages_max.is_some() {
            return Ok((0, KERNEL_PAGES));
        }
        let (reserve, kernel) = match self.engine.dirty_pages() {
            Some(_) => (RESERVE_PAGES_REWOUND, KERNEL_PAGES_REWOUND),
            None => (RESERVE_PAGES, KERNEL_PAGES),
        };
        let first: u64 = module.inspect()?.memories.iter().map(|(first, _)| first).sum();
        let left = limits.memory_bytes_max.saturating_sub(first) / PAGE_BYTES;
        Ok((reserve.min(u32::try_from(left).unwrap_or(reserve)), kernel))
    }

    fn link_beside(&self, main: &NamedModule) -> Result<Linked, Error> {
        let mut room = Room::Pooled;
        let mut compiled = HashMap::new();
        for module in &self.linking.modules {
            let (needs, made) = self
                .compile(module.digest(), Some("plain"), || Ok(module.bytes.clone()))
                .map_err(Error::format)?;
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
                let made = self.compile_in(room, module.digest(), Some("plain"), || Ok(module.bytes.clone()));
                compiled.insert(module.name.clone(), made.map_err(Error::format)?);
            }
        }
        let kernel =
            self.compile_in(room, &module::digest(&fuse::KERNEL), Some("plain"), || Ok(fuse::KERNEL.clone()));
        let kernel = kernel.map_err(Error::host)?;
        let order = link_order(&self.linking.modules)?;
        let modules =
            order.into_iter().filter_map(|name| Some((name.clone(), compiled.get(name)?.clone()))).collect();
        let linker = self.linker(&wasmtime)?;
        let main = compiled.remove(&main.name).ok_or_else(|| Error::format("the main module is gone"))?;
        let shadowed = self.shadowed.clone();
        let linkage = Linkage::Beside { linker, kernel, modules, shadowed };
        Ok(Linked { wasmtime, main, linkage, kernel_pages: KERNEL_PAGES })
    }

    /// What is compiled already, and the room it is for.
    fn cached(&self, main: &NamedModule, recipe: &str) -> Option<(Room, Module)> {
        let find = |room| self.engine.cache()?.find(self.engine.wasmtime(room).ok()?, main.digest(), recipe);
        let first = self.engine.room_at_first(&self.linking.limits);
        let found = find(first).map(|module| (Engine::room_for(&module), module));
        match found {
            Some((room, module)) if first != Room::Pooled || room == first => Some((first, module)),
            _ if first == Room::Pooled => Some((Room::Roomy, find(Room::Roomy)?)),
            _ => None,
        }
    }

    /// Compiles, or finds what was compiled by that recipe, for the pool, and again for another room if the module turns out not to fit a slot.
    fn compile(
        &self,
        digest: &str,
        recipe: Option<&str>,
        make: impl Fn() -> Result<Vec<u8>, String>,
    ) -> Result<(Room, Module), String> {
        let first = self.engine.room_at_first(&self.linking.limits);
        let tried = self.compile_in(first, digest, recipe, &make);
        let room = match &tried {
            Ok(module) if first == Room::Pooled => Engine::room_for(module),
            // A module that no slot could ever hold is refused when it is compiled for the pool.
            Err(_) if first == Room::Pooled => Room::Roomy,
            _ => first,
        };
        if room == first {
            return Ok((room, tried?));
        }
        Ok((room, self.compile_in(room, digest, recipe, make)?))
    }

    fn compile_in(
        &self,
        room: Room,
        digest: &str,
        recipe: Option<&str>,
        make: impl FnOnce() -> Result<Vec<u8>, String>,
    ) -> Result<Module, String> {
        let engine = self.engine.wasmtime(room).map_err(|error| error.message().to_owned())?;
        let compile = || {
            let wasm = make()?;
            Module::from_binary(engine, &wasm).map_err(|error| format!("{error:#}"))
        };
        match (self.engine.cache(), recipe) {
            (Some(cache), Some(recipe)) => cache.get_or_compile(engine, digest, recipe, compile),
            _ => compile(),
        }
    }

    fn linker(&self, engine: &wasmtime::Engine) -> Result<Linker<State>, Error> {
        let mut linker = Linker::new(engine);
        linker.allow_shadowing(true);
        let host = |error: wasmtime::Error| Error::host(format!("{error:#}"));
        host::define(&mut linker, self.http).map_err(host)?;
        if self.wasi.is_some() {
            wasmtime_wasi::p1::add_to_linker_async(&mut linker, wasi_context).map_err(host)?;
            wasi::withhold(&mut linker, &self.linking.authority).map_err(host)?;
        }
        services::define(&mut linker, &self.imported, &self.linking.authority).map_err(host)?;
        if self.linking.abi != Abi::Extism {
            abi::define_lowered(&mut linker).map_err(host)?;
        }
        for foreign in &self.linking.foreign {
            foreign.define(&mut linker, &self.linking.authority).map_err(host)?;
        }
        host::define_user(&mut linker, &self.linking.functions)?;
        Ok(linker)
    }
}

/// Whether instances have to be initialised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Start {
    Anew,
    Done,
}

/// Links a module that has its kernel inside.
fn fused(module: Module, linker: &Linker<State>, fusion: &Fusion<'_>) -> Result<Linked, String> {
    let pre = linker.instantiate_pre(&module).map_err(|error| format!("{error:#}"))?;
    let kernel = module.get_export_index(&fuse::reserved("memory")).ok_or("the kernel is not there")?;
    let start = module.get_export_index(fuse::START);
    let wasmtime = module.engine().clone();
    let linkage = Linkage::Fused { pre, kernel, start };
    Ok(Linked { wasmtime, main: module, linkage, kernel_pages: fusion.plan.kernel_pages })
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
    module.inspect().is_ok_and(|found| found.imports.iter().any(|import| import.0 == ENV && import.1 == name))
}

/// Refuses what the reference refuses of imports from `extism:host/env`, in its words.
fn check_imports(linking: &Linking) -> Result<(), Error> {
    for module in &linking.modules {
        for (from, name, kind) in &module.inspect()?.imports {
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
        for (from, _, _) in &module.inspect()?.imports {
            visit(modules, from, path, order)?;
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
