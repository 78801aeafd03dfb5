//! Who is asked, in which order, and what each one gets to see.

use std::sync::OnceLock;

use bytes::Bytes;
use cardan_api::http::{HttpRequest, HttpResponse};
use cardan_api::{BodyNeed, Fault};
use cardan_manager::Progress;

use crate::support::{ask_request, ask_response, json, manager, request, response, told, walked};

/// A plugin of one line: named, bound to `http.request` with the keys given, doing what `config` says.
fn zoo(name: &str, binding: &str, config: &str) -> String {
    format!(
        "- {{name: {name}, source: prebuilt/llmproxy-zoo.wasm, config: {config}, limits: {{deadline: 5s}}, \
           bindings: [{{hook: http.request{binding}}}]}}\n"
    )
}

#[tokio::test]
async fn phase_then_priority_then_installation() {
    let yaml = [
        zoo("late", ", phase: routing, priority: -5", "{}"),
        zoo("b", "", "{}"),
        zoo("a", "", "{}"),
        zoo("first-of-flight", ", priority: 99", "{}"),
        zoo("last-of-flight", ", priority: 101", "{}"),
        zoo("gate", ", phase: ingress, priority: 1000", "{}"),
    ];
    let manager = manager(&yaml.concat());
    let mut visit = manager.open(None);
    assert_eq!(told(&ask_request(&mut visit, &mut request("{}")).await), "done");
    assert_eq!(walked(&visit), "gate first-of-flight b a last-of-flight late");
}

#[tokio::test]
async fn a_stop_ends_the_chain() {
    let yaml = [zoo("one", "", "{}"), zoo("two", "", "{behave: block}"), zoo("three", "", "{}")];
    let manager = manager(&yaml.concat());
    let mut visit = manager.open(None);
    let mut event = request("{}");
    let mut chain = visit.chain::<HttpRequest>(&event);
    let progress = visit.ask(&mut chain, &mut event).await;
    assert_eq!(told(&progress), "refuse 403 zoo: blocked by the zoo");
    assert_eq!(walked(&visit), "one two!");
    assert!(chain.is_done());
    // Asked again by mistake, a stopped chain does not go on behind the guard.
    assert_eq!(told(&visit.ask(&mut chain, &mut event).await), "done");
    assert_eq!(walked(&visit), "one two!");
}

#[tokio::test]
async fn match_rules() {
    #[track_caller]
    fn check(rule: &str, matches: &[(&str, bool)]) {
        let manager = manager(&zoo("zoo", &format!(", match: {rule}"), "{}"));
        for (line, expected) in matches {
            let [method, host, path] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
            let mut event = request("{}");
            (event.method, event.host, event.path) = (method.into(), host.into(), path.into());
            let visit = manager.open(None);
            assert_eq!(!visit.chain::<HttpRequest>(&event).is_done(), *expected, "{rule} on {line}");
            let need = if *expected { BodyNeed::Whole } else { BodyNeed::None };
            assert_eq!(visit.body_need::<HttpRequest>(&event), need, "{rule} on {line}");
        }
    }
    check("{}", &[("GET any /", true)]);
    check("{paths: []}", &[("GET any /", true)]);
    check(
        "{paths: ['/v1/*']}",
        &[("GET h /v1/a", true), ("GET h /v1/a/b", true), ("GET h /v10", false), ("GET h /V1/a", false)],
    );
    for rule in ["{paths: ['/v1/*']}", "{paths: ['/v1/**']}", "{paths: ['*1/*']}"] {
        check(rule, &[("GET h /v1", true), ("GET h /v1/", true), ("GET h /v2", false)]);
    }
    for (rule, path) in [
        ("*:generateContent", "/v1beta/models/g:generateContent"),
        ("*%3agenerateContent", "/v1beta/models/g:generateContent"),
        ("/caf%c3%a9/*", "/caf%C3%A9/x"),
        ("/café/*", "/caf%C3%A9/x"),
        ("/%7euser/*", "/~user/x"),
        ("/{id}/?", "/%7Bid%7D/x"),
        ("/a%2A", "/a*"),
        ("/a[!b-c]d", "/a!d"),
    ] {
        check(&format!("{{paths: ['{rule}']}}"), &[(&format!("GET h {path}"), true)]);
    }
    check("{paths: ['/a%2A']}", &[("GET h /ab", false)]);
    check("{paths: ['/v1/?*']}", &[("GET h /v1/a", true), ("GET h /v1", false), ("GET h /v1/", false)]);
    check("{paths: ['/*']}", &[("GET h /", true), ("GET h /a", true)]);
    check("{paths: ['/a', '/b']}", &[("GET h /a", true), ("GET h /b", true), ("GET h /a/", false)]);
    check("{methods: [post]}", &[("POST h /", true), ("post h /", true), ("GET h /", false)]);
    check(
        "{hosts: ['*.Example']}",
        &[("GET a.example /", true), ("GET A.EXAMPLE /", true), ("GET example /", false)],
    );
    check(
        "{paths: ['/v1/*'], methods: [POST], hosts: [h]}",
        &[("POST h /v1/x", true), ("POST h /x", false), ("GET h /v1/x", false), ("POST g /v1/x", false)],
    );
}

#[tokio::test]
async fn a_plugin_sees_the_edits_of_those_before_it() {
    let yaml = [
        zoo("mask", "", "{behave: mask, text: masked}"),
        zoo("echo", "", "{behave: echo_input}"),
        zoo("outer", "", "{behave: echo_input}"),
    ];
    let manager = manager(&yaml.concat());
    let mut event = request(r#"{"messages":[{"role":"user","content":"secret"}]}"#);
    let mut visit = manager.open(Some("s1"));
    ask_request(&mut visit, &mut event).await;
    let outer = json(event.body.as_ref());
    assert_eq!(outer["body"]["body"]["messages"][0]["content"], "masked");
    assert_eq!(outer["body"]["session_id"], "s1");
    assert_eq!(outer["metadata"]["req_id"], visit.id());
}

/// A plugin that moves requests to this path.
fn mover(name: &str, binding: &str, path: &str) -> String {
    static FOLDER: OnceLock<tempfile::TempDir> = OnceLock::new();
    let source = FOLDER.get_or_init(|| tempfile::tempdir().unwrap()).path().join(format!("{name}.wat"));
    let verdict = serde_json::json!({ "verdict": "continue", "edits": { "path": path } });
    std::fs::write(&source, crate::support::answering(&verdict.to_string())).unwrap();
    format!(
        "- {{name: {name}, source: '{}', bindings: [{{hook: http.request{binding}}}]}}\n",
        source.display()
    )
}

#[tokio::test]
async fn who_is_for_the_request_as_it_came_or_as_it_leaves_is_asked_once() {
    async fn check(plugins: &[String], left: &str, asked: &str) {
        let manager = manager(&plugins.concat());
        let mut event = request("{}");
        event.path = "/a".to_owned();
        let mut visit = manager.open(None);
        let mut chain = visit.chain::<HttpRequest>(&event);
        assert_eq!(told(&visit.ask(&mut chain, &mut event).await), "done");
        assert_eq!((event.path.as_str(), walked(&visit).as_str()), (left, asked));
        assert_eq!(told(&visit.ask(&mut chain, &mut event).await), "done");
        assert_eq!(walked(&visit), asked, "asked again, nobody is");
    }
    let to_b = || mover("to-b", ", phase: ingress", "/b");
    let for_path = |path: &str| zoo(&format!("for{}", path.replace('/', "-")), &only(path), "{}");
    check(&[to_b(), for_path("/a"), for_path("/b"), for_path("/c")], "/b", "to-b for-a for-b").await;
    // Who is for both is asked once, where it stands.
    check(&[zoo("both", &only("/?"), "{}"), to_b(), for_path("/b")], "/b", "to-b both for-b").await;
    // Those who are asked then may move it on.
    let on = [to_b(), mover("b-to-c", &only("/b"), "/c"), for_path("/c"), for_path("/b")];
    check(&on, "/c", "to-b b-to-c for-b for-c").await;
    // Round in a circle is no way round anybody, and has an end.
    let circle = [to_b(), mover("b-to-a", &only("/b"), "/a"), for_path("/a")];
    check(&circle, "/a", "to-b for-a b-to-a").await;
    check(&[mover("same", "", "/a"), for_path("/b")], "/a", "same").await;
}

fn only(path: &str) -> String {
    format!(", match: {{paths: ['{path}']}}")
}

#[tokio::test]
async fn who_joins_a_walk_is_shown_the_body_too() {
    let guard = zoo("guard", &only("/b"), "{behave: block}");
    let manager = manager(&[mover("mover", ", body: none", "/b"), guard].concat());
    let mut event = request("{}");
    (event.path, event.body) = ("/a".to_owned(), None);
    let mut visit = manager.open(None);
    let mut chain = visit.chain::<HttpRequest>(&event);
    assert_eq!(told(&visit.ask(&mut chain, &mut event).await), "needs body");
    event.body = Some(Bytes::from_static(b"{}"));
    assert_eq!(told(&visit.ask(&mut chain, &mut event).await), "refuse 403 zoo: blocked by the zoo");
    assert_eq!(told(&visit.ask(&mut chain, &mut event).await), "done");
    assert_eq!(walked(&visit), "mover guard!", "a stopped walk does not go on");
}

#[tokio::test]
async fn a_host_that_edits_the_event_asks_again() {
    let manager = manager(&[zoo("all", "", "{}"), zoo("for-b", &only("/b"), "{}")].concat());
    let mut event = request("{}");
    event.path = "/%62".to_owned();
    let mut visit = manager.open(None);
    let mut chain = visit.chain::<HttpRequest>(&event);
    visit.ask(&mut chain, &mut event).await;
    event.path = "/b".to_owned();
    visit.ask(&mut chain, &mut event).await;
    assert_eq!(walked(&visit), "all for-b");
}

#[tokio::test]
async fn later_hooks_are_for_both_requests_too() {
    let at_response = |name: &str, path: &str| {
        let rule = format!("match: {{paths: ['{path}']}}");
        format!(
            "- {{name: {name}, source: prebuilt/llmproxy-zoo.wasm, limits: {{deadline: 5s}}, \
               bindings: [{{hook: http.response, {rule}}}]}}\n"
        )
    };
    let plugins = [mover("mover", "", "/b"), at_response("a", "/a"), at_response("b", "/b")];
    let manager = manager(&[plugins.concat(), at_response("c", "/c")].concat());
    let mut event = request("{}");
    event.path = "/a".to_owned();
    let mut visit = manager.open(None);
    ask_request(&mut visit, &mut event).await;
    let mut answer = response(event, "{}");
    assert_eq!(visit.body_need::<HttpResponse>(&answer), BodyNeed::Whole);
    ask_response(&mut visit, &mut answer).await;
    assert_eq!(walked(&visit), "mover a b");

    // Also where the walk that moved it did not come to its end.
    let plugins = [mover("mover", "", "/b"), zoo("no", "", "{behave: block}"), at_response("a", "/a")];
    let manager = crate::support::manager(&plugins.concat());
    let mut event = request("{}");
    event.path = "/a".to_owned();
    let mut visit = manager.open(None);
    ask_request(&mut visit, &mut event).await;
    ask_response(&mut visit, &mut response(event, "{}")).await;
    assert_eq!(walked(&visit), "mover no! a");
}

#[tokio::test]
async fn a_body_is_asked_for_where_one_is_needed() {
    let yaml = [
        zoo("head", ", body: none, phase: ingress", "{behave: answer, answer: '{}'}"),
        zoo("whole", "", "{}"),
        zoo("head-again", ", body: none, phase: routing", "{}"),
    ];
    let manager = manager(&yaml.concat());
    let mut visit = manager.open(None);
    let mut event = request("{}");
    event.body = None;
    assert_eq!(visit.body_need::<HttpRequest>(&event), BodyNeed::Whole);
    let mut chain = visit.chain::<HttpRequest>(&event);
    assert_eq!(told(&visit.ask(&mut chain, &mut event).await), "needs body");
    assert_eq!(walked(&visit), "head");
    assert_eq!(told(&visit.ask(&mut chain, &mut event).await), "needs body", "asking again changes nothing");
    event.body = Some(Bytes::from_static(b"{}"));
    assert_eq!(told(&visit.ask(&mut chain, &mut event).await), "done");
    assert_eq!(walked(&visit), "head whole head-again");
}

#[tokio::test]
async fn a_body_that_cannot_be_shown_is_a_fault() {
    let yaml = [
        zoo("skipper", ", on_fault: skip", "{}"),
        zoo("head", ", body: none", "{}"),
        zoo("guard", ", priority: 200", "{}"),
    ];
    let manager = manager(&yaml.concat());
    let mut visit = manager.open(None);
    let mut event = request("{}");
    event.body = None;
    let mut chain = visit.chain::<HttpRequest>(&event);
    assert!(matches!(visit.ask(&mut chain, &mut event).await, Progress::NeedsBody));
    assert_eq!(told(&visit.cannot_show(&mut chain, Fault::Host)), "done");
    assert!(!chain.is_done(), "there are others to ask");
    assert_eq!(told(&visit.ask(&mut chain, &mut event).await), "needs body");
    assert_eq!(told(&visit.cannot_show(&mut chain, Fault::Host)), "fault: host");
    assert_eq!(walked(&visit), "skipper?host head guard!host");
}

#[tokio::test]
async fn who_did_not_ask_for_the_body_is_not_shown_it() {
    let yaml = [
        zoo("whole", ", priority: 1", "{}"),
        zoo(
            "head",
            ", body: none, on_fault: skip",
            "{behave: answer, answer: '{\"action\":\"modify\",\"body\":{\"a\":1}}'}",
        ),
    ];
    let manager = manager(&yaml.concat());
    let mut visit = manager.open(None);
    let mut event = request(r#"{"secret":1}"#);
    assert_eq!(told(&ask_request(&mut visit, &mut event).await), "done");
    assert_eq!(walked(&visit), "whole head?protocol", "a body that was not shown cannot be replaced");
    assert_eq!(json(event.body.as_ref())["secret"], 1);
}

#[tokio::test]
async fn one_plugin_at_several_hooks_shares_attributes() {
    let manager = manager("- {name: mask, source: prebuilt/pii-mask.wasm}");
    let mut visit = manager.open(None);
    let mut event = request(r#"{"messages":[{"role":"user","content":"I am joe@example.com"}]}"#);
    ask_request(&mut visit, &mut event).await;
    assert_eq!(visit.attributes()["pii_masked"], 1);
    let mut answer = response(
        event,
        r#"{"choices":[{"message":{"role":"assistant","content":"mail jane@example.com"}}]}"#,
    );
    ask_response(&mut visit, &mut answer).await;
    assert_eq!(visit.attributes()["pii_masked"], 2);
    assert_eq!(walked(&visit), "mask mask");
    assert!(!String::from_utf8_lossy(answer.body.as_ref().unwrap()).contains("jane@"));
}
