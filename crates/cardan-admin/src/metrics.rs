//! Metrics for Prometheus.

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use cardan_manager::{Durations, HookCounts, PluginStatus, State as Standing, VersionStatus};
use http::{HeaderMap, header};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;
use std::fmt;

use crate::access::{As, Viewer};
use crate::app::App;
use crate::host::Measured;
use crate::measured;
use crate::problem::Problem;

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Buckets of durations begin here. They are two octaves wide.
const FIRST_BUCKET_SECONDS: f64 = 1e-6;

pub(crate) fn routes() -> Router<App> {
    Router::new().route("/metrics", get(metrics))
}

/// Everything there is to count, for Prometheus: in the text format, or as OpenMetrics for those who accept it.
#[utoipa::path(get, path = "/metrics", tag = "observe",
    responses((status = 200, content((String = "text/plain"), (String = "application/openmetrics-text")))),
    security(("bearer" = ["viewer"])))]
pub(crate) async fn metrics(
    _: As<Viewer>,
    State(app): State<App>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    let open = accept.contains("application/openmetrics-text");
    let page = app.blocking(move |app| {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Scrape::of(app)));
        let mut page = String::new();
        text::encode(&mut page, &registry).map_err(Problem::internal)?;
        Ok(if open { page } else { classic(&page) })
    });
    let kind = if open { OPEN_METRICS } else { PROMETHEUS };
    Ok(([(header::CONTENT_TYPE, kind)], page.await?).into_response())
}

/// OpenMetrics as Prometheus' older format: there a counter's family is called like its samples.
fn classic(page: &str) -> String {
    let counters: Vec<&str> =
        page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter")).collect();
    let mut classic = String::with_capacity(page.len());
    for line in page.lines().filter(|line| *line != "# EOF" && !line.starts_with("# UNIT ")) {
        let mut words = line.splitn(4, ' ');
        let rest = match (words.next(), words.next(), words.next(), words.next()) {
            (Some("#"), Some(kind), Some(name), Some(rest)) if counters.contains(&name) => {
                classic.push_str(&format!("# {kind} {name}_total {rest}"));
                ""
            }
            _ => line,
        };
        classic.push_str(rest);
        classic.push('\n');
    }
    classic
}

/// Everything as it stood at one moment.
#[derive(Debug)]
struct Scrape {
    version: &'static str,
    ready: bool,
    generation: u64,
    events: u64,
    traces_dropped: Option<u64>,
    plugins: Vec<PluginStatus>,
    measured: Vec<Measured>,
}

/// A gauge: its name, its help, and where its number comes from.
type Row<T> = (&'static str, &'static str, fn(&T) -> f64);

type Labels<'a, const N: usize> = [(&'static str, &'a str); N];

impl Scrape {
    fn of(app: &App) -> Self {
        let manager = app.manager();
        Self {
            version: app.host().version,
            ready: app.host().readiness.reasons().is_empty(),
            generation: manager.snapshot().generation(),
            events: manager.ledger().events_after(0).last().map_or(0, |event| event.seq),
            traces_dropped: app.host().traces_dropped.as_ref().map(|dropped| dropped()),
            plugins: manager.plugins(),
            measured: app.host().measured.as_ref().map(|measured| measured()).unwrap_or_default(),
        }
    }

    /// Versions, each with its number in text. One that shares what runs with the active one, and so its
    /// counts, is left out.
    fn versions(&self) -> impl Iterator<Item = (&PluginStatus, &VersionStatus, String)> {
        self.plugins.iter().flat_map(|plugin| {
            let canary = plugin.canary.iter().map(|canary| &canary.version);
            let active = &plugin.active;
            let earlier =
                plugin.earlier.iter().filter(|it| it.digest != active.digest || it.counts != active.counts);
            let all = std::iter::once(active).chain(canary).chain(earlier);
            all.map(move |version| (plugin, version, version.number.to_string()))
        })
    }

    fn counts(&self) -> impl Iterator<Item = (&str, String, &HookCounts)> {
        self.versions().flat_map(|(plugin, version, number)| {
            version.counts.iter().map(move |counts| (plugin.name.as_str(), number.clone(), counts))
        })
    }

    fn process(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "The program's version.";
        let mut build = encoder.encode_descriptor("cardan_build_info", help, None, MetricType::Gauge)?;
        gauge(&mut build, &[("version", self.version)], 1.0)?;
        let help = "Whether clients are served.";
        let mut ready = encoder.encode_descriptor("cardan_ready", help, None, MetricType::Gauge)?;
        ready.encode_gauge(&i64::from(self.ready))?;
        let help = "Number of the snapshot of plugins that is in force.";
        let mut generation =
            encoder.encode_descriptor("cardan_snapshot_generation", help, None, MetricType::Gauge)?;
        generation.encode_gauge(&self.generation)?;
        let help = "What became of plugins, as in /api/v1/events.";
        let mut events = encoder.encode_descriptor("cardan_events", help, None, MetricType::Counter)?;
        events.encode_counter::<NoLabelSet, u64, f64>(&self.events, None)?;
        let Some(dropped) = self.traces_dropped else { return Ok(()) };
        let help = "Visits that no trace collector was told of.";
        let mut traces =
            encoder.encode_descriptor("cardan_traces_dropped", help, None, MetricType::Counter)?;
        traces.encode_counter::<NoLabelSet, u64, f64>(&dropped, None)
    }

    fn standing(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let rows: [Row<PluginStatus>; 5] = [
            ("cardan_plugin_enabled", "Whether visits ask it.", |it| flag(it.enabled)),
            ("cardan_plugin_quarantined", "Whether it is not asked because it kept failing.", |it| {
                flag(matches!(it.state, Standing::Quarantined { .. }))
            }),
            ("cardan_plugin_trouble", "Whether what its source holds now is not what runs.", |it| {
                flag(it.trouble.is_some())
            }),
            ("cardan_plugin_active_version", "Number of the version that is asked.", |it| {
                f64::from(it.active.number)
            }),
            ("cardan_plugin_faults_in_a_row", "Faults without a verdict between them.", |it| {
                f64::from(it.faults_in_a_row)
            }),
        ];
        for (name, help, value) in rows {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for plugin in &self.plugins {
                gauge(&mut family, &[("plugin", plugin.name.as_str())], value(plugin))?;
            }
        }
        let help = "Share of visits that try this version.";
        let mut canaries =
            encoder.encode_descriptor("cardan_plugin_canary_ratio", help, None, MetricType::Gauge)?;
        for plugin in &self.plugins {
            let Some(canary) = plugin.canary.as_ref().filter(|canary| !canary.stopped) else { continue };
            let number = canary.version.number.to_string();
            let share = f64::from(canary.plan.share) / 1e4;
            gauge(&mut canaries, &[("plugin", plugin.name.as_str()), ("version", &number)], share)?;
        }
        Ok(())
    }

    fn instances(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let rows: [Row<VersionStatus>; 4] = [
            ("cardan_plugin_instances", "Instances alive.", |it| it.usage.instances as f64),
            ("cardan_plugin_ready_instances", "Instances that wait for a call.", |it| it.usage.ready as f64),
            ("cardan_plugin_waiting_calls", "Calls that wait for an instance.", |it| it.usage.waiting as f64),
            ("cardan_plugin_memory_high_water_bytes", "Most memory that one instance has had.", |it| {
                it.usage.memory_bytes_max_seen as f64
            }),
        ];
        for (name, help, value) in rows {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for (plugin, version, number) in self.versions() {
                gauge(
                    &mut family,
                    &[("plugin", plugin.name.as_str()), ("version", &number)],
                    value(version),
                )?;
            }
        }
        Ok(())
    }

    fn calls(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Questions, by what came of them.";
        let mut calls = encoder.encode_descriptor("cardan_plugin_calls", help, None, MetricType::Counter)?;
        for (plugin, version, counts) in self.counts() {
            let verdicts = [
                ("continued", counts.continued),
                ("stopped", counts.stopped),
                ("skipped", counts.skipped),
                ("refused", counts.refused),
                ("fell_back", counts.fell_back),
            ];
            for (verdict, count) in verdicts {
                let labels =
                    [("plugin", plugin), ("version", &*version), ("hook", counts.hook), ("verdict", verdict)];
                counter(&mut calls, &labels, count)?;
            }
        }
        let help = "Questions without a verdict, by kind.";
        let mut faults =
            encoder.encode_descriptor("cardan_plugin_faults", help, None, MetricType::Counter)?;
        for (plugin, version, counts) in self.counts() {
            for (fault, count) in &counts.faults {
                let labels = [
                    ("plugin", plugin),
                    ("version", &*version),
                    ("hook", counts.hook),
                    ("fault", fault.label()),
                ];
                counter(&mut faults, &labels, *count)?;
            }
        }
        Ok(())
    }

    fn durations(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let (name, help) =
            ("cardan_plugin_call_duration_seconds", "From the question to the verdict or fault.");
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
        for (plugin, version, counts) in self.counts() {
            let labels: Labels<'_, 3> = [("plugin", plugin), ("version", &version), ("hook", counts.hook)];
            let durations = &counts.durations;
            let buckets = buckets(durations);
            let mut one = family.encode_family(&labels)?;
            one.encode_histogram::<NoLabelSet>(durations.sum_seconds, durations.count, &buckets, None)?;
        }
        Ok(())
    }
}

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.process(&mut encoder)?;
        self.standing(&mut encoder)?;
        self.instances(&mut encoder)?;
        self.calls(&mut encoder)?;
        self.durations(&mut encoder)?;
        measured::encode(&self.measured, &mut encoder)
    }
}

fn gauge<const N: usize>(family: &mut MetricEncoder<'_>, labels: &Labels<'_, N>, value: f64) -> fmt::Result {
    family.encode_family(labels)?.encode_gauge(&value)
}

fn counter<const N: usize>(
    family: &mut MetricEncoder<'_>,
    labels: &Labels<'_, N>,
    value: u64,
) -> fmt::Result {
    family.encode_family(labels)?.encode_counter::<NoLabelSet, u64, f64>(&value, None)
}

fn flag(value: bool) -> f64 {
    f64::from(u8::from(value))
}

/// Upper bounds, and how many are between each and the one before.
fn buckets(durations: &Durations) -> Vec<(f64, u64)> {
    let bounds = durations.cumulative.iter().filter(|(bound, _)| *bound >= FIRST_BUCKET_SECONDS).step_by(2);
    let last = (f64::INFINITY, durations.count);
    let mut below = 0;
    let between = bounds.copied().chain([last]).map(|(bound, count)| {
        // The total is read apart from the buckets, and may be a call behind.
        let count = count.max(below);
        let between = count - below;
        below = count;
        (bound, between)
    });
    between.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_older_format_names_counters_in_full() {
        let page = "# HELP a_calls Calls made.\n# TYPE a_calls counter\na_calls_total{x=\"# TYPE a counter\"} 1\n\
                    # HELP b Others.\n# TYPE b gauge\nb 2\n# EOF\n";
        let expected = "# HELP a_calls_total Calls made.\n# TYPE a_calls_total counter\n\
                        a_calls_total{x=\"# TYPE a counter\"} 1\n# HELP b Others.\n# TYPE b gauge\nb 2\n";
        assert_eq!(classic(page), expected);
    }
}
