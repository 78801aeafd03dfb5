//! Benchmarks beside peers. They have a workspace and lock file of their own: peers bring other versions of
//! wasmtime, one of which declares a newer Rust than it needs.

use std::path::Path;

use anyhow::Result;

use crate::tool;

pub(crate) fn run(root: &Path, arguments: &[String]) -> Result<()> {
    println!("building the benchmarks and the peers they measure; the first time takes half an hour");
    let bench = root.join("bench");
    let build = ["build", "--release", "--locked", "--ignore-rust-version"];
    tool::run(tool::cargo().current_dir(&bench).args(build))?;
    tool::run(tool::cargo().current_dir(root).args([
        "build",
        "--release",
        "--locked",
        "--package",
        "cardan-cli",
    ]))?;
    let mut measure = tool::cargo();
    measure
        .current_dir(&bench)
        .args(["run", "--release", "--locked", "--ignore-rust-version", "--quiet", "--"])
        .arg("--cardan")
        .arg(root.join("target/release/cardan"))
        .arg("--markdown")
        .arg(root.join("docs/benchmarks.md"))
        .args(arguments);
    tool::run(&mut measure)
}
