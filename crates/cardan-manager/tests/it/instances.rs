//! How long instances live, as seen by a guest that counts its calls in memory and in a variable.

use cardan_api::http::HttpRequest;

use crate::support::{
    ask_complete, ask_request, ask_response, complete, json, manager, request, response, told, walked,
};

/// The counts that three visits with two requests each see: `memory/vars`.
async fn counts(mode: &str) -> String {
    let manager = manager(&format!(
        "- {{name: counter, source: prebuilt/llmproxy-zoo.wasm, instance: {mode}, config: {{behave: count}}, \
            limits: {{deadline: 5s}}, bindings: [{{hook: http.request}}, {{hook: http.complete}}]}}"
    ));
    let mut seen = Vec::new();
    for _ in 0..3 {
        let mut visit = manager.open(None);
        for _ in 0..2 {
            let mut event = request("{}");
            assert_eq!(told(&ask_request(&mut visit, &mut event).await), "done");
            let count = &json(event.body.as_ref())["count"];
            seen.push(format!("{}/{}", count["memory"], count["vars"]));
        }
    }
    seen.join(" ")
}

#[tokio::test]
async fn fresh_instances_remember_nothing_but_variables() {
    assert_eq!(counts("fresh").await, "1/1 1/2 1/3 1/4 1/5 1/6");
}

#[tokio::test]
async fn a_visit_has_an_instance_of_its_own() {
    assert_eq!(counts("visit").await, "1/1 2/2 1/3 2/4 1/5 2/6");
}

#[tokio::test]
async fn a_shared_instance_remembers_everything() {
    assert_eq!(counts("shared").await, "1/1 2/2 3/3 4/4 5/5 6/6");
}

#[tokio::test]
async fn the_response_meets_the_instance_that_saw_the_request() {
    let manager = manager(
        "- {name: counter, source: prebuilt/llmproxy-zoo.wasm, instance: visit, config: {behave: count}, \
            limits: {deadline: 5s}}",
    );
    let mut visit = manager.open(None);
    let mut event = request("{}");
    ask_request(&mut visit, &mut event).await;
    assert_eq!(json(event.body.as_ref())["count"]["memory"], 1);
    // The zoo edits the request's body at every hook.
    let mut answer = response(request("{}"), "{}");
    ask_response(&mut visit, &mut answer).await;
    assert_eq!(json(answer.request.body.as_ref())["count"]["memory"], 2);
    ask_complete(&mut visit, &mut complete(request("{}"))).await;
    assert_eq!(walked(&visit), "counter counter counter");
}

#[tokio::test]
async fn a_fault_costs_the_instance_and_nothing_else() {
    let manager = manager(
        "- {name: counter, source: prebuilt/llmproxy-zoo.wasm, instance: visit, config: {behave: count}, \
            limits: {deadline: 5s}, bindings: [{hook: http.request, on_fault: skip}, {hook: http.complete}]}",
    );
    let mut visit = manager.open(None);
    let mut count = async |body: &str| {
        let mut event = request(body);
        match told(&ask_request(&mut visit, &mut event).await).as_str() {
            "done" if event.body.as_deref() != Some(body.as_bytes()) => {
                json(event.body.as_ref())["count"]["memory"].clone()
            }
            _ => serde_json::Value::Null,
        }
    };
    assert_eq!(count("{}").await, 1);
    assert_eq!(count("{}").await, 2);
    // The zoo fails on input it cannot read: numbers beyond all floats.
    assert_eq!(count(r#"{"n":1e999}"#).await, serde_json::Value::Null);
    assert_eq!(count("{}").await, 1, "the instance that failed is not used again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_is_given_back_when_no_later_binding_can_want_it() {
    /// Whether a second visit finds the only instance after this one has asked at `http.request`.
    async fn check(bindings: &str, expected: &str) {
        let manager = manager(&format!(
            "- {{name: only-one, source: prebuilt/llmproxy-zoo.wasm, instance: visit, \
                limits: {{instances: 1, deadline: 100ms}}, bindings: [{bindings}]}}
             - {{name: body, source: prebuilt/llmproxy-zoo.wasm, limits: {{deadline: 5s}}, \
                bindings: [{{hook: http.request, priority: 200}}]}}"
        ));
        let mut first = manager.open(None);
        let mut event = request("{}");
        event.body = None;
        let mut chain = first.chain::<HttpRequest>(&event);
        // Its client takes its time over the body, which another plugin needs.
        assert_eq!(told(&first.ask(&mut chain, &mut event).await), "needs body");
        let mut second = manager.open(None);
        assert_eq!(told(&ask_request(&mut second, &mut request("{}")).await), expected, "{bindings}");
    }
    const HEAD: &str = "{hook: http.request, body: none}";
    const BUSY: &str = "fault: busy";
    check(HEAD, "done").await;
    check(&format!("{HEAD}, {{hook: http.response, match: {{paths: [/never]}}}}"), BUSY).await;
    check(&format!("{HEAD}, {{hook: http.complete}}"), BUSY).await;
    check(&format!("{HEAD}, {{hook: http.request, priority: 300}}"), BUSY).await;
    check(&format!("{HEAD}, {{hook: http.request, match: {{paths: [/never]}}}}"), BUSY).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_walk_that_is_over_gives_back_whom_it_did_not_come_to_again() {
    let manager = manager(
        "- {name: only-one, source: prebuilt/llmproxy-zoo.wasm, instance: visit, \
            limits: {instances: 1, deadline: 100ms}, \
            bindings: [{hook: http.request}, {hook: http.request, match: {paths: [/never]}}]}",
    );
    let mut first = manager.open(None);
    for _ in 0..2 {
        assert_eq!(told(&ask_request(&mut first, &mut request("{}")).await), "done");
        assert_eq!(told(&ask_request(&mut manager.open(None), &mut request("{}")).await), "done");
    }
}
