//! The one spelling of a path, for those who receive paths and those who write rules about them.

use std::borrow::Cow;
use std::fmt;

/// A percent sign that is not followed by two hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadEncoding;

impl fmt::Display for BadEncoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a percent sign that begins no percent-encoding; write %25 for the sign itself")
    }
}

impl std::error::Error for BadEncoding {}

/// A path, or part of one, as everybody who reads it alike would spell it (RFC 3986, sections 2 and 6.2.2):
/// what may stand in a path is not percent-encoded, what may not is, in upper case.
///
/// What servers give a meaning of its own stays as it is written, encoded or not: `/`, `;`, `?`, `#`, `%`, `\`,
/// and control characters.
///
/// # Errors
///
/// For a percent sign that begins no percent-encoding.
pub fn normal_form(path: &str) -> Result<Cow<'_, str>, BadEncoding> {
    if !path.bytes().any(|byte| byte == b'%' || is_foreign(byte)) {
        return Ok(Cow::Borrowed(path));
    }
    let mut normal = String::with_capacity(path.len());
    let mut bytes = path.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => {
                let byte = digit(bytes.next())? << 4 | digit(bytes.next())?;
                match is_plain(byte) {
                    true => normal.push(char::from(byte)),
                    false => push_encoded(&mut normal, byte),
                }
            }
            _ if is_foreign(byte) => push_encoded(&mut normal, byte),
            _ => normal.push(char::from(byte)),
        }
    }
    Ok(Cow::Owned(normal))
}

/// Whether this character means itself in a segment of a path, encoded or not.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,=:@".contains(&byte)
}

/// Whether this byte may not stand in a path, and is sent by some clients all the same.
fn is_foreign(byte: u8) -> bool {
    !byte.is_ascii() || b" \"<>[]^`{|}".contains(&byte)
}

fn digit(byte: Option<u8>) -> Result<u8, BadEncoding> {
    match byte.ok_or(BadEncoding)? {
        digit @ b'0'..=b'9' => Ok(digit - b'0'),
        digit @ b'a'..=b'f' => Ok(digit - b'a' + 10),
        digit @ b'A'..=b'F' => Ok(digit - b'A' + 10),
        _ => Err(BadEncoding),
    }
}

fn push_encoded(text: &mut String, byte: u8) {
    const DIGITS: [char; 16] =
        ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'A', 'B', 'C', 'D', 'E', 'F'];
    text.extend(['%', DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(path: &str, expected: Result<&str, BadEncoding>) {
        assert_eq!(normal_form(path).as_deref(), expected.as_deref(), "{path}");
    }

    #[test]
    fn one_spelling() {
        check("/v1/ch%61t%2dx%7e/", Ok("/v1/chat-x~/"));
        check("/m/g%3agenerate%3AContent", Ok("/m/g:generate:Content"));
        check("/%21%24%26%27%28%29%2A%2B%2C%3D%40", Ok("/!$&'()*+,=@"));
        check("/caf%c3%a9", Ok("/caf%C3%A9"));
        check("/café", Ok("/caf%C3%A9"));
        check("/{id}|^`<>\" []", Ok("/%7Bid%7D%7C%5E%60%3C%3E%22%20%5B%5D"));
        check("/%7bid%7d", Ok("/%7Bid%7D"));
        // What has a meaning of its own keeps its spelling.
        check("/a%2fb;c%3bd%3f?%23#%25%5c\\%00", Ok("/a%2Fb;c%3Bd%3F?%23#%25%5C\\%00"));
        for broken in ["%", "%2", "/%zz", "/%+1", "/%é"] {
            check(broken, Err(BadEncoding));
        }
    }

    proptest! {
        #[test]
        fn the_normal_form_stays(path in "/[a-z%0-9A-F./;:é{\\[ ]{0,30}") {
            if let Ok(normal) = normal_form(&path) {
                prop_assert_eq!(normal_form(&normal), Ok(normal.clone()));
            }
        }
    }
}
