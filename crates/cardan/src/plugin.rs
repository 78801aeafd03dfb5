//! One admitted version of a plugin: loading it, and calling it.

mod builder;
mod component;
mod held;
mod inspection;
mod load;
mod tools;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arc_swap::ArcSwap;
use cardan_api::{Fault, InstanceMode, NamedHook, Verdict};
use serde::Serialize;
use serde_json::Value;
use tokio::sync::watch;

use crate::abi::Template;
use crate::abi::extism::{self, Call, CoreDumps, Later, Report, SnapshotState, Stage, Vars};
use crate::dialect::{self, Circumstances, Dialect, Spoken};
use crate::engine::{Engine, Tier};
use crate::error::ErrorKind;
use crate::grants::{LogTail, PluginLog};
use crate::limits::{CancelHandle, Tally};
use crate::pool::{Permit, Pool};
use crate::{Error, runtime};

pub use builder::PluginBuilder;
pub use held::Held;
use held::Kept;
pub use inspection::{Import, Inspection};
pub(crate) use load::LoadQuestion;

/// One loaded version of a plugin. Cheap to clone; immutable but for its variables and instances.
///
/// Calls from several threads run at once, each in an instance of its own.
#[derive(Clone)]
pub struct Plugin {
    admitted: Arc<Admitted>,
}

struct Admitted {
    name: Arc<str>,
    mode: InstanceMode,
    deadline: Option<Duration>,
    dialect: Option<Dialect>,
    inspection: Inspection,
    log: Arc<PluginLog>,
    serving: ArcSwap<Serving>,
    core_dumps: Arc<CoreDumps>,
    tally: Arc<Tally>,
}

/// What calls are made with at this moment.
struct Serving {
    pool: Arc<Pool>,
    tier: Tier,
    snapshot: SnapshotState,
}

impl Admitted {
    /// Has better code compiled in the background, and calls made with it once it is there. Whoever holds an
    /// instance goes on with that.
    fn improve(self: &Arc<Self>, engine: &Engine, later: Later) {
        let (weak, name) = (Arc::downgrade(self), self.name.clone());
        let asked = engine.compiler().later(move || {
            // Nobody is left to call it, and compiling is most of the work.
            if weak.strong_count() == 0 {
                return;
            }
            let improved = later.link().and_then(|stage| match weak.upgrade() {
                Some(admitted) => admitted.take_over(stage),
                None => Ok(()),
            });
            if let Err(error) = improved {
                tracing::warn!(plugin = %name, %error, "no better code: the plugin stays with what was made first");
            }
        });
        if !asked {
            tracing::warn!(plugin = %self.name, "no better code: the plugin stays with what was made first");
        }
    }

    fn take_over(&self, stage: Stage) -> Result<(), Error> {
        let pool = self.serving.load().pool.successor(Template::Core(Box::new(stage.template)));
        // The first instance is not to be some caller's work, and shows that there can be any.
        pool.stock(runtime::block_on(pool.make())?);
        self.serving.store(Arc::new(Serving { pool, tier: stage.tier, snapshot: stage.snapshot }));
        Ok(())
    }
}

impl fmt::Debug for Plugin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plugin")
            .field("name", &self.admitted.name)
            .field("digest", &self.admitted.inspection.digest)
            .finish_non_exhaustive()
    }
}

/// What a plugin's instances use: see [`Plugin::usage`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Usage {
    /// Instances alive: running, waiting to be called, or waiting to be cleared away.
    pub instances: usize,
    /// Those of them that the next calls find ready.
    pub ready: usize,
    /// Calls that wait for an instance to be free.
    pub waiting: usize,
    /// Instances made since the plugin was loaded.
    pub started: u64,
    /// The most linear memory that one instance has had, as sized, the convention's own included.
    pub memory_bytes_max_seen: u64,
}

/// One question to a plugin, for [`Plugin::ask`].
#[derive(Debug)]
pub struct Question<'a, H: Spoken> {
    /// What the plugin is shown.
    pub event: &'a H::Event,
    /// What it is told beside that.
    pub about: Circumstances<'a>,
    /// The export to call instead of the dialect's own.
    pub entry: Option<&'a str>,
    /// Wall-clock time the plugin has, instead of the plugin's default.
    pub deadline: Option<Duration>,
}

impl Plugin {
    /// The plugin's name, as given or after its file.
    pub fn name(&self) -> &Arc<str> {
        &self.admitted.name
    }

    /// What the plugin is: digest, imports, exports and so on.
    pub fn inspection(&self) -> &Inspection {
        &self.admitted.inspection
    }

    /// The dialect it speaks, as given or recognised by its exports.
    pub fn dialect(&self) -> Option<Dialect> {
        self.admitted.dialect
    }

    /// How long its instances live.
    pub fn mode(&self) -> InstanceMode {
        self.admitted.mode
    }

    /// Which compiler made the code that the next call runs.
    pub fn tier(&self) -> Tier {
        self.admitted.serving.load().tier
    }

    /// Whether instances begin where initialisation ended, and if not, why.
    pub fn snapshot_state(&self) -> SnapshotState {
        self.admitted.serving.load().snapshot.clone()
    }

    fn pool(&self) -> Arc<Pool> {
        self.admitted.serving.load().pool.clone()
    }

    /// What its guests logged lately: lines after the one with the number `after`, 0 for all that are kept,
    /// and at most `max` of them. 1,000 lines, or 256 KiB, are kept.
    pub fn log_tail(&self, after: u64, max: usize) -> LogTail {
        self.admitted.log.tail(after, max)
    }

    /// Holds the number of the last line, and changes with every new one: for following
    /// [`Plugin::log_tail`].
    pub fn log_follow(&self) -> watch::Receiver<u64> {
        self.admitted.log.follow()
    }

    /// Whether `export` is there and can be called.
    pub fn has_export(&self, export: &str) -> bool {
        self.admitted.serving.load().pool.template.is_callable(export)
    }

    /// Whether a call of this name reaches the guest: an export of it, or a tool where one export answers for all
    /// tools. Which of those there are, only [`Plugin::tools`] tells.
    pub fn can_call(&self, name: &str) -> bool {
        self.has_export(name) || self.pool().template.is_dispatched(name)
    }

    /// How many instances are ready for a call to come.
    pub fn ready_instances(&self) -> usize {
        self.admitted.serving.load().pool.ready_count()
    }

    /// What its instances use at this moment, and have used since it was loaded.
    pub fn usage(&self) -> Usage {
        let (pool, tally) = (self.pool(), &self.admitted.tally);
        Usage {
            instances: tally.alive.load(Ordering::Relaxed),
            ready: pool.ready_count(),
            waiting: pool.waiting(),
            started: tally.started.load(Ordering::Relaxed),
            memory_bytes_max_seen: tally.memory_bytes_seen.load(Ordering::Relaxed),
        }
    }

    /// Calls an export, or a tool of a guest that has all of them behind one export, with some bytes and returns its
    /// output. Blocks; inside of an async runtime use
    /// [`Plugin::call_async`].
    ///
    /// # Errors
    ///
    /// When there is no such export, the guest faults, or it reports an error itself.
    pub fn call(&self, export: &str, input: impl AsRef<[u8]>) -> Result<Vec<u8>, Error> {
        runtime::block_on(self.call_async(export, input.as_ref()))
    }

    /// Calls an export with some bytes and returns its output.
    ///
    /// A guest that waits, or computes for long, gives way to other tasks. Dropping the future ends the
    /// call, and the instance it ran in is not used again.
    ///
    /// # Errors
    ///
    /// As [`Plugin::call`].
    pub async fn call_async(&self, export: &str, input: &[u8]) -> Result<Vec<u8>, Error> {
        let call = Call { export, input, deadline: self.admitted.deadline };
        let report = runtime::ambient(self.in_pool(call)).await;
        report.and_then(succeed).map_err(|error| self.failed(error))
    }

    /// An instance of one's own, whose memory and variables persist from call to call, also after a
    /// trap: what an Extism `Plugin` is.
    ///
    /// # Errors
    ///
    /// When the guest's initialisation fails, or it is a component.
    pub fn instance(&self) -> Result<PluginInstance, Error> {
        let vars = Arc::<Vars>::default();
        let pool = self.pool();
        let made = pool
            .template
            .core()
            .and_then(|template| runtime::block_on(pool.with_room(|| template.instantiate(vars.clone()))));
        let guest = made.map_err(|error| error.of(&self.admitted.name))?;
        Ok(PluginInstance { plugin: self.clone(), guest: guest.kept_as_it_is(), pool })
    }

    /// Asks the plugin at a hook. `held` is the visit's place for an instance; what the plugin's mode
    /// wants kept is kept there.
    ///
    /// The instance is out of `held` during the call and goes back only after a verdict was read, so
    /// that a fault, or dropping the future, leaves no instance behind in an unknown state.
    ///
    /// # Errors
    ///
    /// When the plugin has no verdict: [`Error::fault`] says what to count.
    pub async fn ask<H: Spoken>(
        &self,
        held: &mut Held,
        question: Question<'_, H>,
    ) -> Result<Verdict<H>, Error> {
        let verdict = runtime::ambient(self.verdict(held, question)).await;
        verdict.map_err(|error| self.failed(error))
    }

    /// Has the next call that fails in its guest leave a core dump, to be had from
    /// [`Plugin::take_core_dump`]. Making one takes milliseconds, once.
    pub fn request_core_dump(&self) {
        self.admitted.core_dumps.request();
    }

    /// The core dump that a call has left, in the format of WebAssembly's tool conventions: the frames of
    /// the call, the memories and the mutable globals of its instance. It holds whatever the guest knew,
    /// requests and secrets of its configuration included. Only the latest is kept, until it is taken.
    pub fn take_core_dump(&self) -> Option<Vec<u8>> {
        self.admitted.core_dumps.take()
    }

    fn failed(&self, error: Error) -> Error {
        let error = error.of(&self.admitted.name);
        if let Some(backtrace) = error.backtrace() {
            let fault = error.fault().label();
            let message = error.message();
            tracing::debug!(target: "cardan::fault", plugin = %self.admitted.name, fault, backtrace, "{message}");
        }
        error
    }

    async fn verdict<H: Spoken>(
        &self,
        held: &mut Held,
        question: Question<'_, H>,
    ) -> Result<Verdict<H>, Error> {
        if matches!(self.pool().template, Template::Component(_)) {
            return self.component_verdict(held, question).await;
        }
        let protocol = |why: String| Error::call(Fault::Protocol, why);
        let dialect = self.admitted.dialect.ok_or_else(|| {
            protocol("its exports are of no known dialect; name one with `dialect`".to_owned())
        })?;
        let export = match question.entry.or_else(|| H::entry_of(dialect, question.event)) {
            Some(entry) => entry,
            None => self.entry_of::<H>().ok_or_else(|| {
                protocol(format!("it has no export for the hook {} in the dialect {dialect}", H::NAME))
            })?,
        };
        let input = H::encode(dialect, question.event, question.about)
            .map_err(|why| protocol(format!("cannot be shown this event: {why}")))?;
        let deadline = question.deadline.or(self.admitted.deadline);
        let mut call = Call { export, input: &input, deadline };
        let read = |report: Report| verdict::<H>(dialect, question.event, report);
        match self.admitted.mode {
            InstanceMode::Visit => {
                let mut kept = match held.take() {
                    Some(kept) => kept,
                    None => {
                        let permit;
                        let pool = self.pool();
                        (permit, call.deadline) = pool.permit(call.deadline).await?;
                        Kept { guest: pool.take().await?, permit, pool }
                    }
                };
                let verdict = read(kept.guest.core()?.call(call).await)?;
                held.keep(kept);
                Ok(verdict)
            }
            InstanceMode::Fresh | InstanceMode::Shared => read(self.in_pool(call).await?),
        }
    }

    /// As [`Plugin::verdict`], of a component, which is asked in types.
    async fn component_verdict<H: Spoken>(
        &self,
        held: &mut Held,
        question: Question<'_, H>,
    ) -> Result<Verdict<H>, Error> {
        let Question { event, about, entry, deadline } = question;
        let protocol = |why: String| Err(Error::call(Fault::Protocol, why));
        if let Some(entry) = entry {
            return protocol(format!(
                "a component has one function for each hook: `entry: {entry}` is not for it"
            ));
        }
        if self.entry_of::<H>().is_none() {
            return protocol(format!("it has no interface for the hook {}", H::NAME));
        }
        let kept = held.take().filter(|_| self.admitted.mode == InstanceMode::Visit);
        let (mut kept, deadline) = match kept {
            Some(kept) => (kept, deadline.or(self.admitted.deadline)),
            None => {
                let pool = self.pool();
                let (permit, deadline) = pool.permit(deadline.or(self.admitted.deadline)).await?;
                (Kept { guest: pool.take().await?, permit, pool }, deadline)
            }
        };
        let asked = kept.guest.component()?.ask::<H>(event, about, deadline).await;
        match (&asked, self.admitted.mode) {
            (Ok(_), InstanceMode::Visit) => held.keep(kept),
            (Ok(_), _) => kept.pool.put_back(kept.guest),
            (Err(_), _) => kept.pool.discard(kept.guest),
        }
        asked
    }

    /// The export that answers a hook, where a question names none.
    pub fn entry_of<H: Spoken>(&self) -> Option<&'static str> {
        if let Template::Component(template) = &self.pool().template {
            return template.entry_of::<H>();
        }
        H::entries(self.admitted.dialect?).asked(|entry| self.has_export(entry)).next()
    }

    /// Every export that wants to be asked at the hook of this name, in order: [`Plugin::entry_of`] first.
    pub fn entries_at(&self, hook: &str) -> Vec<&'static str> {
        let entries = self.admitted.dialect.and_then(|dialect| dialect::entries_at(dialect, hook));
        entries.into_iter().flat_map(|entries| entries.asked(|entry| self.has_export(entry))).collect()
    }

    async fn in_pool(&self, mut call: Call<'_>) -> Result<Report, Error> {
        let pool = self.pool();
        pool.template.core()?;
        let _permit: Permit;
        (_permit, call.deadline) = pool.permit(call.deadline).await?;
        let mut guest = pool.take().await?;
        let report = guest.core()?.call(call).await;
        if report.fault.is_none() {
            pool.put_back(guest);
        } else {
            pool.discard(guest);
        }
        Ok(report)
    }
}

/// An instance of a plugin that its owner keeps: see [`Plugin::instance`].
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let engine = cardan::Engine::new(cardan::EngineConfig::default())?;
/// let plugin = engine.load("../../guests/prebuilt/kitchen.wasm")?;
/// let mut instance = plugin.instance()?;
/// assert_eq!(instance.call("memory_count", "").output, b"1");
/// assert_eq!(instance.call("memory_count", "").output, b"2");
/// let report = instance.call("fail", r#"{"code": 4, "message": "no"}"#);
/// assert_eq!((report.code, report.error.as_deref()), (4, Some("no")));
/// # Ok(())
/// # }
/// ```
pub struct PluginInstance {
    plugin: Plugin,
    guest: extism::Guest,
    /// Where the guest came from.
    pool: Arc<Pool>,
}

impl fmt::Debug for PluginInstance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PluginInstance").field("plugin", &self.plugin.name()).finish_non_exhaustive()
    }
}

impl PluginInstance {
    /// Calls an export and returns everything the call brought.
    pub fn call(&mut self, export: &str, input: impl AsRef<[u8]>) -> Report {
        runtime::block_on(self.call_async(export, input.as_ref()))
    }

    /// As [`PluginInstance::call`], giving way while the guest waits or computes.
    pub async fn call_async(&mut self, export: &str, input: &[u8]) -> Report {
        runtime::ambient(self.report(export, input)).await
    }

    async fn report(&mut self, export: &str, input: &[u8]) -> Report {
        if self.guest.is_spent()
            && let Err(error) = self.renew().await
        {
            let backtrace = error.backtrace().map(str::to_owned);
            return Report { backtrace, ..Report::refused(error.fault(), error.message()) };
        }
        let call = Call { export, input, deadline: self.plugin.admitted.deadline };
        self.guest.call(call).await
    }

    /// Replaces what the guest reads with `config_get`.
    pub fn set_config(&mut self, config: BTreeMap<String, String>) {
        self.guest.set_config(Arc::new(config));
    }

    /// Stops this instance's calls from another thread.
    pub fn cancel_handle(&self) -> CancelHandle {
        self.guest.cancel_handle()
    }

    /// A program has run to its end: the next call gets a new instance. Variables are gone, the
    /// configuration is not.
    async fn renew(&mut self) -> Result<(), Error> {
        let pool = &self.pool;
        let heritage = self.guest.heritage();
        let template = pool.template.core()?;
        self.guest = pool.with_room(|| template.succeed(heritage.clone())).await?.kept_as_it_is();
        Ok(())
    }
}

/// What a call means that was to answer a question.
fn verdict<H: Spoken>(dialect: Dialect, event: &H::Event, report: Report) -> Result<Verdict<H>, Error> {
    if report.fault.is_none()
        && report.code != 0
        && let Some(verdict) = H::decode_code(dialect, report.error.as_deref())
    {
        return Ok(verdict);
    }
    let silent = report.fault.is_none() && !report.answered;
    if silent && NamedHook::find(H::NAME).is_some_and(NamedHook::judges) {
        let why = format!(
            "its export has no result, and at {} there has to be one: give it the type (i32, i32) -> i64",
            H::NAME
        );
        return Err(Error::call(Fault::Protocol, why));
    }
    H::decode(dialect, event, &succeed(report)?).map_err(|why| {
        Error::call(Fault::Protocol, format!("returned no document of the dialect {dialect}: {why}"))
    })
}

/// The output of a call. In conventions where a number may be an answer, it is a failure for whoever reads bytes.
fn succeed(report: Report) -> Result<Vec<u8>, Error> {
    let fault = match (report.fault, report.code) {
        (None, 0) => return Ok(report.output),
        // A number that decides is an output too.
        (None, _) if !report.output.is_empty() => return Ok(report.output),
        (fault, _) => fault.unwrap_or(Fault::Trap),
    };
    let kind = match (report.code, fault) {
        (code @ 0.., Fault::Trap) if code != 134 => ErrorKind::Guest(code),
        (_, fault) => ErrorKind::Call(fault),
    };
    let message = report.cause.or(report.error);
    let message = message.unwrap_or_else(|| format!("the guest returned the code {}", report.code));
    Err(Error::new(kind, message).with_backtrace(report.backtrace))
}

/// The text form of a configuration value, for guests that read it with `config_get`.
fn config_text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
