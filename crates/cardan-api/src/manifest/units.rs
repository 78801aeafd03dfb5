//! Sizes and times as people write them.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A size: `"64MiB"`, `"10kB"`, or a plain number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bytes(pub u64);

/// A time: `"100ms"`, `"2s"`, `"1m"`, or a plain number of milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Milliseconds(pub u64);

const SIZES: [(&str, u64); 7] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("kB", 1000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("B", 1),
];

const TIMES: [(&str, u64); 4] = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000)];

impl Milliseconds {
    /// The same as a duration.
    pub fn duration(self) -> Duration {
        Duration::from_millis(self.0)
    }
}

/// A whole number with one of `units` behind it.
fn parse(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit.trim())?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

/// The shortest form that says the same.
fn write(f: &mut fmt::Formatter<'_>, value: u64, units: &[(&str, u64)]) -> fmt::Result {
    let fits = units.iter().filter(|(_, factor)| value > 0 && value.is_multiple_of(*factor));
    match fits.max_by_key(|(_, factor)| *factor) {
        Some((unit, factor)) => write!(f, "{}{unit}", value / factor),
        None => write!(f, "{value}{}", units[units.len() - 1].0),
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write(f, self.0, &[("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)])
    }
}

impl fmt::Display for Milliseconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write(f, self.0, &[("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)])
    }
}

/// Accepts a number as it is, and text in units.
struct Quantity {
    units: &'static [(&'static str, u64)],
    expected: &'static str,
}

impl de::Visitor<'_> for Quantity {
    type Value = u64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expected)
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<u64, E> {
        Ok(value)
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<u64, E> {
        u64::try_from(value).map_err(|_| E::invalid_value(de::Unexpected::Signed(value), &self))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<u64, E> {
        parse(text, self.units).ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
    }
}

macro_rules! quantity {
    ($name:ident, $units:expr, $expected:literal, $pattern:literal) => {
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_any(Quantity { units: $units, expected: $expected }).map(Self)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({
                    "description": $expected,
                    "oneOf": [{ "type": "integer", "minimum": 0 }, { "type": "string", "pattern": $pattern }]
                })
            }
        }
    };
}

quantity!(
    Bytes,
    &SIZES,
    "a size such as \"64MiB\" (units B, kB, KiB, MB, MiB, GB, GiB) or a number of bytes",
    "^[0-9]+ ?([kMG]B|[KMG]iB|B)$"
);
quantity!(
    Milliseconds,
    &TIMES,
    "a time such as \"100ms\" (units ms, s, m, h) or a number of milliseconds",
    "^[0-9]+ ?(ms|s|m|h)$"
);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// What is printed is read as the same quantity, whatever unit it came out in.
        #[test]
        fn printed_and_read(number in any::<u64>(), factor in prop::sample::select(vec![1, 1000, 1 << 30])) {
            let number = number / factor * factor;
            let bytes = serde_json::to_string(&Bytes(number)).unwrap();
            prop_assert_eq!(serde_json::from_str::<Bytes>(&bytes).unwrap(), Bytes(number), "{}", bytes);
            let time = serde_json::to_string(&Milliseconds(number)).unwrap();
            prop_assert_eq!(serde_json::from_str::<Milliseconds>(&time).unwrap(), Milliseconds(number), "{}", time);
        }

        #[test]
        fn any_text_is_read_or_refused(text in any::<String>()) {
            let text = serde_json::to_string(&text).unwrap();
            drop(serde_json::from_str::<Bytes>(&text));
            drop(serde_json::from_str::<Milliseconds>(&text));
        }
    }

    #[test]
    fn quantities() {
        #[track_caller]
        fn check(text: &str, bytes: Option<u64>, milliseconds: Option<u64>) {
            assert_eq!(serde_json::from_str::<Bytes>(text).ok().map(|it| it.0), bytes, "{text}");
            assert_eq!(
                serde_json::from_str::<Milliseconds>(text).ok().map(|it| it.0),
                milliseconds,
                "{text}"
            );
        }
        check("7", Some(7), Some(7));
        check(r#""64MiB""#, Some(64 << 20), None);
        check(r#""10 kB""#, Some(10_000), None);
        check(r#""100ms""#, None, Some(100));
        check(r#""2s""#, None, Some(2000));
        check(r#""1m""#, None, Some(60_000));
        check(r#""""#, None, None);
        check(r#""MiB""#, None, None);
        check("-1", None, None);
        check("1.5", None, None);
        check(r#""99999999999999999999B""#, None, None);
        check(r#""18446744073709551615GiB""#, None, None);
        assert_eq!(Bytes(64 << 20).to_string(), "64MiB");
        assert_eq!(Bytes(1000).to_string(), "1000B");
        assert_eq!(Milliseconds(90_000).to_string(), "90s");
        assert_eq!(Milliseconds(0).to_string(), "0ms");
    }
}
