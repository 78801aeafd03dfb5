//! Plugins, from wherever the configuration has them.

use std::path::{Path, PathBuf};

use cardan_api::manifest::llmproxy;
use cardan_manager::{PluginSpec, resolve_llmproxy};
use schemars::JsonSchema;
use serde::Deserialize;

use super::source::{parse_yaml, read_text};
use crate::output::Failure;

/// LLMProxy's plugins.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct LlmProxy {
    /// Its manifests; an entry of a later one replaces that of the same name in an earlier one.
    manifests: Vec<PathBuf>,
    /// What entry points are relative to; the folder of the first manifest unless said otherwise.
    #[serde(default)]
    folder: Option<PathBuf>,
}

impl LlmProxy {
    pub(super) fn resolve(
        &self,
        base: &Path,
        plugins: &mut Vec<PluginSpec>,
        warnings: &mut Vec<String>,
    ) -> Result<(), Failure> {
        let first = self.manifests.first().and_then(|path| path.parent()).unwrap_or(Path::new(""));
        let folder = base.join(self.folder.as_deref().unwrap_or(first));
        let mut entries: Vec<llmproxy::Entry> = Vec::new();
        for manifest in &self.manifests {
            let path = base.join(manifest);
            let document: llmproxy::Document =
                parse_yaml(&path, &read_text(&path, "")?, "`[]` is a manifest without plugins")?;
            for entry in document.into_entries() {
                match entries.iter_mut().find(|earlier| earlier.name == entry.name) {
                    Some(earlier) => *earlier = entry,
                    None => entries.push(entry),
                }
            }
        }
        for entry in &entries {
            let (spec, warned) = resolve_llmproxy(entry, &folder).map_err(Failure::unusable)?;
            plugins.extend(spec);
            warnings.extend(warned.into_iter().map(|warning| warning.0));
        }
        Ok(())
    }
}
