//! Plugins' own metrics among those of the process.

use std::collections::BTreeMap;
use std::fmt;

use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

use crate::host::{Measured, MeasuredKind, MeasuredValue};

/// What stands before every plugin's name for a metric, so that it is never one of ours.
const PREFIX: &str = "cardan_plugin_metric_";

/// Plugins may use one name for different kinds of numbers; a page may not.
pub(crate) fn encode(all: &[Measured], encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let mut families: BTreeMap<String, (MeasuredKind, Vec<&Measured>)> = BTreeMap::new();
    for metric in all {
        let base = metric.name.strip_suffix("_total").filter(|_| metric.kind == MeasuredKind::Counter);
        let base = format!("{PREFIX}{}", base.unwrap_or(&metric.name));
        let taken = families.get(&base).is_some_and(|(kind, _)| *kind != metric.kind);
        let name = if taken { format!("{base}_{}", word(metric.kind)) } else { base };
        let (_, metrics) = families.entry(name).or_insert_with(|| (metric.kind, Vec::new()));
        metrics.push(metric);
    }
    for (name, (kind, metrics)) in &families {
        let kind = match kind {
            MeasuredKind::Counter => MetricType::Counter,
            MeasuredKind::Gauge => MetricType::Gauge,
            MeasuredKind::Histogram => MetricType::Histogram,
        };
        let mut family = encoder.encode_descriptor(name, "As plugins measure it.", None, kind)?;
        for metric in metrics {
            for (labels, value) in &metric.series {
                let labels = labels_of(&metric.plugin, labels);
                let mut one = family.encode_family(&labels)?;
                match (value, metric.kind) {
                    (MeasuredValue::Number(value), MeasuredKind::Counter) => {
                        one.encode_counter::<NoLabelSet, f64, f64>(value, None)?;
                    }
                    (MeasuredValue::Number(value), _) => one.encode_gauge(value)?,
                    (MeasuredValue::Distribution { buckets, sum }, _) => {
                        let count = buckets.iter().map(|(_, count)| count).sum();
                        one.encode_histogram::<NoLabelSet>(*sum, count, buckets, None)?;
                    }
                }
            }
        }
    }
    Ok(())
}

fn word(kind: MeasuredKind) -> &'static str {
    match kind {
        MeasuredKind::Counter => "counter",
        MeasuredKind::Gauge => "gauge",
        MeasuredKind::Histogram => "histogram",
    }
}

/// A label that we set ourselves keeps its meaning.
fn labels_of(plugin: &str, labels: &BTreeMap<String, String>) -> Vec<(String, String)> {
    let own = labels.iter().map(|(name, value)| {
        let ours = name == "plugin" || name == "le";
        (if ours { format!("exported_{name}") } else { name.clone() }, value.clone())
    });
    std::iter::once(("plugin".to_owned(), plugin.to_owned())).chain(own).collect()
}
