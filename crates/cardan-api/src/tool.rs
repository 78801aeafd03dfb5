//! The tool hooks: what plugins can do for agents, and doing it.

use bytes::Bytes;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::fault::FaultPolicy;
use crate::hook::Hook;

/// `tool.list`: which tools a plugin has. Each plugin is asked for its own.
#[derive(Debug)]
pub struct ToolList;

/// `tool.call`: an agent, or a person, calls a tool by name.
#[derive(Debug)]
pub struct ToolCall;

/// A tool, as a language model is told of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tool {
    /// Unique in its plugin.
    pub name: String,
    /// What it does, and when to use it.
    #[serde(default)]
    pub description: String,
    /// What its arguments look like, as JSON Schema; `null` where nobody said.
    #[serde(default)]
    pub parameters: Value,
}

/// What `tool.list` plugins are shown: nothing but where they are asked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ToolListEvent;

/// What `tool.call` plugins are shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolCallEvent {
    /// Which tool.
    pub tool: String,
    /// A JSON object; `{}` where there are none.
    pub arguments: Bytes,
}

/// What came of calling a tool. A plugin that continues has no tool of this name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToolAnswer {
    /// It was done.
    Done(ToolOutput),
    /// It could not be done: why, in the tool's words, for whoever called it. The plugin itself is well.
    Failed(String),
}

/// What a tool returns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToolOutput {
    /// A JSON value, as the tool has written it.
    Json(Bytes),
    /// Text.
    Text(String),
}

impl Hook for ToolList {
    const NAME: &'static str = "tool.list";
    const ON_FAULT: FaultPolicy = FaultPolicy::Refuse;
    type Event = ToolListEvent;
    type Answer = Vec<Tool>;
    type Edits = ();

    fn apply(_event: &mut ToolListEvent, _edits: ()) {}
}

impl Hook for ToolCall {
    const NAME: &'static str = "tool.call";
    const ON_FAULT: FaultPolicy = FaultPolicy::Refuse;
    type Event = ToolCallEvent;
    type Answer = ToolAnswer;
    type Edits = ();

    fn apply(_event: &mut ToolCallEvent, _edits: ()) {}
}
