//! Chat completions, whole and streamed.

use std::time::Duration;

use cardan_gateway::{Builtin, UpstreamConfig};
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use crate::house::{House, PATIENCE, Upstream, at, builtin, nobody, scripted, to};
use crate::plugins::{COMPLETE, REQUEST, RESPONSE, completed, head_only, prebuilt, says, seen, watches};

const CHAT: &str = "/v1/chat/completions";

fn chat(text: &str, stream: bool) -> String {
    json!({ "model": "m", "stream": stream, "messages": [{ "role": "user", "content": text }] }).to_string()
}

/// The text that the events of a stream add up to.
fn streamed_text(stream: &str) -> String {
    assert!(stream.ends_with("data: [DONE]\n\n"), "{stream}");
    let chunks = stream.split("\n\n").filter_map(|event| event.strip_prefix("data: "));
    let chunks = chunks.filter_map(|data| serde_json::from_str::<Value>(data).ok());
    chunks.filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str().map(str::to_owned)).collect()
}

async fn next_event(body: &mut Incoming) -> Option<String> {
    let frame = tokio::time::timeout(PATIENCE, body.frame()).await.expect("an event in time")?;
    Some(String::from_utf8(frame.unwrap().into_data().unwrap().to_vec()).unwrap())
}

#[tokio::test]
async fn the_builtin_service_answers_in_both_forms() {
    let house = House::open(builtin(), &[]).await;
    let whole = house.post(CHAT, chat("hello there", false)).await;
    assert_eq!(whole.json()["choices"][0]["message"]["content"], "You said: hello there");
    let stream = house.post(CHAT, chat("hello there", true)).await;
    assert_eq!(stream.header("content-type"), Some("text/event-stream"));
    assert_eq!(streamed_text(stream.text()), "You said: hello there");
    assert_eq!(house.get("/v1/models").await.json()["data"][0]["id"], "cardan-echo");
    assert_eq!(house.get("/v1/nothing").await.status, StatusCode::NOT_FOUND);
    let request = json!({ "model": "m", "input": "x" }).to_string();
    assert_eq!(
        house.post("/v1/embeddings", request).await.json()["data"][0]["embedding"].as_array().unwrap().len(),
        16
    );
}

#[tokio::test]
async fn each_event_is_sent_when_it_comes() {
    let upstream = Upstream::listen().await;
    // A plugin that looks at heads alone must not hold the stream up.
    let plugins = [head_only(watches("head", RESPONSE)), watches("end", COMPLETE)];
    let house = House::open(at(&[upstream.addr]), &plugins).await;
    let (response, (mut stream, _)) = tokio::join!(house.send(Request::post("/events"), "{}"), async {
        let (mut stream, request) = upstream.accept().await;
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
        (stream, request)
    });
    let mut body = response.into_body();
    for event in ["data: 1\n\n", ": ping\n\n", "data: 2\r\n\r\n"] {
        stream.write_all(event.as_bytes()).await.unwrap();
        assert_eq!(next_event(&mut body).await.as_deref(), Some(event));
    }
    // Half an event is not sent until it is whole, and several are not sent as one.
    stream.write_all(b"data: 3").await.unwrap();
    tokio::time::sleep(Duration::from_millis(20)).await;
    stream.write_all(b"\n\ndata: 4\n\ndata: 5").await.unwrap();
    drop(stream);
    let mut rest = String::new();
    while let Some(event) = next_event(&mut body).await {
        rest.push_str(&event);
    }
    assert_eq!(rest, "data: 3\n\ndata: 4\n\ndata: 5");
    let complete = completed("/events").await;
    assert_eq!(
        (&complete["complete"]["aborted"], &complete["complete"]["sent_bytes"]),
        (&json!(false), &json!(53))
    );
}

#[tokio::test]
async fn a_stream_that_breaks_off_says_so() {
    let chunked = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
    let (addr, _) = scripted(format!("{chunked}9\r\ndata: 1\n\n\r\n6\r\ndata: \r\n")).await;
    let house = House::open(at(&[addr]), &[]).await;
    let reply = house.get("/").await;
    let (first, error) = reply.text().split_once("\n\n").unwrap();
    assert_eq!(first, "data: 1");
    let error: Value = serde_json::from_str(error.strip_prefix("data: ").unwrap()).unwrap();
    assert_eq!(error["error"]["code"], "upstream_broken");
}

#[tokio::test]
async fn plugins_see_the_same_document_in_both_forms() {
    let house = House::open(builtin(), &[watches("watch", RESPONSE)]).await;
    let mut shown = Vec::new();
    for stream in [false, true] {
        let reply = house.post(CHAT, chat("hi", stream)).await;
        let document = seen(reply.header("x-request-id").unwrap()).await.remove(0);
        assert_eq!(document["response"]["streamed"], stream);
        assert_eq!(document["request"]["body"]["json"]["model"], "m");
        shown.push(document["response"]["body"]["json"]["choices"].clone());
        if stream {
            // Nobody edited it: the words come one by one, as they were sent.
            assert!(reply.text().matches("\"delta\"").count() > 3, "{}", reply.text());
            assert_eq!(reply.header("x-cardan-replayed"), None);
        }
    }
    assert_eq!(shown[0], shown[1]);
}

#[tokio::test]
async fn a_mask_masks_in_both_forms() {
    let house = House::open(builtin(), &[prebuilt("pii-mask", &[RESPONSE])]).await;
    for stream in [false, true] {
        let reply = house.post(CHAT, chat("write to ann@example.com", stream)).await;
        assert!(!reply.text().contains("ann@"), "{}", reply.text());
        if stream {
            assert!(streamed_text(reply.text()).starts_with("You said: write to ["));
            assert_eq!(reply.header("content-type"), Some("text/event-stream"));
            assert_eq!(reply.header("x-cardan-replayed"), Some("true"));
        }
    }
    // On the way in, the upstream never sees it.
    let house = House::open(builtin(), &[prebuilt("pii-mask", &[REQUEST])]).await;
    for stream in [false, true] {
        let reply = house.post(CHAT, chat("write to ann@example.com", stream)).await;
        assert_eq!(reply.status, StatusCode::OK);
        assert!(!reply.text().contains("ann@"), "{}", reply.text());
    }
}

#[tokio::test]
async fn a_mask_masks_text_completions_and_streams_with_other_events_in_them() {
    let house = House::open(builtin(), &[prebuilt("pii-mask", &[RESPONSE])]).await;
    let request = json!({ "model": "m", "stream": true, "prompt": "write to ann@example.com" });
    let reply = house.post("/v1/completions", request.to_string()).await;
    assert!(
        !reply.text().contains("ann@") && reply.text().contains("You said: write to ["),
        "{}",
        reply.text()
    );
    assert!(
        reply.text().contains(r#""object":"text_completion""#) && reply.text().ends_with("data: [DONE]\n\n")
    );

    let chunk = |text: &str| {
        format!(
            r#"data: {{"object":"chat.completion.chunk","choices":[{{"index":0,"delta":{{"content":"{text}"}}}}]}}"#
        )
    };
    let events = format!(
        ": ping\n\n{}\n\nevent: ping\ndata: {{\"type\":\"ping\"}}\n\n{}\n\ndata: {{\"error\":{{}}}}\n\n",
        chunk("ann@exa"),
        chunk("mple.com"),
    );
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n";
    let (addr, _) = scripted(format!("{head}{events}")).await;
    let house = House::open(at(&[addr]), &[prebuilt("pii-mask", &[RESPONSE])]).await;
    let reply = house.post(CHAT, chat("x", true)).await;
    assert_eq!(streamed_text(reply.text()), "[EMAIL]");
    for kept in ["event: ping\ndata: {\"type\":\"ping\"}\n\n", "data: {\"error\":{}}\n\n"] {
        assert!(reply.text().contains(kept), "{}", reply.text());
    }
}

#[tokio::test]
async fn a_refused_stream_is_refused_before_its_first_byte() {
    let refuse = says("no", RESPONSE, &json!({ "verdict": "refuse", "kind": "leak", "message": "no" }));
    let house = House::open(builtin(), &[refuse]).await;
    let reply = house.post(CHAT, chat("hi", true)).await;
    assert_eq!((reply.status.as_u16(), reply.json()["error"]["type"].as_str()), (403, Some("leak")));
}

#[tokio::test]
async fn streams_that_are_no_completions_are_shown_as_text() {
    let events = "event: x\ndata: {\"type\":\"response.created\"}\n\ndata: secret\n\n";
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n";
    let (addr, _) = scripted(format!("{head}{events}")).await;
    let house = House::open(at(&[addr]), &[watches("watch", RESPONSE)]).await;
    let reply = house.get("/").await;
    assert_eq!(reply.text(), events);
    assert_eq!(
        seen(reply.header("x-request-id").unwrap()).await[0]["response"]["body"],
        json!({ "text": events })
    );

    let edit = json!({ "verdict": "continue", "edits": { "body": { "text": "data: masked\n\n" } } });
    let house = House::open(at(&[addr]), &[says("edit", RESPONSE, &edit)]).await;
    let reply = house.get("/").await;
    assert_eq!((reply.text(), reply.header("content-type")), ("data: masked\n\n", Some("text/event-stream")));
}

#[tokio::test]
async fn an_edit_that_is_no_completion_cannot_be_streamed() {
    let edit = json!({ "verdict": "continue", "edits": { "body": { "json": { "x": 1 } } } });
    let house = House::open(builtin(), &[says("edit", RESPONSE, &edit)]).await;
    assert_eq!(house.post(CHAT, chat("hi", false)).await.json(), json!({ "x": 1 }));
    assert_eq!(house.post(CHAT, chat("hi", true)).await.status, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn a_cached_answer_comes_in_the_form_asked_for() {
    let completion = json!({
        "id": "cached", "object": "chat.completion", "created": 1, "model": "m",
        "choices": [{ "index": 0, "message": { "role": "assistant", "content": "cached words" }, "finish_reason": "stop" }],
        "usage": { "total_tokens": 3 },
    });
    let respond = json!({ "verdict": "respond", "body": { "json": completion } });
    let hit = says("cache", REQUEST, &respond);
    // Also a plugin that did not ask for the body gets its answer streamed.
    for plugin in [hit.clone(), head_only(hit)] {
        let house = House::open(at(&[nobody().await]), &[plugin, watches("watch", RESPONSE)]).await;
        let whole = house.post(CHAT, chat("hi", false)).await;
        assert_eq!((whole.json(), whole.header("x-cardan-replayed")), (completion.clone(), None));
        let stream = house.post(CHAT, chat("hi", true)).await;
        assert_eq!(streamed_text(stream.text()), "cached words");
        assert!(!stream.text().contains("total_tokens"));
        assert_eq!(stream.header("x-cardan-replayed"), Some("true"));
        assert_eq!(stream.header("content-type"), Some("text/event-stream"));
        let shown = seen(stream.header("x-request-id").unwrap()).await.remove(0);
        assert_eq!(shown["response"]["streamed"], true);
        assert_eq!(shown["response"]["body"]["json"], completion);
    }
}

#[tokio::test]
async fn the_builtin_service_keeps_its_pace() {
    let pace = Duration::from_millis(30);
    let slow = UpstreamConfig::builtin("slow", Builtin { pace, ..Builtin::default() });
    let house = House::open(to(slow), &[watches("end", COMPLETE)]).await;
    let request = Request::post(CHAT).header("x-session-id", "pace");
    let mut body = house.send(request, chat("a b c", true)).await.into_body();
    let began = tokio::time::Instant::now();
    let mut events = 0;
    while let Some(event) = next_event(&mut body).await {
        events += event.matches("data: ").count();
    }
    assert_eq!(events, 1 + 5 + 1 + 1);
    assert!(began.elapsed() >= pace * 6);
}
