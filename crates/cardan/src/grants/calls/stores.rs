//! Key-value stores and caches.

use std::time::Duration;

use cardan_api::Capability;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{Arguments, Function, Operation, Outcome, document, put_bytes, ttl};
use crate::grants::{
    Authority, CacheKey, CacheLookup, KvEntry, KvPage, KvScan, KvSpace, Refusal, ServiceFailure,
};

/// Entries of a scan where the guest says nothing.
const SCAN_LIMIT: usize = 100;
/// Most entries of a scan.
const SCAN_LIMIT_MAX: usize = 1_000;
/// Keys and values of one scan together.
const SCAN_BYTES_MAX: usize = 1 << 20;
/// How long an entry of a cache lives where the guest says nothing.
const CACHE_TTL: Duration = Duration::from_secs(300);

/// Options of `kv_set`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SetOptions {
    #[serde(default)]
    ttl_seconds: Option<f64>,
}

/// Options of `kv_scan`.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct ScanOptions {
    prefix: String,
    after: Option<String>,
    limit: Option<usize>,
}

impl Authority {
    pub(super) async fn keys_and_values(
        &self,
        function: &Function,
        mut args: Arguments,
    ) -> Result<Outcome, Refusal> {
        let Some(scope) = &self.grants.kv else {
            return Err(self.denied(function.name, function.needs));
        };
        let Some(store) = self.services.kv.clone() else { return Err(self.missing(function.name, "kv")) };
        let space = KvSpace { plugin: self.plugin.clone(), limits: scope.limits };
        let first = args.text(function, 0)?;
        let bytes_max = scope.limits.value_bytes_max;
        let fits = |what: &str, bytes: &[u8]| self.fits(function, what, bytes, ("kv.value", bytes_max));
        let failed = |failure: ServiceFailure| self.failed(function.name, failure);
        if function.operation != Operation::KvScan {
            named(function, &first)?;
            fits("key", first.as_bytes())?;
        }
        match function.operation {
            Operation::KvSet => {
                let entry = KvEntry { key: first, value: args.bytes(1) };
                fits("value", &entry.value)?;
                let options = args.text(function, 2)?;
                if entry.value.is_empty() {
                    // No value is what a guest sees where there is no key.
                    return store.delete(&space, entry.key).await.map(|_| Outcome::default()).map_err(failed);
                }
                let asked = if options.trim().is_empty() {
                    None
                } else {
                    document::<SetOptions>(function, &options)?.ttl_seconds
                };
                let asked = asked.map(|seconds| ttl(function, seconds)).transpose()?;
                let live = match (asked, scope.limits.ttl_max) {
                    (Some(asked), Some(most)) => Some(asked.min(most)),
                    (asked, most) => asked.or(most),
                };
                store.set(&space, entry, live).await.map(|()| Outcome::default()).map_err(failed)
            }
            Operation::KvDelete => {
                store.delete(&space, first).await.map(|_| Outcome::default()).map_err(failed)
            }
            Operation::KvAdd => {
                let delta = args.number(function, 1)?;
                store.add(&space, first, delta).await.map(|sum| sum.to_string().into()).map_err(failed)
            }
            Operation::KvCas => {
                let expected = Some(args.bytes(1)).filter(|expected| !expected.is_empty());
                let entry = KvEntry { key: first, value: args.bytes(2) };
                fits("value", &entry.value)?;
                if entry.value.is_empty() {
                    return Err(Refusal::protocol("kv_cas: the new value is empty, which is no value"));
                }
                let done = store.compare_and_set(&space, entry, expected).await.map_err(failed)?;
                Ok(if done { "1" } else { "0" }.to_owned().into())
            }
            Operation::KvScan => {
                let scan = scan(function, first)?;
                store.scan(&space, scan).await.map(|page| page_document(page).into()).map_err(failed)
            }
            _ => store.get(&space, first).await.map(|value| value.unwrap_or_default().into()).map_err(failed),
        }
    }

    pub(super) async fn cached(&self, function: &Function, mut args: Arguments) -> Result<Outcome, Refusal> {
        let Some(scope) = &self.grants.cache else {
            return Err(self.denied(function.name, function.needs));
        };
        let Some(cache) = self.services.cache.clone() else {
            return Err(self.missing(function.name, "cache"));
        };
        let key = args.text(function, 0)?;
        named(function, &key)?;
        let cap = ("cache.value", scope.value_bytes_max);
        self.fits(function, "key", key.as_bytes(), cap)?;
        let key = CacheKey { space: scope.space.clone(), key };
        let failed = |failure: ServiceFailure| self.failed(function.name, failure);
        match function.operation {
            Operation::CacheSet => {
                let value = args.bytes(1);
                self.fits(function, "value", &value, cap)?;
                if value.is_empty() {
                    return cache.delete(key).await.map(|()| Outcome::default()).map_err(failed);
                }
                let seconds = args.text(function, 2)?;
                let asked = match seconds.trim() {
                    "" => CACHE_TTL,
                    _ => ttl(function, Arguments(vec![seconds.into_bytes()]).number(function, 0)?)?,
                };
                let live = asked.min(scope.ttl_max);
                cache.set(key, value, live).await.map(|()| Outcome::default()).map_err(failed)
            }
            Operation::CacheDelete => cache.delete(key).await.map(|()| Outcome::default()).map_err(failed),
            Operation::CacheFill => {
                match cache.lookup_or_claim(key, self.plugin.clone()).await.map_err(failed)? {
                    CacheLookup::Hit(value) => Ok(value.into()),
                    CacheLookup::Claimed(claim) => Ok(Outcome { claim: Some(claim), ..Outcome::default() }),
                }
            }
            _ => cache.get(key).await.map(|value| value.unwrap_or_default().into()).map_err(failed),
        }
    }

    fn fits(
        &self,
        function: &Function,
        what: &str,
        bytes: &[u8],
        (key, bytes_max): (&str, u64),
    ) -> Result<(), Refusal> {
        let length = bytes.len() as u64;
        if length <= bytes_max {
            return Ok(());
        }
        Err(self.failed(
            function.name,
            ServiceFailure::Full(format!(
                "a {what} of {length} bytes is more than the {bytes_max} allowed: raise {key} in the grants"
            )),
        ))
    }

    /// What a granted capability needs beyond its function, such as a connection, is not granted.
    pub(super) fn denied_connection(&self, name: &str, capability: Capability) -> Refusal {
        let access = if capability == Capability::SqlWrite { "write" } else { "read" };
        let what = match capability {
            Capability::SqlWrite => format!("execute_query that changes something on connection {name:?}"),
            _ => format!("execute_query on connection {name:?}"),
        };
        self.denied_unless(&what, capability, &format!("sql: {{{name}: {access}}}"))
    }
}

fn named(function: &Function, key: &str) -> Result<(), Refusal> {
    if key.is_empty() {
        Err(Refusal::protocol(format!("{}: the key is empty", function.name)))
    } else {
        Ok(())
    }
}

fn scan(function: &Function, options: String) -> Result<KvScan, Refusal> {
    let options = if options.trim_start().starts_with('{') {
        document(function, &options)?
    } else {
        ScanOptions { prefix: options, ..ScanOptions::default() }
    };
    let limit = options.limit.unwrap_or(SCAN_LIMIT);
    if limit == 0 || limit > SCAN_LIMIT_MAX {
        return Err(Refusal::protocol(format!("kv_scan: the limit is {limit}, not 1 to {SCAN_LIMIT_MAX}")));
    }
    let ScanOptions { prefix, after, .. } = options;
    Ok(KvScan { prefix, after, limit, bytes_max: SCAN_BYTES_MAX })
}

fn page_document(page: KvPage) -> Value {
    let mut document = Map::new();
    let last = page.entries.last().map(|entry| entry.key.clone());
    let entries = page.entries.into_iter().map(|entry| {
        let mut object = Map::new();
        object.insert("key".to_owned(), entry.key.into());
        put_bytes(&mut object, "value", entry.value);
        Value::Object(object)
    });
    document.insert("entries".to_owned(), entries.collect());
    if let Some(last) = last.filter(|_| page.more) {
        document.insert("next".to_owned(), last.into());
    }
    Value::Object(document)
}
