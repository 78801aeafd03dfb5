//! Which addresses are connected to.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use cardan::api::grants::{HttpScope, PrivateAddresses, Reach};
use cardan::{HttpClient, HttpExchange, HttpFailure};
use cardan_services::{HttpService, Lookup};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// A server that counts who comes.
fn server() -> (u16, Arc<AtomicU32>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let asked = Arc::new(AtomicU32::new(0));
    let counter = asked.clone();
    std::thread::spawn(move || {
        for mut connection in listener.incoming().flatten() {
            counter.fetch_add(1, Ordering::Relaxed);
            std::thread::spawn(move || {
                let mut head = [0; 2048];
                while connection.read(&mut head).is_ok_and(|read| read > 0) {
                    if connection.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi").is_err() {
                        return;
                    }
                }
            });
        }
    });
    (port, asked)
}

/// Knows some names, each with some addresses; the port is the server's whatever is asked.
fn lookup(names: &[(&str, &[&str])], port: u16) -> Lookup {
    let names: BTreeMap<String, Vec<SocketAddr>> = names
        .iter()
        .map(|(name, addresses)| {
            let addresses = addresses.iter().map(|address| SocketAddr::new(address.parse().unwrap(), port));
            ((*name).to_owned(), addresses.collect())
        })
        .collect();
    Arc::new(move |name| {
        let found = names.get(&name).cloned().ok_or_else(|| std::io::Error::other("no such name"));
        Box::pin(std::future::ready(found)) as Pin<Box<_>>
    })
}

fn get(url: &str, reach: &Reach) -> HttpExchange {
    static PLUGIN: OnceLock<Arc<str>> = OnceLock::new();
    HttpExchange {
        plugin: PLUGIN.get_or_init(|| "one".into()).clone(),
        method: "GET".to_owned(),
        url: url.parse().unwrap(),
        headers: Vec::new(),
        body: None,
        response_bytes_max: 1000,
        timeout: Some(Duration::from_secs(10)),
        reach: reach.clone(),
    }
}

#[tokio::test]
async fn names_that_resolve_to_private_addresses() {
    let (port, asked) = server();
    let names: &[(&str, &[&str])] = &[
        ("private.example", &["127.0.0.1"]),
        ("mapped.example", &["::ffff:127.0.0.1"]),
        ("metadata.example", &["169.254.169.254"]),
        ("several.example", &["10.0.0.1", "::1", "fe80::1", "127.0.0.1"]),
        ("localhost", &["127.0.0.1"]),
        ("nothing.example", &[]),
    ];
    let service = HttpService::with_lookup(lookup(names, port)).unwrap();
    let public = Reach::from(PrivateAddresses::default());
    for name in ["private.example", "mapped.example", "metadata.example", "several.example", "localhost"] {
        let failure = service.send(get(&format!("http://{name}:{port}/"), &public)).await.unwrap_err();
        assert!(matches!(failure, HttpFailure::Private(_)), "{name}: {failure:?}");
    }
    let failure = service.send(get(&format!("http://nothing.example:{port}/"), &public)).await.unwrap_err();
    assert!(matches!(failure, HttpFailure::Other(_)), "{failure:?}");
    assert_eq!(asked.load(Ordering::Relaxed), 0);
    // Who was granted it gets there; a connection that is kept from that is lent to nobody else.
    let granted = HttpScope::hosts(["localhost".to_owned()]).reach();
    let reply = service.send(get(&format!("http://localhost:{port}/"), &granted)).await.unwrap();
    assert_eq!(reply.body, b"hi");
    let ranges = ["127.0.0.0/8".parse().unwrap()].into();
    let range = Reach::from(PrivateAddresses::Listed { ranges, hosts: Default::default() });
    for name in ["private.example", "several.example", "localhost"] {
        service.send(get(&format!("http://{name}:{port}/"), &range)).await.unwrap();
        let failure = service.send(get(&format!("http://{name}:{port}/"), &public)).await.unwrap_err();
        assert!(matches!(failure, HttpFailure::Private(_)), "{name}: {failure:?}");
    }
}

/// However an address is written.
#[tokio::test]
async fn addresses() {
    let (port, asked) = server();
    let service = HttpService::new().unwrap();
    let public = Reach::from(PrivateAddresses::default());
    let number = u32::from(Ipv4Addr::LOCALHOST);
    let decimal = number.to_string();
    let hexadecimal = format!("{number:#x}");
    let hosts = [
        "127.0.0.1",
        "127.1",
        "0177.0.0.1",
        "0x7f.0.0.1",
        &decimal,
        &hexadecimal,
        "0",
        "0.0.0.0",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[::127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]",
        "169.254.169.254",
        "[fe80::1]",
        "[fd00::1]",
        "10.0.0.1",
        "100.64.0.1",
        "%31%32%37.0.0.1",
        "127.0.0.1.",
        "①②⑦.0.0.1",
    ];
    for host in hosts {
        let failure = service.send(get(&format!("http://{host}:{port}/"), &public)).await.unwrap_err();
        assert!(matches!(failure, HttpFailure::Private(_)), "{host}: {failure:?}");
    }
    // The machine's own name, and one that every resolver knows.
    let failure = service.send(get(&format!("http://localhost:{port}/"), &public)).await.unwrap_err();
    assert!(matches!(failure, HttpFailure::Private(_)), "{failure:?}");
    assert_eq!(asked.load(Ordering::Relaxed), 0);
}

/// More than connections are kept for.
#[tokio::test]
async fn many_reaches() {
    let (port, _) = server();
    let service = HttpService::new().unwrap();
    for n in 0..=255_u8 {
        let ranges = [format!("10.{n}.0.0/16").parse().unwrap(), "127.0.0.1".parse().unwrap()].into();
        let reach = Reach::from(PrivateAddresses::Listed { ranges, hosts: Default::default() });
        service.send(get(&format!("http://127.0.0.1:{port}/"), &reach)).await.unwrap();
    }
}

/// A connection is its plugin's: of another one's, of the same name too, nothing is lent, and nothing kept of one
/// that is gone.
#[tokio::test]
async fn connections_of_plugins() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let (came, left) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let counters = (came.clone(), left.clone());
    tokio::spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            counters.0.fetch_add(1, Ordering::Relaxed);
            let left = counters.1.clone();
            tokio::spawn(async move {
                let mut head = [0; 2048];
                while connection.read(&mut head).await.is_ok_and(|read| read > 0) {
                    connection.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi").await.unwrap();
                }
                left.fetch_add(1, Ordering::Relaxed);
            });
        }
    });
    let service = HttpService::new().unwrap();
    let reach = HttpScope::hosts(["127.0.0.1".to_owned()]).reach();
    let asked = async |plugin: &Arc<str>| {
        let exchange = HttpExchange { plugin: plugin.clone(), ..get(&url, &reach) };
        service.send(exchange).await.unwrap();
        // The connection goes back when its answer has been read.
        tokio::time::sleep(Duration::from_millis(20)).await;
        came.load(Ordering::Relaxed)
    };
    let (one, other): (Arc<str>, Arc<str>) = ("name".into(), "name".into());
    assert_eq!([asked(&one).await, asked(&one).await], [1, 1], "its own is kept");
    assert_eq!([asked(&other).await, asked(&one).await], [2, 2]);
    drop(one);
    assert_eq!(asked(&other).await, 2);
    let closed = async {
        while left.load(Ordering::Relaxed) < 1 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), closed).await.expect("a connection of nobody was kept");
    assert_eq!(left.load(Ordering::Relaxed), 1);
}
