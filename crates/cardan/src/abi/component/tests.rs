use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cardan_api::grants::Grants;
use cardan_api::lifecycle::{LifeEvent, LifeReason};
use cardan_api::{Attributes, BodyNeed, InstanceMode, Limits, Phase, Verdict};
use serde_json::{Value, json};

use super::{Ask, Guest, Linking, Template, recognise};
use crate::abi::extism::GuestOutput;
use crate::dialect::Circumstances;
use crate::engine::{Engine, EngineConfig};
use crate::grants::{Authority, LogLevel, LogSink, Permissions, PluginLog, Services};
use crate::{Error, module, runtime};

mod middleware;
mod world;

/// A plugin to be tested.
struct Plan {
    bytes: Vec<u8>,
    limits: Limits,
    grants: Grants,
    mode: InstanceMode,
    services: Services,
    log: Arc<Lines>,
}

/// Log lines of a guest.
#[derive(Default)]
struct Lines(Mutex<Vec<String>>);

impl LogSink for Lines {
    fn level(&self) -> Option<LogLevel> {
        Some(LogLevel::Trace)
    }

    fn line(&self, level: LogLevel, text: &str) {
        self.0.lock().unwrap().push(format!("{} {text}", level.name()));
    }
}

impl Plan {
    fn of(component: impl AsRef<[u8]>) -> Self {
        let bytes = wat::parse_bytes(component.as_ref()).unwrap().into_owned();
        Self {
            bytes,
            limits: Limits { deadline: Some(Duration::from_secs(5)), ..Limits::default() },
            grants: Grants::default(),
            mode: InstanceMode::Fresh,
            services: Services::default(),
            log: Arc::default(),
        }
    }

    fn link(&self, engine: &Engine) -> Result<Template, Error> {
        let found = recognise::recognise(&self.bytes)?;
        let name: Arc<str> = "p".into();
        let log = Arc::new(PluginLog::new(self.log.clone(), self.grants.log, None));
        let permissions =
            Permissions { granted: self.grants.clone(), requested: None, requested_hosts: None };
        let authority = Authority::new(&name, permissions, self.services.clone(), &self.limits, log);
        Linking {
            digest: module::digest(&self.bytes),
            bytes: self.bytes.clone(),
            found,
            mode: self.mode,
            limits: self.limits.clone(),
            config: BTreeMap::from([("greeting".to_owned(), "hello".to_owned())]),
            config_document: json!({ "greeting": "hello" }),
            life: LifeEvent { plugin: "p".into(), version: "1.2.3".into(), reason: LifeReason::Reload },
            authority: Arc::new(authority),
            output: Some(GuestOutput::Discard),
            tally: Arc::default(),
        }
        .link(engine)
    }

    fn start(&self) -> Result<Guest, Error> {
        let engine = Engine::new(EngineConfig::default())?;
        let template = self.link(&engine)?;
        runtime::block_on(template.instantiate())
    }
}

fn about<'a>(attributes: &'a Attributes, config: &'a Value) -> Circumstances<'a> {
    Circumstances {
        phase: Phase::PreFlight,
        body: BodyNeed::Whole,
        visit: "visit-1",
        session: "alice",
        attributes,
        config,
    }
}

fn ask<H: Ask>(guest: &mut Guest, event: &H::Event) -> Result<Verdict<H>, Error>
where
    H::Event: Sync,
{
    let attributes = Attributes::from_iter([("tenant".to_owned(), json!("acme"))]);
    let config = json!({ "limit": 3 });
    runtime::block_on(runtime::ambient(guest.ask::<H>(
        event,
        about(&attributes, &config),
        Some(Duration::from_secs(5)),
    )))
}
