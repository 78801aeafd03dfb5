//! What can be done with a plugin: `POST /api/v1/plugins/{name}:{action}`.

use axum::Json;
use axum::extract::{FromRequest as _, Path as Segment, Request, State};
use axum::response::{IntoResponse, Response};
use cardan_manager::{CanaryPlan, Sample, Trial};
use http::{HeaderName, HeaderValue, header};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::time::Duration;
use utoipa::ToSchema;

use super::plugins::ActivatedView;
use crate::access::{As, Caller, Operator, Role};
use crate::app::App;
use crate::input::{self, MaybeJson, TEXT_BYTES_MAX};
use crate::problem::Problem;

/// Which version to go back to.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rollback {
    /// The version's number; the one before the active one unless said otherwise.
    #[serde(default)]
    to: Option<u32>,
}

/// How a canary is tried.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Canary {
    /// Of visits; 10 unless said otherwise.
    percent: Option<f64>,
    /// Of calls: with more faults it is stopped; 5 unless said otherwise.
    faults_percent: Option<f64>,
    /// Calls before that is judged; 20 unless said otherwise.
    calls_min: Option<u32>,
    /// After so many seconds without being stopped it becomes the active version; never unless said otherwise.
    promote_after_s: Option<u64>,
}

/// Whether there was a quarantine to end.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Released {
    name: String,
    was_quarantined: bool,
}

/// What came of a trial.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TrialView {
    plugin: String,
    version: u32,
    hook: &'static str,
    duration_us: u64,
    /// As a document of Cardan's dialect, whatever the plugin's own is.
    #[schema(value_type = Option<Object>)]
    verdict: Option<Value>,
    /// How it failed instead.
    fault: Option<&'static str>,
    /// In words, which may quote the guest, and not its configuration.
    error: Option<String>,
    /// Where the guest was when it was stopped: a line for each function, the innermost first.
    backtrace: Option<String>,
}

impl From<Trial> for TrialView {
    fn from(trial: Trial) -> Self {
        let Trial { plugin, version, hook, duration_us, verdict, fault, error, backtrace } = trial;
        Self {
            plugin,
            version,
            hook,
            duration_us,
            verdict,
            fault: fault.map(cardan_api::Fault::label),
            error,
            backtrace,
        }
    }
}

/// Sorts by the word behind the last colon, as a router cannot.
pub(crate) async fn act(
    As { caller, .. }: As<Operator>,
    State(app): State<App>,
    Segment(target): Segment<String>,
    request: Request,
) -> Result<Response, Problem> {
    let Some((name, action)) = target.rsplit_once(':') else {
        return Err(Problem::not_found(format!(
            "there is no action here: send POST /api/v1/plugins/{target}:reload, :enable, :disable, :rollback, \
             :canary, :promote, :stop-canary, :release, :try or :call"
        )));
    };
    let done = match action {
        "reload" => reload(&app, name).await.map(IntoResponse::into_response),
        "enable" => enable(&app, name).await.map(IntoResponse::into_response),
        "disable" => disable(&app, name).await.map(IntoResponse::into_response),
        "rollback" => rollback(&app, name, request).await.map(IntoResponse::into_response),
        "canary" => canary(&app, name, request).await.map(IntoResponse::into_response),
        "promote" => promote(&app, name).await.map(IntoResponse::into_response),
        "stop-canary" => stop_canary(&app, name).await.map(IntoResponse::into_response),
        "release" => release(&app, name).await.map(IntoResponse::into_response),
        "try" => try_it(&app, name, request).await.map(IntoResponse::into_response),
        "call" => call(&app, &caller, name, request).await,
        _ => Err(Problem::not_found(format!("there is no action {action:?}"))),
    };
    done.map_err(|problem| problem.about(name))
}

type Active = Result<Json<ActivatedView>, Problem>;

/// Reads the plugin's file again.
#[utoipa::path(post, path = "/api/v1/plugins/{name}:reload", tag = "actions", params(("name" = String, Path)),
    responses((status = 200, body = ActivatedView), (status = 404, body = Problem), (status = 422, body = Problem)),
    security(("bearer" = ["operator"])))]
pub(crate) async fn reload(app: &App, name: &str) -> Active {
    Ok(Json(app.control_one(name, |manager, name| manager.reload(name)).await?.into()))
}

/// Has visits ask it again.
#[utoipa::path(post, path = "/api/v1/plugins/{name}:enable", tag = "actions", params(("name" = String, Path)),
    responses((status = 200, body = ActivatedView), (status = 404, body = Problem)),
    security(("bearer" = ["operator"])))]
pub(crate) async fn enable(app: &App, name: &str) -> Active {
    Ok(Json(app.control_one(name, |manager, name| manager.enable(name)).await?.into()))
}

/// Has no visit ask it. It stays loaded.
#[utoipa::path(post, path = "/api/v1/plugins/{name}:disable", tag = "actions", params(("name" = String, Path)),
    responses((status = 200, body = ActivatedView), (status = 404, body = Problem)),
    security(("bearer" = ["operator"])))]
pub(crate) async fn disable(app: &App, name: &str) -> Active {
    Ok(Json(app.control_one(name, |manager, name| manager.disable(name)).await?.into()))
}

/// Makes an earlier version the active one.
#[utoipa::path(post, path = "/api/v1/plugins/{name}:rollback", tag = "actions", params(("name" = String, Path)),
    request_body = inline(Option<Rollback>),
    responses((status = 200, body = ActivatedView), (status = 404, body = Problem)),
    security(("bearer" = ["operator"])))]
pub(crate) async fn rollback(app: &App, name: &str, request: Request) -> Active {
    let MaybeJson(Rollback { to }) = MaybeJson::from_request(request, &()).await?;
    Ok(Json(app.control_one(name, move |manager, name| manager.rollback(name, to)).await?.into()))
}

/// Has a share of visits ask what the plugin's file holds now.
#[utoipa::path(post, path = "/api/v1/plugins/{name}:canary", tag = "actions", params(("name" = String, Path)),
    request_body = inline(Option<Canary>),
    responses((status = 200, body = ActivatedView), (status = 409, body = Problem), (status = 422, body = Problem)),
    security(("bearer" = ["operator"])))]
pub(crate) async fn canary(app: &App, name: &str, request: Request) -> Active {
    let MaybeJson(asked) = MaybeJson::<Canary>::from_request(request, &()).await?;
    let default = CanaryPlan::default();
    let plan = CanaryPlan {
        share: permyriad("percent", asked.percent, default.share)?,
        faults_max: permyriad("faults_percent", asked.faults_percent, default.faults_max)?,
        calls_min: asked.calls_min.unwrap_or(default.calls_min),
        promote_after: asked.promote_after_s.map(Duration::from_secs),
    };
    Ok(Json(app.control_one(name, move |manager, name| manager.start_canary(name, plan)).await?.into()))
}

fn permyriad(key: &str, percent: Option<f64>, default: u32) -> Result<u32, Problem> {
    match percent {
        None => Ok(default),
        // Rounded to a whole number within bounds, so that nothing is cut off.
        Some(percent) if (0.0..=100.0).contains(&percent) => Ok((percent * 100.0).round() as u32),
        Some(percent) => Err(Problem::unprocessable(format!("{key}: {percent} is not from 0 to 100"))),
    }
}

/// Makes the canary the active version.
#[utoipa::path(post, path = "/api/v1/plugins/{name}:promote", tag = "actions", params(("name" = String, Path)),
    responses((status = 200, body = ActivatedView), (status = 409, body = Problem)),
    security(("bearer" = ["operator"])))]
pub(crate) async fn promote(app: &App, name: &str) -> Active {
    Ok(Json(app.control_one(name, |manager, name| manager.promote_canary(name)).await?.into()))
}

/// Has everybody ask the active version again.
#[utoipa::path(post, path = "/api/v1/plugins/{name}:stop-canary", tag = "actions", params(("name" = String, Path)),
    responses((status = 200, body = ActivatedView), (status = 409, body = Problem)),
    security(("bearer" = ["operator"])))]
pub(crate) async fn stop_canary(app: &App, name: &str) -> Active {
    Ok(Json(app.control_one(name, |manager, name| manager.stop_canary(name)).await?.into()))
}

/// Ends its quarantine at once.
#[utoipa::path(post, path = "/api/v1/plugins/{name}:release", tag = "actions", params(("name" = String, Path)),
    responses((status = 200, body = Released), (status = 404, body = Problem)),
    security(("bearer" = ["operator"])))]
pub(crate) async fn release(app: &App, name: &str) -> Result<Json<Released>, Problem> {
    let was_quarantined = app.control_one(name, |manager, name| manager.release(name)).await?;
    Ok(Json(Released { name: name.to_owned(), was_quarantined }))
}

/// Shows one made-up event to this plugin alone. Nothing is counted and nothing becomes of the verdict.
#[utoipa::path(post, path = "/api/v1/plugins/{name}:try", tag = "actions", params(("name" = String, Path)),
    request_body(content = Object, description = "`{\"hook\": \"http.request\", \"version\": 1, \"event\": \
    {\"request\": {\"method\", \"host\", \"path\", \"query\", \"client\", \"headers\", \"body\": {\"json\": ...}}}}`; \
    every key may be left out"),
    responses((status = 200, body = TrialView), (status = 404, body = Problem), (status = 422, body = Problem)),
    security(("bearer" = ["operator"])))]
pub(crate) async fn try_it(app: &App, name: &str, request: Request) -> Result<Json<TrialView>, Problem> {
    let MaybeJson(sample) = MaybeJson::<Sample>::from_request(request, &()).await?;
    Ok(Json(app.manager().trial(name, sample).await?.into()))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Callee {
    export: String,
}

/// Calls one function of this plugin. The body is what it is given, the answer's body is what it returns.
#[utoipa::path(post, path = "/api/v1/plugins/{name}:call", tag = "actions",
    params(("name" = String, Path), ("export" = String, Query, description = "the function's name")),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses((status = 200, content_type = "application/octet-stream", body = Vec<u8>),
              (status = 404, body = Problem), (status = 422, body = Problem)),
    security(("bearer" = ["admin"])))]
pub(crate) async fn call(
    app: &App,
    caller: &Caller,
    name: &str,
    request: Request,
) -> Result<Response, Problem> {
    // Whatever a plugin has, an administrator could do with another one.
    caller.require(Role::Admin)?;
    let query = axum::extract::Query::<Callee>::try_from_uri(request.uri());
    let query = query.map_err(|_| Problem::bad_request("name the function: POST ...:call?export=NAME"))?;
    let input = input::bytes(request, TEXT_BYTES_MAX).await?;
    let called = app.manager().call(name, &query.export, &input).await?;
    let output = called.output.map_err(|(fault, error)| {
        Problem::unprocessable(format!("the call ended with the fault {fault}: {error}"))
    })?;
    let mut response = output.into_response();
    let micros = HeaderValue::from(u64::try_from(called.duration.as_micros()).unwrap_or(u64::MAX));
    let bytes = HeaderValue::from_static("application/octet-stream");
    response.headers_mut().insert(header::CONTENT_TYPE, bytes);
    response.headers_mut().insert(HeaderName::from_static("x-cardan-duration-us"), micros);
    Ok(response)
}
