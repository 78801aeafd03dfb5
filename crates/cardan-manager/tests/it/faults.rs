//! What follows when a plugin cannot be asked.

use std::time::Duration;

use cardan_api::http::HttpRequest;
use cardan_manager::PluginSpec;

use crate::support::{ask_request, json, manager, manager_of, request, specs, told, walked};

/// A plugin with this source between two that always go on.
fn between(source: &str, limits: &str, on_fault: &str) -> Vec<PluginSpec> {
    specs(&format!(
        "- {{name: before, source: prebuilt/llmproxy-zoo.wasm, bindings: [{{hook: http.request}}]}}
         - {{name: bad, source: {source}, dialect: cardan, limits: {limits}, \
              bindings: [{{hook: http.request, entry: http_request, on_fault: {on_fault}}}]}}
         - {{name: after, source: prebuilt/llmproxy-zoo.wasm, bindings: [{{hook: http.request}}]}}"
    ))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn policies() {
    for (guest, fault) in [
        ("trap_unreachable", "trap"),
        ("trap_out_of_bounds", "trap"),
        ("recursion", "trap"),
        ("return_seven", "trap"),
        ("loop_forever", "deadline"),
        ("loop_bulk_fill", "deadline"),
        ("sleep_long", "deadline"),
        ("memory_bomb", "memory"),
        ("output_none", "protocol"),
        ("output_empty", "protocol"),
        ("output_garbage", "protocol"),
        ("output_not_utf8", "protocol"),
        ("output_array", "protocol"),
        ("output_null", "protocol"),
        ("output_trailing", "protocol"),
        ("output_deep_json", "protocol"),
        ("output_unknown_key", "protocol"),
        ("output_unknown_verdict", "protocol"),
        ("output_bad_base64", "protocol"),
        ("output_bad_status", "protocol"),
        ("output_header_injection", "protocol"),
        ("output_header_name", "protocol"),
        ("http_file_scheme", "denied"),
    ] {
        let source = format!("hostile/{guest}.wat");
        let limits = "{deadline: 200ms}";
        for (policy, expected, walk) in [
            ("skip", "done".to_owned(), format!("before bad?{fault} after")),
            ("refuse", format!("fault: {fault}"), format!("before bad!{fault}")),
        ] {
            let manager = manager_of(&between(&source, limits, policy));
            let mut visit = manager.open(None);
            let mut event = request("{}");
            let untouched = event.clone();
            assert_eq!(told(&ask_request(&mut visit, &mut event).await), expected, "{guest}");
            assert_eq!(walked(&visit), walk, "{guest}");
            assert_eq!(event, untouched, "{guest}: a fault brings no edits");
            assert!(visit.attributes().is_empty(), "{guest}: nor attributes");
            // The next visit is served as if nothing had been.
            let mut next = manager.open(None);
            ask_request(&mut next, &mut event).await;
            assert_eq!(walked(&next), walk, "{guest}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_instances_in_use() {
    let manager = manager(
        "- {name: only-one, source: prebuilt/llmproxy-zoo.wasm, instance: visit, limits: {instances: 1, \
            deadline: 100ms}, bindings: [{hook: http.request}, {hook: http.response}]}",
    );
    let mut first = manager.open(None);
    ask_request(&mut first, &mut request("{}")).await;
    let mut second = manager.open(None);
    assert_eq!(told(&ask_request(&mut second, &mut request("{}")).await), "fault: busy");
    drop(first);
    assert_eq!(
        told(&ask_request(&mut second, &mut request("{}")).await),
        "done",
        "given back with the visit"
    );
}

#[tokio::test]
async fn a_bindings_deadline_takes_the_place_of_the_plugins() {
    let manager = manager(
        "- {name: loop, source: prebuilt/llmproxy-zoo.wasm, config: {behave: loop}, limits: {deadline: 1h}, \
            bindings: [{hook: http.request, deadline: 50ms}]}",
    );
    let mut visit = manager.open(None);
    let asked = std::time::Instant::now();
    assert_eq!(told(&ask_request(&mut visit, &mut request("{}")).await), "fault: deadline");
    assert!(asked.elapsed() < Duration::from_secs(5));
    let decision = &visit.decisions()[0];
    assert!(decision.duration >= Duration::from_millis(40) && decision.hook == "http.request");
}

/// A host may give up waiting and drop the question. Whoever had not answered is asked again: nobody is
/// passed over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_question_was_not_answered() {
    let manager = manager(
        "- {name: slow, source: hostile/sleep_long.wat, dialect: cardan, limits: {deadline: 1s}, \
            bindings: [{hook: http.request}]}",
    );
    let mut visit = manager.open(None);
    let mut event = request("{}");
    let mut chain = visit.chain::<HttpRequest>(&event);
    let gave_up = tokio::time::timeout(Duration::from_millis(50), visit.ask(&mut chain, &mut event)).await;
    assert!(gave_up.is_err());
    assert!(!chain.is_done());
    assert_eq!(told(&visit.ask(&mut chain, &mut event).await), "fault: deadline");
}

#[tokio::test]
async fn decisions_are_capped() {
    let manager = manager(
        "- {name: bad, source: hostile/trap_unreachable.wat, dialect: cardan, \
        bindings: [{hook: http.request, entry: http_request, on_fault: skip}]}",
    );
    let mut visit = manager.open(None);
    for _ in 0..1_030 {
        ask_request(&mut visit, &mut request("{}")).await;
    }
    assert_eq!((visit.decisions().len(), visit.decisions_not_kept()), (1_024, 6));
}

#[tokio::test]
async fn attributes_are_capped() {
    async fn check(attributes: serde_json::Value, expected: &str) {
        let dir = tempfile::tempdir().unwrap();
        let source = dir.path().join("setter.wat");
        let document = serde_json::json!({"verdict": "continue", "attributes": attributes}).to_string();
        std::fs::write(&source, crate::support::answering(&document)).unwrap();
        let source = source.display();
        // Twice, since what is set anew takes no more room.
        let manager = manager(&format!("- {{name: a, source: {source}}}\n- {{name: b, source: {source}}}"));
        let mut visit = manager.open(None);
        assert_eq!(told(&ask_request(&mut visit, &mut request("{}")).await), expected);
    }
    let many = |count: usize| (0..count).map(|i| (i.to_string(), serde_json::json!(i))).collect();
    check(serde_json::Value::Object(many(256)), "done").await;
    check(serde_json::Value::Object(many(257)), "fault: protocol").await;
    check(serde_json::json!({"a": "x".repeat(600 << 10)}), "done").await;
    check(serde_json::json!({"a": ["x".repeat(600 << 10), "y".repeat(600 << 10)]}), "fault: protocol").await;
}

#[tokio::test]
async fn two_plugins_share_a_visits_attributes_and_no_others() {
    let manager = manager(
        "- {name: mask, source: prebuilt/pii-mask.wasm, bindings: [{hook: http.request}]}
         - {name: echo, source: prebuilt/llmproxy-zoo.wasm, config: {behave: echo_input}, bindings: [{hook: http.request}]}",
    );
    let mut event = request(r#"{"messages":[{"role":"user","content":"a@b.example"}]}"#);
    ask_request(&mut manager.open(None), &mut event).await;
    assert_eq!(json(event.body.as_ref())["metadata"]["pii_masked"], 1);
    let mut event = request(r#"{"messages":[{"role":"user","content":"nobody"}]}"#);
    ask_request(&mut manager.open(None), &mut event).await;
    assert_eq!(json(event.body.as_ref())["metadata"].as_object().unwrap().len(), 1, "the request's id alone");
}
