//! From a document to a hook and back.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::exports::prepare;
use crate::types::{
    AuthError, AuthRequest, AuthResult, AuthorizeRequest, AuthorizeResult, PluginError, PluginMetadata,
    PreQueryResult, QueryContext, QueryResult, RouteResult,
};

/// What the host is given, or why there is nothing to give.
pub type Answer = cardan_pdk::Result<Vec<u8>>;

fn read<T: DeserializeOwned>(input: &[u8]) -> cardan_pdk::Result<T> {
    prepare();
    serde_json::from_slice(input)
        .map_err(|error| cardan_pdk::Error::new(format_args!("the host's document cannot be read: {error}")))
}

fn write(value: &Value) -> Answer {
    Ok(serde_json::to_vec(value)?)
}

/// A statement and what came of it: a list of two, or an object.
#[derive(Deserialize)]
struct Answered {
    query_context: QueryContext,
    outcome: QueryResult,
}

pub fn metadata(_input: &[u8], function: fn() -> PluginMetadata) -> Answer {
    prepare();
    Ok(serde_json::to_vec(&function())?)
}

pub fn on_load(_input: &[u8], function: fn() -> Result<(), PluginError>) -> Answer {
    prepare();
    match function() {
        Ok(()) => write(&json!({ "Ok": null })),
        Err(error) => write(&json!({ "Err": error })),
    }
}

pub fn on_unload(_input: &[u8], function: fn()) -> Answer {
    prepare();
    function();
    Ok(Vec::new())
}

pub fn pre_query(input: &[u8], function: fn(&QueryContext) -> PreQueryResult) -> Answer {
    Ok(serde_json::to_vec(&function(&read(input)?))?)
}

pub fn post_query(input: &[u8], function: fn(&QueryContext, &QueryResult)) -> Answer {
    let Answered { query_context, outcome } = read(input)?;
    function(&query_context, &outcome);
    Ok(Vec::new())
}

pub fn metrics(input: &[u8], function: fn(&QueryContext, &QueryResult)) -> Answer {
    post_query(input, function)
}

pub fn route(input: &[u8], function: fn(&QueryContext) -> RouteResult) -> Answer {
    Ok(serde_json::to_vec(&function(&read(input)?))?)
}

pub fn rewrite(input: &[u8], function: fn(&QueryContext) -> Option<String>) -> Answer {
    match function(&read(input)?) {
        Some(sql) => Ok(serde_json::to_vec(&PreQueryResult::Rewrite(sql))?),
        None => Ok(Vec::new()),
    }
}

pub fn authenticate(input: &[u8], function: fn(&AuthRequest) -> AuthResult) -> Answer {
    let request = read(input)?;
    match function(&request) {
        Ok(identity) => {
            // Hosts of the original want a name, too.
            let username = request.username.map(Value::from).unwrap_or_else(|| identity.user_id.clone());
            let (user_id, roles) = (identity.user_id, identity.roles);
            let roles = if roles.is_null() { json!([]) } else { roles };
            let identity = json!({ "user_id": user_id, "username": username, "roles": roles });
            write(&json!({ "action": "success", "identity": identity }))
        }
        Err(AuthError::Denied(message)) => write(&json!({ "action": "denied", "message": message })),
        Err(AuthError::Defer) => write(&json!({ "action": "defer" })),
        Err(AuthError::Failed(message)) => Err(cardan_pdk::Error::new(message)),
    }
}

pub fn authorize(input: &[u8], function: fn(&AuthorizeRequest) -> AuthorizeResult) -> Answer {
    Ok(serde_json::to_vec(&function(&read(input)?))?)
}

pub fn cache_key(input: &[u8], function: fn(&QueryContext) -> Option<String>) -> Answer {
    write(&json!(function(&read(input)?)))
}

/// The host shows what it would keep, and says no more of the result than its size.
pub fn should_cache(input: &[u8], function: fn(&QueryContext, &QueryResult) -> bool) -> Answer {
    #[derive(Default, Deserialize)]
    struct Cache {
        #[serde(default)]
        cache: Entry,
    }
    #[derive(Default, Deserialize)]
    struct Entry {
        #[serde(default)]
        value_bytes: u64,
    }
    let Cache { cache } = read(input)?;
    let result = QueryResult { success: true, response_bytes: cache.value_bytes, ..QueryResult::default() };
    write(&json!(function(&read(input)?, &result)))
}
