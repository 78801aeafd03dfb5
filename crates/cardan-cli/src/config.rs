//! `cardan.yaml`: what an operator writes, and what it means.
//!
//! The raw types say which keys there are; an unknown one is an error. Resolving them looks names up,
//! fills in defaults and reads what the file points to, and gives the types that the gateway and the
//! manager act on.

mod admin;
mod bounds;
mod folder;
mod foreign;
mod plugins;
mod redact;
mod routing;
mod services;
mod source;
mod state;
mod telemetry;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use cardan_api::manifest::PluginEntry;
use cardan_gateway::{AmbiguousBodies, AmbiguousPaths, Config, Forwarded};
use cardan_manager::PluginSpec;
use cardan_manager::document::{self, Format, Kind};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::output::Failure;

use admin::AdminEntry;
use bounds::{EngineEntry, LimitsEntry, TimeoutsEntry};
use plugins::{LlmProxy, Plugins};
use routing::{Route, Upstream, header_name};
use source::{parse, read_text};
use telemetry::TelemetryEntry;

pub(crate) use admin::{AdminListen, AdminSettings};
pub(crate) use bounds::{EngineBounds, key_of};
pub(crate) use folder::PluginFolder;
pub(crate) use redact::redacted;
pub(crate) use services::{Capabilities, ServicesEntry};
pub(crate) use source::{Environment, environment};
pub(crate) use state::StateEntry;
pub(crate) use telemetry::OtlpSettings;

/// The whole file.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "cardan.yaml")]
pub(crate) struct File {
    /// Where clients connect; 127.0.0.1:8080 unless said otherwise.
    #[serde(default = "default_listen")]
    listen: SocketAddr,
    /// The services behind the gateway.
    #[serde(default)]
    upstreams: Vec<Upstream>,
    /// Which requests go where. The first that matches takes the request.
    #[serde(default)]
    routes: Vec<Route>,
    /// Plugins, in the order that decides ties.
    #[serde(default)]
    plugins: Vec<PluginEntry>,
    /// A folder of plugins beside those above: modules, manifests, and folders that hold these. It is watched.
    #[serde(default, alias = "plugins_dir")]
    plugin_dir: Option<PathBuf>,
    /// Plugins described by LLMProxy's own manifests, after those above.
    #[serde(default)]
    llmproxy: Option<LlmProxy>,
    /// Named maxima.
    #[serde(default)]
    limits: LimitsEntry,
    /// How long anybody may keep anybody waiting.
    #[serde(default)]
    timeouts: TimeoutsEntry,
    /// What all plugins together may have. Read at the start only.
    #[serde(default)]
    engine: EngineEntry,
    /// What survives a restart. Read at the start only.
    #[serde(default)]
    state: StateEntry,
    /// What stands behind plugins' grants. Read at the start only.
    #[serde(default)]
    services: ServicesEntry,
    /// The admin API: where it listens, and who may come in.
    #[serde(default)]
    admin: AdminEntry,
    /// What is told to others. Read at the start only.
    #[serde(default)]
    telemetry: TelemetryEntry,
    /// The request header that names a client's session; `x-session-id` unless said otherwise.
    #[serde(default)]
    session_header: Option<String>,
    /// What becomes of the `x-forwarded-*` fields that clients send.
    #[serde(default)]
    forwarded: ForwardedEntry,
    /// What happens to paths that upstreams may read in two ways: with `//`, `\\`, `;`, `%2F`, `%252F`.
    #[serde(default)]
    ambiguous_paths: AmbiguousPathsEntry,
    /// What happens to JSON that parsers may read in two ways, such as an object with one name twice, where a
    /// plugin is to be shown it.
    #[serde(default)]
    ambiguous_bodies: AmbiguousBodiesEntry,
}

fn default_listen() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 8080).into()
}

#[derive(Debug, Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum ForwardedEntry {
    /// Replaced, because clients reach this gateway directly.
    #[default]
    Replace,
    /// Continued, because only trusted proxies reach this gateway.
    Append,
}

#[derive(Debug, Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum AmbiguousPathsEntry {
    /// Answered with 400.
    #[default]
    Refuse,
    /// Sent on as they are.
    PassOn,
}

#[derive(Debug, Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum AmbiguousBodiesEntry {
    /// Answered with 400.
    #[default]
    Refuse,
    /// Shown and sent on as they are.
    PassOn,
}

/// What the file means.
#[derive(Debug)]
pub(crate) struct Resolved {
    pub(crate) listen: SocketAddr,
    pub(crate) engine: EngineBounds,
    pub(crate) state: StateEntry,
    pub(crate) services: ServicesEntry,
    pub(crate) admin: AdminSettings,
    pub(crate) otlp: Option<OtlpSettings>,
    pub(crate) gateway: Config,
    pub(crate) plugins: Vec<PluginSpec>,
    /// Those of them that the file itself describes, as it does.
    pub(crate) entries: Vec<PluginEntry>,
    /// A folder whose plugins come beside them.
    pub(crate) folder: Option<PluginFolder>,
    /// What the operator should know and what stops nothing.
    pub(crate) warnings: Vec<String>,
}

/// Reads a configuration file again. At the start it may be a pipe, which brings what it brings once; to read
/// one again could take for ever.
pub(crate) fn read_again(path: &Path, environment: Environment<'_>) -> Result<Resolved, Failure> {
    // What is not there is reported by reading it.
    if std::fs::metadata(path).is_ok_and(|metadata| !metadata.is_file()) {
        return Err(Failure::unusable(format_args!(
            "cannot read {} again: it is not a regular file",
            path.display()
        )));
    }
    read(path, environment)
}

/// Reads and resolves a configuration file.
pub(crate) fn read(path: &Path, environment: Environment<'_>) -> Result<Resolved, Failure> {
    resolve(path, &text_of(path)?, environment)
}

/// What a configuration file holds.
pub(crate) fn text_of(path: &Path) -> Result<String, Failure> {
    read_text(path, "; name one with --config, or see what one looks like with `cardan demo --dir DIR`")
}

/// A text as a document, whatever is in it.
pub(crate) fn document(path: &Path, text: &str) -> Result<serde_json::Value, Failure> {
    parse(path, text, "there is nothing in it")
}

/// Resolves a text as if this file held it.
pub(crate) fn resolve(path: &Path, text: &str, environment: Environment<'_>) -> Result<Resolved, Failure> {
    let missing = "`upstreams`, `routes` and `plugins` are missing";
    match kind(path, text) {
        Some(Kind::HeliosConfig) => return foreign::heliosproxy(path, text),
        Some(Kind::LlmProxy) => return foreign::llmproxy(path, text),
        Some(Kind::Config) | None => {}
        Some(other) => return Err(foreign::refused(path, other)),
    }
    let file: File = parse(path, text, missing)?;
    let base = path.parent().unwrap_or(Path::new(""));
    file.resolve(base, environment)
        .map_err(|failure| Failure::unusable(format_args!("{}: {failure}", path.display())))
}

/// What a file is. What is not well-formed is reported by whoever parses it.
fn kind(path: &Path, text: &str) -> Option<Kind> {
    Kind::of(&document::value(text, Format::of(path)).ok()??)
}

impl File {
    fn resolve(mut self, base: &Path, environment: Environment<'_>) -> Result<Resolved, Failure> {
        for entry in self.plugins.iter_mut().filter(|entry| entry.enabled) {
            let env = entry.grants.env.with_values(environment);
            entry.grants.env =
                env.map_err(|why| Failure::unusable(format_args!("plugin {}: {why}", entry.name)))?;
        }
        let mut plugins = Plugins::default();
        plugins.add_entries(&self.plugins, base)?;
        let folder = self.plugin_dir.as_deref().map(|folder| base.join(folder));
        let folder = folder.map(|folder| PluginFolder::beside(folder, &self.plugins, base));
        if let Some(folder) = &folder {
            plugins.check_folder(folder)?;
        }
        if let Some(llmproxy) = &self.llmproxy {
            plugins.add_rings(llmproxy, base)?;
        }
        self.services.check(&plugins.specs)?;
        let mut gateway = Config {
            routes: self
                .routes
                .into_iter()
                .map(|route| route.resolve(environment))
                .collect::<Result<_, _>>()?,
            upstreams: self
                .upstreams
                .into_iter()
                .map(|upstream| upstream.resolve(environment))
                .collect::<Result<_, _>>()?,
            ambiguous_paths: match self.ambiguous_paths {
                AmbiguousPathsEntry::Refuse => AmbiguousPaths::Refuse,
                AmbiguousPathsEntry::PassOn => AmbiguousPaths::PassOn,
            },
            ambiguous_bodies: match self.ambiguous_bodies {
                AmbiguousBodiesEntry::Refuse => AmbiguousBodies::Refuse,
                AmbiguousBodiesEntry::PassOn => AmbiguousBodies::PassOn,
            },
            forwarded: match self.forwarded {
                ForwardedEntry::Replace => Forwarded::Replace,
                ForwardedEntry::Append => Forwarded::Append,
            },
            ..Config::default()
        };
        if let Some(name) = &self.session_header {
            gateway.session_header = Some(header_name("session_header", name)?);
        }
        self.limits.apply(&mut gateway);
        self.timeouts.apply(&mut gateway);
        let engine = self.engine.resolve();
        let admin = self.admin.resolve(base, environment)?;
        let otlp = self.telemetry.resolve(environment)?;
        let entries = self.plugins.into_iter().filter(|entry| entry.enabled).collect();
        let (listen, state, services) = (self.listen, self.state, self.services);
        let Plugins { specs: plugins, warnings } = plugins;
        Ok(Resolved {
            listen,
            engine,
            state,
            services,
            admin,
            otlp,
            gateway,
            plugins,
            entries,
            folder,
            warnings,
        })
    }
}

/// The JSON Schema of the file.
pub(crate) fn schema() -> schemars::Schema {
    schemars::schema_for!(File)
}

#[cfg(test)]
mod tests;
