//! A plugin that is called by hand: how it is found, and what it is given.

use std::path::{Path, PathBuf};
use std::time::Duration;

use cardan::api::grants::{Access, KvLimits, KvScope};
use cardan::{Engine, Grants, GuestOutput, Limits, Plugin, PluginBuilder};
use cardan_manager::{Owner, PluginSpec, ResolveError, Warning, document, resolve_path};

use crate::args::{Reach, Shared};
use crate::config::{Capabilities, EngineBounds};
use crate::output::Failure;
use crate::serve;

/// A plugin that is about to be loaded.
pub(crate) struct Callee {
    pub(crate) builder: PluginBuilder,
    /// The module, or an Extism manifest.
    pub(crate) source: PathBuf,
}

/// What stands at a path, if it can be told.
pub(crate) type Resolved = Result<(PluginSpec, Vec<Warning>), ResolveError>;

impl Callee {
    /// The plugin at a path, as its manifest has it, if the path is that of a manifest or a folder.
    pub(crate) fn at(shared: &Shared, reach: &Reach, path: &Path) -> Result<Self, Failure> {
        let is_described = path.is_dir() || (path.is_file() && is_document(path));
        let spec = match is_described.then(|| resolve_path(path, Owner::Operator)) {
            // What is no manifest is left to the loader, which says so better.
            Some(Err(error)) if path.is_dir() || !is_unknown(path) => {
                return Err(Failure::unusable(error));
            }
            Some(Ok((spec, warnings))) if spec.manifest.is_some() => {
                tell_of(&warnings);
                spec
            }
            Some(Ok((spec, _))) => return Self::bare(shared, reach, &spec.source),
            _ => return Self::bare(shared, reach, path),
        };
        Self::of(shared, reach, spec)
    }

    /// A plugin that is described, with what it is described with.
    pub(crate) fn of(shared: &Shared, reach: &Reach, spec: PluginSpec) -> Result<Self, Failure> {
        let (engine, source) = (engine(shared, reach)?, spec.source.clone());
        let builder = described(&engine, &spec)?;
        let limits = Limits { deadline: Some(deadline(reach)), ..spec.limits };
        Ok(Self { builder: given(builder, reach)?.limits(limits), source })
    }

    fn bare(shared: &Shared, reach: &Reach, source: &Path) -> Result<Self, Failure> {
        let limits = Limits { deadline: Some(deadline(reach)), ..Limits::default() };
        let builder = engine(shared, reach)?.plugin(source);
        Ok(Self { builder: given(builder, reach)?.limits(limits), source: source.to_owned() })
    }

    /// With a key-value store of its own, as agents' tools always have one.
    pub(crate) fn with_state(self) -> Self {
        Self { builder: self.builder.grants(keys()), ..self }
    }
}

/// Tells what a manifest says that has no effect, to whoever asked to be told. Most of it is about where a gateway
/// would ask the plugin.
pub(crate) fn tell_of(warnings: &[Warning]) {
    for Warning(warning) in warnings {
        tracing::info!("{warning}");
    }
}

/// What is to be loaded for a plugin that is described.
pub(crate) fn described(engine: &Engine, spec: &PluginSpec) -> Result<PluginBuilder, Failure> {
    spec.builder(engine, &spec.source).map_err(Failure::unusable)
}

fn is_document(path: &Path) -> bool {
    path.extension().is_some_and(|ending| document::Format::ENDINGS.iter().any(|it| ending == *it))
}

/// Whether a document is of no kind that is known.
fn is_unknown(path: &Path) -> bool {
    let value = document::read(path).and_then(|text| document::value(&text, document::Format::of(path)));
    !matches!(value, Ok(Some(value)) if document::Kind::of(&value).is_some())
}

fn engine(shared: &Shared, reach: &Reach) -> Result<Engine, Failure> {
    let capabilities = match &reach.state {
        Some(dir) => Capabilities::kept(dir)?,
        None => Capabilities::passing()?,
    };
    serve::engine(shared, EngineBounds::default(), capabilities.services)
}

fn deadline(reach: &Reach) -> Duration {
    Duration::from_millis(reach.deadline_ms)
}

fn keys() -> Grants {
    Grants { kv: Some(KvScope { access: Access::Write, limits: KvLimits::default() }), ..Grants::default() }
}

/// What the command line gives.
fn given(mut plugin: PluginBuilder, reach: &Reach) -> Result<PluginBuilder, Failure> {
    plugin = plugin.with_wasi(GuestOutput::Inherit);
    if reach.state.is_some() {
        plugin = plugin.grants(keys());
    }
    for pair in &reach.config {
        let (key, value) = split(pair, "--config", "KEY=VALUE")?;
        plugin = plugin.config(key, value);
    }
    for host in &reach.allow_host {
        plugin = plugin.allow_host(host);
    }
    for pair in &reach.allow_path {
        let (host, guest) = split(pair, "--allow-path", "HOST=GUEST")?;
        plugin = plugin.allow_path(host, guest);
    }
    Ok(plugin)
}

fn split<'a>(pair: &'a str, option: &str, form: &str) -> Result<(&'a str, &'a str), Failure> {
    pair.split_once('=').ok_or_else(|| Failure::unusable(format_args!("{option} {pair:?} is not {form}")))
}

/// For whoever asked to be told what is going on.
pub(crate) fn tell(plugin: &Plugin) {
    let found = plugin.inspection();
    tracing::debug!(
        plugin = %plugin.name(),
        abi = %found.abi,
        dialect = found.dialect.map(tracing::field::display),
        digest = found.digest,
        size_bytes = found.size_bytes,
        tier = ?plugin.tier(),
        snapshot = %plugin.snapshot_state(),
        "loaded"
    );
}

/// The same of a call that has ended.
pub(crate) fn tell_call(plugin: &Plugin, called: &str, took: Duration) {
    let usage = plugin.usage();
    tracing::debug!(
        plugin = %plugin.name(),
        called,
        took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
        instances_started = usage.started,
        memory_bytes = usage.memory_bytes_max_seen,
        "called"
    );
}
