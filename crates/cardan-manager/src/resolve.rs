//! From manifests as written to specs: names looked up, defaults filled in, files found.
//!
//! Whosever manifest it is, what it says is brought to one form ([`Described`](described::Described)) and then
//! under what the operator says.

use std::fmt;
use std::path::Path;

use cardan_api::manifest::PluginEntry;

use crate::spec::{Owner, PluginSpec};

mod cortex;
mod described;
mod entry;
mod folder;
mod grants;
mod helios;
mod hooks;
mod limits;
mod llmproxy;
mod locate;
mod native;
mod permissions;
pub(crate) mod settings;
mod smg;

pub use folder::{Broken, Folder, resolve_folder};
pub use helios::{HeliosDeployment, resolve_helios};
pub(crate) use hooks::helios_hook;
pub use llmproxy::resolve_llmproxy;
pub use smg::resolve_smg;

/// Why a manifest's entry cannot be meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolveError {
    /// The plugin's name.
    pub plugin: String,
    /// Each begins with the key, says what is wrong, and what would be right. At least one.
    pub problems: Vec<String>,
}

impl ResolveError {
    fn new(plugin: impl Into<String>, problem: String) -> Self {
        Self { plugin: plugin.into(), problems: vec![problem] }
    }
}

impl fmt::Display for ResolveError {
    /// A line for each problem.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.problems.iter().enumerate() {
            let end = if i + 1 == self.problems.len() { "" } else { "\n" };
            write!(f, "plugin {}: {problem}{end}", self.plugin)?;
        }
        Ok(())
    }
}

impl std::error::Error for ResolveError {}

/// Something about a manifest that its author or an operator should know, and that stops nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning(pub String);

impl Warning {
    fn about(self, plugin: &str) -> Self {
        Self(format!("plugin {plugin}: {}", self.0))
    }
}

/// Resolves an entry of `cardan.yaml`; `base` is where the file lies. Reads the plugin's manifest, if it
/// has one.
///
/// # Errors
///
/// When a value cannot be meant: a hook or a phase that does not exist, a pattern that is none, a limit
/// of nothing, a configuration that the manifest's schema refuses. A message begins with the key's path within
/// the entry, or with the manifest's file name and the path in there.
pub fn resolve_entry(entry: &PluginEntry, base: &Path) -> Result<(PluginSpec, Vec<Warning>), ResolveError> {
    check_name(&entry.name).map_err(|why| ResolveError::new(&entry.name, why))?;
    let found =
        locate::locate(&base.join(&entry.source)).map_err(|why| ResolveError::new(&entry.name, why))?;
    entry::assemble(entry, found, base, Owner::File)
}

/// Resolves a plugin that nobody said anything about but where it is: a module, a manifest, or a folder that
/// holds one of these. Without a manifest it is called by its file's name.
///
/// # Errors
///
/// Those of [`resolve_entry`].
pub fn resolve_path(path: &Path, owner: Owner) -> Result<(PluginSpec, Vec<Warning>), ResolveError> {
    let stem = locate::stem(path);
    let found = locate::locate(path).map_err(|why| ResolveError::new(&stem, why))?;
    let entry = PluginEntry::new(found.name().unwrap_or(stem), "");
    entry::assemble(&entry, found, Path::new(""), owner)
}

/// A plugin's name stands in log lines, metrics and error messages.
fn check_name(name: &str) -> Result<(), String> {
    /// HeliosProxy's number.
    const CHARS_MAX: usize = 128;
    if name.trim().is_empty() {
        return Err("name: it is empty".to_owned());
    }
    if name.chars().any(char::is_control) {
        return Err(format!("name: {name:?} has a control character in it"));
    }
    if name.chars().count() > CHARS_MAX {
        return Err(format!("name: it is longer than {CHARS_MAX} characters"));
    }
    Ok(())
}

fn check_sha256(digest: &str) -> Result<(), String> {
    if digest.len() == 64 && digest.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(());
    }
    Err(format!("sha256: {digest:?} is no SHA-256 digest: 64 hexadecimal digits, as sha256sum prints them"))
}
