//! What guests are given.

use serde_json::{Map, Value, json};

/// A chat request of about `bytes` bytes, with digits in it for the JSON guest to replace.
pub(crate) fn chat(bytes: usize) -> Vec<u8> {
    const TEXT: &str = "My order 4711 of 12 March has not arrived, please call me at 555 0123. ";
    let mut messages = vec![json!({"role": "system", "content": "You are a helpful assistant."})];
    loop {
        let chat = json!({"model": "gpt-4o-mini", "temperature": 0.7, "stream": false, "messages": messages});
        let text = chat.to_string();
        if text.len() >= bytes {
            return text.into_bytes();
        }
        let role = if messages.len() % 2 == 1 { "user" } else { "assistant" };
        let rest = bytes.saturating_sub(text.len());
        messages.push(json!({"role": role, "content": TEXT.repeat((rest / TEXT.len()).clamp(1, 3))}));
    }
}

/// Bytes without meaning.
pub(crate) fn plain(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|i| b'a' + (i % 26) as u8).collect()
}

/// What the guest `json-edit` does, in native code: see `guests/fixtures/json-edit`.
pub(crate) fn edit(input: &[u8]) -> serde_json::Result<Vec<u8>> {
    let mut chat: Map<String, Value> = serde_json::from_slice(input)?;
    let mut redacted = 0;
    for message in chat.get_mut("messages").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(Value::String(text)) = message.get_mut("content") {
            redacted += redact(text);
        }
    }
    chat.insert("redacted".to_owned(), redacted.into());
    serde_json::to_vec(&chat)
}

fn redact(text: &mut String) -> usize {
    let digits = text.bytes().filter(u8::is_ascii_digit).count();
    if digits > 0 {
        *text = text.chars().map(|c| if c.is_ascii_digit() { '#' } else { c }).collect();
    }
    digits
}
