//! The real capabilities: on a real disk, and with a real PostgreSQL server.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::type_complexity,
    reason = "helpers of tests are tests: a panic there is the failure message, and a row is a tuple"
)]

mod postgres;

mod cache;
mod http;
mod kv;
mod metrics;
mod sql;
