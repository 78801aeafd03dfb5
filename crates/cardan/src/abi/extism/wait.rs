//! How a guest is waited for.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use wasmtime::Store;

use super::state::State;
use crate::engine::turns::Part;
use crate::limits::{CancelHandle, Clock};
use crate::runtime::Nested;

/// How much longer than its deadline a waiting call may take: the clock's own resolution, twice.
const DEADLINE_SLACK: Duration = Duration::from_millis(2);

/// How a guest on a stack of its own is waited for.
pub(crate) struct Wait {
    /// Only for a guest that may itself wait, where no epoch interrupts it.
    interruption: Option<(Option<Duration>, CancelHandle)>,
    part: Part,
}

impl Wait {
    pub(super) fn of(store: &Store<State>) -> Self {
        let State { shared, clock, .. } = store.data();
        let interruption = shared.may_wait.then(|| (clock.left(), clock.cancel_handle()));
        Self { interruption, part: clock.part().clone() }
    }

    /// For a guest that may wait itself, for so long.
    pub(crate) fn interrupted(clock: &Clock) -> Self {
        Self { interruption: Some((clock.left(), clock.cancel_handle())), part: clock.part().clone() }
    }

    /// Waits for `future`, at most until the deadline or until the call is cancelled.
    pub(crate) async fn within<T, E: From<wasmtime::Error>>(
        self,
        future: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let mut future = pin!(future);
        let part = self.part;
        let guest = std::future::poll_fn(move |context| {
            let _nested = Nested::enter();
            let polled = future.as_mut().poll(context);
            if polled.is_pending() {
                part.suspended();
            }
            polled
        });
        let Some((left, cancelled)) = self.interruption else { return guest.await };
        let deadline = async {
            match left {
                Some(left) => tokio::time::sleep(left + DEADLINE_SLACK).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            // The guest first: most often it is ready at once.
            biased;
            result = guest => result,
            () = deadline => Err(wasmtime::Error::from(wasmtime::Trap::Interrupt).into()),
            () = cancelled.requested() => Err(wasmtime::Error::from(wasmtime::Trap::Interrupt).into()),
        }
    }
}
