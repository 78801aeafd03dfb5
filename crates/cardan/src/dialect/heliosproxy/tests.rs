use cardan_api::access::{AccessAuthenticate, AccessAuthorize};
use cardan_api::cache::{CacheGet, CacheSet, CacheSubject};
use cardan_api::http::HttpComplete;
use cardan_api::lifecycle::{PluginLoad, PluginUnload};
use cardan_api::sql::{QueryEvent, SqlQuery, SqlResult, SqlRoute};
use cardan_api::tool::{ToolCall, ToolList, ToolListEvent};
use cardan_api::{BodyNeed, Phase};
use serde_json::json;

use super::*;
use crate::dialect::samples::{self, About, told};
use crate::dialect::{Dialect, Spoken};

fn subject() -> CacheSubject {
    CacheSubject::Query(samples::query())
}

fn encoded<H: Spoken>(event: &H::Event, about: &About) -> Vec<u8> {
    H::encode(Dialect::HeliosProxy, event, about.at(Phase::PreFlight, BodyNeed::Whole)).unwrap()
}

/// Documents beside the events they were made of.
#[test]
fn documents() {
    #[track_caller]
    fn check<H: Spoken>(name: &str, event: &H::Event)
    where
        H::Event: std::fmt::Debug,
    {
        let document: Value = serde_json::from_slice(&encoded::<H>(event, &About::sample())).unwrap();
        insta::assert_snapshot!(name, format!("{event:#?}\n\n----\n\n{document:#}"));
    }
    check::<SqlQuery>("pre_query", &samples::query());
    check::<SqlRoute>("route", &samples::route());
    check::<SqlResult>("post_query", &samples::result());
    check::<HttpComplete>("metrics", &samples::complete());
    check::<AccessAuthenticate>("authenticate", &samples::login());
    check::<AccessAuthorize>("authorize", &samples::access());
    check::<CacheGet>("cache_get", &samples::cache_get(subject()));
    check::<CacheSet>("cache_set", &samples::cache_set(CacheSubject::Request(samples::request(None))));
    check::<ToolList>("list_tools", &ToolListEvent);
    check::<ToolCall>("execute_tool", &samples::tool_call("t", r#"{"n": 1.5}"#));
    check::<PluginLoad>("on_load", &samples::life());
}

/// What guests of the original read, and who may say it: the client of itself, plugins, the host, in this order.
#[test]
fn attributes() {
    #[track_caller]
    fn check(event: &QueryEvent, set: Value, expected: Value) {
        let Value::Object(attributes) = set else { unreachable!("an object") };
        let about = About { attributes, config: json!({}) };
        let document: Value = serde_json::from_slice(&encoded::<SqlQuery>(event, &about)).unwrap();
        assert_eq!(document["hook_context"]["attributes"], expected);
    }
    let client = json!("192.0.2.1");
    let nobody = QueryEvent { identity: None, settings: BTreeMap::new(), ..samples::query() };
    check(&nobody, json!({}), json!({ "client_ip": client }));
    check(
        &nobody,
        json!({"tenant_id": "acme", "identity.roles": "admin", "n": 7, "b": {"day": 1}, "gone": null}),
        json!({
            "client_ip": client, "tenant_id": "acme", "identity.roles": "admin", "n": "7", "b": "{\"day\":1}",
        }),
    );
    check(
        &samples::query(),
        json!({"tenant_id": "other", "identity.roles": "admin", "client_ip": "::1", "helios.region": "us"}),
        json!({
            "client_ip": client, "tenant_id": "acme", "identity.roles": "reader,auditor",
            "application_name": "chatbot", "helios.region": "us",
        }),
    );
    let identity = Identity { tenant_id: None, ..samples::identity() };
    let of_no_tenant = QueryEvent { identity: Some(identity), settings: BTreeMap::new(), ..samples::query() };
    check(
        &of_no_tenant,
        json!({"tenant_id": "other"}),
        json!({ "client_ip": client, "identity.roles": "reader,auditor" }),
    );
}

/// Reads decisions at one hook.
#[track_caller]
fn check<H: Spoken>(event: &H::Event, rows: &[(&str, &str)]) {
    for (document, expected) in rows {
        assert_eq!(
            told(H::decode(Dialect::HeliosProxy, event, document.as_bytes())),
            *expected,
            "{document}"
        );
    }
}

fn is_malformed<H: Spoken>(event: &H::Event, documents: &[&str]) {
    for document in documents {
        let read = told(H::decode(Dialect::HeliosProxy, event, document.as_bytes()));
        assert!(read.starts_with("malformed: "), "{document}: {read}");
    }
}

/// What is no decision at all, wherever it is returned.
const GARBAGE: [&str; 13] = [
    "{}",
    "[]",
    "7",
    "7.5",
    "{",
    "continue",
    r#"{"action":null}"#,
    r#"{"action":7}"#,
    r#"{"action":"blok"}"#,
    r#"{"kind":""}"#,
    r#"{"action":"continue","kind":"block"}"#,
    r#"{"Block":"reason"}"#,
    "\u{0}",
];

#[test]
fn query_decisions() {
    let refused =
        |message: &str| format!("Stop(Refuse(SqlRefusal {{ sqlstate: None, message: {message:?} }}))");
    let rows =
        r#"Stop(Rows(Rows { columns: [Column { name: "id", oid: 25 }], rows: [[Some("1")], [None]] }))"#;
    let cached = br#"{"columns":[{"name":"id","width":4}],"rows":[["1"],[null]],"more":1}"#;
    let cached = |tag: &str, key: &str| format!(r#"{{"{tag}":"cached","{key}":{}}}"#, json!(cached.to_vec()));
    check::<SqlQuery>(
        &samples::query(),
        &[
            ("", "Continue"),
            (" \n", "Continue"),
            (r#"{"action":"continue"}"#, "Continue"),
            (r#"{"kind":"Continue","more":[]}"#, "Continue"),
            (
                r#"{"action":"rewrite","value":"SELECT 2"}"#,
                r#"Continue; QueryEdits { sql: Some("SELECT 2") }"#,
            ),
            (r#"{"kind":"rewrite","sql":"SELECT 2"}"#, r#"Continue; QueryEdits { sql: Some("SELECT 2") }"#),
            (r#"{"action":"BLOCK","value":"no"}"#, &refused("no")),
            (r#"{"kind":"block","reason":"no"}"#, &refused("no")),
            (r#"{"action":"block","kind":"Block","value":null,"reason":"no"}"#, &refused("no")),
            (r#"{"action":"block"}"#, &refused("blocked by plugin")),
            (r#"{"action":"block","reason":""}"#, &refused("blocked by plugin")),
            (&cached("action", "data"), rows),
            (&cached("kind", "bytes"), rows),
        ],
    );
    is_malformed::<SqlQuery>(&samples::query(), &GARBAGE);
    is_malformed::<SqlQuery>(
        &samples::query(),
        &[
            r#"{"action":"rewrite"}"#,
            r#"{"action":"rewrite","value":7}"#,
            r#"{"action":"block","reason":{}}"#,
            r#"{"action":"cached"}"#,
            r#"{"action":"cached","data":[]}"#,
            r#"{"action":"cached","data":[256]}"#,
            r#"{"action":"cached","data":"{}"}"#,
            // {"columns":[],"rows":[]}
            r#"{"action":"cached","data":[123,34,99,111,108,117,109,110,115,34,58,91,93,44,34,114,111,119,115,34,58,91,93,125]}"#,
            r#"{"action":"default"}"#,
        ],
    );
}

#[test]
fn route_decisions() {
    let refused =
        |message: &str| format!("Stop(Refuse(SqlRefusal {{ sqlstate: None, message: {message:?} }}))");
    check::<SqlRoute>(
        &samples::route(),
        &[
            ("", "Continue"),
            (r#"{"action":"default"}"#, "Continue"),
            (r#"{"action":"primary"}"#, "Stop(Role(Primary))"),
            (r#"{"kind":"Standby"}"#, "Stop(Role(Standby))"),
            (r#"{"action":"node","target":"pg-2"}"#, r#"Stop(Node("pg-2"))"#),
            (r#"{"action":"branch","target":"dev"}"#, r#"Stop(Branch("dev"))"#),
            (r#"{"action":"block","reason":"no"}"#, &refused("no")),
            (r#"{"action":"block"}"#, &refused("blocked by plugin")),
            (
                r#"{"action":"node","target":"10.0.0.1:5432"}"#,
                "malformed: there is no node \"10.0.0.1:5432\" to send the statement to",
            ),
        ],
    );
    is_malformed::<SqlRoute>(&samples::route(), &GARBAGE);
    is_malformed::<SqlRoute>(&samples::route(), &[r#"{"action":"node"}"#, r#"{"action":"continue"}"#]);
}

#[test]
fn access_decisions() {
    let success = |identity: &str| {
        let document = format!(r#"{{"action":"success","identity":{identity}}}"#);
        told(AccessAuthenticate::decode(Dialect::HeliosProxy, &samples::login(), document.as_bytes()))
    };
    assert_eq!(
        success(r#"{"user_id":"u","username":"n","roles":["r"],"tenant_id":"t","email":"e"}"#),
        r#"Stop(Identity(Identity { user_id: "u", username: "n", roles: ["r"], tenant_id: Some("t") }))"#
    );
    assert_eq!(
        success(r#"{"user_id":"u","roles":[]}"#),
        r#"Stop(Identity(Identity { user_id: "u", username: "u", roles: [], tenant_id: None }))"#
    );
    for identity in ["null", "{}", r#"{"user_id":""}"#, r#"{"user_id":"u","roles":"admin"}"#, "7"] {
        assert!(success(identity).starts_with("malformed: "), "{identity}");
    }
    check::<AccessAuthenticate>(
        &samples::login(),
        &[
            ("", "Continue"),
            (r#"{"action":"defer"}"#, "Continue"),
            (r#"{"action":"Denied","message":"no"}"#, r#"Stop(Deny(Denial { message: "no" }))"#),
            (r#"{"kind":"denied"}"#, r#"Stop(Deny(Denial { message: "blocked by plugin" }))"#),
        ],
    );
    is_malformed::<AccessAuthenticate>(&samples::login(), &GARBAGE);
    check::<AccessAuthorize>(
        &samples::access(),
        &[
            ("", "Continue"),
            (r#"{"action":"defer"}"#, "Continue"),
            (r#"{"action":"allow"}"#, "Stop(Allow)"),
            (r#"{"kind":"deny","reason":"no"}"#, r#"Stop(Deny(Denial { message: "no" }))"#),
        ],
    );
    is_malformed::<AccessAuthorize>(&samples::access(), &GARBAGE);
}

#[test]
fn cache_decisions() {
    let hit = |bytes: &[u8]| format!(r#"{{"action":"hit","bytes":{}}}"#, json!(bytes.to_vec()));
    let rows = hit(br#"{"columns":[{"name":"id"}],"rows":[["1"]]}"#);
    check::<CacheGet>(
        &samples::cache_get(subject()),
        &[
            ("", "Continue"),
            ("null", "Continue"),
            (r#""k""#, r#"Continue; CacheGetEdits { key: Some("k") }"#),
            (r#"{"action":"miss"}"#, "Continue"),
            (r#"{"kind":"key","key":"k"}"#, r#"Continue; CacheGetEdits { key: Some("k") }"#),
            (r#"{"action":"skip"}"#, "Stop(Skip)"),
            (&rows, r#"Stop(Hit(b"{\"columns\":[{\"name\":\"id\",\"oid\":25}],\"rows\":[[\"1\"]]}"))"#),
        ],
    );
    is_malformed::<CacheGet>(&samples::cache_get(subject()), &GARBAGE);
    is_malformed::<CacheGet>(&samples::cache_get(subject()), &[&hit(b"text"), r#"{"action":"key"}"#]);
    let request = samples::cache_get(CacheSubject::Request(samples::request(None)));
    check::<CacheGet>(&request, &[(&hit(b"text"), r#"Stop(Hit(b"text"))"#)]);
    check::<CacheSet>(
        &samples::cache_set(subject()),
        &[
            ("", "Continue"),
            ("true", "Continue"),
            ("false", "Stop(NotKept)"),
            (r#"{"action":"skip"}"#, "Stop(NotKept)"),
            (
                r#"{"kind":"store","key":"k","ttl_ms":5}"#,
                r#"Continue; CacheSetEdits { key: Some("k"), ttl_ms: Some(5) }"#,
            ),
        ],
    );
    is_malformed::<CacheSet>(&samples::cache_set(subject()), &GARBAGE);
    is_malformed::<CacheSet>(&samples::cache_set(subject()), &[r#"{"action":"store","ttl_ms":"5"}"#]);
}

/// What observers return is read and dropped, whatever it is.
#[test]
fn observers() {
    for document in GARBAGE.into_iter().chain(["", r#"{"action":"block","value":"no"}"#]) {
        check::<SqlResult>(&samples::result(), &[(document, "Continue")]);
        check::<HttpComplete>(&samples::complete(), &[(document, "Continue")]);
        check::<PluginUnload>(&samples::life(), &[(document, "Continue")]);
    }
}

#[test]
fn loads() {
    let refused = |message: &str| format!("Stop(LoadRefusal {{ message: {message:?} }})");
    check::<PluginLoad>(
        &samples::life(),
        &[
            ("", "Continue"),
            ("null", "Continue"),
            (r#"{"Ok":null}"#, "Continue"),
            (r#"{"action":"continue"}"#, "Continue"),
            (r#"{"Err":"no key"}"#, &refused("no key")),
            (r#"{"Err":{"Config":"no key"}}"#, &refused(r#"{"Config":"no key"}"#)),
            (r#"{"error":"no key"}"#, &refused("no key")),
            (r#"{"action":"block","reason":"no key"}"#, &refused("no key")),
        ],
    );
    is_malformed::<PluginLoad>(&samples::life(), &GARBAGE);
}

#[test]
fn tools() {
    let tool = |parameters: &str| {
        format!(r#"Stop([Tool {{ name: "t", description: "", parameters: {parameters} }}])"#)
    };
    let properties = r#"Object {"type": String("object"), "properties": Object {"type": Object {"type": String("string")}}}"#;
    check::<ToolList>(
        &ToolListEvent,
        &[
            ("", "Continue"),
            ("[]", "Stop([])"),
            (r#"[{"name":"t"}]"#, &tool("Null")),
            (r#"{"tools":[{"name":"t"}]}"#, &tool("Null")),
            (r#"[{"name":"t","parameters":{"type":{"type":"string"}}}]"#, &tool(properties)),
            (
                r#"[{"name":"t","parameters":{"type":"object"}}]"#,
                &tool(r#"Object {"type": String("object")}"#),
            ),
        ],
    );
    is_malformed::<ToolList>(
        &ToolListEvent,
        &["null", "7", "{", r#"[{"name":7}]"#, r#"[{"name":"a"},{"name":"a"}]"#],
    );
    check::<ToolCall>(
        &samples::tool_call("t", "{}"),
        &[
            ("", "Continue"),
            (r#""Unknown""#, "Continue"),
            (r#" {"n": 1.10} "#, r#"Stop(Done(Json(b"{\"n\": 1.10}")))"#),
            ("null", r#"Stop(Done(Json(b"null")))"#),
        ],
    );
    is_malformed::<ToolCall>(&samples::tool_call("t", "{}"), &["{", "text"]);
}

/// The third form of guests: a number, and anything but 0 is a block.
#[test]
fn numbers() {
    fn blocked<H: Spoken>() -> [String; 2] {
        [None, Some("why")].map(|words| {
            let verdict = H::decode_code(Dialect::HeliosProxy, words);
            verdict.map_or("none".to_owned(), |verdict| format!("{:?}", verdict.flow))
        })
    }
    let [silent, told] = blocked::<SqlQuery>();
    assert_eq!(silent, r#"Stop(Refuse(SqlRefusal { sqlstate: None, message: "blocked by plugin" }))"#);
    assert_eq!(told, r#"Stop(Refuse(SqlRefusal { sqlstate: None, message: "why" }))"#);
    assert_eq!(blocked::<SqlRoute>(), [silent, told]);
    assert_eq!(blocked::<AccessAuthenticate>()[1], r#"Stop(Deny(Denial { message: "why" }))"#);
    assert_eq!(blocked::<AccessAuthorize>()[1], r#"Stop(Deny(Denial { message: "why" }))"#);
    assert_eq!(blocked::<CacheGet>()[0], "Stop(Skip)");
    assert_eq!(blocked::<CacheSet>()[0], "Stop(NotKept)");
    assert_eq!(blocked::<SqlResult>()[0], "none");
}
