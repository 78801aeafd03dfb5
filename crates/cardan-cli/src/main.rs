//! The `cardan` command: a gateway with plugins, and tools for plugin authors.
//!
//! This crate is the rim. It alone reads the command line, the environment and configuration files, and
//! hands what it finds, resolved, to the crates that act on it.

mod admin;
mod advice;
mod args;
mod call;
mod callee;
mod config;
mod demo;
mod inspect;
mod operate;
mod otlp;
mod output;
mod reload;
mod schema;
mod serve;
mod state;
mod stored;
mod tool;
mod validate;

use std::process::ExitCode;

use clap::Parser as _;

use args::{Args, Command, PluginVerb};

fn main() -> ExitCode {
    cardan_services::install_tls_provider();
    let args = Args::parse();
    let outcome = match &args.command {
        Command::Serve(serve) => serve::run(&args.shared, serve),
        Command::Demo(demo) => demo::run(&args.shared, demo),
        Command::Call(call) => call::run(&args.shared, call),
        Command::Plugin(PluginVerb::Call(call)) => tool::run(&args.shared, call),
        Command::Inspect(inspect) => inspect::run(&args.shared, inspect),
        Command::Validate(validate) => validate::run(&args.shared, validate),
        Command::Schema(schema) => schema::run(schema),
        Command::Operate(verb) => operate::run(verb),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}
