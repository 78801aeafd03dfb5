//! `plugin.yaml`: what it gives, what wins over it, and what is wrong with it.

use std::fs;
use std::path::Path;
use std::time::Duration;

use cardan_api::manifest::PluginEntry;
use cardan_manager::{Bindings, Manager, Owner, PluginSpec, resolve_entry, resolve_path};
use serde_json::json;

use crate::seeds::{EMPTY_MODULE, folder, seed, told};

const ALL: &str = r#"
name: mask
version: 1.2.3-beta.1
description: Masks names
author: Ada
license: MIT
homepage: https://example.org/mask
module: bin/mask.wasm
sha256: "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
dialect: cardan
instance: visit
hooks:
  - http.request
  - {hook: http.response, on_fault: refuse, deadline: 1s, match: {paths: [/v1/*]}}
  - llm.guard
  - plugin.tick
permissions: {http: {hosts: ["*.internal"]}, kv_read: {}, metrics: ~}
config_schema:
  words: {type: list, default: [ada], description: Names to mask}
  depth: {type: integer, required: true, description: How deep to look}
resources: {min_memory: 1MiB, max_memory: 8MiB}
limits: {deadline: 200ms, instances: 7}
health: {faults: 3, backoff: 5s}
tick: 30s
ui_schema: [{key: words, type: array, label: Words}]
"#;

/// Resolves an entry whose source is in a folder with these files.
fn entry(files: &[(&str, &[u8])], keys: &str) -> Result<(PluginSpec, Vec<String>), String> {
    let dir = folder(files);
    let entry: PluginEntry = serde_saphyr::from_str(&format!("{{{keys}}}")).unwrap();
    let resolved = resolve_entry(&entry, dir.path()).map_err(|error| error.to_string())?;
    Ok((resolved.0, resolved.1.into_iter().map(|warning| warning.0).collect()))
}

#[test]
fn every_key_of_a_manifest() {
    let dir = folder(&[("plugin.yaml", ALL.as_bytes()), ("bin/mask.wasm", EMPTY_MODULE)]);
    let keys = r#"{name: mask, source: plugin.yaml, config: {depth: 2}, grants: {http: ["*", "a.internal", "b.example"]}}"#;
    let entry: PluginEntry = serde_saphyr::from_str(keys).unwrap();
    let (spec, warnings) = resolve_entry(&entry, dir.path()).unwrap();
    let warnings: Vec<String> = warnings.into_iter().map(|it| it.0).collect();
    let told = format!("{ALL}\n{keys}\n----\n{}\n{}\n{:?}", told(&spec), warnings.join("\n"), spec.health);
    insta::assert_snapshot!("every_key_of_a_manifest", told.replace(dir.path().to_str().unwrap(), "DIR"));
}

/// Whatever an operator says is what counts.
#[test]
fn entries_win() {
    let files: &[(&str, &[u8])] = &[("plugin.yaml", ALL.as_bytes()), ("bin/mask.wasm", EMPTY_MODULE)];
    let (spec, warnings) = entry(
        files,
        "name: hide, source: plugin.yaml, version: '9', instance: fresh, config: {depth: 1, words: []},
         limits: {deadline: 1m, memory: 1GiB, instances: 9}, bindings: [{hook: http.complete}], tick: 1s,
         health: {faults: 0}, versions_kept: 1,
         sha256: '0123456789ABCDEF0123456789abcdef0123456789abcdef0123456789abcdef'",
    )
    .unwrap();
    assert_eq!((spec.name.as_str(), spec.version.as_str(), spec.versions_kept), ("hide", "9", 1));
    assert_eq!(spec.limits.deadline, Some(Duration::from_secs(60)));
    assert_eq!((spec.limits.memory_bytes_max, spec.limits.instances_max), (1 << 30, 9));
    assert_eq!(spec.config, json!({"depth": 1, "words": []}));
    assert_eq!((spec.tick, spec.health.faults_max), (Some(Duration::from_secs(1)), 0));
    assert_eq!(spec.health.backoff, Duration::from_secs(5));
    assert!(spec.elsewhere.is_empty());
    let Bindings::Listed(bindings) = &spec.bindings else { panic!("{:?}", spec.bindings) };
    assert_eq!((bindings.len(), bindings[0].hook.name), (1, "http.complete"));
    assert_eq!(
        warnings,
        [
            "plugin hide: plugin.yaml: no listener of this process asks at llm.guard yet",
            "plugin hide: plugin.yaml: it calls the plugin mask; it is hide here, as configured"
        ]
    );
}

/// Under an operator's star a manifest that names a private address has not got it.
#[test]
fn a_manifest_names_no_private_address() {
    let yaml = "{name: a, version: 1.0.0, permissions: {http: {hosts: [127.0.0.1]}}}";
    let files: &[(&str, &[u8])] = &[("a.wasm", EMPTY_MODULE), ("a.yaml", yaml.as_bytes())];
    let loopback = "127.0.0.1".parse().unwrap();
    for (grant, permitted) in [("*", false), ("127.0.0.1", true)] {
        let (spec, _) =
            entry(files, &format!("name: a, source: a.wasm, grants: {{http: ['{grant}']}}")).unwrap();
        let http = spec.grants.http.unwrap();
        assert_eq!(http.reach().permits("127.0.0.1", loopback), permitted, "{grant}");
    }
}

#[test]
fn a_manifest_grants_nothing() {
    let yaml = "{name: a, version: 1.0.0, permissions: {http: {hosts: [a.example]}}}";
    let files: &[(&str, &[u8])] = &[("a.wasm", EMPTY_MODULE), ("a.yaml", yaml.as_bytes())];
    assert_eq!(entry(files, "name: a, source: a.wasm").unwrap().0.grants.http, None);
    let (spec, warnings) = entry(files, "name: a, source: a.wasm, grants: {http: [b.example]}").unwrap();
    assert_eq!(spec.grants.http.unwrap().hosts, [""; 0]);
    assert!(warnings[0].contains("\"b.example\" is not among the hosts its manifest asks for (a.example)"));
    let silent = "{name: a, version: 1.0.0, permissions: []}";
    let files: &[(&str, &[u8])] = &[("a.wasm", EMPTY_MODULE), ("a.yaml", silent.as_bytes())];
    let (spec, warnings) = entry(files, "name: a, source: a.wasm, grants: {http: [b.example]}").unwrap();
    assert!(!spec.requested.unwrap().contains(&cardan_api::Capability::Http));
    assert!(
        warnings[0].contains("it does not ask for http, so what its entry grants of that counts for nothing")
    );
}

/// A module, its manifest and their folder are the same plugin, however the manifest is called.
#[test]
fn where_manifests_are_found() {
    #[track_caller]
    fn check(manifest: &str, text: &str, sources: &[&str]) {
        let dir = folder(&[("a.wasm", EMPTY_MODULE), (manifest, text.as_bytes())]);
        for source in sources {
            let (spec, _) = resolve_path(&dir.path().join(source), Owner::Operator).unwrap();
            assert_eq!(spec.manifest, Some(dir.path().join(manifest)), "{manifest} from {source:?}");
            assert_eq!((spec.source, spec.name.as_str()), (dir.path().join("a.wasm"), "it"), "{manifest}");
        }
    }
    let yaml = "{name: it, version: 1.0.0}";
    let toml = "name = \"it\"\nversion = \"1.0.0\"\n";
    let json = r#"{"name": "it", "version": "1.0.0"}"#;
    for (name, text) in [("yaml", yaml), ("yml", yaml), ("toml", toml), ("json", json)] {
        check(&format!("a.{name}"), text, &["a.wasm", &format!("a.{name}"), "."]);
        check(&format!("plugin.{name}"), text, &["a.wasm", &format!("plugin.{name}"), "."]);
    }
    check("else.yaml", "{name: it, version: 1.0.0, module: a.wasm}", &["else.yaml"]);
    let dir = folder(&[
        ("a.wasm", EMPTY_MODULE),
        ("b.wasm", EMPTY_MODULE),
        ("plugin.yaml", b"{name: it, version: 1.0.0, module: b.wasm}"),
        ("a.json", br#"{"wasm": [{"path": "a.wasm"}]}"#),
    ]);
    let found = |source: &str| resolve_path(&dir.path().join(source), Owner::Folder).unwrap().0;
    assert_eq!((found("a.wasm").manifest, found("a.wasm").name.as_str()), (None, "a"));
    assert_eq!(
        (found("b.wasm").manifest, found("").name.as_str()),
        (Some(dir.path().join("plugin.yaml")), "it")
    );
}

/// Each row is a manifest, or a part of one, and what is said about it.
#[test]
fn wrong_manifests() {
    #[track_caller]
    fn check(keys: &str, says: &str) {
        let yaml = format!("name: a\nversion: 1.0.0\n{keys}");
        let error =
            entry(&[("a.wasm", EMPTY_MODULE), ("a.yaml", yaml.as_bytes())], "name: a, source: a.wasm");
        let error = error.unwrap_err();
        assert!(error.contains(says), "{keys}\n  says: {error}\n  not:  {says}");
    }
    check("licence: MIT", "plugin a: a.yaml: licence: unknown key; did you mean license? (line 3, column 1)");
    check("colour: red", "colour: unknown key; there are name, version, description");
    check("limits: {memroy: 1}", "limits.memroy: unknown key; did you mean memory?");
    check(
        "hooks:\n- {hook: http.request, prio: 1}",
        "hooks[0].prio: unknown key; there are hook, phase, priority",
    );
    check("hooks: [http.reqest]", "hooks[0]: there is no hook \"http.reqest\"; did you mean http.request?");
    check("hooks: [authenticate, http.request]", "what HeliosProxy calls so is access.authenticate");
    check(
        "hooks: [{hook: http.request, phase: post_flight}]",
        "hooks[0].phase: the hook http.request has no phase",
    );
    check("hooks: []", "hooks: the list is empty");
    check("hooks: [7]", "hooks[0]: ");
    check("permissions: [htttp]", "permissions[0]: ");
    check("permissions: {kv_read: {hosts: [a]}}", "kv_read has no hosts; http has");
    check("permissions: {http: {host: [a]}}", "permissions.http.host: unknown key; did you mean hosts?");
    check(
        "resources: {min_memory: 2MiB, max_memory: 1MiB}",
        "resources.min_memory: 2MiB is more than max_memory, 1MiB",
    );
    check("resources: {max_memory: 1GiB}", "resources.max_memory: a manifest may say 256MiB at most");
    check("limits: {memory: 1GiB}", "at most; whoever runs the plugin can say more");
    check("limits: {deadline: 1h}", "limits.deadline: a manifest may say 60 s at most");
    check(
        "hooks: [{hook: http.request, deadline: 10h}]",
        "hooks[0].deadline: a manifest may say 60 s at most",
    );
    check("limits: {memory: 1MiB}\nresources: {max_memory: 2MiB}", "limits.memory says something else");
    check("module: ../a.wasm", "module: \"../a.wasm\" is outside of the manifest's folder");
    check("module: /a.wasm", "is outside of the manifest's folder");
    check("module: b.wasm", "b.wasm is no file");
    check("sha256: abc", "a.yaml: sha256: \"abc\" is no SHA-256 digest");
    check("health: {backoff: 0}", "health.backoff: it is 0");
    check("tick: 1ms", "tick: it is shorter than 10 ms");
    check("abi: cobol", "abi: ");
    check("config_schema: [a]", "config_schema: it is a map");
    check("config_schema: {a: string}", "config_schema.a: it is \"string\"; write it as {type");
    check("config_schema: {a: {type: strange}}", "config_schema");
    check(
        "config_schema: {a: {type: integer, default: x}}",
        "config_schema: a default is not what it says: a: ",
    );
    check("config_schema: {a: {type: string, required: perhaps}}", "config_schema.a.required: ");
    check("config_schema: {$ref: 'https://example.org/schema.json'}", "config_schema");
    check("config_schema: {$ref: 'file:///etc/hostname'}", "config_schema");
    for (yaml, says) in [
        ("{name: a, version: '1.0'}", "version: \"1.0\" is no semantic version such as 1.0.0"),
        ("{name: '', version: 1.0.0}", "name: it is empty"),
        ("{version: 1.0.0, module: a.wasm}", "missing field `name`"),
        ("{name: a, module: a.wasm}", "missing field `version`"),
        ("{name: a, version: 1.0.0, name: b}", "duplicate"),
        ("# soon", "a.yaml: it is empty, or has nothing but comments"),
        ("name: [", "a.yaml: "),
    ] {
        let dir = folder(&[("a.wasm", EMPTY_MODULE), ("a.yaml", yaml.as_bytes())]);
        let error = resolve_path(&dir.path().join("a.wasm"), Owner::Folder).unwrap_err().to_string();
        assert!(error.contains(says), "{yaml}\n  says: {error}\n  not:  {says}");
    }
}

#[test]
fn configurations() {
    #[track_caller]
    fn check(schema: &str, config: &str, expected: Result<serde_json::Value, &[&str]>) {
        let yaml = format!("name: a\nversion: 1.0.0\nconfig_schema: {schema}");
        let files: &[(&str, &[u8])] = &[("a.wasm", EMPTY_MODULE), ("a.yaml", yaml.as_bytes())];
        let found =
            entry(files, &format!("name: a, source: a.wasm, config: {config}")).map(|(spec, _)| spec.config);
        let expected = expected.map_err(|lines| {
            lines.iter().map(|line| format!("plugin a: config{line}")).collect::<Vec<_>>().join("\n")
        });
        assert_eq!(found, expected, "{schema} {config}");
    }
    let short = "{url: {type: string, required: true, description: Where}, ttl: {type: int, default: 300}}";
    check(short, "{url: u}", Ok(json!({"url": "u", "ttl": 300})));
    check(short, "{}", Err(&[".url: is required: Where"]));
    check(
        short,
        "{ulr: secret, ttl: soon}",
        Err(&[
            ".ttl: it is not of type \"integer\"",
            ".ulr: unknown key; did you mean url?",
            ".url: is required: Where",
        ]),
    );
    let long =
        "{type: object, required: [a], properties: {a: {type: object, required: [b], description: The a,
        properties: {b: {type: array, items: {minimum: 3}, description: The b}, c: {default: 1}}}}}";
    check(long, "{a: {b: [3]}, d: 1}", Ok(json!({"a": {"b": [3], "c": 1}, "d": 1})));
    check(long, "{}", Err(&[".a: is required: The a"]));
    check(long, "{a: {b: [4, 2]}}", Err(&[".a.b[1]: it is less than the minimum of 3"]));
    check(long, "{a: {}}", Err(&[".a.b: is required: The b"]));
    check(
        "{type: object, properties: {next: {$ref: '#'}}}",
        "{next: {next: {}}}",
        Ok(json!({"next": {"next": {}}})),
    );
}

#[test]
fn contradictions_about_modules() {
    let digest = |digit: &str| digit.repeat(64);
    let yaml = format!("{{name: a, version: 1.0.0, sha256: {:?}}}", digest("1"));
    let files: &[(&str, &[u8])] = &[("a.wasm", EMPTY_MODULE), ("a.yaml", yaml.as_bytes())];
    let error = entry(files, &format!("name: a, source: a.wasm, sha256: {:?}", digest("2"))).unwrap_err();
    assert!(error.contains("no module can be both"), "{error}");
    for (files, says) in [
        (
            vec![("plugin.yaml", "{name: a, version: 1.0.0}")],
            "does not say which of a.wasm, b.wasm it is about",
        ),
        (
            vec![("a.yaml", "{name: a, version: 1.0.0}"), ("a.toml", "name = 'a'\nversion = '1.0.0'")],
            "are both about a.wasm",
        ),
        (vec![("plugin.yaml", "colour: red")], "plugin.yaml: it has nothing that a plugin's manifest has"),
    ] {
        let dir = folder(&[("a.wasm", EMPTY_MODULE), ("b.wasm", EMPTY_MODULE)]);
        for (name, text) in files {
            fs::write(dir.path().join(name), text).unwrap();
        }
        let error = resolve_path(&dir.path().join("a.wasm"), Owner::Folder).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
}

/// Manifests imply the convention of their system, for modules that are not plainly another's.
#[test]
fn conventions_of_manifests() {
    let engine = cardan::Engine::new(cardan::EngineConfig::default()).unwrap();
    let manager = Manager::new(engine, 0);
    let load = |files: &[(&str, &[u8])]| {
        let dir = folder(files);
        let (spec, _) = resolve_path(dir.path(), Owner::File).unwrap();
        manager.apply(&[spec]).map(|_| ()).map_err(|error| error.to_string())
    };
    let cortex = seed("cortex.json");
    let refused = load(&[("text_processor.wasm", EMPTY_MODULE), ("manifest.json", cortex.as_bytes())]);
    let refused = refused.unwrap_err();
    assert!(refused.contains("plugin text-processor: it has no export that answers tool.call"), "{refused}");
    let helios = seed("helios/plugin.toml");
    let refused = load(&[("a.wasm", EMPTY_MODULE), ("plugin.toml", helios.as_bytes())]).unwrap_err();
    assert!(refused.contains("it has no export that answers pre_query"), "{refused}");
    // What imports Extism's functions is Extism's, whosever manifest lies beside it.
    let extism = br#"(module (import "extism:host/env" "input_length" (func (result i64)))
        (func (export "pre_query") (result i32) (i32.const 0))
        (func (export "post_query") (result i32) (i32.const 0)))"#;
    assert_eq!(load(&[("a.wasm", extism), ("plugin.toml", helios.as_bytes())]), Ok(()));
    // What its manifest lists has to be there.
    let echo = fs::read(crate::support::guests().join("prebuilt/echo.wasm")).unwrap();
    let refused = load(&[("a.wasm", &echo), ("plugin.toml", helios.as_bytes())]).unwrap_err();
    assert!(refused.contains("it has no export that answers pre_query; its exports are echo"), "{refused}");
    // Looking at it reaches no further than loading it: nothing is fetched that is not pinned.
    let away = br#"{"wasm": [{"url": "http://127.0.0.1:9/a.wasm"}]}"#;
    let dir = folder(&[("a.wasm", EMPTY_MODULE), ("plugin.toml", helios.as_bytes()), ("away.json", away)]);
    let (spec, _) = resolve_path(&dir.path().join("plugin.toml"), Owner::File).unwrap();
    let spec = PluginSpec { source: dir.path().join("away.json"), ..spec };
    let refused = manager.apply(&[spec]).unwrap_err().to_string();
    assert!(refused.contains("here that takes a `hash`"), "{refused}");
}

/// Without a manifest a plugin is asked wherever it has an export, and at one hook by all that it has for it. Nobody's
/// requests are shown to exports for statements.
#[test]
fn exports_of_heliosproxy() {
    let manager = Manager::new(cardan::Engine::new(cardan::EngineConfig::default()).unwrap(), 0);
    let module = br#"(module
        (func (export "rewrite") (result i32) unreachable)
        (func (export "pre_query") (result i32) unreachable)
        (func (export "post_query") (result i32) unreachable)
        (func (export "metrics") (result i32) (i32.const 0)))"#;
    let dir = folder(&[("a.wasm", module)]);
    let (spec, _) = resolve_path(&dir.path().join("a.wasm"), Owner::File).unwrap();
    manager.apply(&[spec]).unwrap();
    let places = |bindings: &[cardan_manager::BindingStatus]| -> Vec<(&str, Option<String>)> {
        bindings.iter().map(|it| (it.hook, it.entry.clone())).collect()
    };
    let status = manager.plugin("a").unwrap();
    let metrics = Some("metrics".to_owned());
    assert_eq!(
        places(&status.bindings),
        [
            ("http.complete", None),
            ("sql.query", None),
            ("sql.query", Some("rewrite".to_owned())),
            ("sql.result", None),
            ("sql.result", metrics),
        ]
    );
    let chains = manager.chains();
    let asked: Vec<_> = chains.iter().flat_map(|chain| places(&chain.bindings)).collect();
    assert_eq!(asked, [("http.complete", None)]);
}

#[test]
fn paths_that_are_not_there() {
    let (spec, _) = resolve_path(Path::new("/nowhere/a.wasm"), Owner::Operator).unwrap();
    assert_eq!((spec.name.as_str(), spec.manifest, spec.owner), ("a", None, Owner::Operator));
}
