//! Visits as traces, for an OpenTelemetry collector.
//!
//! A visit is a span, and each question to a plugin is one below it. They are made from what the ledger says
//! of visits that have ended: no request waits for a collector.

use std::borrow::Cow;
use std::hash::{DefaultHasher, Hasher as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use cardan_manager::{Decision, Manager, Outcome, VisitRecord};
use opentelemetry::trace::{SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_otlp::{Protocol, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanExporter as _, SpanLinks};
use tokio::runtime::Handle;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::sync::{broadcast::Receiver, oneshot};
use tokio::task::JoinHandle;

use crate::config::OtlpSettings;
use crate::output::Failure;

/// Spans of one message, but for the last visit's.
const SPANS_MAX: usize = 512;
/// A visit is told of after this long at most.
const PAUSE: Duration = Duration::from_secs(1);
/// A collector has this long for one message.
const TIMEOUT: Duration = Duration::from_secs(10);
/// What is left is told within this time when the process stops.
const FLUSH: Duration = Duration::from_secs(5);

/// How many visits no collector was told of. Clones are the same number.
#[derive(Debug, Clone, Default)]
pub(crate) struct Dropped(Arc<AtomicU64>);

impl Dropped {
    pub(crate) fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn add(&self, visits: u64) {
        self.0.fetch_add(visits, Ordering::Relaxed);
    }
}

/// Reporting, while it goes on.
pub(crate) struct Reporting {
    pub(crate) dropped: Dropped,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Reporting {
    /// Tells what is left, if the collector takes it in time.
    pub(crate) async fn stop(self) {
        let _ = self.stop.send(());
        if tokio::time::timeout(FLUSH, self.task).await.is_err() {
            tracing::warn!("the trace collector did not take what was left in time");
        }
    }
}

/// Begins to report.
pub(crate) fn start(
    runtime: &Handle,
    manager: &Manager,
    settings: &OtlpSettings,
) -> Result<Reporting, Failure> {
    let unusable = |why: &dyn std::fmt::Display| Failure::unusable(format_args!("telemetry.otlp: {why}"));
    let client = reqwest::Client::builder()
        .timeout(TIMEOUT)
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .map_err(|error| unusable(&error))?;
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_http()
        .with_http_client(client)
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(settings.endpoint.as_str())
        .with_timeout(TIMEOUT)
        .with_headers(settings.headers.clone().into_iter().collect())
        .build();
    let mut exporter = exporter.map_err(|error| unusable(&error))?;
    let attributes = [
        KeyValue::new("service.name", settings.service_name.clone()),
        KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
    ];
    exporter.set_resource(&Resource::builder_empty().with_attributes(attributes).build());
    let (stop, stopped) = oneshot::channel();
    let dropped = Dropped::default();
    let visits = manager.ledger().follow_visits();
    let reporter = Reporter { exporter, visits, dropped: dropped.clone(), failing: false };
    Ok(Reporting { dropped, stop, task: runtime.spawn(reporter.run(stopped)) })
}

struct Reporter {
    exporter: opentelemetry_otlp::SpanExporter,
    /// Holds thousands of visits, and drops the oldest when the collector is slow.
    visits: Receiver<Arc<VisitRecord>>,
    dropped: Dropped,
    /// Whether the last message was not taken, so that the log says it once.
    failing: bool,
}

impl Reporter {
    async fn run(mut self, mut stopped: oneshot::Receiver<()>) {
        loop {
            let first = tokio::select! {
                _ = &mut stopped => break,
                first = self.visits.recv() => first,
            };
            match first {
                Ok(visit) => {
                    // Others that end meanwhile go with it.
                    let stopping = tokio::time::timeout(PAUSE, &mut stopped).await.is_ok();
                    self.report(Some(visit)).await;
                    if stopping {
                        break;
                    }
                }
                Err(RecvError::Lagged(visits)) => self.dropped.add(visits),
                Err(RecvError::Closed) => return,
            }
        }
        while !self.visits.is_empty() {
            self.report(None).await;
        }
    }

    /// One message.
    async fn report(&mut self, first: Option<Arc<VisitRecord>>) {
        let (mut spans, mut visits) = (Vec::new(), 0);
        let mut next = first;
        loop {
            if let Some(visit) = next.take() {
                visits += u64::from(add_spans(&mut spans, &visit));
            }
            if spans.len() >= SPANS_MAX {
                break;
            }
            match self.visits.try_recv() {
                Ok(visit) => next = Some(visit),
                Err(TryRecvError::Lagged(visits)) => self.dropped.add(visits),
                Err(TryRecvError::Empty | TryRecvError::Closed) => break,
            }
        }
        if spans.is_empty() {
            return;
        }
        let sent = self.exporter.export(spans).await;
        if let Err(error) = &sent {
            self.dropped.add(visits);
            if !self.failing {
                tracing::warn!(%error, "the trace collector does not take traces; they are dropped and counted");
            }
        } else if self.failing {
            tracing::info!("the trace collector takes traces again");
        }
        self.failing = sent.is_err();
    }
}

/// Whether there were any: of a trace that its client does not record there are none.
fn add_spans(spans: &mut Vec<SpanData>, visit: &VisitRecord) -> bool {
    if visit.trace.is_some_and(|trace| !trace.sampled) {
        return false;
    }
    let own = u64::from_str_radix(&visit.id, 16).unwrap_or(0);
    let began_ns = visit.began_at.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    let made_up = u128::from(own) << 64 | u128::from(hash(&(own, began_ns)));
    let trace = TraceId::from(visit.trace.map_or(made_up.max(1), |trace| trace.trace_id));
    let root = SpanId::from(hash(&(own, began_ns, "visit")));
    let parent = visit.trace.map_or(SpanId::INVALID, |trace| SpanId::from(trace.parent_id));
    let refused = visit.decisions.iter().any(|decision| matches!(decision.outcome, Outcome::Refused(_)));
    let attributes = vec![
        KeyValue::new("cardan.visit", visit.id.clone()),
        KeyValue::new("cardan.subject", visit.subject.clone()),
        KeyValue::new("cardan.generation", i64::try_from(visit.generation).unwrap_or(i64::MAX)),
        KeyValue::new(
            "cardan.decisions_not_kept",
            i64::try_from(visit.decisions_not_kept).unwrap_or(i64::MAX),
        ),
    ];
    spans.push(SpanData {
        parent_span_is_remote: visit.trace.is_some(),
        span_kind: SpanKind::Server,
        end_time: visit.began_at + visit.duration,
        status: if refused { Status::error("a plugin could not be asked") } else { Status::Unset },
        ..span(Ids { trace, span: root, parent }, "cardan.visit".into(), visit, attributes)
    });
    for (i, decision) in visit.decisions.iter().enumerate() {
        let ids = Ids { trace, span: SpanId::from(hash(&(own, began_ns, i))), parent: root };
        spans.push(question(ids, visit, decision));
    }
    true
}

fn question(ids: Ids, visit: &VisitRecord, decision: &Decision) -> SpanData {
    let (outcome, fault) = match decision.outcome {
        Outcome::Continued => ("continued", None),
        Outcome::Stopped => ("stopped", None),
        Outcome::Skipped(fault) => ("skipped", Some(fault)),
        Outcome::Refused(fault) => ("refused", Some(fault)),
        Outcome::FellBack(fault) => ("fell_back", Some(fault)),
    };
    let mut attributes = vec![
        KeyValue::new("cardan.plugin.name", decision.plugin.to_string()),
        KeyValue::new("cardan.plugin.version", i64::from(decision.version)),
        KeyValue::new("cardan.hook", decision.hook),
        KeyValue::new("cardan.outcome", outcome),
    ];
    attributes.extend(fault.map(|fault| KeyValue::new("cardan.fault", fault.label())));
    attributes.extend(decision.changed.clone().map(|changed| KeyValue::new("cardan.changed", changed)));
    let name = format!("{} {}", decision.hook, decision.plugin);
    let start_time = visit.began_at + decision.since;
    SpanData {
        start_time,
        end_time: start_time + decision.duration,
        status: fault.map_or(Status::Unset, |fault| {
            Status::error(decision.error.clone().unwrap_or_else(|| fault.to_string()))
        }),
        ..span(ids, name.into(), visit, attributes)
    }
}

struct Ids {
    trace: TraceId,
    span: SpanId,
    parent: SpanId,
}

fn span(ids: Ids, name: Cow<'static, str>, visit: &VisitRecord, attributes: Vec<KeyValue>) -> SpanData {
    let flags = TraceFlags::SAMPLED;
    SpanData {
        span_context: SpanContext::new(ids.trace, ids.span, flags, false, TraceState::default()),
        parent_span_id: ids.parent,
        parent_span_is_remote: false,
        span_kind: SpanKind::Internal,
        name,
        start_time: visit.began_at,
        end_time: visit.began_at,
        attributes,
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links: SpanLinks::default(),
        status: Status::Unset,
        instrumentation_scope: InstrumentationScope::builder("cardan").build(),
    }
}

/// Not 0.
fn hash(value: &impl std::hash::Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish().max(1)
}
