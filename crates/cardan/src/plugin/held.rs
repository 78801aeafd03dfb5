//! A visit's instance of one plugin.

use std::fmt;

use crate::abi::extism::Guest;
use crate::pool::Permit;

/// A place for the instance that one visit keeps of one plugin; empty at first, and always for plugins
/// whose mode is not *visit*.
#[derive(Default)]
pub struct Held(Option<(Permit, Guest)>);

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Held({})", if self.0.is_some() { "an instance" } else { "nothing" })
    }
}

impl Held {
    pub(super) fn take(&mut self) -> Option<(Permit, Guest)> {
        self.0.take()
    }

    pub(super) fn keep(&mut self, permit: Permit, guest: Guest) {
        self.0 = Some((permit, guest));
    }
}
