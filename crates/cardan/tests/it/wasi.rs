//! WASI preview 1 (9), with the error numbers that `wasmtime-wasi` 48 gives.

use std::path::Path;
use std::time::Duration;

use cardan::{ErrorKind, Fault, GuestOutput, PluginBuilder};

use crate::support::{GENEROUS, Linkage, engine, prebuilt, within};

const SUCCESS: i32 = 0;
const BADF: i32 = 8;
const EXIST: i32 = 20;
const NOENT: i32 = 44;
const NOTDIR: i32 = 54;
const PERM: i32 = 63;

/// One call in WASI's terms: what it is told is `path`, in the directory with number `fd`.
#[derive(Debug, Clone, Copy)]
enum Operation {
    Read(&'static str),
    Write(&'static str),
    Create(&'static str),
    CreateNew(&'static str),
    Truncate(&'static str),
    List(&'static str),
    Mkdir(&'static str),
    Rmdir(&'static str),
    Unlink(&'static str),
    Rename(&'static str, &'static str),
    Link(&'static str, &'static str),
    Symlink(&'static str, &'static str),
    SetTimes(&'static str),
    Stat(&'static str),
}

impl Operation {
    /// The instructions, and the texts that they find at 0 and at 256.
    fn code(self, fd: i32) -> (String, &'static str, &'static str) {
        const READ: u64 = 1 << 1;
        const WRITE: u64 = 1 << 6;
        let open = |path: &'static str, oflags: u32, rights: u64| {
            let length = path.len();
            let code = format!(
                "(call $path_open (i32.const {fd}) (i32.const 1) (i32.const 0) (i32.const {length})
                   (i32.const {oflags}) (i64.const {rights}) (i64.const 0) (i32.const 0) (i32.const 512))"
            );
            (code, path, "")
        };
        let one = |name: &str, path: &'static str, before: &str, after: &str| {
            let length = path.len();
            let code = format!(
                "(call ${name} (i32.const {fd}) {before} (i32.const 0) (i32.const {length}) {after})"
            );
            (code, path, "")
        };
        match self {
            Self::Read(path) => open(path, 0, READ),
            Self::Write(path) => open(path, 0, WRITE),
            Self::Create(path) => open(path, 1, WRITE),
            Self::CreateNew(path) => open(path, 1 | 4, WRITE),
            Self::Truncate(path) => open(path, 8, WRITE),
            Self::List(path) => open(path, 2, 1 << 14),
            Self::Mkdir(path) => one("path_create_directory", path, "", ""),
            Self::Rmdir(path) => one("path_remove_directory", path, "", ""),
            Self::Unlink(path) => one("path_unlink_file", path, "", ""),
            Self::Stat(path) => one("path_filestat_get", path, "(i32.const 1)", "(i32.const 512)"),
            Self::SetTimes(path) => one(
                "path_filestat_set_times",
                path,
                "(i32.const 1)",
                "(i64.const 1) (i64.const 1) (i32.const 10)",
            ),
            Self::Rename(from, to) => {
                let (a, b) = (from.len(), to.len());
                let code = format!(
                    "(call $path_rename (i32.const {fd}) (i32.const 0) (i32.const {a})
                       (i32.const {fd}) (i32.const 256) (i32.const {b}))"
                );
                (code, from, to)
            }
            Self::Link(from, to) => {
                let (a, b) = (from.len(), to.len());
                let code = format!(
                    "(call $path_link (i32.const {fd}) (i32.const 0) (i32.const 0) (i32.const {a})
                       (i32.const {fd}) (i32.const 256) (i32.const {b}))"
                );
                (code, from, to)
            }
            Self::Symlink(from, to) => {
                let (a, b) = (from.len(), to.len());
                let code = format!(
                    "(call $path_symlink (i32.const 0) (i32.const {a}) (i32.const {fd}) (i32.const 256)
                       (i32.const {b}))"
                );
                (code, from, to)
            }
        }
    }

    fn module(self, fd: i32) -> String {
        let (code, first, second) = self.code(fd);
        format!(
            r#"(module
                 {IMPORTS}
                 (memory (export "memory") 1)
                 (data (i32.const 0) "{first}") (data (i32.const 256) "{second}")
                 (func (export "run") (result i32) {code}))"#
        )
    }
}

const IMPORTS: &str = r#"
    (import "wasi_snapshot_preview1" "path_open"
      (func $path_open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "path_create_directory"
      (func $path_create_directory (param i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "path_remove_directory"
      (func $path_remove_directory (param i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "path_unlink_file" (func $path_unlink_file (param i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "path_filestat_get"
      (func $path_filestat_get (param i32 i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "path_filestat_set_times"
      (func $path_filestat_set_times (param i32 i32 i32 i32 i64 i64 i32) (result i32)))
    (import "wasi_snapshot_preview1" "path_rename" (func $path_rename (param i32 i32 i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "path_link" (func $path_link (param i32 i32 i32 i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "path_symlink" (func $path_symlink (param i32 i32 i32 i32 i32) (result i32)))"#;

/// A directory with a file, a folder, and links that stay inside and lead outside.
fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let inside = dir.path().join("inside");
    std::fs::create_dir_all(inside.join("sub")).unwrap();
    std::fs::write(inside.join("file"), "in the file").unwrap();
    std::fs::write(dir.path().join("secret"), "not for guests").unwrap();
    std::os::unix::fs::symlink("file", inside.join("near")).unwrap();
    std::os::unix::fs::symlink("../secret", inside.join("far")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", inside.join("absolute")).unwrap();
    dir
}

fn error_number(dir: &Path, access: &str, operation: Operation) -> i32 {
    let host = format!("{access}{}", dir.join("inside").display());
    let plugin = engine().plugin(operation.module(3).as_bytes()).allow_path(host, "/mnt").load().unwrap();
    plugin.instance().unwrap().call("run", "").code
}

#[test]
fn error_numbers() {
    use Operation::*;
    let rows: &[(Operation, i32, i32)] = &[
        // The operation, what it gives where writing is allowed, and where it is not.
        (Read("file"), SUCCESS, SUCCESS),
        (Read("sub/../file"), SUCCESS, SUCCESS),
        (Read("near"), SUCCESS, SUCCESS),
        (Read("missing"), NOENT, NOENT),
        (Read("file/x"), NOTDIR, NOTDIR),
        (List("sub"), SUCCESS, SUCCESS),
        (List("."), SUCCESS, SUCCESS),
        (List("file"), NOTDIR, NOTDIR),
        (Stat("file"), SUCCESS, SUCCESS),
        (Write("file"), SUCCESS, PERM),
        (Create("new"), SUCCESS, PERM),
        (CreateNew("file"), EXIST, PERM),
        (Truncate("file"), SUCCESS, PERM),
        (Mkdir("made"), SUCCESS, PERM),
        (Mkdir("sub"), EXIST, PERM),
        (Rmdir("sub"), SUCCESS, PERM),
        (Unlink("file"), SUCCESS, PERM),
        (Unlink("missing"), NOENT, PERM),
        (Rename("file", "moved"), SUCCESS, PERM),
        (Link("file", "linked"), SUCCESS, PERM),
        (Symlink("file", "linked"), SUCCESS, PERM),
        (SetTimes("file"), SUCCESS, PERM),
        // Ways out.
        (Read("../secret"), PERM, PERM),
        (Read("sub/../../secret"), PERM, PERM),
        (Read("/etc/passwd"), PERM, PERM),
        (Read("far"), PERM, PERM),
        (Read("absolute"), PERM, PERM),
        (List(".."), PERM, PERM),
        (Stat("../secret"), PERM, PERM),
        (Create("../new"), PERM, PERM),
        (Mkdir("../new"), PERM, PERM),
        (Unlink("../secret"), PERM, PERM),
        (Rename("file", "../stolen"), PERM, PERM),
        (Rename("../secret", "stolen"), PERM, PERM),
        (Link("../secret", "stolen"), PERM, PERM),
        (Symlink("/etc/passwd", "stolen"), PERM, PERM),
    ];
    let mut wrong = Vec::new();
    for &(operation, writable, read_only) in rows {
        for (access, expected) in [("", writable), ("ro:", read_only)] {
            let dir = folder();
            let found = error_number(dir.path(), access, operation);
            if found != expected {
                wrong.push(format!("{access:?} {operation:?}: {found}, expected {expected}"));
            }
            let secret = std::fs::read_to_string(dir.path().join("secret")).unwrap();
            assert_eq!(secret, "not for guests", "{operation:?}");
            assert!(!dir.path().join("new").exists() && !dir.path().join("stolen").exists(), "{operation:?}");
            if access == "ro:" {
                let inside = dir.path().join("inside");
                assert_eq!(
                    std::fs::read_to_string(inside.join("file")).unwrap(),
                    "in the file",
                    "{operation:?}"
                );
                assert_eq!(std::fs::read_dir(inside).unwrap().count(), 5, "{operation:?}");
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn without_directories() {
    for operation in
        [Operation::Read("file"), Operation::Create("file"), Operation::Mkdir("x"), Operation::Stat("x")]
    {
        for fd in [3, 4, 100, -1] {
            for linkage in Linkage::BOTH {
                let plugin = linkage.plugin(operation.module(fd).as_bytes()).load().unwrap();
                assert_eq!(plugin.instance().unwrap().call("run", "").code, BADF, "{operation:?} {fd}");
            }
        }
    }
}

/// A guest on Rust's standard library.
fn files() -> PluginBuilder {
    prebuilt("wasi-files").limits(within(GENEROUS))
}

#[test]
fn through_the_standard_library() {
    let dir = folder();
    let inside = dir.path().join("inside");
    let at = |access: &str, path: &str| {
        let plugin = files().allow_path(format!("{access}{}", inside.display()), "/mnt").config("path", path);
        plugin.load().unwrap().instance().unwrap()
    };
    assert_eq!(at("", "/mnt/file").call("try_read", "").output, b"in the file");
    assert_eq!(at("ro:", "/mnt/file").call("try_read", "").output, b"in the file");
    assert_eq!(at("", "/mnt/written").call("try_write", "some text").code, 0);
    assert_eq!(std::fs::read(inside.join("written")).unwrap(), b"some text");
    let report = at("ro:", "/mnt/file").call("try_write", "some text");
    assert_eq!(
        (report.code, report.error.as_deref()),
        (1, Some("Failed to write file: Operation not permitted (os error 63)"))
    );
    assert_eq!(at("", "/mnt/sub").call("try_list", "").output, b"[]");
    assert_eq!(at("", "/mnt/made").call("try_mkdir", "").code, 0);
    assert_eq!(at("", "/mnt/written").call("try_remove", "").code, 0);
    assert!(inside.join("made").is_dir() && !inside.join("written").exists());
    for path in ["/mnt/../secret", "/mnt/far", "/etc/passwd", "/elsewhere"] {
        assert_eq!(at("", path).call("try_read", "").code, 1, "{path}");
    }
    // A relative name for the guest's directory.
    let plugin =
        files().allow_path(inside.display().to_string(), "data").config("path", "data/file").load().unwrap();
    assert_eq!(plugin.call("try_read", "").unwrap(), b"in the file");
}

/// Several directories: numbered from 3 in the order of host paths.
#[test]
fn several_directories() {
    let dir = tempfile::tempdir().unwrap();
    let mut builder = engine().plugin(
        br#"(module
            (import "extism:host/env" "input_load_u8" (func $input (param i64) (result i32)))
            (import "wasi_snapshot_preview1" "fd_prestat_dir_name" (func $name (param i32 i32 i32) (result i32)))
            (memory (export "memory") 1)
            (func (export "run") (result i32)
              (drop (call $name (i32.add (i32.const 3) (call $input (i64.const 0))) (i32.const 0) (i32.const 1)))
              (i32.load8_u (i32.const 0))))"#
            .as_slice(),
    );
    for name in ["c", "a", "b"] {
        let host = dir.path().join(name);
        std::fs::create_dir(&host).unwrap();
        builder = builder.allow_path(host.display().to_string(), name);
    }
    let mut instance = builder.load().unwrap().instance().unwrap();
    let names = [0u8, 1, 2].map(|n| instance.call("run", [n]).code as u8);
    assert_eq!(names, *b"abc");
}

#[test]
fn directories_that_are_not_there() {
    let missing = files().allow_path("/no/such/directory", "/mnt");
    let error = missing.load().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Source);
    assert!(error.message().ends_with("No such file or directory (os error 2)"), "{error}");
    assert!(error.message().contains("/no/such/directory"), "{error}");
    // Also for a plugin that does not use WASI, but not where there is none.
    let error = prebuilt("echo").allow_path("ro:/no/such/directory", "/mnt").load().unwrap_err();
    assert!(error.message().ends_with("No such file or directory (os error 2)"), "{error}");
    prebuilt("echo").allow_path("/no/such/directory", "/mnt").without_wasi().load().unwrap();
    // One that is removed later fails the calls that need it, not the process.
    let dir = folder();
    let plugin = files().allow_path(dir.path().join("inside").display().to_string(), "/mnt").load().unwrap();
    drop(dir);
    assert_eq!(plugin.call("list_args", "").unwrap_err().kind(), ErrorKind::Source);
}

#[test]
fn a_world_without_arguments() {
    let plugin = files().load().unwrap();
    assert_eq!(plugin.call("list_args", "").unwrap(), b"[]");
    assert_eq!(plugin.call("list_env", "").unwrap(), b"{}");
    assert_eq!(plugin.call("read_stdin", "").unwrap(), b"");
    assert_eq!(plugin.call("write_stdio", "to nobody").unwrap(), b"18");
    let clock: serde_json::Value = serde_json::from_slice(&plugin.call("read_clock", "").unwrap()).unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let seen = Duration::from_nanos(clock["realtime_ns"].as_u64().unwrap());
    assert!(now.abs_diff(seen) < Duration::from_secs(60), "{now:?} {seen:?}");
    let random = [plugin.call("random_bytes", "16").unwrap(), plugin.call("random_bytes", "16").unwrap()];
    assert!(random[0].len() == 32 && random[0] != random[1]);
}

#[test]
fn output_can_be_ours() {
    let plugin = files().with_wasi(GuestOutput::Inherit).load().unwrap();
    assert_eq!(plugin.call("write_stdio", "").unwrap(), b"0");
}

#[test]
fn left_out() {
    let error = files().without_wasi().load().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Link);
    assert!(error.message().contains("unknown import: `wasi_snapshot_preview1::"), "{error}");
    assert!(error.message().ends_with("has not been defined"), "{error}");
}

/// No sockets: the functions are there, as in the reference, and nothing can be reached through them.
#[test]
fn no_sockets() {
    let module = r#"(module
        (import "wasi_snapshot_preview1" "sock_accept" (func $accept (param i32 i32 i32) (result i32)))
        (memory (export "memory") 1)
        (func (export "run") (result i32) (call $accept (i32.const 3) (i32.const 0) (i32.const 0))))"#;
    let code = engine().load(module.as_bytes()).unwrap().instance().unwrap().call("run", "").code;
    assert_ne!(code, SUCCESS);
}

#[test]
fn exits() {
    let plugin = files().load().unwrap();
    for (status, code, failed) in
        [("0", 0, false), ("1", 1, true), ("125", 125, true), ("126", -1, true), ("-1", -1, true)]
    {
        let report = plugin.instance().unwrap().call("exit_with", status);
        assert_eq!((report.code, report.error.is_some()), (code, failed), "{status}: {report:?}");
        assert_eq!(report.output, b"before exit", "{status}");
    }
}

/// A sleep ends at the deadline and counts as one (X19), here and in a command.
#[test]
fn sleeping() {
    let plugin = files().limits(within(Duration::from_millis(100))).load().unwrap();
    let mut instance = plugin.instance().unwrap();
    let start = std::time::Instant::now();
    let report = instance.call("sleep_ms", "60000");
    assert_eq!((report.code, report.error.as_deref()), (134, Some("timeout")));
    assert_eq!(report.fault, Some(Fault::Deadline));
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    let report = instance.call("sleep_ms", "1");
    assert!(report.output.starts_with(b"slept for"), "{report:?}");
}
