//! Where a plugin comes from, and what its bytes are.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use crate::Error;
use crate::abi::extism::COMPONENT_GIVEN;
use crate::abi::extism::manifest::{Manifest, hex};

/// Where a plugin comes from.
#[derive(Debug, Clone)]
pub enum Source {
    /// A file: a module, its text form, or an Extism manifest in JSON or TOML.
    File(PathBuf),
    /// The same in memory.
    Bytes(Vec<u8>),
    /// An Extism manifest made in code.
    Manifest(Manifest),
}

impl From<&str> for Source {
    fn from(path: &str) -> Self {
        Self::File(path.into())
    }
}

impl From<&Path> for Source {
    fn from(path: &Path) -> Self {
        Self::File(path.to_owned())
    }
}

impl From<PathBuf> for Source {
    fn from(path: PathBuf) -> Self {
        Self::File(path)
    }
}

impl From<Vec<u8>> for Source {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Bytes(bytes)
    }
}

impl From<&[u8]> for Source {
    fn from(bytes: &[u8]) -> Self {
        Self::Bytes(bytes.to_owned())
    }
}

impl From<Manifest> for Source {
    fn from(manifest: Manifest) -> Self {
        Self::Manifest(manifest)
    }
}

/// What a source turned out to be.
#[derive(Debug)]
pub(crate) enum Content {
    /// A core module, binary.
    Module(Vec<u8>),
    /// A manifest that names modules.
    Manifest(Box<Manifest>),
}

impl Source {
    pub(crate) fn read(self) -> Result<Content, Error> {
        match self {
            Self::File(path) => Content::recognise(read_file(&path)?).map_err(|error| {
                Error::new(error.kind(), format!("{}: {}", path.display(), error.message()))
            }),
            Self::Bytes(bytes) => Content::recognise(bytes),
            Self::Manifest(manifest) => Ok(Content::Manifest(Box::new(manifest))),
        }
    }

    /// A name for a plugin that nobody named.
    pub(crate) fn default_name(&self) -> String {
        match self {
            Self::File(path) => path.file_stem().map(|stem| stem.to_string_lossy().into_owned()),
            Self::Bytes(_) | Self::Manifest(_) => None,
        }
        .unwrap_or_else(|| "plugin".to_owned())
    }
}

/// Most bytes of a module or manifest in a file.
const FILE_BYTES_MAX: u64 = 256 << 20;

/// Reads a regular file: a device may have no end, and a pipe nobody who writes to it.
pub(crate) fn read_file(path: &Path) -> Result<Vec<u8>, Error> {
    let unable = |why: &str| Error::source(format!("Unable to load Wasm file {path:?}: {why}"));
    let failed = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => unable("entity not found"),
        _ => unable(&error.to_string()),
    };
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

/// Digest of the module in a file, as [`crate::Inspection::digest`] has it; `None` if the file holds no
/// single module. For noticing that a plugin's file has changed.
pub fn file_digest(path: &Path) -> Option<String> {
    match Content::recognise(read_file(path).ok()?).ok()? {
        Content::Module(bytes) => Some(hex(&Sha256::digest(&bytes))),
        Content::Manifest(_) => None,
    }
}

impl Content {
    /// Tells what bytes are by their beginning, in the order of Extism's reference: binary, text, and
    /// otherwise a manifest.
    pub(crate) fn recognise(bytes: Vec<u8>) -> Result<Self, Error> {
        if bytes.starts_with(b"\0asm") || is_text_module(&bytes) {
            return module(bytes).map(Self::Module);
        }
        let text = String::from_utf8(bytes).map_err(|_| Error::format("input bytes aren't valid utf-8"))?;
        Ok(Self::Manifest(Box::new(Manifest::parse(&text)?)))
    }
}

/// The binary form of what can only be a module, binary or text.
pub(crate) fn module(bytes: Vec<u8>) -> Result<Vec<u8>, Error> {
    let binary = if bytes.starts_with(b"\0asm") {
        bytes
    } else {
        wat::parse_bytes(&bytes).map_err(|error| Error::format(error.to_string()))?.into_owned()
    };
    if wasmparser::Parser::is_component(&binary) {
        return Err(Error::format(COMPONENT_GIVEN));
    }
    Ok(binary)
}

/// `(module`, blanks allowed in between, or a comment.
fn is_text_module(bytes: &[u8]) -> bool {
    if bytes.starts_with(b";;") || bytes.starts_with(b"(;") {
        return true;
    }
    let Some(rest) = bytes.strip_prefix(b"(") else { return false };
    rest.trim_ascii_start().starts_with(b"module")
}
