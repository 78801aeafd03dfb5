//! The documents of other systems, as their documentation has them, and what they resolve to.

use std::fs;
use std::path::{Path, PathBuf};

use cardan_api::manifest::{helios, llmproxy, smg};
use cardan_manager::document::{self, Format, Kind};
use cardan_manager::{
    Bindings, HeliosDeployment, Owner, PluginSpec, Warning, resolve_helios, resolve_llmproxy, resolve_path,
    resolve_smg,
};
use tempfile::TempDir;

use crate::support::guests;

/// A module that any convention's manifest can be about: its first eight bytes.
pub(crate) const EMPTY_MODULE: &[u8] = b"\0asm\x01\0\0\0";

pub(crate) fn seed(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/seeds").join(name)).unwrap()
}

/// A folder with these files.
pub(crate) fn folder(files: &[(&str, &[u8])]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, content) in files {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    dir
}

/// What a spec says that is not a default, a line for each thing.
pub(crate) fn told(spec: &PluginSpec) -> String {
    let mut lines =
        vec![format!("{} {} from {} of {:?}", spec.name, spec.version, spec.source.display(), spec.owner)];
    let mut tell = |name: &str, value: String| lines.push(format!("  {name}: {value}"));
    let optional = [
        ("manifest", spec.manifest.as_ref().map(|path| path.display().to_string())),
        ("sha256", spec.sha256.clone()),
        ("abi", spec.abi.or(spec.abi_implied).map(|abi| abi.to_string())),
        ("dialect", spec.dialect.map(|dialect| dialect.to_string())),
        ("fuel", spec.limits.fuel.map(|fuel| fuel.to_string())),
        ("tick", spec.tick.map(|tick| format!("{tick:?}"))),
        ("schema", spec.config_schema.as_ref().map(ToString::to_string)),
    ];
    optional.into_iter().for_each(|(name, value)| value.into_iter().for_each(|value| tell(name, value)));
    tell("instances", format!("{:?}, {} ready", spec.mode, spec.ready));
    tell("limits", format!("{} bytes, {:?}", spec.limits.memory_bytes_max, spec.limits.deadline.unwrap()));
    tell("config", spec.config.to_string());
    tell("hosts", spec.grants.http.as_ref().map(|http| http.hosts.join(" ")).unwrap_or_default());
    match &spec.bindings {
        Bindings::Exported => tell("asked at", "its exports".to_owned()),
        Bindings::Listed(bindings) => {
            for it in bindings {
                let entry = it.entry.as_ref().map_or_else(String::new, |entry| format!(" as {entry}"));
                let place = format!("{}/{} {} {:?}", it.hook.name, it.phase, it.priority, it.on_fault);
                tell("asked at", format!("{place}{entry}"));
            }
        }
    }
    tell("elsewhere", spec.elsewhere.join(" "));
    let requested = spec.requested.as_ref();
    tell(
        "requested",
        requested.map_or_else(
            || "what it imports".to_owned(),
            |requested| requested.iter().map(|it| it.name()).collect::<Vec<_>>().join(" "),
        ),
    );
    tell("about", serde_json::to_string(&spec.about).unwrap());
    lines.retain(|line| !line.ends_with(": "));
    lines.join("\n")
}

/// Puts a document beside what it came to, paths below `dir` without it.
#[track_caller]
fn check(name: &str, document: &str, dir: &Path, resolved: Result<(Vec<PluginSpec>, Vec<Warning>), String>) {
    let resolved = match resolved {
        Ok((specs, warnings)) => {
            let specs = specs.iter().map(told);
            let warnings = warnings.into_iter().map(|warning| format!("warning: {}", warning.0));
            specs.chain(warnings).collect::<Vec<_>>().join("\n")
        }
        Err(error) => format!("error: {error}"),
    };
    let dir = dir.display().to_string();
    let told = format!("{document}\n----\n{resolved}").replace(&dir, "DIR");
    insta::assert_snapshot!(name, told);
}

fn path(path: PathBuf) -> Result<(Vec<PluginSpec>, Vec<Warning>), String> {
    resolve_path(&path, Owner::Folder)
        .map(|(spec, warnings)| (vec![spec], warnings))
        .map_err(|it| it.to_string())
}

#[test]
fn helios_plugin_yaml_wants_its_endpoint() {
    let text = seed("helios/plugin.yaml");
    let dir = folder(&[("custom-auth.wasm", EMPTY_MODULE), ("plugin.yaml", text.as_bytes())]);
    check("helios_plugin_yaml", &text, dir.path(), path(dir.path().join("custom-auth.wasm")));
}

#[test]
fn helios_plugin_toml() {
    let text = seed("helios/plugin.toml");
    let dir = folder(&[("cost.wasm", EMPTY_MODULE), ("cost.toml", text.as_bytes())]);
    check("helios_plugin_toml", &text, dir.path(), path(dir.path().join("cost.wasm")));
}

fn deployed(text: &str, dir: &Path) -> Result<HeliosDeployment, String> {
    let file: helios::File = document::parse(text, Format::Toml)?.ok_or("empty")?;
    resolve_helios(&file, dir)
}

#[test]
fn heliosproxy_toml() {
    let text = seed("helios/heliosproxy.toml");
    let plugin = seed("helios/plugin.yaml");
    let dir = folder(&[
        ("plugins/custom-auth/plugin.yaml", plugin.as_bytes()),
        ("plugins/custom-auth/custom-auth.wasm", EMPTY_MODULE),
        ("plugins/custom-cache.wasm", EMPTY_MODULE),
        ("plugins/custom-cache.toml", b"name = \"custom-cache\"\nversion = \"0.2.0\"\nhooks = [\"CacheGet\", \"cache_set\", \"metrics\"]\n"),
    ]);
    let there = text.replace("/etc/heliosproxy/plugins", "plugins");
    let resolved = deployed(&there, dir.path()).map(|found| {
        assert_eq!(found.broken, []);
        assert!(found.hot_reload && found.folder == dir.path().join("plugins"));
        (found.plugins, found.warnings)
    });
    check("heliosproxy_toml", &there, dir.path(), resolved);
    // As it stands, its folder is not here, which is said and stops nobody else.
    let found = deployed(&text, dir.path()).unwrap();
    assert_eq!(found.folder, Path::new("/etc/heliosproxy/plugins"));
    if !found.folder.exists() {
        assert!(
            found.broken[0]
                .problem
                .starts_with("plugins.plugin_dir: the folder /etc/heliosproxy/plugins cannot be read")
        );
    }
}

#[test]
fn cortexprism_manifest() {
    let text = seed("cortex.json");
    let dir = folder(&[("text_processor.wasm", EMPTY_MODULE), ("manifest.json", text.as_bytes())]);
    check("cortex_manifest", &text, dir.path(), path(dir.path().join("manifest.json")));
    for source in ["text_processor.wasm", ""] {
        let (specs, _) = path(dir.path().join(source)).unwrap();
        assert_eq!(specs[0].manifest, Some(dir.path().join("manifest.json")), "{source}");
    }
}

#[test]
fn llmproxy_manifest() {
    let text = seed("llmproxy.yaml");
    let module = fs::read(guests().join("prebuilt/llmproxy-template.wasm")).unwrap();
    let dir = folder(&[("plugins/wasm/my_plugin.wasm", &module)]);
    let document: llmproxy::Document = document::parse(&text, Format::Yaml).unwrap().unwrap();
    let entry = &document.into_entries()[0];
    let resolved = resolve_llmproxy(entry, &dir.path().join("plugins"));
    let resolved = resolved.map(|(spec, warnings)| (spec.into_iter().collect(), warnings));
    check("llmproxy_manifest", &text, dir.path(), resolved.map_err(|error| error.to_string()));
}

#[test]
fn smg_deploy_request() {
    let dir = folder(&[("my-component.component.wasm", EMPTY_MODULE)]);
    let text = seed("smg.json");
    let deploy = |text: &str| {
        let request: smg::DeployRequest = document::parse(text, Format::Json)?.ok_or("empty")?;
        let specs =
            request.modules.iter().map(|module| resolve_smg(module).map_err(|error| error.to_string()));
        Ok((specs.collect::<Result<Vec<_>, String>>()?, Vec::new()))
    };
    check("smg_deploy_elsewhere", &text, dir.path(), deploy(&text));
    let there = text.replace("/path/to", dir.path().to_str().unwrap());
    check("smg_deploy", &there, dir.path(), deploy(&there));
}

/// Extism's documentation has no example of a manifest; this is the one of its reference.
#[test]
fn extism_manifest() {
    let module = fs::read(guests().join("prebuilt/echo.wasm")).unwrap();
    let text = r#"{"wasm": [{"path": "echo.wasm"}], "allowed_hosts": [], "config": {"vowels": "aeiou"}}"#;
    let dir = folder(&[("echo-plugin.json", text.as_bytes()), ("echo.wasm", &module)]);
    check("extism_manifest", text, dir.path(), path(dir.path().join("echo-plugin.json")));
}

#[test]
fn kinds() {
    #[track_caller]
    fn check(text: &str, format: Format, kind: Option<Kind>) {
        assert_eq!(Kind::of(&document::value(text, format).unwrap().unwrap()), kind, "{text}");
    }
    check(&seed("helios/plugin.yaml"), Format::Yaml, Some(Kind::HeliosPlugin));
    check(&seed("helios/plugin.toml"), Format::Toml, Some(Kind::HeliosPlugin));
    check(&seed("helios/heliosproxy.toml"), Format::Toml, Some(Kind::HeliosConfig));
    check(&seed("cortex.json"), Format::Json, Some(Kind::Cortex));
    check(&seed("llmproxy.yaml"), Format::Yaml, Some(Kind::LlmProxy));
    check(&format!("plugins:\n{}", seed("llmproxy.yaml")), Format::Yaml, Some(Kind::LlmProxy));
    check(&seed("smg.json"), Format::Json, Some(Kind::SmgDeploy));
    check("{wasm: [{path: a.wasm}]}", Format::Yaml, Some(Kind::Extism));
    check("plugins: [{name: a, source: a.wasm}]", Format::Yaml, Some(Kind::Config));
    check("listen: 127.0.0.1:1", Format::Yaml, Some(Kind::Config));
    check("{name: a, version: 1.0.0, hooks: [http.request]}", Format::Yaml, Some(Kind::Plugin));
    check("{name: a, version: 1.0.0}", Format::Yaml, Some(Kind::Plugin));
    check("{name: a, version: 1.0.0, hooks: [Authenticate], abi: packed}", Format::Yaml, Some(Kind::Plugin));
    check("{name: a, version: 1.0.0, hooks: [PreQuery]}", Format::Yaml, Some(Kind::HeliosPlugin));
    check("{}", Format::Yaml, None);
    check("{colour: red}", Format::Yaml, None);
    check("text", Format::Yaml, None);
}

/// Both spellings, any letter case, any order: each hook once, and `rewrite` after `pre_query`. Metrics are about
/// requests, too.
#[test]
fn heliosproxy_hooks() {
    let manifest =
        b"name = \"a\"\nversion = \"1.0.0\"\nhooks = [\"Rewrite\", \"metrics\", \"auth\", \"PreQuery\", \
                     \"authenticate\", \"on_connect\"]\n";
    let dir = folder(&[("a.wasm", EMPTY_MODULE), ("a.toml", manifest)]);
    let (spec, _) = path(dir.path().join("a.wasm")).unwrap();
    assert_eq!(spec[0].dialect, Some(cardan_api::Dialect::HeliosProxy));
    let Bindings::Listed(bindings) = &spec[0].bindings else { panic!("{:?}", spec[0].bindings) };
    let places: Vec<_> =
        bindings.iter().map(|it| (it.hook.name, it.entry.as_deref().unwrap_or_default())).collect();
    assert_eq!(
        places,
        [
            ("sql.query", "pre_query"),
            ("sql.query", "rewrite"),
            ("sql.result", "metrics"),
            ("http.complete", "metrics"),
            ("access.authenticate", "authenticate"),
        ]
    );
    assert_eq!(spec[0].elsewhere, ["sql.query", "sql.result", "access.authenticate", "on_connect"]);
}
