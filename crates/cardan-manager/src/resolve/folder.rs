//! A folder of plugins.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use cardan_api::manifest::PluginEntry;

use super::described::Found;
use super::locate::{self, Located, file_name};
use super::{Warning, entry};
use crate::spec::{Owner, PluginSpec};

/// What a folder of plugins holds.
#[derive(Debug, Default)]
pub struct Folder {
    /// Those that can be meant, by file name.
    pub plugins: Vec<PluginSpec>,
    /// Those that cannot. A plugin of that name that serves already had better go on.
    pub broken: Vec<Broken>,
    /// What stops nothing.
    pub warnings: Vec<Warning>,
}

/// A plugin in a folder that cannot be loaded as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// The file or sub-folder.
    pub path: PathBuf,
    /// The plugin's name, as far as it is known: that in its manifest, or the file's.
    pub plugin: String,
    /// A line for each thing that is wrong.
    pub problem: String,
}

/// Resolves every plugin of a folder: modules, with or without a manifest beside them; manifests of a plugin,
/// Extism's too; and sub-folders with a `plugin.yaml`. Files that are hidden, temporary or still empty are left alone. One
/// that is broken takes no other with it.
///
/// # Errors
///
/// When the folder cannot be read. It then says nothing about its plugins, least of all that there are none.
pub fn resolve_folder(folder: &Path) -> Result<Folder, String> {
    let mut found = candidates(folder)?;
    let mut plugins = Vec::new();
    for candidate in std::mem::take(&mut found.located) {
        let name = candidate.name();
        let entry = PluginEntry::new(&name, "");
        match entry::assemble(&entry, candidate.located, Path::new(""), Owner::Folder) {
            Ok((spec, warnings)) => {
                found.warnings.extend(warnings);
                plugins.push(spec);
            }
            Err(error) => {
                found.broken.push(Broken { path: candidate.path, plugin: name, problem: error.to_string() })
            }
        }
    }
    Ok(Folder { plugins, broken: found.broken, warnings: found.warnings })
}

/// A plugin of a folder, found and not resolved yet.
#[derive(Debug)]
pub(super) struct Candidate {
    /// What it was found by.
    pub(super) path: PathBuf,
    pub(super) located: Located,
}

impl Candidate {
    /// The name in its manifest, else its file's.
    pub(super) fn name(&self) -> String {
        self.located.name().unwrap_or_else(|| locate::stem(&self.path))
    }
}

#[derive(Debug, Default)]
pub(super) struct Candidates {
    pub(super) located: Vec<Candidate>,
    pub(super) broken: Vec<Broken>,
    pub(super) warnings: Vec<Warning>,
}

impl Candidates {
    fn add(&mut self, path: &Path, found: Result<Located, String>) {
        let path = path.to_owned();
        match found {
            Ok(located) => self.located.push(Candidate { path, located }),
            Err(problem) => {
                let plugin = locate::stem(&path);
                self.broken.push(Broken { path, plugin, problem });
            }
        }
    }

    /// In order of their paths. The first of a name has it.
    fn sort(&mut self) {
        self.located.sort_by(|one, other| one.path.cmp(&other.path));
        let mut owners: BTreeMap<String, PathBuf> = BTreeMap::new();
        for candidate in std::mem::take(&mut self.located) {
            let (name, path) = (candidate.name(), candidate.path.clone());
            match owners.get(&name) {
                Some(owner) => {
                    let problem = format!("{} is called {name} too; rename one of them", owner.display());
                    self.broken.push(Broken { path, plugin: name, problem });
                }
                None => {
                    owners.insert(name, path);
                    self.located.push(candidate);
                }
            }
        }
    }

    fn is_claimed(&self, module: &Path) -> bool {
        let real = module.canonicalize();
        self.located.iter().any(|candidate| {
            let theirs = &candidate.located.module;
            theirs == module
                || matches!((theirs.canonicalize(), &real), (Ok(theirs), Ok(real)) if theirs == *real)
        })
    }
}

/// Everything in a folder that is a plugin, or was meant to be one.
pub(super) fn candidates(folder: &Path) -> Result<Candidates, String> {
    let files = locate::files(folder)?;
    let mut found = Candidates::default();
    // Manifests first: a module they are about is no plugin of its own.
    for path in files.iter().filter(|path| locate::is_document(path) && path.is_file()) {
        match Found::read(path) {
            Ok(Found::Plugin(_) | Found::Extism) => found.add(path, locate::locate(path)),
            Ok(Found::Other(kind)) => {
                found.warnings.push(Warning(format!(
                    "{} is {kind}, and nothing in a folder of plugins",
                    path.display()
                )));
            }
            Ok(Found::Unknown) => {
                found.warnings.push(Warning(format!("{} is no manifest of a plugin", path.display())));
            }
            Err(why) => found.add(path, Err(format!("{}: {why}", file_name(path)))),
        }
    }
    for path in &files {
        if path.is_dir() {
            sub_folder(path, &mut found);
        } else if locate::is_module(path) && !found.is_claimed(path) {
            module(path, &mut found);
        }
    }
    found.sort();
    Ok(found)
}

fn module(path: &Path, found: &mut Candidates) {
    match std::fs::metadata(path) {
        Ok(metadata) if metadata.is_file() && metadata.len() == 0 => {
            let told = format!("{} is empty: somebody is still writing it, or meant to", path.display());
            found.warnings.push(Warning(told));
        }
        // Its manifest was there and broken: said once is enough.
        _ if found.broken.iter().any(|broken| is_manifest_of(&broken.path, path)) => {}
        _ => found.add(path, locate::locate(path)),
    }
}

/// Whether a manifest has a module's name.
fn is_manifest_of(manifest: &Path, module: &Path) -> bool {
    locate::is_document(manifest) && manifest.with_extension("") == module.with_extension("")
}

fn sub_folder(path: &Path, found: &mut Candidates) {
    let names = locate::files(path).unwrap_or_default();
    let is_manifest = |file: &PathBuf| {
        let name = file_name(file);
        locate::is_document(file)
            && (locate::stem(file) == "plugin" || name == "manifest.json" || name == "cortex.json")
    };
    if names.iter().any(is_manifest) {
        found.add(path, locate::locate(path));
    } else {
        found
            .warnings
            .push(Warning(format!("{} has no plugin.yaml in it and is not looked into", path.display())));
    }
}
