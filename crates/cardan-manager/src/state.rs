//! What survives a restart: which plugins there are, their versions, and which of them is active.
//!
//! A directory that belongs to one process at a time:
//!
//! - `state.json` says what is active. It is replaced in one step, before the snapshot that it describes
//!   takes effect, so that whenever the process ends, the file describes a set that was complete.
//! - `artifacts/` holds the modules by digest, so that a version can be put back when its file is gone.
//!
//! Configuration is in there, secrets that an operator wrote into it included: nobody else may read it.

use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use cardan_api::{Dialect, InstanceMode};
use serde::{Deserialize, Serialize};

use crate::installed::Declined;
use crate::spec::{Owner, PluginSpec};

/// The format of `state.json`. Later ones are refused, earlier ones converted.
const FORMAT: u32 = 1;
const DOCUMENT: &str = "state.json";
const ARTIFACTS: &str = "artifacts";
const LOCK: &str = "lock";

/// A state directory, held by this process.
#[derive(Debug)]
pub struct StateDir {
    dir: PathBuf,
    /// What `state.json` holds now.
    written: Mutex<String>,
    found: Document,
    /// What could not be loaded again: kept until something takes its place.
    lost: Mutex<Vec<PluginRecord>>,
    _lock: File,
}

/// Why there is no state directory.
#[derive(Debug)]
pub enum StateError {
    /// Another process holds it.
    InUse(PathBuf),
    /// It cannot be made, read or written, or holds what this Cardan cannot read; in words.
    Unusable(String),
}

impl fmt::Display for StateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InUse(dir) => write!(
                f,
                "the state directory {} is in use by another process; give each its own (state: {{dir: ...}})",
                dir.display()
            ),
            Self::Unusable(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for StateError {}

/// All of `state.json`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Document {
    pub(crate) format: u32,
    /// In the order of installation.
    pub(crate) plugins: Vec<PluginRecord>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PluginRecord {
    pub(crate) name: String,
    pub(crate) owner: Owner,
    pub(crate) numbered: u32,
    pub(crate) enabled: bool,
    #[serde(default)]
    pub(crate) declined: Option<Declined>,
    /// The active one first, then those before it, the newest first.
    pub(crate) versions: Vec<VersionRecord>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct VersionRecord {
    pub(crate) number: u32,
    pub(crate) digest: String,
    pub(crate) size_bytes: u64,
    pub(crate) abi: String,
    pub(crate) dialect: Option<Dialect>,
    pub(crate) mode: InstanceMode,
    pub(crate) loaded_at_ms: u64,
    pub(crate) spec: PluginSpec,
}

impl StateDir {
    /// Takes a directory, making it where there is none.
    ///
    /// # Errors
    ///
    /// When it cannot be made or read, another process holds it, or it was written by a later Cardan.
    pub fn open(dir: &Path) -> Result<Self, StateError> {
        let fail = |what: &str, error: io::Error| {
            StateError::Unusable(format!("the state directory {} cannot be {what}: {error}", dir.display()))
        };
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o700);
        builder.create(dir.join(ARTIFACTS)).map_err(|error| fail("made", error))?;
        let lock = private().create(true).truncate(false).write(true).open(dir.join(LOCK));
        let lock = lock.map_err(|error| fail("written", error))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(StateError::InUse(dir.to_owned())),
            Err(TryLockError::Error(error)) => return Err(fail("locked", error)),
        }
        let written = match fs::read_to_string(dir.join(DOCUMENT)) {
            Ok(text) => Some(text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(fail("read", error)),
        };
        let found = match &written {
            Some(written) => read(written, dir)?,
            None => Document::default(),
        };
        let written = Mutex::new(written.unwrap_or_default());
        Ok(Self { dir: dir.to_owned(), written, found, lost: Mutex::default(), _lock: lock })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.dir
    }

    /// What an earlier process left.
    pub(crate) fn found(&self) -> &Document {
        &self.found
    }

    /// Remembers what could not be loaded again.
    pub(crate) fn lose(&self, record: PluginRecord) {
        self.lost.lock().unwrap_or_else(PoisonError::into_inner).push(record);
    }

    /// What was lost of this name. It is remembered until a plugin of this name is written.
    pub(crate) fn lost(&self, name: &str) -> Option<PluginRecord> {
        let lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        lost.iter().find(|record| record.name == name).cloned()
    }

    /// Remembers it no more.
    pub(crate) fn forget(&self, name: &str) {
        self.lost.lock().unwrap_or_else(PoisonError::into_inner).retain(|record| record.name != name);
    }

    /// Writes what is going to be active. Once this returns, a start finds it, whatever happens to this
    /// process or machine. `tried` are digests of modules that are kept beside those of the records.
    pub(crate) fn write(&self, mut plugins: Vec<PluginRecord>, tried: Vec<String>) -> Result<(), String> {
        let lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for lost in lost {
            if !plugins.iter().any(|plugin| plugin.name == lost.name) {
                plugins.push(lost);
            }
        }
        let document = Document { format: FORMAT, plugins };
        let text = serde_json::to_string_pretty(&document).map_err(|error| error.to_string())?;
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        if *written == text {
            return Ok(());
        }
        let new = self.dir.join("state.json.new");
        let replaced = (|| {
            let mut file = private().create(true).truncate(true).write(true).open(&new)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&new, self.dir.join(DOCUMENT))?;
            File::open(&self.dir)?.sync_all()
        })();
        replaced.map_err(|error| {
            format!("{}: {error}; nothing was changed", self.dir.join(DOCUMENT).display())
        })?;
        *written = text;
        self.sweep(&document, &tried);
        Ok(())
    }

    /// Keeps what was loaded from a file, if the file is a single module. Whether it did.
    ///
    /// # Errors
    ///
    /// When it cannot be written, or the file holds something else by now.
    pub(crate) fn keep(&self, source: &Path, digest: &str) -> Result<bool, String> {
        let kept = self.artifact(digest);
        if kept.exists() {
            return Ok(true);
        }
        if cardan::file_digest(source).is_none() {
            return Ok(false);
        }
        let new = kept.with_extension("new");
        let copied = (|| {
            fs::copy(source, &new)?;
            let file = File::open(&new)?;
            file.sync_all()
        })();
        copied.map_err(|error| format!("it cannot be kept in {}: {error}", kept.display()))?;
        if cardan::file_digest(&new).as_deref() != Some(digest) {
            let _ = fs::remove_file(&new);
            return Err("its file was changed while it was read; try again".to_owned());
        }
        let moved = fs::rename(&new, &kept).and_then(|()| File::open(self.dir.join(ARTIFACTS))?.sync_all());
        moved.map_err(|error| format!("it cannot be kept in {}: {error}", kept.display()))?;
        Ok(true)
    }

    /// Keeps an uploaded module. The file that is returned is the source of plugins made of it.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub(crate) fn keep_upload(&self, bytes: &[u8]) -> Result<PathBuf, String> {
        let digest = cardan::digest(bytes).ok_or("it is no WebAssembly module")?;
        let kept = self.artifact(&digest);
        let new = kept.with_extension("new");
        let written = (|| {
            let mut file = private().create(true).truncate(true).write(true).open(&new)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            fs::rename(&new, &kept)?;
            File::open(self.dir.join(ARTIFACTS))?.sync_all()
        })();
        written.map_err(|error| format!("it cannot be kept in {}: {error}", kept.display()))?;
        Ok(kept)
    }

    /// Where the module with this digest is kept, if it is.
    pub(crate) fn artifact(&self, digest: &str) -> PathBuf {
        self.dir.join(ARTIFACTS).join(digest)
    }

    /// Removes what no version needs any more.
    fn sweep(&self, document: &Document, tried: &[String]) {
        let versions = document.plugins.iter().flat_map(|plugin| &plugin.versions);
        let digests = versions.map(|version| &version.digest).chain(tried);
        let needed: Vec<&str> = digests.map(String::as_str).collect();
        let Ok(artifacts) = fs::read_dir(self.dir.join(ARTIFACTS)) else { return };
        for artifact in artifacts.flatten() {
            let name = artifact.file_name();
            let kept = name.to_str().is_some_and(|name| needed.contains(&name));
            if !kept && let Err(error) = fs::remove_file(artifact.path()) {
                tracing::warn!(artifact = %artifact.path().display(), %error, "cannot be removed");
            }
        }
    }
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(0o600);
    options
}

fn read(text: &str, dir: &Path) -> Result<Document, StateError> {
    #[derive(Deserialize)]
    struct Format {
        format: u32,
    }
    let fail = |why: String| {
        let document = dir.join(DOCUMENT);
        StateError::Unusable(format!("{}: {why}; move it away to start without it", document.display()))
    };
    let Format { format } = serde_json::from_str(text).map_err(|error| fail(error.to_string()))?;
    if format > FORMAT {
        return Err(fail(format!("it has the format {format}, and this Cardan knows {FORMAT}")));
    }
    serde_json::from_str(text).map_err(|error| fail(error.to_string()))
}
