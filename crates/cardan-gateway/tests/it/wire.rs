//! HTTP/2 clients and TLS upstreams.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cardan_gateway::{Config, Trust, UpstreamConfig};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::house::{House, PATIENCE, Upstream, at, builtin, scripted, server, to};
use crate::plugins::{COMPLETE, RESPONSE, completed, head_only, says, traps, watches};

async fn http2(house: &House) -> http2::SendRequest<Full<Bytes>> {
    let stream = TcpStream::connect(house.addr).await.unwrap();
    let (client, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    client
}

#[tokio::test]
async fn http2_clients_are_served_side_by_side() {
    let house = House::open(builtin(), &[]).await;
    let client = http2(&house).await;
    let mut answers = tokio::task::JoinSet::new();
    for n in 0..20 {
        let mut client = client.clone();
        answers.spawn(async move {
            let request = json!({ "model": "m", "messages": [{ "role": "user", "content": format!("{n}") }], "stream": n % 2 == 0 });
            let request = Request::post("http://gw:80/v1/chat/completions").body(Full::from(request.to_string())).unwrap();
            let response = client.send_request(request).await.unwrap();
            assert_eq!(response.status(), StatusCode::OK);
            let body = response.into_body().collect().await.unwrap().to_bytes();
            assert!(String::from_utf8_lossy(&body).contains(&format!("{n}")));
        });
    }
    while let Some(answer) = answers.join_next().await {
        answer.unwrap();
    }
}

#[tokio::test]
async fn http2_becomes_http1_upstream() {
    let (addr, seen) =
        scripted("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: x\r\nX: 1\r\n\r\nok").await;
    let house = House::open(at(&[addr]), &[]).await;
    let request = Request::get("http://host.example:80/p?q").header("cookie", "a=1").header("cookie", "b=2");
    let response = http2(&house).await.send_request(request.body(Full::default()).unwrap()).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert!(!response.headers().contains_key("x"));
    let seen = seen.lock().unwrap().join("");
    assert!(seen.starts_with("GET /p?q HTTP/1.1\r\n"), "{seen}");
    assert!(seen.contains("cookie: a=1; b=2\r\n"), "{seen}");
    assert!(seen.contains("x-forwarded-host: host.example:80\r\n"), "{seen}");
}

#[tokio::test]
async fn trailers_pass_nobody_who_reads_the_body() {
    const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nTrailer: x-note\r\nTransfer-Encoding: chunked\r\n\r\n\
        2\r\nok\r\n0\r\nx-note: joe\r\n\r\n";
    for (plugin, passes) in
        [(watches("whole", RESPONSE), false), (head_only(watches("head", RESPONSE)), true)]
    {
        let (addr, _) = scripted(ANSWER).await;
        let house = House::open(at(&[addr]), &[plugin]).await;
        let mut client = http2(&house).await;
        let request = Request::get("http://gw/").header("te", "trailers").body(Full::default()).unwrap();
        let response = client.send_request(request).await.unwrap();
        assert_eq!(response.headers().contains_key("trailer"), passes);
        let body = response.into_body().collect().await.unwrap();
        let note = body.trailers().and_then(|trailers| trailers.get("x-note")).cloned();
        assert_eq!((note.is_some(), body.to_bytes()), (passes, "ok".into()));
    }
}

#[tokio::test]
async fn a_reset_stream_frees_the_upstream_and_nobody_else() {
    let upstream = Upstream::listen().await;
    let house = House::open(at(&[upstream.addr]), &[watches("end", COMPLETE)]).await;
    let mut client = http2(&house).await;
    let lost =
        tokio::spawn(client.send_request(Request::get("http://gw/reset").body(Full::default()).unwrap()));
    let (mut stream, _) = upstream.accept().await;
    lost.abort();
    assert_eq!(tokio::time::timeout(PATIENCE, stream.read(&mut [0; 1])).await.unwrap().unwrap(), 0);
    assert_eq!(completed("/reset").await["complete"]["aborted"], true);
    let kept =
        tokio::spawn(client.send_request(Request::get("http://gw/kept").body(Full::default()).unwrap()));
    let (mut stream, _) = upstream.accept().await;
    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.unwrap();
    assert_eq!(kept.await.unwrap().unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn an_idle_http2_connection_is_closed() {
    let mut config = builtin();
    config.timeouts.connection_idle = Duration::from_millis(100);
    let house = House::open(config, &[]).await;
    let mut client = http2(&house).await;
    let request = || Request::get("http://gw/v1/models").body(Full::default()).unwrap();
    assert_eq!(client.send_request(request()).await.unwrap().status(), StatusCode::OK);
    tokio::time::timeout(PATIENCE, async {
        while client.ready().await.is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_stream_that_is_given_no_window_is_given_up() {
    const LARGE: usize = 1_000_000;
    let upstream = server(|_| Response::new(vec![b'x'; LARGE].into())).await;
    let mut config = at(&[upstream]);
    config.limits.held_bytes_max = LARGE + LARGE / 2;
    config.timeouts.send_stall = Duration::from_millis(300);
    let house = House::open(config, &[watches("watch", RESPONSE), watches("end", COMPLETE)]).await;
    for (window, path) in [(0, "/closed"), (1, "/ajar")] {
        let stream = TcpStream::connect(house.addr).await.unwrap();
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder.initial_stream_window_size(window);
        let (mut client, connection) = builder.handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let request = Request::get(format!("http://gw{path}")).body(Full::<Bytes>::default()).unwrap();
        let response = client.send_request(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(house.get("/other").await.status, StatusCode::SERVICE_UNAVAILABLE);
        // The connection is still there, and so is the stream.
        assert_eq!(completed(path).await["complete"]["aborted"], true);
        assert_eq!(house.get("/other").await.body.len(), LARGE);
        drop((response, client));
    }
}

#[tokio::test]
async fn streams_per_connection_are_bounded() {
    let upstream = Upstream::listen().await;
    let mut config = at(&[upstream.addr]);
    config.limits.streams_per_connection_max = 1;
    let house = House::open(config, &[]).await;
    let mut client = http2(&house).await;
    // The first request makes the server's settings known.
    let request = || Request::get("http://gw/").body(Full::default()).unwrap();
    let answer = |mut stream: TcpStream| async move {
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").await.unwrap();
    };
    let settled = tokio::spawn(client.send_request(request()));
    answer(upstream.accept().await.0).await;
    settled.await.unwrap().unwrap();

    let first = tokio::spawn(client.send_request(request()));
    let (waiting, _) = upstream.accept().await;
    let mut other = client.clone();
    let second = tokio::spawn(async move { other.send_request(request()).await });
    let early = tokio::time::timeout(Duration::from_millis(100), upstream.accept()).await;
    assert!(early.is_err(), "two at once");
    answer(waiting).await;
    first.await.unwrap().unwrap();
    answer(upstream.accept().await.0).await;
    second.await.unwrap().unwrap();
}

/// A TLS server for `localhost` that offers these protocols, and its certificate.
async fn secure(protocols: &[&str]) -> (u16, CertificateDer<'static>) {
    // openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 36500 -subj /CN=localhost
    //   -addext subjectAltName=DNS:localhost -addext basicConstraints=critical,CA:FALSE
    let certificate = CertificateDer::from(&include_bytes!("tls/localhost.crt.der")[..]);
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(&include_bytes!("tls/localhost.key.der")[..]));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)
        .unwrap();
    tls.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let service = hyper::service::service_fn(|request: Request<Incoming>| async move {
                    let version = format!("{:?}", request.version());
                    Ok::<_, std::convert::Infallible>(Response::new(Full::<Bytes>::from(version)))
                });
                let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                _ = builder.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    (port, certificate)
}

#[tokio::test]
async fn tls_upstreams_are_trusted_as_told() {
    let config = |port: u16, trust: Trust| -> Config {
        let mut config = to(UpstreamConfig::at("secure", &[&format!("https://localhost:{port}")]));
        config.startup.trust = trust;
        config
    };
    for (protocols, version) in
        [(&["http/1.1"][..], "HTTP/1.1"), (&["h2", "http/1.1"], "HTTP/2.0"), (&[], "HTTP/1.1")]
    {
        let (port, certificate) = secure(protocols).await;
        for trust in [Trust::Only(vec![certificate.clone()]), Trust::BundledAnd(vec![certificate])] {
            let house = House::open(config(port, trust), &[]).await;
            assert_eq!(house.get("/").await.text(), version);
        }
        let house = House::open(config(port, Trust::Bundled), &[]).await;
        assert_eq!(house.get("/").await.status, StatusCode::BAD_GATEWAY);
    }
}

/// Fields behind a body are shown to nobody: where anybody is asked about requests, no upstream gets them.
#[tokio::test]
async fn request_trailers_pass_no_guard() {
    const REQUEST: &str = "POST / HTTP/1.1\r\nHost: gw\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\
        Trailer: x-user\r\n\r\n3\r\nabc\r\n0\r\nx-user: admin\r\n\r\n";
    let guard = says("guard", "http.request", &json!({ "verdict": "continue" }));
    for plugins in [vec![head_only(guard.clone())], vec![guard]] {
        let (addr, seen) = scripted("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
        let house = House::open(at(&[addr]), &plugins).await;
        let answer = house.raw(REQUEST).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        let seen = seen.lock().unwrap().join("").to_ascii_lowercase();
        assert!(seen.contains("abc"), "{seen}");
        assert!(!seen.contains("admin") && !seen.contains("trailer"), "{seen}");
    }
}

/// A body where there may be none is an error of the stream, and the client would not learn the answer.
#[tokio::test]
async fn answers_without_a_body() {
    let empty = |status: u16| {
        let verdict =
            json!({ "verdict": "continue", "edits": { "status": status, "body": { "text": "more" } } });
        says(&format!("of-{status}"), RESPONSE, &verdict)
    };
    for (plugins, method, path, status) in [
        (vec![], "HEAD", "/%zz", 400),
        (vec![traps("guard", "http.request")], "HEAD", "/v1/models", 503),
        (vec![], "HEAD", "/v1/models", 200),
        (vec![empty(204)], "GET", "/v1/models", 204),
        (vec![empty(205)], "GET", "/v1/models", 205),
        (vec![empty(304)], "GET", "/v1/models", 304),
    ] {
        let house = House::open(builtin(), &plugins).await;
        let request = Request::builder().method(method).uri(format!("http://gw{path}"));
        let mut client = http2(&house).await;
        let response = client.send_request(request.body(Full::default()).unwrap()).await.unwrap();
        assert_eq!(response.status().as_u16(), status, "{method} {path}");
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body, "", "{method} {path}");
    }
}

/// Fields take the host's time, and a message takes so many.
#[tokio::test]
async fn fields_without_end() {
    for (count, status) in [(1000, 200), (1001, 503)] {
        let fields: serde_json::Map<_, _> = (0..count).map(|n| (format!("x-{n}"), json!("1"))).collect();
        let many =
            says("many", "http.request", &json!({ "verdict": "continue", "edits": { "headers": fields } }));
        let house = House::open(builtin(), &[many]).await;
        assert_eq!(house.get("/v1/models").await.status.as_u16(), status, "{count}");
    }
}

/// What an upstream sends with such a status does not reach the client, and neither does its length.
#[tokio::test]
async fn bodies_of_upstreams_where_none_may_be() {
    let (addr, _) = scripted("HTTP/1.1 205 Reset Content\r\nContent-Length: 4\r\n\r\nmore").await;
    let house = House::open(at(&[addr]), &[]).await;
    let answer = house.raw("GET / HTTP/1.1\r\nHost: gw\r\nConnection: close\r\n\r\n").await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 205"), "{answer}");
    assert!(!head.to_ascii_lowercase().contains("content-length: 4"), "{answer}");
    assert_eq!(body, "");
}
