//! Header fields on their way through: what ends at this hop, what plugins are shown, what is added.

use std::borrow::Cow;
use std::net::IpAddr;

use cardan_api::http::Headers;
use http::header::{
    ACCEPT_ENCODING, ACCEPT_RANGES, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, COOKIE, ETAG, EXPECT, HOST,
    HeaderMap, HeaderName, HeaderValue, IF_RANGE, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, RANGE, TE,
    TRANSFER_ENCODING, UPGRADE,
};

use crate::config::Forwarded;

/// Carries the visit's id in both directions.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Says that an event stream was made from a plugin's whole answer.
pub(crate) const REPLAYED: HeaderName = HeaderName::from_static("x-cardan-replayed");

const FORWARDED: HeaderName = HeaderName::from_static("forwarded");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// Fields that mean this connection only (RFC 9110, section 7.6.1), beside those that `Connection`
/// names. The `Proxy-` fields are for us, who need none.
const THIS_HOP: [HeaderName; 8] = [
    CONNECTION,
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("keep-alive"),
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
];

/// Fields that describe the bytes of a body, and are wrong once a plugin has changed them.
const OF_THE_BYTES: [HeaderName; 8] = [
    CONTENT_ENCODING,
    CONTENT_LENGTH,
    ETAG,
    ACCEPT_RANGES,
    HeaderName::from_static("content-md5"),
    HeaderName::from_static("digest"),
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("repr-digest"),
];

/// A plugin's edits made a field that HTTP does not allow.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NotAField;

/// The fields plugins are shown. Bytes that are no UTF-8 are shown as U+FFFD, so that a plugin knows of the
/// field and can take it out.
pub(crate) fn shown(headers: &HeaderMap) -> Headers {
    Headers(pairs(headers).map(|(name, value)| (name.to_owned(), value.into_owned())).collect())
}

/// The fields to send: what plugins left, byte for byte where they left it as it was shown. `headers` is the
/// map that was shown and comes back untouched if nobody edited.
pub(crate) fn after_edits(headers: HeaderMap, shown: &Headers) -> Result<HeaderMap, NotAField> {
    if pairs(&headers).eq(shown.0.iter().map(|(name, value)| (name.as_str(), Cow::Borrowed(value.as_str()))))
    {
        return Ok(headers);
    }
    // A map takes some 24,000 fields.
    let mut edited = HeaderMap::try_with_capacity(shown.0.len()).map_err(|_| NotAField)?;
    for (name, value) in &shown.0 {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| NotAField)?;
        let value = HeaderValue::from_bytes(value.as_bytes()).map_err(|_| NotAField)?;
        edited.try_append(name, value).map_err(|_| NotAField)?;
    }
    for name in headers.keys() {
        let left = || shown.0.iter().filter(|(have, _)| have.eq_ignore_ascii_case(name.as_str()));
        let before = headers.get_all(name);
        let count = before.iter().count();
        // Whoever replaced or removed a field meant all of its values, and whoever added one none of them.
        if before.iter().map(text).eq(left().take(count).map(|(_, value)| value.as_str())) {
            let added: Vec<HeaderValue> = edited.get_all(name).iter().skip(count).cloned().collect();
            edited.remove(name);
            for value in before.iter().cloned().chain(added) {
                edited.append(name, value);
            }
        }
    }
    Ok(edited)
}

fn pairs(headers: &HeaderMap) -> impl Iterator<Item = (&str, Cow<'_, str>)> {
    headers.iter().map(|(name, value)| (name.as_str(), text(value)))
}

fn text(value: &HeaderValue) -> Cow<'_, str> {
    String::from_utf8_lossy(value.as_bytes())
}

/// Takes out what means this connection only.
pub(crate) fn strip_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| HeaderName::from_bytes(name.trim().as_bytes()).ok())
        .collect();
    for name in named.iter().chain(&THIS_HOP) {
        headers.remove(name);
    }
}

/// Takes out what was true of the bytes a plugin has replaced.
pub(crate) fn strip_of_the_bytes(headers: &mut HeaderMap) {
    for name in &OF_THE_BYTES {
        headers.remove(name);
    }
}

/// Whether plugins will read the whole response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ResponseUse {
    PassedOn,
    Read,
}

/// What the upstream is told about the client and by whom.
#[derive(Debug)]
pub(crate) struct Provenance<'a> {
    pub(crate) client: IpAddr,
    /// The authority the client asked for, port included.
    pub(crate) authority: &'a str,
    pub(crate) forwarded: Forwarded,
    pub(crate) visit: &'a str,
}

/// Turns a client's fields into those of the upstream request. `host` is set for each attempt.
pub(crate) fn for_upstream(headers: &mut HeaderMap, about: &Provenance<'_>, response: ResponseUse) {
    let trailers = headers
        .get_all(TE)
        .iter()
        .any(|value| value.as_bytes().to_ascii_lowercase().windows(8).any(|word| word == b"trailers"));
    strip_hop(headers);
    // Lengths are written by the client connection; waiting for 100 is between it and us.
    for name in [HOST, CONTENT_LENGTH, EXPECT] {
        headers.remove(name);
    }
    if trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    // HTTP/2 may split cookies into fields; HTTP/1 may not (RFC 9113, section 8.2.3).
    let cookies: Vec<&[u8]> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if cookies.len() > 1
        && let Ok(joined) = HeaderValue::from_bytes(&cookies.join(&b"; "[..]))
    {
        headers.insert(COOKIE, joined);
    }
    set_forwarded(headers, about);
    set(headers, REQUEST_ID, about.visit);
    if response == ResponseUse::Read {
        // Plugins judge the whole text: not compressed, and not the part of it a client picked.
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        headers.remove(RANGE);
        headers.remove(IF_RANGE);
    }
}

fn set_forwarded(headers: &mut HeaderMap, about: &Provenance<'_>) {
    if about.forwarded == Forwarded::Replace {
        for name in [FORWARDED, FORWARDED_FOR, FORWARDED_PROTO, FORWARDED_HOST] {
            headers.remove(name);
        }
    }
    let mut hops: Vec<u8> = Vec::new();
    for value in headers.get_all(FORWARDED_FOR) {
        hops.extend_from_slice(value.as_bytes());
        hops.extend_from_slice(b", ");
    }
    hops.extend_from_slice(about.client.to_string().as_bytes());
    if let Ok(value) = HeaderValue::from_bytes(&hops) {
        headers.insert(FORWARDED_FOR, value);
    }
    if !headers.contains_key(FORWARDED_PROTO) {
        set(headers, FORWARDED_PROTO, "http");
    }
    if !headers.contains_key(FORWARDED_HOST) {
        set(headers, FORWARDED_HOST, about.authority);
    }
}

/// Sets a field whose value is known to be text; what cannot be a value is left out.
pub(crate) fn set(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    match HeaderValue::from_str(value) {
        Ok(value) => _ = headers.insert(name, value),
        Err(_) => _ = headers.remove(name),
    }
}

#[cfg(test)]
mod tests {
    use cardan_api::http::HeaderEdit;
    use proptest::prelude::*;

    use super::*;

    fn map(fields: &[(&str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            map.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        map
    }

    fn listed(map: &HeaderMap) -> Vec<String> {
        let mut listed: Vec<String> = map
            .iter()
            .map(|(name, value)| format!("{name}: {}", String::from_utf8_lossy(value.as_bytes())))
            .collect();
        listed.sort();
        listed
    }

    #[track_caller]
    fn check_upstream(sent: &[(&str, &str)], forwarded: Forwarded, response: ResponseUse, expected: &[&str]) {
        let mut headers = map(sent);
        let client = IpAddr::from([192, 0, 2, 7]);
        let about = Provenance { client, authority: "gw:8080", forwarded, visit: "00000000000000aa" };
        for_upstream(&mut headers, &about, response);
        let mut expected: Vec<String> = expected.iter().map(|line| (*line).to_owned()).collect();
        expected.push("x-request-id: 00000000000000aa".to_owned());
        expected.sort();
        assert_eq!(listed(&headers), expected);
    }

    const HOPS: [&str; 3] =
        ["x-forwarded-for: 192.0.2.7", "x-forwarded-host: gw:8080", "x-forwarded-proto: http"];

    #[test]
    fn what_means_this_hop_ends_here() {
        let sent = [
            ("host", "gw:8080"),
            ("connection", "keep-alive, X-Mine"),
            ("connection", "x-too"),
            ("keep-alive", "timeout=5"),
            ("x-mine", "1"),
            ("x-too", "1"),
            ("te", "gzip, Trailers"),
            ("transfer-encoding", "chunked"),
            ("content-length", "5"),
            ("expect", "100-continue"),
            ("upgrade", "h2c"),
            ("proxy-authorization", "x"),
            ("accept-encoding", "gzip"),
            ("range", "bytes=0-1"),
            ("x-yours", "1"),
            ("x-request-id", "theirs"),
        ];
        let mut passed = HOPS.to_vec();
        passed.extend(["te: trailers", "accept-encoding: gzip", "range: bytes=0-1", "x-yours: 1"]);
        check_upstream(&sent, Forwarded::Replace, ResponseUse::PassedOn, &passed);
        let mut read = HOPS.to_vec();
        read.extend(["te: trailers", "accept-encoding: identity", "x-yours: 1"]);
        check_upstream(&sent, Forwarded::Replace, ResponseUse::Read, &read);
    }

    #[test]
    fn clients_are_believed_only_when_told_so() {
        let sent = [
            ("forwarded", "for=1.1.1.1"),
            ("x-forwarded-for", "1.1.1.1"),
            ("x-forwarded-for", "2.2.2.2"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "outer"),
        ];
        check_upstream(&sent, Forwarded::Replace, ResponseUse::PassedOn, &HOPS);
        let kept = [
            "forwarded: for=1.1.1.1",
            "x-forwarded-for: 1.1.1.1, 2.2.2.2, 192.0.2.7",
            "x-forwarded-proto: https",
            "x-forwarded-host: outer",
        ];
        check_upstream(&sent, Forwarded::Append, ResponseUse::PassedOn, &kept);
    }

    #[test]
    fn cookies_are_one_field() {
        let mut expected = HOPS.to_vec();
        expected.push("cookie: a=1; b=2");
        check_upstream(
            &[("cookie", "a=1"), ("cookie", "b=2")],
            Forwarded::Replace,
            ResponseUse::PassedOn,
            &expected,
        );
    }

    fn with_binary() -> HeaderMap {
        let mut headers = map(&[("a", "1"), ("b", "2"), ("a", "3"), ("u", "é")]);
        headers.append("hidden", HeaderValue::from_bytes(b"\xff").unwrap());
        headers.append("b", HeaderValue::from_bytes(b"\xfe").unwrap());
        headers
    }

    #[track_caller]
    fn check_edits(edits: &[HeaderEdit], expected: Result<&[&str], NotAField>) {
        let mut shown = shown(&with_binary());
        for edit in edits {
            match edit {
                HeaderEdit::Set(name, value) => shown.set(name, value),
                HeaderEdit::Add(name, value) => shown.add(name, value),
                HeaderEdit::Remove(name) => shown.remove(name),
            }
        }
        let got = after_edits(with_binary(), &shown).map(|headers| listed(&headers));
        assert_eq!(got, expected.map(|lines| lines.iter().map(|line| (*line).to_owned()).collect()));
    }

    #[test]
    fn edits_change_what_was_shown() {
        let set = |name: &str, value: &str| HeaderEdit::Set(name.into(), value.into());
        let remove = |name: &str| HeaderEdit::Remove(name.into());
        check_edits(&[], Ok(&["a: 1", "a: 3", "b: 2", "b: \u{fffd}", "hidden: \u{fffd}", "u: é"]));
        check_edits(&[remove("A")], Ok(&["b: 2", "b: \u{fffd}", "hidden: \u{fffd}", "u: é"]));
        check_edits(&[set("a", "x"), remove("b")], Ok(&["a: x", "hidden: \u{fffd}", "u: é"]));
        check_edits(
            &[set("hidden", "y"), remove("u")],
            Ok(&["a: 1", "a: 3", "b: 2", "b: \u{fffd}", "hidden: y"]),
        );
        // No field hides behind bytes that are no text.
        check_edits(&[remove("hidden"), set("b", "y")], Ok(&["a: 1", "a: 3", "b: y", "u: é"]));
        check_edits(&[set("bad name", "y")], Err(NotAField));
        check_edits(&[set("a", "x\r\ninjected: 1")], Err(NotAField));
    }

    #[test]
    fn what_is_not_touched_keeps_its_bytes() {
        let mut left = shown(&with_binary());
        left.set("a", "x");
        let headers = after_edits(with_binary(), &left).unwrap();
        assert_eq!(headers.get("hidden").unwrap().as_bytes(), b"\xff");
        let values: Vec<&[u8]> = headers.get_all("b").iter().map(HeaderValue::as_bytes).collect();
        assert_eq!(values, [&b"2"[..], b"\xfe"]);
    }

    proptest! {
        #[test]
        fn nothing_edited_is_nothing_changed(values in proptest::collection::vec("[ -~é]{0,8}", 0..6)) {
            let fields: Vec<(String, String)> =
                values.iter().enumerate().map(|(n, value)| (format!("x-{}", n % 3), value.clone())).collect();
            let fields: Vec<(&str, &str)> = fields.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
            let headers = map(&fields);
            prop_assert_eq!(after_edits(headers.clone(), &shown(&headers)), Ok(headers));
        }
    }
}
