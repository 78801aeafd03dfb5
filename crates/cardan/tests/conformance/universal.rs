//! Cardan's dialect and Cardan's world: one guest from one source in every convention. Its source says what it
//! does for each `x-do`: `guests/fixtures/universal`.

use cardan::api::http::{Headers, HttpAnswer, HttpRequest, HttpResponse, Refusal, Response};
use cardan::api::{InstanceMode, Verdict};
use cardan::{Dialect, Error, Fault, Grants, Plugin, PluginBuilder};
use serde_json::json;

use crate::exchange::Exchange;
use crate::middleware::TYPED;
use crate::probe::{Bytes, Does, probe};
use crate::support::{
    LARGE, UNICODE, Visit, counts, fails, granted, limits, plugin, prebuilt, refused, roomy,
};
use crate::table::{Behaviour, Cell, Column, Family};

pub(crate) fn family() -> Family {
    let bytes = [Bytes::Extism, Bytes::Packed, Bytes::Capability].map(Some);
    let conventions = bytes.into_iter().chain([None]);
    let columns = conventions.flat_map(|bytes| {
        let name = name(bytes);
        [
            Column::new(name, "http.request", move |row| check::<HttpRequest>(bytes, row)),
            Column::new(name, "http.response", move |row| check::<HttpResponse>(bytes, row)),
        ]
    });
    Family {
        title: "Cardan's dialect, and its world `cardan:plugin`",
        guests: "`guests/fixtures/universal`: one source, compiled for each convention with the Rust PDK.",
        columns: columns.collect(),
    }
}

/// `None`: the component.
fn name(bytes: Option<Bytes>) -> &'static str {
    match bytes {
        Some(Bytes::Extism) => "extism",
        Some(Bytes::Packed) => "packed",
        Some(Bytes::Capability | Bytes::Tools) => "capability",
        None => "component",
    }
}

/// Loads the guest, and makes sure that it is recognised as what it is.
fn load(bytes: Option<Bytes>, options: impl FnOnce(PluginBuilder) -> PluginBuilder) -> Plugin {
    let builder = prebuilt(&format!("universal-{}", name(bytes))).grants(granted());
    let plugin = options(builder).load().unwrap();
    assert_eq!(plugin.inspection().abi.name(), name(bytes));
    if bytes.is_some() {
        assert_eq!(plugin.dialect(), Some(Dialect::Cardan));
    }
    plugin
}

fn ask<H: Exchange>(
    plugin: &Plugin,
    visit: &mut Visit,
    wish: &str,
    body: &str,
) -> Result<(H::Event, Verdict<H>), Error> {
    let event = H::event("/x", &[("x-do", wish)], body.as_bytes());
    let verdict = visit.ask::<H>(plugin, H::PHASE, &event)?;
    Ok((event, verdict))
}

/// The event after edits.
fn edited<H: Exchange>(plugin: &Plugin, wish: &str, body: &str) -> H::Event {
    let (event, verdict) = ask::<H>(plugin, &mut Visit::new(), wish, body).unwrap();
    H::applied(&event, verdict)
}

fn text<H: Exchange>(event: &H::Event) -> &str {
    std::str::from_utf8(H::body(event)).unwrap()
}

fn check<H: Exchange>(bytes: Option<Bytes>, row: Behaviour) -> Cell {
    let plugin = || load(bytes, |builder| builder);
    match row {
        Behaviour::Continue => {
            let (event, verdict) = ask::<H>(&plugin(), &mut Visit::new(), "pass", "hello").unwrap();
            assert!(verdict.attributes.is_empty(), "{:?}", verdict.attributes);
            assert_eq!(H::applied(&event, verdict), event);
            Cell::Pass
        }
        Behaviour::EditHead => {
            let event = edited::<H>(&plugin(), "head", "hello");
            let field = |name| H::headers(&event).get(name);
            assert_eq!(field("x-universal"), Some("universal"));
            assert_eq!((field("x-remove"), field("accept")), (None, Some("text/plain")));
            Cell::Pass
        }
        Behaviour::EditBody => {
            assert_eq!(text::<H>(&edited::<H>(&plugin(), "body", "hello")), "olleh");
            Cell::Pass
        }
        Behaviour::Stop => stop::<H>(&plugin()),
        Behaviour::VisitState | Behaviour::CallState => {
            let load = |mode: InstanceMode| load(bytes, |builder| builder.mode(mode));
            counts(row, load, |plugin, visit| {
                let before = visit.attributes.get("seen").and_then(|seen| seen.as_u64()).unwrap_or(0);
                let (_, verdict) = ask::<H>(plugin, visit, "visit", "hello").unwrap();
                assert_eq!(verdict.attributes["seen"], before + 1, "the visit's attributes");
                verdict.attributes["calls"].to_string()
            })
        }
        Behaviour::Capability => {
            let plugin = plugin();
            let counted = [(); 2].map(|()| {
                let (_, verdict) = ask::<H>(&plugin, &mut Visit::new(), "kv", "hello").unwrap();
                verdict.attributes["count"].clone()
            });
            assert_eq!(counted, [json!(1), json!(2)]);
            Cell::Pass
        }
        Behaviour::Denied => {
            let plugin = load(bytes, |builder| builder.grants(Grants::default()));
            let ask = |wish| ask::<H>(&plugin, &mut Visit::new(), wish, "hello");
            fails(Fault::Denied, ask("kv"), || ask("pass"))
        }
        Behaviour::Trap | Behaviour::Deadline | Behaviour::Memory => {
            let plugin = plugin();
            let (fault, wish, mut visit) = match row {
                Behaviour::Trap => (Fault::Trap, "panic", Visit::new()),
                Behaviour::Deadline => (Fault::Deadline, "loop", Visit::hurried()),
                _ => (Fault::Memory, "memory", Visit::new()),
            };
            let bad = ask::<H>(&plugin, &mut visit, wish, "hello");
            fails(fault, bad, || ask::<H>(&plugin, &mut Visit::new(), "pass", "hello"))
        }
        Behaviour::Garbage => garbage::<H>(bytes),
        Behaviour::Unicode => {
            let plugin = load(bytes, |builder| builder.config_object(&json!({ "name": UNICODE })));
            assert_eq!(text::<H>(&edited::<H>(&plugin, "upper", UNICODE)), UNICODE.to_uppercase());
            let (_, verdict) = ask::<H>(&plugin, &mut Visit::new(), "config", "").unwrap();
            assert_eq!(verdict.attributes["name"], UNICODE);
            Cell::Pass
        }
        Behaviour::Empty => {
            assert_eq!(text::<H>(&edited::<H>(&plugin(), "body", "")), "");
            Cell::Pass
        }
        Behaviour::Large => {
            let plugin = load(bytes, |builder| builder.limits(roomy()));
            let edited = edited::<H>(&plugin, "upper", &"x".repeat(LARGE));
            assert_eq!(H::body(&edited).len(), LARGE);
            assert!(H::body(&edited).iter().all(|byte| *byte == b'X'));
            Cell::Pass
        }
    }
}

fn stop<H: Exchange>(plugin: &Plugin) -> Cell {
    let stopped = |wish| H::stopped(ask::<H>(plugin, &mut Visit::new(), wish, "hello").unwrap().1);
    let HttpAnswer::Respond(Response { status, headers: Headers(headers), body }) = stopped("respond") else {
        panic!("expected a response to `respond`");
    };
    assert_eq!((status, &body[..]), (203, &b"hello from universal"[..]));
    assert!(headers.contains(&("x-universal".to_owned(), "universal".to_owned())), "{headers:?}");
    let refusal =
        Refusal { status: Some(451), kind: "universal".to_owned(), message: "not today".to_owned() };
    assert_eq!(stopped("refuse"), HttpAnswer::Refuse(refusal));
    Cell::Pass
}

fn garbage<H: Exchange>(bytes: Option<Bytes>) -> Cell {
    let Some(bytes) = bytes else {
        return Cell::Cannot(TYPED);
    };
    for document in [&b"{\"verdict\":\"contin"[..], b"{\"verdict\":\"go\"}", b"\xff\xfe", b"[]", b""] {
        let module = probe(bytes, H::ENTRY, Does::Answers(document));
        let plugin = plugin(module.as_bytes()).limits(limits()).load().unwrap();
        assert_eq!(plugin.inspection().abi.name(), name(Some(bytes)));
        let event = H::event("/x", &[], b"hello");
        refused(Fault::Protocol, Visit::new().ask::<H>(&plugin, H::PHASE, &event));
    }
    Cell::Pass
}
