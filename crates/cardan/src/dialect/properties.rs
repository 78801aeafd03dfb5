//! What holds for every event and every document, in every dialect.

use bytes::Bytes;
use cardan_api::access::{AccessAuthenticate, AccessAuthorize, AccessEvent, Identity, LoginEvent};
use cardan_api::cache::{CacheAnswer, CacheGet, CacheSet, CacheSubject};
use cardan_api::http::{
    CompleteEvent, Headers, HttpComplete, HttpRequest, HttpResponse, Origin, RequestEvent, ResponseEvent,
};
use cardan_api::lifecycle::{PluginLoad, PluginTick, PluginUnload, TickEvent};
use cardan_api::sql::{
    QueryAnswer, QueryEvent, ResultEvent, RouteAnswer, RouteEvent, Rows, SqlQuery, SqlResult, SqlRoute,
};
use cardan_api::tool::{ToolCall, ToolList, ToolListEvent};
use cardan_api::{Attributes, BodyNeed, Flow, Phase};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::samples::{self, told};
use super::{Circumstances, Dialect, Spoken};

fn bodies() -> impl Strategy<Value = Option<Bytes>> {
    prop_oneof![
        Just(None),
        prop::collection::vec(any::<u8>(), 0..64).prop_map(|bytes| Some(bytes.into())),
        any::<String>().prop_map(|text| Some(text.into())),
        any::<String>().prop_map(|text| Some(
            json!({ "messages": [{"role": "user", "content": text}] }).to_string().into()
        )),
    ]
}

/// Names and values that no HTTP parser would let through.
fn headers() -> impl Strategy<Value = Headers> {
    let name = prop_oneof!["[aAbB]{1,2}", any::<String>()];
    prop::collection::vec((name, any::<String>()), 0..6).prop_map(Headers)
}

fn requests() -> impl Strategy<Value = RequestEvent> {
    (any::<[String; 4]>(), any::<Option<String>>(), headers(), bodies()).prop_map(
        |([method, host, path, client], query, headers, body)| RequestEvent {
            method,
            host,
            path,
            query,
            client,
            headers,
            body,
        },
    )
}

fn responses() -> impl Strategy<Value = ResponseEvent> {
    (requests(), any::<u16>(), headers(), bodies(), any::<bool>()).prop_map(
        |(request, status, headers, body, streamed)| ResponseEvent {
            request,
            status,
            headers,
            body,
            streamed,
            origin: Origin::Host,
        },
    )
}

fn queries() -> impl Strategy<Value = QueryEvent> {
    let identity = any::<Option<([String; 2], Vec<String>, Option<String>)>>().prop_map(|identity| {
        identity.map(|([user_id, username], roles, tenant_id)| Identity {
            user_id,
            username,
            roles,
            tenant_id,
        })
    });
    (any::<[String; 3]>(), any::<[Option<String>; 2]>(), identity, headers()).prop_map(
        |([sql, normalized, client], [database, branch], identity, settings)| QueryEvent {
            tables: vec![sql.clone()],
            sql,
            normalized,
            is_read_only: true,
            client,
            identity,
            database,
            branch,
            settings: settings.0.into_iter().collect(),
        },
    )
}

/// Documents that are nearly verdicts: the keys and words of all dialects in any arrangement.
fn verdicts() -> impl Strategy<Value = Vec<u8>> {
    let key = prop::sample::select(vec![
        "verdict",
        "edits",
        "attributes",
        "status",
        "kind",
        "message",
        "headers",
        "body",
        "json",
        "text",
        "base64",
        "path",
        "action",
        "status_code",
        "error_type",
        "reason",
        "response",
        "clean_prompt",
        "answer",
        "identity",
        "user_id",
        "username",
        "allow",
        "hit",
        "skip",
        "columns",
        "rows",
        "name",
        "node",
        "role",
        "target",
        "tools",
        "params",
        "type",
        "value",
        "sql",
        "data",
        "bytes",
        "key",
        "ttl_ms",
        "sqlstate",
        "Err",
    ]);
    let word = prop::sample::select(vec![
        "continue",
        "refuse",
        "respond",
        "block",
        "modify",
        "cache_hit",
        "allow",
        "answer",
        "success",
        "denied",
        "defer",
        "rewrite",
        "cached",
        "node",
        "primary",
        "hit",
        "skip",
        "store",
        "string",
        "pg-2",
        "/x",
        "",
        "\u{0}",
    ]);
    let leaf = prop_oneof![
        word.prop_map(|word| json!(word)),
        any::<u16>().prop_map(|n| json!(n)),
        any::<f64>().prop_map(|n| json!(n)),
        Just(Value::Null),
    ];
    let document = leaf.prop_recursive(3, 24, 5, move |inner| {
        prop_oneof![
            prop::collection::btree_map(key.clone().prop_map(str::to_owned), inner.clone(), 0..5)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
            prop::collection::vec(inner, 0..3).prop_map(Value::Array),
        ]
    });
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..64),
        document.prop_map(|document| document.to_string().into_bytes()),
    ]
}

/// Encodes for one hook in every dialect that has it; what was written has to be JSON that shows the id, and
/// bodies only if asked to.
fn encode<H: Spoken>(event: &H::Event, phase: Phase, body: BodyNeed) {
    let attributes = Attributes::from_iter([
        ("req_id".to_owned(), json!("forged")),
        ("client_ip".to_owned(), json!("forged")),
        ("n".to_owned(), json!({"a": [1]})),
    ]);
    let config = json!({});
    let about =
        Circumstances { phase, body, visit: "id", session: "\"", attributes: &attributes, config: &config };
    for dialect in H::ROWS.iter().map(|row| row.dialect) {
        let Ok(document) = H::encode(dialect, event, about) else {
            assert_eq!(
                (dialect, body),
                (Dialect::LlmProxy, BodyNeed::Whole),
                "only LLMProxy needs JSON bodies"
            );
            continue;
        };
        if document.is_empty() {
            assert_eq!(dialect, Dialect::CortexPrism, "only its exports may be given nothing");
            continue;
        }
        let document: Value = serde_json::from_slice(&document).unwrap();
        let shown = match dialect {
            Dialect::Cardan => {
                if body == BodyNeed::None {
                    assert!(document["request"].get("body").is_none());
                    assert!(document["cache"].get("value").is_none());
                }
                &document["visit"]["id"]
            }
            Dialect::LlmProxy => {
                if body == BodyNeed::None {
                    assert_eq!(document["body"], json!({}));
                }
                &document["metadata"]["req_id"]
            }
            Dialect::HeliosProxy => {
                let first = if document.is_array() { &document[0] } else { &document };
                let context = &first["hook_context"];
                if let Some(attributes) = context.get("attributes").and_then(Value::as_object) {
                    assert!(attributes.values().all(Value::is_string), "{document}");
                    assert_ne!(attributes["client_ip"], "forged");
                    assert_eq!(attributes["n"], r#"{"a":[1]}"#);
                }
                &context["request_id"]
            }
            Dialect::CortexPrism => &Value::Null,
        };
        // Logins and a plugin's own life belong to no request.
        assert!(*shown == "id" || shown.is_null(), "{document}");
    }
}

/// Reads a document at one hook in every dialect that has it, and hands on what it was taken for.
fn read<H: Spoken>(event: &H::Event, document: &[u8]) -> Vec<cardan_api::Verdict<H>> {
    let dialects = H::ROWS.iter().map(|row| row.dialect);
    dialects.filter_map(|dialect| H::decode(dialect, event, document).ok()).collect()
}

fn is_result(rows: &Rows) -> bool {
    !rows.columns.is_empty() && rows.rows.iter().all(|row| row.len() == rows.columns.len())
}

fn completed(request: RequestEvent) -> CompleteEvent {
    CompleteEvent { request, status: None, sent_bytes: 0, duration_ms: u64::MAX, aborted: true }
}

proptest! {
    #[test]
    fn every_exchange_can_be_written(request in requests(), response in responses(), whole in any::<bool>()) {
        let body = if whole { BodyNeed::Whole } else { BodyNeed::None };
        encode::<HttpRequest>(&request, Phase::Ingress, body);
        encode::<HttpResponse>(&response, Phase::PostFlight, body);
        encode::<HttpComplete>(&completed(request.clone()), Phase::Background, body);
        encode::<CacheGet>(&samples::cache_get(CacheSubject::Request(request.clone())), Phase::PreFlight, body);
        encode::<CacheSet>(&samples::cache_set(CacheSubject::Request(request.clone())), Phase::PostFlight, body);
        let login = LoginEvent {
            client: request.client,
            username: request.query,
            password: Some(request.path),
            database: None,
            headers: request.headers,
        };
        encode::<AccessAuthenticate>(&login, Phase::Ingress, body);
    }

    #[test]
    fn every_statement_can_be_written(query in queries(), counts in any::<[u64; 2]>()) {
        let body = BodyNeed::Whole;
        encode::<SqlQuery>(&query, Phase::Ingress, body);
        encode::<SqlRoute>(&RouteEvent { query: query.clone(), nodes: Vec::new() }, Phase::Routing, body);
        let result = ResultEvent {
            query: query.clone(),
            is_success: true,
            node: query.branch.clone(),
            elapsed_us: counts[0],
            response_bytes: counts[1],
            error: query.database.clone(),
        };
        encode::<SqlResult>(&result, Phase::Background, body);
        encode::<CacheGet>(&samples::cache_get(CacheSubject::Query(query.clone())), Phase::PreFlight, body);
        encode::<CacheSet>(&samples::cache_set(CacheSubject::Query(query.clone())), Phase::PostFlight, body);
        let access =
            AccessEvent { identity: query.identity, action: query.sql, resource: query.normalized, client: query.client };
        encode::<AccessAuthorize>(&access, Phase::Ingress, body);
    }

    /// Whatever a guest returns is read without a panic, and what is taken for an edit or an answer can stand where
    /// it is put.
    #[test]
    fn every_document_can_be_read(document in verdicts(), request in requests(), response in responses()) {
        for verdict in read::<HttpRequest>(&request, &document) {
            if let Some(path) = verdict.edits.path {
                prop_assert!(path.starts_with('/') && !path.contains(['?', ' ', '\n']));
            }
        }
        for verdict in read::<HttpResponse>(&response, &document) {
            prop_assert!(verdict.edits.status.is_none_or(|status| (200..600).contains(&status)));
        }
        drop(read::<HttpComplete>(&completed(request), &document));
        for verdict in read::<SqlQuery>(&samples::query(), &document) {
            if let Flow::Stop(QueryAnswer::Rows(rows)) = verdict.flow {
                prop_assert!(is_result(&rows));
            }
        }
        for verdict in read::<SqlRoute>(&samples::route(), &document) {
            if let Flow::Stop(RouteAnswer::Node(name)) = verdict.flow {
                prop_assert!(samples::route().nodes.iter().any(|node| node.name == name));
            }
        }
        drop(read::<SqlResult>(&samples::result(), &document));
        drop(read::<AccessAuthenticate>(&samples::login(), &document));
        drop(read::<AccessAuthorize>(&samples::access(), &document));
        let subject = CacheSubject::Query(samples::query());
        for verdict in read::<CacheGet>(&samples::cache_get(subject.clone()), &document) {
            if let Flow::Stop(CacheAnswer::Hit(hit)) = verdict.flow {
                prop_assert!(is_result(&serde_json::from_slice(&hit).unwrap()));
            }
        }
        drop(read::<CacheSet>(&samples::cache_set(subject), &document));
        for verdict in read::<ToolList>(&ToolListEvent, &document) {
            if let Flow::Stop(tools) = verdict.flow {
                prop_assert!(tools.iter().all(|tool| !tool.name.is_empty()));
            }
        }
        drop(read::<ToolCall>(&samples::tool_call("t", "{}"), &document));
        drop(read::<PluginLoad>(&samples::life(), &document));
        drop(read::<PluginUnload>(&samples::life(), &document));
        let tick = TickEvent { plugin: String::new(), version: String::new() };
        drop(read::<PluginTick>(&tick, &document));
    }

    /// HeliosProxy's host and its guest crate spell decisions differently; both mean the same.
    #[test]
    fn both_spellings_mean_the_same(text in any::<String>(), bytes in any::<Vec<u8>>()) {
        for [host, guest] in [
            [json!({"action": "block", "value": text}), json!({"kind": "BLOCK", "reason": text})],
            [json!({"action": "rewrite", "value": text}), json!({"kind": "Rewrite", "sql": text})],
            [json!({"action": "cached", "data": bytes}), json!({"kind": "cached", "bytes": bytes})],
            [json!({"action": text}), json!({"kind": text})],
        ] {
            let read = |document: Value| {
                told(SqlQuery::decode(Dialect::HeliosProxy, &samples::query(), document.to_string().as_bytes()))
            };
            let host = read(host).replace("`data`", "`bytes`");
            prop_assert_eq!(host, read(guest));
        }
    }

    /// A JSON body goes to the guest and, handed back as it came, is the same body.
    #[test]
    fn an_untouched_body_comes_back(text in any::<String>(), number in any::<f64>()) {
        let body = json!({"text": text, "number": number}).to_string();
        let about_attributes = Attributes::new();
        let config = json!({});
        let about = Circumstances {
            phase: Phase::PreFlight, body: BodyNeed::Whole, visit: "id", session: "s",
            attributes: &about_attributes, config: &config,
        };
        let mut event = super::samples::request(None);
        event.body = Some(body.clone().into());
        let document = HttpRequest::encode(Dialect::Cardan, &event, about).unwrap();
        let document: std::collections::HashMap<String, Box<serde_json::value::RawValue>> =
            serde_json::from_slice(&document).unwrap();
        let shown: std::collections::HashMap<String, Box<serde_json::value::RawValue>> =
            serde_json::from_str(document["request"].get()).unwrap();
        let back = format!(r#"{{"verdict":"continue","edits":{{"body":{}}}}}"#, shown["body"].get());
        let verdict = HttpRequest::decode(Dialect::Cardan, &event, back.as_bytes()).unwrap();
        prop_assert_eq!(verdict.edits.body.unwrap(), body);
    }
}
