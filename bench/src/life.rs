//! Rows about what happens before a call, and around many: large modules, initialisation, many plugins, chains.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use cardan::api::http::{HttpRequest, RequestEvent};
use cardan::{Engine, EngineConfig, Isolation, Plugin, SnapshotPolicy, SnapshotState, Tier};
use cardan_manager::{Manager, PluginSpec, Progress};

use crate::args::Args;
use crate::contest::{Contest, Timing};
use crate::load::Loads;
use crate::row::{Figure, Row, Target};

/// Plugins that are loaded at once.
const MANY: usize = 300;

/// Fills a table of 256 KiB when it starts, and looks up one entry of it when called.
const TABLE: &str = r#"(module
  (import "extism:host/env" "alloc" (func $alloc (param i64) (result i64)))
  (import "extism:host/env" "store_u64" (func $store (param i64 i64)))
  (import "extism:host/env" "output_set" (func $output (param i64 i64)))
  (memory (export "memory") 5)
  (func (export "_initialize") (local $i i32) (local $x i64)
    (local.set $x (i64.const 88172645463325252))
    (loop $next
      (local.set $x (i64.xor (local.get $x) (i64.shl (local.get $x) (i64.const 13))))
      (local.set $x (i64.xor (local.get $x) (i64.shr_u (local.get $x) (i64.const 7))))
      (local.set $x (i64.xor (local.get $x) (i64.shl (local.get $x) (i64.const 17))))
      (i64.store (i32.add (i32.const 65536) (local.get $i)) (local.get $x))
      (local.set $i (i32.add (local.get $i) (i32.const 8)))
      (br_if $next (i32.lt_u (local.get $i) (i32.const 262144)))))
  (func (export "run") (local $at i64)
    (local.set $at (call $alloc (i64.const 8)))
    (call $store (local.get $at) (i64.load (i32.const 100000)))
    (call $output (local.get $at) (i64.const 8))))"#;

pub(crate) fn rows(args: &Args) -> Result<Vec<Row>> {
    let mut rows = initialised(args)?;
    rows.extend(many(args)?);
    rows.extend(chains(args)?);
    match large_guest(args) {
        Ok(wasm) => rows.extend(large(args, &wasm)?),
        Err(error) => eprintln!("left out: rows about a large module: {error:#}"),
    }
    Ok(rows)
}

fn row(name: &str, ours: Figure, peer: &str, theirs: Figure, target: Option<f64>) -> Row {
    let target = target.map(Target::AtMost);
    Row { name: name.to_owned(), peer: peer.to_owned(), ours, theirs, target }
}

/// A time that was not measured but asked for.
pub(crate) fn asked(time: Duration) -> Figure {
    let ns = time.as_nanos() as f64;
    Figure::Time(Timing { p50_ns: ns, p99_ns: ns })
}

/// A guest that takes its time to start, with and without a snapshot of where that ends.
fn initialised(args: &Args) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    let new = EngineConfig { isolation: Isolation::Strict, ..EngineConfig::default() };
    for (what, config, target) in [
        ("new instance for each call", new, Some(0.3)),
        ("instances put back", EngineConfig::default(), None),
    ] {
        let engine = Engine::new(config)?;
        let load = |policy| engine.plugin(TABLE.as_bytes()).snapshot(policy).load();
        let (kept, anew) = (load(SnapshotPolicy::Auto)?, load(SnapshotPolicy::Never)?);
        ensure!(kept.snapshot_state() == SnapshotState::Taken, "{}", kept.snapshot_state());
        ensure!(kept.call("run", "")? == anew.call("run", "")?, "the table is another one");
        let mut contest = Contest::default();
        contest.add("kept", || Ok(kept.call("run", "")?));
        contest.add("anew", || Ok(anew.call("run", "")?));
        let results = contest.run(args.rounds, args.turn())?;
        let (ours, theirs) = (Figure::Time(results.get("kept")?), Figure::Time(results.get("anew")?));
        let name = format!("table of 256 KiB made at the start, snapshot, {what}");
        rows.push(row(&name, ours, "Cardan, started for each instance", theirs, target));
    }
    Ok(rows)
}

/// A call while many plugins are called in turn.
fn many(args: &Args) -> Result<Vec<Row>> {
    let wasm = args.guest("echo")?;
    let input = crate::payload::plain(1 << 10);
    let cache = tempfile::tempdir()?;
    let engine = crate::ours::engine(cache.path())?;
    let load = |index| engine.plugin(&wasm[..]).name(format!("p{index}")).load();
    let plugins = (0..MANY).map(load).collect::<Result<Vec<Plugin>, _>>()?;
    let mut next = 0;
    let mut contest = Contest::default();
    contest.add("one", || Ok(plugins[0].call("echo", &input)?));
    contest.add("many", || {
        next = (next + 1) % MANY;
        Ok(plugins[next].call("echo", &input)?)
    });
    let results = contest.run(args.rounds, args.turn())?;
    let (ours, theirs) = (Figure::Time(results.get("many")?), Figure::Time(results.get("one")?));
    let name = format!("echo 1 KB, {MANY} plugins called in turn");
    Ok(vec![row(&name, ours, "Cardan, one plugin", theirs, Some(1.25))])
}

/// Hooks as hosts ask them.
fn chains(args: &Args) -> Result<Vec<Row>> {
    const TIMES: u32 = 1000;
    let cache = tempfile::tempdir()?;
    let engine = crate::ours::engine(cache.path())?;
    let guest = args.guest_path("pii-mask");
    let manager = |count: usize| -> Result<Manager> {
        let manager = Manager::new(engine.clone(), 1);
        let spec = |index| PluginSpec::new(format!("p{index}"), guest.clone());
        let specs: Vec<PluginSpec> = (0..count).map(spec).collect();
        match manager.apply(&specs) {
            Ok(_) => Ok(manager),
            Err(error) => bail!("{error}"),
        }
    };
    let (none, one, five) = (manager(0)?, manager(1)?, manager(5)?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let ask = |manager: &Manager| {
        let mut event = request();
        let mut visit = manager.open(None);
        let mut chain = visit.chain::<HttpRequest>(&event);
        let progress = runtime.block_on(visit.ask(&mut chain, &mut event));
        ensure!(matches!(progress, Progress::Done), "the chain is not walked to its end");
        Ok(())
    };
    let mut contest = Contest::default();
    let mut event = request();
    let mut visit = none.open(None);
    contest.add_repeated("none", TIMES, move || {
        for _ in 0..TIMES {
            let mut chain = visit.chain::<HttpRequest>(&event);
            let mut asked = std::pin::pin!(visit.ask(&mut chain, &mut event));
            let mut context = std::task::Context::from_waker(std::task::Waker::noop());
            ensure!(asked.as_mut().poll(&mut context).is_ready(), "nobody is to be waited for");
        }
        Ok(())
    });
    contest.add("one", || ask(&one));
    contest.add("five", || ask(&five));
    let results = contest.run(args.rounds, args.turn())?;
    let figure = |id| Ok::<_, anyhow::Error>(Figure::Time(results.get(id)?));
    Ok(vec![
        row(
            "asking where nothing is bound",
            figure("none")?,
            "what it may take",
            asked(Duration::from_nanos(20)),
            Some(1.0),
        ),
        row("chain of five", figure("five")?, "chain of one", figure("one")?, Some(5.0)),
    ])
}

fn request() -> RequestEvent {
    RequestEvent {
        method: "POST".to_owned(),
        host: "api.example".to_owned(),
        path: "/v1/chat/completions".to_owned(),
        query: None,
        client: "192.0.2.1:4711".to_owned(),
        headers: cardan::api::http::Headers(vec![
            ("content-type".to_owned(), "application/json".to_owned()),
            ("authorization".to_owned(), "Bearer sk-1".to_owned()),
            ("x-api-key".to_owned(), "sk-1".to_owned()),
        ]),
        body: Some(r#"{"model":"m","messages":[]}"#.into()),
    }
}

/// Loading a large module: from the cache, and with a compiler in the way of its first call.
fn large(args: &Args, wasm: &[u8]) -> Result<Vec<Row>> {
    let [mut cached, mut optimised, mut baseline] = [Loads::default(), Loads::default(), Loads::default()];
    // A compilation takes seconds.
    for _ in 0..args.rounds.min(3) {
        let cache = tempfile::tempdir()?;
        let config = |baseline_bytes_min, cache_dir: Option<&Path>| EngineConfig {
            baseline_bytes_min: Some(baseline_bytes_min),
            cache_dir: cache_dir.map(Path::to_owned),
            ..EngineConfig::default()
        };
        let first = |engine: &Engine| {
            let plugin = engine.load(wasm)?;
            plugin.call("run", "")?;
            Ok(plugin)
        };
        let never = Engine::new(config(u64::MAX, Some(cache.path())))?;
        let plugin = optimised.time(|| first(&never))?;
        ensure!(plugin.tier() == Tier::Optimised);
        for _ in 0..10 {
            cached.time(|| Ok(never.load(wasm)?))?;
        }
        let soon = Engine::new(config(1 << 20, None))?;
        let plugin = baseline.time(|| first(&soon))?;
        ensure!(plugin.tier() == Tier::Baseline);
        // The background compilation is to be over before the next round.
        while plugin.tier() == Tier::Baseline {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    let [cached, optimised, baseline] = [cached, optimised, baseline].map(Loads::figure);
    let size = format!("{:.1} MB of Go", wasm.len() as f64 / 1e6);
    let line = |what: &str, ours, peer, theirs, target| {
        row(&format!("{size}, {what}"), ours, peer, theirs, Some(target))
    };
    Ok(vec![
        line("load from cache", cached, "what it may take", asked(Duration::from_millis(5)), 1.0),
        line("load from cache against compiling", cached, "Cardan, compiling", optimised, 0.01),
        line("first call, baseline compiler", baseline, "Cardan, optimising compiler", optimised, 0.25),
    ])
}

/// Built here, since a file of that size has no place among sources.
fn large_guest(args: &Args) -> Result<Vec<u8>> {
    let go =
        args.go.as_ref().context("no Go; name it with --go, or run cargo xtask setup --guest-compilers")?;
    let sources = args.guests.join("../../bench/guests/large-go");
    let folder = tempfile::tempdir()?;
    let wasm = folder.path().join("large.wasm");
    let mut build = Command::new(go);
    build
        .current_dir(&sources)
        .env("GOOS", "wasip1")
        .env("GOARCH", "wasm")
        .args(["build", "-buildmode=c-shared", "-trimpath", "-ldflags=-s -w", "-o"])
        .arg(&wasm)
        .arg(".");
    let built = build.status().with_context(|| format!("cannot run {}", go.display()))?;
    ensure!(built.success(), "go build failed in {}", sources.display());
    Ok(std::fs::read(&wasm)?)
}
