//! What passes the gateway without plugins, byte for byte.

use std::time::Duration;

use cardan_gateway::{AmbiguousPaths, Config, HostMatch, PathMatch, RouteConfig, UpstreamConfig};
use http::{HeaderName, HeaderValue, Method, Request, StatusCode};
use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::house::{House, PATIENCE, Upstream, at, nobody, read_to_end, scripted, server};

/// Header lines of a message, sorted, without those that differ from run to run.
fn lines(message: &str) -> Vec<String> {
    let (head, body) = message.split_once("\r\n\r\n").unwrap_or((message, ""));
    let mut lines: Vec<String> = head.lines().skip(1).map(str::to_owned).collect();
    lines.retain(|line| !line.starts_with("x-request-id: ") && !line.starts_with("date: "));
    lines.sort();
    lines.insert(0, head.lines().next().unwrap_or_default().to_owned());
    lines.push(body.to_owned());
    lines
}

/// Sends `request`, and compares what the upstream got and, from its `response`, what the client got.
#[track_caller]
fn check(request: &str, forwarded: &[&str], response: &str, returned: &[&str]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (got_forwarded, got_returned) = runtime.block_on(async {
        let (addr, seen) = scripted(response).await;
        let house = House::open(at(&[addr]), &[]).await;
        let returned = house.raw(request).await;
        let forwarded = seen.lock().unwrap().join("\n---\n").replace(&addr.to_string(), "UPSTREAM");
        (forwarded, returned)
    });
    assert_eq!(lines(&got_forwarded), forwarded);
    assert_eq!(lines(&got_returned), returned);
}

const PROVENANCE: [&str; 3] =
    ["x-forwarded-for: 127.0.0.1", "x-forwarded-host: gw", "x-forwarded-proto: http"];

#[test]
fn a_request_and_its_response() {
    let [forwarded_for, host, proto] = PROVENANCE;
    check(
        "GET /a%20b?c=%64 HTTP/1.1\r\nHost: gw\r\nAccept: */*\r\nConnection: close, x-hop\r\nX-Hop: 1\r\n\r\n",
        &["GET /a%20b?c=%64 HTTP/1.1", "accept: */*", "host: UPSTREAM", forwarded_for, host, proto, ""],
        "HTTP/1.1 200 Fine\r\nContent-Length: 2\r\nX-A: 1\r\nX-A: 2\r\nX-Hop: 1\r\nConnection: x-hop\r\nX-Request-Id: up\r\n\r\nok",
        &[
            "HTTP/1.1 200 OK",
            "connection: close",
            "content-length: 2",
            "x-a: 1",
            "x-a: 2",
            "x-upstream-request-id: up",
            "ok",
        ],
    );
}

#[test]
fn a_chunked_body_is_framed_anew() {
    let [forwarded_for, host, proto] = PROVENANCE;
    // With both, the length is a lie that a less careful server might believe: it does not get that far,
    // and the connection it came on is not used again.
    check(
        "POST / HTTP/1.1\r\nHost: gw\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: gw\r\n\r\n",
        &[
            "POST / HTTP/1.1",
            "host: UPSTREAM",
            "transfer-encoding: chunked",
            forwarded_for,
            host,
            proto,
            "3\r\nabc\r\n0\r\n\r\n",
        ],
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        &["HTTP/1.1 200 OK", "connection: close", "transfer-encoding: chunked", "2\r\nok\r\n0\r\n\r\n"],
    );
}

#[test]
fn answers_without_a_body_keep_their_length() {
    let [forwarded_for, host, proto] = PROVENANCE;
    check(
        "HEAD / HTTP/1.1\r\nHost: gw\r\nConnection: close\r\n\r\n",
        &["HEAD / HTTP/1.1", "host: UPSTREAM", forwarded_for, host, proto, ""],
        "HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n",
        &["HTTP/1.1 200 OK", "connection: close", "content-length: 1234", ""],
    );
    check(
        "GET / HTTP/1.1\r\nHost: gw\r\nIf-None-Match: x\r\nConnection: close\r\n\r\n",
        &["GET / HTTP/1.1", "host: UPSTREAM", "if-none-match: x", forwarded_for, host, proto, ""],
        "HTTP/1.1 304 Not Modified\r\nETag: x\r\n\r\n",
        &["HTTP/1.1 304 Not Modified", "connection: close", "etag: x", ""],
    );
}

/// Sends a request that the gateway itself refuses.
#[track_caller]
fn check_refused(config: Config, request: &str, status: u16, code: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let reply = runtime.block_on(async { House::open(config, &[]).await.raw(request).await });
    assert!(reply.starts_with(&format!("HTTP/1.1 {status} ")), "{request:?}: {reply}");
    assert!(reply.contains(&format!("\"code\":\"{code}\"")), "{request:?}: {reply}");
    assert!(reply.contains("\r\nx-request-id: "), "{request:?}: {reply}");
}

#[test]
fn what_is_refused_is_told_why() {
    const END: &str = "\r\nConnection: close\r\n\r\n";
    let none = Config::default;
    check_refused(none(), &format!("GET / HTTP/1.1\r\nHost: gw{END}"), 404, "route_not_found");
    check_refused(none(), &format!("GET / HTTP/1.1{END}"), 400, "host_invalid");
    check_refused(none(), &format!("GET / HTTP/1.1\r\nHost: a\r\nHost: b{END}"), 400, "host_invalid");
    check_refused(none(), &format!("GET /a/../b HTTP/1.1\r\nHost: gw{END}"), 400, "path_invalid");
    check_refused(none(), &format!("GET /v1//models HTTP/1.1\r\nHost: gw{END}"), 400, "path_ambiguous");
    check_refused(none(), &format!("TRACE / HTTP/1.1\r\nHost: gw{END}"), 405, "method_unsupported");
    let nowhere = || at(&["127.0.0.1:1".parse().unwrap()]);
    check_refused(nowhere(), &format!("GET / HTTP/1.1\r\nHost: gw{END}"), 502, "upstream_unreachable");
    let mut small = nowhere();
    small.limits.request_body_bytes_max = 4;
    check_refused(
        small,
        &format!("POST / HTTP/1.1\r\nHost: gw\r\nContent-Length: 5{END}"),
        413,
        "request_too_large",
    );
}

#[tokio::test]
async fn upstreams_that_break_their_word() {
    for (response, status, code) in [
        ("", 502, "upstream_broken"),
        ("HTTP/1.1 2", 502, "upstream_broken"),
        ("nonsense\r\n\r\n", 502, "upstream_broken"),
        (
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
            502,
            "upstream_broken",
        ),
    ] {
        let (addr, _) = scripted(response).await;
        let house = House::open(at(&[addr]), &[]).await;
        let reply = house.get("/").await;
        assert_eq!(
            (reply.status.as_u16(), reply.json()["error"]["code"].as_str()),
            (status, Some(code)),
            "{response}"
        );
    }
}

#[tokio::test]
async fn a_cut_body_is_seen_to_be_cut() {
    let (addr, _) = scripted("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf").await;
    let house = House::open(at(&[addr]), &[]).await;
    let response = house.send(Request::get("/"), "").await;
    assert!(response.into_body().collect().await.is_err());
}

#[tokio::test]
async fn the_next_copy_is_tried_while_nobody_has_seen_the_request() {
    let alive = server(|request| http::Response::new(request.into_body())).await;
    for dead in [vec![nobody().await, alive], vec![nobody().await, nobody().await, alive]] {
        let house = House::open(at(&dead), &[]).await;
        for round in 0..6 {
            // Streamed, not held: no plugin asked for it.
            let body = format!("hello {round} {}", "x".repeat(100_000));
            assert_eq!(house.post("/", body.clone()).await.text(), body);
        }
    }
    let house = House::open(at(&[nobody().await, nobody().await]), &[]).await;
    assert_eq!(house.post("/", "x").await.status, StatusCode::BAD_GATEWAY);
}

#[tokio::test]
async fn copies_take_turns() {
    let one = server(|_| http::Response::new("1".into())).await;
    let two = server(|_| http::Response::new("2".into())).await;
    let house = House::open(at(&[one, two]), &[]).await;
    let mut said = String::new();
    for _ in 0..6 {
        said.push_str(house.get("/").await.text());
    }
    assert_eq!(said, "121212");
}

#[tokio::test]
async fn routes_choose_and_rewrite() {
    let echo = server(|request| {
        let key = request.headers().get("authorization").map_or("none", |value| value.to_str().unwrap());
        http::Response::new(format!("{} {} {key}", request.method(), request.uri()).into())
    })
    .await;
    let upstream = UpstreamConfig::at("echo", &[&format!("http://{echo}/base/")]);
    let mut api = RouteConfig::new("api", PathMatch::Prefix("/api".into()), "echo");
    api.hosts = vec![HostMatch::parse("*.example.com")];
    api.rewrite = Some("/v2".into());
    api.methods = vec![Method::GET];
    let key = HeaderValue::from_static("Bearer key");
    api.headers = vec![(HeaderName::from_static("authorization"), key)];
    let rest = RouteConfig::new("rest", PathMatch::Prefix("/".into()), "echo");
    let house =
        House::open(Config { routes: vec![api, rest], upstreams: vec![upstream], ..Config::default() }, &[])
            .await;
    for (request, expected) in [
        (Request::get("/api/x?y=1").header("host", "a.example.com"), "GET /base/v2/x?y=1 Bearer key"),
        (Request::get("/api/x").header("host", "example.com"), "GET /base/api/x none"),
        (Request::post("/api/x").header("host", "a.example.com"), "POST /base/api/x none"),
        (
            Request::get("/apix").header("host", "a.example.com").header("authorization", "mine"),
            "GET /base/apix mine",
        ),
    ] {
        assert_eq!(house.fetch(request, "").await.text(), expected);
    }
}

#[tokio::test]
async fn a_slow_upstream_is_given_up() {
    let upstream = Upstream::listen().await;
    let mut config = at(&[upstream.addr]);
    config.timeouts.response_head = Duration::from_millis(100);
    config.timeouts.response_idle = Duration::from_millis(100);
    let house = House::open(config, &[]).await;
    let (reply, kept) = tokio::join!(house.get("/"), upstream.accept());
    assert_eq!(
        (reply.status, reply.json()["error"]["code"].as_str()),
        (StatusCode::GATEWAY_TIMEOUT, Some("upstream_timeout"))
    );
    drop(kept);

    let (response, (mut stream, _)) = tokio::join!(house.send(Request::get("/"), ""), async {
        let (mut stream, request) = upstream.accept().await;
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab").await.unwrap();
        (stream, request)
    });
    assert!(response.into_body().collect().await.is_err());
    // The upstream is told that nobody waits any more.
    assert_eq!(read_to_end(&mut stream).await, "");
}

#[tokio::test]
async fn a_client_that_leaves_frees_the_upstream() {
    let upstream = Upstream::listen().await;
    let house = House::open(at(&[upstream.addr]), &[]).await;

    // Before the head of the response.
    let mut client = TcpStream::connect(house.addr).await.unwrap();
    client.write_all(b"GET / HTTP/1.1\r\nHost: gw\r\n\r\n").await.unwrap();
    let (mut stream, _) = upstream.accept().await;
    drop(client);
    assert_eq!(tokio::time::timeout(PATIENCE, stream.read(&mut [0; 1])).await.unwrap().unwrap(), 0);

    // In the middle of the body.
    let mut client = TcpStream::connect(house.addr).await.unwrap();
    client.write_all(b"GET / HTTP/1.1\r\nHost: gw\r\n\r\n").await.unwrap();
    let (mut stream, _) = upstream.accept().await;
    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n").await.unwrap();
    let mut buffer = [0; 1024];
    assert!(client.read(&mut buffer).await.unwrap() > 0);
    drop(client);
    assert_eq!(tokio::time::timeout(PATIENCE, stream.read(&mut [0; 1])).await.unwrap().unwrap(), 0);
}

#[tokio::test]
async fn a_body_streams_both_ways_at_once() {
    let upstream = Upstream::listen().await;
    let house = House::open(at(&[upstream.addr]), &[]).await;
    let mut client = TcpStream::connect(house.addr).await.unwrap();
    client
        .write_all(b"POST / HTTP/1.1\r\nHost: gw\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n")
        .await
        .unwrap();
    let continues = tokio::time::timeout(PATIENCE, async {
        let mut buffer = [0; 25];
        client.read_exact(&mut buffer).await.unwrap();
        buffer
    });
    assert_eq!(&continues.await.unwrap(), b"HTTP/1.1 100 Continue\r\n\r\n");
    client.write_all(b"ab").await.unwrap();
    // The request reaches the upstream before it is complete.
    let mut stream = tokio::time::timeout(PATIENCE, upstream.accept_head()).await.unwrap();
    client.write_all(b"cd").await.unwrap();
    let mut rest = Vec::new();
    while !rest.ends_with(b"cd") {
        let mut buffer = [0; 64];
        let count = stream.read(&mut buffer).await.unwrap();
        assert!(count > 0);
        rest.extend_from_slice(&buffer[..count]);
    }
}

#[tokio::test]
async fn connections_to_upstreams_are_used_again_while_they_live() {
    // Hangs up after each answer, without having said so.
    let (addr, seen) = scripted("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    let house = House::open(at(&[addr]), &[]).await;
    for _ in 0..50 {
        assert_eq!(house.get("/").await.text(), "ok");
    }
    assert_eq!(seen.lock().unwrap().len(), 50);
}

#[tokio::test]
async fn odd_paths_pass_where_the_operator_wants_them() {
    let mut config = at(&[server(|request| http::Response::new(request.uri().to_string().into())).await]);
    config.ambiguous_paths = AmbiguousPaths::PassOn;
    let house = House::open(config, &[]).await;
    assert_eq!(house.get("/a//b%2fc").await.text(), "/a//b%2Fc");
}
