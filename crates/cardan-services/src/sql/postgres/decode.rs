//! Rows as JSON, from PostgreSQL's binary formats.

use std::error::Error;

use cardan::SqlFailure;
use serde_json::Value;
use tokio_postgres::Row;
use tokio_postgres::types::{FromSql, Kind, Type};

use crate::sql::{statement_error, values};

/// Seconds between 1970 and 2000, from which the server counts.
const EPOCH_2000: i64 = 946_684_800;

/// A row's values.
pub(super) fn decode(row: &Row) -> Result<Vec<Value>, SqlFailure> {
    let columns = row.columns().iter().enumerate();
    let decoded = columns.map(|(index, column)| {
        let raw = row
            .try_get::<_, Option<Raw<'_>>>(index)
            .map_err(|error| statement_error("22000", format!("column {:?}: {error}", column.name())))?;
        let Some(Raw(bytes)) = raw else { return Ok(Value::Null) };
        value(column.type_(), bytes).ok_or_else(|| {
            let (name, ty) = (column.name(), column.type_());
            statement_error(
                "0A000",
                format!("column {name:?} of type {ty} has no form in JSON: cast it to text"),
            )
        })
    });
    decoded.collect()
}

/// The bytes of a value of any type.
struct Raw<'a>(&'a [u8]);

impl<'a> FromSql<'a> for Raw<'a> {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        Ok(Self(raw))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

fn value(ty: &Type, raw: &[u8]) -> Option<Value> {
    if let Kind::Domain(inner) = ty.kind() {
        return value(inner, raw);
    }
    if let Kind::Array(item) = ty.kind() {
        return array(item, raw);
    }
    if matches!(ty.kind(), Kind::Enum(_)) {
        return text(raw);
    }
    match *ty {
        Type::BOOL => Some((*raw.first()? != 0).into()),
        Type::INT2 => Some(i16::from_be_bytes(raw.try_into().ok()?).into()),
        Type::INT4 => Some(i32::from_be_bytes(raw.try_into().ok()?).into()),
        Type::INT8 => Some(i64::from_be_bytes(raw.try_into().ok()?).into()),
        Type::OID => Some(u32::from_be_bytes(raw.try_into().ok()?).into()),
        Type::FLOAT4 => Some(values::float(f32::from_be_bytes(raw.try_into().ok()?).into())),
        Type::FLOAT8 => Some(values::float(f64::from_be_bytes(raw.try_into().ok()?))),
        Type::NUMERIC => numeric(raw).map(Value::String),
        Type::TEXT | Type::VARCHAR | Type::BPCHAR | Type::NAME | Type::UNKNOWN | Type::XML | Type::CHAR => {
            text(raw)
        }
        Type::JSON => serde_json::from_slice(raw).ok(),
        // After the version of its format.
        Type::JSONB => serde_json::from_slice(raw.strip_prefix(&[1])?).ok(),
        Type::BYTEA => Some(values::base64(raw)),
        Type::UUID => uuid(raw).map(Value::String),
        Type::VOID => Some(Value::Null),
        Type::DATE => date(i64::from(i32::from_be_bytes(raw.try_into().ok()?))).map(Value::String),
        Type::TIME => clock(i64::from_be_bytes(raw.try_into().ok()?)).map(Value::String),
        Type::TIMESTAMP => timestamp(i64::from_be_bytes(raw.try_into().ok()?), "").map(Value::String),
        Type::TIMESTAMPTZ => timestamp(i64::from_be_bytes(raw.try_into().ok()?), "Z").map(Value::String),
        _ => None,
    }
}

fn text(raw: &[u8]) -> Option<Value> {
    std::str::from_utf8(raw).ok().map(Value::from)
}

/// Dimensions, then items in order.
fn array(item: &Type, mut raw: &[u8]) -> Option<Value> {
    let dimensions = usize::try_from(int4(&mut raw)?).ok()?;
    let _has_null = int4(&mut raw)?;
    let _item_type = int4(&mut raw)?;
    let mut lengths = Vec::new();
    for _ in 0..dimensions {
        lengths.push(usize::try_from(int4(&mut raw)?).ok()?);
        let _first_index = int4(&mut raw)?;
    }
    if lengths.is_empty() {
        return Some(Value::Array(Vec::new()));
    }
    items(item, &lengths, &mut raw)
}

fn items(item: &Type, lengths: &[usize], raw: &mut &[u8]) -> Option<Value> {
    let Some((length, inner)) = lengths.split_first() else {
        let bytes = int4(raw)?;
        let Ok(bytes) = usize::try_from(bytes) else { return Some(Value::Null) };
        let (head, rest) = raw.split_at_checked(bytes)?;
        *raw = rest;
        return value(item, head);
    };
    // Not by the length it says: every item takes some bytes.
    let mut list = Vec::new();
    for _ in 0..*length {
        list.push(items(item, inner, raw)?);
    }
    Some(Value::Array(list))
}

fn int4(raw: &mut &[u8]) -> Option<i32> {
    let (head, rest) = raw.split_first_chunk::<4>()?;
    *raw = rest;
    Some(i32::from_be_bytes(*head))
}

fn int2(raw: &mut &[u8]) -> Option<i16> {
    let (head, rest) = raw.split_first_chunk::<2>()?;
    *raw = rest;
    Some(i16::from_be_bytes(*head))
}

fn uuid(raw: &[u8]) -> Option<String> {
    let raw: [u8; 16] = raw.try_into().ok()?;
    let hex = format!("{:032x}", u128::from_be_bytes(raw));
    Some([&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-"))
}

/// Digits of base 10,000, the position of the first, a sign and the number of decimals to show.
fn numeric(mut raw: &[u8]) -> Option<String> {
    let count = usize::try_from(int2(&mut raw)?).ok()?;
    let weight = i32::from(int2(&mut raw)?);
    let sign = int2(&mut raw)?.cast_unsigned();
    let decimals = usize::try_from(int2(&mut raw)?).ok()?;
    let sign = match sign {
        0 => "",
        0x4000 => "-",
        0xc000 => return Some("NaN".to_owned()),
        0xd000 => return Some("Infinity".to_owned()),
        0xf000 => return Some("-Infinity".to_owned()),
        _ => return None,
    };
    let mut digits = Vec::new();
    for _ in 0..count {
        digits.push(int2(&mut raw)?);
    }
    let digit = |position: i32| {
        usize::try_from(weight - position).ok().and_then(|index| digits.get(index)).copied().unwrap_or(0)
    };
    let mut whole = String::new();
    for position in (0..=weight.max(0)).rev() {
        whole.push_str(&format!("{:04}", digit(position)));
    }
    let whole = whole.trim_start_matches('0');
    let whole = if whole.is_empty() { "0" } else { whole };
    if decimals == 0 {
        return Some(format!("{sign}{whole}"));
    }
    let mut fraction = String::new();
    let mut position = -1;
    while fraction.len() < decimals {
        fraction.push_str(&format!("{:04}", digit(position)));
        position -= 1;
    }
    fraction.truncate(decimals);
    Some(format!("{sign}{whole}.{fraction}"))
}

/// Days since 2000-01-01, as ISO 8601 has it.
fn date(days: i64) -> Option<String> {
    if days == i64::from(i32::MAX) || days == i64::from(i32::MIN) {
        return Some(if days > 0 { "infinity" } else { "-infinity" }.to_owned());
    }
    // Civil from days, in years that begin with March so that the leap day is the last.
    let days = days + EPOCH_2000 / 86_400 + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    Some(format!("{year:04}-{month:02}-{day:02}"))
}

/// Microseconds since midnight.
fn clock(micros: i64) -> Option<String> {
    let (seconds, fraction) = (micros.div_euclid(1_000_000), micros.rem_euclid(1_000_000));
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let mut text = format!("{hours:02}:{minutes:02}:{seconds:02}");
    if fraction != 0 {
        text.push_str(format!(".{fraction:06}").trim_end_matches('0'));
    }
    Some(text)
}

/// Microseconds since 2000-01-01.
fn timestamp(micros: i64, zone: &str) -> Option<String> {
    const DAY: i64 = 86_400_000_000;
    if micros == i64::MAX || micros == i64::MIN {
        return Some(if micros > 0 { "infinity" } else { "-infinity" }.to_owned());
    }
    Some(format!("{}T{}{zone}", date(micros.div_euclid(DAY))?, clock(micros.rem_euclid(DAY))?))
}
