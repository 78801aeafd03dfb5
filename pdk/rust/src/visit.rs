use cardan_api::{Attributes, Phase};
use serde::de::DeserializeOwned;

use crate::{Error, Result};

/// The request or session that a hook belongs to.
#[derive(Debug, Clone)]
pub struct Visit {
    /// The same at every hook of one request.
    pub id: String,
    /// The client's session, `default` when unknown.
    pub session: String,
    /// Where in the hook's chain the plugin is bound.
    pub phase: Phase,
    /// What plugins of this visit have set so far.
    pub attributes: Attributes,
}

impl Visit {
    /// One attribute, as a type of the plugin's own. An error when it is there and of another type.
    pub fn attribute<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>> {
        let Some(value) = self.attributes.get(name) else { return Ok(None) };
        T::deserialize(value)
            .map(Some)
            .map_err(|error| Error::new(format_args!("the attribute {name:?}: {error}")))
    }
}
