//! Trying one plugin alone: one event that somebody made up, one verdict, nothing counted.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use cardan::dialect::Spoken;
use cardan::{Circumstances, Held, Question};
use cardan_api::http::{
    CompleteEvent, HeaderEdit, Headers, HttpAnswer, HttpComplete, HttpRequest, HttpResponse, Origin,
    RequestEdits, RequestEvent, ResponseEdits, ResponseEvent,
};
use cardan_api::tool::{ToolCall, ToolList, ToolListEvent};
use cardan_api::{Attributes, BodyNeed, Fault, Flow, Hook, NamedHook};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use crate::chain::bindings;
use crate::control::{ControlError, missing};
use crate::manager::Manager;
use crate::spec::{BindingSpec, PluginSpec};
use crate::version::Version;

mod tools;

/// Time of one call where the plugin has none of its own.
const DEADLINE: Duration = Duration::from_secs(10);

/// An event for one plugin, written as the documents are that plugins of Cardan's dialect are given.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sample {
    /// The hook's name; `http.request` unless said otherwise.
    #[serde(default)]
    pub hook: Option<String>,
    /// Which version; the active one unless said otherwise.
    #[serde(default)]
    pub version: Option<u32>,
    /// The event.
    #[serde(default)]
    pub event: SampleEvent,
}

/// What the plugin is shown.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SampleEvent {
    request: SampleRequest,
    /// At `http.response`.
    response: SampleResponse,
    /// At `http.complete`.
    complete: SampleComplete,
    /// At `tool.call`.
    tool: tools::SampleTool,
    /// What other plugins would have set.
    attributes: Attributes,
    session: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct SampleRequest {
    method: String,
    host: String,
    path: String,
    query: Option<String>,
    client: String,
    headers: BTreeMap<String, String>,
    body: Option<SampleBody>,
}

impl Default for SampleRequest {
    fn default() -> Self {
        Self {
            method: "POST".to_owned(),
            host: "localhost".to_owned(),
            path: "/v1/chat/completions".to_owned(),
            query: None,
            client: "127.0.0.1:0".to_owned(),
            headers: BTreeMap::from([("content-type".to_owned(), "application/json".to_owned())]),
            body: None,
        }
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct SampleResponse {
    status: u16,
    headers: BTreeMap<String, String>,
    streamed: bool,
    origin: Origin,
    body: Option<SampleBody>,
}

impl Default for SampleResponse {
    fn default() -> Self {
        let headers = BTreeMap::from([("content-type".to_owned(), "application/json".to_owned())]);
        Self { status: 200, headers, streamed: false, origin: Origin::Upstream, body: None }
    }
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct SampleComplete {
    status: Option<u16>,
    sent_bytes: u64,
    duration_ms: u64,
    aborted: bool,
}

/// Exactly one of these keys.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "lowercase")]
enum SampleBody {
    Json(Value),
    Text(String),
    Base64(String),
}

/// What came of a trial.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Trial {
    /// The plugin.
    pub plugin: String,
    /// Which of its versions.
    pub version: u32,
    /// At which hook.
    pub hook: &'static str,
    /// From the question to the verdict.
    pub duration_us: u64,
    /// The verdict, as a document of Cardan's dialect, whatever the plugin's own is.
    pub verdict: Option<Value>,
    /// How it failed instead.
    pub fault: Option<Fault>,
    /// In words, which may quote the guest, and not its configuration.
    pub error: Option<String>,
    /// Where the guest was when it was stopped: a line for each function, the innermost first.
    pub backtrace: Option<String>,
}

/// What came of a call of one function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Called {
    /// Which version.
    pub version: u32,
    /// How long it took.
    pub duration: Duration,
    /// The output, or how the call failed.
    pub output: Result<Vec<u8>, (Fault, String)>,
}

impl Manager {
    /// The wish that a plugin's active version was made from.
    ///
    /// # Errors
    ///
    /// [`ControlError::NotFound`].
    pub fn spec(&self, name: &str) -> Result<PluginSpec, ControlError> {
        self.snapshot().find(name).map(|installed| installed.spec().clone()).ok_or_else(|| missing(name))
    }

    /// Shows one event to one plugin, whether it is switched on or not. Nobody else is asked, nothing is
    /// counted, and nothing becomes of the verdict. What the plugin does meanwhile it does.
    ///
    /// # Errors
    ///
    /// [`ControlError::NotFound`], or [`ControlError::Refused`] for an event that is none.
    pub async fn trial(&self, name: &str, sample: Sample) -> Result<Trial, ControlError> {
        let version = self.find_version(name, sample.version)?;
        let refused = |why: String| ControlError::Refused(format!("plugin {name}: {why}"));
        let hook = sample.hook.as_deref().unwrap_or(HttpRequest::NAME);
        let event = sample.event;
        let (attributes, session) = (event.attributes, event.session.unwrap_or_else(|| "default".to_owned()));
        let told = Told { attributes, session };
        let request = event.request.event().map_err(refused)?;
        match hook {
            HttpRequest::NAME => Ok(ask::<HttpRequest>(&version, &request, told).await),
            HttpResponse::NAME => {
                let event = event.response.event(request).map_err(refused)?;
                Ok(ask::<HttpResponse>(&version, &event, told).await)
            }
            HttpComplete::NAME => {
                let event = event.complete.event(request);
                Ok(ask::<HttpComplete>(&version, &event, told).await)
            }
            ToolList::NAME => Ok(ask::<ToolList>(&version, &ToolListEvent, told).await),
            ToolCall::NAME => {
                let event = event.tool.event().map_err(refused)?;
                Ok(ask::<ToolCall>(&version, &event, told).await)
            }
            other => {
                let known = [
                    HttpRequest::NAME,
                    HttpResponse::NAME,
                    HttpComplete::NAME,
                    ToolList::NAME,
                    ToolCall::NAME,
                ];
                let known = known.join(", ");
                Err(refused(format!("no plugin can be tried at {other:?}; it can at {known}")))
            }
        }
    }

    /// Calls one function of a plugin's active version with some bytes.
    ///
    /// # Errors
    ///
    /// [`ControlError::NotFound`] when there is no such plugin or function.
    pub async fn call(&self, name: &str, export: &str, input: &[u8]) -> Result<Called, ControlError> {
        let version = self.find_version(name, None)?;
        let plugin = version.plugin();
        if !plugin.can_call(export) {
            let exports = plugin.inspection().exports.join(", ");
            let why = format!("plugin {name}: there is no function {export:?} to call; there are {exports}");
            return Err(ControlError::NotFound(why));
        }
        let began = Instant::now();
        let output = plugin.call_async(export, input).await;
        let output = output.map_err(|error| (error.fault(), error.to_string()));
        Ok(Called { version: version.number, duration: began.elapsed(), output })
    }

    fn find_version(&self, name: &str, number: Option<u32>) -> Result<Arc<Version>, ControlError> {
        let snapshot = self.snapshot();
        let installed = snapshot.find(name).ok_or_else(|| missing(name))?;
        let Some(number) = number else { return Ok(installed.active.clone()) };
        let canary = installed.canary.iter().map(|canary| &canary.version);
        let earlier = installed.earlier.iter().filter_map(|earlier| earlier.version.as_ref());
        let mut loaded = std::iter::once(&installed.active).chain(canary).chain(earlier);
        let version = loaded.find(|version| version.number == number).cloned();
        version.ok_or_else(|| {
            ControlError::NotFound(format!(
                "plugin {name}: no version {number} is loaded; roll back to it first"
            ))
        })
    }
}

/// What a plugin is told beside the event.
pub(crate) struct Told {
    attributes: Attributes,
    session: String,
}

pub(crate) async fn ask<H: Tried>(version: &Version, event: &H::Event, told: Told) -> Trial {
    let bound = bindings(version).unwrap_or_default();
    let binding = bound.into_iter().find(|binding| binding.hook.name == H::NAME);
    let binding = binding.or_else(|| NamedHook::find(H::NAME).map(BindingSpec::at));
    let (phase, entry, deadline, body) = match &binding {
        Some(it) => (it.phase, it.entry.as_deref(), it.deadline, it.body),
        None => (cardan_api::Phase::PreFlight, None, None, BodyNeed::Whole),
    };
    let question = Question::<H> {
        event,
        about: Circumstances {
            phase,
            body,
            visit: "0000000000000000",
            session: &told.session,
            attributes: &told.attributes,
            config: version.config(),
        },
        entry,
        deadline: deadline.or(version.spec.limits.deadline).or(Some(DEADLINE)),
    };
    let began = Instant::now();
    let asked = version.plugin().ask(&mut Held::default(), question).await;
    let duration_us = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
    let (verdict, failed, backtrace) = match asked {
        Ok(verdict) => {
            let mut document = match verdict.flow {
                Flow::Continue => json!({ "verdict": "continue", "edits": H::shown(verdict.edits) }),
                Flow::Stop(answer) => H::answered(answer),
            };
            if !verdict.attributes.is_empty() {
                document["attributes"] = Value::Object(verdict.attributes);
            }
            (Some(document), None, None)
        }
        Err(error) => {
            let said = version.spec.redacted(&error.to_string(), usize::MAX);
            (None, Some((error.fault(), said)), error.backtrace().map(str::to_owned))
        }
    };
    let (fault, error) = failed.unzip();
    Trial {
        plugin: version.name().to_string(),
        version: version.number,
        hook: H::NAME,
        duration_us,
        verdict,
        fault,
        error,
        backtrace,
    }
}

/// Hooks whose verdicts can be shown.
pub(crate) trait Tried: Spoken {
    fn shown(edits: Self::Edits) -> Value;
    fn answered(answer: Self::Answer) -> Value;
}

impl Tried for HttpRequest {
    fn shown(edits: RequestEdits) -> Value {
        let mut shown = Map::new();
        put(&mut shown, "path", edits.path.map(Value::String));
        put(&mut shown, "headers", headers(edits.headers));
        put(&mut shown, "body", edits.body.as_ref().map(body));
        Value::Object(shown)
    }

    fn answered(answer: HttpAnswer) -> Value {
        answered(answer)
    }
}

impl Tried for HttpResponse {
    fn shown(edits: ResponseEdits) -> Value {
        let mut shown = Map::new();
        put(&mut shown, "status", edits.status.map(Value::from));
        put(&mut shown, "headers", headers(edits.headers));
        put(&mut shown, "body", edits.body.as_ref().map(body));
        put(&mut shown, "request_body", edits.request_body.as_ref().map(body));
        Value::Object(shown)
    }

    fn answered(answer: HttpAnswer) -> Value {
        answered(answer)
    }
}

impl Tried for HttpComplete {
    fn shown((): ()) -> Value {
        json!({})
    }

    fn answered(answer: std::convert::Infallible) -> Value {
        match answer {}
    }
}

fn answered(answer: HttpAnswer) -> Value {
    match answer {
        HttpAnswer::Refuse(it) => {
            json!({ "verdict": "refuse", "status": it.status, "kind": it.kind, "message": it.message })
        }
        HttpAnswer::Respond(it) => {
            let headers: Map<String, Value> =
                it.headers.0.into_iter().map(|(name, value)| (name, Value::String(value))).collect();
            json!({ "verdict": "respond", "status": it.status, "headers": headers, "body": body(&it.body) })
        }
    }
}

fn put(shown: &mut Map<String, Value>, key: &str, value: Option<Value>) {
    if let Some(value) = value {
        shown.insert(key.to_owned(), value);
    }
}

fn headers(edits: Vec<HeaderEdit>) -> Option<Value> {
    let mut fields = Map::new();
    for edit in edits {
        match edit {
            HeaderEdit::Set(name, value) => drop(fields.insert(name, Value::String(value))),
            HeaderEdit::Remove(name) => drop(fields.insert(name, Value::Null)),
            // A list is what is added beside what is there.
            HeaderEdit::Add(name, value) => {
                let added = fields.entry(name).or_insert_with(|| Value::Array(Vec::new()));
                match added {
                    Value::Array(values) => values.push(value.into()),
                    set => *set = json!([set.take(), value]),
                }
            }
        }
    }
    (!fields.is_empty()).then_some(Value::Object(fields))
}

fn body(bytes: &Bytes) -> Value {
    if let Ok(value) = serde_json::from_slice::<Value>(bytes) {
        return json!({ "json": value });
    }
    match std::str::from_utf8(bytes) {
        Ok(text) => json!({ "text": text }),
        Err(_) => json!({ "base64": STANDARD.encode(bytes) }),
    }
}

impl SampleBody {
    fn bytes(self) -> Result<Bytes, String> {
        match self {
            Self::Json(value) => Ok(value.to_string().into()),
            Self::Text(text) => Ok(text.into()),
            Self::Base64(text) => match STANDARD.decode(text) {
                Ok(bytes) => Ok(bytes.into()),
                Err(error) => Err(format!("the event's body is no base64: {error}")),
            },
        }
    }
}

fn fields(fields: BTreeMap<String, String>) -> Headers {
    Headers(fields.into_iter().map(|(name, value)| (name.to_ascii_lowercase(), value)).collect())
}

impl SampleRequest {
    /// A body is always shown, empty where there is none.
    fn event(self) -> Result<RequestEvent, String> {
        Ok(RequestEvent {
            method: self.method,
            host: self.host,
            path: self.path,
            query: self.query,
            client: self.client,
            headers: fields(self.headers),
            body: Some(self.body.map_or_else(|| Ok(Bytes::new()), SampleBody::bytes)?),
        })
    }
}

impl SampleResponse {
    fn event(self, request: RequestEvent) -> Result<ResponseEvent, String> {
        if !(100..600).contains(&self.status) {
            return Err(format!("the event's response.status is {}, which is no HTTP status", self.status));
        }
        Ok(ResponseEvent {
            request,
            status: self.status,
            headers: fields(self.headers),
            body: Some(self.body.map_or_else(|| Ok(Bytes::new()), SampleBody::bytes)?),
            streamed: self.streamed,
            origin: self.origin,
        })
    }
}

impl SampleComplete {
    fn event(self, request: RequestEvent) -> CompleteEvent {
        CompleteEvent {
            request,
            status: self.status,
            sent_bytes: self.sent_bytes,
            duration_ms: self.duration_ms,
            aborted: self.aborted,
        }
    }
}
