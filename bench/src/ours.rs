//! Cardan's side.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use cardan::{Engine, EngineConfig, InstanceMode, Isolation, Plugin};

/// Instances that are made ahead for one burst of calls. Fewer than the used ones that a plugin keeps for
/// its nursery to clear away, so that no call has to do that itself.
const BURST: u32 = 16;
/// How long the nursery may take for a burst.
const NURSERY_TIME: Duration = Duration::from_secs(5);

pub(crate) fn engine(cache: &Path) -> Result<Engine> {
    Ok(Engine::new(EngineConfig { cache_dir: Some(cache.to_owned()), ..EngineConfig::default() })?)
}

/// One that puts no instance back to its beginning.
pub(crate) fn strict_engine() -> Result<Engine> {
    Ok(Engine::new(EngineConfig { isolation: Isolation::Strict, ..EngineConfig::default() })?)
}

/// Whether instances are put back to their beginning on this machine: one waits after a call.
pub(crate) fn puts_back() -> Result<bool> {
    let plugin = Engine::new(EngineConfig::default())?.load(r#"(module (func (export "run")))"#)?;
    plugin.call("run", "")?;
    Ok(plugin.ready_instances() > 0)
}

pub(crate) fn load(engine: &Engine, wasm: &[u8], mode: InstanceMode) -> Result<Plugin> {
    Ok(engine.plugin(wasm).mode(mode).load()?)
}

/// Passes some time without giving the processor away: the variants compared with do not find it cold
/// either.
fn pause() {
    for _ in 0..2000 {
        std::hint::spin_loop();
    }
}

/// A plugin whose every call finds an instance made ahead, as long as calls come in bursts.
pub(crate) struct Nursed {
    plugin: Plugin,
    left: u32,
}

impl Nursed {
    pub(crate) fn load(engine: &Engine, wasm: &[u8]) -> Result<Self> {
        let plugin = engine.plugin(wasm).mode(InstanceMode::Fresh).ready_instances(BURST).load()?;
        Ok(Self { plugin, left: 0 })
    }

    pub(crate) fn plugin(&self) -> Plugin {
        self.plugin.clone()
    }

    /// Between bursts, waits for the nursery to catch up.
    pub(crate) fn prepare(&mut self) -> Result<()> {
        if self.left == 0 {
            let start = Instant::now();
            while self.plugin.ready_instances() < BURST as usize {
                if start.elapsed() > NURSERY_TIME {
                    bail!("only {} of {BURST} instances got ready", self.plugin.ready_instances());
                }
                pause();
            }
            self.left = BURST;
        }
        self.left -= 1;
        Ok(())
    }
}
