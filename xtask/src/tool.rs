//! Programs that chores run, and where to look for those that are not on every machine.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// Runs to its end with its output shown.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let status = command.status().with_context(|| format!("cannot start {name}"))?;
    if !status.success() {
        bail!("{name} failed: {status}");
    }
    Ok(())
}

/// Runs to its end and gives what it wrote to standard output.
pub(crate) fn read(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("cannot start {name}"))?;
    if !output.status.success() {
        bail!("{name} failed: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    String::from_utf8(output.stdout).with_context(|| format!("the output of {name} is not text"))
}

/// The cargo that runs this program, hence the one of the pinned toolchain.
pub(crate) fn cargo() -> Command {
    Command::new(variable("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// The rustc that cargo would run.
pub(crate) fn rustc() -> Command {
    Command::new(variable("RUSTC").unwrap_or_else(|| "rustc".into()))
}

/// Makes sure that Rust's standard library for a target is there, by rustup if need be.
pub(crate) fn ensure_target(target: &str) -> Result<()> {
    let sysroot = read(rustc().args(["--print", "sysroot"]))?;
    if Path::new(sysroot.trim()).join("lib/rustlib").join(target).is_dir() {
        return Ok(());
    }
    println!("rustup target add {target}");
    run(Command::new("rustup").args(["target", "add", target]))
        .with_context(|| format!("Rust's standard library for {target} is missing"))
}

/// Go: of `$WASM_TC`, a folder of WebAssembly toolchains; of our own virtual environment; of `PATH`.
pub(crate) fn go(root: &Path) -> Vec<Command> {
    toolchains()
        .map(|folder| folder.join("bin/go"))
        .into_iter()
        .chain([venv(root).join("bin/go"), "go".into()])
        .map(Command::new)
        .collect()
}

/// Zig, looked for in the same places. From PyPI it is a Python module.
pub(crate) fn zig(root: &Path) -> Vec<Command> {
    let mut module = Command::new(venv(root).join("bin/python"));
    module.args(["-m", "ziglang"]);
    let named = |program: PathBuf| Command::new(program);
    toolchains()
        .map(|folder| named(folder.join("bin/zig")))
        .into_iter()
        .chain([module, named("zig".into())])
        .collect()
}

/// The AssemblyScript compiler, looked for in the same places.
pub(crate) fn asc(root: &Path) -> Vec<Command> {
    toolchains()
        .map(|folder| folder.join("bin/asc"))
        .into_iter()
        .chain([modules(root).join("node_modules/.bin/asc"), "asc".into()])
        .map(Command::new)
        .collect()
}

/// Where `cargo xtask setup` installs packages of npm.
pub(crate) fn modules(root: &Path) -> PathBuf {
    root.join("target/npm")
}

/// The virtual environment that `cargo xtask setup` makes.
pub(crate) fn venv(root: &Path) -> PathBuf {
    root.join("target/venv")
}

/// The environment variables whose name starts with this.
pub(crate) fn variables(prefix: &str) -> impl Iterator<Item = OsString> {
    std::env::vars_os().map(|(name, _)| name).filter(move |name| name.to_string_lossy().starts_with(prefix))
}

/// An environment variable that is text; empty where it is not set.
pub(crate) fn variable_text(name: &str) -> String {
    variable(name).and_then(|value| value.into_string().ok()).unwrap_or_default()
}

fn toolchains() -> Option<PathBuf> {
    variable("WASM_TC").map(PathBuf::from)
}

#[expect(clippy::disallowed_methods, reason = "this is the place of this program that reads the environment")]
fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name)
}
