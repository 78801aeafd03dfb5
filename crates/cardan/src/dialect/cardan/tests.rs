use cardan_api::http::{
    HeaderEdit, HttpAnswer, HttpComplete, HttpRequest, HttpResponse, Refusal, RequestEdits, Response,
    ResponseEdits,
};
use cardan_api::{BodyNeed, Flow, Verdict};

use super::http::{encode_complete, encode_request, encode_response};
use super::*;
use crate::dialect::samples::{self, About};
use crate::dialect::{Dialect, Malformed, Spoken};

mod hooks;
mod schema;

fn decode_request(document: &[u8]) -> Result<Verdict<HttpRequest>, Malformed> {
    HttpRequest::decode(Dialect::Cardan, &samples::request(None), document)
}

fn decode_response(document: &[u8]) -> Result<Verdict<HttpResponse>, Malformed> {
    HttpResponse::decode(Dialect::Cardan, &samples::response(None), document)
}

fn decode_complete(document: &[u8]) -> Result<Verdict<HttpComplete>, Malformed> {
    HttpComplete::decode(Dialect::Cardan, &samples::complete(), document)
}

/// Where the checked-in schemas are.
const SCHEMA_DIR: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/schema");

fn pretty(document: &[u8]) -> String {
    let value: Value = serde_json::from_slice(document).unwrap();
    format!("{value:#}")
}

/// A document beside the event it was made of.
fn golden(event: &impl std::fmt::Debug, document: &[u8]) -> String {
    schema::check_event(&serde_json::from_slice(document).unwrap());
    format!("{event:#?}\n\n----\n\n{}", pretty(document))
}

#[test]
fn documents() {
    let about = About::sample();
    let whole = |phase| about.at(phase, BodyNeed::Whole);
    let request = samples::request(Some(br#" {"model":"m", "n": 1.10} "#));
    insta::assert_snapshot!(
        "request",
        golden(&request, &encode_request(&request, whole(Phase::PreFlight)).unwrap())
    );
    let response = samples::response(Some(br#"{"id":"x"}"#));
    insta::assert_snapshot!(
        "response",
        golden(&response, &encode_response(&response, whole(Phase::PostFlight)).unwrap())
    );
    let complete = samples::complete();
    insta::assert_snapshot!(
        "complete",
        golden(&complete, &encode_complete(&complete, whole(Phase::Background)).unwrap())
    );
    let head = about.at(Phase::PostFlight, BodyNeed::None);
    insta::assert_snapshot!("response_head", golden(&response, &encode_response(&response, head).unwrap()));
}

#[test]
fn bodies() {
    #[track_caller]
    fn check(body: &'static [u8], expected: &str) {
        let about = About::sample();
        let event = samples::request(Some(body));
        let document = encode_request(&event, about.at(Phase::Ingress, BodyNeed::Whole)).unwrap();
        let document = String::from_utf8(document).unwrap();
        assert!(document.ends_with(&format!(r#","body":{expected}}}}}"#)), "{expected} in {document}");
    }
    check(br#"{"a":1.10,"a":12345678901234567890123}"#, r#"{"json":{"a":1.10,"a":12345678901234567890123}}"#);
    check(b"7", r#"{"json":7}"#);
    check(b"null", r#"{"json":null}"#);
    check(b"", r#"{"text":""}"#);
    check("h\u{e9}llo \"\n".as_bytes(), r#"{"text":"héllo \"\n"}"#);
    check(b"{\"a\":", r#"{"text":"{\"a\":"}"#);
    check(b"\xff\x00", r#"{"base64":"/wA="}"#);
    check(b"\"\xff\"", r#"{"base64":"Iv8i"}"#);
}

/// What an `http.request` verdict means, in a line.
fn request_verdict(document: &str) -> String {
    match decode_request(document.as_bytes()) {
        Ok(verdict) => told(verdict.flow, &verdict.attributes, |out| {
            let RequestEdits { headers, path, body } = verdict.edits;
            out.extend(headers.iter().map(header));
            out.extend(path.map(|path| format!("path {path}")));
            out.extend(body.map(|body| format!("body {}", body.escape_ascii())));
        }),
        Err(why) => format!("malformed: {}", without_place(&why.0)),
    }
}

fn response_verdict(document: &str) -> String {
    match decode_response(document.as_bytes()) {
        Ok(verdict) => told(verdict.flow, &verdict.attributes, |out| {
            let ResponseEdits { status, headers, body, request_body } = verdict.edits;
            out.extend(status.map(|status| format!("status {status}")));
            out.extend(headers.iter().map(header));
            out.extend(body.map(|body| format!("body {}", body.escape_ascii())));
            assert_eq!(request_body, None);
        }),
        Err(why) => format!("malformed: {}", without_place(&why.0)),
    }
}

/// The columns that serde names say nothing in a document of one line.
fn without_place(message: &str) -> &str {
    message.split(" at line ").next().unwrap_or(message)
}

fn told(flow: Flow<HttpAnswer>, attributes: &Attributes, edits: impl FnOnce(&mut Vec<String>)) -> String {
    let mut out = vec![match flow {
        Flow::Continue => "continue".to_owned(),
        Flow::Stop(HttpAnswer::Refuse(Refusal { status, kind, message })) => {
            format!("refuse {status:?} {kind}: {message}")
        }
        Flow::Stop(HttpAnswer::Respond(Response { status, headers, body })) => {
            format!("respond {status} {:?} {}", headers.0, body.escape_ascii())
        }
    }];
    edits(&mut out);
    out.extend(attributes.iter().map(|(name, value)| format!("attribute {name} {value}")));
    out.join("; ")
}

fn header(edit: &HeaderEdit) -> String {
    match edit {
        HeaderEdit::Set(name, value) => format!("set {name} {value}"),
        HeaderEdit::Add(name, value) => format!("add {name} {value}"),
        HeaderEdit::Remove(name) => format!("remove {name}"),
    }
}

/// Reads a verdict, and sees that the schema says the same of it: what is read is valid, what is malformed
/// is not, or is so for a reason that no schema can state.
#[track_caller]
fn check_with(read: fn(&str) -> String, document: &str, expected: &str, beyond_schema: bool) {
    let got = read(document);
    assert_eq!(got, expected, "{document}");
    if let Ok(value) = serde_json::from_str(document) {
        let valid = schema::is_verdict(&value);
        let expected = beyond_schema || !got.starts_with("malformed");
        assert_eq!(valid, expected, "the schema on {document}");
    }
}

#[test]
fn request_verdicts() {
    let check = |document: &str, expected: &str| check_with(request_verdict, document, expected, false);
    check(r#"{"verdict":"continue"}"#, "continue");
    check(r#" { "verdict" : "continue" , "edits" : {} , "attributes" : {} } "#, "continue");
    check(r#"{"verdict":"continue","edits":null,"attributes":null}"#, "continue");
    check(
        r#"{"edits":{"headers":{"x-a":"1","x-b":null}},"attributes":{"user":"alice","n":[1]},"verdict":"continue"}"#,
        r#"continue; set x-a 1; remove x-b; attribute user "alice"; attribute n [1]"#,
    );
    check(r#"{"verdict":"continue","edits":{"path":"/v1/models"}}"#, "continue; path /v1/models");
    check(
        r#"{"verdict":"continue","edits":{"body":{"json":{"n": 1.10,"big":12345678901234567890123}}}}"#,
        r#"continue; body {\"n\": 1.10,\"big\":12345678901234567890123}"#,
    );
    check(r#"{"verdict":"continue","edits":{"body":{"json":null}}}"#, "continue; body null");
    check(r#"{"verdict":"continue","edits":{"body":{"text":"a\nb"}}}"#, r"continue; body a\nb");
    check(r#"{"verdict":"continue","edits":{"body":{"base64":"/wA="}}}"#, r"continue; body \xff\x00");
    check(r#"{"verdict":"continue","edits":{"body":null}}"#, "continue");
    check(r#"{"verdict":"refuse"}"#, "refuse None refused: refused by policy");
    check(
        r#"{"verdict":"refuse","status":429,"kind":"slow","message":"down"}"#,
        "refuse Some(429) slow: down",
    );
    check(r#"{"verdict":"respond"}"#, "respond 200 [] ");
    check(
        r#"{"verdict":"respond","status":204,"headers":{"x-a":"b"},"body":{"json":[1]}}"#,
        r#"respond 204 [("x-a", "b")] [1]"#,
    );
}

#[test]
fn malformed_verdicts() {
    let check = |document: &str, why: &str| {
        check_with(request_verdict, document, &format!("malformed: {why}"), false);
    };
    let beyond_schema = |document: &str, why: &str| {
        check_with(request_verdict, document, &format!("malformed: {why}"), true);
    };
    check("", "the plugin set no output");
    check(" \n", "the plugin set no output");
    check("[]", "the output is no JSON object");
    check(r#"["continue"]"#, "the output is no JSON object");
    check("null", "the output is no JSON object");
    check("{}", "missing field `verdict`");
    check(
        r#"{"verdict":"Continue"}"#,
        "unknown variant `Continue`, expected one of `continue`, `refuse`, `respond`, `answer`",
    );
    check(
        r#"{"verdict":"continue","edit":{}}"#,
        "unknown field `edit`, expected one of `verdict`, `edits`, `attributes`, `status`, `kind`, `sqlstate`, \
         `message`, `headers`, `body`, `answer`",
    );
    check(r#"{"verdict":"continue","status":200}"#, r#"the verdict "continue" has no key "status""#);
    check(r#"{"verdict":"refuse","edits":{}}"#, r#"the verdict "refuse" has no key "edits""#);
    check(r#"{"verdict":"respond","message":"m"}"#, r#"the verdict "respond" has no key "message""#);
    check(r#"{"verdict":"refuse","status":200}"#, "the status 200 is not between 400 and 599");
    check(r#"{"verdict":"respond","status":600}"#, "the status 600 is not between 200 and 599");
    check(r#"{"verdict":"respond","status":99999}"#, "invalid value: integer `99999`, expected u16");
    check(
        r#"{"verdict":"continue","edits":{"body":{"json":1,"text":"a"}}}"#,
        "a body has exactly one of the keys `json`, `text` and `base64`",
    );
    check(
        r#"{"verdict":"respond","body":{}}"#,
        "a body has exactly one of the keys `json`, `text` and `base64`",
    );
    beyond_schema(
        r#"{"verdict":"continue","edits":{"body":{"base64":"?"}}}"#,
        "a body's base64 is not valid: Invalid symbol 63, offset 0.",
    );
    beyond_schema(
        r#"{"verdict":"continue","edits":{"status":200}}"#,
        "there is no status to edit at http.request",
    );
    for path in ["models", "", "/a?b", "/a b", "/a#b", "/é", "/a\\r\\nb"] {
        let document = format!(r#"{{"verdict":"continue","edits":{{"path":"{path}"}}}}"#);
        assert!(request_verdict(&document).contains("is no path"), "{document}");
    }
    for field in
        [r#""":"a""#, r#""a b":"c""#, r#""a":"b\r\nc: d""#, r#""a:":null"#, r#""é":"a""#, r#""a":"\u0000""#]
    {
        for document in [
            format!(r#"{{"verdict":"continue","edits":{{"headers":{{{field}}}}}}}"#),
            format!(r#"{{"verdict":"respond","headers":{{{field}}}}}"#),
        ] {
            assert!(request_verdict(&document).starts_with("malformed: "), "{document}");
        }
    }
}

#[test]
fn response_verdicts() {
    let check = |document: &str, expected: &str| check_with(response_verdict, document, expected, false);
    check(
        r#"{"verdict":"continue","edits":{"status":201,"headers":{"x-a":null},"body":{"text":""}}}"#,
        "continue; status 201; remove x-a; body ",
    );
    check(r#"{"verdict":"refuse","status":599}"#, "refuse Some(599) refused: refused by policy");
    check(
        r#"{"verdict":"continue","edits":{"status":199}}"#,
        "malformed: the status 199 is not between 200 and 599",
    );
    let path = r#"{"verdict":"continue","edits":{"path":"/a"}}"#;
    check_with(response_verdict, path, "malformed: there is no path to edit at http.response", true);
}

#[test]
fn observers_change_nothing() {
    #[track_caller]
    fn check(document: &str, expected: Result<usize, &str>) {
        let verdict = decode_complete(document.as_bytes());
        let verdict = verdict.map(|verdict| verdict.attributes.len()).map_err(|why| why.0);
        assert_eq!(verdict, expected.map_err(str::to_owned), "{document}");
    }
    check(r#"{"verdict":"continue"}"#, Ok(0));
    check(r#"{"verdict":"continue","edits":{},"attributes":{"a":1}}"#, Ok(1));
    let edit = Err("there is nothing to edit at http.complete");
    check(r#"{"verdict":"continue","edits":{"headers":{"a":"b"}}}"#, edit);
    check(r#"{"verdict":"refuse"}"#, Err("there is nothing to refuse at http.complete"));
    check(r#"{"verdict":"respond"}"#, Err("there is nobody to respond to at http.complete"));
    check(r#"{"verdict":"answer","answer":{}}"#, Err("there is nothing to answer at http.complete"));
}

#[test]
fn schemas_are_checked_in() {
    for (name, text) in schemas() {
        let path = format!("{SCHEMA_DIR}/{name}");
        let kept = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(kept == text, "docs/schema/{name} is not what the types say: run `cargo xtask schema`");
    }
}

#[test]
fn life_documents() {
    let config = serde_json::json!({"key": "v"});
    let about = Circumstances::of_life(&config);
    let event = cardan_api::lifecycle::LifeEvent {
        plugin: "mask".to_owned(),
        version: "1.0".to_owned(),
        reason: cardan_api::lifecycle::LifeReason::Reload,
    };
    let document = life::encode::<cardan_api::lifecycle::PluginLoad>(&event, about).unwrap();
    schema::check_life(&serde_json::from_slice(&document).unwrap());
    assert_eq!(
        String::from_utf8(document).unwrap(),
        r#"{"hook":"plugin.load","plugin":{"name":"mask","version":"1.0"},"reason":"reload","config":{"key":"v"}}"#
    );
    let event = cardan_api::lifecycle::TickEvent { plugin: "mask".to_owned(), version: String::new() };
    let document = life::encode_tick(&event, about).unwrap();
    schema::check_life(&serde_json::from_slice(&document).unwrap());
    assert_eq!(
        String::from_utf8(document).unwrap(),
        r#"{"hook":"plugin.tick","plugin":{"name":"mask","version":""},"config":{"key":"v"}}"#
    );
}
