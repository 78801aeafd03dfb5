//! HeliosProxy's manifests, and the `[plugins]` table of its configuration.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use cardan_api::manifest::helios::{File, Manifest, Permissions, Plugin, Plugins, Size};
use cardan_api::manifest::{Abi, Bytes, LimitsEntry, Milliseconds, PluginEntry};
use cardan_api::{Capability, Dialect};

use super::described::{Described, only_module};
use super::folder::{Broken, Candidate, candidates};
use super::grants::KvCaps;
use super::hooks::helios_places;
use super::native::check_memory;
use super::{ResolveError, Warning, check_sha256, entry, grants, permissions, settings};
use crate::document::{nearest, unknown_key};
use crate::spec::{About, Bindings, Owner, PluginSpec};

/// The original's defaults.
const FOLDER: &str = "/etc/heliosproxy/plugins";
const MEMORY_BYTES: u64 = 64 << 20;
const TIMEOUT: Duration = Duration::from_millis(100);
const PLUGINS_MAX: u32 = 20;
const FUEL: u64 = 1_000_000;

/// What its own plugins put before their names.
const PREFIX: &str = "helios-plugin-";

pub(super) fn describe(manifest: Manifest, path: &Path) -> Result<Described, String> {
    let mut warnings = foreign(&manifest);
    let sha256 = manifest.wasm_sha256;
    if let Some(digest) = &sha256 {
        check_sha256(digest).map_err(|why| why.replacen("sha256:", "wasm_sha256:", 1))?;
    }
    if let Some(version) = manifest.schema_version.as_deref().filter(|it| it.split('.').next() != Some("1")) {
        return Err(format!("schema_version: it is {version:?}, and only 1 is known"));
    }
    let version = manifest.version.unwrap_or_else(|| "0.0.0".to_owned());
    if let Err(error) = semver::Version::parse(&version) {
        warnings.push(Warning(format!("version: {version:?} is no semantic version: {error}")));
    }
    let size = |one: Option<Size>, other: Option<Size>| one.or(other).map(|size| size.0);
    let memory_min = size(manifest.resources.min_memory, manifest.min_memory);
    let memory = size(manifest.resources.max_memory, manifest.max_memory);
    check_memory(memory_min, memory)?;
    let mut places = manifest.hooks.as_deref().map(helios_places).transpose()?;
    for binding in places.iter_mut().flat_map(|places| &mut places.bindings) {
        binding.priority = manifest.priority.unwrap_or(binding.priority);
    }
    for name in manifest.permissions.iter().filter(|name| permissions::helios(name).is_none()) {
        warnings.push(Warning(format!("permissions: there is nothing to grant as {name:?}")));
    }
    Ok(Described {
        name: manifest.name,
        version,
        module: only_module(path)?,
        sha256,
        abi_implied: Some(Abi::Packed),
        dialect: Some(Dialect::HeliosProxy),
        places,
        // Its own plugins leave out what they import, so that what counts is the imports.
        requested: None,
        config_schema: manifest.config_schema.as_ref().map(settings::schema).transpose()?,
        limits: LimitsEntry { memory: memory.map(Bytes), ..LimitsEntry::default() },
        memory_min,
        about: About {
            description: manifest.description,
            author: manifest.author,
            license: manifest.license,
            permissions: manifest.permissions,
            ..About::default()
        },
        warnings,
        ..Described::default()
    })
}

fn foreign(manifest: &Manifest) -> Vec<Warning> {
    const KNOWN: [&str; 10] = [
        "name",
        "version",
        "description",
        "author",
        "license",
        "hooks",
        "permissions",
        "config_schema",
        "resources",
        "priority",
    ];
    let top = manifest.other.keys().map(|key| Warning(format!("{key}: {}", unknown_key(key, &KNOWN))));
    let resources = manifest.resources.other.keys();
    let resources = resources
        .map(|key| Warning(format!("resources.{key}: {}", unknown_key(key, &["min_memory", "max_memory"]))));
    top.chain(resources).collect()
}

/// What a configuration of HeliosProxy deploys.
#[derive(Debug, Default)]
pub struct HeliosDeployment {
    /// Those that can be meant.
    pub plugins: Vec<PluginSpec>,
    /// Those that cannot.
    pub broken: Vec<Broken>,
    /// What stops nothing.
    pub warnings: Vec<Warning>,
    /// The folder of modules.
    pub folder: PathBuf,
    /// Whether changes in the folder count without being told.
    pub hot_reload: bool,
}

/// Resolves the `[plugins]` table of `heliosproxy.toml`; `base` is where the file lies. Plugins are those of its
/// folder; tables say more about them.
///
/// # Errors
///
/// When the table contradicts itself, or its folder holds more plugins than it allows. The message begins with the
/// key.
pub fn resolve_helios(file: &File, base: &Path) -> Result<HeliosDeployment, String> {
    let plugins = &file.plugins;
    let mut deployment = HeliosDeployment {
        folder: base.join(plugins.plugin_dir.as_deref().unwrap_or(Path::new(FOLDER))),
        hot_reload: plugins.hot_reload,
        ..HeliosDeployment::default()
    };
    for section in file.other.keys() {
        let told = format!("[{section}] is about HeliosProxy itself and has no effect here");
        deployment.warnings.push(Warning(told));
    }
    let common = Common::of(plugins)?;
    let tables = tables(plugins, &mut deployment.warnings)?;
    let permissions = permission_lists(plugins)?;
    if !plugins.enabled {
        deployment.warnings.push(Warning("plugins.enabled is not true: no plugin is loaded".to_owned()));
        return Ok(deployment);
    }
    let found = match candidates(&deployment.folder) {
        Ok(found) => found,
        Err(why) => {
            deployment.broken.push(Broken {
                path: deployment.folder.clone(),
                plugin: "plugin_dir".to_owned(),
                problem: format!("plugins.plugin_dir: {why}"),
            });
            return Ok(deployment);
        }
    };
    deployment.broken = found.broken;
    deployment.warnings.extend(found.warnings);
    let mut unused: Vec<&str> = tables.keys().chain(permissions.keys()).map(String::as_str).collect();
    for candidate in found.located {
        let key = key_of(&candidate, &unused).unwrap_or_else(|| candidate.name());
        unused.retain(|name| *name != key);
        if key == "permissions" {
            let problem =
                "no plugin can be called `permissions`: [plugins.permissions] is another table; rename it";
            let path = candidate.path;
            deployment.broken.push(Broken { path, plugin: key, problem: problem.to_owned() });
            continue;
        }
        let table = tables.get(&key).cloned().unwrap_or_default();
        if table.enabled {
            let permissions = permissions.get(&key).map_or(&[][..], Vec::as_slice);
            common.add(candidate, Said { name: &key, table, permissions }, &mut deployment);
        }
    }
    for name in unused {
        deployment.warnings.push(Warning(format!(
            "plugins.{name}: there is no plugin of this name in {}",
            deployment.folder.display()
        )));
    }
    let stores = deployment.plugins.iter().filter(|spec| keeps_keys(permissions.get(&spec.name))).count();
    if let Some(most) =
        common.kv_plugins_max.filter(|most| u64::try_from(stores).is_ok_and(|stores| stores > *most))
    {
        return Err(format!(
            "plugins.kv_max_plugins: it is {most}, and {stores} plugins are granted keys; raise it, or grant fewer"
        ));
    }
    let count = deployment.plugins.len();
    if count > common.plugins_max as usize {
        return Err(format!(
            "plugins.max_plugins: it is {}, and {} holds {count} plugins that are enabled; raise it, or take some out",
            common.plugins_max,
            deployment.folder.display()
        ));
    }
    Ok(deployment)
}

fn keeps_keys(permissions: Option<&Vec<String>>) -> bool {
    let mut granted =
        permissions.into_iter().flatten().filter_map(|name| permissions::helios(name)).flatten();
    granted.any(|capability| matches!(capability, Capability::KvRead | Capability::KvWrite))
}

/// The table's name for a plugin: what it is called, its file's name, or that without the usual prefix.
fn key_of(candidate: &Candidate, names: &[&str]) -> Option<String> {
    let own = candidate.name();
    let stem = super::locate::stem(&candidate.located.module);
    let mut forms = vec![own.as_str(), stem.as_str()];
    forms.extend([own.strip_prefix(PREFIX), stem.strip_prefix(PREFIX)].into_iter().flatten());
    forms.into_iter().find(|form| names.contains(form)).map(ToOwned::to_owned)
}

fn tables(plugins: &Plugins, warnings: &mut Vec<Warning>) -> Result<BTreeMap<String, Plugin>, String> {
    const KEYS: [&str; 17] = [
        "enabled",
        "plugin_dir",
        "hot_reload",
        "memory_limit",
        "memory_limit_mb",
        "timeout",
        "timeout_ms",
        "max_plugins",
        "fuel_metering",
        "fuel_limit",
        "trust_root",
        "kv_max_value_bytes",
        "kv_max_keys_per_plugin",
        "kv_max_plugins",
        "kv_max_total_bytes",
        "permissions",
        "[plugins.NAME]",
    ];
    let mut tables = BTreeMap::new();
    for (key, value) in &plugins.other {
        if !value.is_object() {
            warnings.push(Warning(format!("plugins.{key}: {}", unknown_key(key, &KEYS))));
            continue;
        }
        let table: Plugin = serde_path_to_error::deserialize(value)
            .map_err(|error| format!("plugins.{key}.{}: {}", error.path(), error.inner()))?;
        for other in table.other.keys() {
            let known = ["enabled", "priority", "config", "limits", "grants"];
            warnings.push(Warning(format!("plugins.{key}.{other}: {}", unknown_key(other, &known))));
        }
        tables.insert(key.clone(), table);
    }
    Ok(tables)
}

fn permission_lists(plugins: &Plugins) -> Result<BTreeMap<String, Vec<String>>, String> {
    let lists = plugins.permissions.iter().map(|(name, permissions)| match permissions {
        Permissions::Listed(names) => Ok((name.clone(), names.clone())),
        Permissions::Other(_) => Err(format!(
            "plugins.permissions.{name}: it is no list of permissions. This table has a list for each plugin, and so no \
             plugin can be called `permissions`"
        )),
    });
    lists.collect()
}

/// What the configuration says about one plugin.
#[derive(Debug)]
struct Said<'a> {
    name: &'a str,
    table: Plugin,
    permissions: &'a [String],
}

/// What counts for every plugin.
#[derive(Debug)]
struct Common {
    memory_bytes: Option<u64>,
    timeout: Duration,
    fuel: Option<u64>,
    plugins_max: u32,
    kv: KvCaps,
    kv_plugins_max: Option<u64>,
}

impl Common {
    fn of(plugins: &Plugins) -> Result<Self, String> {
        let memory_mb = plugins.memory_limit_mb.map(|mb| mb.saturating_mul(1 << 20));
        let memory_bytes =
            either("memory_limit", plugins.memory_limit.map(|it| it.0), "memory_limit_mb", memory_mb)?;
        let timeout = either("timeout", plugins.timeout.map(|it| it.0), "timeout_ms", plugins.timeout_ms)?;
        let timeout = timeout.map_or(TIMEOUT, Duration::from_millis);
        if timeout.is_zero() {
            return Err("plugins.timeout: it is 0, so no plugin could ever answer".to_owned());
        }
        if plugins.trust_root.is_some() {
            return Err(
                "plugins.trust_root: this build checks no signatures of plugins; take the key out to run \
                        without, or pin modules by `sha256` in cardan.yaml"
                    .to_owned(),
            );
        }
        // Metering costs, and a number for every input makes long ones fail: only who asks for it gets it.
        let fuel = match (plugins.fuel_metering, plugins.fuel_limit) {
            (Some(false), _) | (None, None) => None,
            (_, limit) => Some(limit.unwrap_or(FUEL)),
        };
        let kv = KvCaps {
            keys: plugins.kv_max_keys_per_plugin,
            value: plugins.kv_max_value_bytes,
            // One plugin's share of what is for all of them is not said there, so each may have it all.
            total: plugins.kv_max_total_bytes,
        };
        Ok(Self {
            memory_bytes,
            timeout,
            fuel,
            plugins_max: plugins.max_plugins.unwrap_or(PLUGINS_MAX),
            kv,
            kv_plugins_max: plugins.kv_max_plugins,
        })
    }

    /// Resolves one plugin of the folder with what its table says.
    fn add(&self, found: Candidate, said: Said<'_>, into: &mut HeliosDeployment) {
        let Candidate { path, mut located } = found;
        let Said { name, table, permissions: listed } = said;
        let mut warnings = Vec::new();
        let mut grants = table.grants;
        let mut allowed = BTreeSet::new();
        for permission in listed {
            match permissions::helios(permission) {
                Some(capabilities) => allowed.extend(capabilities.iter().copied()),
                None => warnings.push(unknown_permission(permission)),
            }
        }
        warnings.extend(grants::allow(&mut grants, &allowed, &self.kv));
        let mut limits = table.limits;
        let own = located.manifest.as_ref().and_then(|(_, described)| described.limits.memory);
        let most = self.memory_bytes.unwrap_or(MEMORY_BYTES);
        limits.memory = limits.memory.or(Some(own.map_or(Bytes(most), |own| Bytes(own.0.min(most)))));
        limits.fuel = limits.fuel.or(self.fuel);
        let millis = u64::try_from(self.timeout.as_millis()).unwrap_or(u64::MAX);
        limits.deadline = limits.deadline.or(Some(Milliseconds(millis)));
        if let Some((_, described)) = &mut located.manifest {
            // The prefix is a habit, and a table without it means the same plugin.
            described.name = described.name.take().filter(|own| own.strip_prefix(PREFIX) != Some(name));
        }
        let entry = PluginEntry { config: table.config, limits, grants, ..PluginEntry::new(name, "") };
        let result: Result<_, ResolveError> = entry::assemble(&entry, located, &into.folder, Owner::Folder);
        match result {
            Ok((mut spec, told)) => {
                warnings.extend(prioritise(&mut spec, table.priority));
                into.warnings.extend(told);
                into.warnings.extend(warnings.into_iter().map(|warning| warning.about(name)));
                into.plugins.push(spec);
            }
            Err(error) => {
                into.broken.push(Broken { path, plugin: name.to_owned(), problem: error.to_string() });
            }
        }
    }
}

fn unknown_permission(name: &str) -> Warning {
    const KNOWN: [&str; 11] = [
        "query_execute",
        "cache_read",
        "cache_write",
        "http_fetch",
        "crypto",
        "kv_read",
        "kv_write",
        "metrics",
        "config_read",
        "filesystem_read",
        "filesystem_write",
    ];
    let near = nearest(name, &KNOWN).map_or_else(String::new, |near| format!("; did you mean {near}?"));
    Warning(format!("plugins.permissions: there is nothing to grant as {name:?}{near}"))
}

fn prioritise(spec: &mut PluginSpec, priority: Option<i32>) -> Option<Warning> {
    let priority = priority?;
    match &mut spec.bindings {
        Bindings::Listed(bindings) => {
            bindings.iter_mut().for_each(|binding| binding.priority = priority);
            None
        }
        Bindings::Exported => Some(Warning(
            "priority: it has no effect, since no manifest says at which hooks the plugin is asked"
                .to_owned(),
        )),
    }
}

/// One of two spellings.
fn either(one: &str, a: Option<u64>, other: &str, b: Option<u64>) -> Result<Option<u64>, String> {
    match (a, b) {
        (Some(a), Some(b)) if a != b => {
            Err(format!("plugins.{one}: plugins.{other} says something else; leave one of them out"))
        }
        (a, b) => Ok(a.or(b)),
    }
}
