//! What a plugin is, for people and for `cardan inspect`.

use cardan_api::Capability;
use serde::Serialize;

use crate::abi::Abi;
use crate::dialect::Dialect;

/// What a plugin is, read from its bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Inspection {
    /// The calling convention.
    #[serde(serialize_with = "abi_name")]
    pub abi: Abi,
    /// The dialect of its exports, if it is a known one.
    pub dialect: Option<Dialect>,
    /// Hooks it can be bound to.
    pub hooks: Vec<&'static str>,
    /// Hooks of its own life that it has an export for; nobody binds them.
    pub lifecycle: Vec<&'static str>,
    /// Exported functions, as declared.
    pub exports: Vec<String>,
    /// Imported functions, as declared.
    pub imports: Vec<Import>,
    /// Bytes of the main module's memories: at first, and at most if it says so.
    pub memories: Vec<(u64, Option<u64>)>,
    /// What its imports ask for.
    pub capabilities: Vec<Capability>,
    /// SHA-256 of the main module, in hexadecimal.
    pub digest: String,
    /// Bytes of all modules.
    pub size_bytes: u64,
    /// Modules it consists of.
    pub modules: usize,
}

/// One imported function.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Import {
    /// Import module, for instance `extism:host/env`.
    pub module: String,
    /// Name within it.
    pub name: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn abi_name<S: serde::Serializer>(abi: &Abi, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(abi.name())
}
