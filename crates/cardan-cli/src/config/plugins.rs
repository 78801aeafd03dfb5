//! Plugins, from wherever the configuration has them.

use std::path::{Path, PathBuf};

use cardan_api::manifest::{PluginEntry, llmproxy};
use cardan_manager::{PluginSpec, resolve_entry, resolve_folder, resolve_llmproxy};
use schemars::JsonSchema;
use serde::Deserialize;

use super::folder::PluginFolder;
use super::source::{parse, read_text};
use crate::output::Failure;

/// LLMProxy's plugins.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct LlmProxy {
    /// Its manifests; an entry of a later one replaces that of the same name in an earlier one.
    pub(super) manifests: Vec<PathBuf>,
    /// What entry points are relative to; the folder of the first manifest unless said otherwise.
    #[serde(default)]
    pub(super) folder: Option<PathBuf>,
}

/// What is said about a manifest of LLMProxy with nothing in it.
pub(super) const EMPTY_RINGS: &str = "`[]` is a manifest without plugins";

/// Plugins that were found, and what there is to say about them.
#[derive(Debug, Default)]
pub(super) struct Plugins {
    pub(super) specs: Vec<PluginSpec>,
    pub(super) warnings: Vec<String>,
}

impl Plugins {
    /// Those that the file itself describes.
    pub(super) fn add_entries(&mut self, entries: &[PluginEntry], base: &Path) -> Result<(), Failure> {
        for (i, entry) in entries.iter().enumerate().filter(|(_, entry)| entry.enabled) {
            let (spec, warnings) = resolve_entry(entry, base)
                .map_err(|error| Failure::unusable(format_args!("plugins[{i}]: {error}")))?;
            self.specs.push(spec);
            self.warnings.extend(warnings.into_iter().map(|warning| warning.0));
        }
        Ok(())
    }

    /// What there is to say about a folder before anything in it is loaded.
    pub(super) fn check_folder(&mut self, folder: &PluginFolder) -> Result<(), Failure> {
        let found = resolve_folder(&folder.path)
            .map_err(|why| Failure::unusable(format_args!("plugin_dir: {why}")))?;
        self.warnings.extend(found.warnings.into_iter().map(|warning| warning.0));
        Ok(())
    }

    /// Those of LLMProxy's manifests.
    pub(super) fn add_rings(&mut self, rings: &LlmProxy, base: &Path) -> Result<(), Failure> {
        let first = rings.manifests.first().and_then(|path| path.parent()).unwrap_or(Path::new(""));
        let folder = base.join(rings.folder.as_deref().unwrap_or(first));
        let documents = rings.manifests.iter().map(|manifest| {
            let path = base.join(manifest);
            let document = parse(&path, &read_text(&path, "")?, EMPTY_RINGS)?;
            Ok((path, document))
        });
        self.add_documents(documents.collect::<Result<_, Failure>>()?, &folder)
    }

    /// Those of LLMProxy's manifests, read already.
    pub(super) fn add_documents(
        &mut self,
        documents: Vec<(PathBuf, llmproxy::Document)>,
        folder: &Path,
    ) -> Result<(), Failure> {
        let mut entries: Vec<llmproxy::Entry> = Vec::new();
        for (path, document) in documents {
            for key in document.other_keys() {
                let path = path.display();
                self.warnings.push(format!("{path}: LLMProxy's manifest has no key {key:?}; it is ignored"));
            }
            for entry in document.into_entries() {
                match entries.iter_mut().find(|earlier| earlier.name == entry.name) {
                    Some(earlier) => *earlier = entry,
                    None => entries.push(entry),
                }
            }
        }
        for entry in &entries {
            let (spec, warned) = resolve_llmproxy(entry, folder).map_err(Failure::unusable)?;
            self.specs.extend(spec);
            self.warnings.extend(warned.into_iter().map(|warning| warning.0));
        }
        Ok(())
    }
}
