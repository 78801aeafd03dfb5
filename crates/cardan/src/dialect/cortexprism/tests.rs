use cardan_api::BodyNeed;
use cardan_api::Phase;
use cardan_api::lifecycle::PluginUnload;

use super::*;
use crate::dialect::samples::{self, About, told};
use crate::dialect::{Dialect, Spoken};

#[track_caller]
fn check<H: Spoken>(event: &H::Event, rows: &[(&str, &str)]) {
    for (document, expected) in rows {
        assert_eq!(
            told(H::decode(Dialect::CortexPrism, event, document.as_bytes())),
            *expected,
            "{document}"
        );
    }
}

#[test]
fn documents() {
    let about = About::sample();
    let about = about.at(Phase::PreFlight, BodyNeed::Whole);
    assert_eq!(ToolList::encode(Dialect::CortexPrism, &ToolListEvent, about).unwrap(), b"");
    assert_eq!(PluginUnload::encode(Dialect::CortexPrism, &samples::life(), about).unwrap(), b"");
    for (arguments, expected) in [
        ("", Some("{}")),
        (r#" {"n": 1.10} "#, Some(r#"{"n": 1.10}"#)),
        ("[1]", None),
        ("{", None),
        ("\"\"", None),
    ] {
        let event = samples::tool_call("transform", arguments);
        let document = ToolCall::encode(Dialect::CortexPrism, &event, about).ok();
        assert_eq!(document.as_deref(), expected.map(str::as_bytes), "{arguments}");
    }
}

#[test]
fn lists() {
    let listed = r#"{"abi_version":1,"tools":[{"name":"t","description":"d","params":[
        {"name":"p","type":"string","description":"e","required":true},{"name":"q","type":"array"}]},{"name":"u"}]}"#;
    let verdict = ToolList::decode(Dialect::CortexPrism, &ToolListEvent, listed.as_bytes()).unwrap();
    let cardan_api::Flow::Stop(tools) = verdict.flow else { panic!("{:?}", verdict.flow) };
    assert_eq!(
        serde_json::to_value(tools).unwrap(),
        json!([
            {
                "name": "t",
                "description": "d",
                "parameters": {
                    "type": "object",
                    "properties": {"p": {"type": "string", "description": "e"}, "q": {"type": "array"}},
                    "required": ["p"],
                },
            },
            {"name": "u", "description": "", "parameters": null},
        ])
    );
    check::<ToolList>(
        &ToolListEvent,
        &[
            ("{}", "Stop([])"),
            (r#"{"abi_version":1}"#, "Stop([])"),
            (
                r#"{"abi_version":42,"tools":[]}"#,
                "malformed: its interface has the version 42, and only 1 is known",
            ),
            (r#"{"tools":[{"name":"t"},{"name":"t"}]}"#, "malformed: there are two tools \"t\""),
            (r#"{"tools":[{"name":""}]}"#, "malformed: a tool has no name"),
            (
                r#"{"tools":[{"name":"t","params":[{"name":"p","type":"int"}]}]}"#,
                "malformed: unknown variant `int`, expected one of `string`, `number`, `boolean`, `object`, `array`",
            ),
            (
                r#"{"tools":[{"name":"t","params":[{"name":"p","type":"string"},{"name":"p","type":"number"}]}]}"#,
                "malformed: the tool \"t\" has two parameters \"p\"",
            ),
            ("", "malformed: EOF while parsing a value"),
            ("[{\"name\":\"t\"", "malformed: invalid type: map, expected u64"),
        ],
    );
}

/// Modules with one export for each tool list nothing: what can be one is.
#[test]
fn made_up_lists() {
    let exports = [
        "transform",
        "count_tokens",
        "alloc",
        "realloc",
        "__new",
        "_start",
        "cabi_realloc",
        "plugin_init",
        "",
    ];
    let document = capabilities(exports);
    assert_eq!(
        String::from_utf8(document.clone()).unwrap(),
        r#"{"abi_version":1,"tools":[{"name":"transform"},{"name":"count_tokens"}]}"#
    );
    let verdict = ToolList::decode(Dialect::CortexPrism, &ToolListEvent, &document).unwrap();
    assert!(matches!(verdict.flow, cardan_api::Flow::Stop(tools) if tools.len() == 2));
}

#[test]
fn results() {
    let event = samples::tool_call("transform", "{}");
    check::<ToolCall>(
        &event,
        &[
            (r#" {"result":"olleh","n":1.10} "#, r#"Stop(Done(Json(b"{\"result\":\"olleh\",\"n\":1.10}")))"#),
            ("7", r#"Stop(Done(Json(b"7")))"#),
            ("olleh", r#"Stop(Done(Text("olleh")))"#),
            ("{\"half\":", r#"Stop(Done(Text("{\"half\":")))"#),
            ("", r#"Stop(Done(Text("")))"#),
            ("a\u{0}b", r#"Stop(Done(Text("a\0b")))"#),
        ],
    );
    let read = ToolCall::decode(Dialect::CortexPrism, &event, b"\xff");
    assert_eq!(told(read), "malformed: the output is neither JSON nor text");
    for (words, expected) in [
        (Some("no file"), r#"Stop(Failed("no file"))"#),
        (Some(""), r#"Stop(Failed("WASM tool execution failed"))"#),
        (None, r#"Stop(Failed("WASM tool execution failed"))"#),
    ] {
        let verdict = ToolCall::decode_code(Dialect::CortexPrism, words);
        assert_eq!(told(Ok(verdict.unwrap())), expected);
    }
}

#[test]
fn tools_are_called_by_their_names() {
    let event = samples::tool_call("transform", "{}");
    assert_eq!(ToolCall::entry_of(Dialect::CortexPrism, &event), Some("transform"));
    assert_eq!(ToolCall::entry_of(Dialect::Cardan, &event), None);
}
