//! Benchmarks beside peers. They have a workspace and lock file of their own: peers bring other versions of
//! wasmtime, one of which declares a newer Rust than it needs.

use std::ffi::OsString;
use std::path::Path;
use std::process::Command;

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
        .args(go(root))
        .args(arguments);
    tool::run(&mut measure)
}

/// The option that names the Go compiler, if there is one.
fn go(root: &Path) -> Vec<OsString> {
    let found = tool::go(root).into_iter().find(|go| {
        let mut version = Command::new(go.get_program());
        version.arg("version").output().is_ok_and(|ran| ran.status.success())
    });
    found.into_iter().flat_map(|go| ["--go".into(), go.get_program().to_owned()]).collect()
}
