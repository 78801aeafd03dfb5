//! What holds for every event and every document, in every dialect.

use bytes::Bytes;
use cardan_api::http::{
    CompleteEvent, Headers, HttpComplete, HttpRequest, HttpResponse, Origin, RequestEvent, ResponseEvent,
};
use cardan_api::{Attributes, BodyNeed, Phase};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{Circumstances, Dialect, Spoken};

const DIALECTS: [Dialect; 2] = [Dialect::Cardan, Dialect::LlmProxy];

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

/// Documents that are nearly verdicts: the keys and words of both dialects in any arrangement.
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
    ]);
    let word = prop::sample::select(vec![
        "continue",
        "refuse",
        "respond",
        "block",
        "modify",
        "cache_hit",
        "allow",
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

/// Encodes for one hook; what was written has to be JSON that shows the id, and the body only if asked to.
fn encode<H: Spoken>(dialect: Dialect, event: &H::Event, phase: Phase, body: BodyNeed) {
    let attributes = Attributes::from_iter([("req_id".to_owned(), json!("forged"))]);
    let config = json!({});
    let about =
        Circumstances { phase, body, visit: "id", session: "\"", attributes: &attributes, config: &config };
    let Ok(document) = H::encode(dialect, event, about) else {
        assert_eq!((dialect, body), (Dialect::LlmProxy, BodyNeed::Whole), "only LLMProxy needs JSON bodies");
        return;
    };
    let document: Value = serde_json::from_slice(&document).unwrap();
    match dialect {
        Dialect::Cardan => {
            assert_eq!(document["visit"]["id"], "id");
            if body == BodyNeed::None {
                assert!(document["request"].get("body").is_none());
            }
        }
        Dialect::LlmProxy => {
            assert_eq!(document["metadata"]["req_id"], "id");
            if body == BodyNeed::None {
                assert_eq!(document["body"], json!({}));
            }
        }
    }
}

proptest! {
    #[test]
    fn every_event_can_be_written(request in requests(), response in responses(), whole in any::<bool>()) {
        let body = if whole { BodyNeed::Whole } else { BodyNeed::None };
        let complete =
            CompleteEvent { request: request.clone(), status: None, sent_bytes: 0, duration_ms: 0, aborted: true };
        for dialect in DIALECTS {
            encode::<HttpRequest>(dialect, &request, Phase::Ingress, body);
            encode::<HttpResponse>(dialect, &response, Phase::PostFlight, body);
            encode::<HttpComplete>(dialect, &complete, Phase::Background, body);
        }
    }

    /// Whatever a guest returns is read without a panic, and what is taken for an edit can stand in a
    /// message.
    #[test]
    fn every_document_can_be_read(document in verdicts(), request in requests(), response in responses()) {
        let complete =
            CompleteEvent { request: request.clone(), status: None, sent_bytes: 0, duration_ms: 0, aborted: true };
        for dialect in DIALECTS {
            if let Ok(verdict) = HttpRequest::decode(dialect, &request, &document)
                && let Some(path) = verdict.edits.path
            {
                prop_assert!(path.starts_with('/') && !path.contains(['?', ' ', '\n']));
            }
            if let Ok(verdict) = HttpResponse::decode(dialect, &response, &document) {
                prop_assert!(verdict.edits.status.is_none_or(|status| (200..600).contains(&status)));
            }
            drop(HttpComplete::decode(dialect, &complete, &document));
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
