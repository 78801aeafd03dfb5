//! The command that decides whether a change may land.

use std::path::Path;

use anyhow::Result;

use crate::{check, demo, guests, setup, tool};

/// Runs everything, or with a filter only the tests that match it.
pub(crate) fn run(root: &Path, filter: Option<&str>) -> Result<()> {
    if let Some(filter) = filter {
        return tests(root, &["--", filter]);
    }
    println!("== set-up");
    setup::clients(root)?;
    println!("== check");
    check::run(root)?;
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
