//! From YAML as people write it to specs, or to an error that says where and what.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use cardan_api::manifest::{PluginEntry, llmproxy};
use cardan_api::{Dialect, FaultPolicy, InstanceMode, Phase};
use cardan_manager::{BindingSpec, Bindings, PluginSpec, resolve_entry, resolve_llmproxy};
use serde_json::json;

use crate::support::{guests, manager_of, ring_specs};

/// Resolves the entries of a `cardan.yaml`; the first error as its text.
fn resolve(yaml: &str) -> Result<Vec<PluginSpec>, String> {
    let entries: Vec<PluginEntry> = serde_saphyr::from_str(yaml).map_err(|error| error.to_string())?;
    let specs =
        entries.iter().map(|entry| resolve_entry(entry, Path::new("/etc/cardan")).map(|(spec, _)| spec));
    specs.collect::<Result<_, _>>().map_err(|error| error.to_string())
}

/// The same for an LLMProxy manifest. What is no plugin here comes as its warning.
fn resolve_ring(yaml: &str, folder: &Path) -> Result<(Vec<PluginSpec>, Vec<String>), String> {
    let manifest: llmproxy::Document = serde_saphyr::from_str(yaml).map_err(|error| error.to_string())?;
    let (mut specs, mut warnings) = (Vec::new(), Vec::new());
    for entry in manifest.into_entries() {
        let (spec, warned) = resolve_llmproxy(&entry, folder).map_err(|error| error.to_string())?;
        specs.extend(spec);
        warnings.extend(warned.into_iter().map(|warning| warning.0));
    }
    Ok((specs, warnings))
}

fn only_binding(spec: &PluginSpec) -> &BindingSpec {
    match &spec.bindings {
        Bindings::Listed(bindings) => &bindings[0],
        Bindings::Exported => panic!("nothing is listed"),
    }
}

#[test]
fn every_key_of_a_plugin() {
    let yaml = r#"
- name: all keys
  source: plugins/a.wasm
  version: "1.2"
  sha256: "0123456789abcdef0123456789abcdef0123456789abcdef0123456789ABCDEF"
  enabled: true
  dialect: cardan
  instance: visit
  config: {a: 1, b: [x]}
  limits: {memory: 16MiB, table_elements: 10, output: 1kB, deadline: 2s, start_deadline: 1m, instances: 3,
           ready: 0, vars: 4kB, http_response: 5MB}
  grants: {http: ["*.example"], files: {"data": /data, "ro:/srv": /srv}}
  bindings:
    - {hook: http.request, phase: routing, priority: -1, deadline: 5ms, on_fault: skip, body: none,
       match: {paths: [/v1/*], methods: [post], hosts: [H]}, entry: other}
"#;
    insta::assert_snapshot!("every_key", format!("{yaml}\n----\n{:#?}", resolve(yaml).unwrap()));
}

#[test]
fn defaults_of_a_plugin() {
    let specs = resolve("- {name: a, source: a.wasm, bindings: [{hook: http.response}]}").unwrap();
    let spec = &specs[0];
    assert_eq!(spec.source, Path::new("/etc/cardan/a.wasm"));
    assert_eq!((spec.mode, spec.ready, spec.dialect), (InstanceMode::Fresh, 2, None));
    assert_eq!(spec.limits.deadline, Some(Duration::from_millis(500)));
    assert_eq!(spec.config, json!({}));
    let binding = only_binding(spec);
    assert_eq!((binding.phase, binding.priority), (Phase::PostFlight, 100));
    assert_eq!(binding.on_fault, FaultPolicy::Skip);
}

/// Every error names the plugin or the place in the file, the key, and what would be right.
#[test]
fn errors_of_a_plugin() {
    #[track_caller]
    fn check(keys: &str, expected: &[&str]) {
        let error = resolve(&format!("- {{name: a, source: a.wasm, {keys}}}")).unwrap_err();
        for part in expected {
            assert!(error.contains(part), "{keys}\n{error}\nhas no {part:?}");
        }
    }
    check("sauce: b", &["unknown field `sauce`", "source", "line 1"]);
    check("limits: {memroy: 1MiB}", &["unknown field `memroy`", "memory", "line 1"]);
    check("grants: {https: []}", &["unknown field `https`", "http"]);
    check("bindings: [{hook: http.request, when: now}]", &["unknown field `when`", "phase"]);
    check("bindings: [{hook: http.request, match: {path: /}}]", &["unknown field `path`", "paths"]);
    check("limits: {memory: 64 apples}", &["64 apples", "64MiB"]);
    check("limits: {deadline: 1.5s}", &["1.5s", "100ms"]);
    check("instance: forever", &["forever", "shared"]);
    check("dialect: klingon", &["klingon", "llmproxy"]);
    check("bindings: [{hook: http.request, phase: landing}]", &["landing", "pre_flight"]);
    check("bindings: [{hook: http.request, on_fault: shrug}]", &["shrug", "refuse"]);
    check("sha256: abc", &["plugin a: sha256: \"abc\" is no SHA-256"]);
    check("bindings: []", &["plugin a: bindings: the list is empty"]);
    check(
        "bindings: [{hook: http.request}, {hook: http.reqest}]",
        &[
            "plugin a: bindings[1].hook: there is no hook \"http.reqest\"",
            "http.request, http.response, http.complete",
        ],
    );
    check("bindings: [{hook: plugin.tick}]", &["plugin a: bindings[0].hook: plugin.tick cannot be bound"]);
    check(
        "bindings: [{hook: http.request, phase: post_flight}]",
        &[
            "plugin a: bindings[0].phase: the hook http.request has no phase post_flight; it has pre_flight, ingress, routing",
        ],
    );
    check("bindings: [{hook: http.request, deadline: 0}]", &["plugin a: bindings[0].deadline: it is 0"]);
    check(
        "bindings: [{hook: http.request, match: {paths: [ok, 'a[']}}]",
        &["bindings[0].match.paths[1]: \"a[\" is no pattern"],
    );
    for (pattern, why) in [
        (
            "/a%2*",
            "\"/a%2*\" has a percent sign that begins no percent-encoding; write %25 for the sign itself",
        ),
        (
            "/[é]",
            "\"/[é]\" has \"é\" in brackets, which paths hold as %C3%A9; write that outside of brackets",
        ),
        ("/[%2]", "\"/[%2]\" has a percent sign in brackets; write what it encodes outside of them"),
    ] {
        check(
            &format!("bindings: [{{hook: http.request, match: {{paths: ['{pattern}']}}}}]"),
            &[&format!("bindings[0].match.paths[0]: {why}")],
        );
    }
    check(
        "bindings: [{hook: http.request, match: {hosts: ['***']}}]",
        &["bindings[0].match.hosts[0]: \"***\" is no pattern"],
    );
    check("limits: {instances: 0}", &["plugin a: limits.instances: it is 0"]);
    check("limits: {deadline: 0ms}", &["plugin a: limits.deadline: it is 0"]);
    check("limits: {start_deadline: 0}", &["plugin a: limits.start_deadline: it is 0"]);
    check("grants: {http: ['https://a.example']}", &["plugin a: grants.http[0]:", "more than a host"]);
    check("grants: {http: ['a[']}", &["plugin a: grants.http[0]: \"a[\" is no pattern"]);
    for (yaml, part) in [
        ("- {source: a.wasm}", "missing field `name`"),
        ("- {name: a}", "missing field `source`"),
        ("- {name: '', source: a.wasm}", "name: it is empty"),
        ("- {name: \"a\\nb\", source: a.wasm}", "name: \"a\\nb\" has a control character"),
    ] {
        let error = resolve(yaml).unwrap_err();
        assert!(error.contains(part), "{error}");
    }
}

/// The entry of the documentation, byte for byte, with the file it names.
const SEED: &str = r#"- name: "My WASM Plugin"
  hook: "pre_flight"
  priority: 25
  enabled: true
  type: "wasm"
  entrypoint: "plugins/wasm/my_plugin.wasm"
  version: "0.1.0"
  timeout_ms: 100
  config:
    my_setting: "value"
"#;

#[test]
fn the_entry_of_the_documentation() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("plugins");
    std::fs::create_dir_all(folder.join("wasm")).unwrap();
    let module = guests().join("prebuilt/llmproxy-template.wasm");
    std::fs::copy(module, folder.join("wasm/my_plugin.wasm")).unwrap();
    for yaml in [SEED.to_owned(), format!("plugins:\n{SEED}"), format!("version: 3\nplugins:\n{SEED}")] {
        let (specs, warnings) = resolve_ring(&yaml, &folder).unwrap();
        assert_eq!(warnings, [""; 0]);
        let spec = &specs[0];
        assert_eq!((spec.name.as_str(), spec.version.as_str()), ("My WASM Plugin", "0.1.0"));
        assert_eq!(spec.source, folder.join("wasm/my_plugin.wasm"));
        assert_eq!(spec.limits.deadline, Some(Duration::from_millis(100)));
        assert_eq!(spec.config, json!({"my_setting": "value"}));
        assert_eq!((spec.dialect, spec.mode), (Some(Dialect::LlmProxy), InstanceMode::Shared));
        let binding = only_binding(spec);
        assert_eq!((binding.hook.name, binding.phase), ("http.request", Phase::PreFlight));
        assert_eq!((binding.priority, binding.on_fault), (25, FaultPolicy::Refuse));
        manager_of(&specs);
    }
}

#[test]
fn manifest_fields() {
    let yaml = r"
plugins:
  - {name: a, hook: ingress, entrypoint: echo.wasm}
  - {name: b, hook: routing, entrypoint: echo, type: wasm, fail_policy: open, version: 1.0, author: me,
     description: d, ui_schema: [{key: k, type: text, label: l}], allow_inprocess: true, enabled: yes}
  - {name: c, hook: post_flight, entrypoint: echo.wasm, config: null, entry: run,
     limits: {memory: 1MiB, deadline: 7ms}, grants: {http: [a.example]}}
  - {name: d, hook: background, entrypoint: echo.wasm, fail_policy: closed, timeout_ms: 50, colour: red}
  - {name: e, hook: ingress, entrypoint: 'plugins.default.auth:Auth'}
  - {name: f, hook: ingress, entrypoint: gone.wasm, enabled: false}
";
    let (specs, warnings) = resolve_ring(yaml, &guests().join("prebuilt")).unwrap();
    let told: Vec<String> = specs
        .iter()
        .map(|spec| {
            let binding = only_binding(spec);
            format!(
                "{} {} {}/{} {} {:?} {:?} memory {} entry {:?} hosts {:?}",
                spec.name,
                spec.version,
                binding.hook.name,
                binding.phase,
                binding.priority,
                binding.on_fault,
                spec.limits.deadline.unwrap(),
                spec.limits.memory_bytes_max,
                binding.entry,
                spec.grants.http.as_ref().map(|http| &http.hosts),
            )
        })
        .collect();
    let told = format!("{yaml}\n----\n{}\n----\n{}", told.join("\n"), warnings.join("\n"));
    insta::assert_snapshot!("llmproxy_fields", told);
}

#[test]
fn manifest_errors() {
    #[track_caller]
    fn check(yaml: &str, expected: &str) {
        let error = resolve_ring(yaml, &guests().join("prebuilt")).unwrap_err();
        assert!(error.contains(expected), "{yaml}\n{error}");
    }
    check("- {hook: ingress, entrypoint: echo.wasm}", "missing field `name`");
    check("- {name: a, entrypoint: echo.wasm}", "missing field `hook`");
    check("- {name: a, hook: ingress}", "missing field `entrypoint`");
    check("- {name: a, hook: landing, entrypoint: echo.wasm}", "unknown variant `landing`");
    check("plugins:\n- {name: a, hook: ingress, entrypoint: echo.wasm, priority: high}", "line 2");
    check("- {name: a, hook: ingress, entrypoint: echo.wasm, fail_policy: ajar}", "unknown variant `ajar`");
    check(
        "- {name: a, hook: ingress, entrypoint: echo.wasm, timeout_ms: 0}",
        "plugin a: timeout_ms: it is 0",
    );
    check("- {name: a, hook: ingress, entrypoint: echo.wasm, sha256: x}", "plugin a: sha256: ");
    check("- {name: a, hook: ingress, entrypoint: echo.wasm, limits: {memroy: 1}}", "unknown field `memroy`");
    check("plugins: 7", "expected");
    check("plugin: []", "missing field `plugins`");
    check("just text", "a list of plugins, alone or under the key `plugins`");
}

#[test]
fn empty_manifests() {
    for yaml in ["[]", "plugins: []", "plugins:", "plugins: ~"] {
        assert!(resolve_ring(yaml, &guests()).unwrap().0.is_empty(), "{yaml}");
    }
}

#[test]
fn entry_points() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("plugins");
    let outside = dir.path().join("secret.wasm");
    for file in ["wasm/my_plugin.wasm", "wasm/v1.2.wasm", "plugins/nested.wasm", "bare"] {
        std::fs::create_dir_all(folder.join(file).parent().unwrap()).unwrap();
        std::fs::write(folder.join(file), "").unwrap();
    }
    std::fs::write(&outside, "").unwrap();
    std::fs::create_dir(folder.join("folder.wasm")).unwrap();
    symlink(&outside, folder.join("leak.wasm")).unwrap();
    symlink(dir.path(), folder.join("up")).unwrap();
    symlink(folder.join("wasm/my_plugin.wasm"), folder.join("alias.wasm")).unwrap();

    let resolve = |entry: &str| -> Result<String, String> {
        let yaml = format!("- {{name: p, hook: ingress, type: wasm, entrypoint: {}}}", json!(entry));
        let (specs, _) = resolve_ring(&yaml, &folder)?;
        Ok(specs[0].source.strip_prefix(&folder).unwrap().display().to_string())
    };
    let mine = Ok("wasm/my_plugin.wasm".to_owned());
    for spelling in [
        "plugins/wasm/my_plugin.wasm",
        "plugins/wasm/my_plugin",
        "wasm/my_plugin.wasm",
        "wasm/my_plugin",
        "wasm.my_plugin",
        "./wasm/my_plugin.wasm",
    ] {
        assert_eq!(resolve(spelling), mine, "{spelling}");
    }
    // The first spelling that is a file wins.
    assert_eq!(resolve("plugins/nested.wasm"), Ok("plugins/nested.wasm".to_owned()));
    assert_eq!(resolve("wasm/v1.2"), Ok("wasm/v1.2.wasm".to_owned()));
    assert_eq!(resolve("bare"), Ok("bare".to_owned()));
    assert_eq!(resolve("alias.wasm"), Ok("alias.wasm".to_owned()));
    for entry in [
        outside.to_str().unwrap(),
        "../secret.wasm",
        "wasm/../../secret.wasm",
        "wasm/../wasm/my_plugin.wasm",
        "leak.wasm",
        "leak",
        "up/secret.wasm",
        "up.secret",
    ] {
        let error = resolve(entry).unwrap_err();
        assert!(error.contains("leaves the plugins folder"), "{entry}: {error}");
    }
    for entry in ["gone.wasm", "", ".", "folder.wasm", "wasm", ".etc.hostname", "wasm.my_plugin.wasm.x"] {
        let error = resolve(entry).unwrap_err();
        assert!(
            error.starts_with("plugin p: entrypoint: ") && error.contains("is no file; tried"),
            "{entry}: {error}"
        );
    }
    let nowhere = resolve_ring("- {name: p, hook: ingress, entrypoint: a.wasm}", &dir.path().join("gone"));
    assert!(nowhere.unwrap_err().contains("cannot be read"));
}

#[test]
fn handle_wins_over_execute() {
    let dir = tempfile::tempdir().unwrap();
    let both = r#"(module (func (export "execute") (result i32) unreachable)
                         (func (export "handle") (result i32) (i32.const 0)))"#;
    std::fs::write(dir.path().join("both.wasm"), both).unwrap();
    std::fs::write(
        dir.path().join("neither.wasm"),
        r#"(module (func (export "run") (result i32) (i32.const 0)))"#,
    )
    .unwrap();
    let spec = |name: &str, keys: &str| {
        let yaml = format!("- {{name: p, hook: ingress, entrypoint: {name}.wasm{keys}}}");
        resolve_ring(&yaml, dir.path()).unwrap().0
    };
    let manager = manager_of(&spec("both", ""));
    let snapshot = manager.snapshot();
    let plugin = snapshot.plugins().next().unwrap();
    assert_eq!(plugin.entry_of::<cardan_api::http::HttpRequest>(), Some("handle"));
    manager_of(&spec("both", ", entry: execute"));
    manager_of(&spec("neither", ", entry: run"));
    let error = manager.apply(&spec("neither", "")).unwrap_err().to_string();
    assert_eq!(error, "plugin p: it has no export that answers http.request; its exports are run");
}

#[test]
fn a_changed_file_with_a_pin_is_refused() {
    let good = format!("{:0>64}", "1");
    let (specs, _) = ring_specs(&format!(
        "- {{name: p, hook: ingress, entrypoint: echo.wasm, entry: echo, sha256: {good:?}}}"
    ));
    let manager = manager_of(&[]);
    let error = manager.apply(&specs).unwrap_err().to_string();
    assert!(error.starts_with("plugin p: ") && error.contains(&good), "{error}");
}
