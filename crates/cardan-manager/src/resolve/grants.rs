//! Grants, from what an operator wrote to what they mean.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use cardan_api::Capability;
use cardan_api::address::AddressRange;
use cardan_api::grants::{
    CacheScope, Grants, HttpScope, KvLimits, KvScope, LogScope, MetricsScope, PrivateAddresses, SqlScope,
    Switch,
};
use cardan_api::manifest::{
    AccessEntry, Bytes, CacheEntry, EnvEntry, GrantsEntry, HttpEntry, KvEntry, LogEntry, MetricsEntry,
    Milliseconds, PrivateEntry, Short, Shorthand as _, SqlEntry, SwitchEntry,
};
use glob::Pattern;

use super::Warning;

/// An error begins with the key's path within the entry.
pub(super) fn resolve_grants(entry: &GrantsEntry, base: &Path) -> Result<Grants, String> {
    let sql = entry.sql.iter().map(|(name, Short(entry))| match sql(entry) {
        Ok(scope) => Ok((name.clone(), scope)),
        Err(why) => Err(format!("grants.sql.{name}.{why}")),
    });
    let EnvEntry::Values(env) = &entry.env else {
        return Err(
            "grants.env: nobody has looked up the values of these names; write them as a map".to_owned()
        );
    };
    if let Some(name) = env.keys().find(|name| name.is_empty() || name.contains(['=', '\0'])) {
        return Err(format!("grants.env: {name:?} is no name of an environment variable"));
    }
    Ok(Grants {
        http: entry.http.as_ref().map(|Short(entry)| http(entry)).transpose()?,
        kv: entry.kv.as_ref().map(|Short(entry)| kv(entry)).transpose()?,
        cache: entry.cache.as_ref().map(|Short(entry)| cache(entry)).transpose()?,
        sql: sql.collect::<Result<_, _>>()?,
        metrics: entry.metrics.as_ref().map(|Short(entry)| metrics(*entry)),
        log: match entry.log {
            None => LogScope::Asked,
            Some(LogEntry::From(level)) => LogScope::From(level),
            Some(LogEntry::Off) => LogScope::Off,
        },
        clock: switch(entry.clock),
        random: switch(entry.random),
        files: files(&entry.files, base),
        secrets: entry.secrets.iter().cloned().collect(),
        env: env.clone(),
    })
}

fn switch(entry: Option<SwitchEntry>) -> Switch {
    match entry {
        None | Some(SwitchEntry::On) => Switch::On,
        Some(SwitchEntry::Off) => Switch::Off,
    }
}

fn http(entry: &HttpEntry) -> Result<HttpScope, String> {
    for (i, host) in entry.hosts.iter().enumerate() {
        Pattern::new(host).map_err(|error| format!("grants.http[{i}]: {host:?} is no pattern: {error}"))?;
        if host.contains(['/', ':']) && !host.starts_with('[') {
            return Err(format!(
                "grants.http[{i}]: {host:?} is more than a host; leave out scheme, port and path"
            ));
        }
    }
    let private = match &entry.private {
        None => PrivateAddresses::default(),
        Some(PrivateEntry::Any) => PrivateAddresses::Any,
        Some(PrivateEntry::Listed(items)) => private(items)?,
    };
    Ok(HttpScope {
        hosts: entry.hosts.clone(),
        methods: entry.methods.iter().map(|method| method.to_ascii_uppercase()).collect(),
        private,
        response_bytes_max: entry.response.map(|it| it.0),
        timeout: entry.timeout.map(Milliseconds::duration),
    })
}

fn private(items: &[String]) -> Result<PrivateAddresses, String> {
    let (mut ranges, mut hosts) = (std::collections::BTreeSet::new(), std::collections::BTreeSet::new());
    for (i, item) in items.iter().enumerate() {
        match item.parse::<AddressRange>() {
            Ok(range) => drop(ranges.insert(range)),
            Err(_) if item.is_empty() || item.contains(['/', ':', '*', '?', '[']) => {
                return Err(format!(
                    "grants.http.private[{i}]: {item:?} is no host, no address and no range of addresses such \
                     as 10.0.0.0/8"
                ));
            }
            Err(_) => drop(hosts.insert(item.to_ascii_lowercase())),
        }
    }
    Ok(PrivateAddresses::Listed { ranges, hosts })
}

fn kv(entry: &KvEntry) -> Result<KvScope, String> {
    let defaults = KvLimits::default();
    let limits = KvLimits {
        keys_max: entry.keys.unwrap_or(defaults.keys_max),
        value_bytes_max: entry.value.map_or(defaults.value_bytes_max, |it| it.0),
        total_bytes_max: entry.total.map_or(defaults.total_bytes_max, |it| it.0),
        ttl_max: lifetime(entry.ttl, "grants.kv.ttl")?,
    };
    Ok(KvScope { access: entry.access, limits })
}

fn cache(entry: &CacheEntry) -> Result<CacheScope, String> {
    let shared = CacheScope::shared(entry.access);
    let space = entry.space.clone().unwrap_or_else(|| shared.space.clone());
    if space.is_empty() {
        return Err("grants.cache.space: it is empty".to_owned());
    }
    let ttl_max = lifetime(entry.ttl, "grants.cache.ttl")?.unwrap_or(shared.ttl_max);
    let value_bytes_max = entry.value.map_or(shared.value_bytes_max, |it| it.0);
    Ok(CacheScope { access: entry.access, space, value_bytes_max, ttl_max })
}

/// An error begins with the key below the connection.
fn sql(entry: &SqlEntry) -> Result<SqlScope, String> {
    let defaults = SqlScope::new(entry.access);
    if entry.timeout == Some(Milliseconds(0)) {
        return Err("timeout: it is 0, so no statement could ever end in time".to_owned());
    }
    Ok(SqlScope {
        access: entry.access,
        rows_max: entry.rows.unwrap_or(defaults.rows_max),
        result_bytes_max: entry.result.map_or(defaults.result_bytes_max, |it| it.0),
        timeout: entry.timeout.map_or(defaults.timeout, Milliseconds::duration),
    })
}

fn metrics(entry: MetricsEntry) -> MetricsScope {
    let defaults = MetricsScope::default();
    MetricsScope {
        names_max: entry.names.unwrap_or(defaults.names_max),
        series_max: entry.series.unwrap_or(defaults.series_max),
    }
}

fn lifetime(entry: Option<Milliseconds>, key: &str) -> Result<Option<std::time::Duration>, String> {
    if entry == Some(Milliseconds(0)) {
        return Err(format!("{key}: it is 0, so nothing would ever be kept"));
    }
    Ok(entry.map(Milliseconds::duration))
}

fn files(entries: &BTreeMap<String, String>, base: &Path) -> BTreeMap<String, String> {
    entries.iter().map(|(host, guest)| (based(host, base), guest.clone())).collect()
}

/// A granted directory, relative to the configuration file like everything in it.
fn based(host: &str, base: &Path) -> String {
    let (mark, path) = host.strip_prefix("ro:").map_or(("", host), |path| ("ro:", path));
    format!("{mark}{}", base.join(path).display())
}

/// Adds capabilities that a foreign configuration grants by their names alone. What is said in `grants` already is
/// more exact, and stays. `kv` is what the configuration says about every key-value store. What cannot be meant by a
/// name comes back as a warning.
pub(super) fn allow(
    grants: &mut GrantsEntry,
    capabilities: &BTreeSet<Capability>,
    kv: &KvCaps,
) -> Vec<Warning> {
    let granted = |capability| capabilities.contains(&capability);
    let access = |read, write| match (granted(read), granted(write)) {
        (_, true) => Some(AccessEntry::Write),
        (true, false) => Some(AccessEntry::Read),
        (false, false) => None,
    };
    if granted(Capability::Http) && grants.http.is_none() {
        grants.http = HttpEntry::list(vec!["*".to_owned()]).map(Short);
    }
    if let (Some(access), None) = (access(Capability::KvRead, Capability::KvWrite), &grants.kv) {
        let KvCaps { keys, value, total } = *kv;
        let [value, total] = [value, total].map(|bytes| bytes.map(Bytes));
        grants.kv = Some(Short(KvEntry { access, keys, value, total, ttl: None }));
    }
    if let (Some(access), None) = (access(Capability::CacheRead, Capability::CacheWrite), &grants.cache) {
        grants.cache = Some(Short(CacheEntry { access, space: None, value: None, ttl: None }));
    }
    if granted(Capability::Metrics) && grants.metrics.is_none() {
        grants.metrics = MetricsEntry::word("on").map(Short);
    }
    let unsaid = [
        (
            access(Capability::FilesRead, Capability::FilesWrite),
            grants.files.is_empty(),
            "files",
            "which directories",
        ),
        (
            access(Capability::SqlRead, Capability::SqlWrite),
            grants.sql.is_empty(),
            "sql",
            "which connections",
        ),
    ];
    let unsaid = unsaid.into_iter().filter(|(asked, empty, ..)| asked.is_some() && *empty);
    unsaid
        .map(|(_, _, key, what)| {
            Warning(format!("{key} is granted without saying {what}; say so in its table, as grants.{key}"))
        })
        .collect()
}

/// What a foreign configuration says about every plugin's key-value store.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct KvCaps {
    pub(super) keys: Option<u64>,
    /// Bytes of one key or value.
    pub(super) value: Option<u64>,
    /// Bytes of all of a plugin's keys and values.
    pub(super) total: Option<u64>,
}
