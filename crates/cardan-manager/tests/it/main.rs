//! The manager with real guests: what a gateway gets to see of them.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a panic is a test's failure message, in its helpers too"
)]

mod apply;
mod documents;
mod faults;
mod grants;
mod instances;
mod killed;
mod life;
mod llmproxy;
mod manifest;
mod order;
mod plugin_manifest;
mod seeds;
mod support;
