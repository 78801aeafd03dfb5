//! One engine and one store for all cells, and visits to ask in.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use cardan::api::grants::{Access, KvLimits, KvScope};
use cardan::api::{Attributes, BodyNeed, Phase, Verdict};
use cardan::dialect::Spoken;
use cardan::{
    Circumstances, Engine, EngineConfig, Error, Fault, Grants, Held, InstanceMode, KvEntry, KvSpace, KvStore,
    Limits, Plugin, PluginBuilder, Question, Services,
};
use cardan_services::MemoryKv;
use serde_json::{Value, json};

use crate::table::{Behaviour, Cell};

/// Long enough for anything that is not meant to end by its deadline, on a machine that is busy.
const GENEROUS: Duration = Duration::from_secs(30);
/// For what never ends.
pub(crate) const SHORT: Duration = Duration::from_millis(100);
/// Bytes of the row with large bodies.
pub(crate) const LARGE: usize = 10_000_000;
/// What a request is called, at every hook.
pub(crate) const VISIT: &str = "9f86d081884c7d65";
/// Letters of two, three and four bytes.
pub(crate) const UNICODE: &str = "Zo\u{eb}, \u{4e16}\u{754c}, \u{1f30d}";

static STORE: LazyLock<Arc<MemoryKv>> = LazyLock::new(Arc::default);

static ENGINE: LazyLock<Engine> = LazyLock::new(|| {
    let services = Services { kv: Some(STORE.clone()), ..Services::default() };
    // Most guests are loaded many times. What an earlier run left may be another rewriter's work.
    let cache_dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("conformance-compiled");
    let _ = std::fs::remove_dir_all(&cache_dir);
    let config = EngineConfig {
        pool_instances: Some(100),
        cache_dir: Some(cache_dir),
        services,
        ..EngineConfig::default()
    };
    Engine::new(config).unwrap()
});

static RUNTIME: LazyLock<tokio::runtime::Runtime> =
    LazyLock::new(|| tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap());

pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    RUNTIME.block_on(future)
}

/// A module, as bytes or as text. Each plugin has a name, and so a store, of its own.
pub(crate) fn plugin(module: &[u8]) -> PluginBuilder {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let name = format!("p{}", COUNT.fetch_add(1, Ordering::Relaxed));
    ENGINE.plugin(module).name(name).limits(limits())
}

/// A compiled guest of `guests/prebuilt`.
pub(crate) fn prebuilt(name: &str) -> PluginBuilder {
    let folder: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../guests/prebuilt");
    let path = folder.join(name).with_extension("wasm");
    plugin(&std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())))
}

pub(crate) fn limits() -> Limits {
    Limits { deadline: Some(GENEROUS), ..Limits::default() }
}

/// For guests that hold a document of [`LARGE`] bytes several times.
pub(crate) fn roomy() -> Limits {
    Limits { memory_bytes_max: 256 << 20, ..limits() }
}

/// Keys and values, and nothing else.
pub(crate) fn granted() -> Grants {
    Grants { kv: Some(KvScope { access: Access::Write, limits: KvLimits::default() }), ..Grants::default() }
}

fn space(plugin: &Plugin) -> KvSpace {
    KvSpace { plugin: plugin.name().clone(), limits: KvLimits::default() }
}

/// What a plugin has stored.
pub(crate) fn stored(plugin: &Plugin, key: &str) -> Option<String> {
    let value = block_on(STORE.get(&space(plugin), key.to_owned())).unwrap();
    value.map(|value| String::from_utf8(value).unwrap())
}

/// Stores what an operator would.
pub(crate) fn store(plugin: &Plugin, key: &str, value: &Value) {
    let entry = KvEntry { key: key.to_owned(), value: value.to_string().into_bytes() };
    block_on(STORE.set(&space(plugin), entry, None)).unwrap();
}

/// One request, as hosts keep it.
pub(crate) struct Visit {
    held: Held,
    pub(crate) attributes: Attributes,
    pub(crate) config: Value,
    pub(crate) deadline: Option<Duration>,
}

impl Visit {
    pub(crate) fn new() -> Self {
        Self::with(json!({}))
    }

    /// With a binding's configuration.
    pub(crate) fn with(config: Value) -> Self {
        Self { held: Held::default(), attributes: Attributes::new(), config, deadline: None }
    }

    pub(crate) fn hurried() -> Self {
        Self { deadline: Some(SHORT), ..Self::new() }
    }

    /// Asks, and keeps the attributes of the verdict.
    pub(crate) fn ask<H: Spoken>(
        &mut self,
        plugin: &Plugin,
        phase: Phase,
        event: &H::Event,
    ) -> Result<Verdict<H>, Error> {
        let about = Circumstances {
            phase,
            body: BodyNeed::Whole,
            visit: VISIT,
            session: "default",
            attributes: &self.attributes,
            config: &self.config,
        };
        let question = Question { event, about, entry: None, deadline: self.deadline };
        let verdict = block_on(plugin.ask(&mut self.held, question))?;
        self.attributes.extend(verdict.attributes.clone());
        Ok(verdict)
    }
}

/// A cell about something that goes wrong: that is the fault, and the same plugin then works.
#[track_caller]
pub(crate) fn fails<T, U>(
    fault: Fault,
    bad: Result<T, Error>,
    next: impl FnOnce() -> Result<U, Error>,
) -> Cell {
    refused(fault, bad);
    if let Err(error) = next() {
        panic!("after {fault} the next question is to be answered, and fails: {error}");
    }
    Cell::Pass
}

#[track_caller]
pub(crate) fn refused<T>(fault: Fault, bad: Result<T, Error>) -> Cell {
    match bad {
        Ok(_) => panic!("expected {fault}, and there is a verdict"),
        Err(error) => assert_eq!(error.fault(), fault, "{error}"),
    }
    Cell::Pass
}

/// A cell about memory that is kept: what a counting guest says in the mode `kept`, in two visits of two questions.
pub(crate) fn counts(
    row: Behaviour,
    load: impl Fn(InstanceMode) -> Plugin,
    ask: impl Fn(&Plugin, &mut Visit) -> String,
) -> Cell {
    let seen = |mode| -> Vec<String> {
        let plugin = load(mode);
        let visit = |_| {
            let mut visit = Visit::new();
            [ask(&plugin, &mut visit), ask(&plugin, &mut visit)]
        };
        (0..2).flat_map(visit).collect()
    };
    if row == Behaviour::VisitState {
        assert_eq!(seen(InstanceMode::Visit), ["1", "2", "1", "2"], "two visits of two questions");
    } else {
        assert_eq!(seen(InstanceMode::Shared), ["1", "2", "3", "4"], "the mode shared");
        assert_eq!(seen(InstanceMode::Fresh), ["1", "1", "1", "1"], "the mode fresh");
    }
    Cell::Pass
}
