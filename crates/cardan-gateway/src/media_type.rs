//! What a request's `content-type` says about its body, where a plugin is to be shown that body.
//!
//! Servers disagree about a field that comes twice, about quotes, and about parameters that come twice: one
//! takes the first `charset`, another the last, a third whatever follows the word. A guard that reads UTF-8
//! where the upstream reads UTF-7 guards nothing. So the field has to be one value with one reading, and
//! every charset it could be found to name has to be UTF-8.

use std::fmt;

use cardan_api::http::Headers;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue};

/// What is wrong with a `content-type`; for the client who sent it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BadType(&'static str);

impl fmt::Display for BadType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// Refuses what two servers could read in two ways. `headers` are the client's, `left` is what plugins made
/// of what they were shown of them.
pub(crate) fn check(headers: &HeaderMap, left: &Headers) -> Result<(), BadType> {
    let sent = || headers.get_all(CONTENT_TYPE).iter().map(HeaderValue::as_bytes);
    let left = || {
        let fields = left.0.iter().filter(|(name, _)| name.eq_ignore_ascii_case("content-type"));
        fields.map(|(_, value)| value.as_str())
    };
    // Only an edit takes the client's bytes away; what was shown of them may read otherwise.
    match sent().map(String::from_utf8_lossy).eq(left()) {
        true => check_values(sent()),
        false => check_values(left().map(str::as_bytes)),
    }
}

fn check_values<'a>(mut values: impl Iterator<Item = &'a [u8]>) -> Result<(), BadType> {
    let Some(value) = values.next() else { return Ok(()) };
    if values.next().is_some() {
        return Err(BadType("there is more than one"));
    }
    if !value.iter().all(|byte| matches!(byte, b'\t' | b' '..=b'~')) {
        return Err(BadType("it holds characters that are not ASCII"));
    }
    let mut quoted = false;
    for byte in value {
        match (byte, quoted) {
            (b'"', _) => quoted = !quoted,
            (b';', true) => return Err(BadType("it has a semicolon in quotes")),
            // In a field of one value a comma is where a second begins.
            (b',', false) => return Err(BadType("there is more than one")),
            _ => {}
        }
    }
    if quoted {
        return Err(BadType("it has a quote that does not end"));
    }
    // Found wherever it stands, as those servers find it that look for the word only.
    let lower = value.to_ascii_lowercase();
    let mut rest = &lower[..];
    while let Some(at) = rest.windows(CHARSET.len()).position(|word| word == CHARSET) {
        rest = rest.get(at + CHARSET.len()..).unwrap_or_default();
        if !names_utf_8(rest) {
            return Err(BadType("it names a charset that is not utf-8"));
        }
    }
    Ok(())
}

const CHARSET: &[u8] = b"charset";

/// Whether what follows the word is `=` and UTF-8, up to the end of the parameter. ASCII is UTF-8 too.
fn names_utf_8(after: &[u8]) -> bool {
    let parameter = after.split(|byte| *byte == b';').next().unwrap_or_default();
    let Some(value) = parameter.trim_ascii().strip_prefix(b"=") else { return false };
    let value = value.trim_ascii();
    let unquoted = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\""));
    matches!(unquoted.unwrap_or(value), b"utf-8" | b"utf8" | b"us-ascii")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_sent(values: &[&[u8]], edit: Option<&str>, expected: Result<(), &'static str>) {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(CONTENT_TYPE, HeaderValue::from_bytes(value).unwrap());
        }
        let mut left = crate::headers::shown(&headers);
        if let Some(edit) = edit {
            left.set("content-type", edit);
        }
        assert_eq!(check(&headers, &left), expected.map_err(BadType), "{values:?} {edit:?}");
    }

    #[test]
    fn a_type_with_one_reading() {
        for fine in [
            "",
            "application/json",
            "application/json; charset=utf-8",
            "application/json ;\tCHARSET = \"UTF-8\"; charset=utf8",
            "text/plain;charset=us-ascii",
            "multipart/form-data; boundary=\"a,b=c\"",
            "application/octet-stream",
            "application/json; profile=\"https://example.com/x\"",
        ] {
            check_sent(&[fine.as_bytes()], None, Ok(()));
        }
        check_sent(&[], None, Ok(()));
    }

    #[test]
    fn a_charset_is_found_wherever_it_hides() {
        for other in [
            "application/json; charset=utf-7",
            "application/json; charset=utf-8; charset=utf-7",
            "text/plain; charset=utf-7; charset=utf-8",
            "application/json; charset=\t utf-7",
            "application/json; charset=\"ut\\f-7\"",
            "application/json; charset*=''utf-7",
            "application/json; charset*0=utf; charset*1=-7",
            "application/json; charset=utf-8 charset=utf-7",
            "application/json; charset",
            "application/json; x=\"charset=utf-7\"",
        ] {
            check_sent(&[other.as_bytes()], None, Err("it names a charset that is not utf-8"));
        }
    }

    #[test]
    fn what_has_two_readings() {
        const TWO: Result<(), &str> = Err("there is more than one");
        const ASCII: Result<(), &str> = Err("it holds characters that are not ASCII");
        check_sent(&[b"application/json", b"application/json"], None, TWO);
        check_sent(&[b"text/plain, application/json"], None, TWO);
        check_sent(&[b"application/json", b"\xff"], None, TWO);
        check_sent(&[b"application/json; charset=utf-7; x=\"\xff\""], None, ASCII);
        check_sent(&["application/json; x=é".as_bytes()], None, ASCII);
        let semicolon = b"application/json; x=\"; charset=utf-8\"; charset=utf-7";
        check_sent(&[semicolon], None, Err("it has a semicolon in quotes"));
        check_sent(&[b"application/json; x=\""], None, Err("it has a quote that does not end"));
        // What plugins have put in its place is what the upstream sees.
        check_sent(&[b"text/plain; charset=utf-7"], Some("text/plain"), Ok(()));
        check_sent(&[b"text/plain", b"\xff"], Some("text/html"), Ok(()));
        check_sent(&[b"\xff"], Some("a/b, c/d"), TWO);
    }
}
