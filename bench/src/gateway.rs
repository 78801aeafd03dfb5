//! Rows about the gateway: the `cardan` binary with its built-in upstream, over loopback.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Request, header};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::args::Args;
use crate::payload;
use crate::row::{Figure, Row, Target};

const CONNECTIONS: usize = 8;
const NULL_PLUGIN: &str = include_str!("null.wat");
const CONFIG: &str = "\
upstreams:
  - name: echo
    builtin: {}
routes:
  - path: /v1
    upstream: echo
";

/// What is appended to the configuration, and the row that it gives.
struct Setup {
    plugins: &'static str,
    row: Option<(&'static str, Option<Target>)>,
}

const SETUPS: &[Setup] = &[
    Setup { plugins: "", row: None },
    Setup {
        plugins: "\
plugins:
  - name: 'null'
    source: null.wat
    bindings: [{ hook: http.request, body: none }]
",
        row: Some(("gateway, a null plugin at http.request", Some(Target::AtLeast(0.95)))),
    },
    Setup {
        plugins: "\
plugins:
  - name: 'null'
    source: null.wat
    bindings: [{ hook: http.request }]
",
        row: Some(("gateway, a null plugin at http.request, shown the body", None)),
    },
    Setup {
        plugins: "\
plugins:
  - name: 'null'
    source: null.wat
    limits: { ready: 0 }
    bindings: [{ hook: http.request, body: none }]
",
        row: Some(("gateway, a null plugin at http.request, none ready", None)),
    },
    Setup {
        plugins: "\
plugins:
  - name: 'null'
    source: null.wat
    instance: shared
    bindings: [{ hook: http.request, body: none }]
",
        row: Some(("gateway, a null plugin at http.request, shared instances", None)),
    },
    Setup {
        plugins: "\
plugins:
  - name: pii-mask
    source: pii-mask.wasm
    bindings: [{ hook: http.request }]
",
        row: Some(("gateway, the example plugin pii-mask at http.request", None)),
    },
];

pub(crate) fn rows(args: &Args) -> Result<Vec<Row>> {
    let binary = &args.cardan;
    ensure!(
        binary.is_file(),
        "there is no {}: build it with `cargo build --release --package cardan-cli`, or name it with --cardan",
        binary.display()
    );
    let dir = tempfile::tempdir()?;
    std::fs::write(dir.path().join("null.wat"), NULL_PLUGIN)?;
    std::fs::write(dir.path().join("pii-mask.wasm"), args.guest("pii-mask")?)?;
    let gateways: Vec<Gateway> = SETUPS
        .iter()
        .enumerate()
        .map(|(index, setup)| Gateway::start(binary, dir.path(), index, setup.plugins))
        .collect::<Result<_>>()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let turn = if args.quick { Duration::from_millis(200) } else { Duration::from_secs(1) };
    let mut best = vec![0f64; gateways.len()];
    for round in 0..args.rounds {
        for place in 0..gateways.len() {
            let index = (round + place) % gateways.len();
            let rate = runtime.block_on(load(gateways[index].address, turn))?;
            best[index] = best[index].max(rate);
        }
    }
    let without = best[0];
    let rows = SETUPS.iter().zip(&best).filter_map(|(setup, rate)| {
        let (name, target) = setup.row?;
        Some(Row {
            name: name.to_owned(),
            peer: "Cardan without plugin".to_owned(),
            ours: Figure::Rate(*rate),
            theirs: Figure::Rate(without),
            target,
        })
    });
    Ok(rows.collect())
}

/// A running `cardan serve`. Ended when dropped.
struct Gateway {
    process: Child,
    address: SocketAddr,
}

impl Gateway {
    fn start(binary: &Path, dir: &Path, index: usize, plugins: &str) -> Result<Self> {
        let config = dir.join(format!("cardan-{index}.yaml"));
        std::fs::write(&config, format!("{CONFIG}{plugins}"))?;
        let mut process = Command::new(binary)
            .args(["serve", "--listen", "127.0.0.1:0", "--log", "warn"])
            .arg("--cache-dir")
            .arg(dir.join("cache"))
            .arg("--config")
            .arg(&config)
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| binary.display().to_string())?;
        let output = process.stdout.take();
        // From here on the process is ended whatever happens.
        let mut gateway = Self { process, address: ([127, 0, 0, 1], 0).into() };
        let mut line = String::new();
        BufReader::new(output.context("no output to read")?).read_line(&mut line)?;
        let address = line.trim().strip_prefix("listening on http://");
        gateway.address = address.with_context(|| format!("the gateway did not start: {line:?}"))?.parse()?;
        Ok(gateway)
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // Nothing can be done about a process that cannot be ended.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Requests per second over some connections that send one request after the other.
async fn load(address: SocketAddr, turn: Duration) -> Result<f64> {
    let stop = Arc::new(AtomicBool::new(false));
    let body = Bytes::from(payload::chat(1 << 10));
    let start = Instant::now();
    let clients: Vec<_> =
        (0..CONNECTIONS).map(|_| tokio::spawn(requests(address, body.clone(), stop.clone()))).collect();
    tokio::time::sleep(turn).await;
    stop.store(true, Ordering::Relaxed);
    let seconds = start.elapsed().as_secs_f64();
    let mut done = 0;
    for client in clients {
        done += client.await??;
    }
    Ok(done as f64 / seconds)
}

/// One connection's requests, until it is told to stop.
async fn requests(address: SocketAddr, body: Bytes, stop: Arc<AtomicBool>) -> Result<u64> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let mut done = 0;
    while !stop.load(Ordering::Relaxed) {
        let request = Request::post("/v1/chat/completions")
            .header(header::HOST, "localhost")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body.clone()))?;
        sender.ready().await?;
        let response = sender.send_request(request).await?;
        let status = response.status();
        let answer = response.into_body().collect().await?.to_bytes();
        ensure!(status.is_success(), "the gateway answered {status}: {}", String::from_utf8_lossy(&answer));
        done += 1;
    }
    Ok(done)
}
