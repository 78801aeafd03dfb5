use cardan_api::Verdict;
use cardan_api::http::{
    CompleteEvent, HttpComplete, HttpRequest, HttpResponse, RequestEvent, ResponseEvent,
};
use cardan_api::lifecycle::{LifeEvent, TickEvent};
use serde_json::Value;

use crate::{Config, Error, Result, Tool, ToolError, Visit};

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

    /// `tool.list`: the tools that the plugin offers.
    fn tool_list(&mut self) -> Result<Vec<Tool>> {
        Err(unanswered("tool_list"))
    }

    /// `tool.call`: one of them is called.
    fn tool_call(&mut self, name: &str, arguments: Value) -> Result<Value, ToolError> {
        let _ = (name, arguments);
        Err(ToolError::Unknown)
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
