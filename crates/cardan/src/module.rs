//! A module's bytes: from a file, from their text form, and the digest they are known by.

use std::io::Read as _;
use std::path::Path;

use sha2::{Digest as _, Sha256};

use crate::Error;

/// Most bytes of a module or manifest in a file.
const FILE_BYTES_MAX: u64 = 256 << 20;

/// What is said where a component was given (the reference's words).
pub(crate) const COMPONENT_GIVEN: &str =
    "expected a WebAssembly module but was given a WebAssembly component";

fn unable(path: &Path, why: &str) -> Error {
    Error::source(format!("Unable to load Wasm file {path:?}: {why}"))
}

/// What is said of a file that cannot be read.
pub(crate) fn unreadable(path: &Path, error: &std::io::Error) -> Error {
    match error.kind() {
        std::io::ErrorKind::NotFound => unable(path, "entity not found"),
        _ => unable(path, &error.to_string()),
    }
}

/// Reads a regular file: a device may have no end, and a pipe nobody who writes to it.
pub(crate) fn read_file(path: &Path) -> Result<Vec<u8>, Error> {
    let unable = |why: &str| unable(path, why);
    let failed = |error: std::io::Error| unreadable(path, &error);
    // Before it is opened, which for a pipe may never end.
    let found = std::fs::metadata(path).map_err(failed)?;
    if !found.is_file() {
        return Err(unable(if found.is_dir() { "is a directory" } else { "is not a regular file" }));
    }
    let too_large = || unable(&format!("is larger than {} MiB", FILE_BYTES_MAX >> 20));
    if found.len() > FILE_BYTES_MAX {
        return Err(too_large());
    }
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(failed)?;
    // It may grow meanwhile.
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > FILE_BYTES_MAX { Err(too_large()) } else { Ok(bytes) }
}

/// Whether bytes can only be a module or a component, binary or text.
pub(crate) fn is_module(bytes: &[u8]) -> bool {
    is_binary(bytes) || is_text(bytes)
}

/// The binary form of what can only be a core module.
pub(crate) fn core_binary(bytes: Vec<u8>) -> Result<Vec<u8>, Error> {
    let binary = binary(bytes)?;
    if is_component(&binary) { Err(Error::format(COMPONENT_GIVEN)) } else { Ok(binary) }
}

/// Whether a binary is a component.
pub(crate) fn is_component(binary: &[u8]) -> bool {
    wasmparser::Parser::is_component(binary)
}

/// The binary form of what can only be a module or a component.
pub(crate) fn binary(bytes: Vec<u8>) -> Result<Vec<u8>, Error> {
    let binary = if is_binary(&bytes) {
        bytes
    } else {
        wat::parse_bytes(&bytes).map_err(|error| Error::format(without_excerpt(&error)))?.into_owned()
    };
    Ok(binary)
}

/// What is wrong and where, without the line of the file that is: a file may be another one than was meant.
fn without_excerpt(error: &wat::Error) -> String {
    let text = error.to_string();
    text.lines().take(2).map(str::trim).collect::<Vec<_>>().join(" ")
}

fn is_binary(bytes: &[u8]) -> bool {
    bytes.starts_with(b"\0asm")
}

/// `(module` or `(component`, blanks allowed in between, or a comment.
fn is_text(bytes: &[u8]) -> bool {
    if bytes.starts_with(b";;") || bytes.starts_with(b"(;") {
        return true;
    }
    let Some(rest) = bytes.strip_prefix(b"(") else { return false };
    let rest = rest.trim_ascii_start();
    rest.starts_with(b"module") || rest.starts_with(b"component")
}

/// Whether a module is one by all rules that there are; which of them hold here, the engine knows.
pub(crate) fn validate(bytes: &[u8]) -> wasmparser::Result<()> {
    wasmparser::Validator::new_with_features(wasmparser::WasmFeatures::all()).validate_all(bytes).map(drop)
}

/// SHA-256 in hexadecimal.
pub(crate) fn digest(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// The digest of what a recipe makes of the module with the digest `wasm`: that of how it was made.
pub(crate) fn derived(wasm: &str, recipe: &str) -> String {
    digest(format!("{wasm} {recipe}").as_bytes())
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        use std::fmt::Write as _;
        let _ = write!(text, "{byte:02x}");
        text
    })
}
