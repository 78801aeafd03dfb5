//! What a manifest says about one plugin, whosever manifest it is.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use cardan_api::manifest::{Abi, HealthEntry, LimitsEntry, Milliseconds, ResultForm, cortex, helios, plugin};
use cardan_api::{Capability, Dialect, InstanceMode};
use serde_json::Value;

use super::hooks::Places;
use super::{Warning, locate};
use crate::document::{self, Format, Kind};
use crate::spec::About;

/// What a manifest says about one plugin.
#[derive(Debug, Clone, Default)]
pub(super) struct Described {
    pub(super) name: Option<String>,
    pub(super) version: String,
    pub(super) about: About,
    /// As written: a path relative to the manifest, or whatever its system allows.
    pub(super) module: PathBuf,
    pub(super) sha256: Option<String>,
    pub(super) abi: Option<Abi>,
    /// The convention of the system whose manifest it is.
    pub(super) abi_implied: Option<Abi>,
    pub(super) result_forms: BTreeMap<String, ResultForm>,
    pub(super) dialect: Option<Dialect>,
    pub(super) mode: Option<InstanceMode>,
    /// `None`: wherever it has an export.
    pub(super) places: Option<Places>,
    /// `None`: what its imports need.
    pub(super) requested: Option<BTreeSet<Capability>>,
    /// The only hosts it asks for.
    pub(super) hosts: Option<Vec<String>>,
    /// As JSON Schema.
    pub(super) config_schema: Option<Value>,
    pub(super) limits: LimitsEntry,
    /// It cannot run with less.
    pub(super) memory_min: Option<u64>,
    /// Time of one call in its system, where nothing says otherwise.
    pub(super) deadline: Option<Duration>,
    pub(super) health: HealthEntry,
    pub(super) tick: Option<Milliseconds>,
    pub(super) warnings: Vec<Warning>,
}

/// What a file next to modules turned out to be.
#[derive(Debug)]
pub(super) enum Found {
    /// A manifest of one plugin.
    Plugin(Box<Described>),
    /// An Extism manifest: the runtime reads it.
    Extism,
    /// Something else that has its place elsewhere.
    Other(Kind),
    /// Nothing that is known.
    Unknown,
}

impl Found {
    /// Reads and understands a file. An error begins with the key, if there is one; it does not name the file.
    pub(super) fn read(path: &Path) -> Result<Self, String> {
        let text = document::read(path)?;
        let format = Format::of(path);
        let Some(value) = document::value(&text, format)? else {
            return Err("it is empty, or has nothing but comments".to_owned());
        };
        let empty = || "it is empty".to_owned();
        let mut described = match Kind::of(&value) {
            Some(Kind::Plugin) => {
                let manifest: plugin::Manifest = document::parse(&text, format)?.ok_or_else(empty)?;
                super::native::describe(manifest, path)?
            }
            Some(Kind::HeliosPlugin) => {
                let manifest: helios::Manifest = document::parse(&text, format)?.ok_or_else(empty)?;
                super::helios::describe(manifest, path)?
            }
            Some(Kind::Cortex) => {
                let manifest: cortex::Manifest = document::parse(&text, format)?.ok_or_else(empty)?;
                super::cortex::describe(manifest, path)?
            }
            Some(Kind::Extism) => return Ok(Self::Extism),
            Some(other) => return Ok(Self::Other(other)),
            None => return Ok(Self::Unknown),
        };
        described.warnings.extend(described.places.iter().flat_map(Places::warnings).collect::<Vec<_>>());
        Ok(Self::Plugin(Box::new(described)))
    }
}

/// The module of a manifest that does not name one.
pub(super) fn only_module(manifest: &Path) -> Result<PathBuf, String> {
    let folder = manifest.parent().unwrap_or(Path::new(""));
    let modules = locate::modules(folder)?;
    if let Some(same) = modules.iter().find(|module| module.file_stem() == manifest.file_stem()) {
        return Ok(same.clone());
    }
    match modules.as_slice() {
        [only] => Ok(only.clone()),
        [] => Err("module: there is no .wasm file in its folder; name one".to_owned()),
        several => {
            let names: Vec<String> = several.iter().map(|path| locate::file_name(path)).collect();
            Err(format!("module: it does not say which of {} it is about; name one", names.join(", ")))
        }
    }
}
