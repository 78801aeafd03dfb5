//! The admin API of a gateway that is served: where it listens, who gets in, and its configuration.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::changes;
use crate::client::{Client, block_on, http};
use crate::process::{Finished, PATIENCE, Server, cardan, finish, guest};

pub(crate) const TOKEN: &str = "a-secret-of-the-operator";

/// A gateway with an admin API at a port of its own.
pub(crate) struct Operated {
    pub(crate) dir: TempDir,
    pub(crate) server: Server,
    pub(crate) admin: SocketAddr,
}

impl Operated {
    /// With these keys beside a route to the builtin upstream and a prompt guard.
    pub(crate) fn with(keys: &Value) -> Self {
        Self::prepared(keys, |_| {})
    }

    /// The same in a directory in which something is made first.
    pub(crate) fn prepared(keys: &Value, prepare: impl FnOnce(&Path)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        prepare(dir.path());
        write(dir.path(), keys);
        Self::start(dir, &[])
    }

    /// Over what is in a directory.
    pub(crate) fn start(dir: TempDir, arguments: &[&str]) -> Self {
        let server = Server::start(&mut served(dir.path(), arguments));
        let line = server.wait_for(0, "admin API");
        let admin = line.rsplit_once("address=").unwrap().1.trim().parse().unwrap();
        Self { dir, server, admin }
    }

    /// Runs a verb against it.
    pub(crate) fn run(&self, arguments: &[&str]) -> Finished {
        self.run_with(arguments, b"")
    }

    pub(crate) fn run_with(&self, arguments: &[&str], input: &[u8]) -> Finished {
        let mut command = cardan();
        command
            .args(arguments)
            .env("CARDAN_SERVER", format!("http://{}", self.admin))
            .current_dir(self.dir.path());
        finish(&mut command, input)
    }

    pub(crate) fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }
}

/// The command that serves what is in a directory.
fn served(dir: &Path, arguments: &[&str]) -> Command {
    let mut command = cardan();
    command.args(["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--config"]);
    command.arg(dir.join("cardan.yaml")).args(arguments).env("OPERATORS_TOKEN", TOKEN);
    command.env("XDG_STATE_HOME", dir.join("state"));
    command
}

/// The configuration with these keys, as JSON, which is YAML.
pub(crate) fn write(dir: &Path, keys: &Value) {
    let mut document = json!({
        "upstreams": [{ "name": "a", "builtin": {} }],
        "routes": [{ "path": "/", "upstream": "a" }],
        "plugins": [{ "name": "guard", "source": guest("prompt-guard.wasm"), "config": { "key": "hunter2" } }],
    });
    for (key, value) in keys.as_object().unwrap() {
        document[key] = value.clone();
    }
    fs::write(dir.join("cardan.yaml"), document.to_string()).unwrap();
}

fn refused(keys: &Value, code: i32, says: &[&str]) {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), keys);
    let mut command = cardan();
    command.args(["serve", "--listen", "127.0.0.1:0", "--config"]).arg(dir.path().join("cardan.yaml"));
    let run = finish(&mut command, b"");
    assert_eq!(run.code, Some(code), "{run:?}");
    for words in says {
        assert!(run.stderr.contains(words), "{words:?} is not in {run:?}");
    }
}

#[test]
fn what_is_no_admin_api() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let token = |more: Value| {
        let mut token = json!({ "name": "ada", "role": "admin" });
        token.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({ "admin": { "tokens": [token] } })
    };
    refused(
        &json!({ "admin": { "listen": "0.0.0.0:0" } }),
        2,
        &["admin.listen", "add one under admin.tokens"],
    );
    refused(&json!({ "admin": { "listen": "[::]:0" } }), 2, &["can be reached from other machines"]);
    refused(&json!({ "admin": { "listen": "here" } }), 2, &["admin.listen", "127.0.0.1:8081"]);
    refused(&json!({ "admin": { "listen": taken } }), 1, &["admin API", "--admin-listen"]);
    refused(&token(json!({ "token": "short" })), 2, &["admin.tokens: ada", "openssl rand -hex 32"]);
    refused(&token(json!({ "token": "${NOT_SET_ANYWHERE}" })), 2, &["admin.tokens: ada", "NOT_SET_ANYWHERE"]);
    refused(&token(json!({ "token_file": "missing" })), 2, &["admin.tokens: ada", "missing"]);
    refused(&token(json!({})), 2, &["either `token` or `token_file`"]);
    refused(&token(json!({ "token": TOKEN, "role": "root" })), 2, &["role", "viewer"]);
    refused(&json!({ "telemetry": { "otlp": { "endpoint": "nowhere" } } }), 2, &["telemetry.otlp.endpoint"]);
}

/// Also the usual state directory holds what operators did. To start without it would be to forget a guard.
#[test]
fn state_that_is_there_counts() {
    let house = Operated::with(&json!({}));
    let second = || served(house.dir.path(), &[]);
    let run = finish(&mut second(), b"");
    assert_eq!(run.code, Some(2), "{run:?}");
    assert!(run.stderr.contains("in use by another process"), "{run:?}");
    assert!(run.took > Duration::from_secs(4), "it is waited for: {run:?}");
    // One that ends meanwhile leaves it.
    let next = std::thread::scope(|scope| {
        let mut next = second();
        let next = scope.spawn(move || Server::start(&mut next));
        std::thread::sleep(Duration::from_secs(1));
        house.server.signal(rustix::process::Signal::TERM);
        next.join().unwrap()
    });
    next.wait_for(0, "admin API");
    next.signal(rustix::process::Signal::TERM);
    assert_eq!(next.ended().0, Some(0));
    let cardan = fs::read_dir(house.path("state/cardan")).unwrap().next().unwrap().unwrap().path();
    fs::write(cardan.join("state.json"), "{").unwrap();
    let run = finish(&mut second(), b"");
    assert_eq!(run.code, Some(2), "{run:?}");
    assert!(run.stderr.contains("state.json"), "{run:?}");
}

/// What an operator loaded may have been a guard: a start without it takes a word.
#[test]
fn a_plugin_that_is_lost_is_forgotten_on_request() {
    let house = Operated::with(&json!({ "state": { "dir": "state" } }));
    let file = house.path("stamp.wat");
    changes::write(&file, &changes::stamping(1));
    assert_eq!(house.run(&["load", file.to_str().unwrap()]).code, Some(0));
    house.server.signal(Signal::KILL);
    let Operated { dir, server, .. } = house;
    server.ended();
    fs::remove_file(&file).unwrap();
    fs::remove_dir_all(dir.path().join("state/artifacts")).unwrap();
    for arguments in [&[][..], &["--forget", "another"]] {
        let run = finish(&mut served(dir.path(), arguments), b"");
        assert_eq!(run.code, Some(2), "{run:?}");
        assert!(run.stderr.contains("--forget stamp"), "{run:?}");
    }
    let house = Operated::start(dir, &["--forget", "stamp"]);
    house.server.wait_for(0, "forgotten");
    assert_eq!(house.run(&["get", "plugins", "-o", "name"]).text(), "guard\n");
    // Once is enough.
    house.server.signal(Signal::TERM);
    let Operated { dir, server, .. } = house;
    assert_eq!(server.ended().0, Some(0));
    let house = Operated::start(dir, &[]);
    assert_eq!(house.run(&["get", "plugins", "-o", "name"]).text(), "guard\n");
}

/// A signal while the configuration is replaced through the API: clients meet one configuration or the other, and
/// in the end the one that the file has.
#[test]
fn a_hangup_while_the_configuration_is_replaced() {
    const ROUNDS: u32 = 30;
    let of = |n: u32| {
        let plugins = ["one", "other"].map(|name| {
            json!({ "name": name, "source": format!("{name}-{n}.wat"), "limits": { "deadline": "20s" } })
        });
        json!({ "plugins": plugins })
    };
    let house = Operated::prepared(&of(0), |dir| {
        for n in 0..=ROUNDS {
            for name in ["one", "other"] {
                let module = changes::stamping_as(&format!("x-{name}"), n);
                changes::write(&dir.join(format!("{name}-{n}.wat")), &module);
            }
        }
    });
    let over = Arc::new(AtomicBool::new(false));
    let asking = std::thread::spawn({
        let (address, over) = (house.server.address, over.clone());
        move || {
            block_on(async {
                let client = Client::new(address);
                while !over.load(Ordering::Relaxed) {
                    let answer = client.send("GET", "/v1/models", String::new()).await.unwrap();
                    let stamp = |name| answer.headers()[name].to_str().unwrap().to_owned();
                    assert_eq!(stamp("x-one"), stamp("x-other"), "half of a configuration");
                }
            });
        }
    });
    let url = format!("http://{}/api/v1/config", house.admin);
    let text = |n: u32| {
        let text = fs::read_to_string(house.path("cardan.yaml")).unwrap();
        text.replace(&format!("-{}.wat", n - 1), &format!("-{n}.wat"))
    };
    let reloads = || house.server.log().matches("plugins generation=").count();
    let (began, mut took) = (Instant::now(), Duration::from_millis(50));
    for n in 1..=ROUNDS {
        let etag = block_on(async { http().get(&url).send().await.unwrap() }).headers()["etag"].clone();
        let text = text(n);
        let put = http().put(&url).header("content-type", "application/yaml").header("if-match", etag);
        let put = put.body(text.clone());
        let before = reloads();
        let put = std::thread::spawn(move || {
            let began = Instant::now();
            (block_on(async { put.send().await.unwrap().status() }), began.elapsed())
        });
        std::thread::sleep(took * (n % 10) / 10);
        // One alone: another one would mend what this one spoilt.
        house.server.signal(Signal::HUP);
        let (status, elapsed) = put.join().unwrap();
        assert_eq!(status, 200, "{}", house.server.log());
        took = elapsed;
        while reloads() < before + 2 {
            assert!(began.elapsed() < PATIENCE, "{}", house.server.log());
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(fs::read_to_string(house.path("cardan.yaml")).unwrap(), text);
        let answer = block_on(Client::new(house.server.address).send("GET", "/v1/models", String::new()));
        assert_eq!(answer.unwrap().headers()["x-one"], n.to_string(), "the later one does not hold");
    }
    over.store(true, Ordering::Relaxed);
    asking.join().unwrap();
}

#[test]
fn off_or_elsewhere() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), &json!({ "admin": { "listen": "127.0.0.1:1" } }));
    let config = dir.path().join("cardan.yaml");
    let mut command = cardan();
    command.args(["serve", "--listen", "127.0.0.1:0", "--admin-listen", "off", "--config"]).arg(config);
    let server = Server::start(&mut command);
    assert!(!server.log().contains("admin API"), "{}", server.log());
}

#[test]
fn tokens_come_from_the_environment_and_files_and_change() {
    let file = "a-token-that-lies-in-a-file";
    let keys = |role: &str| {
        let tokens = json!([
            { "name": "ada", "role": role, "token": "${OPERATORS_TOKEN}" },
            { "name": "file", "role": "viewer", "token_file": "token" },
        ]);
        json!({ "admin": { "tokens": tokens } })
    };
    // The file has to be there before the start.
    let first =
        json!({ "admin": { "tokens": [{ "name": "ada", "role": "admin", "token": "${OPERATORS_TOKEN}" }] } });
    let house = Operated::with(&first);
    fs::write(house.path("token"), format!("{file}\n")).unwrap();
    let denied = house.run(&["get", "plugins"]);
    assert_eq!(denied.code, Some(4), "{denied:?}");
    assert!(denied.stderr.contains("--token-file"), "{denied:?}");
    assert_eq!(house.run(&["get", "plugins", "--token", TOKEN]).code, Some(0));
    write(house.dir.path(), &keys("operator"));
    let from = house.server.logged();
    house.server.signal(Signal::HUP);
    house.server.wait_for(from, "generation=2");
    let lesser = house.run(&["load", "x.wasm", "--token", TOKEN]);
    assert!(lesser.code == Some(4) && lesser.stderr.contains("this takes admin"), "{lesser:?}");
    assert_eq!(house.run(&["get", "plugins", "--token-file", "token"]).code, Some(0));
    let config = house.run(&["get", "config", "-o", "json", "--token-file", "token"]);
    assert!(config.code == Some(0) && !config.text().contains("hunter2"), "{config:?}");
    let log = house.server.log();
    assert!(!log.contains(TOKEN) && !log.contains(file) && log.contains("refused"), "{log}");
}

#[test]
fn the_configuration_is_replaced_whole_or_not_at_all() {
    let house = Operated::with(&json!({}));
    block_on(async {
        let client = http();
        let url = format!("http://{}/api/v1/config", house.admin);
        let gateway = Client::new(house.server.address);
        let first = client.get(&url).send().await.unwrap();
        let etag = first.headers()["etag"].to_str().unwrap().to_owned();
        let text = first.json::<Value>().await.unwrap()["text"].as_str().unwrap().to_owned();
        assert!(text.contains("hunter2"));
        let put = |query: &str, etag: &str, text: String| {
            let request = client.put(format!("{url}{query}")).header("content-type", "application/yaml");
            request.header("if-match", etag).body(text).send()
        };
        let status = async |path: &str| gateway.fetch("GET", path, String::new()).await.unwrap().status;
        let models = "/v1/models";
        assert_eq!(status(models).await, 200);
        let moved = text.replace("\"path\":\"/\"", "\"path\":\"/below\",\"rewrite\":\"/\"");
        let dry = put("?dry_run=1", "", moved.clone()).await.unwrap();
        assert_eq!((dry.status().as_u16(), status(models).await), (200, 200));
        for wrong in [text.replace("\"upstream\":\"a\"", "\"upstream\":\"b\""), "[".to_owned(), String::new()]
        {
            let answer = put("", &etag, wrong).await.unwrap();
            assert_eq!(answer.status(), 422, "{}", answer.text().await.unwrap());
        }
        let missing = text.replace("prompt-guard.wasm", "missing.wasm");
        assert_eq!(put("?dry_run=1", "", missing.clone()).await.unwrap().status(), 422);
        assert_eq!(put("", &etag, missing).await.unwrap().status(), 422);
        let fixed = put("", &etag, text.replace("\"routes\"", "\"engine\":{\"instances\":7},\"routes\""))
            .await
            .unwrap();
        assert_eq!(fixed.status(), 422);
        assert_eq!(
            (fs::read_to_string(house.path("cardan.yaml")).unwrap(), status(models).await),
            (text.clone(), 200)
        );
        let done = put("", &etag, moved.clone()).await.unwrap();
        let second = done.headers()["etag"].to_str().unwrap().to_owned();
        assert_eq!(done.status(), 200);
        assert_eq!((status(models).await, status("/below/v1/models").await), (404, 200));
        assert_eq!(fs::read_to_string(house.path("cardan.yaml")).unwrap(), moved);
        assert_eq!(put("", &etag, text.clone()).await.unwrap().status(), 412);
        fs::rename(house.path("cardan.yaml"), house.path("real.yaml")).unwrap();
        std::os::unix::fs::symlink("real.yaml", house.path("cardan.yaml")).unwrap();
        let linked = put("", &second, text).await.unwrap();
        assert_eq!(linked.status(), 409);
        assert!(linked.text().await.unwrap().contains("symbolic link"));
        let left: Vec<_> =
            fs::read_dir(house.dir.path()).unwrap().map(|it| it.unwrap().file_name()).collect();
        assert_eq!(left.len(), 3, "no half-written file is left: {left:?}");
    });
}

/// The real store, on disk, under HeliosProxy's routes.
#[test]
fn stored_values() {
    let house = Operated::with(&json!({}));
    block_on(async {
        let url = |path: &str| format!("http://{}/admin/kv/guard/{path}", house.admin);
        let get =
            async |path: &str| http().get(url(path)).send().await.unwrap().json::<Value>().await.unwrap();
        for key in ["a", "b/c", "d"] {
            let put = http().put(url(key)).body(format!("value of {key}")).send().await.unwrap();
            assert_eq!(put.text().await.unwrap(), r#"{"ok":true}"#);
        }
        assert_eq!(get("b/c").await, json!({ "plugin": "guard", "key": "b/c", "value": "value of b/c" }));
        assert_eq!(http().delete(url("a")).send().await.unwrap().status(), 200);
        assert_eq!(get("").await, json!({ "plugin": "guard", "keys": ["b/c", "d"] }));
        assert_eq!(http().get(url("a")).send().await.unwrap().status(), 404);
        let big = http().put(url("big")).body(vec![b'x'; 70_000]).send().await.unwrap();
        assert_eq!(big.status(), 413);
    });
}
