//! Rows about loading a plugin.

use std::time::{Duration, Instant};

use anyhow::Result;
use cardan::InstanceMode;

use crate::args::Args;
use crate::contest::Timing;
use crate::row::{Figure, Row, Target};
use crate::{ours, payload, peer};

/// Loads from cache for each one that compiles.
const CACHED_LOADS: usize = 10;

/// Durations of one way to load.
#[derive(Default)]
pub(crate) struct Loads(Vec<u64>);

impl Loads {
    pub(crate) fn time<T>(&mut self, load: impl FnOnce() -> Result<T>) -> Result<T> {
        let start = Instant::now();
        let loaded = load()?;
        self.0.push(u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX));
        Ok(loaded)
    }

    pub(crate) fn figure(mut self) -> Figure {
        self.0.sort_unstable();
        let at = |percent: usize| self.0.get(self.0.len() * percent / 100).copied().unwrap_or(0) as f64;
        Figure::Time(Timing { p50_ns: at(50), p99_ns: at(99) })
    }
}

/// Each round starts with empty caches.
pub(crate) fn rows(args: &Args) -> Result<Vec<Row>> {
    let wasm = args.guest("json-edit")?;
    let input = payload::chat(1 << 10);
    let [mut compiled, mut cached, mut first_call] = [Loads::default(), Loads::default(), Loads::default()];
    let [mut peer_compiled, mut peer_cached, mut peer_first_call] =
        [Loads::default(), Loads::default(), Loads::default()];
    for _ in 0..args.rounds {
        let cache = tempfile::tempdir()?;
        let engine = ours::engine(&cache.path().join("ours"))?;
        compiled.time(|| ours::load(&engine, &wasm, InstanceMode::Fresh))?;
        for _ in 0..CACHED_LOADS {
            cached.time(|| ours::load(&engine, &wasm, InstanceMode::Fresh))?;
            first_call.time(|| Ok(ours::load(&engine, &wasm, InstanceMode::Fresh)?.call("edit", &input)?))?;
        }
        let config = peer::cache_config(&cache.path().join("peer"))?;
        let load = || extism::Plugin::new_from_compiled(&peer::compile_cached(&wasm, &config)?);
        peer_compiled.time(load)?;
        // The crate writes its cache on a thread of its own.
        std::thread::sleep(Duration::from_millis(200));
        for _ in 0..CACHED_LOADS {
            peer_cached.time(load)?;
            peer_first_call.time(|| peer::call(&mut load()?, "edit", &input))?;
        }
    }
    let [compiled, cached, first_call] = [compiled, cached, first_call].map(Loads::figure);
    let [peer_compiled, peer_cached, peer_first_call] =
        [peer_compiled, peer_cached, peer_first_call].map(Loads::figure);
    let row = |name: &str, ours, peer: &str, theirs, target: Option<f64>| Row {
        name: name.to_owned(),
        peer: peer.to_owned(),
        ours,
        theirs,
        target: target.map(Target::AtMost),
    };
    Ok(vec![
        row(
            "load from cache against compiling, json-edit",
            cached,
            "Cardan, compiling",
            compiled,
            Some(0.02),
        ),
        row("load from cache against cache, json-edit", cached, "extism, from its cache", peer_cached, None),
        row(
            "load from cache and call, json-edit",
            first_call,
            "extism, from its cache",
            peer_first_call,
            None,
        ),
        row("load with compiling, json-edit", compiled, "extism, compiling", peer_compiled, None),
    ])
}
