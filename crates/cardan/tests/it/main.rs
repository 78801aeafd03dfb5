//! The runtime through its public interface, with real WebAssembly. A module per topic, a `check` per
//! boundary, a row per case.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::type_complexity,
    reason = "helpers of tests are tests: a panic there is the failure message, and a row is a tuple"
)]

mod server;
mod support;
mod visits;
mod wasi;

mod cache;
mod capability;
mod codes;
mod component;
mod dialects;
mod dumps;
mod features;
mod helios;
mod host;
mod hostile;
mod http;
mod instances;
mod kernel;
mod lifecycle;
mod limits;
mod linking;
mod manifest;
mod pace;
mod packed;
mod rewind;
mod services;
mod services_http;
mod snapshot;
mod tiers;
mod usage;
