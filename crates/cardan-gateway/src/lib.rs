//! Cardan's HTTP and LLM data plane.
#![expect(dead_code, reason = "the exchange that uses these parts comes with the manager")]

mod body;
mod completion;
mod config;
mod error;
mod headers;
mod route;
mod sse;
mod upstream;

pub use config::{
    AmbiguousPaths, Builtin, Config, ConfigError, Forwarded, HostMatch, Limits, PathMatch, RouteConfig,
    Service, Startup, Timeouts, Trust, UpstreamConfig,
};
