//! Grants in `cardan.yaml`. Most have a short form: one word, or a list, for the one thing that is mostly said.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, de};

use super::units::{Bytes, Milliseconds};
pub use crate::grants::Access as AccessEntry;
use crate::grants::LogLevel;

/// Grants in `cardan.yaml`. What is not here the plugin cannot reach, but for log lines, time and random
/// bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct GrantsEntry {
    /// Hosts it may ask over HTTP; a list of hosts, or a map.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http: Option<Short<HttpEntry>>,
    /// Its own key-value store: `read` or `write`, or a map.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kv: Option<Short<KvEntry>>,
    /// A cache that plugins can share: `read` or `write`, or a map.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache: Option<Short<CacheEntry>>,
    /// Database connections by name: `read` or `write`, or a map, for each.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub sql: BTreeMap<String, Short<SqlEntry>>,
    /// Metrics of its own: `on`, or a map.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metrics: Option<Short<MetricsEntry>>,
    /// Least important level of log lines that are taken and kept, or `off`; `info` are kept unless said
    /// otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log: Option<LogEntry>,
    /// The time; `on` unless said otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clock: Option<SwitchEntry>,
    /// Random bytes; `on` unless said otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub random: Option<SwitchEntry>,
    /// Directories it may open, host path to guest path; `ro:` before a host path makes it read-only.
    pub files: BTreeMap<String, String>,
    /// Names of secrets it may read.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<String>,
    /// Environment variables it sees through WASI: names and values, or a list of names whose values are
    /// those of this process.
    #[serde(skip_serializing_if = "EnvEntry::is_empty")]
    pub env: EnvEntry,
}

/// Outgoing HTTP.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct HttpEntry {
    /// Names or glob patterns, without scheme and port.
    pub hosts: Vec<String>,
    /// Methods; all unless said otherwise.
    pub methods: Vec<String>,
    /// Addresses that are not the public Internet, such as 10.0.0.0/8, and hosts that may have such: a list,
    /// or `any`. None but those that `hosts` names exactly unless said otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub private: Option<PrivateEntry>,
    /// One response; `limits.http_response` unless said otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response: Option<Bytes>,
    /// One exchange; the time that is left of the call unless said otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Milliseconds>,
}

/// A plugin's key-value store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KvEntry {
    /// Whether it may be written to.
    pub access: AccessEntry,
    /// Keys at once; 10,000 unless said otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keys: Option<u64>,
    /// One key or value; 64 KiB unless said otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<Bytes>,
    /// All keys and values together; 16 MiB unless said otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total: Option<Bytes>,
    /// How long an entry may live; for ever unless said otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<Milliseconds>,
}

/// A cache.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CacheEntry {
    /// Whether it may be written to.
    pub access: AccessEntry,
    /// Plugins that name the same space see each other's entries; `shared` unless said otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub space: Option<String>,
    /// One key or value; 1 MiB unless said otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<Bytes>,
    /// How long an entry may live; 24 h unless said otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<Milliseconds>,
}

/// One database connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SqlEntry {
    /// Whether statements may change anything.
    pub access: AccessEntry,
    /// Rows of one result; 1,000 unless said otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<u64>,
    /// One result; 4 MiB unless said otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<Bytes>,
    /// One statement; 5 s unless said otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Milliseconds>,
}

/// Metrics of a plugin's own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct MetricsEntry {
    /// Names; 50 unless said otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub names: Option<u64>,
    /// Combinations of labels, over all names; 1,000 unless said otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub series: Option<u64>,
}

/// A map of `T`, or its short form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Short<T>(pub T);

/// What can be said in one word or list instead of a map.
pub trait Shorthand: Sized {
    /// What to write, for error messages.
    const EXPECTED: &str;

    /// The meaning of a word, if it has one.
    fn word(word: &str) -> Option<Self>;

    /// The meaning of a list, if it has one.
    fn list(items: Vec<String>) -> Option<Self> {
        let _ = items;
        None
    }

    /// The short forms' schema.
    fn short_schema() -> Schema;
}

fn access_word(word: &str) -> Option<AccessEntry> {
    match word {
        "read" => Some(AccessEntry::Read),
        "write" => Some(AccessEntry::Write),
        _ => None,
    }
}

fn access_schema() -> Schema {
    json_schema!({ "enum": ["read", "write"] })
}

impl Shorthand for HttpEntry {
    const EXPECTED: &str = "a list of hosts, or a map with hosts, methods, private, response and timeout";

    fn word(_: &str) -> Option<Self> {
        None
    }

    fn list(hosts: Vec<String>) -> Option<Self> {
        Some(Self { hosts, ..Self::default() })
    }

    fn short_schema() -> Schema {
        json_schema!({ "type": "array", "items": { "type": "string" } })
    }
}

impl Shorthand for KvEntry {
    const EXPECTED: &str = "`read`, `write`, or a map with access, keys, value, total and ttl";

    fn word(word: &str) -> Option<Self> {
        Some(Self { access: access_word(word)?, keys: None, value: None, total: None, ttl: None })
    }

    fn short_schema() -> Schema {
        access_schema()
    }
}

impl Shorthand for CacheEntry {
    const EXPECTED: &str = "`read`, `write`, or a map with access, space, value and ttl";

    fn word(word: &str) -> Option<Self> {
        Some(Self { access: access_word(word)?, space: None, value: None, ttl: None })
    }

    fn short_schema() -> Schema {
        access_schema()
    }
}

impl Shorthand for SqlEntry {
    const EXPECTED: &str = "`read`, `write`, or a map with access, rows, result and timeout";

    fn word(word: &str) -> Option<Self> {
        Some(Self { access: access_word(word)?, rows: None, result: None, timeout: None })
    }

    fn short_schema() -> Schema {
        access_schema()
    }
}

impl Shorthand for MetricsEntry {
    const EXPECTED: &str = "`on`, or a map with names and series";

    fn word(word: &str) -> Option<Self> {
        matches!(word, "on" | "true").then(Self::default)
    }

    fn short_schema() -> Schema {
        json_schema!({ "enum": ["on", true] })
    }
}

impl<T: Serialize> Serialize for Short<T> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

// By hand, since an error inside of serde's `untagged` says neither what is wrong nor where.
impl<'de, T: Shorthand + Deserialize<'de>> Deserialize<'de> for Short<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ShortVisitor(PhantomData))
    }
}

struct ShortVisitor<T>(PhantomData<T>);

impl<'de, T: Shorthand + Deserialize<'de>> de::Visitor<'de> for ShortVisitor<T> {
    type Value = Short<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(T::EXPECTED)
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Short<T>, E> {
        // What some readers of YAML make of `on`.
        self.visit_str(if value { "true" } else { "false" })
    }

    fn visit_str<E: de::Error>(self, word: &str) -> Result<Short<T>, E> {
        T::word(word).map(Short).ok_or_else(|| E::invalid_value(de::Unexpected::Str(word), &self))
    }

    fn visit_seq<A: de::SeqAccess<'de>>(self, list: A) -> Result<Short<T>, A::Error> {
        let items = Vec::deserialize(de::value::SeqAccessDeserializer::new(list))?;
        T::list(items).map(Short).ok_or_else(|| de::Error::invalid_type(de::Unexpected::Seq, &self))
    }

    fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<Short<T>, A::Error> {
        T::deserialize(de::value::MapAccessDeserializer::new(map)).map(Short)
    }
}

impl<T: Shorthand + JsonSchema> JsonSchema for Short<T> {
    fn schema_name() -> Cow<'static, str> {
        format!("{}OrShort", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [T::short_schema(), generator.subschema_for::<T>()] })
    }
}

/// Private addresses that may be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PrivateEntry {
    /// Ranges of addresses, and hosts.
    Listed(Vec<String>),
    /// All.
    Any,
}

/// On or off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SwitchEntry {
    /// Granted.
    On,
    /// Not.
    Off,
}

/// Log lines that are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogEntry {
    /// From this level on.
    From(LogLevel),
    /// None.
    Off,
}

/// Environment variables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EnvEntry {
    /// Names and values.
    Values(BTreeMap<String, String>),
    /// Names alone: whoever reads the file looks the values up.
    Names(Vec<String>),
}

impl Default for EnvEntry {
    fn default() -> Self {
        Self::Values(BTreeMap::new())
    }
}

impl EnvEntry {
    /// Whether there is no variable.
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Values(values) => values.is_empty(),
            Self::Names(names) => names.is_empty(),
        }
    }

    /// The same with values.
    ///
    /// # Errors
    ///
    /// Says which variable has none.
    pub fn with_values(&self, value: impl Fn(&str) -> Option<String>) -> Result<Self, String> {
        let Self::Names(names) = self else { return Ok(self.clone()) };
        let values = names.iter().map(|name| match value(name) {
            Some(value) => Ok((name.clone(), value)),
            None => Err(format!("grants.env: the environment variable {name} is not set")),
        });
        Ok(Self::Values(values.collect::<Result<_, _>>()?))
    }
}

macro_rules! scalar_or_list {
    ($name:ident, $expected:literal, $schema:tt, { $($visit:tt)* }, $serialize:expr) => {
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Visitor;

                impl<'de> de::Visitor<'de> for Visitor {
                    type Value = $name;

                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str($expected)
                    }

                    $($visit)*
                }
                deserializer.deserialize_any(Visitor)
            }
        }

        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let serialize: fn(&Self, S) -> Result<S::Ok, S::Error> = $serialize;
                serialize(self, serializer)
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        }
    };
}

scalar_or_list!(
    PrivateEntry,
    "a list of address ranges and hosts, or `any`",
    { "anyOf": [{ "const": "any" }, { "type": "array", "items": { "type": "string" } }] },
    {
        fn visit_str<E: de::Error>(self, word: &str) -> Result<PrivateEntry, E> {
            match word {
                "any" => Ok(PrivateEntry::Any),
                _ => Err(E::invalid_value(de::Unexpected::Str(word), &self)),
            }
        }

        fn visit_seq<A: de::SeqAccess<'de>>(self, list: A) -> Result<PrivateEntry, A::Error> {
            Vec::deserialize(de::value::SeqAccessDeserializer::new(list)).map(PrivateEntry::Listed)
        }
    },
    |entry, serializer| match entry {
        PrivateEntry::Any => serializer.serialize_str("any"),
        PrivateEntry::Listed(items) => items.serialize(serializer),
    }
);

scalar_or_list!(
    SwitchEntry,
    "`on` or `off`",
    { "enum": ["on", "off", true, false] },
    {
        fn visit_bool<E: de::Error>(self, value: bool) -> Result<SwitchEntry, E> {
            Ok(if value { SwitchEntry::On } else { SwitchEntry::Off })
        }

        fn visit_str<E: de::Error>(self, word: &str) -> Result<SwitchEntry, E> {
            match word {
                "on" => Ok(SwitchEntry::On),
                "off" => Ok(SwitchEntry::Off),
                _ => Err(E::invalid_value(de::Unexpected::Str(word), &self)),
            }
        }
    },
    |entry, serializer| serializer.serialize_str(if *entry == SwitchEntry::On { "on" } else { "off" })
);

scalar_or_list!(
    LogEntry,
    "`trace`, `debug`, `info`, `warn`, `error` or `off`",
    { "enum": ["trace", "debug", "info", "warn", "error", "off", false] },
    {
        fn visit_bool<E: de::Error>(self, value: bool) -> Result<LogEntry, E> {
            // What some readers of YAML make of `off`.
            if value { Err(E::invalid_value(de::Unexpected::Bool(value), &self)) } else { Ok(LogEntry::Off) }
        }

        fn visit_str<E: de::Error>(self, word: &str) -> Result<LogEntry, E> {
            let level = LogLevel::ALL.into_iter().find(|level| level.name() == word);
            match (level, word) {
                (Some(level), _) => Ok(LogEntry::From(level)),
                (None, "off") => Ok(LogEntry::Off),
                _ => Err(E::invalid_value(de::Unexpected::Str(word), &self)),
            }
        }
    },
    |entry, serializer| serializer.serialize_str(match entry {
        LogEntry::From(level) => level.name(),
        LogEntry::Off => "off",
    })
);

scalar_or_list!(
    EnvEntry,
    "a map of names and values, or a list of names",
    { "anyOf": [
        { "type": "object", "additionalProperties": { "type": "string" } },
        { "type": "array", "items": { "type": "string" } }
    ] },
    {
        fn visit_seq<A: de::SeqAccess<'de>>(self, list: A) -> Result<EnvEntry, A::Error> {
            Vec::deserialize(de::value::SeqAccessDeserializer::new(list)).map(EnvEntry::Names)
        }

        fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<EnvEntry, A::Error> {
            BTreeMap::deserialize(de::value::MapAccessDeserializer::new(map)).map(EnvEntry::Values)
        }
    },
    |entry, serializer| match entry {
        EnvEntry::Values(values) => values.serialize(serializer),
        EnvEntry::Names(names) => names.serialize(serializer),
    }
);
