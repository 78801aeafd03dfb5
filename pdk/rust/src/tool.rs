use std::fmt;

use cardan_api::tool::Tool;
use serde_json::{Value, json};

/// A tool without arguments.
pub fn tool(name: &str, description: &str) -> Tool {
    let parameters = json!({ "type": "object", "properties": {} });
    Tool { name: name.to_owned(), description: description.to_owned(), parameters }
}

/// Tools that are put together one argument at a time.
pub trait Described: Sized {
    /// With an argument that has to be given. `kind` is `string`, `number`, `boolean`, `object` or `array`.
    #[must_use]
    fn with_argument(self, name: &str, kind: &str, description: &str) -> Self;
}

impl Described for Tool {
    fn with_argument(mut self, name: &str, kind: &str, description: &str) -> Self {
        self.parameters["properties"][name] = json!({ "type": kind, "description": description });
        match &mut self.parameters["required"] {
            Value::Array(required) => required.push(name.into()),
            required => *required = json!([name]),
        }
        self
    }
}

/// Why a tool gave no result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToolError {
    /// There is no such tool: the host may ask another plugin.
    Unknown,
    /// It did not work, and why: for whoever called it. The plugin itself is well.
    Failed(String),
}

impl fmt::Display for ToolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => f.write_str("there is no such tool"),
            Self::Failed(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for ToolError {}

/// Arguments that are not what the tool wants.
impl From<serde_json::Error> for ToolError {
    fn from(error: serde_json::Error) -> Self {
        Self::Failed(error.to_string())
    }
}
