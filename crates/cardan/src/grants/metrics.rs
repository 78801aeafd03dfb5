//! Metrics that plugins define themselves.

use std::collections::BTreeMap;
use std::sync::Arc;

use cardan_api::grants::MetricsScope;

use super::ServiceFailure;

/// Keeps plugins' metrics. The implementation is the embedder's: `cardan-services` has one.
///
/// Called inside of guests' calls, from many threads at once: it must not block.
pub trait Metrics: Send + Sync + 'static {
    /// Takes one sample. One that would need a name or a series more than the plugin may have is dropped
    /// and counted, which is no failure: a plugin does not fall over because there is a label too many.
    ///
    /// # Errors
    ///
    /// [`ServiceFailure::Invalid`], when the sample cannot be meant: a name that is none, a counter that
    /// falls, a name that was of another kind before.
    fn record(&self, space: &MetricsSpace, sample: Sample) -> Result<(), ServiceFailure>;
}

/// One plugin's metrics.
#[derive(Debug, Clone)]
pub struct MetricsSpace {
    /// The plugin's name. Versions of a plugin share metrics.
    pub plugin: Arc<str>,
    /// How many there may be.
    pub scope: MetricsScope,
}

/// One value of a metric.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// What the value means.
    pub kind: SampleKind,
    /// Name of the metric.
    pub name: String,
    /// Names and values of labels.
    pub labels: BTreeMap<String, String>,
    /// Finite.
    pub value: f64,
}

/// What a metric's values mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SampleKind {
    /// The value is added.
    Counter,
    /// The value replaces the one before.
    Gauge,
    /// The value is one of a distribution.
    Histogram,
}
