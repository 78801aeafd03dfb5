//! HTTP for guests (2.4), with a client and a server that are real.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use cardan::{Engine, EngineConfig, Error, Fault, Limits, Manifest, Plugin, PluginBuilder, WasmEntry};
use serde_json::{Value, json};

use crate::server::{address, port};
use crate::support::{GENEROUS, engine, guest, prebuilt, within};

/// A plugin that may ask the test server.
fn kitchen() -> PluginBuilder {
    prebuilt("kitchen").allow_host("127.0.0.1").limits(within(GENEROUS))
}

fn ask(plugin: &Plugin, request: Value) -> Result<Value, Error> {
    plugin.call("http_request", request.to_string()).map(|output| serde_json::from_slice(&output).unwrap())
}

/// The answer to a request for `path`, with other fields of the request.
#[track_caller]
fn get(path: &str, mut fields: Value) -> Value {
    static PLUGIN: OnceLock<Plugin> = OnceLock::new();
    fields["url"] = format!("{}{path}", address()).into();
    ask(PLUGIN.get_or_init(|| kitchen().load().unwrap()), fields).unwrap()
}

/// The cause of a failure.
#[track_caller]
fn failure(plugin: &Plugin, request: Value) -> (Fault, String) {
    let error = ask(plugin, request).unwrap_err();
    (error.fault(), error.message().lines().last().unwrap_or_default().trim().to_owned())
}

#[test]
fn what_is_sent() {
    let port = port();
    let sent = |fields: Value| get("/echo/x?y=z", fields)["body"].as_str().unwrap().to_owned();
    let lines = |text: &str| {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    let common = |first: &str, more: &[&str]| {
        let mut lines = vec![
            String::new(),
            first.to_owned(),
            "accept-encoding: gzip".to_owned(),
            "accept: */*".to_owned(),
            format!("host: 127.0.0.1:{port}"),
            format!("user-agent: cardan/{}", env!("CARGO_PKG_VERSION")),
        ];
        lines.extend(more.iter().map(|line| (*line).to_owned()));
        lines.sort();
        lines
    };
    assert_eq!(lines(&sent(json!({}))), common("GET /echo/x?y=z HTTP/1.1", &[]));
    // Methods are upper-cased; a body is sent with any of them.
    for method in ["get", "GET", "post", "Put", "delete", "options", "patch"] {
        let upper = method.to_uppercase();
        let found = lines(&sent(json!({"method": method, "body": "some text"})));
        let expected = common(&format!("{upper} /echo/x?y=z HTTP/1.1"), &["content-length: 9", "some text"]);
        assert_eq!(found, expected, "{method}");
    }
    // Where the reference sends an empty body in chunks.
    for method in ["POST", "PUT", "PATCH"] {
        let found = lines(&sent(json!({"method": method})));
        assert_eq!(
            found,
            common(&format!("{method} /echo/x?y=z HTTP/1.1"), &["content-length: 0"]),
            "{method}"
        );
    }
    // The guest's own fields, lower-cased, in place of ours.
    let found = lines(&sent(json!({"headers": {
        "X-Mine": "Yes", "User-Agent": "guest", "Accept": "text/plain", "accept-encoding": "gzip"
    }})));
    let mut expected = common("GET /echo/x?y=z HTTP/1.1", &["x-mine: Yes"]);
    expected.retain(|line| !line.starts_with("user-agent") && !line.starts_with("accept: "));
    expected.extend(["user-agent: guest".to_owned(), "accept: text/plain".to_owned()]);
    expected.sort();
    assert_eq!(found, expected);
    // How a message is framed, and whose it is, is not the guest's to say.
    let host = format!("127.0.0.1:{port}");
    let framing = json!({
        "Content-Length": "1", "transfer-encoding": "chunked", "Connection": "close, x-mine", "te": "trailers",
        "trailer": "x-mine", "upgrade": "h2c", "keep-alive": "timeout=1", "proxy-connection": "close",
        "proxy-authorization": "Basic x", "expect": "100-continue", "host": "neighbour.example",
    });
    for (method, body, more) in [
        ("GET", None, &[] as &[&str]),
        ("POST", None, &["content-length: 0"]),
        (
            "POST",
            Some("a\r\n\r\nGET /status/500 HTTP/1.1"),
            &["content-length: 29", "a", "", "GET /status/500 HTTP/1.1"],
        ),
    ] {
        let mut fields = json!({"method": method, "headers": framing});
        if let Some(body) = body {
            fields["body"] = body.into();
        }
        assert_eq!(lines(&sent(fields)), common(&format!("{method} /echo/x?y=z HTTP/1.1"), more), "{method}");
    }
    let found = lines(&sent(json!({"headers": {"Host": host}})));
    assert_eq!(found, common("GET /echo/x?y=z HTTP/1.1", &[]));
}

#[test]
fn what_comes_back() {
    for code in [200, 201, 204, 404, 418, 500, 503] {
        let answer = get(&format!("/status/{code}"), json!({}));
        assert_eq!(answer["status"], code);
        assert_eq!(answer["body"], if code == 204 { "" } else { "the body" });
    }
    let answer = get("/status/200", json!({"method": "HEAD"}));
    assert_eq!((&answer["status"], &answer["body"]), (&json!(200), &json!("")));
    assert_eq!(get("/gzip", json!({}))["body"], "unpacked");
    assert_eq!(get("/size/0", json!({}))["body"], "");
    assert_eq!(get("/size/200000", json!({}))["body"].as_str().unwrap().len(), 200_000);
}

#[test]
fn response_headers() {
    assert_eq!(get("/fields", json!({}))["headers"], json!({}), "off unless asked for");
    let plugin = kitchen().with_http_headers().load().unwrap();
    let answer = ask(&plugin, json!({"url": format!("{}/fields", address())})).unwrap();
    // The last of a name wins; what is not visible ASCII is not shown.
    assert_eq!(
        answer["headers"],
        json!({"content-length": "0", "set-cookie": "b=2", "x-mixed-case": "Yes", "x-tab": "a\tb"})
    );
}

/// `http_headers` and `http_status_code` by themselves, request after request.
#[test]
fn what_is_remembered() {
    let module = guest(&format!(
        r#"(func $ask (drop (call $http_request @"{{\22url\22:\22{}/status/418\22}}" (i64.const 0))))
           (func (export "run") (call $ask))
           (func (export "fails") (drop (call $http_request @"{{\22url\22:\22ftp://127.0.0.1/\22}}" (i64.const 0))))
           (func (export "status") (result i32) (call $http_status_code))
           (func (export "headers") (call $say (call $http_headers)))
           (func (export "_start") (call $ask))"#,
        address()
    ));
    let load = || engine().plugin(module.as_bytes()).allow_host("127.0.0.1").limits(within(GENEROUS));
    let mut instance = load().with_http_headers().load().unwrap().instance().unwrap();
    assert_eq!((instance.call("status", "").code, instance.call("headers", "").output), (0, Vec::new()));
    assert_eq!(instance.call("run", "").code, 0);
    assert_eq!(instance.call("status", "").code, 418, "also in later calls");
    assert_eq!(instance.call("headers", "").output, br#"{"content-length":"8"}"#);
    assert_eq!(instance.call("fails", "").code, -1);
    assert_eq!((instance.call("status", "").code, instance.call("headers", "").output), (0, Vec::new()));
    assert_eq!(instance.call("_start", "").code, 0);
    assert_eq!(instance.call("status", "").code, 0, "a program starts anew");
    let mut instance = load().load().unwrap().instance().unwrap();
    assert_eq!(instance.call("run", "").code, 0);
    assert_eq!((instance.call("status", "").code, instance.call("headers", "").output), (418, Vec::new()));
}

/// Handles: both are freed, a body that is empty is none.
#[test]
fn handles() {
    let url = format!("{}/size/0", address());
    let module = guest(&format!(
        r#"(func (export "run") (local $request i64) (local $body i64)
             (local.set $request @"{{\22url\22:\22{url}\22,\22method\22:\22POST\22}}")
             (local.set $body @"some text")
             (call $tell (call $http_request (local.get $request) (local.get $body)))
             (call $tell (call $length (local.get $request)))
             (call $tell (call $length (local.get $body)))
             (call $told))
           (func (export "again") (local $request i64) (local $body i64) (local $answer i64)
             (local.set $request @"{{\22url\22:\22{}/size/40\22}}")
             (local.set $body @"some text that is as long as what comes back for it")
             (local.set $answer (call $http_request (local.get $request) (local.get $body)))
             (call $free (local.get $request)) (call $free (local.get $body))
             (drop (call $alloc (i64.const 40))) (drop (call $alloc (i64.const 50)))
             (call $say (local.get $answer)))"#,
        address()
    ));
    let plugin =
        engine().plugin(module.as_bytes()).allow_host("127.0.0.1").limits(within(GENEROUS)).load().unwrap();
    assert_eq!(crate::support::told(&plugin.call("run", "").unwrap()), [0, 0, 0]);
    // As Go's PDK does it: freeing what the host has freed does not touch the response.
    assert_eq!(plugin.call("again", "").unwrap(), [b'x'; 40]);
}

#[test]
fn hosts_that_may_be_asked() {
    let with_port = format!("127.0.0.1:{}", port());
    let with_scheme = "http://127.0.0.1".to_owned();
    let rows = [
        (vec!["127.0.0.1"], true),
        // A pattern does not reach what is not on the public Internet.
        (vec!["*"], false),
        (vec!["127.*"], false),
        (vec!["127.0.0.?"], false),
        (vec!["127.0.0.[0-9]"], false),
        (vec!["*.1"], false),
        (vec!["*", "127.0.0.1"], true),
        (vec!["other.example", "127.0.0.1"], true),
        (vec![&*with_port], false),
        (vec![&*with_scheme], false),
        (vec!["localhost"], false),
        (vec!["[bad"], false),
        (vec!["127.0.0"], false),
        (vec![""], false),
        (vec![], false),
    ];
    for (hosts, allowed) in rows {
        let plugin = hosts
            .iter()
            .fold(prebuilt("kitchen").limits(within(GENEROUS)), |plugin, host| plugin.allow_host(*host));
        let url = format!("{}/size/3", address());
        let found = ask(&plugin.load().unwrap(), json!({"url": url}));
        assert_eq!(found.is_ok(), allowed, "{hosts:?}: {found:?}");
        if let Err(error) = found {
            assert_eq!(error.fault(), Fault::Denied);
            let denied = format!("HTTP request to {url} is not allowed: ");
            assert!(error.message().contains(&denied), "{error}");
            assert!(error.message().contains(" to the grants of plugin \"kitchen\""), "{error}");
        }
    }
    // The URL's parser lower-cases the host; patterns are as they are.
    let url = |host: &str| json!({"url": format!("http://{host}:{}/size/3", port())});
    let plugin = kitchen().allow_host("localhost").load().unwrap();
    assert!(ask(&plugin, url("LOCALHOST")).is_ok());
    assert_eq!(
        failure(&kitchen().allow_host("LOCALHOST").load().unwrap(), url("localhost")).0,
        Fault::Denied
    );
}

/// Every hop has to be allowed, whatever kind of redirect leads to it (X12).
#[test]
fn redirects() {
    let here = address();
    let there = format!("http://localhost:{}/echo", port());
    let follow = |plugin: &Plugin, code: u16, to: &str, more: Value| {
        let mut request = more;
        request["url"] = format!("{here}/redirect/{code}?{to}").into();
        ask(plugin, request)
    };
    let only_here = kitchen().load().unwrap();
    let both = kitchen().allow_host("localhost").load().unwrap();
    for code in [301, 302, 303, 307, 308] {
        let answer = follow(&only_here, code, "/size/3", json!({})).unwrap();
        assert_eq!((&answer["status"], &answer["body"]), (&json!(200), &json!("xxx")), "{code}");
        let error = follow(&only_here, code, &there, json!({})).unwrap_err();
        assert_eq!(error.fault(), Fault::Denied, "{code}: {error}");
        assert!(error.message().contains("add \"http: [localhost]\" to the grants"), "{error}");
        assert_eq!(follow(&both, code, &there, json!({})).unwrap()["status"], 200);
        // Nor to what is not HTTP.
        assert!(follow(&both, code, "file:///etc/passwd", json!({})).is_err());
    }
    // What becomes of method and body.
    for (code, method, becomes, body) in [
        (301, "POST", "GET", false),
        (302, "POST", "GET", false),
        (303, "POST", "GET", false),
        (303, "PUT", "GET", false),
        (307, "POST", "POST", true),
        (308, "POST", "POST", true),
        (301, "PUT", "PUT", true),
    ] {
        let answer =
            follow(&only_here, code, "/echo", json!({"method": method, "body": "some text"})).unwrap();
        let sent = answer["body"].as_str().unwrap();
        assert!(sent.starts_with(&format!("{becomes} /echo ")), "{code} {method}: {sent}");
        assert_eq!(sent.ends_with("some text"), body, "{code} {method}: {sent}");
    }
    // What is secret stays with the server it was meant for.
    let secrets = json!({"headers": {"Authorization": "Bearer x", "Cookie": "a=1", "X-Other": "kept"}});
    for (to, kept) in [("/echo", true), (&*there, false)] {
        let sent = follow(&both, 302, to, secrets.clone()).unwrap()["body"].as_str().unwrap().to_owned();
        assert_eq!(
            (sent.contains("authorization: "), sent.contains("cookie: ")),
            (kept, kept),
            "{to}: {sent}"
        );
        assert!(sent.contains("x-other: kept"));
    }
    // What is no redirect is the answer.
    assert_eq!(follow(&only_here, 304, "/size/3", json!({})).unwrap()["status"], 304);
}

#[test]
fn a_circle_of_redirects_ends() {
    // The target names itself: its query is where it leads to.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let location = url.clone();
    let server = std::thread::spawn(move || {
        use std::io::{Read as _, Write as _};
        let mut asked = 0;
        while let Ok((mut connection, _)) = listener.accept() {
            let mut head = [0; 4096];
            if connection.read(&mut head).unwrap_or(0) == 0 || head.starts_with(b"DELETE") {
                return asked;
            }
            asked += 1;
            let _ = write!(
                connection,
                "HTTP/1.1 302 Found\r\nlocation: {location}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
            );
        }
        asked
    });
    let plugin = kitchen().load().unwrap();
    let (fault, why) = failure(&plugin, json!({"url": url}));
    assert_eq!((fault, &*why), (Fault::Host, "HTTP request failed: more than 10 redirects"));
    // Ends the server.
    assert!(ask(&plugin, json!({"url": url, "method": "DELETE"})).is_err());
    assert_eq!(server.join().unwrap(), 11);
}

#[test]
fn requests_that_are_none() {
    let plugin = kitchen().allow_host("*").load().unwrap();
    let url = format!("{}/size/3", address());
    let rows = [
        (json!({"url": "no url"}), Fault::Protocol, "\"no url\" is no URL: relative URL without a base"),
        (json!({"url": ""}), Fault::Protocol, "\"\" is no URL"),
        (
            json!({"url": "ftp://127.0.0.1/"}),
            Fault::Host,
            "the scheme of ftp://127.0.0.1/ is neither http nor https",
        ),
        (json!({"url": "file:///etc/passwd"}), Fault::Host, "the scheme of file:///etc/passwd"),
        (json!({"url": url, "method": "FOO"}), Fault::Protocol, "\"FOO\" is no HTTP method"),
        (
            json!({"url": url, "method": "connect"}),
            Fault::Protocol,
            "plugins may not send \"CONNECT\": use one of",
        ),
        (
            json!({"url": url, "method": "TRACE"}),
            Fault::Protocol,
            "plugins may not send \"TRACE\": use one of",
        ),
        (json!({"url": url, "method": ""}), Fault::Protocol, "\"\" is no HTTP method"),
        (json!({"url": url, "headers": {"bad name": "x"}}), Fault::Host, "HTTP request failed: "),
        (json!({"url": url, "headers": {"x": "a\r\nb: c"}}), Fault::Host, "HTTP request failed: "),
        (json!({"url": "http://127.0.0.1:9/"}), Fault::Host, "HTTP request failed: "),
    ];
    for (request, fault, why) in rows {
        let found = failure(&plugin, request.clone());
        assert!(found.0 == fault && found.1.contains(why), "{request}: {found:?}");
    }
    // Documents the PDK would not make.
    for (document, why) in [
        (r"{\22url\22:\22http://127.0.0.1/\22,\22header\22:{}}", "unknown field `header`"),
        (r"{}", "missing field `url`"),
        (r"no", "not an HTTP request document"),
        (r"\ff", "not an HTTP request document"),
    ] {
        let run = format!(r#"(func (export "run") (drop (call $http_request @"{document}" (i64.const 0))))"#);
        for builder in
            [engine().plugin(guest(&run).as_bytes()), engine().plugin(guest(&run).as_bytes()).allow_host("*")]
        {
            let error = builder.load().unwrap().call("run", "").unwrap_err();
            assert!(error.message().contains(why), "{document}: {error}");
            assert_eq!(error.fault(), Fault::Protocol);
        }
    }
}

#[test]
fn sizes() {
    let limits = |max| Limits { http_response_bytes_max: max, ..within(GENEROUS) };
    let url = |size: u32| json!({"url": format!("{}/size/{size}", address())});
    let plugin = kitchen().limits(limits(2000)).load().unwrap();
    assert!(ask(&plugin, url(2000)).is_ok());
    let (fault, why) = failure(&plugin, url(2001));
    assert_eq!(fault, Fault::Host);
    assert_eq!(why, "HTTP response exceeds the configured maximum number of bytes: 2000");
    // Counted after unpacking.
    let plugin = kitchen().limits(limits(7)).load().unwrap();
    assert!(ask(&plugin, json!({"url": format!("{}/gzip", address())})).is_err());
}

#[test]
fn time() {
    let slow = json!({"url": format!("{}/slow/3000", address())});
    let plugin = kitchen().limits(within(Duration::from_millis(200))).load().unwrap();
    let start = Instant::now();
    let mut instance = plugin.instance().unwrap();
    let report = instance.call("http_request", slow.to_string());
    assert_eq!((report.code, report.error.as_deref()), (134, Some("timeout")));
    assert_eq!(report.fault, Some(Fault::Deadline));
    assert!(start.elapsed() >= Duration::from_millis(200), "{:?}", start.elapsed());
    assert!(start.elapsed() < Duration::from_millis(2500), "{:?}", start.elapsed());
    let fast = json!({"url": format!("{}/size/3", address())});
    assert_eq!(instance.call("http_request", fast.to_string()).code, 0, "and works on");
    // The same for a call that is cancelled.
    let mut instance = kitchen().limits(Limits::default()).load().unwrap().instance().unwrap();
    let cancel = instance.cancel_handle();
    let start = Instant::now();
    let stop = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(100));
        cancel.cancel();
    });
    let report = instance.call("http_request", slow.to_string());
    assert_eq!((report.code, report.error.as_deref()), (134, Some("timeout")));
    assert!(start.elapsed() < Duration::from_millis(2500), "{:?}", start.elapsed());
    stop.join().unwrap();
}

/// A guest on one thread does not keep others from theirs while it waits for a server.
#[tokio::test(flavor = "current_thread")]
async fn waiting_for_servers_overlaps() {
    let plugin = kitchen().load().unwrap();
    let request = json!({"url": format!("{}/slow/300", address())}).to_string();
    let start = Instant::now();
    let calls: Vec<_> = (0..20)
        .map(|_| {
            let (plugin, request) = (plugin.clone(), request.clone());
            tokio::spawn(async move { plugin.call_async("http_request", request.as_bytes()).await.map(drop) })
        })
        .collect();
    for call in calls {
        call.await.unwrap().unwrap();
    }
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}

#[test]
fn an_engine_without_a_client() {
    let own = Engine::new(EngineConfig { pool_instances: Some(2), ..EngineConfig::default() }).unwrap();
    let module = std::fs::read(crate::support::guests().join("prebuilt/kitchen.wasm")).unwrap();
    let plugin = own.plugin(module).allow_host("127.0.0.1").load().unwrap();
    let (fault, why) = failure(&plugin, json!({"url": address()}));
    assert_eq!(fault, Fault::Host);
    assert_eq!(why, "HTTP request failed: this engine was made without an HTTP client");
}

/// Modules by address (10.2): not subject to `allowed_hosts`, but to time and size.
#[test]
fn modules_from_an_address() {
    let manifest = |path: &str| Manifest {
        wasm: vec![WasmEntry { url: Some(format!("{}{path}", address())), ..WasmEntry::default() }],
        ..Manifest::default()
    };
    let load = |path: &str| engine().load(manifest(path));
    assert_eq!(load("/module").unwrap().instance().unwrap().call("run", "").code, 42);
    assert_eq!(load("/redirect/302?/module").unwrap().instance().unwrap().call("run", "").code, 42);
    let url = format!("{}/status/500", address());
    let error = load("/status/500").unwrap_err();
    assert_eq!(error.message(), format!("unable to fetch {url}: the server answered with status 500"));
    assert_eq!(error.kind(), cardan::ErrorKind::Source);
    let error = load("/status/200").unwrap_err();
    assert_eq!(error.kind(), cardan::ErrorKind::Format, "what comes back is no module: {error}");
    let refused = Manifest {
        wasm: vec![WasmEntry { url: Some("http://127.0.0.1:9/".to_owned()), ..WasmEntry::default() }],
        ..Manifest::default()
    };
    let error = engine().load(refused).unwrap_err();
    assert!(error.message().contains("Connection refused (os error 111)"), "{error}");
    // What a server says that is no module may be nobody else's business.
    let asked = Manifest {
        wasm: vec![WasmEntry {
            method: Some("post".to_owned()),
            headers: Some([("x-mine".to_owned(), "yes".to_owned())].into()),
            ..manifest("/echo").wasm.remove(0)
        }],
        ..Manifest::default()
    };
    let error = engine().load(asked).unwrap_err();
    assert!(!error.message().contains("POST"), "what is no module is not quoted: {error}");
    assert!(error.message().contains("<anon>:1:"), "{error}");
}
