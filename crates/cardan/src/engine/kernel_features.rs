//! What this machine's kernel allows.

use std::fs;

use wasmtime::Enabled;

use crate::engine::Isolation;

/// Whether pool slots may be cleaned by asking the kernel which pages were written.
///
/// On wasmtime 48 that leaves a swapped-out page as it was, with one guest's bytes in it for the next
/// guest to read (fixed in wasmtime 50, PR 14357). So only where nothing can be swapped out now (no swap
/// device) nor later (the control group may not use any).
pub(super) fn pagemap_scan(isolation: Isolation) -> Enabled {
    match isolation {
        Isolation::Strict => Enabled::No,
        Isolation::Auto if cannot_swap() => Enabled::Auto,
        Isolation::Auto => Enabled::No,
    }
}

fn cannot_swap() -> bool {
    let swaps = fs::read_to_string("/proc/swaps");
    let group = fs::read_to_string("/proc/self/cgroup");
    let (Ok(swaps), Ok(group)) = (swaps, group) else { return false };
    no_swap_device(&swaps) && own_group(&group).is_some_and(group_forbids_swap)
}

fn no_swap_device(swaps: &str) -> bool {
    swaps.lines().skip(1).all(|line| line.trim().is_empty())
}

/// This process's group in the unified hierarchy, which is the one numbered 0.
fn own_group(groups: &str) -> Option<&str> {
    groups.lines().find_map(|line| line.strip_prefix("0::/"))
}

fn group_forbids_swap(group: &str) -> bool {
    let limit = std::path::Path::new("/sys/fs/cgroup").join(group).join("memory.swap.max");
    fs::read_to_string(limit).is_ok_and(|limit| limit.trim() == "0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn swap_devices_are_seen() {
        let header = "Filename\tType\tSize\tUsed\tPriority\n";
        assert!(no_swap_device(header));
        assert!(!no_swap_device(&format!("{header}/swapfile file 65532 0 -2\n")));
        assert_eq!(own_group("4:memory:/a\n0::/b/c\n"), Some("b/c"));
        assert_eq!(own_group("4:memory:/a\n"), None);
    }
}
