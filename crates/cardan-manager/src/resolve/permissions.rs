//! Names of permissions, ours and other systems'.

use std::collections::BTreeSet;

use cardan_api::Capability;
use cardan_api::address::AddressRange;
use glob::Pattern;

use super::Warning;

/// What nobody needs to ask for: an operator can switch it off all the same.
const UNASKED: [Capability; 6] = [
    Capability::Log,
    Capability::Clock,
    Capability::Random,
    Capability::Vars,
    Capability::Wasi,
    Capability::HostFunctions,
];

/// What a manifest asks for that lists these.
pub(super) fn requested(listed: impl IntoIterator<Item = Capability>) -> BTreeSet<Capability> {
    listed.into_iter().chain(UNASKED).collect()
}

/// What HeliosProxy calls so, in any letter case. `None` for permissions of somebody's own.
pub(super) fn helios(name: &str) -> Option<&'static [Capability]> {
    Some(match name.to_ascii_lowercase().as_str() {
        "query_execute" | "query" => &[Capability::SqlRead, Capability::SqlWrite],
        "cache_read" => &[Capability::CacheRead],
        "cache_write" => &[Capability::CacheWrite],
        "http_fetch" | "http" | "http_post" | "network" => &[Capability::Http],
        "crypto" | "cryptography" => &[Capability::Random],
        "kv_read" => &[Capability::KvRead],
        "kv_write" => &[Capability::KvWrite],
        "metrics" | "metric_inc" => &[Capability::Metrics],
        // A plugin's own configuration is always there.
        "config_read" | "config" => &[],
        "filesystem_read" | "fs_read" => &[Capability::FilesRead],
        "filesystem_write" | "fs_write" => &[Capability::FilesWrite],
        _ => return None,
    })
}

/// What CortexPrism calls so. `None` for what there is no way to grant.
pub(super) fn cortex(name: &str) -> Option<&'static [Capability]> {
    Some(match name {
        "network:fetch" | "net:outbound" => &[Capability::Http],
        "fs:read" | "fs:list" | "fs:search" => &[Capability::FilesRead],
        "fs:write" | "fs:edit" | "fs:delete" => &[Capability::FilesWrite],
        "db:read" => &[Capability::SqlRead],
        "db:write" => &[Capability::SqlWrite],
        _ => return None,
    })
}

/// The granted hosts that a plugin also asks for. Where one pattern is within the other, it is the narrower;
/// two that only overlap have no pattern for what they share, and give nothing.
pub(super) fn narrowed(granted: &[String], asked: &[String]) -> (Vec<String>, Vec<Warning>) {
    let (mut hosts, mut warnings) = (Vec::new(), Vec::new());
    for grant in granted {
        let shared = asked.iter().filter_map(|ask| match (within(ask, grant), within(grant, ask)) {
            (true, _) if ask.eq_ignore_ascii_case(grant) => Some(grant.clone()),
            (true, _) => Some(unnamed(ask)),
            (false, true) => Some(grant.clone()),
            (false, false) => None,
        });
        let before = hosts.len();
        hosts.extend(shared);
        if hosts.len() == before {
            warnings.push(Warning(format!(
                "grants.http: {grant:?} is not among the hosts its manifest asks for ({}), and counts for nothing",
                asked.join(", ")
            )));
        }
    }
    hosts.dedup();
    (hosts, warnings)
}

/// A pattern for the same hosts that names none as its address. An operator who names a private address has granted
/// it; one who writes a star has not, whatever a manifest makes of it.
fn unnamed(host: &str) -> String {
    let is_address = host.eq_ignore_ascii_case("localhost") || host.parse::<AddressRange>().is_ok();
    match host.chars().next() {
        Some(first) if is_address => format!("[{first}]{}", &host[first.len_utf8()..]),
        _ => host.to_owned(),
    }
}

/// Whether everything that `inner` matches, `outer` does. Says no where it takes more than stars to tell.
fn within(inner: &str, outer: &str) -> bool {
    let plain = |text: &str| !text.contains(['?', '[', ']']);
    let (inner, outer) = (inner.to_ascii_lowercase(), outer.to_ascii_lowercase());
    inner == outer
        || (plain(&inner)
            && plain(&outer)
            && Pattern::new(&outer).is_ok_and(|pattern| pattern.matches(&inner)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_that_are_granted_and_asked_for() {
        #[track_caller]
        fn check(granted: &[&str], asked: &[&str], hosts: &[&str], told: usize) {
            let owned = |texts: &[&str]| texts.iter().map(ToString::to_string).collect::<Vec<_>>();
            let (found, warnings) = narrowed(&owned(granted), &owned(asked));
            assert_eq!((found, warnings.len()), (owned(hosts), told), "{granted:?} {asked:?}");
        }
        check(&["*"], &["auth.internal"], &["auth.internal"], 0);
        check(&["*"], &["127.0.0.1", "localhost", "a.*"], &["[1]27.0.0.1", "[l]ocalhost", "a.*"], 0);
        check(&["auth.internal"], &["*"], &["auth.internal"], 0);
        check(&["*.internal"], &["auth.internal", "kv.internal"], &["auth.internal", "kv.internal"], 0);
        check(&["Auth.internal"], &["auth.INTERNAL"], &["Auth.internal"], 0);
        check(&["a.example"], &["b.example"], &[], 1);
        check(&["*.internal"], &["auth.*"], &[], 1);
        check(&["auth.?"], &["auth.*"], &[], 1);
        check(&["auth.?"], &["auth.?"], &["auth.?"], 0);
        check(&["*"], &[], &[], 1);
        check(&[], &["*"], &[], 0);
    }
}
