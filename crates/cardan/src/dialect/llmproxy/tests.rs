//! The documents. What a chain makes of them, row by row of the specification, is tested with real guests
//! in `cardan-manager`.

use cardan_api::{BodyNeed, Flow};

use super::*;
use crate::dialect::samples::{self, About};

/// A document beside the event it was made of.
fn golden(event: &impl std::fmt::Debug, document: &[u8]) -> String {
    let document: Value = serde_json::from_slice(document).unwrap();
    format!("{event:#?}\n\n----\n\n{document:#}")
}

#[test]
fn documents() {
    let about = About::sample();
    let whole = |phase| about.at(phase, BodyNeed::Whole);
    let request = samples::request(Some(br#"{"model":"m","messages":[]}"#));
    insta::assert_snapshot!(
        "pre_flight",
        golden(&request, &encode_request(&request, whole(Phase::PreFlight)).unwrap())
    );
    let response = samples::response(Some(br#"{"id":"x"}"#));
    insta::assert_snapshot!(
        "post_flight",
        golden(&response, &encode_response(&response, whole(Phase::PostFlight)).unwrap())
    );
    let complete = samples::complete();
    insta::assert_snapshot!(
        "background",
        golden(&complete, &encode_complete(&complete, whole(Phase::Background)).unwrap())
    );
}

#[test]
fn request_bodies() {
    #[track_caller]
    fn check(body: Option<&'static [u8]>, need: BodyNeed, expected: Option<&str>) {
        let about = About::sample();
        let document = encode_request(&samples::request(body), about.at(Phase::Ingress, need)).ok();
        let document = document.map(|document| String::from_utf8(document).unwrap());
        let body = document.as_deref().map(|document| {
            document.strip_prefix(r#"{"body":"#).unwrap().split_once(r#","metadata":"#).unwrap().0
        });
        assert_eq!(body, expected);
    }
    let whole = BodyNeed::Whole;
    check(None, whole, Some("{}"));
    check(Some(b""), whole, Some("{}"));
    check(
        Some(br#" {"n": 1.10, "big": 12345678901234567890123} "#),
        whole,
        Some(r#"{"n": 1.10, "big": 12345678901234567890123}"#),
    );
    check(Some(b"[1]"), whole, Some("[1]"));
    check(Some(b"plain"), whole, None);
    check(Some(b"{\"a\":\"\xff\"}"), whole, None);
    check(Some(b"plain"), BodyNeed::None, Some("{}"));
    check(Some(br#"{"a":1}"#), BodyNeed::None, Some("{}"));
}

#[test]
fn response_bodies() {
    #[track_caller]
    fn check(body: Option<&'static [u8]>, expected: &str) {
        let about = About::sample();
        let event = samples::response(body);
        let document = encode_response(&event, about.at(Phase::PostFlight, BodyNeed::Whole)).unwrap();
        let document = String::from_utf8(document).unwrap();
        assert!(document.ends_with(&format!(r#","body":{expected}}}}}"#)), "{expected} in {document}");
    }
    check(None, "null");
    check(Some(br#"{"n": 1.10}"#), r#"{"n": 1.10}"#);
    check(Some(b"plain \"text\""), r#""plain \"text\"""#);
    check(Some(b""), r#""""#);
    check(Some(b"\xff"), "\"\u{fffd}\"");
}

/// `clean_prompt` takes the place of the last user message's text, whatever form that has.
#[test]
fn clean_prompts() {
    #[track_caller]
    fn check(body: &'static str, expected: Option<&str>) {
        let output = br#"{"action":"MODIFIED","clean_prompt":"clean"}"#;
        let verdict = decode_request(&samples::request(Some(body.as_bytes())), output);
        let body =
            verdict.ok().map(|verdict| String::from_utf8(verdict.edits.body.unwrap().to_vec()).unwrap());
        assert_eq!(body.as_deref(), expected);
    }
    check(
        r#"{"model":"m","messages":[{"role":"user","content":"1"},{"role":"user","content":"2"},{"role":"assistant","content":"3"}]}"#,
        Some(
            r#"{"model":"m","messages":[{"role":"user","content":"1"},{"role":"user","content":"clean"},{"role":"assistant","content":"3"}]}"#,
        ),
    );
    check(
        r#"{"messages":[{"role":"user","content":[{"type":"text","text":"a"},{"type":"image_url","image_url":{}},{"type":"text","text":"b"}]}]}"#,
        Some(
            r#"{"messages":[{"role":"user","content":[{"type":"text","text":"clean"},{"type":"image_url","image_url":{}}]}]}"#,
        ),
    );
    check(r#"{"messages":[{"role":"user"}]}"#, Some(r#"{"messages":[{"role":"user","content":"clean"}]}"#));
    check(r#"{"messages":[null,7,{"role":"system","content":"s"}]}"#, None);
    check(r#"{"messages":[]}"#, None);
    check(r#"{"prompt":"p"}"#, None);
    check("[]", None);
    check("plain", None);
}

#[test]
fn of_several_members_of_one_name_the_last_counts() {
    let output = br#"{"action":"allow","action":"block"}"#;
    let verdict = decode_request(&samples::request(None), output).unwrap();
    assert!(matches!(verdict.flow, Flow::Stop(HttpAnswer::Refuse(_))));
}

#[test]
fn background_actions_have_no_effect() {
    for (output, fine) in [
        (r#"{"action":"allow"}"#, true),
        (r#"{"action":"block"}"#, true),
        (r#"{"action":"cache_hit"}"#, true),
        ("{}", true),
        (r#"{"action":"blok"}"#, false),
        ("", false),
        ("[]", false),
    ] {
        assert_eq!(decode_complete(output.as_bytes()).is_ok(), fine, "{output}");
    }
}
