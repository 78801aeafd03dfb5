//! How much more two threads do than one.

use std::hint::black_box;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use cardan::InstanceMode;
use extism::Plugin;

use crate::args::Args;
use crate::row::{Figure, Row, Target};
use crate::{ours, payload, peer};

/// Makes what one thread runs; called on that thread.
type Work<'a> = Box<dyn Fn() -> Result<Box<dyn FnMut() -> Result<Vec<u8>> + 'a>> + Sync + 'a>;

/// Operations per second with one thread and with two.
#[derive(Debug, Clone, Copy, Default)]
struct Speed {
    one: f64,
    two: f64,
}

impl Speed {
    fn figure(self) -> Figure {
        Figure::Factor { factor: self.two / self.one, ns: 1e9 / self.two }
    }
}

pub(crate) fn rows(args: &Args) -> Result<Vec<Row>> {
    let cache = tempfile::tempdir()?;
    let engine = ours::engine(cache.path())?;
    let wasm = args.guest("json-edit")?;
    let fresh = ours::load(&engine, &wasm, InstanceMode::Fresh)?;
    let shared = ours::load(&engine, &wasm, InstanceMode::Shared)?;
    let compiled = peer::compile(&wasm)?;
    let input = payload::chat(1 << 10);
    let input = &input[..];

    let ours = |plugin: cardan::Plugin| -> Work<'_> {
        Box::new(move || {
            let plugin = plugin.clone();
            Ok(Box::new(move || Ok(plugin.call("edit", input)?)))
        })
    };
    let works: Vec<(&str, Work<'_>)> = vec![
        ("native", Box::new(|| Ok(Box::new(|| Ok(payload::edit(input)?))))),
        ("fresh", ours(fresh)),
        ("shared", ours(shared)),
        (
            "peer",
            Box::new(|| {
                let mut plugin = Plugin::new_from_compiled(&compiled)?;
                Ok(Box::new(move || peer::call(&mut plugin, "edit", input)))
            }),
        ),
    ];
    let speeds = race(&works, args)?;
    let speed = |name: &str| {
        let index = works.iter().position(|(id, _)| *id == name);
        index.map(|index| speeds[index]).ok_or_else(|| anyhow!("nothing measured for {name}"))
    };
    let line = |name: &str, id: &str, target| -> Result<Row> {
        Ok(Row {
            name: name.to_owned(),
            peer: "native".to_owned(),
            ours: speed(id)?.figure(),
            theirs: speed("native")?.figure(),
            target,
        })
    };
    Ok(vec![
        line("two threads, JSON 1 KB, fresh instance", "fresh", Some(Target::AtLeast(0.85)))?,
        line("two threads, JSON 1 KB, shared instances", "shared", None)?,
        line("two threads, JSON 1 KB, extism reused, a plugin each", "peer", None)?,
    ])
}

/// The best of some rounds in which each kind of work has its turn with one thread and with two.
fn race(works: &[(&str, Work<'_>)], args: &Args) -> Result<Vec<Speed>> {
    let mut best = vec![Speed::default(); works.len()];
    for round in 0..args.rounds {
        for place in 0..works.len() {
            let index = (round + place) % works.len();
            let work = &works[index].1;
            let best = &mut best[index];
            best.one = best.one.max(per_second(1, work, args.turn() * 3)?);
            best.two = best.two.max(per_second(2, work, args.turn() * 3)?);
        }
    }
    Ok(best)
}

fn per_second(threads: usize, work: &Work<'_>, turn: Duration) -> Result<f64> {
    let stop = AtomicBool::new(false);
    let begin = Barrier::new(threads + 1);
    thread::scope(|scope| {
        let runners: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(|| {
                    let made = work();
                    begin.wait();
                    let mut work = made?;
                    let mut done = 0u64;
                    while !stop.load(Ordering::Relaxed) {
                        black_box(work()?);
                        done += 1;
                    }
                    anyhow::Ok(done)
                })
            })
            .collect();
        begin.wait();
        let start = Instant::now();
        thread::sleep(turn);
        stop.store(true, Ordering::Relaxed);
        let seconds = start.elapsed().as_secs_f64();
        let mut done = 0;
        for runner in runners {
            done += runner.join().map_err(|_| anyhow!("a thread panicked"))??;
        }
        Ok(done as f64 / seconds)
    })
}
