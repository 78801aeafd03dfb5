//! Streams of events whose text comes in pieces.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::body::NOT_TEXT;
use crate::scan::mask;

/// Whether there is personal data in `text` that no scan of it as it stands can see: spread over several
/// events, or written with JSON escapes.
pub fn hides_something(text: &str) -> bool {
    let mut joined = BTreeMap::new();
    for line in text.lines() {
        let data = line.strip_prefix("data:").map(str::trim_start);
        match (serde_json::from_str(data.unwrap_or(line)), data) {
            (Ok(document), _) => join(&document, "", &mut joined),
            (Err(_), Some(data)) => joined.entry(String::new()).or_default().push_str(data),
            (Err(_), None) => {}
        }
    }
    joined.values().any(|text| mask(text).1 > 0)
}

/// Appends each string to those that stood at the same place in earlier events. `index` tells apart the
/// choices and content blocks that take turns in a stream.
fn join(value: &Value, path: &str, joined: &mut BTreeMap<String, String>) {
    match value {
        Value::String(text) => joined.entry(path.to_owned()).or_default().push_str(text),
        Value::Array(items) => items.iter().for_each(|item| join(item, path, joined)),
        Value::Object(members) => {
            let index = members.get("index").map(Value::to_string).unwrap_or_default();
            for (name, member) in members.iter().filter(|(name, _)| !NOT_TEXT.contains(&name.as_str())) {
                join(member, &format!("{path}/{index}/{name}"), joined);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, hides: bool) {
        assert_eq!(hides_something(text), hides, "{text}");
    }

    #[test]
    fn pieces() {
        check("write to ada@\nexample.com", false);
        check("data: {\"delta\":\"hello \"}\n\ndata: {\"delta\":\"world\"}\n\ndata: [DONE]\n\n", false);
        check("data: {\"delta\":\"ada@\"}\n\ndata: {\"delta\":\"example.com\"}\n\n", true);
        check(
            "data:{\"a\":[{\"index\":0,\"b\":\"ada@\"}]}\ndata:{\"a\":[{\"index\":0,\"b\":\"x.example\"}]}",
            true,
        );
        check(
            "data: {\"index\":0,\"t\":\"ada@\"}\ndata: {\"index\":1,\"t\":\"or\"}\ndata: {\"index\":0,\"t\":\"x.example\"}",
            true,
        );
        check("{\"t\":\"ada@\"}\n{\"t\":\"example.com\"}\n", true);
        check("data: ada@\n\ndata: example.com\n\n", true);
        check(r#"data: {"t":"ada\u0040example.com"}"#, true);
        check(r#"data: {"id":"ada@example.com"}"#, false);
    }
}
