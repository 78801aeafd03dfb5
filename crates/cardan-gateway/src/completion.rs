//! Completions in their two forms: one object, or a stream of chunks.
//!
//! A plugin that judges an answer must see the same document whether the client streams or not, and
//! what it leaves behind must reach the client in the form the client asked for. [`assemble`] and
//! [`replay`] are inverse to each other on what `replay` writes; both are pure.
//!
//! Chat and text completions are read by their shape, as clients read them: what matters is whether choices
//! have a `delta` or a `text`, not what `object` says. Streams hold other events too: pings, errors, what
//! a provider adds. They are shown in the member [`OTHER_EVENTS`] of the completion, so that no text gets
//! past a plugin's eyes, and a completion that is streamed anew has them after its choices and before its
//! usage: nothing is lost but their place, comments, and the `retry` fields of events. A plugin that leaves the
//! member out has taken them out. A stream with anything else that a completion cannot hold is not assembled.

mod assembly;

use bytes::Bytes;
use serde_json::{Map, Value, json};

use crate::sse;

pub(crate) use self::assembly::assemble;

/// The member of an assembled completion that lists the events of its stream that are no chunks. Each has
/// `event` if it was named, and `json` or `text`.
const OTHER_EVENTS: &str = "cardan_events";

/// What OpenAI fills chunks up with, so that their lengths do not tell what is in them. It is shown, joined,
/// since clients are sent it, and left out of a completion that is streamed anew.
const PADDING: &str = "obfuscation";

/// The two APIs that answer with completions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Chat,
    Text,
}

impl Kind {
    /// What `object` says of a whole completion.
    fn whole(self) -> &'static str {
        match self {
            Self::Chat => "chat.completion",
            Self::Text => "text_completion",
        }
    }

    /// What `object` says of a chunk.
    fn streamed(self) -> &'static str {
        match self {
            Self::Chat => "chat.completion.chunk",
            Self::Text => "text_completion",
        }
    }

    /// What these choices of a whole completion are, if they are all of one kind.
    fn of_choices(choices: &[Value]) -> Option<Self> {
        let all =
            |key: &str, is: fn(&Value) -> bool| choices.iter().all(|choice| choice.get(key).is_some_and(is));
        match choices {
            [] => None,
            _ if all("message", Value::is_object) => Some(Self::Chat),
            _ if all("text", Value::is_string) => Some(Self::Text),
            _ => None,
        }
    }
}

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

/// Whether a document is a completion.
pub(crate) fn is_completion(document: &[u8]) -> bool {
    // A first look spares most documents the parse.
    document.trim_ascii_start().starts_with(b"{")
        && serde_json::from_slice(document).is_ok_and(|value: Value| replay(&value, Usage::Omit).is_some())
}

/// The events of a completion: per choice its role, its content and its end, then `[DONE]`. `None`
/// if this is not a completion.
pub(crate) fn replay(completion: &Value, usage: Usage) -> Option<Vec<Bytes>> {
    let completion = completion.as_object()?;
    let choices = completion.get("choices")?.as_array()?;
    let kind = Kind::of_choices(choices)?;
    let mut common = Map::new();
    for (key, value) in completion {
        match key.as_str() {
            "object" => _ = common.insert(key.clone(), json!(kind.streamed())),
            "choices" | "usage" | OTHER_EVENTS | PADDING => {}
            _ => _ = common.insert(key.clone(), value.clone()),
        }
    }
    common.entry("object").or_insert_with(|| json!(kind.streamed()));
    let chunk = |choices: Value| {
        let mut chunk = common.clone();
        chunk.insert("choices".to_owned(), choices);
        chunk
    };

    let mut events = Vec::new();
    for (position, choice) in choices.iter().enumerate() {
        let choices = match kind {
            Kind::Chat => chat_choices(position, choice.as_object()?)?,
            Kind::Text => text_choices(position, choice.as_object()?)?,
        };
        for choice in choices {
            events.push(sse::event(&Value::Object(chunk(json!([choice])))));
        }
    }
    if let Some(others) = completion.get(OTHER_EVENTS) {
        events.extend(other_events(others)?);
    }
    if let (Usage::Send, Some(usage)) = (usage, completion.get("usage").filter(|usage| !usage.is_null())) {
        let mut last = chunk(json!([]));
        last.insert("usage".to_owned(), usage.clone());
        events.push(sse::event(&Value::Object(last)));
    }
    events.push(Bytes::from_static(sse::DONE));
    Some(events)
}

/// What [`OTHER_EVENTS`] lists, as events again. `None` if a plugin has made something else of it.
fn other_events(others: &Value) -> Option<Vec<Bytes>> {
    let other = |other: &Value| {
        let name = other.get("event").map(Value::as_str);
        let name = match name {
            None => None,
            Some(Some(name)) if !name.contains(['\n', '\r', '\0']) => Some(name),
            Some(_) => return None,
        };
        match (other.get("json"), other.get("text").map(Value::as_str)) {
            (Some(json), None) => Some(sse::named_event(name, &json.to_string())),
            (None, Some(Some(text))) => Some(sse::named_event(name, text)),
            _ => None,
        }
    };
    others.as_array()?.iter().map(other).collect()
}

/// One choice of a text completion as the choices of consecutive chunks.
fn text_choices(position: usize, choice: &Map<String, Value>) -> Option<Vec<Value>> {
    let index = choice.get("index").cloned().unwrap_or_else(|| json!(position));
    let text = choice.get("text")?.as_str()?;
    let piece = |text: &str| {
        let mut piece = Map::new();
        piece.insert("index".to_owned(), index.clone());
        piece.insert("text".to_owned(), json!(text));
        piece.insert("finish_reason".to_owned(), Value::Null);
        piece
    };
    let mut pieces = vec![piece(text)];
    if !text.is_empty() {
        pieces.push(piece(""));
    }
    for (key, value) in choice {
        let carrier = match key.as_str() {
            "index" | "text" => continue,
            // They belong to the text.
            "logprobs" => pieces.first_mut()?,
            _ => pieces.last_mut()?,
        };
        carrier.insert(key.clone(), value.clone());
    }
    Some(pieces.into_iter().map(Value::Object).collect())
}

/// One choice of a chat completion as the choices of consecutive chunks.
fn chat_choices(position: usize, choice: &Map<String, Value>) -> Option<Vec<Value>> {
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

#[cfg(test)]
mod tests;
