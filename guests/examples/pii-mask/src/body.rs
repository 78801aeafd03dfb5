//! Where text is in bodies, and what to answer once it was masked.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::scan::mask;
use crate::stream::hides_something;

/// Members whose strings are not prose: identifiers, and encoded media, where digits mean nothing and a
/// replaced one would damage the content.
pub const NOT_TEXT: [&str; 13] = [
    "type",
    "id",
    "call_id",
    "tool_call_id",
    "tool_use_id",
    "image_url",
    "url",
    "data",
    "file_data",
    "b64_json",
    "embedding",
    "encrypted_content",
    "signature",
];

/// The part of the `http.request` and `http.response` events that this plugin reads.
#[derive(Deserialize)]
struct Event {
    #[serde(default)]
    attributes: Attributes,
    request: Option<Message>,
    response: Option<Message>,
}

#[derive(Deserialize)]
struct Message {
    body: Option<Body>,
}

#[derive(Deserialize, Serialize, Debug, PartialEq)]
#[serde(rename_all = "lowercase")]
enum Body {
    Json(Value),
    Text(String),
    Base64(String),
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
    Refuse {
        status: u16,
        kind: &'static str,
        message: &'static str,
    },
}

#[derive(Serialize, Debug, PartialEq)]
pub struct Edits {
    body: Body,
}

/// A request is JSON that can be read, or it is refused.
pub fn mask_request(event: &[u8]) -> Verdict {
    let refusal = Verdict::Refuse {
        status: 400,
        kind: "unreadable_body",
        message: "personal data is masked here, and this body cannot be read to do so: send valid JSON",
    };
    let Ok(event) = serde_json::from_slice::<Event>(event) else { return refusal };
    match event.request.and_then(|request| request.body) {
        Some(Body::Json(mut json)) => {
            let found = mask_value(&mut json);
            edit(event.attributes, Body::Json(json), found)
        }
        Some(Body::Text(text) | Body::Base64(text)) if !text.is_empty() => refusal,
        _ => NOTHING_FOUND,
    }
}

/// An answer may also be text. Without being sure that it was masked, nobody gets it.
pub fn mask_answer(event: &[u8]) -> Verdict {
    let refusal = Verdict::Refuse {
        status: 502,
        kind: "unreadable_answer",
        message: "personal data is masked here, and this answer cannot be read to do so; it may help to ask without `stream`",
    };
    let Ok(event) = serde_json::from_slice::<Event>(event) else { return refusal };
    match event.response.and_then(|response| response.body) {
        Some(Body::Json(mut json)) => {
            let found = mask_value(&mut json);
            edit(event.attributes, Body::Json(json), found)
        }
        Some(Body::Text(text)) => {
            let (masked, found) = mask(&text);
            if hides_something(&masked) { refusal } else { edit(event.attributes, Body::Text(masked), found) }
        }
        Some(Body::Base64(_)) => refusal,
        None => NOTHING_FOUND,
    }
}

const NOTHING_FOUND: Verdict = Verdict::Continue { edits: None, attributes: None };

/// Without a find the body stays as it came, byte for byte.
fn edit(before: Attributes, body: Body, found: u64) -> Verdict {
    if found == 0 {
        return NOTHING_FOUND;
    }
    let attributes = Attributes { pii_masked: before.pii_masked + found };
    Verdict::Continue { edits: Some(Edits { body }), attributes: Some(attributes) }
}

/// Masks every text in `value`: messages, prompts, inputs, answers and tool calls hold it under many names,
/// and the next API will have another. serde_json bounds the depth.
fn mask_value(value: &mut Value) -> u64 {
    match value {
        Value::String(text) => mask_text(text),
        Value::Number(number) if number.is_u64() => {
            let (masked, found) = mask(&number.to_string());
            if found > 0 {
                *value = Value::String(masked);
            }
            found
        }
        Value::Array(items) => items.iter_mut().map(mask_value).sum(),
        Value::Object(members) => {
            let found = members.iter_mut().map(|(name, member)| mask_member(name, member)).sum();
            // These repeat a text that was masked, token by token.
            if found > 0 && members.get("logprobs").is_some_and(|it| it.is_object() || it.is_array()) {
                members.insert("logprobs".to_owned(), Value::Null);
            }
            found
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
    }
}

fn mask_member(name: &str, member: &mut Value) -> u64 {
    match member {
        Value::String(_) if NOT_TEXT.contains(&name) => 0,
        // Of a tool call: a document within the document.
        Value::String(text) if name == "arguments" => match serde_json::from_str::<Value>(text) {
            Ok(mut arguments) => {
                let found = mask_value(&mut arguments);
                if found > 0 {
                    *text = arguments.to_string();
                }
                found
            }
            Err(_) => mask_text(text),
        },
        _ => mask_value(member),
    }
}

fn mask_text(text: &mut String) -> u64 {
    let (masked, found) = mask(text);
    if found > 0 {
        *text = masked;
    }
    found
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// What becomes of a body: `None` when it is left alone.
    fn edited(verdict: &Verdict) -> Option<Value> {
        match verdict {
            Verdict::Continue { edits: None, attributes: None } => None,
            Verdict::Continue { edits: Some(edits), attributes: Some(_) } => {
                Some(serde_json::to_value(&edits.body).expect("JSON"))
            }
            other => panic!("{other:?}"),
        }
    }

    fn request(body: &str) -> Verdict {
        mask_request(
            format!(r#"{{"hook":"http.request","attributes":{{}},"request":{{"body":{body}}}}}"#).as_bytes(),
        )
    }

    fn answer(body: &str) -> Verdict {
        let event = format!(
            r#"{{"attributes":{{"pii_masked":10}},"request":{{}},"response":{{"status":200,"body":{body}}}}}"#
        );
        mask_answer(event.as_bytes())
    }

    /// The same in requests and in answers.
    #[track_caller]
    fn check(json: Value, masked: Value) {
        let body = json!({ "json": json }).to_string();
        let expected = (json != masked).then(|| json!({ "json": masked }));
        assert_eq!(edited(&request(&body)), expected);
        assert_eq!(edited(&answer(&body)), expected);
    }

    #[track_caller]
    fn refused(verdict: Verdict, with: u16) {
        assert!(matches!(verdict, Verdict::Refuse { status, .. } if status == with), "{verdict:?}");
    }

    #[test]
    fn wherever_text_is() {
        let (from, to) = ("I am a@b.example", "I am [EMAIL]");
        let user = |content: Value| json!({ "messages": [{ "role": "user", "content": content }] });
        check(user(json!(from)), user(json!(to)));
        let parts = |text: &str| {
            user(json!([
                { "type": "text", "text": text },
                { "type": "image_url", "image_url": { "url": "data:a@b.example" } },
                { "type": "tool_result", "tool_use_id": "a@b.example", "content": [{ "text": text }] },
            ]))
        };
        check(parts(from), parts(to));
        let prompts = |text: &str| {
            json!([
                { "prompt": text, "system": [{ "text": text }], "user": text },
                { "prompt": ["x", text], "instructions": text },
                { "input": [{ "role": "user", "content": [{ "type": "input_text", "text": text }] }, text] },
            ])
        };
        check(prompts(from), prompts(to));
        let answers = |text: &str| {
            json!({
                "object": "text_completion", "choices": [{ "text": text }, { "message": { "content": text } }],
                "error": { "message": text }, "output": [{ "content": [{ "type": "output_text", "text": text }] }],
            })
        };
        check(answers(from), answers(to));
        check(json!(from), json!(to));
    }

    #[test]
    fn arguments_of_tool_calls() {
        let calls = |arguments: &str| {
            json!({ "choices": [{ "message": { "tool_calls": [
                { "id": "call_1", "function": { "name": "f", "arguments": arguments } },
            ] } }] })
        };
        check(calls(r#"{"to":"a\u0040b.example"}"#), calls(r#"{"to":"[EMAIL]"}"#));
        check(calls(r#"{"card":4111111111111111,"n": 7}"#), calls(r#"{"card":"[CARD]","n":7}"#));
        check(calls(r#"{"to":"a@b.example""#), calls(r#"{"to":"[EMAIL]""#));
        check(calls(r#"{"n": 7}"#), calls(r#"{"n": 7}"#));
    }

    #[test]
    fn what_is_no_text_stays() {
        check(
            json!({ "messages": [{ "content": "hello" }], "seed": 7, "temperature": 0.1 }),
            json!({
            "messages": [{ "content": "hello" }], "seed": 7, "temperature": 0.1 }),
        );
        check(
            json!({ "id": "a@b.example", "data": [{ "b64_json": "a@b.example" }], "n": null }),
            json!({
            "id": "a@b.example", "data": [{ "b64_json": "a@b.example" }], "n": null }),
        );
        check(
            json!({ "choices": [{ "text": "a@b.example", "logprobs": { "tokens": ["a@", "b.example"] } }] }),
            json!({ "choices": [{ "text": "[EMAIL]", "logprobs": null }] }),
        );
        for body in ["null", r#"{"text":""}"#] {
            assert_eq!(edited(&request(body)), None);
            assert_eq!(edited(&answer(body)), None);
        }
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        let deep = format!(r#"{{"json":{}{}}}"#, "[".repeat(200), "]".repeat(200));
        for body in [r#"{"json":{"a":"\ud800"}}"#, r#"{"json":1e999}"#, r#"{"base64":"AAAA"}"#, deep.as_str()]
        {
            refused(request(body), 400);
            refused(answer(body), 502);
        }
        refused(request(r#"{"text":"{\"messages\": "}"#), 400);
        refused(answer(r#"{"text":"data: {\"t\":\"a@\"}\n\ndata: {\"t\":\"b.example\"}\n\n"}"#), 502);
    }

    #[test]
    fn answers_that_are_text() {
        assert_eq!(
            edited(&answer(r#"{"text":"data: {\"text\":\"a@b.example\"}\n\ndata: [DONE]\n\n"}"#)),
            Some(json!({ "text": "data: {\"text\":\"[EMAIL]\"}\n\ndata: [DONE]\n\n" })),
        );
        assert_eq!(edited(&answer(r#"{"text":"hello"}"#)), None);
    }

    #[test]
    fn answers_add_to_the_count_of_the_request() {
        let verdict = answer(r#"{"json":["a@b.example","a@b.example"]}"#);
        assert_eq!(
            serde_json::to_value(verdict).expect("JSON"),
            json!({
                "verdict": "continue", "edits": { "body": { "json": ["[EMAIL]", "[EMAIL]"] } },
                "attributes": { "pii_masked": 12 },
            })
        );
    }
}
