//! Which plugins are asked where, and what they said.
//!
//! The control plane writes: [`Manager::apply`] loads what a deployment asks for and, once everything
//! stands, swaps in the next [`Snapshot`] in one step. The data plane reads: a [`Visit`] pins the snapshot
//! of the moment it opened, so that one request sees one set of plugins from its first hook to its last,
//! whatever an operator does meanwhile. Old plugins go when the last visit that pins them ends.
//!
//! Gateways and proxies ask through visits and know neither conventions nor instances.

// In reading order: each knows only those above it.
mod decision;
mod redact;
mod rule;
mod seat;
mod spec;

mod state;

mod builder;
mod health;
mod ledger;
mod tally;
mod version;

mod installed;

mod chain;

mod pairing;
mod retiring;
mod snapshot;
mod spread;

mod visit;

mod manager;

mod control;
mod restore;
mod status;
mod supervise;
mod trial;
mod watch;

pub mod document;
mod resolve;

mod inside;

pub use cardan::{LogLine, LogTail, SnapshotState, Tier, Usage};
pub use chain::{Chain, Consulted};
pub use control::{Activated, ControlError};
pub use decision::{Decision, Outcome, TraceContext};
pub use inside::VersionLog;
pub use installed::CanaryPlan;
pub use ledger::{Event, EventKind, Ledger, Reason, VisitRecord};
pub use manager::{Applied, ApplyError, Manager};
pub use pairing::{Pairing, Slot};
pub use resolve::{
    Broken, Folder, HeliosDeployment, ResolveError, Warning, resolve_entry, resolve_folder, resolve_helios,
    resolve_llmproxy, resolve_path, resolve_smg,
};
pub use restore::{Lost, Restored};
pub use rule::{MatchRule, Subject};
pub use seat::Seat;
pub use snapshot::Snapshot;
pub use spec::{About, BindingSpec, Bindings, HealthPolicy, Owner, PluginSpec};
pub use state::{StateDir, StateError};
pub use status::{BindingStatus, CanaryStatus, ChainStatus, PluginStatus, State, VersionStatus};
pub use tally::{Durations, HookCounts};
pub use trial::{Called, Sample, SampleEvent, Trial};
pub use visit::{Cause, Progress, Stop, Visit};
pub use watch::{FolderWatch, Look, Scan};
