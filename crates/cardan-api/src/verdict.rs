//! What a plugin returns.

use crate::hook::{Attributes, Hook};

/// Whether the chain goes on after a plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Flow<A> {
    /// Ask the next plugin, and in the end the host itself.
    Continue,
    /// Ask nobody else: this answer stands in for what the host would have done.
    Stop(A),
}

/// A plugin's verdict on one event. Edits are data: the host applies them, all or none, after the
/// guest has returned successfully.
#[derive(Debug)]
pub struct Verdict<H: Hook> {
    /// Continue or stop.
    pub flow: Flow<H::Answer>,
    /// Changes to the event. With [`Flow::Stop`] they are ignored.
    pub edits: H::Edits,
    /// Request attributes to set. Later plugins of the same visit see them, at every hook.
    pub attributes: Attributes,
}

impl<H: Hook> Verdict<H> {
    /// Go on, nothing to change.
    pub fn pass() -> Self {
        Self::edit(H::Edits::default())
    }

    /// Go on with these changes.
    pub fn edit(edits: H::Edits) -> Self {
        Self { flow: Flow::Continue, edits, attributes: Attributes::new() }
    }

    /// Stop with this answer.
    pub fn stop(answer: H::Answer) -> Self {
        Self { flow: Flow::Stop(answer), edits: H::Edits::default(), attributes: Attributes::new() }
    }
}
