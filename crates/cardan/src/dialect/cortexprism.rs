//! CortexPrism's documents: its tools, and what they are given and return.
//!
//! Both of its interfaces look the same from here. The convention hands over the export [`CAPABILITIES`], which it
//! makes up itself for modules that list nothing ([`capabilities`]), and one export for each tool, under the tool's
//! name.

use cardan_api::tool::{Tool, ToolAnswer, ToolCall, ToolCallEvent, ToolList, ToolListEvent, ToolOutput};
use cardan_api::{Hook, Verdict};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::{Circumstances, Malformed, arguments, check_tools};

#[cfg(test)]
mod tests;

/// The export that answers `tool.list`.
pub const CAPABILITIES: &str = "plugin_get_capabilities";
/// The export of the dispatching interface that answers `tool.call`, by way of the convention.
pub const EXECUTE: &str = "plugin_execute_tool";
/// The export that answers `plugin.unload`.
pub const DESTROY: &str = "plugin_destroy";

/// The version of the dispatching interface.
const VERSION: u64 = 1;

/// Functions that toolchains export for hosts, and that have a tool's type in some of them.
const ALLOCATORS: [&str; 10] = [
    "alloc",
    "dealloc",
    "malloc",
    "calloc",
    "realloc",
    "free",
    "aligned_alloc",
    "posix_memalign",
    "allocate",
    "deallocate",
];

/// Whether an export of a tool's type can be a tool: neither an allocator, nor what a toolchain or an interface
/// has put there.
pub fn is_tool(export: &str) -> bool {
    let taken = export.starts_with('_') || export.starts_with("cabi_") || export.starts_with("plugin_");
    !export.is_empty() && !taken && !ALLOCATORS.contains(&export)
}

/// The list of tools of a module that has one export for each and lists nothing.
pub fn capabilities<'a>(exports: impl IntoIterator<Item = &'a str>) -> Vec<u8> {
    let tools: Vec<Value> =
        exports.into_iter().filter(|export| is_tool(export)).map(|name| json!({ "name": name })).collect();
    json!({ "abi_version": VERSION, "tools": tools }).to_string().into_bytes()
}

#[derive(Deserialize)]
struct Capabilities {
    abi_version: Option<u64>,
    #[serde(default)]
    tools: Vec<Capability>,
}

#[derive(Deserialize)]
struct Capability {
    name: String,
    #[serde(default)]
    description: String,
    params: Option<Vec<Param>>,
}

#[derive(Deserialize)]
struct Param {
    name: String,
    #[serde(rename = "type")]
    kind: ParamType,
    #[serde(default)]
    description: String,
    #[serde(default)]
    required: bool,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum ParamType {
    String,
    Number,
    Boolean,
    Object,
    Array,
}

impl ParamType {
    fn name(self) -> &'static str {
        match self {
            Self::String => "string",
            Self::Number => "number",
            Self::Boolean => "boolean",
            Self::Object => "object",
            Self::Array => "array",
        }
    }
}

/// For exports that are given nothing.
#[expect(clippy::unnecessary_wraps, reason = "the form of all that write documents")]
pub(super) fn encode_nothing<H: Hook>(
    _event: &H::Event,
    _about: Circumstances<'_>,
) -> Result<Vec<u8>, Malformed> {
    Ok(Vec::new())
}

pub(super) fn decode_list(_event: &ToolListEvent, document: &[u8]) -> Result<Verdict<ToolList>, Malformed> {
    let listed: Capabilities = serde_json::from_slice(document)?;
    if let Some(version) = listed.abi_version.filter(|version| *version != VERSION) {
        return Err(Malformed(format!(
            "its interface has the version {version}, and only {VERSION} is known"
        )));
    }
    let tools = listed.tools.into_iter().map(|tool| {
        let parameters = tool.params.map(|params| schema(params, &tool.name)).transpose()?;
        Ok(Tool {
            name: tool.name,
            description: tool.description,
            parameters: parameters.unwrap_or(Value::Null),
        })
    });
    let tools = tools.collect::<Result<Vec<_>, Malformed>>()?;
    check_tools(&tools)?;
    Ok(Verdict::stop(tools))
}

/// Parameters as JSON Schema.
fn schema(params: Vec<Param>, tool: &str) -> Result<Value, Malformed> {
    let required: Vec<Value> =
        params.iter().filter(|param| param.required).map(|param| json!(param.name)).collect();
    let mut properties = Map::new();
    for Param { name, kind, description, .. } in params {
        let mut property = Map::from_iter([("type".to_owned(), json!(kind.name()))]);
        if !description.is_empty() {
            property.insert("description".to_owned(), json!(description));
        }
        if properties.insert(name.clone(), Value::Object(property)).is_some() {
            return Err(Malformed(format!("the tool {tool:?} has two parameters {name:?}")));
        }
    }
    Ok(json!({ "type": "object", "properties": properties, "required": required }))
}

pub(super) fn encode_call(event: &ToolCallEvent, _about: Circumstances<'_>) -> Result<Vec<u8>, Malformed> {
    Ok(arguments(event)?.get().as_bytes().to_vec())
}

/// JSON as it stands, else text.
pub(super) fn decode_call(_event: &ToolCallEvent, document: &[u8]) -> Result<Verdict<ToolCall>, Malformed> {
    let output = match serde_json::from_slice::<&RawValue>(document) {
        Ok(json) => ToolOutput::Json(json.get().as_bytes().to_vec().into()),
        Err(_) => match std::str::from_utf8(document) {
            Ok(text) => ToolOutput::Text(text.to_owned()),
            Err(_) => return Err(Malformed("the output is neither JSON nor text".to_owned())),
        },
    };
    Ok(Verdict::stop(ToolAnswer::Done(output)))
}

/// A number other than 0: the words are the tool's own, for whoever called it.
pub(super) fn call_code(words: Option<&str>) -> Verdict<ToolCall> {
    let words = words.filter(|words| !words.is_empty()).unwrap_or("WASM tool execution failed");
    Verdict::stop(ToolAnswer::Failed(words.to_owned()))
}
