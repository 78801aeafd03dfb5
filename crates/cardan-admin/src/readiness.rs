//! Whether the process is ready for traffic, and if not, why.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

/// What keeps a process from being ready. Clones are the same one. Begins as not ready.
#[derive(Debug, Clone)]
pub struct Readiness {
    reasons: Arc<Mutex<Vec<String>>>,
    serves_at: Arc<OnceLock<SocketAddr>>,
}

impl Readiness {
    /// Not ready, for this reason.
    pub fn waiting(reason: &str) -> Self {
        Self { reasons: Arc::new(Mutex::new(vec![reason.to_owned()])), serves_at: Arc::default() }
    }

    /// Ready from now on.
    pub fn ready(&self) {
        self.lock().clear();
    }

    /// Where clients are served from now on. Said once.
    pub fn serves_at(&self, address: SocketAddr) {
        let _ = self.serves_at.set(address);
    }

    /// Where clients are served, once they are.
    pub fn address(&self) -> Option<SocketAddr> {
        self.serves_at.get().copied()
    }

    /// Not ready from now on, as when it was told to stop.
    pub fn not_ready(&self, reason: &str) {
        *self.lock() = vec![reason.to_owned()];
    }

    /// Empty when ready.
    pub fn reasons(&self) -> Vec<String> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<String>> {
        self.reasons.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
