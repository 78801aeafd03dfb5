//! Hooks that no listener asks at, in dialects of other systems, over a convention that is neither's.

use cardan::api::sql::{
    NodeRole, QueryAnswer, QueryEdits, QueryEvent, RouteAnswer, RouteEvent, SqlQuery, SqlRoute,
};
use cardan::api::tool::{ToolAnswer, ToolCall, ToolCallEvent, ToolList, ToolListEvent, ToolOutput};
use cardan::api::{Attributes, BodyNeed, Flow, Phase, Verdict};
use cardan::dialect::Spoken;
use cardan::{Circumstances, Dialect, Error, Fault, Held, Plugin, Question};
use serde_json::json;

use crate::support::{GENEROUS, engine, guest, prebuilt, within};

async fn ask<H: Spoken>(plugin: &Plugin, event: &H::Event, entry: Option<&str>) -> Result<Verdict<H>, Error> {
    let (attributes, config) = (Attributes::new(), json!({}));
    let about = Circumstances {
        phase: Phase::PreFlight,
        body: BodyNeed::Whole,
        visit: "0123456789abcdef",
        session: "default",
        attributes: &attributes,
        config: &config,
    };
    plugin.ask(&mut Held::default(), Question { event, about, entry, deadline: None }).await
}

fn load(functions: &str) -> Plugin {
    engine().plugin(guest(functions).as_bytes()).limits(within(GENEROUS)).load().unwrap()
}

/// A plugin may have two exports for one hook. A question that names neither is for the first.
#[tokio::test]
async fn statements() {
    let plugin = load(
        r#"
        (func (export "rewrite") (result i32)
          (call $say @"{\22kind\22:\22rewrite\22,\22sql\22:\22SELECT 2\22}") (i32.const 0))
        (func (export "pre_query") (result i32)
          (call $say @"{\22kind\22:\22Block\22,\22reason\22:\22over budget\22}") (i32.const 0))
        (func (export "metrics") (result i32) (i32.const 0))
        (func (export "route") (result i32) (call $say @"{\22action\22:\22standby\22}") (i32.const 0))"#,
    );
    assert_eq!(plugin.dialect(), Some(Dialect::HeliosProxy));
    assert_eq!(plugin.inspection().hooks, ["http.complete", "sql.query", "sql.route", "sql.result"]);
    assert_eq!(plugin.entries_at("sql.query"), ["pre_query", "rewrite"]);
    assert_eq!(plugin.entries_at("sql.result"), ["metrics"]);
    let event = QueryEvent { sql: "SELECT 1".to_owned(), ..QueryEvent::default() };
    let verdict = ask::<SqlQuery>(&plugin, &event, None).await.unwrap();
    let Flow::Stop(QueryAnswer::Refuse(refusal)) = verdict.flow else { panic!("{verdict:?}") };
    assert_eq!(refusal.message, "over budget");
    let verdict = ask::<SqlQuery>(&plugin, &event, Some("rewrite")).await.unwrap();
    assert_eq!(verdict.flow, Flow::Continue);
    assert_eq!(verdict.edits, QueryEdits { sql: Some("SELECT 2".to_owned()) });
    let event = RouteEvent { query: event, nodes: Vec::new() };
    let verdict = ask::<SqlRoute>(&plugin, &event, None).await.unwrap();
    assert_eq!(verdict.flow, Flow::Stop(RouteAnswer::Role(NodeRole::Standby)));
}

/// A tool is an export under its own name, wherever its dialect has it so.
#[tokio::test]
async fn tools() {
    let plugin = prebuilt("kitchen").dialect(Dialect::CortexPrism).limits(within(GENEROUS)).load().unwrap();
    assert_eq!(plugin.inspection().hooks, ["tool.call"]);
    let call = |tool: &str| ToolCallEvent { tool: tool.to_owned(), arguments: r#"{"n": 1.10}"#.into() };
    let verdict = ask::<ToolCall>(&plugin, &call("echo"), None).await.unwrap();
    let output = ToolOutput::Json(r#"{"n": 1.10}"#.into());
    assert_eq!(verdict.flow, Flow::Stop(ToolAnswer::Done(output)));
    let error = ask::<ToolCall>(&plugin, &call("no_such_tool"), None).await.unwrap_err();
    assert_eq!(error.fault(), Fault::Protocol, "{error}");
    let error = ask::<ToolList>(&plugin, &ToolListEvent, None).await.unwrap_err();
    assert_eq!(error.fault(), Fault::Protocol, "{error}");
    // In this convention a number is no answer but a failure, whatever the dialect.
    let failing = ToolCallEvent { tool: "fail".to_owned(), arguments: r#"{"code":4,"message":"no"}"#.into() };
    let error = ask::<ToolCall>(&plugin, &failing, None).await.unwrap_err();
    assert_eq!(error.fault(), Fault::Trap, "{error}");
}

/// What a dialect cannot read is a fault, never a guess.
#[tokio::test]
async fn garbage() {
    for output in ["{}", "[1]", r"{\22action\22:\22blok\22}", r"{\22action\22:\22rewrite\22}"] {
        let plugin = load(&format!(
            r#"(func (export "pre_query") (result i32) (call $say @"{output}") (i32.const 0))"#
        ));
        let error = ask::<SqlQuery>(&plugin, &QueryEvent::default(), None).await.unwrap_err();
        assert_eq!(error.fault(), Fault::Protocol, "{output}: {error}");
    }
    // In this convention that is what a program without anything to say does.
    let silent = load(r#"(func (export "pre_query") (result i32) (i32.const 0))"#);
    let verdict = ask::<SqlQuery>(&silent, &QueryEvent::default(), None).await.unwrap();
    assert_eq!(verdict.flow, Flow::Continue, "no output is the default outcome");
}

/// A guard that broke off, or has no way to answer, has not let anything pass.
#[tokio::test]
async fn who_says_nothing_has_not_consented() {
    let module = |function: &str| {
        format!(
            r#"(module (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
                 (memory (export "memory") 1)
                 (func (export "alloc") (param i32) (result i32) (i32.const 1024))
                 (func (export "on_load") (param i32 i32))
                 (func (export "route") (param i32 i32) (result i64) (i64.const 0))
                 {function})"#
        )
    };
    for (function, is_heard) in [
        (r#"(func (export "pre_query") (param i32 i32) (result i64) (i64.const -1))"#, true),
        (r#"(func (export "pre_query") (param i32 i32) (result i64) (i64.const 0x0000040080000000))"#, true),
        (r#"(func (export "pre_query") (param i32 i32) (result i64) (i64.const 0xffff000000000000))"#, true),
        (
            r#"(func (export "pre_query") (param i32 i32) (result i64) (call $exit (i32.const 0)) (i64.const 0))"#,
            true,
        ),
        (
            r#"(func (export "pre_query") (param i32 i32) (result i32) (call $exit (i32.const 0)) (i32.const 1))"#,
            true,
        ),
        (r#"(func (export "pre_query") (param i32 i32))"#, false),
        (r#"(func (export "pre_query") (result i32) (i32.const 0))"#, false),
        (r#"(func (export "pre_query"))"#, false),
    ] {
        let module = module(function);
        let plugin = engine().plugin(module.as_bytes()).limits(within(GENEROUS)).load().unwrap();
        assert_eq!(plugin.dialect(), Some(Dialect::HeliosProxy));
        assert_eq!(plugin.inspection().hooks.contains(&"sql.query"), is_heard, "{function}");
        for entry in [None, Some("pre_query")] {
            let error = ask::<SqlQuery>(&plugin, &QueryEvent::default(), entry).await.unwrap_err();
            assert_eq!(error.fault(), Fault::Protocol, "{function}: {error}");
        }
        let nowhere = RouteEvent { query: QueryEvent::default(), nodes: Vec::new() };
        assert_eq!(ask::<SqlRoute>(&plugin, &nowhere, None).await.unwrap().flow, Flow::Continue);
    }
}
