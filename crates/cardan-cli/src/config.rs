//! `cardan.yaml`: what an operator writes, and what it means.
//!
//! The raw types say which keys there are; an unknown one is an error. Resolving them looks names up,
//! fills in defaults and reads what the file points to, and gives the types that the gateway and the
//! manager act on.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZero;
use std::path::{Path, PathBuf};

use cardan_api::manifest::{Bytes, Milliseconds, PluginEntry, llmproxy};
use cardan_gateway::{
    AmbiguousBodies, AmbiguousPaths, Builtin, Config, Forwarded, HostMatch, Limits, PathMatch, RouteConfig,
    Service, Timeouts, UpstreamConfig,
};
use cardan_manager::{PluginSpec, resolve_entry, resolve_llmproxy};
use http::{HeaderName, HeaderValue, Method};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::output::Failure;

/// Memory of all plugins' instances where the file says nothing about it.
const ENGINE_MEMORY_BYTES_MAX: u64 = 4 << 30;

/// The whole file.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "cardan.yaml")]
pub(crate) struct File {
    /// Where clients connect; 127.0.0.1:8080 unless said otherwise.
    #[serde(default = "default_listen")]
    listen: SocketAddr,
    /// The services behind the gateway.
    #[serde(default)]
    upstreams: Vec<Upstream>,
    /// Which requests go where. The first that matches takes the request.
    #[serde(default)]
    routes: Vec<Route>,
    /// Plugins, in the order that decides ties.
    #[serde(default)]
    plugins: Vec<PluginEntry>,
    /// Plugins described by LLMProxy's own manifests, after those above.
    #[serde(default)]
    llmproxy: Option<LlmProxy>,
    /// Named maxima.
    #[serde(default)]
    limits: LimitsEntry,
    /// How long anybody may keep anybody waiting.
    #[serde(default)]
    timeouts: TimeoutsEntry,
    /// What all plugins together may have. Read at the start only.
    #[serde(default)]
    engine: EngineEntry,
    /// The request header that names a client's session; `x-session-id` unless said otherwise.
    #[serde(default)]
    session_header: Option<String>,
    /// What becomes of the `x-forwarded-*` fields that clients send.
    #[serde(default)]
    forwarded: ForwardedEntry,
    /// What happens to paths that upstreams may read in two ways: with `//`, `\\`, `;`, `%2F`, `%252F`.
    #[serde(default)]
    ambiguous_paths: AmbiguousPathsEntry,
    /// What happens to JSON that parsers may read in two ways, such as an object with one name twice, where a
    /// plugin is to be shown it.
    #[serde(default)]
    ambiguous_bodies: AmbiguousBodiesEntry,
}

fn default_listen() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 8080).into()
}

/// One service, in one or more copies.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Upstream {
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
struct BuiltinEntry {
    /// What it lists as its models.
    models: Option<Vec<String>>,
    /// Pause before each event of a stream; 20 ms unless said otherwise.
    pace: Option<Milliseconds>,
}

/// Which requests go to which upstream. Exactly one of `path` and `exact`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Route {
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

/// LLMProxy's plugins.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct LlmProxy {
    /// Its manifests; an entry of a later one replaces that of the same name in an earlier one.
    manifests: Vec<PathBuf>,
    /// What entry points are relative to; the folder of the first manifest unless said otherwise.
    #[serde(default)]
    folder: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "GatewayLimits")]
struct LimitsEntry {
    /// A request body that is passed on as it comes; 1 GiB unless said otherwise.
    request_body: Option<Bytes>,
    /// A request body that is held for plugins; 10 MiB unless said otherwise.
    held_request: Option<Bytes>,
    /// A response body that is held for plugins; 10 MiB unless said otherwise.
    held_response: Option<Bytes>,
    /// All that is held at once, over all requests; 1 GiB unless said otherwise.
    held_total: Option<Bytes>,
    /// One event of a stream; 1 MiB unless said otherwise.
    event: Option<Bytes>,
    /// A message's header fields together; 64 KiB unless said otherwise.
    headers: Option<Bytes>,
    /// Client connections at once; 10,000 unless said otherwise.
    connections: Option<usize>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "GatewayTimeouts")]
struct TimeoutsEntry {
    /// A client, for a request's head; 30 s unless said otherwise.
    header_read: Option<Milliseconds>,
    /// A client, for the whole of a request's body; 300 s unless said otherwise.
    request: Option<Milliseconds>,
    /// An upstream, for connecting; 5 s unless said otherwise.
    connect: Option<Milliseconds>,
    /// An upstream, for the head of its response; 300 s unless said otherwise.
    response_head: Option<Milliseconds>,
    /// An upstream, between two pieces of a response; 120 s unless said otherwise.
    response_idle: Option<Milliseconds>,
    /// Requests under way when the gateway is told to stop; 30 s unless said otherwise.
    drain: Option<Milliseconds>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Engine")]
struct EngineEntry {
    /// Instances alive at once in the pool; 1,000 unless said otherwise. Each reserves some 8 GiB of address
    /// space, not memory.
    #[schemars(range(min = 1))]
    instances: Option<NonZero<u32>>,
    /// The memories of all instances together, as large as they are and not as much of them as is used; 4 GiB
    /// unless said otherwise.
    memory: Option<Bytes>,
    /// Stack of one call of a plugin, from 64 KiB to 1 MiB; 512 KiB unless said otherwise.
    stack: Option<Bytes>,
}

#[derive(Debug, Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum ForwardedEntry {
    /// Replaced, because clients reach this gateway directly.
    #[default]
    Replace,
    /// Continued, because only trusted proxies reach this gateway.
    Append,
}

#[derive(Debug, Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum AmbiguousPathsEntry {
    /// Answered with 400.
    #[default]
    Refuse,
    /// Sent on as they are.
    PassOn,
}

#[derive(Debug, Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum AmbiguousBodiesEntry {
    /// Answered with 400.
    #[default]
    Refuse,
    /// Shown and sent on as they are.
    PassOn,
}

/// What the file means.
#[derive(Debug)]
pub(crate) struct Resolved {
    pub(crate) listen: SocketAddr,
    pub(crate) engine: EngineBounds,
    pub(crate) gateway: Config,
    pub(crate) plugins: Vec<PluginSpec>,
    /// Those of them that the file itself describes, as it does.
    pub(crate) entries: Vec<PluginEntry>,
    /// What the operator should know and what stops nothing.
    pub(crate) warnings: Vec<String>,
}

/// What all plugins together may have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct EngineBounds {
    pub(crate) pool_instances: Option<u32>,
    pub(crate) memory_bytes_max: Option<u64>,
    pub(crate) stack_bytes: Option<u32>,
}

/// Where values of `${NAME}` come from.
pub(crate) type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// This process's environment.
#[expect(clippy::disallowed_methods, reason = "this is the binary, the one place that reads the environment")]
pub(crate) fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Reads a configuration file again. At the start it may be a pipe, which brings what it brings once; to read
/// one again could take for ever.
pub(crate) fn read_again(path: &Path, environment: Environment<'_>) -> Result<Resolved, Failure> {
    // What is not there is reported by reading it.
    if std::fs::metadata(path).is_ok_and(|metadata| !metadata.is_file()) {
        return Err(Failure::unusable(format_args!(
            "cannot read {} again: it is not a regular file",
            path.display()
        )));
    }
    read(path, environment)
}

/// Reads and resolves a configuration file.
pub(crate) fn read(path: &Path, environment: Environment<'_>) -> Result<Resolved, Failure> {
    let text =
        read_text(path, "; name one with --config, or see what one looks like with `cardan demo --dir DIR`")?;
    let file: File = parse_yaml(path, &text, "`upstreams`, `routes` and `plugins` are missing")?;
    let base = path.parent().unwrap_or(Path::new(""));
    file.resolve(base, environment)
        .map_err(|failure| Failure::unusable(format_args!("{}: {failure}", path.display())))
}

/// The key for what the gateway calls so.
pub(crate) fn key_of(setting: &'static str) -> &'static str {
    match setting {
        "connections_max" => "limits.connections",
        "held_bytes_max" => "limits.held_total",
        "header_bytes_max" => "limits.headers",
        "tries_max" => "tries",
        other => other,
    }
}

/// Most bytes of a configuration or manifest.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// Reads a file, or what a pipe brings: configurations may be made on the fly.
/// `hint` says what to do when there is nothing.
fn read_text(path: &Path, hint: &str) -> Result<String, Failure> {
    let mut text = String::new();
    let read =
        std::fs::File::open(path).and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text));
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(Failure::unusable(format_args!(
            "cannot read {}: it is larger than {} MiB",
            path.display(),
            FILE_BYTES_MAX >> 20
        )));
    }
    read.map(|_| text).map_err(|error| {
        let hint = if error.kind() == std::io::ErrorKind::NotFound { hint } else { "" };
        Failure::unusable(format_args!("cannot read {}: {error}{hint}", path.display()))
    })
}

/// A file that says nothing is refused: more likely it is half written than meant, and to go by it would be
/// to go on without a single guard.
fn parse_yaml<T: serde::de::DeserializeOwned>(path: &Path, text: &str, missing: &str) -> Result<T, Failure> {
    let document: Option<T> = serde_saphyr::from_str(text).map_err(|error: serde_saphyr::Error| {
        let what = error.without_snippet().render_with_formatter(&serde_saphyr::UserMessageFormatter);
        Failure::unusable(format_args!("{}: {what}", path.display()))
    })?;
    document.ok_or_else(|| {
        let path = path.display();
        Failure::unusable(format_args!("{path}: it is empty, or has nothing but comments: {missing}"))
    })
}

impl File {
    fn resolve(self, base: &Path, environment: Environment<'_>) -> Result<Resolved, Failure> {
        let mut plugins = Vec::new();
        let mut warnings = Vec::new();
        for entry in self.plugins.iter().filter(|entry| entry.enabled) {
            plugins.push(resolve_entry(entry, base).map_err(Failure::unusable)?);
        }
        if let Some(llmproxy) = &self.llmproxy {
            llmproxy.resolve(base, &mut plugins, &mut warnings)?;
        }
        let mut gateway = Config {
            routes: self
                .routes
                .into_iter()
                .map(|route| route.resolve(environment))
                .collect::<Result<_, _>>()?,
            upstreams: self
                .upstreams
                .into_iter()
                .map(|upstream| upstream.resolve(environment))
                .collect::<Result<_, _>>()?,
            ambiguous_paths: match self.ambiguous_paths {
                AmbiguousPathsEntry::Refuse => AmbiguousPaths::Refuse,
                AmbiguousPathsEntry::PassOn => AmbiguousPaths::PassOn,
            },
            ambiguous_bodies: match self.ambiguous_bodies {
                AmbiguousBodiesEntry::Refuse => AmbiguousBodies::Refuse,
                AmbiguousBodiesEntry::PassOn => AmbiguousBodies::PassOn,
            },
            forwarded: match self.forwarded {
                ForwardedEntry::Replace => Forwarded::Replace,
                ForwardedEntry::Append => Forwarded::Append,
            },
            ..Config::default()
        };
        if let Some(name) = &self.session_header {
            gateway.session_header = Some(header_name("session_header", name)?);
        }
        self.limits.apply(&mut gateway);
        self.timeouts.apply(&mut gateway);
        let engine = self.engine.resolve();
        let entries = self.plugins.into_iter().filter(|entry| entry.enabled).collect();
        Ok(Resolved { listen: self.listen, engine, gateway, plugins, entries, warnings })
    }
}

impl Upstream {
    fn resolve(self, environment: Environment<'_>) -> Result<UpstreamConfig, Failure> {
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
    fn resolve(self) -> Builtin {
        let default = Builtin::default();
        Builtin {
            models: self.models.unwrap_or(default.models),
            pace: self.pace.map_or(default.pace, Milliseconds::duration),
            ..default
        }
    }
}

impl Route {
    fn resolve(self, environment: Environment<'_>) -> Result<RouteConfig, Failure> {
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

impl LlmProxy {
    fn resolve(
        &self,
        base: &Path,
        plugins: &mut Vec<PluginSpec>,
        warnings: &mut Vec<String>,
    ) -> Result<(), Failure> {
        let first = self.manifests.first().and_then(|path| path.parent()).unwrap_or(Path::new(""));
        let folder = base.join(self.folder.as_deref().unwrap_or(first));
        let mut entries: Vec<llmproxy::Entry> = Vec::new();
        for manifest in &self.manifests {
            let path = base.join(manifest);
            let document: llmproxy::Document =
                parse_yaml(&path, &read_text(&path, "")?, "`[]` is a manifest without plugins")?;
            for entry in document.into_entries() {
                match entries.iter_mut().find(|earlier| earlier.name == entry.name) {
                    Some(earlier) => *earlier = entry,
                    None => entries.push(entry),
                }
            }
        }
        for entry in &entries {
            let (spec, warned) = resolve_llmproxy(entry, &folder).map_err(Failure::unusable)?;
            plugins.extend(spec);
            warnings.extend(warned.into_iter().map(|warning| warning.0));
        }
        Ok(())
    }
}

impl LimitsEntry {
    fn apply(&self, gateway: &mut Config) {
        let limits: &mut Limits = &mut gateway.limits;
        let size = |bytes: Bytes| usize::try_from(bytes.0).unwrap_or(usize::MAX);
        if let Some(bytes) = self.request_body {
            limits.request_body_bytes_max = bytes.0;
        }
        if let Some(bytes) = self.held_request {
            limits.held_request_bytes_max = size(bytes);
        }
        if let Some(bytes) = self.held_response {
            limits.held_response_bytes_max = size(bytes);
        }
        if let Some(bytes) = self.held_total {
            limits.held_bytes_max = size(bytes);
        }
        if let Some(bytes) = self.event {
            limits.event_bytes_max = size(bytes);
        }
        if let Some(bytes) = self.headers {
            gateway.startup.header_bytes_max = size(bytes);
        }
        if let Some(connections) = self.connections {
            gateway.startup.connections_max = connections;
        }
    }
}

impl EngineEntry {
    fn resolve(&self) -> EngineBounds {
        EngineBounds {
            pool_instances: self.instances.map(NonZero::get),
            memory_bytes_max: Some(self.memory.map_or(ENGINE_MEMORY_BYTES_MAX, |bytes| bytes.0)),
            // What is too much is refused by the engine.
            stack_bytes: self.stack.map(|bytes| u32::try_from(bytes.0).unwrap_or(u32::MAX)),
        }
    }
}

impl TimeoutsEntry {
    fn apply(&self, gateway: &mut Config) {
        let timeouts: &mut Timeouts = &mut gateway.timeouts;
        for (entry, timeout) in [
            (self.header_read, &mut timeouts.header_read),
            (self.request, &mut timeouts.request),
            (self.response_head, &mut timeouts.response_head),
            (self.response_idle, &mut timeouts.response_idle),
            (self.drain, &mut timeouts.drain),
            (self.connect, &mut gateway.startup.connect_timeout),
        ] {
            if let Some(entry) = entry {
                *timeout = entry.duration();
            }
        }
    }
}

fn header_name(place: &str, name: &str) -> Result<HeaderName, Failure> {
    name.parse().map_err(|_| Failure::unusable(format_args!("{place}: {name:?} is no header name")))
}

/// Replaces each `${NAME}` by the value of that variable.
fn substitute(text: &str, environment: Environment<'_>) -> Result<String, Failure> {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        let (name, behind) = after
            .split_once('}')
            .ok_or_else(|| Failure::unusable(format_args!("{text:?} has `${{` without `}}`")))?;
        let value = environment(name).ok_or_else(|| {
            Failure::unusable(format_args!(
                "the environment variable {name} is not set; the configuration uses it"
            ))
        })?;
        out.push_str(before);
        out.push_str(&value);
        rest = behind;
    }
    out.push_str(rest);
    Ok(out)
}

/// The JSON Schema of the file.
pub(crate) fn schema() -> schemars::Schema {
    schemars::schema_for!(File)
}

#[cfg(test)]
mod tests;
