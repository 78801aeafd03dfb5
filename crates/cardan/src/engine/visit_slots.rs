//! How much of the pool visits may keep.

use std::sync::Arc;

use tokio::sync::Semaphore;

/// The slots of the pool that instances may take while visits keep them, of all plugins together.
///
/// A visit lasts as long as its client likes. What it keeps must not be all there is, or a few slow
/// clients of some plugins would leave no instance for any other.
#[derive(Clone)]
pub(crate) struct VisitSlots {
    pub(crate) free: Arc<Semaphore>,
    pub(crate) max: u32,
}

impl VisitSlots {
    /// Three quarters of a pool.
    pub(super) fn of(instances: u32) -> Self {
        let max = (instances - instances.div_ceil(4)).max(1);
        Self { free: Arc::new(Semaphore::new(max as usize)), max }
    }
}
