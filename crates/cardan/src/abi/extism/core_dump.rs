//! Core dumps of guests, for debuggers: the format of WebAssembly's tool conventions.
//!
//! What a dump says of a call is its frames and, as one who stands outside of the code can see them, the
//! memories and mutable globals. Locals and operands are left out: the compiler keeps them where it likes.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use wasm_encoder::{
    ConstExpr, CoreDumpInstancesSection, CoreDumpModulesSection, CoreDumpSection, CoreDumpStackSection,
    CoreDumpValue, DataSection, GlobalSection, GlobalType, Ieee32, Ieee64, MemorySection, MemoryType, Module,
    ValType,
};
use wasmtime::{Extern, Global, Instance, Memory, Store, Val, WasmBacktrace};

use super::fuse;
use super::kernel::Kernel;
use super::state::State;

/// Memory is written in pieces of this size, without the zeros around what is in them.
const CHUNK_BYTES: usize = 4096;

/// Whether the next fault of a plugin's calls shall leave a core dump, and the one that was left.
#[derive(Debug, Default)]
pub(crate) struct CoreDumps {
    requested: AtomicBool,
    kept: Mutex<Option<Vec<u8>>>,
}

impl CoreDumps {
    pub(crate) fn request(&self) {
        self.requested.store(true, Ordering::Relaxed);
    }

    /// Asked after a fault. Whoever is told that one is due has to bring it.
    pub(super) fn is_due(&self) -> bool {
        self.requested.load(Ordering::Relaxed) && self.requested.swap(false, Ordering::Relaxed)
    }

    pub(super) fn keep(&self, dump: Vec<u8>) {
        *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = Some(dump);
    }

    pub(crate) fn take(&self) -> Option<Vec<u8>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Writes what there is to know about an instance whose call has failed, for this reason if the host has
/// one.
pub(super) fn write(
    store: &mut Store<State>,
    main: &Instance,
    kernel: Kernel,
    cause: Option<&wasmtime::Error>,
) -> Vec<u8> {
    let name = main.module(&mut *store).name().unwrap_or("main").to_owned();
    let memories = memories(store, main, kernel);
    let (memory_section, data) = contents(store, &memories);
    let globals = globals(store, main);
    let mut dump = Module::new();
    let mut modules = CoreDumpModulesSection::new();
    modules.module(&name);
    let mut instances = CoreDumpInstancesSection::new();
    instances.instance(0, 0..memory_section.len(), 0..globals.len());
    let mut stack = CoreDumpStackSection::new("main");
    let backtrace = cause.and_then(|cause| cause.downcast_ref::<WasmBacktrace>());
    for frame in backtrace.into_iter().flat_map(WasmBacktrace::frames) {
        let offset = frame.func_offset().and_then(|offset| u32::try_from(offset).ok()).unwrap_or(0);
        let (locals, operands) = ([] as [CoreDumpValue; 0], [] as [CoreDumpValue; 0]);
        stack.frame(0, frame.func_index(), offset, locals, operands);
    }
    dump.section(&CoreDumpSection::new(&name))
        .section(&memory_section)
        .section(&globals)
        .section(&data)
        .section(&modules)
        .section(&instances)
        .section(&stack);
    dump.finish()
}

/// All of the guest's where the rewriter named them, else those that it exports, and the kernel's.
fn memories(store: &mut Store<State>, main: &Instance, kernel: Kernel) -> Vec<Memory> {
    let mut named = Vec::new();
    for index in 0.. {
        match main.get_memory(&mut *store, &fuse::rewound_memory(index)) {
            Some(memory) => named.push(memory),
            None => break,
        }
    }
    if named.is_empty() {
        named = main.exports(&mut *store).filter_map(|export| export.into_memory()).collect();
        named.push(kernel.memory());
    }
    named
}

fn contents(store: &Store<State>, memories: &[Memory]) -> (MemorySection, DataSection) {
    let (mut section, mut data) = (MemorySection::new(), DataSection::new());
    for (index, memory) in (0..).zip(memories) {
        let ty = memory.ty(store);
        section.memory(MemoryType {
            minimum: memory.size(store),
            maximum: ty.maximum(),
            memory64: ty.is_64(),
            shared: false,
            page_size_log2: None,
        });
        for (number, chunk) in memory.data(store).chunks(CHUNK_BYTES).enumerate() {
            let filled = chunk.iter().position(|byte| *byte != 0);
            let end = chunk.iter().rposition(|byte| *byte != 0);
            let (Some(start), Some(end)) = (filled, end) else { continue };
            let at = (number * CHUNK_BYTES + start) as u64;
            let offset = match ty.is_64() {
                true => ConstExpr::i64_const(at.cast_signed()),
                // A memory of that kind ends where 32 bits do.
                false => ConstExpr::i32_const(u32::try_from(at).unwrap_or(u32::MAX).cast_signed()),
            };
            data.active(index, &offset, chunk[start..=end].iter().copied());
        }
    }
    (section, data)
}

/// The mutable ones, where the rewriter named them, else those that the guest exports.
fn globals(store: &mut Store<State>, main: &Instance) -> GlobalSection {
    let mut found: Vec<Global> = Vec::new();
    for index in 0.. {
        match main.get_global(&mut *store, &fuse::rewound_global(index)) {
            Some(global) => found.push(global),
            None => break,
        }
    }
    if found.is_empty() {
        found = main
            .exports(&mut *store)
            .map(|export| export.into_extern())
            .filter_map(Extern::into_global)
            .collect();
    }
    let mut section = GlobalSection::new();
    for global in found {
        let (val_type, value) = match global.get(&mut *store) {
            Val::I32(value) => (ValType::I32, ConstExpr::i32_const(value)),
            Val::I64(value) => (ValType::I64, ConstExpr::i64_const(value)),
            Val::F32(bits) => (ValType::F32, ConstExpr::f32_const(Ieee32::new(bits))),
            Val::F64(bits) => (ValType::F64, ConstExpr::f64_const(Ieee64::new(bits))),
            Val::V128(value) => (ValType::V128, ConstExpr::v128_const(value.as_u128().cast_signed())),
            // A reference means nothing outside of its process.
            _ => continue,
        };
        section.global(GlobalType { val_type, mutable: true, shared: false }, &value);
    }
    section
}
