//! LLMProxy's `manifest.yaml`, as it stands in the wild.
//!
//! The manifest is LLMProxy's, not ours: keys that it does not know are kept in `other`, so that loading
//! can warn about them instead of failing.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, de};
use serde_json::Value;

use super::{GrantsEntry, LimitsEntry, text_or_number};
use crate::hook::Phase;

/// A whole manifest file: a list, or the list under `plugins` with whatever else is there.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Document {
    entries: Vec<Entry>,
    other: Vec<String>,
}

impl Document {
    /// The entries, in file order.
    pub fn into_entries(self) -> Vec<Entry> {
        self.entries
    }

    /// Keys beside `plugins`, which LLMProxy does not have.
    pub fn other_keys(&self) -> &[String] {
        &self.other
    }
}

// By hand, since an error inside of serde's `untagged` says neither what is wrong nor where.
impl<'de> Deserialize<'de> for Document {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(DocumentVisitor)
    }
}

struct DocumentVisitor;

impl<'de> de::Visitor<'de> for DocumentVisitor {
    type Value = Document;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of plugins, alone or under the key `plugins`")
    }

    /// An empty file.
    fn visit_unit<E: de::Error>(self) -> Result<Document, E> {
        Ok(Document::default())
    }

    fn visit_seq<A: de::SeqAccess<'de>>(self, list: A) -> Result<Document, A::Error> {
        let entries = Vec::deserialize(de::value::SeqAccessDeserializer::new(list))?;
        Ok(Document { entries, other: Vec::new() })
    }

    fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Document, A::Error> {
        let mut entries: Option<Option<Vec<Entry>>> = None;
        let mut other = Vec::new();
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "plugins" if entries.is_some() => return Err(de::Error::duplicate_field("plugins")),
                "plugins" => entries = Some(map.next_value()?),
                _ => {
                    map.next_value::<de::IgnoredAny>()?;
                    other.push(key);
                }
            }
        }
        let entries = entries.ok_or_else(|| de::Error::missing_field("plugins"))?.unwrap_or_default();
        Ok(Document { entries, other })
    }
}

impl JsonSchema for Document {
    fn schema_name() -> Cow<'static, str> {
        "LlmProxyManifest".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let entries = generator.subschema_for::<Vec<Entry>>();
        json_schema!({
            "title": "LLMProxy manifest",
            "description": "A list of plugins, alone or under the key `plugins`.",
            "anyOf": [
                entries,
                { "type": "object", "required": ["plugins"], "properties": { "plugins": { "anyOf": [entries, { "type": "null" }] } } }
            ]
        })
    }
}

/// One plugin.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "LlmProxyPlugin")]
pub struct Entry {
    /// Display name and key; blanks allowed.
    pub name: String,
    /// The ring.
    pub hook: Phase,
    /// `module.path:Target` for Python, a path in one of three spellings for WebAssembly.
    pub entrypoint: String,
    /// Lower is asked earlier.
    #[serde(default = "default_priority")]
    pub priority: i32,
    /// Whether it is loaded.
    #[serde(default = "default_enabled")]
    pub enabled: bool,
    /// `python` or `wasm`; told by the entry point when missing.
    #[serde(default, rename = "type")]
    pub kind: Option<Kind>,
    /// For people. YAML takes a bare `1.0` for a number; it is kept as that.
    #[serde(default, deserialize_with = "text_or_number")]
    pub version: Option<String>,
    /// For people.
    #[serde(default)]
    pub author: Option<String>,
    /// For people.
    #[serde(default)]
    pub description: Option<String>,
    /// Time of one call.
    #[serde(default = "default_timeout_ms")]
    pub timeout_ms: u64,
    /// What follows from a fault; by ring when missing.
    #[serde(default)]
    pub fail_policy: Option<FailPolicy>,
    /// Handed to the plugin.
    #[serde(default)]
    pub config: Option<BTreeMap<String, Value>>,
    /// A form for the dashboard; not for the plugin.
    #[serde(default)]
    pub ui_schema: Option<Value>,
    /// Pins the module.
    #[serde(default)]
    pub sha256: Option<String>,
    /// For Python plugins only.
    #[serde(default)]
    pub allow_inprocess: Option<bool>,
    /// Ours: the export to call.
    #[serde(default)]
    pub entry: Option<String>,
    /// Ours: what it may use up. A deadline here takes the place of `timeout_ms`.
    #[serde(default)]
    pub limits: LimitsEntry,
    /// Ours: what it may reach outside.
    #[serde(default)]
    pub grants: GrantsEntry,
    /// Keys that neither LLMProxy nor we have.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

fn default_priority() -> i32 {
    100
}

fn default_enabled() -> bool {
    true
}

fn default_timeout_ms() -> u64 {
    500
}

/// What a plugin is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Runs in LLMProxy's own process, and nowhere else.
    Python,
    /// WebAssembly.
    Wasm,
}

/// LLMProxy's words for [`crate::FaultPolicy`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum FailPolicy {
    /// Skip.
    Open,
    /// Refuse.
    Closed,
}

impl Entry {
    /// What the plugin is made of: as said, else by the entry point's ending.
    pub fn kind(&self) -> Kind {
        let wasm = self.entrypoint.ends_with(".wasm");
        self.kind.unwrap_or(if wasm { Kind::Wasm } else { Kind::Python })
    }
}
