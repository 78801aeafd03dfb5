//! `sql-query`, `sql-route` and `sql-result`.

use cardan_api::Verdict;
use cardan_api::sql::{
    Column, Node, NodeRole, QueryAnswer, QueryEdits, QueryEvent, ResultEvent, RouteAnswer, RouteEvent, Rows,
    SqlQuery, SqlRefusal, SqlResult, SqlRoute,
};
use wasmtime::component::{ComponentType, Lift, Lower, Resource};

use super::access::Known;
use super::{Ask, Circumstances, Entry, Failure, Guest, Interface, Visit, enter, said};
use crate::dialect::{check_node, check_rows};

const QUERY: Entry = Entry::new::<(Resource<Visit>, Query<'static>), (Result<QueryVerdict, String>,)>(
    Interface::SqlQuery,
    "on-query",
);
const ROUTE: Entry = Entry::new::<
    (Resource<Visit>, Query<'static>, Vec<Server<'static>>),
    (Result<Route, String>,),
>(Interface::SqlRoute, "on-route");
const RESULT: Entry = Entry::new::<(Resource<Visit>, Query<'static>, Outcome<'static>), (Result<(), String>,)>(
    Interface::SqlResult,
    "on-result",
);

pub(super) const ENTRIES: [Entry; 3] = [QUERY, ROUTE, RESULT];

#[derive(ComponentType, Lower)]
#[component(record)]
pub(super) struct Query<'a> {
    sql: &'a str,
    normalized: &'a str,
    tables: &'a [String],
    #[component(name = "read-only")]
    read_only: bool,
    client: &'a str,
    identity: Option<Known<'a>>,
    database: Option<&'a str>,
    branch: Option<&'a str>,
    settings: Vec<(&'a str, &'a str)>,
}

impl<'a> From<&'a QueryEvent> for Query<'a> {
    fn from(event: &'a QueryEvent) -> Self {
        Self {
            sql: &event.sql,
            normalized: &event.normalized,
            tables: &event.tables,
            read_only: event.is_read_only,
            client: &event.client,
            identity: event.identity.as_ref().map(Known::from),
            database: event.database.as_deref(),
            branch: event.branch.as_deref(),
            settings: event.settings.iter().map(|(name, value)| (&**name, &**value)).collect(),
        }
    }
}

#[derive(ComponentType, Lift)]
#[component(record)]
struct Refused {
    code: Option<String>,
    message: String,
}

impl Refused {
    fn refusal(self) -> Result<SqlRefusal, Failure> {
        let is_state = |code: &String| {
            code.len() == 5 && code.bytes().all(|byte| byte.is_ascii_digit() || byte.is_ascii_uppercase())
        };
        match self.code {
            Some(code) if !is_state(&code) => Err(Failure::Protocol(format!(
                "{code:?} is no SQLSTATE, which is five digits and capital letters"
            ))),
            sqlstate => Ok(SqlRefusal { sqlstate, message: self.message }),
        }
    }
}

#[derive(ComponentType, Lift)]
#[component(record)]
struct Heading {
    name: String,
    oid: u32,
}

#[derive(ComponentType, Lift)]
#[component(record)]
struct Table {
    columns: Vec<Heading>,
    rows: Vec<Vec<Option<String>>>,
}

impl Table {
    fn rows(self) -> Result<Rows, Failure> {
        let columns = self.columns.into_iter().map(|Heading { name, oid }| Column { name, oid }).collect();
        let rows = Rows { columns, rows: self.rows };
        check_rows(&rows)?;
        Ok(rows)
    }
}

#[derive(ComponentType, Lift)]
#[component(variant)]
enum QueryVerdict {
    #[component(name = "continue")]
    Continue,
    #[component(name = "rewrite")]
    Rewrite(String),
    #[component(name = "rows")]
    Rows(Table),
    #[component(name = "refuse")]
    Refuse(Refused),
}

#[derive(ComponentType, Lift, Lower, Clone, Copy)]
#[component(enum)]
#[repr(u8)]
enum Role {
    #[component(name = "primary")]
    Primary,
    #[component(name = "standby")]
    Standby,
}

#[derive(ComponentType, Lower)]
#[component(record)]
struct Server<'a> {
    name: &'a str,
    role: Role,
    healthy: bool,
    #[component(name = "lag-ms")]
    lag_ms: Option<u64>,
}

impl<'a> From<&'a Node> for Server<'a> {
    fn from(node: &'a Node) -> Self {
        let role = match node.role {
            NodeRole::Primary => Role::Primary,
            NodeRole::Standby => Role::Standby,
        };
        Self { name: &node.name, role, healthy: node.is_healthy, lag_ms: node.lag_ms }
    }
}

#[derive(ComponentType, Lift)]
#[component(variant)]
enum Route {
    #[component(name = "defer")]
    Defer,
    #[component(name = "role")]
    Role(Role),
    #[component(name = "node")]
    Node(String),
    #[component(name = "branch")]
    Branch(String),
    #[component(name = "refuse")]
    Refuse(Refused),
}

#[derive(ComponentType, Lower)]
#[component(record)]
struct Outcome<'a> {
    success: bool,
    node: Option<&'a str>,
    #[component(name = "elapsed-us")]
    elapsed_us: u64,
    #[component(name = "response-bytes")]
    response_bytes: u64,
    error: Option<&'a str>,
}

impl Ask for SqlQuery {
    fn offered(interfaces: &[Interface]) -> Option<Interface> {
        interfaces.iter().copied().find(|it| *it == Interface::SqlQuery)
    }

    async fn ask(
        guest: &mut Guest,
        event: &QueryEvent,
        about: Circumstances<'_>,
    ) -> Result<Verdict<Self>, Failure> {
        let visit = enter(guest, about);
        let result: Result<QueryVerdict, String> = guest.call(QUERY, (visit, Query::from(event))).await?;
        Ok(match said(result)? {
            QueryVerdict::Continue => Verdict::pass(),
            QueryVerdict::Rewrite(sql) => Verdict::edit(QueryEdits { sql: Some(sql) }),
            QueryVerdict::Rows(table) => Verdict::stop(QueryAnswer::Rows(table.rows()?)),
            QueryVerdict::Refuse(refused) => Verdict::stop(QueryAnswer::Refuse(refused.refusal()?)),
        })
    }
}

impl Ask for SqlRoute {
    fn offered(interfaces: &[Interface]) -> Option<Interface> {
        interfaces.iter().copied().find(|it| *it == Interface::SqlRoute)
    }

    async fn ask(
        guest: &mut Guest,
        event: &RouteEvent,
        about: Circumstances<'_>,
    ) -> Result<Verdict<Self>, Failure> {
        let visit = enter(guest, about);
        let nodes: Vec<Server<'_>> = event.nodes.iter().map(Server::from).collect();
        let params = (visit, Query::from(&event.query), nodes);
        let result: Result<Route, String> = guest.call(ROUTE, params).await?;
        Ok(match said(result)? {
            Route::Defer => Verdict::pass(),
            Route::Role(Role::Primary) => Verdict::stop(RouteAnswer::Role(NodeRole::Primary)),
            Route::Role(Role::Standby) => Verdict::stop(RouteAnswer::Role(NodeRole::Standby)),
            Route::Node(name) => {
                check_node(&event.nodes, &name)?;
                Verdict::stop(RouteAnswer::Node(name))
            }
            Route::Branch(name) => Verdict::stop(RouteAnswer::Branch(name)),
            Route::Refuse(refused) => Verdict::stop(RouteAnswer::Refuse(refused.refusal()?)),
        })
    }
}

impl Ask for SqlResult {
    fn offered(interfaces: &[Interface]) -> Option<Interface> {
        interfaces.iter().copied().find(|it| *it == Interface::SqlResult)
    }

    async fn ask(
        guest: &mut Guest,
        event: &ResultEvent,
        about: Circumstances<'_>,
    ) -> Result<Verdict<Self>, Failure> {
        let outcome = Outcome {
            success: event.is_success,
            node: event.node.as_deref(),
            elapsed_us: event.elapsed_us,
            response_bytes: event.response_bytes,
            error: event.error.as_deref(),
        };
        let visit = enter(guest, about);
        let result: Result<(), String> =
            guest.call(RESULT, (visit, Query::from(&event.query), outcome)).await?;
        said(result)?;
        Ok(Verdict::pass())
    }
}
