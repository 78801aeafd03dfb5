//! Extism's manifest: which modules make a plugin, and what it may have.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use base64::Engine as _;
use serde::{Deserialize, Serialize};

use super::recognise::{Inspection, inspect};
use crate::{Error, module};

/// Most bytes of a module that is fetched from an address.
const FETCH_BYTES_MAX: u64 = 256 << 20;
/// Longest time for fetching a module.
const FETCH_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(60);

/// An Extism manifest, field for field. Unknown keys are errors, as in the reference.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Manifest {
    /// The modules; the one named `main`, else the last, is called.
    pub wasm: Vec<WasmEntry>,
    /// Limits on memory.
    pub memory: MemoryLimits,
    /// What the guest reads with `config_get`.
    pub config: BTreeMap<String, String>,
    /// Glob patterns of hosts that the guest may ask over HTTP. `None` and an empty list allow none.
    pub allowed_hosts: Option<Vec<String>>,
    /// Host directory to guest directory; the prefix `ro:` on the former makes it read-only.
    pub allowed_paths: Option<BTreeMap<String, String>>,
    /// Wall-clock limit of each call, in milliseconds.
    pub timeout_ms: Option<u64>,
}

/// Limits on memory, in Extism's terms.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MemoryLimits {
    /// Budget for growth of all memories, in pages of 64 KiB, used up and never refunded.
    pub max_pages: Option<u32>,
    /// Bytes of one HTTP response; 50 MiB when absent.
    pub max_http_response_bytes: Option<u64>,
    /// Bytes of all variables; 1 MiB when absent, 0 forbids variables.
    pub max_var_bytes: Option<u64>,
}

/// One module of a manifest: exactly one of `path`, `data` and `url`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WasmEntry {
    /// A file, relative to the working directory. Under an operator's grants it has to lie in the folder of
    /// the manifest's file, or below.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
    /// The module itself in base64, standard alphabet with padding.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
    /// An address to fetch the module from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// With `url`: the method, `GET` when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// With `url`: header fields to send.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub headers: Option<BTreeMap<String, String>>,
    /// The module name other modules import from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// SHA-256 of the bytes in hexadecimal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hash: Option<String>,
}

/// One module, its bytes at hand.
#[derive(Debug, Clone)]
pub(crate) struct NamedModule {
    pub(crate) name: String,
    pub(crate) bytes: Vec<u8>,
    found: OnceLock<Inspection>,
    digest: OnceLock<String>,
}

impl NamedModule {
    pub(crate) fn new(name: String, bytes: Vec<u8>) -> Self {
        Self { name, bytes, found: OnceLock::new(), digest: OnceLock::new() }
    }

    /// What a recipe makes of a module. It is known by how it was made: to read all of it once more would say nothing new.
    pub(crate) fn derived(from: &Self, recipe: &str, bytes: Vec<u8>) -> Self {
        let digest = module::derived(from.digest(), recipe);
        Self { name: MAIN.to_owned(), bytes, found: OnceLock::new(), digest: digest.into() }
    }

    /// What its imports and exports say. Read once: large modules are megabytes.
    pub(crate) fn inspect(&self) -> Result<&Inspection, Error> {
        if let Some(found) = self.found.get() {
            return Ok(found);
        }
        let found = inspect(&self.bytes)?;
        Ok(self.found.get_or_init(|| found))
    }

    pub(crate) fn digest(&self) -> &str {
        self.digest.get_or_init(|| module::digest(&self.bytes))
    }
}

impl Manifest {
    /// A manifest of one file.
    pub fn of_file(path: impl AsRef<Path>) -> Self {
        let entry = WasmEntry { path: Some(path.as_ref().to_owned()), ..WasmEntry::default() };
        Self { wasm: vec![entry], ..Self::default() }
    }

    /// Reads a manifest in TOML or JSON, tried in this order.
    pub(crate) fn parse(text: &str) -> Result<Self, Error> {
        let toml = match toml::from_str::<Self>(text) {
            Ok(manifest) => return Ok(manifest),
            Err(error) => error,
        };
        serde_json::from_str::<Self>(text).map_err(|json| {
            // What looks like JSON was meant as JSON.
            let why =
                if text.trim_start().starts_with('{') { json.to_string() } else { toml.message().to_owned() };
            Error::format(format!("Unknown manifest format: {why}"))
        })
    }

    /// What a manifest may have fetched that is loaded under an operator's grants: what is pinned, and nothing
    /// that a server could take for an order.
    pub(crate) fn check_modest(&self) -> Result<(), Error> {
        match self.wasm.iter().find_map(|entry| entry.check_modest().err()) {
            None => Ok(()),
            Some(url) => Err(Error::source(format!(
                "its manifest has {url} fetched; here that takes a `hash`, and neither `method` nor `headers`: pin \
                 the module, or put it beside the manifest and name its `path`"
            ))),
        }
    }

    /// Names every module's file as it is after links, and refuses those outside of `folder`. `None` is where
    /// there is no folder to be in.
    pub(crate) fn confine(&mut self, folder: Option<&Path>) -> Result<(), Error> {
        self.wasm.iter_mut().try_for_each(|entry| entry.confine(folder))
    }

    /// Gets every module's bytes. `fetch` gets those that have an address.
    pub(crate) fn modules(
        &self,
        fetch: &dyn Fn(crate::grants::HttpExchange) -> Result<Vec<u8>, Error>,
    ) -> Result<Vec<NamedModule>, Error> {
        if self.wasm.is_empty() {
            return Err(Error::format("No wasm files specified in Extism manifest"));
        }
        let mut modules: Vec<NamedModule> = Vec::new();
        for (i, entry) in self.wasm.iter().enumerate() {
            let bytes = entry.bytes(fetch)?;
            let last = i + 1 == self.wasm.len();
            let main_seen = modules.iter().any(|module| module.name == MAIN);
            let name = match &entry.name {
                _ if self.wasm.len() == 1 => MAIN.to_owned(),
                Some(name) if last && !main_seen && name != MAIN => MAIN.to_owned(),
                Some(name) => name.clone(),
                None => MAIN.to_owned(),
            };
            let taken = modules.iter().any(|module| module.name == name)
                || (self.wasm.len() > 1 && name == super::fuse::ENV);
            if taken {
                return Err(Error::format(format!("Duplicate module name found in Extism manifest: {name}")));
            }
            modules.push(NamedModule::new(name, bytes));
        }
        Ok(modules)
    }
}

/// The module that is called.
pub(crate) const MAIN: &str = "main";

impl WasmEntry {
    fn check_modest(&self) -> Result<(), &str> {
        match &self.url {
            Some(url) if self.hash.is_none() || self.method.is_some() || self.headers.is_some() => Err(url),
            _ => Ok(()),
        }
    }

    fn confine(&mut self, folder: Option<&Path>) -> Result<(), Error> {
        let Some(path) = &mut self.path else { return Ok(()) };
        let Some(folder) = folder else {
            return Err(Error::source(format!(
                "its manifest names the file {path:?}, and is in no folder itself: put the module into the \
                 manifest as `data`, or the manifest into a file beside the module"
            )));
        };
        let failed = |path: &Path, error| module::unreadable(path, &error);
        let inside = folder.canonicalize().map_err(|error| failed(folder, error))?;
        let real = path.canonicalize().map_err(|error| failed(path, error))?;
        if !real.starts_with(&inside) {
            return Err(Error::source(format!(
                "its manifest names the file {path:?}, which is not in the manifest's own folder {inside:?}: put \
                 the module beside the manifest, itself and not a link, and name it there"
            )));
        }
        *path = real;
        Ok(())
    }

    fn bytes(
        &self,
        fetch: &dyn Fn(crate::grants::HttpExchange) -> Result<Vec<u8>, Error>,
    ) -> Result<Vec<u8>, Error> {
        let only_url = self.method.is_none() && self.headers.is_none();
        let raw = match (&self.path, &self.data, &self.url) {
            (Some(path), None, None) if only_url => module::read_file(path)?,
            (None, Some(data), None) if only_url => {
                base64::engine::general_purpose::STANDARD.decode(data).map_err(|error| {
                    Error::format(format!("Unknown manifest format: data is no base64: {error}"))
                })?
            }
            (None, None, Some(url)) => fetch(self.request(url)?)?,
            _ => {
                return Err(Error::format(
                    "Unknown manifest format: a wasm entry has exactly one of path, data and url",
                ));
            }
        };
        if let Some(expected) = &self.hash {
            let found = module::digest(&raw);
            if !found.eq_ignore_ascii_case(expected) {
                return Err(Error::source(format!("Hash mismatch, found {found} but expected {expected}")));
            }
        }
        module::core_binary(raw)
    }

    fn request(&self, url: &str) -> Result<crate::grants::HttpExchange, Error> {
        let url = url.parse().map_err(|error| Error::format(format!("{url:?} is no address: {error}")))?;
        Ok(crate::grants::HttpExchange {
            plugin: "".into(),
            method: self.method.as_deref().unwrap_or("GET").to_ascii_uppercase(),
            url,
            headers: self.headers.clone().unwrap_or_default().into_iter().collect(),
            body: None,
            response_bytes_max: FETCH_BYTES_MAX,
            timeout: Some(FETCH_TIMEOUT),
            reach: cardan_api::grants::Reach::EVERYWHERE,
        })
    }
}
