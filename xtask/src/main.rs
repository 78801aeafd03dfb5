//! What contributors and CI do with this repository beyond `cargo build` and `cargo test`. Every command can
//! be repeated, and says what it does.
#![expect(clippy::print_stdout, reason = "a command-line tool talks to its user")]

mod guests;
mod setup;
mod tool;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Parser;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "The chores of this repository")]
enum Chore {
    /// Prepare this machine: WebAssembly targets of Rust, and Python clients for the end-to-end tests
    Setup {
        /// Also install the compilers of the Go and C guests
        #[arg(long)]
        guest_compilers: bool,
    },
    /// Build the example and fixture plugins into guests/prebuilt
    Guests {
        /// Change nothing; fail when what is committed differs from what the sources give
        #[arg(long)]
        check: bool,
    },
}

fn main() -> Result<()> {
    let root = root()?;
    match Chore::parse() {
        Chore::Setup { guest_compilers } => setup::run(&root, guest_compilers),
        Chore::Guests { check: true } => guests::check(&root),
        Chore::Guests { check: false } => guests::update(&root),
    }
}

/// The checkout that this program was built from.
fn root() -> Result<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask lies in no checkout")?;
    Ok(root.to_owned())
}
