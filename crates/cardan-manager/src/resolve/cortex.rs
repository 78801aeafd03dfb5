//! CortexPrism's manifest.

use std::path::{Path, PathBuf};
use std::time::Duration;

use cardan_api::manifest::cortex::{ELSEWHERE, Manifest};
use cardan_api::manifest::{Abi, Bytes, LimitsEntry};
use cardan_api::{Capability, Dialect};

use super::described::Described;
use super::hooks::Places;
use super::native::check_memory;
use super::{Warning, check_sha256, permissions};
use crate::spec::About;

/// Longest time of one tool, as the original promises it.
const DEADLINE: Duration = Duration::from_secs(120);
const PAGE_BYTES: u64 = 64 << 10;

pub(super) fn describe(manifest: Manifest, path: &Path) -> Result<Described, String> {
    check_kind(&manifest)?;
    let mut warnings = unknown(&manifest);
    let sha256 = manifest.hash.as_deref().map(|hash| hash.strip_prefix("sha256:").unwrap_or(hash).to_owned());
    if let Some(hash) = &sha256 {
        check_sha256(hash).map_err(|why| why.replacen("sha256:", "hash:", 1))?;
    }
    let bytes = |pages: Option<u32>| pages.map(|pages| u64::from(pages) * PAGE_BYTES);
    let (memory_min, memory) = (bytes(manifest.wasm.memory_pages), bytes(manifest.wasm.max_memory_pages));
    check_memory(memory_min, memory).map_err(|why| {
        why.replace("resources.min_memory", "wasm.memoryPages")
            .replace("resources.max_memory", "wasm.maxMemoryPages")
            .replace("max_memory", "maxMemoryPages")
    })?;
    if let Err(error) = semver::Version::parse(&manifest.version) {
        warnings.push(Warning(format!("version: {:?} is no semantic version: {error}", manifest.version)));
    }
    let mut places = Places::default();
    let mut listed = vec![Capability::KvRead, Capability::KvWrite];
    let points = manifest.capabilities.clone().unwrap_or_else(|| vec!["tools".to_owned()]);
    let mut asked = manifest.permissions.clone();
    for point in points {
        match point.as_str() {
            "tools" => {
                places.add("tool.list", None);
                places.add("tool.call", None);
            }
            // The original's code has both kinds in one list.
            permission if permissions::cortex(permission).is_some() => asked.push(point),
            _ => warnings
                .push(Warning(format!("capabilities: {point:?} is an extension point that is not here"))),
        }
    }
    for name in &asked {
        match permissions::cortex(name) {
            Some(capabilities) => listed.extend(capabilities),
            None => warnings.push(Warning(format!("permissions: there is no way to grant {name:?} here"))),
        }
    }
    Ok(Described {
        name: Some(manifest.name),
        version: manifest.version,
        module: entry_point(&manifest.entry_point, path)?,
        sha256,
        abi_implied: Some(Abi::Capability),
        result_forms: manifest.result,
        dialect: Some(Dialect::CortexPrism),
        places: Some(places),
        requested: Some(permissions::requested(listed)),
        limits: LimitsEntry { memory: memory.map(Bytes), ..LimitsEntry::default() },
        memory_min,
        deadline: Some(DEADLINE),
        about: About {
            description: manifest.description,
            author: manifest.author,
            license: manifest.license,
            homepage: manifest.homepage.or(manifest.repository),
            ui_schema: None,
            permissions: asked,
        },
        warnings,
        ..Described::default()
    })
}

fn check_kind(manifest: &Manifest) -> Result<(), String> {
    let said = [("kind", &manifest.kind), ("type", &manifest.module_type), ("runtime", &manifest.runtime)];
    for (key, value) in said {
        if let Some(value) = value.as_deref().filter(|value| *value != "wasm") {
            return Err(format!(
                "{key}: it is {value:?}, which runs in CortexPrism's own process and not here; ship it as WebAssembly"
            ));
        }
    }
    Ok(())
}

fn unknown(manifest: &Manifest) -> Vec<Warning> {
    let top = manifest.other.keys().map(|key| {
        let why = if ELSEWHERE.contains(&key.as_str()) {
            "has no effect here"
        } else {
            "is no key of CortexPrism's"
        };
        Warning(format!("{key} {why}; it is ignored"))
    });
    let wasm = manifest.wasm.other.keys();
    top.chain(wasm.map(|key| Warning(format!("wasm.{key} is no key of CortexPrism's; it is ignored"))))
        .collect()
}

/// Relative to the manifest, absolute, or a `file://` address of this machine.
fn entry_point(entry: &str, manifest: &Path) -> Result<PathBuf, String> {
    let path = match entry.split_once("://") {
        None => PathBuf::from(entry),
        Some(("file", path)) => {
            let path = path.strip_prefix("localhost").unwrap_or(path);
            if !path.starts_with('/') {
                return Err(format!("entryPoint: {entry:?} names another machine; write file:///path"));
            }
            PathBuf::from(
                unescaped(path).ok_or_else(|| format!("entryPoint: {entry:?} is badly percent-encoded"))?,
            )
        }
        Some((scheme, _)) => {
            return Err(format!(
                "entryPoint: {scheme} addresses are not fetched; put the module beside the manifest"
            ));
        }
    };
    let path = manifest.parent().unwrap_or(Path::new("")).join(path);
    if path.is_file() { Ok(path) } else { Err(format!("entryPoint: {} is no file", path.display())) }
}

fn unescaped(text: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digits = [rest.next()?, rest.next()?];
                if !digits.iter().all(u8::is_ascii_hexdigit) {
                    return None;
                }
                u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
            }
            other => other,
        });
    }
    String::from_utf8(bytes).ok()
}
