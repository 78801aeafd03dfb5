//! Compiled code on disk, so that a module is compiled once and never again.
//!
//! Beside it stand modules that were rewritten before compiling, where that takes long; they are compiled like any other, and
//! so need no trust.
//!
//! A file's name is the digest of everything its content depends on: the module's own digest, what was done
//! to them before compiling, and the compiling engine's own compatibility hash. What is found under that
//! name is mapped and *executed*, so the directory has to belong to this user alone; that is checked when
//! it is opened, and for each file. `docs/adr/0003-engine-settings.md` says why there is no checksum.
#![expect(unsafe_code, reason = "wasmtime cannot check that a file is code it compiled; this module does")]

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::hash::{BuildHasher as _, Hash, Hasher, RandomState};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use wasmtime::Module;
use wasmtime::component::Component;

use crate::Error;
use crate::module::{derived, hex};

/// What can be kept as compiled code.
pub(crate) trait Compiled: Sized {
    fn serialize(&self) -> wasmtime::Result<Vec<u8>>;

    /// Takes code from a file.
    ///
    /// # Safety
    ///
    /// The file has what [`Compiled::serialize`] returned, and nobody changes it.
    unsafe fn open(engine: &wasmtime::Engine, file: File) -> wasmtime::Result<Self>;
}

impl Compiled for Module {
    fn serialize(&self) -> wasmtime::Result<Vec<u8>> {
        self.serialize()
    }

    unsafe fn open(engine: &wasmtime::Engine, file: File) -> wasmtime::Result<Self> {
        // SAFETY: the caller's.
        unsafe { Self::deserialize_open_file(engine, file) }
    }
}

impl Compiled for Component {
    fn serialize(&self) -> wasmtime::Result<Vec<u8>> {
        self.serialize()
    }

    unsafe fn open(engine: &wasmtime::Engine, file: File) -> wasmtime::Result<Self> {
        let mut code = Vec::new();
        (&file).read_to_end(&mut code)?;
        // SAFETY: the caller's.
        unsafe { Self::deserialize(engine, code) }
    }
}

pub(crate) struct CompileCache {
    dir: PathBuf,
    owner: u32,
}

impl CompileCache {
    /// Opens a cache directory, making it if need be.
    pub(crate) fn open(dir: &Path) -> Result<Self, Error> {
        let fail = |why: String| Error::host(format!("compile cache {}: {why}", dir.display()));
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|error| fail(error.to_string()))?;
        let meta = fs::metadata(dir).map_err(|error| fail(error.to_string()))?;
        if meta.mode() & 0o022 != 0 {
            return Err(fail(
                "other users may write there, and what it holds is executed; run chmod go-w on it, or choose \
                 another directory"
                    .to_owned(),
            ));
        }
        let cache = Self { dir: dir.to_owned(), owner: meta.uid() };
        // A directory of another user's is one that this user could not have written the probe into
        // with its own id.
        let probe =
            cache.write(&cache.dir.join(".probe"), b"").and_then(|()| fs::metadata(dir.join(".probe")));
        match probe {
            Ok(probe) if probe.uid() == cache.owner => Ok(cache),
            Ok(_) => Err(fail("it belongs to another user; choose a directory of your own".to_owned())),
            Err(error) => Err(fail(error.to_string())),
        }
    }

    /// The compiled form, if it is there, of the module with the digest `wasm` after `recipe`.
    pub(crate) fn find(&self, engine: &wasmtime::Engine, wasm: &str, recipe: &str) -> Option<Module> {
        self.read(engine, &self.path(engine, wasm, recipe))
    }

    /// The same, compiled now if need be. Trouble with the cache is logged and never fails a load.
    pub(crate) fn get_or_compile<C: Compiled>(
        &self,
        engine: &wasmtime::Engine,
        wasm: &str,
        recipe: &str,
        compile: impl FnOnce() -> Result<C, String>,
    ) -> Result<C, String> {
        let path = self.path(engine, wasm, recipe);
        if let Some(module) = self.read(engine, &path) {
            return Ok(module);
        }
        let module = compile()?;
        match module.serialize().map_err(io::Error::other).and_then(|code| self.write(&path, &code)) {
            // From the file the code is mapped and shared, so that it costs no memory of this process.
            Ok(()) => Ok(self.read(engine, &path).unwrap_or(module)),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "compiled code was not cached");
                Ok(module)
            }
        }
    }

    /// The module with the digest `wasm` after `recipe`, which is still a module, rewritten now if need be.
    pub(crate) fn get_or_rewrite(
        &self,
        wasm: &str,
        recipe: &str,
        rewrite: impl FnOnce() -> Result<Vec<u8>, Error>,
    ) -> Result<Vec<u8>, Error> {
        let path = self.dir.join(format!("{}.wasm", derived(wasm, recipe)));
        let kept = self.open_own(&path).and_then(|mut file| {
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes).ok()?;
            let length = bytes.split_off(bytes.len().checked_sub(size_of::<u64>())?);
            // A file that lost its end, say on a full disk, would be blamed on the plugin.
            (length == (bytes.len() as u64).to_le_bytes()).then_some(bytes)
        });
        if let Some(bytes) = kept {
            return Ok(bytes);
        }
        let mut bytes = rewrite()?;
        let length = bytes.len();
        bytes.extend_from_slice(&(length as u64).to_le_bytes());
        if let Err(error) = self.write(&path, &bytes) {
            tracing::warn!(path = %path.display(), %error, "a rewritten module was not cached");
        }
        bytes.truncate(length);
        Ok(bytes)
    }

    fn path(&self, engine: &wasmtime::Engine, wasm: &str, recipe: &str) -> PathBuf {
        struct Feed(Sha256);
        impl Hasher for Feed {
            fn write(&mut self, bytes: &[u8]) {
                self.0.update(bytes);
            }
            fn finish(&self) -> u64 {
                0
            }
        }
        let mut feed = Feed(Sha256::new());
        engine.precompile_compatibility_hash().hash(&mut feed);
        feed.0.update((recipe.len() as u64).to_le_bytes());
        feed.0.update(recipe);
        feed.0.update(wasm);
        self.dir.join(format!("{}.cwasm", hex(&feed.0.finalize())))
    }

    /// A file that nobody else can have written.
    fn open_own(&self, path: &Path) -> Option<File> {
        let file = OpenOptions::new().read(true).custom_flags(NO_FOLLOW).open(path).ok()?;
        let meta = file.metadata().ok()?;
        if meta.uid() != self.owner || meta.mode() & 0o022 != 0 || !meta.is_file() {
            tracing::warn!(path = %path.display(), "compiled code that others may have written is not used");
            return None;
        }
        Some(file)
    }

    fn read<C: Compiled>(&self, engine: &wasmtime::Engine, path: &Path) -> Option<C> {
        let file = self.open_own(path)?;
        // SAFETY: the file lies in a directory, and is itself, writable by this user only, and its name
        // is a digest of what it was compiled from and by; it was written whole, synced and renamed, so
        // it is what serializing the same, for a compatible engine, produced.
        let module = unsafe { C::open(engine, file) };
        match module {
            Ok(module) => Some(module),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "compiled code is not usable, compiling again");
                None
            }
        }
    }

    /// Writes a file so that it appears whole or not at all, also when the machine stops.
    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        // Random: processes in containers share a directory and may all have the same id.
        let unique = format!(".{:016x}.tmp", RandomState::new().hash_one(path));
        let temporary = self.dir.join(unique);
        let written = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temporary)
            .and_then(|mut file: File| {
                file.write_all(bytes)?;
                file.sync_all()
            })
            .and_then(|()| fs::rename(&temporary, path));
        if written.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        written
    }
}

/// `O_NOFOLLOW`: a link in the cache directory is nobody's compiled code.
#[cfg(target_os = "linux")]
const NO_FOLLOW: i32 = 0o400_000;
#[cfg(not(target_os = "linux"))]
const NO_FOLLOW: i32 = 0x100;
