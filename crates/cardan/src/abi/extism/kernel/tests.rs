//! One allocator in three forms: the kernel beside a guest, the kernel fused into one, and the host's twin.
//! Whatever is done to them, they answer the same and their memories hold the same bytes.

use proptest::prelude::*;
use wasmtime::{Engine, Instance, Linker, Memory, Module, Store, StoreLimits, StoreLimitsBuilder, Val};

use super::Kernel;
use crate::abi::extism::fuse::{self, KERNEL, Plan};

/// One thing a guest or the host may do. Handles are those of earlier allocations, or made up.
#[derive(Debug, Clone)]
enum Operation {
    Alloc(u64),
    Free(Handle),
    Retire(Handle),
    Length(Handle),
    LengthUnsafe(Handle),
    LoadByte(Handle, i64),
    LoadWord(Handle, i64),
    StoreByte(Handle, i64, u8),
    StoreWord(Handle, i64, u64),
    InputByte(u64),
    InputWord(u64),
    InputSet(Handle, u64),
    OutputSet(Handle, u64),
    ErrorSet(Handle),
    Roots,
    Reset,
    Begin(Vec<u8>),
}

#[derive(Debug, Clone)]
enum Handle {
    /// One of those allocated so far, by a number to be taken modulo their count.
    Known(usize),
    Made(u64),
    /// So far from the end of the memory.
    End(i64),
}

fn handle() -> impl Strategy<Value = Handle> {
    let made = prop_oneof![Just(0), 490..530u64, 0..70_000u64, any::<u64>()];
    prop_oneof![8 => any::<usize>().prop_map(Handle::Known), 1 => made.prop_map(Handle::Made), 1 => (-20..5i64).prop_map(Handle::End)]
}

/// Places to store to: in a block, or where nothing may be written. A block's header may be, and what comes
/// of that is another test's matter.
fn target() -> impl Strategy<Value = Handle> {
    prop_oneof![
        8 => any::<usize>().prop_map(Handle::Known),
        1 => (0..500u64).prop_map(Handle::Made),
        1 => ((1u64 << 32)..u64::MAX).prop_map(Handle::Made),
        1 => (0..5i64).prop_map(Handle::End),
    ]
}

fn size() -> impl Strategy<Value = u64> {
    prop_oneof![
        20 => 0..200u64,
        5 => 0..20_000u64,
        1 => 60_000..200_000u64,
        1 => prop_oneof![Just(u64::MAX), Just(1 << 32), Just(0xffff_0000), Just(0xffff_0001), Just(1 << 63)],
    ]
}

/// Offsets that stay within a block's data mostly, and do not reach another block's header.
fn offset() -> impl Strategy<Value = i64> {
    prop_oneof![9 => 0..8i64, 1 => Just(1i64 << 40)]
}

fn operation() -> impl Strategy<Value = Operation> {
    use Operation::*;
    prop_oneof![
        8 => size().prop_map(Alloc),
        5 => handle().prop_map(Free),
        3 => handle().prop_map(Retire),
        2 => handle().prop_map(Length),
        1 => handle().prop_map(LengthUnsafe),
        1 => (handle(), offset()).prop_map(|(handle, at)| LoadByte(handle, at)),
        2 => (handle(), offset()).prop_map(|(handle, at)| LoadWord(handle, at)),
        1 => (target(), offset(), any::<u8>()).prop_map(|(handle, at, byte)| StoreByte(handle, at, byte)),
        2 => (target(), any::<u64>()).prop_map(|(handle, word)| StoreWord(handle, 0, word)),
        1 => (0..40u64).prop_map(InputByte),
        1 => prop_oneof![0..40u64, any::<u64>()].prop_map(InputWord),
        1 => (handle(), size()).prop_map(|(handle, size)| InputSet(handle, size)),
        1 => (handle(), size()).prop_map(|(handle, size)| OutputSet(handle, size)),
        1 => handle().prop_map(ErrorSet),
        2 => Just(Roots),
        1 => Just(Reset),
        1 => prop::collection::vec(any::<u8>(), 0..40).prop_map(Begin),
    ]
}

/// Which form of the allocator carries out what both can.
#[derive(Debug, Clone, Copy, PartialEq)]
enum By {
    Guest,
    Host,
}

struct Subject {
    store: Store<StoreLimits>,
    instance: Instance,
    memory: Memory,
    by: By,
    prefix: String,
    handles: Vec<u64>,
}

/// A guest that does nothing but pass its exports' calls on to the kernel.
fn relay() -> Vec<u8> {
    let functions = [
        ("alloc", "(param i64) (result i64)", 1),
        ("free", "(param i64)", 1),
        ("length", "(param i64) (result i64)", 1),
        ("length_unsafe", "(param i64) (result i64)", 1),
        ("load_u8", "(param i64) (result i32)", 1),
        ("load_u64", "(param i64) (result i64)", 1),
        ("store_u8", "(param i64 i32)", 2),
        ("store_u64", "(param i64 i64)", 2),
        ("input_load_u8", "(param i64) (result i32)", 1),
        ("input_load_u64", "(param i64) (result i64)", 1),
        ("input_set", "(param i64 i64)", 2),
        ("output_set", "(param i64 i64)", 2),
        ("error_set", "(param i64)", 1),
        ("reset", "", 0),
        ("input_offset", "(result i64)", 0),
        ("input_length", "(result i64)", 0),
        ("output_offset", "(result i64)", 0),
        ("output_length", "(result i64)", 0),
        ("error_get", "(result i64)", 0),
        ("memory_bytes", "(result i64)", 0),
    ];
    let mut text = String::from("(module\n");
    for (name, ty, _) in functions {
        text.push_str(&format!("(import \"{}\" \"{name}\" (func ${name} {ty}))\n", fuse::ENV));
    }
    for (name, ty, parameters) in functions {
        let arguments: String = (0..parameters).map(|i| format!("(local.get {i})")).collect();
        text.push_str(&format!("(func (export \"{name}\") {ty} (call ${name} {arguments}))\n"));
    }
    wat::parse_str(text + ")").unwrap()
}

impl Subject {
    fn new(engine: &Engine, module: &Module, prefix: &str, by: By) -> Self {
        // Enough for all but the largest blocks, which are not to be had then.
        let mut store = Store::new(engine, StoreLimitsBuilder::new().memory_size(1 << 20).build());
        store.limiter(|limits| limits);
        let instance = Linker::new(engine).instantiate(&mut store, module).unwrap();
        let memory = if prefix.is_empty() { "memory".to_owned() } else { fuse::reserved("memory") };
        let memory = instance.get_memory(&mut store, &memory).unwrap();
        Self { store, instance, memory, by, prefix: prefix.to_owned(), handles: Vec::new() }
    }

    /// Calls the kernel by way of the guest if there is one; `None` if it traps.
    fn call(&mut self, name: &str, arguments: &[u64]) -> u64 {
        let own = ["begin", "retire"].contains(&name);
        let name = if own && !self.prefix.is_empty() { fuse::reserved(name) } else { name.to_owned() };
        let function = self.instance.get_func(&mut self.store, &name).unwrap();
        let ty = function.ty(&self.store);
        let arguments: Vec<Val> = arguments
            .iter()
            .zip(ty.params())
            .map(|(&argument, ty)| match ty {
                wasmtime::ValType::I32 => Val::I32(argument as i32),
                _ => Val::I64(argument.cast_signed()),
            })
            .collect();
        let mut results = vec![Val::I64(0); ty.results().len()];
        function.call(&mut self.store, &arguments, &mut results).unwrap();
        match results.first() {
            Some(Val::I64(value)) => value.cast_unsigned(),
            Some(Val::I32(value)) => u64::from(value.cast_unsigned()),
            _ => 0,
        }
    }

    fn handle(&self, handle: &Handle) -> u64 {
        match handle {
            Handle::Known(n) if !self.handles.is_empty() => self.handles[n % self.handles.len()],
            Handle::Known(_) => 0,
            Handle::Made(made) => *made,
            Handle::End(offset) => (self.memory.data_size(&self.store) as u64).wrapping_add_signed(*offset),
        }
    }

    fn at(&self, handle: &Handle, offset: i64) -> u64 {
        self.handle(handle).wrapping_add_signed(offset)
    }

    /// Carries out one operation and returns what it says.
    fn apply(&mut self, operation: &Operation) -> Vec<u64> {
        use Operation::*;
        let kernel = Kernel::new(self.memory);
        let host = self.by == By::Host;
        match operation {
            Alloc(size) => {
                let handle = match host {
                    true => kernel.alloc(&mut self.store, *size).unwrap(),
                    false => self.call("alloc", &[*size]),
                };
                if handle != 0 {
                    self.handles.push(handle);
                }
                vec![handle]
            }
            Free(handle) => vec![self.call("free", &[self.handle(handle)])],
            Retire(handle) => {
                let handle = self.handle(handle);
                match host {
                    true => kernel.free(&mut self.store, handle),
                    false => drop(self.call("retire", &[handle])),
                }
                vec![]
            }
            Length(handle) => {
                let handle = self.handle(handle);
                vec![match host {
                    true => kernel.length(&self.store, handle).unwrap_or(0),
                    false => self.call("length", &[handle]),
                }]
            }
            LengthUnsafe(handle) => vec![self.call("length_unsafe", &[self.handle(handle)])],
            LoadByte(handle, offset) => vec![self.call("load_u8", &[self.at(handle, *offset)])],
            LoadWord(handle, offset) => vec![self.call("load_u64", &[self.at(handle, *offset)])],
            StoreByte(handle, offset, byte) => {
                vec![self.call("store_u8", &[self.at(handle, *offset), u64::from(*byte)])]
            }
            StoreWord(handle, offset, word) => {
                vec![self.call("store_u64", &[self.at(handle, *offset), *word])]
            }
            InputByte(at) => vec![self.call("input_load_u8", &[*at])],
            InputWord(at) => vec![self.call("input_load_u64", &[*at])],
            InputSet(handle, size) => vec![self.call("input_set", &[self.handle(handle), *size])],
            OutputSet(handle, size) => vec![self.call("output_set", &[self.handle(handle), *size])],
            ErrorSet(handle) => vec![self.call("error_set", &[self.handle(handle)])],
            Roots => {
                let names = ["input_offset", "input_length", "output_offset", "output_length", "error_get"];
                let mut roots: Vec<u64> = names.iter().map(|name| self.call(name, &[])).collect();
                roots.push(self.call("memory_bytes", &[]));
                // What the host makes of output and error is the same for all, too.
                roots.push(kernel.output(&self.store).len() as u64);
                roots.push(kernel.error(&self.store).map_or(u64::MAX, |error| error.len() as u64));
                roots
            }
            Reset => {
                self.handles.clear();
                vec![self.call("reset", &[])]
            }
            Begin(input) => {
                self.handles.clear();
                if host {
                    assert!(kernel.begin(&mut self.store, input).unwrap());
                    return vec![];
                }
                let at = self.call("begin", &[input.len() as u64]);
                self.memory.write(&mut self.store, at as usize, input).unwrap();
                vec![]
            }
        }
    }
}

/// Blocks that are live never overlap, and lie inside of the memory.
fn check_disjoint(subject: &Subject) {
    let kernel = Kernel::new(subject.memory);
    let mut handles = subject.handles.clone();
    handles.sort_unstable();
    handles.dedup();
    let mut end = 0;
    for handle in handles {
        if let Some(length) = kernel.length(&subject.store, handle) {
            assert!(handle >= end + super::HEADER, "{handle} begins inside of a block that ends at {end}");
            end = handle + length;
        }
    }
    assert!(end <= subject.memory.data_size(&subject.store) as u64);
}

#[test]
fn three_forms_of_one_allocator() {
    let engine = Engine::default();
    let beside = Module::new(&engine, &*KERNEL).unwrap();
    let plan = Plan { shadowed: &[], reserve_pages: 4, kernel_pages: 1 };
    let fused = Module::new(&engine, fuse::fuse(&relay(), plan).unwrap()).unwrap();
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases: 500,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let outcome = runner.run(&prop::collection::vec(operation(), 1..120), |operations| {
        let mut subjects = [
            Subject::new(&engine, &beside, "", By::Guest),
            Subject::new(&engine, &fused, fuse::RESERVED, By::Guest),
            Subject::new(&engine, &beside, "", By::Host),
        ];
        for operation in &operations {
            let [first, second, third] = subjects.each_mut().map(|subject| subject.apply(operation));
            prop_assert_eq!(&first, &second, "fused differs at {:?}", operation);
            prop_assert_eq!(&first, &third, "the host differs at {:?}", operation);
            subjects.iter().for_each(check_disjoint);
        }
        let [first, second, third] = subjects.each_ref().map(|it| it.memory.data(&it.store));
        prop_assert!(first == second && first == third, "the memories differ");
        Ok(())
    });
    outcome.unwrap();
}

/// The host survives whatever a guest writes over the allocator's own data, and starts the next call anew.
#[test]
fn the_host_trusts_nothing_it_finds() {
    let engine = Engine::default();
    let module = Module::new(&engine, &*KERNEL).unwrap();
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases: 300,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let garbage = prop_oneof![
        prop::collection::vec(any::<u8>(), 4096),
        prop::collection::vec(prop_oneof![Just(0u8), Just(1), Just(0xff), Just(2)], 4096),
    ];
    let outcome =
        runner.run(&(garbage, prop::collection::vec(size(), 1..20), any::<u64>()), |(bytes, sizes, made)| {
            let mut subject = Subject::new(&engine, &module, "", By::Host);
            let kernel = Kernel::new(subject.memory);
            // Everything, the root included, which no guest can write to directly but through the allocator.
            subject.memory.write(&mut subject.store, 0, &bytes).unwrap();
            for size in sizes {
                let handle = kernel.alloc(&mut subject.store, size.min(1 << 20)).unwrap();
                let _ = kernel.store_bytes(&mut subject.store, &bytes[..(size % 4096) as usize]).unwrap();
                kernel.free(&mut subject.store, handle);
                kernel.free(&mut subject.store, made);
                let _ = (
                    kernel.length(&subject.store, made),
                    kernel.output(&subject.store),
                    kernel.error(&subject.store),
                );
            }
            prop_assert!(kernel.begin(&mut subject.store, b"next input").unwrap());
            let at = subject.call("input_offset", &[]);
            prop_assert_eq!(kernel.block(&subject.store, at), Some(&b"next input"[..]));
            prop_assert_eq!(kernel.output(&subject.store), b"");
            prop_assert_eq!(kernel.error(&subject.store), None);
            Ok(())
        });
    outcome.unwrap();
}

/// What the host frees is not reused while there is room elsewhere, and is before the memory grows.
#[test]
fn retired_blocks() {
    let engine = Engine::default();
    let module = Module::new(&engine, &*KERNEL).unwrap();
    for by in [By::Guest, By::Host] {
        let mut subject = Subject::new(&engine, &module, "", by);
        let first = subject.apply(&Operation::Alloc(1000))[0];
        subject.apply(&Operation::Retire(Handle::Made(first)));
        assert_eq!(subject.apply(&Operation::Length(Handle::Made(first))), [0]);
        for _ in 0..200 {
            let next = subject.apply(&Operation::Alloc(1000))[0];
            assert!(next > 0);
            if next == first {
                // Only when the first page was used up.
                assert!(subject.handles.len() > 60);
            }
            subject.apply(&Operation::Free(Handle::Made(first)));
            subject.apply(&Operation::Retire(Handle::Made(next)));
        }
        assert_eq!(subject.memory.size(&subject.store), 1, "{by:?}");
    }
}
