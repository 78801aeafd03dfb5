//! Loading, and replacing what was loaded.

use std::fmt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use arc_swap::ArcSwap;
use cardan::{Engine, LogLevel, Plugin};
use cardan_api::lifecycle::LifeReason;

use crate::chain::bindings;
use crate::installed::{Declined, Earlier, Installed};
use crate::ledger::{EventKind, Ledger};
use crate::pairing::{Pairing, Pairs, Slot};
use crate::retiring::Retiring;
use crate::snapshot::Snapshot;
use crate::spec::{Owner, PluginSpec};
use crate::spread::mix;
use crate::state::StateDir;
use crate::version::{Run, Version};
use crate::visit::{Opening, Visit};
use crate::watch::{Scan, is_about};

/// The session of clients that name none.
const SESSION: &str = "default";

/// Owns the plugins of a process. Clones are the same manager.
#[derive(Clone, Debug)]
pub struct Manager {
    pub(crate) shared: Arc<Shared>,
}

#[derive(Debug)]
pub(crate) struct Shared {
    engine: Engine,
    current: ArcSwap<Snapshot>,
    /// Held while a deployment is applied, so that the next one starts from its outcome.
    applying: Mutex<()>,
    visits: AtomicU64,
    seed: u64,
    ledger: Ledger,
    state: Option<StateDir>,
    pub(crate) retiring: Retiring,
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
        Self::made(engine, seed, None)
    }

    /// A manager that finds again what it had when it ended, and however it ended: see [`Manager::restore`].
    pub fn with_state(engine: Engine, seed: u64, state: StateDir) -> Self {
        Self::made(engine, seed, Some(state))
    }

    fn made(engine: Engine, seed: u64, state: Option<StateDir>) -> Self {
        let current = ArcSwap::from_pointee(Snapshot::default());
        Self {
            shared: Arc::new(Shared {
                engine,
                current,
                applying: Mutex::default(),
                visits: AtomicU64::new(0),
                seed,
                ledger: Ledger::new(),
                state,
                retiring: Retiring::default(),
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
    /// The specs are all that files name: what an operator loaded, or lies in the watched folder, stays.
    ///
    /// # Errors
    ///
    /// Those of [`Manager::apply`].
    pub fn apply_with(&self, specs: &[PluginSpec], pairings: Vec<Pairing>) -> Result<Applied, ApplyError> {
        self.apply_beside(specs, &Scan::default(), pairings)
    }

    /// As [`Manager::apply_with`]: `folder` is what the watched folder holds. A plugin that files name no more and
    /// the folder does is taken over in the same step, so that nobody misses it.
    ///
    /// # Errors
    ///
    /// Those of [`Manager::apply`], also for plugins that are taken over.
    pub fn apply_beside(
        &self,
        specs: &[PluginSpec],
        folder: &Scan,
        pairings: Vec<Pairing>,
    ) -> Result<Applied, ApplyError> {
        self.deploy(specs, folder, pairings, Unloadable::Refuse)
    }

    /// The first deployment after [`Manager::restore`]: as [`Manager::apply_with`], but where a plugin's file
    /// cannot be loaded any more, the version that was active before the restart goes on. Its status says so.
    ///
    /// # Errors
    ///
    /// Those of [`Manager::apply`], for plugins that were not active before.
    pub fn start_with(&self, specs: &[PluginSpec], pairings: Vec<Pairing>) -> Result<Applied, ApplyError> {
        self.deploy(specs, &Scan::default(), pairings, Unloadable::KeepLastGood)
    }

    fn deploy(
        &self,
        specs: &[PluginSpec],
        folder: &Scan,
        pairings: Vec<Pairing>,
        unloadable: Unloadable,
    ) -> Result<Applied, ApplyError> {
        let change = self.begin();
        let old = &change.old;
        let (moved, mut wrong) = moved(old, specs, folder);
        let mut plugins: Vec<Arc<Installed>> = Vec::new();
        let (mut loaded, mut kept) = (Vec::new(), Vec::new());
        for spec in specs.iter().chain(&moved) {
            if plugins.iter().any(|plugin| **plugin.name() == spec.name) {
                wrong.push(format!("plugin {}: there are two of this name; rename one", spec.name));
                continue;
            }
            let before = old.find(&spec.name);
            // A file may describe what lies in the folder, which is how that is granted something. What an
            // operator loaded has to go first; at a start, where nobody can, the file wins.
            let foreign = |owner| owner == Owner::Operator && unloadable == Unloadable::Refuse;
            if let Some(other) = before.filter(|before| foreign(before.spec().owner)) {
                wrong.push(format!("plugin {}: {} already; rename one", spec.name, other.spec().owner));
                continue;
            }
            match self.next_of(before, spec) {
                Ok(Next::Kept(installed)) => {
                    kept.push(spec.name.clone());
                    plugins.push(installed);
                }
                Ok(Next::Loaded(installed)) => {
                    loaded.push(spec.name.clone());
                    plugins.push(installed);
                }
                Err(why) => match before.filter(|_| unloadable == Unloadable::KeepLastGood) {
                    Some(before) => {
                        self.shared
                            .ledger
                            .event(Some(&spec.name), EventKind::NotActivated { why: why.clone() });
                        kept.push(spec.name.clone());
                        let trouble = Some(why);
                        plugins.push(Arc::new(Installed { trouble, ..Installed::clone(before) }));
                    }
                    None => wrong.push(why),
                },
            }
        }
        if !wrong.is_empty() {
            return Err(ApplyError(wrong));
        }
        let others = old.plugins.iter().filter(|plugin| {
            plugin.spec().owner != Owner::File && !plugins.iter().any(|named| named.name() == plugin.name())
        });
        let others: Vec<Arc<Installed>> = others.cloned().collect();
        plugins.extend(others);
        let dropped = old.plugins.iter().map(|plugin| plugin.name().to_string());
        let dropped =
            dropped.filter(|name| !plugins.iter().any(|plugin| **plugin.name() == **name)).collect();
        let mut pairs = old.pairs.clone();
        pairings.into_iter().for_each(|pairing| pairs.put(pairing));
        let generation = change.publish(plugins, pairs).map_err(|why| ApplyError(vec![why]))?;
        Ok(Applied { generation, loaded, kept, dropped })
    }

    /// Begins a change, alone.
    pub(crate) fn begin(&self) -> Change<'_> {
        let alone = self.shared.applying.lock().unwrap_or_else(PoisonError::into_inner);
        Change { manager: self, old: self.shared.current.load_full(), _alone: alone }
    }

    /// What a name is when it is to be as `spec` says: as it was, or with another active version.
    ///
    /// # Errors
    ///
    /// In words that begin with the plugin's name.
    pub(crate) fn next_of(&self, before: Option<&Arc<Installed>>, spec: &PluginSpec) -> Result<Next, String> {
        let failed = |why: String| format!("plugin {}: {why}", spec.name);
        let Some(before) = before else { return self.first_of(spec).map(Next::Loaded) };
        let active = &before.active;
        let held = cardan::file_digest(&spec.source);
        let holds_active = held.as_deref() == Some(active.digest());
        let declined = held.is_some() && held.as_deref() == before.declined_digest();
        if active.spec == *spec && (declined || holds_active) {
            return Ok(Next::Kept(before.clone()));
        }
        if declined && before.declined.as_ref().is_some_and(|declined| *declined.wish == *spec) {
            return Ok(Next::Kept(before.clone()));
        }
        let number = before.next_number();
        // What is declined stays so; what else is wished is done to what runs.
        let (version, is_new) = if declined || (holds_active && active.spec.loads_like(spec)) {
            self.dressed(active, number, spec, LifeReason::Reload)?
        } else {
            let run = Arc::new(Run::new(self.load(spec, LifeReason::Reload)?));
            (self.version(number, spec, run).map_err(failed)?, true)
        };
        let mut next = before.with_active(version);
        if declined {
            let wish = Box::new(spec.clone());
            next.declined = before.declined.clone().map(|declined| Declined { wish, ..declined });
        }
        self.end_canary(before, &mut next);
        let next = Arc::new(next);
        Ok(if is_new { Next::Loaded(next) } else { Next::Kept(next) })
    }

    /// The first plugin of a name, or the first that can be loaded after one was lost.
    fn first_of(&self, spec: &PluginSpec) -> Result<Arc<Installed>, String> {
        let failed = |why: String| format!("plugin {}: {why}", spec.name);
        let lost = self.shared.state.as_ref().and_then(|state| state.lost(&spec.name));
        let run = Arc::new(Run::new(self.load(spec, LifeReason::Start)?));
        let number = lost.as_ref().map_or(0, |lost| lost.numbered) + 1;
        let version = self.version(number, spec, run).map_err(failed)?;
        let mut installed = Installed::new(version);
        if let Some(lost) = lost {
            let earlier = lost.versions.into_iter().map(|record| Arc::new(Earlier { record, version: None }));
            (installed.enabled, installed.earlier) = (lost.enabled, earlier.collect());
            let declined = lost.declined.filter(|declined| declined.digest == installed.active.digest());
            if declined.is_some() {
                return Err(failed(
                    "the version that was rolled back to cannot be loaded any more, and its file holds the one \
                     that was rolled back from; replace the file"
                        .to_owned(),
                ));
            }
        }
        Ok(Arc::new(installed))
    }

    /// The module of a version, with another wish. Whether it had to be loaded for that.
    pub(crate) fn dressed(
        &self,
        version: &Arc<Version>,
        number: u32,
        spec: &PluginSpec,
        reason: LifeReason,
    ) -> Result<(Arc<Version>, bool), String> {
        let failed = |why: String| format!("plugin {}: {why}", spec.name);
        if version.spec == *spec && version.number == number {
            return Ok((version.clone(), false));
        }
        if version.spec.loads_like(spec) {
            return Ok((self.version(number, spec, version.run.clone()).map_err(failed)?, false));
        }
        let plugin = self.load_kept(spec, version.digest(), reason)?;
        Ok((self.version(number, spec, Arc::new(Run::new(plugin))).map_err(failed)?, true))
    }

    /// Loads the module with this digest, from where it is kept, or from its source if that still holds it.
    pub(crate) fn load_kept(
        &self,
        spec: &PluginSpec,
        digest: &str,
        reason: LifeReason,
    ) -> Result<Plugin, String> {
        // A pin is for what the file holds, and this is what it held.
        let spec = &PluginSpec { sha256: None, ..spec.clone() };
        let kept = self.shared.state.as_ref().map(|state| state.artifact(digest));
        let is_it = |path: &Path| cardan::file_digest(path).is_some_and(|found| found == digest);
        if let Some(kept) = kept.filter(|kept| is_it(kept)) {
            return self.load_from(spec, &kept, reason);
        }
        let plugin = self.load_from(spec, &spec.source, reason)?;
        let found = &plugin.inspection().digest;
        if found == digest {
            return Ok(plugin);
        }
        Err(format!(
            "plugin {}: the module with the digest {digest} is not kept, and its source has {found}",
            spec.name
        ))
    }

    /// A canary is tried with the wish that it was started with, so another wish ends it.
    fn end_canary(&self, before: &Installed, next: &mut Installed) {
        let Some(canary) = next.canary.take() else { return };
        if !canary.is_stopped() {
            let (version, why) =
                (canary.version.number, "what is wished for the plugin was changed".to_owned());
            self.shared.ledger.event(Some(before.name()), EventKind::CanaryStopped { version, why });
        }
    }

    /// A version that can be bound where it says.
    pub(crate) fn version(
        &self,
        number: u32,
        spec: &PluginSpec,
        run: Arc<Run>,
    ) -> Result<Arc<Version>, String> {
        let version = Version { number, spec: spec.clone(), run, loaded_at: SystemTime::now() };
        bindings(&version)?;
        Ok(Arc::new(version))
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
        let lot = mix(self.shared.seed.wrapping_add(n));
        let opening = Opening {
            id: format!("{lot:016x}"),
            session: session.unwrap_or(SESSION).to_owned(),
            ledger: self.shared.ledger.clone(),
            lot,
        };
        Visit::new(snapshot, opening)
    }

    /// The state directory, if this manager has one.
    pub fn state(&self) -> Option<&StateDir> {
        self.shared.state.as_ref()
    }

    /// What happened under this manager.
    pub fn ledger(&self) -> &Ledger {
        &self.shared.ledger
    }

    /// Loads what a spec asks for, and keeps its module.
    pub(crate) fn load(&self, spec: &PluginSpec, reason: LifeReason) -> Result<Plugin, String> {
        let plugin = self.load_from(spec, &spec.source, reason)?;
        if let Some(state) = &self.shared.state {
            let kept = state.keep(&spec.source, &plugin.inspection().digest);
            kept.map_err(|why| format!("plugin {}: {why}", spec.name))?;
        }
        Ok(plugin)
    }

    pub(crate) fn load_from(
        &self,
        spec: &PluginSpec,
        source: &Path,
        reason: LifeReason,
    ) -> Result<Plugin, String> {
        let plugin = spec.builder(&self.shared.engine, source)?;
        let plugin = plugin.life_reason(reason).ready_instances(spec.ready).grants(spec.grants.clone());
        let plugin = plugin.keep_log(LogLevel::Info);
        plugin.load().map_err(|error| spec.redacted(&error.to_string(), usize::MAX))
    }
}

/// What a file named before, `specs` do no more, and the folder does instead; and what is wrong with that.
fn moved(old: &Snapshot, specs: &[PluginSpec], folder: &Scan) -> (Vec<PluginSpec>, Vec<String>) {
    let (mut moved, mut wrong) = (Vec::new(), Vec::new());
    for plugin in &old.plugins {
        let before = plugin.spec();
        if before.owner != Owner::File || specs.iter().any(|spec| spec.name == before.name) {
            continue;
        }
        let named = folder.specs.iter().find(|found| found.name == before.name);
        // It may be called otherwise there.
        let found =
            named.or_else(|| folder.specs.iter().find(|found| is_same(&found.source, &before.source)));
        if let Some(found) = found {
            if !moved.iter().any(|spec: &PluginSpec| spec.name == found.name) {
                moved.push(PluginSpec { owner: Owner::Folder, ..found.clone() });
            }
        } else if let Some((path, why)) = folder.problems.iter().find(|(path, _)| is_about(path, before)) {
            let (name, path) = (&before.name, path.display());
            wrong.push(format!(
                "plugin {name}: no configuration file names it any more, and what the folder of plugins says instead \
                 cannot be meant: {path}: {why}"
            ));
        }
    }
    (moved, wrong)
}

fn is_same(one: &Path, other: &Path) -> bool {
    one == other || matches!((one.canonicalize(), other.canonicalize()), (Ok(one), Ok(other)) if one == other)
}

/// What follows when a plugin that was active cannot be loaded as it is wished.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unloadable {
    /// Nothing changes.
    Refuse,
    /// What was active goes on.
    KeepLastGood,
}

/// A change that is being prepared. Nobody else changes anything until it is published or given up.
pub(crate) struct Change<'a> {
    manager: &'a Manager,
    pub(crate) old: Arc<Snapshot>,
    _alone: MutexGuard<'a, ()>,
}

/// What becomes of a name.
pub(crate) enum Next {
    /// What runs goes on.
    Kept(Arc<Installed>),
    /// Something was loaded.
    Loaded(Arc<Installed>),
}

impl Change<'_> {
    /// Puts the next snapshot in place and returns its number.
    pub(crate) fn publish(self, plugins: Vec<Arc<Installed>>, pairs: Pairs) -> Result<u64, String> {
        let shared = &self.manager.shared;
        let plugins = match &shared.state {
            Some(state) => plugins.into_iter().map(|plugin| lean(plugin, state)).collect(),
            None => plugins,
        };
        let next = self.old.with(plugins, pairs);
        let generation = next.generation();
        if let Some(state) = &shared.state {
            let tried = next.plugins.iter().filter_map(|plugin| plugin.canary.as_ref());
            let tried = tried.map(|canary| canary.version.digest().to_owned()).collect();
            state.write(next.plugins.iter().map(|plugin| plugin.record()).collect(), tried)?;
            next.plugins.iter().for_each(|plugin| state.forget(plugin.name()));
        }
        shared.current.store(Arc::new(next));
        shared.retiring.note(&self.old, &shared.current.load());
        shared.ledger.event(None, EventKind::Applied { generation });
        Ok(generation)
    }

    /// The same for a change of one name: in its place if it is there already, else at the end.
    pub(crate) fn publish_one(self, name: &str, next: Option<Arc<Installed>>) -> Result<u64, String> {
        let mut plugins = self.old.plugins.clone();
        let place = plugins.iter().position(|plugin| &**plugin.name() == name);
        match (place, next) {
            (Some(place), Some(next)) => plugins[place] = next,
            (Some(place), None) => drop(plugins.remove(place)),
            (None, next) => plugins.extend(next),
        }
        let pairs = self.old.pairs.clone();
        self.publish(plugins, pairs)
    }
}

/// A plugin of whose earlier versions only the newest is in memory, so that going back one is a matter of a
/// pointer, and a plugin that is reloaded often does not fill the memory. The others are on disk.
fn lean(plugin: Arc<Installed>, state: &StateDir) -> Arc<Installed> {
    let is_dispensable =
        |earlier: &Earlier| earlier.version.is_some() && state.artifact(&earlier.record.digest).exists();
    if !plugin.earlier.iter().skip(1).any(|earlier| is_dispensable(earlier)) {
        return plugin;
    }
    let mut leaner = Installed::clone(&plugin);
    for earlier in leaner.earlier.iter_mut().skip(1) {
        if is_dispensable(earlier) {
            *earlier = Arc::new(Earlier { record: earlier.record.clone(), version: None });
        }
    }
    Arc::new(leaner)
}
