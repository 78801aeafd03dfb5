//! From the chunks of a stream to the completion they add up to.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{Kind, OTHER_EVENTS, PADDING};
use crate::sse;

/// More choices or tool calls than this are nobody's answer; such a stream is shown as text.
pub(super) const ENTRIES_MAX: usize = 1024;
/// Pings of many hours.
const OTHERS_MAX: usize = 16_384;
/// A stream has no more events than fit into this many digits.
const COUNT_DIGITS_MAX: usize = 6;

/// The completion that the chunks of a stream add up to, its other events listed in [`OTHER_EVENTS`].
///
/// `None` if there are no choices in it, choices of two kinds, half a chunk, anything after `[DONE]`, bytes
/// that are not UTF-8, or anything a client would be sent and the completion has no place for, such as a
/// second value of a field: such a stream has to be shown as it is.
pub(crate) fn assemble(stream: &[u8]) -> Option<Value> {
    let mut assembly = Assembly::default();
    for event in sse::split_all(stream) {
        assembly.push(&event)?;
    }
    assembly.finish()
}

/// Whether clients take a document for a part of a completion: it has choices, or says so itself.
fn is_chunk(document: &Map<String, Value>) -> bool {
    match document.get("choices") {
        None | Some(Value::Null) => false,
        // Azure opens with an event whose strings are all empty.
        Some(Value::Array(choices)) if choices.is_empty() => match document.get("object") {
            None | Some(Value::Null) => true,
            Some(object) => {
                ["", Kind::Chat.streamed(), Kind::Text.streamed()].iter().any(|known| object == known)
            }
        },
        Some(_) => true,
    }
}

/// What has been seen of a stream.
#[derive(Default)]
struct Assembly {
    /// That of the first choice, and so of all.
    kind: Option<Kind>,
    /// Everything but choices: `id`, `created`, `model`, `usage`, whatever a provider adds.
    head: Map<String, Value>,
    choices: BTreeMap<u64, Choice>,
    others: Vec<Value>,
    done: bool,
}

#[derive(Default)]
struct Choice {
    message: Map<String, Value>,
    tool_calls: BTreeMap<u64, Map<String, Value>>,
    has_tool_calls: bool,
    /// `finish_reason`, `logprobs`, whatever a provider adds.
    rest: Map<String, Value>,
}

impl Assembly {
    /// Takes an event in. `None`: this is no stream of a completion.
    fn push(&mut self, event: &[u8]) -> Option<()> {
        let Some(data) = sse::data(event) else { return Some(()) };
        // A client might read on after the end, so what follows it must be seen too.
        if self.done {
            return None;
        }
        if data.trim_ascii() == b"[DONE]" {
            self.done = true;
            return says_nothing_else(event).then_some(());
        }
        match serde_json::from_slice(&data) {
            Ok(Value::Object(chunk)) if is_chunk(&chunk) => {
                says_nothing_else(event).then(|| self.push_chunk(chunk))?
            }
            Ok(other) => self.push_other(event, ("json", other)),
            // Half a chunk: nobody can say what is in it.
            Err(_) if data.trim_ascii_start().starts_with(b"{") => None,
            Err(_) => self.push_other(event, ("text", std::str::from_utf8(&data).ok()?.into())),
        }
    }

    fn push_other(&mut self, event: &[u8], (form, content): (&str, Value)) -> Option<()> {
        let mut other = Map::new();
        if let Some(name) = sse::name(event) {
            other.insert("event".to_owned(), std::str::from_utf8(name).ok()?.into());
        }
        other.insert(form.to_owned(), content);
        self.others.push(Value::Object(other));
        (self.others.len() <= OTHERS_MAX).then_some(())
    }

    fn push_chunk(&mut self, mut chunk: Map<String, Value>) -> Option<()> {
        chunk.shift_remove("object");
        let Some(Value::Array(choices)) = chunk.shift_remove("choices") else { return None };
        for choice in choices {
            self.push_choice(choice)?;
        }
        for (key, value) in chunk {
            let have = match key.as_str() {
                // Ours to write: an upstream's own is shown as one of its events.
                OTHER_EVENTS => {
                    self.others.push(json!({ "json": { OTHER_EVENTS: value } }));
                    continue;
                }
                _ => self.head.entry(key.clone()).or_insert(Value::Null),
            };
            match key.as_str() {
                // The last one counts all.
                "usage" if value.is_null() => {}
                "usage" => *have = value,
                PADDING => merge(have, value)?,
                // The time of the completion, or of each chunk: no text either way.
                "created" if !is_blank(have) && is_time(have) && is_time(&value) => {}
                _ => agree(have, value)?,
            }
        }
        Some(())
    }

    fn push_choice(&mut self, choice: Value) -> Option<()> {
        let Value::Object(mut choice) = choice else { return None };
        let index = choice.shift_remove("index").map_or(Some(0), |index| index.as_u64())?;
        let (kind, delta) = match (choice.shift_remove("delta"), choice.get("text")) {
            (Some(Value::Object(delta)), _) => (Kind::Chat, delta),
            (None, Some(Value::String(_) | Value::Null)) => (Kind::Text, Map::new()),
            _ => return None,
        };
        if *self.kind.get_or_insert(kind) != kind {
            return None;
        }
        // A whole message beside the pieces has no place of its own.
        if choice.shift_remove("message").is_some_and(|message| !message.is_null()) {
            return None;
        }
        let target = self.choices.entry(index).or_default();
        target.push_delta(delta)?;
        if let Some(reason) = choice.shift_remove("finish_reason").filter(|reason| !reason.is_null()) {
            target.rest.insert("finish_reason".to_owned(), reason);
        }
        // Some providers of chat completions send the text beside the delta too.
        for key in ["logprobs", "text"] {
            if let Some(value) = choice.shift_remove(key) {
                merge(target.rest.entry(key).or_insert(Value::Null), value)?;
            }
        }
        for (key, value) in choice {
            agree(target.rest.entry(key).or_insert(Value::Null), value)?;
        }
        (self.choices.len() <= ENTRIES_MAX).then_some(())
    }

    fn finish(self) -> Option<Value> {
        let kind = self.kind?;
        let mut completion = Map::new();
        let mut head = self.head;
        for key in ["id", "object", "created", "model"] {
            match key {
                "object" => _ = completion.insert(key.to_owned(), json!(kind.whole())),
                _ => completion.extend(head.shift_remove_entry(key)),
            }
        }
        let usage = head.shift_remove("usage").filter(|usage| !usage.is_null());
        completion.extend(head);
        let choices = self.choices.into_iter().map(|(index, choice)| choice.finish(kind, index)).collect();
        completion.insert("choices".to_owned(), Value::Array(choices));
        completion.extend(usage.map(|usage| ("usage".to_owned(), usage)));
        if !self.others.is_empty() {
            completion.insert(OTHER_EVENTS.to_owned(), Value::Array(self.others));
        }
        Some(Value::Object(completion))
    }
}

impl Choice {
    fn push_delta(&mut self, mut delta: Map<String, Value>) -> Option<()> {
        match delta.shift_remove("tool_calls") {
            Some(Value::Array(calls)) => {
                self.has_tool_calls = true;
                for call in calls {
                    self.push_tool_call(call)?;
                }
            }
            Some(Value::Null) | None => {}
            Some(_) => return None,
        }
        if let Some(role) = delta.shift_remove("role") {
            agree(self.message.entry("role").or_insert(Value::Null), role)?;
        }
        merge_objects(&mut self.message, delta)
    }

    fn push_tool_call(&mut self, call: Value) -> Option<()> {
        let Value::Object(mut call) = call else { return None };
        // Some providers leave the index out and send each call whole.
        let next = self.tool_calls.keys().next_back().map_or(0, |last| last + 1);
        let index = call.shift_remove("index").map_or(Some(next), |index| index.as_u64())?;
        let target = self.tool_calls.entry(index).or_default();
        for key in ["id", "type"] {
            if let Some(value) = call.shift_remove(key) {
                agree(target.entry(key).or_insert(Value::Null), value)?;
            }
        }
        merge_objects(target, call)?;
        (self.tool_calls.len() <= ENTRIES_MAX).then_some(())
    }

    fn finish(mut self, kind: Kind, index: u64) -> Value {
        let mut rest = std::mem::take(&mut self.rest);
        let finish_reason = rest.shift_remove("finish_reason").unwrap_or_default();
        let mut choice = Map::new();
        choice.insert("index".to_owned(), json!(index));
        match kind {
            Kind::Chat => _ = choice.insert("message".to_owned(), Value::Object(self.message())),
            Kind::Text => {
                let text = rest.shift_remove("text").filter(Value::is_string);
                choice.insert("text".to_owned(), text.unwrap_or_else(|| json!("")));
            }
        }
        choice.extend(rest);
        choice.insert("finish_reason".to_owned(), finish_reason);
        Value::Object(choice)
    }

    fn message(self) -> Map<String, Value> {
        let mut message = Map::new();
        let mut seen = self.message;
        let role = seen.shift_remove("role").filter(|role| !role.is_null());
        message.insert("role".to_owned(), role.unwrap_or_else(|| json!("assistant")));
        message.insert("content".to_owned(), seen.shift_remove("content").unwrap_or_default());
        message.extend(seen);
        if self.has_tool_calls {
            let calls = self.tool_calls.into_values().map(Value::Object).collect();
            message.insert("tool_calls".to_owned(), Value::Array(calls));
        }
        message
    }
}

/// Whether an event is what its data says and no more: clients are told its other fields too. Numbers that
/// count events are no text; longer ones could be anybody's.
fn says_nothing_else(event: &[u8]) -> bool {
    let is_count = |id: &[u8]| id.len() <= COUNT_DIGITS_MAX && id.iter().all(u8::is_ascii_digit);
    sse::values(event, b"event").all(|name| matches!(name, b"" | b"message"))
        && sse::values(event, b"id").all(is_count)
}

/// Adds a delta to what is there: text and lists grow, objects merge. `None` where one of two values would
/// be lost. Fields nobody knows grow too, so that no text a provider invents escapes a plugin's eyes.
fn merge(into: &mut Value, from: Value) -> Option<()> {
    match (into, from) {
        (Value::String(have), Value::String(more)) => have.push_str(&more),
        (Value::Array(have), Value::Array(more)) => have.extend(more),
        (Value::Object(have), Value::Object(more)) => return merge_objects(have, more),
        (have, value) => return agree(have, value),
    }
    Some(())
}

fn merge_objects(into: &mut Map<String, Value>, from: Map<String, Value>) -> Option<()> {
    from.into_iter().try_for_each(|(key, value)| merge(into.entry(key).or_insert(Value::Null), value))
}

/// Takes over what each chunk says anew, and whole. `None` if it says something else than before.
fn agree(have: &mut Value, value: Value) -> Option<()> {
    match (have, value) {
        (Value::Null, Value::Null) => {}
        (have @ Value::Null, value) => *have = value,
        (have, value) if *have == value || is_blank(&value) => {}
        (have, value) if is_blank(have) => *have = value,
        (Value::Object(have), Value::Object(more)) => {
            return more
                .into_iter()
                .try_for_each(|(key, value)| agree(have.entry(key).or_insert(Value::Null), value));
        }
        _ => return None,
    }
    Some(())
}

/// Whether nothing is lost with this value. Zeroes stand for what is not known yet.
fn is_blank(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(_) => false,
        Value::Number(number) => number.as_u64() == Some(0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(members) => members.is_empty(),
    }
}

/// Whether this is a time in seconds, and not the number of somebody's card.
fn is_time(value: &Value) -> bool {
    value.as_u64().is_some_and(|seconds| seconds <= u64::from(u32::MAX))
}
