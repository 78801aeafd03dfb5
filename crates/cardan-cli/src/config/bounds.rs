//! Named maxima: of the gateway, and of all plugins together.

use std::num::NonZero;

use cardan_api::manifest::{Bytes, Milliseconds};
use cardan_gateway::{Config, Limits, Timeouts};
use schemars::JsonSchema;
use serde::Deserialize;

/// Memory of all plugins' instances where the file says nothing about it.
pub(super) const ENGINE_MEMORY_BYTES_MAX: u64 = 4 << 30;

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "GatewayLimits")]
pub(super) struct LimitsEntry {
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
pub(super) struct TimeoutsEntry {
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
pub(super) struct EngineEntry {
    /// Instances alive at once in the pool; 1,000 unless said otherwise. Each reserves some 8 GiB of address
    /// space, not memory.
    #[schemars(range(min = 1))]
    instances: Option<NonZero<u32>>,
    /// The memories of all instances together, as large as they are and not as much of them as is used; 4 GiB
    /// unless said otherwise.
    memory: Option<Bytes>,
    /// Stack of one call of a plugin, from 64 KiB to 1 MiB; 512 KiB unless said otherwise.
    stack: Option<Bytes>,
    /// Calls that may go on computing at the same time after their first two milliseconds, each plugin in its turn; one
    /// fewer than there are processors unless said otherwise, which leaves one to calls that are done sooner.
    #[schemars(range(min = 1))]
    long_calls: Option<NonZero<usize>>,
}

/// What all plugins together may have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct EngineBounds {
    pub(crate) pool_instances: Option<u32>,
    pub(crate) memory_bytes_max: Option<u64>,
    pub(crate) stack_bytes: Option<u32>,
    pub(crate) long_calls_max: Option<NonZero<usize>>,
}

impl LimitsEntry {
    pub(super) fn apply(&self, gateway: &mut Config) {
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
    pub(super) fn resolve(&self) -> EngineBounds {
        EngineBounds {
            pool_instances: self.instances.map(NonZero::get),
            memory_bytes_max: Some(self.memory.map_or(ENGINE_MEMORY_BYTES_MAX, |bytes| bytes.0)),
            // What is too much is refused by the engine.
            stack_bytes: self.stack.map(|bytes| u32::try_from(bytes.0).unwrap_or(u32::MAX)),
            long_calls_max: self.long_calls,
        }
    }
}

impl TimeoutsEntry {
    pub(super) fn apply(&self, gateway: &mut Config) {
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
