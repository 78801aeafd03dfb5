//! `pre_query`, `rewrite`, `route` and `post_query`.

use cardan_api::Verdict;
use cardan_api::sql::{
    Column, NodeRole, QueryAnswer, QueryEdits, QueryEvent, ResultEvent, RouteAnswer, RouteEvent, Rows,
    SqlQuery, SqlRefusal, SqlRoute,
};
use serde::Deserialize;

use super::super::{Circumstances, Malformed, check_node, check_rows, write};
use super::{BLOCKED, Decision, Outcome, QueryContext};

pub(in super::super) fn encode_query(
    event: &QueryEvent,
    about: Circumstances<'_>,
) -> Result<Vec<u8>, Malformed> {
    write(&QueryContext::of(event, about), [])
}

pub(in super::super) fn encode_route(
    event: &RouteEvent,
    about: Circumstances<'_>,
) -> Result<Vec<u8>, Malformed> {
    write(&QueryContext::of(&event.query, about), [])
}

/// A list of two. Guests read it into an object of two members, which is how Rust's usual decoder takes a list.
pub(in super::super) fn encode_result(
    event: &ResultEvent,
    about: Circumstances<'_>,
) -> Result<Vec<u8>, Malformed> {
    write(&(QueryContext::of(&event.query, about), Outcome::of(event)), [])
}

pub(in super::super) fn decode_query(
    _event: &QueryEvent,
    document: &[u8],
) -> Result<Verdict<SqlQuery>, Malformed> {
    let Some(decision) = Decision::read(document)? else { return Ok(Verdict::pass()) };
    Ok(match decision.word.as_str() {
        "continue" => Verdict::pass(),
        "rewrite" => {
            let sql = decision.needed(&["value", "sql"])?;
            if sql.trim().is_empty() {
                return Err(Malformed("it rewrites a statement to nothing".to_owned()));
            }
            Verdict::edit(QueryEdits { sql: Some(sql) })
        }
        "block" => blocked(decision.reason(&["value", "reason"])?),
        "cached" => Verdict::stop(QueryAnswer::Rows(rows(&decision.bytes()?)?)),
        _ => return Err(decision.unknown()),
    })
}

pub(in super::super) fn query_code(words: Option<&str>) -> Verdict<SqlQuery> {
    blocked(words.unwrap_or(BLOCKED).to_owned())
}

fn blocked(message: String) -> Verdict<SqlQuery> {
    Verdict::stop(QueryAnswer::Refuse(SqlRefusal { sqlstate: None, message }))
}

pub(in super::super) fn decode_route(
    event: &RouteEvent,
    document: &[u8],
) -> Result<Verdict<SqlRoute>, Malformed> {
    let Some(decision) = Decision::read(document)? else { return Ok(Verdict::pass()) };
    Ok(Verdict::stop(match decision.word.as_str() {
        "default" => return Ok(Verdict::pass()),
        "primary" => RouteAnswer::Role(NodeRole::Primary),
        "standby" => RouteAnswer::Role(NodeRole::Standby),
        "node" => {
            let name = decision.needed(&["target"])?;
            check_node(&event.nodes, &name)?;
            RouteAnswer::Node(name)
        }
        "branch" => RouteAnswer::Branch(decision.needed(&["target"])?),
        "block" => return Ok(nowhere(decision.reason(&["reason"])?)),
        _ => return Err(decision.unknown()),
    }))
}

pub(in super::super) fn route_code(words: Option<&str>) -> Verdict<SqlRoute> {
    nowhere(words.unwrap_or(BLOCKED).to_owned())
}

fn nowhere(message: String) -> Verdict<SqlRoute> {
    Verdict::stop(RouteAnswer::Refuse(SqlRefusal { sqlstate: None, message }))
}

/// Cached rows as guests write them; what else they write there is ignored.
#[derive(Deserialize)]
struct CachedRows {
    columns: Vec<CachedColumn>,
    rows: Vec<Vec<Option<String>>>,
}

#[derive(Deserialize)]
struct CachedColumn {
    name: String,
    oid: Option<u32>,
}

/// Reads a result from the bytes that a guest has cached.
pub(super) fn rows(bytes: &[u8]) -> Result<Rows, Malformed> {
    let CachedRows { columns, rows } = serde_json::from_slice(bytes)
        .map_err(|error| Malformed(format!("the cached bytes are no columns and rows: {error}")))?;
    let columns = columns.into_iter();
    let columns = columns.map(|it| Column { name: it.name, oid: it.oid.unwrap_or(Column::TEXT) }).collect();
    let rows = Rows { columns, rows };
    check_rows(&rows)?;
    Ok(rows)
}
