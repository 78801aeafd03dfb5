//! Which events a binding is for.

use cardan_api::http::RequestEvent;
use cardan_api::path::{BadEncoding, normal_form};
use glob::{MatchOptions, Pattern};
use serde::{Deserialize, Serialize};

/// What rules look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subject<'a> {
    /// As in the event.
    pub method: &'a str,
    /// As in the event.
    pub host: &'a str,
    /// As in the event.
    pub path: &'a str,
}

impl<'a> Subject<'a> {
    pub(crate) fn of(request: &'a RequestEvent) -> Self {
        Self { method: &request.method, host: &request.host, path: &request.path }
    }
}

/// A [`Subject`] as it was before plugins edited it.
#[derive(Debug, Clone)]
pub(crate) struct Remembered {
    method: String,
    host: String,
    path: String,
}

impl From<Subject<'_>> for Remembered {
    fn from(subject: Subject<'_>) -> Self {
        Self { method: subject.method.into(), host: subject.host.into(), path: subject.path.into() }
    }
}

impl Remembered {
    pub(crate) fn subject(&self) -> Subject<'_> {
        Subject { method: &self.method, host: &self.host, path: &self.path }
    }
}

/// Which events a binding is for. An empty list matches all.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct MatchRule {
    /// On the path, in its normal form ([`cardan_api::path`]). One that ends with `/*` is for what that is below, too.
    #[serde(with = "patterns")]
    pub paths: Vec<Pattern>,
    /// In upper case.
    pub methods: Vec<String>,
    /// On the host, in any letter case.
    #[serde(with = "patterns")]
    pub hosts: Vec<Pattern>,
}

impl MatchRule {
    /// Whether this rule is for `subject`.
    pub fn matches(&self, subject: &Subject<'_>) -> bool {
        let without_case = MatchOptions { case_sensitive: false, ..MatchOptions::new() };
        let method = self.methods.is_empty()
            || self.methods.iter().any(|method| method.eq_ignore_ascii_case(subject.method));
        let path =
            self.paths.is_empty() || self.paths.iter().any(|pattern| matches_path(pattern, subject.path));
        let host = self.hosts.is_empty()
            || self.hosts.iter().any(|pattern| pattern.matches_with(subject.host, without_case));
        method && path && host
    }
}

/// A pattern on paths, its literal parts brought to the spelling that paths have when rules are asked. In
/// another it would match nothing, and its plugin guard nothing.
pub(crate) fn path_pattern(text: &str) -> Result<Pattern, String> {
    let mut normal = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let part = match first {
            '*' | '?' => rest.split_at(1).0,
            '[' => rest.split_at(class_len(rest)).0,
            _ => rest.split(['*', '?', '[']).next().unwrap_or_default(),
        };
        match first {
            '*' | '?' => normal.push_str(part),
            '[' => normal.push_str(plain_class(part).map_err(|why| format!("{text:?} {why}"))?),
            _ => {
                let part = normal_form(part).map_err(|why: BadEncoding| format!("{text:?} has {why}"))?;
                // An asterisk here is one that was written %2A.
                normal.push_str(&part.replace('*', "[*]"));
            }
        }
        rest = rest.get(part.len()..).unwrap_or_default();
    }
    Pattern::new(&normal).map_err(|error| format!("{text:?} is no pattern: {error}"))
}

/// Length of the characters in brackets that the text begins with; all of it if they do not end.
fn class_len(text: &str) -> usize {
    // A bracket that comes first stands for itself.
    let begin = 1 + usize::from(text[1..].starts_with('!'));
    let end = text[begin..].char_indices().skip(1).find(|(_, char)| *char == ']');
    end.map_or(text.len(), |(at, _)| begin + at + 1)
}

/// Refuses brackets with characters that paths hold percent-encoded only, so as several.
fn plain_class(class: &str) -> Result<&str, String> {
    let inside = class.strip_prefix('[').unwrap_or(class);
    let inside = inside.strip_suffix(']').unwrap_or(inside);
    for char in inside.chars() {
        let mut buffer = [0; 4];
        let char: &str = char.encode_utf8(&mut buffer);
        match normal_form(char) {
            Ok(spelt) if spelt == char => {}
            Ok(spelt) => {
                return Err(format!(
                    "has {char:?} in brackets, which paths hold as {spelt}; write that outside of brackets"
                ));
            }
            Err(BadEncoding) => {
                return Err(
                    "has a percent sign in brackets; write what it encodes outside of them".to_owned()
                );
            }
        }
    }
    Ok(class)
}

/// Whether a path, or the folder it names, matches. Routes take `/v1` and what is below it for one, and a guard
/// of `/v1/*` that left `/v1` open would be a gap nobody sees.
fn matches_path(pattern: &Pattern, path: &str) -> bool {
    let below = || pattern.as_str().ends_with("/*") || pattern.as_str().ends_with("/**");
    pattern.matches(path) || (below() && pattern.matches(&format!("{path}/")))
}

/// Patterns, written as their texts.
mod patterns {
    use glob::Pattern;
    use serde::{Deserialize as _, Deserializer, Serializer, de};

    pub(super) fn serialize<S: Serializer>(patterns: &[Pattern], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(patterns.iter().map(Pattern::as_str))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Pattern>, D::Error> {
        let texts = Vec::<String>::deserialize(deserializer)?;
        texts.iter().map(|text| Pattern::new(text).map_err(de::Error::custom)).collect()
    }
}
