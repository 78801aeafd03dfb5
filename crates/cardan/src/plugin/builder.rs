//! Loading: from a source and options to an admitted plugin.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use cardan_api::grants::{Grants, HttpScope, PrivateAddresses, Reach};
use cardan_api::lifecycle::{LifeEvent, LifeReason};
use cardan_api::{Capability, Fault, InstanceMode, Limits, NamedHook, SnapshotPolicy};
use serde_json::{Map, Value};

use super::component;
use super::load::LoadQuestion;
use super::{Admitted, Import, Inspection, Plugin, Serving, config_text};
use crate::abi::extism::manifest::{MAIN, Manifest, NamedModule};
use crate::abi::extism::{self, CoreDumps, GuestOutput, ImportKind, Linking, Stage};
use crate::abi::{Abi, Imported, ResultForm, Template};
use crate::dialect::{self, Dialect};
use crate::engine::Engine;
use crate::error::ErrorKind;
use crate::grants::{
    Authority, HostList, HttpExchange, HttpGrant, LogLevel, LogSink, NoClient, Permissions, PluginLog,
    TracingLog,
};
use crate::host_function::HostFunction;
use crate::limits::Tally;
use crate::pool::{Common, Pool, PoolPlan};
use crate::source::{Content, Source};
use crate::{Error, runtime};

/// Options of a plugin to be loaded; see [`Engine::plugin`].
///
/// What a manifest says holds unless an option says otherwise; configuration of both is merged.
#[must_use]
pub struct PluginBuilder {
    pub(super) engine: Engine,
    source: Source,
    name: Option<String>,
    digest: Option<String>,
    pub(super) mode: InstanceMode,
    pub(super) limits: Limits,
    pub(super) config: BTreeMap<String, String>,
    /// The same as it was given, for documents.
    pub(super) config_values: Map<String, Value>,
    pub(super) version: String,
    pub(super) reason: LifeReason,
    /// `None`: what a manifest says, and what is allowed below.
    grants: Option<Grants>,
    requested: Option<BTreeSet<Capability>>,
    allowed_hosts: Option<Vec<String>>,
    /// What a manifest limits its plugin to, where it is not the manifest that grants.
    requested_hosts: Option<Vec<String>>,
    allowed_paths: BTreeMap<String, String>,
    http_headers: bool,
    pub(super) wasi: Option<GuestOutput>,
    pub(super) functions: Vec<HostFunction>,
    log: Option<Arc<dyn LogSink>>,
    kept_from: Option<LogLevel>,
    pub(super) dialect: Option<Dialect>,
    pub(super) abi: Option<Abi>,
    pub(super) abi_implied: Option<Abi>,
    result_forms: BTreeMap<String, ResultForm>,
    ready_instances: u32,
    snapshot: SnapshotPolicy,
}

impl std::fmt::Debug for PluginBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PluginBuilder").field("source", &self.source).finish_non_exhaustive()
    }
}

impl PluginBuilder {
    pub(crate) fn new(engine: Engine, source: Source) -> Self {
        Self {
            engine,
            source,
            name: None,
            digest: None,
            mode: InstanceMode::Fresh,
            limits: Limits::default(),
            config: BTreeMap::new(),
            config_values: Map::new(),
            version: String::new(),
            reason: LifeReason::default(),
            grants: None,
            requested: None,
            allowed_hosts: None,
            requested_hosts: None,
            allowed_paths: BTreeMap::new(),
            http_headers: false,
            wasi: Some(GuestOutput::Discard),
            functions: Vec::new(),
            log: None,
            kept_from: None,
            dialect: None,
            abi: None,
            abi_implied: None,
            result_forms: BTreeMap::new(),
            ready_instances: 0,
            snapshot: SnapshotPolicy::default(),
        }
    }

    /// The name in errors, logs and metrics, instead of the file's.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// The author's version, which the plugin is told at `plugin.load`.
    pub fn version(mut self, version: impl Into<String>) -> Self {
        self.version = version.into();
        self
    }

    /// Why the plugin is loaded, which it is told at `plugin.load`.
    pub fn life_reason(mut self, reason: LifeReason) -> Self {
        self.reason = reason;
        self
    }

    /// Refuses to load anything but the main module with this SHA-256, in hexadecimal.
    pub fn digest(mut self, sha256: impl Into<String>) -> Self {
        self.digest = Some(sha256.into());
        self
    }

    /// How long instances live.
    pub fn mode(mut self, mode: InstanceMode) -> Self {
        self.mode = mode;
        self
    }

    /// Limits of memory, time and so on.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// A value that guests read with `config_get`.
    pub fn config(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        let (key, value) = (key.into(), value.into());
        self.config_values.insert(key.clone(), Value::String(value.clone()));
        self.config.insert(key, value);
        self
    }

    /// Every member of a JSON object as a value that guests read with `config_get`; what is no string
    /// appears as JSON.
    pub fn config_object(mut self, object: &Value) -> Self {
        for (key, value) in object.as_object().into_iter().flatten() {
            self.config.insert(key.clone(), config_text(value));
            self.config_values.insert(key.clone(), value.clone());
        }
        self
    }

    /// What the plugin is granted, beside what [`PluginBuilder::allow_host`] and
    /// [`PluginBuilder::allow_path`] add. With this a manifest's own `allowed_hosts` and `allowed_paths` grant
    /// nothing: they are what its plugin asks for; and the modules that a manifest's file names have to lie in
    /// its own folder.
    pub fn grants(mut self, grants: Grants) -> Self {
        self.grants = Some(grants);
        self
    }

    /// What the plugin asks for. What it does not ask for it is not given, whatever is granted. Without this
    /// it asks for whatever its imports need.
    pub fn requests(mut self, capabilities: BTreeSet<Capability>) -> Self {
        self.requested = Some(capabilities);
        self
    }

    /// A host, or glob pattern of hosts, that guests may ask over HTTP. Addresses that are not on the public
    /// Internet have to be named exactly: `127.0.0.1`, `[::1]`, `localhost`; a pattern does not reach them.
    pub fn allow_host(mut self, pattern: impl Into<String>) -> Self {
        self.allowed_hosts.get_or_insert_default().push(pattern.into());
        self
    }

    /// A host directory that guests with WASI see as `guest`; `ro:` before the former makes it read-only.
    pub fn allow_path(mut self, host: impl Into<String>, guest: impl Into<String>) -> Self {
        self.allowed_paths.insert(host.into(), guest.into());
        self
    }

    /// Lets guests read the header fields of responses to their requests.
    pub fn with_http_headers(mut self) -> Self {
        self.http_headers = true;
        self
    }

    /// Leaves WASI's functions undefined.
    pub fn without_wasi(mut self) -> Self {
        self.wasi = None;
        self
    }

    /// Defines WASI's functions, which is the default, with this output.
    pub fn with_wasi(mut self, output: GuestOutput) -> Self {
        self.wasi = Some(output);
        self
    }

    /// A function that guests may import. The last of a name wins.
    pub fn host_function(mut self, function: HostFunction) -> Self {
        self.functions.push(function);
        self
    }

    /// Takes the guests' log lines instead of `tracing`.
    pub fn log(mut self, sink: Arc<dyn LogSink>) -> Self {
        self.log = Some(sink);
        self
    }

    /// Keeps log lines from this level on for [`Plugin::log_tail`](crate::Plugin::log_tail), also those that
    /// the sink does not take. Without this, those that it takes are kept.
    pub fn keep_log(mut self, from: LogLevel) -> Self {
        self.kept_from = Some(from);
        self
    }

    /// The dialect, where the exports do not tell.
    pub fn dialect(mut self, dialect: Dialect) -> Self {
        self.dialect = Some(dialect);
        self
    }

    /// The calling convention, where imports and exports do not tell.
    pub fn abi(mut self, abi: Abi) -> Self {
        self.abi = Some(abi);
        self
    }

    /// The convention of the system that the plugin is described for: what it is unless it imports what only another
    /// convention has.
    pub fn abi_implied(mut self, abi: Abi) -> Self {
        self.abi_implied = Some(abi);
        self
    }

    /// What a capability returns, for guests of the capability convention whose exports return a pointer and no
    /// length: [`ResultForm::Auto`] unless said otherwise.
    pub fn result_form(mut self, capability: impl Into<String>, form: ResultForm) -> Self {
        self.result_forms.insert(capability.into(), form);
        self
    }

    /// Whether initialisation runs once, when the plugin is loaded, and instances begin where it ended.
    pub fn snapshot(mut self, policy: SnapshotPolicy) -> Self {
        self.snapshot = policy;
        self
    }

    /// Instances to keep ready ahead of calls, made on another thread.
    pub fn ready_instances(mut self, count: u32) -> Self {
        self.ready_instances = count;
        self
    }

    /// Reads, compiles, links and starts the plugin.
    ///
    /// # Errors
    ///
    /// See [`Engine::load`].
    pub fn load(self) -> Result<Plugin, Error> {
        let name: Arc<str> = self.name.clone().unwrap_or_else(|| self.source.default_name()).into();
        self.load_as(&name).map_err(|error| error.of(&name))
    }

    /// Says what the source is, without compiling or starting it.
    ///
    /// # Errors
    ///
    /// When the source cannot be read, or is no plugin of a known convention.
    pub fn inspect(mut self) -> Result<Inspection, Error> {
        match self.read()? {
            Parts::Modules(modules) => self.examine(&modules),
            Parts::Component(bytes) => Ok(component::examine(&bytes)?.0),
        }
    }

    fn read(&mut self) -> Result<Parts, Error> {
        let source = std::mem::replace(&mut self.source, Source::Bytes(Vec::new()));
        let home = Home::of(&source);
        match source.read()? {
            Content::Module(bytes) => Ok(Parts::Modules(vec![NamedModule::new(MAIN.to_owned(), bytes)])),
            Content::Component(bytes) => Ok(Parts::Component(bytes)),
            Content::Manifest(manifest) => self.adopt(*manifest, &home).map(Parts::Modules),
        }
    }

    fn load_as(mut self, name: &Arc<str>) -> Result<Plugin, Error> {
        match self.read()? {
            Parts::Modules(modules) => self.load_modules(name, modules),
            Parts::Component(bytes) => self.load_component(name, bytes),
        }
    }

    /// Refuses what is not what was meant.
    pub(super) fn check_digest(&self, found: &str) -> Result<(), Error> {
        match &self.digest {
            Some(expected) if !expected.eq_ignore_ascii_case(found) => {
                Err(Error::source(format!("Hash mismatch, found {found} but expected {expected}")))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn pool_plan(&self) -> PoolPlan {
        PoolPlan {
            mode: self.mode,
            common: Common::new(self.limits.instances_max, self.limits.queue_max),
            ready_wanted: self.ready_instances.min(self.limits.instances_max),
            nursery: self.engine.nursery().clone(),
            visit_slots: self.engine.visit_slots().clone(),
        }
    }

    fn load_modules(mut self, name: &Arc<str>, modules: Vec<NamedModule>) -> Result<Plugin, Error> {
        let inspection = self.examine(&modules)?;
        self.check_digest(&inspection.digest)?;
        let abi = inspection.abi;
        let (foreign, given_memory) = self.foreign(abi, &modules)?;
        let modules = self.lowered(abi, modules)?;
        let authority = self.authority(name);
        let log = authority.log().clone();
        let deadline = self.limits.deadline;
        let budgeted = self.limits.growth_pages_max.is_some();
        let plan = self.pool_plan();
        let event =
            LifeEvent { plugin: name.to_string(), version: self.version.clone(), reason: self.reason };
        let config = Value::Object(std::mem::take(&mut self.config_values));
        let load = LoadQuestion::of(inspection.dialect, &inspection.exports, event, &config)?;
        let (core_dumps, tally) = (Arc::<CoreDumps>::default(), Arc::<Tally>::default());
        let linking = Linking {
            load: load.map(Arc::new),
            snapshot: self.snapshot,
            core_dumps: core_dumps.clone(),
            tally: tally.clone(),
            name: name.clone(),
            abi,
            foreign,
            given_memory,
            modules,
            mode: self.mode,
            limits: self.limits,
            config: self.config,
            authority: Arc::new(authority),
            http_headers: self.http_headers,
            wasi: self.wasi,
            functions: self.functions,
        };
        let stage = Arc::new(linking).link(&self.engine, &plan.common.vars)?;
        let Stage { template, tier, snapshot, later } = stage;
        let pool = Pool::new(Template::Core(Box::new(template)), plan);
        if let Some(command) = pool.template.command() {
            runtime::block_on(command.check_command())?;
        } else {
            match runtime::block_on(pool.make()) {
                Ok(guest) => pool.stock(guest),
                // As in the reference, a `max_pages` that main does not fit is the first call's failure.
                Err(error) if budgeted && error.kind() == ErrorKind::Start(Fault::Memory) => {
                    tracing::warn!(plugin = %name, %error, "every call will fail");
                }
                Err(error) => return Err(error),
            }
        }
        let dialect = inspection.dialect;
        let admitted = Admitted {
            name: name.clone(),
            mode: self.mode,
            deadline,
            dialect,
            inspection,
            log,
            serving: ArcSwap::from_pointee(Serving { pool, tier, snapshot }),
            core_dumps,
            tally,
        };
        let admitted = Arc::new(admitted);
        if let Some(later) = later {
            admitted.improve(&self.engine, later);
        }
        Ok(Plugin { admitted })
    }

    /// What main imports in the words of its convention, and whether its memory is among it.
    fn foreign(&self, abi: Abi, modules: &[NamedModule]) -> Result<(Vec<Imported>, bool), Error> {
        let Some(main) = modules.iter().find(|module| module.name == MAIN) else {
            return Ok((Vec::new(), false));
        };
        let own =
            |from: &str, name: &str| self.functions.iter().any(|own| own.module == from && own.name == name);
        let imports = &main.inspect()?.imports;
        let foreign = imports.iter().filter(|(from, name, _)| !own(from, name));
        let foreign = foreign.filter_map(|(from, name, kind)| abi.imported(from, name, kind)).collect();
        let memory = imports.iter().any(|(_, name, kind)| name == "memory" && *kind == ImportKind::Other);
        Ok((foreign, memory))
    }

    /// The modules as they are called.
    fn lowered(&self, abi: Abi, mut modules: Vec<NamedModule>) -> Result<Vec<NamedModule>, Error> {
        if abi != Abi::Extism && modules.len() > 1 {
            return Err(Error::format(format!("a plugin of the convention {abi} is one module")));
        }
        let Some(recipe) = abi.lowering(&self.result_forms) else { return Ok(modules) };
        for module in &mut modules {
            let lower = || abi.lower(&module.bytes, &self.result_forms);
            let lowered = match self.engine.cache() {
                Some(cache) => cache.get_or_rewrite(module.digest(), &recipe, lower)?,
                None => lower()?,
            };
            *module = NamedModule::derived(module, &recipe, lowered);
        }
        Ok(modules)
    }

    /// Everything that was granted, whichever way.
    pub(super) fn authority(&mut self, name: &Arc<str>) -> Authority {
        let mut granted = self.grants.take().unwrap_or_default();
        if let Some(hosts) = self.allowed_hosts.take().filter(|hosts| !hosts.is_empty()) {
            granted.http.get_or_insert_with(HttpScope::default).hosts.extend(hosts);
        }
        granted.files.append(&mut self.allowed_paths);
        let sink = self.log.take().unwrap_or_else(|| Arc::new(TracingLog { plugin: name.clone() }));
        let log = PluginLog::new(sink, granted.log, self.kept_from);
        let (requested, requested_hosts) = (self.requested.take(), self.requested_hosts.take());
        let permissions = Permissions { granted, requested, requested_hosts };
        Authority::new(name, permissions, self.engine.services(), &self.limits, Arc::new(log))
    }

    /// Takes over what a manifest says, and gets its modules.
    fn adopt(&mut self, mut manifest: Manifest, home: &Home) -> Result<Vec<NamedModule>, Error> {
        for (key, value) in &manifest.config {
            self.config.entry(key.clone()).or_insert_with(|| value.clone());
            self.config_values.entry(key.clone()).or_insert_with(|| Value::String(value.clone()));
        }
        if self.grants.is_some() {
            self.requested_hosts.clone_from(&manifest.allowed_hosts);
        } else {
            if self.allowed_hosts.is_none() {
                self.allowed_hosts.clone_from(&manifest.allowed_hosts);
            }
            for (host, guest) in manifest.allowed_paths.iter().flatten() {
                self.allowed_paths.entry(host.clone()).or_insert_with(|| guest.clone());
            }
        }
        self.adopt_limits(&manifest);
        let engine = self.engine.clone();
        // Whoever wrote the manifest is not whom the grants are from.
        let reach = match self.grants {
            Some(_) => Reach::from(PrivateAddresses::default()),
            None => Reach::EVERYWHERE,
        };
        if self.grants.is_some() {
            manifest.check_modest()?;
            match home {
                Home::Program => {}
                Home::Folder(folder) => manifest.confine(Some(folder))?,
                Home::Nowhere => manifest.confine(None)?,
            }
        }
        manifest.modules(&|request| fetch(&engine, HttpExchange { reach: reach.clone(), ..request }))
    }

    /// Where an operator decides, a manifest may lower limits and not raise them.
    fn adopt_limits(&mut self, manifest: &Manifest) {
        let (memory, limits) = (&manifest.memory, &mut self.limits);
        let timeout = manifest.timeout_ms.map(Duration::from_millis);
        let pages = memory.max_pages;
        let (http, vars) = (memory.max_http_response_bytes, memory.max_var_bytes);
        if self.grants.is_some() {
            limits.deadline = limits.deadline.into_iter().chain(timeout).min();
            limits.growth_pages_max = limits.growth_pages_max.into_iter().chain(pages).min();
            let lower = |limit: u64, asked: Option<u64>| asked.map_or(limit, |asked| asked.min(limit));
            limits.http_response_bytes_max = lower(limits.http_response_bytes_max, http);
            limits.var_bytes_max = lower(limits.var_bytes_max, vars);
            return;
        }
        limits.deadline = limits.deadline.or(timeout);
        limits.growth_pages_max = pages.or(limits.growth_pages_max);
        limits.http_response_bytes_max = http.unwrap_or(limits.http_response_bytes_max);
        limits.var_bytes_max = vars.unwrap_or(limits.var_bytes_max);
    }

    fn examine(&self, modules: &[NamedModule]) -> Result<Inspection, Error> {
        let main = modules.iter().find(|module| module.name == MAIN);
        let main = main.ok_or_else(|| Error::format("No wasm files specified in Extism manifest"))?;
        let found = main.inspect()?.clone();
        let exports = found.functions.iter().map(String::as_str);
        let abi = self.abi.unwrap_or_else(|| Abi::recognise(&found, self.abi_implied));
        let dialect = self.dialect.or_else(|| dialect::recognise(exports, abi.native_dialect()));
        let answered = |entries: &[String]| {
            dialect.map(|dialect| dialect::answered(dialect, entries).collect::<Vec<_>>()).unwrap_or_default()
        };
        let (heard, mut all) = (answered(&abi.heard(&found)), answered(&abi.entries(&found.functions)));
        // Where plugins let things pass or not, an export that returns nothing is none.
        all.retain(|hook| {
            let counts = heard.contains(hook) || !NamedHook::find(hook).is_some_and(NamedHook::judges);
            if !counts {
                tracing::warn!(
                    plugin = self.name.as_deref().unwrap_or_default(), hook,
                    "its export for this hook has no result, and is not asked: give it the type (i32, i32) -> i64"
                );
            }
            counts
        });
        let is_bindable = |hook: &&str| NamedHook::find(hook).is_some_and(NamedHook::is_bindable);
        let (hooks, lifecycle) = all.into_iter().partition(is_bindable);
        let capabilities = capabilities(abi, &found.imports);
        let imports = found.imports.into_iter().map(|(module, name, _)| Import { module, name });
        let imports: Vec<Import> = imports.collect();
        Ok(Inspection {
            abi,
            dialect,
            hooks,
            lifecycle,
            capabilities,
            exports: found.functions,
            imports,
            memories: found.memories,
            digest: main.digest().to_owned(),
            size_bytes: modules.iter().map(|module| module.bytes.len() as u64).sum(),
            modules: modules.len(),
        })
    }
}

/// What a source came to.
enum Parts {
    Modules(Vec<NamedModule>),
    Component(Vec<u8>),
}

/// Where a manifest is from, which says what files it may name.
enum Home {
    /// Made by the program that loads it, which knows what it names.
    Program,
    Folder(PathBuf),
    Nowhere,
}

impl Home {
    fn of(source: &Source) -> Self {
        match source {
            Source::Manifest(_) => Self::Program,
            Source::Bytes(_) => Self::Nowhere,
            Source::File(path) => match path.parent() {
                Some(folder) if !folder.as_os_str().is_empty() => Self::Folder(folder.to_owned()),
                _ => Self::Folder(".".into()),
            },
        }
    }
}

/// What imports ask for. What needs no grant, such as the kernel, is not listed.
fn capabilities(abi: Abi, imports: &[(String, String, ImportKind)]) -> Vec<Capability> {
    let mut asked: Vec<Capability> = imports
        .iter()
        .filter_map(|(module, name, kind)| match (module.as_str(), name.as_str()) {
            ("extism:host/env", "http_request") => Some(Capability::Http),
            ("extism:host/env", "var_get" | "var_set") => Some(Capability::Vars),
            ("extism:host/env", name) if name.starts_with("log_") => Some(Capability::Log),
            ("extism:host/env", _) => None,
            ("wasi_snapshot_preview1", "path_open") => Some(Capability::FilesRead),
            ("wasi_snapshot_preview1", "clock_time_get") => Some(Capability::Clock),
            ("wasi_snapshot_preview1", "random_get") => Some(Capability::Random),
            ("wasi_snapshot_preview1", _) => Some(Capability::Wasi),
            (module, name) if abi != Abi::Extism => {
                if *kind == ImportKind::Other {
                    return None;
                }
                let known = abi.imported(module, name, kind);
                known.map_or(Some(Capability::HostFunctions), |known| known.needs())
            }
            (module, name) => {
                Some(extism::capability(module, name, kind).unwrap_or(Capability::HostFunctions))
            }
        })
        .collect();
    asked.sort_unstable();
    asked.dedup();
    asked
}

/// Gets a module from its address.
fn fetch(engine: &Engine, request: HttpExchange) -> Result<Vec<u8>, Error> {
    let url = request.url.clone();
    let fail = |why: String| Error::source(format!("unable to fetch {url}: {why}"));
    let client = engine.http().cloned().unwrap_or_else(|| Arc::new(NoClient));
    let grant = HttpGrant {
        plugin: "".into(),
        client,
        hosts: HostList::all(),
        requested_hosts: None,
        methods: BTreeSet::new(),
        reach: request.reach.clone(),
        response_bytes_max: request.response_bytes_max,
        timeout: None,
    };
    match runtime::block_on(grant.fetch(request)) {
        Ok(reply) if (200..300).contains(&reply.status) => Ok(reply.body),
        Ok(reply) => Err(fail(format!("the server answered with status {}", reply.status))),
        Err(refusal) => Err(fail(refusal.to_string())),
    }
}
