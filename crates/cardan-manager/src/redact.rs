//! Texts without the values of a plugin's configuration.
//!
//! Whoever looks may not see values, and why a plugin failed is often told in the guest's words, which may quote
//! them. Each is replaced by its key. A guest that means to tell a value in other words can.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::spec::PluginSpec;

/// Characters of a value that is replaced wherever it is. Shorter ones are parts of words.
const CHARS_MIN: usize = 4;

/// Values by their first byte, the longest first, each with its key.
struct Values(BTreeMap<u8, Vec<(String, String)>>);

impl PluginSpec {
    /// The beginning of a text about this plugin, without what its configuration and environment have as values
    /// of four characters and more.
    pub(crate) fn redacted(&self, text: &str, bytes_max: usize) -> String {
        let mut values = Values(BTreeMap::new());
        values.gather(&self.config, "config");
        for (name, value) in &self.grants.env {
            values.add(value, &format!("grants.env.{name}"));
        }
        values.sort();
        values.out_of(text, bytes_max)
    }
}

impl Values {
    fn gather(&mut self, value: &Value, key: &str) {
        match value {
            Value::Null | Value::Bool(_) => {}
            Value::Number(number) => self.add(&number.to_string(), key),
            Value::String(text) => self.add(text, key),
            Value::Array(items) => {
                items.iter().enumerate().for_each(|(i, item)| self.gather(item, &format!("{key}[{i}]")));
            }
            Value::Object(members) => {
                members.iter().for_each(|(name, member)| self.gather(member, &format!("{key}.{name}")));
            }
        }
    }

    /// As it is, and as JSON and Rust write it.
    fn add(&mut self, value: &str, key: &str) {
        // Guests that read a value often trim it.
        for value in [value, value.trim()] {
            if value.chars().nth(CHARS_MIN - 1).is_none() {
                continue;
            }
            let quoted = Value::from(value).to_string();
            let quoted = quoted.trim_start_matches('"').strip_suffix('"').unwrap_or(value);
            for form in [value, quoted, &value.escape_debug().to_string()] {
                let Some(first) = form.bytes().next() else { continue };
                let same = self.0.entry(first).or_default();
                if same.last().is_none_or(|(last, _)| last != form) {
                    same.push((form.to_owned(), key.to_owned()));
                }
            }
        }
    }

    fn sort(&mut self) {
        self.0.values_mut().for_each(|same| same.sort_by_key(|(value, _)| std::cmp::Reverse(value.len())));
    }

    fn out_of(&self, text: &str, bytes_max: usize) -> String {
        let mut out = String::new();
        let mut rest = text;
        while out.len() < bytes_max
            && let Some(next) = rest.chars().next()
        {
            let candidates = rest.bytes().next().and_then(|first| self.0.get(&first)).into_iter().flatten();
            match candidates.into_iter().find(|(value, _)| rest.starts_with(value.as_str())) {
                Some((value, key)) => {
                    out.push_str(&format!("({key})"));
                    rest = &rest[value.len()..];
                }
                None => {
                    out.push(next);
                    rest = &rest[next.len_utf8()..];
                }
            }
        }
        out.truncate(out.floor_char_boundary(bytes_max));
        out
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_give_way_to_their_keys() {
        let config = json!({
            "key": "hunter2", "deep": [{ "pin": 47_112 }], "on": "yes", "long": "hunter2-and-more", "odd": "a\"b\\c\n",
            "umlaut": "größer als", "flag": true,
        });
        let spec = PluginSpec { config, ..PluginSpec::new("p", "p.wasm") };
        let rows = [
            ("key hunter2 is wrong", "key (config.key) is wrong"),
            ("hunter2-and-more hunter2hunter2", "(config.long) (config.key)(config.key)"),
            ("pin 47112, yes", "pin (config.deep[0].pin), yes"),
            ("it is größer als", "it is (config.umlaut)"),
            ("plain \"a\\\"b\\\\c\\n\"", "plain \"(config.odd)\""),
            ("raw a\"b\\c", "raw (config.odd)"),
            ("hunter", "hunter"),
        ];
        for (text, shown) in rows {
            assert_eq!(spec.redacted(text, usize::MAX), shown);
        }
        // Nothing of a value is left at the end.
        for max in 0..40 {
            let shown = spec.redacted("0123456789 hunter2 hunter2 hunter2", max);
            assert!(shown.len() <= max && !shown.contains("hu"), "{shown}");
        }
    }
}
