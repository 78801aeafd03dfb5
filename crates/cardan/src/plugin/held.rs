//! A visit's instance of one plugin.

use std::fmt;
use std::sync::Arc;

use crate::abi::Guest;
use crate::pool::{Permit, Pool};

/// A place for the instance that one visit keeps of one plugin; empty at first, and always for plugins
/// whose mode is not *visit*.
#[derive(Default)]
pub struct Held(Option<Kept>);

/// In this order: the instance is gone before somebody else has the right to one.
pub(super) struct Kept {
    pub(super) guest: Guest,
    pub(super) permit: Permit,
    /// Where it came from.
    pub(super) pool: Arc<Pool>,
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Held({})", if self.0.is_some() { "an instance" } else { "nothing" })
    }
}

/// The visit is over: an instance that is here has given a verdict on everything it was asked.
impl Drop for Held {
    fn drop(&mut self) {
        if let Some(Kept { guest, permit, pool }) = self.0.take() {
            pool.put_back(guest);
            drop(permit);
        }
    }
}

impl Held {
    pub(super) fn take(&mut self) -> Option<Kept> {
        self.0.take()
    }

    pub(super) fn keep(&mut self, kept: Kept) {
        self.0 = Some(kept);
    }
}
