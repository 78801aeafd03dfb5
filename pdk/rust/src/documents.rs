//! Cardan's own documents, for the conventions that carry bytes: one function for each hook, from the event's
//! document to the verdict's. `docs/dialects.md` has them in words, `docs/schema` as JSON Schemas.

mod events;
mod verdicts;

use serde::Deserialize;

use crate::plugin::ask;
use crate::{Error, Exported, Result};

use events::{Asked, Life};

fn read<'a, T: Deserialize<'a>>(document: &'a [u8]) -> Result<T> {
    serde_json::from_slice(document)
        .map_err(|error| Error::new(format_args!("the host's document cannot be read: {error}")))
}

pub fn http_request<P: Exported>(document: &[u8]) -> Result<Vec<u8>> {
    let asked: Asked<'_> = read(document)?;
    let (visit, config) = asked.circumstances();
    let request = asked.request()?;
    verdicts::of_request(ask::<P, _>(config, |plugin| plugin.http_request(&visit, request))??)
}

pub fn http_response<P: Exported>(document: &[u8]) -> Result<Vec<u8>> {
    let asked: Asked<'_> = read(document)?;
    let (visit, config) = asked.circumstances();
    let response = asked.response()?;
    verdicts::of_response(ask::<P, _>(config, |plugin| plugin.http_response(&visit, response))??)
}

pub fn http_complete<P: Exported>(document: &[u8]) -> Result<Vec<u8>> {
    let asked: Asked<'_> = read(document)?;
    let (visit, config) = asked.circumstances();
    let complete = asked.complete()?;
    verdicts::of_observer(ask::<P, _>(config, |plugin| plugin.http_complete(&visit, complete))??)
}

/// Refuses where the plugin cannot be made: here it is not a fault but the answer.
pub fn plugin_load<P: Exported>(document: &[u8]) -> Result<Vec<u8>> {
    let life: Life<'_> = read(document)?;
    let loaded = ask::<P, _>(life.config(), |plugin| plugin.plugin_load(life.event())).and_then(|done| done);
    match loaded {
        Ok(()) => Ok(verdicts::done()),
        Err(error) => verdicts::not_loaded(&error),
    }
}

pub fn plugin_unload<P: Exported>(document: &[u8]) -> Result<Vec<u8>> {
    let life: Life<'_> = read(document)?;
    ask::<P, _>(life.config(), |plugin| plugin.plugin_unload(life.event()))??;
    Ok(verdicts::done())
}

pub fn plugin_tick<P: Exported>(document: &[u8]) -> Result<Vec<u8>> {
    let life: Life<'_> = read(document)?;
    ask::<P, _>(life.config(), |plugin| plugin.plugin_tick(life.tick()))??;
    Ok(verdicts::done())
}

pub fn access_authenticate<P: Exported>(document: &[u8]) -> Result<Vec<u8>> {
    let asked: Asked<'_> = read(document)?;
    let (visit, config) = asked.circumstances();
    let login = asked.login()?;
    verdicts::of_login(ask::<P, _>(config, |plugin| plugin.access_authenticate(&visit, login))??)
}

pub fn access_authorize<P: Exported>(document: &[u8]) -> Result<Vec<u8>> {
    let asked: Asked<'_> = read(document)?;
    let (visit, config) = asked.circumstances();
    let access = asked.access()?;
    verdicts::of_access(ask::<P, _>(config, |plugin| plugin.access_authorize(&visit, access))??)
}

pub fn cache_get<P: Exported>(document: &[u8]) -> Result<Vec<u8>> {
    let asked: Asked<'_> = read(document)?;
    let (visit, config) = asked.circumstances();
    let lookup = asked.cache_get()?;
    verdicts::of_cache_get(ask::<P, _>(config, |plugin| plugin.cache_get(&visit, lookup))??)
}

pub fn cache_set<P: Exported>(document: &[u8]) -> Result<Vec<u8>> {
    let asked: Asked<'_> = read(document)?;
    let (visit, config) = asked.circumstances();
    let entry = asked.cache_set()?;
    verdicts::of_cache_set(ask::<P, _>(config, |plugin| plugin.cache_set(&visit, entry))??)
}

pub fn sql_query<P: Exported>(document: &[u8]) -> Result<Vec<u8>> {
    let asked: Asked<'_> = read(document)?;
    let (visit, config) = asked.circumstances();
    let query = asked.query()?;
    verdicts::of_query(ask::<P, _>(config, |plugin| plugin.sql_query(&visit, query))??)
}

pub fn sql_route<P: Exported>(document: &[u8]) -> Result<Vec<u8>> {
    let asked: Asked<'_> = read(document)?;
    let (visit, config) = asked.circumstances();
    let route = asked.route()?;
    verdicts::of_route(ask::<P, _>(config, |plugin| plugin.sql_route(&visit, route))??)
}

pub fn sql_result<P: Exported>(document: &[u8]) -> Result<Vec<u8>> {
    let asked: Asked<'_> = read(document)?;
    let (visit, config) = asked.circumstances();
    let result = asked.result()?;
    verdicts::of_observer(ask::<P, _>(config, |plugin| plugin.sql_result(&visit, result))??)
}

pub fn tool_list<P: Exported>(document: &[u8]) -> Result<Vec<u8>> {
    let asked: Asked<'_> = read(document)?;
    let (visit, config) = asked.circumstances();
    verdicts::of_tools(&ask::<P, _>(config, |plugin| plugin.tool_list(&visit))??)
}

pub fn tool_call<P: Exported>(document: &[u8]) -> Result<Vec<u8>> {
    let asked: Asked<'_> = read(document)?;
    let (visit, config) = asked.circumstances();
    let (name, arguments) = asked.tool()?;
    verdicts::of_tool(ask::<P, _>(config, |plugin| plugin.tool_call(&visit, &name, arguments))?)
}
