use super::*;
use cardan_api::http::*;
use std::time::Instant;

#[test]
#[ignore]
fn speed() {
    let bytes = std::fs::read("/tmp/smgauth/target/wasm32-wasip2/release/smgauth.wasm").unwrap();
    let plan = Plan::of(&bytes);
    let engine = Engine::new(EngineConfig::default()).unwrap();
    let template = plan.link(&engine).unwrap();
    for size in [100usize, 65536] {
        let mut headers: Vec<(String, String)> = (0..15).map(|i| (format!("x-header-{i}"), format!("some value {i}"))).collect();
        headers.push(("authorization".into(), "Bearer secret-api-key-12345".into()));
        let event = RequestEvent { method: "POST".into(), host: "h".into(), path: "/v1/chat/completions".into(), query: None, client: "c".into(), headers: Headers(headers), body: Some(vec![b'a'; size].into()) };
        let attributes = Attributes::new();
        let config = json!({});
        let rt = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        rt.block_on(async {
            let (mut make, mut call, mut drop_) = (vec![], vec![], vec![]);
            for _ in 0..5000 {
                let t = Instant::now();
                let mut guest = template.instantiate().await.unwrap();
                make.push(t.elapsed());
                let t = Instant::now();
                let v = guest.ask::<HttpRequest>(&event, about(&attributes, &config), Some(Duration::from_secs(1))).await.unwrap();
                call.push(t.elapsed());
                assert!(matches!(v.flow, cardan_api::Flow::Continue));
                let t = Instant::now();
                drop(guest);
                drop_.push(t.elapsed());
            }
            let mut again = vec![];
            let mut guest = template.instantiate().await.unwrap();
            for _ in 0..5000 {
                let t = Instant::now();
                guest.ask::<HttpRequest>(&event, about(&attributes, &config), Some(Duration::from_secs(1))).await.unwrap();
                again.push(t.elapsed());
            }
            let t = Instant::now();
            for _ in 0..5000 {
                let index = guest.store.data().shared.entries.find(&super::super::smg::ON_REQUEST);
                let f = guest.instance.get_func(&mut guest.store, index.unwrap()).unwrap();
                std::hint::black_box(f.typed::<(super::super::smg::Request<'_>,), (super::super::smg::Action,)>(&guest.store).unwrap());
            }
            println!("{size} typed {:?}", t.elapsed() / 5000);
            let mut bare = vec![];
            guest.store.set_epoch_deadline(1_000_000);
            for _ in 0..5000 {
                let index = guest.store.data().shared.entries.find(&super::super::smg::ON_REQUEST);
                let f = guest.instance.get_func(&mut guest.store, index.unwrap()).unwrap();
                let f = f.typed::<(super::super::smg::Request<'_>,), (super::super::smg::Action,)>(&guest.store).unwrap();
                let r = super::super::smg::Request { method: &event.method, path: &event.path, query: "", headers: super::super::smg::visible(&event.headers), body: event.body.as_ref().unwrap(), request_id: "x", now_epoch_ms: 1 };
                let t = Instant::now();
                f.call_async(&mut guest.store, (r,)).await.unwrap();
                bare.push(t.elapsed());
            }
            let mut few = vec![];
            for _ in 0..5000 {
                let index = guest.store.data().shared.entries.find(&super::super::smg::ON_REQUEST);
                let f = guest.instance.get_func(&mut guest.store, index.unwrap()).unwrap();
                let f = f.typed::<(super::super::smg::Request<'_>,), (super::super::smg::Action,)>(&guest.store).unwrap();
                let r = super::super::smg::Request { method: &event.method, path: "/x", query: "", headers: vec![], body: &[], request_id: "x", now_epoch_ms: 1 };
                let t = Instant::now();
                f.call_async(&mut guest.store, (r,)).await.unwrap();
                few.push(t.elapsed());
            }
            for (n, v) in [("bare", &mut bare), ("few", &mut few), ("make", &mut make), ("call", &mut call), ("drop", &mut drop_), ("again", &mut again)] {
                v.sort();
                println!("{size} {n}: p50 {:?} p99 {:?}", v[v.len() / 2], v[v.len() * 99 / 100]);
            }
        });
    }
}
