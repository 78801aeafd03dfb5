//! Databases that plugins may ask: SQLite files and PostgreSQL servers, by the names of their connections.

mod postgres;
mod sqlite;
mod turns;
mod values;

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

use cardan::{SqlDatabase, SqlFailure, SqlQuery, SqlResult};

use postgres::PostgresPool;
use sqlite::SqlitePool;

/// Connections of one database in use at once, for reading, and as many for writing.
const CONNECTIONS_MAX: usize = 8;
/// Those that one plugin may have of them.
const CONNECTIONS_EACH: usize = CONNECTIONS_MAX / 2;

/// Where a connection leads.
#[derive(Clone)]
pub enum SqlTarget {
    /// A file.
    Sqlite(PathBuf),
    /// A server, and certificates (PEM) that are trusted instead of this machine's.
    Postgres(Box<tokio_postgres::Config>, Option<Vec<u8>>),
}

/// Without passwords.
impl fmt::Debug for SqlTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(file) => write!(f, "Sqlite({})", file.display()),
            Self::Postgres(config, _) => {
                write!(f, "Postgres({:?}, {:?})", config.get_hosts(), config.get_dbname())
            }
        }
    }
}

/// Why a connection cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SqlError(String);

impl fmt::Display for SqlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for SqlError {}

impl SqlTarget {
    /// Reads an address: `sqlite:PATH`, or `postgres://USER:PASSWORD@HOST/DATABASE`, with
    /// `?sslmode=require` for TLS.
    ///
    /// # Errors
    ///
    /// When it is neither. The message does not quote the address: it may have a password in it.
    pub fn parse(address: &str) -> Result<Self, SqlError> {
        if let Some(path) = address.strip_prefix("sqlite:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return match path {
                "" | ":memory:" => Err(SqlError("name a file behind `sqlite:`".to_owned())),
                path => Ok(Self::Sqlite(path.into())),
            };
        }
        if ["postgres://", "postgresql://"].iter().any(|scheme| address.starts_with(scheme)) {
            let config = address.parse::<tokio_postgres::Config>();
            let config = config.map_err(|error| SqlError(format!("no PostgreSQL address: {error}")))?;
            return Ok(Self::Postgres(Box::new(config), None));
        }
        Err(SqlError("an address begins with `sqlite:` or `postgres://`".to_owned()))
    }
}

/// Pools of connections to databases. Clones are the same pools; connections are made when they are needed.
#[derive(Clone)]
pub struct SqlPools(Arc<BTreeMap<String, Pool>>);

enum Pool {
    Sqlite(SqlitePool),
    Postgres(PostgresPool),
}

impl fmt::Debug for SqlPools {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl SqlPools {
    /// Pools by the names of their connections. Nobody is connected to yet.
    ///
    /// # Errors
    ///
    /// When TLS is wanted and the certificates cannot be used.
    pub fn new(targets: impl IntoIterator<Item = (String, SqlTarget)>) -> Result<Self, SqlError> {
        let pools = targets.into_iter().map(|(name, target)| match target {
            SqlTarget::Sqlite(file) => Ok((name, Pool::Sqlite(SqlitePool::new(file)))),
            SqlTarget::Postgres(config, ca) => {
                let pool = PostgresPool::new(*config, ca.as_deref());
                let pool = pool.map_err(|why| SqlError(format!("connection {name:?}: {why}")))?;
                Ok((name, Pool::Postgres(pool)))
            }
        });
        Ok(Self(Arc::new(pools.collect::<Result<_, SqlError>>()?)))
    }
}

impl SqlDatabase for SqlPools {
    fn query(&self, query: SqlQuery) -> Pin<Box<dyn Future<Output = Result<SqlResult, SqlFailure>> + Send>> {
        let pools = self.0.clone();
        Box::pin(async move {
            match pools.get(&query.connection) {
                Some(Pool::Sqlite(pool)) => pool.query(query).await,
                Some(Pool::Postgres(pool)) => pool.query(query).await,
                None => Err(SqlFailure::Unknown),
            }
        })
    }
}

/// A result that grows to what it may be and no further.
struct Growing {
    result: SqlResult,
    rows_max: u64,
    bytes_left: u64,
    bytes_max: u64,
}

impl Growing {
    fn new(query: &SqlQuery, columns: Vec<String>) -> Self {
        let result = SqlResult { columns, ..SqlResult::default() };
        let bytes_max = query.result_bytes_max;
        Self { result, rows_max: query.rows_max, bytes_left: bytes_max, bytes_max }
    }

    fn push(&mut self, row: Vec<serde_json::Value>) -> Result<(), SqlFailure> {
        if self.result.rows.len() as u64 >= self.rows_max {
            return Err(SqlFailure::TooLarge(format!("more than {} rows", self.rows_max)));
        }
        let bytes: u64 = row.iter().map(values::bytes).sum();
        self.bytes_left = self
            .bytes_left
            .checked_sub(bytes)
            .ok_or_else(|| SqlFailure::TooLarge(format!("more than {} bytes", self.bytes_max)))?;
        self.result.rows.push(row);
        Ok(())
    }
}

fn statement_error(code: impl Into<String>, message: impl Into<String>) -> SqlFailure {
    SqlFailure::Statement { code: code.into(), message: message.into() }
}
