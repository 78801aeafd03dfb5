//! Printing: tables for people, documents for programs.

use std::io::{self, Write as _};
use std::ops::ControlFlow;

use serde_json::Value;

use super::args::Form;
use crate::output::{self, Failure};

/// Rows of text below a heading.
pub(super) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(super) fn new(heading: &[&str]) -> Self {
        Self { rows: vec![heading.iter().map(|text| (*text).to_owned()).collect()] }
    }

    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().map(|cell| harmless(&cell)).collect());
    }

    /// Columns as wide as their widest cell, but for the last.
    pub(super) fn text(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |at: usize| {
            self.rows.iter().filter_map(|row| row.get(at)).map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (at, cell) in row.iter().enumerate() {
                let pad = widths.get(at).copied().unwrap_or(0).saturating_sub(cell.chars().count());
                line.push_str(cell);
                line.extend(std::iter::repeat_n(' ', pad + 2));
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// Text of others, which a terminal would act on.
pub(super) fn harmless(text: &str) -> String {
    text.chars().map(|char| if char.is_control() { char::REPLACEMENT_CHARACTER } else { char }).collect()
}

/// Prints a document: as a table that `table` makes of it, by the names in it, or as it is.
pub(super) fn print(
    form: Form,
    document: &Value,
    names: impl FnOnce(&Value) -> Vec<String>,
    table: impl FnOnce(&Value) -> String,
) -> Result<(), Failure> {
    match form {
        Form::Json => output::json(document),
        Form::Yaml => output::raw(yaml(document).as_bytes()),
        Form::Name => {
            let names: String = names(document).iter().map(|name| format!("{}\n", harmless(name))).collect();
            output::raw(names.as_bytes())
        }
        Form::Table => output::raw(table(document).as_bytes()),
    }
}

/// Writes a piece of what has no end. It ends when nobody reads it any more.
pub(super) fn say(text: &str) -> Result<ControlFlow<()>, Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(ControlFlow::Continue(())),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(ControlFlow::Break(())),
        Err(error) => Err(Failure::failed(format_args!("cannot write to standard output: {error}"))),
    }
}

/// A value as a cell.
pub(super) fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) if text.is_empty() => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) if items.is_empty() => "-".to_owned(),
        Value::Array(items) => items.iter().map(cell).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

/// What is in a list below a key.
pub(super) fn items<'a>(document: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    document[key].as_array().into_iter().flatten()
}

/// Names below a key.
pub(super) fn names(document: &Value, key: &str, name: &str) -> Vec<String> {
    items(document, key).map(|item| cell(&item[name])).collect()
}

/// YAML in block style. Text is quoted as in JSON, which YAML reads alike.
pub(super) fn yaml(value: &Value) -> String {
    let mut text = String::new();
    write_yaml(&mut text, value, 0);
    text
}

fn write_yaml(text: &mut String, value: &Value, depth: usize) {
    match value {
        Value::Object(members) if !members.is_empty() => {
            for (i, (key, value)) in members.iter().enumerate() {
                if i > 0 || !text.ends_with("- ") {
                    text.extend(std::iter::repeat_n(' ', depth));
                }
                text.push_str(&plain(key));
                text.push(':');
                write_below(text, value, depth);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for (i, item) in items.iter().enumerate() {
                if i > 0 || !text.ends_with("- ") {
                    text.extend(std::iter::repeat_n(' ', depth));
                }
                text.push_str("- ");
                write_yaml(text, item, depth + 2);
            }
        }
        scalar => {
            text.push_str(&scalar_text(scalar));
            text.push('\n');
        }
    }
}

fn write_below(text: &mut String, value: &Value, depth: usize) {
    let nested = match value {
        Value::Object(members) => !members.is_empty(),
        Value::Array(items) => !items.is_empty(),
        _ => false,
    };
    if nested {
        text.push('\n');
        write_yaml(text, value, depth + 2);
    } else {
        text.push(' ');
        text.push_str(&scalar_text(value));
        text.push('\n');
    }
}

fn scalar_text(value: &Value) -> String {
    match value {
        Value::String(text) => plain(text),
        other => other.to_string(),
    }
}

/// Words that cannot be anything else stand bare.
fn plain(text: &str) -> String {
    let letters = |char: char| char.is_ascii_alphanumeric() || "_-./".contains(char);
    let word = text.starts_with(|char: char| char.is_ascii_alphabetic()) && text.chars().all(letters);
    let other = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"];
    if word && !other.contains(&text.to_ascii_lowercase().as_str()) {
        return text.to_owned();
    }
    Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn yaml_says_what_json_says() {
        let document = json!({
            "plain": "word", "yes": "no", "empty": {}, "none": [], "text": "a: b\n#", "n": 1.5, "nothing": null,
            "list": [1, { "a": [[], [1, 2], { "b": "c" }], "d": true }, ["x"], "- y"], "deep": { "er": { "k": "v" } },
        });
        let back: Value = serde_saphyr::from_str(&yaml(&document)).unwrap();
        assert_eq!(back, document, "{}", yaml(&document));
    }

    #[test]
    fn a_terminal_acts_on_nothing() {
        let mut table = Table::new(&["A", "B"]);
        table.row(["\u{1b}[31mred".to_owned(), "two\nlines".to_owned()]);
        assert_eq!(table.text(), "A         B\n\u{fffd}[31mred  two\u{fffd}lines\n");
    }
}
