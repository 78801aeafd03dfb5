//! What the figures were measured on.

use std::fs;
use std::process::Command;

use crate::ours;

/// What matters of a machine, in words.
pub(crate) struct Machine {
    /// Name and value of each fact.
    pub(crate) facts: Vec<(&'static str, String)>,
}

impl Machine {
    pub(crate) fn look() -> Self {
        let facts = vec![
            ("processor", processor()),
            ("memory", memory()),
            ("kernel", read("/proc/sys/kernel/osrelease")),
            ("compiler", rustc()),
            ("load average at the start", read("/proc/loadavg")),
            ("fresh instances", fresh_instances().to_owned()),
            ("scheduler group", read("/proc/self/autogroup")),
        ];
        Self { facts }
    }
}

fn read(path: &str) -> String {
    fs::read_to_string(path).map_or_else(|_| "unknown".to_owned(), |text| text.trim().to_owned())
}

fn processor() -> String {
    let info = read("/proc/cpuinfo");
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    format!("{}, {cores} hardware threads", model.map_or("unknown", |(_, model)| model))
}

fn memory() -> String {
    let info = read("/proc/meminfo");
    let total = info.lines().find_map(|line| line.strip_prefix("MemTotal:")?.split_whitespace().next());
    let kib = total.and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0);
    format!("{} GiB", kib >> 20)
}

fn rustc() -> String {
    let output = Command::new("rustc").arg("--version").output().ok();
    let version = output.and_then(|output| String::from_utf8(output.stdout).ok());
    version.map_or_else(|| "unknown".to_owned(), |version| version.trim().to_owned())
}

fn fresh_instances() -> &'static str {
    match ours::puts_back() {
        Ok(true) => "put back to their beginning",
        Ok(false) => "made anew: this kernel does not tell which pages were written",
        Err(_) => "unknown",
    }
}
