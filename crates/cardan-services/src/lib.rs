//! The real capabilities behind plugins' grants.
//!
//! The runtime defines what a capability is and checks who may use it; this crate does it. Only the
//! binary, or an embedder, names both.

mod http;

pub use http::{HttpService, HttpServiceError, install_tls_provider};
