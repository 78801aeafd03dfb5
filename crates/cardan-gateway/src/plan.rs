//! A configuration ready to serve.

use http::HeaderName;
use tokio::sync::Semaphore;

use crate::config::{
    AmbiguousBodies, AmbiguousPaths, Config, ConfigError, Forwarded, Kind, Limits, Startup, Timeouts,
};
use crate::route::Routes;

/// What an exchange goes by. Immutable: it takes one when it begins and keeps it.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) routes: Routes,
    pub(crate) limits: Limits,
    pub(crate) timeouts: Timeouts,
    pub(crate) ambiguous_paths: AmbiguousPaths,
    pub(crate) ambiguous_bodies: AmbiguousBodies,
    pub(crate) forwarded: Forwarded,
    pub(crate) session_header: Option<HeaderName>,
    pub(crate) startup: Startup,
}

/// Hyper's smallest buffer.
const HEADER_BYTES_MIN: usize = 8192;

impl Plan {
    pub(crate) fn resolve(config: Config) -> Result<Self, ConfigError> {
        let routes = Routes::resolve(&config)?;
        if config.startup.header_bytes_max < HEADER_BYTES_MIN {
            return Err(Kind::HeaderBytes { what: "header_bytes_max" }.into());
        }
        let counts = [
            ("connections_max", config.startup.connections_max),
            ("held_bytes_max", config.limits.held_bytes_max),
            ("background_max", config.limits.background_max),
            ("streams_per_connection_max", config.limits.streams_per_connection_max as usize),
        ];
        if let Some((what, _)) = counts.iter().find(|(_, count)| *count == 0) {
            return Err(Kind::Zero { what }.into());
        }
        if config.startup.connections_max > Semaphore::MAX_PERMITS {
            return Err(Kind::TooMany { what: "connections_max", max: Semaphore::MAX_PERMITS }.into());
        }
        Ok(Self {
            routes,
            limits: config.limits,
            timeouts: config.timeouts,
            ambiguous_paths: config.ambiguous_paths,
            ambiguous_bodies: config.ambiguous_bodies,
            forwarded: config.forwarded,
            session_header: config.session_header,
            startup: config.startup,
        })
    }
}
