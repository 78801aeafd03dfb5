//! Authority as values.
//!
//! A guest reaches outside only through what its plugin's [`Authority`] holds. What was not granted has no
//! value there; the function that a guest imports is linked all the same, ends the call, and says which
//! grant is missing. The capabilities themselves are the embedder's ([`Services`]): `cardan-services` has
//! real ones.

mod cache;
pub(crate) mod calls;
mod http;
mod kv;
mod log;
mod metrics;
mod secrets;
mod sql;

use std::collections::BTreeSet;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use cardan_api::grants::{Access, Grants};
use cardan_api::{Capability, Fault, Limits};

pub use cache::{Cache, CacheClaim, CacheKey, CacheLookup};
pub use cardan_api::grants::LogLevel;
pub(crate) use http::{Head, HostList, HttpGrant, HttpRefusal, NoClient};
pub use http::{HttpClient, HttpExchange, HttpFailure, HttpReply};
pub use kv::{KvEntry, KvPage, KvScan, KvSpace, KvStore};
pub use log::{LogLine, LogSink, LogTail, TracingLog};
pub(crate) use log::{PluginLog, unix_ms};
pub use metrics::{Metrics, MetricsSpace, Sample, SampleKind};
pub use secrets::{Secret, SecretStore};
pub use sql::{SqlDatabase, SqlFailure, SqlQuery, SqlResult};

/// What carries out the calls that guests are granted. What is missing is said when it is called.
#[derive(Clone, Default)]
pub struct Services {
    /// Outgoing HTTP.
    pub http: Option<Arc<dyn HttpClient>>,
    /// Key-value stores.
    pub kv: Option<Arc<dyn KvStore>>,
    /// Caches.
    pub cache: Option<Arc<dyn Cache>>,
    /// Databases.
    pub sql: Option<Arc<dyn SqlDatabase>>,
    /// Metrics.
    pub metrics: Option<Arc<dyn Metrics>>,
    /// Secrets.
    pub secrets: Option<Arc<dyn SecretStore>>,
}

impl fmt::Debug for Services {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Services")
            .field("http", &self.http.is_some())
            .field("kv", &self.kv.is_some())
            .field("cache", &self.cache.is_some())
            .field("sql", &self.sql.is_some())
            .field("metrics", &self.metrics.is_some())
            .field("secrets", &self.secrets.is_some())
            .finish()
    }
}

/// What a capability returns that may have to wait. The guest is suspended meanwhile, not the thread; its
/// deadline bounds the wait, and a call that is given up drops the future.
pub type Waiting<T> = Pin<Box<dyn Future<Output = Result<T, ServiceFailure>> + Send>>;

/// Why a capability has no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServiceFailure {
    /// What the plugin may use up is used up: which cap it is, and what raises it.
    Full(String),
    /// What the guest asked for cannot be meant.
    Invalid(String),
    /// Not within the time allowed.
    Timeout,
    /// The service itself failed. For operators.
    Unavailable(String),
}

/// A guest's call to a capability that ends the call of the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) fault: Fault,
    message: String,
}

impl Refusal {
    pub(crate) fn denied(message: impl Into<String>) -> Self {
        Self { fault: Fault::Denied, message: message.into() }
    }

    pub(crate) fn protocol(message: impl Into<String>) -> Self {
        Self { fault: Fault::Protocol, message: message.into() }
    }

    pub(crate) fn memory(message: impl Into<String>) -> Self {
        Self { fault: Fault::Memory, message: message.into() }
    }

    pub(crate) fn host(message: impl Into<String>) -> Self {
        Self { fault: Fault::Host, message: message.into() }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Refusal {}

/// What one plugin may do.
#[derive(Debug)]
pub(crate) struct Authority {
    plugin: Arc<str>,
    /// What the operator granted.
    granted: Grants,
    /// What is left of it after asking.
    grants: Grants,
    requested: Option<BTreeSet<Capability>>,
    services: Services,
    http: Option<HttpGrant>,
    log: Arc<PluginLog>,
}

/// What an [`Authority`] is made from.
pub(crate) struct Permissions {
    pub(crate) granted: Grants,
    /// `None`: whatever its imports need.
    pub(crate) requested: Option<BTreeSet<Capability>>,
    /// Hosts that the plugin's own manifest limits it to.
    pub(crate) requested_hosts: Option<Vec<String>>,
}

impl Authority {
    pub(crate) fn new(
        plugin: &Arc<str>,
        permissions: Permissions,
        services: Services,
        limits: &Limits,
        log: Arc<PluginLog>,
    ) -> Self {
        let Permissions { granted, requested, requested_hosts } = permissions;
        let grants = match &requested {
            Some(requested) => granted.clone().asked_for(requested),
            None => granted.clone(),
        };
        let http = grants.http.as_ref().map(|scope| {
            let client = services.http.clone().unwrap_or_else(|| Arc::new(NoClient));
            let response_bytes_max = scope.response_bytes_max.unwrap_or(limits.http_response_bytes_max);
            HttpGrant {
                plugin: Arc::from(&**plugin),
                client,
                hosts: HostList::new(scope.hosts.iter().cloned()),
                requested_hosts: requested_hosts.map(HostList::new),
                methods: scope.methods.clone(),
                reach: scope.reach(),
                response_bytes_max,
                timeout: scope.timeout,
            }
        });
        Self { plugin: plugin.clone(), granted, grants, requested, services, http, log }
    }

    pub(crate) fn grants(&self) -> &Grants {
        &self.grants
    }

    /// Outgoing HTTP, or why there is none.
    pub(crate) fn http(&self) -> Option<&HttpGrant> {
        self.http.as_ref()
    }

    pub(crate) fn log(&self) -> &Arc<PluginLog> {
        &self.log
    }

    /// Whether `function`, which needs `capability`, may be called at all.
    pub(crate) fn allow(&self, function: &str, capability: Capability) -> Result<(), Refusal> {
        if self.grants.has(capability) { Ok(()) } else { Err(self.denied(function, capability)) }
    }

    /// The sentence for a call that is not allowed: what has to be written where to allow it.
    pub(crate) fn denied(&self, what: &str, capability: Capability) -> Refusal {
        self.denied_unless(what, capability, capability.grant())
    }

    /// The sentence for a call that no grant allows.
    pub(crate) fn denied_to_all(&self, what: &str) -> Refusal {
        Refusal::denied(format!(
            "{what} is not there for plugins; plugin {:?} has to do without it",
            self.plugin
        ))
    }

    /// As [`Authority::denied`], where the grant has a name in it.
    pub(crate) fn denied_unless(&self, what: &str, capability: Capability, grant: &str) -> Refusal {
        let plugin = &self.plugin;
        let asked = self.requested.as_ref().is_none_or(|requested| requested.contains(&capability));
        Refusal::denied(if asked {
            format!("{what} is not granted: add \"{grant}\" to the grants of plugin {plugin:?}")
        } else if self.granted.has(capability) {
            format!(
                "{what} is not asked for: the manifest of plugin {plugin:?} has to list \"{capability}\" among \
                 its permissions"
            )
        } else {
            format!(
                "{what} is neither asked for nor granted: the manifest of plugin {plugin:?} has to list \
                 \"{capability}\" among its permissions, and its grants need \"{grant}\""
            )
        })
    }

    /// What a failure of a service means for the call.
    fn failed(&self, function: &str, failure: ServiceFailure) -> Refusal {
        let plugin = &self.plugin;
        match failure {
            ServiceFailure::Full(why) => {
                Refusal { fault: Fault::Memory, message: format!("{function}: {why} of plugin {plugin:?}") }
            }
            ServiceFailure::Invalid(why) => Refusal::protocol(format!("{function}: {why}")),
            ServiceFailure::Timeout => {
                Refusal { fault: Fault::Deadline, message: format!("{function}: timeout") }
            }
            ServiceFailure::Unavailable(why) => Refusal::host(format!("{function}: {why}")),
        }
    }

    /// Says that the engine was made without a service.
    fn missing(&self, function: &str, service: &str) -> Refusal {
        Refusal::host(format!(
            "{function}: this engine was made without {service} (services.{service} in cardan.yaml, \
             EngineConfig::services in a program)"
        ))
    }

    /// Whether a grant for a connection, or another named thing, is enough.
    fn enough(granted: Option<Access>, needed: Access) -> bool {
        granted.is_some_and(|granted| granted >= needed)
    }
}
