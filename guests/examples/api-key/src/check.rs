//! The decision itself, apart from the PDK so that it is tested without a WebAssembly host.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// The part of the `http.request` event that this plugin reads. It needs no body.
#[derive(Deserialize)]
pub struct Event {
    pub config: Config,
    pub request: Request,
}

#[derive(Deserialize)]
pub struct Config {
    /// From key to user.
    #[serde(default)]
    pub keys: BTreeMap<String, String>,
}

#[derive(Deserialize)]
pub struct Request {
    pub headers: BTreeMap<String, String>,
}

#[derive(Serialize, Debug, PartialEq)]
#[serde(tag = "verdict", rename_all = "lowercase")]
pub enum Verdict {
    Continue { edits: Edits, attributes: Attributes },
    Refuse { status: u16, kind: &'static str, message: &'static str },
}

#[derive(Serialize, Debug, PartialEq)]
pub struct Edits {
    /// `None` removes the header.
    pub headers: BTreeMap<&'static str, Option<String>>,
}

#[derive(Serialize, Debug, PartialEq)]
pub struct Attributes {
    pub user: String,
}

/// An empty key list would refuse everybody with a message that blames the client; it is the operator's
/// mistake and reported as a failure of the plugin.
#[derive(Debug, PartialEq)]
pub struct NoKeys;

impl fmt::Display for NoKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("config `keys` is missing or empty: give an object from API key to user name")
    }
}

impl std::error::Error for NoKeys {}

pub fn check(event: &Event) -> Result<Verdict, NoKeys> {
    let keys = &event.config.keys;
    if keys.is_empty() {
        return Err(NoKeys);
    }
    let Some(offered) = offered_key(&event.request.headers) else {
        return Ok(refuse("no API key: send `authorization: Bearer KEY` or `x-api-key: KEY`"));
    };
    // Every key is compared, so that the time taken does not tell at which one the search ended.
    let mut user = None;
    for (key, name) in keys {
        if same(key.as_bytes(), offered.as_bytes()) {
            user = Some(name);
        }
    }
    Ok(match user {
        Some(name) => Verdict::Continue {
            edits: Edits { headers: [("authorization", None), ("x-api-key", None)].into() },
            attributes: Attributes { user: name.clone() },
        },
        None => refuse("this API key is not known here: check it for typing errors, or ask for a new one"),
    })
}

fn refuse(message: &'static str) -> Verdict {
    Verdict::Refuse { status: 401, kind: "invalid_api_key", message }
}

/// The bearer token, or else `x-api-key`: some clients send both, with another scheme in `authorization`.
fn offered_key(headers: &BTreeMap<String, String>) -> Option<&str> {
    let bearer = headers.get("authorization").and_then(|value| {
        let (scheme, token) = value.trim().split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then_some(token)
    });
    let key = bearer.or_else(|| headers.get("x-api-key").map(String::as_str))?.trim();
    (!key.is_empty()).then_some(key)
}

/// Takes a time that depends on the lengths only.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |difference, (x, y)| difference | (x ^ y)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn verdict(config: &str, headers: &str) -> Result<Verdict, NoKeys> {
        let event = format!(
            r#"{{"hook":"http.request","phase":"pre_flight","visit":{{"id":"00","session":"default"}},
                 "attributes":{{}},"config":{config},"request":{{"method":"GET","headers":{headers}}}}}"#
        );
        check(&serde_json::from_str(&event).expect("an event of the Cardan dialect"))
    }

    #[track_caller]
    fn passes(headers: &str, user: &str) {
        let verdict =
            verdict(r#"{"keys":{"sk-a":"alice","sk-b":"bob"}}"#, headers).expect("keys are configured");
        assert_eq!(
            serde_json::to_string(&verdict).expect("a verdict is JSON"),
            format!(
                r#"{{"verdict":"continue","edits":{{"headers":{{"authorization":null,"x-api-key":null}}}},"attributes":{{"user":"{user}"}}}}"#
            )
        );
    }

    #[track_caller]
    fn refused(headers: &str, start: &str) {
        match verdict(r#"{"keys":{"sk-a":"alice"}}"#, headers) {
            Ok(Verdict::Refuse { status: 401, kind: "invalid_api_key", message }) => {
                assert!(message.starts_with(start), "{message}");
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn known_keys_pass() {
        passes(r#"{"authorization":"Bearer sk-a"}"#, "alice");
        passes(r#"{"authorization":"bearer  sk-b "}"#, "bob");
        passes(r#"{"x-api-key":"sk-b"}"#, "bob");
        passes(r#"{"authorization":"Basic c2stYQ==","x-api-key":"sk-a"}"#, "alice");
    }

    #[test]
    fn others_are_refused() {
        refused("{}", "no API key");
        refused(r#"{"authorization":"Bearer "}"#, "no API key");
        refused(r#"{"authorization":"sk-a"}"#, "no API key");
        refused(r#"{"authorization":"Bearer sk-A"}"#, "this API key is not known");
        refused(r#"{"authorization":"Bearer sk-aa"}"#, "this API key is not known");
        refused(r#"{"authorization":"Bearer x","x-api-key":"sk-a"}"#, "this API key is not known");
    }

    #[test]
    fn no_keys_is_the_operators_mistake() {
        assert_eq!(verdict("{}", r#"{"x-api-key":"k"}"#), Err(NoKeys));
    }
}
