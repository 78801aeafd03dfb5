//! Metrics that plugins define themselves, with bounds on how many there may be.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use cardan::{Metrics, MetricsSpace, Sample, SampleKind, ServiceFailure};

/// Upper bounds of a histogram's buckets, in whatever the plugin measures: from half a millisecond to ten
/// seconds, if that is seconds. A last one is for everything beyond.
pub const BUCKETS: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Labels of one series.
const LABELS_MAX: usize = 10;
/// Bytes of a name of a metric or label, and of a label's value.
const TEXT_BYTES_MAX: usize = 200;

/// Keeps the metrics of all plugins. Clones are the same registry.
#[derive(Debug, Clone, Default)]
pub struct MetricsRegistry {
    plugins: Arc<RwLock<HashMap<Arc<str>, Shared>>>,
}

#[derive(Debug, Default)]
struct PluginMetrics {
    families: BTreeMap<String, (SampleKind, BTreeMap<Labels, Number>)>,
    series: u64,
    dropped: u64,
}

type Shared = Arc<Mutex<PluginMetrics>>;
type Labels = BTreeMap<String, String>;

/// All series of one metric of one plugin.
#[derive(Debug, Clone, PartialEq)]
pub struct MetricFamily {
    /// Whose it is.
    pub plugin: Arc<str>,
    /// As the plugin names it: a name of the Prometheus text format.
    pub name: String,
    /// What its numbers mean.
    pub kind: SampleKind,
    /// By labels.
    pub series: Vec<(Labels, Number)>,
}

/// The value of one series.
#[derive(Debug, Clone, PartialEq)]
pub enum Number {
    /// Of a counter or gauge.
    Value(f64),
    /// Of a histogram.
    Distribution {
        /// How many samples each of [`BUCKETS`] has, and how many are beyond the last.
        buckets: Vec<u64>,
        /// Of all samples.
        sum: f64,
    },
}

impl MetricsRegistry {
    /// Everything that plugins have measured, by plugin and name.
    pub fn families(&self) -> Vec<MetricFamily> {
        let mut families = Vec::new();
        for (plugin, metrics) in self.plugins() {
            let metrics = metrics.lock().unwrap_or_else(PoisonError::into_inner);
            families.extend(metrics.families.iter().map(|(name, (kind, series))| MetricFamily {
                plugin: plugin.clone(),
                name: name.clone(),
                kind: *kind,
                series: series.iter().map(|(labels, number)| (labels.clone(), number.clone())).collect(),
            }));
        }
        families
    }

    /// Samples that were dropped, because a plugin would have had more names or series than it may.
    pub fn dropped(&self) -> Vec<(Arc<str>, u64)> {
        let plugins = self.plugins().into_iter();
        let dropped = plugins.map(|(plugin, metrics)| {
            (plugin, metrics.lock().unwrap_or_else(PoisonError::into_inner).dropped)
        });
        dropped.filter(|(_, dropped)| *dropped > 0).collect()
    }

    /// Forgets what a plugin measured, once it is gone for good.
    pub fn forget(&self, plugin: &str) {
        self.plugins.write().unwrap_or_else(PoisonError::into_inner).remove(plugin);
    }

    fn plugins(&self) -> BTreeMap<Arc<str>, Shared> {
        let plugins = self.plugins.read().unwrap_or_else(PoisonError::into_inner);
        plugins.iter().map(|(plugin, metrics)| (plugin.clone(), metrics.clone())).collect()
    }

    fn of(&self, plugin: &Arc<str>) -> Shared {
        let known = self.plugins.read().unwrap_or_else(PoisonError::into_inner).get(plugin).cloned();
        known.unwrap_or_else(|| {
            let mut plugins = self.plugins.write().unwrap_or_else(PoisonError::into_inner);
            plugins.entry(plugin.clone()).or_default().clone()
        })
    }
}

impl Metrics for MetricsRegistry {
    fn record(&self, space: &MetricsSpace, sample: Sample) -> Result<(), ServiceFailure> {
        validate(&sample).map_err(ServiceFailure::Invalid)?;
        let metrics = self.of(&space.plugin);
        let mut metrics = metrics.lock().unwrap_or_else(PoisonError::into_inner);
        metrics.record(space, sample)
    }
}

impl PluginMetrics {
    fn record(&mut self, space: &MetricsSpace, sample: Sample) -> Result<(), ServiceFailure> {
        let Sample { kind, name, labels, value } = sample;
        let names = self.families.len() as u64;
        match self.families.get_mut(&name) {
            Some((known, _)) if *known != kind => {
                return Err(ServiceFailure::Invalid(format!(
                    "the metric {name:?} is a {} and cannot be a {} as well",
                    named(*known),
                    named(kind)
                )));
            }
            Some((_, series)) => {
                if let Some(number) = series.get_mut(&labels) {
                    number.take(kind, value);
                    return Ok(());
                }
            }
            None if names >= space.scope.names_max => {
                self.dropped += 1;
                return Ok(());
            }
            None => {}
        }
        if self.series >= space.scope.series_max {
            self.dropped += 1;
            return Ok(());
        }
        self.series += 1;
        let (_, series) = self.families.entry(name).or_insert_with(|| (kind, BTreeMap::new()));
        series.entry(labels).or_insert_with(|| Number::zero(kind)).take(kind, value);
        Ok(())
    }
}

impl Number {
    fn zero(kind: SampleKind) -> Self {
        match kind {
            SampleKind::Counter | SampleKind::Gauge => Self::Value(0.0),
            SampleKind::Histogram => Self::Distribution { buckets: vec![0; BUCKETS.len() + 1], sum: 0.0 },
        }
    }

    fn take(&mut self, kind: SampleKind, value: f64) {
        match self {
            Self::Value(number) if kind == SampleKind::Counter => *number += value,
            Self::Value(number) => *number = value,
            Self::Distribution { buckets, sum } => {
                let index = BUCKETS.partition_point(|bound| *bound < value);
                buckets[index] += 1;
                *sum += value;
            }
        }
    }
}

fn named(kind: SampleKind) -> &'static str {
    match kind {
        SampleKind::Counter => "counter",
        SampleKind::Gauge => "gauge",
        SampleKind::Histogram => "histogram",
    }
}

/// Whether a sample can be shown in the Prometheus text format.
fn validate(sample: &Sample) -> Result<(), String> {
    let Sample { kind, name, labels, value } = sample;
    let word = |text: &str, more: &[char]| {
        let letter = |c: char| c.is_ascii_alphabetic() || c == '_' || more.contains(&c);
        text.len() <= TEXT_BYTES_MAX
            && text.starts_with(letter)
            && text.chars().all(|c| letter(c) || c.is_ascii_digit())
    };
    if !word(name, &[':']) {
        return Err(format!(
            "{name:?} is no name of a metric: up to {TEXT_BYTES_MAX} of a-z, A-Z, 0-9, _ and :"
        ));
    }
    if *kind == SampleKind::Counter && *value < 0.0 {
        return Err(format!("the counter {name:?} cannot fall, and {value} is less than 0"));
    }
    if labels.len() > LABELS_MAX {
        return Err(format!("{} labels are more than the {LABELS_MAX} allowed", labels.len()));
    }
    // What the host adds itself.
    let reserved = |label: &str| label.starts_with("__") || ["plugin", "le"].contains(&label);
    if let Some(label) = labels.keys().find(|label| !word(label, &[]) || reserved(label)) {
        return Err(format!("{label:?} is no name of a label of a plugin"));
    }
    match labels.iter().find(|(_, value)| value.len() > TEXT_BYTES_MAX) {
        Some((label, _)) => Err(format!("the label {label:?} is longer than {TEXT_BYTES_MAX} bytes")),
        None => Ok(()),
    }
}
