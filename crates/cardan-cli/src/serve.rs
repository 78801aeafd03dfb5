//! `cardan serve`: a gateway until it is told to stop.

use std::hash::{BuildHasher as _, RandomState};
use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use cardan::{Engine, EngineConfig, Services};
use cardan_gateway::Gateway;
use cardan_manager::{Applied, ApplyError, Bindings, FolderWatch, Manager, Pairing, PluginSpec, StateDir};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::advice;
use crate::args::{LogFormat, Serve, Shared};
use crate::config::{
    self, Capabilities, EngineBounds, PluginFolder, Resolved, ServicesEntry, StateEntry, environment, key_of,
};
use crate::output::{self, Failure};
use crate::state;

pub(crate) fn run(shared: &Shared, args: &Serve) -> Result<(), Failure> {
    log(shared, "info")?;
    let resolved = config::read(&args.config, &environment)?;
    serve(shared, &args.config, resolved, args.listen, |address| {
        output::line(format_args!("listening on http://{address}"))
    })
}

/// Serves a configuration, at `listen` instead of where it says; `ready` is told where, once clients can
/// connect.
pub(crate) fn serve(
    shared: &Shared,
    path: &Path,
    resolved: Resolved,
    listen: Option<SocketAddr>,
    ready: impl FnOnce(SocketAddr) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(format_args!("cannot start: {error}")))?;
    // Loading plugins takes its time, and a request to reload meanwhile is one for later. To be told to stop
    // ends the process until clients are served.
    let hangups = runtime.block_on(async { listen_for(SignalKind::hangup()) })?;
    let seed = RandomState::new().hash_one(std::process::id());
    let state = state::open(path, &resolved.state)?;
    let base = path.parent().unwrap_or(Path::new(""));
    let kept = state.as_ref().map(StateDir::path);
    let Capabilities { services, .. } = resolved
        .services
        .open(base, kept, &environment)
        .map_err(|failure| Failure::unusable(format_args!("{}: {failure}", path.display())))?;
    let manager = state::manager(engine(shared, resolved.engine, services)?, seed, state)?;
    warn(&resolved.warnings);
    let applied = manager.start_with(&resolved.plugins, Vec::new()).map_err(not_applied)?;
    report(&applied, &[]);
    let folder = resolved.folder.clone().map(|folder| Folder::start(&manager, folder));
    warn(&advice::about(&resolved.plugins, &resolved.entries, &manager.snapshot()));
    let gateway = Gateway::new(resolved.gateway, manager.clone())
        .map_err(|error| Failure::unusable(format_args!("{}: {}", path.display(), error.named(key_of))))?;
    let outcome = runtime.block_on(async {
        // Where the file says counts, unless the command line said otherwise.
        let fixed = listen.is_none().then_some(resolved.listen);
        let listen = listen.unwrap_or(resolved.listen);
        let bound = async {
            let listener = TcpListener::bind(listen).await?;
            let address = listener.local_addr()?;
            Ok::<_, std::io::Error>((listener, address))
        };
        let (listener, address) = bound.await.map_err(|error| {
            Failure::failed(format_args!("cannot listen on {listen}: {error}; choose another with --listen"))
        })?;
        let signals = Signals::new(hangups)?;
        ready(address)?;
        let supervision = tokio::spawn(manager.clone().supervise());
        let reloads = Reloads {
            path: path.to_owned(),
            fixed,
            engine: resolved.engine,
            state: resolved.state,
            services: resolved.services,
            manager,
            gateway: gateway.clone(),
            folder: Arc::new(Mutex::new(folder)),
        };
        let reloads = tokio::spawn(reloads.on(signals.reload, resolved.plugins));
        let outcome = tokio::select! {
            () = gateway.serve(listener, signals.stop.first()) => Ok(()),
            signal = signals.hurry.second() => Err(Failure::cut_off(signal)),
        };
        reloads.abort();
        supervision.abort();
        outcome
    });
    // A reload that hangs, say on a file that is a pipe nobody writes to, does not keep the process alive.
    runtime.shutdown_background();
    outcome
}

/// An engine with the real capabilities.
pub(crate) fn engine(shared: &Shared, bounds: EngineBounds, services: Services) -> Result<Engine, Failure> {
    let chosen = shared.cache_dir.clone().filter(|dir| !dir.as_os_str().is_empty());
    let cache_dir = if shared.no_cache { None } else { chosen.or_else(default_cache_dir) };
    if cache_dir.is_none() && !shared.no_cache {
        tracing::info!("no compile cache: set HOME, XDG_CACHE_HOME or CARDAN_CACHE_DIR to start faster");
    }
    let EngineBounds { pool_instances, memory_bytes_max, stack_bytes } = bounds;
    let config = EngineConfig {
        cache_dir,
        pool_instances,
        memory_bytes_max,
        stack_bytes,
        services,
        ..EngineConfig::default()
    };
    Engine::new(config).map_err(|error| Failure::failed(format_args!("{error}; or run with --no-cache")))
}

/// The place the XDG base directory specification has for caches, where there is a home. Variables that
/// are empty or hold a relative path count as not set there.
fn default_cache_dir() -> Option<PathBuf> {
    let absolute = |name| environment(name).map(PathBuf::from).filter(|dir| dir.is_absolute());
    let base = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")))?;
    Some(base.join("cardan"))
}

/// Sends log lines to standard error.
pub(crate) fn log(shared: &Shared, default: &str) -> Result<(), Failure> {
    let filter = shared.log.as_deref().unwrap_or(default);
    let filter = filter.parse::<EnvFilter>().map_err(|error| {
        Failure::unusable(format_args!(
            "--log {filter:?} is no filter: {error}; try `info` or `cardan=debug`"
        ))
    })?;
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        // Otherwise a full disk or a closed pipe behind standard error panics in whoever logs.
        .log_internal_errors(false)
        .with_ansi(std::io::stderr().is_terminal());
    let installed = match shared.log_format {
        LogFormat::Text => subscriber.try_init(),
        LogFormat::Json => subscriber.json().try_init(),
    };
    installed.map_err(Failure::failed)
}

pub(crate) fn apply(
    manager: &Manager,
    plugins: &[PluginSpec],
    pairings: Vec<Pairing>,
) -> Result<Applied, Failure> {
    manager.apply_with(plugins, pairings).map_err(not_applied)
}

fn not_applied(ApplyError(wrong): ApplyError) -> Failure {
    Failure::unusable(wrong.join("\n"))
}

fn warn(warnings: &[String]) {
    for warning in warnings {
        tracing::warn!("{warning}");
    }
}

/// What was done, and in which places a plugin of `before` is asked no more.
fn report(applied: &Applied, before: &[PluginSpec]) {
    tracing::info!(
        generation = applied.generation,
        loaded = applied.loaded.join(", "),
        kept = applied.kept.join(", "),
        dropped = applied.dropped.join(", "),
        "plugins"
    );
    for plugin in before.iter().filter(|plugin| applied.dropped.contains(&plugin.name)) {
        let hooks: Vec<&str> = match &plugin.bindings {
            Bindings::Listed(bindings) => bindings.iter().map(|binding| binding.hook.name).collect(),
            Bindings::Exported => vec!["every hook it has an export for"],
        };
        let hooks = hooks.join(", ");
        tracing::warn!(plugin = plugin.name, hooks, "dropped: the configuration has it no more");
    }
}

struct Signals {
    reload: tokio::signal::unix::Signal,
    stop: StopSignals,
    /// Sees the same signals as `stop`, and waits for one more.
    hurry: StopSignals,
}

impl Signals {
    fn new(reload: tokio::signal::unix::Signal) -> Result<Self, Failure> {
        Ok(Self { reload, stop: StopSignals::new()?, hurry: StopSignals::new()? })
    }
}

struct StopSignals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

impl StopSignals {
    fn new() -> Result<Self, Failure> {
        let interrupt = listen_for(SignalKind::interrupt())?;
        Ok(Self { interrupt, terminate: listen_for(SignalKind::terminate())? })
    }

    async fn next(&mut self) -> SignalKind {
        tokio::select! {
            _ = self.interrupt.recv() => SignalKind::interrupt(),
            _ = self.terminate.recv() => SignalKind::terminate(),
        }
    }

    async fn first(mut self) {
        self.next().await;
        tracing::info!("stopping: requests under way may finish, until a second signal");
    }

    async fn second(mut self) -> SignalKind {
        self.next().await;
        self.next().await
    }
}

fn listen_for(kind: SignalKind) -> Result<tokio::signal::unix::Signal, Failure> {
    signal(kind).map_err(|error| Failure::failed(format_args!("cannot listen for signals: {error}")))
}

/// What reading the configuration again takes.
#[derive(Clone)]
struct Reloads {
    path: PathBuf,
    /// Where the file said to listen at the start, if that counts.
    fixed: Option<SocketAddr>,
    engine: EngineBounds,
    state: StateEntry,
    services: ServicesEntry,
    manager: Manager,
    gateway: Gateway,
    folder: Arc<Mutex<Option<Folder>>>,
}

/// A folder of plugins, looked at once or watched.
struct Folder {
    path: PathBuf,
    /// Its end is the watch's.
    _watch: Option<FolderWatch>,
}

impl Folder {
    /// Loads what is in it. A plugin that cannot be loaded is logged, and keeps no other from serving.
    fn start(manager: &Manager, folder: PluginFolder) -> Self {
        let PluginFolder { path, hot_reload, look } = folder;
        let watch = FolderWatch::start(manager.clone(), path.clone(), look);
        Self { path, _watch: hot_reload.then_some(watch) }
    }
}

impl Reloads {
    /// Reads the configuration again at each SIGHUP. Whatever is wrong with it, what runs goes on.
    async fn on(self, mut hangup: tokio::signal::unix::Signal, mut plugins: Vec<PluginSpec>) {
        while hangup.recv().await.is_some() {
            let reloads = self.clone();
            // Reading and compiling block, and clients are served meanwhile.
            match tokio::task::spawn_blocking(move || reloads.reload()).await {
                Ok(Ok((applied, next))) => {
                    report(&applied, &plugins);
                    plugins = next;
                }
                Ok(Err(failure)) => {
                    tracing::error!("configuration not reloaded, the old one is in force: {failure}")
                }
                Err(error) => tracing::error!(%error, "configuration not reloaded, the old one is in force"),
            }
        }
    }

    fn reload(&self) -> Result<(Applied, Vec<PluginSpec>), Failure> {
        let resolved = config::read_again(&self.path, &environment)?;
        let path = self.path.display();
        if self.fixed.is_some_and(|fixed| fixed != resolved.listen) {
            return Err(Failure::unusable(format_args!(
                "{path}: listen: it cannot change while clients are served; start again for {}",
                resolved.listen
            )));
        }
        if self.engine != resolved.engine {
            return Err(Failure::unusable(format_args!(
                "{path}: engine: it cannot change while plugins run; start again for it"
            )));
        }
        if self.state != resolved.state {
            return Err(Failure::unusable(format_args!(
                "{path}: state: it cannot change while plugins run; start again for it"
            )));
        }
        if self.services != resolved.services {
            return Err(Failure::unusable(format_args!(
                "{path}: services: they cannot change while plugins run; start again for them"
            )));
        }
        let mut watched = self.folder.lock().unwrap_or_else(PoisonError::into_inner);
        let (before, now) =
            (watched.as_ref().map(|it| &it.path), resolved.folder.as_ref().map(|it| &it.path));
        if before != now {
            return Err(Failure::unusable(format_args!(
                "{path}: plugin_dir: it cannot change while plugins run; start again for it"
            )));
        }
        warn(&resolved.warnings);
        // Routes and plugins change in one step, and only once everything that can be wrong was found not
        // to be.
        let pairing = self.gateway.pairing(resolved.gateway);
        let pairing = pairing.map_err(|error| Failure::unusable(error.named(key_of)))?;
        let applied = apply(&self.manager, &resolved.plugins, vec![pairing])?;
        // What the file says about the folder's plugins may be something else now.
        *watched = None;
        *watched = resolved.folder.map(|folder| Folder::start(&self.manager, folder));
        warn(&advice::about(&resolved.plugins, &resolved.entries, &self.manager.snapshot()));
        Ok((applied, resolved.plugins))
    }
}
