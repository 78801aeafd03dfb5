//! Names of the document families, for configuration.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A family of JSON documents that plugins of byte conventions speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Dialect {
    /// Cardan's own.
    Cardan,
    /// LLMProxy's ring plugins.
    LlmProxy,
}

impl Dialect {
    /// The name in configuration and in `cardan inspect`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cardan => "cardan",
            Self::LlmProxy => "llmproxy",
        }
    }
}

impl fmt::Display for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
