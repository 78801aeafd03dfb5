//! Operators change their minds; exchanges under way do not notice.

use std::time::Duration;

use cardan_gateway::{Builtin, PathMatch, RouteConfig, UpstreamConfig};
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::house::{House, PATIENCE, Upstream, at, builtin, read_to_end, server, to};
use crate::plugins::{COMPLETE, REQUEST, RESPONSE, completed, says, watches};

#[tokio::test]
async fn an_exchange_keeps_what_it_began_with() {
    let upstream = Upstream::listen().await;
    let mark = |value: &str| {
        says("mark", RESPONSE, &json!({ "verdict": "continue", "edits": { "headers": { "x-set": value } } }))
    };
    let house = House::open(at(&[upstream.addr]), &[mark("old")]).await;
    let new = server(|_| http::Response::new("new".into())).await;
    let (old, ()) = tokio::join!(house.get("/"), async {
        let (mut stream, _) = upstream.accept().await;
        // Now everything changes.
        house.manager.apply(&[mark("new")]).unwrap();
        house.gateway.replace(at(&[new])).unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nold").await.unwrap();
    });
    assert_eq!((old.text(), old.header("x-set")), ("old", Some("old")));
    let now = house.get("/").await;
    assert_eq!((now.text(), now.header("x-set")), ("new", Some("new")));
}

#[tokio::test]
async fn a_bad_configuration_changes_nothing() {
    let house = House::open(builtin(), &[]).await;
    let mut unknown = builtin();
    unknown.routes.push(RouteConfig::new("x", PathMatch::Prefix("/".into()), "nobody"));
    assert!(!house.gateway.replace(unknown).unwrap_err().needs_restart());
    let mut startup = builtin();
    startup.startup.connections_max = 7;
    assert!(house.gateway.replace(startup).unwrap_err().needs_restart());
    assert_eq!(house.get("/v1/models").await.status, StatusCode::OK);
}

#[tokio::test]
async fn replacing_under_load_loses_nothing() {
    let pace = Duration::from_millis(2);
    let config = || to(UpstreamConfig::builtin("b", Builtin { pace, ..Builtin::default() }));
    let gate = |name: &str| says(name, REQUEST, &json!({ "verdict": "continue" }));
    let house = std::sync::Arc::new(House::open(config(), &[gate("a")]).await);
    let mut clients = tokio::task::JoinSet::new();
    for client in 0..200 {
        let house = house.clone();
        clients.spawn(async move {
            let request = json!({
                "model": "m", "stream": client % 2 == 0,
                "messages": [{ "role": "user", "content": format!("number {client} of many words to say") }],
            });
            let reply = house.post("/v1/chat/completions", request.to_string()).await;
            assert_eq!(reply.status, StatusCode::OK, "{}", reply.text());
            assert!(reply.text().contains(&client.to_string()));
            assert!(client % 2 == 1 || reply.text().ends_with("data: [DONE]\n\n"));
        });
    }
    for round in 0..20 {
        house.manager.apply(&[gate(if round % 2 == 0 { "b" } else { "a" })]).unwrap();
        house.gateway.replace(config()).unwrap();
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    while let Some(joined) = clients.join_next().await {
        joined.unwrap();
    }
}

#[tokio::test]
async fn stopping_lets_exchanges_finish() {
    let upstream = Upstream::listen().await;
    let house = House::open(at(&[upstream.addr]), &[watches("end", COMPLETE)]).await;
    let addr = house.addr;
    let mut idle = TcpStream::connect(addr).await.unwrap();
    let (response, (mut stream, _)) = tokio::join!(house.send(Request::get("/last"), ""), async {
        let (mut stream, request) = upstream.accept().await;
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab").await.unwrap();
        (stream, request)
    });
    let served = house.begin_close();
    // Nobody new is let in, and idle connections are closed.
    assert_eq!(read_to_end(&mut idle).await, "");
    assert!(TcpStream::connect(addr).await.is_err());
    assert!(!served.is_finished());
    stream.write_all(b"cd").await.unwrap();
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "abcd");
    tokio::time::timeout(PATIENCE, served).await.unwrap().unwrap();
    assert_eq!(completed("/last").await["complete"]["aborted"], false);
}

#[tokio::test]
async fn stopping_does_not_wait_for_ever() {
    let upstream = Upstream::listen().await;
    let mut config = at(&[upstream.addr]);
    config.timeouts.drain = Duration::from_millis(100);
    let house = House::open(config, &[]).await;
    let mut client = TcpStream::connect(house.addr).await.unwrap();
    client.write_all(b"GET / HTTP/1.1\r\nHost: gw\r\n\r\n").await.unwrap();
    let _kept = upstream.accept().await;
    house.close().await;
    assert_eq!(read_to_end(&mut client).await, "");
}
