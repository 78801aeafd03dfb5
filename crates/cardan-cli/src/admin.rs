//! Serving the admin API beside the gateway.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cardan::KvStore;
use cardan_admin::{Admin, Host, KeyValues, Readiness, Tokens};
use cardan_manager::Manager;
use cardan_services::MetricsRegistry;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::config::AdminListen;
use crate::otlp::Dropped;
use crate::output::Failure;
use crate::reload::LiveConfiguration;
use crate::stored::{self, StoredValues};

/// What the admin API is about.
pub(crate) struct About<'a> {
    pub(crate) manager: &'a Manager,
    pub(crate) tokens: &'a Tokens,
    pub(crate) readiness: &'a Readiness,
    pub(crate) configuration: &'a LiveConfiguration,
    pub(crate) config_path: &'a Path,
    pub(crate) cache_dir: Option<PathBuf>,
    pub(crate) kv: Option<Arc<dyn KvStore>>,
    pub(crate) metrics: MetricsRegistry,
    pub(crate) dropped: Option<Dropped>,
}

/// The admin API, while it serves.
pub(crate) struct Serving {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Serving {
    /// Lets requests under way finish, for a moment.
    pub(crate) async fn stop(self) {
        let _ = self.stop.send(());
        // It has a time limit of its own; when it panicked, the log says so.
        let _ = self.task.await;
    }
}

/// Begins to serve, unless it is off. A port that is only the usual one and taken is a warning.
pub(crate) fn start(
    runtime: &Handle,
    listen: AdminListen,
    about: About<'_>,
) -> Result<Option<Serving>, Failure> {
    let bind =
        |address: SocketAddr| -> io::Result<TcpListener> { runtime.block_on(TcpListener::bind(address)) };
    let listener = match listen {
        AdminListen::Off => return Ok(None),
        AdminListen::At(address) => bind(address).map_err(|error| {
            Failure::failed(format_args!(
                "cannot listen on {address} for the admin API: {error}; choose another with admin.listen or \
                 --admin-listen"
            ))
        })?,
        AdminListen::Usual(address) => match bind(address) {
            Ok(listener) => listener,
            Err(error) => {
                tracing::warn!(
                    "there is no admin API: cannot listen on {address}: {error}; choose another with admin.listen \
                     or --admin-listen"
                );
                return Ok(None);
            }
        },
    };
    let address = listener.local_addr().map_err(Failure::failed)?;
    let metrics = about.metrics;
    let base = about.config_path.parent().unwrap_or(Path::new(""));
    let live = about.configuration.clone();
    let host = Host {
        version: env!("CARGO_PKG_VERSION"),
        tokens: about.tokens.clone(),
        readiness: about.readiness.clone(),
        configuration: Some(Arc::new(about.configuration.clone())),
        kv: about.kv.map(|store| {
            let (runtime, manager) = (runtime.clone(), about.manager.clone());
            Arc::new(StoredValues { store, runtime, manager }) as Arc<dyn KeyValues>
        }),
        folder_problems: Some(Arc::new(move || live.folder_problems())),
        measured: Some(Arc::new(move || stored::measured(&metrics))),
        cache_dir: about.cache_dir,
        llmproxy_folder: Some(base.join("plugins")),
        traces_dropped: about
            .dropped
            .map(|dropped| Arc::new(move || dropped.count()) as Arc<dyn Fn() -> u64 + Send + Sync>),
    };
    let admin = Admin::new(about.manager.clone(), host, listener)
        .map_err(|error| Failure::unusable(format_args!("admin.listen: {error}")))?;
    let (stop, stopped) = oneshot::channel();
    let task = runtime.spawn(admin.serve(async {
        // Also when whoever would stop it is gone.
        let _ = stopped.await;
    }));
    tracing::info!(%address, "admin API");
    Ok(Some(Serving { stop, task }))
}
