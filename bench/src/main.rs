//! Measures Cardan beside its peers.
//!
//! Everything that is compared runs in one process and in turn, so that what else the machine does falls
//! on all alike, and what is reported are ratios. Nothing here fails because a target was missed.
//! `docs/benchmarks.md` is written by this program.

mod args;
mod calls;
mod contest;
mod conventions;
mod gateway;
mod life;
mod load;
mod machine;
mod memory;
mod native;
mod neighbours;
mod ours;
mod payload;
mod peer;
mod plot;
mod report;
mod row;
mod scaling;

use std::process::ExitCode;

use anyhow::{Context as _, Result};

use args::{Args, Task};
use row::Row;

fn main() -> ExitCode {
    match Args::parse(std::env::args().skip(1)).and_then(|args| run(&args)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cardan-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<()> {
    match &args.task {
        Task::Help => println!("{}", args::USAGE),
        Task::MemoryProbe(probe) => println!("{}", memory::probe(probe)?),
        Task::Spin { job, variant } => calls::spin(args, job, variant)?,
        Task::Measure => measure(args)?,
    }
    Ok(())
}

/// A part of the table: rows that are measured together.
struct Part {
    name: &'static str,
    rows: fn(&Args) -> Result<Vec<Row>>,
}

const PARTS: &[Part] = &[
    Part { name: "calls", rows: calls::rows },
    Part { name: "scaling", rows: scaling::rows },
    Part { name: "load", rows: load::rows },
    Part { name: "life", rows: life::rows },
    Part { name: "neighbours", rows: neighbours::rows },
    Part { name: "memory", rows: memory::rows },
    Part { name: "conventions", rows: conventions::rows },
    Part { name: "gateway", rows: gateway::rows },
];

fn measure(args: &Args) -> Result<()> {
    let before = machine::Machine::look();
    let mut rows = Vec::new();
    for part in PARTS {
        if !args.wants_part(part.name) {
            continue;
        }
        eprintln!("measuring: {}", part.name);
        match (part.rows)(args) {
            Ok(measured) => rows.extend(measured),
            // One part's trouble, such as a gateway that was not built, does not lose the others.
            Err(error) => eprintln!("left out: {}: {error:#}", part.name),
        }
    }
    rows.retain(|row| args.wants_row(&row.name));
    println!("{}", report::text(&rows));
    if let Some(path) = &args.json {
        std::fs::write(path, report::json(&rows)?).with_context(|| path.display().to_string())?;
    }
    if let Some(path) = &args.markdown {
        let plot = path.with_extension("svg");
        std::fs::write(&plot, plot::svg(&rows)).with_context(|| plot.display().to_string())?;
        let name = plot.file_name().unwrap_or_default().to_string_lossy();
        let page = report::markdown(&rows, &before, args, &name);
        std::fs::write(path, page).with_context(|| path.display().to_string())?;
    }
    Ok(())
}
