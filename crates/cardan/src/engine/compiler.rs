//! Compiling in the background: one module at a time, behind everything else the machine does.

use std::sync::OnceLock;

use rayon::{ThreadPool, ThreadPoolBuilder};

/// The background threads' niceness: calls come first.
const NICENESS: i32 = 10;

/// Runs compilations one after the other. wasmtime takes the threads of the pool it is called in, so one
/// thread is all that a compilation here has.
#[derive(Default)]
pub(crate) struct Compiler {
    pool: OnceLock<Option<ThreadPool>>,
}

impl Compiler {
    /// Has `work` done later. Returns whether there is anybody to do it.
    pub(crate) fn later(&self, work: impl FnOnce() + Send + 'static) -> bool {
        let pool = self.pool.get_or_init(|| {
            let made = ThreadPoolBuilder::new()
                .num_threads(1)
                .thread_name(|_| "cardan-compile".to_owned())
                // On Linux it is the thread's own.
                .start_handler(|_| {
                    let _ = rustix::process::setpriority_process(None, NICENESS);
                })
                .panic_handler(|_| tracing::error!("compiling in the background panicked"))
                .build();
            made.inspect_err(|error| tracing::warn!(%error, "no thread to compile in the background")).ok()
        });
        let Some(pool) = pool else { return false };
        pool.spawn(work);
        true
    }
}
