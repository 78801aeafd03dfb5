//! `cardan serve`: a gateway until it is told to stop.

use std::hash::{BuildHasher as _, RandomState};
use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use cardan::{Engine, EngineConfig, Services};
use cardan_admin::{Readiness, Tokens};
use cardan_gateway::Gateway;
use cardan_manager::{Applied, ApplyError, Bindings, Manager, Pairing, PluginSpec, StateDir};
use cardan_services::MetricsRegistry;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::admin;
use crate::advice;
use crate::args::{LogFormat, Serve, Shared};
use crate::config::{self, AdminListen, Capabilities, EngineBounds, Resolved, environment, key_of};
use crate::otlp;
use crate::output::{self, Failure};
use crate::reload::{Fixed, Folder, LiveConfiguration, Reloads};
use crate::state;
use crate::stored;

pub(crate) fn run(shared: &Shared, args: &Serve) -> Result<(), Failure> {
    log(shared, "info")?;
    let resolved = config::read(&args.config, &environment)?;
    let at = Said { gateway: args.listen, admin: args.admin_listen, forget: args.forget.clone() };
    serve(shared, &args.config, resolved, at, |address| {
        output::line(format_args!("listening on http://{address}"))
    })
}

/// What the command line said.
#[derive(Debug, Default)]
pub(crate) struct Said {
    /// Where to listen, instead of where the configuration says.
    pub(crate) gateway: Option<SocketAddr>,
    /// The same for the admin API.
    pub(crate) admin: Option<AdminListen>,
    /// Plugins to go without, if they cannot be loaded any more.
    pub(crate) forget: Vec<String>,
}

/// Serves a configuration; `ready` is told where, once clients can connect.
pub(crate) fn serve(
    shared: &Shared,
    path: &Path,
    resolved: Resolved,
    at: Said,
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
    let Capabilities { services, metrics } = resolved
        .services
        .open(base, kept, &environment)
        .map_err(|failure| Failure::unusable(format_args!("{}: {failure}", path.display())))?;
    let kv = services.kv.clone();
    let engine = engine(shared, resolved.engine, services)?;
    let manager = state::manager(engine.clone(), seed, state, &at.forget)?;
    let otlp = resolved.otlp.as_ref().map(|settings| otlp::start(runtime.handle(), &manager, settings));
    let otlp = otlp.transpose()?;
    let readiness = Readiness::waiting("plugins are being loaded");
    let tokens = Tokens::new(resolved.admin.tokens.clone());
    let configuration = LiveConfiguration::new(path);
    // Before plugins are loaded, so that somebody can ask how far it is.
    let about = admin::About {
        manager: &manager,
        tokens: &tokens,
        readiness: &readiness,
        configuration: &configuration,
        config_path: path,
        cache_dir: cache_dir(shared),
        kv,
        metrics: metrics.clone(),
        dropped: otlp.as_ref().map(|otlp| otlp.dropped.clone()),
    };
    let admin_listen = at.admin.unwrap_or(resolved.admin.listen);
    let admin = admin::start(runtime.handle(), admin_listen, about)?;
    warn(&resolved.warnings);
    let applied = manager.start_with(&resolved.plugins, Vec::new()).map_err(not_applied)?;
    report(&applied, &[]);
    let folder = resolved.folder.clone().map(|folder| Folder::start(&manager, folder));
    warn(&advice::about(&resolved.plugins, &resolved.entries, &manager.snapshot()));
    let gateway = Gateway::new(resolved.gateway, manager.clone())
        .map_err(|error| Failure::unusable(format_args!("{}: {}", path.display(), error.named(key_of))))?;
    // Where the file says counts, unless the command line said otherwise.
    let fixed = Fixed {
        listen: at.gateway.is_none().then_some(resolved.listen),
        admin_listen: at.admin.is_none().then_some(resolved.admin.listen),
        engine: resolved.engine,
        state: resolved.state,
        services: resolved.services,
        otlp: resolved.otlp,
    };
    let reloads = Arc::new(Reloads {
        path: path.to_owned(),
        fixed,
        manager: manager.clone(),
        gateway: gateway.clone(),
        engine,
        tokens,
        folder: Mutex::new(folder),
        plugins: Mutex::new(resolved.plugins),
    });
    configuration.begin(reloads.clone());
    let beside = Beside { readiness, admin, otlp, metrics };
    let outcome = runtime.block_on(async {
        let (listener, address) = bind(at.gateway.unwrap_or(resolved.listen)).await?;
        let signals = Signals::new(hangups)?;
        beside.readiness.serves_at(address);
        beside.readiness.ready();
        ready(address)?;
        until_stopped(listener, signals, reloads, beside).await
    });
    // A reload that hangs, say on a file that is a pipe nobody writes to, does not keep the process alive.
    runtime.shutdown_background();
    outcome
}

async fn bind(listen: SocketAddr) -> Result<(TcpListener, SocketAddr), Failure> {
    let bound = async {
        let listener = TcpListener::bind(listen).await?;
        let address = listener.local_addr()?;
        Ok::<_, std::io::Error>((listener, address))
    };
    bound.await.map_err(|error| {
        Failure::failed(format_args!("cannot listen on {listen}: {error}; choose another with --listen"))
    })
}

/// What goes on beside the gateway, and ends after it.
struct Beside {
    readiness: Readiness,
    admin: Option<admin::Serving>,
    otlp: Option<otlp::Reporting>,
    metrics: MetricsRegistry,
}

async fn until_stopped(
    listener: TcpListener,
    signals: Signals,
    reloads: Arc<Reloads>,
    beside: Beside,
) -> Result<(), Failure> {
    let Beside { readiness, admin, otlp, metrics } = beside;
    let (manager, gateway) = (reloads.manager.clone(), reloads.gateway.clone());
    let supervision = tokio::spawn(manager.clone().supervise());
    let tidying = tokio::spawn(stored::forget_the_gone(manager.clone(), metrics));
    let Signals { reload, mut stop } = signals;
    let reloads = tokio::spawn(reloads.on(reload));
    let (drain, told) = tokio::sync::oneshot::channel();
    // One pair of ears for both: two that hear the same could take them for one another.
    let hurried = async {
        stop.next().await;
        tracing::info!("stopping: requests under way may finish, until a second signal");
        readiness.not_ready("it was told to stop");
        // The gateway may have ended by itself.
        let _ = drain.send(());
        stop.next().await
    };
    let told = async { drop(told.await) };
    let outcome = tokio::select! {
        () = gateway.serve(listener, told) => Ok(()),
        signal = hurried => Err(Failure::cut_off(signal)),
    };
    reloads.abort();
    supervision.abort();
    tidying.abort();
    if outcome.is_ok() {
        manager.say_goodbye().await;
        let stop_admin = async {
            if let Some(admin) = admin {
                admin.stop().await;
            }
        };
        let stop_otlp = async {
            if let Some(otlp) = otlp {
                otlp.stop().await;
            }
        };
        tokio::join!(stop_admin, stop_otlp);
    }
    outcome
}

/// An engine with the real capabilities.
pub(crate) fn engine(shared: &Shared, bounds: EngineBounds, services: Services) -> Result<Engine, Failure> {
    let cache_dir = cache_dir(shared);
    if cache_dir.is_none() && !shared.no_cache {
        tracing::info!("no compile cache: set HOME, XDG_CACHE_HOME or CARDAN_CACHE_DIR to start faster");
    }
    let EngineBounds { pool_instances, memory_bytes_max, stack_bytes, long_calls_max } = bounds;
    let config = EngineConfig {
        cache_dir,
        pool_instances,
        memory_bytes_max,
        stack_bytes,
        long_calls_max,
        services,
        ..EngineConfig::default()
    };
    Engine::new(config).map_err(|error| Failure::failed(format_args!("{error}; or run with --no-cache")))
}

/// Where compiled plugins are kept, if anywhere.
fn cache_dir(shared: &Shared) -> Option<PathBuf> {
    let chosen = shared.cache_dir.clone().filter(|dir| !dir.as_os_str().is_empty());
    if shared.no_cache { None } else { chosen.or_else(default_cache_dir) }
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
    let default = if shared.verbose { "info,cardan=debug" } else { default };
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

pub(crate) fn not_applied(ApplyError(wrong): ApplyError) -> Failure {
    Failure::unusable(wrong.join("\n"))
}

pub(crate) fn warn(warnings: &[String]) {
    for warning in warnings {
        tracing::warn!("{warning}");
    }
}

/// What was done, and in which places a plugin of `before` is asked no more.
pub(crate) fn report(applied: &Applied, before: &[PluginSpec]) {
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
}

impl Signals {
    fn new(reload: tokio::signal::unix::Signal) -> Result<Self, Failure> {
        Ok(Self { reload, stop: StopSignals::new()? })
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
}

fn listen_for(kind: SignalKind) -> Result<tokio::signal::unix::Signal, Failure> {
    signal(kind).map_err(|error| Failure::failed(format_args!("cannot listen for signals: {error}")))
}
