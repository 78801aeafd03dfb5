//! Futures on threads that have no executor.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use wasmtime_wasi::runtime::{in_tokio, with_ambient_tokio_runtime};

/// Runs a future to its end on this thread.
///
/// A future that is ready at once, as every call is that runs inline, costs no more than a poll. Inside
/// of a Tokio runtime, where blocking a worker on a future is an error, another thread does the waiting.
pub(crate) fn block_on<F>(future: F) -> F::Output
where
    F: Future + Send,
    F::Output: Send,
{
    let mut future = pin!(future);
    let first = with_ambient_tokio_runtime(|| future.as_mut().poll(&mut Context::from_waker(Waker::noop())));
    if let Poll::Ready(output) = first {
        return output;
    }
    if tokio::runtime::Handle::try_current().is_err() {
        return in_tokio(future);
    }
    std::thread::scope(|scope| match scope.spawn(|| in_tokio(future)).join() {
        Ok(output) => output,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}
