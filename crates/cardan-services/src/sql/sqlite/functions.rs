//! SQLite's functions whose time is that of one argument times another, in linear time.
//!
//! One function's call is not interrupted. With arguments of some MiB SQLite's own take minutes, and `trim`
//! hours. What these return is what SQLite's return.

use std::borrow::Cow;
use std::collections::HashSet;

use memchr::memmem;
use rusqlite::functions::{Context, FunctionFlags};
use rusqlite::types::{Value, ValueRef};
use rusqlite::{Connection, Error};

use super::LENGTH_MAX;

/// Puts them in the place of SQLite's.
pub(super) fn define(connection: &Connection) -> rusqlite::Result<()> {
    let flags =
        FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC | FunctionFlags::SQLITE_INNOCUOUS;
    let define = |name: &str, arguments, function: fn(&Context<'_>) -> rusqlite::Result<Value>| {
        connection.create_scalar_function(name, arguments, flags, function)
    };
    define("instr", 2, instr)?;
    define("replace", 3, replace)?;
    define("trim", 2, |context| trim(context, Ends { left: true, right: true }))?;
    define("ltrim", 2, |context| trim(context, Ends { left: true, right: false }))?;
    define("rtrim", 2, |context| trim(context, Ends { left: false, right: true }))?;
    define("unhex", 2, unhex)?;
    // Two objects of many keys take minutes, and one that is done here would be another function.
    define("json_patch", 2, |_| Err(refused("json_patch")))?;
    define("jsonb_patch", 2, |_| Err(refused("jsonb_patch")))
}

struct Ends {
    left: bool,
    right: bool,
}

fn refused(function: &str) -> Error {
    let why = format!(
        "{function} may take minutes and is not to be had here: use json_set, or patch it in the plugin"
    );
    Error::UserFunctionError(why.into())
}

/// What SQLite takes a value for where it wants text. `None` is NULL.
fn text<'a>(context: &'a Context<'_>, index: usize) -> Option<Cow<'a, [u8]>> {
    match context.get_raw(index) {
        ValueRef::Null => None,
        ValueRef::Integer(integer) => Some(integer.to_string().into_bytes().into()),
        ValueRef::Real(real) => Some(real_text(real).into_bytes().into()),
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => Some(bytes.into()),
    }
}

/// As `CAST(... AS TEXT)` writes it: 15 digits if they are the number, else 17.
fn real_text(real: f64) -> String {
    if real.is_infinite() {
        return if real > 0.0 { "Inf" } else { "-Inf" }.to_owned();
    }
    let (sign, real) = if real < 0.0 { ("-", -real) } else { ("", real + 0.0) };
    let short = format!("{real:.14e}");
    let exact = if short.parse() == Ok(real) { short } else { format!("{real:.16e}") };
    let (mantissa, exponent) = exact.split_once('e').unwrap_or((&exact, "0"));
    let exponent: i32 = exponent.parse().unwrap_or_default();
    let digits = mantissa.replace('.', "");
    let digits = digits.trim_end_matches('0');
    let text = match usize::try_from(exponent) {
        Ok(before @ 0..=16) => {
            let digits = format!("{digits:0<width$}", width = before + 2);
            format!("{}.{}", &digits[..=before], &digits[before + 1..])
        }
        Err(_) if exponent >= -4 => {
            format!("0.{digits:0>width$}", width = digits.len() - 1 + exponent.unsigned_abs() as usize)
        }
        _ => {
            let digits = format!("{digits:0<2}");
            let (head, rest) = digits.split_at(1);
            let way = if exponent < 0 { '-' } else { '+' };
            format!("{head}.{rest}e{way}{:02}", exponent.abs())
        }
    };
    format!("{sign}{text}")
}

fn into_text(bytes: &[u8]) -> Value {
    Value::Text(String::from_utf8_lossy(bytes).into_owned())
}

fn is_continuation(byte: u8) -> bool {
    byte & 0xc0 == 0x80
}

fn instr(context: &Context<'_>) -> rusqlite::Result<Value> {
    let (Some(haystack), Some(needle)) = (text(context, 0), text(context, 1)) else { return Ok(Value::Null) };
    let in_bytes = [0, 1].iter().all(|index| matches!(context.get_raw(*index), ValueRef::Blob(_)));
    // Characters are compared from their beginnings; what begins within one is at the beginning of it all or nowhere.
    let found = match needle.first() {
        Some(byte) if !in_bytes && is_continuation(*byte) => haystack.starts_with(&needle).then_some(0),
        _ => memmem::find(&haystack, &needle),
    };
    let Some(at) = found else { return Ok(Value::Integer(0)) };
    let before = match in_bytes {
        true => at,
        false => haystack[..at].iter().filter(|byte| !is_continuation(**byte)).count(),
    };
    Ok(Value::Integer(i64::try_from(before).map_or(i64::MAX, |before| before + 1)))
}

fn replace(context: &Context<'_>) -> rusqlite::Result<Value> {
    let (Some(source), Some(pattern)) = (text(context, 0), text(context, 1)) else { return Ok(Value::Null) };
    if pattern.is_empty() {
        return Ok(into_text(&source));
    }
    let Some(by) = text(context, 2) else { return Ok(Value::Null) };
    let (mut made, mut from) = (Vec::new(), 0);
    for at in memmem::find_iter(&source, &pattern) {
        made.extend_from_slice(&source[from..at]);
        made.extend_from_slice(&by);
        from = at + pattern.len();
        if made.len() as u64 > LENGTH_MAX {
            return Err(Error::UserFunctionError("string or blob too big".into()));
        }
    }
    made.extend_from_slice(&source[from..]);
    Ok(into_text(&made))
}

/// Characters, also of what is no UTF-8.
fn characters(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let character = first(bytes)?;
        bytes = &bytes[character.len()..];
        Some(character)
    })
}

fn first(bytes: &[u8]) -> Option<&[u8]> {
    let (lead, rest) = bytes.split_first()?;
    let more = match lead {
        0xc0.. => rest.iter().take_while(|byte| is_continuation(**byte)).count(),
        _ => 0,
    };
    Some(&bytes[..=more])
}

fn last(bytes: &[u8]) -> Option<&[u8]> {
    let lead = bytes.iter().rposition(|byte| !is_continuation(*byte));
    match lead {
        Some(lead) if bytes[lead] >= 0xc0 || lead + 1 == bytes.len() => Some(&bytes[lead..]),
        _ => bytes.split_last().map(|_| &bytes[bytes.len() - 1..]),
    }
}

fn trim(context: &Context<'_>, ends: Ends) -> rusqlite::Result<Value> {
    let (Some(source), Some(set)) = (text(context, 0), text(context, 1)) else { return Ok(Value::Null) };
    let set: HashSet<&[u8]> = characters(&set).collect();
    let mut left = &*source;
    while let Some(character) = first(left).filter(|found| ends.left && set.contains(found)) {
        left = &left[character.len()..];
    }
    while let Some(character) = last(left).filter(|found| ends.right && set.contains(found)) {
        left = &left[..left.len() - character.len()];
    }
    Ok(into_text(left))
}

/// Between two bytes, not within one, there may be characters of the second argument.
fn unhex(context: &Context<'_>) -> rusqlite::Result<Value> {
    let (Some(source), Some(passed)) = (text(context, 0), text(context, 1)) else { return Ok(Value::Null) };
    let passed: HashSet<&[u8]> = characters(&passed).collect();
    let digit = |character: &[u8]| match character {
        [byte] => char::from(*byte).to_digit(16),
        _ => None,
    };
    let mut made = Vec::new();
    let mut left = characters(&source);
    while let Some(character) = left.next() {
        match digit(character) {
            Some(high) => match left.next().and_then(digit) {
                Some(low) => made.extend(u8::try_from(high * 16 + low)),
                None => return Ok(Value::Null),
            },
            None if passed.contains(character) => {}
            None => return Ok(Value::Null),
        }
    }
    Ok(Value::Blob(made))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What SQLite's own functions say, ours say.
    #[test]
    fn as_sqlite_does_it() {
        let (theirs, ours) = (Connection::open_in_memory().unwrap(), Connection::open_in_memory().unwrap());
        define(&ours).unwrap();
        let values = [
            "NULL",
            "''",
            "'a'",
            "'aXbXc'",
            "'X'",
            "'äöü äöü'",
            "'ü'",
            "'ö '",
            "x''",
            "x'61'",
            "x'c3a4c3b6'",
            "x'b6'",
            "x'ff80'",
            "12345",
            "-5",
            "4",
            "1.5",
            "0.1",
            "1e15",
            "1e14",
            "1e16",
            "2e17",
            "12345678901234567.0",
            "1e100",
            "123456789012345678.0",
            "1e20",
            "-1.5e-7",
            "0.0001",
            "0.00001",
            "9e999",
            "-9e999",
            "-0.0",
            "3.141592653589793",
            "0.30000000000000004",
            "'0a 0B'",
            "' '",
            "'0a:'",
            "'abc'",
            "'xxabcxx'",
            "'cbax'",
        ];
        let asked = |connection: &Connection, expression: &str| -> Value {
            let statement = format!("SELECT hex(it) || typeof(it) FROM (SELECT {expression} AS it)");
            connection.query_row(&statement, [], |row| row.get(0)).unwrap()
        };
        for a in values {
            for b in values {
                let mut expressions: Vec<String> =
                    ["instr", "trim", "ltrim", "rtrim", "unhex"].map(|it| format!("{it}({a}, {b})")).into();
                expressions
                    .extend(["NULL", "''", "'yy'", "2.5"].map(|by| format!("replace({a}, {b}, {by})")));
                for expression in expressions {
                    // Text that is no UTF-8 is made such.
                    if [a, b].iter().any(|it| ["x'b6'", "x'ff80'"].contains(it))
                        && !expression.starts_with("instr")
                    {
                        continue;
                    }
                    assert_eq!(asked(&ours, &expression), asked(&theirs, &expression), "{expression}");
                }
            }
        }
    }
}
