//! The compile cache: what is found is used, what is not to be trusted is not, and nothing about it makes
//! a plugin fail.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use cardan::{Engine, EngineConfig, Error, ErrorKind};

use crate::support::guest;

fn open(dir: &Path) -> Result<Engine, Error> {
    Engine::new(EngineConfig {
        cache_dir: Some(dir.to_owned()),
        pool_instances: Some(4),
        ..EngineConfig::default()
    })
}

fn module() -> String {
    guest(r#"(func (export "run") (call $say @"compiled"))"#)
}

fn compiled(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(dir)
        .unwrap()
        .map(|file| file.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "cwasm"))
        .collect();
    files.sort();
    files
}

/// Loads and calls; the plugin works in any case. Returns the cache's file.
#[track_caller]
fn load(dir: &Path) -> PathBuf {
    let plugin = open(dir).unwrap().load(module().as_bytes()).unwrap();
    assert_eq!(plugin.call("run", "").unwrap(), b"compiled");
    let files = compiled(dir);
    assert_eq!(files.len(), 1, "{files:?}");
    files[0].clone()
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn is_filled_and_used() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("some/where/new");
    let file = load(&dir);
    assert_eq!(fs::metadata(&dir).unwrap().mode() & 0o777, 0o700);
    assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
    let first = fs::metadata(&file).unwrap();
    assert_eq!(load(&dir), file);
    assert_eq!(fs::metadata(&file).unwrap().ino(), first.ino(), "it was not compiled again");
    // Nothing is left of what was being written.
    let rest: Vec<_> = fs::read_dir(&dir).unwrap().map(|file| file.unwrap().file_name()).collect();
    assert!(rest.iter().all(|name| !name.to_string_lossy().ends_with(".tmp")), "{rest:?}");
}

/// What is compiled differently has another name.
#[test]
fn names_depend_on_everything() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path()).unwrap();
    let module = module();
    engine.load(module.as_bytes()).unwrap();
    assert_eq!(compiled(dir.path()).len(), 1);
    engine.load(module.replace("compiled", "compiler").as_bytes()).unwrap();
    assert_eq!(compiled(dir.path()).len(), 2, "another module");
    let fuel = cardan::Limits { fuel: Some(1 << 20), ..cardan::Limits::default() };
    engine.plugin(module.as_bytes()).limits(fuel).load().unwrap();
    assert_eq!(compiled(dir.path()).len(), 3, "another engine");
    let budget = cardan::Limits { growth_pages_max: Some(100), ..cardan::Limits::default() };
    engine.plugin(module.as_bytes()).limits(budget).load().unwrap();
    assert_eq!(compiled(dir.path()).len(), 4, "another way of fusing");
}

#[test]
fn damaged_files_are_compiled_again() {
    let dir = tempfile::tempdir().unwrap();
    let file = load(dir.path());
    let good = fs::read(&file).unwrap();
    for bad in [&b""[..], b"garbage", &good[..100], &good[..good.len() / 2]] {
        fs::write(&file, bad).unwrap();
        load(dir.path());
        assert_eq!(fs::read(&file).unwrap().len(), good.len(), "it was replaced");
    }
    // Code for another engine under this name.
    let other = tempfile::tempdir().unwrap();
    let fuel = cardan::Limits { fuel: Some(1 << 20), ..cardan::Limits::default() };
    open(other.path()).unwrap().plugin(module().as_bytes()).limits(fuel).load().unwrap();
    fs::copy(&compiled(other.path())[0], &file).unwrap();
    chmod(&file, 0o600);
    load(dir.path());
    assert_eq!(fs::read(&file).unwrap().len(), good.len());
}

/// Whether the file was written anew by a load.
#[track_caller]
fn check_not_trusted(dir: &Path, file: &Path) {
    let before = fs::symlink_metadata(file).unwrap().ino();
    load(dir);
    let after = fs::symlink_metadata(file).unwrap();
    assert_ne!(after.ino(), before, "it was used");
    assert!(after.is_file());
    assert_eq!(after.mode() & 0o777, 0o600);
}

#[test]
fn files_of_others_are_not_used() {
    let dir = tempfile::tempdir().unwrap();
    let file = load(dir.path());
    for mode in [0o620, 0o602, 0o666, 0o777] {
        chmod(&file, mode);
        check_not_trusted(dir.path(), &file);
    }
    // A link, even to good code.
    let good = dir.path().join("good");
    fs::rename(&file, &good).unwrap();
    std::os::unix::fs::symlink(&good, &file).unwrap();
    check_not_trusted(dir.path(), &file);
    // A directory of that name cannot be replaced; the plugin works.
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    fs::write(file.join("x"), "").unwrap();
    let plugin = open(dir.path()).unwrap().load(module().as_bytes()).unwrap();
    assert_eq!(plugin.call("run", "").unwrap(), b"compiled");
}

#[test]
fn a_file_of_another_user_is_not_used() {
    let dir = tempfile::tempdir().unwrap();
    let file = load(dir.path());
    match std::os::unix::fs::chown(&file, Some(12345), None) {
        Ok(()) => check_not_trusted(dir.path(), &file),
        // Only root may give files away.
        Err(error) => eprintln!("skipped: {error}"),
    }
}

#[track_caller]
fn check_refused(dir: &Path, why: &str) {
    let error = open(dir).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Host);
    assert!(error.message().starts_with(&format!("compile cache {}: ", dir.display())), "{error}");
    assert!(error.message().contains(why), "{error}");
}

#[test]
fn directories_that_are_not_ours() {
    let dir = tempfile::tempdir().unwrap();
    for mode in [0o770, 0o707, 0o777, 0o1777] {
        chmod(dir.path(), mode);
        check_refused(
            dir.path(),
            "other users may write there, and what it holds is executed; run chmod go-w",
        );
    }
    chmod(dir.path(), 0o755);
    open(dir.path()).unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    check_refused(&file, "");
    check_refused(&file.join("below"), "");
    match std::os::unix::fs::chown(dir.path(), Some(12345), None) {
        Ok(()) => check_refused(dir.path(), "it belongs to another user"),
        Err(error) => eprintln!("skipped: {error}"),
    }
}

/// A cache that can no longer be written is a slow one.
#[test]
fn a_directory_that_goes_away() {
    let dir = tempfile::tempdir().unwrap();
    let cache = dir.path().join("cache");
    let engine = open(&cache).unwrap();
    fs::remove_dir_all(&cache).unwrap();
    let plugin = engine.load(module().as_bytes()).unwrap();
    assert_eq!(plugin.call("run", "").unwrap(), b"compiled");
}

/// Several processes, here engines, that compile the same at once.
#[test]
fn at_once() {
    let dir = tempfile::tempdir().unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let engine = open(dir.path()).unwrap();
                for _ in 0..5 {
                    assert_eq!(
                        engine.load(module().as_bytes()).unwrap().call("run", "").unwrap(),
                        b"compiled"
                    );
                }
            });
        }
    });
    assert_eq!(compiled(dir.path()).len(), 1);
}

/// What was made of a guest of another convention is kept too, and made again where it is not whole.
#[test]
fn rewritten_modules() {
    let module = r#"(module (memory (export "memory") 1)
        (func (export "alloc") (param i32) (result i32) (i32.const 1024))
        (func (export "pre_query") (param i32 i32) (result i64) (i64.const 0x40000000001)))"#;
    let dir = tempfile::tempdir().unwrap();
    let load = || open(dir.path()).unwrap().load(module.as_bytes()).unwrap().call("pre_query", "x").unwrap();
    assert_eq!(load(), b"x");
    let kept = || {
        let files = fs::read_dir(dir.path()).unwrap().map(|file| file.unwrap().path());
        files.into_iter().find(|path| path.extension().is_some_and(|it| it == "wasm")).unwrap()
    };
    let whole = fs::read(kept()).unwrap();
    for damaged in [&b""[..], b"\0asm", &whole[..whole.len() - 1]] {
        fs::write(kept(), damaged).unwrap();
        chmod(&kept(), 0o600);
        assert_eq!(load(), b"x");
        assert_eq!(fs::read(kept()).unwrap(), whole);
    }
}
