//! `life` and `tick`.

use cardan_api::Verdict;
use cardan_api::lifecycle::{
    LifeEvent, LifeReason, LoadRefusal, PluginLoad, PluginTick, PluginUnload, TickEvent,
};
use wasmtime::component::{ComponentType, Lower};

use super::{Ask, Circumstances, Entry, Failure, Guest, Interface, said};

const LOAD: Entry = Entry::new::<(Version<'static>,), (Result<(), String>,)>(Interface::Life, "load");
const UNLOAD: Entry = Entry::new::<(Version<'static>,), (Result<(), String>,)>(Interface::Life, "unload");
const TICK: Entry = Entry::new::<(&'static str,), (Result<(), String>,)>(Interface::Tick, "on-tick");

pub(super) const ENTRIES: [Entry; 3] = [LOAD, UNLOAD, TICK];

#[derive(ComponentType, Lower, Clone, Copy)]
#[component(enum)]
#[repr(u8)]
enum Reason {
    #[component(name = "start")]
    Start,
    #[component(name = "reload")]
    Reload,
    #[component(name = "rollback")]
    Rollback,
    #[component(name = "canary")]
    Canary,
    #[component(name = "stop")]
    Stop,
    #[component(name = "disable")]
    Disable,
    #[component(name = "remove")]
    Remove,
}

impl From<LifeReason> for Reason {
    fn from(reason: LifeReason) -> Self {
        match reason {
            LifeReason::Start => Self::Start,
            LifeReason::Reload => Self::Reload,
            LifeReason::Rollback => Self::Rollback,
            LifeReason::Canary => Self::Canary,
            LifeReason::Stop => Self::Stop,
            LifeReason::Disable => Self::Disable,
            LifeReason::Remove => Self::Remove,
        }
    }
}

#[derive(ComponentType, Lower)]
#[component(record)]
struct Version<'a> {
    plugin: &'a str,
    version: &'a str,
    reason: Reason,
    config: &'a str,
}

impl<'a> Version<'a> {
    fn of(event: &'a LifeEvent, config: &'a str) -> Self {
        Self { plugin: &event.plugin, version: &event.version, reason: event.reason.into(), config }
    }
}

impl Ask for PluginLoad {
    fn offered(interfaces: &[Interface]) -> Option<Interface> {
        interfaces.iter().copied().find(|it| *it == Interface::Life)
    }

    async fn ask(
        guest: &mut Guest,
        event: &LifeEvent,
        about: Circumstances<'_>,
    ) -> Result<Verdict<Self>, Failure> {
        let config = about.config.to_string();
        let loaded: Result<(), String> = guest.call(LOAD, (Version::of(event, &config),)).await?;
        Ok(match loaded {
            Ok(()) => Verdict::pass(),
            Err(message) => Verdict::stop(LoadRefusal { message }),
        })
    }
}

impl Ask for PluginUnload {
    fn offered(interfaces: &[Interface]) -> Option<Interface> {
        interfaces.iter().copied().find(|it| *it == Interface::Life)
    }

    async fn ask(
        guest: &mut Guest,
        event: &LifeEvent,
        about: Circumstances<'_>,
    ) -> Result<Verdict<Self>, Failure> {
        let config = about.config.to_string();
        said(guest.call::<_, Result<(), String>>(UNLOAD, (Version::of(event, &config),)).await?)?;
        Ok(Verdict::pass())
    }
}

impl Ask for PluginTick {
    fn offered(interfaces: &[Interface]) -> Option<Interface> {
        interfaces.iter().copied().find(|it| *it == Interface::Tick)
    }

    async fn ask(
        guest: &mut Guest,
        _event: &TickEvent,
        about: Circumstances<'_>,
    ) -> Result<Verdict<Self>, Failure> {
        let config = about.config.to_string();
        said(guest.call::<_, Result<(), String>>(TICK, (config.as_str(),)).await?)?;
        Ok(Verdict::pass())
    }
}
