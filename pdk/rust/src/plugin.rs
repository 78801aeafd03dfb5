use cardan_api::Verdict;
use cardan_api::access::{AccessAuthenticate, AccessAuthorize, AccessEvent, LoginEvent};
use cardan_api::cache::{CacheGet, CacheGetEvent, CacheSet, CacheSetEvent};
use cardan_api::http::{CompleteEvent, HttpComplete, HttpRequest, HttpResponse, RequestEvent, ResponseEvent};
use cardan_api::lifecycle::{LifeEvent, TickEvent};
use cardan_api::sql::{QueryEvent, ResultEvent, RouteEvent, SqlQuery, SqlResult, SqlRoute};
use cardan_api::tool::Tool;
use serde_json::Value;

use crate::{Config, Error, Result, ToolError, Visit};

/// A plugin. The hooks that it answers are the methods it has and [`export!`](crate::export) names.
///
/// Hooks take `&mut self`: what a plugin keeps in its fields lives as long as its instance, which is one call,
/// one visit, or many, as its operator says. A host never enters an instance twice at once.
pub trait Plugin: Sized + 'static {
    /// Makes the plugin, before it is asked anything: when it is loaded, where the host does that, and at the
    /// first call otherwise. An error is why the version cannot serve.
    fn new(config: Config) -> Result<Self>;

    /// `http.request`: the head of a request has arrived, and the body too if the binding is shown it.
    fn http_request(&mut self, visit: &Visit, request: RequestEvent) -> Result<Verdict<HttpRequest>> {
        let _ = (visit, request);
        Err(unanswered("http_request"))
    }

    /// `http.response`: before the first byte of the response is sent.
    fn http_response(&mut self, visit: &Visit, response: ResponseEvent) -> Result<Verdict<HttpResponse>> {
        let _ = (visit, response);
        Err(unanswered("http_response"))
    }

    /// `http.complete`: the exchange is over.
    fn http_complete(&mut self, visit: &Visit, complete: CompleteEvent) -> Result<Verdict<HttpComplete>> {
        let _ = (visit, complete);
        Err(unanswered("http_complete"))
    }

    /// `plugin.load`: after [`Plugin::new`], before the first call. What it leaves in memory is there in every
    /// call. An error is why the version cannot serve.
    fn plugin_load(&mut self, life: LifeEvent) -> Result<()> {
        let _ = life;
        Ok(())
    }

    /// `plugin.unload`: after the last call.
    fn plugin_unload(&mut self, life: LifeEvent) -> Result<()> {
        let _ = life;
        Ok(())
    }

    /// `plugin.tick`: at the plugin's own interval.
    fn plugin_tick(&mut self, tick: TickEvent) -> Result<()> {
        let _ = tick;
        Err(unanswered("plugin_tick"))
    }

    /// `tool.list`: the tools that the plugin offers. `export!` names this and the next one together: `tools`.
    fn tool_list(&mut self, visit: &Visit) -> Result<Vec<Tool>> {
        let _ = visit;
        Err(unanswered("tool_list"))
    }

    /// `tool.call`: one of them is called. Text that is returned is text to whoever called it, too.
    fn tool_call(&mut self, visit: &Visit, name: &str, arguments: Value) -> Result<Value, ToolError> {
        let _ = (visit, name, arguments);
        Err(ToolError::Unknown)
    }

    /// `access.authenticate`: a client says who it is.
    fn access_authenticate(
        &mut self,
        visit: &Visit,
        login: LoginEvent,
    ) -> Result<Verdict<AccessAuthenticate>> {
        let _ = (visit, login);
        Err(unanswered("access_authenticate"))
    }

    /// `access.authorize`: a client wants to do something.
    fn access_authorize(&mut self, visit: &Visit, access: AccessEvent) -> Result<Verdict<AccessAuthorize>> {
        let _ = (visit, access);
        Err(unanswered("access_authorize"))
    }

    /// `cache.get`: before the host looks for an answer it has kept.
    fn cache_get(&mut self, visit: &Visit, lookup: CacheGetEvent) -> Result<Verdict<CacheGet>> {
        let _ = (visit, lookup);
        Err(unanswered("cache_get"))
    }

    /// `cache.set`: before the host keeps an answer.
    fn cache_set(&mut self, visit: &Visit, entry: CacheSetEvent) -> Result<Verdict<CacheSet>> {
        let _ = (visit, entry);
        Err(unanswered("cache_set"))
    }

    /// `sql.query`: a statement has arrived.
    fn sql_query(&mut self, visit: &Visit, query: QueryEvent) -> Result<Verdict<SqlQuery>> {
        let _ = (visit, query);
        Err(unanswered("sql_query"))
    }

    /// `sql.route`: a statement is about to be sent to one of several nodes.
    fn sql_route(&mut self, visit: &Visit, route: RouteEvent) -> Result<Verdict<SqlRoute>> {
        let _ = (visit, route);
        Err(unanswered("sql_route"))
    }

    /// `sql.result`: a statement has been answered.
    fn sql_result(&mut self, visit: &Visit, result: ResultEvent) -> Result<Verdict<SqlResult>> {
        let _ = (visit, result);
        Err(unanswered("sql_result"))
    }
}

fn unanswered(hook: &str) -> Error {
    Error::new(format_args!("`export!` names {hook}, and the plugin has no method of that name"))
}

/// A plugin with a place for its one instance. [`export!`](crate::export) implements it.
#[doc(hidden)]
pub trait Exported: Plugin {
    fn with<R>(act: impl FnOnce(&mut Option<Self>) -> R) -> R;
}

/// Acts on the plugin, which is made first if it is not there.
pub(crate) fn ask<P: Exported, R>(
    config: impl FnOnce() -> Result<Config>,
    act: impl FnOnce(&mut P) -> R,
) -> Result<R> {
    crate::convention::prepare();
    P::with(|place| {
        let plugin = match place {
            Some(plugin) => plugin,
            None => place.insert(P::new(config()?)?),
        };
        Ok(act(plugin))
    })
}
