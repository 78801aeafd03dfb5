//! Manifests and configuration files of other systems, as they stand, given to the product.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::client::get;
use crate::process::{Finished, Server, cardan, finish, guest, root};

fn seed(name: &str) -> String {
    fs::read_to_string(root().join("crates/cardan-manager/tests/fixtures/seeds").join(name)).unwrap()
}

struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    fn write(&self, path: &str, content: impl AsRef<[u8]>) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn guest(&self, path: &str, name: &str) {
        self.write(path, fs::read(guest(name)).unwrap());
    }

    fn serve(&self, config: &str) -> Server {
        let mut command = cardan();
        command.args(["serve", "--listen", "127.0.0.1:0", "--config"]).arg(self.path(config));
        Server::start(command.env("STATE_DIRECTORY", self.path("state")))
    }

    fn run(&self, arguments: &[&str]) -> Finished {
        finish(cardan().current_dir(self.0.path()).args(arguments), b"")
    }
}

/// The seed's file, with the folder that it names in a place where there can be one.
fn heliosproxy(place: &Place) -> String {
    let folder = place.path("plugins").display().to_string();
    seed("helios/heliosproxy.toml").replace("/etc/heliosproxy/plugins", &folder)
}

#[test]
fn heliosproxy_toml_is_served() {
    let place = Place::new();
    place.write(
        "heliosproxy.toml",
        heliosproxy(&place).replace("https://auth.internal/validate\"", "x\", keys = { k = \"ada\" }"),
    );
    place.write(
        "plugins/custom-auth.yaml",
        "{name: custom-auth, version: 1.0.0, hooks: [{hook: http.request, body: none}]}",
    );
    place.guest("plugins/custom-auth.wasm", "api-key.wasm");
    let server = place.serve("heliosproxy.toml");
    server.wait_for(
        0,
        "it has no routes, so requests that no plugin answers get 404; to send them on, write a cardan.yaml",
    );
    assert_eq!(get(server.address, "/").0, 401, "{}", server.log());
    // It says `hot_reload = true`. What comes later is asked too, and what is broken is told.
    let from = server.logged();
    place.write("plugins/late.yaml", "{name: late, version: 1}");
    place.guest("plugins/late.wasm", "api-key.wasm");
    server.wait_for(from, "no semantic version");
    assert_eq!(get(server.address, "/").0, 401);
}

/// As it stands, its folder is not here: the product starts and says so.
#[test]
fn heliosproxy_toml_as_it_stands() {
    if Path::new("/etc/heliosproxy").exists() {
        return;
    }
    let place = Place::new();
    place.write("heliosproxy.toml", seed("helios/heliosproxy.toml"));
    let server = place.serve("heliosproxy.toml");
    server.wait_for(0, "plugins.plugin_dir: the folder /etc/heliosproxy/plugins cannot be read");
    assert_eq!(get(server.address, "/").0, 404);
}

#[test]
fn llmproxy_manifest_is_served() {
    let place = Place::new();
    place.write("manifest.yaml", seed("llmproxy.yaml"));
    place.guest("plugins/wasm/my_plugin.wasm", "llmproxy-template.wasm");
    let server = place.serve("manifest.yaml");
    server.wait_for(0, "to send them on, write a cardan.yaml with `upstreams`, `routes` and `llmproxy: ");
    server.wait_for(0, "My WASM Plugin");
    assert_eq!(get(server.address, "/").0, 404);
}

#[test]
fn plugin_dir_is_served() {
    let place = Place::new();
    place.write(
        "cardan.yaml",
        "plugin_dir: plugins\nplugins: [{name: off, source: plugins/off.wasm, enabled: false}]",
    );
    place.write("plugins/key/plugin.yaml", "{name: key, version: 1.0.0, hooks: [http.request], config_schema: {keys: {type: object, default: {k: ada}}}}");
    place.guest("plugins/key/key.wasm", "api-key.wasm");
    place.write("plugins/off.wasm", "(module (start $loop) (func $loop (loop (br 0))))");
    let server = place.serve("cardan.yaml");
    assert_eq!(get(server.address, "/").0, 401, "{}", server.log());
    place.write("cardan.yaml", "plugin_dir: nowhere");
    let refused = place.run(&["validate"]);
    assert!(
        refused.stderr.contains("cardan.yaml: plugin_dir: the folder nowhere cannot be read"),
        "{refused:?}"
    );
}

/// Each document with the files it is about, and what is said about it.
#[test]
fn documents_are_told_apart() {
    #[track_caller]
    fn check(place: &Place, file: &str, kind: &str, loads: Result<&[&str], &str>) {
        let run = place.run(&["validate", "-o", "json", "--config", file]);
        let told = run.json();
        match loads {
            Ok(plugins) => {
                assert_eq!((run.code, &told["kind"]), (Some(0), &json!(kind)), "{file}: {run:?}");
                assert_eq!(told["plugins"], json!(plugins), "{file}: {run:?}");
            }
            Err(says) => {
                assert_eq!(run.code, Some(2), "{file}: {run:?}");
                assert!(told["error"].as_str().unwrap().contains(says), "{file}: {told}");
            }
        }
    }
    let place = Place::new();
    place.guest("echo.wasm", "echo.wasm");
    place.write("echo.yaml", "{name: echo, version: 1.0.0, hooks: [llm.guard]}");
    check(&place, "echo.yaml", "plugin", Ok(&["echo"]));
    place.write("echo.yaml", "{name: echo, version: 1.0.0, dialect: cardan, hooks: [tool.call]}");
    check(&place, "echo.yaml", "plugin", Err("it has no export that answers tool.call"));
    place.write("extism.json", r#"{"wasm": [{"path": "echo.wasm"}]}"#);
    check(&place, "extism.json", "extism", Err("it has no export that any hook could be asked at"));
    place.write("text_processor.wasm", b"\0asm\x01\0\0\0");
    place.write("cortex.json", seed("cortex.json"));
    check(&place, "cortex.json", "cortex", Err("it has no export that answers tool.call"));
    place.write("cost/cost.wasm", b"\0asm\x01\0\0\0");
    place.write("cost/plugin.toml", seed("helios/plugin.toml"));
    check(&place, "cost/plugin.toml", "helios-plugin", Err("it has no export that answers pre_query"));
    place.write("auth/custom-auth.wasm", b"\0asm\x01\0\0\0");
    place.write("auth/plugin.yaml", seed("helios/plugin.yaml"));
    check(
        &place,
        "auth/plugin.yaml",
        "helios-plugin",
        Err("config.auth_endpoint: is required: URL of internal auth service"),
    );
    place.guest("plugins/wasm/my_plugin.wasm", "llmproxy-template.wasm");
    place.write("manifest.yaml", seed("llmproxy.yaml"));
    check(&place, "manifest.yaml", "llmproxy", Ok(&["My WASM Plugin"]));
    fs::create_dir(place.path("empty")).unwrap();
    place.write("heliosproxy.toml", heliosproxy(&place).replace("/plugins\"", "/empty\""));
    check(&place, "heliosproxy.toml", "helios-config", Ok(&[]));
    place.write("deploy.json", seed("smg.json"));
    check(&place, "deploy.json", "smg-deploy", Err("/path/to/my-component.component.wasm"));
    let module = place.path("pii.wasm").display().to_string();
    place.guest("pii.wasm", "pii-mask.wasm");
    place.write("deploy.json", seed("smg.json").replace("/path/to/my-component.component.wasm", &module));
    check(&place, "deploy.json", "smg-deploy", Ok(&["my-middleware"]));
    for (file, kind) in [("echo.yaml", "a plugin's manifest"), ("deploy.json", "a deploy request of SMG")] {
        let run = place.run(&["serve", "--config", file]);
        assert_eq!(run.code, Some(2), "{run:?}");
        assert!(run.stderr.contains(&format!("{file} is {kind}, and no configuration")), "{run:?}");
    }
}

#[test]
fn manifests_are_inspected() {
    let place = Place::new();
    place.guest("mask.wasm", "pii-mask.wasm");
    place.write("mask.yaml", "{name: mask, version: 2.0.0, description: Masks, hooks: [http.request, llm.guard], permissions: [http]}");
    for source in ["mask.wasm", "mask.yaml", "."] {
        let run = place.run(&["inspect", source]);
        for row in [
            "manifest  ",
            "name      mask 2.0.0\n",
            "about     Masks\n",
            "asked at  http.request\n",
            "wants     http\n",
        ] {
            assert!(run.text().contains(row), "{source}: {row:?}: {run:?}");
        }
        assert!(run.text().contains("no listener of this process asks at llm.guard yet"), "{run:?}");
        let told = place.run(&["inspect", "-o", "json", source]).json();
        assert_eq!(
            (&told["manifest"]["name"], &told["manifest"]["asked_elsewhere"]),
            (&json!("mask"), &json!(["llm.guard"]))
        );
    }
    place.write("mask.yaml", "{name: mask, version: 2}");
    let run = place.run(&["inspect", "mask.wasm"]);
    assert!(run.code == Some(0) && run.text().contains("manifest  broken: mask.yaml: version: "), "{run:?}");
    fs::remove_file(place.path("mask.yaml")).unwrap();
    assert_eq!(place.run(&["inspect", "-o", "json", "mask.wasm"]).json()["manifest"], Value::Null);
}
