//! Databases that the operator has named. Needs the grant `sql`.

use std::fmt;

use serde_json::Value;

use crate::host;

/// What a statement gave.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Rows {
    /// Names of the columns.
    pub columns: Vec<String>,
    /// One list of values for each row.
    pub rows: Vec<Vec<Value>>,
    /// How many rows the statement changed.
    pub affected: u64,
}

/// Why a statement failed. It was rolled back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// SQLSTATE or SQLite's name, or `timeout` or `too_large`.
    pub code: String,
    /// The database's words.
    pub message: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

impl std::error::Error for Failure {}

/// Runs one statement. A plugin with one connection need not name it. Parameters are `$1` and so on.
pub fn query(connection: Option<&str>, statement: &str, parameters: &[Value]) -> Result<Rows, Failure> {
    host::sql_query(connection, statement, parameters)
}
