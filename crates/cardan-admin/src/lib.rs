//! Cardan's control plane over HTTP.
//!
//! A listener of its own beside the gateway: Cardan's API under `/api/v1`, the admin routes of the systems
//! whose plugins it runs as those systems have them, health, and metrics. It acts through
//! [`cardan_manager::Manager`]; what else it needs of the process it is handed as a [`Host`].
//!
//! Nothing here is on the way of a request to a plugin.

// In reading order: each knows only those above it.
mod problem;

mod access;
mod host;
mod readiness;

mod app;
mod files;
mod input;
mod time;

mod measured;
mod metrics;

mod api;
mod facade;

mod health;
mod openapi;

mod server;
mod silent;

pub use access::{ExposedError, Role, Token, TokenError, Tokens};
pub use host::{
    Configuration, ConfigurationError, Document, FolderProblems, Host, KeyValues, KvError, Measured,
    MeasuredKind, MeasuredValue,
};
pub use openapi::openapi;
pub use readiness::Readiness;
pub use server::Admin;
