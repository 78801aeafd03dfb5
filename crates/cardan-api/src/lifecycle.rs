//! The hooks of a plugin's own life: one version begins, ends, or is given time for itself.
//!
//! Nobody binds them. A plugin that has the export is asked, by the runtime when it loads and by the manager
//! later.

use std::convert::Infallible;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::fault::FaultPolicy;
use crate::hook::Hook;

/// `plugin.load`: a version is about to serve. What it does here is found in the memory of each call.
#[derive(Debug)]
pub struct PluginLoad;

/// `plugin.unload`: a version has served its last call.
#[derive(Debug)]
pub struct PluginUnload;

/// `plugin.tick`: a version is asked from time to time, whether or not anybody calls it.
#[derive(Debug)]
pub struct PluginTick;

/// What a version is told when it begins or ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LifeEvent {
    /// The name it is deployed under.
    pub plugin: String,
    /// Its author's version; empty where nobody said.
    pub version: String,
    /// Why now.
    pub reason: LifeReason,
}

/// Why a version of a plugin begins or ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LifeReason {
    /// The process begins, or the plugin is new to it.
    #[default]
    Start,
    /// Another version takes the place of the one before.
    Reload,
    /// A version before takes its place back.
    Rollback,
    /// It is tried with a share of the visits, or no longer.
    Canary,
    /// The process ends.
    Stop,
    /// An operator switched it off.
    Disable,
    /// It is deployed no longer.
    Remove,
}

/// What a version is told at a tick.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TickEvent {
    /// The name it is deployed under.
    pub plugin: String,
    /// Its author's version; empty where nobody said.
    pub version: String,
}

/// Why a version will not serve. For operators.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadRefusal {
    /// The plugin's words.
    pub message: String,
}

impl Hook for PluginLoad {
    const NAME: &'static str = "plugin.load";
    const ON_FAULT: FaultPolicy = FaultPolicy::Refuse;
    type Event = LifeEvent;
    type Answer = LoadRefusal;
    type Edits = ();

    fn apply(_event: &mut LifeEvent, _edits: ()) {}
}

impl Hook for PluginUnload {
    const NAME: &'static str = "plugin.unload";
    const ON_FAULT: FaultPolicy = FaultPolicy::Skip;
    type Event = LifeEvent;
    type Answer = Infallible;
    type Edits = ();

    fn apply(_event: &mut LifeEvent, _edits: ()) {}
}

impl Hook for PluginTick {
    const NAME: &'static str = "plugin.tick";
    const ON_FAULT: FaultPolicy = FaultPolicy::Skip;
    type Event = TickEvent;
    type Answer = Infallible;
    type Edits = ();

    fn apply(_event: &mut TickEvent, _edits: ()) {}
}
