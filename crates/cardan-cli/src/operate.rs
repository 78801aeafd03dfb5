//! Operating a gateway that runs, through its admin API.

mod act;
mod args;
mod doctor;
mod follow;
mod remote;
mod show;
mod table;
mod top;

pub(crate) use args::Verb;

use crate::output::Failure;
use args::Target;
use remote::Remote;

/// Carries out one verb.
pub(crate) fn run(verb: &Verb) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::failed(format_args!("cannot start: {error}")))?;
    runtime.block_on(dispatch(verb))
}

async fn dispatch(verb: &Verb) -> Result<(), Failure> {
    match verb {
        Verb::Get(get) => show::get(&remote(&get.target)?, get).await,
        Verb::Describe(describe) => show::describe(&remote(&describe.target)?, describe).await,
        Verb::Trace(trace) => show::trace(&remote(&trace.target)?, trace).await,
        Verb::Load(load) => act::load(&remote(&load.target)?, load).await,
        Verb::Reload(plugin) => act::plain(&remote(&plugin.target)?, plugin, "reload").await,
        Verb::Enable(plugin) => act::plain(&remote(&plugin.target)?, plugin, "enable").await,
        Verb::Disable(plugin) => act::plain(&remote(&plugin.target)?, plugin, "disable").await,
        Verb::Promote(plugin) => act::plain(&remote(&plugin.target)?, plugin, "promote").await,
        Verb::StopCanary(plugin) => act::plain(&remote(&plugin.target)?, plugin, "stop-canary").await,
        Verb::Release(plugin) => act::plain(&remote(&plugin.target)?, plugin, "release").await,
        Verb::Rollback(rollback) => act::rollback(&remote(&rollback.target)?, rollback).await,
        Verb::Canary(canary) => act::canary(&remote(&canary.target)?, canary).await,
        Verb::Rm(plugin) => act::remove(&remote(&plugin.target)?, plugin).await,
        Verb::Try(trial) => act::trial(&remote(&trial.target)?, trial).await,
        Verb::Logs(logs) => follow::logs(&remote(&logs.target)?, logs).await,
        Verb::Events(events) => follow::events(&remote(&events.target)?, events).await,
        Verb::Top(top) => top::top(&remote(&top.target)?, top).await,
        Verb::Doctor(doctor) => doctor::doctor(&remote(&doctor.target)?, doctor).await,
    }
}

fn remote(target: &Target) -> Result<Remote, Failure> {
    Remote::new(target)
}
