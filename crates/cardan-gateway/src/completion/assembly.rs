//! From the chunks of a stream to the completion they add up to.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{Kind, OTHER_EVENTS};
use crate::sse;

/// More choices or tool calls than this are nobody's answer; such a stream is shown as text.
pub(super) const ENTRIES_MAX: usize = 1024;
/// Pings of many hours.
const OTHERS_MAX: usize = 16_384;

/// The completion that the chunks of a stream add up to, its other events listed in [`OTHER_EVENTS`].
///
/// `None` if there are no choices in it, choices of two kinds, half a chunk, anything after `[DONE]`, or
/// bytes that are not UTF-8: such a stream has to be shown as it is.
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
            return Some(());
        }
        match serde_json::from_slice(&data) {
            Ok(Value::Object(chunk)) if is_chunk(&chunk) => self.push_chunk(chunk),
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
            let keep = match key.as_str() {
                "id" | "created" | "model" => self.head.get(&key).is_some_and(|have| !is_blank(have)),
                // Ours to write: an upstream's own is shown as one of its events.
                OTHER_EVENTS => {
                    self.others.push(json!({ "json": { OTHER_EVENTS: value } }));
                    continue;
                }
                _ => value.is_null() && self.head.contains_key(&key),
            };
            if !keep {
                self.head.insert(key, value);
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
        let target = self.choices.entry(index).or_default();
        target.push_delta(delta)?;
        if let Some(reason) = choice.shift_remove("finish_reason").filter(|reason| !reason.is_null()) {
            target.rest.insert("finish_reason".to_owned(), reason);
        }
        // Some providers of chat completions send the text beside the delta too.
        for key in ["logprobs", "text"] {
            if let Some(value) = choice.shift_remove(key) {
                merge(target.rest.entry(key).or_insert(Value::Null), value);
            }
        }
        for (key, value) in choice {
            if !value.is_null() || !target.rest.contains_key(&key) {
                target.rest.insert(key, value);
            }
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
        if let Some(role) = delta.shift_remove("role")
            && self.message.get("role").is_none_or(Value::is_null)
        {
            self.message.insert("role".to_owned(), role);
        }
        merge_objects(&mut self.message, delta);
        Some(())
    }

    fn push_tool_call(&mut self, call: Value) -> Option<()> {
        let Value::Object(mut call) = call else { return None };
        // Some providers leave the index out and send each call whole.
        let next = self.tool_calls.keys().next_back().map_or(0, |last| last + 1);
        let index = call.shift_remove("index").map_or(Some(next), |index| index.as_u64())?;
        let target = self.tool_calls.entry(index).or_default();
        for key in ["id", "type"] {
            if target.get(key).is_some_and(|have| !is_blank(have)) {
                call.shift_remove(key);
            }
        }
        merge_objects(target, call);
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

/// Adds a delta to what is there: text and lists grow, objects merge, anything else is replaced.
/// Fields nobody knows grow too, so that no text a provider invents escapes a plugin's eyes.
fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (_, Value::Null) => {}
        (Value::String(have), Value::String(more)) => have.push_str(&more),
        (Value::Array(have), Value::Array(more)) => have.extend(more),
        (Value::Object(have), Value::Object(more)) => merge_objects(have, more),
        (have, value) => *have = value,
    }
}

fn merge_objects(into: &mut Map<String, Value>, from: Map<String, Value>) {
    for (key, value) in from {
        merge(into.entry(key).or_insert(Value::Null), value);
    }
}

fn is_blank(value: &Value) -> bool {
    value.is_null() || value == "" || value == 0
}
