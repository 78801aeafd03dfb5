//! The gateway over real sockets, with real plugins, against upstreams that say what a test tells them.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests are tests: a panic there is the failure message"
)]

mod house;
mod plugins;

mod access;
mod hooks;
mod limits;
mod llm;
mod relay;
mod replace;
mod wire;
