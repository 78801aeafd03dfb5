//! What a plugin may reach outside, as an operator grants it: resolved, plain data.
//!
//! What is not here is not linked. The numbers are what one plugin may use up; backends may allow less.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::address::{AddressRange, is_private};
use crate::capability::Capability;

/// Everything that one plugin is granted. The default is nothing but what every plugin may: log lines,
/// the time, random bytes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Grants {
    /// Outgoing HTTP.
    pub http: Option<HttpScope>,
    /// The plugin's own key-value store.
    pub kv: Option<KvScope>,
    /// A cache that plugins can share.
    pub cache: Option<CacheScope>,
    /// Databases, by the names of their connections.
    pub sql: BTreeMap<String, SqlScope>,
    /// Metrics of the plugin's own.
    pub metrics: Option<MetricsScope>,
    /// Which log lines are taken.
    pub log: LogScope,
    /// Reading the time.
    pub clock: Switch,
    /// Random bytes.
    pub random: Switch,
    /// Directories, host path to guest path; `ro:` before a host path makes it read-only.
    pub files: BTreeMap<String, String>,
    /// Names of secrets.
    pub secrets: BTreeSet<String>,
    /// Environment variables that WASI shows, with their values.
    pub env: BTreeMap<String, String>,
}

/// Something that is there unless it is switched off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum Switch {
    /// Granted.
    #[default]
    On,
    /// Using it ends the call.
    Off,
}

/// Whether something may be changed, or only looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Access {
    /// Looking only.
    Read,
    /// Looking and changing.
    Write,
}

/// Outgoing HTTP.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct HttpScope {
    /// Glob patterns on the host alone.
    pub hosts: Vec<String>,
    /// In upper case. Empty: all.
    pub methods: BTreeSet<String>,
    /// Addresses that are not the public Internet.
    pub private: PrivateAddresses,
    /// One response body, decoded. `None`: [`Limits::http_response_bytes_max`](crate::Limits).
    pub response_bytes_max: Option<u64>,
    /// One exchange, redirects included. `None`: what is left of the call's deadline.
    pub timeout: Option<Duration>,
}

/// Which addresses that are not the public Internet may be asked, beside those that `hosts` names exactly
/// (an address, or `localhost`).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum PrivateAddresses {
    /// These: addresses in the ranges, and whatever addresses these hosts have.
    Listed {
        /// Ranges of addresses.
        ranges: BTreeSet<AddressRange>,
        /// Names, in lower case.
        hosts: BTreeSet<String>,
    },
    /// All.
    Any,
}

impl Default for PrivateAddresses {
    fn default() -> Self {
        Self::Listed { ranges: BTreeSet::new(), hosts: BTreeSet::new() }
    }
}

/// Which addresses a request may be sent to once its host was found to be allowed. What connects has to go
/// by it, with the addresses it really connects to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Reach(PrivateAddresses);

impl From<PrivateAddresses> for Reach {
    fn from(private: PrivateAddresses) -> Self {
        Self(private)
    }
}

impl Reach {
    /// Every address there is.
    pub const EVERYWHERE: Self = Self(PrivateAddresses::Any);

    /// Whether `address`, which is one of `host`'s, may be connected to.
    pub fn permits(&self, host: &str, address: IpAddr) -> bool {
        match &self.0 {
            _ if !is_private(address) => true,
            PrivateAddresses::Any => true,
            PrivateAddresses::Listed { ranges, hosts } => {
                // Who says localhost means this machine, and not what a resolver makes of the word.
                let meant = host != "localhost" || address.to_canonical().is_loopback();
                ranges.iter().any(|range| range.contains(address)) || (hosts.contains(host) && meant)
            }
        }
    }
}

impl HttpScope {
    /// These hosts, with everything else as it is by default.
    pub fn hosts(hosts: impl IntoIterator<Item = String>) -> Self {
        Self { hosts: hosts.into_iter().collect(), ..Self::default() }
    }

    /// The addresses that may be connected to: `private`, and the hosts that are named as exactly that.
    pub fn reach(&self) -> Reach {
        let mut private = self.private.clone();
        if let PrivateAddresses::Listed { hosts, .. } = &mut private {
            let exact = self.hosts.iter().filter(|host| {
                *host == "localhost" || host.parse::<AddressRange>().is_ok_and(|_| !host.contains('/'))
            });
            hosts.extend(exact.cloned());
        }
        Reach(private)
    }
}

/// A plugin's own key-value store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KvScope {
    /// Whether it may be written to.
    pub access: Access,
    /// What it may hold.
    pub limits: KvLimits,
}

/// What one plugin's key-value store may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct KvLimits {
    /// Keys at once.
    pub keys_max: u64,
    /// Bytes of one value, and of one key.
    pub value_bytes_max: u64,
    /// All keys and values together.
    pub total_bytes_max: u64,
    /// How long an entry may live. `None`: for ever, unless it says otherwise itself.
    pub ttl_max: Option<Duration>,
}

impl Default for KvLimits {
    fn default() -> Self {
        Self { keys_max: 10_000, value_bytes_max: 64 << 10, total_bytes_max: 16 << 20, ttl_max: None }
    }
}

/// A cache that plugins can share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheScope {
    /// Whether it may be written to.
    pub access: Access,
    /// Which of the caches. Plugins that name the same one see each other's entries.
    pub space: String,
    /// Bytes of one value, and of one key.
    pub value_bytes_max: u64,
    /// How long an entry may live.
    pub ttl_max: Duration,
}

impl CacheScope {
    /// The cache of plugins that name none.
    pub const SHARED: &str = "shared";

    /// The shared cache with every default.
    pub fn shared(access: Access) -> Self {
        Self {
            access,
            space: Self::SHARED.to_owned(),
            value_bytes_max: 1 << 20,
            ttl_max: Duration::from_secs(24 * 3600),
        }
    }
}

/// One database connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SqlScope {
    /// Whether statements may change anything; otherwise the database itself refuses them.
    pub access: Access,
    /// Rows of one result.
    pub rows_max: u64,
    /// Bytes of one result, as JSON.
    pub result_bytes_max: u64,
    /// Time of one statement.
    pub timeout: Duration,
}

impl SqlScope {
    /// A connection with every default.
    pub fn new(access: Access) -> Self {
        Self { access, rows_max: 1000, result_bytes_max: 4 << 20, timeout: Duration::from_secs(5) }
    }
}

/// Metrics of a plugin's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetricsScope {
    /// Names.
    pub names_max: u64,
    /// Combinations of labels, over all names.
    pub series_max: u64,
}

impl Default for MetricsScope {
    fn default() -> Self {
        Self { names_max: 50, series_max: 1000 }
    }
}

/// How important a guest's log line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogLevel {
    /// Most detailed.
    Trace,
    /// For the plugin's author.
    Debug,
    /// Worth keeping.
    Info,
    /// Something is off.
    Warn,
    /// Something failed.
    Error,
}

impl LogLevel {
    /// Every one, least important first.
    pub const ALL: [Self; 5] = [Self::Trace, Self::Debug, Self::Info, Self::Warn, Self::Error];

    /// The name in configuration and in logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Trace => "trace",
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }
}

/// Which of a guest's log lines are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum LogScope {
    /// Those that the process log takes, and those that are to be kept.
    #[default]
    Asked,
    /// Those from this level on; they are kept whatever the process log takes.
    From(LogLevel),
    /// None.
    Off,
}

impl Grants {
    /// What is left for a plugin whose manifest asks for `requested` and nothing else. What every plugin may
    /// need not be asked for.
    #[must_use]
    pub fn asked_for(mut self, requested: &BTreeSet<Capability>) -> Self {
        let asks = |capability| requested.contains(&capability);
        let access = |granted, read, write| match granted {
            Access::Write if asks(write) => Some(Access::Write),
            Access::Write | Access::Read if asks(read) || asks(write) => Some(Access::Read),
            Access::Write | Access::Read => None,
        };
        self.http = self.http.filter(|_| asks(Capability::Http));
        self.kv = self.kv.and_then(|scope| {
            Some(KvScope { access: access(scope.access, Capability::KvRead, Capability::KvWrite)?, ..scope })
        });
        self.cache = self.cache.and_then(|scope| {
            let access = access(scope.access, Capability::CacheRead, Capability::CacheWrite)?;
            Some(CacheScope { access, ..scope })
        });
        let sql = self.sql.into_iter().filter_map(|(name, scope)| {
            let access = access(scope.access, Capability::SqlRead, Capability::SqlWrite)?;
            Some((name, SqlScope { access, ..scope }))
        });
        self.sql = sql.collect();
        self.metrics = self.metrics.filter(|_| asks(Capability::Metrics));
        if !asks(Capability::FilesWrite) {
            let files = if asks(Capability::FilesRead) { self.files } else { BTreeMap::new() };
            let read_only = |host: String| if host.starts_with("ro:") { host } else { format!("ro:{host}") };
            self.files = files.into_iter().map(|(host, guest)| (read_only(host), guest)).collect();
        }
        if !asks(Capability::Secrets) {
            self.secrets.clear();
        }
        if !asks(Capability::Env) {
            self.env.clear();
        }
        self
    }

    /// Whether anything of `capability` is granted. What belongs to loading rather than to a grant, such as
    /// WASI and the embedder's functions, always is.
    pub fn has(&self, capability: Capability) -> bool {
        let may = |granted: Option<Access>, needed| granted.is_some_and(|granted| granted >= needed);
        let kv = self.kv.as_ref().map(|scope| scope.access);
        let cache = self.cache.as_ref().map(|scope| scope.access);
        let sql = self.sql.values().map(|scope| scope.access).max();
        match capability {
            Capability::Http => self.http.is_some(),
            Capability::KvRead => may(kv, Access::Read),
            Capability::KvWrite => may(kv, Access::Write),
            Capability::CacheRead => may(cache, Access::Read),
            Capability::CacheWrite => may(cache, Access::Write),
            Capability::SqlRead => may(sql, Access::Read),
            Capability::SqlWrite => may(sql, Access::Write),
            Capability::Metrics => self.metrics.is_some(),
            Capability::Log => self.log != LogScope::Off,
            Capability::Clock => self.clock == Switch::On,
            Capability::Random => self.random == Switch::On,
            Capability::FilesRead => !self.files.is_empty(),
            Capability::FilesWrite => self.files.keys().any(|host| !host.starts_with("ro:")),
            Capability::Secrets => !self.secrets.is_empty(),
            Capability::Env => !self.env.is_empty(),
            Capability::Vars | Capability::Wasi | Capability::HostFunctions => true,
        }
    }
}

#[cfg(test)]
mod tests;
