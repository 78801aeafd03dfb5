//! Bodies in documents: JSON as it is, other UTF-8 as text, anything else in base64.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, de};
use serde_json::Value;
use serde_json::value::RawValue;

use super::super::Malformed;

/// A body: JSON as it is, other UTF-8 as text, anything else in base64.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "EventBody")]
pub(super) enum BodyDocument<'a> {
    Json(#[schemars(with = "Value")] &'a RawValue),
    Text(&'a str),
    Base64(String),
}

impl<'a> BodyDocument<'a> {
    pub(super) fn of(body: &'a Bytes) -> Self {
        if let Ok(json) = serde_json::from_slice::<&RawValue>(body) {
            return Self::Json(json);
        }
        match std::str::from_utf8(body) {
            Ok(text) => Self::Text(text),
            Err(_) => Self::Base64(STANDARD.encode(body)),
        }
    }
}

/// A body: exactly one of the three.
#[derive(Debug, JsonSchema)]
#[schemars(rename = "VerdictBody", rename_all = "lowercase")]
pub(in super::super) enum NewBody {
    /// Any JSON value.
    Json(#[schemars(with = "Value")] Box<RawValue>),
    /// UTF-8.
    Text(String),
    /// Standard alphabet, padded.
    Base64(String),
}

// By hand, since serde says of a second key of an enum no more than "expected value".
impl<'de> Deserialize<'de> for NewBody {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Keys {
            #[serde(default, deserialize_with = "present")]
            json: Option<Box<RawValue>>,
            text: Option<String>,
            base64: Option<String>,
        }
        let keys = Keys::deserialize(deserializer)?;
        match (keys.json, keys.text, keys.base64) {
            (Some(json), None, None) => Ok(Self::Json(json)),
            (None, Some(text), None) => Ok(Self::Text(text)),
            (None, None, Some(base64)) => Ok(Self::Base64(base64)),
            _ => Err(de::Error::custom("a body has exactly one of the keys `json`, `text` and `base64`")),
        }
    }
}

/// A value that is there, `null` included.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Box<RawValue>>, D::Error> {
    Box::<RawValue>::deserialize(deserializer).map(Some)
}

impl NewBody {
    pub(super) fn bytes(self) -> Result<Bytes, Malformed> {
        match self {
            Self::Json(json) => Ok(Box::<str>::from(json).into_string().into()),
            Self::Text(text) => Ok(text.into()),
            Self::Base64(text) => match STANDARD.decode(text) {
                Ok(bytes) => Ok(bytes.into()),
                Err(error) => Err(Malformed(format!("a body's base64 is not valid: {error}"))),
            },
        }
    }
}
