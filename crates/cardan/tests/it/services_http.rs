//! What outgoing HTTP does not reach: everything that is not the public Internet, unless it was granted.

use cardan::api::grants::{HttpScope, PrivateAddresses};
use cardan::{Error, Fault, Grants, Plugin};
use serde_json::{Value, json};

use crate::server::{address, port};
use crate::services::{builder, calls};
use crate::support::guests;

fn scope(hosts: &[&str], private: &[&str]) -> HttpScope {
    let ranges = private.iter().filter_map(|it| it.parse().ok()).collect();
    HttpScope {
        private: PrivateAddresses::Listed { ranges, hosts: Default::default() },
        ..HttpScope::hosts(hosts.iter().map(|host| (*host).to_owned()))
    }
}

fn granted(http: HttpScope) -> Grants {
    Grants { http: Some(http), ..Grants::default() }
}

/// The same request by both functions that there are: `http_request` of Extism and `http_fetch`.
fn both(grants: &Grants, request: &Value) -> [Result<Vec<u8>, Error>; 2] {
    let module = calls(&[("http_fetch", &[&request.to_string()])]);
    let fetch = builder(&module, "asks", grants.clone()).load().unwrap();
    let kitchen = std::fs::read(guests().join("prebuilt/kitchen.wasm")).unwrap();
    let kitchen: Plugin =
        crate::services::house().engine.plugin(kitchen).name("asks").grants(grants.clone()).load().unwrap();
    [fetch.call("run", ""), kitchen.call("http_request", request.to_string())]
}

#[track_caller]
fn check(grants: &Grants, url: &str, says: Option<&str>) {
    for found in both(grants, &json!({ "url": url })) {
        match (&found, says) {
            (Ok(answer), None) => {
                let answer: Value = serde_json::from_slice(answer).unwrap();
                assert_eq!((&answer["status"], &answer["body"]), (&json!(200), &json!("xxx")), "{url}");
            }
            (Err(error), Some(says)) => {
                assert_eq!(error.fault(), Fault::Denied, "{url}: {error}");
                assert!(error.message().contains(says), "{url}: {error}");
            }
            _ => panic!("{url}: {found:?}, expected {says:?}"),
        }
    }
}

#[test]
fn forms_of_addresses() {
    let everywhere = granted(scope(&["*"], &[]));
    let port = port();
    for host in [
        "127.0.0.1",
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
        "127.1",
        "0.0.0.0",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[::127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]",
        "localhost",
        "LOCALHOST",
        "169.254.169.254",
    ] {
        let says = "is not on the public Internet; add \"http: {private: [";
        check(&everywhere, &format!("http://{host}:{port}/size/3"), Some(says));
    }
    let url = format!("http://127.0.0.1:{port}/size/3");
    for (hosts, private, says) in [
        (&["127.0.0.1"][..], &[][..], None),
        (&["*"], &["127.0.0.0/8"], None),
        (&["*"], &["10.0.0.0/8"], Some("http: {private: [127.0.0.1]}")),
        (
            &["a.example"],
            &["127.0.0.0/8"],
            Some("add \"http: [127.0.0.1]\" to the grants of plugin \"asks\""),
        ),
    ] {
        check(&granted(scope(hosts, private)), &url, says);
    }
    let any = HttpScope { private: PrivateAddresses::Any, ..scope(&["*"], &[]) };
    check(&granted(any.clone()), &url, None);
    check(&granted(any), &format!("http://localhost:{port}/size/3"), None);
    check(&granted(scope(&["localhost"], &[])), &format!("http://localhost:{port}/size/3"), None);
}

/// Every hop is judged like the first.
#[test]
fn redirects() {
    let (here, port) = (address(), port());
    // The first hop is granted by name; what it leads to is not.
    let first = granted(scope(&["127.0.0.1", "*"], &[]));
    for code in [301, 302, 303, 307, 308] {
        for host in ["localhost", "[::1]", "0.0.0.0", "[::ffff:127.0.0.1]", "169.254.169.254", "10.0.0.1"] {
            let url = format!("{here}/redirect/{code}?http://{host}:{port}/size/3");
            check(&first, &url, Some("is not on the public Internet"));
        }
        check(&first, &format!("{here}/redirect/{code}?/size/3"), None);
    }
    let only = granted(scope(&["127.0.0.1"], &[]));
    check(
        &only,
        &format!("{here}/redirect/302?http://public.example/"),
        Some("add \"http: [public.example]\""),
    );
}

#[test]
fn methods_sizes_and_times() {
    let (here, base) = (address(), scope(&["127.0.0.1"], &[]));
    let gets = granted(HttpScope { methods: ["GET".to_owned()].into(), ..base.clone() });
    check(&gets, &format!("{here}/size/3"), None);
    for found in both(&gets, &json!({"url": format!("{here}/size/3"), "method": "post"})) {
        let error = found.unwrap_err();
        let says = "add \"POST\" to http.methods in the grants of plugin \"asks\"";
        assert!(error.fault() == Fault::Denied && error.message().contains(says), "{error}");
    }
    let small = granted(HttpScope { response_bytes_max: Some(10), ..base.clone() });
    let [fetch, request] = both(&small, &json!({"url": format!("{here}/size/11")}));
    let fetch: Value = serde_json::from_slice(&fetch.unwrap()).unwrap();
    assert_eq!(fetch["error"]["kind"], "too_large");
    assert!(request.unwrap_err().message().contains("exceeds the configured maximum number of bytes: 10"));
    let hasty = HttpScope { timeout: Some(std::time::Duration::from_millis(100)), ..base };
    let [fetch, request] = both(&granted(hasty), &json!({"url": format!("{here}/slow/2000")}));
    let fetch: Value = serde_json::from_slice(&fetch.unwrap()).unwrap();
    assert_eq!(fetch["error"]["kind"], "timeout");
    assert_eq!(request.unwrap_err().fault(), Fault::Deadline);
}

/// What `http_fetch` brings, and what it makes of failures.
#[test]
fn fetching() {
    let grants = granted(scope(&["127.0.0.1"], &[]));
    let fetch = |request: &str| -> Value {
        let module = calls(&[("http_fetch", &[request])]);
        serde_json::from_slice(
            &builder(&module, "asks", grants.clone()).load().unwrap().call("run", "").unwrap(),
        )
        .unwrap()
    };
    let here = address();
    assert_eq!(fetch(&format!("{here}/status/418"))["status"], 418);
    let fields = fetch(&format!("{here}/fields"));
    assert_eq!(fields["headers"]["set-cookie"], "a=1\nb=2");
    let sent = fetch(&json!({"url": format!("{here}/echo"), "method": "POST", "headers": {"x-a": "b"}, "body_base64": "aGk="}).to_string());
    let sent = sent["body"].as_str().unwrap();
    assert!(sent.starts_with("POST /echo ") && sent.contains("x-a: b") && sent.ends_with("hi"), "{sent}");
    let failed = fetch("http://127.0.0.1:9/");
    assert_eq!(
        failed["error"],
        json!({"kind": "failed", "message": "the request failed; the plugin's log says why"})
    );
    let module = calls(&[("http_fetch", &["http://127.0.0.1:9/"])]);
    let plugin = builder(&module, "asks", grants.clone()).keep_log(cardan::LogLevel::Info).load().unwrap();
    plugin.call("run", "").unwrap();
    assert!(plugin.log_tail(0, 1).lines[0].text.contains("Connection refused"));
}

/// A manifest's own list asks; it grants nothing to a plugin whose operator has spoken.
#[test]
fn manifests_ask() {
    let kitchen = std::fs::read(guests().join("prebuilt/kitchen.wasm")).unwrap();
    let manifest = |hosts: Option<&[&str]>| cardan::Manifest {
        allowed_hosts: hosts.map(|hosts| hosts.iter().map(|host| (*host).to_owned()).collect()),
        ..crate::support::linked(&[])
    };
    let ask = |hosts: Option<&[&str]>, grants: Option<Grants>| {
        let manifest =
            cardan::Manifest { wasm: vec![crate::support::entry("main", &kitchen)], ..manifest(hosts) };
        let plugin = crate::services::house().engine.plugin(manifest).name("asks");
        let plugin = match grants {
            Some(grants) => plugin.grants(grants),
            None => plugin,
        };
        let request = json!({"url": format!("{}/size/3", address())}).to_string();
        plugin.load().unwrap().call("http_request", request).map_err(|error| error.message().to_owned())
    };
    let here = || Some(granted(scope(&["127.0.0.1"], &[])));
    assert!(ask(Some(&["127.0.0.1"]), None).is_ok(), "an embedder who says nothing trusts the manifest");
    assert!(ask(Some(&["127.0.0.1"]), Some(Grants::default())).unwrap_err().contains("HTTP is not granted"));
    assert!(ask(Some(&["127.0.0.1"]), here()).is_ok());
    assert!(ask(None, here()).is_ok());
    let error = ask(Some(&["a.example"]), here()).unwrap_err();
    assert!(error.contains("has to list \"127.0.0.1\" among its allowed_hosts"), "{error}");
}
