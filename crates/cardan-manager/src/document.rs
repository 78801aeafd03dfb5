//! Documents that people write: read, told apart, and parsed so that an error names the place.

use std::fs::{File, OpenOptions};
use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use serde::de::{Deserialize as _, DeserializeOwned};
use serde_json::Value;
use serde_path_to_error::Track;

mod kind;
mod strict_json;

pub use kind::Kind;

/// Most bytes of a manifest.
const BYTES_MAX: u64 = 1 << 20;

/// How a document is written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// What everything is that is nothing else.
    Yaml,
    /// JSON.
    Json,
    /// TOML.
    Toml,
}

impl Format {
    /// Endings of files that may be documents.
    pub const ENDINGS: [&str; 4] = ["yaml", "yml", "json", "toml"];

    /// By a file's ending.
    pub fn of(path: &Path) -> Self {
        let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
        match ending.to_ascii_lowercase().as_str() {
            "json" => Self::Json,
            "toml" => Self::Toml,
            _ => Self::Yaml,
        }
    }
}

/// Reads a manifest.
///
/// # Errors
///
/// When it is no regular file, larger than 1 MiB, or no UTF-8; the message does not name the file.
pub fn read(path: &Path) -> Result<String, String> {
    let mut bytes = Vec::new();
    let file = open(path)?;
    file.take(BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|error| format!("cannot read it: {error}"))?;
    if bytes.len() as u64 > BYTES_MAX {
        return Err(format!("it is larger than {} MiB", BYTES_MAX >> 20));
    }
    String::from_utf8(bytes).map_err(|_| "it is no UTF-8 text".to_owned())
}

/// Opens a regular file. Opening a pipe would wait for somebody who writes to it, and reading from a device
/// may never end.
pub(crate) fn open(path: &Path) -> Result<File, String> {
    let unreadable = |error: std::io::Error| format!("cannot read it: {error}");
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(unreadable)?;
    if !file.metadata().map_err(unreadable)?.is_file() {
        return Err("it is no regular file".to_owned());
    }
    Ok(file)
}

/// Parses a document; `None` where there is nothing but blanks and comments.
///
/// # Errors
///
/// With the path of the key, what is wrong with it, and the line.
pub fn parse<T: DeserializeOwned>(text: &str, format: Format) -> Result<Option<T>, String> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut track = Track::new();
    let parsed = match format {
        Format::Yaml => yaml(text, &mut track),
        Format::Json if text.trim().is_empty() => Ok(None),
        Format::Json => strict_json::check(text).and_then(|()| json(text, &mut track).map(Some)),
        Format::Toml => toml(text, &mut track).map(Some),
    };
    parsed.map_err(|flaw| flaw.at(&track.path().to_string()))
}

fn yaml<T: DeserializeOwned>(text: &str, track: &mut Track) -> Result<Option<T>, Flaw> {
    let read = serde_saphyr::with_deserializer_from_str(text, |deserializer| {
        Option::<T>::deserialize(serde_path_to_error::Deserializer::new(deserializer, track))
    });
    read.map_err(|error: serde_saphyr::Error| {
        let error = error.without_snippet();
        let place = error.location().map(|location| (location.line(), location.column()));
        let message = match error {
            serde_saphyr::Error::SerdeUnknownField { field, expected, .. } => unknown_key(field, expected),
            _ => without_place(&error.render_with_formatter(&serde_saphyr::UserMessageFormatter)),
        };
        Flaw { message, place }
    })
}

fn json<T: DeserializeOwned>(text: &str, track: &mut Track) -> Result<T, Flaw> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let read = T::deserialize(serde_path_to_error::Deserializer::new(&mut deserializer, track));
    read.and_then(|value| deserializer.end().map(|()| value)).map_err(|error| Flaw::of_json(&error))
}

fn toml<T: DeserializeOwned>(text: &str, track: &mut Track) -> Result<T, Flaw> {
    let read = toml::Deserializer::parse(text)
        .and_then(|deserializer| T::deserialize(serde_path_to_error::Deserializer::new(deserializer, track)));
    read.map_err(|error| {
        let before = error.span().and_then(|span| text.get(..span.start));
        let place = before.map(|before| {
            let lines = before.matches('\n').count() as u64;
            let column = before.rsplit('\n').next().unwrap_or_default().chars().count() as u64;
            (lines + 1, column + 1)
        });
        Flaw { message: error.message().to_owned(), place }
    })
}

/// What is wrong with a document, before it is known where.
#[derive(Debug)]
pub(crate) struct Flaw {
    message: String,
    /// Line and column, both counted from 1.
    place: Option<(u64, u64)>,
}

impl Flaw {
    fn of_json(error: &serde_json::Error) -> Self {
        let message = error.to_string();
        let place = format!(" at line {} column {}", error.line(), error.column());
        let message = message.strip_suffix(&place).unwrap_or(&message).to_owned();
        let place = (error.line() > 0).then_some((error.line() as u64, error.column() as u64));
        Self { message, place }
    }

    fn at(self, path: &str) -> String {
        let message = self.message.strip_prefix("unknown field ").map_or_else(
            || self.message.clone(),
            |rest| {
                let names: Vec<&str> = rest.split('`').skip(1).step_by(2).collect();
                match names.split_first() {
                    Some((key, known)) => unknown_key(key, known),
                    None => self.message.clone(),
                }
            },
        );
        let place = if path == "." { String::new() } else { format!("{path}: ") };
        let at =
            self.place.map_or_else(String::new, |(line, column)| format!(" (line {line}, column {column})"));
        format!("{place}{message}{at}")
    }
}

/// A message without the line and column that some formatters put before or behind it.
fn without_place(message: &str) -> String {
    let message = message.split(" at line ").next().unwrap_or(message);
    match message.split_once(": ") {
        Some((place, rest)) if place.starts_with("line ") => rest.to_owned(),
        _ => message.to_owned(),
    }
}

/// What is said about a key that nobody knows.
pub(crate) fn unknown_key(key: &str, known: &[&str]) -> String {
    match nearest(key, known) {
        Some(near) => format!("unknown key; did you mean {near}?"),
        None if known.is_empty() => "unknown key; there are none here".to_owned(),
        None => format!("unknown key; there are {}", known.join(", ")),
    }
}

/// The one that was probably meant.
pub(crate) fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    let word = word.to_ascii_lowercase();
    let distances =
        known.iter().map(|name| (strsim::damerau_levenshtein(&word, &name.to_ascii_lowercase()), *name));
    let (distance, name) = distances.min_by_key(|(distance, _)| *distance)?;
    // Half of a short word is another word.
    (distance <= word.chars().count().min(name.len()) / 3).then_some(name)
}

/// Parses a document without knowing what it is.
///
/// # Errors
///
/// When it is not well-formed.
pub fn value(text: &str, format: Format) -> Result<Option<Value>, String> {
    parse(text, format)
}
