//! WASI preview 1 for guests: `wasmtime-wasi`, with what Extism's reference gives.

use std::collections::BTreeMap;
use std::path::Path;

use wasmtime_wasi::p1::WasiP1Ctx;
use wasmtime_wasi::{FsPerms, WasiCtxBuilder};

use crate::Error;

/// The import module.
pub(super) const MODULE: &str = "wasi_snapshot_preview1";

/// What a guest's standard output and standard error become.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum GuestOutput {
    /// Written to nowhere, successfully.
    #[default]
    Discard,
    /// This process's own.
    Inherit,
}

/// A directory a guest may open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Preopen {
    host: String,
    guest: String,
    access: FsPerms,
}

/// What every instance's WASI context is made from.
#[derive(Debug, Clone, Default)]
pub(super) struct WasiGrant {
    pub(super) preopens: Vec<Preopen>,
    pub(super) output: GuestOutput,
}

impl WasiGrant {
    /// Directories from a manifest's `allowed_paths`, in the order of host paths.
    pub(super) fn new(paths: &BTreeMap<String, String>, output: GuestOutput) -> Result<Self, Error> {
        let preopens = paths
            .iter()
            .map(|(host, guest)| {
                let (host, access) = match host.strip_prefix("ro:") {
                    Some(host) => (host, FsPerms::ReadOnly),
                    None => (host.as_str(), FsPerms::ReadWrite),
                };
                std::fs::metadata(host)
                    .map_err(|error| Error::source(format!("allowed path {host:?}: {error}")))?;
                Ok(Preopen { host: host.to_owned(), guest: guest.clone(), access })
            })
            .collect::<Result<_, Error>>()?;
        Ok(Self { preopens, output })
    }

    /// A context for one instance: no arguments, no environment, empty input.
    pub(super) fn context(&self) -> wasmtime::Result<Box<WasiP1Ctx>> {
        let mut builder = WasiCtxBuilder::new();
        if self.output == GuestOutput::Inherit {
            builder.inherit_stdout().inherit_stderr();
        }
        for preopen in &self.preopens {
            builder.preopened_dir(Path::new(&preopen.host), &preopen.guest, preopen.access)?;
        }
        Ok(Box::new(builder.build_p1()))
    }
}
