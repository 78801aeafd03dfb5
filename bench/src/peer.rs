//! The `extism` crate's side.

use std::path::Path;

use anyhow::Result;
use extism::{CompiledPlugin, Plugin, PluginBuilder};

pub(crate) const REUSED: &str = "extism, reused";
pub(crate) const FRESH: &str = "extism, fresh";

/// Compiles without the cache that the crate otherwise keeps in the user's home directory. No WASI, no
/// log, no timeout: what a call costs at least.
pub(crate) fn compile(wasm: &[u8]) -> Result<CompiledPlugin> {
    PluginBuilder::new(wasm).with_cache_disabled().compile()
}

/// Compiles with a cache: `config` is a file in wasmtime's format.
pub(crate) fn compile_cached(wasm: &[u8], config: &Path) -> Result<CompiledPlugin> {
    PluginBuilder::new(wasm).with_cache_config(config).compile()
}

/// Writes the cache configuration for [`compile_cached`] and returns its path.
pub(crate) fn cache_config(dir: &Path) -> Result<std::path::PathBuf> {
    std::fs::create_dir_all(dir)?;
    let path = dir.join("cache.toml");
    let dir = serde_json::Value::from(dir.join("code").to_string_lossy().into_owned());
    std::fs::write(&path, format!("[cache]\ndirectory = {dir}\n"))?;
    Ok(path)
}

pub(crate) fn call(plugin: &mut Plugin, export: &str, input: &[u8]) -> Result<Vec<u8>> {
    plugin.call::<&[u8], Vec<u8>>(export, input)
}

/// A call on an instance of its own, which is then thrown away.
pub(crate) fn call_fresh(compiled: &CompiledPlugin, export: &str, input: &[u8]) -> Result<Vec<u8>> {
    call(&mut Plugin::new_from_compiled(compiled)?, export, input)
}
