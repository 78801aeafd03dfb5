//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

pub(crate) const USAGE: &str = "\
Measures Cardan beside its peers and prints the table.

cardan-bench [OPTIONS] [PART...]

  PART             calls, scaling, load, life, neighbours, memory, conventions, gateway; all by default
  --rows TEXT      report only rows whose name contains TEXT
  --rounds N       how often each variant has its turn (default 8)
  --spin JOB/VAR   for a profiler: only repeat one variant for 5 s, as in: echo 1 KB/fresh
  --quick          a smoke run: few and short turns, figures mean little
  --guests DIR     directory of the prebuilt guests (default: found from here)
  --cardan FILE    the `cardan` binary for the gateway row (default: target/release/cardan)
  --go FILE        the Go compiler, for the rows about a large module
  --json FILE      write the rows as JSON
  --markdown FILE  write the table with a description of the machine, and a plot beside it (.svg)";

#[derive(Debug)]
pub(crate) enum Task {
    Help,
    Measure,
    /// Repeats one variant of one job.
    Spin {
        job: String,
        variant: String,
    },
    /// Internal: one side of the memory row, in a process of its own.
    MemoryProbe(MemoryProbe),
}

/// What a child process measures for the memory row.
#[derive(Debug)]
pub(crate) struct MemoryProbe {
    pub(crate) side: String,
    pub(crate) cache: PathBuf,
    pub(crate) guest: PathBuf,
    pub(crate) count: usize,
}

#[derive(Debug)]
pub(crate) struct Args {
    pub(crate) task: Task,
    pub(crate) parts: Vec<String>,
    pub(crate) rows: Option<String>,
    pub(crate) rounds: usize,
    pub(crate) quick: bool,
    pub(crate) guests: PathBuf,
    pub(crate) cardan: PathBuf,
    pub(crate) go: Option<PathBuf>,
    pub(crate) json: Option<PathBuf>,
    pub(crate) markdown: Option<PathBuf>,
}

impl Args {
    pub(crate) fn parse(mut given: impl Iterator<Item = String>) -> Result<Self> {
        let root = repository();
        let mut args = Self {
            task: Task::Measure,
            parts: Vec::new(),
            rows: None,
            rounds: 0,
            quick: false,
            guests: root.join("guests/prebuilt"),
            cardan: root.join("target/release/cardan"),
            go: None,
            json: None,
            markdown: None,
        };
        while let Some(arg) = given.next() {
            let mut value = || given.next().with_context(|| format!("{arg} wants a value; see --help"));
            match arg.as_str() {
                "-h" | "--help" => args.task = Task::Help,
                "--quick" => args.quick = true,
                "--spin" => {
                    let value = value()?;
                    let (job, variant) = value.split_once('/').context("--spin wants JOB/VARIANT")?;
                    args.task = Task::Spin { job: job.to_owned(), variant: variant.to_owned() };
                }
                "--rows" => args.rows = Some(value()?),
                "--rounds" => args.rounds = value()?.parse().context("--rounds wants a number")?,
                "--guests" => args.guests = value()?.into(),
                "--cardan" => args.cardan = value()?.into(),
                "--go" => args.go = Some(value()?.into()),
                "--json" => args.json = Some(value()?.into()),
                "--markdown" => args.markdown = Some(value()?.into()),
                "--memory-probe" => {
                    args.task = Task::MemoryProbe(MemoryProbe {
                        side: value()?,
                        cache: value()?.into(),
                        guest: value()?.into(),
                        count: value()?.parse()?,
                    });
                }
                other if other.starts_with('-') => bail!("no option {other}; see --help"),
                part if crate::PARTS.iter().any(|known| known.name == part) => args.parts.push(arg),
                other => bail!("no part {other}; see --help"),
            }
        }
        if args.rounds == 0 {
            args.rounds = if args.quick { 2 } else { 8 };
        }
        Ok(args)
    }

    pub(crate) fn wants_part(&self, name: &str) -> bool {
        self.parts.is_empty() || self.parts.iter().any(|part| part == name)
    }

    pub(crate) fn wants_row(&self, name: &str) -> bool {
        self.rows.as_ref().is_none_or(|text| name.contains(text.as_str()))
    }

    /// How long one variant measures before it is the next one's turn.
    pub(crate) fn turn(&self) -> Duration {
        Duration::from_millis(if self.quick { 15 } else { 80 })
    }

    /// The bytes of a prebuilt guest.
    pub(crate) fn guest(&self, name: &str) -> Result<Vec<u8>> {
        let path = self.guest_path(name);
        std::fs::read(&path)
            .with_context(|| format!("{}: run from the repository, or name --guests", path.display()))
    }

    pub(crate) fn guest_path(&self, name: &str) -> PathBuf {
        self.guests.join(format!("{name}.wasm"))
    }
}

/// The repository's root: the nearest directory upwards that has guests.
fn repository() -> PathBuf {
    let here = std::env::current_dir().unwrap_or_default();
    let root = here.ancestors().find(|dir| dir.join("guests/prebuilt").is_dir());
    root.map(PathBuf::from).unwrap_or_default()
}
