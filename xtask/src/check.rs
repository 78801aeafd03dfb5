//! What can be said about a change without running it.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::{schema, tidy, tool};

pub(crate) fn run(root: &Path) -> Result<()> {
    println!("cargo fmt --check");
    tool::run(tool::cargo().current_dir(root).args(["fmt", "--all", "--check"]))?;
    println!("tidy");
    tidy::run(root)?;
    println!("cargo clippy");
    let lints = ["clippy", "--workspace", "--all-targets", "--locked", "--quiet", "--", "-D", "warnings"];
    tool::run(tool::cargo().current_dir(root).args(lints))?;
    deny(root)?;
    println!("schemas");
    schema::check(root)
}

/// `cargo deny` takes longer to install than everything else together, so it is only run where it is.
/// What matters most of `deny.toml`, who may name wasmtime, tidy checks as well.
fn deny(root: &Path) -> Result<()> {
    let there =
        Command::new("cargo-deny").arg("--version").output().is_ok_and(|output| output.status.success());
    if !there {
        println!("cargo deny: not installed, deny.toml is not checked here");
        return Ok(());
    }
    println!("cargo deny");
    tool::run(tool::cargo().current_dir(root).args([
        "deny",
        "--offline",
        "check",
        "bans",
        "licenses",
        "sources",
    ]))
}
