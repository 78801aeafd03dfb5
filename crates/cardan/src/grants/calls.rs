//! The calls by which guests use their grants: one table, from bytes to bytes.
//!
//! How the bytes cross the guest's border is the calling convention's; what they mean, and what is done, is
//! here, so that every convention offers the same. Text and numbers are UTF-8 text, numbers in decimal;
//! what has parts is JSON. An argument or a result of no bytes is one that is not there.

mod fetch;
mod sql;
mod stores;

use std::sync::Arc;
use std::time::Duration;

use cardan_api::Capability;
use serde_json::Value;

use super::{Authority, CacheClaim, LogLevel, MetricsSpace, Refusal, Sample, SampleKind, ServiceFailure};
use crate::grants::log::unix_ms;

/// Most random bytes at once.
const RANDOM_BYTES_MAX: usize = 64 << 10;
/// Claims of one call at once.
const CLAIMS_MAX: usize = 64;

/// One of the calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    KvGet,
    KvSet,
    KvDelete,
    KvAdd,
    KvCas,
    KvScan,
    CacheGet,
    CacheSet,
    CacheDelete,
    CacheFill,
    ExecuteQuery,
    MetricInc,
    MetricGauge,
    MetricObserve,
    Log,
    HttpFetch,
    SecretGet,
    TimeNowMs,
    RandomBytes,
}

/// How guests see a call.
#[derive(Debug)]
pub(crate) struct Function {
    pub(crate) operation: Operation,
    pub(crate) name: &'static str,
    pub(crate) params: usize,
    /// What has to be granted.
    pub(crate) needs: Capability,
    /// Whether a guest may be suspended in it.
    pub(crate) waits: Waits,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Waits {
    /// It may take as long as a disk or a network.
    Maybe,
    /// It is done at once.
    Never,
}

/// Every call there is.
pub(crate) static FUNCTIONS: [Function; 19] = {
    const fn row(
        operation: Operation,
        name: &'static str,
        params: usize,
        needs: Capability,
        waits: Waits,
    ) -> Function {
        Function { operation, name, params, needs, waits }
    }
    use Capability as C;
    use Operation as Op;
    use Waits::{Maybe, Never};
    [
        row(Op::KvGet, "kv_get", 1, C::KvRead, Maybe),
        row(Op::KvSet, "kv_set", 3, C::KvWrite, Maybe),
        row(Op::KvDelete, "kv_delete", 1, C::KvWrite, Maybe),
        row(Op::KvAdd, "kv_add", 2, C::KvWrite, Maybe),
        row(Op::KvCas, "kv_cas", 3, C::KvWrite, Maybe),
        row(Op::KvScan, "kv_scan", 1, C::KvRead, Maybe),
        row(Op::CacheGet, "cache_get", 1, C::CacheRead, Maybe),
        row(Op::CacheSet, "cache_set", 3, C::CacheWrite, Maybe),
        row(Op::CacheDelete, "cache_delete", 1, C::CacheWrite, Maybe),
        row(Op::CacheFill, "cache_fill", 1, C::CacheWrite, Maybe),
        row(Op::ExecuteQuery, "execute_query", 1, C::SqlRead, Maybe),
        row(Op::MetricInc, "metric_inc", 2, C::Metrics, Never),
        row(Op::MetricGauge, "metric_gauge", 2, C::Metrics, Never),
        row(Op::MetricObserve, "metric_observe", 2, C::Metrics, Never),
        row(Op::Log, "log", 2, C::Log, Never),
        row(Op::HttpFetch, "http_fetch", 1, C::Http, Maybe),
        row(Op::SecretGet, "secret_get", 1, C::Secrets, Maybe),
        row(Op::TimeNowMs, "time_now_ms", 0, C::Clock, Never),
        row(Op::RandomBytes, "random_bytes", 1, C::Random, Never),
    ]
};

impl Function {
    /// The call of this name.
    pub(crate) fn find(name: &str) -> Option<&'static Self> {
        FUNCTIONS.iter().find(|function| function.name == name)
    }

    pub(crate) fn of(operation: Operation) -> Option<&'static Self> {
        FUNCTIONS.iter().find(|function| function.operation == operation)
    }
}

/// A call's arguments, as many as its function has.
#[derive(Debug, Clone, Default)]
pub(crate) struct Arguments(pub(crate) Vec<Vec<u8>>);

impl Arguments {
    fn bytes(&mut self, index: usize) -> Vec<u8> {
        self.0.get_mut(index).map(std::mem::take).unwrap_or_default()
    }

    fn text(&mut self, function: &Function, index: usize) -> Result<String, Refusal> {
        String::from_utf8(self.bytes(index))
            .map_err(|_| Refusal::protocol(format!("{}: argument {} is not UTF-8", function.name, index + 1)))
    }

    fn number<T: std::str::FromStr>(&mut self, function: &Function, index: usize) -> Result<T, Refusal> {
        let text = self.text(function, index)?;
        text.trim().parse().map_err(|_| {
            let (name, nth) = (function.name, index + 1);
            Refusal::protocol(format!("{name}: argument {nth} is {text:?}, and has to be a decimal number"))
        })
    }
}

/// What a call leaves behind.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// Of no bytes: nothing.
    pub(crate) bytes: Vec<u8>,
    /// To be kept until the guest's call is over.
    pub(crate) claim: Option<CacheClaim>,
    /// A warning for the plugin's log.
    pub(crate) note: Option<String>,
}

impl From<Vec<u8>> for Outcome {
    fn from(bytes: Vec<u8>) -> Self {
        Self { bytes, ..Self::default() }
    }
}

impl From<String> for Outcome {
    fn from(text: String) -> Self {
        text.into_bytes().into()
    }
}

impl From<Value> for Outcome {
    fn from(value: Value) -> Self {
        value.to_string().into()
    }
}

/// What a guest's call to its host knows of the call it is part of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Situation {
    /// Time that is left. `None`: no deadline.
    pub(crate) left: Option<Duration>,
    /// Claims that are held.
    pub(crate) claims: usize,
}

impl Authority {
    /// Makes a call that is done at once.
    pub(crate) fn call_now(&self, function: &Function, mut arguments: Arguments) -> Result<Outcome, Refusal> {
        self.allow(function.name, function.needs)?;
        match function.operation {
            Operation::MetricInc => self.measure(function, SampleKind::Counter, arguments),
            Operation::MetricGauge => self.measure(function, SampleKind::Gauge, arguments),
            Operation::MetricObserve => self.measure(function, SampleKind::Histogram, arguments),
            Operation::TimeNowMs => Ok(unix_ms().to_string().into()),
            Operation::RandomBytes => {
                let size: usize = arguments.number(function, 0)?;
                if size > RANDOM_BYTES_MAX {
                    let most = format!("random_bytes: {size} bytes are more than {RANDOM_BYTES_MAX} at once");
                    return Err(Refusal::protocol(most));
                }
                let mut bytes = vec![0; size];
                getrandom::fill(&mut bytes)
                    .map_err(|error| Refusal::host(format!("random_bytes: {error}")))?;
                Ok(bytes.into())
            }
            _ => Err(Refusal::host(format!("{} cannot be called without waiting", function.name))),
        }
    }

    /// Makes any call. Dropping the future gives it up.
    pub(crate) async fn call(
        self: Arc<Self>,
        function: &'static Function,
        arguments: Arguments,
        situation: Situation,
    ) -> Result<Outcome, Refusal> {
        self.allow(function.name, function.needs)?;
        match function.operation {
            Operation::KvGet
            | Operation::KvSet
            | Operation::KvDelete
            | Operation::KvAdd
            | Operation::KvCas
            | Operation::KvScan => self.keys_and_values(function, arguments).await,
            Operation::CacheFill if situation.claims >= CLAIMS_MAX => Err(Refusal::protocol(format!(
                "cache_fill: more than {CLAIMS_MAX} values at once in one call"
            ))),
            Operation::CacheGet | Operation::CacheSet | Operation::CacheDelete | Operation::CacheFill => {
                self.cached(function, arguments).await
            }
            Operation::ExecuteQuery => self.execute_query(function, arguments, situation).await,
            Operation::HttpFetch => self.http_fetch(function, arguments, situation).await,
            Operation::SecretGet => self.secret_get(function, arguments).await,
            Operation::MetricInc
            | Operation::MetricGauge
            | Operation::MetricObserve
            | Operation::Log
            | Operation::TimeNowMs
            | Operation::RandomBytes => self.call_now(function, arguments),
        }
    }

    fn measure(
        &self,
        function: &Function,
        kind: SampleKind,
        mut args: Arguments,
    ) -> Result<Outcome, Refusal> {
        let Some(metrics) = &self.services.metrics else {
            return Err(self.missing(function.name, "metrics"));
        };
        let Some(scope) = self.grants.metrics else {
            return Err(self.denied(function.name, Capability::Metrics));
        };
        let what = args.text(function, 0)?;
        let value: f64 = args.number(function, 1)?;
        if !value.is_finite() {
            return Err(Refusal::protocol(format!("{}: {value} is no value of a metric", function.name)));
        }
        let named = if what.trim_start().starts_with('{') {
            document(function, &what)?
        } else {
            Named { name: what, labels: std::collections::BTreeMap::new() }
        };
        let space = MetricsSpace { plugin: self.plugin.clone(), scope };
        let sample = Sample { kind, name: named.name, labels: named.labels, value };
        let recorded = metrics.record(&space, sample);
        recorded.map(|()| Outcome::default()).map_err(|failure| self.failed(function.name, failure))
    }

    async fn secret_get(&self, function: &Function, mut args: Arguments) -> Result<Outcome, Refusal> {
        let name = args.text(function, 0)?;
        if !self.grants.secrets.contains(&name) {
            let grant = format!("secrets: [{name}]");
            return Err(self.denied_unless(&format!("secret_get of {name:?}"), Capability::Secrets, &grant));
        }
        let Some(secrets) = self.services.secrets.clone() else {
            return Err(self.missing(function.name, "secrets"));
        };
        let secret = secrets.secret(&name).await;
        let secret = secret.map_err(|failure| self.failed(function.name, failure))?;
        Ok(secret.map(|secret| secret.reveal().to_vec()).unwrap_or_default().into())
    }
}

/// The name of a metric, with labels.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    name: String,
    #[serde(default)]
    labels: std::collections::BTreeMap<String, String>,
}

/// A JSON argument.
fn document<T: serde::de::DeserializeOwned>(function: &Function, text: &str) -> Result<T, Refusal> {
    serde_json::from_str(text).map_err(|error| Refusal::protocol(format!("{}: {error}", function.name)))
}

/// A time to live in seconds, from JSON or decimal text.
fn ttl(function: &Function, seconds: f64) -> Result<Duration, Refusal> {
    let ttl = Duration::try_from_secs_f64(seconds).ok().filter(|ttl| *ttl >= Duration::from_millis(1));
    ttl.ok_or_else(|| {
        let name = function.name;
        Refusal::protocol(format!("{name}: {seconds} is no time to live: it is in seconds, and more than 0"))
    })
}

/// Bytes in a JSON document: as text where they are, else in base64 under another name.
fn put_bytes(object: &mut serde_json::Map<String, Value>, name: &str, bytes: Vec<u8>) {
    use base64::Engine as _;
    match String::from_utf8(bytes) {
        Ok(text) => object.insert(name.to_owned(), text.into()),
        Err(error) => {
            let encoded = base64::engine::general_purpose::STANDARD.encode(error.into_bytes());
            object.insert(format!("{name}_base64"), encoded.into())
        }
    };
}

/// The level that a guest names, by its name or as a number from 0, *trace*, to 4, *error*.
pub(crate) fn log_level(text: &str) -> Option<LogLevel> {
    let text = text.trim();
    let named = LogLevel::ALL.into_iter().find(|level| level.name().eq_ignore_ascii_case(text));
    let number = || LogLevel::ALL.get(text.parse::<usize>().ok()?).copied();
    named.or_else(number).or_else(|| text.eq_ignore_ascii_case("warning").then_some(LogLevel::Warn))
}

impl From<ServiceFailure> for String {
    fn from(failure: ServiceFailure) -> Self {
        match failure {
            ServiceFailure::Full(why) | ServiceFailure::Invalid(why) | ServiceFailure::Unavailable(why) => {
                why
            }
            ServiceFailure::Timeout => "timeout".to_owned(),
        }
    }
}
