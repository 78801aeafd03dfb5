//! What visits keep between questions, and what they leave for others.

use std::time::Duration;

use cardan::api::http::{Headers, HttpRequest, RequestEvent};
use cardan::api::{Attributes, BodyNeed, Flow, Phase};
use cardan::{
    Circumstances, Engine, EngineConfig, Error, Fault, Held, InstanceMode, Limits, Plugin, Question,
};

use crate::support::{GENEROUS, guest, linked};

/// Too short for anybody to make room.
const HURRY: Duration = Duration::from_millis(30);

/// Asks at `http.request`; the answer has to be "continue".
pub(crate) async fn ask(plugin: &Plugin, held: &mut Held, deadline: Option<Duration>) -> Result<(), Error> {
    let event = RequestEvent {
        method: "GET".to_owned(),
        host: "a.example".to_owned(),
        path: "/".to_owned(),
        query: None,
        client: "192.0.2.1:4711".to_owned(),
        headers: Headers::default(),
        body: None,
    };
    let (attributes, config) = (Attributes::new(), serde_json::json!({}));
    let about = Circumstances {
        phase: Phase::PreFlight,
        body: BodyNeed::None,
        visit: "0123456789abcdef",
        session: "default",
        attributes: &attributes,
        config: &config,
    };
    let question = Question::<HttpRequest> { event: &event, about, entry: None, deadline };
    plugin.ask(held, question).await.map(|verdict| assert_eq!(verdict.flow, Flow::Continue))
}

/// Answers "continue", but for every third call of an instance, in which it traps.
const ANSWERS: &str = r#"
    (global $calls (mut i32) (i32.const 0))
    (func (export "http_request") (result i32)
      (global.set $calls (i32.add (global.get $calls) (i32.const 1)))
      (if (i32.eq (global.get $calls) (i32.const 3)) (then unreachable))
      (call $say @"{\22verdict\22:\22continue\22}")
      (i32.const 0))"#;

fn small_pool() -> Engine {
    Engine::new(EngineConfig { pool_instances: Some(8), ..EngineConfig::default() }).unwrap()
}

fn load(engine: &Engine, mode: InstanceMode, limits: Limits) -> Plugin {
    engine.plugin(guest(ANSWERS).as_bytes()).mode(mode).limits(limits).load().unwrap()
}

#[track_caller]
fn check_busy(asked: Result<(), Error>, setting: &str) {
    let error = asked.unwrap_err();
    assert_eq!(error.fault(), Fault::Busy, "{error}");
    assert!(error.message().contains(setting), "{error}");
}

/// A visit that keeps an instance.
async fn keep(plugin: &Plugin) -> Held {
    let mut held = Held::default();
    ask(plugin, &mut held, Some(GENEROUS)).await.unwrap();
    held
}

/// Of a pool of eight, six are for visits, whichever plugins they ask.
#[tokio::test]
async fn visits_leave_a_quarter_of_the_pool() {
    let engine = small_pool();
    let [one, other] = [(); 2].map(|()| load(&engine, InstanceMode::Visit, Limits::default()));
    let fresh = load(&engine, InstanceMode::Fresh, Limits::default());
    let shared = load(&engine, InstanceMode::Shared, Limits::default());
    let mut visits = Vec::new();
    for plugin in [&one, &other, &one, &one, &other, &one] {
        visits.push(keep(plugin).await);
    }
    for _ in 0..2 {
        for plugin in [&one, &other] {
            check_busy(ask(plugin, &mut Held::default(), Some(HURRY)).await, "pool_instances");
        }
        ask(&fresh, &mut Held::default(), Some(GENEROUS)).await.unwrap();
        ask(&shared, &mut Held::default(), Some(GENEROUS)).await.unwrap();
    }
    load(&engine, InstanceMode::Visit, Limits::default());

    // Those that keep one are served, until a fault takes it away; then another visit may have one.
    let first = &mut visits[0];
    ask(&one, first, Some(HURRY)).await.unwrap();
    assert_eq!(ask(&one, first, Some(GENEROUS)).await.unwrap_err().fault(), Fault::Trap);
    visits.push(keep(&other).await);
    check_busy(ask(&one, &mut visits[0], Some(HURRY)).await, "pool_instances");

    // Who waits is served when a visit ends.
    let end_of_one = async {
        tokio::time::sleep(HURRY).await;
        visits.pop();
    };
    tokio::join!(keep(&one), end_of_one);
    drop(visits);
    for _ in 0..2 {
        let mut visits = Vec::new();
        for _ in 0..6 {
            visits.push(keep(&one).await);
        }
        check_busy(ask(&one, &mut Held::default(), Some(HURRY)).await, "pool_instances");
    }
}

/// A plugin of several modules takes several instances of the pool for each of its own.
#[tokio::test]
async fn visits_of_linked_modules_leave_it_too() {
    let engine = small_pool();
    let manifest = linked(&[("bystander", "(module)"), ("main", &guest(ANSWERS))]);
    let plugin = engine.plugin(manifest).mode(InstanceMode::Visit).load().unwrap();
    let visits = [keep(&plugin).await, keep(&plugin).await];
    check_busy(ask(&plugin, &mut Held::default(), Some(HURRY)).await, "pool_instances");
    let fresh = load(&engine, InstanceMode::Fresh, Limits::default());
    ask(&fresh, &mut Held::default(), Some(GENEROUS)).await.unwrap();
    drop(visits);
    keep(&plugin).await;
}

/// The plugin's own limit is met first, and says so.
#[tokio::test]
async fn a_plugin_has_its_own_limit() {
    let engine = small_pool();
    for mode in [InstanceMode::Visit, InstanceMode::Fresh] {
        let limits = Limits { instances_max: 1, ..Limits::default() };
        let plugin = load(&engine, mode, limits);
        let visit = keep(&plugin).await;
        let second = ask(&plugin, &mut Held::default(), Some(HURRY)).await;
        match mode {
            InstanceMode::Visit => {
                check_busy(second, "limits.instances of the plugin (Limits::instances_max)");
            }
            _ => second.unwrap(),
        }
        drop(visit);
        keep(&plugin).await;
    }
}

/// Outside of the pool there is nothing to leave.
#[tokio::test]
async fn visits_outside_of_the_pool() {
    let engine = small_pool();
    let limits = Limits { memory_bytes_max: 128 << 20, ..Limits::default() };
    let roomy = load(&engine, InstanceMode::Visit, limits);
    let mut visits = Vec::new();
    for _ in 0..12 {
        visits.push(keep(&roomy).await);
    }
    let pooled = load(&engine, InstanceMode::Visit, Limits::default());
    visits.push(keep(&pooled).await);
}
