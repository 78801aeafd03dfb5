//! The documents of `sql.*`.

use std::collections::BTreeMap;

use cardan_api::access::Identity;
use cardan_api::sql::{
    NodeRole, QueryAnswer, QueryEdits, QueryEvent, ResultEvent, RouteAnswer, RouteEvent, Rows, SqlQuery,
    SqlRefusal, SqlResult, SqlRoute,
};
use cardan_api::{Flow, Verdict};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::{Circumstances, Malformed, check_node, check_rows, write};
use super::verdict::{self, EditsDocument, Judged, VerdictDocument, answer, message_or_policy};
use super::{EventDocument, document};

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Query")]
pub(super) struct QueryDocument<'a> {
    /// The statement, after all edits so far.
    sql: &'a str,
    /// The same with its literals taken out.
    normalized: &'a str,
    /// Tables it reads or writes; empty where nobody looked.
    tables: &'a [String],
    is_read_only: bool,
    /// Address and port of the peer.
    client: &'a str,
    /// Who the client is; `null` where nobody has said so.
    identity: Option<&'a Identity>,
    database: Option<&'a str>,
    branch: Option<&'a str>,
    /// What the client has said about its connection. Nobody has checked it.
    settings: &'a BTreeMap<String, String>,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Result")]
pub(super) struct ResultDocument<'a> {
    is_success: bool,
    /// Which node answered; `null` where the host or a plugin did.
    node: Option<&'a str>,
    /// From the statement's arrival to the last byte of its answer.
    elapsed_us: u64,
    /// Bytes of answer the client was sent.
    response_bytes: u64,
    /// The database's words, where it failed.
    error: Option<&'a str>,
}

/// Where to: exactly one of the three.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "lowercase")]
#[schemars(rename = "TargetAnswer")]
pub(super) enum TargetDocument {
    /// Any node of this role.
    Role(NodeRole),
    /// One of those it was shown, by name.
    Node(String),
    /// A branch of the database.
    Branch(String),
}

impl<'a> QueryDocument<'a> {
    pub(super) fn of(event: &'a QueryEvent) -> Self {
        Self {
            sql: &event.sql,
            normalized: &event.normalized,
            tables: &event.tables,
            is_read_only: event.is_read_only,
            client: &event.client,
            identity: event.identity.as_ref(),
            database: event.database.as_deref(),
            branch: event.branch.as_deref(),
            settings: &event.settings,
        }
    }
}

pub(in super::super) fn encode_query(
    event: &QueryEvent,
    about: Circumstances<'_>,
) -> Result<Vec<u8>, Malformed> {
    let query = Some(QueryDocument::of(event));
    write(&EventDocument { query, ..document::<SqlQuery>(about) }, [])
}

pub(in super::super) fn encode_route(
    event: &RouteEvent,
    about: Circumstances<'_>,
) -> Result<Vec<u8>, Malformed> {
    let query = Some(QueryDocument::of(&event.query));
    write(&EventDocument { query, nodes: Some(&event.nodes), ..document::<SqlRoute>(about) }, [])
}

pub(in super::super) fn encode_result(
    event: &ResultEvent,
    about: Circumstances<'_>,
) -> Result<Vec<u8>, Malformed> {
    let query = Some(QueryDocument::of(&event.query));
    let result = ResultDocument {
        is_success: event.is_success,
        node: event.node.as_deref(),
        elapsed_us: event.elapsed_us,
        response_bytes: event.response_bytes,
        error: event.error.as_deref(),
    };
    write(&EventDocument { query, result: Some(result), ..document::<SqlResult>(about) }, [])
}

impl Judged for SqlQuery {
    const KEYS: &'static [&'static str] = &["message", "sqlstate", "answer"];
    const EDITABLE: &'static [&'static str] = &["sql"];

    fn edits(edits: EditsDocument) -> Result<QueryEdits, Malformed> {
        Ok(QueryEdits { sql: edits.sql })
    }

    fn stop(document: VerdictDocument) -> Result<QueryAnswer, Malformed> {
        match document {
            VerdictDocument::Answer { answer: it } => {
                let rows: Rows = answer(&it)?;
                check_rows(&rows)?;
                Ok(QueryAnswer::Rows(rows))
            }
            other => refusal(other).map(QueryAnswer::Refuse),
        }
    }
}

impl Judged for SqlRoute {
    const KEYS: &'static [&'static str] = &["message", "sqlstate", "answer"];

    fn stop(document: VerdictDocument) -> Result<RouteAnswer, Malformed> {
        match document {
            VerdictDocument::Answer { answer: it } => Ok(match answer(&it)? {
                TargetDocument::Role(role) => RouteAnswer::Role(role),
                TargetDocument::Node(name) => RouteAnswer::Node(name),
                TargetDocument::Branch(name) => RouteAnswer::Branch(name),
            }),
            other => refusal(other).map(RouteAnswer::Refuse),
        }
    }
}

pub(in super::super) fn decode_route(
    event: &RouteEvent,
    document: &[u8],
) -> Result<Verdict<SqlRoute>, Malformed> {
    let verdict = verdict::decode::<SqlRoute>(event, document)?;
    if let Flow::Stop(RouteAnswer::Node(name)) = &verdict.flow {
        check_node(&event.nodes, name)?;
    }
    Ok(verdict)
}

impl Judged for SqlResult {}

fn refusal(document: VerdictDocument) -> Result<SqlRefusal, Malformed> {
    let VerdictDocument::Refuse { sqlstate, message, .. } = document else {
        return Err(Malformed("a statement is answered or refused, and nothing else".to_owned()));
    };
    if let Some(code) = &sqlstate {
        check_sqlstate(code)?;
    }
    Ok(SqlRefusal { sqlstate, message: message_or_policy(message) })
}

/// An error's code: class `00` is success, `01` a warning and `02` that there is no data.
fn check_sqlstate(code: &str) -> Result<(), Malformed> {
    let is_code =
        code.len() == 5 && code.bytes().all(|byte| byte.is_ascii_digit() || byte.is_ascii_uppercase());
    if is_code && !["00", "01", "02"].contains(&&code[..2]) {
        return Ok(());
    }
    Err(Malformed(format!("{code:?} is no SQLSTATE of an error")))
}
