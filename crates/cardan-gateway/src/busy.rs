//! Counting what is under way.

use std::sync::Arc;

use tokio::sync::watch;

/// One of the things that are under way somewhere, counted.
#[derive(Debug)]
pub(crate) struct Busy(Arc<watch::Sender<usize>>);

impl Busy {
    pub(crate) fn new(in_flight: Arc<watch::Sender<usize>>) -> Self {
        in_flight.send_modify(|count| *count += 1);
        Self(in_flight)
    }

    /// `None`: `max` are under way already.
    pub(crate) fn one_of(in_flight: &Arc<watch::Sender<usize>>, max: usize) -> Option<Self> {
        let one_more = |count: &mut usize| {
            let room = *count < max;
            *count += usize::from(room);
            room
        };
        in_flight.send_if_modified(one_more).then(|| Self(in_flight.clone()))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}
