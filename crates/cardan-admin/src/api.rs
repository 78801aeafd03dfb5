//! Cardan's own routes, under `/api/v1`.

pub(crate) mod actions;
pub(crate) mod configuration;
pub(crate) mod core_dump;
pub(crate) mod follow;
pub(crate) mod logs;
pub(crate) mod observe;
pub(crate) mod plugin_config;
pub(crate) mod plugins;
pub(crate) mod views;

use axum::Router;
use axum::routing::{get, post};

use crate::app::App;

pub(crate) fn routes() -> Router<App> {
    Router::new()
        .route("/api/v1/plugins", get(plugins::list).post(plugins::install))
        // A name, or a name with `:` and an action.
        .route("/api/v1/plugins/{name}", get(plugins::show).post(actions::act).delete(plugins::remove))
        .route("/api/v1/plugins/{name}/versions", get(plugins::versions))
        .route("/api/v1/plugins/{name}/metrics", get(plugins::metrics))
        .route("/api/v1/plugins/{name}/logs", get(logs::of_one))
        .route("/api/v1/plugins/{name}/coredump", get(core_dump::take).post(core_dump::request))
        .route(
            "/api/v1/plugins/{name}/config",
            get(plugin_config::show).put(plugin_config::put).patch(plugin_config::patch),
        )
        .route("/api/v1/status", get(observe::status))
        .route("/api/v1/chains", get(observe::chains))
        .route("/api/v1/hooks", get(observe::hooks))
        .route("/api/v1/visits", get(observe::visits))
        .route("/api/v1/visits/{id}", get(observe::visit))
        .route("/api/v1/events", get(follow::events))
        .route("/api/v1/logs", get(logs::all))
        .route("/api/v1/config", get(configuration::show).put(configuration::put))
        .route("/api/v1/config:reload", post(configuration::reload))
}
