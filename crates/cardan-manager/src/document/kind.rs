//! Telling documents apart by what is in them.

use std::fmt;

use serde_json::{Map, Value};

use crate::resolve::helios_hook;

/// What a document is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `cardan.yaml`.
    Config,
    /// `plugin.yaml`, Cardan's own.
    Plugin,
    /// HeliosProxy's manifest of one plugin.
    HeliosPlugin,
    /// HeliosProxy's configuration, for its `[plugins]`.
    HeliosConfig,
    /// LLMProxy's manifest of all plugins.
    LlmProxy,
    /// CortexPrism's manifest of one plugin.
    Cortex,
    /// Extism's manifest.
    Extism,
    /// The body of SMG's `POST /wasm`.
    SmgDeploy,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Config => "a configuration of Cardan",
            Self::Plugin => "a plugin's manifest",
            Self::HeliosPlugin => "a plugin's manifest of HeliosProxy",
            Self::HeliosConfig => "a configuration of HeliosProxy",
            Self::LlmProxy => "a manifest of LLMProxy",
            Self::Cortex => "a plugin's manifest of CortexPrism",
            Self::Extism => "an Extism manifest",
            Self::SmgDeploy => "a deploy request of SMG",
        })
    }
}

impl Kind {
    /// The name for programs, that of its schema.
    pub fn name(self) -> &'static str {
        match self {
            Self::Config => "config",
            Self::Plugin => "plugin",
            Self::HeliosPlugin => "helios-plugin",
            Self::HeliosConfig => "helios-config",
            Self::LlmProxy => "llmproxy",
            Self::Cortex => "cortex",
            Self::Extism => "extism",
            Self::SmgDeploy => "smg-deploy",
        }
    }

    /// What a document is that has this in it. `None` where nothing gives it away.
    pub fn of(document: &Value) -> Option<Self> {
        let keys = match document {
            Value::Array(_) => return Some(Self::LlmProxy),
            Value::Object(keys) => keys,
            _ => return None,
        };
        let has = |key: &str| keys.contains_key(key);
        if has("entryPoint") {
            return Some(Self::Cortex);
        }
        if keys.get("wasm").is_some_and(Value::is_array) {
            return Some(Self::Extism);
        }
        if keys.get("modules").is_some_and(Value::is_array) {
            return Some(Self::SmgDeploy);
        }
        match keys.get("plugins") {
            Some(Value::Object(_)) => return Some(Self::HeliosConfig),
            Some(Value::Array(plugins)) if plugins.iter().any(|it| it.get("entrypoint").is_some()) => {
                return Some(Self::LlmProxy);
            }
            Some(_) => return Some(Self::Config),
            None => {}
        }
        if ["listen", "upstreams", "routes", "llmproxy", "engine"].iter().any(|key| has(key)) {
            return Some(Self::Config);
        }
        let plugin = ["name", "version", "hooks", "permissions", "config_schema"].iter().any(|key| has(key));
        plugin.then(|| if is_helios(keys) { Self::HeliosPlugin } else { Self::Plugin })
    }
}

/// Ours and HeliosProxy's manifests differ in little. What only one of them has decides, and hooks of
/// HeliosProxy's names.
fn is_helios(keys: &Map<String, Value>) -> bool {
    const THEIRS: [&str; 5] = ["min_memory", "max_memory", "priority", "schema_version", "wasm_sha256"];
    const OURS: [&str; 10] = [
        "homepage", "module", "sha256", "abi", "dialect", "instance", "bindings", "limits", "health", "tick",
    ];
    if OURS.iter().any(|key| keys.contains_key(*key)) {
        return false;
    }
    let hooks = keys.get("hooks").and_then(Value::as_array);
    let named = hooks.is_some_and(|hooks| {
        !hooks.is_empty() && hooks.iter().all(|hook| hook.as_str().and_then(helios_hook).is_some())
    });
    named || THEIRS.iter().any(|key| keys.contains_key(*key))
}
