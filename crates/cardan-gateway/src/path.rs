//! Paths and hosts in the one form that everybody reads alike.

use std::borrow::Cow;

use cardan_api::path::{BadEncoding, normal_form};

use crate::config::AmbiguousPaths;

/// Why a path is not served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BadPath {
    /// Not a path, or one with a dot segment or a broken percent-encoding.
    Malformed,
    /// [`AmbiguousPaths`].
    Ambiguous,
}

/// Brings a path to the form that routes, rules, plugins and upstreams read alike.
pub(crate) fn normalise(path: &str, ambiguous: AmbiguousPaths) -> Result<Cow<'_, str>, BadPath> {
    if !path.starts_with('/') {
        return Err(BadPath::Malformed);
    }
    let path = normal_form(path).map_err(|BadEncoding| BadPath::Malformed)?;
    for segment in path.split('/') {
        // Java servers cut parameters off before they look at dots.
        let name = segment.split(';').next().and_then(|name| name.split("%3B").next());
        if matches!(name, Some("." | "..")) {
            return Err(BadPath::Malformed);
        }
    }
    let odd = ["//", "\\", ";", "%2F", "%5C", "%3B", "%00"].iter().any(|odd| path.contains(odd));
    if (odd || is_encoded_twice(&path)) && ambiguous == AmbiguousPaths::Refuse {
        return Err(BadPath::Ambiguous);
    }
    Ok(path)
}

/// Whether the path reads on as percent-encoding when it is decoded once.
fn is_encoded_twice(path: &str) -> bool {
    let mut parts = path.split("%25").skip(1);
    parts.any(|part| part.len() >= 2 && part.bytes().take(2).all(|digit| digit.is_ascii_hexdigit()))
}

/// The host of an authority: no user, no port, no final dot, in lower case.
pub(crate) fn host_of(authority: &str) -> String {
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let host = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check_path(path: &str, expected: Result<&str, BadPath>) {
        assert_eq!(normalise(path, AmbiguousPaths::Refuse).as_deref(), expected.as_deref(), "{path}");
    }

    #[test]
    fn everybody_reads_the_same_path() {
        check_path("/", Ok("/"));
        check_path("/v1/ch%61t%2dx%7e/", Ok("/v1/chat-x~/"));
        check_path("/a%20b%c3%a9", Ok("/a%20b%C3%A9"));
        check_path("/g%3AgenerateContent/{é}", Ok("/g:generateContent/%7B%C3%A9%7D"));
        check_path("/a...b/..c/.d", Ok("/a...b/..c/.d"));
        for malformed in [
            "",
            "*",
            "a",
            "/.",
            "/a/..",
            "/a/../b",
            "/%2e%2E/b",
            "/..;x/b",
            "/..%3bx/b",
            "/a%",
            "/a%2",
            "/a%zz",
            "/%+1",
        ] {
            check_path(malformed, Err(BadPath::Malformed));
        }
        for plain in ["/100%25", "/a%25zz", "/a%252", "/a%25%20b"] {
            check_path(plain, Ok(plain));
        }
        for ambiguous in [
            "//",
            "/a//b",
            "/a%2fb",
            "/a\\b",
            "/a%5Cb",
            "/a%00",
            "/a;b",
            "/a;",
            "/a%3bb",
            "/a%252fb",
            "/a%25%32%66",
            "/%252e%252e/b",
        ] {
            check_path(ambiguous, Err(BadPath::Ambiguous));
            assert!(normalise(ambiguous, AmbiguousPaths::PassOn).is_ok());
        }
    }

    #[test]
    fn the_host_of_an_authority() {
        let rows = [
            ("Example.COM", "example.com"),
            ("example.com:8080", "example.com"),
            ("example.com.:80", "example.com"),
            ("[::1]:80", "[::1]"),
            ("[::1]", "[::1]"),
            ("user:pass@h:1", "h"),
            ("", ""),
        ];
        for (authority, host) in rows {
            assert_eq!(host_of(authority), host, "{authority}");
        }
    }

    proptest! {
        #[test]
        fn a_normal_path_stays(path in "/[a-z%0-9A-F./;é]{0,30}") {
            if let Ok(normal) = normalise(&path, AmbiguousPaths::PassOn) {
                let again = normalise(&normal, AmbiguousPaths::PassOn).map(Cow::into_owned);
                prop_assert_eq!(again, Ok(normal.clone().into_owned()));
            }
        }
    }
}
