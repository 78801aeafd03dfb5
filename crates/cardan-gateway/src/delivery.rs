//! What has been handed to the server and has not left yet.
//!
//! The server takes a frame into its buffers long before a slow client takes it from the socket, so that a
//! body which is gone says little. What a client really got is known by the pieces: each counts what leaves
//! of it, and all of them together keep the record of the exchange, with its share of the budget.

use std::mem;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::task::AbortHandle;

use crate::record::Record;
use crate::reply::{End, Pending};

/// A reply on its way. Its record is closed when the body and all pieces are gone.
#[derive(Debug)]
pub(crate) struct Delivery {
    pending: Mutex<Pending>,
    record: Mutex<Option<Record>>,
    handed_bytes: AtomicU64,
    sent_bytes: AtomicU64,
    /// Whether the server has something to send first, before it asks for more.
    awaits_client: AtomicBool,
    watchdog: Mutex<Option<AbortHandle>>,
}

/// Bytes of a body in the server's hands.
#[derive(Debug)]
pub(crate) struct Piece {
    bytes: Bytes,
    delivery: Arc<Delivery>,
}

impl Delivery {
    pub(crate) fn new(pending: Pending, record: Record) -> Arc<Self> {
        Arc::new(Self {
            pending: Mutex::new(pending),
            record: Mutex::new(Some(record)),
            handed_bytes: AtomicU64::new(0),
            sent_bytes: AtomicU64::new(0),
            awaits_client: AtomicBool::new(true),
            watchdog: Mutex::new(None),
        })
    }

    pub(crate) fn pending(&self) -> MutexGuard<'_, Pending> {
        lock(&self.pending)
    }

    /// The server has asked for a frame, and either has it or waits for it.
    pub(crate) fn asked(&self, answered: bool) {
        self.awaits_client.store(answered, Ordering::Relaxed);
    }

    pub(crate) fn piece(self: &Arc<Self>, bytes: Bytes) -> Piece {
        self.handed_bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Piece { bytes, delivery: self.clone() }
    }

    /// Gives up on a client that takes nothing for `stall`. It takes a task of its own: the server does not
    /// ask for more, and so runs no timer of the body's, while the client lets it send nothing.
    pub(crate) fn watch(self: &Arc<Self>, stall: Duration) {
        let task = tokio::spawn(watch(Arc::downgrade(self), stall));
        *lock(&self.watchdog) = Some(task.abort_handle());
    }

    fn progress(&self) -> (u64, u64) {
        (self.handed_bytes.load(Ordering::Relaxed), self.sent_bytes.load(Ordering::Relaxed))
    }

    fn close(&self) {
        let Some(mut record) = lock(&self.record).take() else { return };
        let (handed, sent) = self.progress();
        let mut pending = self.pending();
        record.sent_bytes = sent;
        // Answers without a body have ended before they began.
        record.ended |= pending.end == End::Handed && handed == sent;
        if let Some(problem) = pending.problem.take() {
            record.problem = Some(problem);
        }
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        if let Some(watchdog) = lock(&self.watchdog).take() {
            watchdog.abort();
        }
        self.close();
    }
}

async fn watch(delivery: Weak<Delivery>, stall: Duration) {
    let mut before = (0, 0);
    loop {
        tokio::time::sleep(stall).await;
        let Some(delivery) = delivery.upgrade() else { return };
        let now @ (handed, sent) = delivery.progress();
        let awaits_client = delivery.awaits_client.load(Ordering::Relaxed) || sent < handed;
        if mem::replace(&mut before, now) == now && awaits_client {
            delivery.pending().stall();
            return delivery.close();
        }
    }
}

impl Buf for Piece {
    fn remaining(&self) -> usize {
        self.bytes.len()
    }

    fn chunk(&self) -> &[u8] {
        &self.bytes
    }

    fn advance(&mut self, bytes: usize) {
        self.bytes.advance(bytes);
        self.delivery.sent_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

/// Nothing that is done under these locks can leave them half done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
