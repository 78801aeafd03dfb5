use std::fmt;

use serde_json::{Value, json};

/// One tool that a plugin offers to models.
#[derive(Debug, Clone)]
pub struct Tool {
    /// What it is called by: letters, digits, `_` and `-`.
    pub name: String,
    /// What it does, for the model that may call it.
    pub description: String,
    /// A JSON schema of its arguments, an object.
    pub parameters: Value,
}

impl Tool {
    /// A tool without arguments.
    pub fn new(name: &str, description: &str) -> Self {
        let parameters = json!({ "type": "object", "properties": {} });
        Self { name: name.to_owned(), description: description.to_owned(), parameters }
    }

    /// With a required argument. `kind` is `string`, `number`, `boolean`, `object` or `array`.
    #[must_use]
    pub fn with(mut self, argument: &str, kind: &str, description: &str) -> Self {
        self.parameters["properties"][argument] = json!({ "type": kind, "description": description });
        match &mut self.parameters["required"] {
            Value::Array(required) => required.push(argument.into()),
            required => *required = json!([argument]),
        }
        self
    }
}

/// Why a tool gave no result. Whoever called it is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToolError {
    /// There is no such tool.
    Unknown,
    /// The arguments are not what it takes.
    Invalid(String),
    /// It did not work.
    Failed(String),
}

impl fmt::Display for ToolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => f.write_str("there is no such tool"),
            Self::Invalid(why) | Self::Failed(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for ToolError {}

/// Arguments of another type than the tool wants.
impl From<serde_json::Error> for ToolError {
    fn from(error: serde_json::Error) -> Self {
        Self::Invalid(error.to_string())
    }
}
