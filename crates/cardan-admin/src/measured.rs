//! Plugins' own metrics among those of the process.

use std::collections::BTreeMap;
use std::fmt;

use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

use crate::host::{Measured, MeasuredKind, MeasuredValue};

/// What stands before every plugin's name for a metric, so that it is never one of ours.
const PREFIX: &str = "cardan_plugin_metric_";

/// Metrics of one name and one kind, of all plugins.
type Families<'a> = BTreeMap<String, (MeasuredKind, Vec<&'a Measured>)>;

/// Plugins may use one name for different kinds of numbers; a page may not, or it is refused whole.
fn families(all: &[Measured]) -> Families<'_> {
    let mut families = Families::new();
    // Counters are called differently in the two formats, and have both names to themselves.
    let mut taken: BTreeMap<String, MeasuredKind> = BTreeMap::new();
    for metric in all {
        let is_counter = metric.kind == MeasuredKind::Counter;
        let base = metric.name.strip_suffix("_total").filter(|_| is_counter).unwrap_or(&metric.name);
        let mut name = format!("{PREFIX}{base}");
        loop {
            let full = if is_counter { format!("{name}_total") } else { name.clone() };
            if [&name, &full].iter().all(|it| taken.get(*it).is_none_or(|kind| *kind == metric.kind)) {
                taken.extend([(name.clone(), metric.kind), (full, metric.kind)]);
                break;
            }
            name.push_str("_2");
        }
        families.entry(name).or_insert_with(|| (metric.kind, Vec::new())).1.push(metric);
    }
    families
}

pub(crate) fn encode(all: &[Measured], encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let families = families(all);
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

/// A label that we set ourselves keeps its meaning, and none is there twice.
fn labels_of(plugin: &str, labels: &BTreeMap<String, String>) -> Vec<(String, String)> {
    let mut shown = BTreeMap::new();
    let ours = |name: &str| name == "plugin" || name == "le";
    shown.extend(
        labels.iter().filter(|(name, _)| !ours(name)).map(|(name, value)| (name.clone(), value.clone())),
    );
    for (name, value) in labels.iter().filter(|(name, _)| ours(name)) {
        let mut name = format!("exported_{name}");
        while shown.contains_key(&name) {
            name = format!("exported_{name}");
        }
        shown.insert(name, value.clone());
    }
    std::iter::once(("plugin".to_owned(), plugin.to_owned())).chain(shown).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_plugin_spoils_the_page() {
        let one = |name: &str, kind| Measured {
            plugin: "p".to_owned(),
            name: name.to_owned(),
            kind,
            series: Vec::new(),
        };
        let all = [
            one("a_total", MeasuredKind::Counter),
            one("a", MeasuredKind::Gauge),
            one("a_total", MeasuredKind::Gauge),
            one("a_gauge", MeasuredKind::Histogram),
            one("a", MeasuredKind::Counter),
        ];
        let families = families(&all);
        let names: Vec<&str> = families.keys().map(|name| name.strip_prefix(PREFIX).unwrap()).collect();
        assert_eq!(names, ["a", "a_2", "a_gauge", "a_total_2"]);
        let labels =
            [("plugin", "1"), ("exported_plugin", "2"), ("exported_exported_plugin", "3"), ("x", "4")];
        let labels = labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let shown = labels_of("p", &labels);
        let mut names: Vec<&str> = shown.iter().map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), 5, "{shown:?}");
    }
}
