//! Who is asked, in which order, and what each one gets to see.

use bytes::Bytes;
use cardan_api::http::HttpRequest;
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
        &[("GET h /v1/a", true), ("GET h /v1/a/b", true), ("GET h /v1", false), ("GET h /V1/a", false)],
    );
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

#[tokio::test]
async fn an_edited_path_takes_nobody_out_of_the_walk() {
    let moved = tempfile::tempdir().unwrap();
    let source = moved.path().join("mover.wat");
    std::fs::write(&source, crate::support::answering(r#"{"verdict":"continue","edits":{"path":"/b"}}"#))
        .unwrap();
    let yaml = format!(
        "- {{name: mover, source: '{}'}}\n{}{}",
        source.display(),
        zoo("for-a", ", match: {paths: [/a]}", "{}"),
        zoo("for-b", ", match: {paths: [/b]}", "{}"),
    );
    let manager = manager(&yaml);
    let mut event = request("{}");
    event.path = "/a".to_owned();
    let mut visit = manager.open(None);
    ask_request(&mut visit, &mut event).await;
    assert_eq!((event.path.as_str(), walked(&visit).as_str()), ("/b", "mover for-a"));
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
