//! Cardan's HTTP and LLM data plane.
//!
//! A [`Gateway`] answers every request with an exchange: it opens a visit on the current plugins, asks
//! them about the request, sends what they leave to the upstream of its route, asks them about the
//! answer, and relays it. An exchange goes by one set of routes and one set of plugins from its first
//! hook to its last, whatever an operator changes meanwhile.
//!
//! The crate exists so that those who load plugins need not know HTTP, and it knows nothing of how
//! plugins are called: what it asks, it asks through [`cardan_manager::Visit`]. It reads neither files
//! nor the environment; [`Config`] says everything.

// In reading order: what an operator decides, one exchange and what it leaves behind, where answers
// come from, what bytes mean.
mod config;
mod plan;

mod exchange;
mod route;

mod answer;
mod record;
mod reply;

mod error;

mod upstream;

mod body;
mod budget;
mod headers;
mod ijson;

mod completion;
mod sse;

mod server;

use std::sync::Arc;

use cardan_manager::{Manager, Pairing, Slot, Snapshot};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};

pub use config::{
    AmbiguousBodies, AmbiguousPaths, Builtin, Config, ConfigError, Forwarded, HostMatch, Limits, PathMatch,
    RouteConfig, Service, Startup, Timeouts, Trust, UpstreamConfig,
};

use crate::budget::Budget;
use crate::plan::Plan;
use crate::upstream::Client;

/// A gateway. Clones are the same gateway.
#[derive(Debug, Clone)]
pub struct Gateway(Arc<Core>);

#[derive(Debug)]
struct Core {
    manager: Manager,
    client: Client,
    /// Where the plan lies in every snapshot, so that routes and plugins change in one step.
    plan: Slot<Plan>,
    connections: Arc<Semaphore>,
    /// What bodies that are held take up.
    held: Arc<Budget>,
    /// Counts the `http.complete` chains under way.
    background: Arc<watch::Sender<usize>>,
}

impl Gateway {
    /// A gateway that asks the plugins of `manager`.
    ///
    /// # Errors
    ///
    /// When a part of the configuration contradicts another, or is not what it has to be.
    pub fn new(config: Config, manager: Manager) -> Result<Self, ConfigError> {
        let plan = Plan::resolve(config)?;
        Ok(Self(Arc::new(Core {
            client: Client::new(&plan.startup)?,
            connections: Arc::new(Semaphore::new(plan.startup.connections_max)),
            held: Arc::default(),
            background: Arc::new(watch::Sender::new(0)),
            plan: manager.slot(plan),
            manager,
        })))
    }

    /// Goes by another configuration from the next exchange on. Exchanges under way, and connections to
    /// clients and upstreams, are left alone. To change plugins in the same step, see
    /// [`Gateway::pairing`].
    ///
    /// # Errors
    ///
    /// As for [`Gateway::new`], and when [`Startup`] differs. What ran before still runs.
    pub fn replace(&self, config: Config) -> Result<(), ConfigError> {
        self.0.manager.pair(self.pairing(config)?);
        Ok(())
    }

    /// Another configuration, for [`Manager::apply_with`] to put in place together with its plugins: an
    /// exchange sees the old of both or the new of both.
    ///
    /// # Errors
    ///
    /// As for [`Gateway::replace`].
    pub fn pairing(&self, config: Config) -> Result<Pairing, ConfigError> {
        Ok(self.0.plan.pairing(self.next_plan(config)?))
    }

    fn next_plan(&self, config: Config) -> Result<Plan, ConfigError> {
        let plan = Plan::resolve(config)?;
        if plan.startup != self.0.plan().startup {
            return Err(config::Kind::NeedsRestart.into());
        }
        Ok(plan)
    }

    /// Serves a listener until `shutdown`; then takes no more connections, lets exchanges under way finish
    /// within [`Timeouts::drain`], and returns. May be called for several listeners at once; they share
    /// the limits.
    pub async fn serve(&self, listener: TcpListener, shutdown: impl Future<Output = ()>) {
        server::serve(self.0.clone(), listener, shutdown).await;
    }
}

impl Core {
    /// What goes for whatever begins now.
    fn plan(&self) -> Arc<Plan> {
        self.plan_of(&self.manager.snapshot())
    }

    #[expect(
        clippy::expect_used,
        reason = "the slot was made with a value, and snapshots keep what they have"
    )]
    fn plan_of(&self, snapshot: &Snapshot) -> Arc<Plan> {
        snapshot.paired(&self.plan).expect("every snapshot since this gateway was made has its plan")
    }
}
