//! JSON values as parameters. They are sent as text, which the server reads like a literal of the type that it
//! expects.

use std::error::Error;

use bytes::{BufMut as _, BytesMut};
use serde_json::Value;
use tokio_postgres::types::{Format, IsNull, Kind, ToSql, Type, to_sql_checked};

use crate::sql::values;

#[derive(Debug)]
pub(super) struct Parameter<'a>(pub(super) &'a Value);

impl ToSql for Parameter<'_> {
    fn to_sql(&self, ty: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        let json = matches!(*ty, Type::JSON | Type::JSONB);
        // A null in JSON is SQL's, too.
        if self.0.is_null() {
            return Ok(IsNull::Yes);
        }
        let text = match (self.0, ty.kind()) {
            (value, _) if json => value.to_string(),
            (Value::Array(items), Kind::Array(_)) => array(items),
            (value, _) => scalar(value),
        };
        out.put_slice(text.as_bytes());
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    fn encode_format(&self, _: &Type) -> Format {
        Format::Text
    }

    to_sql_checked!();
}

fn scalar(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => match values::from_base64(other) {
            Some(bytes) => hex(&bytes),
            None => other.to_string(),
        },
    }
}

/// As bytea is written.
fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(2 + 2 * bytes.len());
    text.push_str("\\x");
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// As arrays are written.
fn array(items: &[Value]) -> String {
    let items = items.iter().map(|item| match item {
        Value::Null => "NULL".to_owned(),
        Value::Array(items) => array(items),
        other => format!("\"{}\"", scalar(other).replace('\\', "\\\\").replace('"', "\\\"")),
    });
    format!("{{{}}}", items.collect::<Vec<_>>().join(","))
}
