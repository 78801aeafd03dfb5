//! Strings that the plugin was deployed with beside its configuration: what Extism calls a plugin's config.

use crate::host;

/// One of them.
pub fn get(name: &str) -> Option<String> {
    host::config_get(name)
}
