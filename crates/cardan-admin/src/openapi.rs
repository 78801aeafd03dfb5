//! The document that describes the API.

use axum::routing::get;
use axum::{Json, Router};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};

use crate::access::{As, Viewer};
use crate::api::{actions, configuration, core_dump, follow, logs, observe, plugin_config, plugins};
use crate::app::App;
use crate::facade::{heliosproxy, kv, llmproxy, smg};
use crate::{health, metrics};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Cardan admin API",
        description = "Cardan's own routes under /api/v1, and the admin routes of HeliosProxy, LLMProxy and SMG. \
        Errors are problem documents (RFC 9457). Each operation names the role that its token needs.",
    ),
    paths(
        health::healthz, health::livez, health::readyz, metrics::metrics, document,
        plugins::list, plugins::install, plugins::show, plugins::remove, plugins::versions, plugins::metrics,
        plugin_config::show, plugin_config::put, plugin_config::patch,
        actions::reload, actions::enable, actions::disable, actions::rollback, actions::canary, actions::promote,
        actions::stop_canary, actions::release, actions::try_it, actions::call,
        logs::all, logs::of_one, logs::heliosproxy, core_dump::request, core_dump::take,
        observe::status, observe::chains, observe::hooks, observe::visits, observe::visit, follow::events,
        configuration::show, configuration::put, configuration::reload,
        heliosproxy::list, heliosproxy::load, heliosproxy::unload, heliosproxy::reload, heliosproxy::enable,
        heliosproxy::disable, heliosproxy::metrics, kv::read, kv::write, kv::remove,
        smg::list, smg::deploy, smg::remove,
        llmproxy::stats, llmproxy::toggle, llmproxy::install, llmproxy::hot_swap, llmproxy::rollback,
        llmproxy::latency, llmproxy::ring_timeline,
    ),
    modifiers(&Bearer),
)]
struct Document;

struct Bearer;

impl Modify for Bearer {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some(
            "One of the tokens under admin.tokens. Where there are none, whoever is on this machine needs none.",
        ));
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("bearer", SecurityScheme::Http(scheme.build()));
    }
}

/// The OpenAPI document of the admin API.
pub fn openapi() -> utoipa::openapi::OpenApi {
    Document::openapi()
}

pub(crate) fn routes() -> Router<App> {
    Router::new().route("/api/openapi.json", get(document))
}

/// This document.
#[utoipa::path(get, path = "/api/openapi.json", tag = "observe", responses((status = 200, body = Object)),
    security(("bearer" = ["viewer"])))]
pub(crate) async fn document(_: As<Viewer>) -> Json<utoipa::openapi::OpenApi> {
    Json(openapi())
}
