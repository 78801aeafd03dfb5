//! What a plugin is made from: bytes, text, manifests (10.1, 10.2), with the reference's words.

use base64::Engine as _;
use cardan::{Error, ErrorKind, Manifest, MemoryLimits, Source, WasmEntry};
use serde_json::json;

use crate::support::{engine, entry, guests, linked, prebuilt};

/// A module whose `run` returns a number, binary and in base64.
fn numbered(number: u32) -> (Vec<u8>, String) {
    let text = format!(r#"(module (func (export "run") (result i32) (i32.const {number})))"#);
    let binary = wat::parse_str(text).unwrap();
    let base64 = base64::engine::general_purpose::STANDARD.encode(&binary);
    (binary, base64)
}

fn load(source: &[u8]) -> Result<i32, Error> {
    let plugin = engine().load(source)?;
    Ok(plugin.instance()?.call("run", "").code)
}

#[track_caller]
fn check(source: impl AsRef<[u8]>, number: i32) {
    let source = source.as_ref();
    match load(source) {
        Ok(found) => assert_eq!(found, number, "{}", String::from_utf8_lossy(source)),
        Err(error) => panic!("{}: {error}", String::from_utf8_lossy(source)),
    }
}

/// The message begins like this; the reference's ends there, ours may go on.
#[track_caller]
fn check_refused(source: impl AsRef<[u8]>, why: &str) {
    let source = source.as_ref();
    let error = load(source).expect_err(&String::from_utf8_lossy(source));
    assert!(error.message().starts_with(why), "{}: {error}", String::from_utf8_lossy(source));
}

const UNKNOWN: &str = "Unknown manifest format";
const NONE: &str = "No wasm files specified in Extism manifest";

#[test]
fn recognised_by_its_beginning() {
    let (binary, base64) = numbered(5);
    check(&binary, 5);
    check(r#"(module (func (export "run") (result i32) (i32.const 6)))"#, 6);
    check(r#"( module (func (export "run") (result i32) (i32.const 6)))"#, 6);
    check("(\n\tmodule)", -1);
    check(";; a comment\n(module)", -1);
    check("(; a comment ;) (module)", -1);
    check(json!({"wasm": [{"data": base64}]}).to_string(), 5);
    check(format!("[[wasm]]\ndata = \"{base64}\"\n"), 5);
    check(format!("wasm = [{{ data = \"{base64}\" }}]"), 5);

    // Blanks before the text of a module make it no text.
    check_refused(" (module)", UNKNOWN);
    check_refused("\n(module)", UNKNOWN);
    check_refused("", NONE);
    check_refused("{}", NONE);
    check_refused(r#"{"wasm": []}"#, NONE);
    check_refused("wasm = []", NONE);
    check_refused("garbage", UNKNOWN);
    check_refused(r#"{"wasm": [{"data""#, UNKNOWN);
    check_refused("wasm:\n  - path: x\n", UNKNOWN);
    check_refused("null", UNKNOWN);
    check_refused("[]", NONE);
    check_refused(b"\xff\xfe", "input bytes aren't valid utf-8");
    check_refused(&binary[..10], "unexpected end-of-file (at offset 0xa)");
    check_refused(b"\0asm", "unexpected end");
    check_refused(b"\0asm\x02\0\0\0", "unknown binary version");
    check_refused(
        b"\0asm\x0d\0\x01\0",
        "the component is of no world that can be asked here: it exports nothing",
    );
    check_refused(
        "(; text ;) (component)",
        "the component is of no world that can be asked here: it exports nothing",
    );
    check_refused("(module (func (export \"run\") (result i32)))", "failed to compile");
    check_refused("(module", "expected `)`");
}

#[test]
fn fields() {
    let (_, data) = numbered(5);
    let with = |key: &str, value: serde_json::Value| {
        let mut manifest = json!({"wasm": [{"data": data}]});
        manifest[key] = value;
        manifest.to_string()
    };
    for (key, value) in [
        ("memory", json!({})),
        ("memory", json!({"max_pages": null, "max_http_response_bytes": null, "max_var_bytes": null})),
        ("memory", json!({"max_pages": 10, "max_http_response_bytes": 1, "max_var_bytes": 0})),
        ("config", json!({})),
        ("config", json!({"key": "value"})),
        ("allowed_hosts", json!(null)),
        ("allowed_hosts", json!([])),
        ("allowed_hosts", json!(["a", "[bad"])),
        ("allowed_paths", json!(null)),
        ("allowed_paths", json!({})),
        ("timeout_ms", json!(null)),
        ("timeout_ms", json!(0)),
        ("timeout_ms", json!(100)),
    ] {
        check(with(key, value), 5);
    }
    for (key, value) in [
        ("memory", json!(null)),
        ("memory", json!({"max": 10})),
        ("memory", json!({"max_pages": -1})),
        ("memory", json!({"max_pages": 4_294_967_296u64})),
        ("config", json!(null)),
        ("config", json!({"key": 1})),
        ("allowed_hosts", json!("a")),
        ("allowed_paths", json!(["a"])),
        ("timeout_ms", json!(1.5)),
        ("timeout_ms", json!(-1)),
        ("timeout_ms", json!("1s")),
        ("timeoutMs", json!(1)),
        ("unknown", json!(null)),
    ] {
        check_refused(with(key, value), UNKNOWN);
    }
}

#[test]
fn entries() {
    let (binary, data) = numbered(5);
    let digest = "0123456789abcdef".repeat(4);
    let path = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(path.path(), &binary).unwrap();
    let path = path.path();
    let hash = sha256(&binary);
    let one = |entry: serde_json::Value| json!({"wasm": [entry]}).to_string();
    for entry in [
        json!({"data": data}),
        json!({"data": data, "name": null, "hash": null}),
        json!({"data": data, "name": "main"}),
        json!({"data": data, "name": "extism:host/env"}),
        json!({"data": data, "hash": hash}),
        json!({"data": data, "hash": hash.to_uppercase()}),
        json!({"path": path}),
        json!({"path": path, "hash": hash}),
    ] {
        check(one(entry), 5);
    }
    for entry in [
        json!({}),
        json!({"name": "x"}),
        json!({"data": data, "path": path}),
        json!({"data": data, "url": "http://x/"}),
        json!({"data": data, "method": "GET"}),
        json!({"path": path, "headers": {}}),
        json!({"data": data, "unknown": 1}),
        json!({"req": {"url": "http://x/"}}),
        json!({"data": data.trim_end_matches('=').to_owned() + "!"}),
        json!({"data": format!("{data}=")}),
        json!({"data": {"ptr": 1, "len": 2}}),
        json!("text"),
    ] {
        check_refused(one(entry), UNKNOWN);
    }
    check_refused(
        one(json!({"data": data, "hash": digest})),
        &format!("Hash mismatch, found {hash} but expected {digest}"),
    );
    let missing = path.with_extension("nowhere");
    let expected = format!("Unable to load Wasm file {missing:?}: entity not found");
    check_refused(one(json!({"path": missing})), &expected);
    let folder = std::env::temp_dir();
    check_refused(
        one(json!({"path": folder})),
        &format!("Unable to load Wasm file {folder:?}: is a directory"),
    );
    // An entry is a module in any case: not a manifest again, and blanks do not matter.
    let encode = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
    check(one(json!({"data": encode(r#" (module (func (export "run") (result i32) (i32.const 3)))"#)})), 3);
    check_refused(one(json!({"data": encode("garbage")})), "expected `(`");
    check_refused(one(json!({"data": ""})), "expected at least one module field");
    check_refused(one(json!({"data": encode(&one(json!({"data": data})))})), "expected `(`");
    check_refused(one(json!({"data": encode("(component)")})), "expected a WebAssembly module but was given");
    check_refused(one(json!({"url": "no url"})), "\"no url\" is no address");
}

fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest as _;
    sha2::Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Names of several modules (8).
#[test]
fn names() {
    let all = |names: &[Option<&str>]| {
        let entries: Vec<serde_json::Value> = names
            .iter()
            .enumerate()
            .map(|(n, name)| json!({"data": numbered(n as u32).1, "name": name}))
            .collect();
        json!({"wasm": entries}).to_string()
    };
    check(all(&[Some("a")]), 0);
    check(all(&[Some("a"), Some("b")]), 1);
    check(all(&[Some("a"), None]), 1);
    check(all(&[None, Some("b")]), 0);
    check(all(&[Some("main"), Some("b")]), 0);
    check(all(&[Some("a"), Some("main"), Some("b")]), 1);
    check(all(&[Some("a"), None, Some("b")]), 1);
    for (names, name) in [
        (vec![None, None], "main"),
        (vec![Some("main"), None], "main"),
        (vec![Some("a"), Some("a"), None], "a"),
        (vec![Some("extism:host/env"), None], "extism:host/env"),
    ] {
        check_refused(all(&names), &format!("Duplicate module name found in Extism manifest: {name}"));
    }
}

/// What a manifest says takes effect.
#[test]
fn meaning() {
    let kitchen = guests().join("prebuilt/kitchen.wasm");
    let one = WasmEntry { path: Some(kitchen.clone()), ..WasmEntry::default() };
    let manifest = Manifest {
        wasm: vec![one],
        memory: MemoryLimits { max_var_bytes: Some(0), ..MemoryLimits::default() },
        config: [("k".to_owned(), "manifest".to_owned()), ("l".to_owned(), "manifest".to_owned())].into(),
        timeout_ms: Some(100),
        ..Manifest::default()
    };
    let plugin = engine().plugin(manifest.clone()).config("k", "option").load().unwrap();
    assert_eq!(plugin.call("config_get", "k").unwrap(), b"option");
    assert_eq!(plugin.call("config_get", "l").unwrap(), b"manifest");
    assert_eq!(plugin.call("spin", "").unwrap_err().fault(), cardan::Fault::Deadline);
    let error = plugin.call("var_set", r#"{"key": "k", "value": "v"}"#).unwrap_err();
    assert!(error.message().ends_with("Vars are disabled by this host"), "{error}");
    let file = tempfile::Builder::new().suffix(".json").tempfile().unwrap();
    std::fs::write(file.path(), serde_json::to_string(&manifest).unwrap()).unwrap();
    let plugin = engine().load(file.path()).unwrap();
    assert_eq!(plugin.call("config_get", "k").unwrap(), b"manifest");
    // What was read is what was written.
    let again: Manifest = serde_json::from_str(&serde_json::to_string(&manifest).unwrap()).unwrap();
    assert_eq!(again, manifest);
    let plugin = engine().load(Manifest::of_file(&kitchen)).unwrap();
    assert_eq!(plugin.call("echo", "x").unwrap(), b"x");
}

/// Under an operator's grants a manifest lowers limits and never raises them; an embedder's manifest counts.
#[test]
fn limits_of_an_operator() {
    let load = |max_var_bytes: u64, timeout_ms: u64, grants: Option<cardan::api::grants::Grants>| {
        let manifest = Manifest {
            memory: MemoryLimits { max_var_bytes: Some(max_var_bytes), ..MemoryLimits::default() },
            timeout_ms: Some(timeout_ms),
            ..Manifest::of_file(guests().join("prebuilt/kitchen.wasm"))
        };
        let deadline = Some(std::time::Duration::from_secs(30));
        let limits = cardan::Limits { var_bytes_max: 10, deadline, ..cardan::Limits::default() };
        let plugin = engine().plugin(manifest).limits(limits);
        match grants {
            Some(grants) => plugin.grants(grants),
            None => plugin,
        }
        .load()
        .unwrap()
    };
    let fits = |plugin: &cardan::Plugin| {
        plugin.call("var_set", r#"{"key": "k", "value": "more than ten bytes"}"#).is_ok()
    };
    let granted = || Some(cardan::api::grants::Grants::default());
    assert!(fits(&load(1 << 20, 100, None)));
    assert!(!fits(&load(1 << 20, 100, granted())));
    assert!(!fits(&load(0, 100, granted())));
    let error = load(10, 100, granted()).call("spin", "").unwrap_err();
    assert_eq!(error.fault(), cardan::Fault::Deadline, "lowered");
}

/// Under an operator's grants a manifest's file names modules in its own folder, wherever links lead.
#[test]
fn folders() {
    let dir = tempfile::tempdir().unwrap();
    let (plugins, outside) = (dir.path().join("plugins"), dir.path().join("plugins-of-others"));
    let (small, data) = numbered(5);
    for folder in [&plugins.join("sub"), &outside] {
        std::fs::create_dir_all(folder).unwrap();
        std::fs::write(folder.join("a.wasm"), &small).unwrap();
    }
    std::os::unix::fs::symlink(outside.join("a.wasm"), plugins.join("link.wasm")).unwrap();
    std::os::unix::fs::symlink(&outside, plugins.join("link")).unwrap();
    std::os::unix::fs::symlink(plugins.join("sub/a.wasm"), plugins.join("near.wasm")).unwrap();
    let file = plugins.join("it.json");
    let load = |entry: &serde_json::Value, source: Source, granted: bool| {
        std::fs::write(&file, json!({ "wasm": [entry] }).to_string()).unwrap();
        let plugin = engine().plugin(source);
        if granted { plugin.grants(cardan::Grants::default()) } else { plugin }.load()
    };
    let outside_says = "which is not in the manifest's own folder";
    for (path, says) in [
        (plugins.join("sub/a.wasm"), None),
        (plugins.join("near.wasm"), None),
        (plugins.join("sub/../sub/a.wasm"), None),
        (outside.join("a.wasm"), Some(outside_says)),
        (plugins.join("../plugins-of-others/a.wasm"), Some(outside_says)),
        (plugins.join("link.wasm"), Some(outside_says)),
        (plugins.join("link/a.wasm"), Some(outside_says)),
        ("/etc/hostname".into(), Some(outside_says)),
        (plugins.join("nothing.wasm"), Some("entity not found")),
    ] {
        let entry = json!({ "path": path });
        let found = load(&entry, Source::from(&*file), true).err().map(|error| error.message().to_owned());
        let as_expected = match (&found, says) {
            (Some(found), Some(says)) => found.contains(says),
            (found, says) => found.is_none() && says.is_none(),
        };
        assert!(as_expected, "{path:?}: {found:?}");
        // An embedder's own manifests name what they like.
        if path.exists() && path.starts_with(dir.path()) {
            load(&entry, Source::from(&*file), false).unwrap();
        }
    }
    // What is in memory is in no folder.
    let text = |entry: &serde_json::Value| Source::from(json!({ "wasm": [entry] }).to_string().into_bytes());
    let near = json!({ "path": plugins.join("sub/a.wasm") });
    let error = load(&near, text(&near), true).unwrap_err();
    assert!(error.message().contains("is in no folder itself"), "{error}");
    load(&near, text(&near), false).unwrap();
    let held = json!({ "data": data });
    load(&held, text(&held), true).unwrap();
}

#[test]
fn files() {
    let missing = guests().join("prebuilt/nothing.wasm");
    let error = engine().load(&*missing).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Source);
    assert_eq!(
        error.to_string(),
        format!("plugin nothing: Unable to load Wasm file {missing:?}: entity not found")
    );
    let text = guests().join("README.md");
    let error = engine().load(&*text).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Format);
    assert!(error.message().starts_with(&format!("{}: {UNKNOWN}", text.display())), "{error}");
    assert_eq!(&**prebuilt("echo").load().unwrap().name(), "echo");
    assert_eq!(&**prebuilt("echo").name("other").load().unwrap().name(), "other");
    assert_eq!(&**engine().load(Source::from(numbered(1).0)).unwrap().name(), "plugin");
}

#[test]
fn digests() {
    let path = guests().join("prebuilt/echo.wasm");
    let digest = sha256(&std::fs::read(&path).unwrap());
    assert_eq!(prebuilt("echo").digest(&digest).load().unwrap().inspection().digest, digest);
    assert_eq!(prebuilt("echo").digest(digest.to_uppercase()).load().unwrap().inspection().digest, digest);
    assert_eq!(cardan::file_digest(&path), Some(digest.clone()));
    let other = "00".repeat(32);
    let error = prebuilt("echo").digest(&other).load().unwrap_err();
    assert_eq!(error.message(), format!("Hash mismatch, found {digest} but expected {other}"));
    assert_eq!(error.kind(), ErrorKind::Source);
}

/// What is said of a plugin without running it.
#[test]
fn inspection() {
    let found = prebuilt("kitchen").inspect().unwrap();
    assert_eq!((found.abi.name(), found.modules), ("extism", 1));
    assert!(found.exports.contains(&"echo".to_owned()));
    assert!(found.imports.iter().any(|import| import.module == "extism:host/env" && import.name == "alloc"));
    let asked: Vec<String> = found.capabilities.iter().map(|it| format!("{it:?}")).collect();
    assert_eq!(asked, ["Http", "Log", "Vars"]);
    assert_eq!(found.memories.len(), 1);
    let (small, _) = numbered(1);
    let linked = Manifest { wasm: vec![entry("a", &small), entry("main", &small)], ..linked(&[]) };
    let found = engine().plugin(linked).inspect().unwrap();
    assert_eq!((found.modules, found.size_bytes), (2, 2 * small.len() as u64));
    let error = engine().plugin(&b"garbage"[..]).inspect().unwrap_err();
    assert!(error.message().starts_with(UNKNOWN), "{error}");
}
