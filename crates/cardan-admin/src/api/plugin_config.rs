//! One plugin's configuration.

use axum::Json;
use axum::extract::{Path as Segment, State};
use axum::response::{IntoResponse as _, Response};
use cardan_manager::{Owner, PluginStatus};
use http::{HeaderMap, StatusCode, header};
use serde::Serialize;
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};
use utoipa::ToSchema;

use super::configuration::{if_match, precondition};
use crate::access::{Administrator, As, Role, Viewer};
use crate::app::App;
use crate::input::Json as Body;
use crate::problem::Problem;

/// What stands for a value that the caller may not see.
const HIDDEN: &str = "(hidden)";

/// A plugin's configuration.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PluginConfiguration {
    name: String,
    /// For administrators; for others every value is `(hidden)`.
    #[schema(value_type = Object)]
    config: Value,
    /// What it has to look like, as JSON Schema.
    #[schema(value_type = Option<Object>)]
    schema: Option<Value>,
    /// Whether it can be changed here: what a file says is changed there.
    editable: bool,
}

/// Another one for every version, and for everything else that the plugin was told.
fn etag(app: &App, status: &PluginStatus) -> Result<String, Problem> {
    let spec = app.manager().spec(&status.name)?;
    let text = serde_json::to_vec(&(status.active.number, spec)).map_err(Problem::internal)?;
    let digest = Sha256::digest(text);
    Ok(digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect())
}

async fn answer(app: &App, name: String, role: Role) -> Result<Response, Problem> {
    let status = app.manager().plugin(&name)?;
    let etag = format!("\"{}\"", etag(app, &status)?);
    let config = match (&status.config, role >= Role::Admin) {
        (config, true) => config.clone(),
        (Value::Object(values), false) => {
            values.keys().map(|key| (key.clone(), Value::from(HIDDEN))).collect()
        }
        (_, false) => Value::from(HIDDEN),
    };
    let editable = status.owner == Owner::Operator;
    let view = PluginConfiguration { name, config, schema: status.config_schema, editable };
    Ok(([(header::ETAG, etag)], Json(view)).into_response())
}

/// What a plugin is configured with.
#[utoipa::path(get, path = "/api/v1/plugins/{name}/config", tag = "plugins", params(("name" = String, Path)),
    responses((status = 200, body = PluginConfiguration), (status = 404, body = Problem)),
    security(("bearer" = ["viewer"])))]
pub(crate) async fn show(
    who: As<Viewer>,
    State(app): State<App>,
    Segment(name): Segment<String>,
) -> Result<Response, Problem> {
    answer(&app, name, who.caller.role).await
}

/// Gives a plugin another configuration, as a new version of it.
#[utoipa::path(put, path = "/api/v1/plugins/{name}/config", tag = "plugins",
    params(("name" = String, Path), ("If-Match" = String, Header)), request_body = Object,
    responses((status = 200, body = PluginConfiguration), (status = 404, body = Problem),
        (status = 409, body = Problem), (status = 412, body = Problem), (status = 422, body = Problem),
        (status = 428, body = Problem)),
    security(("bearer" = ["admin"])))]
pub(crate) async fn put(
    who: As<Administrator>,
    State(app): State<App>,
    Segment(name): Segment<String>,
    headers: HeaderMap,
    Body(config): Body<Map<String, Value>>,
) -> Result<Response, Problem> {
    change(&app, &name, &headers, move |_| Value::Object(config)).await?;
    answer(&app, name, who.caller.role).await
}

/// Changes some keys of a plugin's configuration, as a new version of it. `null` takes a key out (RFC 7396).
#[utoipa::path(patch, path = "/api/v1/plugins/{name}/config", tag = "plugins",
    params(("name" = String, Path), ("If-Match" = String, Header)),
    request_body(content = Object, content_type = "application/merge-patch+json"),
    responses((status = 200, body = PluginConfiguration), (status = 404, body = Problem),
        (status = 409, body = Problem), (status = 412, body = Problem), (status = 422, body = Problem),
        (status = 428, body = Problem)),
    security(("bearer" = ["admin"])))]
pub(crate) async fn patch(
    who: As<Administrator>,
    State(app): State<App>,
    Segment(name): Segment<String>,
    headers: HeaderMap,
    Body(changes): Body<Map<String, Value>>,
) -> Result<Response, Problem> {
    change(&app, &name, &headers, move |mut config| {
        merge(&mut config, Value::Object(changes));
        config
    })
    .await?;
    answer(&app, name, who.caller.role).await
}

async fn change(
    app: &App,
    name: &str,
    headers: &HeaderMap,
    next: impl FnOnce(Value) -> Value + Send + 'static,
) -> Result<(), Problem> {
    let expected = if_match(headers).ok_or_else(precondition)?;
    let plugin = name.to_owned();
    let changed = app.change(move |app| {
        let status = app.manager().plugin(&plugin)?;
        if status.owner != Owner::Operator {
            let why = format!("plugin {plugin}: {}; its configuration is changed there", status.owner);
            return Err(Problem::conflict(why));
        }
        if expected != "*" && expected != etag(app, &status)? {
            let why = "its configuration, or the plugin itself, is another one by now; read it again";
            return Err(Problem::new(StatusCode::PRECONDITION_FAILED, why));
        }
        app.manager().configure(&plugin, next(status.config))?;
        Ok(())
    });
    changed.await.map_err(|problem| problem.about(name))
}

/// RFC 7396.
fn merge(target: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *target = patch;
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Some(object) = target.as_object_mut() else { return };
    for (key, value) in patch {
        if value.is_null() {
            object.remove(&key);
        } else {
            merge(object.entry(key).or_insert(Value::Null), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn merge_patch() {
        let mut config = json!({ "a": 1, "b": { "c": 2, "d": 3 }, "e": [1] });
        merge(&mut config, json!({ "a": null, "b": { "c": 4, "x": { "y": null } }, "e": 5 }));
        assert_eq!(config, json!({ "b": { "c": 4, "d": 3, "x": {} }, "e": 5 }));
    }
}
