//! The folder of plugins beside those that a configuration names.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cardan_api::manifest::{PluginEntry, helios};
use cardan_manager::{Broken, Look, PluginSpec, Scan, Warning, resolve_folder, resolve_helios};

/// A folder of plugins, and how it is looked at.
#[derive(Clone)]
pub(crate) struct PluginFolder {
    pub(crate) path: PathBuf,
    /// Whether changes in it count without being told.
    pub(crate) hot_reload: bool,
    pub(crate) look: Arc<Look>,
}

impl fmt::Debug for PluginFolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PluginFolder").field("path", &self.path).finish_non_exhaustive()
    }
}

impl PluginFolder {
    /// `plugin_dir` of `cardan.yaml`. What an entry there describes, be it switched off, is no other plugin.
    pub(super) fn beside(path: PathBuf, entries: &[PluginEntry], base: &Path) -> Self {
        let described: Vec<(String, PathBuf)> =
            entries.iter().map(|entry| (entry.name.clone(), base.join(&entry.source))).collect();
        let look = move |folder: &Path| match resolve_folder(folder) {
            Ok(mut found) => {
                found.plugins.retain(|spec| !is_described(spec, &described, folder));
                scan(found.plugins, found.broken, &found.warnings)
            }
            Err(why) => unreadable(folder, why),
        };
        Self { path, hot_reload: true, look: Arc::new(look) }
    }

    /// What a look at it finds now. Blocks.
    pub(crate) fn found(&self) -> Scan {
        (self.look)(&self.path)
    }

    /// That of HeliosProxy's configuration.
    pub(super) fn of_helios(path: PathBuf, file: helios::File, base: PathBuf) -> Self {
        let hot_reload = file.plugins.hot_reload;
        let look = move |folder: &Path| match resolve_helios(&file, &base) {
            Ok(found) => scan(found.plugins, found.broken, &found.warnings),
            Err(why) => unreadable(folder, why),
        };
        Self { path, hot_reload, look: Arc::new(look) }
    }
}

fn is_described(spec: &PluginSpec, entries: &[(String, PathBuf)], folder: &Path) -> bool {
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let folder = real(folder);
    let own = [Some(spec.source.as_path()), spec.manifest.as_deref(), spec.source.parent()];
    let own: Vec<PathBuf> = own.into_iter().flatten().map(real).filter(|path| *path != folder).collect();
    entries.iter().any(|(name, source)| *name == spec.name || own.contains(&real(source)))
}

/// What is only worth a word is said at every look that finds something else than the one before; here it is
/// among what the log keeps for those who ask.
fn scan(specs: Vec<PluginSpec>, broken: Vec<Broken>, warnings: &[Warning]) -> Scan {
    for Warning(told) in warnings {
        tracing::debug!("{told}");
    }
    let problems = broken.into_iter().map(|broken| (broken.path, broken.problem)).collect();
    Scan { specs, problems }
}

/// It says nothing about the plugins in it, so none goes.
fn unreadable(folder: &Path, why: String) -> Scan {
    Scan { specs: Vec::new(), problems: vec![(folder.to_owned(), why)] }
}
