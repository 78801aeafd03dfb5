//! WASI preview 1 for guests: `wasmtime-wasi`, with what Extism's reference gives.

use std::path::Path;

use cardan_api::Capability;
use cardan_api::grants::Grants;
use wasmtime::{Caller, Linker};
use wasmtime_wasi::p1::WasiP1Ctx;
use wasmtime_wasi::{FsPerms, WasiCtxBuilder};

use super::state::State;
use crate::Error;
use crate::grants::Authority;

/// What guests import WASI's functions from.
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
pub(crate) struct Preopen {
    host: String,
    guest: String,
    access: FsPerms,
}

/// What every instance's WASI context is made from.
#[derive(Debug, Clone, Default)]
pub(crate) struct WasiGrant {
    pub(crate) preopens: Vec<Preopen>,
    pub(crate) output: GuestOutput,
    /// Names and values.
    env: Vec<(String, String)>,
}

impl WasiGrant {
    /// Directories in the order of host paths.
    pub(crate) fn new(grants: &Grants, output: GuestOutput) -> Result<Self, Error> {
        let preopens = grants
            .files
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
        let env = grants.env.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
        Ok(Self { preopens, output, env })
    }

    /// A context for one instance: no arguments, empty input.
    pub(super) fn context(&self) -> wasmtime::Result<Box<WasiP1Ctx>> {
        Ok(Box::new(self.builder()?.build_p1()))
    }

    /// The same, before it is one of a version of WASI.
    pub(crate) fn builder(&self) -> wasmtime::Result<WasiCtxBuilder> {
        let mut builder = WasiCtxBuilder::new();
        if self.output == GuestOutput::Inherit {
            builder.inherit_stdout().inherit_stderr();
        }
        builder.envs(&self.env);
        for preopen in &self.preopens {
            builder.preopened_dir(Path::new(&preopen.host), &preopen.guest, preopen.access)?;
        }
        Ok(builder)
    }
}

/// Replaces what is switched off by functions that say so.
pub(super) fn withhold(linker: &mut Linker<State>, authority: &Authority) -> wasmtime::Result<()> {
    if !authority.grants().has(Capability::Clock) {
        linker.func_wrap(MODULE, "clock_time_get", |caller: Caller<'_, State>, _: i32, _: i64, _: i32| {
            denied(&caller, "clock_time_get", Capability::Clock)
        })?;
    }
    if !authority.grants().has(Capability::Random) {
        linker.func_wrap(MODULE, "random_get", |caller: Caller<'_, State>, _: i32, _: i32| {
            denied(&caller, "random_get", Capability::Random)
        })?;
    }
    Ok(())
}

fn denied(caller: &Caller<'_, State>, name: &str, capability: Capability) -> wasmtime::Result<i32> {
    Err(caller.data().shared.authority.denied(name, capability).into())
}
