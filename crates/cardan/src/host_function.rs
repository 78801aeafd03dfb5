//! Functions of the embedding program that guests may import.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use wasmtime::{Caller, Val};

use crate::abi::extism::State;

/// Types that cross between guest and embedder by value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ValueType {
    /// 32-bit integer.
    I32,
    /// 64-bit integer, which handles are too.
    I64,
    /// 32-bit float.
    F32,
    /// 64-bit float.
    F64,
}

impl ValueType {
    pub(crate) fn to_wasmtime(self) -> wasmtime::ValType {
        match self {
            Self::I32 => wasmtime::ValType::I32,
            Self::I64 => wasmtime::ValType::I64,
            Self::F32 => wasmtime::ValType::F32,
            Self::F64 => wasmtime::ValType::F64,
        }
    }
}

/// What the embedder's function is called with: the guest's memory, by handles.
pub struct HostCall<'a> {
    pub(crate) caller: Caller<'a, State>,
}

impl fmt::Debug for HostCall<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostCall").finish_non_exhaustive()
    }
}

type RawBody = dyn Fn(&mut HostCall<'_>, &[Val], &mut [Val]) -> Result<(), wasmtime::Error> + Send + Sync;
type BytesBody = dyn Fn(&[u8]) -> Result<Vec<u8>, String> + Send + Sync;
type SuspendingBody =
    dyn Fn(Vec<u8>) -> Pin<Box<dyn Future<Output = Result<Vec<u8>, String>> + Send>> + Send + Sync;

#[derive(Clone)]
pub(crate) enum Body {
    Raw(Arc<RawBody>),
    Bytes(Arc<BytesBody>),
    Suspending(Arc<SuspendingBody>),
}

/// A function that guests import. Registering the same name twice keeps the last.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let engine = cardan::Engine::new(cardan::EngineConfig::default())?;
/// # let module = br#"(module
/// #   (import "extism:host/env" "input_offset" (func $input (result i64)))
/// #   (import "extism:host/env" "length" (func $length (param i64) (result i64)))
/// #   (import "extism:host/env" "output_set" (func $output (param i64 i64)))
/// #   (import "extism:host/user" "upper" (func $upper (param i64) (result i64)))
/// #   (func (export "shout") (local $h i64)
/// #     (local.set $h (call $upper (call $input)))
/// #     (call $output (local.get $h) (call $length (local.get $h)))))"#;
/// let upper = cardan::HostFunction::bytes("upper", |input| Ok(input.to_ascii_uppercase()));
/// let plugin = engine.plugin(&module[..]).host_function(upper).load()?;
/// assert_eq!(plugin.call("shout", "hello")?, b"HELLO");
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct HostFunction {
    pub(crate) module: String,
    pub(crate) name: String,
    pub(crate) params: Vec<ValueType>,
    pub(crate) results: Vec<ValueType>,
    pub(crate) body: Body,
}

impl fmt::Debug for HostFunction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HostFunction({}::{} {:?} -> {:?})", self.module, self.name, self.params, self.results)
    }
}

impl HostFunction {
    /// The import module for functions whose author named none.
    pub const USER: &str = "extism:host/user";

    /// A function from bytes to bytes, which guests see as a handle for a handle. What the body returns
    /// as an error ends the guest's call.
    pub fn bytes(
        name: impl Into<String>,
        body: impl Fn(&[u8]) -> Result<Vec<u8>, String> + Send + Sync + 'static,
    ) -> Self {
        Self::new(name, vec![ValueType::I64], vec![ValueType::I64], Body::Bytes(Arc::new(body)))
    }

    /// The same, for a body that waits: the guest is suspended, not the thread. The future must be able
    /// to run on any Tokio runtime.
    pub fn suspending<F>(name: impl Into<String>, body: impl Fn(Vec<u8>) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<Vec<u8>, String>> + Send + 'static,
    {
        let body = Arc::new(move |input| Box::pin(body(input)) as Pin<Box<dyn Future<Output = _> + Send>>);
        Self::new(name, vec![ValueType::I64], vec![ValueType::I64], Body::Suspending(body))
    }

    /// A function of any plain type, with access to the guest's memory.
    pub fn raw(
        name: impl Into<String>,
        params: Vec<ValueType>,
        results: Vec<ValueType>,
        body: impl Fn(&mut HostCall<'_>, &[Val], &mut [Val]) -> Result<(), wasmtime::Error>
        + Send
        + Sync
        + 'static,
    ) -> Self {
        Self::new(name, params, results, Body::Raw(Arc::new(body)))
    }

    /// The import module guests name it by, instead of [`HostFunction::USER`].
    #[must_use]
    pub fn in_module(mut self, module: impl Into<String>) -> Self {
        self.module = module.into();
        self
    }

    fn new(name: impl Into<String>, params: Vec<ValueType>, results: Vec<ValueType>, body: Body) -> Self {
        Self { module: Self::USER.to_owned(), name: name.into(), params, results, body }
    }

    pub(crate) fn suspends(&self) -> bool {
        matches!(self.body, Body::Suspending(_))
    }
}

/// What an embedder's function said when it failed.
#[derive(Debug)]
pub(crate) struct Failed(pub(crate) String);

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Failed {}

/// The error type of raw host functions, re-exported so that embedders need not depend on wasmtime.
pub type HostError = wasmtime::Error;
