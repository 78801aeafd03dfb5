//! SMG's middleware, as a small guest in text answers it.

use cardan_api::http::{
    HeaderEdit, Headers, HttpAnswer, HttpRequest, HttpResponse, Origin, RequestEvent, ResponseEvent,
};
use cardan_api::storage::{
    ExtraColumn, StorageAfter, StorageBefore, StorageEvent, StorageOperation, StoredEvent,
};
use cardan_api::{Fault, Flow, Hook};

use super::*;
use crate::error::ErrorKind;

const SMG: &str = include_str!("smg.wat");
const OTHERS: &str = include_str!("others.wat");

fn request(path: &str) -> RequestEvent {
    let headers =
        [("accept", "text/plain"), ("x-tab", "a\tb"), ("x-name", "Zo\u{eb}"), ("accept", "text/html")];
    RequestEvent {
        method: "POST".into(),
        host: "api.example".into(),
        path: path.into(),
        query: Some("a=1".into()),
        client: "192.0.2.1:4711".into(),
        headers: Headers(headers.map(|(name, value)| (name.to_owned(), value.to_owned())).into()),
        body: Some(vec![b'x'; 100_000].into()),
    }
}

fn response(status: u16) -> ResponseEvent {
    ResponseEvent {
        request: request("/c"),
        status,
        headers: Headers::default(),
        body: Some("words".into()),
        streamed: false,
        origin: Origin::Upstream,
    }
}

fn edit(edit: &HeaderEdit) -> String {
    match edit {
        HeaderEdit::Set(name, value) => format!("{name}={value}"),
        HeaderEdit::Add(name, value) => format!("+{name}={value}"),
        HeaderEdit::Remove(name) => format!("-{name}"),
    }
}

fn edits(status: Option<u16>, headers: &[HeaderEdit], body: Option<&[u8]>) -> String {
    let headers: Vec<String> = headers.iter().map(edit).collect();
    let body = body.map(|body| match body.len() {
        0..20 => format!("{:?}", String::from_utf8_lossy(body)),
        n => format!("{n} bytes"),
    });
    format!("{status:?} [{}] {}", headers.join(" "), body.unwrap_or_default())
}

fn answer(answer: &HttpAnswer) -> String {
    match answer {
        HttpAnswer::Respond(it) if it.headers.0.is_empty() && it.body.is_empty() => {
            format!("stop {}", it.status)
        }
        other => format!("{other:?}"),
    }
}

#[test]
fn requests_are_judged_as_the_guest_says() {
    let plan = Plan::of(SMG);
    let rows = [
        ("/c", "None [] "),
        ("/r", "stop 401"),
        ("/R", "stop 400"),
        ("/m", "None [a=1 b=2 +a=3 -b] "),
        ("/b", "None [] 100000 bytes"),
        ("/i", "None [] \"visit-1\""),
        ("/q", "None [] \"a=1\""),
        // One of the four is not visible ASCII.
        ("/h", "None [] \"\\0\\0\\0\""),
    ];
    let mut guest = plan.start().unwrap();
    for (path, expected) in rows {
        let verdict = ask::<HttpRequest>(&mut guest, &request(path)).unwrap();
        let got = match &verdict.flow {
            Flow::Stop(stopped) => answer(stopped),
            Flow::Continue => edits(None, &verdict.edits.headers, verdict.edits.body.as_deref()),
        };
        assert_eq!(got, expected, "{path}");
    }
}

#[test]
fn responses_are_judged_as_the_guest_says() {
    let rows = [
        (200, "None [] "),
        (201, "stop 502"),
        (202, "Some(503) [a=1 b=2 +a=3 -b] "),
        (203, "None [] \"words\""),
    ];
    let mut guest = Plan::of(SMG).start().unwrap();
    for (status, expected) in rows {
        let verdict = ask::<HttpResponse>(&mut guest, &response(status)).unwrap();
        let got = match &verdict.flow {
            Flow::Stop(stopped) => answer(stopped),
            Flow::Continue => {
                edits(verdict.edits.status, &verdict.edits.headers, verdict.edits.body.as_deref())
            }
        };
        assert_eq!(got, expected, "{status}");
    }
}

#[test]
fn a_request_keeps_the_id_it_came_with() {
    let mut guest = Plan::of(SMG).start().unwrap();
    for (field, value, expected) in [
        ("X-Request-Id", "r-1", "r-1"),
        ("x-correlation-id", "c-1", "c-1"),
        ("x-request-id", "", "visit-1"),
        ("x-request-id", "\u{e9}", "visit-1"),
    ] {
        let mut event = request("/i");
        event.headers.add(field, value);
        let verdict = ask::<HttpRequest>(&mut guest, &event).unwrap();
        assert_eq!(verdict.edits.body.as_deref(), Some(expected.as_bytes()), "{field}: {value}");
    }
}

#[test]
fn a_guest_is_shown_no_body_that_its_binding_does_not_want() {
    let mut guest = Plan::of(SMG).start().unwrap();
    let (attributes, config) = (Attributes::new(), json!({}));
    let about = Circumstances { body: BodyNeed::None, ..about(&attributes, &config) };
    let event = request("/b");
    let verdict = runtime::block_on(guest.ask::<HttpRequest>(&event, about, None)).unwrap();
    assert_eq!(verdict.edits.body.as_deref(), Some(&b""[..]));
}

#[test]
fn what_a_guest_does_wrong_is_a_fault_of_its_own() {
    let mut plan = Plan::of(SMG);
    plan.limits.output_bytes_max = 4 << 20;
    let rows = [
        ("/x", Fault::Trap, "unreachable"),
        ("/l", Fault::Deadline, "timeout"),
        ("/g", Fault::Memory, "oom: its memories may have 67108864 bytes together"),
        ("/z", Fault::Memory, "limits.output"),
        ("/p", Fault::Protocol, "pointer"),
        ("/d", Fault::Protocol, "discriminant"),
    ];
    for (path, fault, words) in rows {
        let mut guest = plan.start().unwrap();
        let (attributes, config) = (Attributes::new(), json!({}));
        let event = request(path);
        let asked = guest.ask::<HttpRequest>(
            &event,
            about(&attributes, &config),
            Some(std::time::Duration::from_millis(200)),
        );
        let error = runtime::block_on(asked).unwrap_err();
        assert_eq!((error.kind(), error.fault()), (ErrorKind::Call(fault), fault), "{path}: {error}");
        assert!(error.message().contains(words), "{path}: {error}");
        let stopped_inside = ["/x", "/l", "/g"].contains(&path);
        assert_eq!(error.backtrace().is_some_and(|it| it.contains("on-request")), stopped_inside, "{path}");
    }
}

#[test]
fn a_guest_of_the_vllm_router_sees_no_credentials() {
    let mut guest = Plan::of(OTHERS).start().unwrap();
    let mut event = request("/v1/chat/completions");
    for name in ["Authorization", "cookie", "X-Api-Key"] {
        event.headers.add(name, "secret");
    }
    let verdict = ask::<HttpRequest>(&mut guest, &event).unwrap();
    let got = edits(None, &verdict.edits.headers, verdict.edits.body.as_deref());
    assert_eq!(got, "None [accept=text/plain x-tab=a\tb x-name=Zo\u{eb} accept=text/html] \"visit-1\"");
    event.body = None;
    let Flow::Stop(stopped) = ask::<HttpRequest>(&mut guest, &event).unwrap().flow else {
        panic!("it goes on")
    };
    assert_eq!(answer(&stopped), "stop 400");
}

#[test]
fn storage_hooks_see_what_the_host_keeps() {
    let mut guest = Plan::of(OTHERS).start().unwrap();
    let column = |name: &str, value: &str| ExtraColumn { name: name.into(), value: value.into() };
    let mut event = StorageEvent {
        operation: StorageOperation::StoreResponse,
        context: vec![("TENANT".into(), "acme".into()), ("a".into(), "new".into())],
        payload: "{\"id\":1}".into(),
        columns: vec![column("a", "old")],
    };
    let verdict = ask::<StorageBefore>(&mut guest, &event).unwrap();
    assert!(matches!(verdict.flow, Flow::Continue));
    StorageBefore::apply(&mut event, verdict.edits);
    assert_eq!(event.columns, [column("a", "new"), column("TENANT", "acme")]);
    let done = StoredEvent { done: event.clone(), result: "1".into() };
    let verdict = ask::<StorageAfter>(&mut guest, &done).unwrap();
    assert_eq!(verdict.edits.columns, event.columns);
    event.context.clear();
    let Flow::Stop(refusal) = ask::<StorageBefore>(&mut guest, &event).unwrap().flow else {
        panic!("it goes on")
    };
    assert_eq!(refusal.message, "{\"id\":1}");
    event.operation = StorageOperation::GetResponse;
    assert!(matches!(ask::<StorageBefore>(&mut guest, &event).unwrap().flow, Flow::Continue));
}

#[test]
fn packages_of_wasi_that_nobody_has_are_there_and_do_nothing() {
    // As toolchains of JavaScript import it, whatever the guest does.
    let text = OTHERS.replacen(
        "(component",
        "(component
           (import \"wasi:io/streams@0.2.3\" (instance $io (export \"input-stream\" (type (sub resource)))))
           (alias export $io \"input-stream\" (type $input-stream))
           (import \"wasi:http/types@0.2.3\" (instance $http
             (export \"input-stream\" (type $stream (eq $input-stream)))
             (export \"incoming-body\" (type $body (sub resource)))
             (export \"[method]incoming-body.stream\"
               (func (param \"self\" (borrow $body)) (result (own $stream))))))",
        1,
    );
    let mut guest = Plan::of(&text).start().unwrap();
    ask::<HttpRequest>(&mut guest, &request("/")).unwrap();
}

#[test]
fn where_there_is_no_pool_components_run_without_one() {
    let mut plan = Plan::of(SMG);
    plan.limits.memory_bytes_max = 1 << 30;
    let engine = Engine::new(EngineConfig::default()).unwrap();
    let template = plan.link(&engine).unwrap();
    assert_eq!(template.pool_slots(), 0);
    let mut guest = runtime::block_on(template.instantiate()).unwrap();
    ask::<HttpRequest>(&mut guest, &request("/c")).unwrap();
    let pooled = Plan::of(SMG).link(&engine).unwrap();
    assert_eq!(pooled.pool_slots(), 1);
}

#[test]
fn a_full_pool_is_busy() {
    let engine = Engine::new(EngineConfig { pool_instances: Some(2), ..EngineConfig::default() }).unwrap();
    let template = Plan::of(SMG).link(&engine).unwrap();
    let mut guests = Vec::new();
    let error = loop {
        match runtime::block_on(template.instantiate()) {
            Ok(guest) => guests.push(guest),
            Err(error) => break error,
        }
    };
    assert_eq!((guests.len(), error.fault()), (2, Fault::Busy), "{error}");
    assert!(error.message().contains("engine.instances"), "{error}");
}

#[test]
fn a_component_is_compiled_once() {
    let folder = tempfile::tempdir().unwrap();
    let config = || EngineConfig { cache_dir: Some(folder.path().join("cache")), ..EngineConfig::default() };
    let files = || std::fs::read_dir(folder.path().join("cache")).unwrap().count();
    Plan::of(SMG).link(&Engine::new(config()).unwrap()).unwrap();
    let before = files();
    let template = Plan::of(SMG).link(&Engine::new(config()).unwrap()).unwrap();
    assert_eq!(files(), before);
    let mut guest = runtime::block_on(template.instantiate()).unwrap();
    ask::<HttpRequest>(&mut guest, &request("/c")).unwrap();
}

#[test]
fn instances_have_nothing_in_common() {
    let engine = Engine::new(EngineConfig::default()).unwrap();
    let template = Plan::of(SMG).link(&engine).unwrap();
    for _ in 0..50 {
        let mut guest = runtime::block_on(template.instantiate()).unwrap();
        for asked in 1..=2 {
            let verdict = ask::<HttpRequest>(&mut guest, &request("/n")).unwrap();
            assert_eq!(verdict.edits.body.unwrap().len(), asked);
        }
    }
}

#[test]
fn what_nobody_can_ask_is_refused_with_a_reason() {
    let world = |name: &str| format!("(component (instance $none) (export {name:?} (instance $none)))");
    let rows = [
        ("(module)".to_owned(), "wasm-tools component new"),
        ("(component)".to_owned(), "it exports nothing, and none of the interfaces of smg:gateway"),
        (world("wasi:cli/run@0.2.0"), "it exports wasi:cli/run@0.2.0, and none"),
        (
            world("cardan:plugin/http-request@0.2.0"),
            "version 0.2.0 of cardan:plugin, and this Cardan speaks 0.1.0",
        ),
        (world("cardan:plugin/http-request"), "no version of cardan:plugin"),
        (world("cardan:plugin/prophecy@0.1.9"), "which this Cardan does not know"),
        (world("vllm:router-middleware/on-request@0.2.0"), "version 0.1.0 is known here"),
        (world("smg:gateway/middleware-on-request"), "has no function on-request"),
        (world("smg:gateway/middleware-on-request@9.9.9"), "nothing of 9.9.9"),
        (
            "(component (instance $a) (export \"smg:gateway/middleware-on-request\" (instance $a))
               (instance $b) (export \"cardan:plugin/http-request@0.1.0\" (instance $b)))"
                .to_owned(),
            "one of them would never be asked",
        ),
        (
            "(component (core module $m (func (export \"f\") (param i32))) (core instance $i (instantiate $m))
               (func $f (param \"x\" u32) (canon lift (core func $i \"f\")))
               (instance $hook (export \"on-request\" (func $f)))
               (export \"smg:gateway/middleware-on-request\" (instance $hook)))"
                .to_owned(),
            "smg:gateway/middleware-on-request#on-request is not of the type it has here",
        ),
        (
            "(component (import \"acme:things/store\" (instance (export \"get\" (func))))
               (instance $none) (export \"smg:storage/storage-hook-after\" (instance $none)))"
                .to_owned(),
            "acme:things/store",
        ),
    ];
    for (text, words) in rows {
        let error = Plan::of(&text).start().map(drop).unwrap_err();
        assert!(error.message().contains(words), "{text}: {error}");
    }
    let error = recognise::recognise(b"\0asm\x0d\0\x01\0garbage").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Format, "{error}");
}
