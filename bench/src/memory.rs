//! Anonymous memory of loaded and called plugins.
//!
//! Each side is measured in a process of its own, since what an allocator keeps of an earlier load would
//! hide what a later one costs. Both start with a filled compile cache: what compiling leaves behind is
//! not a plugin's.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use cardan::InstanceMode;

use crate::args::{Args, MemoryProbe};
use crate::row::{Figure, Row, Target};
use crate::{ours, payload, peer};

/// Plugins loaded and called before measuring begins, for what is made once.
const WARM_UP: usize = 2;

pub(crate) fn rows(args: &Args) -> Result<Vec<Row>> {
    let count = if args.quick { 10 } else { 50 };
    let dir = tempfile::tempdir()?;
    let measure = |side: &str| -> Result<Usage> {
        // The first run fills the cache.
        let guest = args.guest_path("json-edit");
        spawn(side, dir.path(), &guest, count)?;
        spawn(side, dir.path(), &guest, count)
    };
    let (ours, theirs) = (measure("ours")?, measure("peer")?);
    let row = |name: &str, ours: f64, theirs: f64, target: Option<f64>| Row {
        name: name.to_owned(),
        peer: "extism".to_owned(),
        ours: Figure::Bytes(ours),
        theirs: Figure::Bytes(theirs),
        target: target.map(Target::AtMost),
    };
    Ok(vec![
        row("anonymous memory per called plugin, json-edit", ours.called, theirs.called, Some(0.1)),
        row("anonymous memory per loaded plugin, json-edit", ours.loaded, theirs.loaded, None),
        row("resident memory per called plugin, json-edit", ours.resident, theirs.resident, None),
    ])
}

/// Resident bytes for each plugin with a tool `transform`, called once.
pub(crate) fn tool(args: &Args, guest: &str) -> Result<f64> {
    let (dir, guest) = (tempfile::tempdir()?, args.guest_path(guest));
    let count = if args.quick { 10 } else { 50 };
    spawn("tool", dir.path(), &guest, count)?;
    Ok(spawn("tool", dir.path(), &guest, count)?.resident)
}

/// Bytes for each plugin.
struct Usage {
    loaded: f64,
    called: f64,
    /// With what is mapped from files, which the kernel can take back.
    resident: f64,
}

fn spawn(side: &str, cache: &Path, guest: &Path, count: usize) -> Result<Usage> {
    let output = Command::new(std::env::current_exe()?)
        .arg("--memory-probe")
        .arg(side)
        .arg(cache)
        .arg(guest)
        .arg(count.to_string())
        .output()?;
    ensure!(output.status.success(), "{side}: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout)?;
    let numbers: Vec<f64> = text.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
    let [loaded, called, resident] = numbers[..] else { bail!("{side}: unexpected answer {text:?}") };
    Ok(Usage { loaded, called, resident })
}

/// The child process: loads and calls plugins, and answers with bytes per plugin.
pub(crate) fn probe(probe: &MemoryProbe) -> Result<String> {
    let guest = std::fs::read(&probe.guest)?;
    let input = payload::chat(1 << 10);
    let different = |index: usize| with_custom_section(&guest, index);
    let count = probe.count;
    let usage = match probe.side.as_str() {
        "ours" => {
            let engine = ours::engine(&probe.cache.join("ours"))?;
            grow(
                count,
                |index| ours::load(&engine, &different(index), InstanceMode::Fresh),
                |plugin| Ok(plugin.call("edit", &input)?),
            )?
        }
        "tool" => {
            let engine = ours::engine(&probe.cache.join("ours"))?;
            let input = br#"{"text":"hello","mode":"uppercase"}"#;
            grow(
                count,
                |index| ours::load(&engine, &different(index), InstanceMode::Fresh),
                |plugin| Ok(plugin.call("transform", input)?),
            )?
        }
        "peer" => {
            let config = peer::cache_config(&probe.cache.join("peer"))?;
            grow(
                count,
                |index| extism::Plugin::new_from_compiled(&peer::compile_cached(&different(index), &config)?),
                |plugin| peer::call(plugin, "edit", &input),
            )?
        }
        other => bail!("no side {other}"),
    };
    Ok(format!("{} {} {}", usage.loaded, usage.called, usage.resident))
}

fn grow<P>(
    count: usize,
    load: impl Fn(usize) -> Result<P>,
    call: impl Fn(&mut P) -> Result<Vec<u8>>,
) -> Result<Usage> {
    let mut plugins = Vec::with_capacity(WARM_UP + 2 * count);
    let mut add = |from: usize, count: usize, called: bool| -> Result<[f64; 2]> {
        let before = [status("RssAnon")?, status("VmRSS")?];
        for index in from..from + count {
            let mut plugin = load(index)?;
            if called {
                call(&mut plugin)?;
            }
            plugins.push(plugin);
        }
        let each = |field, before| anyhow::Ok((status(field)? - before) / count as f64);
        Ok([each("RssAnon", before[0])?, each("VmRSS", before[1])?])
    };
    add(0, WARM_UP, true)?;
    let [called, resident] = add(WARM_UP, count, true)?;
    let [loaded, _] = add(WARM_UP + count, count, false)?;
    Ok(Usage { loaded, called, resident })
}

/// The module with a custom section that makes it another one.
fn with_custom_section(wasm: &[u8], index: usize) -> Vec<u8> {
    let mut different = wasm.to_vec();
    let content = index.to_le_bytes();
    different.extend([0, 6 + content.len() as u8, 5]);
    different.extend(b"bench");
    different.extend(content);
    different
}

/// Bytes of one kind of memory this process has.
fn status(field: &str) -> Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    let kib =
        line.and_then(|line| line.split_whitespace().next()).context("no such field in /proc/self/status")?;
    Ok(kib.parse::<f64>()? * 1024.0)
}
