//! What contributors and CI do with this repository beyond `cargo build` and `cargo test`. Every command can
//! be repeated, and says what it does.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command-line tool talks to its user")]

mod bench;
mod check;
mod conformance;
mod demo;
mod guests;
mod schema;
mod setup;
mod test;
mod tidy;
mod tool;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "The chores of this repository")]
enum Chore {
    /// Prepare this machine: WebAssembly targets of Rust, and Python clients for the end-to-end tests
    Setup {
        /// Also install the compilers of the Go, C, Zig and AssemblyScript guests
        #[arg(long)]
        guest_compilers: bool,
    },
    /// Build the example and fixture plugins into guests/prebuilt
    Guests {
        /// Change nothing; fail when what is committed differs from what the sources give
        #[arg(long)]
        check: bool,
    },
    /// Build Cardan and run its demo: a gateway with example plugins
    Demo {
        /// Drive the demo instead of leaving it to you, and say what was seen
        #[arg(long)]
        check: bool,
        /// Where the demo listens
        #[arg(long, default_value = "127.0.0.1:8080", value_name = "ADDRESS")]
        listen: String,
    },
    /// Everything that has to pass: check, guests, all tests
    Test {
        /// Only tests whose name contains this
        filter: Option<String>,
    },
    /// Formatting, lints, the shape of the house, schemas; a minute or two
    Check,
    /// Write the JSON Schemas of documents and configuration into docs/schema
    Schema {
        /// Change nothing; fail when what is committed differs from what the types say
        #[arg(long)]
        check: bool,
    },
    /// Run every behaviour in every convention, and write what was found into docs/abi/conformance.md
    Conformance {
        /// Change nothing; fail when what is committed differs from what is found
        #[arg(long)]
        check: bool,
    },
    /// Measure Cardan beside its peers, and write docs/benchmarks.md
    Bench {
        /// What to pass on to the benchmark, for instance `--quick` or `--json FILE`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
}

fn main() -> ExitCode {
    if let Some(status) = guests::rewrite_metadata() {
        return status;
    }
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The causes and nothing else: where in this program it happened helps nobody.
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let root = root()?;
    match Chore::parse() {
        Chore::Setup { guest_compilers } => setup::run(&root, guest_compilers),
        Chore::Guests { check: true } => guests::check(&root),
        Chore::Guests { check: false } => guests::update(&root),
        Chore::Demo { check: true, .. } => demo::check(&root),
        Chore::Demo { check: false, listen } => demo::run(&root, &listen),
        Chore::Test { filter } => test::run(&root, filter.as_deref()),
        Chore::Check => check::run(&root),
        Chore::Schema { check: true } => schema::check(&root),
        Chore::Schema { check: false } => schema::update(&root),
        Chore::Conformance { check: true } => conformance::check(&root),
        Chore::Conformance { check: false } => conformance::update(&root),
        Chore::Bench { arguments } => bench::run(&root, &arguments),
    }
}

/// The checkout that this program was built from.
fn root() -> Result<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask lies in no checkout")?;
    Ok(root.to_owned())
}
