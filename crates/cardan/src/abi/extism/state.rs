//! What the store of an instance holds, and what a plugin's instances share.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use cardan_api::{InstanceMode, Limits};
use wasmtime_wasi::p1::WasiP1Ctx;

use super::core_dump::CoreDumps;
use super::exports::Exports;
use super::kernel::Kernel;
use super::log::LogQuota;
use super::vars::Vars;
use super::wasi::WasiGrant;
use crate::abi::capability;
use crate::abi::lowering::host::Stage;
use crate::grants::{Authority, CacheClaim, LogSink};
use crate::limits::{CancelHandle, Clock, Haste, Meter, Metered, Pace, Tally};
use crate::plugin::LoadQuestion;

/// Calls on a stack of their own before a plugin is trusted to return by itself.
const PROBATION_CALLS: u32 = 16;
/// A call with a later deadline always has a stack of its own.
const INLINE_DEADLINE_MAX: Duration = Duration::from_secs(1);

/// What all instances of one plugin share.
pub(crate) struct Shared {
    pub(super) limits: Limits,
    pub(in crate::abi) authority: Arc<Authority>,
    pub(super) http_headers: bool,
    pub(super) log: Arc<dyn LogSink>,
    pub(super) load: Option<Arc<LoadQuestion>>,
    pub(super) core_dumps: Arc<CoreDumps>,
    pub(super) tally: Arc<Tally>,
    pub(super) may_wait: bool,
    /// Its calls take input and answer from the store and not from the kernel.
    pub(super) lowered: bool,
    /// Its tools are behind one export, which is called for names that are no exports.
    pub(super) dispatches: bool,
    /// It was to be given its memory.
    pub(in crate::abi) given_memory: bool,
    /// Calls leave instances of libraries behind, until the store is dropped.
    pub(super) leaves_instances: bool,
    pub(super) mode: InstanceMode,
    pub(in crate::abi) exports: Exports,
    pub(super) config: Arc<BTreeMap<String, String>>,
    pub(super) wasi: Option<WasiGrant>,
    pub(super) haste: Arc<Haste>,
    pub(super) probation: Probation,
}

/// Calls on a stack of their own, left until a plugin is trusted to return by itself.
pub(super) struct Probation(AtomicU32);

impl Default for Probation {
    fn default() -> Self {
        Self(AtomicU32::new(PROBATION_CALLS))
    }
}

impl Shared {
    /// Whether this is no export and one is there that answers for tools of any name.
    pub(super) fn is_dispatched(&self, name: &str) -> bool {
        self.dispatches && self.exports.get(name).is_none() && self.exports.get(capability::CALL).is_some()
    }

    /// How the next call runs. A plugin that may wait always has a stack of its own. Any other runs on
    /// its caller's stack, after some calls that showed it returns and until one that takes long. Not where it
    /// may take its time: nothing gets such a call off the thread before its deadline.
    pub(super) fn pace(&self, deadline: Option<Duration>) -> Pace {
        let patient = deadline.is_some_and(|deadline| deadline > INLINE_DEADLINE_MAX);
        let on_probation = self.probation.0.load(Ordering::Relaxed) > 0;
        if self.may_wait || patient || on_probation || self.haste.is_slow() {
            Pace::Suspendable
        } else {
            Pace::Inline
        }
    }

    /// A call has returned by itself.
    pub(super) fn returned(&self) {
        let left = self.probation.0.load(Ordering::Relaxed);
        if left > 0 {
            self.probation.0.store(left - 1, Ordering::Relaxed);
        }
    }
}

/// What a store of this convention holds.
pub(crate) struct State {
    /// Of a lowered guest's call, until it is taken.
    pub(in crate::abi) input: Vec<u8>,
    /// Of a lowered guest's call.
    pub(in crate::abi) answer: Option<Vec<u8>>,
    pub(in crate::abi) stage: Stage,
    /// What is left of the memory that a guest is given when it asks its host for some.
    pub(in crate::abi) heap: Option<(u32, u32)>,
    /// The memory of a lowered guest, once it was looked up.
    pub(in crate::abi) memory: Option<wasmtime::Memory>,
    /// Its allocator was asked for a place by the host, and has not given one yet.
    pub(in crate::abi) allocates: bool,
    pub(in crate::abi) shared: Arc<Shared>,
    pub(super) kernel: Option<Kernel>,
    pub(in crate::abi) config: Arc<BTreeMap<String, String>>,
    pub(super) vars: Arc<Vars>,
    pub(super) http: LastResponse,
    pub(super) log: LogQuota,
    pub(super) wasi: Option<Box<WasiP1Ctx>>,
    /// Values of caches that the current call has said it would make.
    pub(super) claims: Vec<CacheClaim>,
    pub(super) clock: Clock,
    pub(super) meter: Meter,
}

/// What guests can ask about their last HTTP request, also in a later call.
#[derive(Debug, Default)]
pub(super) struct LastResponse {
    pub(super) status: u16,
    /// A JSON object.
    pub(super) headers: Option<String>,
}

impl State {
    pub(super) fn kernel(&self) -> wasmtime::Result<Kernel> {
        self.kernel.ok_or_else(|| wasmtime::format_err!("the plugin's memory is not there yet"))
    }

    /// A call, or the start, is over as far as its log and its claims go.
    pub(super) fn end_log(&mut self) {
        self.claims.clear();
        self.log.renew(&*self.shared.log);
    }
}

/// For starts that failed, and for calls that nobody waited for to the end.
impl Drop for State {
    fn drop(&mut self) {
        self.end_log();
    }
}

impl Metered for State {
    fn clock(&mut self) -> &mut Clock {
        &mut self.clock
    }

    fn meter(&mut self) -> &mut Meter {
        &mut self.meter
    }
}

/// What an instance shares with the one it replaces.
#[derive(Clone)]
pub(crate) struct Heritage {
    pub(crate) vars: Arc<Vars>,
    pub(crate) config: Arc<BTreeMap<String, String>>,
    pub(crate) cancelled: CancelHandle,
}
