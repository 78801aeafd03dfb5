//! What plugins have stored and measured, for the admin API.

use std::future::Future;
use std::sync::Arc;

use cardan::api::grants::KvLimits;
use cardan::{KvEntry, KvScan, KvSpace, KvStore, SampleKind, ServiceFailure};
use cardan_admin::{KeyValues, KvError, Measured, MeasuredKind, MeasuredValue};
use cardan_manager::{EventKind, Manager};
use cardan_services::{BUCKETS, MetricFamily, MetricsRegistry, Number};
use tokio::runtime::Handle;
use tokio::sync::broadcast::error::RecvError;

/// Bytes of one page of keys and their values.
const PAGE_BYTES_MAX: usize = 1 << 20;
const PAGE_KEYS_MAX: usize = 1_000;

/// The key-value store of all plugins, for somebody who may wait.
pub(crate) struct StoredValues {
    pub(crate) store: Arc<dyn KvStore>,
    pub(crate) runtime: Handle,
    pub(crate) manager: Manager,
}

impl StoredValues {
    /// A plugin's store, with the caps it was granted; it need not be loaded.
    fn space(&self, plugin: &str) -> KvSpace {
        let granted = self.manager.spec(plugin).ok().and_then(|spec| spec.grants.kv);
        let limits = granted.map_or_else(KvLimits::default, |scope| scope.limits);
        KvSpace { plugin: plugin.into(), limits }
    }

    fn wait<T>(&self, waiting: impl Future<Output = Result<T, ServiceFailure>>) -> Result<T, KvError> {
        self.runtime.block_on(waiting).map_err(|failure| match failure {
            ServiceFailure::Full(why) => KvError::Full(why),
            ServiceFailure::Invalid(why) | ServiceFailure::Unavailable(why) => KvError::Failed(why),
            ServiceFailure::Timeout => KvError::Failed("the store did not answer in time".to_owned()),
        })
    }
}

impl KeyValues for StoredValues {
    fn get(&self, plugin: &str, key: &str) -> Result<Option<Vec<u8>>, KvError> {
        self.wait(self.store.get(&self.space(plugin), key.to_owned()))
    }

    fn keys(&self, plugin: &str, prefix: &str, max: usize) -> Result<Vec<String>, KvError> {
        let space = self.space(plugin);
        let (mut keys, mut after): (Vec<String>, Option<String>) = (Vec::new(), None);
        loop {
            let limit = PAGE_KEYS_MAX.min(max - keys.len());
            let scan = KvScan { prefix: prefix.to_owned(), after, limit, bytes_max: PAGE_BYTES_MAX };
            let page = self.wait(self.store.scan(&space, scan))?;
            keys.extend(page.entries.into_iter().map(|entry| entry.key));
            after = keys.last().cloned();
            if !page.more || keys.len() >= max {
                return Ok(keys);
            }
        }
    }

    fn put(&self, plugin: &str, key: &str, value: &[u8]) -> Result<(), KvError> {
        let space = self.space(plugin);
        let max = space.limits.value_bytes_max;
        if value.len() as u64 > max || key.len() as u64 > max {
            let why =
                format!("a key or a value of plugin {plugin} is at most {max} bytes; see grants.kv.value");
            return Err(KvError::Full(why));
        }
        let entry = KvEntry { key: key.to_owned(), value: value.to_owned() };
        self.wait(self.store.set(&space, entry, space.limits.ttl_max))
    }

    fn delete(&self, plugin: &str, key: &str) -> Result<(), KvError> {
        self.wait(self.store.delete(&self.space(plugin), key.to_owned())).map(drop)
    }
}

/// Forgets what plugins measured once they are gone, for as long as the manager is there.
pub(crate) async fn forget_the_gone(manager: Manager, metrics: MetricsRegistry) {
    let mut events = manager.ledger().follow_events();
    loop {
        match events.recv().await.map(|event| event.kind.clone()) {
            // Told of at the end of every change, so that a plugin that is there again is known to be.
            Ok(EventKind::Applied { .. }) | Err(RecvError::Lagged(_)) => {
                let snapshot = manager.snapshot();
                let is_there = |name: &str| snapshot.plugins().any(|plugin| **plugin.name() == *name);
                let measured = metrics.families().into_iter().map(|family| family.plugin);
                let dropped = metrics.dropped().into_iter().map(|(plugin, _)| plugin);
                measured.chain(dropped).filter(|name| !is_there(name)).for_each(|name| metrics.forget(&name));
            }
            Ok(_) => {}
            Err(RecvError::Closed) => return,
        }
    }
}

/// Everything that plugins measure.
pub(crate) fn measured(registry: &MetricsRegistry) -> Vec<Measured> {
    registry.families().into_iter().map(family).collect()
}

fn family(family: MetricFamily) -> Measured {
    let series = family.series.into_iter().map(|(labels, number)| {
        let value = match number {
            Number::Value(value) => MeasuredValue::Number(value),
            Number::Distribution { buckets, sum } => {
                let bounds = BUCKETS.into_iter().chain([f64::INFINITY]);
                MeasuredValue::Distribution { buckets: bounds.zip(buckets).collect(), sum }
            }
        };
        (labels, value)
    });
    let kind = match family.kind {
        SampleKind::Counter => MeasuredKind::Counter,
        SampleKind::Gauge => MeasuredKind::Gauge,
        SampleKind::Histogram => MeasuredKind::Histogram,
    };
    let series = series.collect();
    Measured { plugin: family.plugin.to_string(), name: family.name, kind, series }
}
