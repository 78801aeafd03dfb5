//! Metrics of plugins.

use std::collections::BTreeMap;

use cardan::api::grants::MetricsScope;
use cardan::{Metrics, MetricsSpace, Sample, SampleKind, ServiceFailure};
use cardan_services::{BUCKETS, MetricsRegistry, Number};

fn space(plugin: &str) -> MetricsSpace {
    MetricsSpace { plugin: plugin.into(), scope: MetricsScope { names_max: 3, series_max: 5 } }
}

fn sample(kind: SampleKind, name: &str, labels: &[(&str, &str)], value: f64) -> Sample {
    let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Sample { kind, name: name.to_owned(), labels: labels.collect(), value }
}

#[test]
fn numbers() {
    let registry = MetricsRegistry::default();
    let record = |sample| registry.record(&space("a"), sample).unwrap();
    record(sample(SampleKind::Counter, "asked", &[("who", "x")], 1.0));
    record(sample(SampleKind::Counter, "asked", &[("who", "x")], 2.5));
    record(sample(SampleKind::Counter, "asked", &[("who", "y")], 1.0));
    record(sample(SampleKind::Gauge, "level", &[], 7.0));
    record(sample(SampleKind::Gauge, "level", &[], -3.0));
    for value in [0.0001, 0.001, 0.3, 100.0] {
        record(sample(SampleKind::Histogram, "took", &[], value));
    }
    registry.record(&space("b"), sample(SampleKind::Gauge, "asked", &[], 1.0)).unwrap();
    let families = registry.families();
    let names: Vec<_> = families.iter().map(|family| (&*family.plugin, &*family.name)).collect();
    assert_eq!(names, [("a", "asked"), ("a", "level"), ("a", "took"), ("b", "asked")]);
    let numbers: Vec<&Number> = families[0].series.iter().map(|(_, number)| number).collect();
    assert_eq!(numbers, [&Number::Value(3.5), &Number::Value(1.0)]);
    assert_eq!(families[1].series, [(BTreeMap::new(), Number::Value(-3.0))]);
    let (_, Number::Distribution { buckets, sum }) = &families[2].series[0] else { panic!() };
    let of = |value: f64| BUCKETS.iter().position(|bound| value <= *bound).unwrap_or(BUCKETS.len());
    assert_eq!(
        (buckets[of(0.0001)], buckets[of(0.001)], buckets[of(0.3)], buckets[BUCKETS.len()]),
        (1, 1, 1, 1)
    );
    assert!((sum - 100.3011).abs() < 1e-9);
    registry.forget("a");
    assert_eq!(registry.families().len(), 1);
}

/// A plugin that fills its metrics meets its caps, is told of in numbers, and hurts nobody.
#[test]
fn caps() {
    let registry = MetricsRegistry::default();
    for n in 0..1000 {
        let user = n.to_string();
        registry.record(&space("a"), sample(SampleKind::Counter, "asked", &[("user", &user)], 1.0)).unwrap();
        registry.record(&space("a"), sample(SampleKind::Gauge, &format!("g{n}"), &[], 1.0)).unwrap();
    }
    registry.record(&space("b"), sample(SampleKind::Gauge, "g", &[], 1.0)).unwrap();
    let families = registry.families();
    let of_a: Vec<_> = families.iter().filter(|family| &*family.plugin == "a").collect();
    assert_eq!(of_a.len(), 3);
    assert_eq!(of_a.iter().map(|family| family.series.len()).sum::<usize>(), 5);
    assert_eq!(families.len(), 4);
    let dropped = registry.dropped();
    assert_eq!(dropped, [("a".into(), 2000 - 5)]);
}

#[test]
fn what_is_no_metric() {
    let registry = MetricsRegistry::default();
    registry.record(&space("a"), sample(SampleKind::Counter, "asked", &[], 1.0)).unwrap();
    let long = "x".repeat(300);
    let rows = [
        (sample(SampleKind::Gauge, "asked", &[], 1.0), "is a counter and cannot be a gauge"),
        (sample(SampleKind::Counter, "asked", &[], -1.0), "cannot fall"),
        (sample(SampleKind::Counter, "", &[], 1.0), "is no name of a metric"),
        (sample(SampleKind::Counter, "1a", &[], 1.0), "is no name of a metric"),
        (sample(SampleKind::Counter, "a-b", &[], 1.0), "is no name of a metric"),
        (sample(SampleKind::Counter, "a\nb 1", &[], 1.0), "is no name of a metric"),
        (sample(SampleKind::Counter, &long, &[], 1.0), "is no name of a metric"),
        (sample(SampleKind::Counter, "a", &[("a b", "")], 1.0), "is no name of a label"),
        (sample(SampleKind::Counter, "a", &[("plugin", "b")], 1.0), "is no name of a label"),
        (sample(SampleKind::Counter, "a", &[("__name__", "b")], 1.0), "is no name of a label"),
        (sample(SampleKind::Counter, "a", &[("a", &long)], 1.0), "longer than"),
    ];
    for (sample, why) in rows {
        let failure = registry.record(&space("a"), sample.clone()).unwrap_err();
        assert!(
            matches!(&failure, ServiceFailure::Invalid(found) if found.contains(why)),
            "{sample:?}: {failure:?}"
        );
    }
}
