//! Upstreams and routes: where requests go.

use std::collections::BTreeMap;

use cardan_api::manifest::Milliseconds;
use cardan_gateway::{Builtin, HostMatch, PathMatch, RouteConfig, Service, UpstreamConfig};
use http::{HeaderName, HeaderValue, Method};
use schemars::JsonSchema;
use serde::Deserialize;

use super::source::{Environment, substitute};
use crate::output::Failure;

/// One service, in one or more copies.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Upstream {
    name: String,
    /// Base URLs of the copies, asked in turn. `${NAME}` stands for an environment variable.
    #[serde(default)]
    urls: Vec<String>,
    /// The deterministic service inside of Cardan, instead of URLs.
    #[serde(default)]
    builtin: Option<BuiltinEntry>,
    /// If not empty, `GET /v1/models` is answered from this list.
    #[serde(default)]
    models: Vec<String>,
    /// How many copies may be tried until one accepts a connection; 3 unless said otherwise.
    #[serde(default)]
    tries: Option<usize>,
}

/// The service inside of Cardan.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct BuiltinEntry {
    /// What it lists as its models.
    models: Option<Vec<String>>,
    /// Pause before each event of a stream; 20 ms unless said otherwise.
    pace: Option<Milliseconds>,
}

/// Which requests go to which upstream. Exactly one of `path` and `exact`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Route {
    /// For logs; the path unless said otherwise.
    #[serde(default)]
    name: Option<String>,
    /// This path and everything below it, in whole segments.
    #[serde(default)]
    path: Option<String>,
    /// This path and no other.
    #[serde(default)]
    exact: Option<String>,
    /// Hosts, or `*.domain`; all unless said otherwise.
    #[serde(default)]
    hosts: Vec<String>,
    /// Methods; all unless said otherwise.
    #[serde(default)]
    methods: Vec<String>,
    /// The name of an upstream.
    upstream: String,
    /// What takes the place of the matched part of the path.
    #[serde(default)]
    rewrite: Option<String>,
    /// Header fields for the upstream, such as credentials, that neither clients nor plugins see.
    /// `${NAME}` stands for an environment variable.
    #[serde(default)]
    headers: BTreeMap<String, String>,
}

impl Upstream {
    pub(super) fn resolve(self, environment: Environment<'_>) -> Result<UpstreamConfig, Failure> {
        let name = &self.name;
        let service = match (self.builtin, self.urls.is_empty()) {
            (Some(builtin), true) => Service::Builtin(builtin.resolve()),
            (None, false) => {
                let urls = self.urls.iter().map(|url| substitute(url, environment));
                Service::Remote(urls.collect::<Result<_, _>>()?)
            }
            _ => {
                return Err(Failure::unusable(format_args!(
                    "upstream {name}: give it either `urls` or `builtin: {{}}`"
                )));
            }
        };
        Ok(UpstreamConfig {
            name: self.name,
            service,
            models: self.models,
            tries_max: self.tries.unwrap_or(3),
        })
    }
}

impl BuiltinEntry {
    pub(super) fn resolve(self) -> Builtin {
        let default = Builtin::default();
        Builtin {
            models: self.models.unwrap_or(default.models),
            pace: self.pace.map_or(default.pace, Milliseconds::duration),
            ..default
        }
    }
}

impl Route {
    pub(super) fn resolve(self, environment: Environment<'_>) -> Result<RouteConfig, Failure> {
        let path = match (self.path, self.exact) {
            (Some(path), None) => PathMatch::Prefix(path),
            (None, Some(path)) => PathMatch::Exact(path),
            _ => {
                let name = self.name.unwrap_or(self.upstream);
                return Err(Failure::unusable(format_args!(
                    "route {name}: give it either `path` or `exact`"
                )));
            }
        };
        let name = self.name.unwrap_or_else(|| match &path {
            PathMatch::Prefix(path) | PathMatch::Exact(path) => path.clone(),
        });
        let methods = self.methods.iter().map(|method| {
            Method::from_bytes(method.to_ascii_uppercase().as_bytes())
                .map_err(|_| Failure::unusable(format_args!("route {name}: {method:?} is no HTTP method")))
        });
        let methods = methods.collect::<Result<_, _>>()?;
        let headers = self.headers.iter().map(|(field, value)| {
            let value = substitute(value, environment)?;
            let mut value = HeaderValue::from_str(&value).map_err(|_| {
                Failure::unusable(format_args!("route {name}: the value of header {field} is not valid"))
            })?;
            value.set_sensitive(true);
            Ok((header_name(&format!("route {name}"), field)?, value))
        });
        let headers = headers.collect::<Result<_, Failure>>()?;
        let hosts = self.hosts.iter().map(|host| HostMatch::parse(host)).collect();
        Ok(RouteConfig {
            hosts,
            methods,
            rewrite: self.rewrite,
            headers,
            ..RouteConfig::new(name, path, self.upstream)
        })
    }
}

pub(super) fn header_name(place: &str, name: &str) -> Result<HeaderName, Failure> {
    name.parse().map_err(|_| Failure::unusable(format_args!("{place}: {name:?} is no header name")))
}
