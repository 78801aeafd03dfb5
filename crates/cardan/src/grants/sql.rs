//! Databases, by the names of their connections.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use cardan_api::grants::Access;
use serde_json::Value;

/// Runs statements on databases. The implementation is the embedder's: `cardan-services` has SQLite and
/// PostgreSQL.
///
/// Called from many calls at once. A statement runs in a transaction of its own, which is rolled back when
/// it fails, or when the future is dropped.
pub trait SqlDatabase: Send + Sync + 'static {
    /// Runs one statement. With [`Access::Read`] the database itself has to refuse whatever changes
    /// something. More than one statement at once is refused.
    fn query(&self, query: SqlQuery) -> Pin<Box<dyn Future<Output = Result<SqlResult, SqlFailure>> + Send>>;
}

/// One statement.
#[derive(Debug, Clone)]
pub struct SqlQuery {
    /// Whose statement it is. One plugin must not take what all of them wait for.
    pub plugin: Arc<str>,
    /// The name of a connection that the plugin was granted.
    pub connection: String,
    /// Whether the statement may change anything.
    pub access: Access,
    /// The statement, with `$1` and so on for parameters.
    pub statement: String,
    /// Values for them.
    pub parameters: Vec<Value>,
    /// More rows are [`SqlFailure::TooLarge`].
    pub rows_max: u64,
    /// Bytes of all values; more are [`SqlFailure::TooLarge`].
    pub result_bytes_max: u64,
    /// More time is [`SqlFailure::Timeout`].
    pub timeout: Duration,
}

/// What a statement brought.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SqlResult {
    /// Names of the columns; several may be the same.
    pub columns: Vec<String>,
    /// A value for each column.
    pub rows: Vec<Vec<Value>>,
    /// Rows that the statement changed.
    pub affected: u64,
}

/// Why a statement brought nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SqlFailure {
    /// The database refused the statement. Guests see this.
    Statement {
        /// SQLSTATE, or SQLite's name for the error.
        code: String,
        /// The database's words.
        message: String,
    },
    /// The statement would change something, and may not.
    ReadOnly,
    /// More rows or bytes than allowed.
    TooLarge(String),
    /// Not within the time allowed.
    Timeout,
    /// There is no connection of this name.
    Unknown,
    /// The database cannot be asked. For operators.
    Unavailable(String),
}

impl fmt::Display for SqlFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Statement { code, message } => write!(f, "{message} ({code})"),
            Self::ReadOnly => f.write_str("the statement would change something, and may not"),
            Self::TooLarge(why) | Self::Unavailable(why) => f.write_str(why),
            Self::Timeout => f.write_str("timeout"),
            Self::Unknown => f.write_str("there is no connection of this name"),
        }
    }
}

impl std::error::Error for SqlFailure {}
