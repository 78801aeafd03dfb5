//! JSON Schemas, generated from the types and checked in, so that editors and reviewers see them.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::tool;

/// Names that `cardan schema` knows.
const SCHEMAS: [&str; 10] = [
    "config",
    "event",
    "verdict",
    "life",
    "plugin",
    "helios-plugin",
    "helios-config",
    "cortex",
    "llmproxy",
    "smg-deploy",
];

pub(crate) fn update(root: &Path) -> Result<()> {
    for name in SCHEMAS {
        let path = root.join(file(name));
        fs::write(&path, generate(root, name)?)
            .with_context(|| format!("cannot write {}", path.display()))?;
        println!("{}", file(name));
    }
    Ok(())
}

pub(crate) fn check(root: &Path) -> Result<()> {
    for name in SCHEMAS {
        let committed = fs::read_to_string(root.join(file(name))).unwrap_or_default();
        if committed != generate(root, name)? {
            bail!("{} is not what the types say; run `cargo xtask schema` and commit it", file(name));
        }
    }
    Ok(())
}

fn file(name: &str) -> String {
    format!("docs/schema/{name}.schema.json")
}

fn generate(root: &Path, name: &str) -> Result<String> {
    let run = ["run", "--quiet", "--locked", "--package", "cardan-cli", "--", "schema", name];
    tool::read(tool::cargo().current_dir(root).args(run))
}
