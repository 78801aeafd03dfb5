use cardan::api::access::{
    AccessAnswer, AccessAuthenticate, AccessAuthorize, AccessEvent, LoginAnswer, LoginEvent,
};
use cardan::api::cache::{CacheAnswer, CacheGet, CacheGetEvent, CacheSubject};
use cardan::api::http::{
    HeaderEdit, HttpAnswer, HttpRequest, HttpResponse, Origin, RequestEvent, ResponseEvent,
};
use cardan::api::sql::{
    Node, NodeRole, QueryAnswer, QueryEvent, RouteAnswer, RouteEvent, SqlQuery, SqlRoute,
};
use cardan::api::tool::{ToolList, ToolListEvent};
use cardan::api::{Fault, Flow, InstanceMode, Verdict};
use cardan_pdk_testing::{CallError, Setup, TestPlugin, request};
use serde_json::json;

use super::guest;

/// The conventions that the runtime loads.
const GUESTS: [&str; 4] =
    ["universal-extism", "universal-packed", "universal-capability", "universal-component"];

fn wishing(wish: &str, body: &str) -> RequestEvent {
    let mut event = request("POST", "/v1/chat/completions");
    event.headers.set("x-do", wish);
    event.body = Some(body.to_owned().into());
    event
}

fn asked(plugin: &TestPlugin, wish: &str, body: &str) -> Verdict<HttpRequest> {
    plugin.ask::<HttpRequest>(&wishing(wish, body)).unwrap()
}

fn each(check: impl Fn(&TestPlugin)) {
    for name in GUESTS {
        let setup = Setup::new(guest(name)).config(json!({ "name": "zoe" }));
        check(&setup.load().unwrap_or_else(|error| panic!("{name}: {error}")));
    }
}

#[test]
fn edits_and_answers() {
    each(|plugin| {
        assert_eq!(asked(plugin, "pass", "{}").edits, Default::default());
        let mut headers = asked(plugin, "head", "{}").edits.headers;
        headers.sort_by_key(|edit| matches!(edit, HeaderEdit::Set(..)));
        let set = HeaderEdit::Set("x-universal".to_owned(), "zoe".to_owned());
        assert_eq!(headers, [HeaderEdit::Remove("x-remove".to_owned()), set]);
        assert_eq!(asked(plugin, "path", "{}").edits.path.as_deref(), Some("/moved"));
        for (body, upper) in [("{\"a\": 1}", "{\"A\": 1}"), ("ärger", "ÄRGER"), ("", ""), ("[1]", "[1]")] {
            assert_eq!(
                asked(plugin, "upper", body).edits.body.as_deref(),
                Some(upper.as_bytes()),
                "{body:?}"
            );
        }
        let Flow::Stop(HttpAnswer::Refuse(refusal)) = asked(plugin, "refuse", "{}").flow else { panic!() };
        assert_eq!((refusal.status, refusal.kind.as_str()), (Some(451), "universal"));
        let Flow::Stop(HttpAnswer::Respond(response)) = asked(plugin, "respond", "{}").flow else { panic!() };
        assert_eq!((response.status, response.body.as_ref()), (203, b"hello from zoe".as_slice()));
    });
}

#[test]
fn a_large_body_comes_back() {
    each(|plugin| {
        let body = "x".repeat(1 << 20);
        assert_eq!(asked(plugin, "upper", &body).edits.body.unwrap(), "X".repeat(1 << 20));
    });
}

#[test]
fn state_and_capabilities() {
    each(|plugin| {
        assert_eq!(asked(plugin, "config", "{}").attributes["name"], "zoe");
        assert_eq!(asked(plugin, "kv", "{}").attributes["count"], 1);
        assert_eq!(asked(plugin, "kv", "{}").attributes["count"], 2);
        asked(plugin, "log", "{}");
        assert!(plugin.log().iter().any(|line| &*line.text == "universal: test-visit"));
    });
    for (mode, calls) in [(InstanceMode::Fresh, 1), (InstanceMode::Visit, 2)] {
        for name in GUESTS {
            let plugin = Setup::new(guest(name)).mode(mode).load().unwrap();
            let mut visit = plugin.visit();
            visit.ask::<HttpRequest>(&wishing("visit", "{}")).unwrap();
            let response = ResponseEvent {
                request: wishing("visit", "{}"),
                status: 200,
                headers: Default::default(),
                body: None,
                streamed: false,
                origin: Origin::Upstream,
            };
            visit.ask::<HttpResponse>(&response).unwrap();
            assert_eq!(visit.attributes()["seen"], 2, "{name} {mode:?}");
            assert_eq!(visit.attributes()["calls"], calls, "{name} {mode:?}");
        }
    }
}

#[test]
fn faults() {
    each(|plugin| {
        for wish in ["error", "panic"] {
            let error = plugin.ask::<HttpRequest>(&wishing(wish, "{}")).unwrap_err();
            assert_eq!(error.fault(), Fault::Trap, "{wish}");
            let said = |text: &str| text.contains("as you wish");
            assert!(said(&error.to_string()) || plugin.log().iter().any(|line| said(&line.text)), "{wish}");
        }
        assert_eq!(plugin.ask::<HttpRequest>(&wishing("memory", "{}")).unwrap_err().fault(), Fault::Memory);
    });
}

#[test]
fn a_plugin_that_cannot_be_made_is_not_loaded() {
    for name in GUESTS {
        for config in [json!({ "refuse_load": true }), json!({ "name": 7 })] {
            let error = Setup::new(guest(name)).config(config).load().unwrap_err();
            assert!(error.message().contains("configuration"), "{error}");
        }
    }
}

#[test]
fn tools_are_listed_and_called() {
    each(|plugin| {
        let Flow::Stop(tools) = plugin.ask::<ToolList>(&ToolListEvent).unwrap().flow else { panic!() };
        assert_eq!(
            tools.iter().map(|tool| tool.name.as_str()).collect::<Vec<_>>(),
            ["echo", "upper", "fail"]
        );
        assert_eq!(plugin.call("echo", json!({ "a": [1, null] })).unwrap(), json!({ "a": [1, null] }));
        assert_eq!(plugin.call("upper", json!({ "text": "ärger" })).unwrap(), "ÄRGER");
        assert!(
            matches!(plugin.call("fail", json!({})), Err(CallError::Failed(why)) if why == "it never works")
        );
        assert!(matches!(plugin.call("other", json!({})), Err(CallError::Unknown)));
    });
}

fn statement(sql: &str) -> QueryEvent {
    QueryEvent {
        sql: sql.to_owned(),
        is_read_only: true,
        client: "192.0.2.1:5".to_owned(),
        ..Default::default()
    }
}

#[test]
fn databases() {
    each(|plugin| {
        let login = |name: &str| LoginEvent { username: Some(name.to_owned()), ..LoginEvent::default() };
        let verdict = plugin.ask::<AccessAuthenticate>(&login("alice")).unwrap();
        assert!(matches!(verdict.flow, Flow::Stop(LoginAnswer::Identity(who)) if who.user_id == "u-1"));
        let verdict = plugin.ask::<AccessAuthenticate>(&login("mallory")).unwrap();
        assert!(matches!(verdict.flow, Flow::Stop(LoginAnswer::Deny(why)) if why.message == "not you"));
        assert_eq!(plugin.ask::<AccessAuthenticate>(&login("bob")).unwrap().flow, Flow::Continue);

        let access = |to: &str| AccessEvent { resource: to.to_owned(), ..AccessEvent::default() };
        let verdict = plugin.ask::<AccessAuthorize>(&access("public")).unwrap();
        assert_eq!(verdict.flow, Flow::Stop(AccessAnswer::Allow));

        let verdict = plugin.ask::<SqlQuery>(&statement("drop table t")).unwrap();
        let Flow::Stop(QueryAnswer::Refuse(refusal)) = verdict.flow else { panic!() };
        assert_eq!(refusal.sqlstate.as_deref(), Some("42501"));
        let verdict = plugin.ask::<SqlQuery>(&statement("select rows")).unwrap();
        assert!(matches!(verdict.flow, Flow::Stop(QueryAnswer::Rows(rows)) if rows.rows.len() == 2));
        let verdict = plugin.ask::<SqlQuery>(&statement("rewrite")).unwrap();
        assert_eq!(verdict.edits.sql.as_deref(), Some("select 2"));

        let node = Node { name: "b".to_owned(), role: NodeRole::Standby, is_healthy: true, lag_ms: Some(3) };
        let route = |sql: &str| RouteEvent { query: statement(sql), nodes: vec![node.clone()] };
        let flow = |sql: &str| plugin.ask::<SqlRoute>(&route(sql)).unwrap().flow;
        assert_eq!(flow("select 1"), Flow::Stop(RouteAnswer::Role(NodeRole::Standby)));
        assert_eq!(flow("select node"), Flow::Stop(RouteAnswer::Node("b".to_owned())));

        let lookup = |key: &str| CacheGetEvent {
            key: key.to_owned(),
            subject: CacheSubject::Query(statement("select 1")),
        };
        let verdict = plugin.ask::<CacheGet>(&lookup("other")).unwrap();
        assert_eq!(verdict.edits.key.as_deref(), Some("renamed"));
        assert_eq!(plugin.ask::<CacheGet>(&lookup("skip")).unwrap().flow, Flow::Stop(CacheAnswer::Skip));
    });
}
