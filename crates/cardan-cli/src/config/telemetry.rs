//! Where visits are reported to.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;
use url::Url;

use super::source::{Environment, substitute};
use crate::output::Failure;

/// What is told to others. Read at the start only.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Telemetry")]
pub(crate) struct TelemetryEntry {
    /// A trace collector: each visit is a span, and each question to a plugin one below it.
    otlp: Option<OtlpEntry>,
}

/// An OpenTelemetry collector, over HTTP with protobuf.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Otlp")]
struct OtlpEntry {
    /// Such as `http://127.0.0.1:4318`; `/v1/traces` is appended where there is no path. `${NAME}` stands for
    /// an environment variable.
    endpoint: String,
    /// Header fields, such as credentials. `${NAME}` stands for an environment variable.
    #[serde(default)]
    headers: BTreeMap<String, String>,
    /// `cardan` unless said otherwise.
    #[serde(default)]
    service_name: Option<String>,
}

/// A trace collector, resolved.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct OtlpSettings {
    pub(crate) endpoint: Url,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) service_name: String,
}

impl std::fmt::Debug for OtlpSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OtlpSettings").field("service_name", &self.service_name).finish_non_exhaustive()
    }
}

impl TelemetryEntry {
    pub(super) fn resolve(&self, environment: Environment<'_>) -> Result<Option<OtlpSettings>, Failure> {
        let Some(otlp) = &self.otlp else { return Ok(None) };
        let text = substitute(&otlp.endpoint, environment)?;
        let wrong = || {
            Failure::unusable(
                "telemetry.otlp.endpoint: it is no http or https URL, such as http://127.0.0.1:4318",
            )
        };
        let mut endpoint: Url = text.parse().map_err(|_| wrong())?;
        if !["http", "https"].contains(&endpoint.scheme()) {
            return Err(wrong());
        }
        if endpoint.path() == "/" {
            endpoint.set_path("/v1/traces");
        }
        let mut headers = BTreeMap::new();
        for (name, value) in &otlp.headers {
            super::routing::header_name("telemetry.otlp.headers", name)?;
            headers.insert(name.clone(), substitute(value, environment)?);
        }
        let service_name = otlp.service_name.clone().unwrap_or_else(|| "cardan".to_owned());
        Ok(Some(OtlpSettings { endpoint, headers, service_name }))
    }
}
