//! The admin routes of the systems whose plugins run here, as those systems have them: paths, keys and
//! status codes. What they lack is in [`crate::api`].

pub(crate) mod heliosproxy;
pub(crate) mod kv;
pub(crate) mod llmproxy;
pub(crate) mod smg;

use axum::Router;
use axum::extract::Path;
use axum::routing::{MethodRouter, delete, get, post};

use crate::api::{logs, plugins};
use crate::app::App;

pub(crate) fn routes() -> Router<App> {
    let heliosproxy = Router::new()
        .route("/plugins", get(heliosproxy::list))
        .route("/plugins/load", post(heliosproxy::load))
        .route("/plugins/{name}", delete(heliosproxy::unload))
        .route("/plugins/{name}/reload", post(heliosproxy::reload))
        .route("/plugins/{name}/enable", post(heliosproxy::enable))
        .route("/plugins/{name}/disable", post(heliosproxy::disable))
        .route("/plugins/{name}/logs", get(logs::heliosproxy))
        .route("/plugins/{name}/metrics", get(heliosproxy::metrics))
        .route("/admin/kv/{*path}", get(kv::read).put(kv::write).delete(kv::remove));
    let smg = Router::new()
        .route("/wasm", get(smg::list).post(smg::deploy))
        .route("/wasm/{uuid}", delete(smg::remove));
    let llmproxy = Router::new()
        .route("/api/v1/plugins/stats", named("stats").get(llmproxy::stats))
        .route("/api/v1/plugins/toggle", shown("toggle").post(llmproxy::toggle))
        .route("/api/v1/plugins/install", shown("install").post(llmproxy::install))
        .route("/api/v1/plugins/hot-swap", shown("hot-swap").post(llmproxy::hot_swap))
        .route("/api/v1/plugins/rollback", shown("rollback").post(llmproxy::rollback))
        .route("/api/v1/metrics/latency", get(llmproxy::latency))
        .route("/api/v1/metrics/ring-timeline", get(llmproxy::ring_timeline));
    heliosproxy.merge(smg).merge(llmproxy)
}

/// What else can be done at the path of a fixed word: a plugin may be called so.
fn named(word: &'static str) -> MethodRouter<App> {
    delete(move |who, app| plugins::remove(who, app, Path(word.to_owned())))
}

fn shown(word: &'static str) -> MethodRouter<App> {
    named(word).get(move |who, app| plugins::show(who, app, Path(word.to_owned())))
}
