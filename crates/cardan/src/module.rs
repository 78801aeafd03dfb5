//! A module's bytes: from a file, from their text form, and the digest they are known by.

use std::path::Path;

use sha2::{Digest as _, Sha256};

use crate::Error;

/// What is said where a component was given (the reference's words).
const COMPONENT_GIVEN: &str = "expected a WebAssembly module but was given a WebAssembly component";

pub(crate) fn read_file(path: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(path).map_err(|error| {
        let why = match error.kind() {
            std::io::ErrorKind::NotFound => "entity not found".to_owned(),
            std::io::ErrorKind::IsADirectory => "is a directory".to_owned(),
            _ => error.to_string(),
        };
        Error::source(format!("Unable to load Wasm file {path:?}: {why}"))
    })
}

/// Whether bytes can only be a module, binary or text.
pub(crate) fn is_module(bytes: &[u8]) -> bool {
    is_binary(bytes) || is_text(bytes)
}

/// The binary form of what can only be a module.
pub(crate) fn binary(bytes: Vec<u8>) -> Result<Vec<u8>, Error> {
    let binary = if is_binary(&bytes) {
        bytes
    } else {
        wat::parse_bytes(&bytes).map_err(|error| Error::format(error.to_string()))?.into_owned()
    };
    if wasmparser::Parser::is_component(&binary) {
        return Err(Error::format(COMPONENT_GIVEN));
    }
    Ok(binary)
}

fn is_binary(bytes: &[u8]) -> bool {
    bytes.starts_with(b"\0asm")
}

/// `(module`, blanks allowed in between, or a comment.
fn is_text(bytes: &[u8]) -> bool {
    if bytes.starts_with(b";;") || bytes.starts_with(b"(;") {
        return true;
    }
    let Some(rest) = bytes.strip_prefix(b"(") else { return false };
    rest.trim_ascii_start().starts_with(b"module")
}

/// SHA-256 in hexadecimal.
pub(crate) fn digest(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        use std::fmt::Write as _;
        let _ = write!(text, "{byte:02x}");
        text
    })
}
