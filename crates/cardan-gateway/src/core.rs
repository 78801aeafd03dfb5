//! What all exchanges of a gateway share.

use std::sync::Arc;

use cardan_manager::{Manager, Pairing, Slot, Snapshot};
use tokio::sync::{Semaphore, watch};

use crate::budget::Budget;
use crate::config::ConfigError;
use crate::plan::Plan;
use crate::upstream::Client;

/// A gateway without its listeners.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) manager: Manager,
    pub(crate) client: Client,
    /// Where the plan lies in every snapshot, so that routes and plugins change in one step.
    plan: Slot<Plan>,
    pub(crate) connections: Arc<Semaphore>,
    /// What bodies that are held take up.
    pub(crate) held: Arc<Budget>,
    /// Counts the `http.complete` chains under way.
    pub(crate) background: Arc<watch::Sender<usize>>,
}

impl Core {
    pub(crate) fn new(plan: Plan, manager: Manager) -> Result<Self, ConfigError> {
        Ok(Self {
            client: Client::new(&plan.startup)?,
            connections: Arc::new(Semaphore::new(plan.startup.connections_max)),
            held: Arc::default(),
            background: Arc::new(watch::Sender::new(0)),
            plan: manager.slot(plan),
            manager,
        })
    }

    /// Another plan, for a snapshot to come.
    pub(crate) fn pairing(&self, plan: Plan) -> Pairing {
        self.plan.pairing(plan)
    }

    /// What goes for whatever begins now.
    pub(crate) fn plan(&self) -> Arc<Plan> {
        self.plan_of(&self.manager.snapshot())
    }

    #[expect(
        clippy::expect_used,
        reason = "the slot was made with a value, and snapshots keep what they have"
    )]
    pub(crate) fn plan_of(&self, snapshot: &Snapshot) -> Arc<Plan> {
        snapshot.paired(&self.plan).expect("every snapshot since this gateway was made has its plan")
    }
}
