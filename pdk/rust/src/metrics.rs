//! Samples for the operator's metrics. Needs the grant `metrics`.

use crate::host;

/// Name and value of each label.
pub type Labels<'a> = &'a [(&'a str, &'a str)];

/// Adds to a counter.
pub fn increment(name: &str, labels: Labels<'_>, by: f64) {
    host::metric_inc(name, labels, by);
}

/// Sets a gauge.
pub fn gauge(name: &str, labels: Labels<'_>, value: f64) {
    host::metric_gauge(name, labels, value);
}

/// Counts a value in a histogram.
pub fn observe(name: &str, labels: Labels<'_>, value: f64) {
    host::metric_observe(name, labels, value);
}
