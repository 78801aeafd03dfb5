//! Prepares a contributor's machine. Nothing here is needed for `cargo test`: what is missing makes some
//! tests and chores skip, and they say so.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{guests, tool};

/// Clients that the end-to-end tests point at the gateway.
const PYTHON_CLIENTS: [&str; 1] = ["openai"];

pub(crate) fn run(root: &Path, guest_compilers: bool) -> Result<()> {
    let mut packages: Vec<String> = PYTHON_CLIENTS.map(str::to_owned).into();
    if guest_compilers {
        packages.extend(guests::compiler_packages(root)?);
    }
    let mut steps = vec![
        ("Rust targets", rust_targets()),
        ("Python packages", python_packages(root, &packages)),
        ("PostgreSQL", postgres()),
    ];
    if guest_compilers {
        steps.push(("npm packages", npm_packages(root)));
    }
    let mut failed = 0;
    for (step, outcome) in steps {
        if let Err(error) = outcome {
            println!("{step}: not set up: {error:#}");
            failed += 1;
        }
    }
    if failed > 0 {
        bail!("{failed} steps failed; repeat this command when their causes are removed");
    }
    Ok(())
}

/// Only what tests cannot do without.
pub(crate) fn clients(root: &Path) -> Result<()> {
    python_packages(root, &PYTHON_CLIENTS.map(str::to_owned))
}

fn rust_targets() -> Result<()> {
    for target in guests::targets() {
        tool::ensure_target(target)?;
        println!("{target}: there");
    }
    Ok(())
}

/// Some tests start a server of their own. It is the system's to install.
fn postgres() -> Result<()> {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut found = versions.map(|version| version.path().join("bin/postgres")).filter(|file| file.is_file());
    match found.next() {
        Some(file) => println!("{}: there", file.display()),
        None if Path::new("/usr/bin/postgres").is_file() => println!("/usr/bin/postgres: there"),
        None => bail!("install it, on Debian with `apt-get install postgresql`"),
    }
    Ok(())
}

/// Installs into a virtual environment below `target/`. A stamp lists what is installed, so that repeating
/// this asks nobody anything.
fn python_packages(root: &Path, packages: &[String]) -> Result<()> {
    let venv = tool::venv(root);
    let stamp = venv.join("installed");
    let installed = fs::read_to_string(&stamp).unwrap_or_default();
    let missing: Vec<&str> = packages
        .iter()
        .map(String::as_str)
        .filter(|package| !installed.lines().any(|line| line == *package))
        .collect();
    if missing.is_empty() {
        println!("{}: complete", venv.display());
        return Ok(());
    }
    let python = venv.join("bin/python");
    if !python.exists() {
        println!("python3 -m venv {}", venv.display());
        make_venv(&venv)?;
    }
    println!("pip install {}", missing.join(" "));
    let mut pip = Command::new(&python);
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]).args(&missing);
    tool::run(&mut pip).context("pip cannot install from PyPI: look at its message above")?;
    let all: Vec<&str> = installed.lines().chain(missing).collect();
    fs::write(&stamp, all.join("\n") + "\n").with_context(|| format!("cannot write {}", stamp.display()))
}

/// The compiler of the AssemblyScript guests.
fn npm_packages(root: &Path) -> Result<()> {
    let folder = tool::modules(root);
    for package in guests::compiler_modules(root)? {
        println!("npm install {package}");
        let mut npm = Command::new("npm");
        npm.args(["install", "--no-audit", "--no-fund", "--loglevel=error", "--prefix"])
            .arg(&folder)
            .arg(package);
        tool::run(&mut npm).context("npm cannot install it: look at its message above")?;
    }
    Ok(())
}

fn make_venv(venv: &Path) -> Result<()> {
    let made = tool::run(Command::new("python3").args(["-m", "venv"]).arg(venv));
    if made.is_err() {
        // Debian's python3 leaves half of one behind, with a python and without pip.
        let _ = fs::remove_dir_all(venv);
    }
    made.context(
        "tests with Python clients need Python 3.9 or later with venv and pip: on Debian and Ubuntu \
         `apt-get install python3-venv`, on Fedora `dnf install python3-pip`, on macOS `brew install python`",
    )
}
