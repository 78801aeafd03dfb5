//! The built-in upstream: OpenAI's API without a model behind it.
//!
//! It says back what it was sent, so that a demo or a test sees what plugins made of a request, and
//! every answer is a function of the request and the configuration: no clock, no randomness, no
//! sockets.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::completion::{Form, Usage};
use crate::config::Builtin;
use crate::sse;

const CHOICES_MAX: u64 = 16;
/// A stream has an event for each word of each choice.
const WORDS_MAX: usize = 4096;
const DIMENSIONS_DEFAULT: u64 = 16;
const DIMENSIONS_MAX: u64 = 4096;
const INPUTS_MAX: usize = 2048;

/// An answer, whole or event by event with a pause before each.
#[derive(Debug)]
pub(crate) struct Reply {
    frames: VecDeque<Bytes>,
    pace: Duration,
    /// Runs while the next event waits for its time.
    pause: Option<Pin<Box<Sleep>>>,
}

/// Answers one request. `path` is percent-encoded and has no query.
pub(crate) fn answer(config: &Builtin, method: &Method, path: &str, body: &[u8]) -> Response<Reply> {
    let answered = match (method.as_str(), path) {
        ("POST", "/v1/chat/completions") => chat(config, body),
        ("POST", "/v1/completions") => text(config, body),
        ("POST", "/v1/embeddings") => embeddings(body),
        ("GET" | "HEAD", "/v1/models") => {
            Ok(Said::Document(models(config.models.iter().map(String::as_str), config.created)))
        }
        ("GET" | "HEAD", _) if path.starts_with("/v1/models/") => one_model(config, path),
        (_, "/v1/chat/completions" | "/v1/completions" | "/v1/embeddings" | "/v1/models") => Err(Refused {
            status: StatusCode::METHOD_NOT_ALLOWED,
            message: "use another method".into(),
            param: None,
        }),
        _ => Err(Refused {
            status: StatusCode::NOT_FOUND,
            message: format!("unknown request: {method} {path}"),
            param: None,
        }),
    };
    let (status, media_type, frames) = match answered {
        Ok(Said::Document(document)) => {
            (StatusCode::OK, "application/json", VecDeque::from([document.to_string().into()]))
        }
        Ok(Said::Events(events)) => (StatusCode::OK, sse::MEDIA_TYPE, events),
        Err(refused) => {
            let error = json!({ "error": {
                "message": refused.message,
                "type": "invalid_request_error",
                "param": refused.param,
                "code": match (refused.status, refused.param) {
                    (StatusCode::NOT_FOUND, Some("model")) => Some("model_not_found"),
                    (StatusCode::NOT_FOUND, _) => Some("not_found"),
                    _ => None,
                },
            }});
            (refused.status, "application/json", VecDeque::from([error.to_string().into()]))
        }
    };
    let pace = if media_type == sse::MEDIA_TYPE { config.pace } else { Duration::ZERO };
    let mut response = Response::new(Reply { frames, pace, pause: None });
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    response
}

/// The document of `GET /v1/models`.
pub(crate) fn models<'a>(names: impl IntoIterator<Item = &'a str>, created: u64) -> Value {
    let data: Vec<Value> = names.into_iter().map(|name| model(name, created)).collect();
    json!({ "object": "list", "data": data })
}

/// The document of `GET /v1/models/{name}`.
pub(crate) fn model(name: &str, created: u64) -> Value {
    json!({ "id": name, "object": "model", "created": created, "owned_by": "cardan" })
}

enum Said {
    Document(Value),
    Events(VecDeque<Bytes>),
}

struct Refused {
    status: StatusCode,
    message: String,
    param: Option<&'static str>,
}

impl Refused {
    fn bad(param: &'static str, message: &str) -> Self {
        Self { status: StatusCode::BAD_REQUEST, message: message.to_owned(), param: Some(param) }
    }
}

fn one_model(config: &Builtin, path: &str) -> Result<Said, Refused> {
    let name = path.trim_start_matches("/v1/models/");
    match config.models.iter().find(|model| *model == name) {
        Some(name) => Ok(Said::Document(model(name, config.created))),
        None => Err(Refused {
            status: StatusCode::NOT_FOUND,
            message: format!("the model `{name}` does not exist"),
            param: Some("model"),
        }),
    }
}

/// What chat and text completions have in common.
struct Completion {
    id: String,
    model: String,
    created: u64,
    words: Vec<String>,
    finish_reason: &'static str,
    usage: Value,
    choices: u64,
    form: Form,
}

impl Completion {
    fn read(
        config: &Builtin,
        body: &[u8],
        said: impl FnOnce(&Value) -> Result<String, Refused>,
    ) -> Result<Self, Refused> {
        let request = parse(body)?;
        let model =
            request["model"].as_str().ok_or_else(|| Refused::bad("model", "`model` must be a string"))?;
        let said = said(&request)?;
        let choices = match &request["n"] {
            Value::Null => 1,
            n => n
                .as_u64()
                .filter(|n| (1..=CHOICES_MAX).contains(n))
                .ok_or_else(|| Refused::bad("n", "`n` must be a number from 1 to 16"))?,
        };
        let mut words: Vec<String> =
            format!("You said: {said}").split_inclusive(' ').map(str::to_owned).collect();
        let max = request["max_completion_tokens"].as_u64().or(request["max_tokens"].as_u64());
        let max = max.and_then(|max| usize::try_from(max).ok()).map_or(WORDS_MAX, |max| max.min(WORDS_MAX));
        let finish_reason = if words.len() > max { "length" } else { "stop" };
        words.truncate(max);
        let prompt_tokens = said.split_whitespace().count();
        let completion_tokens = words.len() * usize::try_from(choices).unwrap_or(1);
        Ok(Self {
            id: hex(&Sha256::digest(body))[..24].to_owned(),
            model: model.to_owned(),
            created: config.created,
            words,
            finish_reason,
            usage: json!({
                "prompt_tokens": prompt_tokens,
                "completion_tokens": completion_tokens,
                "total_tokens": prompt_tokens + completion_tokens,
            }),
            choices,
            form: Form::of_request(body),
        })
    }

    fn document(&self, object: &str, prefix: &str, choice: impl Fn(u64, &str) -> Value) -> Said {
        let content = self.words.concat();
        let choices: Vec<Value> = (0..self.choices).map(|index| choice(index, &content)).collect();
        Said::Document(json!({
            "id": format!("{prefix}-{}", self.id),
            "object": object,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": FINGERPRINT,
            "choices": choices,
            "usage": self.usage,
        }))
    }

    fn events(&self, object: &str, prefix: &str, choices: impl Iterator<Item = Value>) -> Said {
        let with_usage = self.form == Form::Stream(Usage::Send);
        let chunk = |choices: Value, usage: Option<&Value>| {
            let mut chunk = json!({
                "id": format!("{prefix}-{}", self.id),
                "object": object,
                "created": self.created,
                "model": self.model,
                "system_fingerprint": FINGERPRINT,
                "choices": choices,
            });
            if let Some(usage) = usage {
                chunk["usage"] = usage.clone();
            }
            sse::event(&chunk)
        };
        let empty = with_usage.then_some(&Value::Null);
        let mut events: VecDeque<Bytes> = choices.map(|choice| chunk(json!([choice]), empty)).collect();
        if with_usage {
            events.push_back(chunk(json!([]), Some(&self.usage)));
        }
        events.push_back(Bytes::from_static(sse::DONE));
        Said::Events(events)
    }
}

const FINGERPRINT: &str = "fp_cardan_builtin";

fn chat(config: &Builtin, body: &[u8]) -> Result<Said, Refused> {
    let completion = Completion::read(config, body, |request| {
        let messages = request["messages"].as_array().filter(|messages| !messages.is_empty());
        let messages = messages
            .ok_or_else(|| Refused::bad("messages", "`messages` must be a list of at least one message"))?;
        let last = messages.iter().rev().find(|message| message["role"] == "user");
        Ok(last.map_or_else(String::new, |message| words_of(&message["content"])))
    })?;
    if completion.form == Form::Whole {
        return Ok(completion.document("chat.completion", "chatcmpl", |index, content| {
            json!({
                "index": index,
                "message": { "role": "assistant", "content": content, "refusal": null },
                "logprobs": null,
                "finish_reason": completion.finish_reason,
            })
        }));
    }
    let choices = (0..completion.choices).flat_map(|index| {
        let choice = move |delta: Value, finish_reason: Option<&str>| {
            json!({ "index": index, "delta": delta, "logprobs": null, "finish_reason": finish_reason })
        };
        let words = completion.words.iter().map(move |word| choice(json!({ "content": word }), None));
        std::iter::once(choice(json!({ "role": "assistant", "content": "", "refusal": null }), None))
            .chain(words)
            .chain([choice(json!({}), Some(completion.finish_reason))])
    });
    Ok(completion.events("chat.completion.chunk", "chatcmpl", choices))
}

fn text(config: &Builtin, body: &[u8]) -> Result<Said, Refused> {
    let completion = Completion::read(config, body, |request| match &request["prompt"] {
        Value::String(prompt) => Ok(prompt.clone()),
        Value::Array(prompts) if prompts.iter().all(Value::is_string) && !prompts.is_empty() => {
            Ok(words_of(&request["prompt"]))
        }
        _ => Err(Refused::bad("prompt", "`prompt` must be a string or a list of strings")),
    })?;
    let choice = |index: u64, text: &str, finish_reason: Option<&str>| json!({ "index": index, "text": text, "logprobs": null, "finish_reason": finish_reason });
    if completion.form == Form::Whole {
        return Ok(completion.document("text_completion", "cmpl", |index, content| {
            choice(index, content, Some(completion.finish_reason))
        }));
    }
    let choices = (0..completion.choices).flat_map(|index| {
        let words = completion.words.iter().map(move |word| choice(index, word, None));
        words.chain([choice(index, "", Some(completion.finish_reason))])
    });
    Ok(completion.events("text_completion", "cmpl", choices))
}

fn embeddings(body: &[u8]) -> Result<Said, Refused> {
    let request = parse(body)?;
    let model = request["model"].as_str().ok_or_else(|| Refused::bad("model", "`model` must be a string"))?;
    let inputs: Vec<String> = match &request["input"] {
        Value::String(input) => vec![input.clone()],
        Value::Array(inputs) if (1..=INPUTS_MAX).contains(&inputs.len()) => inputs
            .iter()
            .map(|input| input.as_str().map_or_else(|| input.to_string(), str::to_owned))
            .collect(),
        _ => return Err(Refused::bad("input", "`input` must be a string or a list of at most 2048")),
    };
    let dimensions = match &request["dimensions"] {
        Value::Null => DIMENSIONS_DEFAULT,
        dimensions => dimensions
            .as_u64()
            .filter(|count| (1..=DIMENSIONS_MAX).contains(count))
            .ok_or_else(|| Refused::bad("dimensions", "`dimensions` must be a number from 1 to 4096"))?,
    };
    let data = inputs.iter().enumerate().map(|(index, input)| {
        let vector = embed(input, dimensions);
        let embedding = match request["encoding_format"].as_str() {
            Some("base64") => {
                json!(BASE64.encode(vector.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>()))
            }
            _ => json!(vector),
        };
        json!({ "object": "embedding", "index": index, "embedding": embedding })
    });
    let tokens: usize = inputs.iter().map(|input| input.split_whitespace().count()).sum();
    Ok(Said::Document(json!({
        "object": "list",
        "data": data.collect::<Vec<Value>>(),
        "model": model,
        "usage": { "prompt_tokens": tokens, "total_tokens": tokens },
    })))
}

/// A unit vector that depends on the text alone.
fn embed(text: &str, dimensions: u64) -> Vec<f32> {
    let mut vector = Vec::new();
    for block in 0..dimensions.div_ceil(16) {
        let digest = Sha256::new().chain_update(block.to_le_bytes()).chain_update(text).finalize();
        let pairs = digest.chunks_exact(2).map(|pair| i16::from_le_bytes([pair[0], pair[1]]));
        vector.extend(pairs.map(|value| f32::from(value) / 32768.0));
    }
    vector.truncate(usize::try_from(dimensions).unwrap_or(usize::MAX));
    let length = vector.iter().map(|value| value * value).sum::<f32>().sqrt();
    if length > 0.0 {
        vector.iter_mut().for_each(|value| *value /= length);
    }
    vector
}

fn parse(body: &[u8]) -> Result<Value, Refused> {
    match serde_json::from_slice::<Value>(body) {
        Ok(request) if request.is_object() => Ok(request),
        _ => Err(Refused {
            status: StatusCode::BAD_REQUEST,
            message: "the request body must be a JSON object".into(),
            param: None,
        }),
    }
}

/// The text of a message's content, which is a string or a list of strings and parts.
fn words_of(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(parts) => {
            let texts = parts.iter().filter_map(|part| part.as_str().or(part["text"].as_str()));
            texts.collect::<Vec<&str>>().join(" ")
        }
        _ => String::new(),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Reply {
    /// What is still to be sent.
    pub(crate) fn bytes(&self) -> usize {
        self.frames.iter().map(Bytes::len).sum()
    }
}

#[cfg(test)]
impl Reply {
    /// A body of these frames.
    pub(crate) fn of(frames: Vec<Bytes>) -> Self {
        Self { frames: frames.into(), pace: Duration::ZERO, pause: None }
    }
}

impl Body for Reply {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if !self.pace.is_zero() && !self.frames.is_empty() {
            let deadline = Instant::now() + self.pace;
            let pause = self.pause.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
            ready!(pause.as_mut().poll(cx));
            self.pause = None;
        }
        Poll::Ready(self.frames.pop_front().map(|frame| Ok(Frame::data(frame))))
    }

    fn is_end_stream(&self) -> bool {
        self.frames.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        // A stream has no announced length, here as at its real providers.
        match self.pace.is_zero() {
            true => SizeHint::with_exact(self.bytes() as u64),
            false => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::completion;

    fn ask(method: Method, path: &str, body: &str) -> (StatusCode, String) {
        let response = answer(&Builtin::default(), &method, path, body.as_bytes());
        let status = response.status();
        (
            status,
            String::from_utf8(response.into_body().frames.into_iter().collect::<Vec<_>>().concat()).unwrap(),
        )
    }

    #[track_caller]
    fn check(path: &str, request: Value, expected: Value) {
        let (status, body) = ask(Method::POST, path, &request.to_string());
        assert_eq!((status, serde_json::from_str::<Value>(&body).unwrap()), (StatusCode::OK, expected));
    }

    #[track_caller]
    fn check_refused(method: Method, path: &str, body: &str, status: u16, message: &str) {
        let (got, body) = ask(method, path, body);
        let error = serde_json::from_str::<Value>(&body).unwrap();
        assert_eq!((got.as_u16(), error["error"]["message"].as_str().unwrap()), (status, message));
    }

    const CHAT: &str = "/v1/chat/completions";

    #[test]
    fn it_says_what_it_was_told() {
        let request = json!({ "model": "m", "messages": [
            { "role": "user", "content": "no" },
            { "role": "user", "content": [{ "type": "text", "text": "hello" }, { "type": "text", "text": "there" }] },
            { "role": "assistant", "content": "x" },
        ]});
        check(
            CHAT,
            request,
            json!({
                "id": "chatcmpl-0a88ec31341a429ec064e554", "object": "chat.completion", "created": 1_750_000_000,
                "model": "m", "system_fingerprint": "fp_cardan_builtin",
                "choices": [{
                    "index": 0, "message": { "role": "assistant", "content": "You said: hello there", "refusal": null },
                    "logprobs": null, "finish_reason": "stop",
                }],
                "usage": { "prompt_tokens": 2, "completion_tokens": 4, "total_tokens": 6 },
            }),
        );
        check(
            "/v1/completions",
            json!({ "model": "m", "prompt": "a b c", "max_tokens": 3, "n": 2 }),
            json!({
                "id": "cmpl-c4f8b9a39c0404f381537433", "object": "text_completion", "created": 1_750_000_000,
                "model": "m", "system_fingerprint": "fp_cardan_builtin",
                "choices": [
                    { "index": 0, "text": "You said: a ", "logprobs": null, "finish_reason": "length" },
                    { "index": 1, "text": "You said: a ", "logprobs": null, "finish_reason": "length" },
                ],
                "usage": { "prompt_tokens": 3, "completion_tokens": 6, "total_tokens": 9 },
            }),
        );
    }

    #[test]
    fn a_stream_adds_up_to_the_whole_answer() {
        for usage in [false, true] {
            let mut request =
                json!({ "model": "m", "n": 2, "messages": [{ "role": "user", "content": "a b" }] });
            request["stream"] = json!(true);
            request["stream_options"] = json!({ "include_usage": usage });
            let (_, stream) = ask(Method::POST, CHAT, &request.to_string());
            assert!(stream.ends_with("data: [DONE]\n\n"), "{stream}");
            assert_eq!(sse::split_all(stream.as_bytes()).len(), 2 * (2 + 4) + 1 + usize::from(usage));
            let assembled = completion::assemble(stream.as_bytes()).unwrap();
            request["stream"] = json!(false);
            let (_, whole) = ask(Method::POST, CHAT, &request.to_string());
            let whole = serde_json::from_str::<Value>(&whole).unwrap();
            assert_eq!(assembled["choices"], whole["choices"]);
            assert_eq!(assembled.get("usage"), usage.then_some(&whole["usage"]));
        }
        let mut request = json!({ "model": "m", "n": 2, "prompt": "a b", "stream": true });
        let (_, stream) = ask(Method::POST, "/v1/completions", &request.to_string());
        let assembled = completion::assemble(stream.as_bytes()).unwrap();
        request["stream"] = json!(false);
        let (_, whole) = ask(Method::POST, "/v1/completions", &request.to_string());
        assert_eq!(assembled["choices"], serde_json::from_str::<Value>(&whole).unwrap()["choices"]);
    }

    #[test]
    fn embeddings_are_unit_vectors_of_the_text() {
        let vector = embed("hello", 40);
        assert_eq!(vector.len(), 40);
        assert_eq!(vector, embed("hello", 40));
        assert_ne!(vector, embed("hallo", 40));
        let length: f32 = vector.iter().map(|value| value * value).sum();
        assert!((length - 1.0).abs() < 1e-5);

        let request =
            json!({ "model": "m", "input": ["hello", "x"], "dimensions": 3, "encoding_format": "base64" });
        let (_, body) = ask(Method::POST, "/v1/embeddings", &request.to_string());
        let body = serde_json::from_str::<Value>(&body).unwrap();
        let bytes = BASE64.decode(body["data"][0]["embedding"].as_str().unwrap()).unwrap();
        let values: Vec<f32> =
            bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
        assert_eq!(values, embed("hello", 3));
        assert_eq!(body["data"][1]["index"], 1);
    }

    #[test]
    fn models_are_listed() {
        let (status, body) = ask(Method::GET, "/v1/models", "");
        let expected = r#"{"object":"list","data":[{"id":"cardan-echo","object":"model","created":1750000000,"owned_by":"cardan"}]}"#;
        assert_eq!((status, body.as_str()), (StatusCode::OK, expected));
        assert_eq!(ask(Method::GET, "/v1/models/cardan-echo", "").0, StatusCode::OK);
    }

    #[test]
    fn the_rest_is_refused_in_openais_shape() {
        check_refused(Method::POST, CHAT, "{", 400, "the request body must be a JSON object");
        check_refused(Method::POST, CHAT, "{}", 400, "`model` must be a string");
        check_refused(
            Method::POST,
            CHAT,
            r#"{"model":"m","messages":[]}"#,
            400,
            "`messages` must be a list of at least one message",
        );
        check_refused(
            Method::POST,
            CHAT,
            r#"{"model":"m","messages":[{}],"n":0}"#,
            400,
            "`n` must be a number from 1 to 16",
        );
        check_refused(
            Method::POST,
            "/v1/completions",
            r#"{"model":"m"}"#,
            400,
            "`prompt` must be a string or a list of strings",
        );
        check_refused(
            Method::POST,
            "/v1/embeddings",
            r#"{"model":"m","input":[]}"#,
            400,
            "`input` must be a string or a list of at most 2048",
        );
        check_refused(Method::GET, CHAT, "", 405, "use another method");
        check_refused(Method::GET, "/v1/models/x", "", 404, "the model `x` does not exist");
        check_refused(Method::GET, "/", "", 404, "unknown request: GET /");
        let (_, body) = ask(Method::GET, "/v1/models/x", "");
        let expected = r#"{"error":{"message":"the model `x` does not exist","type":"invalid_request_error","param":"model","code":"model_not_found"}}"#;
        assert_eq!(body, expected);
    }
}
