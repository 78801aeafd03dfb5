//! Rows about what a plugin's calls take while another plugin uses up whatever it can.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use cardan::api::grants::{Access, KvLimits, KvScope, MetricsScope};
use cardan::{Engine, EngineConfig, Fault, Grants, Limits, Plugin, Services};
use cardan_services::{MetricsRegistry, SqliteKv, wall_clock};
use tokio::runtime::Runtime;

use crate::args::Args;
use crate::contest::Timing;
use crate::row::{Figure, Row, Target};

/// Calls at once of the plugin that does not stop: as many as leave a processor to others, and more than there are threads.
const FEW: usize = 1;
const GREEDY: usize = 4;
/// Those of one that only computes.
const SPINNING: usize = 8;
/// What one of its calls may take.
const DEADLINE: Duration = Duration::from_millis(100);
/// Between two calls of the neighbour.
const PAUSE: Duration = Duration::from_millis(1);

/// A guest with the functions that both sides need, whose `run` is `body`.
fn guest(body: &str) -> String {
    format!(
        r#"(module
  (import "extism:host/env" "alloc" (func $alloc (param i64) (result i64)))
  (import "extism:host/env" "free" (func $free (param i64)))
  (import "extism:host/env" "store_u8" (func $store (param i64 i32)))
  (import "extism:host/env" "store_u64" (func $store8 (param i64 i64)))
  (import "extism:host/env" "log_info" (func $log (param i64)))
  (import "extism:host/user" "kv_get" (func $get (param i64) (result i64)))
  (import "extism:host/user" "kv_set" (func $set (param i64 i64 i64)))
  (import "extism:host/user" "metric_inc" (func $inc (param i64 i64)))
  (memory (export "memory") 1)
  (global $n (mut i64) (i64.const 0))
  ;; A block with a text of eight letters that is another one each time.
  (func $name (result i64) (local $at i64) (local $i i64) (local $x i64)
    (local.set $at (call $alloc (i64.const 8)))
    (global.set $n (i64.add (global.get $n) (i64.const 1)))
    (local.set $x (global.get $n))
    (loop $next
      (call $store (i64.add (local.get $at) (local.get $i))
        (i32.add (i32.const 97) (i32.wrap_i64 (i64.and (local.get $x) (i64.const 15)))))
      (local.set $x (i64.shr_u (local.get $x) (i64.const 4)))
      (local.set $i (i64.add (local.get $i) (i64.const 1)))
      (br_if $next (i64.lt_u (local.get $i) (i64.const 8))))
    (local.get $at))
  (func $one (result i64) (local $at i64)
    (local.set $at (call $alloc (i64.const 1)))
    (call $store (local.get $at) (i32.const 49))
    (local.get $at))
  (func (export "run") (local $at i64)
    {body}))"#
    )
}

/// What the greedy plugin does again and again, and how its calls may end.
struct Greed {
    what: &'static str,
    at_once: usize,
    body: &'static str,
    faults: &'static [Fault],
}

const GREEDS: [Greed; 5] = [
    Greed {
        what: "fills its keys and values",
        at_once: GREEDY,
        body: "(loop $again (call $set (call $name) (call $alloc (i64.const 65536)) (i64.const 0)) (br $again))",
        faults: &[Fault::Denied, Fault::Deadline, Fault::Host, Fault::Trap, Fault::Memory],
    },
    Greed {
        what: "fills its log",
        at_once: GREEDY,
        body: "(loop $again (call $log (call $name)) (br $again))",
        faults: &[Fault::Deadline],
    },
    Greed {
        what: "makes ever new metrics",
        at_once: GREEDY,
        body: "(loop $again (call $inc (call $name) (call $one)) (br $again))",
        faults: &[Fault::Denied, Fault::Deadline, Fault::Host, Fault::Trap, Fault::Memory],
    },
    Greed {
        what: "takes memory",
        at_once: GREEDY,
        body: "(loop $again (drop (memory.grow (i32.const 16)))
                 (memory.fill (i32.const 0) (i32.const 1) (i32.mul (memory.size) (i32.const 65536))) (br $again))",
        faults: &[Fault::Memory, Fault::Deadline],
    },
    Greed {
        what: "computes without end",
        at_once: SPINNING,
        body: "(loop $again (br $again))",
        faults: &[Fault::Deadline],
    },
];

pub(crate) fn rows(args: &Args) -> Result<Vec<Row>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let mut rows = Vec::new();
    for greed in &GREEDS {
        for at_once in [FEW, greed.at_once] {
            rows.push(row(args, &runtime, greed, at_once)?);
        }
    }
    Ok(rows)
}

fn row(args: &Args, runtime: &Runtime, greed: &Greed, at_once: usize) -> Result<Row> {
    let scratch = tempfile::tempdir()?;
    let engine = engine(scratch.path())?;
    let grants = Grants {
        kv: Some(KvScope { access: Access::Write, limits: KvLimits::default() }),
        metrics: Some(MetricsScope::default()),
        ..Grants::default()
    };
    let load = |name: &str, body: &str| {
        let limits = Limits { deadline: Some(DEADLINE), ..Limits::default() };
        engine.plugin(guest(body).as_bytes()).name(name).limits(limits).grants(grants.clone()).load()
    };
    let neighbour = load("neighbour", "(local.set $at (call $name)) (drop (call $get (local.get $at)))")?;
    let greedy = load("greedy", greed.body)?;
    let (mut alone, mut beside) = (Vec::new(), Vec::new());
    for _ in 0..args.rounds {
        alone.extend(runtime.block_on(calls(&neighbour, args.turn() * 4))?);
        let stop = Arc::new(AtomicBool::new(false));
        let greedy = (0..at_once).map(|_| runtime.spawn(use_up(greedy.clone(), stop.clone(), greed.faults)));
        let greedy: Vec<_> = greedy.collect();
        // Past the beginning, when the caps are met.
        std::thread::sleep(DEADLINE * 3);
        beside.extend(runtime.block_on(calls(&neighbour, args.turn() * 4))?);
        stop.store(true, Ordering::Relaxed);
        for task in greedy {
            runtime.block_on(task)??;
        }
    }
    Ok(Row {
        name: format!("p99 of a neighbour's kv_get while a plugin {}, calls at once: {at_once}", greed.what),
        peer: "Cardan, the neighbour alone".to_owned(),
        ours: Figure::Tail(timing(beside)),
        theirs: Figure::Tail(timing(alone)),
        target: Some(Target::AtMost(1.5)),
    })
}

fn engine(scratch: &Path) -> Result<Engine> {
    let services = Services {
        kv: Some(Arc::new(SqliteKv::open(&scratch.join("kv.sqlite"), wall_clock())?)),
        metrics: Some(Arc::new(MetricsRegistry::default())),
        ..Services::default()
    };
    Ok(Engine::new(EngineConfig { services, ..EngineConfig::default() })?)
}

/// How long calls of the neighbour take, one after another with pauses between, in nanoseconds.
async fn calls(neighbour: &Plugin, time: Duration) -> Result<Vec<u64>> {
    let neighbour = neighbour.clone();
    // On a thread of the pool, as in a gateway.
    let task = tokio::spawn(async move {
        let (start, mut samples) = (Instant::now(), Vec::new());
        while start.elapsed() < time {
            let start = Instant::now();
            neighbour.call_async("run", b"").await.context("the neighbour")?;
            samples.push(u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX));
            tokio::time::sleep(PAUSE).await;
        }
        anyhow::Ok(samples)
    });
    task.await?
}

async fn use_up(greedy: Plugin, stop: Arc<AtomicBool>, faults: &[Fault]) -> Result<()> {
    while !stop.load(Ordering::Relaxed) {
        if let Err(error) = greedy.call_async("run", b"").await {
            ensure!(faults.contains(&error.fault()), "{error}");
        }
        // As a server does between two requests.
        tokio::task::yield_now().await;
    }
    Ok(())
}

fn timing(mut samples: Vec<u64>) -> Timing {
    samples.sort_unstable();
    let at = |percent: usize| samples.get(samples.len() * percent / 100).copied().unwrap_or(0) as f64;
    Timing { p50_ns: at(50), p99_ns: at(99) }
}
