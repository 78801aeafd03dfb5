//! From modules to a template that instances are made of.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use cardan_api::{InstanceMode, Limits};
use wasmtime::{Linker, Module};

use super::core_dump::CoreDumps;
use super::exports::{Exports, is_command};
use super::fuse::{self, ENV};
use super::host::{self, Outgoing};
use super::manifest::{MAIN, NamedModule};
use super::recognise::{ImportKind, inspect};
use super::services::{self, Imported};
use super::state::{Probation, Shared, State};
use super::template::{Linkage, Linked, Template};
use super::wasi::{self, GuestOutput, WasiGrant};
use crate::Error;
use crate::engine::{self, Engine, Room};
use crate::grants::Authority;
use crate::host_function::HostFunction;
use crate::limits::{PAGE_BYTES, Tally};
use crate::plugin::LoadQuestion;

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
    pub(crate) load: Option<LoadQuestion>,
    pub(crate) core_dumps: Arc<CoreDumps>,
    pub(crate) tally: Arc<Tally>,
}

impl Linking {
    /// Links a plugin.
    pub(crate) fn link(self, engine: &Engine) -> Result<Template, Error> {
        let main = main_module(&self.modules)?;
        check_imports(&self)?;
        let imports = |name: &str| {
            self.modules.iter().any(|module| {
                inspect(&module.bytes).is_ok_and(|found| found.imports.iter().any(|import| import.0 == name))
            })
        };
        let imports_http = imports_function(main, "http_request") || self.modules.len() > 1;
        let grants = self.authority.grants();
        let wasi = match self.wasi {
            Some(output) => Some(WasiGrant::new(grants, output)?).filter(|_| imports(wasi::MODULE)),
            None => None,
        };
        let http = match self.authority.http() {
            Some(_) if imports_http => Outgoing::Granted,
            _ => Outgoing::Denied,
        };
        let imported = self.imported()?;
        let may_wait = wasi.is_some()
            || http == Outgoing::Granted
            || self.functions.iter().any(HostFunction::suspends)
            || imported.iter().any(|imported| imported.suspends(&self.authority));
        let shadowed: Vec<String> = self
            .functions
            .iter()
            .filter(|function| function.module == ENV)
            .map(|function| function.name.clone())
            .collect();

        let wasi_there = wasi.is_some();
        let build = Build { engine, linking: &self, shadowed: &shadowed, http, imported, wasi: wasi_there };
        let linked = build.link(main)?;
        let beside = matches!(linked.linkage, Linkage::Beside { .. });
        let leaves_instances = match &linked.linkage {
            Linkage::Fused { .. } => false,
            Linkage::Beside { modules, .. } => {
                modules.iter().any(|(name, module)| name != MAIN && is_command(module))
            }
        };
        let shared = Arc::new(Shared {
            may_wait: may_wait || beside,
            leaves_instances,
            mode: self.mode,
            exports: Exports::of(&linked.main),
            config: Arc::new(self.config),
            limits: self.limits,
            http_headers: self.http_headers,
            load: self.load,
            core_dumps: self.core_dumps,
            tally: self.tally,
            log: self.authority.log().clone(),
            authority: self.authority,
            wasi,
            slow: Arc::default(),
            probation: Probation::default(),
        });
        Ok(Template::new(engine.clone(), linked, shared))
    }

    /// The calls for grants that the modules import. The embedder's own function of a name wins, and so does
    /// the first type that a name is imported with.
    fn imported(&self) -> Result<Vec<Imported>, Error> {
        let mut imported: Vec<Imported> = Vec::new();
        for module in &self.modules {
            for (from, name, kind) in &inspect(&module.bytes)?.imports {
                let own = self.functions.iter().any(|own| own.module == *from && own.name == *name);
                let found = services::imported(from, name, kind).filter(|_| !own);
                imported.extend(found.filter(|found| !imported.iter().any(|other| other.is_same(*found))));
            }
        }
        Ok(imported)
    }
}

/// What [`Linking::link`] works with.
struct Build<'a> {
    engine: &'a Engine,
    linking: &'a Linking,
    shadowed: &'a [String],
    http: Outgoing,
    imported: Vec<Imported>,
    wasi: bool,
}

impl Build<'_> {
    fn link(&self, main: &NamedModule) -> Result<Linked, Error> {
        if let [only] = &self.linking.modules[..] {
            let (reserve_pages, kernel_pages) = self.pages_ahead(only)?;
            let plan = fuse::Plan { shadowed: self.shadowed, reserve_pages, kernel_pages };
            let recipe = format!("fused {} {plan:?}", fuse::VERSION);
            match self.compile(&only.bytes, &recipe, || fuse::fuse(&only.bytes, plan).map_err(|no| no.0)) {
                Ok((room, module)) => {
                    let wasmtime = self.engine.wasmtime(room)?.clone();
                    let linker = self.linker(&wasmtime)?;
                    if let Ok(pre) = linker.instantiate_pre(&module)
                        && let Some(kernel) = module.get_export_index(&fuse::reserved("memory"))
                    {
                        let start = module.get_export_index(fuse::START);
                        let linkage = Linkage::Fused { pre, kernel, start };
                        return Ok(Linked { wasmtime, main: module, linkage, kernel_pages });
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
        let first: u64 = inspect(&module.bytes)?.memories.iter().map(|(first, _)| first).sum();
        let left = limits.memory_bytes_max.saturating_sub(first) / PAGE_BYTES;
        Ok((reserve.min(u32::try_from(left).unwrap_or(reserve)), kernel))
    }

    fn link_beside(&self, main: &NamedModule) -> Result<Linked, Error> {
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
        let main = compiled.remove(&main.name).ok_or_else(|| Error::format("the main module is gone"))?;
        let shadowed = self.shadowed.to_vec();
        let linkage = Linkage::Beside { linker, kernel, modules, shadowed };
        Ok(Linked { wasmtime, main, linkage, kernel_pages: KERNEL_PAGES })
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
            wasi::withhold(&mut linker, &self.linking.authority).map_err(host)?;
        }
        services::define(&mut linker, &self.imported, &self.linking.authority).map_err(host)?;
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
