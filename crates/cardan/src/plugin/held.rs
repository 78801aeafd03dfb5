//! A visit's instance of one plugin.

use std::fmt;

use crate::abi::extism::Guest;
use crate::pool::Permit;

/// A place for the instance that one visit keeps of one plugin; empty at first, and always for plugins
/// whose mode is not *visit*.
#[derive(Default)]
pub struct Held(Option<Kept>);

/// In this order: the instance is gone before somebody else has the right to one.
pub(super) struct Kept {
    pub(super) guest: Guest,
    #[expect(dead_code, reason = "held for its destructor")]
    pub(super) permit: Permit,
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Held({})", if self.0.is_some() { "an instance" } else { "nothing" })
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
