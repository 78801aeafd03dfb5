//! JSON that everybody reads alike.
//!
//! Parsers disagree about a byte order mark, bytes that are no UTF-8, what follows the document, numbers
//! that are none, and above all about an object that has one name twice: most keep the last member, some
//! the first. A guard that is shown one `messages` while the upstream obeys another guards nothing. So a
//! body that a plugin is to be shown as JSON has to be one document as RFC 8259 has it, with I-JSON's rule
//! that names are unique (RFC 7493), and is refused before anybody is asked otherwise.
//!
//! What stays open: names that differ in letter case are different names here, and some parsers (Go's)
//! match them all the same.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use cardan_api::http::RequestEvent;
use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// What paths of LLM APIs end with whose `POST` takes a JSON document, whatever its media type says:
/// servers of such APIs seldom look at that.
const ENDPOINTS: [&str; 13] = [
    "/chat/completions",
    "/completions",
    "/embeddings",
    "/responses",
    "/messages",
    "/messages/count_tokens",
    "/moderations",
    "/rerank",
    "/images/generations",
    "/audio/speech",
    // Ollama's own.
    "/api/chat",
    "/api/generate",
    "/api/embed",
];

/// Most characters of a name that are told back to the client.
const NAME_CHARS_MAX: usize = 64;

/// What is wrong with a document, and where; for the client who sent it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NotIJson(String);

impl fmt::Display for NotIJson {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether the body of this request is meant to be JSON when it is sent to `path`.
pub(crate) fn is_meant(request: &RequestEvent, path: &str) -> bool {
    let path = path.trim_end_matches('/').to_ascii_lowercase();
    let endpoint = request.method == "POST" && ENDPOINTS.iter().any(|end| path.ends_with(end));
    endpoint || content_types(request).any(is_json)
}

/// Refuses the body of a request that is meant to be JSON, if two programs could read it in two ways.
pub(crate) fn check(request: &RequestEvent, body: &[u8]) -> Result<(), NotIJson> {
    // Clients of some libraries name a media type also where they send nothing.
    if body.is_empty() && !matches!(request.method.as_str(), "POST" | "PUT" | "PATCH") {
        return Ok(());
    }
    check_document(body)
}

fn content_types(request: &RequestEvent) -> impl Iterator<Item = &str> {
    let fields = request.headers.0.iter().filter(|(name, _)| name.eq_ignore_ascii_case("content-type"));
    fields.flat_map(|(_, value)| value.split(','))
}

fn is_json(content_type: &str) -> bool {
    let media_type = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    matches!(media_type.as_str(), "application/json" | "text/json") || media_type.ends_with("+json")
}

/// Whether these bytes are one I-JSON document, no deeper than serde_json goes.
fn check_document(bytes: &[u8]) -> Result<(), NotIJson> {
    if bytes.starts_with(b"\xef\xbb\xbf") {
        return Err(NotIJson("a byte order mark at line 1 column 1".to_owned()));
    }
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let (line, column) = place(bytes.get(..error.valid_up_to()).unwrap_or_default());
        NotIJson(format!("bytes that are not UTF-8 at line {line} column {column}"))
    })?;
    let mut document = serde_json::Deserializer::from_str(text);
    let checked = Checked::deserialize(&mut document).and_then(|Checked| document.end());
    checked.map_err(|error| NotIJson(error.to_string()))
}

/// Line and column, both from 1, of what follows these bytes.
fn place(before: &[u8]) -> (usize, usize) {
    let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
    let column = 1 + before.iter().rev().take_while(|byte| **byte != b'\n').count();
    (line, column)
}

/// A value that was looked through and not kept.
struct Checked;

impl<'de> Deserialize<'de> for Checked {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Check)
    }
}

#[derive(Deserialize, PartialEq, Eq, Hash)]
#[serde(transparent)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

struct Check;

impl<'de> Visitor<'de> for Check {
    type Value = Checked;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E: Error>(self) -> Result<Checked, E> {
        Ok(Checked)
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Checked, E> {
        Ok(Checked)
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Checked, E> {
        Ok(Checked)
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<Checked, E> {
        Ok(Checked)
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Checked, E> {
        Ok(Checked)
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<Checked, E> {
        Ok(Checked)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Checked, A::Error> {
        while items.next_element::<Checked>()?.is_some() {}
        Ok(Checked)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Checked, A::Error> {
        let mut names = HashSet::new();
        // Names are compared as they read, not as they are written: `a` and `\u0061` are one.
        while let Some(name) = members.next_key::<Name<'de>>()? {
            if let Some(Name(name)) = names.replace(name) {
                let name: String = name.chars().take(NAME_CHARS_MAX).collect();
                return Err(A::Error::custom(format_args!("the name {name:?} a second time in one object")));
            }
            members.next_value::<Checked>()?;
        }
        Ok(Checked)
    }
}

#[cfg(test)]
mod tests {
    use cardan_api::http::Headers;
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    #[track_caller]
    fn check(document: impl AsRef<[u8]>, expected: Result<(), &str>) {
        let document = document.as_ref();
        let got = check_document(document).map_err(|error| error.to_string());
        assert_eq!(got, expected.map_err(str::to_owned), "{}", String::from_utf8_lossy(document));
    }

    #[test]
    fn one_document_with_unique_names() {
        for fine in [
            "{}",
            " [1, -0.5e3, null, true] \n",
            r#""\ud83d\ude00""#,
            r#"{"a":{"a":1},"b":[{"a":1},{"a":2}]}"#,
        ] {
            check(fine, Ok(()));
        }
        check("", Err("EOF while parsing a value at line 1 column 0"));
        check("\u{feff}{}", Err("a byte order mark at line 1 column 1"));
        check(b"\xff\xfe{\0}\0", Err("bytes that are not UTF-8 at line 1 column 1"));
        check(b"{\0}\0", Err("key must be a string at line 1 column 2"));
        check(b"{\n \"a\": \"\xc3\"}", Err("bytes that are not UTF-8 at line 2 column 8"));
        check("{} {}", Err("trailing characters at line 1 column 4"));
        check("{}\0", Err("trailing characters at line 1 column 3"));
        check("[NaN]", Err("expected value at line 1 column 2"));
        check("[1e999]", Err("number out of range at line 1 column 6"));
        check("[1,]", Err("trailing comma at line 1 column 4"));
        check("{'a':1}", Err("key must be a string at line 1 column 2"));
        check(r#""\ud800""#, Err("unexpected end of hex escape at line 1 column 8"));
        check(r#"{"a":1,"a":1}"#, Err("the name \"a\" a second time in one object at line 1 column 10"));
        check(
            r#"[{"m":{"x":1,"\u0078":2}}]"#,
            Err("the name \"x\" a second time in one object at line 1 column 21"),
        );
        check("[".repeat(200), Err("recursion limit exceeded at line 1 column 128"));
        let long = "n".repeat(500);
        let error = check_document(format!(r#"{{"{long}":1,"{long}":1}}"#).as_bytes()).unwrap_err();
        assert!(error.0.len() < 200, "{error}");
    }

    fn request(method: &str, path: &str, content_type: &str) -> RequestEvent {
        RequestEvent {
            method: method.to_owned(),
            host: String::new(),
            path: path.to_owned(),
            query: None,
            client: String::new(),
            headers: Headers(vec![("content-type".to_owned(), content_type.to_owned())]),
            body: None,
        }
    }

    #[test]
    fn what_is_meant_to_be_json() {
        for (method, path, content_type, expected) in [
            ("POST", "/v1/chat/completions", "", true),
            ("POST", "/openai/deployments/d/Chat/Completions/", "text/plain", true),
            ("POST", "/v1/messages", "", true),
            ("GET", "/v1/messages", "", false),
            ("POST", "/v1/files", "multipart/form-data", false),
            ("POST", "/x", "text/plain", false),
            ("POST", "/x", "Application/JSON ; charset=utf-8", true),
            ("PUT", "/x", "application/merge-patch+json", true),
            ("PUT", "/x", "text/plain, application/json", true),
            ("PUT", "/x", "application/jsonl", false),
        ] {
            assert_eq!(is_meant(&request(method, "/", content_type), path), expected, "{method} {path}");
        }
    }

    #[test]
    fn empty_bodies() {
        for (method, body, expected) in
            [("POST", "", false), ("POST", "{}", true), ("DELETE", "", true), ("DELETE", "{", false)]
        {
            let checked = super::check(&request(method, "/", "application/json"), body.as_bytes());
            assert_eq!(checked.is_ok(), expected, "{method} {body}");
        }
    }

    fn documents() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            ".{0,6}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 40, 5, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                proptest::collection::vec((".{0,3}", inner), 0..5)
                    .prop_map(|members| members.into_iter().collect::<Value>()),
            ]
        })
    }

    /// The document with one member of the `nth` object that has any written twice.
    fn repeated(value: &Value, nth: &mut usize) -> String {
        match value {
            Value::Array(items) => {
                let items: Vec<String> = items.iter().map(|item| repeated(item, nth)).collect();
                format!("[{}]", items.join(","))
            }
            Value::Object(members) => {
                let here = !members.is_empty() && *nth == 0;
                *nth = nth.wrapping_sub(usize::from(!members.is_empty()));
                let mut written: Vec<String> = members
                    .iter()
                    .map(|(name, value)| format!("{}:{}", Value::from(name.as_str()), repeated(value, nth)))
                    .collect();
                if here && let Some(name) = members.keys().next() {
                    let escaped: String = name.encode_utf16().map(|unit| format!("\\u{unit:04x}")).collect();
                    written.push(format!("\"{escaped}\":0"));
                }
                format!("{{{}}}", written.join(","))
            }
            leaf => leaf.to_string(),
        }
    }

    fn objects(value: &Value) -> usize {
        match value {
            Value::Array(items) => items.iter().map(objects).sum(),
            Value::Object(members) => {
                usize::from(!members.is_empty()) + members.values().map(objects).sum::<usize>()
            }
            _ => 0,
        }
    }

    proptest! {
        #[test]
        fn documents_without_repeated_names_pass(document in documents()) {
            prop_assert_eq!(check_document(document.to_string().as_bytes()), Ok(()));
        }

        #[test]
        fn a_repeated_name_is_found_wherever_it_is(document in documents(), at in any::<usize>()) {
            let objects = objects(&document);
            prop_assume!(objects > 0);
            let text = repeated(&document, &mut (at % objects));
            prop_assert!(serde_json::from_str::<Value>(&text).is_ok(), "{}", text);
            let error = check_document(text.as_bytes()).unwrap_err();
            prop_assert!(error.0.contains("a second time"), "{}: {}", text, error);
        }

        #[test]
        fn what_passes_is_json(bytes in prop_oneof![
            "[\\[\\]{}:,\"a01e.\\\\u -]{0,24}".prop_map(String::into_bytes),
            proptest::collection::vec(any::<u8>(), 0..24),
        ]) {
            let read = serde_json::from_slice::<Value>(&bytes);
            match check_document(&bytes) {
                Ok(()) => prop_assert!(read.is_ok()),
                // Nothing else is JSON to others and refused here.
                Err(error) => prop_assert!(read.is_err() || error.0.contains("a second time")),
            }
        }
    }
}
