//! A configuration for those who may not see its secrets.

use serde_json::Value;

/// What stands for what is not shown.
const HIDDEN: &str = "(hidden)";

/// Keys whose text says nothing secret, wherever they are. Text under any other key is hidden, so that a key
/// that comes later is not shown by mistake. Numbers, switches and names of keys are shown.
const SHOWN: [&str; 33] = [
    "name",
    "listen",
    "path",
    "exact",
    "hosts",
    "methods",
    "upstream",
    "rewrite",
    "models",
    "hook",
    "phase",
    "priority",
    "on_fault",
    "body",
    "dialect",
    "instance",
    "source",
    "sha256",
    "version",
    "role",
    "manifests",
    "folder",
    "dir",
    "session_header",
    "forwarded",
    "ambiguous_paths",
    "ambiguous_bodies",
    "entry",
    "paths",
    "memory",
    "deadline",
    "service_name",
    "backoff",
];
/// Keys under which nothing at all is shown but what there is.
const SECRET: [&str; 6] = ["config", "headers", "secrets", "env", "sql", "token"];

/// The same document, without the text that may be secret.
pub(crate) fn redacted(document: Value) -> Value {
    below(document, Shown::No)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Shown {
    Yes,
    No,
    Never,
}

fn below(value: Value, shown: Shown) -> Value {
    match value {
        Value::Object(members) => {
            let members = members.into_iter().map(|(key, value)| {
                let key_is = |keys: &[&str]| keys.contains(&key.as_str());
                let inner = match shown {
                    Shown::Never => Shown::Never,
                    _ if key_is(&SECRET) => Shown::Never,
                    _ if key_is(&SHOWN) => Shown::Yes,
                    _ => Shown::No,
                };
                (key, below(value, inner))
            });
            Value::Object(members.collect())
        }
        Value::Array(items) => items.into_iter().map(|item| below(item, shown)).collect(),
        Value::String(text) if shown != Shown::Yes => {
            Value::String(if text.is_empty() { text } else { HIDDEN.to_owned() })
        }
        Value::Number(_) | Value::Bool(_) if shown == Shown::Never => Value::String(HIDDEN.to_owned()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn text_is_hidden_unless_it_is_known_to_be_harmless() {
        let document = json!({
            "listen": "127.0.0.1:1",
            "upstreams": [{ "name": "a", "urls": ["https://user:secret@a.example"] }],
            "routes": [{ "path": "/", "upstream": "a", "headers": { "authorization": "Bearer secret" } }],
            "plugins": [{ "name": "p", "source": "p.wasm", "config": { "name": "secret", "n": 4711, "deep": ["secret"] } }],
            "admin": { "tokens": [{ "name": "t", "role": "viewer", "token": "secret" }] },
            "limits": { "connections": 5 },
            "later": { "unheard_of": "secret" },
        });
        let shown = redacted(document).to_string();
        assert!(
            !shown.contains("secret\"") && !shown.contains("secret@") && !shown.contains("4711"),
            "{shown}"
        );
        for part in ["127.0.0.1:1", "\"p.wasm\"", "\"connections\":5", "unheard_of", "\"viewer\""] {
            assert!(shown.contains(part), "{part} is not in {shown}");
        }
    }
}
