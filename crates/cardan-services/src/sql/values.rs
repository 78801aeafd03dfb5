//! Values of databases as JSON.

use base64::Engine as _;
use serde_json::{Value, json};

/// Bytes, as `{"base64": "..."}`.
pub(super) fn base64(bytes: &[u8]) -> Value {
    json!({ "base64": base64::engine::general_purpose::STANDARD.encode(bytes) })
}

/// The bytes of `{"base64": "..."}`.
pub(super) fn from_base64(value: &Value) -> Option<Vec<u8>> {
    let object = value.as_object().filter(|object| object.len() == 1)?;
    let text = object.get("base64")?.as_str()?;
    base64::engine::general_purpose::STANDARD.decode(text).ok()
}

/// A number, or text where JSON has no such number.
pub(super) fn float(number: f64) -> Value {
    serde_json::Number::from_f64(number).map_or_else(|| number.to_string().into(), Value::Number)
}

/// About as many bytes as a value takes as JSON.
pub(super) fn bytes(value: &Value) -> u64 {
    match value {
        Value::Null | Value::Bool(_) => 4,
        Value::Number(_) => 8,
        Value::String(text) => text.len() as u64 + 2,
        Value::Array(items) => items.iter().map(bytes).sum::<u64>() + 2,
        Value::Object(members) => {
            members.iter().map(|(name, value)| name.len() as u64 + 3 + bytes(value)).sum::<u64>() + 2
        }
    }
}
