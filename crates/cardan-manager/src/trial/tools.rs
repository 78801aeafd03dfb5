//! Trials of tools.

use bytes::Bytes;
use cardan_api::tool::{Tool, ToolAnswer, ToolCall, ToolCallEvent, ToolList, ToolOutput};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::Tried;

/// A call of a tool.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct SampleTool {
    name: String,
    /// An object.
    arguments: Map<String, Value>,
}

impl SampleTool {
    pub(super) fn event(self) -> Result<ToolCallEvent, String> {
        if self.name.is_empty() {
            return Err("the event's tool.name is missing: which tool is to be called".to_owned());
        }
        let arguments = Bytes::from(Value::Object(self.arguments).to_string());
        Ok(ToolCallEvent { tool: self.name, arguments })
    }
}

impl Tried for ToolList {
    fn shown((): ()) -> Value {
        json!({})
    }

    fn answered(tools: Vec<Tool>) -> Value {
        json!({ "verdict": "answer", "answer": { "tools": tools } })
    }
}

impl Tried for ToolCall {
    fn shown((): ()) -> Value {
        json!({})
    }

    fn answered(answer: ToolAnswer) -> Value {
        let answer = match answer {
            ToolAnswer::Done(ToolOutput::Json(json)) => match serde_json::from_slice::<Value>(&json) {
                Ok(value) => json!({ "json": value }),
                // Nothing can be JSON and not be read as such.
                Err(_) => json!({ "text": String::from_utf8_lossy(&json) }),
            },
            ToolAnswer::Done(ToolOutput::Text(text)) => json!({ "text": text }),
            ToolAnswer::Failed(why) => json!({ "error": why }),
        };
        json!({ "verdict": "answer", "answer": answer })
    }
}
