//! The shape of the house, as far as a program can see it.
//!
//! Each rule here is one that reviewers would otherwise have to remember. Numbers may only fall.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::tool;

/// Lines of a source file. A longer one lacks a noun to be split at.
const FILE_LINES_MAX: usize = 800;
/// Lines of the median source file.
const MEDIAN_LINES_MAX: usize = 250;
/// Who may depend on whom, inside of the house. The binary may on everybody; see ARCHITECTURE.md.
const DEPENDENCIES: [(&str, &[&str]); 9] = [
    ("cardan-api", &[]),
    ("cardan", &["cardan-api"]),
    ("cardan-services", &["cardan"]),
    ("cardan-manager", &["cardan", "cardan-api"]),
    ("cardan-gateway", &["cardan-api", "cardan-manager"]),
    ("cardan-admin", &["cardan-api", "cardan-manager"]),
    (
        "cardan-cli",
        &["cardan", "cardan-admin", "cardan-api", "cardan-gateway", "cardan-manager", "cardan-services"],
    ),
    ("cardan-pdk-testing", &["cardan", "cardan-services"]),
    ("xtask", &[]),
];
/// The one crate that may name wasmtime, and its files with unsafe code: what talks to a compiler's output
/// and to the kernel.
const WASMTIME: &str = "cardan";
const UNSAFE: &[&str] = &["crates/cardan/src/engine/cache.rs", "crates/cardan/src/engine/dirty_pages.rs"];
/// Documents whose `code words` have to exist in the sources.
const MAP: &str = "ARCHITECTURE.md";

pub(crate) fn run(root: &Path) -> Result<()> {
    let tracked = tool::read(std::process::Command::new("git").current_dir(root).args([
        "ls-files",
        "--cached",
        "--others",
        "--exclude-standard",
    ]))?;
    let files: Vec<PathBuf> =
        tracked.lines().map(PathBuf::from).filter(|path| root.join(path).is_file()).collect();
    let mut wrong = Vec::new();
    sources(root, &files, &mut wrong)?;
    dependencies(root, &mut wrong)?;
    map(root, &files, &mut wrong)?;
    if wrong.is_empty() {
        return Ok(());
    }
    bail!("tidy:\n  {}", wrong.join("\n  "))
}

fn sources(root: &Path, files: &[PathBuf], wrong: &mut Vec<String>) -> Result<()> {
    let mut lengths = Vec::new();
    for path in files.iter().filter(|path| is_product(path)) {
        let text = fs::read_to_string(root.join(path)).with_context(|| path.display().to_string())?;
        let lines = text.lines().count();
        lengths.push(lines);
        let shown = path.display();
        if lines > FILE_LINES_MAX {
            wrong.push(format!("{shown} has {lines} lines; split it where a noun is missing"));
        }
        if path.ends_with("mod.rs") {
            wrong.push(format!("{shown}: a module's file stands beside its folder, not in it"));
        }
        // Written so that this file does not find itself.
        let block = ["unsafe", " {"].concat();
        if text.contains(&block) && !UNSAFE.iter().any(|allowed| path == Path::new(allowed)) {
            wrong.push(format!("{shown} has unsafe code; only {} may", UNSAFE.join(" and ")));
        }
        for mark in ["todo!(", "FIXME", "unimplemented!("] {
            if text.contains(mark) && !path.ends_with("tidy.rs") {
                wrong.push(format!("{shown} has {mark}: do it or say in an issue what is missing"));
            }
        }
    }
    lengths.sort_unstable();
    let median = lengths.get(lengths.len() / 2).copied().unwrap_or(0);
    if median > MEDIAN_LINES_MAX {
        wrong.push(format!("the median source file has {median} lines, more than {MEDIAN_LINES_MAX}"));
    }
    Ok(())
}

/// Sources that are neither tests nor guests.
fn is_product(path: &Path) -> bool {
    let test = path.components().any(|part| part.as_os_str() == "tests") || path.ends_with("tests.rs");
    let ours = path.starts_with("crates") || path.starts_with("xtask");
    ours && !test && path.extension().is_some_and(|extension| extension == "rs")
}

fn dependencies(root: &Path, wrong: &mut Vec<String>) -> Result<()> {
    let metadata =
        tool::cargo().current_dir(root).args(["metadata", "--format-version=1", "--no-deps"]).output()?;
    let metadata: serde_json::Value = serde_json::from_slice(&metadata.stdout).context("cargo metadata")?;
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let name = package["name"].as_str().unwrap_or_default();
        let Some((_, allowed)) = DEPENDENCIES.iter().find(|(known, _)| *known == name) else {
            wrong.push(format!(
                "the crate {name} has no place in the order of crates; give it one in tidy.rs"
            ));
            continue;
        };
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let on = dependency["name"].as_str().unwrap_or_default();
            if !dependency["kind"].is_null() {
                continue;
            }
            let inside = DEPENDENCIES.iter().any(|(known, _)| *known == on);
            if inside && !allowed.contains(&on) {
                wrong.push(format!("{name} may not depend on {on}"));
            }
            if on.starts_with("wasmtime") && name != WASMTIME {
                wrong.push(format!("{name} depends on {on}; only {WASMTIME} may name wasmtime"));
            }
            if ["aws-lc-rs", "native-tls", "openssl"].contains(&on) {
                wrong.push(format!("{name} depends on {on}; TLS is rustls with ring everywhere"));
            }
        }
    }
    Ok(())
}

/// Code words in the architecture document are names of items, or paths; a map that names what is gone
/// misleads.
fn map(root: &Path, files: &[PathBuf], wrong: &mut Vec<String>) -> Result<()> {
    let text = fs::read_to_string(root.join(MAP)).unwrap_or_default();
    let mut sources = String::new();
    for path in files
        .iter()
        .filter(|path| path.extension().is_some_and(|it| it == "rs" || it == "toml" || it == "wat"))
    {
        sources.push_str(&fs::read_to_string(root.join(path)).unwrap_or_default());
    }
    for word in text.split('`').skip(1).step_by(2) {
        let known = word.contains(char::is_whitespace)
            || root.join(word).exists()
            || word.split("::").all(|part| sources.contains(part.trim_end_matches("()")));
        if !known {
            wrong.push(format!("{MAP} names `{word}`, which is neither an item nor a path"));
        }
    }
    Ok(())
}
