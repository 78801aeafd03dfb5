//! The admin API over real sockets, with a real manager and real plugins behind it.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests are tests: a panic there is the failure message"
)]

mod house;

mod access;
mod follow;
mod heliosproxy;
mod llmproxy;
mod native;
mod openapi;
mod prometheus;
mod smg;
