//! The named points at which a host asks plugins.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::fault::FaultPolicy;

/// Facts about one request or session that its plugins share, by name: what LLMProxy calls
/// `metadata` and HeliosProxy `attributes`. JSON data only.
pub type Attributes = Map<String, Value>;

/// A named point in a host's life, as a zero-sized type.
///
/// Hosts ask with `visit.ask::<H>(&mut event)`. The set is open: a crate may define hooks of its own.
/// [`HOOKS`](crate::catalogue::HOOKS) lists those of this crate.
pub trait Hook: Sized + Send + Sync + 'static {
    /// The name in configuration, metrics and documents, for instance `http.request`.
    const NAME: &'static str;
    /// What follows from a fault unless the binding says otherwise: gate-keeping hooks refuse,
    /// observers skip.
    const ON_FAULT: FaultPolicy;
    /// What plugins are shown.
    type Event: Send;
    /// What a plugin may answer in the host's place.
    type Answer: fmt::Debug + Send;
    /// What a plugin may change about the event. The default changes nothing.
    type Edits: Default + fmt::Debug + Send;

    /// Applies a successful plugin's edits, so that the next plugin and the host see them.
    fn apply(event: &mut Self::Event, edits: Self::Edits);
}

/// Where a binding stands within its hook: phases run in this order, and priorities order the
/// bindings inside one. The names are LLMProxy's rings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Authentication and coarse gates, before anything else looks at the request.
    Ingress,
    /// Inspection and transformation of the request. The default for `http.request`.
    PreFlight,
    /// The last look before an upstream is chosen; what it writes to the body decides the route.
    Routing,
    /// The response, before the client sees it. The only phase of `http.response`.
    PostFlight,
    /// After the last byte. The only phase of `http.complete`.
    Background,
}

impl Phase {
    /// The name in configuration, metrics and documents.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::PreFlight => "pre_flight",
            Self::Routing => "routing",
            Self::PostFlight => "post_flight",
            Self::Background => "background",
        }
    }

    /// The status of a refusal whose plugin named none (`specs`: LLMProxy answers 503 when its
    /// routing ring stops a request, 403 elsewhere).
    pub fn refusal_status(self) -> u16 {
        match self {
            Self::Routing => 503,
            _ => 403,
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How much of a body a binding is shown. A host buffers only what some binding needs, and a plugin sees
/// what its own binding says, whatever its neighbours need.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BodyNeed {
    /// Method, path, status and headers are enough; the body streams past.
    None,
    /// The whole body. A streamed response is held until its end, judged, then released.
    Whole,
}
