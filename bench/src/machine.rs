//! What the figures were measured on.

use std::fs;
use std::process::Command;

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
            ("swap devices", if no_swap_device() { "none".to_owned() } else { "some".to_owned() }),
            ("memory.swap.max of the control group", swap_max()),
            ("reset of pool slots", reset().to_owned()),
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

fn no_swap_device() -> bool {
    fs::read_to_string("/proc/swaps")
        .is_ok_and(|swaps| swaps.lines().skip(1).all(|line| line.trim().is_empty()))
}

fn swap_max() -> String {
    let groups = read("/proc/self/cgroup");
    let own = groups.lines().find_map(|line| line.strip_prefix("0::/"));
    let limit = own.and_then(|own| fs::read_to_string(format!("/sys/fs/cgroup/{own}/memory.swap.max")).ok());
    limit.map_or_else(|| "not to be had".to_owned(), |limit| limit.trim().to_owned())
}

/// The rule of the crate `cardan`, `engine/kernel_features.rs`, as seen from outside.
fn reset() -> &'static str {
    if no_swap_device() && swap_max() == "0" {
        "only pages that were written (pagemap scan): nothing can be swapped out here"
    } else {
        "everything up to 2 MiB (memset): pages could be swapped out here"
    }
}
