//! HeliosProxy's documents, as they stand in the wild: a plugin's manifest, and the `[plugins]` table of
//! `heliosproxy.toml`.
//!
//! Keys that HeliosProxy does not know are kept in `other`, so that resolving can warn about them.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de};
use serde_json::Value;

use super::{GrantsEntry, LimitsEntry, Milliseconds, text_or_number};

/// `plugin.yaml`, `plugin.toml` or `plugin.json` beside a module, and `manifest.json` of a package.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(title = "HeliosProxy plugin manifest")]
pub struct Manifest {
    /// The plugin's name; the file's stem without it.
    pub name: Option<String>,
    /// For people.
    #[serde(deserialize_with = "text_or_number")]
    pub version: Option<String>,
    /// For people.
    pub description: Option<String>,
    /// For people.
    pub author: Option<String>,
    /// For people.
    pub license: Option<String>,
    /// Names of hooks, in any of the original's spellings and any letter case.
    pub hooks: Option<Vec<String>>,
    /// Names of permissions, likewise.
    pub permissions: Vec<String>,
    /// `key: {type, required, default, description}`.
    pub config_schema: Option<Value>,
    /// The seed's spelling of memory.
    pub resources: Resources,
    /// The first-party plugins' spelling of memory.
    pub min_memory: Option<Size>,
    /// The same.
    pub max_memory: Option<Size>,
    /// Lower is asked earlier.
    pub priority: Option<i32>,
    /// In packages: 1 and whatever follows a dot.
    pub schema_version: Option<String>,
    /// In packages: pins the module.
    pub wasm_sha256: Option<String>,
    /// Keys that HeliosProxy does not have.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

/// How much memory a plugin takes.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(rename = "HeliosResources")]
pub struct Resources {
    /// It cannot run with less.
    pub min_memory: Option<Size>,
    /// It never needs more.
    pub max_memory: Option<Size>,
    /// Keys that HeliosProxy does not have.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

/// A configuration file of HeliosProxy. What is not about plugins is the proxy's, and kept apart.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[schemars(title = "heliosproxy.toml")]
pub struct File {
    /// The plugins.
    pub plugins: Plugins,
    /// Everything else.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

/// The table `[plugins]`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Plugins {
    /// Whether there are plugins at all.
    pub enabled: bool,
    /// The folder of modules; `/etc/heliosproxy/plugins` without it.
    pub plugin_dir: Option<PathBuf>,
    /// Whether changes in the folder count.
    pub hot_reload: bool,
    /// Memory of one instance, as the seed writes it.
    pub memory_limit: Option<Size>,
    /// The same as a number of MiB, as the original reads it.
    pub memory_limit_mb: Option<u64>,
    /// Time of one call, as the seed writes it.
    pub timeout: Option<Milliseconds>,
    /// The same as the original reads it.
    pub timeout_ms: Option<u64>,
    /// How many plugins there may be; 20 without it.
    pub max_plugins: Option<u32>,
    /// Whether calls are counted in fuel.
    pub fuel_metering: Option<bool>,
    /// Fuel of one call; 1,000,000 without it.
    pub fuel_limit: Option<u64>,
    /// A folder of public keys, `*.pub`.
    pub trust_root: Option<PathBuf>,
    /// Longest key and longest value, in bytes.
    pub kv_max_value_bytes: Option<u64>,
    /// Keys of one plugin.
    pub kv_max_keys_per_plugin: Option<u64>,
    /// Plugins that have keys.
    pub kv_max_plugins: Option<u64>,
    /// All keys and values together.
    pub kv_max_total_bytes: Option<u64>,
    /// What each plugin may use, by its name.
    pub permissions: BTreeMap<String, Permissions>,
    /// Tables are plugins; anything else is a key that HeliosProxy does not have.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

/// What stands behind a name in `[plugins.permissions]`: a list, unless somebody calls a plugin
/// `permissions`.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(rename = "HeliosPermissions")]
pub enum Permissions {
    /// Names of permissions.
    Listed(Vec<String>),
    /// Something else.
    Other(Value),
}

/// One table `[plugins.<name>]`.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Plugin {
    /// Whether it is loaded.
    pub enabled: bool,
    /// Lower is asked earlier.
    pub priority: Option<i32>,
    /// Handed to the plugin.
    pub config: BTreeMap<String, Value>,
    /// Ours: what it may use up.
    pub limits: LimitsEntry,
    /// Ours: what it may reach, where a permission's name does not say it.
    pub grants: GrantsEntry,
    /// Keys that neither HeliosProxy nor we have.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

impl Default for Plugin {
    fn default() -> Self {
        Self {
            enabled: true,
            priority: None,
            config: BTreeMap::new(),
            limits: LimitsEntry::default(),
            grants: GrantsEntry::default(),
            other: BTreeMap::new(),
        }
    }
}

/// A size as HeliosProxy counts: `"64MB"` is 64 times 1024 times 1024, in any letter case; a number is bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

const SIZES: [(&str, u64); 7] = [
    ("gib", 1 << 30),
    ("mib", 1 << 20),
    ("kib", 1 << 10),
    ("gb", 1 << 30),
    ("mb", 1 << 20),
    ("kb", 1 << 10),
    ("b", 1),
];

impl Size {
    fn parse(text: &str) -> Option<Self> {
        let text = text.trim().to_ascii_lowercase();
        let (number, factor) = SIZES
            .iter()
            .find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, *factor)))
            .unwrap_or((&text, 1));
        let number = number.trim_end();
        if !number.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        number.parse::<u64>().ok()?.checked_mul(factor).map(Self)
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl de::Visitor<'_> for Visitor {
            type Value = Size;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a size such as \"64MB\" (units B, KB, MB, GB) or a number of bytes")
            }

            fn visit_u64<E: de::Error>(self, value: u64) -> Result<Size, E> {
                Ok(Size(value))
            }

            fn visit_i64<E: de::Error>(self, value: i64) -> Result<Size, E> {
                let value = u64::try_from(value);
                value.map(Size).map_err(|_| E::custom("a size is not below zero"))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Size, E> {
                Size::parse(text).ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
            }
        }

        deserializer.deserialize_any(Visitor)
    }
}

impl JsonSchema for Size {
    fn schema_name() -> Cow<'static, str> {
        "HeliosSize".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A size such as \"64MB\", counted in powers of 1024, or a number of bytes.",
            "oneOf": [
                { "type": "integer", "minimum": 0 },
                { "type": "string", "pattern": "^[0-9]+ ?([kKmMgG]?([iI]?[bB])?)$" }
            ]
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in any::<String>()) {
            let _ = Size::parse(&text);
        }

        #[test]
        fn units_and_blanks(number in 0_u64..1 << 30, row in prop::sample::select(SIZES.to_vec()), blank in " ?") {
            let (unit, factor) = row;
            for unit in [unit.to_owned(), unit.to_uppercase()] {
                prop_assert_eq!(Size::parse(&format!("{number}{blank}{unit}")), Some(Size(number * factor)));
            }
            prop_assert_eq!(Size::parse(&number.to_string()), Some(Size(number)));
        }
    }

    #[test]
    fn sizes() {
        #[track_caller]
        fn check(text: &str, bytes: Option<u64>) {
            assert_eq!(serde_json::from_str::<Size>(text).ok().map(|it| it.0), bytes, "{text}");
        }
        check(r#""64MB""#, Some(64 << 20));
        check("16777216", Some(16 << 20));
        check(r#""16777216""#, Some(16 << 20));
        for wrong in [r#""""#, r#""MB""#, r#""-1MB""#, r#""1.5MB""#, r#""+1""#, "-1", "1.5", "[]"] {
            check(wrong, None);
        }
        check(r#""99999999999GB""#, None);
    }
}
