//! What a host keeps beside the plugins, swapped together with them.
//!
//! A gateway's routes and the plugins that guard them are one decision. Were they two pointers, a request
//! between the two swaps would find a route of the new decision without the guard of it. So a host's own
//! part lies in the snapshot, and one pointer changes both.

use std::any::Any;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

/// A host's place in every snapshot of one manager, for a `T` of its own.
pub struct Slot<T> {
    place: usize,
    of: PhantomData<fn() -> T>,
}

impl<T> fmt::Debug for Slot<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Slot({})", self.place)
    }
}

impl<T: Send + Sync + 'static> Slot<T> {
    /// The next value for this place, for [`crate::Manager::apply_with`].
    pub fn pairing(&self, value: T) -> Pairing {
        Pairing { place: self.place, value: Arc::new(value) }
    }
}

/// A value that a host wants in the next snapshot.
pub struct Pairing {
    place: usize,
    value: Arc<dyn Any + Send + Sync>,
}

impl fmt::Debug for Pairing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pairing({})", self.place)
    }
}

/// The hosts' values in one snapshot, by place.
#[derive(Clone, Default)]
pub(crate) struct Pairs(Vec<Arc<dyn Any + Send + Sync>>);

impl fmt::Debug for Pairs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pairs({})", self.0.len())
    }
}

impl Pairs {
    /// Makes one more place.
    pub(crate) fn add<T: Send + Sync + 'static>(&mut self, first: T) -> Slot<T> {
        self.0.push(Arc::new(first));
        Slot { place: self.0.len() - 1, of: PhantomData }
    }

    pub(crate) fn put(&mut self, pairing: Pairing) {
        if let Some(value) = self.0.get_mut(pairing.place) {
            *value = pairing.value;
        }
    }

    pub(crate) fn get<T: Send + Sync + 'static>(&self, slot: &Slot<T>) -> Option<Arc<T>> {
        self.0.get(slot.place)?.clone().downcast().ok()
    }
}
