//! What lies below: plain Rust, and wasmtime without anything around it.

use wasmtime::{Engine, Instance, Module, Result, Store, TypedFunc};

/// `(module (func (export "nop")))`.
const NOP: &[u8] =
    b"\0asm\x01\0\0\0\x01\x04\x01\x60\0\0\x03\x02\x01\0\x07\x07\x01\x03nop\0\0\x0a\x04\x01\x02\0\x0b";

/// A live instance of a module whose one function does nothing.
pub(crate) struct Nop {
    store: Store<()>,
    function: TypedFunc<(), ()>,
}

impl Nop {
    pub(crate) fn new() -> Result<Self> {
        let engine = Engine::default();
        let module = Module::new(&engine, NOP)?;
        let mut store = Store::new(&engine, ());
        let instance = Instance::new(&mut store, &module, &[])?;
        let function = instance.get_typed_func(&mut store, "nop")?;
        Ok(Self { store, function })
    }

    pub(crate) fn call(&mut self) -> Result<()> {
        self.function.call(&mut self.store, ())
    }
}
