//! The command that decides whether a change may land.

use std::path::Path;

use anyhow::Result;

use crate::{check, demo, guests, setup, tool};

/// What plugins use, in a workspace of its own. One at a time: features of all together would be two conventions at once.
const PDK: [&str; 3] = ["cardan-pdk", "cardan-cortexprism-sdk", "cardan-heliosproxy-sdk"];

/// Runs everything, or with a filter only the tests that match it.
pub(crate) fn run(root: &Path, filter: Option<&str>) -> Result<()> {
    if let Some(filter) = filter {
        return tests(root, &["--", filter]);
    }
    println!("== set-up");
    setup::clients(root)?;
    println!("== check");
    check::run(root)?;
    println!("== pdk");
    pdk(root)?;
    println!("== guests");
    guests::check(root)?;
    println!("== tests");
    tests(root, &[])?;
    println!("== demo");
    demo::check(root)
}

fn tests(root: &Path, arguments: &[&str]) -> Result<()> {
    tool::run(tool::cargo().current_dir(root).args(["test", "--workspace", "--locked"]).args(arguments))
}

fn pdk(root: &Path) -> Result<()> {
    let cargo = || {
        let mut cargo = tool::cargo();
        cargo.current_dir(root.join("pdk/rust")).env("CARGO_TARGET_DIR", root.join("target/pdk"));
        cargo
    };
    tool::run(cargo().args(["fmt", "--check"]).args(PDK.map(|package| format!("--package={package}"))))?;
    for package in PDK {
        let lints = ["--all-targets", "--locked", "--quiet", "--", "-D", "warnings"];
        tool::run(cargo().args(["clippy", "--package", package]).args(lints))?;
        tool::run(cargo().args(["test", "--quiet", "--locked", "--package", package]))?;
    }
    Ok(())
}
