//! `plugin.yaml`: what a plugin's author says about it. It lies beside the module and is shipped with it.
//!
//! A manifest gives defaults and asks for permissions. It grants nothing, and whatever an operator says
//! in `cardan.yaml` wins over it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, IntoDeserializer as _};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::{Abi, BindingEntry, Bytes, HealthEntry, LimitsEntry, Milliseconds, ResultForm};
use crate::capability::Capability;
use crate::dialect::Dialect;
use crate::instance::InstanceMode;

/// A whole `plugin.yaml`, or the same in JSON or TOML.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "plugin.yaml")]
pub struct Manifest {
    /// The plugin's name, unless an operator gives it another.
    pub name: String,
    /// A semantic version, such as `1.0.0` or `1.0.0-beta.1`.
    pub version: String,
    /// What it does, in a sentence.
    #[serde(default)]
    pub description: Option<String>,
    /// A person or company.
    #[serde(default)]
    pub author: Option<String>,
    /// An SPDX expression.
    #[serde(default)]
    pub license: Option<String>,
    /// Where to read more.
    #[serde(default)]
    pub homepage: Option<String>,
    /// The module, relative to this file and not outside of its folder. Without it: the module of the same
    /// name as this file, or the only one in the folder.
    #[serde(default)]
    pub module: Option<String>,
    /// SHA-256 of the module, in hexadecimal.
    #[serde(default)]
    pub sha256: Option<String>,
    /// The calling convention, where exports and imports do not tell.
    #[serde(default)]
    pub abi: Option<Abi>,
    /// The documents it understands, where its exports do not tell.
    #[serde(default)]
    pub dialect: Option<Dialect>,
    /// What tools of the capability convention return, by export, where it does not show.
    #[serde(default)]
    pub result: BTreeMap<String, ResultForm>,
    /// How long its instances live.
    #[serde(default)]
    pub instance: Option<InstanceMode>,
    /// Where it is asked: names of hooks, or bindings. Without this, at every hook it has an export for.
    #[serde(default, alias = "bindings")]
    pub hooks: Option<Vec<HookEntry>>,
    /// What it asks for. Without this, for what its imports need.
    #[serde(default)]
    pub permissions: Option<Permissions>,
    /// What its configuration has to look like: `key: {type, required, default, description}`, or a JSON
    /// Schema of an object.
    #[serde(default)]
    pub config_schema: Option<Value>,
    /// How much memory it takes.
    #[serde(default)]
    pub resources: Resources,
    /// What it may use up, unless an operator says otherwise.
    #[serde(default)]
    pub limits: LimitsEntry,
    /// When it is taken out because it fails, and let in again.
    #[serde(default)]
    pub health: HealthEntry,
    /// How often it is asked at `plugin.tick`; never unless said.
    #[serde(default)]
    pub tick: Option<Milliseconds>,
    /// A form for dashboards.
    #[serde(default)]
    pub ui_schema: Option<Value>,
}

/// How much memory a plugin takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Resources {
    /// It cannot run with less.
    pub min_memory: Option<Bytes>,
    /// It never needs more. The same as `limits.memory`.
    pub max_memory: Option<Bytes>,
}

/// A hook by its name alone, or with all that can be said about a binding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HookEntry {
    /// With the hook's defaults.
    Named(String),
    /// As said.
    Bound(BindingEntry),
}

// By hand, since an error inside of serde's `untagged` says neither what is wrong nor where.
impl<'de> Deserialize<'de> for HookEntry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl<'de> de::Visitor<'de> for Visitor {
            type Value = HookEntry;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of a hook, or a binding with the key `hook`")
            }

            fn visit_str<E: de::Error>(self, name: &str) -> Result<HookEntry, E> {
                Ok(HookEntry::Named(name.to_owned()))
            }

            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<HookEntry, A::Error> {
                BindingEntry::deserialize(de::value::MapAccessDeserializer::new(map)).map(HookEntry::Bound)
            }
        }

        deserializer.deserialize_any(Visitor)
    }
}

impl JsonSchema for HookEntry {
    fn schema_name() -> Cow<'static, str> {
        "HookEntry".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let binding = generator.subschema_for::<BindingEntry>();
        json_schema!({
            "description": "A hook by its name, or a binding.",
            "anyOf": [{ "type": "string" }, binding]
        })
    }
}

/// What a plugin asks for, and what it can do with less of.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Permissions(pub BTreeMap<Capability, Scope>);

/// How much of a capability is asked for. A grant that is wider counts for this much only.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Scope {
    /// Of `http`: hosts, as names or glob patterns; any without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hosts: Option<Vec<String>>,
}

impl<'de> Deserialize<'de> for Permissions {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Permissions;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of capabilities, or a map from capabilities to details")
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, mut list: A) -> Result<Permissions, A::Error> {
                let mut permissions = BTreeMap::new();
                while let Some(capability) = list.next_element::<Capability>()? {
                    permissions.insert(capability, Scope::default());
                }
                Ok(Permissions(permissions))
            }

            fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Permissions, A::Error> {
                let mut permissions = BTreeMap::new();
                // As text first, which error messages can quote.
                while let Some(name) = map.next_key::<String>()? {
                    let capability = Capability::deserialize(name.into_deserializer())?;
                    let scope = map.next_value::<Option<Scope>>()?.unwrap_or_default();
                    if capability != Capability::Http && scope.hosts.is_some() {
                        return Err(de::Error::custom(format_args!("{capability} has no hosts; http has")));
                    }
                    if permissions.insert(capability, scope).is_some() {
                        return Err(de::Error::custom(format_args!("{capability} is there twice")));
                    }
                }
                Ok(Permissions(permissions))
            }
        }

        deserializer.deserialize_any(Visitor)
    }
}

impl JsonSchema for Permissions {
    fn schema_name() -> Cow<'static, str> {
        "Permissions".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let names: Vec<&str> = Capability::ALL.into_iter().map(Capability::name).collect();
        let scope = generator.subschema_for::<Option<Scope>>();
        json_schema!({
            "description": "A list of capabilities, or a map from capabilities to details.",
            "anyOf": [
                { "type": "array", "items": { "enum": names } },
                { "type": "object", "propertyNames": { "enum": names }, "additionalProperties": scope }
            ]
        })
    }
}
