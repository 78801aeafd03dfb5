//! What has to be done while nobody asks for it.

use std::time::Duration;

use tokio::time::Instant;

use crate::control::ControlError;
use crate::manager::Manager;

/// How often there is a look around. A canary that failed is asked by nobody from that moment on, so only the
/// books wait for this.
const PACE: Duration = Duration::from_millis(200);

impl Manager {
    /// Looks after plugins until it is dropped: takes out canaries that failed, promotes those whose time has
    /// come. One of these runs for each manager.
    pub async fn supervise(self) {
        let mut pace = tokio::time::interval(PACE);
        pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            pace.tick().await;
            self.settle_canaries(Instant::now()).await;
        }
    }

    async fn settle_canaries(&self, now: Instant) {
        for plugin in &self.snapshot().plugins {
            let Some(canary) = &plugin.canary else { continue };
            let (name, manager) = (plugin.name().clone(), self.clone());
            let settled = if canary.is_stopped() {
                tokio::task::spawn_blocking(move || manager.stop_canary(&name)).await
            } else if canary.is_due(now) {
                tokio::task::spawn_blocking(move || manager.promote_canary(&name)).await
            } else {
                continue;
            };
            // An operator who was quicker is no trouble.
            if let Ok(Err(error @ ControlError::State(_))) = settled {
                tracing::error!(plugin = %plugin.name(), %error, "a canary is neither stopped nor promoted");
            }
        }
    }
}
