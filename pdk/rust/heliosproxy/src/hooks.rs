use crate::types::{
    AuthRequest, AuthResult, AuthorizeRequest, AuthorizeResult, PluginError, PluginMetadata, PreQueryResult,
    QueryContext, QueryResult, RouteResult,
};

/// What every plugin has.
pub trait HeliosPlugin {
    /// What it is.
    fn metadata() -> PluginMetadata;

    /// When it is loaded. An error is why it cannot serve.
    fn on_load() -> Result<(), PluginError> {
        Ok(())
    }

    /// After its last call.
    fn on_unload() {}
}

/// Before a statement is sent.
pub trait PreQueryHook {
    /// What becomes of it.
    fn pre_query(ctx: &QueryContext) -> PreQueryResult;
}

/// After a statement was answered.
pub trait PostQueryHook {
    /// Looks at it.
    fn post_query(ctx: &QueryContext, result: &QueryResult);
}

/// Before a client is let in.
pub trait AuthenticateHook {
    /// Who it is.
    fn authenticate(request: &AuthRequest) -> AuthResult;
}

/// Before a client may do something.
pub trait AuthorizeHook {
    /// Whether it may.
    fn authorize(request: &AuthorizeRequest) -> AuthorizeResult;
}

/// What is kept, and what for.
pub trait CacheHook {
    /// What an answer is kept under; `None` leaves it to the host.
    fn cache_key(ctx: &QueryContext) -> Option<String>;

    /// Whether it is kept.
    fn should_cache(ctx: &QueryContext, result: &QueryResult) -> bool;
}

/// Where a statement is sent.
pub trait RouteHook {
    /// Where.
    fn route(ctx: &QueryContext) -> RouteResult;
}

/// A statement in other words.
pub trait RewriteHook {
    /// The new one; `None` leaves it as it is.
    fn rewrite(ctx: &QueryContext) -> Option<String>;
}

/// Measuring.
pub trait MetricsHook {
    /// Looks at a statement and what came of it.
    fn metrics(ctx: &QueryContext, result: &QueryResult);
}
