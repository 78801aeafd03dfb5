//! A manager with plugins, and the admin API in front of it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use cardan::{Engine, EngineConfig};
use cardan_admin::{
    Admin, Configuration, ConfigurationError, Document, Host, KeyValues, KvError, Measured, MeasuredKind,
    MeasuredValue, Readiness, Role, Token, Tokens,
};
use cardan_api::http::{Headers, HttpRequest, RequestEvent};
use cardan_manager::{Manager, PluginSpec, StateDir};
use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

/// Long enough for anything on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) const VIEWER: &str = "viewer-0123456789abcdef";
pub(crate) const OPERATOR: &str = "operator-0123456789abcdef";
pub(crate) const ADMIN: &str = "admin-0123456789abcdef";

pub(crate) fn guest(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../guests").join(name).canonicalize().unwrap()
}

fn engine() -> Engine {
    static ENGINE: OnceLock<Engine> = OnceLock::new();
    let cache_dir = Some(concat!(env!("CARGO_TARGET_TMPDIR"), "/compiled").into());
    ENGINE.get_or_init(|| Engine::new(EngineConfig { cache_dir, ..EngineConfig::default() }).unwrap()).clone()
}

pub(crate) struct House {
    pub(crate) dir: TempDir,
    pub(crate) manager: Manager,
    pub(crate) address: SocketAddr,
    pub(crate) readiness: Readiness,
    pub(crate) configuration: Arc<File>,
    pub(crate) tokens: Tokens,
    client: reqwest::Client,
    stop: Option<oneshot::Sender<()>>,
    pub(crate) served: Option<tokio::task::JoinHandle<()>>,
}

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: reqwest::header::HeaderMap,
    pub(crate) body: String,
}

impl Answer {
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    #[track_caller]
    pub(crate) fn ok(&self) -> Value {
        assert!((200..300).contains(&self.status), "{self:?}");
        self.json()
    }

    /// A problem document with this status that says this.
    #[track_caller]
    pub(crate) fn problem(&self, status: u16, says: &str) {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.headers["content-type"], "application/problem+json", "{self:?}");
        let document = self.json();
        assert_eq!(document["status"], status, "{self:?}");
        let detail = document["detail"].as_str().unwrap();
        assert!(detail.contains(says), "{says:?} is not in {detail:?}");
    }
}

/// A configuration whose file is a value.
pub(crate) struct File {
    pub(crate) text: Mutex<String>,
    pub(crate) reloads: Mutex<Result<u32, String>>,
}

impl Configuration for File {
    fn current(&self) -> Result<Document, ConfigurationError> {
        let text = self.text.lock().unwrap().clone();
        Ok(Document {
            revision: format!("r{}", text.len()),
            redacted: json!({ "redacted": true }),
            path: "cardan.yaml".into(),
            read_only: None,
            warnings: Vec::new(),
            text,
        })
    }

    fn check(&self, text: &str) -> Result<Vec<String>, ConfigurationError> {
        if text.contains("wrong") {
            return Err(ConfigurationError::Invalid("line 1: wrong".to_owned()));
        }
        Ok(vec!["a warning".to_owned()])
    }

    fn replace(&self, text: &str, revision: &str) -> Result<Document, ConfigurationError> {
        self.check(text)?;
        if self.current()?.revision != revision {
            return Err(ConfigurationError::Changed("changed meanwhile".to_owned()));
        }
        *self.text.lock().unwrap() = text.to_owned();
        self.current()
    }

    fn reload(&self) -> Result<(), ConfigurationError> {
        match &mut *self.reloads.lock().unwrap() {
            Ok(count) => {
                *count += 1;
                Ok(())
            }
            Err(why) => Err(ConfigurationError::Invalid(why.clone())),
        }
    }
}

/// A store of values under names, with a maximum.
#[derive(Default)]
struct Values(Mutex<std::collections::BTreeMap<(String, String), Vec<u8>>>);

impl KeyValues for Values {
    fn get(&self, plugin: &str, key: &str) -> Result<Option<Vec<u8>>, KvError> {
        Ok(self.0.lock().unwrap().get(&(plugin.to_owned(), key.to_owned())).cloned())
    }

    fn keys(&self, plugin: &str, prefix: &str, max: usize) -> Result<Vec<String>, KvError> {
        let values = self.0.lock().unwrap();
        let keys = values.keys().filter(|(owner, key)| owner == plugin && key.starts_with(prefix));
        Ok(keys.map(|(_, key)| key.clone()).take(max).collect())
    }

    fn put(&self, plugin: &str, key: &str, value: &[u8]) -> Result<(), KvError> {
        if value.len() > 100 {
            return Err(KvError::Full("a value is at most 100 bytes".to_owned()));
        }
        self.0.lock().unwrap().insert((plugin.to_owned(), key.to_owned()), value.to_owned());
        Ok(())
    }

    fn delete(&self, plugin: &str, key: &str) -> Result<(), KvError> {
        self.0.lock().unwrap().remove(&(plugin.to_owned(), key.to_owned()));
        Ok(())
    }
}

/// What two plugins measure, who use one name for different things.
fn measured() -> Vec<Measured> {
    let labels = |labels: &[(&str, &str)]| {
        labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    };
    let one = |plugin: &str, name: &str, kind, value| {
        let series = vec![(labels(&[("plugin", "forged"), ("kind", "a\"b")]), value)];
        Measured { plugin: plugin.to_owned(), name: name.to_owned(), kind, series }
    };
    let buckets = vec![(0.5, 1), (f64::INFINITY, 2)];
    vec![
        one("a", "seen_total", MeasuredKind::Counter, MeasuredValue::Number(4.0)),
        one("b", "seen", MeasuredKind::Gauge, MeasuredValue::Number(-1.5)),
        one("b", "size", MeasuredKind::Histogram, MeasuredValue::Distribution { buckets, sum: 7.0 }),
    ]
}

impl House {
    /// With a prompt guard that a file names, and no tokens.
    pub(crate) async fn open() -> Self {
        Self::with(Vec::new()).await
    }

    /// The same with a token of each role.
    pub(crate) async fn guarded() -> Self {
        let rows = [
            ("eyes", Role::Viewer, VIEWER),
            ("hands", Role::Operator, OPERATOR),
            ("head", Role::Admin, ADMIN),
        ];
        Self::with(rows.map(|(name, role, text)| Token::new(name, role, text).unwrap()).into()).await
    }

    async fn with(tokens: Vec<Token>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(&dir.path().join("state")).unwrap();
        let manager = Manager::with_state(engine(), 7, state);
        let spec = PluginSpec::new("guard", guest("prebuilt/prompt-guard.wasm"));
        let started = manager.clone();
        tokio::task::spawn_blocking(move || started.apply(&[spec]).unwrap()).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let readiness = Readiness::waiting("plugins are being loaded");
        let configuration =
            Arc::new(File { text: Mutex::new("text: 1".to_owned()), reloads: Mutex::new(Ok(0)) });
        let tokens = Tokens::new(tokens);
        let host = Host {
            version: "1.2.3",
            tokens: tokens.clone(),
            readiness: readiness.clone(),
            configuration: Some(configuration.clone()),
            kv: Some(Arc::new(Values::default())),
            cache_dir: None,
            llmproxy_folder: Some(guest("prebuilt")),
            folder_problems: Some(Arc::new(|| {
                vec![("plugins/half.yaml".into(), "limits: hunter2 is no limit".to_owned())]
            })),
            measured: Some(Arc::new(measured)),
            traces_dropped: Some(Arc::new(|| 3)),
        };
        let admin = Admin::new(manager.clone(), host, listener).unwrap();
        let (stop, stopped) = oneshot::channel();
        let served = tokio::spawn(admin.serve(async { _ = stopped.await }));
        // Built with the whole workspace, the client is one for TLS too, and wants a provider. There may be one.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build().unwrap();
        let (stop, served) = (Some(stop), Some(served));
        Self { dir, manager, address, readiness, configuration, tokens, client, stop, served }
    }

    pub(crate) fn stop(&mut self) {
        _ = self.stop.take().map(|stop| stop.send(()));
    }

    pub(crate) fn request(&self, method: &str, path: &str) -> reqwest::RequestBuilder {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        self.client.request(method, format!("http://{}{path}", self.address))
    }

    pub(crate) async fn send(&self, request: reqwest::RequestBuilder) -> Answer {
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Answer { status, headers, body: response.text().await.unwrap() }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(self.request("GET", path)).await
    }

    /// Sends a JSON document, or nothing for `null`.
    pub(crate) async fn ask(&self, method: &str, path: &str, body: &Value) -> Answer {
        let request = self.request(method, path);
        self.send(if body.is_null() { request } else { request.json(body) }).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        self.ask("POST", path, body).await
    }

    /// A copy of a guest in this house's folder, under another name.
    pub(crate) fn copy(&self, from: &str, name: &str) -> String {
        let path = self.dir.path().join(name);
        std::fs::copy(guest(from), &path).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// A plugin whose hooks all answer with this document.
    pub(crate) fn answering(&self, name: &str, document: &str) -> String {
        let path = self.dir.path().join(name);
        std::fs::write(&path, answering(document)).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// One visit with this body.
    pub(crate) async fn visit(&self, text: &str) -> String {
        let mut visit = self.manager.open(None);
        let id = visit.id().to_owned();
        let body = json!({ "model": "m", "messages": [{ "role": "user", "content": text }] }).to_string();
        let mut event = RequestEvent {
            method: "POST".to_owned(),
            host: "api.example".to_owned(),
            path: "/v1/chat/completions".to_owned(),
            query: None,
            client: "192.0.2.1:4711".to_owned(),
            headers: Headers(vec![("content-type".to_owned(), "application/json".to_owned())]),
            body: Some(body.into()),
        };
        let mut chain = visit.chain::<HttpRequest>(&event);
        visit.ask(&mut chain, &mut event).await;
        id
    }
}

/// A module whose hooks all answer with these bytes, as text.
fn answering(document: &str) -> String {
    let quoted: String = document.bytes().map(|byte| format!("\\{byte:02x}")).collect();
    let length = document.len();
    format!(
        r#"(module
          (import "extism:host/env" "alloc" (func $alloc (param i64) (result i64)))
          (import "extism:host/env" "store_u8" (func $store_u8 (param i64 i32)))
          (import "extism:host/env" "output_set" (func $output_set (param i64 i64)))
          (memory 1)
          (data (i32.const 0) "{quoted}")
          (func (export "http_request") (export "http_response") (result i32)
            (local $block i64) (local $i i32)
            (local.set $block (call $alloc (i64.const {length})))
            (block $end (loop $next
              (br_if $end (i32.ge_u (local.get $i) (i32.const {length})))
              (call $store_u8 (i64.add (local.get $block) (i64.extend_i32_u (local.get $i)))
                (i32.load8_u (local.get $i)))
              (local.set $i (i32.add (local.get $i) (i32.const 1)))
              (br $next)))
            (call $output_set (local.get $block) (i64.const {length}))
            (i32.const 0)))"#
    )
}

/// Runs one test that waits for sockets.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(future)
}
