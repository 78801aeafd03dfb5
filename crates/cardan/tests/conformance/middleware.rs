//! Typed worlds of other systems: SMG's middleware, and the vLLM router's. What is asked of a guest is the request's path,
//! or the response's header field `x-do`: `guests/fixtures/smg`.

use cardan::api::http::{HttpAnswer, HttpRequest, HttpResponse};
use cardan::api::{InstanceMode, Verdict};
use cardan::{Abi, Error, Fault, Plugin};

use crate::exchange::Exchange;
use crate::support::{LARGE, UNICODE, Visit, fails, prebuilt, roomy};
use crate::table::{Behaviour, Cell, Column, Family};

/// Of every component: nobody reads an answer before the canonical ABI has.
pub(crate) const TYPED: &str = "An answer that is not of its type is found by the canonical ABI, before anybody reads it: `crates/cardan/src/abi/component/tests` has pointers and discriminants that are none.";
const NO_IMPORTS: &str = "The world imports types, and nothing that could be granted.";

const SMG: &str = "smg-misbehaving";
const VLLM: &str = "vllm-misbehaving";

pub(crate) fn family() -> Family {
    Family {
        title: "Worlds of SMG and of the vLLM router",
        guests: "`guests/fixtures/smg`, built with `wit-bindgen` against the published worlds: `smg-misbehaving`, `vllm-misbehaving`.",
        columns: vec![
            Column::new("component `smg:gateway`", "http.request", |row| check::<HttpRequest>(SMG, row)),
            Column::new("component `smg:gateway`", "http.response", |row| check::<HttpResponse>(SMG, row)),
            Column::new("component `vllm:router-middleware`", "http.request", |row| {
                check::<HttpRequest>(VLLM, row)
            }),
        ],
    }
}

fn load(name: &str, mode: InstanceMode) -> Plugin {
    let plugin = prebuilt(name).mode(mode).limits(roomy()).load().unwrap();
    assert_eq!(plugin.inspection().abi, Abi::Component);
    plugin
}

fn ask<H: Exchange>(
    plugin: &Plugin,
    visit: &mut Visit,
    path: &str,
    body: &[u8],
) -> Result<(H::Event, Verdict<H>), Error> {
    let event = H::event(path, &[("x-do", path)], body);
    let verdict = visit.ask::<H>(plugin, H::PHASE, &event)?;
    Ok((event, verdict))
}

fn edited<H: Exchange>(guest: &str, path: &str, body: &[u8]) -> H::Event {
    let plugin = load(guest, InstanceMode::Fresh);
    let (event, verdict) = ask::<H>(&plugin, &mut Visit::new(), path, body).unwrap();
    H::applied(&event, verdict)
}

fn check<H: Exchange>(guest: &str, row: Behaviour) -> Cell {
    let same = |body: &[u8]| {
        let event = edited::<H>(guest, "/echo", body);
        assert!(H::body(&event) == body, "{} bytes", H::body(&event).len());
        Cell::Pass
    };
    match row {
        Behaviour::Continue => {
            let plugin = load(guest, InstanceMode::Fresh);
            let (event, verdict) = ask::<H>(&plugin, &mut Visit::new(), "/", b"hello").unwrap();
            assert_eq!(H::applied(&event, verdict), event);
            Cell::Pass
        }
        Behaviour::EditHead => {
            let event = edited::<H>(guest, "/headers", b"hello");
            let field = |name| H::headers(&event).get(name);
            assert_eq!((field("x-one"), field("x-four")), (Some("set"), Some("first")));
            assert_eq!((field("x-two"), field("accept")), (None, Some("text/plain")));
            Cell::Pass
        }
        Behaviour::EditBody => {
            assert_eq!(H::body(&edited::<H>(guest, "/body", b"hello")), b"replaced");
            Cell::Pass
        }
        Behaviour::Stop => {
            let plugin = load(guest, InstanceMode::Fresh);
            let (_, verdict) = ask::<H>(&plugin, &mut Visit::new(), "/reject", b"hello").unwrap();
            status(verdict, 418)
        }
        Behaviour::VisitState | Behaviour::CallState => crate::support::counts(
            row,
            |mode| load(guest, mode),
            |plugin, visit| {
                let (event, verdict) = ask::<H>(plugin, visit, "/count", b"hello").unwrap();
                String::from_utf8(H::body(&H::applied(&event, verdict)).to_vec()).unwrap()
            },
        ),
        Behaviour::Capability | Behaviour::Denied => Cell::Cannot(NO_IMPORTS),
        Behaviour::Trap | Behaviour::Deadline | Behaviour::Memory => {
            let (fault, path, mut visit) = match row {
                Behaviour::Trap => (Fault::Trap, "/panic", Visit::new()),
                Behaviour::Deadline => (Fault::Deadline, "/loop", Visit::hurried()),
                _ => (Fault::Memory, "/memory", Visit::new()),
            };
            let plugin = load(guest, InstanceMode::Fresh);
            let bad = ask::<H>(&plugin, &mut visit, path, b"hello");
            fails(fault, bad, || ask::<H>(&plugin, &mut Visit::new(), "/", b"hello"))
        }
        Behaviour::Garbage => Cell::Cannot(TYPED),
        Behaviour::Unicode => same(UNICODE.as_bytes()),
        Behaviour::Empty => {
            assert_eq!(H::body(&edited::<H>(guest, "/empty-body", b"hello")), b"");
            same(b"")
        }
        Behaviour::Large => same(&vec![b'x'; LARGE]),
    }
}

fn status<H: Exchange>(verdict: Verdict<H>, status: u16) -> Cell {
    let HttpAnswer::Respond(response) = H::stopped(verdict) else { panic!("expected a response") };
    assert_eq!(response.status, status);
    Cell::Pass
}
