//! Loading, and replacing what was loaded.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use cardan::{Engine, LogLevel, Plugin};

use crate::chain::{Chains, bind};
use crate::loaded::Loaded;
use crate::pairing::{Pairing, Pairs, Slot};
use crate::snapshot::Snapshot;
use crate::spec::PluginSpec;
use crate::visit::Visit;

/// The session of clients that name none.
const SESSION: &str = "default";

/// Owns the plugins of a process. Clones are the same manager.
#[derive(Clone, Debug)]
pub struct Manager {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    engine: Engine,
    current: ArcSwap<Snapshot>,
    /// Held while a deployment is applied, so that the next one starts from its outcome.
    applying: Mutex<()>,
    visits: AtomicU64,
    seed: u64,
}

/// What [`Manager::apply`] did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// The new snapshot's number.
    pub generation: u64,
    /// Plugins that were loaded.
    pub loaded: Vec<String>,
    /// Plugins that were taken over as they were, with their instances and variables.
    pub kept: Vec<String>,
    /// Plugins that are not in the new snapshot.
    pub dropped: Vec<String>,
}

/// Why a deployment was not applied: everything that is wrong with it. What ran before still runs.
#[derive(Debug)]
pub struct ApplyError(pub Vec<String>);

impl fmt::Display for ApplyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

impl std::error::Error for ApplyError {}

impl Manager {
    /// A manager without plugins. `seed` makes the ids of its visits differ from those of others.
    pub fn new(engine: Engine, seed: u64) -> Self {
        let current = ArcSwap::from_pointee(Snapshot::default());
        Self {
            shared: Arc::new(Shared {
                engine,
                current,
                applying: Mutex::default(),
                visits: AtomicU64::new(0),
                seed,
            }),
        }
    }

    /// Loads a deployment and puts it in place of the current one, or changes nothing at all.
    ///
    /// A plugin whose spec and module are as before is kept. Blocks while it compiles; visits are opened
    /// and served all the while, on the old snapshot until the new one is complete.
    ///
    /// # Errors
    ///
    /// When any plugin cannot be loaded, or bound where it is asked to be.
    pub fn apply(&self, specs: &[PluginSpec]) -> Result<Applied, ApplyError> {
        self.apply_with(specs, Vec::new())
    }

    /// As [`Manager::apply`], and in the same step puts hosts' own values in place.
    ///
    /// # Errors
    ///
    /// Those of [`Manager::apply`].
    pub fn apply_with(&self, specs: &[PluginSpec], pairings: Vec<Pairing>) -> Result<Applied, ApplyError> {
        let _alone = self.shared.applying.lock().unwrap_or_else(PoisonError::into_inner);
        let old = self.shared.current.load_full();
        let mut wrong = Vec::new();
        let mut plugins: Vec<Arc<Loaded>> = Vec::new();
        let mut bindings = Vec::new();
        let (mut loaded, mut kept) = (Vec::new(), Vec::new());
        for spec in specs {
            if plugins.iter().any(|plugin| plugin.spec.name == spec.name) {
                wrong.push(format!("plugin {}: there are two of this name; rename one", spec.name));
                continue;
            }
            let plugin = match old.plugins.iter().find(|old| old.spec.loads_like(spec) && old.is_same_file())
            {
                Some(old) => {
                    kept.push(spec.name.clone());
                    Loaded { spec: spec.clone(), plugin: old.plugin.clone() }
                }
                None => match self.load(spec) {
                    Ok(plugin) => {
                        loaded.push(spec.name.clone());
                        Loaded { spec: spec.clone(), plugin }
                    }
                    Err(error) => {
                        wrong.push(error.to_string());
                        continue;
                    }
                },
            };
            let plugin = Arc::new(plugin);
            match bind(&plugin) {
                Ok(bound) => bindings.extend(bound),
                Err(why) => wrong.push(format!("plugin {}: {why}", spec.name)),
            }
            plugins.push(plugin);
        }
        if !wrong.is_empty() {
            return Err(ApplyError(wrong));
        }
        let dropped = old.plugins.iter().map(|plugin| plugin.spec.name.clone());
        let dropped = dropped.filter(|name| !specs.iter().any(|spec| spec.name == *name)).collect();
        let generation = old.generation + 1;
        let mut pairs = old.pairs.clone();
        pairings.into_iter().for_each(|pairing| pairs.put(pairing));
        let chains = Arc::new(Chains::compile(bindings));
        self.shared.current.store(Arc::new(Snapshot { generation, plugins, chains, pairs }));
        Ok(Applied { generation, loaded, kept, dropped })
    }

    /// The current snapshot.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.shared.current.load_full()
    }

    /// A place for a host's own value in every snapshot from now on.
    pub fn slot<T: Send + Sync + 'static>(&self, first: T) -> Slot<T> {
        self.amend(|pairs| pairs.add(first))
    }

    /// Puts a host's value in place; the plugins stay as they are.
    pub fn pair(&self, pairing: Pairing) {
        self.amend(|pairs| pairs.put(pairing));
    }

    fn amend<R>(&self, change: impl FnOnce(&mut Pairs) -> R) -> R {
        let _alone = self.shared.applying.lock().unwrap_or_else(PoisonError::into_inner);
        let mut snapshot = Snapshot::clone(&self.shared.current.load());
        let result = change(&mut snapshot.pairs);
        self.shared.current.store(Arc::new(snapshot));
        result
    }

    /// Opens a visit on the current snapshot. `session` is what the client says its session is.
    pub fn open(&self, session: Option<&str>) -> Visit {
        self.open_on(self.snapshot(), session)
    }

    /// Opens a visit on a snapshot that was taken before, to go by what else it holds.
    pub fn open_on(&self, snapshot: Arc<Snapshot>, session: Option<&str>) -> Visit {
        let n = self.shared.visits.fetch_add(1, Ordering::Relaxed);
        let id = format!("{:016x}", mix(self.shared.seed.wrapping_add(n)));
        Visit::new(snapshot, id, session.unwrap_or(SESSION).to_owned())
    }

    fn load(&self, spec: &PluginSpec) -> Result<Plugin, cardan::Error> {
        let mut plugin = self
            .shared
            .engine
            .plugin(spec.source.clone())
            .name(&spec.name)
            .mode(spec.mode)
            .limits(spec.limits.clone())
            .ready_instances(spec.ready)
            .config_object(&spec.config)
            .grants(spec.grants.clone())
            .keep_log(LogLevel::Info);
        if let Some(sha256) = &spec.sha256 {
            plugin = plugin.digest(sha256);
        }
        if let Some(dialect) = spec.dialect {
            plugin = plugin.dialect(dialect);
        }
        if let Some(requested) = &spec.requested {
            plugin = plugin.requests(requested.clone());
        }
        plugin.load()
    }
}

/// Spreads consecutive numbers over all of `u64` (the finaliser of SplitMix64).
fn mix(n: u64) -> u64 {
    let n = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}
