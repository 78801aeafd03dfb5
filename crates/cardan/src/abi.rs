//! The calling conventions: how bytes reach a guest and come back.
//!
//! Guests of core modules are instances of one kind, Extism's; other conventions of such modules are *lowered* to
//! it when they are loaded. This file is the only place that knows there is more than one.

pub(crate) mod capability;
pub(crate) mod extism;
mod imported;
mod lowering;
mod packed;

use std::collections::BTreeMap;
use std::fmt;

use self::extism::{ImportKind, ModuleInspection};
use crate::Error;
use crate::dialect::Dialect;

pub(crate) use imported::Imported;
pub use lowering::ResultForm;

/// A calling convention.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Abi {
    /// Extism 1.x: a kernel memory between host and guest, exports without parameters.
    Extism,
    /// A pointer and a length in, both in one `i64` out, in memory of the guest's `alloc`: HeliosProxy's.
    Packed,
    /// Tools that a guest exports, by name or behind one export: CortexPrism's.
    Capability,
}

impl Abi {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Extism, Self::Packed, Self::Capability];

    /// The name in configuration, metrics and `cardan inspect`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Extism => "extism",
            Self::Packed => "packed",
            Self::Capability => "capability",
        }
    }

    /// The dialect of the system that the convention was made for.
    pub(crate) fn native_dialect(self) -> Option<Dialect> {
        match self {
            Self::Extism => None,
            Self::Packed => Some(Dialect::HeliosProxy),
            Self::Capability => Some(Dialect::CortexPrism),
        }
    }

    /// What a core module is, by its imports and exports. One that says nothing is taken for Extism's; what is
    /// `implied` counts for more than its exports.
    pub(crate) fn recognise(module: &ModuleInspection, implied: Option<Self>) -> Self {
        if module.imports.iter().any(|(from, _, _)| from.starts_with("extism:host/")) {
            return Self::Extism;
        }
        if let Some(implied) = implied {
            return implied;
        }
        let types = module.function_types.iter().map(String::as_str);
        let exports: Vec<(&str, &str)> = module.functions.iter().map(String::as_str).zip(types).collect();
        let imports = module.imports.iter().map(|(from, name, _)| (from.as_str(), name.as_str()));
        let imports: Vec<(&str, &str)> = imports.collect();
        if packed::recognise(exports.iter().copied()) {
            Self::Packed
        } else if capability::recognise(&exports, &imports) {
            Self::Capability
        } else {
            Self::Extism
        }
    }

    /// What can be asked of a module with these exports: they, and what the convention answers in their place.
    pub(crate) fn entries(self, exports: &[String]) -> Vec<String> {
        let own = (self == Self::Capability).then(|| capability::LIST.to_owned());
        exports.iter().cloned().chain(own).collect()
    }

    /// The guest as guests of Extism are called; `None` for one that already is.
    pub(crate) fn lower(
        self,
        module: &[u8],
        forms: &BTreeMap<String, ResultForm>,
    ) -> Result<Option<Vec<u8>>, Error> {
        match self {
            Self::Extism => Ok(None),
            Self::Packed => packed::lower(module).map(Some),
            Self::Capability => capability::lower(module, forms).map(Some),
        }
    }

    /// What an import means in this convention, where it means something of its own.
    pub(crate) fn imported(self, module: &str, name: &str, kind: &ImportKind) -> Option<Imported> {
        let rows = match self {
            Self::Extism => return None,
            Self::Packed => packed::IMPORTS,
            Self::Capability => capability::IMPORTS,
        };
        imported::find(rows, module, name, kind)
    }
}

/// Defines what lowered guests import for being called.
pub(crate) fn define_lowered(linker: &mut wasmtime::Linker<extism::State>) -> wasmtime::Result<()> {
    lowering::host::define(linker)
}

impl fmt::Display for Abi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for Abi {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|abi| abi.name() == text).ok_or_else(|| {
            let known: Vec<&str> = Self::ALL.into_iter().map(Self::name).collect();
            format!("{text:?} is no calling convention: {}", known.join(", "))
        })
    }
}
