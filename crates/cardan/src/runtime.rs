//! Futures on threads that have no executor, and how deep calls are in each other there.

use std::cell::Cell;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::LazyLock;
use std::task::{Context, Poll, Waker};

use tokio::runtime::{Builder, Handle, Runtime};

/// Threads that drive the timers and sockets of calls whose callers have no executor.
const THREADS: usize = 2;

#[expect(clippy::expect_used, reason = "a process without another thread to give cannot run guests either")]
static BACKGROUND: LazyLock<Runtime> = LazyLock::new(|| {
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(THREADS).thread_name("cardan-wait").enable_all();
    builder.build().expect("threads can be started")
});

/// Runs a future to its end on this thread.
///
/// A future that is ready at once, as every call is that runs inline, costs no more than a poll. Inside
/// of a Tokio runtime, where blocking a worker on a future is an error, another thread does the waiting.
/// Either way the future's timers and sockets are the background runtime's, never those of a runtime that
/// this thread is now keeping from working.
pub(crate) fn block_on<F>(future: F) -> F::Output
where
    F: Future + Send,
    F::Output: Send,
{
    let mut future = pin!(future);
    let has_runtime = Handle::try_current().is_ok();
    let first = {
        let _entered = BACKGROUND.enter();
        future.as_mut().poll(&mut Context::from_waker(Waker::noop()))
    };
    if let Poll::Ready(output) = first {
        return output;
    }
    if !has_runtime {
        return BACKGROUND.block_on(future);
    }
    let depth = Nested::depth();
    let wait = || {
        // Calls inside of this one are as deep there as they would be here.
        DEPTH.set(depth);
        BACKGROUND.block_on(future)
    };
    std::thread::scope(|scope| match scope.spawn(wait).join() {
        Ok(output) => output,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

/// Gives a future a Tokio runtime under an executor that has none.
pub(crate) async fn ambient<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    std::future::poll_fn(move |context| poll_ambient(future.as_mut(), context)).await
}

fn poll_ambient<F: Future>(future: Pin<&mut F>, context: &mut Context<'_>) -> Poll<F::Output> {
    let _entered = Handle::try_current().is_err().then(|| BACKGROUND.enter());
    future.poll(context)
}

/// Held while a guest is on this thread's stack.
pub(crate) struct Nested;

impl Nested {
    pub(crate) fn enter() -> Self {
        DEPTH.set(DEPTH.get() + 1);
        Self
    }

    pub(crate) fn depth() -> u32 {
        DEPTH.get()
    }
}

impl Drop for Nested {
    fn drop(&mut self) {
        DEPTH.set(DEPTH.get() - 1);
    }
}

thread_local! {
    static DEPTH: Cell<u32> = const { Cell::new(0) };
}
