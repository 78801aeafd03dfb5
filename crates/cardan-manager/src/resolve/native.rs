//! Cardan's own `plugin.yaml`.

use std::path::{Component, Path, PathBuf};

use cardan_api::Capability;
use cardan_api::manifest::plugin::{Manifest, Permissions};
use cardan_api::manifest::{Bytes, LimitsEntry};

use super::described::{Described, only_module};
use super::{check_sha256, hooks, limits, permissions, settings};
use crate::spec::About;

pub(super) fn describe(manifest: Manifest, path: &Path) -> Result<Described, String> {
    semver::Version::parse(&manifest.version).map_err(|error| {
        format!("version: {:?} is no semantic version such as 1.0.0: {error}", manifest.version)
    })?;
    manifest.sha256.as_deref().map_or(Ok(()), check_sha256)?;
    let module = match &manifest.module {
        Some(module) => inside(module, path)?,
        None => only_module(path)?,
    };
    let limits = memory(&manifest)?;
    limits::check_modest(&limits)?;
    let asked = manifest.permissions.as_ref();
    Ok(Described {
        name: Some(manifest.name.clone()),
        version: manifest.version.clone(),
        module,
        sha256: manifest.sha256.clone(),
        abi: manifest.abi,
        abi_implied: None,
        result_forms: manifest.result,
        dialect: manifest.dialect,
        mode: manifest.instance,
        places: manifest.hooks.as_deref().map(places).transpose()?,
        requested: asked.map(|Permissions(asked)| permissions::requested(asked.keys().copied())),
        hosts: asked.and_then(|Permissions(asked)| asked.get(&Capability::Http)?.hosts.clone()),
        config_schema: manifest.config_schema.as_ref().map(settings::schema).transpose()?,
        limits,
        memory_min: manifest.resources.min_memory.map(|it| it.0),
        deadline: None,
        health: manifest.health,
        tick: manifest.tick,
        about: About {
            description: manifest.description,
            author: manifest.author,
            license: manifest.license,
            homepage: manifest.homepage,
            ui_schema: manifest.ui_schema,
            permissions: asked
                .map(|Permissions(asked)| asked.keys().map(ToString::to_string).collect())
                .unwrap_or_default(),
        },
        warnings: Vec::new(),
    })
}

fn places(entries: &[cardan_api::manifest::plugin::HookEntry]) -> Result<hooks::Places, String> {
    if entries.is_empty() {
        return Err(
            "hooks: the list is empty, so the plugin would never be asked; leave the key out to bind it \
                    wherever it has an export"
                .to_owned(),
        );
    }
    hooks::wanted(entries)
}

/// The two places for memory, brought to one.
fn memory(manifest: &Manifest) -> Result<LimitsEntry, String> {
    let resources = manifest.resources;
    let memory = match (resources.max_memory, manifest.limits.memory) {
        (Some(max), Some(limit)) if max != limit => {
            return Err(
                "resources.max_memory: limits.memory says something else; leave one of them out".to_owned()
            );
        }
        (max, limit) => max.or(limit),
    };
    check_memory(resources.min_memory.map(|it| it.0), memory.map(|it| it.0))?;
    Ok(LimitsEntry { memory, ..manifest.limits.clone() })
}

/// As HeliosProxy checks it.
pub(super) fn check_memory(min: Option<u64>, max: Option<u64>) -> Result<(), String> {
    match (min, max) {
        (Some(min), Some(max)) if min > max => {
            Err(format!("resources.min_memory: {} is more than max_memory, {}", Bytes(min), Bytes(max)))
        }
        (_, Some(max)) if max > limits::MANIFEST_BYTES_MAX => Err(format!(
            "resources.max_memory: a manifest may say {} at most; whoever runs the plugin can say more, as \
             limits.memory of its entry in cardan.yaml",
            Bytes(limits::MANIFEST_BYTES_MAX)
        )),
        _ => Ok(()),
    }
}

/// A module named by a manifest, which is shipped with it: not a file from anywhere.
fn inside(module: &str, manifest: &Path) -> Result<PathBuf, String> {
    let outside = || format!("module: {module:?} is outside of the manifest's folder");
    let relative = Path::new(module);
    if relative.is_absolute() || relative.components().any(|part| part == Component::ParentDir) {
        return Err(outside());
    }
    let folder = manifest.parent().unwrap_or(Path::new(""));
    let path = folder.join(relative);
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    match (path.canonicalize(), folder.canonicalize()) {
        (Ok(file), Ok(folder)) if !file.starts_with(&folder) => Err(outside()),
        (Ok(file), _) if file.is_file() => Ok(path),
        _ => Err(format!("module: {} is no file", path.display())),
    }
}
