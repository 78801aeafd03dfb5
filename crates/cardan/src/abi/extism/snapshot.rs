//! A module that begins where a guest's initialisation ended.
//!
//! The guest is started once, in a store of its own, and `wasmtime-wizer` writes what it finds in memories and
//! globals into a new module. It reads them under the names that the rewriter gave them for putting instances
//! back (`rewind.rs`), so the same guests qualify: those whose memories and numbers in globals are all there is.
//! `docs/adr/0009-snapshots.md` has the reasons.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use wasmparser::{Parser, Payload};
use wasmtime::{ExternType, Global, Instance, Linker, Memory, Module, Store, Val};
use wasmtime_wizer::{InstanceState, SnapshotVal, ValType, Wizer};

use super::call::Guest;
use super::fuse::{self, ENV};
use super::state::State;
use super::wasi;
use crate::abi::{Imported, lowering};
use crate::grants::{LogLevel, LogSink};

/// Bump when the output changes for the same input: it is part of the compile cache's key.
pub(super) const VERSION: u32 = 1;

/// Guests with more memory than this after their start are initialised one by one: every byte of it that is
/// not zero would be in the module.
const MEMORY_BYTES_MAX: usize = 64 << 20;

/// What there is of a plugin's snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SnapshotState {
    /// The plugin has nothing to do before its calls.
    NotNeeded,
    /// Nobody wants one, or its instances are to remember.
    Off,
    /// There will be one as soon as its code is compiled. Until then instances are initialised one by one.
    Pending,
    /// Instances begin where initialisation ended, which ran once.
    Taken,
    /// Instances are initialised one by one, for this reason.
    Refused(String),
}

impl std::fmt::Display for SnapshotState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotNeeded => f.write_str("not needed: there is nothing to initialise"),
            Self::Off => f.write_str("off"),
            Self::Pending => f.write_str("being compiled"),
            Self::Taken => f.write_str("taken: calls begin initialised"),
            Self::Refused(why) => write!(f, "refused, each instance is initialised: {why}"),
        }
    }
}

/// Why a module whose instances would begin initialised cannot be made of this one, whatever it does.
pub(super) fn obstacle(fused: &Module) -> Option<&'static str> {
    fused.get_export(&fuse::rewound_memory(0)).is_none().then_some(
        "its calls can change more than memories and numbers in globals: it writes to tables or drops segments, \
         has references in globals, or uses the garbage collector, exceptions or threads",
    )
}

/// Has every import that may answer otherwise another time end the start instead. What it was is told in the
/// returned place.
pub(super) fn withhold(
    linker: &mut Linker<State>,
    fused: &Module,
    foreign: &[Imported],
) -> wasmtime::Result<Arc<OnceLock<String>>> {
    let asked = Arc::<OnceLock<String>>::default();
    for import in fused.imports() {
        let ExternType::Func(ty) = import.ty() else { continue };
        let (module, name) = (import.module(), import.name());
        let mut foreign = foreign.iter().filter(|foreign| foreign.is(module, name));
        if always_answers_alike(module, name) || foreign.any(Imported::answers_alike) {
            continue;
        }
        let (asked, name) = (asked.clone(), format!("{}::{}", import.module(), import.name()));
        linker.func_new(import.module(), import.name(), ty, move |_, _, _| {
            let _ = asked.set(name.clone());
            Err(wasmtime::format_err!("it asked for {name}"))
        })?;
    }
    Ok(asked)
}

/// What configuration alone decides, the log, which answers nothing, and what brings a lowered guest the question of its load.
fn always_answers_alike(module: &str, name: &str) -> bool {
    if module == lowering::host::MODULE {
        return true;
    }
    let names: &[&str] = match module {
        ENV => &[
            "config_get",
            "get_log_level",
            "http_headers",
            "http_status_code",
            "log_trace",
            "log_debug",
            "log_info",
            "log_warn",
            "log_error",
        ],
        wasi::MODULE => &["args_get", "args_sizes_get", "environ_get", "environ_sizes_get", "sched_yield"],
        _ => &[],
    };
    names.contains(&name)
}

/// Keeps lines until it is known whether the start that brought them counts.
pub(super) struct Deferred {
    sink: Arc<dyn LogSink>,
    lines: Mutex<Vec<(LogLevel, String)>>,
}

impl Deferred {
    pub(super) fn new(sink: Arc<dyn LogSink>) -> Arc<Self> {
        Arc::new(Self { sink, lines: Mutex::default() })
    }

    pub(super) fn release(&self) {
        for (level, line) in std::mem::take(&mut *self.lines.lock().unwrap_or_else(PoisonError::into_inner)) {
            self.sink.line(level, &line);
        }
    }
}

impl LogSink for Deferred {
    fn level(&self) -> Option<LogLevel> {
        self.sink.level()
    }

    fn line(&self, level: LogLevel, text: &str) {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).push((level, text.to_owned()));
    }
}

/// The module whose instances begin as `guest`, an instance of `fused`, is now. Calls will find as many pages
/// of reserve as they would have without.
pub(super) async fn take(guest: &mut Guest, fused: &[u8], reserve_pages: u32) -> Result<Vec<u8>, String> {
    let (main, store) = (guest.main, &mut guest.store);
    restore_reserve(&main, store, reserve_pages);
    let mut seen = Seen::of(main, store, fused).ok_or("its memories and globals cannot be read")?;
    let bytes: usize = seen.memories.iter().map(|memory| memory.data_size(&*seen.store)).sum();
    if bytes > MEMORY_BYTES_MAX {
        return Err(format!("it has {bytes} bytes of memory after its start, of at most {MEMORY_BYTES_MAX}"));
    }
    let mut wizer = Wizer::new();
    // No guest exports this; the start has run already.
    wizer.init_func("cardan:none");
    let (context, _) = wizer.instrument(fused).map_err(|error| format!("{error:#}"))?;
    wizer.snapshot(&context, &mut seen).await.map_err(|error| format!("{error:#}"))
}

/// What initialisation took from the reserve is put back behind the memory, so that a call's first growth is
/// as cheap as ever. Where there is no room for it, growth is for real.
fn restore_reserve(main: &Instance, store: &mut Store<State>, pages: u32) {
    let believed = main.get_global(&mut *store, fuse::RESERVE).map(|global| global.get(&mut *store));
    let memory = main.get_memory(&mut *store, &fuse::rewound_memory(0));
    if let (Some(Val::I32(believed)), Some(memory)) = (believed, memory) {
        let wanted = u64::from(believed.cast_unsigned()) + u64::from(pages);
        let more = wanted.saturating_sub(memory.size(&*store));
        if more > 0 {
            let _ = memory.grow(store, more);
        }
    }
}

/// An instance as wizer wants to look at it.
struct Seen<'a> {
    store: &'a mut Store<State>,
    memories: Vec<Memory>,
    /// By index within the module.
    globals: HashMap<u32, Global>,
}

impl<'a> Seen<'a> {
    fn of(main: Instance, store: &'a mut Store<State>, fused: &[u8]) -> Option<Self> {
        let mut memories = Vec::new();
        while let Some(memory) = main.get_memory(&mut *store, &fuse::rewound_memory(memories.len())) {
            memories.push(memory);
        }
        let mut globals = HashMap::new();
        for (named, index) in mutable_globals(fused)?.into_iter().enumerate() {
            globals.insert(index, main.get_global(&mut *store, &fuse::rewound_global(named))?);
        }
        Some(Self { store, memories, globals })
    }
}

/// Indices of mutable globals, in their order. Such modules import none.
fn mutable_globals(module: &[u8]) -> Option<Vec<u32>> {
    let mut mutable = Vec::new();
    for payload in Parser::new(0).parse_all(module) {
        if let Payload::GlobalSection(section) = payload.ok()? {
            for (index, global) in (0..).zip(section) {
                if global.ok()?.ty.mutable {
                    mutable.push(index);
                }
            }
        }
    }
    Some(mutable)
}

fn number(name: &str, prefix: &str) -> Option<u32> {
    name.strip_prefix(prefix)?.parse().ok()
}

#[expect(clippy::expect_used, reason = "wizer asks for what it found in the module that `Seen` was made of")]
impl InstanceState for Seen<'_> {
    async fn global_get(&mut self, name: &str, _: ValType) -> SnapshotVal {
        let global = number(name, "__wizer_global_").and_then(|index| self.globals.get(&index));
        match global.expect("a mutable global has a name").get(&mut *self.store) {
            Val::I64(value) => SnapshotVal::I64(value),
            Val::F32(bits) => SnapshotVal::F32(bits),
            Val::F64(bits) => SnapshotVal::F64(bits),
            Val::V128(value) => SnapshotVal::V128(value.as_u128()),
            other => SnapshotVal::I32(other.i32().expect("the rewriter names no references")),
        }
    }

    async fn memory_contents(&mut self, name: &str, contents: impl FnOnce(&[u8]) + Send) {
        let memory = number(name, "__wizer_memory_").and_then(|index| self.memories.get(index as usize));
        contents(memory.expect("a memory has a name").data(&*self.store));
    }
}
