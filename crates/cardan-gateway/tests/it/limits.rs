//! Nobody may take more than their share, or keep anybody waiting.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use cardan_api::FaultPolicy;
use cardan_gateway::Limits;
use http::{Request, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Barrier;

use crate::house::{
    House, PATIENCE, Reply, Upstream, at, builtin, nobody, read_request, read_to_end, scripted, server,
};
use crate::plugins::{COMPLETE, REQUEST, RESPONSE, completed, on_fault, says, spins, was_completed, watches};

const SHORT: Duration = Duration::from_millis(100);

#[tokio::test]
async fn a_head_that_does_not_come_is_not_waited_for() {
    let mut config = builtin();
    config.timeouts.header_read = SHORT;
    config.timeouts.connection_idle = SHORT * 2;
    let house = House::open(config, &[]).await;
    // Nothing at all; what might become HTTP/2; half a head; a second request that never comes.
    for bytes in ["", "PRI", "GET / HTTP/1.1\r\nHost:", "GET /v1/models HTTP/1.1\r\nHost: gw\r\n\r\n"] {
        house.raw(bytes).await;
    }
}

#[tokio::test]
async fn heads_are_bounded() {
    let house = House::open(builtin(), &[]).await;
    let long = format!("GET / HTTP/1.1\r\nHost: gw\r\nX: {}\r\n\r\n", "x".repeat(70_000));
    assert!(house.raw(&long).await.starts_with("HTTP/1.1 431 "));
    let many = format!("GET / HTTP/1.1\r\nHost: gw\r\n{}\r\n", "X: 1\r\n".repeat(200));
    assert!(house.raw(&many).await.starts_with("HTTP/1.1 431 "));
}

#[tokio::test]
async fn upstream_heads_are_bounded() {
    let (addr, _) = scripted(format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(500_000))).await;
    let house = House::open(at(&[addr]), &[]).await;
    assert_eq!(house.get("/").await.status, StatusCode::BAD_GATEWAY);
}

#[tokio::test]
async fn held_requests_are_bounded() {
    let mut config = builtin();
    config.limits = Limits { held_request_bytes_max: 10, ..Limits::default() };
    for plugins in [vec![], vec![watches("watch", REQUEST)]] {
        let house = House::open(config.clone(), &plugins).await;
        let announced = house.post("/v1/chat/completions", "x".repeat(11)).await;
        assert_eq!(
            (announced.status.as_u16(), announced.json()["error"]["code"].as_str()),
            (413, Some("request_too_large"))
        );
        let chunked = "POST / HTTP/1.1\r\nHost: gw\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n8\r\n12345678\r\n8\r\n12345678\r\n0\r\n\r\n";
        assert!(house.raw(chunked).await.starts_with("HTTP/1.1 413 "));
        assert_ne!(house.post("/v1/chat/completions", "x".repeat(10)).await.status.as_u16(), 413);
    }
}

#[tokio::test]
async fn requests_that_are_held_share_one_budget() {
    let mut config = builtin();
    config.limits.held_bytes_max = 20_000;
    let house = House::open(config, &[watches("watch", REQUEST)]).await;
    let post = || house.post("/", "x".repeat(9_000));
    let until = async |status: u16| {
        let reached = tokio::time::timeout(PATIENCE, async {
            loop {
                let reply = post().await;
                if reply.status == status {
                    break reply;
                }
                tokio::time::sleep(SHORT / 10).await;
            }
        });
        reached.await.unwrap()
    };
    let mut slow = TcpStream::connect(house.addr).await.unwrap();
    slow.write_all(b"POST / HTTP/1.1\r\nHost: gw\r\nContent-Length: 20000\r\n\r\n").await.unwrap();
    slow.write_all(&[b'x'; 15_000]).await.unwrap();
    let refused = until(503).await;
    assert_eq!(
        (&refused.json()["error"]["code"], refused.header("retry-after")),
        (&"overloaded".into(), Some("1"))
    );
    // What a client that has gone took up is given back, and so is what each exchange took up.
    drop(slow);
    until(404).await;
    for _ in 0..20 {
        assert_eq!(post().await.status, StatusCode::NOT_FOUND);
    }
}

#[tokio::test]
async fn answers_and_copies_find_room_in_the_same_budget() {
    let upstream = server(|request| http::Response::new(request.into_body())).await;
    let mut config = at(&[upstream]);
    config.limits.held_bytes_max = 1_000;
    let body = || "x".repeat(1_500);
    let code = |reply: &Reply| (reply.status.as_u16(), reply.json()["error"]["code"].clone());

    let house = House::open(config.clone(), &[watches("watch", RESPONSE)]).await;
    assert_eq!(code(&house.post("/", body()).await), (503, "busy".into()));
    let skips = on_fault(watches("watch", RESPONSE), FaultPolicy::Skip);
    let house = House::open(config.clone(), &[skips]).await;
    assert_eq!(house.post("/", body()).await.text(), body());

    let house = House::open(config.clone(), &[watches("watch", COMPLETE)]).await;
    assert_eq!(house.post("/no-room", body()).await.text(), body());
    assert_eq!(completed("/no-room").await["request"]["body"], serde_json::Value::Null);
    assert_eq!(house.post("/room", "body").await.text(), "body");
    assert_eq!(completed("/room").await["request"]["body"]["text"], "body");

    let verdict = serde_json::json!({ "verdict": "respond", "body": { "text": body() } });
    let house = House::open(config, &[says("says", REQUEST, &verdict)]).await;
    assert_eq!(code(&house.get("/").await), (503, "overloaded".into()));
}

#[tokio::test]
async fn streamed_requests_are_bounded() {
    let mut config = at(&[server(|_| http::Response::default()).await]);
    config.limits.request_body_bytes_max = 10;
    let house = House::open(config, &[]).await;
    let chunked = "POST / HTTP/1.1\r\nHost: gw\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n8\r\n12345678\r\n8\r\n12345678\r\n0\r\n\r\n";
    assert!(house.raw(chunked).await.starts_with("HTTP/1.1 413 "));
}

#[tokio::test]
async fn a_body_that_does_not_come_is_not_waited_for() {
    let upstream = Upstream::listen().await;
    for (mut config, plugins) in
        [(builtin(), vec![watches("watch", REQUEST)]), (builtin(), vec![]), (at(&[upstream.addr]), vec![])]
    {
        config.timeouts.request_idle = SHORT;
        let house = House::open(config, &plugins).await;
        let reply = house
            .raw("POST /v1/chat/completions HTTP/1.1\r\nHost: gw\r\nContent-Length: 10\r\n\r\nhalf")
            .await;
        assert!(reply.starts_with("HTTP/1.1 408 "), "{reply}");
    }
}

#[tokio::test]
async fn a_body_that_trickles_is_not_waited_for_for_ever() {
    let upstream = server(|request| http::Response::new(request.into_body())).await;
    for (mut config, plugins) in
        [(builtin(), vec![watches("watch", REQUEST)]), (builtin(), vec![]), (at(&[upstream]), vec![])]
    {
        config.timeouts.request = SHORT * 3;
        let house = House::open(config, &plugins).await;
        let (mut reads, mut writes) = TcpStream::connect(house.addr).await.unwrap().into_split();
        writes.write_all(b"POST / HTTP/1.1\r\nHost: gw\r\nContent-Length: 100000\r\n\r\n").await.unwrap();
        let trickle = tokio::spawn(async move {
            while writes.write_all(b"x").await.is_ok() {
                tokio::time::sleep(SHORT / 10).await;
            }
        });
        let mut reply = [0; 12];
        tokio::time::timeout(PATIENCE, reads.read_exact(&mut reply)).await.unwrap().unwrap();
        assert_eq!(&reply, b"HTTP/1.1 408");
        trickle.abort();
    }
}

#[tokio::test]
async fn a_slow_upload_is_not_a_slow_upstream() {
    let mut config = at(&[server(|request| http::Response::new(request.into_body())).await]);
    config.timeouts.response_head = SHORT * 5;
    let house = House::open(config, &[]).await;
    let mut client = TcpStream::connect(house.addr).await.unwrap();
    client
        .write_all(b"POST / HTTP/1.1\r\nHost: gw\r\nConnection: close\r\nContent-Length: 8\r\n\r\n")
        .await
        .unwrap();
    for piece in ["ab", "cd", "ef", "gh"] {
        tokio::time::sleep(SHORT * 2).await;
        client.write_all(piece.as_bytes()).await.unwrap();
    }
    assert!(read_to_end(&mut client).await.ends_with("abcdefgh"));
}

#[tokio::test]
async fn a_client_that_does_not_read_is_cut_off() {
    let endless = Upstream::listen().await;
    let mut config = at(&[endless.addr]);
    config.timeouts.send_stall = SHORT;
    let house = House::open(config, &[]).await;
    let mut client = TcpStream::connect(house.addr).await.unwrap();
    client.write_all(b"GET / HTTP/1.1\r\nHost: gw\r\n\r\n").await.unwrap();
    let (mut upstream, _) = endless.accept().await;
    upstream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
    let filled =
        tokio::time::timeout(PATIENCE, async { while upstream.write_all(&[b'x'; 65536]).await.is_ok() {} });
    assert!(filled.await.is_ok(), "the upstream was never let go");
}

/// An upstream with one large answer, which takes up nearly all that may be held, and a client that has read
/// the answer's head and no more, in small buffers.
async fn with_a_large_answer(path: &str) -> (House, TcpStream) {
    let upstream = server(|_| http::Response::new(vec![b'x'; LARGE].into())).await;
    let mut config = at(&[upstream]);
    config.limits.held_bytes_max = LARGE + 1_000_000;
    config.timeouts.connection_idle = SHORT;
    let house = House::open(config, &[watches("watch", RESPONSE), watches("end", COMPLETE)]).await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut client = socket.connect(house.addr).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: gw\r\nConnection: close\r\n\r\n");
    client.write_all(request.as_bytes()).await.unwrap();
    let mut status = [0; 12];
    client.read_exact(&mut status).await.unwrap();
    assert_eq!(&status, b"HTTP/1.1 200");
    (house, client)
}

/// More than the kernel's buffers take.
const LARGE: usize = 9_000_000;

#[tokio::test]
async fn what_a_client_has_not_taken_is_still_held() {
    let (house, client) = with_a_large_answer("/left").await;
    for _ in 0..5 {
        tokio::time::sleep(SHORT).await;
        let refused = house.get("/other").await;
        assert_eq!((refused.status.as_u16(), &refused.json()["error"]["code"]), (503, &"busy".into()));
    }
    drop(client);
    let complete = completed("/left").await["complete"].clone();
    assert_eq!(complete["aborted"], true);
    assert!(complete["sent_bytes"].as_u64().unwrap() < LARGE as u64, "{complete}");
    assert_eq!(house.get("/other").await.body.len(), LARGE);
}

#[tokio::test]
async fn a_client_that_reads_slowly_gets_all() {
    let (_house, mut client) = with_a_large_answer("/slow").await;
    let mut got = 0;
    let mut piece = vec![0; 300_000];
    for reads in 0.. {
        // For a while only, but longer than a connection may be idle.
        if reads < 30 {
            tokio::time::sleep(SHORT / 5).await;
        }
        match client.read(&mut piece).await.unwrap() {
            0 => break,
            bytes => got += bytes,
        }
    }
    assert!(got > LARGE, "{got}");
    let complete = completed("/slow").await["complete"].clone();
    assert_eq!((&complete["aborted"], &complete["sent_bytes"]), (&false.into(), &LARGE.into()));
}

#[tokio::test]
async fn connections_are_bounded() {
    let mut config = builtin();
    config.startup.connections_max = 1;
    let house = House::open(config, &[]).await;
    let mut first = TcpStream::connect(house.addr).await.unwrap();
    first.write_all(b"GET /v1/models HTTP/1.1\r\nHost: gw\r\n\r\n").await.unwrap();
    assert!(first.read(&mut [0; 16]).await.unwrap() > 0);
    // The second waits in the kernel's queue until the first has gone.
    let second = house.fetch(Request::get("/v1/models"), "");
    tokio::pin!(second);
    assert!(tokio::time::timeout(SHORT, &mut second).await.is_err());
    drop(first);
    assert_eq!(second.await.status, StatusCode::OK);
}

/// How many connections an upstream sees from two rounds of two requests at once.
async fn connections_for_two_pairs(idle_max: usize) -> usize {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut config = at(&[listener.local_addr().unwrap()]);
    config.startup.idle_connections_per_upstream_max = idle_max;
    let count = Arc::new(AtomicUsize::new(0));
    let (counted, both) = (count.clone(), Arc::new(Barrier::new(2)));
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::Relaxed);
            let both = both.clone();
            tokio::spawn(async move {
                while !read_request(&mut stream).await.is_empty() {
                    both.wait().await;
                    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
                }
            });
        }
    });
    let house = House::open(config, &[]).await;
    for _ in 0..2 {
        tokio::join!(house.get("/"), house.get("/"));
        // Connections go back into the pool a moment after the client has its answer.
        tokio::time::sleep(SHORT * 3).await;
    }
    count.load(Ordering::Relaxed)
}

#[tokio::test]
async fn idle_connections_to_upstreams_are_bounded() {
    for (idle_max, expected) in [(64, 2), (1, 3), (0, 4)] {
        assert_eq!(connections_for_two_pairs(idle_max).await, expected, "{idle_max} idle");
    }
}

#[tokio::test]
async fn an_address_that_does_not_answer_is_not_waited_for() {
    // A queue of one that is full: the kernel drops what knocks.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let addr = listener.local_addr().unwrap();
    let knocks: Vec<_> = (0..4).map(|_| tokio::spawn(TcpStream::connect(addr))).collect();
    tokio::time::sleep(SHORT).await;

    let alive = server(|_| http::Response::new("alive".into())).await;
    let mut config = at(&[addr, alive]);
    config.startup.connect_timeout = SHORT;
    let house = House::open(config, &[]).await;
    let reply = house.get("/").await;
    assert_eq!((reply.status, reply.text()), (StatusCode::OK, "alive"));
    drop(knocks);
}

#[tokio::test]
async fn tries_are_bounded() {
    let alive = server(|_| http::Response::new("alive".into())).await;
    let mut config = at(&[nobody().await, alive]);
    config.upstreams[0].tries_max = 1;
    let house = House::open(config, &[]).await;
    assert_eq!(house.get("/").await.status, StatusCode::BAD_GATEWAY);
    assert_eq!(house.get("/").await.status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn background_work_is_bounded() {
    let mut config = builtin();
    config.limits.background_max = 1;
    let mut slow = on_fault(spins("slow", COMPLETE), FaultPolicy::Skip);
    slow.limits.deadline = Some(SHORT * 5);
    let house = House::open(config, &[slow, watches("watch", COMPLETE)]).await;
    // Neither client waits for the plugin.
    let began = std::time::Instant::now();
    house.get("/bounded/one").await;
    house.get("/bounded/two").await;
    assert!(began.elapsed() < SHORT * 5);
    completed("/bounded/one").await;
    // Once the first is through, there is room again.
    let room = tokio::time::timeout(PATIENCE, async {
        while !was_completed("/bounded/three") {
            house.get("/bounded/three").await;
            tokio::time::sleep(SHORT).await;
        }
    });
    room.await.unwrap();
    assert!(!was_completed("/bounded/two"));
}
