use proptest::prelude::*;

use super::assembly::ENTRIES_MAX;
use super::*;

/// A stream, the completion it adds up to, and that completion streamed again.
macro_rules! golden {
    ($($name:literal),* $(,)?) => {
        [$((
            $name,
            include_str!(concat!("golden/", $name, ".sse")),
            include_str!(concat!("golden/", $name, ".json")),
            include_str!(concat!("golden/", $name, ".replay.sse")),
        )),*]
    };
}

fn text(events: &[Bytes]) -> String {
    String::from_utf8(events.concat()).unwrap()
}

#[test]
fn streams_and_objects_turn_into_each_other() {
    for (name, stream, object, replayed) in golden!["openai", "tools", "azure", "text", "others"] {
        let assembled = assemble(stream.as_bytes()).unwrap_or_else(|| panic!("{name}: not assembled"));
        assert_eq!(format!("{assembled:#}\n"), object, "{name}: assembled");
        assert_eq!(text(&replay(&assembled, Usage::Send).unwrap()), replayed, "{name}: replayed");
        assert_eq!(assemble(replayed.as_bytes()).unwrap(), assembled, "{name}: assembled again");
    }
}

#[test]
fn usage_is_left_out_when_not_asked_for() {
    let completion = json!({
        "choices": [{ "index": 0, "message": { "content": "hi" }, "finish_reason": "stop" }],
        "usage": { "total_tokens": 1 },
    });
    assert!(text(&replay(&completion, Usage::Send).unwrap()).contains("total_tokens"));
    assert!(!text(&replay(&completion, Usage::Omit).unwrap()).contains("total_tokens"));
}

const CHUNK: &str =
    r#"data: {"object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"x"}}]}"#;

#[test]
fn what_is_not_the_stream_of_a_completion_is_left_alone() {
    assert!(assemble(format!("{CHUNK}\n\n").as_bytes()).is_some());
    let rows = [
        String::new(),
        "data: [DONE]\n\n".to_owned(),
        "data: hello\n\n".to_owned(),
        "data: {}\n\n".to_owned(),
        r#"data: {"object":"response.created","choices":[]}"#.to_owned(),
        r#"data: {"error":{"message":"overloaded"}}"#.to_owned(),
        format!("{CHUNK}\n\ndata: [DONE]\n\n{CHUNK}\n\n"),
        format!("{CHUNK}\n\ndata: [DONE]\n\ndata: {{}}\n\n"),
        format!("{CHUNK}\n\ndata: {{\"object\":\"chat.compl"),
        format!("{CHUNK}\n\ndata: {{\"choices\":[{{\"index\":1,\"text\":\"x\"}}]}}\n\n"),
        format!("{CHUNK}\n\ndata: {{\"choices\":\"x\"}}\n\n"),
        format!("{CHUNK}\n\ndata: {{\"choices\":[{{\"index\":1}}]}}\n\n"),
        r#"data: {"choices":[{"index":-1,"delta":{}}]}"#.to_owned(),
        r#"data: {"choices":[{"index":0,"delta":{"tool_calls":"x"}}]}"#.to_owned(),
    ];
    for row in rows {
        assert_eq!(assemble(row.as_bytes()), None, "{row}");
    }
    assert_eq!(assemble([CHUNK.as_bytes(), b"\n\ndata: \xff\n\n"].concat().as_slice()), None);
}

#[test]
fn chunks_are_known_by_their_shape() {
    for (chunk, key) in [
        (r#"{"object":"whatever","choices":[{"delta":{"content":"x"}}]}"#, "/choices/0/message/content"),
        (r#"{"object":"whatever","choices":[{"text":"x"}]}"#, "/choices/0/text"),
        // Both, as some providers write it.
        (r#"{"choices":[{"delta":{"content":"x"},"text":"x"}]}"#, "/choices/0/message/content"),
        (r#"{"choices":[{"delta":{"content":"x"},"text":"x"}]}"#, "/choices/0/text"),
    ] {
        let completion = assemble(format!("data: {chunk}\n\ndata: {chunk}\n\n").as_bytes()).unwrap();
        assert_eq!(completion.pointer(key), Some(&json!("xx")), "{chunk}");
    }
}

#[track_caller]
fn check_others(stream: &str, others: Value) {
    let completion = assemble(format!("{CHUNK}\n\n{stream}{CHUNK}\n\n").as_bytes()).unwrap();
    assert_eq!(completion["choices"][0]["message"]["content"], "xx");
    assert_eq!(completion.get(OTHER_EVENTS).unwrap_or(&Value::Null), &others, "{stream}");
    assert_eq!(assemble(&replay(&completion, Usage::Send).unwrap().concat()).unwrap(), completion);
}

#[test]
fn other_events_are_shown_and_streamed_again() {
    check_others(": ping\n\nevent: ping\n\nretry: 5\n\n", json!(null));
    check_others("data: hello\ndata: there\n\n", json!([{ "text": "hello\nthere" }]));
    check_others("data:\n\ndata: 5\n\n", json!([{ "text": "" }, { "json": 5 }]));
    check_others(
        "event: ping\ndata: {\"type\":\"ping\"}\n\n",
        json!([{ "event": "ping", "json": { "type": "ping" } }]),
    );
    check_others(
        "data: {\"error\":{\"message\":\"overloaded\"}}\n\ndata: {\"choices\":null}\n\n",
        json!([{ "json": { "error": { "message": "overloaded" } } }, { "json": { "choices": null } }]),
    );
    check_others(
        "data: {\"choices\":[],\"cardan_events\":[1]}\n\n",
        json!([{ "json": { "cardan_events": [1] } }]),
    );
}

#[test]
fn only_completions_are_replayed() {
    let choices = json!([{ "message": { "content": "x" } }]);
    for row in [
        json!(null),
        json!([]),
        json!({}),
        json!({ "choices": [] }),
        json!({ "choices": [{ "text": 5 }] }),
        json!({ "choices": [{ "text": "x" }, { "message": { "content": "x" } }] }),
        json!({ "choices": choices, "cardan_events": {} }),
        json!({ "choices": choices, "cardan_events": [{ "event": "a\nb", "text": "x" }] }),
        json!({ "choices": choices, "cardan_events": [{ "text": 5 }] }),
        json!({ "choices": choices, "cardan_events": [{ "text": "x", "json": 5 }] }),
    ] {
        assert_eq!(replay(&row, Usage::Send), None, "{row}");
    }
}

/// Whether a stream of these events, each with what stands before its data, can be shown as a completion.
#[track_caller]
fn check_events(events: &[(&str, Value)], expected: bool) {
    let stream: String = events.iter().map(|(fields, data)| format!("{fields}data: {data}\n\n")).collect();
    assert_eq!(assemble(stream.as_bytes()).is_some(), expected, "{stream}");
}

#[track_caller]
fn check_chunks(first: Value, second: Value, expected: bool) {
    check_events(&[("", first), ("", second)], expected);
}

#[test]
fn what_a_client_is_sent_is_shown() {
    let top = |key: &str, value: Value| json!({ key: value, "choices": [{ "delta": { "content": "x" } }] });
    for (key, first, second, expected) in [
        ("model", json!("m"), json!("m"), true),
        ("model", json!("m"), json!("joe"), false),
        ("id", json!(""), json!("a"), true),
        ("id", json!("a"), json!("joe"), false),
        ("created", json!(1_700_000_000), json!(1_700_000_001), true),
        ("created", json!(1), json!(4_111_111_111_111_111_u64), false),
        ("note", json!("joe"), json!("ok"), false),
        ("note", json!("joe"), json!(null), true),
        ("note", json!({ "a": "joe" }), json!({ "b": 1 }), true),
        ("note", json!({ "a": "joe" }), json!({ "a": "ok" }), false),
        ("usage", json!({ "n": 1 }), json!({ "n": 2 }), true),
        ("obfuscation", json!("Ab"), json!("cdE"), true),
    ] {
        check_chunks(top(key, first), top(key, second), expected);
    }
    let delta = |key: &str, value: Value| json!({ "choices": [{ "delta": { key: value } }] });
    for (key, first, second, expected) in [
        ("content", json!(["joe"]), json!("done"), false),
        ("content", json!("joe"), json!(["done"]), false),
        ("content", json!("joe"), json!(0), true),
        ("content", json!("joe"), json!(1), false),
        ("content", json!(""), json!(["joe"]), true),
        ("role", json!("assistant"), json!("assistant"), true),
        ("role", json!("joe"), json!("assistant"), false),
        ("tool_calls", json!([{ "index": 0, "id": "a" }]), json!([{ "index": 0, "id": "joe" }]), false),
    ] {
        check_chunks(delta(key, first), delta(key, second), expected);
    }
    let choice =
        |key: &str, value: Value| json!({ "choices": [{ "delta": { "content": "x" }, key: value }] });
    for (key, first, second, expected) in [
        ("reasoning", json!("joe"), json!("ok"), false),
        ("reasoning", json!("joe"), json!("joe"), true),
        ("finish_reason", json!("stop"), json!("length"), true),
        ("message", json!(null), json!(null), true),
        ("message", json!({ "content": "joe" }), json!(null), false),
    ] {
        check_chunks(choice(key, first), choice(key, second), expected);
    }
    let chunk = || json!({ "choices": [{ "delta": { "content": "x" } }] });
    for (fields, expected) in [
        ("id: 7\nevent: message\n", true),
        ("id\n", true),
        ("id: joe@example.com\n", false),
        ("id: 4111111111111111\n", false),
        ("event: joe\n", false),
        ("event: joe\nevent: message\n", false),
    ] {
        check_events(&[(fields, chunk())], expected);
    }
}

#[test]
fn padding_is_shown_and_not_streamed_again() {
    let chunk = |padding| json!({ "obfuscation": padding, "choices": [{ "delta": { "content": "x" } }] });
    let stream = [sse::event(&chunk("ab")), sse::event(&chunk("c"))].concat();
    let completion = assemble(&stream).unwrap();
    assert_eq!(completion["obfuscation"], "abc");
    assert!(!text(&replay(&completion, Usage::Send).unwrap()).contains("obfuscation"));
}

#[test]
fn too_many_entries_are_nobodys_answer() {
    let choices: Vec<Value> =
        (0..=ENTRIES_MAX).map(|index| json!({ "index": index, "delta": { "content": "x" } })).collect();
    assert_eq!(assemble(&sse::event(&json!({ "choices": choices }))), None);
}

#[test]
fn the_form_of_an_answer() {
    let rows = [
        (r#"{"stream":true}"#, Form::Stream(Usage::Omit)),
        (r#"{"stream":true,"stream_options":{"include_usage":true}}"#, Form::Stream(Usage::Send)),
        (r#"{"stream":false,"stream_options":{"include_usage":true}}"#, Form::Whole),
        (r#"{"stream":"true"}"#, Form::Whole),
        ("{}", Form::Whole),
        ("", Form::Whole),
        ("[true]", Form::Whole),
    ];
    for (body, form) in rows {
        assert_eq!(Form::of_request(body.as_bytes()), form, "{body}");
    }
}

fn completions() -> impl Strategy<Value = Value> {
    let content = prop_oneof![Just(Value::Null), ".{0,12}".prop_map(Value::from)];
    let call = (".{0,6}", ".{0,12}").prop_map(|(name, arguments)| {
        json!({ "id": format!("call_{name}"), "type": "function",
                "function": { "name": name, "arguments": arguments } })
    });
    let extra = prop_oneof![
        Just(None),
        Just(Some(("refusal", Value::Null))),
        ".{0,8}".prop_map(|text| Some(("reasoning_content", Value::from(text)))),
        Just(Some(("annotations", json!([{ "index": 3 }, { "index": 3 }])))),
        Just(Some(("audio", json!({ "id": "a", "data": "AAAA" })))),
    ];
    let message = (content, proptest::option::of(proptest::collection::vec(call, 0..3)), extra).prop_map(
        |(content, calls, extra)| {
            let mut message = json!({ "role": "assistant", "content": content });
            if let Some(calls) = calls {
                message["tool_calls"] = json!(calls);
            }
            if let Some((key, value)) = extra {
                message[key] = value;
            }
            message
        },
    );
    let finish = prop_oneof![Just(json!("stop")), Just(json!(null)), Just(json!("length"))];
    let logprobs =
        prop_oneof![Just(None), Just(Some(json!(null))), Just(Some(json!({ "content": [{ "t": 1 }] })))];
    let choice = (message, finish, logprobs);
    (proptest::collection::vec(choice, 1..4), proptest::option::of(0..100_u32)).prop_map(
        |(choices, usage)| {
            let choices: Vec<Value> = choices
                .into_iter()
                .enumerate()
                .map(|(index, (message, finish, logprobs))| {
                    let mut choice = json!({ "index": index, "message": message, "finish_reason": finish });
                    if let Some(logprobs) = logprobs {
                        choice["logprobs"] = logprobs;
                    }
                    choice
                })
                .collect();
            let mut completion = json!({ "id": "c", "object": "chat.completion", "created": 7, "model": "m",
                                     "system_fingerprint": "fp", "choices": choices });
            if let Some(tokens) = usage {
                completion["usage"] = json!({ "total_tokens": tokens });
            }
            completion
        },
    )
}

fn text_completions() -> impl Strategy<Value = Value> {
    let logprobs = prop_oneof![Just(None), Just(Some(json!(null))), Just(Some(json!({ "tokens": ["t"] })))];
    let finish = prop_oneof![Just(json!("stop")), Just(json!(null))];
    let other = prop_oneof![
        any::<i64>().prop_map(|json| json!({ "json": { "n": json } })),
        ".{0,8}"
            .prop_filter("no JSON, one kind of line end", |text| {
                !text.trim_start().starts_with('{')
                    && !text.contains('\r')
                    && serde_json::from_str::<Value>(text).is_err()
                    && text.trim() != "[DONE]"
            })
            .prop_map(|text| json!({ "event": "note", "text": text })),
    ];
    (proptest::collection::vec((".{0,12}", finish, logprobs), 1..4), proptest::collection::vec(other, 0..3))
        .prop_map(|(choices, others)| {
            let choices = choices.into_iter().enumerate().map(|(index, (text, finish, logprobs))| {
                let mut choice = json!({ "index": index, "text": text, "finish_reason": finish });
                if let Some(logprobs) = logprobs {
                    choice["logprobs"] = logprobs;
                }
                choice
            });
            let mut completion = json!({ "id": "c", "object": "text_completion", "created": 7, "model": "m",
                                         "choices": choices.collect::<Vec<Value>>() });
            if !others.is_empty() {
                completion[OTHER_EVENTS] = json!(others);
            }
            completion
        })
}

proptest! {
    #[test]
    fn assembling_a_replay_is_the_identity(
        completion in prop_oneof![completions(), text_completions()],
    ) {
        let events = replay(&completion, Usage::Send).unwrap();
        prop_assert_eq!(assemble(&events.concat()).unwrap(), completion);
    }

    #[test]
    fn arbitrary_events_never_panic(lines in proptest::collection::vec(".{0,60}", 0..8)) {
        let stream = lines.iter().map(|line| format!("data: {line}\n\n")).collect::<String>();
        let _ = assemble(stream.as_bytes());
    }
}
