//! Where guests run: the wasmtime engines, the clock that interrupts them, the compile cache.
//!
//! There are four wasmtime engines, made when first needed, and they differ in policy only. *Pooled*
//! keeps a slot of address space ready for every instance, so that a fresh instance costs microseconds;
//! it serves every plugin that fits a slot. *Components* does the same for components, which take more of everything
//! that is cheap. *Roomy* allocates on demand, for the others and where the
//! kernel or an address-space limit does not allow a pool. *Metered* counts fuel.

mod baseline;
pub(crate) mod cache;
pub(crate) mod compiler;
pub(crate) mod dirty_pages;
pub(crate) mod nursery;
pub(crate) mod ticker;
pub(crate) mod turns;
pub(crate) mod visit_slots;

use std::fmt;
use std::num::NonZero;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use wasmtime::component::Component;
use wasmtime::{
    Config, Enabled, InstanceAllocationStrategy, PoolConcurrencyLimitError, PoolingAllocationConfig,
    WasmBacktraceDetails,
};

use crate::grants::{HttpClient, Services};
use crate::limits::{MemoryBudget, PAGE_BYTES};
use crate::plugin::PluginBuilder;
use crate::source::Source;
use crate::{Error, Plugin};
use cache::CompileCache;
use compiler::Compiler;
use dirty_pages::DirtyPages;
use nursery::Nursery;
use ticker::Ticker;
use turns::Turns;
use visit_slots::VisitSlots;

/// Instances in the pool, unless the embedder says otherwise.
const POOL_INSTANCES: u32 = 1000;
/// Memories, and tables, that the pool has for each instance: its own, and the Extism kernel's.
const POOLED_EACH_PER_INSTANCE: u32 = 2;
/// Most memories that a module in the pool may have.
const POOLED_MEMORIES_PER_MODULE: u32 = 4;
/// Most tables that a module in the pool may have.
const POOLED_TABLES_PER_MODULE: u32 = 4;
/// Most tables that a component in the pool may have.
const POOLED_TABLES_PER_COMPONENT: u32 = 12;
/// Tables that the components' pool has for each instance: toolchains make one for imports, one for the guest, and
/// one for an adapter.
const POOLED_TABLES_PER_COMPONENT_INSTANCE: u32 = 4;
/// Core instances that a component is made of, as toolchains make them, at most; a few more do no harm.
const CORE_INSTANCES_PER_COMPONENT: u32 = 16;
/// Elements of one table in the pool.
const POOLED_TABLE_ELEMENTS: usize = 20_000;
/// Of an instance that is thrown away, memory up to this size is cleared in place where instances cannot
/// be put back to their beginning; what lies beyond goes back to the kernel.
const KEEP_RESIDENT_BYTES: usize = 2 << 20;
/// The same, everywhere, for tables and for the stacks of suspended guests.
const KEEP_RESIDENT_SMALL_BYTES: usize = 64 << 10;
/// Pages of a slot beyond what a plugin may have, for a memory that a convention adds.
pub(crate) const SPARE_PAGES: u32 = 8;
/// Stack of a guest, unless the embedder says otherwise. A suspendable guest has this and as much again for
/// the host's own frames.
const GUEST_STACK_BYTES: u32 = 512 << 10;
/// What can be asked for: with less hardly any guest runs, and with more one could use up the stack of the
/// thread that calls it, of which threads have 2 MiB.
const GUEST_STACK_BYTES_RANGE: RangeInclusive<u32> = 64 << 10..=1 << 20;

/// Functions of a guest that are named when it is stopped, the innermost ones.
const BACKTRACE_FRAMES_MAX: usize = 32;

/// Modules of this size begin with the baseline compiler, unless the embedder says otherwise.
const BASELINE_BYTES_MIN: u64 = 1 << 20;

/// Where the fresh instance of a call comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Isolation {
    /// From another call, put back byte for byte to where it began, if that can be done completely: the
    /// kernel has to tell which pages were written (Linux 6.7), and the guest must have no state but its
    /// memory and numbers in globals, and must not ask its host anything while it starts. Else it is new.
    #[default]
    Auto,
    /// Always a new one, whatever the kernel reports.
    Strict,
}

/// Which compiler made a plugin's code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tier {
    /// The one that is done soon. Better code is on its way.
    Baseline,
    /// The one whose code runs fast.
    Optimised,
}

/// What an [`Engine`] is made of. The default suits a program that embeds some plugins.
#[derive(Clone, Default)]
pub struct EngineConfig {
    /// Where compiled code is kept across runs. It must belong to this user alone, since what is found
    /// there is executed. `None` compiles at every load.
    pub cache_dir: Option<PathBuf>,
    /// Instances alive at once in the pool; `None` means 1,000. Each reserves some 8 GiB of *address
    /// space*, not memory. Visits may keep three quarters of them; the rest is there for single calls.
    pub pool_instances: Option<u32>,
    /// Linear memory of all live instances together, as sized, not as resident: what a guest never
    /// touched counts as well. Idle instances give theirs back where it is needed. `None`: no bound but each plugin's own. An instance that would need more is
    /// not made, which is [`Fault::Busy`](cardan_api::Fault::Busy); one that would grow beyond ends its
    /// call, as at its own limit.
    pub memory_bytes_max: Option<u64>,
    /// Stack that one call of a guest may use, from 64 KiB to 1 MiB; `None` means 512 KiB. It is one for all
    /// plugins, since compiled code of one engine checks against one bound. A guest that needs more is
    /// stopped: [`Fault::Trap`](cardan_api::Fault::Trap).
    pub stack_bytes: Option<u32>,
    /// Modules of at least so many bytes that are not in the compile cache begin with code that is made soon and
    /// runs slower, while better code is compiled in the background. `None` means 1 MiB; `u64::MAX` is never.
    /// Not for plugins whose instances are shared, which would lose what they remember, and not with fuel.
    pub baseline_bytes_min: Option<u64>,
    /// Calls that may go on computing at the same time after their first two milliseconds; others wait for their turn, of a
    /// millisecond each, and plugins take turns. `None` leaves one processor to calls that are done sooner. Of
    /// calls that block their caller's thread none waits.
    pub long_calls_max: Option<NonZero<usize>>,
    /// Where fresh instances come from.
    pub isolation: Isolation,
    /// What carries out the HTTP requests that guests are granted, if [`Services::http`] does not. Without
    /// one they are refused.
    pub http: Option<Arc<dyn HttpClient>>,
    /// What carries out everything else that guests are granted.
    pub services: Services,
}

impl fmt::Debug for EngineConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EngineConfig")
            .field("cache_dir", &self.cache_dir)
            .field("pool_instances", &self.pool_instances)
            .field("memory_bytes_max", &self.memory_bytes_max)
            .field("stack_bytes", &self.stack_bytes)
            .field("baseline_bytes_min", &self.baseline_bytes_min)
            .field("long_calls_max", &self.long_calls_max)
            .field("isolation", &self.isolation)
            .field("http", &self.http.is_some())
            .field("services", &self.services)
            .finish()
    }
}

impl EngineConfig {
    fn stack_bytes(&self) -> usize {
        self.stack_bytes.unwrap_or(GUEST_STACK_BYTES) as usize
    }

    fn pool_instances(&self) -> u32 {
        self.pool_instances.unwrap_or(POOL_INSTANCES).max(1)
    }
}

/// Runs plugins. One serves a whole process; clones share everything.
#[derive(Clone)]
pub struct Engine {
    shared: Arc<Shared>,
}

struct Shared {
    config: EngineConfig,
    dirty_pages: Option<Arc<DirtyPages>>,
    pooled: Result<wasmtime::Engine, String>,
    /// As `pooled`. Components take more than one instance each, and many processes have none.
    components: OnceLock<Result<wasmtime::Engine, String>>,
    roomy: OnceLock<wasmtime::Engine>,
    metered: OnceLock<wasmtime::Engine>,
    /// `None` where the baseline compiler does not know the machine.
    baseline: OnceLock<Option<wasmtime::Engine>>,
    compiler: Compiler,
    cache: Option<CompileCache>,
    ticker: Arc<Ticker>,
    nursery: Arc<Nursery>,
    visit_slots: VisitSlots,
    memory: Option<Arc<MemoryBudget>>,
}

/// Which of the wasmtime engines a plugin runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Room {
    Pooled,
    Components,
    Roomy,
    Metered,
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("config", &self.shared.config).finish_non_exhaustive()
    }
}

impl Engine {
    /// Makes an engine. Where the machine has no room for a pool it works without one, slower;
    /// [`Engine::pool_failure`] says why.
    ///
    /// # Errors
    ///
    /// When the cache directory cannot be made, or belongs to somebody else, or the stack is of a size that
    /// cannot be had.
    pub fn new(config: EngineConfig) -> Result<Self, Error> {
        if let Some(bytes) = config.stack_bytes.filter(|bytes| !GUEST_STACK_BYTES_RANGE.contains(bytes)) {
            let (least, most) = (GUEST_STACK_BYTES_RANGE.start(), GUEST_STACK_BYTES_RANGE.end());
            return Err(Error::host(format!(
                "engine.stack (EngineConfig::stack_bytes) is {bytes} bytes; it can be from {least} to {most}"
            )));
        }
        let cache = config.cache_dir.as_deref().map(CompileCache::open).transpose()?;
        let dirty_pages = match config.isolation {
            Isolation::Auto => DirtyPages::open().map(Arc::new),
            Isolation::Strict => None,
        };
        // An instance that can be put back is seldom thrown away, and its successor in the slot must not
        // find pages that look as if it had written them.
        let keep_resident_bytes = if dirty_pages.is_some() { 0 } else { KEEP_RESIDENT_BYTES };
        let pooled = wasmtime::Engine::new(&pooled_config(&config, keep_resident_bytes));
        let pooled = pooled.map_err(|error| format!("{error:#}"));
        if let Err(reason) = &pooled {
            tracing::warn!(reason, "no instance pool on this machine, instances are allocated on demand");
        }
        let ticker = Ticker::start(Turns::new(config.long_calls_max));
        if let Ok(engine) = &pooled {
            ticker.drive(engine);
        }
        let nursery = Nursery::start(&ticker);
        let visit_slots = VisitSlots::of(config.pool_instances());
        let memory = config.memory_bytes_max;
        let memory = memory.map(|bytes_max| Arc::new(MemoryBudget::new(bytes_max, nursery.clone())));
        let shared = Shared {
            memory,
            visit_slots,
            config,
            dirty_pages,
            pooled,
            components: OnceLock::new(),
            roomy: OnceLock::new(),
            metered: OnceLock::new(),
            baseline: OnceLock::new(),
            compiler: Compiler::default(),
            cache,
            ticker,
            nursery,
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Loads a plugin with default options: see [`Engine::plugin`].
    ///
    /// # Errors
    ///
    /// When the source cannot be read, is no plugin of a known convention, or does not link.
    pub fn load(&self, source: impl Into<Source>) -> Result<Plugin, Error> {
        self.plugin(source).load()
    }

    /// Starts loading a plugin from a file, bytes, text or an Extism manifest; options follow.
    pub fn plugin(&self, source: impl Into<Source>) -> PluginBuilder {
        PluginBuilder::new(self.clone(), source.into())
    }

    /// Why there is no instance pool, if there is none.
    pub fn pool_failure(&self) -> Option<&str> {
        self.shared.pooled.as_ref().err().map(String::as_str)
    }

    pub(crate) fn http(&self) -> Option<&Arc<dyn HttpClient>> {
        let config = &self.shared.config;
        config.services.http.as_ref().or(config.http.as_ref())
    }

    pub(crate) fn services(&self) -> Services {
        Services { http: self.http().cloned(), ..self.shared.config.services.clone() }
    }

    pub(crate) fn cache(&self) -> Option<&CompileCache> {
        self.shared.cache.as_ref()
    }

    /// `None` where instances cannot, or shall not, be put back to their beginning.
    pub(crate) fn dirty_pages(&self) -> Option<&Arc<DirtyPages>> {
        self.shared.dirty_pages.as_ref()
    }

    pub(crate) fn ticker(&self) -> &Arc<Ticker> {
        &self.shared.ticker
    }

    pub(crate) fn nursery(&self) -> &Arc<Nursery> {
        &self.shared.nursery
    }

    pub(crate) fn memory(&self) -> Option<&Arc<MemoryBudget>> {
        self.shared.memory.as_ref()
    }

    pub(crate) fn visit_slots(&self) -> &VisitSlots {
        &self.shared.visit_slots
    }

    /// How many of the pool's instances one of `module` takes, or has the memories and tables of; none
    /// outside of the pool.
    pub(crate) fn pool_slots(&self, module: &wasmtime::Module) -> u32 {
        let pooled = self.shared.pooled.as_ref();
        if !pooled.is_ok_and(|pooled| wasmtime::Engine::same(pooled, module.engine())) {
            return 0;
        }
        let needs = module.resources_required();
        needs.num_memories.max(needs.num_tables).div_ceil(POOLED_EACH_PER_INSTANCE).max(1)
    }

    /// The wasmtime engine for `room`; the roomy one where there is no pool.
    pub(crate) fn wasmtime(&self, room: Room) -> Result<&wasmtime::Engine, Error> {
        let made = match room {
            Room::Pooled => match &self.shared.pooled {
                Ok(engine) => return Ok(engine),
                Err(_) => &self.shared.roomy,
            },
            Room::Components => match self.components() {
                Ok(engine) => return Ok(engine),
                Err(_) => &self.shared.roomy,
            },
            Room::Roomy => &self.shared.roomy,
            Room::Metered => &self.shared.metered,
        };
        if let Some(engine) = made.get() {
            return Ok(engine);
        }
        let mut config = base_config(&self.shared.config);
        config.consume_fuel(room == Room::Metered);
        let engine = wasmtime::Engine::new(&config)
            .map_err(|error| Error::host(format!("this machine cannot run WebAssembly: {error:#}")))?;
        self.shared.ticker.drive(&engine);
        Ok(made.get_or_init(|| engine))
    }

    fn components(&self) -> Result<&wasmtime::Engine, &str> {
        let made = self.shared.components.get_or_init(|| {
            self.pool_failure().map_or(Ok(()), |reason| Err(reason.to_owned()))?;
            let made = wasmtime::Engine::new(&components_config(&self.shared.config));
            let engine = made.map_err(|error| format!("{error:#}")).inspect_err(|reason| {
                tracing::warn!(
                    reason,
                    "no pool for components on this machine, instances are allocated on demand"
                );
            })?;
            self.shared.ticker.drive(&engine);
            Ok(engine)
        });
        made.as_ref().map_err(String::as_str)
    }

    /// The room for a component with these limits, unless it turns out not to fit there.
    pub(crate) fn room_of_components(&self, limits: &cardan_api::Limits) -> Room {
        match self.room_at_first(limits) {
            Room::Pooled => Room::Components,
            room => room,
        }
    }

    /// Whether a component that was compiled for the pool has room there.
    pub(crate) fn has_room_for(component: &Component) -> bool {
        component.resources_required().is_some_and(|needs| {
            needs.num_memories <= POOLED_MEMORIES_PER_MODULE
                && needs.num_tables <= POOLED_TABLES_PER_COMPONENT
                && needs.max_initial_table_size.unwrap_or(0) <= POOLED_TABLE_ELEMENTS as u64
                && needs.max_initial_memory_size.unwrap_or(0).saturating_mul(PAGE_BYTES) <= slot_bytes()
        })
    }

    /// How many of the pool's instances one of a component takes; none outside of the pool.
    pub(crate) fn pool_slots_of_component(&self, component: &Component) -> u32 {
        let pool = self.shared.components.get().and_then(|made| made.as_ref().ok());
        let Some(needs) = component
            .resources_required()
            .filter(|_| pool.is_some_and(|pool| wasmtime::Engine::same(pool, component.engine())))
        else {
            return 0;
        };
        let memories = needs.num_memories.div_ceil(POOLED_EACH_PER_INSTANCE);
        memories.max(needs.num_tables.div_ceil(POOLED_TABLES_PER_COMPONENT_INSTANCE)).max(1)
    }

    /// The engine of the baseline compiler, which allocates on demand: nothing stays with it for long.
    pub(crate) fn baseline(&self) -> Option<&wasmtime::Engine> {
        let made = self.shared.baseline.get_or_init(|| {
            let made = wasmtime::Engine::new(&baseline::config(base_config(&self.shared.config)));
            let made = made.inspect_err(|error| tracing::debug!("no baseline compiler here: {error:#}")).ok();
            made.inspect(|engine| self.shared.ticker.drive(engine))
        });
        made.as_ref()
    }

    /// Whether a module of this size is worth two compilations.
    pub(crate) fn is_large(&self, bytes: u64) -> bool {
        bytes >= self.shared.config.baseline_bytes_min.unwrap_or(BASELINE_BYTES_MIN)
    }

    pub(crate) fn compiler(&self) -> &Compiler {
        &self.shared.compiler
    }

    /// The room for a plugin with these limits, unless its modules turn out not to fit there.
    pub(crate) fn room_at_first(&self, limits: &cardan_api::Limits) -> Room {
        if limits.fuel.is_some() {
            Room::Metered
        } else if self.shared.pooled.is_ok() && limits.memory_bytes_max <= slot_bytes() {
            Room::Pooled
        } else {
            Room::Roomy
        }
    }

    /// The room for a module that was compiled for the pool.
    pub(crate) fn room_for(module: &wasmtime::Module) -> Room {
        let needs = module.resources_required();
        let fits = needs.num_memories <= POOLED_MEMORIES_PER_MODULE
            && needs.num_tables <= POOLED_TABLES_PER_MODULE
            && needs.max_initial_table_size.unwrap_or(0) <= POOLED_TABLE_ELEMENTS as u64
            // wasmtime counts it in pages.
            && needs.max_initial_memory_size.unwrap_or(0).saturating_mul(PAGE_BYTES) <= slot_bytes();
        if fits { Room::Pooled } else { Room::Roomy }
    }
}

/// Bytes of one linear memory in the pool.
pub(crate) fn slot_bytes() -> u64 {
    cardan_api::Limits::default().memory_bytes_max
}

/// Whether instantiation failed because every slot of the pool is taken.
pub(crate) fn is_pool_full(error: &wasmtime::Error) -> bool {
    error.is::<PoolConcurrencyLimitError>()
}

/// What all engines have in common. Everything here is part of the compile cache's key.
fn base_config(asked: &EngineConfig) -> Config {
    let mut config = Config::new();
    config
        .epoch_interruption(true)
        .wasm_backtrace_details(WasmBacktraceDetails::Disable)
        .wasm_backtrace_max_frames(NonZero::new(BACKTRACE_FRAMES_MAX))
        .max_wasm_stack(asked.stack_bytes())
        .async_stack_size(2 * asked.stack_bytes())
        .memory_init_cow(true)
        // Nothing of ours runs two guests' tasks in one store, and components are slower with it.
        .concurrency_support(false)
        // The features that Extism's reference accepts (specification of guests, section 10.4), each
        // by name so that a new wasmtime does not change what loads.
        .wasm_bulk_memory(true)
        .wasm_reference_types(true)
        .wasm_multi_value(true)
        .wasm_simd(true)
        .wasm_relaxed_simd(true)
        .wasm_tail_call(true)
        .wasm_function_references(true)
        .wasm_gc(true)
        .wasm_exceptions(true)
        .wasm_multi_memory(true)
        .wasm_memory64(true)
        .wasm_extended_const(true)
        // Not in the reference, and on by default in a build where somebody asked for it.
        .wasm_threads(false);
    config
}

/// As the other pool, with more of everything that is cheap.
fn components_config(config: &EngineConfig) -> Config {
    let instances = config.pool_instances();
    let mut pool = pool(config, KEEP_RESIDENT_BYTES);
    pool.total_component_instances(instances)
        .total_core_instances(instances.saturating_mul(CORE_INSTANCES_PER_COMPONENT))
        .total_tables(instances.saturating_mul(POOLED_TABLES_PER_COMPONENT_INSTANCE))
        .max_tables_per_component(POOLED_TABLES_PER_COMPONENT);
    let mut engine = base_config(config);
    engine.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    engine
}

fn pooled_config(config: &EngineConfig, keep_resident_bytes: usize) -> Config {
    let mut engine = base_config(config);
    let pool = pool(config, keep_resident_bytes);
    engine.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    engine
}

fn pool(config: &EngineConfig, keep_resident_bytes: usize) -> PoolingAllocationConfig {
    let instances = config.pool_instances();
    let each = instances.saturating_mul(POOLED_EACH_PER_INSTANCE);
    let mut pool = PoolingAllocationConfig::new();
    pool.total_core_instances(instances)
        .total_memories(each)
        .total_tables(each)
        .total_stacks(instances)
        .total_gc_heaps(instances)
        // Plugins share the pool, and a slot that stays with its plugin is cheaper to reuse.
        .max_unused_warm_slots(each)
        .max_memories_per_module(POOLED_MEMORIES_PER_MODULE)
        .max_tables_per_module(POOLED_TABLES_PER_MODULE)
        // The kernel's memory may take all that a plugin may have, beside what it has at first.
        .max_memory_size(
            usize::try_from(slot_bytes() + u64::from(SPARE_PAGES) * PAGE_BYTES).unwrap_or(usize::MAX),
        )
        .table_elements(POOLED_TABLE_ELEMENTS)
        .linear_memory_keep_resident(keep_resident_bytes)
        .table_keep_resident(KEEP_RESIDENT_SMALL_BYTES)
        .async_stack_keep_resident(KEEP_RESIDENT_SMALL_BYTES)
        // Batching improves the median and makes the 99th percentile several times worse.
        .decommit_batch_size(1)
        // On wasmtime 48 it overlooks swapped-out pages; see `dirty_pages.rs`.
        .pagemap_scan(Enabled::No);
    pool
}
