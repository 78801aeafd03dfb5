//! What stands behind plugins' grants, as an operator configures it.

use std::fs;
use std::path::Path;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::admin::{self, Operated};
use crate::client::{Client, block_on, get, http};
use crate::process::{Server, cardan, finish};

/// Answers every request with how many it has answered, or with a secret.
pub(crate) const COUNTER: &str = r#"(module
  (import "extism:host/env" "alloc" (func $alloc (param i64) (result i64)))
  (import "extism:host/env" "length" (func $length (param i64) (result i64)))
  (import "extism:host/env" "load_u8" (func $load (param i64) (result i32)))
  (import "extism:host/env" "store_u8" (func $store (param i64 i32)))
  (import "extism:host/env" "output_set" (func $output (param i64 i64)))
  (import "extism:host/user" "kv_add" (func $kv_add (param i64 i64) (result i64)))
  (import "extism:host/user" "secret_get" (func $secret_get (param i64) (result i64)))
  (import "extism:host/user" "log" (func $log (param i64 i64)))
  (memory (export "memory") 1)
  (data (i32.const 0) "count1token{\"verdict\":\"refuse\",\"status\":418,\"message\":\"\"}info")
  (func $block (param $from i32) (param $size i32) (result i64) (local $block i64) (local $i i32)
    (local.set $block (call $alloc (i64.extend_i32_u (local.get $size))))
    (loop $next
      (call $store (i64.add (local.get $block) (i64.extend_i32_u (local.get $i)))
        (i32.load8_u (i32.add (local.get $from) (local.get $i))))
      (local.set $i (i32.add (local.get $i) (i32.const 1)))
      (br_if $next (i32.lt_u (local.get $i) (local.get $size))))
    (local.get $block))
  (func $say (param $block i64) (local $i i32) (local $size i32)
    (local.set $size (i32.wrap_i64 (call $length (local.get $block))))
    (memory.copy (i32.const 1024) (i32.const 11) (i32.const 44))
    (loop $next
      (i32.store8 (i32.add (i32.const 1068) (local.get $i))
        (call $load (i64.add (local.get $block) (i64.extend_i32_u (local.get $i)))))
      (local.set $i (i32.add (local.get $i) (i32.const 1)))
      (br_if $next (i32.lt_u (local.get $i) (local.get $size))))
    (memory.copy (i32.add (i32.const 1068) (local.get $size)) (i32.const 55) (i32.const 2))
    (local.set $block (call $block (i32.const 1024) (i32.add (i32.const 46) (local.get $size))))
    (call $output (local.get $block) (call $length (local.get $block))))
  (func (export "http_request") (result i32)
    (call $say (call $kv_add (call $block (i32.const 0) (i32.const 5)) (call $block (i32.const 5) (i32.const 1))))
    (i32.const 0))
  (func (export "tell") (result i32) (local $secret i64)
    (local.set $secret (call $secret_get (call $block (i32.const 6) (i32.const 5))))
    (call $log (call $block (i32.const 57) (i32.const 4)) (call $block (i32.const 6) (i32.const 5)))
    (call $say (local.get $secret))
    (i32.const 0)))"#;

fn deploy(dir: &Path, grants: &str, services: &str) {
    fs::write(dir.join("counter.wat"), COUNTER).unwrap();
    fs::write(dir.join("token"), "s3cret-value\n").unwrap();
    let config = format!(
        "upstreams: [{{name: echo, builtin: {{}}}}]
routes: [{{path: /, upstream: echo}}]
state: {{dir: state}}
services: {services}
plugins:
  - name: counter
    source: counter.wat
    grants: {grants}
    bindings:
      - {{hook: http.request, match: {{paths: [/count]}}}}
      - {{hook: http.request, match: {{paths: [/tell]}}, entry: tell}}
"
    );
    fs::write(dir.join("cardan.yaml"), config).unwrap();
}

#[track_caller]
fn check(server: &Server, path: &str, status: u16, says: &str) {
    let (found, body) = get(server.address, path);
    assert!(found == status && body.contains(says), "{path}: {found} {body}\n{}", server.log());
}

/// What a plugin stored is there after the process was killed.
#[test]
fn stores_survive() {
    let dir = tempfile::tempdir().unwrap();
    deploy(dir.path(), "{kv: write}", "{}");
    for start in 0..3 {
        let server = Server::serve(&dir.path().join("cardan.yaml"));
        for request in 1..=5 {
            check(&server, "/count", 418, &format!("\"{}\"", start * 5 + request));
        }
        server.signal(Signal::KILL);
        server.ended();
    }
    assert!(dir.path().join("state/kv.sqlite").is_file());
}

/// What a plugin stored is there for operators, and what they store is there for it.
#[test]
fn stores_and_the_admin_api() {
    let dir = tempfile::tempdir().unwrap();
    deploy(dir.path(), "{kv: write}", "{}");
    let mut command = cardan();
    command.args(["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--config"]);
    let server = Server::start(command.arg(dir.path().join("cardan.yaml")));
    let line = server.wait_for(0, "admin API");
    let (_, address) = line.rsplit_once("address=").unwrap();
    let admin = address.split_whitespace().next().unwrap().parse().unwrap();
    check(&server, "/count", 418, "\"1\"");
    let stored = r#"{"plugin":"counter","key":"count","value":"1"}"#;
    assert_eq!(get(admin, "/admin/kv/counter/count"), (200, stored.to_owned()));
    let (status, keys) = get(admin, "/admin/kv/counter/?prefix=c");
    assert!(status == 200 && keys.contains("count"), "{status} {keys}");
    let put = block_on(Client::new(admin).fetch("PUT", "/admin/kv/counter/count", "41".to_owned())).unwrap();
    assert!(put.status < 300, "{put:?}");
    check(&server, "/count", 418, "\"42\"");
}

#[test]
fn grants_and_secrets() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("cardan.yaml");
    deploy(
        dir.path(),
        "{secrets: [token], kv: {access: write, keys: 1}}",
        "{kv: {file: other.sqlite}, secrets: {token: {file: token}}}",
    );
    let server = Server::serve(&config);
    check(&server, "/tell", 418, "s3cret-value");
    check(&server, "/count", 418, "\"1\"");
    assert!(!server.log().contains("s3cret-value"), "{}", server.log());
    assert!(dir.path().join("other.sqlite").is_file());
    // Without the grant the call fails, and only that one; the log has the sentence.
    deploy(dir.path(), "{secrets: [token]}", "{kv: {file: other.sqlite}, secrets: {token: {file: token}}}");
    let from = server.logged();
    server.signal(Signal::HUP);
    server.wait_for(from, "generation");
    let (status, body) = get(server.address, "/count");
    assert!(status >= 500 && !body.contains("grants"), "{status} {body}");
    server.wait_for(from, "kv_add is not granted: add");
    check(&server, "/tell", 418, "s3cret-value");
    // Services are for the whole life of a process.
    deploy(dir.path(), "{kv: write}", "{}");
    let from = server.logged();
    server.signal(Signal::HUP);
    server.wait_for(from, "services: it cannot change while plugins run");
}

#[test]
fn services_that_are_not_there() {
    let rows = [
        ("{sql: {orders: read}}", "{}", "there is no connection \"orders\"; add it to services.sql"),
        ("{secrets: [token]}", "{}", "there is no secret \"token\"; add it to services.secrets"),
        (
            "{}",
            "{sql: {a: {address: 'mysql://a:pass@b'}}}",
            "services.sql.a: an address begins with `sqlite:`",
        ),
        ("{}", "{sql: {a: {address: 'postgres://${NOPE}@b'}}}", "the environment variable NOPE is not set"),
        ("{}", "{secrets: {a: {file: nowhere}}}", "services.secrets.a: cannot read "),
        ("{}", "{secrets: {a: {env: NOPE}}}", "services.secrets.a: the environment variable NOPE is not set"),
        ("{}", "{kv: {fil: a}}", "services.kv.fil: unknown key; did you mean file?"),
        ("{}", "{kv: {file: cardan.yaml}}", "cannot be used: file is not a database"),
        ("{env: [NOPE]}", "{}", "grants.env: the environment variable NOPE is not set"),
    ];
    for (grants, services, says) in rows {
        let dir = tempfile::tempdir().unwrap();
        deploy(dir.path(), grants, services);
        let mut command = cardan();
        command.args(["serve", "--listen", "127.0.0.1:0", "--config"]).arg(dir.path().join("cardan.yaml"));
        let finished = finish(command.env_remove("NOPE"), b"");
        assert!(
            finished.code == Some(2) && finished.stderr.contains(says),
            "{grants} {services}: {finished:?}"
        );
        assert!(!finished.stderr.contains("pass@"), "{finished:?}");
    }
}

/// Counts requests in a metric of its own.
const MEASURING: &str = r#"(module
  (import "extism:host/env" "alloc" (func $alloc (param i64) (result i64)))
  (import "extism:host/env" "store_u8" (func $store (param i64 i32)))
  (import "extism:host/env" "output_set" (func $output (param i64 i64)))
  (import "extism:host/user" "metric_inc" (func $metric_inc (param i64 i64) (result i64)))
  (memory 1)
  (data (i32.const 0) "asked1{\"verdict\":\"continue\"}")
  (func $block (param $from i32) (param $size i32) (result i64) (local $block i64) (local $i i32)
    (local.set $block (call $alloc (i64.extend_i32_u (local.get $size))))
    (loop $next
      (call $store (i64.add (local.get $block) (i64.extend_i32_u (local.get $i)))
        (i32.load8_u (i32.add (local.get $from) (local.get $i))))
      (local.set $i (i32.add (local.get $i) (i32.const 1)))
      (br_if $next (i32.lt_u (local.get $i) (local.get $size))))
    (local.get $block))
  (func (export "http_request") (result i32)
    (drop (call $metric_inc (call $block (i32.const 0) (i32.const 5)) (call $block (i32.const 5) (i32.const 1))))
    (call $output (call $block (i32.const 6) (i32.const 22)) (i64.const 22))
    (i32.const 0)))"#;

/// What a plugin measured goes with it, and with it alone: removed by an operator, and taken out of the file.
#[test]
fn metrics_go_with_their_plugin() {
    let house = Operated::with(&json!({ "state": { "dir": "state" }, "plugins": [] }));
    house.server.wait_for(0, "plugins generation=");
    fs::write(house.path("measuring.wat"), MEASURING).unwrap();
    let plugin =
        |name: &str| json!({ "name": name, "source": "measuring.wat", "grants": { "metrics": "on" } });
    let reload = |plugins: Value| {
        admin::write(house.dir.path(), &json!({ "state": { "dir": "state" }, "plugins": plugins }));
        let from = house.server.logged();
        house.server.signal(Signal::HUP);
        house.server.wait_for(from, "plugins generation=");
    };
    let measured = |name: &str| {
        let url = format!("http://{}/metrics", house.admin);
        let text = block_on(async { http().get(url).send().await.unwrap().text().await.unwrap() });
        let line = text.lines().find(|line| {
            line.starts_with("cardan_plugin_metric_asked") && line.contains(&format!("\"{name}\""))
        });
        line.map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap())
    };
    let until = |name: &str, wanted: Option<f64>| {
        let began = std::time::Instant::now();
        while measured(name) != wanted {
            assert!(began.elapsed().as_secs() < 10, "{name}: {:?}, not {wanted:?}", measured(name));
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    };
    reload(json!([plugin("stays"), plugin("goes")]));
    get(house.server.address, "/v1/models");
    get(house.server.address, "/v1/models");
    assert_eq!((measured("stays"), measured("goes")), (Some(2.0), Some(2.0)), "{}", house.server.log());
    reload(json!([plugin("stays")]));
    until("goes", None);
    reload(json!([plugin("stays"), plugin("goes")]));
    get(house.server.address, "/v1/models");
    until("goes", Some(1.0));
    assert_eq!(measured("stays"), Some(3.0));
}
