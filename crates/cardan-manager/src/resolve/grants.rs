//! What an operator lets a plugin reach.

use std::collections::BTreeMap;
use std::path::Path;

use cardan_api::Capability;
use cardan_api::manifest::GrantsEntry;
use glob::Pattern;

use super::Warning;

pub(super) fn resolve_hosts(grants: &GrantsEntry) -> Result<Vec<String>, String> {
    for (i, host) in grants.http.iter().enumerate() {
        Pattern::new(host).map_err(|error| format!("grants.http[{i}]: {host:?} is no pattern: {error}"))?;
        if host.contains(['/', ':']) && !host.starts_with('[') {
            return Err(format!(
                "grants.http[{i}]: {host:?} is more than a host; leave out scheme, port and path"
            ));
        }
    }
    Ok(grants.http.clone())
}

pub(super) fn resolve_files(grants: &GrantsEntry, base: &Path) -> BTreeMap<String, String> {
    grants.files.iter().map(|(host, guest)| (based(host, base), guest.clone())).collect()
}

/// A granted directory, relative to the configuration file like everything in it.
fn based(host: &str, base: &Path) -> String {
    let (mark, path) = host.strip_prefix("ro:").map_or(("", host), |path| ("ro:", path));
    format!("{mark}{}", base.join(path).display())
}

/// Adds a capability that a foreign configuration grants by its name alone. What cannot be meant by a name
/// comes back as a warning.
pub(super) fn allow(grants: &mut GrantsEntry, capability: Capability) -> Option<Warning> {
    match capability {
        Capability::Http => {
            if grants.http.is_empty() {
                grants.http.push("*".to_owned());
            }
            None
        }
        Capability::FilesRead | Capability::FilesWrite if grants.files.is_empty() => Some(Warning(format!(
            "{capability} is granted without saying which directories; name them in its table, as grants.files"
        ))),
        _ => None,
    }
}
