//! The table of what works in which convention: run by a test of the runtime, which leaves the page it found.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::tool;

const PAGE: &str = "docs/abi/conformance.md";
/// The test that runs every cell. Others compare the page.
const CELLS: &str = "every_cell_passes_or_says_why_it_cannot";

/// Runs every cell, and writes the page if none fails.
pub(crate) fn update(root: &Path) -> Result<()> {
    run(root, &["--", "--exact", CELLS])?;
    let (found, page) = (found(root)?, root.join(PAGE));
    let before = fs::read(&page).unwrap_or_default();
    fs::copy(&found, &page).with_context(|| format!("cannot copy {} to {PAGE}", found.display()))?;
    let what = if fs::read(&page)? == before { "unchanged" } else { "updated" };
    println!("{PAGE}: {what}");
    Ok(())
}

/// Runs every cell, and compares the page.
pub(crate) fn check(root: &Path) -> Result<()> {
    run(root, &[])
}

/// Of the whole workspace, so that dependencies are those that are compiled already.
fn run(root: &Path, arguments: &[&str]) -> Result<()> {
    let test = ["test", "--workspace", "--locked", "--test", "conformance"];
    tool::run(tool::cargo().current_dir(root).args(test).args(arguments))
}

/// Where the test leaves the page.
fn found(root: &Path) -> Result<PathBuf> {
    let metadata =
        tool::read(tool::cargo().current_dir(root).args(["metadata", "--format-version=1", "--no-deps"]))?;
    let metadata: serde_json::Value = serde_json::from_str(&metadata).context("cargo metadata")?;
    let target = metadata["target_directory"].as_str().context("cargo metadata names no target directory")?;
    Ok(Path::new(target).join("tmp/conformance.md"))
}
