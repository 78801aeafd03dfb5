//! `execute_query`.

use cardan_api::Capability;
use cardan_api::grants::Access;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Arguments, Function, Outcome, Situation, document};
use crate::grants::{Authority, Refusal, ServiceFailure, SqlFailure, SqlQuery};

/// What `execute_query` takes, unless it is the statement alone.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Query {
    #[serde(default)]
    connection: Option<String>,
    sql: String,
    #[serde(default)]
    params: Vec<Value>,
}

impl Authority {
    pub(super) async fn execute_query(
        &self,
        function: &Function,
        mut args: Arguments,
        situation: Situation,
    ) -> Result<Outcome, Refusal> {
        let text = args.text(function, 0)?;
        let query = if text.trim_start().starts_with('{') {
            document(function, &text)?
        } else {
            Query { connection: None, sql: text, params: Vec::new() }
        };
        let connection = match query.connection {
            Some(connection) => connection,
            None => self.only_connection()?,
        };
        let scope = self.grants.sql.get(&connection);
        let access = scope.map(|scope| scope.access);
        let Some(scope) = scope.filter(|_| Self::enough(access, Access::Read)) else {
            return Err(self.denied_connection(&connection, Capability::SqlRead));
        };
        let Some(database) = self.services.sql.clone() else {
            return Err(self.missing(function.name, "sql"));
        };
        let query = SqlQuery {
            plugin: self.plugin.clone(),
            connection: connection.clone(),
            access: scope.access,
            statement: query.sql,
            parameters: query.params,
            rows_max: scope.rows_max,
            result_bytes_max: scope.result_bytes_max,
            timeout: situation.left.map_or(scope.timeout, |left| left.min(scope.timeout)),
        };
        let error = |code: &str, message: String| json!({ "error": { "code": code, "message": message } });
        Ok(match database.query(query).await {
            Ok(result) => json!({
                "columns": result.columns,
                "rows": result.rows,
                "affected": result.affected,
            }),
            Err(SqlFailure::Statement { code, message }) => error(&code, message),
            Err(SqlFailure::TooLarge(why)) => error("too_large", why),
            Err(SqlFailure::Timeout) => error("timeout", "the statement took too long".to_owned()),
            Err(SqlFailure::ReadOnly) => {
                return Err(self.denied_connection(&connection, Capability::SqlWrite));
            }
            Err(SqlFailure::Unknown) => {
                return Err(Refusal::host(format!(
                    "execute_query: there is no connection {connection:?}: add it to services.sql"
                )));
            }
            Err(SqlFailure::Unavailable(why)) => {
                return Err(self.failed(function.name, ServiceFailure::Unavailable(why)));
            }
        }
        .into())
    }

    /// Where a plugin has one connection it need not name it.
    fn only_connection(&self) -> Result<String, Refusal> {
        let mut names = self.grants.sql.keys();
        match (names.next(), names.next()) {
            (Some(only), None) => Ok(only.clone()),
            (None, _) => Err(self.denied("execute_query", Capability::SqlRead)),
            (Some(_), Some(_)) => {
                let names: Vec<&str> = self.grants.sql.keys().map(String::as_str).collect();
                let names = names.join(", ");
                Err(Refusal::protocol(format!("execute_query: name one of the connections {names}")))
            }
        }
    }
}
