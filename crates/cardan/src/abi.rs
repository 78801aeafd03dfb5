//! The calling conventions: how bytes reach a guest and come back.
//!
//! Each convention has a folder with the same files: *recognise* what a module is, *link* it once into a
//! template, *call* an instance of it, and a *codec* for what comes back. This file is the only place
//! that knows there is more than one.

pub(crate) mod extism;

use std::fmt;

/// A calling convention.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Abi {
    /// Extism 1.x: a kernel memory between host and guest, exports without parameters.
    Extism,
}

impl Abi {
    /// The name in configuration, metrics and `cardan inspect`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Extism => "extism",
        }
    }
}

impl fmt::Display for Abi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
