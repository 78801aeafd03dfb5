//! Where plugins are asked, what they see, and what follows from what they say.

use std::io::Write;

use bytes::Bytes;
use cardan_api::FaultPolicy;
use cardan_gateway::{AmbiguousBodies, Config, PathMatch, UpstreamConfig};
use cardan_manager::Bindings;
use http::{HeaderName, HeaderValue, Request, Response, StatusCode};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::house::{House, Upstream, at, builtin, nobody, read_to_end, server, to};
use crate::plugins::{
    COMPLETE, REQUEST, RESPONSE, completed, head_only, on_fault, prebuilt, says, seen, traps, watches,
};

/// An upstream that says what it was asked.
async fn mirror() -> Config {
    at(&[server(|request| {
        let fields =
            ["x-a", "x-b", "authorization", "accept-encoding", "range", "content-length", "content-md5"];
        let fields = fields.map(|name| {
            let value =
                request.headers().get(name).map_or(Value::Null, |value| value.to_str().unwrap().into());
            (name.to_owned(), value)
        });
        let document = json!({
            "asked": format!("{} {}", request.method(), request.uri()),
            "fields": serde_json::Map::from_iter(fields.into_iter().filter(|(_, value)| !value.is_null())),
            "body": String::from_utf8_lossy(request.body()),
        });
        let mut response = Response::new(document.to_string().into());
        response.headers_mut().insert("content-type", HeaderValue::from_static("application/json"));
        response.headers_mut().insert("etag", HeaderValue::from_static("\"1\""));
        response
    })
    .await])
}

fn edits(edits: Value) -> Value {
    json!({ "verdict": "continue", "edits": edits })
}

#[tokio::test]
async fn a_request_goes_on_as_plugins_leave_it() {
    let verdict = edits(json!({
        "headers": { "x-a": "new", "x-b": null },
        "path": "/elsewhere",
        "body": { "text": "edited" },
    }));
    let house = House::open(mirror().await, &[says("edit", REQUEST, &verdict)]).await;
    let request =
        Request::post("/here?q=1").header("x-a", "old").header("x-b", "old").header("content-md5", "x");
    let reply = house.fetch(request, "original").await;
    let expected = json!({
        "asked": "POST /elsewhere?q=1", "fields": { "x-a": "new", "content-length": "6" }, "body": "edited",
    });
    assert_eq!(reply.json(), expected);
}

#[tokio::test]
async fn an_answer_goes_out_as_plugins_leave_it() {
    let verdict = edits(json!({
        "status": 202, "headers": { "x-new": "1", "content-type": null }, "body": { "text": "edited" },
    }));
    let house = House::open(mirror().await, &[says("edit", RESPONSE, &verdict)]).await;
    let reply = house.get("/").await;
    assert_eq!((reply.status.as_u16(), reply.text()), (202, "edited"));
    assert_eq!(reply.header("x-new"), Some("1"));
    for gone in ["content-type", "etag"] {
        assert_eq!(reply.header(gone), None);
    }
    assert_eq!(reply.header("content-length"), Some("6"));
}

#[tokio::test]
async fn later_plugins_see_earlier_edits() {
    let plugins = [
        says("first", REQUEST, &edits(json!({ "headers": { "x-a": "1" }, "body": { "json": { "n": 1 } } }))),
        watches("second", REQUEST),
    ];
    let house = House::open(mirror().await, &plugins).await;
    let reply = house.post("/p", "{}").await;
    let seen = seen(reply.header("x-request-id").unwrap()).await;
    assert_eq!(seen[0]["request"]["headers"]["x-a"], "1");
    assert_eq!(seen[0]["request"]["body"], json!({ "json": { "n": 1 } }));
}

/// Asks with these plugins and compares status and error.
async fn check_error(plugins: &[cardan_manager::PluginSpec], status: u16, error: Value) {
    let house = House::open(mirror().await, plugins).await;
    let reply = house.post("/", "{}").await;
    assert_eq!((reply.status.as_u16(), &reply.json()["error"]), (status, &error));
    assert!(reply.header("x-request-id").is_some());
}

#[tokio::test]
async fn a_refusal_is_told_in_openais_shape() {
    let refuse = json!({ "verdict": "refuse", "status": 451, "kind": "law", "message": "not here" });
    let error = json!({ "message": "not here", "type": "law", "param": null, "code": "law" });
    for hook in [REQUEST, RESPONSE] {
        check_error(&[says("law", hook, &refuse)], 451, error.clone()).await;
    }
    let error =
        json!({ "message": "refused by policy", "type": "refused", "param": null, "code": "refused" });
    check_error(&[says("no", REQUEST, &json!({ "verdict": "refuse" }))], 403, error).await;
}

#[tokio::test]
async fn a_fault_follows_its_policy() {
    let message = "the plugin `bad`, which every such request has to pass, cannot answer; try again later";
    let error =
        |code: &str| json!({ "message": message, "type": "plugin_unavailable", "param": null, "code": code });
    for hook in [REQUEST, RESPONSE] {
        check_error(&[traps("bad", hook)], 503, error("trap")).await;
        check_error(&[says("bad", hook, &json!("nonsense"))], 503, error("protocol")).await;
        let skipped = on_fault(traps("bad", hook), FaultPolicy::Skip);
        let house = House::open(mirror().await, &[skipped]).await;
        assert_eq!(house.post("/", "{}").await.json()["body"], "{}");
    }
    // Observers change nothing.
    let house = House::open(mirror().await, &[traps("bad", COMPLETE)]).await;
    assert_eq!(house.get("/").await.status, StatusCode::OK);
}

#[tokio::test]
async fn what_cannot_be_sent_is_not_sent() {
    for (hook, edit) in [
        (REQUEST, json!({ "path": "/a/../b" })),
        (REQUEST, json!({ "path": "nowhere" })),
        (RESPONSE, json!({ "status": 99 })),
        (RESPONSE, json!({ "status": 101 })),
        (RESPONSE, json!({ "headers": { "bad name": "x" } })),
        (RESPONSE, json!({ "headers": { "x": "a\r\nset-cookie: b" } })),
    ] {
        let house = House::open(mirror().await, &[says("bad", hook, &edits(edit.clone()))]).await;
        let reply = house.get("/").await;
        assert_eq!(
            (reply.status.as_u16(), reply.json()["error"]["type"].as_str()),
            (503, Some("plugin_unavailable")),
            "{edit}"
        );
    }
}

#[tokio::test]
async fn a_plugins_response_passes_response_plugins() {
    let respond = json!({ "verdict": "respond", "status": 418, "headers": { "x-tea": "1" }, "body": { "json": { "a": 1 } } });
    let house =
        House::open(at(&[nobody().await]), &[says("tea", REQUEST, &respond), watches("watch", RESPONSE)])
            .await;
    let reply = house.post("/p", "body").await;
    assert_eq!((reply.status.as_u16(), reply.text()), (418, r#"{"a":1}"#));
    assert_eq!((reply.header("content-type"), reply.header("x-tea")), (Some("application/json"), Some("1")));
    let seen = seen(reply.header("x-request-id").unwrap()).await;
    assert_eq!(seen[0]["response"]["origin"], "plugin");
    assert_eq!(seen[0]["response"]["body"], json!({ "json": { "a": 1 } }));
    assert_eq!(seen[0]["request"]["body"], json!({ "text": "body" }));
}

#[tokio::test]
async fn a_plugin_answers_in_an_upstreams_place() {
    let respond = json!({ "verdict": "respond", "status": 200, "body": { "text": "instead" } });
    let house = House::open(mirror().await, &[says("instead", RESPONSE, &respond)]).await;
    let reply = house.get("/").await;
    assert_eq!((reply.text(), reply.header("etag")), ("instead", None));
}

#[tokio::test]
async fn errors_and_refusals_pass_nobody() {
    let plugins = [
        says("no", REQUEST, &json!({ "verdict": "refuse" })),
        says("edit", RESPONSE, &edits(json!({ "status": 200 }))),
    ];
    let house = House::open(mirror().await, &plugins).await;
    assert_eq!(house.get("/").await.status, StatusCode::FORBIDDEN);
    let house = House::open(at(&[nobody().await]), &plugins[1..]).await;
    assert_eq!(house.get("/").await.status, StatusCode::BAD_GATEWAY);
}

#[tokio::test]
async fn the_head_alone_is_enough_to_refuse() {
    let refuse = head_only(says("key", REQUEST, &json!({ "verdict": "refuse", "status": 401 })));
    let house = House::open(mirror().await, &[refuse]).await;
    // The body never comes.
    let mut client = TcpStream::connect(house.addr).await.unwrap();
    client.write_all(b"POST / HTTP/1.1\r\nHost: gw\r\nContent-Length: 10\r\n\r\n").await.unwrap();
    assert!(read_to_end(&mut client).await.starts_with("HTTP/1.1 401 "));
}

#[tokio::test]
async fn a_route_is_found_after_plugins_have_spoken() {
    let house =
        House::open(Config::default(), &[says("gate", REQUEST, &json!({ "verdict": "refuse" }))]).await;
    assert_eq!(house.get("/").await.status, StatusCode::FORBIDDEN);
    let house =
        House::open(builtin(), &[says("move", REQUEST, &edits(json!({ "path": "/v1/models" })))]).await;
    assert_eq!(house.get("/x").await.json()["object"], "list");
}

#[tokio::test]
async fn what_the_route_adds_nobody_sees() {
    let mut config = mirror().await;
    let key = HeaderValue::from_static("Bearer s3cret");
    config.routes[0].headers = vec![(HeaderName::from_static("authorization"), key)];
    let plugins = [watches("a", REQUEST), watches("b", RESPONSE), watches("c", COMPLETE)];
    let house = House::open(config, &plugins).await;
    let reply = house.fetch(Request::get("/secret").header("authorization", "Bearer client"), "").await;
    assert_eq!(reply.json()["fields"]["authorization"], "Bearer s3cret");
    completed("/secret").await;
    let seen = seen(reply.header("x-request-id").unwrap()).await;
    assert_eq!(seen.len(), 3);
    for document in &seen {
        assert_eq!(document["request"]["headers"]["authorization"], "Bearer client");
        let told = document["request"].to_string();
        assert!(!told.contains("s3cret"), "{told}");
    }
}

#[tokio::test]
async fn observers_are_told_how_it_ended() {
    let house = House::open(mirror().await, &[watches("watch", COMPLETE)]).await;
    let reply = house.post("/complete", "hello").await;
    let seen = completed("/complete").await;
    assert_eq!(seen["visit"]["id"], reply.header("x-request-id").unwrap());
    let complete = &seen["complete"];
    assert_eq!((&complete["status"], &complete["aborted"]), (&json!(200), &json!(false)));
    assert_eq!(complete["sent_bytes"], reply.body.len());
    // It streamed past, and a copy was kept.
    assert_eq!(seen["request"]["body"], json!({ "text": "hello" }));
}

#[tokio::test]
async fn observers_are_told_of_clients_that_left() {
    let upstream = Upstream::listen().await;
    let house = House::open(at(&[upstream.addr]), &[watches("watch", COMPLETE)]).await;
    let mut client = TcpStream::connect(house.addr).await.unwrap();
    client.write_all(b"GET /left HTTP/1.1\r\nHost: gw\r\n\r\n").await.unwrap();
    let _kept = upstream.accept().await;
    drop(client);
    let complete = &completed("/left").await["complete"];
    assert_eq!((&complete["status"], &complete["aborted"]), (&Value::Null, &json!(true)));
}

#[tokio::test]
async fn the_session_is_the_clients_word() {
    let house = House::open(builtin(), &[watches("watch", REQUEST)]).await;
    for (request, session) in [
        (Request::get("/v1/models").header("x-session-id", "s-1"), "s-1"),
        (Request::get("/v1/models"), "default"),
    ] {
        let reply = house.fetch(request, "").await;
        assert_eq!(seen(reply.header("x-request-id").unwrap()).await[0]["visit"]["session"], session);
    }
}

#[tokio::test]
async fn a_whole_answer_is_asked_for_where_plugins_read_it() {
    let request = || Request::get("/").header("accept-encoding", "gzip").header("range", "bytes=0-3");
    let house = House::open(mirror().await, &[watches("watch", RESPONSE)]).await;
    assert_eq!(house.fetch(request(), "").await.json()["fields"], json!({ "accept-encoding": "identity" }));
    let house = House::open(mirror().await, &[head_only(watches("watch", RESPONSE))]).await;
    let fields = json!({ "accept-encoding": "gzip", "range": "bytes=0-3" });
    assert_eq!(house.fetch(request(), "").await.json()["fields"], fields);
}

#[tokio::test]
async fn compressed_requests_are_not_shown() {
    let house = House::open(mirror().await, &[watches("watch", REQUEST)]).await;
    let reply = house.fetch(Request::post("/").header("content-encoding", "gzip"), "x").await;
    assert_eq!(
        (reply.status.as_u16(), reply.json()["error"]["code"].as_str()),
        (415, Some("content_encoding_unsupported"))
    );
    // Those who need no body do not mind.
    let house = House::open(mirror().await, &[head_only(watches("watch", REQUEST))]).await;
    assert_eq!(
        house.fetch(Request::post("/").header("content-encoding", "gzip"), "x").await.json()["body"],
        "x"
    );
}

async fn compressed(coding: &'static str, body: Vec<u8>) -> Config {
    at(&[server(move |_| {
        let mut response = Response::new(Bytes::from(body.clone()));
        response.headers_mut().insert("content-encoding", HeaderValue::from_static(coding));
        response
    })
    .await])
}

#[tokio::test]
async fn compressed_answers_are_shown_plain() {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(b"plain").unwrap();
    let gzip = encoder.finish().unwrap();

    let house = House::open(compressed("gzip", gzip.clone()).await, &[watches("watch", RESPONSE)]).await;
    let reply = house.get("/").await;
    assert_eq!(
        seen(reply.header("x-request-id").unwrap()).await[0]["response"]["body"],
        json!({ "text": "plain" })
    );
    // Nobody edited it, so it goes out as it came.
    assert_eq!((reply.header("content-encoding"), &reply.body[..]), (Some("gzip"), &gzip[..]));

    let edit = says("edit", RESPONSE, &edits(json!({ "body": { "text": "edited" } })));
    let house = House::open(compressed("gzip", gzip).await, &[edit]).await;
    let reply = house.get("/").await;
    assert_eq!((reply.header("content-encoding"), reply.text()), (None, "edited"));
}

#[tokio::test]
async fn what_cannot_be_shown_is_a_fault() {
    let long = server(|_| Response::new("0123456789".into())).await;
    let small = |mut config: Config| {
        config.limits.held_response_bytes_max = 9;
        config
    };
    for config in
        [compressed("zstd", b"?".to_vec()).await, compressed("gzip", b"?".to_vec()).await, small(at(&[long]))]
    {
        let house = House::open(config.clone(), &[watches("watch", RESPONSE)]).await;
        let reply = house.get("/").await;
        assert_eq!((reply.status.as_u16(), reply.json()["error"]["code"].as_str()), (503, Some("host")));
        // Where the operator said so, the answer passes, whole, and later plugins still see its head.
        let skipped = on_fault(watches("watch", RESPONSE), FaultPolicy::Skip);
        let head = head_only(says("head", RESPONSE, &edits(json!({ "headers": { "x-head": "1" } }))));
        let house = House::open(config, &[skipped, head]).await;
        let reply = house.get("/").await;
        assert!(matches!(reply.text(), "?" | "0123456789"), "{reply:?}");
        assert_eq!(reply.header("x-head"), Some("1"));
    }
}

#[tokio::test]
async fn listed_models_are_the_hosts_own_answer() {
    let mut upstream = UpstreamConfig::at("models", &[&format!("http://{}", nobody().await)]);
    upstream.models = vec!["a".into(), "b".into()];
    let house = House::open(to(upstream), &[watches("watch", RESPONSE)]).await;
    let reply = house.get("/v1/models").await;
    let names: Vec<Value> =
        reply.json()["data"].as_array().unwrap().iter().map(|model| model["id"].clone()).collect();
    assert_eq!(names, ["a", "b"]);
    assert_eq!(seen(reply.header("x-request-id").unwrap()).await[0]["response"]["origin"], "host");
    assert_eq!(house.get("/v1/models/b").await.json()["id"], "b");
    assert_eq!(house.get("/v1/models/c").await.status, StatusCode::BAD_GATEWAY);
}

#[tokio::test]
async fn a_path_is_the_same_for_everybody_however_it_is_written() {
    let mut gate = watches("gate", REQUEST);
    let Bindings::Listed(bindings) = &mut gate.bindings else { panic!("no binding") };
    bindings[0].rule.paths = vec![glob::Pattern::new("/v1/chat/completions").unwrap()];
    let house = House::open(mirror().await, &[gate]).await;
    for path in ["/v1/chat/completions", "/v1/ch%61t/completion%73", "/v1/chat%2d/../chat/completions"] {
        let reply = house.fetch(Request::post(path).header("x-a", "1"), "{}").await;
        if reply.status == StatusCode::OK {
            let document = seen(reply.header("x-request-id").unwrap()).await.remove(0);
            assert_eq!(document["request"]["path"], "/v1/chat/completions");
            assert_eq!(document["request"]["headers"]["x-a"], "1");
            assert_eq!(reply.json()["asked"], "POST /v1/chat/completions");
        } else {
            assert_eq!(reply.status, StatusCode::BAD_REQUEST);
        }
    }
}

#[tokio::test]
async fn a_plugin_moves_nobody_round_the_guards_of_the_new_path() {
    let mut guard = says("guard", REQUEST, &json!({ "verdict": "refuse" }));
    let Bindings::Listed(bindings) = &mut guard.bindings else { panic!("no binding") };
    bindings[0].rule.paths = vec![glob::Pattern::new("/v1/chat/completions").unwrap()];
    // However the plugin writes the path.
    for (path, status) in [
        ("/v1/chat/completions", 403),
        ("/v1/ch%61t/completions", 403),
        ("/v1//chat/completions", 503),
        ("/v1/chat/completions;x", 503),
        ("/v1/chat/completion%2573", 503),
        ("/v1/other", 200),
    ] {
        for body in ["head", "whole"] {
            let moves = says("move", REQUEST, &edits(json!({ "path": path })));
            let moves = if body == "head" { head_only(moves) } else { moves };
            let house = House::open(mirror().await, &[guard.clone(), moves]).await;
            assert_eq!(house.post("/x", "{}").await.status.as_u16(), status, "{path} {body}");
        }
    }
}

/// What this request is told with the plugin: the message of its error, or nothing.
async fn check_body(
    plugin: &cardan_manager::PluginSpec,
    head: (&str, &str),
    body: &[u8],
    expected: Option<&str>,
) {
    let house = House::open(mirror().await, std::slice::from_ref(plugin)).await;
    let (path, content_type) = head;
    let request = Request::post(path).header("content-type", content_type);
    let reply = house.fetch(request, body.to_vec()).await;
    match expected {
        None => assert_eq!(reply.json()["body"], String::from_utf8_lossy(body).as_ref(), "{path}"),
        Some(message) => {
            let error = &reply.json()["error"];
            let told = error["message"].as_str().unwrap_or_default().to_owned();
            assert_eq!(
                (reply.status.as_u16(), error["code"].as_str()),
                (400, Some("json_invalid")),
                "{told}"
            );
            assert!(told.ends_with(message), "{told}");
        }
    }
}

#[tokio::test]
async fn json_that_can_be_read_in_two_ways_is_shown_to_nobody() {
    const TWICE: &[u8] = br#"{"messages":[],"messages":[{}]}"#;
    let twice = "the name \"messages\" a second time in one object at line 1 column 25";
    let chat = ("/v1/chat/completions", "text/plain");
    let json = ("/any", "application/json");
    // A plugin that is asked stops the request, so that nobody can have been asked.
    let plugin = says("no", REQUEST, &json!({ "verdict": "refuse" }));
    check_body(&plugin, chat, TWICE, Some(twice)).await;
    check_body(&plugin, json, TWICE, Some(twice)).await;
    check_body(&plugin, json, b"{\"a\":", Some("EOF while parsing a value at line 1 column 5")).await;
    check_body(&plugin, json, b"", Some("EOF while parsing a value at line 1 column 0")).await;
    check_body(&plugin, json, b"\xff\xfe{\0}\0", Some("bytes that are not UTF-8 at line 1 column 1")).await;
    // A plugin that cannot read it is not to blame.
    check_body(&prebuilt("llmproxy-zoo", &[REQUEST]), chat, b"nonsense", Some("line 1 column 2")).await;
    // What nobody is shown, or what claims to be no JSON, is nobody's business.
    check_body(&head_only(watches("head", REQUEST)), json, TWICE, None).await;
    check_body(&watches("watch", REQUEST), ("/any", "text/plain"), TWICE, None).await;
    // A plugin cannot be used to turn one into the other.
    let moves = says("move", REQUEST, &edits(json!({ "path": "/v1/chat/completions" })));
    check_body(&moves, ("/any", "text/plain"), TWICE, Some(twice)).await;
    // Nor can a route.
    let mut config = mirror().await;
    config.routes[0].rewrite = Some("/v1/messages".to_owned());
    config.routes[0].path = PathMatch::Exact("/any".to_owned());
    let house = House::open(config, &[watches("watch", REQUEST)]).await;
    assert_eq!(house.post("/any", TWICE).await.json()["error"]["code"], "json_invalid");
    let cures = says("cure", REQUEST, &edits(json!({ "path": "/v1/messages", "body": { "json": {} } })));
    let house = House::open(mirror().await, &[cures]).await;
    assert_eq!(house.post("/any", TWICE).await.json()["body"], "{}");
}

#[tokio::test]
async fn a_content_type_with_two_readings_is_shown_to_nobody() {
    let twice = "{\"a\":1,\"a\":2}";
    for (types, refused) in [
        (&[&b"application/json; charset=utf-8; charset=utf-7"[..]][..], true),
        (&[b"application/json; x=\"; charset=utf-8\"; charset=utf-7"], true),
        (&[b"application/json; x=\"\xff\""], true),
        (&[b"text/plain; charset=utf-16"], true),
        (&[b"text/plain", b"application/json"], true),
        (&[b"multipart/form-data; boundary=\"a,b\""], false),
        (&[b"application/octet-stream"], false),
        (&[], false),
    ] {
        for (plugin, refused) in
            [(watches("watch", REQUEST), refused), (head_only(watches("head", REQUEST)), false)]
        {
            let house = House::open(mirror().await, &[plugin]).await;
            let request = types.iter().fold(Request::post("/any"), |request, value| {
                request.header("content-type", http::HeaderValue::from_bytes(value).unwrap())
            });
            let reply = house.fetch(request, twice).await;
            let code = reply.json()["error"]["code"].as_str().map(str::to_owned);
            assert_eq!(code.as_deref(), refused.then_some("content_type_invalid"), "{types:?}");
        }
    }
}

#[tokio::test]
async fn ambiguous_json_passes_where_the_operator_wants_it() {
    let mut config = mirror().await;
    config.ambiguous_bodies = AmbiguousBodies::PassOn;
    let house = House::open(config, &[watches("watch", REQUEST)]).await;
    let reply = house.post("/v1/chat/completions", "{\"a\":1,\"a\":2}").await;
    assert_eq!(reply.json()["body"], "{\"a\":1,\"a\":2}");
}
