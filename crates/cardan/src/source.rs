//! Where a plugin comes from, and what its bytes are.

use std::path::{Path, PathBuf};

use crate::abi::extism::manifest::Manifest;
use crate::{Error, module};

/// Where a plugin comes from.
#[derive(Debug, Clone)]
pub enum Source {
    /// A file: a module or component, its text form, or an Extism manifest in JSON or TOML.
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
    /// A component, binary.
    Component(Vec<u8>),
    /// A manifest that names modules.
    Manifest(Box<Manifest>),
}

impl Source {
    pub(crate) fn read(self) -> Result<Content, Error> {
        match self {
            Self::File(path) => Content::recognise(module::read_file(&path)?).map_err(|error| {
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

/// Digest of the module in a file, as [`crate::Inspection::digest`] has it; `None` if the file holds no
/// single module. For noticing that a plugin's file has changed.
pub fn file_digest(path: &Path) -> Option<String> {
    match Content::recognise(module::read_file(path).ok()?).ok()? {
        Content::Module(bytes) | Content::Component(bytes) => Some(module::digest(&bytes)),
        Content::Manifest(_) => None,
    }
}

/// The same for a module in memory, in either form.
pub fn digest(module: &[u8]) -> Option<String> {
    match Content::recognise(module.to_owned()).ok()? {
        Content::Module(bytes) | Content::Component(bytes) => Some(module::digest(&bytes)),
        Content::Manifest(_) => None,
    }
}

impl Content {
    /// Tells what bytes are by their beginning, in the order of Extism's reference: binary, text, and
    /// otherwise a manifest.
    pub(crate) fn recognise(bytes: Vec<u8>) -> Result<Self, Error> {
        if module::is_module(&bytes) {
            let binary = module::binary(bytes)?;
            let is_component = module::is_component(&binary);
            return Ok(if is_component { Self::Component(binary) } else { Self::Module(binary) });
        }
        let text = String::from_utf8(bytes).map_err(|_| Error::format("input bytes aren't valid utf-8"))?;
        Ok(Self::Manifest(Box::new(Manifest::parse(&text)?)))
    }
}
