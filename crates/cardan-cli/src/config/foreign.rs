//! Other systems' configuration files, served as they stand: their plugins, and the gateway's defaults.

use std::path::Path;

use cardan_api::manifest::helios;
use cardan_gateway::Config;
use cardan_manager::document::Kind;
use cardan_manager::resolve_helios;

use super::bounds::EngineEntry;
use super::plugins::{EMPTY_RINGS, Plugins};
use super::source::parse;
use super::state::StateEntry;
use super::{AdminSettings, PluginFolder, Resolved, ServicesEntry, default_listen};
use crate::output::Failure;

/// HeliosProxy's `[plugins]`.
pub(super) fn heliosproxy(path: &Path, text: &str) -> Result<Resolved, Failure> {
    let file: helios::File = parse(path, text, "`[plugins]` is missing")?;
    let base = path.parent().unwrap_or(Path::new(""));
    let found = resolve_helios(&file, base)
        .map_err(|why| Failure::unusable(format_args!("{}: {why}", path.display())))?;
    // What the folder holds is for whoever looks at it; what the file says counts from here on.
    let warnings = found.warnings.into_iter().map(|warning| warning.0).collect();
    let plugins = Plugins { specs: Vec::new(), warnings };
    let folder = PluginFolder::of_helios(found.folder, file, base.to_owned());
    Ok(Resolved { folder: Some(folder), ..resolved(path, plugins, "plugin_dir: FOLDER") })
}

/// LLMProxy's `manifest.yaml`.
pub(super) fn llmproxy(path: &Path, text: &str) -> Result<Resolved, Failure> {
    let mut plugins = Plugins::default();
    let document = parse(path, text, EMPTY_RINGS)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    plugins.add_documents(vec![(path.to_owned(), document)], folder)?;
    Ok(resolved(path, plugins, "llmproxy: {manifests: [FILE]}"))
}

/// What is no configuration at all.
pub(super) fn refused(path: &Path, kind: Kind) -> Failure {
    Failure::unusable(format_args!(
        "{0} is {kind}, and no configuration; write a cardan.yaml that names it: `plugins: [{{name: NAME, source: {0}}}]`",
        path.display()
    ))
}

fn resolved(path: &Path, plugins: Plugins, key: &str) -> Resolved {
    let Plugins { specs, mut warnings } = plugins;
    warnings.push(format!(
        "{}: it has no routes, so requests that no plugin answers get 404; to send them on, write a cardan.yaml with \
         `upstreams`, `routes` and `{key}`",
        path.display()
    ));
    Resolved {
        listen: default_listen(),
        engine: EngineEntry::default().resolve(),
        state: StateEntry::default(),
        services: ServicesEntry::default(),
        admin: AdminSettings::default(),
        otlp: None,
        gateway: Config::default(),
        plugins: specs,
        entries: Vec::new(),
        folder: None,
        warnings,
    }
}
