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

// In reading order, each knowing only those above it: what an operator decides, what bytes mean, where
// answers come from, what all exchanges share, one exchange and what it leaves behind.
mod config;

mod path;

mod delivery;
mod error;

mod headers;
mod ijson;
mod media_type;

mod sse;

mod completion;

mod budget;

mod body;

mod upstream;

mod route;

mod plan;

mod core;

mod busy;

mod record;

mod reply;

mod answer;

mod exchange;

mod server;

use std::sync::Arc;

use cardan_manager::{Manager, Pairing};
use tokio::net::TcpListener;

pub use config::{
    AmbiguousBodies, AmbiguousPaths, Builtin, Config, ConfigError, Forwarded, HostMatch, Limits, PathMatch,
    RouteConfig, Service, Startup, Timeouts, Trust, UpstreamConfig,
};

use crate::core::Core;
use crate::plan::Plan;

/// A gateway. Clones are the same gateway.
#[derive(Debug, Clone)]
pub struct Gateway(Arc<Core>);

impl Gateway {
    /// A gateway that asks the plugins of `manager`.
    ///
    /// # Errors
    ///
    /// When a part of the configuration contradicts another, or is not what it has to be.
    pub fn new(config: Config, manager: Manager) -> Result<Self, ConfigError> {
        Ok(Self(Arc::new(Core::new(Plan::resolve(config)?, manager)?)))
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
        Ok(self.0.pairing(self.next_plan(config)?))
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
