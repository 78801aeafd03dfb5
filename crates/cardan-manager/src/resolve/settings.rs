//! A plugin's configuration against what its manifest says about it: defaults filled in, and one sentence
//! for each thing that is wrong.

use jsonschema::error::ValidationErrorKind;
use jsonschema::paths::{Location, LocationSegment};
use jsonschema::{PatternOptions, Validator};
use serde_json::{Map, Value, json};

use crate::document::unknown_key;

/// JSON Schema of a plugin's configuration. A manifest may hold that, or the short form
/// `key: {type, required, default, description}`. An error begins with the key.
pub(super) fn schema(written: &Value) -> Result<Value, String> {
    let Value::Object(keys) = written else {
        return Err("config_schema: it is a map from keys to what they are, or a JSON Schema".to_owned());
    };
    let schema = if is_json_schema(keys) { written.clone() } else { long_form(keys)? };
    let validator = compile(&schema)?;
    check_defaults(&schema, &validator)?;
    Ok(schema)
}

/// In the short form every value is a map, and no key of it is one that only JSON Schema has.
fn is_json_schema(keys: &Map<String, Value>) -> bool {
    const TELLING: [&str; 8] =
        ["$schema", "$ref", "$defs", "properties", "patternProperties", "allOf", "anyOf", "oneOf"];
    TELLING.iter().any(|key| keys.contains_key(*key)) || keys.get("type").is_some_and(Value::is_string)
}

fn long_form(keys: &Map<String, Value>) -> Result<Value, String> {
    let mut properties = Map::new();
    let mut required = Vec::new();
    for (key, about) in keys {
        let Value::Object(about) = about else {
            return Err(format!(
                "config_schema.{key}: it is {about}; write it as {{type: ..., required: ..., default: ..., description: ...}}"
            ));
        };
        let mut about = about.clone();
        match about.shift_remove("required") {
            None | Some(Value::Bool(false)) => {}
            Some(Value::Bool(true)) => required.push(key.clone()),
            Some(other) => {
                return Err(format!("config_schema.{key}.required: it is {other}, and not true or false"));
            }
        }
        if let Some(Value::String(kind)) = about.get("type") {
            let kind = match kind.as_str() {
                "str" | "text" => "string",
                "int" => "integer",
                "float" => "number",
                "bool" => "boolean",
                "list" => "array",
                "map" => "object",
                other => other,
            };
            let kind = kind.to_owned();
            about.insert("type".to_owned(), Value::String(kind));
        }
        properties.insert(key.clone(), Value::Object(about));
    }
    Ok(
        json!({ "type": "object", "properties": properties, "required": required, "additionalProperties": false }),
    )
}

fn compile(schema: &Value) -> Result<Validator, String> {
    // Nothing is fetched, and patterns take time that grows with the text only.
    let options = jsonschema::options().with_pattern_options(PatternOptions::regex());
    options.build(schema).map_err(|error| format!("config_schema{}: {error}", path(error.instance_path())))
}

/// A default that its own schema refuses is the author's mistake, and not to be found by an operator.
fn check_defaults(schema: &Value, validator: &Validator) -> Result<(), String> {
    let mut config = json!({});
    fill(&mut config, schema);
    let wrong = validator.iter_errors(&config).find(|error| !error.instance_path().as_str().is_empty());
    wrong.map_or(Ok(()), |error| {
        Err(format!(
            "config_schema: a default is not what it says: {}: {error}",
            path(error.instance_path()).trim_start_matches('.')
        ))
    })
}

/// Fills in defaults, and says everything that is wrong then. What the operator wrote is not quoted: it may
/// be secret.
pub(crate) fn complete(config: &mut Value, schema: &Value) -> Result<(), Vec<String>> {
    fill(config, schema);
    let validator = compile(schema).map_err(|why| vec![why])?;
    let wrong: Vec<String> = validator.iter_errors(config).flat_map(|error| told(&error, schema)).collect();
    if wrong.is_empty() { Ok(()) } else { Err(wrong) }
}

fn fill(config: &mut Value, schema: &Value) {
    let (Value::Object(config), Some(Value::Object(properties))) = (config, schema.get("properties")) else {
        return;
    };
    for (key, about) in properties {
        match config.get_mut(key) {
            Some(value) => fill(value, about),
            None => {
                if let Some(default) = about.get("default") {
                    config.insert(key.clone(), default.clone());
                }
            }
        }
    }
}

fn told(error: &jsonschema::ValidationError<'_>, schema: &Value) -> Vec<String> {
    let place = error.instance_path();
    let here = path(place);
    match error.kind() {
        ValidationErrorKind::Required { property } => {
            let key = property.as_str().unwrap_or_default();
            let about = about(place, schema).and_then(|about| described(about.get("properties")?.get(key)?));
            let about = about.map_or_else(String::new, |about| format!(": {about}"));
            vec![format!("config{here}.{key}: is required{about}")]
        }
        ValidationErrorKind::AdditionalProperties { unexpected } => {
            let known =
                about(place, schema).and_then(|about| about.get("properties")).and_then(Value::as_object);
            let known: Vec<&str> = known.into_iter().flat_map(Map::keys).map(String::as_str).collect();
            unexpected.iter().map(|key| format!("config{here}.{key}: {}", unknown_key(key, &known))).collect()
        }
        _ => {
            let about = about(place, schema).and_then(described);
            let about = about.map_or_else(String::new, |about| format!(": {about}"));
            vec![format!("config{here}: {}{about}", error.masked_with("it"))]
        }
    }
}

fn described(about: &Value) -> Option<&str> {
    about.get("description").and_then(Value::as_str)
}

/// What the schema says about a place, as far as names lead there.
fn about<'a>(place: &Location, schema: &'a Value) -> Option<&'a Value> {
    place.into_iter().try_fold(schema, |schema, segment| match segment {
        LocationSegment::Property(key) => schema.get("properties")?.get(&*key),
        LocationSegment::Index(_) => schema.get("items"),
    })
}

/// A place as people write it: `.a[0].b`.
fn path(place: &Location) -> String {
    place
        .into_iter()
        .map(|segment| match segment {
            LocationSegment::Property(key) => format!(".{key}"),
            LocationSegment::Index(i) => format!("[{i}]"),
        })
        .collect()
}
