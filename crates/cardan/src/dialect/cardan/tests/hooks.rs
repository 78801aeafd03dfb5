//! Hooks other than `http.*`.

use cardan_api::access::{AccessAuthenticate, AccessAuthorize};
use cardan_api::cache::{CacheGet, CacheSet, CacheSubject};
use cardan_api::sql::{SqlQuery, SqlResult, SqlRoute};
use cardan_api::tool::{ToolCall, ToolList, ToolListEvent};
use cardan_api::{BodyNeed, Phase};

use super::{golden, schema};
use crate::dialect::samples::{self, About, told};
use crate::dialect::{Dialect, Spoken};

fn subject() -> CacheSubject {
    CacheSubject::Query(samples::query())
}

fn request() -> CacheSubject {
    CacheSubject::Request(samples::request(Some(b"{}")))
}

#[test]
fn documents() {
    #[track_caller]
    fn check<H: Spoken>(name: &str, event: &H::Event, body: BodyNeed)
    where
        H::Event: std::fmt::Debug,
    {
        let about = About::sample();
        let document = H::encode(Dialect::Cardan, event, about.at(Phase::Ingress, body)).unwrap();
        insta::assert_snapshot!(name, golden(event, &document));
    }
    let whole = BodyNeed::Whole;
    check::<AccessAuthenticate>("access_authenticate", &samples::login(), whole);
    check::<AccessAuthorize>("access_authorize", &samples::access(), whole);
    check::<CacheGet>("cache_get", &samples::cache_get(subject()), whole);
    check::<CacheGet>("cache_get_request", &samples::cache_get(request()), BodyNeed::None);
    check::<CacheSet>("cache_set", &samples::cache_set(request()), whole);
    check::<CacheSet>("cache_set_head", &samples::cache_set(subject()), BodyNeed::None);
    check::<SqlQuery>("sql_query", &samples::query(), whole);
    check::<SqlRoute>("sql_route", &samples::route(), whole);
    check::<SqlResult>("sql_result", &samples::result(), whole);
    check::<ToolList>("tool_list", &ToolListEvent, whole);
    check::<ToolCall>("tool_call", &samples::tool_call("t", r#"{"n": 1.10}"#), whole);
}

/// Reads verdicts at one hook. The schema says the same of each of them, but for what no schema of all hooks can
/// say: those are marked with `!`.
#[track_caller]
fn check<H: Spoken>(event: &H::Event, rows: &[(&str, &str)]) {
    for (document, expected) in rows {
        let (document, is_beyond_schema) = match document.strip_prefix('!') {
            Some(document) => (document, true),
            None => (*document, false),
        };
        let got = told(H::decode(Dialect::Cardan, event, document.as_bytes()));
        assert_eq!(got, *expected, "{document}");
        let valid = schema::is_verdict(&serde_json::from_str(document).unwrap());
        assert_eq!(valid, is_beyond_schema || !got.starts_with("malformed"), "the schema on {document}");
    }
}

#[test]
fn access_verdicts() {
    check::<AccessAuthenticate>(
        &samples::login(),
        &[
            (r#"{"verdict":"continue","attributes":{"a":1}}"#, "Continue; attribute a 1"),
            (
                r#"{"verdict":"answer","answer":{"identity":{"user_id":"u","username":"n","roles":["r"],"tenant_id":"t"}}}"#,
                r#"Stop(Identity(Identity { user_id: "u", username: "n", roles: ["r"], tenant_id: Some("t") }))"#,
            ),
            (
                r#"{"verdict":"answer","answer":{"identity":{"user_id":"u","username":"n"}}}"#,
                r#"Stop(Identity(Identity { user_id: "u", username: "n", roles: [], tenant_id: None }))"#,
            ),
            (r#"{"verdict":"refuse","message":"no"}"#, r#"Stop(Deny(Denial { message: "no" }))"#),
            (r#"{"verdict":"refuse"}"#, r#"Stop(Deny(Denial { message: "refused by policy" }))"#),
            (
                r#"!{"verdict":"refuse","status":401}"#,
                "malformed: a refusal at access.authenticate has no status",
            ),
            (
                r#"!{"verdict":"answer","answer":{"identity":{"user_id":"","username":"n"}}}"#,
                "malformed: an identity has a user_id",
            ),
            (
                r#"{"verdict":"answer","answer":{"identity":{"user_id":"u"}}}"#,
                "malformed: missing field `username`",
            ),
            (
                r#"{"verdict":"answer","answer":{"identity":{"user_id":"u","username":"n","admin":true}}}"#,
                "malformed: unknown field `admin`, expected one of `user_id`, `username`, `roles`, `tenant_id`",
            ),
            (r#"{"verdict":"answer"}"#, "malformed: missing field `answer`"),
            (r#"{"verdict":"answer","answer":[]}"#, "malformed: the answer is no JSON object"),
            (r#"!{"verdict":"respond"}"#, "malformed: there is nobody to respond to at access.authenticate"),
            (
                r#"!{"verdict":"continue","edits":{"headers":{"a":"b"}}}"#,
                "malformed: there is nothing to edit at access.authenticate",
            ),
        ],
    );
    check::<AccessAuthorize>(
        &samples::access(),
        &[
            (r#"{"verdict":"continue"}"#, "Continue"),
            (r#"{"verdict":"answer","answer":{"allow":true}}"#, "Stop(Allow)"),
            (
                r#"{"verdict":"answer","answer":{"allow":false}}"#,
                r#"Stop(Deny(Denial { message: "refused by policy" }))"#,
            ),
            (r#"{"verdict":"refuse","message":"no"}"#, r#"Stop(Deny(Denial { message: "no" }))"#),
            (
                r#"{"verdict":"answer","answer":{"allow":"yes"}}"#,
                "malformed: invalid type: string \"yes\", expected a boolean",
            ),
        ],
    );
}

#[test]
fn cache_verdicts() {
    let hit =
        r#"{"verdict":"answer","answer":{"hit":{"json":{"columns":[{"name":"id"}],"rows":[["1"],[null]]}}}}"#;
    check::<CacheGet>(
        &samples::cache_get(subject()),
        &[
            (r#"{"verdict":"continue"}"#, "Continue"),
            (
                r#"{"verdict":"continue","edits":{"key":"k"}}"#,
                r#"Continue; CacheGetEdits { key: Some("k") }"#,
            ),
            (hit, r#"Stop(Hit(b"{\"columns\":[{\"name\":\"id\"}],\"rows\":[[\"1\"],[null]]}"))"#),
            (r#"{"verdict":"answer","answer":{"skip":true}}"#, "Stop(Skip)"),
            (
                r#"{"verdict":"answer","answer":{"skip":false}}"#,
                "malformed: it is true, or its key is left out",
            ),
            (r#"!{"verdict":"answer","answer":{"hit":{"text":"no"}}}"#, "malformed: expected ident"),
            (r#"!{"verdict":"refuse"}"#, "malformed: there is nothing to refuse at cache.get"),
            (
                r#"!{"verdict":"continue","edits":{"ttl_ms":1}}"#,
                "malformed: there is no ttl_ms to edit at cache.get",
            ),
        ],
    );
    check::<CacheGet>(
        &samples::cache_get(request()),
        &[(r#"{"verdict":"answer","answer":{"hit":{"text":"yes"}}}"#, r#"Stop(Hit(b"yes"))"#)],
    );
    check::<CacheSet>(
        &samples::cache_set(subject()),
        &[
            (
                r#"{"verdict":"continue","edits":{"key":"k","ttl_ms":5}}"#,
                r#"Continue; CacheSetEdits { key: Some("k"), ttl_ms: Some(5) }"#,
            ),
            (r#"{"verdict":"answer","answer":{"skip":true}}"#, "Stop(NotKept)"),
            (
                r#"{"verdict":"continue","edits":{"ttl_ms":-5}}"#,
                "malformed: invalid value: integer `-5`, expected u64",
            ),
        ],
    );
}

#[test]
fn sql_verdicts() {
    check::<SqlQuery>(
        &samples::query(),
        &[
            (
                r#"{"verdict":"continue","edits":{"sql":"SELECT 2"}}"#,
                r#"Continue; QueryEdits { sql: Some("SELECT 2") }"#,
            ),
            (
                r#"{"verdict":"refuse","sqlstate":"42501","message":"no"}"#,
                r#"Stop(Refuse(SqlRefusal { sqlstate: Some("42501"), message: "no" }))"#,
            ),
            (
                r#"{"verdict":"answer","answer":{"columns":[{"name":"id","oid":23}],"rows":[["1"],[null]]}}"#,
                r#"Stop(Rows(Rows { columns: [Column { name: "id", oid: 23 }], rows: [[Some("1")], [None]] }))"#,
            ),
            (
                r#"{"verdict":"answer","answer":{"columns":[],"rows":[]}}"#,
                "malformed: a result has at least one column",
            ),
            (
                r#"!{"verdict":"answer","answer":{"columns":[{"name":"id"}],"rows":[["1"],[]]}}"#,
                "malformed: the row 1 of a result with 1 columns has 0 values",
            ),
            (
                r#"!{"verdict":"refuse","sqlstate":"00000"}"#,
                "malformed: \"00000\" is no SQLSTATE of an error",
            ),
            (r#"{"verdict":"refuse","sqlstate":"4200é"}"#, "malformed: \"4200é\" is no SQLSTATE of an error"),
            (r#"!{"verdict":"refuse","kind":"k"}"#, "malformed: a refusal at sql.query has no kind"),
        ],
    );
    check::<SqlRoute>(
        &samples::route(),
        &[
            (r#"{"verdict":"continue"}"#, "Continue"),
            (r#"{"verdict":"answer","answer":{"role":"standby"}}"#, "Stop(Role(Standby))"),
            (r#"{"verdict":"answer","answer":{"node":"pg-2"}}"#, r#"Stop(Node("pg-2"))"#),
            (r#"{"verdict":"answer","answer":{"branch":"dev"}}"#, r#"Stop(Branch("dev"))"#),
            (
                r#"!{"verdict":"answer","answer":{"node":"10.0.0.1:5432"}}"#,
                "malformed: there is no node \"10.0.0.1:5432\" to send the statement to",
            ),
            (
                r#"{"verdict":"answer","answer":{"role":"leader"}}"#,
                "malformed: unknown variant `leader`, expected `primary` or `standby`",
            ),
            (
                r#"{"verdict":"refuse"}"#,
                r#"Stop(Refuse(SqlRefusal { sqlstate: None, message: "refused by policy" }))"#,
            ),
        ],
    );
    check::<SqlResult>(
        &samples::result(),
        &[
            (r#"{"verdict":"continue","attributes":{"cost":1}}"#, "Continue; attribute cost 1"),
            (r#"!{"verdict":"refuse"}"#, "malformed: there is nothing to refuse at sql.result"),
        ],
    );
}

#[test]
fn tool_verdicts() {
    check::<ToolList>(
        &ToolListEvent,
        &[
            (r#"{"verdict":"continue"}"#, "Continue"),
            (
                r#"{"verdict":"answer","answer":{"tools":[{"name":"t","description":"d","parameters":{"type":"object"}},{"name":"u"}]}}"#,
                r#"Stop([Tool { name: "t", description: "d", parameters: Object {"type": String("object")} }, Tool { name: "u", description: "", parameters: Null }])"#,
            ),
            (
                r#"!{"verdict":"answer","answer":{"tools":[{"name":"t"},{"name":"t"}]}}"#,
                "malformed: there are two tools \"t\"",
            ),
            (r#"!{"verdict":"answer","answer":{"tools":[{"name":""}]}}"#, "malformed: a tool has no name"),
        ],
    );
    check::<ToolCall>(
        &samples::tool_call("t", "{}"),
        &[
            (r#"{"verdict":"continue"}"#, "Continue"),
            (
                r#"{"verdict":"answer","answer":{"json":{"n": 1.10}}}"#,
                r#"Stop(Done(Json(b"{\"n\": 1.10}")))"#,
            ),
            (r#"{"verdict":"answer","answer":{"text":"olleh"}}"#, r#"Stop(Done(Text("olleh")))"#),
            (r#"{"verdict":"answer","answer":{"error":"no file"}}"#, r#"Stop(Failed("no file"))"#),
            (r#"{"verdict":"answer","answer":{"text":"a","error":"b"}}"#, "malformed: expected value"),
            (r#"!{"verdict":"refuse"}"#, "malformed: there is nothing to refuse at tool.call"),
        ],
    );
}

/// Arguments are a JSON object; there may be none.
#[test]
fn arguments() {
    for (arguments, expected) in [
        ("", Some(r#""tool":{"name":"t","arguments":{}}}"#)),
        (r#" {"n": 1.10} "#, Some(r#""tool":{"name":"t","arguments":{"n": 1.10}}}"#)),
        ("[]", None),
        ("7", None),
        ("{", None),
    ] {
        let about = About::sample();
        let about = about.at(Phase::PreFlight, BodyNeed::Whole);
        let document = ToolCall::encode(Dialect::Cardan, &samples::tool_call("t", arguments), about);
        let document = document.ok().map(|document| String::from_utf8(document).unwrap());
        assert_eq!(document.is_some(), expected.is_some(), "{arguments}");
        if let (Some(document), Some(expected)) = (document, expected) {
            assert!(document.ends_with(expected), "{document}");
        }
    }
}
