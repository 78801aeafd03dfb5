//! `services` in `cardan.yaml`: what stands behind plugins' grants.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cardan::{Secret, Services};
use cardan_api::manifest::Bytes;
use cardan_manager::PluginSpec;
use cardan_services::{
    CacheLimits, HttpService, MemoryCache, MemoryKv, MemorySecrets, MetricsRegistry, SqlPools, SqlTarget,
    SqliteKv, wall_clock,
};
use schemars::JsonSchema;
use serde::Deserialize;

use super::source::{Environment, substitute};
use crate::output::Failure;

/// Where the key-value store is, in the state directory.
const KV_FILE: &str = "kv.sqlite";
/// Longest secret.
const SECRET_BYTES_MAX: u64 = 64 << 10;

/// What plugins may be granted. Read at the start only.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Services")]
pub(crate) struct ServicesEntry {
    /// Where plugins' key-value stores are kept.
    kv: KvEntry,
    /// The caches that plugins share.
    cache: CacheEntry,
    /// Database connections by name.
    sql: BTreeMap<String, SqlEntry>,
    /// Secrets by name.
    secrets: BTreeMap<String, SecretEntry>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "KvService")]
struct KvEntry {
    /// A SQLite file for this gateway alone, relative to this file; in the state directory unless said
    /// otherwise.
    file: Option<PathBuf>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "CacheService")]
struct CacheEntry {
    /// All entries of one space; 64 MiB unless said otherwise.
    space: Option<Bytes>,
}

/// One database connection.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "SqlService")]
struct SqlEntry {
    /// `sqlite:FILE`, relative to this file, or `postgres://USER:PASSWORD@HOST/DATABASE`, with
    /// `?sslmode=require` for TLS. `${NAME}` stands for an environment variable.
    address: String,
    /// Certificates (PEM) to trust instead of this machine's, relative to this file.
    #[serde(default)]
    ca: Option<PathBuf>,
}

/// Where one secret is kept.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
enum SecretEntry {
    /// A file, relative to this one. A line break at its end is not part of the secret.
    File(PathBuf),
    /// An environment variable.
    Env(String),
}

/// What stands behind grants, once it is opened.
#[derive(Debug)]
pub(crate) struct Capabilities {
    pub(crate) services: Services,
    /// What plugins measure.
    pub(crate) metrics: MetricsRegistry,
}

impl Capabilities {
    /// For commands that keep nothing: stores in memory, no databases and no secrets.
    pub(crate) fn passing() -> Result<Self, Failure> {
        Self::with(
            Services { kv: Some(Arc::new(MemoryKv::default())), ..Services::default() },
            CacheLimits::default(),
        )
    }

    /// For one call, with the key-value store of the state directory `dir`.
    pub(crate) fn kept(dir: &Path) -> Result<Self, Failure> {
        std::fs::create_dir_all(dir)
            .map_err(|error| Failure::unusable(format_args!("--state {}: {error}", dir.display())))?;
        let kv = KvEntry::default().open(Path::new(""), Some(dir))?;
        Self::with(Services { kv: Some(kv), ..Services::default() }, CacheLimits::default())
    }

    /// What there is always, beside `own`.
    fn with(own: Services, cache: CacheLimits) -> Result<Self, Failure> {
        let metrics = MetricsRegistry::default();
        let services = Services {
            http: Some(Arc::new(HttpService::new().map_err(Failure::failed)?)),
            cache: Some(Arc::new(MemoryCache::new(cache))),
            metrics: Some(Arc::new(metrics.clone())),
            ..own
        };
        Ok(Self { services, metrics })
    }
}

impl ServicesEntry {
    /// Refuses grants of what is not here: found out now, and not by the first request.
    pub(super) fn check(&self, plugins: &[PluginSpec]) -> Result<(), Failure> {
        for plugin in plugins {
            let name = &plugin.name;
            let missing = plugin.grants.sql.keys().find(|connection| !self.sql.contains_key(*connection));
            if let Some(connection) = missing {
                return Err(Failure::unusable(format_args!(
                    "plugin {name}: grants.sql: there is no connection {connection:?}; add it to services.sql"
                )));
            }
            let missing = plugin.grants.secrets.iter().find(|secret| !self.secrets.contains_key(*secret));
            if let Some(secret) = missing {
                return Err(Failure::unusable(format_args!(
                    "plugin {name}: grants.secrets: there is no secret {secret:?}; add it to services.secrets"
                )));
            }
        }
        Ok(())
    }

    /// Opens what plugins may be granted. `base` is where the file lies; without a state directory, and
    /// without a file, key-value stores end with this process.
    pub(crate) fn open(
        &self,
        base: &Path,
        state: Option<&Path>,
        environment: Environment<'_>,
    ) -> Result<Capabilities, Failure> {
        let sql = self.sql.iter().map(|(name, entry)| {
            let target = entry.target(base, environment);
            let target =
                target.map_err(|why| Failure::unusable(format_args!("services.sql.{name}: {why}")))?;
            Ok((name.clone(), target))
        });
        let sql = SqlPools::new(sql.collect::<Result<Vec<_>, Failure>>()?);
        let sql = sql.map_err(|error| Failure::unusable(format_args!("services.sql: {error}")))?;
        let secrets = self.secrets.iter().map(|(name, entry)| {
            let secret = entry.read(base, environment);
            let secret =
                secret.map_err(|why| Failure::unusable(format_args!("services.secrets.{name}: {why}")))?;
            Ok((name.clone(), secret))
        });
        let secrets: MemorySecrets = secrets.collect::<Result<_, Failure>>()?;
        let services = Services {
            kv: Some(self.kv.open(base, state)?),
            sql: Some(Arc::new(sql)),
            secrets: Some(Arc::new(secrets)),
            ..Services::default()
        };
        let defaults = CacheLimits::default();
        let space_bytes_max = self.cache.space.map_or(defaults.space_bytes_max, |bytes| bytes.0);
        Capabilities::with(services, CacheLimits { space_bytes_max, ..defaults })
    }
}

impl KvEntry {
    fn open(&self, base: &Path, state: Option<&Path>) -> Result<Arc<dyn cardan::KvStore>, Failure> {
        let file = match (&self.file, state) {
            (Some(file), _) => base.join(file),
            (None, Some(state)) => state.join(KV_FILE),
            (None, None) => {
                tracing::warn!(
                    "plugins' key-value stores end with this process: there is no state directory"
                );
                return Ok(Arc::new(MemoryKv::default()));
            }
        };
        Ok(Arc::new(SqliteKv::open(&file, wall_clock()).map_err(Failure::unusable)?))
    }
}

impl SqlEntry {
    fn target(&self, base: &Path, environment: Environment<'_>) -> Result<SqlTarget, String> {
        let address = substitute(&self.address, environment).map_err(|failure| failure.to_string())?;
        let target = SqlTarget::parse(&address).map_err(|error| error.to_string())?;
        let ca = self.ca.as_ref().map(|file| {
            let file = base.join(file);
            std::fs::read(&file).map_err(|error| format!("ca: cannot read {}: {error}", file.display()))
        });
        Ok(match (target, ca.transpose()?) {
            (SqlTarget::Sqlite(_), Some(_)) => return Err("ca: a file needs no certificates".to_owned()),
            (SqlTarget::Sqlite(file), None) => SqlTarget::Sqlite(base.join(file)),
            (SqlTarget::Postgres(config, _), ca) => SqlTarget::Postgres(config, ca),
        })
    }
}

impl SecretEntry {
    /// An error says where the secret was looked for, and nothing of it.
    fn read(&self, base: &Path, environment: Environment<'_>) -> Result<Secret, String> {
        match self {
            Self::Env(name) => {
                let value = environment(name).filter(|value| !value.is_empty());
                value.map(Secret::new).ok_or_else(|| format!("the environment variable {name} is not set"))
            }
            Self::File(file) => {
                let file = base.join(file);
                let shown = file.display();
                let length = std::fs::metadata(&file).map_or(0, |metadata| metadata.len());
                if length > SECRET_BYTES_MAX {
                    return Err(format!("{shown} is larger than {SECRET_BYTES_MAX} bytes"));
                }
                let mut bytes =
                    std::fs::read(&file).map_err(|error| format!("cannot read {shown}: {error}"))?;
                let end =
                    bytes.iter().rposition(|byte| !matches!(byte, b'\n' | b'\r')).map_or(0, |last| last + 1);
                bytes.truncate(end);
                if bytes.is_empty() { Err(format!("{shown} is empty")) } else { Ok(Secret::new(bytes)) }
            }
        }
    }
}
