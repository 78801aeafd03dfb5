//! Finding a plugin's module and its manifest, from any of them or from their folder.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use super::described::{Described, Found};
use crate::document::{self, Format};

/// Most files of a folder.
const FILES_MAX: usize = 10_000;
/// Names of manifests that are not the module's.
const STEMS: [&str; 1] = ["plugin"];
/// CortexPrism's names of manifests, and that of HeliosProxy's packages.
const NAMES: [&str; 2] = ["manifest.json", "cortex.json"];

/// A plugin that was found.
#[derive(Debug)]
pub(super) struct Located {
    /// The module, or an Extism manifest.
    pub(super) module: PathBuf,
    /// The manifest, and what it says.
    pub(super) manifest: Option<(PathBuf, Box<Described>)>,
}

impl Located {
    fn bare(module: impl Into<PathBuf>) -> Self {
        Self { module: module.into(), manifest: None }
    }

    fn by(path: &Path, described: Box<Described>) -> Self {
        Self { module: described.module.clone(), manifest: Some((path.to_owned(), described)) }
    }

    /// What its manifest calls it.
    pub(super) fn name(&self) -> Option<String> {
        self.manifest.as_ref().and_then(|(_, described)| described.name.clone())
    }
}

/// Finds the plugin that a path means. What is not there, and what cannot be a module nor a manifest, is left to
/// the loader, which says so better.
pub(super) fn locate(path: &Path) -> Result<Located, String> {
    if path.is_dir() {
        return in_folder(path);
    }
    if !path.is_file() {
        return Ok(Located::bare(path));
    }
    if is_module(path) {
        return beside(path);
    }
    if !is_document(path) {
        return Ok(Located::bare(path));
    }
    match Found::read(path).map_err(|why| format!("{}: {why}", file_name(path)))? {
        Found::Plugin(described) => Ok(Located::by(path, described)),
        Found::Extism | Found::Unknown => Ok(Located::bare(path)),
        Found::Other(kind) => Err(format!("{} is {kind}, and not of one plugin", file_name(path))),
    }
}

/// By its ending, or by how it begins.
pub(super) fn is_module(path: &Path) -> bool {
    if has_ending(path, &["wasm", "wat"]) {
        return true;
    }
    let mut first = Vec::new();
    let read = document::open(path).map(|file| file.take(4).read_to_end(&mut first));
    matches!(read, Ok(Ok(_))) && (first == b"\0asm" || first.starts_with(b"(") || first.starts_with(b";;"))
}

pub(super) fn is_document(path: &Path) -> bool {
    has_ending(path, &Format::ENDINGS)
}

fn has_ending(path: &Path, endings: &[&str]) -> bool {
    let ending = path.extension().and_then(|ending| ending.to_str());
    ending.is_some_and(|ending| endings.iter().any(|known| ending.eq_ignore_ascii_case(known)))
}

/// The name of a file, for messages and for plugins that nobody named.
pub(super) fn file_name(path: &Path) -> String {
    path.file_name().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned())
}

pub(super) fn stem(path: &Path) -> String {
    path.file_stem().map_or_else(|| "plugin".to_owned(), |stem| stem.to_string_lossy().into_owned())
}

/// A module, and the manifest in its folder that is about it.
fn beside(module: &Path) -> Result<Located, String> {
    let folder = module.parent().unwrap_or(Path::new(""));
    let same = module.file_stem().map(ToOwned::to_owned);
    let mut found: Option<(PathBuf, Box<Described>)> = None;
    for path in manifests(folder, same.as_deref()) {
        let name = file_name(&path);
        // One that has the module's name or says so itself is about it, whatever is wrong with it.
        let manifest = match Found::read(&path).map_err(|why| format!("{name}: {why}"))? {
            Found::Plugin(described) if is_same(&described.module, module) => described,
            Found::Plugin(_) | Found::Extism | Found::Other(_) => continue,
            Found::Unknown if stem(&path) != STEMS[0] => continue,
            Found::Unknown => {
                return Err(format!("{name}: it has nothing that a plugin's manifest has, such as `name`"));
            }
        };
        if let Some((other, _)) = &found {
            let other = file_name(other);
            return Err(format!("{name} and {other} are both about {}; remove one", file_name(module)));
        }
        found = Some((path, manifest));
    }
    Ok(Located { module: module.to_owned(), manifest: found })
}

/// Files in a folder that may be about a module with this stem.
fn manifests(folder: &Path, stem: Option<&std::ffi::OsStr>) -> Vec<PathBuf> {
    let stems = stem.into_iter().chain(STEMS.map(std::ffi::OsStr::new));
    let endings = |stem: &std::ffi::OsStr| {
        let stem = stem.to_owned();
        Format::ENDINGS.map(|ending| {
            let mut name = stem.clone();
            name.push(".");
            name.push(ending);
            folder.join(name)
        })
    };
    let mut paths: Vec<PathBuf> =
        stems.flat_map(endings).chain(NAMES.map(|name| folder.join(name))).collect();
    paths.dedup();
    paths.retain(|path| path.is_file());
    let mut seen = Vec::new();
    paths.retain(|path| {
        !seen.contains(path) && {
            seen.push(path.clone());
            true
        }
    });
    paths
}

fn is_same(one: &Path, other: &Path) -> bool {
    one == other || matches!((one.canonicalize(), other.canonicalize()), (Ok(one), Ok(other)) if one == other)
}

/// The one plugin of a folder.
fn in_folder(folder: &Path) -> Result<Located, String> {
    let mut found = Vec::new();
    for path in manifests(folder, None) {
        match Found::read(&path).map_err(|why| format!("{}: {why}", file_name(&path)))? {
            Found::Plugin(described) => found.push((path, described)),
            Found::Extism | Found::Other(_) | Found::Unknown => {}
        }
    }
    match found.as_slice() {
        [_, ..] if found.len() > 1 => {
            let names: Vec<String> = found.iter().map(|(path, _)| file_name(path)).collect();
            return Err(format!(
                "{} has several manifests: {}; remove all but one",
                folder.display(),
                names.join(", ")
            ));
        }
        [(path, described)] => return Ok(Located::by(path, described.clone())),
        _ => {}
    }
    match modules(folder)?.as_slice() {
        [only] => beside(only),
        [] => Err(format!("{} has no module and no plugin.yaml in it", folder.display())),
        several => {
            let names: Vec<String> = several.iter().map(|path| file_name(path)).collect();
            Err(format!("{} has several modules: {}; name one of them", folder.display(), names.join(", ")))
        }
    }
}

/// The modules of a folder, by name. What is hidden or temporary is none.
pub(super) fn modules(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let files = files(folder)?;
    Ok(files.into_iter().filter(|path| has_ending(path, &["wasm", "wat"]) && path.is_file()).collect())
}

/// Whatever is in a folder and not hidden, by name.
pub(super) fn files(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let unreadable =
        |error: std::io::Error| format!("the folder {} cannot be read: {error}", folder.display());
    let here = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let mut files = Vec::new();
    for entry in fs::read_dir(here).map_err(unreadable)? {
        let name = entry.map_err(unreadable)?.file_name();
        if is_passing(&name.to_string_lossy()) {
            continue;
        }
        if files.len() == FILES_MAX {
            return Err(format!("the folder {} has more than {FILES_MAX} files", folder.display()));
        }
        files.push(folder.join(name));
    }
    files.sort();
    Ok(files)
}

/// Hidden files, and those that editors and copying programs leave for a moment.
fn is_passing(name: &str) -> bool {
    const ENDINGS: [&str; 8] = ["~", ".tmp", ".temp", ".part", ".partial", ".swp", ".bak", ".orig"];
    name.starts_with(['.', '#']) || ENDINGS.iter().any(|ending| name.ends_with(ending))
}
