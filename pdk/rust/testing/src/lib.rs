//! Calls a built plugin from a test, in two lines, with the runtime that it will be run by:
//!
//! ```no_run
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let file = "text_processor.wasm";
//! let plugin = cardan_pdk_testing::plugin(file)?;
//! let result = plugin.call("transform", serde_json::json!({"text": "hello world", "mode": "uppercase"}))?;
//! # assert_eq!(result["result"], "HELLO WORLD");
//! # Ok(())
//! # }
//! ```
//!
//! Hooks are asked with typed events: [`TestPlugin::ask`] for one, [`TestPlugin::visit`] for several of one
//! request. Each plugin has an empty key-value store, cache and metrics of its own, and everything granted but
//! networks, databases, files and secrets; [`Setup`] changes that.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use cardan::api::grants::{Access, CacheScope, KvLimits, KvScope, MetricsScope};
use cardan::api::http::{Headers, RequestEvent};
use cardan::api::tool::{ToolAnswer, ToolCall, ToolCallEvent, ToolOutput};
use cardan::api::{Attributes, BodyNeed, Flow, Phase, Verdict};
use cardan::dialect::Spoken;
use cardan::{
    Circumstances, Engine, EngineConfig, Grants, Held, InstanceMode, LogLevel, LogLine, Plugin, Question,
    Services, Source,
};
use cardan_services::{CacheLimits, MemoryCache, MemoryKv, MetricsRegistry};
use serde::Serialize;
use serde_json::{Value, json};

pub use cardan::api;

/// Instances that one test may have at once.
const INSTANCES: u32 = 16;

/// A plugin, as tests mostly want it: no configuration, what it can do by itself granted.
///
/// # Errors
///
/// When it cannot be loaded, or does not want to be.
pub fn plugin(file: impl AsRef<Path>) -> Result<TestPlugin, cardan::Error> {
    Setup::new(file).load()
}

/// A request without header fields and body, for [`TestPlugin::ask`].
pub fn request(method: &str, path: &str) -> RequestEvent {
    RequestEvent {
        method: method.to_owned(),
        host: "test.example".to_owned(),
        path: path.to_owned(),
        query: None,
        client: "192.0.2.1:4711".to_owned(),
        headers: Headers::default(),
        body: None,
    }
}

/// How a plugin is to be loaded.
#[derive(Debug)]
pub struct Setup {
    source: Source,
    config: Value,
    grants: Grants,
    mode: Option<InstanceMode>,
    services: Services,
}

impl Setup {
    /// As [`plugin`] loads it.
    pub fn new(file: impl AsRef<Path>) -> Self {
        let services = Services {
            kv: Some(Arc::new(MemoryKv::default())),
            cache: Some(Arc::new(MemoryCache::new(CacheLimits::default()))),
            metrics: Some(Arc::new(MetricsRegistry::default())),
            ..Services::default()
        };
        let grants = Grants {
            kv: Some(KvScope { access: Access::Write, limits: KvLimits::default() }),
            cache: Some(CacheScope::shared(Access::Write)),
            metrics: Some(MetricsScope::default()),
            ..Grants::default()
        };
        Self { source: Source::from(file.as_ref()), config: json!({}), grants, mode: None, services }
    }

    /// With a configuration, a JSON object.
    #[must_use]
    pub fn config(mut self, config: Value) -> Self {
        self.config = config;
        self
    }

    /// With other grants.
    #[must_use]
    pub fn grants(mut self, grants: Grants) -> Self {
        self.grants = grants;
        self
    }

    /// With other services behind them.
    #[must_use]
    pub fn services(mut self, services: Services) -> Self {
        self.services = services;
        self
    }

    /// With instances that live as long as this says.
    #[must_use]
    pub fn mode(mut self, mode: InstanceMode) -> Self {
        self.mode = Some(mode);
        self
    }

    /// Loads it, in an engine of its own.
    ///
    /// # Errors
    ///
    /// As [`plugin`].
    pub fn load(self) -> Result<TestPlugin, cardan::Error> {
        let config = EngineConfig {
            pool_instances: Some(INSTANCES),
            services: self.services,
            ..EngineConfig::default()
        };
        let mut builder = Engine::new(config)?
            .plugin(self.source)
            .config_object(&self.config)
            .grants(self.grants)
            .keep_log(LogLevel::Trace);
        if let Some(mode) = self.mode {
            builder = builder.mode(mode);
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        let runtime =
            runtime.unwrap_or_else(|error| unreachable!("a runtime without threads and sockets: {error}"));
        Ok(TestPlugin { plugin: builder.load()?, config: self.config, runtime })
    }
}

/// A loaded plugin.
#[derive(Debug)]
pub struct TestPlugin {
    plugin: Plugin,
    config: Value,
    runtime: tokio::runtime::Runtime,
}

impl TestPlugin {
    /// Calls a tool, or an export that takes and returns JSON.
    ///
    /// # Errors
    ///
    /// When it faults, has no such tool, or says that it did not work.
    pub fn call(&self, name: &str, arguments: impl Serialize) -> Result<Value, CallError> {
        let arguments = serde_json::to_vec(&arguments)?;
        if self.plugin.has_export(name) {
            return Ok(serde_json::from_slice(&self.plugin.call(name, arguments)?)?);
        }
        let event = ToolCallEvent { tool: name.to_owned(), arguments: arguments.into() };
        match self.ask::<ToolCall>(&event)?.flow {
            Flow::Stop(ToolAnswer::Done(ToolOutput::Json(json))) => Ok(serde_json::from_slice(&json)?),
            Flow::Stop(ToolAnswer::Done(ToolOutput::Text(text))) => Ok(text.into()),
            Flow::Stop(ToolAnswer::Failed(why)) => Err(CallError::Failed(why)),
            Flow::Continue => Err(CallError::Unknown),
        }
    }

    /// Asks at one hook, as part of a visit of its own.
    ///
    /// # Errors
    ///
    /// When there is no verdict: [`cardan::Error::fault`] says why.
    pub fn ask<H: Spoken>(&self, event: &H::Event) -> Result<Verdict<H>, cardan::Error> {
        self.visit().ask::<H>(event)
    }

    /// A visit: its hooks share attributes, and instances where the plugin keeps those.
    pub fn visit(&self) -> TestVisit<'_> {
        TestVisit { of: self, held: Held::default(), attributes: Attributes::new() }
    }

    /// What the plugin has written to its log.
    pub fn log(&self) -> Vec<LogLine> {
        self.plugin.log_tail(0, usize::MAX).lines
    }

    /// The plugin itself.
    pub fn plugin(&self) -> &Plugin {
        &self.plugin
    }
}

/// Why a tool has no result.
#[derive(Debug)]
pub enum CallError {
    /// The plugin could not be asked, or faulted.
    Fault(cardan::Error),
    /// There is no tool of this name.
    Unknown,
    /// It did not work, in the tool's words.
    Failed(String),
    /// Arguments or result are no JSON.
    Json(serde_json::Error),
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fault(error) => error.fmt(f),
            Self::Unknown => f.write_str("the plugin has no tool of this name"),
            Self::Failed(why) => f.write_str(why),
            Self::Json(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for CallError {}

impl From<cardan::Error> for CallError {
    fn from(error: cardan::Error) -> Self {
        Self::Fault(error)
    }
}

impl From<serde_json::Error> for CallError {
    fn from(error: serde_json::Error) -> Self {
        Self::Json(error)
    }
}

/// Several hooks of one request.
#[derive(Debug)]
pub struct TestVisit<'a> {
    of: &'a TestPlugin,
    held: Held,
    attributes: Attributes,
}

impl TestVisit<'_> {
    /// Asks at one hook. What the plugin sets as attributes it is shown at the next.
    ///
    /// # Errors
    ///
    /// As [`TestPlugin::ask`].
    pub fn ask<H: Spoken>(&mut self, event: &H::Event) -> Result<Verdict<H>, cardan::Error> {
        let about = Circumstances {
            phase: Phase::PreFlight,
            body: BodyNeed::Whole,
            visit: "test-visit",
            session: "default",
            attributes: &self.attributes,
            config: &self.of.config,
        };
        let question = Question { event, about, entry: None, deadline: None };
        let verdict = self.of.runtime.block_on(self.of.plugin.ask::<H>(&mut self.held, question))?;
        self.attributes.extend(verdict.attributes.clone());
        Ok(verdict)
    }

    /// What has been set so far.
    pub fn attributes(&self) -> &Attributes {
        &self.attributes
    }
}
