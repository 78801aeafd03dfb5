//! Documents that are not as they should be: each ends in an error that says why, and soon.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::{Duration, Instant};

use cardan_api::manifest::{PluginEntry, cortex, helios, plugin, smg};
use cardan_manager::document::{self, Format};
use cardan_manager::{Owner, resolve_folder, resolve_path, resolve_smg};

use crate::seeds::{EMPTY_MODULE, folder, seed};

#[track_caller]
fn check<T: serde::de::DeserializeOwned>(format: Format, text: &str, says: &str) {
    let began = Instant::now();
    let error = document::parse::<T>(text, format).map(|_| ()).unwrap_err();
    let shown: String = text.chars().take(80).collect();
    assert!(error.contains(says), "{shown}\n  says: {error}\n  not:  {says}");
    assert!(began.elapsed() < Duration::from_secs(30), "{shown}: {:?}", began.elapsed());
}

#[test]
fn places_in_documents() {
    type Entries = Vec<PluginEntry>;
    check::<Entries>(
        Format::Yaml,
        "- {name: a, source: a}\n- {name: b, source: b,\n   limits: {memroy: 1}}",
        "[1].limits.memroy: unknown key; did you mean memory? (line 3, column 13)",
    );
    check::<Entries>(
        Format::Json,
        "[{\"name\": \"a\", \"source\": \"a\",\n\"limits\": {\"memroy\": 1}}]",
        "[0].limits.memroy: unknown key; did you mean memory? (line 2, column",
    );
    check::<plugin::Manifest>(
        Format::Toml,
        "name = \"a\"\nversion = \"1.0.0\"\n[limits]\nmemroy = 1",
        "limits.memroy: unknown key; did you mean memory? (line 4, column 1)",
    );
    check::<Entries>(Format::Yaml, "[{name: a, source: a, limits: {memory: [1]}}]", "[0].limits.memory: ");
    check::<plugin::Manifest>(Format::Yaml, "7", "");
    check::<plugin::Manifest>(Format::Json, "{\"name\": 7}", "name: ");
    check::<cortex::Manifest>(
        Format::Json,
        "{\"name\": \"a\", \"version\": \"1\"}",
        "missing field `entryPoint`",
    );
    check::<helios::File>(Format::Toml, "[plugins]\nmemory_limit = \"many\"", "plugins.memory_limit: ");
    check::<helios::File>(Format::Toml, "[plugins]\ntimeout_ms = -1", "plugins.timeout_ms: ");
    check::<smg::DeployRequest>(
        Format::Json,
        r#"{"modules":[{"name":"a","file_path":"/a","module_type":"Storage","attach_points":[]}]}"#,
        "modules[0].module_type: ",
    );
}

#[test]
fn keys_that_are_there_twice() {
    use serde_json::Value;
    check::<Value>(Format::Json, r#"{"a": {"b": 1, "b": 2}}"#, "the key \"b\" is there twice");
    check::<Value>(Format::Yaml, "a: {b: 1, b: 2}", "duplicate");
    check::<Value>(Format::Toml, "[a]\nb = 1\nb = 2", "duplicate");
    check::<plugin::Manifest>(Format::Json, r#"{"name": "a", "name": "b"}"#, "twice");
}

/// Anchors that stand for more and more, and things that stand in each other.
#[test]
fn bombs() {
    use serde_json::Value;
    let mut laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for i in 1..12 {
        let before = format!("*a{}", i - 1);
        laughs.push_str(&format!("a{i}: &a{i} [{}]\n", [before.as_str(); 9].join(", ")));
    }
    check::<Value>(Format::Yaml, &laughs, "");
    check::<Value>(Format::Yaml, &"[".repeat(100_000), "");
    check::<Value>(Format::Json, &"[".repeat(100_000), "");
    check::<Value>(Format::Toml, &format!("a = {}", "[".repeat(100_000)), "");
    check::<Value>(Format::Yaml, "a: *nobody", "");
}

#[test]
fn files_that_are_none() {
    let dir =
        folder(&[("a.wasm", EMPTY_MODULE), ("bytes.yaml", b"name: \xff"), ("bytes.wasm", EMPTY_MODULE)]);
    let path = |name: &str| dir.path().join(name);
    assert!(std::process::Command::new("mkfifo").arg(path("fifo.yaml")).status().unwrap().success());
    std::fs::File::create(path("huge.yaml")).unwrap().set_len(10 << 30).unwrap();
    symlink("/dev/zero", path("zero.yaml")).unwrap();
    for (name, says) in [
        ("fifo.yaml", "it is no regular file"),
        ("zero.yaml", "it is no regular file"),
        ("huge.yaml", "it is larger than 1 MiB"),
        ("bytes.yaml", "it is no UTF-8 text"),
        ("none.yaml", "cannot read it: No such file"),
        (".", "it is no regular file"),
    ] {
        let error = document::read(&path(name)).unwrap_err();
        assert!(error.starts_with(says), "{name}: {error}");
    }
    let error = resolve_path(&path("bytes.wasm"), Owner::Folder).unwrap_err().to_string();
    assert_eq!(error, "plugin bytes: bytes.yaml: it is no UTF-8 text");
    std::fs::rename(path("huge.yaml"), path("a.yaml")).unwrap();
    let error = resolve_path(&path("a.wasm"), Owner::Folder).unwrap_err().to_string();
    assert_eq!(error, "plugin a: a.yaml: it is larger than 1 MiB");
}

/// One plugin that is broken takes no other with it.
#[test]
fn folders() {
    let dir = folder(&[
        ("bare.wasm", EMPTY_MODULE),
        ("text.wat", b"(module)"),
        ("told.wasm", EMPTY_MODULE),
        ("told.yaml", b"{name: teller, version: 1.0.0}"),
        ("broken.wasm", EMPTY_MODULE),
        ("broken.yaml", b"{name: broken, version: 1}"),
        ("strict.wasm", EMPTY_MODULE),
        ("strict.yaml", b"{name: strict, version: 1.0.0, config_schema: {a: {required: true}}}"),
        ("twin.wasm", EMPTY_MODULE),
        ("twin.yaml", b"{name: bare, version: 1.0.0}"),
        ("sub/plugin.yaml", b"{name: deep, version: 1.0.0}"),
        ("sub/x.wasm", EMPTY_MODULE),
        ("other/y.wasm", EMPTY_MODULE),
        ("list.yaml", b"[]"),
        ("notes.json", b"{\"a\": 1}"),
        ("away.json", br#"{"wasm": [{"path": "elsewhere.wasm"}]}"#),
        (".hidden.wasm", EMPTY_MODULE),
        ("upload.wasm.tmp", EMPTY_MODULE),
        ("~half.wasm~", EMPTY_MODULE),
        ("half.wasm", b""),
        ("README.md", b"text"),
    ]);
    let found = resolve_folder(dir.path()).unwrap();
    let names: Vec<&str> = found.plugins.iter().map(|spec| spec.name.as_str()).collect();
    assert_eq!(names, ["away", "bare", "deep", "text", "teller"]);
    assert!(found.plugins.iter().all(|spec| spec.owner == Owner::Folder));
    let short = |path: &Path| path.strip_prefix(dir.path()).unwrap().display().to_string();
    let broken: Vec<String> =
        found.broken.iter().map(|it| format!("{} {} {}", short(&it.path), it.plugin, it.problem)).collect();
    let expected = [
        ("broken.yaml broken ", "no semantic version"),
        ("strict.yaml strict ", "config.a: is required"),
        ("twin.yaml bare ", "is called bare too; rename one of them"),
    ];
    for (begins, says) in expected {
        assert!(
            broken.iter().any(|it| it.starts_with(begins) && it.contains(says)),
            "{begins}{says}: {broken:#?}"
        );
    }
    assert_eq!(broken.len(), expected.len(), "{broken:#?}");
    let warnings: Vec<&str> = found.warnings.iter().map(|it| it.0.as_str()).collect();
    for says in [
        "list.yaml is a manifest of LLMProxy",
        "notes.json is no manifest of a plugin",
        "half.wasm is empty: somebody is still writing it",
        "other has no plugin.yaml in it and is not looked into",
    ] {
        assert!(warnings.iter().any(|it| it.contains(says)), "{says}: {warnings:#?}");
    }
    assert_eq!(warnings.len(), 4, "{warnings:#?}");
    let nowhere = resolve_folder(&dir.path().join("nowhere")).unwrap_err();
    assert!(nowhere.contains("nowhere cannot be read"), "{nowhere}");
}

/// The rules of SMG about paths, in its order and its words.
#[test]
fn smg_rules() {
    let dir = folder(&[
        ("a.wasm", EMPTY_MODULE),
        ("UP.WASM", EMPTY_MODULE),
        ("b.txt", b"b"),
        ("empty.wasm", b""),
        ("text.wasm", b"text"),
    ]);
    let here = dir.path().display().to_string();
    symlink(dir.path().join("b.txt"), dir.path().join("alias.wasm")).unwrap();
    symlink("/etc/hostname", dir.path().join("leak.wasm")).unwrap();
    std::fs::create_dir(dir.path().join("folder.wasm")).unwrap();
    let deploy = |name: &str, path: &str| {
        let request = seed("smg.json")
            .replace("my-middleware", name)
            .replace("/path/to/my-component.component.wasm", path);
        let request: smg::DeployRequest = document::parse(&request, Format::Json).unwrap().unwrap();
        resolve_smg(&request.modules[0]).map(|_| ()).map_err(|error| error.to_string())
    };
    for (name, path, says) in [
        ("", "a.wasm", "Module name cannot be empty"),
        ("a", "", "Module file path cannot be empty"),
        ("a", "a.wasm", "must be absolute"),
        ("a", &format!("{here}/../a.wasm"), "Path traversal (..) not allowed"),
        ("a", &format!("{here}/./a.wasm"), "Path traversal (..) not allowed"),
        ("a", &format!("{here}/b.txt"), "must have .wasm extension"),
        ("a", "/etc/a.wasm", "Access to /etc/ is not allowed"),
        ("a", &format!("{here}/none.wasm"), "not found or not readable"),
        ("a", &format!("{here}/empty.wasm"), "is empty"),
        ("a", &format!("{here}/folder.wasm"), "it is no regular file"),
        ("a", &format!("{here}/leak.wasm"), "Access to /etc/ is not allowed"),
        ("a", &format!("{here}/alias.wasm"), "must have .wasm extension"),
        ("a", &format!("{here}/text.wasm"), "Invalid WASM component"),
    ] {
        let error = deploy(name, path).unwrap_err();
        assert!(error.contains(says), "{path}: {error}");
    }
    for path in ["a.wasm", "UP.WASM"] {
        assert_eq!(deploy("a", &format!("{here}/{path}")), Ok(()), "{path}");
    }
}

/// Keys of foreign documents that nobody knows, tables that contradict each other, and numbers that are too small.
#[test]
fn helios_tables() {
    let dir = folder(&[
        ("p/a.wasm", EMPTY_MODULE),
        ("p/b.wasm", EMPTY_MODULE),
        ("q/permissions.wasm", EMPTY_MODULE),
    ]);
    let resolve = |keys: &str| {
        let text = format!("[plugins]\nenabled = true\nplugin_dir = \"p\"\n{keys}");
        let file: helios::File =
            document::parse(&text.replace("plugin_dir = \"p\"\nplugin_dir", "plugin_dir"), Format::Toml)
                .map_err(|error| format!("{text}: {error}"))?
                .unwrap();
        cardan_manager::resolve_helios(&file, dir.path())
    };
    for (keys, says) in [
        ("max_plugins = 1", "plugins.max_plugins: it is 1, and "),
        (
            "memory_limit = \"1MB\"\nmemory_limit_mb = 2",
            "plugins.memory_limit: plugins.memory_limit_mb says something else",
        ),
        ("timeout = \"1s\"\ntimeout_ms = 2", "plugins.timeout: plugins.timeout_ms says something else"),
        ("timeout_ms = 0", "plugins.timeout: it is 0"),
        (
            "kv_max_plugins = 1\n[plugins.permissions]\na = [\"kv_read\"]\nb = [\"KV_WRITE\"]",
            "plugins.kv_max_plugins: it is 1, and 2 plugins are granted keys",
        ),
        ("trust_root = \"/keys\"", "plugins.trust_root: this build checks no signatures"),
        ("[plugins.permissions]\nenabled = true", "no plugin can be called `permissions`"),
        ("[plugins.a]\npriority = \"high\"", "plugins.a.priority: "),
    ] {
        let error = resolve(keys).unwrap_err();
        assert!(error.contains(says), "{keys}\n  says: {error}");
    }
    let found = resolve(
        "max_plugin = 3\nmemory_limit_mb = 2\ntimeout_ms = 30\nfuel_limit = 5\n[plugins.a]\nprioritee = 1\n\
         [plugins.b]\nenabled = false\n[plugins.c]\n[plugins.permissions]\na = [\"http_fetch\", \"htp_fetch\"]\n[proxy]\nx = 1",
    )
    .unwrap();
    let warnings: Vec<&str> = found.warnings.iter().map(|it| it.0.as_str()).collect();
    for says in [
        "plugins.max_plugin: unknown key; did you mean max_plugins?",
        "plugins.a.prioritee: unknown key; did you mean priority?",
        "plugins.c: there is no plugin of this name in ",
        "there is nothing to grant as \"htp_fetch\"; did you mean http_fetch?",
        "[proxy] is about HeliosProxy itself",
    ] {
        assert!(warnings.iter().any(|it| it.contains(says)), "{says}: {warnings:#?}");
    }
    assert_eq!(found.plugins.len(), 1);
    let limits = &found.plugins[0].limits;
    assert_eq!((limits.memory_bytes_max, limits.fuel), (2 << 20, Some(5)));
    assert_eq!(limits.deadline, Some(Duration::from_millis(30)));
    let found = resolve("plugin_dir = \"q\"").unwrap();
    assert!(found.broken[0].problem.contains("no plugin can be called `permissions`"), "{found:?}");
    let found = resolve("plugin_dir = \"q\"\n[plugins.permissions]").unwrap();
    assert_eq!(found.plugins.len(), 0);
}
