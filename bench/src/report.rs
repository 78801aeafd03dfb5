//! The table, for people and for programs.

use std::fmt::Write as _;

use anyhow::Result;
use serde_json::json;

use crate::args::Args;
use crate::machine::Machine;
use crate::row::{Figure, Row, Target};

const HEADER: [&str; 7] = ["row", "Cardan", "p99", "compared with", "peer", "ratio", "target"];

/// For a terminal.
pub(crate) fn text(rows: &[Row]) -> String {
    let lines: Vec<[String; 7]> =
        std::iter::once(HEADER.map(str::to_owned)).chain(rows.iter().map(cells)).collect();
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; 7] = std::array::from_fn(width);
    let mut text = String::new();
    for line in &lines {
        for (column, (cell, width)) in line.iter().zip(widths).enumerate() {
            let _ = match column {
                0 | 3 | 6 => write!(text, "{cell:width$}  "),
                _ => write!(text, "{cell:>width$}  "),
            };
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
    text
}

fn cells(row: &Row) -> [String; 7] {
    [
        row.name.clone(),
        figure(row.ours),
        row.ours.p99_ns().map(time).unwrap_or_default(),
        row.peer.clone(),
        figure(row.theirs),
        number(row.ratio()),
        target(row),
    ]
}

fn target(row: &Row) -> String {
    let Some(target) = row.target else { return String::new() };
    let sign = match target {
        Target::AtMost(_) => "≤",
        Target::AtLeast(_) => "≥",
    };
    let verdict = if row.met() == Some(true) { "met" } else { "missed" };
    format!("{sign} {} {verdict}", target.value())
}

fn figure(figure: Figure) -> String {
    match figure {
        Figure::Time(timing) => time(timing.p50_ns),
        Figure::Tail(timing) => format!("{} (p99)", time(timing.p99_ns)),
        Figure::Factor { factor, .. } => format!("{factor:.2}x"),
        Figure::Bytes(bytes) => format!("{:.1} KiB", bytes / 1024.0),
        Figure::Rate(per_second) => format!("{per_second:.0}/s"),
    }
}

fn time(ns: f64) -> String {
    match ns {
        ns if ns < 1e3 => format!("{ns:.0} ns"),
        ns if ns < 1e5 => format!("{:.2} us", ns / 1e3),
        ns if ns < 1e6 => format!("{:.0} us", ns / 1e3),
        ns => format!("{:.2} ms", ns / 1e6),
    }
}

/// Two digits that mean something.
pub(crate) fn number(value: f64) -> String {
    match value {
        value if value < 0.1 => format!("{value:.3}"),
        value if value < 10.0 => format!("{value:.2}"),
        value => format!("{value:.0}"),
    }
}

/// For programs.
pub(crate) fn json(rows: &[Row]) -> Result<String> {
    let rows: Vec<_> = rows
        .iter()
        .map(|row| {
            json!({
                "name": row.name,
                "ours_ns": row.ours.ns(),
                "peer": row.peer,
                "peer_ns": row.theirs.ns(),
                "ratio": row.ratio(),
                "target": row.target.map(Target::value),
                "met": row.met(),
                "better": match row.target {
                    Some(Target::AtLeast(_)) => "higher",
                    _ => "lower",
                },
                "ours_p99_ns": row.ours.p99_ns(),
                "peer_p99_ns": row.theirs.p99_ns(),
                "ours": row.ours.value(),
                "peer_value": row.theirs.value(),
                "unit": match row.ours {
                    Figure::Time(_) | Figure::Tail(_) => "ns",
                    Figure::Factor { .. } => "factor",
                    Figure::Bytes(_) => "bytes",
                    Figure::Rate(_) => "per second",
                },
            })
        })
        .collect();
    Ok(serde_json::to_string_pretty(&rows)? + "\n")
}

/// The page `docs/benchmarks.md`.
pub(crate) fn markdown(rows: &[Row], machine: &Machine, args: &Args, plot: &str) -> String {
    let mut page = String::from(INTRODUCTION);
    let _ = writeln!(page, "\n![Ratios and targets]({plot})");
    let (aimed, other): (Vec<&Row>, Vec<&Row>) = rows.iter().partition(|row| row.target.is_some());
    page.push_str("\n## Rows with a target\n\n");
    table(&mut page, &aimed);
    page.push_str("\n## Other rows\n\n");
    table(&mut page, &other);
    page.push_str("\n## The machine\n\n| fact | value |\n|---|---|\n");
    for (name, value) in &machine.facts {
        let _ = writeln!(page, "| {name} | {value} |");
    }
    let _ = writeln!(page, "| rounds | {}{} |", args.rounds, if args.quick { ", quick" } else { "" });
    page.push_str(METHOD);
    page
}

fn table(page: &mut String, rows: &[&Row]) {
    let _ = writeln!(page, "| {} |\n|---|--:|--:|---|--:|--:|---|", HEADER.join(" | "));
    for row in rows {
        let _ = writeln!(page, "| {} |", cells(row).join(" | "));
    }
}

const INTRODUCTION: &str = "# Benchmarks

Written by `cargo xtask bench`; change the program, not this page. Read the ratios, Cardan's figure divided
by the peer's: both were measured in the same process and in turn, so they carry over to other machines
better than the times. The peer is the `extism` crate 1.41.0 with the same guest, unless a row says
otherwise.
";

const METHOD: &str = "
## How it is measured

- **Sides.** Both get the same guest bytes from `guests/prebuilt`, made with the real `extism-pdk`. The peer
  has no WASI, no log, no timeout and no HTTP, Cardan its default limits; both return the output as a `Vec`.
- **Turns.** All variants of a job are measured in rounds, in another order each time. A figure is the median
  of the best round; p99 is over all rounds, disturbance by other processes included. What reading the clock
  costs is taken off.
- **Reused and shared** keep an instance from call to call, so that guests see what earlier calls left. *Own*
  is the same with the instance in the caller's hands. **Fresh** is what every call finds by default: an
  instance no guest can tell from a new one, since it was put back to its beginning after the call before
  (`docs/adr/0007-rewind.md`); putting it back is in the figure. **New** is an instance for each call, made and
  thrown away within the measured time; of the peer, `Plugin::new_from_compiled` and a call.
- **Ready** is the part of a fresh call that a caller waits for where the nursery keeps instances ready: putting
  them back is its work. Calls come in bursts of 16, and between them the measurement waits until that many
  are ready.
- **Two threads.** The figure is how much more two threads do than one; the ratio is that to native code
  doing the same edit. Where `sched_autogroup` is on, run it in a raised scheduler group, or other people's
  processes decide the result.
- **Neighbours.** One plugin reads a key again and again, a millisecond between two calls, on a runtime of two threads,
  where another one uses up what it can, in so many calls at once, each to its deadline of 100 ms. What counts is p99 beside it and
  alone. With four calls at once the processors are saturated, and what is left are the operating system's own turns.
- **Conventions.** SMG's middleware runs beside the crate `smg-wasm`, which makes an instance for each request. What
  CortexPrism's documents promise are bare figures, for machines that they do not name.
- **Load.** *Compiling* starts with an empty cache directory. Each side uses its own cache on disk.
- **Memory** is the growth of `RssAnon` over 50 different plugins, each called once, in a process for each
  side, with filled compile caches.
- **Gateway** is requests per second over loopback, the load generator and the upstream on the same
  processors.
- **Build.** Both sides are compiled by this package's release profile: no link-time optimisation.
";
