//! Rows about one call.

use std::hint::black_box;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use cardan::{Engine, InstanceMode};
use extism::Plugin;

use crate::args::Args;
use crate::contest::{Contest, Results};
use crate::native::Nop;
use crate::ours::Nursed;
use crate::row::{Figure, Row, Target};
use crate::{ours, payload, peer};

/// A guest, what it is given, and what is expected of the result.
struct Job {
    name: &'static str,
    guest: &'static str,
    export: &'static str,
    input: Vec<u8>,
    /// The same work in plain Rust.
    native: fn(&[u8]) -> Result<Vec<u8>>,
    /// Whether that is work at all, and so something to compare with.
    works: bool,
    targets: Targets,
}

/// Targets against the peer's reused call, but for the last, which is against its fresh one.
#[derive(Default)]
struct Targets {
    shared: Option<f64>,
    fresh: Option<f64>,
    ready: Option<f64>,
    fresh_against_fresh: Option<f64>,
}

fn jobs() -> Vec<Job> {
    let echo = |name, bytes, targets| Job {
        name,
        guest: "echo",
        export: "echo",
        input: payload::plain(bytes),
        native: |input| Ok(input.to_vec()),
        works: false,
        targets,
    };
    let edit = |name, bytes, targets| Job {
        name,
        guest: "json-edit",
        export: "edit",
        input: payload::chat(bytes),
        native: |input| Ok(payload::edit(input)?),
        works: true,
        targets,
    };
    vec![
        echo("echo 32 B", 32, Targets::default()),
        echo(
            "echo 1 KB",
            1 << 10,
            Targets { shared: Some(0.2), fresh: Some(1.0), ready: Some(0.3), fresh_against_fresh: Some(0.1) },
        ),
        echo("echo 64 KB", 64 << 10, Targets { shared: Some(0.5), ..Targets::default() }),
        edit("JSON 1 KB", 1 << 10, Targets { shared: Some(0.6), fresh: Some(1.2), ..Targets::default() }),
        edit("JSON 10 KB", 10 << 10, Targets::default()),
    ]
}

pub(crate) fn rows(args: &Args) -> Result<Vec<Row>> {
    let cache = tempfile::tempdir()?;
    let engine = ours::engine(cache.path())?;
    let mut rows = Vec::new();
    for job in jobs() {
        let results = with_contest(args, &engine, &job, |contest| contest.run(args.rounds, args.turn()))?;
        rows.extend(job_rows(&job, &results)?);
    }
    rows.extend(floor(args)?);
    Ok(rows)
}

/// Repeats one variant, for a profiler to look at.
pub(crate) fn spin(args: &Args, job: &str, variant: &str) -> Result<()> {
    const TIME: Duration = Duration::from_secs(5);
    let cache = tempfile::tempdir()?;
    let engine = ours::engine(cache.path())?;
    let job = jobs().into_iter().find(|known| known.name == job).with_context(|| format!("no job {job}"))?;
    let done = with_contest(args, &engine, &job, |contest| contest.spin(variant, TIME))?;
    println!("{:.0} ns each", TIME.as_nanos() as f64 / done as f64);
    Ok(())
}

/// Sets up all variants of a job, and lets `measure` do with them what it wants.
fn with_contest<T>(
    args: &Args,
    engine: &Engine,
    job: &Job,
    measure: impl FnOnce(Contest<'_>) -> Result<T>,
) -> Result<T> {
    let wasm = args.guest(job.guest)?;
    let shared = ours::load(engine, &wasm, InstanceMode::Shared)?;
    let fresh = ours::load(engine, &wasm, InstanceMode::Fresh)?;
    let strict = ours::load(&ours::strict_engine()?, &wasm, InstanceMode::Fresh)?;
    let nursed = std::cell::RefCell::new(Nursed::load(engine, &wasm)?);
    let ready = nursed.borrow().plugin();
    let mut own = fresh.instance()?;
    let compiled = peer::compile(&wasm)?;
    let mut reused = Plugin::new_from_compiled(&compiled)?;

    let (export, input) = (job.export, &job.input[..]);
    let expected = (job.native)(input)?;
    for output in [
        shared.call(export, input)?,
        fresh.call(export, input)?,
        strict.call(export, input)?,
        own.call(export, input).output,
        peer::call(&mut reused, export, input)?,
    ] {
        ensure!(same(&output, &expected), "{}: the sides do not agree on the output", job.name);
    }

    let mut contest = Contest::default();
    contest.add("native", || (job.native)(black_box(input)));
    contest.add("shared", || Ok(shared.call(export, input)?));
    contest.add("own", || Ok(own.call(export, input).output));
    contest.add("fresh", || Ok(fresh.call(export, input)?));
    contest.add("new", || Ok(strict.call(export, input)?));
    contest.add_prepared("ready", || nursed.borrow_mut().prepare(), || Ok(ready.call(export, input)?));
    contest.add("peer reused", || peer::call(&mut reused, export, input));
    contest.add("peer fresh", || peer::call_fresh(&compiled, export, input));
    measure(contest)
}

/// Bytes, or JSON whose members may come in another order.
fn same(left: &[u8], right: &[u8]) -> bool {
    let json = |bytes| serde_json::from_slice::<serde_json::Value>(bytes).ok();
    left == right || json(left).is_some_and(|value| Some(value) == json(right))
}

fn job_rows(job: &Job, results: &Results) -> Result<Vec<Row>> {
    let line = |what: &str, ours: &str, peer: &str, theirs: &str, target: Option<f64>| -> Result<Row> {
        Ok(Row {
            name: format!("{}, {what}", job.name),
            peer: peer.to_owned(),
            ours: Figure::Time(results.get(ours)?),
            theirs: Figure::Time(results.get(theirs)?),
            target: target.map(Target::AtMost),
        })
    };
    let targets = &job.targets;
    let mut rows = vec![
        line("shared instance", "shared", peer::REUSED, "peer reused", targets.shared)?,
        line("own instance", "own", peer::REUSED, "peer reused", None)?,
        line("fresh instance", "fresh", peer::REUSED, "peer reused", targets.fresh)?,
        line("ready instance", "ready", peer::REUSED, "peer reused", targets.ready)?,
        line("new instance for each call", "new", peer::REUSED, "peer reused", None)?,
        line("fresh against fresh", "fresh", peer::FRESH, "peer fresh", targets.fresh_against_fresh)?,
    ];
    if job.works {
        rows.push(line("fresh against native", "fresh", "native", "native", None)?);
        rows.push(line("extism reused against native", "peer reused", "native", "native", None)?);
    }
    Ok(rows)
}

/// How fast anything here could be.
fn floor(args: &Args) -> Result<Vec<Row>> {
    const TIMES: u32 = 100;
    let wasmtime = |error: wasmtime::Error| anyhow!("{error:#}");
    let mut nop = Nop::new().map_err(wasmtime)?;
    let small = payload::plain(1 << 10);
    let large = payload::plain(64 << 10);
    let (mut small_copy, mut large_copy) = (small.clone(), large.clone());
    let mut contest = Contest::default();
    contest.add_repeated("nop", TIMES, || (0..TIMES).try_for_each(|_| nop.call()).map_err(wasmtime));
    contest.add_repeated("1 KB", TIMES, || {
        (0..TIMES).for_each(|_| black_box(&mut small_copy).copy_from_slice(black_box(&small)));
        Ok(())
    });
    contest.add_repeated("64 KB", TIMES, || {
        (0..TIMES).for_each(|_| black_box(&mut large_copy).copy_from_slice(black_box(&large)));
        Ok(())
    });
    let results = contest.run(args.rounds, args.turn() / 4)?;
    let line = |name: &str, ours: &str| -> Result<Row> {
        Ok(Row {
            name: name.to_owned(),
            peer: "memcpy 1 KB".to_owned(),
            ours: Figure::Time(results.get(ours)?),
            theirs: Figure::Time(results.get("1 KB")?),
            target: None,
        })
    };
    Ok(vec![line("floor: wasmtime, live nop", "nop")?, line("floor: memcpy 64 KB", "64 KB")?])
}
