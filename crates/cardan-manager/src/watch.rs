//! A folder whose plugins are loaded as they come, and go as they go.
//!
//! Files are replaced in many ways: renamed into place, written slowly, linked through a folder that is
//! swapped. So what the system tells about files is only a reason to look. The folder is looked at as a whole,
//! once nothing has moved in it for a moment, and every so often anyway.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};

use crate::document::{self, Format};
use crate::manager::Manager;
use crate::spec::{Owner, PluginSpec};

/// Nothing has to move for this long before a look.
const QUIET: Duration = Duration::from_millis(150);
/// In a folder where something always moves there is a look after this long.
const RESTLESS_MAX: Duration = Duration::from_secs(2);
/// A look that nobody asked for: some file systems tell nothing.
const PACE: Duration = Duration::from_secs(5);
/// How long a file has to be missing before its plugin goes. Some tools replace a file by removing it first,
/// and a guard must not stand open meanwhile.
const MISSING_MAX: Duration = Duration::from_secs(1);
/// How long what could not be loaded is left alone, at first and at most.
const RETRY_MIN: Duration = Duration::from_secs(10);
const RETRY_MAX: Duration = Duration::from_secs(600);

/// What a look at the folder finds.
#[derive(Debug, Clone, Default)]
pub struct Scan {
    /// Plugins that can be read, in the order of installation.
    pub specs: Vec<PluginSpec>,
    /// Files that cannot be meant, and why. Whoever was loaded from them before stays.
    pub problems: Vec<(PathBuf, String)>,
}

/// Looks at a folder. Called on a thread of its own; it may block.
pub type Look = dyn Fn(&Path) -> Scan + Send + Sync;

/// A folder that is watched until this is dropped.
#[derive(Debug)]
pub struct FolderWatch {
    /// The ends of these two end the thread.
    stop: Option<Sender<()>>,
    watcher: Option<RecommendedWatcher>,
    thread: Option<JoinHandle<()>>,
    problems: Arc<Mutex<Vec<(PathBuf, String)>>>,
}

impl FolderWatch {
    /// Loads what is in the folder, and watches it from then on. Returns after the first look.
    pub fn start(manager: Manager, folder: PathBuf, look: Arc<Look>) -> Self {
        let (stop, signals) = channel();
        let wake = stop.clone();
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // Looking is reading, which is an event too.
            if !event.is_ok_and(|event| event.kind.is_access()) {
                // The thread has ended, or is ending.
                let _ = wake.send(());
            }
        });
        let watcher = watcher.and_then(|mut watcher| {
            watcher.watch(&folder, RecursiveMode::Recursive)?;
            Ok(watcher)
        });
        if let Err(error) = &watcher {
            let folder = folder.display();
            tracing::warn!(%folder, %error, "the folder is looked at every {PACE:?}: it cannot be watched");
        }
        let problems = Arc::<Mutex<Vec<_>>>::default();
        let mut watched = Watched {
            manager,
            folder,
            look,
            missing: HashMap::new(),
            problems: problems.clone(),
            tried: HashMap::new(),
        };
        // Somebody asked for this one, so what it does not name goes at once.
        watched.look(Duration::ZERO);
        let spawned =
            std::thread::Builder::new().name("cardan-folder".to_owned()).spawn(move || watched.run(&signals));
        if let Err(error) = &spawned {
            tracing::error!(%error, "the folder of plugins is not watched: there is no thread for it");
        }
        Self { stop: Some(stop), watcher: watcher.ok(), thread: spawned.ok(), problems }
    }

    /// What could not be meant at the last look.
    pub fn problems(&self) -> Vec<(PathBuf, String)> {
        self.problems.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Waits for a look that is under way: what follows must not be undone by it.
impl Drop for FolderWatch {
    fn drop(&mut self) {
        self.watcher = None;
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Watched {
    manager: Manager,
    folder: PathBuf,
    look: Arc<Look>,
    /// Names whose files are missing, and since when.
    missing: HashMap<String, Instant>,
    problems: Arc<Mutex<Vec<(PathBuf, String)>>>,
    /// What each name was last made of, or could not be made of.
    tried: HashMap<String, Tried>,
}

/// What a name was last made of.
struct Tried {
    spec: PluginSpec,
    stamps: Vec<Stamp>,
    /// When it failed, and how long it is left alone after that.
    failed: Option<(Instant, Duration)>,
}

/// What changes when a file does: its inode, length and time of change.
type Stamp = Option<(u64, u64, i64, i64)>;

fn stamp(file: &Path) -> Stamp {
    let found = std::fs::metadata(file).ok()?;
    Some((found.ino(), found.len(), found.ctime(), found.ctime_nsec()))
}

/// Of a plugin's source, and where that is an Extism manifest also of the modules that it names, in whatever
/// folder they are.
fn stamps(source: &Path) -> Vec<Stamp> {
    let ending = source.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
    let is_document = Format::ENDINGS.iter().any(|known| ending.eq_ignore_ascii_case(known));
    let text = is_document.then(|| document::read(source).ok()).flatten().unwrap_or_default();
    // The runtime takes either form whatever the file is called.
    let parsed = [Format::Toml, Format::Json]
        .into_iter()
        .find_map(|format| document::parse::<cardan::Manifest>(&text, format).ok().flatten());
    let modules = parsed.into_iter().flat_map(|manifest| manifest.wasm).filter_map(|entry| entry.path);
    std::iter::once(stamp(source)).chain(modules.map(|module| stamp(&module))).collect()
}

impl Watched {
    fn run(&mut self, signals: &Receiver<()>) {
        loop {
            let patience = if self.missing.is_empty() { PACE } else { MISSING_MAX };
            match signals.recv_timeout(patience) {
                Ok(()) => match wait_for_quiet(signals) {
                    Ok(()) => self.look(MISSING_MAX),
                    Err(Ended) => return,
                },
                Err(RecvTimeoutError::Timeout) => self.look(MISSING_MAX),
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// `patience`: how long a plugin has to be missing before it goes.
    fn look(&mut self, patience: Duration) {
        let Scan { specs, problems } = (self.look)(&self.folder);
        for spec in &specs {
            let spec = PluginSpec { owner: Owner::Folder, ..spec.clone() };
            self.load(spec);
        }
        self.forget_missing(&specs, &problems, patience);
        let mut known = self.problems.lock().unwrap_or_else(PoisonError::into_inner);
        for (path, why) in problems.iter().filter(|problem| !known.contains(problem)) {
            tracing::warn!(file = %path.display(), why, "no plugin");
        }
        *known = problems;
    }

    /// Loads what was not loaded as it is now. What could not be is tried again, later and later: the reason
    /// may have been a full disk.
    fn load(&mut self, spec: PluginSpec) {
        let stamps = stamps(&spec.source);
        let before = self.tried.get(&spec.name).filter(|tried| tried.spec == spec && tried.stamps == stamps);
        let pause = match before {
            Some(Tried { failed: None, .. }) => return,
            Some(Tried { failed: Some((at, pause)), .. }) if at.elapsed() < *pause => return,
            Some(Tried { failed: Some((_, pause)), .. }) => (*pause * 2).min(RETRY_MAX),
            None => RETRY_MIN,
        };
        let failed = self.manager.replace(&spec).err().map(|error| {
            tracing::warn!(plugin = spec.name, %error, "not loaded from the folder of plugins");
            (Instant::now(), pause)
        });
        self.tried.insert(spec.name.clone(), Tried { spec, stamps, failed });
    }

    fn forget_missing(&mut self, specs: &[PluginSpec], problems: &[(PathBuf, String)], patience: Duration) {
        let snapshot = self.manager.snapshot();
        let gone = snapshot.plugins.iter().map(|plugin| plugin.spec()).filter(|spec| {
            spec.owner == Owner::Folder
                && !specs.iter().any(|found| found.name == spec.name)
                && !problems.iter().any(|(path, _)| is_about(path, spec))
        });
        let mut missing = HashMap::new();
        for spec in gone {
            let since = self.missing.get(&spec.name).copied().unwrap_or_else(Instant::now);
            if since.elapsed() < patience {
                missing.insert(spec.name.clone(), since);
                continue;
            }
            self.tried.remove(&spec.name);
            if let Err(error) = self.manager.forget(&spec.name) {
                tracing::warn!(plugin = spec.name, %error, "its file is gone and it is not");
            }
        }
        self.missing = missing;
    }
}

/// Whether what is wrong with a file is why a look does not find this plugin. A folder that cannot be looked
/// into says nothing about what is in it.
pub(crate) fn is_about(file: &Path, spec: &PluginSpec) -> bool {
    let is_folder = spec.source != file && spec.source.starts_with(file);
    let same_stem = file.with_extension("") == spec.source.with_extension("");
    is_folder || (spec.source.exists() && (same_stem || spec.manifest.as_deref() == Some(file)))
}

/// The watch was dropped.
struct Ended;

fn wait_for_quiet(signals: &Receiver<()>) -> Result<(), Ended> {
    let began = Instant::now();
    while began.elapsed() < RESTLESS_MAX {
        match signals.recv_timeout(QUIET) {
            Ok(()) => {}
            Err(RecvTimeoutError::Timeout) => break,
            Err(RecvTimeoutError::Disconnected) => return Err(Ended),
        }
    }
    Ok(())
}
