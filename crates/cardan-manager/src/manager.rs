//! Loading, and replacing what was loaded.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use cardan::{Engine, Plugin};
use cardan_api::HookInfo;
use serde_json::Value;

use crate::chain::{Binding, Chains};
use crate::pairing::{Pairing, Pairs, Slot};
use crate::spec::{BindingSpec, Bindings, PluginSpec};
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

/// One plugin, loaded for a spec.
#[derive(Debug)]
pub(crate) struct Loaded {
    spec: PluginSpec,
    plugin: Plugin,
}

impl Loaded {
    pub(crate) fn name(&self) -> &Arc<str> {
        self.plugin.name()
    }

    pub(crate) fn plugin(&self) -> &Plugin {
        &self.plugin
    }

    pub(crate) fn config(&self) -> &Value {
        &self.spec.config
    }
}

/// An immutable set of plugins, the order in which they are asked, and what hosts keep beside them.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    generation: u64,
    plugins: Vec<Arc<Loaded>>,
    chains: Arc<Chains>,
    pairs: Pairs,
}

impl Snapshot {
    /// Counts the deployments of a manager, from 0 for the empty one.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The loaded plugins, in the order of installation.
    pub fn plugins(&self) -> impl Iterator<Item = &Plugin> {
        self.plugins.iter().map(|loaded| &loaded.plugin)
    }

    /// What the host with this slot keeps beside the plugins. `None` for a slot made after this snapshot,
    /// or by another manager.
    pub fn paired<T: Send + Sync + 'static>(&self, slot: &Slot<T>) -> Option<Arc<T>> {
        self.pairs.get(slot)
    }

    pub(crate) fn chains(&self) -> &Chains {
        &self.chains
    }
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
            let plugin = match old.plugins.iter().find(|old| old.spec.loads_like(spec) && is_same_file(old)) {
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
            .config_object(&spec.config);
        if let Some(sha256) = &spec.sha256 {
            plugin = plugin.digest(sha256);
        }
        if let Some(dialect) = spec.dialect {
            plugin = plugin.dialect(dialect);
        }
        for host in &spec.allowed_hosts {
            plugin = plugin.allow_host(host);
        }
        for (host, guest) in &spec.allowed_paths {
            plugin = plugin.allow_path(host, guest);
        }
        plugin.load()
    }
}

/// Whether a plugin's file still holds what was loaded from it. A manifest of several modules is always
/// loaded again.
fn is_same_file(loaded: &Loaded) -> bool {
    let now = cardan::file_digest(&loaded.spec.source);
    now.is_some_and(|digest| digest == loaded.plugin.inspection().digest)
}

fn bind(plugin: &Arc<Loaded>) -> Result<Vec<Binding>, String> {
    let hooks = &plugin.plugin.inspection().hooks;
    let specs: Vec<BindingSpec> = match &plugin.spec.bindings {
        Bindings::Exported if hooks.is_empty() => {
            return Err(format!(
                "it has no export that any hook could be asked at; its exports are {}. \
                 Name one with `bindings: [{{hook: ..., entry: ...}}]` and a `dialect`",
                plugin.plugin.inspection().exports.join(", ")
            ));
        }
        Bindings::Exported => {
            hooks.iter().filter_map(|hook| HookInfo::find(hook)).map(BindingSpec::at).collect()
        }
        Bindings::Listed(specs) => specs.clone(),
    };
    for spec in &specs {
        if plugin.plugin.dialect().is_none() {
            return Err("its exports are of no known dialect; name one with `dialect`".to_owned());
        }
        let answered = match &spec.entry {
            Some(entry) => plugin.plugin.has_export(entry),
            None => hooks.contains(&spec.hook.name),
        };
        if !answered {
            let wanted = spec.entry.as_deref().unwrap_or(spec.hook.name);
            return Err(format!(
                "it has no export that answers {wanted}; its exports are {}",
                plugin.plugin.inspection().exports.join(", ")
            ));
        }
    }
    Ok(specs.into_iter().map(|spec| Binding { plugin: plugin.clone(), spec }).collect())
}

/// Spreads consecutive numbers over all of `u64` (the finaliser of SplitMix64).
fn mix(n: u64) -> u64 {
    let n = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}
