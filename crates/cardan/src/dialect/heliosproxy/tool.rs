//! `list_tools` and `execute_tool`.

use cardan_api::Verdict;
use cardan_api::tool::{Tool, ToolAnswer, ToolCall, ToolCallEvent, ToolList, ToolListEvent, ToolOutput};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::super::{Circumstances, Malformed, arguments, check_tools, write};

#[derive(Serialize)]
struct Call<'a> {
    name: &'a str,
    params: &'a RawValue,
}

#[derive(Deserialize)]
struct Definition {
    name: String,
    #[serde(default)]
    description: String,
    #[serde(default)]
    parameters: Value,
}

/// The definitions alone, or under a key.
#[derive(Deserialize)]
#[serde(untagged)]
enum Definitions {
    Alone(Vec<Definition>),
    Under { tools: Vec<Definition> },
}

#[expect(clippy::unnecessary_wraps, reason = "the form of all that write documents")]
pub(in super::super) fn encode_list(
    _event: &ToolListEvent,
    _about: Circumstances<'_>,
) -> Result<Vec<u8>, Malformed> {
    Ok(b"{}".to_vec())
}

pub(in super::super) fn decode_list(
    _event: &ToolListEvent,
    document: &[u8],
) -> Result<Verdict<ToolList>, Malformed> {
    if document.trim_ascii().is_empty() {
        return Ok(Verdict::pass());
    }
    let (Definitions::Alone(tools) | Definitions::Under { tools }) = serde_json::from_slice(document)
        .map_err(|_| Malformed("the output is no list of tools, each with a name".to_owned()))?;
    let tools = tools.into_iter().map(|tool| Tool {
        name: tool.name,
        description: tool.description,
        parameters: schema(tool.parameters),
    });
    let tools: Vec<Tool> = tools.collect();
    check_tools(&tools)?;
    Ok(Verdict::stop(tools))
}

/// Parameters are a JSON Schema, or only its properties: the documentation's example has these.
fn schema(parameters: Value) -> Value {
    let is_schema = parameters.is_null()
        || parameters["type"].is_string()
        || ["$schema", "$ref", "properties"].iter().any(|key| parameters.get(key).is_some());
    if is_schema { parameters } else { json!({"type": "object", "properties": parameters}) }
}

pub(in super::super) fn encode_call(
    event: &ToolCallEvent,
    _about: Circumstances<'_>,
) -> Result<Vec<u8>, Malformed> {
    write(&Call { name: &event.tool, params: arguments(event)? }, [Some(&event.arguments)])
}

/// Any JSON is a result; nothing, or the word for it, is that there is no such tool.
pub(in super::super) fn decode_call(
    _event: &ToolCallEvent,
    document: &[u8],
) -> Result<Verdict<ToolCall>, Malformed> {
    if document.trim_ascii().is_empty() {
        return Ok(Verdict::pass());
    }
    let result: &RawValue = serde_json::from_slice(document)?;
    if result.get() == r#""Unknown""# {
        return Ok(Verdict::pass());
    }
    let output = ToolOutput::Json(result.get().as_bytes().to_vec().into());
    Ok(Verdict::stop(ToolAnswer::Done(output)))
}
