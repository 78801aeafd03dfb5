//! LLMProxy's manifests as they stand in the wild, its plugins folder as it is laid out there, and what
//! its rings promise, seen by a client.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::client::{Answer, Client, block_on};
use crate::process::{Finished, Server, cardan, finish, guest};

/// The entry of LLMProxy's documentation, byte for byte: `shared/seeds/000`, section "Registration".
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

/// The same with the indentation that the seed's plain text lost, which YAML needs.
const ENTRY: &str = r#"- name: "My WASM Plugin"
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

const GATEWAY: &str = "upstreams: [{name: echo, builtin: {pace: 0}}]\nroutes: [{path: /, upstream: echo}]\n";

/// A deployment of LLMProxy's: its manifests and its plugins below `plugins/`.
struct Deployment(TempDir);

impl Deployment {
    fn new(manifest: &str) -> Self {
        let it = Self(tempfile::tempdir().unwrap());
        it.write("plugins/manifest.yaml", manifest);
        it.config("[plugins/manifest.yaml]");
        it
    }

    fn config(&self, manifests: &str) {
        self.write("cardan.yaml", &format!("{GATEWAY}llmproxy: {{manifests: {manifests}}}\n"));
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn install(self, module: &str, path: &str) -> Self {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::copy(guest(module), path).unwrap();
        self
    }

    fn path(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    fn validate(&self) -> Finished {
        let config = self.path("cardan.yaml");
        finish(cardan().args(["validate", "-o", "json", "--config"]).arg(config), b"")
    }

    fn serve(&self) -> Server {
        Server::serve(&self.path("cardan.yaml"))
    }
}

#[track_caller]
fn check_valid(deployment: &Deployment, plugins: &[&str]) -> Value {
    let validated = deployment.validate();
    assert_eq!(validated.code, Some(0), "{validated:?}");
    let document = validated.json();
    assert_eq!(document["plugins"], json!(plugins), "{document:#}");
    document["warnings"].clone()
}

#[track_caller]
fn check_invalid(deployment: &Deployment, says: &[&str]) {
    let validated = deployment.validate();
    assert_eq!(validated.code, Some(2), "{validated:?}");
    let error = validated.json()["error"].as_str().unwrap().to_owned();
    for words in says {
        assert!(error.contains(words), "{words}\n  is not in: {error}");
    }
}

fn chat(server: &Server, text: &str) -> Answer {
    block_on(Client::new(server.address).chat("/v1/chat/completions", text)).unwrap()
}

/// An entry of the zoo plugin.
fn zoo(name: &str, hook: &str, priority: i32, config: Value) -> String {
    let entry = json!({
        "name": name, "hook": hook, "priority": priority, "type": "wasm", "timeout_ms": 5000,
        "entrypoint": "wasm/zoo", "config": config,
    });
    format!("- {entry}\n")
}

#[test]
fn the_entry_of_the_documentation() {
    let stripped: String = ENTRY.lines().map(|line| line.trim_start().to_owned() + "\n").collect();
    assert_eq!(stripped, SEED, "no more than indentation may differ");
    for module in ["llmproxy-template.wasm", "llmproxy-template-unknown.wasm"] {
        for manifest in
            [ENTRY.to_owned(), format!("plugins:\n{ENTRY}"), format!("plugins:\n{}", indented(ENTRY))]
        {
            let deployment = Deployment::new(&manifest).install(module, "plugins/wasm/my_plugin.wasm");
            assert_eq!(check_valid(&deployment, &["My WASM Plugin"]), json!([]), "{manifest}");
        }
        let deployment = Deployment::new(ENTRY).install(module, "plugins/wasm/my_plugin.wasm");
        let server = deployment.serve();
        let answer = chat(&server, "Hello");
        assert_eq!((answer.status, answer.text().as_str()), (200, "You said: Hello"), "{answer:?}");
        assert!(!server.log().contains("WARN"), "{}", server.log());
    }
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("  {line}\n")).collect()
}

#[test]
fn three_spellings_of_an_entry_point() {
    for spelling in ["plugins/wasm/my_plugin.wasm", "wasm/my_plugin.wasm", "wasm/my_plugin", "wasm.my_plugin"]
    {
        let manifest = ENTRY.replace("plugins/wasm/my_plugin.wasm", spelling);
        let deployment =
            Deployment::new(&manifest).install("llmproxy-template.wasm", "plugins/wasm/my_plugin.wasm");
        check_valid(&deployment, &["My WASM Plugin"]);
    }
    for (spelling, says) in [
        ("../outside.wasm", "leaves the plugins folder"),
        ("/etc/passwd", "leaves the plugins folder"),
        ("linked.wasm", "leaves the plugins folder"),
        ("wasm/nobody", "is no file; tried"),
    ] {
        let manifest = ENTRY.replace("plugins/wasm/my_plugin.wasm", spelling);
        let deployment = Deployment::new(&manifest).install("llmproxy-template.wasm", "outside.wasm");
        std::os::unix::fs::symlink(deployment.path("outside.wasm"), deployment.path("plugins/linked.wasm"))
            .unwrap();
        check_invalid(&deployment, &["plugin My WASM Plugin: entrypoint: ", says]);
    }
    // Without a type, the entry point tells.
    let untyped = ENTRY.replace("  type: \"wasm\"\n", "");
    let deployment =
        Deployment::new(&untyped).install("llmproxy-template.wasm", "plugins/wasm/my_plugin.wasm");
    check_valid(&deployment, &["My WASM Plugin"]);
}

#[test]
fn what_is_not_webassembly_is_named_not_dropped() {
    let manifest = format!(
        "{ENTRY}{}",
        r#"
- name: "Budget Guard"
  hook: ingress
  type: python
  entrypoint: "plugins.default.budget:BudgetGuard"
- name: "Token Counter"
  hook: background
  entrypoint: "plugins.marketplace.tokens:TokenCounter"
- name: "Switched Off"
  hook: routing
  type: python
  enabled: false
  entrypoint: "plugins.default.router:Router"
- name: "With Extras"
  hook: post_flight
  type: wasm
  entrypoint: wasm/my_plugin
  version: 1.0
  author: Ada
  description: "all that LLMProxy knows"
  fail_policy: open
  allow_inprocess: true
  ui_schema: [{key: my_setting, type: string, label: Setting, default: value}]
  sha_256: typo
"#
    );
    let deployment =
        Deployment::new(&manifest).install("llmproxy-template.wasm", "plugins/wasm/my_plugin.wasm");
    let warnings = check_valid(&deployment, &["My WASM Plugin", "With Extras"]);
    let warnings: Vec<&str> = warnings.as_array().unwrap().iter().map(|it| it.as_str().unwrap()).collect();
    assert_eq!(warnings.len(), 3, "{warnings:#?}");
    for (warning, says) in warnings.iter().zip([
        "plugin Budget Guard: it is written in Python",
        "plugin Token Counter: it is written in Python",
        "plugin With Extras: LLMProxy's manifest has no key \"sha_256\"",
    ]) {
        assert!(warning.contains(says), "{warning}");
    }
    let server = deployment.serve();
    server.wait_for(0, "plugin Budget Guard: it is written in Python");
}

#[test]
fn installed_manifests_override_bundled_ones() {
    let bundled = zoo("Guard", "pre_flight", 10, json!({ "behave": "block", "message": "bundled" }))
        + &zoo("Other", "pre_flight", 20, json!({}));
    let installed =
        zoo("Guard", "pre_flight", 10, json!({ "behave": "block", "message": "installed", "code": 429 }));
    let deployment = Deployment::new(&bundled).install("llmproxy-zoo.wasm", "plugins/wasm/zoo.wasm");
    let answer = chat(&deployment.serve(), "Hello");
    assert_eq!((answer.status, &answer.json()["error"]["message"]), (403, &json!("bundled")), "{answer:?}");
    deployment.write("plugins/installed/manifest.yaml", &installed);
    deployment.config("[plugins/manifest.yaml, plugins/installed/manifest.yaml]");
    check_valid(&deployment, &["Guard", "Other"]);
    let answer = chat(&deployment.serve(), "Hello");
    assert_eq!((answer.status, &answer.json()["error"]["message"]), (429, &json!("installed")), "{answer:?}");
}

/// A request goes through ingress, pre_flight and routing, in order of priority within each, whatever the
/// order in the file. The first that stops it answers.
#[test]
fn rings_in_order() {
    let stop = |name: &str, hook: &str, priority: i32| {
        zoo(name, hook, priority, json!({ "behave": "block", "message": name }))
    };
    let mask = |name: &str, hook: &str, priority: i32| {
        zoo(name, hook, priority, json!({ "behave": "mask", "text": name }))
    };
    let rows = [
        // The entries as in the file, and what a client sees.
        (vec![stop("routing", "routing", 1), stop("pre", "pre_flight", 50), stop("in", "ingress", 99)], "in"),
        (
            vec![
                stop("routing", "routing", 1),
                stop("pre 2", "pre_flight", 9),
                stop("pre 1", "pre_flight", -5),
            ],
            "pre 1",
        ),
        (vec![stop("first", "pre_flight", 5), stop("second", "pre_flight", 5)], "first"),
        (vec![mask("late", "routing", 0), mask("later", "routing", 1), mask("early", "ingress", 9)], "later"),
        (vec![mask("pre", "pre_flight", 0), mask("in", "ingress", 0)], "pre"),
    ];
    for (entries, seen) in rows {
        let deployment =
            Deployment::new(&entries.concat()).install("llmproxy-zoo.wasm", "plugins/wasm/zoo.wasm");
        let answer = chat(&deployment.serve(), "Hello");
        let said = match answer.status {
            200 => answer.text(),
            _ => format!("You said: {}", answer.json()["error"]["message"].as_str().unwrap()),
        };
        assert_eq!(said, format!("You said: {seen}"), "{answer:?}");
    }
}

/// What a ring's fault does where the manifest names no policy, and the status of its refusals.
#[test]
fn rings_fail_as_they_are_documented() {
    let trap = json!({ "behave": "trap" });
    for (hook, status) in
        [("ingress", 503), ("pre_flight", 503), ("routing", 503), ("post_flight", 200), ("background", 200)]
    {
        check_status(&zoo("Traps", hook, 1, trap.clone()), status);
    }
    let open = |hook: &str| {
        zoo("Traps", hook, 1, trap.clone()).replace("\"name\"", "\"fail_policy\":\"open\",\"name\"")
    };
    let closed = |hook: &str| open(hook).replace("open", "closed");
    check_status(&open("pre_flight"), 200);
    check_status(&closed("post_flight"), 503);
    check_status(&zoo("Cached", "pre_flight", 1, json!({ "behave": "cache_hit" })), 200);
    check_status(&zoo("Blocks", "post_flight", 1, json!({ "behave": "block", "code": 451 })), 451);
    check_status(&zoo("Canary", "post_flight", 1, json!({ "behave": "canary", "canary": "Hello" })), 403);
}

#[track_caller]
fn check_status(manifest: &str, status: u16) {
    let deployment = Deployment::new(manifest).install("llmproxy-zoo.wasm", "plugins/wasm/zoo.wasm");
    let answer = chat(&deployment.serve(), "Hello");
    assert_eq!(answer.status, status, "{manifest}: {answer:?}");
}
