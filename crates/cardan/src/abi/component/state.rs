//! What the store of an instance holds, and what a plugin's instances share.

use std::collections::BTreeMap;
use std::sync::Arc;

use cardan_api::lifecycle::LifeEvent;
use cardan_api::{InstanceMode, Limits};
use serde_json::Value;
use wasmtime::component::ResourceTable;
use wasmtime_wasi::{WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};

use super::call::Entries;
use super::native::VisitFacts;
use super::output::{GuestLog, Name};
use crate::abi::extism::GuestOutput;
use crate::abi::extism::wasi::WasiGrant;
use crate::grants::{Authority, CacheClaim, LogSink};
use crate::limits::{Clock, Haste, Meter, Metered, Tally};

/// Resources of the host that one guest may hold at once, such as streams and open files.
const RESOURCES_MAX: usize = 1_000;

/// What all instances of one plugin share.
pub(super) struct Shared {
    pub(super) limits: Limits,
    pub(super) authority: Arc<Authority>,
    pub(super) log: Arc<dyn LogSink>,
    pub(super) tally: Arc<Tally>,
    pub(super) mode: InstanceMode,
    pub(super) entries: Entries,
    /// What guests read by name.
    pub(super) config: Arc<BTreeMap<String, String>>,
    /// The same as it was given.
    pub(super) config_document: Value,
    pub(super) life: LifeEvent,
    pub(super) wasi: WasiGrant,
    pub(super) haste: Arc<Haste>,
}

/// What a store of this convention holds.
pub(super) struct State {
    pub(super) shared: Arc<Shared>,
    pub(super) clock: Clock,
    pub(super) meter: Meter,
    pub(super) log: GuestLog,
    /// Held for the call: whoever waits for them waits for its end.
    pub(super) claims: Vec<CacheClaim>,
    /// The visit that the current call belongs to.
    pub(super) visit: Option<Box<VisitFacts>>,
    /// Made when the guest first asks for something of it.
    wasi: Option<Box<WasiCtx>>,
    table: ResourceTable,
}

impl State {
    pub(super) fn new(shared: Arc<Shared>, clock: Clock, meter: Meter) -> Self {
        let log = GuestLog::new(shared.log.clone());
        let mut table = ResourceTable::new();
        table.set_max_capacity(RESOURCES_MAX);
        Self { shared, clock, meter, log, claims: Vec::new(), visit: None, wasi: None, table }
    }

    /// Opens the directories that are granted. They are today's.
    pub(super) fn open_files(&mut self) -> wasmtime::Result<()> {
        if self.wasi.is_none() && !self.shared.wasi.preopens.is_empty() {
            self.wasi = Some(Box::new(self.context(self.shared.wasi.builder()?)));
        }
        Ok(())
    }

    /// A call, or the start, is over.
    pub(super) fn end_call(&mut self) {
        self.visit = None;
        self.claims.clear();
        self.log.end();
    }

    fn context(&self, mut builder: WasiCtxBuilder) -> WasiCtx {
        if self.shared.wasi.output == GuestOutput::Discard {
            builder.stdout(self.log.stream(Name::Stdout)).stderr(self.log.stream(Name::Stderr));
        }
        builder.build()
    }
}

/// For starts that failed, and for calls that nobody waited for to the end.
impl Drop for State {
    fn drop(&mut self) {
        self.end_call();
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

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        if self.wasi.is_none() {
            // Where directories are granted it has been made before the call.
            let builder = self.shared.wasi.builder().unwrap_or_default();
            self.wasi = Some(Box::new(self.context(builder)));
        }
        let ctx = self.wasi.get_or_insert_default();
        WasiCtxView { ctx, table: &mut self.table }
    }
}
