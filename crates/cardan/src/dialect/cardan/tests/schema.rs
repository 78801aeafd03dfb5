//! As much of JSON Schema as the schemas use. A keyword it does not know is a panic, so that none goes
//! unchecked.

use serde_json::{Map, Value};

use super::super::schemas;

pub(super) fn check_event(document: &Value) {
    let schema = parsed(0);
    assert!(is_valid(document, &schema, &schema), "no valid event: {document:#}");
}

pub(super) fn check_life(document: &Value) {
    let schema = parsed(2);
    assert!(is_valid(document, &schema, &schema), "no valid life document: {document:#}");
}

pub(super) fn is_verdict(document: &Value) -> bool {
    let schema = parsed(1);
    is_valid(document, &schema, &schema)
}

fn parsed(index: usize) -> Value {
    serde_json::from_str(&schemas()[index].1).unwrap()
}

fn is_valid(value: &Value, schema: &Value, root: &Value) -> bool {
    let keywords = match schema {
        Value::Bool(answer) => return *answer,
        Value::Object(keywords) => keywords,
        other => panic!("no schema: {other}"),
    };
    let valid = |schema: &Value| is_valid(value, schema, root);
    keywords.iter().all(|(keyword, rule)| match keyword.as_str() {
        "$schema" | "$defs" | "title" | "description" | "format" | "default" => true,
        "$ref" => valid(root.pointer(&rule.as_str().unwrap()[1..]).unwrap()),
        "oneOf" => rule.as_array().unwrap().iter().filter(|schema| valid(schema)).count() == 1,
        "anyOf" => rule.as_array().unwrap().iter().any(valid),
        "const" => value == rule,
        "enum" => rule.as_array().unwrap().contains(value),
        "type" => match rule {
            Value::Array(types) => types.iter().any(|name| is_of(value, name.as_str().unwrap())),
            name => is_of(value, name.as_str().unwrap()),
        },
        "minimum" => value.as_f64().is_none_or(|number| number >= rule.as_f64().unwrap()),
        "maximum" => value.as_f64().is_none_or(|number| number <= rule.as_f64().unwrap()),
        "required" => value.as_object().is_none_or(|members| {
            rule.as_array().unwrap().iter().all(|name| members.contains_key(name.as_str().unwrap()))
        }),
        "properties" => {
            let rules = rule.as_object().unwrap();
            members(value).all(|(name, value)| rules.get(name).is_none_or(|rule| is_valid(value, rule, root)))
        }
        "additionalProperties" => {
            let known = keywords.get("properties").and_then(Value::as_object);
            let mut others =
                members(value).filter(|(name, _)| !known.is_some_and(|known| known.contains_key(*name)));
            others.all(|(_, value)| is_valid(value, rule, root))
        }
        "items" => value.as_array().is_none_or(|items| items.iter().all(|item| is_valid(item, rule, root))),
        "minItems" => value.as_array().is_none_or(|items| items.len() as u64 >= rule.as_u64().unwrap()),
        "pattern" => {
            assert_eq!(rule, "^[0-9A-Z]{5}$", "a pattern that this check does not know");
            let fits = |byte: u8| byte.is_ascii_digit() || byte.is_ascii_uppercase();
            value.as_str().is_none_or(|text| text.len() == 5 && text.bytes().all(fits))
        }
        other => panic!("the schemas use {other}, which this check does not know"),
    })
}

fn members(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flat_map(Map::iter)
}

fn is_of(value: &Value, name: &str) -> bool {
    match name {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "string" => value.is_string(),
        "number" => value.is_number(),
        "integer" => value.is_i64() || value.is_u64(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("no type {other}"),
    }
}
