//! Components of the world `cardan:plugin`: every hook is an interface of its own, exported only by plugins that
//! answer it.

mod database;
mod events;
mod verdicts;

pub(crate) mod host;

use cardan_api::lifecycle::{LifeEvent, LifeReason, TickEvent};

use serde_json::Value;

use crate::plugin::ask;
use crate::{Config, Exported, Result, ToolError};
use imports::cardan::plugin::types;

/// What every plugin may import. Of these, a component imports what its code uses.
pub mod imports {
    wit_bindgen::generate!({
        path: ["../../wit/cardan-plugin", "wit"],
        world: "cardan-pdk:worlds/imports",
        generate_all,
    });
}

/// A module with the bindings of one exported interface, and where its types are that others have, too.
macro_rules! exported {
    ($($module:ident $world:literal $with:tt;)*) => {$(
        pub mod $module {
            wit_bindgen::generate!({
                path: ["../../wit/cardan-plugin", "wit"],
                world: $world,
                pub_export_macro: true,
                export_macro_name: "export_it",
                with: $with,
                generate_all,
            });
        }
    )*};
}

exported! {
    http_request "cardan-pdk:worlds/http-request" {
        "cardan:plugin/types@0.1.0": crate::component::imports::cardan::plugin::types,
        "cardan:plugin/http-types@0.1.0": crate::component::imports::cardan::plugin::http_types,
    };
    http_response "cardan-pdk:worlds/http-response" {
        "cardan:plugin/types@0.1.0": crate::component::imports::cardan::plugin::types,
        "cardan:plugin/http-types@0.1.0": crate::component::imports::cardan::plugin::http_types,
    };
    http_complete "cardan-pdk:worlds/http-complete" {
        "cardan:plugin/types@0.1.0": crate::component::imports::cardan::plugin::types,
        "cardan:plugin/http-types@0.1.0": crate::component::imports::cardan::plugin::http_types,
    };
    life "cardan-pdk:worlds/life" {
        "cardan:plugin/types@0.1.0": crate::component::imports::cardan::plugin::types,
    };
    tick "cardan-pdk:worlds/tick" {
        "cardan:plugin/types@0.1.0": crate::component::imports::cardan::plugin::types,
    };
    tools "cardan-pdk:worlds/tools" {
        "cardan:plugin/types@0.1.0": crate::component::imports::cardan::plugin::types,
    };
    access_authenticate "cardan-pdk:worlds/access-authenticate" {
        "cardan:plugin/types@0.1.0": crate::component::imports::cardan::plugin::types,
        "cardan:plugin/access-types@0.1.0": crate::component::imports::cardan::plugin::access_types,
    };
    access_authorize "cardan-pdk:worlds/access-authorize" {
        "cardan:plugin/types@0.1.0": crate::component::imports::cardan::plugin::types,
        "cardan:plugin/access-types@0.1.0": crate::component::imports::cardan::plugin::access_types,
    };
    cache_get "cardan-pdk:worlds/cache-get" {
        "cardan:plugin/types@0.1.0": crate::component::imports::cardan::plugin::types,
        "cardan:plugin/http-types@0.1.0": crate::component::imports::cardan::plugin::http_types,
        "cardan:plugin/access-types@0.1.0": crate::component::imports::cardan::plugin::access_types,
        "cardan:plugin/sql-types@0.1.0": crate::component::imports::cardan::plugin::sql_types,
        "cardan:plugin/cache-types@0.1.0": crate::component::imports::cardan::plugin::cache_types,
    };
    cache_set "cardan-pdk:worlds/cache-set" {
        "cardan:plugin/types@0.1.0": crate::component::imports::cardan::plugin::types,
        "cardan:plugin/http-types@0.1.0": crate::component::imports::cardan::plugin::http_types,
        "cardan:plugin/access-types@0.1.0": crate::component::imports::cardan::plugin::access_types,
        "cardan:plugin/sql-types@0.1.0": crate::component::imports::cardan::plugin::sql_types,
        "cardan:plugin/cache-types@0.1.0": crate::component::imports::cardan::plugin::cache_types,
    };
    sql_query "cardan-pdk:worlds/sql-query" {
        "cardan:plugin/types@0.1.0": crate::component::imports::cardan::plugin::types,
        "cardan:plugin/access-types@0.1.0": crate::component::imports::cardan::plugin::access_types,
        "cardan:plugin/sql-types@0.1.0": crate::component::imports::cardan::plugin::sql_types,
    };
    sql_route "cardan-pdk:worlds/sql-route" {
        "cardan:plugin/types@0.1.0": crate::component::imports::cardan::plugin::types,
        "cardan:plugin/access-types@0.1.0": crate::component::imports::cardan::plugin::access_types,
        "cardan:plugin/sql-types@0.1.0": crate::component::imports::cardan::plugin::sql_types,
    };
    sql_result "cardan-pdk:worlds/sql-result" {
        "cardan:plugin/types@0.1.0": crate::component::imports::cardan::plugin::types,
        "cardan:plugin/access-types@0.1.0": crate::component::imports::cardan::plugin::access_types,
        "cardan:plugin/sql-types@0.1.0": crate::component::imports::cardan::plugin::sql_types,
    };
}

use http_complete::exports::cardan::plugin::http_complete::{Completion, Request as CompletedRequest};
use http_request::exports::cardan::plugin::http_request::{Request, RequestVerdict};
use http_response::exports::cardan::plugin::http_response::{Response, ResponseVerdict};
use life::exports::cardan::plugin::life::{Reason, Version};
use tools::exports::cardan::plugin::tools::{Tool as ToolRecord, ToolResult};

pub(crate) fn prepare() {
    use std::sync::Once;
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        std::panic::set_hook(Box::new(|panic| crate::log::error(&panic.to_string())));
    });
}

fn text<T>(result: Result<T>) -> Result<T, String> {
    result.map_err(|error| error.to_string())
}

fn configured(visit: &types::Visit) -> impl FnOnce() -> Result<Config> {
    move || Config::parse(&visit.config())
}

pub fn on_request<P: Exported>(visit: &types::Visit, request: Request) -> Result<RequestVerdict, String> {
    let shown = text(events::visit(visit))?;
    let verdict =
        ask::<P, _>(configured(visit), |plugin| plugin.http_request(&shown, events::request(request)));
    text(verdict.and_then(|verdict| verdict).map(verdicts::of_request))
}

pub fn on_response<P: Exported>(
    visit: &types::Visit,
    request: Request,
    response: Response,
) -> Result<ResponseVerdict, String> {
    let shown = text(events::visit(visit))?;
    let event = events::response(request, response);
    let verdict = ask::<P, _>(configured(visit), |plugin| plugin.http_response(&shown, event));
    text(verdict.and_then(|verdict| verdict).map(verdicts::of_response))
}

pub fn on_complete<P: Exported>(
    visit: &types::Visit,
    request: CompletedRequest,
    completion: Completion,
) -> Result<(), String> {
    let shown = text(events::visit(visit))?;
    let event = events::completion(request, completion);
    let verdict = ask::<P, _>(configured(visit), |plugin| plugin.http_complete(&shown, event));
    text(verdict.and_then(|verdict| verdict).map(|_| ()))
}

pub fn load<P: Exported>(version: Version) -> Result<(), String> {
    let (config, event) = begun(version);
    text(ask::<P, _>(|| Config::parse(&config), |plugin| plugin.plugin_load(event)).and_then(|done| done))
}

pub fn unload<P: Exported>(version: Version) -> Result<(), String> {
    let (config, event) = begun(version);
    text(ask::<P, _>(|| Config::parse(&config), |plugin| plugin.plugin_unload(event)).and_then(|done| done))
}

pub fn on_tick<P: Exported>(config: String) -> Result<(), String> {
    // The world does not say whose tick it is.
    let tick = TickEvent { plugin: String::new(), version: String::new() };
    text(ask::<P, _>(|| Config::parse(&config), |plugin| plugin.plugin_tick(tick)).and_then(|done| done))
}

pub fn list_tools<P: Exported>(visit: &types::Visit) -> Result<Vec<ToolRecord>, String> {
    let shown = text(events::visit(visit))?;
    let record = |tool: cardan_api::tool::Tool| ToolRecord {
        name: tool.name,
        description: tool.description,
        parameters: tool.parameters.to_string(),
    };
    let tools = ask::<P, _>(configured(visit), |plugin| plugin.tool_list(&shown)).and_then(|tools| tools);
    text(tools).map(|tools| tools.into_iter().map(record).collect())
}

pub fn call_tool<P: Exported>(
    visit: &types::Visit,
    name: String,
    arguments: String,
) -> Result<ToolResult, String> {
    let shown = text(events::visit(visit))?;
    let arguments = serde_json::from_str(&arguments).map_err(|error| format!("the arguments: {error}"))?;
    let called = ask::<P, _>(configured(visit), |plugin| plugin.tool_call(&shown, &name, arguments));
    Ok(match text(called)? {
        Ok(Value::String(text)) => ToolResult::Text(text),
        Ok(value) => ToolResult::Json(value.to_string()),
        Err(ToolError::Unknown) => ToolResult::Unknown,
        Err(ToolError::Failed(why)) => ToolResult::Failed(why),
    })
}

/// Asks at one of the hooks whose events and verdicts `database` translates.
macro_rules! asked {
    ($($function:ident, $hook:ident, ($($argument:ident: $ty:ty),*) -> $answer:ty;)*) => {$(
        pub fn $function<P: Exported>(visit: &types::Visit, $($argument: $ty),*) -> Result<$answer, String> {
            let shown = text(events::visit(visit))?;
            let event = database::$hook::event($($argument),*);
            let verdict = ask::<P, _>(configured(visit), |plugin| plugin.$hook(&shown, event));
            text(verdict.and_then(|verdict| verdict).and_then(database::$hook::answer))
        }
    )*};
}

asked! {
    authenticate, access_authenticate,
        (login: access_authenticate::exports::cardan::plugin::access_authenticate::Login)
        -> access_authenticate::exports::cardan::plugin::access_authenticate::Authentication;
    authorize, access_authorize,
        (access: access_authorize::exports::cardan::plugin::access_authorize::Access)
        -> access_authorize::exports::cardan::plugin::access_authorize::Authorization;
    on_get, cache_get,
        (key: String, subject: imports::cardan::plugin::cache_types::Subject)
        -> cache_get::exports::cardan::plugin::cache_get::Lookup;
    on_set, cache_set,
        (entry: cache_set::exports::cardan::plugin::cache_set::Entry)
        -> cache_set::exports::cardan::plugin::cache_set::Admission;
    on_query, sql_query,
        (query: imports::cardan::plugin::sql_types::Query)
        -> sql_query::exports::cardan::plugin::sql_query::QueryVerdict;
    on_route, sql_route,
        (query: imports::cardan::plugin::sql_types::Query, nodes: Vec<imports::cardan::plugin::sql_types::Node>)
        -> sql_route::exports::cardan::plugin::sql_route::Route;
    on_result, sql_result,
        (query: imports::cardan::plugin::sql_types::Query,
         outcome: sql_result::exports::cardan::plugin::sql_result::Outcome)
        -> ();
}

fn begun(version: Version) -> (String, LifeEvent) {
    let reason = match version.reason {
        Reason::Start => LifeReason::Start,
        Reason::Reload => LifeReason::Reload,
        Reason::Rollback => LifeReason::Rollback,
        Reason::Canary => LifeReason::Canary,
        Reason::Stop => LifeReason::Stop,
        Reason::Disable => LifeReason::Disable,
        Reason::Remove => LifeReason::Remove,
    };
    (version.config, LifeEvent { plugin: version.plugin, version: version.version, reason })
}

/// Exports the interface of one hook. [`export!`](crate::export) uses it.
#[doc(hidden)]
#[macro_export]
macro_rules! export_hook {
    ($plugin:ident, http_request) => {
        use $crate::component::http_request as on_request_world;
        impl on_request_world::exports::cardan::plugin::http_request::Guest for $plugin {
            fn on_request(
                visit: &$crate::component::imports::cardan::plugin::types::Visit,
                request: on_request_world::exports::cardan::plugin::http_request::Request,
            ) -> Result<on_request_world::exports::cardan::plugin::http_request::RequestVerdict, String> {
                $crate::component::on_request::<$plugin>(visit, request)
            }
        }
        on_request_world::export_it!($plugin with_types_in on_request_world);
    };
    ($plugin:ident, http_response) => {
        use $crate::component::http_response as on_response_world;
        impl on_response_world::exports::cardan::plugin::http_response::Guest for $plugin {
            fn on_response(
                visit: &$crate::component::imports::cardan::plugin::types::Visit,
                request: on_response_world::exports::cardan::plugin::http_response::Request,
                response: on_response_world::exports::cardan::plugin::http_response::Response,
            ) -> Result<on_response_world::exports::cardan::plugin::http_response::ResponseVerdict, String> {
                $crate::component::on_response::<$plugin>(visit, request, response)
            }
        }
        on_response_world::export_it!($plugin with_types_in on_response_world);
    };
    ($plugin:ident, http_complete) => {
        use $crate::component::http_complete as on_complete_world;
        impl on_complete_world::exports::cardan::plugin::http_complete::Guest for $plugin {
            fn on_complete(
                visit: &$crate::component::imports::cardan::plugin::types::Visit,
                request: on_complete_world::exports::cardan::plugin::http_complete::Request,
                completion: on_complete_world::exports::cardan::plugin::http_complete::Completion,
            ) -> Result<(), String> {
                $crate::component::on_complete::<$plugin>(visit, request, completion)
            }
        }
        on_complete_world::export_it!($plugin with_types_in on_complete_world);
    };
    // One interface has both, and it is there with every plugin.
    ($plugin:ident, plugin_unload) => {};
    ($plugin:ident, plugin_load) => {
        use $crate::component::life as life_world;
        impl life_world::exports::cardan::plugin::life::Guest for $plugin {
            fn load(version: life_world::exports::cardan::plugin::life::Version) -> Result<(), String> {
                $crate::component::load::<$plugin>(version)
            }

            fn unload(version: life_world::exports::cardan::plugin::life::Version) -> Result<(), String> {
                $crate::component::unload::<$plugin>(version)
            }
        }
        life_world::export_it!($plugin with_types_in life_world);
    };
    ($plugin:ident, plugin_tick) => {
        use $crate::component::tick as tick_world;
        impl tick_world::exports::cardan::plugin::tick::Guest for $plugin {
            fn on_tick(config: String) -> Result<(), String> {
                $crate::component::on_tick::<$plugin>(config)
            }
        }
        tick_world::export_it!($plugin with_types_in tick_world);
    };
    ($plugin:ident, tools) => {
        use $crate::component::tools as tools_world;
        impl tools_world::exports::cardan::plugin::tools::Guest for $plugin {
            fn list_tools(
                visit: &$crate::component::imports::cardan::plugin::types::Visit,
            ) -> Result<Vec<tools_world::exports::cardan::plugin::tools::Tool>, String> {
                $crate::component::list_tools::<$plugin>(visit)
            }

            fn call_tool(
                visit: &$crate::component::imports::cardan::plugin::types::Visit,
                name: String,
                arguments: String,
            ) -> Result<tools_world::exports::cardan::plugin::tools::ToolResult, String> {
                $crate::component::call_tool::<$plugin>(visit, name, arguments)
            }
        }
        tools_world::export_it!($plugin with_types_in tools_world);
    };
    ($plugin:ident, access_authenticate) => {
        use $crate::component::access_authenticate as access_authenticate_world;
        impl access_authenticate_world::exports::cardan::plugin::access_authenticate::Guest for $plugin {
            fn authenticate(
                visit: &$crate::component::imports::cardan::plugin::types::Visit,
                login: access_authenticate_world::exports::cardan::plugin::access_authenticate::Login,
            ) -> Result<access_authenticate_world::exports::cardan::plugin::access_authenticate::Authentication, String> {
                $crate::component::authenticate::<$plugin>(visit, login)
            }
        }
        access_authenticate_world::export_it!($plugin with_types_in access_authenticate_world);
    };
    ($plugin:ident, access_authorize) => {
        use $crate::component::access_authorize as access_authorize_world;
        impl access_authorize_world::exports::cardan::plugin::access_authorize::Guest for $plugin {
            fn authorize(
                visit: &$crate::component::imports::cardan::plugin::types::Visit,
                access: access_authorize_world::exports::cardan::plugin::access_authorize::Access,
            ) -> Result<access_authorize_world::exports::cardan::plugin::access_authorize::Authorization, String> {
                $crate::component::authorize::<$plugin>(visit, access)
            }
        }
        access_authorize_world::export_it!($plugin with_types_in access_authorize_world);
    };
    ($plugin:ident, cache_get) => {
        use $crate::component::cache_get as cache_get_world;
        impl cache_get_world::exports::cardan::plugin::cache_get::Guest for $plugin {
            fn on_get(
                visit: &$crate::component::imports::cardan::plugin::types::Visit,
                key: String,
                subject: $crate::component::imports::cardan::plugin::cache_types::Subject,
            ) -> Result<cache_get_world::exports::cardan::plugin::cache_get::Lookup, String> {
                $crate::component::on_get::<$plugin>(visit, key, subject)
            }
        }
        cache_get_world::export_it!($plugin with_types_in cache_get_world);
    };
    ($plugin:ident, cache_set) => {
        use $crate::component::cache_set as cache_set_world;
        impl cache_set_world::exports::cardan::plugin::cache_set::Guest for $plugin {
            fn on_set(
                visit: &$crate::component::imports::cardan::plugin::types::Visit,
                entry: cache_set_world::exports::cardan::plugin::cache_set::Entry,
            ) -> Result<cache_set_world::exports::cardan::plugin::cache_set::Admission, String> {
                $crate::component::on_set::<$plugin>(visit, entry)
            }
        }
        cache_set_world::export_it!($plugin with_types_in cache_set_world);
    };
    ($plugin:ident, sql_query) => {
        use $crate::component::sql_query as sql_query_world;
        impl sql_query_world::exports::cardan::plugin::sql_query::Guest for $plugin {
            fn on_query(
                visit: &$crate::component::imports::cardan::plugin::types::Visit,
                query: $crate::component::imports::cardan::plugin::sql_types::Query,
            ) -> Result<sql_query_world::exports::cardan::plugin::sql_query::QueryVerdict, String> {
                $crate::component::on_query::<$plugin>(visit, query)
            }
        }
        sql_query_world::export_it!($plugin with_types_in sql_query_world);
    };
    ($plugin:ident, sql_route) => {
        use $crate::component::sql_route as sql_route_world;
        impl sql_route_world::exports::cardan::plugin::sql_route::Guest for $plugin {
            fn on_route(
                visit: &$crate::component::imports::cardan::plugin::types::Visit,
                query: $crate::component::imports::cardan::plugin::sql_types::Query,
                nodes: Vec<$crate::component::imports::cardan::plugin::sql_types::Node>,
            ) -> Result<sql_route_world::exports::cardan::plugin::sql_route::Route, String> {
                $crate::component::on_route::<$plugin>(visit, query, nodes)
            }
        }
        sql_route_world::export_it!($plugin with_types_in sql_route_world);
    };
    ($plugin:ident, sql_result) => {
        use $crate::component::sql_result as sql_result_world;
        impl sql_result_world::exports::cardan::plugin::sql_result::Guest for $plugin {
            fn on_result(
                visit: &$crate::component::imports::cardan::plugin::types::Visit,
                query: $crate::component::imports::cardan::plugin::sql_types::Query,
                outcome: sql_result_world::exports::cardan::plugin::sql_result::Outcome,
            ) -> Result<(), String> {
                $crate::component::on_result::<$plugin>(visit, query, outcome)
            }
        }
        sql_result_world::export_it!($plugin with_types_in sql_result_world);
    };
}

/// What a component exports beside its hooks: nothing.
#[doc(hidden)]
#[macro_export]
macro_rules! export_frame {
    ($plugin:ty, $($hook:ident),*) => {};
}
