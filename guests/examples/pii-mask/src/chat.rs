//! Where text is in chat bodies, and what to answer once it was masked.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::scan::mask;

/// Members whose strings are not prose: identifiers, and encoded media, where digits mean nothing and a
/// replaced one would damage the content.
const NOT_TEXT: [&str; 8] =
    ["type", "id", "tool_use_id", "image_url", "url", "data", "file_data", "signature"];

/// The part of the `http.request` and `http.response` events that this plugin reads.
#[derive(Deserialize)]
pub struct Event {
    #[serde(default)]
    attributes: Attributes,
    request: Option<Message>,
    response: Option<Message>,
}

#[derive(Deserialize)]
struct Message {
    body: Option<Body>,
}

/// A body that is not JSON (`text`, `base64`) is none that this plugin knows.
#[derive(Deserialize, Serialize, Debug, PartialEq)]
struct Body {
    json: Option<Value>,
}

#[derive(Serialize, Deserialize, Default, Debug, PartialEq)]
pub struct Attributes {
    #[serde(default)]
    pii_masked: u64,
}

#[derive(Serialize, Debug, PartialEq)]
#[serde(tag = "verdict", rename_all = "lowercase")]
pub enum Verdict {
    Continue {
        #[serde(skip_serializing_if = "Option::is_none")]
        edits: Option<Edits>,
        #[serde(skip_serializing_if = "Option::is_none")]
        attributes: Option<Attributes>,
    },
}

#[derive(Serialize, Debug, PartialEq)]
pub struct Edits {
    body: Body,
}

pub fn mask_request(event: Event) -> Verdict {
    edit(event.attributes, event.request, |body| mask_contents(body.get_mut("messages")))
}

pub fn mask_answer(event: Event) -> Verdict {
    edit(event.attributes, event.response, |body| {
        let mut found = 0;
        for choice in list(body.get_mut("choices")) {
            found += choice.get_mut("text").map_or(0, mask_value);
            found += choice.pointer_mut("/message/content").map_or(0, mask_value);
        }
        found
    })
}

fn edit(before: Attributes, message: Option<Message>, mask: impl FnOnce(&mut Value) -> u64) -> Verdict {
    if let Some(mut body) = message.and_then(|message| message.body?.json) {
        let found = mask(&mut body);
        if found > 0 {
            return Verdict::Continue {
                edits: Some(Edits { body: Body { json: Some(body) } }),
                attributes: Some(Attributes { pii_masked: before.pii_masked + found }),
            };
        }
    }
    Verdict::Continue { edits: None, attributes: None }
}

fn mask_contents(messages: Option<&mut Value>) -> u64 {
    list(messages).filter_map(|message| message.get_mut("content")).map(mask_value).sum()
}

fn list(value: Option<&mut Value>) -> impl Iterator<Item = &mut Value> {
    value.and_then(Value::as_array_mut).into_iter().flatten()
}

/// Masks the strings in `value`, at whatever depth: parts hold text in `text`, tool results in `content`,
/// and the next API will have another name for it. serde_json bounds the depth.
fn mask_value(value: &mut Value) -> u64 {
    match value {
        Value::String(text) => {
            let (masked, found) = mask(text);
            if found > 0 {
                *text = masked;
            }
            found
        }
        Value::Array(items) => items.iter_mut().map(mask_value).sum(),
        Value::Object(members) => members
            .iter_mut()
            .filter(|(name, _)| !NOT_TEXT.contains(&name.as_str()))
            .map(|(_, member)| mask_value(member))
            .sum(),
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn continues(edited: Option<Value>, count: u64) -> Value {
        match edited {
            Some(body) => json!({
                "verdict": "continue", "edits": {"body": {"json": body}}, "attributes": {"pii_masked": count},
            }),
            None => json!({"verdict": "continue"}),
        }
    }

    #[track_caller]
    fn check_request(body: Value, edited: Option<Value>, count: u64) {
        let event = json!({"hook": "http.request", "attributes": {"user": "a"}, "request": {"body": body}});
        let verdict = mask_request(serde_json::from_value(event).expect("an event"));
        assert_eq!(serde_json::to_value(verdict).expect("JSON"), continues(edited, count));
    }

    #[track_caller]
    fn check_answer(body: Value, edited: Option<Value>, count: u64) {
        let event = json!({
            "hook": "http.response", "attributes": {"pii_masked": 10}, "request": {"method": "POST"},
            "response": {"status": 200, "streamed": false, "body": body},
        });
        let verdict = mask_answer(serde_json::from_value(event).expect("an event"));
        assert_eq!(serde_json::to_value(verdict).expect("JSON"), continues(edited, count));
    }

    #[test]
    fn contents_of_requests() {
        check_request(
            json!({"json": {"model": "m", "messages": [{"role": "user", "content": "I am a@b.example"}]}}),
            Some(json!({"model": "m", "messages": [{"role": "user", "content": "I am [EMAIL]"}]})),
            1,
        );
        check_request(
            json!({"json": {"messages": [
                {"content": [{"type": "text", "text": "a@b.example or 078-05-1120"},
                             {"type": "image_url", "image_url": {"url": "data:a@b.example"}}]},
                {"content": null},
                {"content": [{"type": "tool_result", "tool_use_id": "a@b.example", "content": [{"text": "a@b.example"}]}]},
            ]}}),
            Some(json!({"messages": [
                {"content": [{"type": "text", "text": "[EMAIL] or [SSN]"},
                             {"type": "image_url", "image_url": {"url": "data:a@b.example"}}]},
                {"content": null},
                {"content": [{"type": "tool_result", "tool_use_id": "a@b.example", "content": [{"text": "[EMAIL]"}]}]},
            ]})),
            3,
        );
    }

    #[test]
    fn nothing_to_mask_is_no_edit() {
        check_request(json!({"json": {"messages": [{"content": "hello"}]}}), None, 0);
        check_request(json!({"json": {"user": "a@b.example", "messages": "a@b.example"}}), None, 0);
        check_request(json!({"json": ["a@b.example"]}), None, 0);
        check_request(json!({"text": "a@b.example"}), None, 0);
        check_request(json!({"base64": "AAAA"}), None, 0);
        check_request(json!(null), None, 0);
    }

    #[test]
    fn answers_add_to_the_count_of_the_request() {
        check_answer(
            json!({"json": {"choices": [{"message": {"content": "write to a@b.example"}}, {"text": "a@b.example"}]}}),
            Some(json!({"choices": [{"message": {"content": "write to [EMAIL]"}}, {"text": "[EMAIL]"}]})),
            12,
        );
        check_answer(json!({"json": {"choices": [{"message": {"content": null}}]}}), None, 0);
    }
}
