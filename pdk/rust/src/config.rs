use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{Error, Result};

/// What an operator has configured for the plugin: a JSON object.
#[derive(Debug, Clone, Default)]
pub struct Config(Value);

impl Config {
    /// From JSON text, as hosts and tests give it. No text is no configuration.
    pub fn parse(text: &str) -> Result<Self> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        serde_json::from_str(text)
            .map(Self)
            .map_err(|error| Error::new(format_args!("the configuration is no JSON: {error}")))
    }

    /// The whole of it, as a type of the plugin's own. What that type leaves out in silence, or refuses with
    /// `deny_unknown_fields`, is the plugin's choice.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T> {
        let object = if self.0.is_null() { Value::Object(Default::default()) } else { self.0.clone() };
        serde_json::from_value(object).map_err(|error| Error::new(format_args!("the configuration: {error}")))
    }

    /// One value. `null` is one that is not there.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.0.get(key).filter(|value| !value.is_null())
    }

    /// One value that has to be text.
    pub fn text(&self, key: &str) -> Result<Option<String>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        match value.as_str() {
            Some(text) => Ok(Some(text.to_owned())),
            None => Err(Error::new(format_args!("the configuration: {key} has to be text, and is {value}"))),
        }
    }
}

impl From<Value> for Config {
    fn from(value: Value) -> Self {
        Self(value)
    }
}
