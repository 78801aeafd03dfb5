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
    /// HeliosProxy's database plugins.
    HeliosProxy,
    /// CortexPrism's tools.
    CortexPrism,
}

impl Dialect {
    /// Every dialect.
    pub const ALL: [Self; 4] = [Self::Cardan, Self::LlmProxy, Self::HeliosProxy, Self::CortexPrism];

    /// The name in configuration and in `cardan inspect`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cardan => "cardan",
            Self::LlmProxy => "llmproxy",
            Self::HeliosProxy => "heliosproxy",
            Self::CortexPrism => "cortexprism",
        }
    }
}

impl fmt::Display for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
