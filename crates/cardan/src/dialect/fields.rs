//! Members of JSON objects, read as they stand.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

use super::Malformed;

/// An object's members as they stand: what a plugin hands back goes on byte for byte, its numbers not
/// rounded. Of several members of one name the last counts, as in Python.
pub(super) struct Fields<'a>(pub(super) BTreeMap<String, &'a RawValue>);

impl<'a> Fields<'a> {
    /// `what` names the object in the error.
    pub(super) fn read(object: &'a [u8], what: &str) -> Result<Self, Malformed> {
        match object.trim_ascii_start().first() {
            None => Err(Malformed(format!("{what} is empty"))),
            Some(b'{') => Ok(Self(serde_json::from_slice(object)?)),
            // Not JSON at all, or JSON of another kind.
            Some(_) => match serde_json::from_slice::<&RawValue>(object) {
                Ok(_) => Err(Malformed(format!("{what} is JSON, but no object"))),
                Err(error) => Err(error.into()),
            },
        }
    }

    /// What is there and not `null`.
    pub(super) fn get(&self, name: &str) -> Option<&'a RawValue> {
        self.0.get(name).copied().filter(|value| value.get() != "null")
    }

    /// Text that is there and not empty.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        let text: Option<String> = serde_json::from_str(self.get(name)?.get()).ok();
        text.filter(|text| !text.is_empty())
    }
}
