//! The hooks `access.*`, `cache.*` and `sql.*`: a module for each, with what a host shows and what a plugin
//! answers. Attributes have no place in these answers.

use cardan_api::Attributes;
use cardan_api::access::Identity;
use cardan_api::cache::CacheSubject;
use cardan_api::sql::{Node, NodeRole, QueryEvent, Rows, SqlRefusal};

use super::events;
use super::imports::cardan::plugin::{access_types, cache_types, sql_types};
use crate::{Error, Result};

fn no_attributes(attributes: &Attributes) -> Result<()> {
    match attributes.keys().next() {
        None => Ok(()),
        Some(name) => Err(Error::new(format_args!(
            "the attribute {name:?} is to be set, and components can do that at http.request and http.response only"
        ))),
    }
}

fn identity(identity: access_types::Identity) -> Identity {
    Identity {
        user_id: identity.user_id,
        username: identity.username,
        roles: identity.roles,
        tenant_id: identity.tenant_id,
    }
}

fn query(query: sql_types::Query) -> QueryEvent {
    QueryEvent {
        sql: query.sql,
        normalized: query.normalized,
        tables: query.tables,
        is_read_only: query.read_only,
        client: query.client,
        identity: query.identity.map(identity),
        database: query.database,
        branch: query.branch,
        settings: query.settings.into_iter().collect(),
    }
}

fn node(node: sql_types::Node) -> Node {
    let role = match node.role {
        sql_types::Role::Primary => NodeRole::Primary,
        sql_types::Role::Standby => NodeRole::Standby,
    };
    Node { name: node.name, role, is_healthy: node.healthy, lag_ms: node.lag_ms }
}

fn subject(subject: cache_types::Subject) -> CacheSubject {
    match subject {
        cache_types::Subject::Query(it) => CacheSubject::Query(query(it)),
        cache_types::Subject::Request(it) => CacheSubject::Request(events::request(it)),
    }
}

fn refusal(refusal: SqlRefusal) -> sql_types::Refusal {
    sql_types::Refusal { code: refusal.sqlstate, message: refusal.message }
}

fn rows(rows: Rows) -> sql_types::Rows {
    let column = |column: cardan_api::sql::Column| sql_types::Column { name: column.name, oid: column.oid };
    sql_types::Rows { columns: rows.columns.into_iter().map(column).collect(), rows: rows.rows }
}

pub(super) mod access_authenticate {
    use cardan_api::access::{AccessAuthenticate, LoginAnswer, LoginEvent};
    use cardan_api::{Flow, Verdict};

    use super::super::access_authenticate::exports::cardan::plugin::access_authenticate::{
        Authentication, Login,
    };
    use super::{access_types, events, no_attributes};
    use crate::Result;

    pub(in super::super) fn event(login: Login) -> LoginEvent {
        LoginEvent {
            client: login.client,
            username: login.username,
            password: login.password,
            database: login.database,
            headers: events::headers(login.headers),
        }
    }

    pub(in super::super) fn answer(verdict: Verdict<AccessAuthenticate>) -> Result<Authentication> {
        no_attributes(&verdict.attributes)?;
        Ok(match verdict.flow {
            Flow::Continue => Authentication::Defer,
            Flow::Stop(LoginAnswer::Deny(denial)) => Authentication::Deny(denial.message),
            Flow::Stop(LoginAnswer::Identity(identity)) => Authentication::Identity(access_types::Identity {
                user_id: identity.user_id,
                username: identity.username,
                roles: identity.roles,
                tenant_id: identity.tenant_id,
            }),
        })
    }
}

pub(super) mod access_authorize {
    use cardan_api::access::{AccessAnswer, AccessAuthorize, AccessEvent};
    use cardan_api::{Flow, Verdict};

    use super::super::access_authorize::exports::cardan::plugin::access_authorize::{Access, Authorization};
    use super::{identity, no_attributes};
    use crate::Result;

    pub(in super::super) fn event(access: Access) -> AccessEvent {
        AccessEvent {
            identity: access.identity.map(identity),
            action: access.action,
            resource: access.subject,
            client: access.client,
        }
    }

    pub(in super::super) fn answer(verdict: Verdict<AccessAuthorize>) -> Result<Authorization> {
        no_attributes(&verdict.attributes)?;
        Ok(match verdict.flow {
            Flow::Continue => Authorization::Defer,
            Flow::Stop(AccessAnswer::Allow) => Authorization::Allow,
            Flow::Stop(AccessAnswer::Deny(denial)) => Authorization::Deny(denial.message),
        })
    }
}

pub(super) mod cache_get {
    use cardan_api::cache::{CacheAnswer, CacheGet, CacheGetEvent};
    use cardan_api::{Flow, Verdict};

    use super::super::cache_get::exports::cardan::plugin::cache_get::Lookup;
    use super::{cache_types, no_attributes, subject};
    use crate::Result;

    pub(in super::super) fn event(key: String, of: cache_types::Subject) -> CacheGetEvent {
        CacheGetEvent { key, subject: subject(of) }
    }

    pub(in super::super) fn answer(verdict: Verdict<CacheGet>) -> Result<Lookup> {
        no_attributes(&verdict.attributes)?;
        Ok(match verdict.flow {
            Flow::Continue => verdict.edits.key.map_or(Lookup::Continue, Lookup::Key),
            Flow::Stop(CacheAnswer::Hit(bytes)) => Lookup::Hit(bytes.into()),
            Flow::Stop(CacheAnswer::Skip) => Lookup::Skip,
        })
    }
}

pub(super) mod cache_set {
    use cardan_api::cache::{CacheSet, CacheSetEvent, NotKept};
    use cardan_api::{Flow, Verdict};

    use super::super::cache_set::exports::cardan::plugin::cache_set::{Admission, Changes, Entry};
    use super::{no_attributes, subject};
    use crate::Result;

    pub(in super::super) fn event(entry: Entry) -> CacheSetEvent {
        CacheSetEvent {
            key: entry.key,
            subject: subject(entry.subject),
            ttl_ms: entry.ttl_ms,
            value_bytes: entry.value_bytes,
            value: entry.value.map(Into::into),
        }
    }

    pub(in super::super) fn answer(verdict: Verdict<CacheSet>) -> Result<Admission> {
        no_attributes(&verdict.attributes)?;
        Ok(match verdict.flow {
            Flow::Continue => {
                Admission::Keep(Changes { key: verdict.edits.key, ttl_ms: verdict.edits.ttl_ms })
            }
            Flow::Stop(NotKept) => Admission::Skip,
        })
    }
}

pub(super) mod sql_query {
    use cardan_api::sql::{QueryAnswer, QueryEvent, SqlQuery};
    use cardan_api::{Flow, Verdict};

    use super::super::sql_query::exports::cardan::plugin::sql_query::QueryVerdict;
    use super::{no_attributes, query, refusal, rows, sql_types};
    use crate::Result;

    pub(in super::super) fn event(of: sql_types::Query) -> QueryEvent {
        query(of)
    }

    pub(in super::super) fn answer(verdict: Verdict<SqlQuery>) -> Result<QueryVerdict> {
        no_attributes(&verdict.attributes)?;
        Ok(match verdict.flow {
            Flow::Continue => verdict.edits.sql.map_or(QueryVerdict::Continue, QueryVerdict::Rewrite),
            Flow::Stop(QueryAnswer::Rows(found)) => QueryVerdict::Rows(rows(found)),
            Flow::Stop(QueryAnswer::Refuse(why)) => QueryVerdict::Refuse(refusal(why)),
        })
    }
}

pub(super) mod sql_route {
    use cardan_api::sql::{NodeRole, RouteAnswer, RouteEvent, SqlRoute};
    use cardan_api::{Flow, Verdict};

    use super::super::sql_route::exports::cardan::plugin::sql_route::Route;
    use super::{no_attributes, node, query, refusal, sql_types};
    use crate::Result;

    pub(in super::super) fn event(of: sql_types::Query, nodes: Vec<sql_types::Node>) -> RouteEvent {
        RouteEvent { query: query(of), nodes: nodes.into_iter().map(node).collect() }
    }

    pub(in super::super) fn answer(verdict: Verdict<SqlRoute>) -> Result<Route> {
        no_attributes(&verdict.attributes)?;
        Ok(match verdict.flow {
            Flow::Continue => Route::Defer,
            Flow::Stop(RouteAnswer::Role(NodeRole::Primary)) => Route::Role(sql_types::Role::Primary),
            Flow::Stop(RouteAnswer::Role(NodeRole::Standby)) => Route::Role(sql_types::Role::Standby),
            Flow::Stop(RouteAnswer::Node(name)) => Route::Node(name),
            Flow::Stop(RouteAnswer::Branch(name)) => Route::Branch(name),
            Flow::Stop(RouteAnswer::Refuse(why)) => Route::Refuse(refusal(why)),
        })
    }
}

pub(super) mod sql_result {
    use cardan_api::sql::{ResultEvent, SqlResult};
    use cardan_api::{Flow, Verdict};

    use super::super::sql_result::exports::cardan::plugin::sql_result::Outcome;
    use super::{no_attributes, query, sql_types};
    use crate::Result;

    pub(in super::super) fn event(of: sql_types::Query, outcome: Outcome) -> ResultEvent {
        ResultEvent {
            query: query(of),
            is_success: outcome.success,
            node: outcome.node,
            elapsed_us: outcome.elapsed_us,
            response_bytes: outcome.response_bytes,
            error: outcome.error,
        }
    }

    pub(in super::super) fn answer(verdict: Verdict<SqlResult>) -> Result<()> {
        no_attributes(&verdict.attributes)?;
        match verdict.flow {
            Flow::Stop(never) => match never {},
            Flow::Continue => Ok(()),
        }
    }
}
