//! The configuration that is in force, and how another one takes its place.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use cardan::Engine;
use cardan_admin::{Configuration, ConfigurationError, Document, Tokens};
use cardan_gateway::Gateway;
use cardan_manager::{FolderWatch, Manager, PluginSpec};
use sha2::{Digest as _, Sha256};

use crate::advice;
use crate::config::{
    self, AdminListen, EngineBounds, OtlpSettings, PluginFolder, Resolved, ServicesEntry, StateEntry,
    environment, key_of,
};
use crate::output::Failure;
use crate::serve::{apply, not_applied, report, warn};

/// What a running gateway needs to take another configuration.
#[derive(Debug)]
pub(crate) struct Reloads {
    pub(crate) path: PathBuf,
    pub(crate) fixed: Fixed,
    pub(crate) manager: Manager,
    pub(crate) gateway: Gateway,
    pub(crate) engine: Engine,
    pub(crate) tokens: Tokens,
    /// Held for moments only: probes ask what is wrong with it.
    pub(crate) folder: Mutex<Option<Folder>>,
    /// The plugins that the configuration in force names. Held from the reading of another one until it is in
    /// force and in the file, so that both stay the same one.
    pub(crate) plugins: Mutex<Vec<PluginSpec>>,
}

/// A folder of plugins, looked at once or watched.
pub(crate) struct Folder {
    path: PathBuf,
    found: Found,
}

/// What is known of a folder's files.
enum Found {
    /// The end of this is the watch's.
    Watched(FolderWatch),
    /// What was wrong with them at the one look.
    Once(Vec<(PathBuf, String)>),
}

impl std::fmt::Debug for Folder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Folder").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Folder {
    /// Loads what is in it. A plugin that cannot be loaded is logged, and keeps no other from serving.
    pub(crate) fn start(manager: &Manager, folder: PluginFolder) -> Self {
        let PluginFolder { path, hot_reload, look } = folder;
        let watch = FolderWatch::start(manager.clone(), path.clone(), look);
        let found = if hot_reload { Found::Watched(watch) } else { Found::Once(watch.problems()) };
        Self { path, found }
    }

    fn problems(&self) -> Vec<(PathBuf, String)> {
        match &self.found {
            Found::Watched(watch) => watch.problems(),
            Found::Once(problems) => problems.clone(),
        }
    }
}

/// What cannot change while the process runs.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Fixed {
    /// Where the file said to listen at the start, if that counts.
    pub(crate) listen: Option<SocketAddr>,
    pub(crate) admin_listen: Option<AdminListen>,
    pub(crate) engine: EngineBounds,
    pub(crate) state: StateEntry,
    pub(crate) services: ServicesEntry,
    pub(crate) otlp: Option<OtlpSettings>,
}

impl Fixed {
    /// The first thing that is another one.
    fn differs(&self, resolved: &Resolved) -> Option<String> {
        let changed = |key: &str, why: &str| Some(format!("{key}: it cannot change while {why}"));
        if self.listen.is_some_and(|fixed| fixed != resolved.listen) {
            let why = format!("clients are served; start again for {}", resolved.listen);
            return changed("listen", &why);
        }
        if self.admin_listen.is_some_and(|fixed| fixed != resolved.admin.listen) {
            return changed("admin.listen", "the admin API is served; start again for it");
        }
        if self.engine != resolved.engine {
            return changed("engine", "plugins run; start again for it");
        }
        if self.state != resolved.state {
            return changed("state", "plugins run; start again for it");
        }
        if self.services != resolved.services {
            return changed("services", "plugins run; start again for them");
        }
        if self.otlp != resolved.otlp {
            return changed("telemetry", "visits are reported; start again for it");
        }
        None
    }
}

impl Reloads {
    /// Reads the configuration again at each SIGHUP. Whatever is wrong with it, what runs goes on.
    pub(crate) async fn on(self: Arc<Self>, mut hangup: tokio::signal::unix::Signal) {
        while hangup.recv().await.is_some() {
            let reloads = self.clone();
            // Reading and compiling block, and clients are served meanwhile.
            match tokio::task::spawn_blocking(move || reloads.reload()).await {
                Ok(Ok(())) => {}
                Ok(Err(failure)) => {
                    tracing::error!("configuration not reloaded, the old one is in force: {failure}")
                }
                Err(error) => tracing::error!(%error, "configuration not reloaded, the old one is in force"),
            }
        }
    }

    pub(crate) fn reload(&self) -> Result<(), Failure> {
        self.reload_over(&mut self.alone())
    }

    /// The right to change what is in force.
    fn alone(&self) -> MutexGuard<'_, Vec<PluginSpec>> {
        self.plugins.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reload_over(&self, plugins: &mut Vec<PluginSpec>) -> Result<(), Failure> {
        let resolved = config::read_again(&self.path, &environment)?;
        self.put_in_force(resolved, plugins)
    }

    fn put_in_force(&self, resolved: Resolved, plugins: &mut Vec<PluginSpec>) -> Result<(), Failure> {
        self.check_fixed(&resolved)?;
        warn(&resolved.warnings);
        // Routes and plugins change in one step, and only once everything that can be wrong was found not
        // to be.
        let pairing = self.gateway.pairing(resolved.gateway);
        let pairing = pairing.map_err(|error| Failure::unusable(error.named(key_of)))?;
        let found = resolved.folder.as_ref().map(PluginFolder::found).unwrap_or_default();
        let applied = self.manager.apply_beside(&resolved.plugins, &found, vec![pairing]);
        let applied = applied.map_err(not_applied)?;
        // What the file says about the folder's plugins may be something else now: whoever watches for what it
        // said before has to end before taking anything out.
        let before = self.folder().take();
        drop(before);
        self.tokens.replace(resolved.admin.tokens);
        let folder = resolved.folder.map(|folder| Folder::start(&self.manager, folder));
        *self.folder() = folder;
        warn(&advice::about(&resolved.plugins, &resolved.entries, &self.manager.snapshot()));
        report(&applied, plugins);
        *plugins = resolved.plugins;
        Ok(())
    }

    fn folder(&self) -> MutexGuard<'_, Option<Folder>> {
        self.folder.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check_fixed(&self, resolved: &Resolved) -> Result<(), Failure> {
        let before = self.folder().as_ref().map(|folder| folder.path.clone());
        let moved = before.as_ref() != resolved.folder.as_ref().map(|folder| &folder.path);
        let moved =
            moved.then(|| "plugin_dir: it cannot change while plugins run; start again for it".to_owned());
        let differs = self.fixed.differs(resolved).or(moved);
        differs.map_or(Ok(()), |why| Err(Failure::unusable(format_args!("{}: {why}", self.path.display()))))
    }

    /// Does everything but putting it in force: plugins are loaded beside those that run, and let go.
    fn rehearse(&self, text: &str) -> Result<Vec<String>, Failure> {
        let resolved = config::resolve(&self.path, text, &environment)?;
        self.check_fixed(&resolved)?;
        self.gateway.pairing(resolved.gateway).map_err(|error| Failure::unusable(error.named(key_of)))?;
        let stage = Manager::new(self.engine.clone(), 0);
        apply(&stage, &resolved.plugins, Vec::new())?;
        let mut warnings = resolved.warnings;
        warnings.extend(advice::about(&resolved.plugins, &resolved.entries, &stage.snapshot()));
        Ok(warnings)
    }

    fn replace(&self, text: &str, plugins: &mut Vec<PluginSpec>) -> Result<(), ConfigurationError> {
        let invalid = |failure: Failure| ConfigurationError::Invalid(failure.to_string());
        let resolved = config::resolve(&self.path, text, &environment).map_err(invalid)?;
        // Written before it is in force, and put in place after: whatever fails leaves both as they were.
        let written = write_beside(&self.path, text).map_err(|error| {
            ConfigurationError::ReadOnly(format!("{} cannot be replaced: {error}", self.path.display()))
        })?;
        self.put_in_force(resolved, plugins).map_err(invalid)?;
        let moved = written.persist(&self.path).map_err(|error| error.error);
        moved.map(drop).map_err(|error| {
            if let Err(failure) = self.reload_over(plugins) {
                tracing::error!(%failure, "the configuration in force is not what the file says");
            }
            ConfigurationError::ReadOnly(format!("{} cannot be replaced: {error}", self.path.display()))
        })
    }
}

fn write_beside(path: &Path, text: &str) -> std::io::Result<tempfile::NamedTempFile> {
    use std::io::Write as _;
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let permissions = std::fs::metadata(path)?.permissions();
    let mut file = tempfile::Builder::new().prefix(".cardan-").tempfile_in(dir)?;
    file.write_all(text.as_bytes())?;
    file.as_file().set_permissions(permissions)?;
    file.as_file().sync_all()?;
    Ok(file)
}

/// The configuration, for the admin API, which is there before plugins are loaded.
#[derive(Debug, Clone)]
pub(crate) struct LiveConfiguration {
    path: PathBuf,
    reloads: Arc<OnceLock<Arc<Reloads>>>,
}

impl LiveConfiguration {
    pub(crate) fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), reloads: Arc::default() }
    }

    pub(crate) fn begin(&self, reloads: Arc<Reloads>) {
        // There is one start.
        let _ = self.reloads.set(reloads);
    }

    fn reloads(&self) -> Result<&Reloads, ConfigurationError> {
        let reloads = self.reloads.get().map(|reloads| &**reloads);
        reloads.ok_or_else(|| {
            ConfigurationError::ReadOnly("plugins are still being loaded; try again later".to_owned())
        })
    }

    /// Files of the folder of plugins that cannot be meant, and why.
    pub(crate) fn folder_problems(&self) -> Vec<(PathBuf, String)> {
        let Some(reloads) = self.reloads.get() else { return Vec::new() };
        reloads.folder().as_ref().map(Folder::problems).unwrap_or_default()
    }

    fn text(&self) -> Result<String, ConfigurationError> {
        let unreadable = |why: String| ConfigurationError::Unreadable(why);
        if std::fs::metadata(&self.path).is_ok_and(|metadata| !metadata.is_file()) {
            return Err(unreadable(format!("{} is not a regular file", self.path.display())));
        }
        config::text_of(&self.path).map_err(|failure| unreadable(failure.to_string()))
    }
}

fn revision(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

impl Configuration for LiveConfiguration {
    fn current(&self) -> Result<Document, ConfigurationError> {
        let text = self.text()?;
        let unreadable = |failure: Failure| ConfigurationError::Unreadable(failure.to_string());
        let document = config::document(&self.path, &text).map_err(unreadable)?;
        let metadata = std::fs::symlink_metadata(&self.path);
        let read_only = match metadata {
            Ok(metadata) if metadata.file_type().is_symlink() => {
                Some("it is a symbolic link: whoever made it replaces what it leads to")
            }
            Ok(metadata) if metadata.permissions().readonly() => Some("the file is read-only"),
            Ok(_) => None,
            Err(_) => Some("it is not there any more"),
        };
        Ok(Document {
            revision: revision(&text),
            redacted: config::redacted(document),
            path: self.path.clone(),
            read_only: read_only.map(str::to_owned),
            warnings: Vec::new(),
            text,
        })
    }

    fn check(&self, text: &str) -> Result<Vec<String>, ConfigurationError> {
        let checked = self.reloads()?.rehearse(text);
        checked.map_err(|failure| ConfigurationError::Invalid(failure.to_string()))
    }

    fn replace(&self, text: &str, expected: &str) -> Result<Document, ConfigurationError> {
        let reloads = self.reloads()?;
        let mut plugins = reloads.alone();
        let before = self.current()?;
        if before.revision != expected {
            return Err(ConfigurationError::Changed(format!(
                "the file is the revision {} by now, and the change was made from {expected}; read it again",
                before.revision
            )));
        }
        if let Some(why) = before.read_only {
            return Err(ConfigurationError::ReadOnly(format!(
                "{} cannot be replaced: {why}",
                self.path.display()
            )));
        }
        reloads.replace(text, &mut plugins)?;
        self.current()
    }

    fn reload(&self) -> Result<(), ConfigurationError> {
        self.reloads()?.reload().map_err(|failure| ConfigurationError::Invalid(failure.to_string()))
    }
}
