//! The command as its users run it: the built binary, files, signals, and clients of other people.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests are tests: a panic there is the failure message"
)]

mod client;
mod process;

mod admin;
mod changes;
mod commands;
mod conventions;
mod demo;
mod folder;
mod foreign;
mod llmproxy;
mod openai;
mod operate;
mod reload;
mod services;
mod tools;
mod traces;
