//! The documents of `tool.*`.

use cardan_api::tool::{Tool, ToolAnswer, ToolCall, ToolCallEvent, ToolList, ToolListEvent, ToolOutput};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use super::super::{Circumstances, Malformed, arguments, check_tools, write};
use super::verdict::{Judged, VerdictDocument, answer};
use super::{EventDocument, document};

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ToolCall")]
pub(super) struct ToolDocument<'a> {
    /// Which tool.
    name: &'a str,
    /// An object.
    #[schemars(with = "Value")]
    arguments: &'a RawValue,
}

/// The plugin's tools.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "ToolsAnswer")]
pub(super) struct ToolsDocument {
    tools: Vec<Tool>,
}

/// What came of it: exactly one of the three.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "lowercase")]
#[schemars(rename = "OutputAnswer")]
pub(super) enum OutputDocument {
    /// Any JSON value.
    Json(#[schemars(with = "Value")] Box<RawValue>),
    /// Text.
    Text(String),
    /// Why it could not be done, for whoever called the tool.
    Error(String),
}

pub(in super::super) fn encode_list(
    _event: &ToolListEvent,
    about: Circumstances<'_>,
) -> Result<Vec<u8>, Malformed> {
    write(&document::<ToolList>(about), [])
}

pub(in super::super) fn encode_call(
    event: &ToolCallEvent,
    about: Circumstances<'_>,
) -> Result<Vec<u8>, Malformed> {
    let tool = ToolDocument { name: &event.tool, arguments: arguments(event)? };
    write(&EventDocument { tool: Some(tool), ..document::<ToolCall>(about) }, [Some(&event.arguments)])
}

impl Judged for ToolList {
    const KEYS: &'static [&'static str] = &["answer"];

    fn stop(document: VerdictDocument) -> Result<Vec<Tool>, Malformed> {
        let ToolsDocument { tools } = answer(&document.answer()?)?;
        check_tools(&tools)?;
        Ok(tools)
    }
}

impl Judged for ToolCall {
    const KEYS: &'static [&'static str] = &["answer"];

    fn stop(document: VerdictDocument) -> Result<ToolAnswer, Malformed> {
        Ok(match answer(&document.answer()?)? {
            OutputDocument::Json(value) => {
                ToolAnswer::Done(ToolOutput::Json(Box::<str>::from(value).into_string().into()))
            }
            OutputDocument::Text(text) => ToolAnswer::Done(ToolOutput::Text(text)),
            OutputDocument::Error(why) => ToolAnswer::Failed(why),
        })
    }
}
