//! Chat completions in their two forms: one object, or a stream of chunks.
//!
//! A plugin that judges an answer must see the same document whether the client streams or not, and
//! what it leaves behind must reach the client in the form the client asked for. [`assemble`] and
//! [`replay`] are inverse to each other on what `replay` writes; both are pure.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::{Map, Value, json};

use crate::sse;

/// More choices or tool calls than this are nobody's answer; such a stream is shown as text.
const ENTRIES_MAX: usize = 1024;

/// Whether a replayed stream ends with a chunk that carries the completion's `usage`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Usage {
    Send,
    Omit,
}

/// What a chat request says about the form of its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Whole,
    Stream(Usage),
}

impl Form {
    /// Reads `stream` and `stream_options.include_usage` of a request body.
    pub(crate) fn of_request(body: &[u8]) -> Self {
        let Ok(request) = serde_json::from_slice::<Value>(body) else { return Self::Whole };
        if request["stream"] != Value::Bool(true) {
            return Self::Whole;
        }
        match &request["stream_options"]["include_usage"] {
            Value::Bool(true) => Self::Stream(Usage::Send),
            _ => Self::Stream(Usage::Omit),
        }
    }
}

/// Whether a document is a chat completion.
pub(crate) fn is_completion(document: &[u8]) -> bool {
    // A first look spares most documents the parse.
    document.trim_ascii_start().starts_with(b"{")
        && serde_json::from_slice(document).is_ok_and(|value: Value| replay(&value, Usage::Omit).is_some())
}

/// The completion that a stream of `chat.completion.chunk` events adds up to, or `None` if anything
/// in the stream is something else: such a stream has to be shown as it is.
pub(crate) fn assemble(stream: &[u8]) -> Option<Value> {
    let mut assembly = Assembly::default();
    for event in sse::split_all(stream) {
        if let Some(data) = sse::data(&event) {
            assembly.push(&data)?;
        }
    }
    assembly.finish()
}

/// The events of a completion: per choice its role, its content and its end, then `[DONE]`. `None`
/// if this is not a chat completion.
pub(crate) fn replay(completion: &Value, usage: Usage) -> Option<Vec<Bytes>> {
    let completion = completion.as_object()?;
    let choices = completion.get("choices")?.as_array().filter(|choices| !choices.is_empty())?;
    let mut common = Map::new();
    for (key, value) in completion {
        match key.as_str() {
            "object" => _ = common.insert(key.clone(), json!("chat.completion.chunk")),
            "choices" | "usage" => {}
            _ => _ = common.insert(key.clone(), value.clone()),
        }
    }
    common.entry("object").or_insert_with(|| json!("chat.completion.chunk"));
    let chunk = |choices: Value| {
        let mut chunk = common.clone();
        chunk.insert("choices".to_owned(), choices);
        chunk
    };

    let mut events = Vec::new();
    for (position, choice) in choices.iter().enumerate() {
        for choice in chunk_choices(position, choice.as_object()?)? {
            events.push(sse::event(&Value::Object(chunk(json!([choice])))));
        }
    }
    if let (Usage::Send, Some(usage)) = (usage, completion.get("usage").filter(|usage| !usage.is_null())) {
        let mut last = chunk(json!([]));
        last.insert("usage".to_owned(), usage.clone());
        events.push(sse::event(&Value::Object(last)));
    }
    events.push(Bytes::from_static(sse::DONE));
    Some(events)
}

/// One choice of a completion as the choices of consecutive chunks.
fn chunk_choices(position: usize, choice: &Map<String, Value>) -> Option<Vec<Value>> {
    let index = choice.get("index").cloned().unwrap_or_else(|| json!(position));
    let message = choice.get("message")?.as_object()?;
    let mut first = Map::new();
    let mut deltas = Vec::new();
    first.insert("role".to_owned(), message.get("role").cloned().unwrap_or_else(|| json!("assistant")));
    for (key, value) in message {
        match (key.as_str(), value) {
            ("role", _) => {}
            // Absent fields are announced with the role, as OpenAI does.
            (_, Value::Null) => _ = first.insert(key.clone(), Value::Null),
            ("content", Value::String(content)) => {
                first.insert(key.clone(), json!(""));
                if !content.is_empty() {
                    deltas.push(single(key, value.clone()));
                }
            }
            ("tool_calls", Value::Array(calls)) => deltas.push(single(key, numbered(calls)?)),
            _ => deltas.push(single(key, value.clone())),
        }
    }
    let mut choices: Vec<Map<String, Value>> = std::iter::once(first)
        .chain(deltas)
        .map(|delta| {
            let mut choice = Map::new();
            choice.insert("index".to_owned(), index.clone());
            choice.insert("delta".to_owned(), Value::Object(delta));
            choice.insert("finish_reason".to_owned(), Value::Null);
            choice
        })
        .collect();
    let mut end = Map::new();
    end.insert("index".to_owned(), index);
    end.insert("delta".to_owned(), json!({}));
    end.insert("finish_reason".to_owned(), choice.get("finish_reason").cloned().unwrap_or(Value::Null));
    for (key, value) in choice {
        if !matches!(key.as_str(), "index" | "message" | "finish_reason") {
            // `logprobs` belong to the content; with none, and for the rest, the end will do.
            let carrier = match key.as_str() {
                "logprobs" => choices.iter_mut().find(|choice| has_text(choice)).unwrap_or(&mut end),
                _ => &mut end,
            };
            carrier.insert(key.clone(), value.clone());
        }
    }
    choices.push(end);
    Some(choices.into_iter().map(Value::Object).collect())
}

fn single(key: &str, value: Value) -> Map<String, Value> {
    Map::from_iter([(key.to_owned(), value)])
}

/// Tool calls as deltas name them: each with its place.
fn numbered(calls: &[Value]) -> Option<Value> {
    let numbered: Option<Vec<Value>> = calls
        .iter()
        .enumerate()
        .map(|(index, call)| {
            let mut numbered = Map::new();
            numbered.insert("index".to_owned(), json!(index));
            numbered.extend(call.as_object()?.clone());
            Some(Value::Object(numbered))
        })
        .collect();
    numbered.map(Value::Array)
}

fn has_text(choice: &Map<String, Value>) -> bool {
    choice["delta"]["content"].as_str().is_some_and(|content| !content.is_empty())
}

/// What has been seen of a stream.
#[derive(Default)]
struct Assembly {
    /// Everything but choices: `id`, `created`, `model`, `usage`, whatever a provider adds.
    head: Map<String, Value>,
    choices: BTreeMap<u64, Choice>,
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
    fn push(&mut self, data: &[u8]) -> Option<()> {
        // A client might read on after the end, so what follows it must be seen too.
        if self.done {
            return None;
        }
        if data.trim_ascii() == b"[DONE]" {
            self.done = true;
            return Some(());
        }
        let Ok(Value::Object(mut chunk)) = serde_json::from_slice(data) else { return None };
        // Azure opens with an event whose strings are all empty.
        let object = chunk.shift_remove("object").unwrap_or_default();
        if !object.is_null() && object != "chat.completion.chunk" && object != "" {
            return None;
        }
        let Some(Value::Array(choices)) = chunk.shift_remove("choices") else { return None };
        for choice in choices {
            self.push_choice(choice)?;
        }
        for (key, value) in chunk {
            let keep = match key.as_str() {
                "id" | "created" | "model" => self.head.get(&key).is_some_and(|have| !is_blank(have)),
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
        let Some(Value::Object(mut delta)) = choice.shift_remove("delta") else { return None };
        let target = self.choices.entry(index).or_default();
        match delta.shift_remove("tool_calls") {
            Some(Value::Array(calls)) => {
                target.has_tool_calls = true;
                for call in calls {
                    target.push_tool_call(call)?;
                }
            }
            Some(Value::Null) | None => {}
            Some(_) => return None,
        }
        if let Some(role) = delta.shift_remove("role")
            && target.message.get("role").is_none_or(Value::is_null)
        {
            target.message.insert("role".to_owned(), role);
        }
        merge_objects(&mut target.message, delta);
        if let Some(reason) = choice.shift_remove("finish_reason").filter(|reason| !reason.is_null()) {
            target.rest.insert("finish_reason".to_owned(), reason);
        }
        if let Some(logprobs) = choice.shift_remove("logprobs") {
            merge(target.rest.entry("logprobs").or_insert(Value::Null), logprobs);
        }
        for (key, value) in choice {
            if !value.is_null() || !target.rest.contains_key(&key) {
                target.rest.insert(key, value);
            }
        }
        (self.choices.len() <= ENTRIES_MAX).then_some(())
    }

    fn finish(self) -> Option<Value> {
        if self.choices.is_empty() {
            return None;
        }
        let mut completion = Map::new();
        let mut head = self.head;
        for key in ["id", "object", "created", "model"] {
            match key {
                "object" => _ = completion.insert(key.to_owned(), json!("chat.completion")),
                _ => completion.extend(head.shift_remove_entry(key)),
            }
        }
        let usage = head.shift_remove("usage").filter(|usage| !usage.is_null());
        completion.extend(head);
        let choices = self.choices.into_iter().map(|(index, choice)| choice.finish(index)).collect();
        completion.insert("choices".to_owned(), Value::Array(choices));
        completion.extend(usage.map(|usage| ("usage".to_owned(), usage)));
        Some(Value::Object(completion))
    }
}

impl Choice {
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

    fn finish(self, index: u64) -> Value {
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
        let mut rest = self.rest;
        let finish_reason = rest.shift_remove("finish_reason").unwrap_or_default();
        let mut choice = Map::new();
        choice.insert("index".to_owned(), json!(index));
        choice.insert("message".to_owned(), Value::Object(message));
        choice.extend(rest);
        choice.insert("finish_reason".to_owned(), finish_reason);
        Value::Object(choice)
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

#[cfg(test)]
mod tests;
