//! What has to be done while nobody asks for it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use cardan::dialect::Spoken;
use cardan::{Circumstances, Held, Plugin, Question};
use cardan_api::lifecycle::{LifeEvent, LifeReason, PluginTick, PluginUnload, TickEvent};
use cardan_api::{Attributes, BodyNeed, Phase};
use serde_json::Value;
use tokio::time::Instant;

use crate::control::ControlError;
use crate::installed::Installed;
use crate::manager::Manager;
use crate::retiring::{Retired, is_told};

/// How often there is a look around. A canary that failed is asked by nobody from that moment on, so only the
/// books wait for this.
const PACE: Duration = Duration::from_millis(100);
/// Time for all plugins together to say goodbye.
const GOODBYE_MAX: Duration = Duration::from_secs(5);

impl Manager {
    /// Looks after plugins until it is dropped: takes out canaries that failed, promotes those whose time has
    /// come, asks at `plugin.tick` and `plugin.unload`. One of these runs for each manager.
    pub async fn supervise(self) {
        self.shared.retiring.supervise();
        let mut pace = tokio::time::interval(PACE);
        pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut ticked = HashMap::new();
        loop {
            pace.tick().await;
            let now = Instant::now();
            self.settle_canaries(now).await;
            self.tick(&mut ticked, now);
            for retired in self.shared.retiring.take() {
                tokio::spawn(unload(retired));
            }
        }
    }

    /// Asks every plugin that has something to do at its end at `plugin.unload`, because the process ends. They
    /// have five seconds together. To be called once nobody visits any more.
    pub async fn say_goodbye(&self) {
        let snapshot = self.snapshot();
        let told = snapshot.plugins.iter().map(|plugin| &plugin.active).filter(|version| is_told(version));
        let mut goodbyes = tokio::task::JoinSet::new();
        told.for_each(|version| _ = goodbyes.spawn(unload(Retired::of(version, LifeReason::Stop))));
        if tokio::time::timeout(GOODBYE_MAX, goodbyes.join_all()).await.is_err() {
            tracing::warn!("some plugins were not told that the process ends: there was no time left");
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

    /// Asks whose time has come, counted from the tick before or from when it was first seen. A tick that takes
    /// longer than its interval has no second one beside it.
    fn tick(&self, ticked: &mut HashMap<Arc<str>, Instant>, now: Instant) {
        let snapshot = self.snapshot();
        ticked.retain(|name, _| snapshot.find(name).is_some());
        for plugin in snapshot.plugins.iter().filter(|plugin| plugin.enabled) {
            let Some(every) = plugin.spec().tick else { continue };
            let last = ticked.entry(plugin.name().clone()).or_insert(now);
            let run = &plugin.active.run;
            if now.saturating_duration_since(*last) < every
                || run.plugin.entry_of::<PluginTick>().is_none()
                || run.ticks.busy.swap(true, Ordering::AcqRel)
            {
                continue;
            }
            *last = now;
            tokio::spawn(tick(plugin.clone()));
        }
    }
}

async fn tick(installed: Arc<Installed>) {
    let run = &installed.active.run;
    let plugin = installed.name().to_string();
    let event = TickEvent { plugin, version: installed.spec().version.clone() };
    run.ticks.asked.fetch_add(1, Ordering::Relaxed);
    if let Err(error) = ask::<PluginTick>(&run.plugin, &event, &installed.spec().config).await {
        run.ticks.failed.fetch_add(1, Ordering::Relaxed);
        let error = error.to_string();
        let error = &error[..error.floor_char_boundary(1 << 10)];
        tracing::warn!(target: "cardan::fault", plugin = %installed.name(), error, "a tick failed");
    }
    run.ticks.busy.store(false, Ordering::Release);
}

async fn unload(retired: Retired) {
    let Retired { run, version, config, reason } = retired;
    let plugin = run.plugin.name().to_string();
    let event = LifeEvent { plugin, version, reason };
    if let Err(error) = ask::<PluginUnload>(&run.plugin, &event, &config).await {
        let error = error.to_string();
        let error = &error[..error.floor_char_boundary(1 << 10)];
        tracing::warn!(target: "cardan::fault", plugin = %run.plugin.name(), error, "it failed to say goodbye");
    }
}

async fn ask<H: Spoken>(plugin: &Plugin, event: &H::Event, config: &Value) -> Result<(), cardan::Error> {
    let attributes = Attributes::new();
    let about = Circumstances {
        phase: Phase::Background,
        body: BodyNeed::None,
        visit: "",
        session: "",
        attributes: &attributes,
        config,
    };
    let question = Question::<H> { event, about, entry: None, deadline: None };
    plugin.ask(&mut Held::default(), question).await.map(drop)
}
