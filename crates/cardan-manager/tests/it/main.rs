//! The manager with real guests: what a gateway gets to see of them.

mod apply;
mod faults;
mod instances;
mod llmproxy;
mod manifest;
mod order;
mod support;
