//! Where a gateway keeps what survives its end.

use std::fs::DirBuilder;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cardan::Engine;
use cardan_manager::{Lost, Manager, Owner, Restored, StateDir, StateError};

use crate::config::{StateEntry, environment};
use crate::output::Failure;

/// The manager of a gateway, with the plugins that its state directory remembers, but for those to be forgotten.
/// Without what an operator loaded and cannot be loaded any more there is none: it may have been a guard.
pub(crate) fn manager(
    engine: Engine,
    seed: u64,
    state: Option<StateDir>,
    forget: &[String],
) -> Result<Manager, Failure> {
    let Some(state) = state else {
        return Ok(Manager::new(engine, seed));
    };
    let dir = state.path().display().to_string();
    let manager = Manager::with_state(engine, seed, state);
    let Restored { plugins, lost } = manager.restore().map_err(Failure::failed)?;
    tracing::info!(dir, plugins = plugins.join(", "), "state");
    let mut missing = Vec::new();
    for Lost { name, owner, enabled, why } in lost {
        if forget.contains(&name) {
            manager.forget_lost(&name).map_err(Failure::failed)?;
            tracing::warn!(plugin = name, "forgotten");
        } else if owner == Owner::Operator && enabled {
            missing.push(format!(
                "{why}; it was loaded through the admin API and active: mend that, or start with --forget {name} \
                 to go without it"
            ));
        } else {
            tracing::error!(plugin = name, why, "cannot be loaded as it was when this gateway ended");
        }
    }
    if missing.is_empty() { Ok(manager) } else { Err(Failure::unusable(missing.join("\n"))) }
}

/// How often another process's hold on the directory is looked at, and how many times: one that is being
/// replaced by this one may need a moment to end.
const HELD_LOOK: Duration = Duration::from_millis(100);
const HELD_LOOKS: u32 = 50;

/// The state directory of a gateway with this configuration file. One that was asked for has to be there. Where
/// the usual one cannot be made, the gateway runs, and forgets; one that is there has to be usable, or what was
/// done through the admin API, guards included, would be gone without anybody having said so.
pub(crate) fn open(config: &Path, entry: &StateEntry) -> Result<Option<StateDir>, Failure> {
    if let Some(dir) = &entry.dir {
        let dir = config.parent().unwrap_or(Path::new("")).join(dir);
        return hold(&dir).map(Some);
    }
    let Some(dir) = usual(config) else {
        tracing::warn!(
            "no state is kept: set state: {{dir: ...}} or HOME to keep what is done through the admin API"
        );
        return Ok(None);
    };
    if let Err(why) = DirBuilder::new().recursive(true).mode(0o700).create(&dir) {
        let dir = dir.display();
        tracing::warn!(%dir, %why, "no state is kept: what is done through the admin API ends with this process");
        return Ok(None);
    }
    hold(&dir).map(Some)
}

fn hold(dir: &Path) -> Result<StateDir, Failure> {
    for look in 0..HELD_LOOKS {
        match StateDir::open(dir) {
            Err(why @ StateError::InUse(_)) => {
                if look == 0 {
                    tracing::info!(%why, "waiting for it");
                }
                std::thread::sleep(HELD_LOOK);
            }
            done => return done.map_err(Failure::unusable),
        }
    }
    StateDir::open(dir).map_err(Failure::unusable)
}

/// As systemd says, or the place the XDG base directory specification has, with a folder for each
/// configuration file. A pipe has none.
fn usual(config: &Path) -> Option<PathBuf> {
    let absolute = |name| environment(name).map(PathBuf::from).filter(|dir| dir.is_absolute());
    // systemd separates several by colons.
    let systemd =
        environment("STATE_DIRECTORY").and_then(|dirs| Some(PathBuf::from(dirs.split(':').next()?)));
    if let Some(dir) = systemd.filter(|dir| dir.is_absolute()) {
        return Some(dir);
    }
    let base = absolute("XDG_STATE_HOME").or_else(|| Some(absolute("HOME")?.join(".local/state")))?;
    let file = config.canonicalize().ok().filter(|file| file.is_file())?;
    let mut hasher = DefaultHasher::new();
    file.hash(&mut hasher);
    let stem = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    Some(base.join("cardan").join(format!("{stem}-{:016x}", hasher.finish())))
}
