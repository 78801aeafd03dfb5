//! Names of the calling conventions, and of what they leave open, for configuration.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How bytes reach a guest, where a manifest has to say it because exports and imports do not tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Abi {
    /// Extism 1.x: handles into a memory between host and guest.
    Extism,
    /// HeliosProxy's: pointer and length in, both packed into 64 bits out.
    Packed,
    /// CortexPrism's: one export for each capability, or a dispatcher for all of them.
    Capability,
    /// The component model, as SMG's middleware uses it.
    Component,
}

impl Abi {
    /// The name in configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Extism => "extism",
            Self::Packed => "packed",
            Self::Capability => "capability",
            Self::Component => "component",
        }
    }
}

impl fmt::Display for Abi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a tool returns that returns nothing but an `i32`, where it does not show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ResultForm {
    /// A pointer to text that ends in a NUL byte.
    Nul,
    /// A pointer to the text's length, four bytes in little-endian order, and behind it the text.
    Len32,
    /// The result itself, a number.
    Int,
}
