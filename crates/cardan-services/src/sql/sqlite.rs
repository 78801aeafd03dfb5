//! SQLite files.
//!
//! What may not be written is opened for reading only. An authorizer, which SQLite asks for everything that a
//! statement would do, refuses what would reach beyond the file (`ATTACH`, `VACUUM INTO`, extensions), and what
//! would change the connection for whoever uses it next (`PRAGMA`, transactions, temporary tables).

mod functions;
mod spill;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use cardan::api::grants::Access;
use cardan::{SqlFailure, SqlQuery, SqlResult};
use rusqlite::config::DbConfig;
use rusqlite::fallible_iterator::FallibleIterator as _;
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use rusqlite::limits::Limit;
use rusqlite::types::{Value as SqlValue, ValueRef};
use rusqlite::{Batch, Connection, ErrorCode, OpenFlags, Statement};
use serde_json::Value;

use super::turns::Turns;
use super::{Growing, statement_error, values};
use spill::{SPILL_BYTES_MAX, Spill};

/// Longest text or blob that a statement may make, and longest statement, beside what its result may hold.
/// One function's call is not interrupted: how long it takes is bounded by what it works on.
const LENGTH: u64 = 1 << 20;
/// The same with the result.
const LENGTH_MAX: u64 = 4 << 20;
/// Longest pattern of `LIKE` and `GLOB`, in bytes: their time is that of text times pattern.
const PATTERN_MAX: i32 = 200;
/// Most arguments of a function, and longest statement in bytes and in instructions of SQLite's virtual machine:
/// what stands in one row is worked on without a look at the clock.
const ARGUMENTS_MAX: i32 = 100;
const STATEMENT_BYTES_MAX: i32 = 256 << 10;
const INSTRUCTIONS_MAX: i32 = 10_000;
/// Steps of SQLite's virtual machine between two looks at the clock.
const STEPS: i32 = 10;
/// Memory of all that SQLite does in this process.
const HEAP_BYTES_MAX: i64 = 512 << 20;

/// Connections to one file.
pub(super) struct SqlitePool {
    file: Arc<PathBuf>,
    reading: Arc<Side>,
    writing: Arc<Side>,
}

struct Side {
    turns: Turns,
    idle: Mutex<Vec<Connection>>,
}

impl Side {
    fn new() -> Arc<Self> {
        Arc::new(Self { turns: Turns::new(), idle: Mutex::default() })
    }
}

/// Whether a statement takes effect or is given up, whichever is first: nobody is told that it took too long
/// of one that was then committed.
#[derive(Default)]
struct Course(AtomicU8);

impl Course {
    const RUNS: u8 = 0;
    const GIVEN_UP: u8 = 1;
    const ENDS: u8 = 2;

    /// Whether it will not take effect now.
    fn give_up(&self) -> bool {
        self.becomes(Self::GIVEN_UP)
    }

    /// Whether it may take effect now.
    fn end(&self) -> bool {
        self.becomes(Self::ENDS)
    }

    fn becomes(&self, next: u8) -> bool {
        let was = self.0.compare_exchange(Self::RUNS, next, Ordering::AcqRel, Ordering::Acquire);
        was.map_or_else(|was| was == next, |_| true)
    }

    fn is_given_up(&self) -> bool {
        self.0.load(Ordering::Acquire) == Self::GIVEN_UP
    }
}

/// Stops the statement when its caller is gone.
struct Caller(Arc<Course>);

impl Drop for Caller {
    fn drop(&mut self) {
        self.0.give_up();
    }
}

impl SqlitePool {
    pub(super) fn new(file: PathBuf) -> Self {
        Self { file: Arc::new(file), reading: Side::new(), writing: Side::new() }
    }

    pub(super) async fn query(&self, query: SqlQuery) -> Result<SqlResult, SqlFailure> {
        let deadline = Instant::now() + query.timeout;
        let side = match query.access {
            Access::Read => self.reading.clone(),
            Access::Write => self.writing.clone(),
        };
        let turn = tokio::time::timeout(query.timeout, side.turns.take(&query.plugin)).await;
        let turn = turn.map_err(|_| SqlFailure::Timeout)?;
        let turn = turn.map_err(|error| SqlFailure::Unavailable(error.to_string()))?;
        let caller = Caller(Arc::default());
        let until = Until { deadline, course: caller.0.clone(), spilled: Arc::default() };
        let file = self.file.clone();
        let work = move || {
            // Given back when the statement has really ended, whoever waited for it.
            let _turn = turn;
            let idle = side.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let mut connection = match idle {
                Some(connection) => connection,
                None => open(&file, query.access).map_err(|error| unusable(&error))?,
            };
            let result = run(&mut connection, &query, &until);
            if connection.is_autocommit() {
                side.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
            }
            result
        };
        let mut running = tokio::task::spawn_blocking(work);
        let ended = match tokio::time::timeout_at(deadline.into(), &mut running).await {
            Ok(ended) => ended,
            Err(_) if caller.0.give_up() => return Err(SqlFailure::Timeout),
            // It is being committed.
            Err(_) => running.await,
        };
        ended.unwrap_or_else(|error| Err(SqlFailure::Unavailable(format!("SQLite: {error}"))))
    }
}

/// When a statement has to end.
#[derive(Clone)]
struct Until {
    deadline: Instant,
    course: Arc<Course>,
    /// It has put more into temporary files than it may.
    spilled: Arc<AtomicBool>,
}

impl Until {
    fn is_over(&self) -> bool {
        self.course.is_given_up() || Instant::now() >= self.deadline
    }

    /// The time to wait for others, in SQLite's milliseconds: when it has passed, so has the deadline.
    fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now()) + Duration::from_millis(1)
    }

    /// What SQLite asks while it runs: whether to stop.
    fn watch(&self, access: Access) -> impl FnMut() -> bool + Send + 'static {
        let until = self.clone();
        // What is written for a write is for the most part the file itself.
        let mut spill = (access == Access::Read).then(Spill::begin);
        move || {
            if spill.as_mut().is_some_and(Spill::is_too_much) {
                until.spilled.store(true, Ordering::Relaxed);
            }
            until.spilled.load(Ordering::Relaxed) || until.is_over()
        }
    }
}

fn open(file: &std::path::Path, access: Access) -> rusqlite::Result<Connection> {
    let flags = match access {
        Access::Read => OpenFlags::SQLITE_OPEN_READ_ONLY,
        Access::Write => OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE,
    };
    let connection = Connection::open_with_flags(file, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    if access == Access::Read {
        connection.pragma_update(None, "query_only", true)?;
    }
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    connection.set_limit(Limit::SQLITE_LIMIT_LIKE_PATTERN_LENGTH, PATTERN_MAX)?;
    connection.set_limit(Limit::SQLITE_LIMIT_FUNCTION_ARG, ARGUMENTS_MAX)?;
    connection.set_limit(Limit::SQLITE_LIMIT_SQL_LENGTH, STATEMENT_BYTES_MAX)?;
    connection.set_limit(Limit::SQLITE_LIMIT_VDBE_OP, INSTRUCTIONS_MAX)?;
    connection.set_limit(Limit::SQLITE_LIMIT_ATTACHED, 0)?;
    connection.pragma_update(None, "hard_heap_limit", HEAP_BYTES_MAX)?;
    functions::define(&connection)?;
    Ok(connection)
}

fn run(connection: &mut Connection, query: &SqlQuery, until: &Until) -> Result<SqlResult, SqlFailure> {
    let length = LENGTH.saturating_add(query.result_bytes_max).min(LENGTH_MAX) as i32;
    let prepared = connection
        .set_limit(Limit::SQLITE_LIMIT_LENGTH, length)
        .and_then(|_| connection.busy_timeout(until.left()))
        .and_then(|()| connection.progress_handler(STEPS, Some(until.watch(query.access))));
    prepared.map_err(|error| unusable(&error))?;
    let begun = match query.access {
        Access::Read => Ok(()),
        Access::Write => connection.execute_batch("BEGIN IMMEDIATE"),
    };
    begun.map_err(|error| failure(&error, until, Refused::Nothing))?;
    let refused = Arc::new(AtomicU8::new(Refused::Nothing as u8));
    let (access, seen) = (query.access, refused.clone());
    let authorizer = move |context: AuthContext<'_>| authorize(access, &context, &seen);
    let result = match connection.authorizer(Some(authorizer)) {
        Ok(()) => statement(connection, query).map_err(|error| match error {
            Trouble::Sqlite(error) => failure(&error, until, Refused::from(refused.load(Ordering::Relaxed))),
            Trouble::Failure(failure) => failure,
        }),
        Err(error) => Err(unusable(&error)),
    };
    let nobody: Option<fn(AuthContext<'_>) -> Authorization> = None;
    connection.authorizer(nobody).map_err(|error| unusable(&error))?;
    let nothing: Option<fn() -> bool> = None;
    connection.progress_handler(0, nothing).map_err(|error| unusable(&error))?;
    if query.access == Access::Write && !connection.is_autocommit() {
        let commits = result.is_ok() && !until.is_over() && until.course.end();
        // Readers that are in its way have the time that is left.
        let ended = connection
            .busy_timeout(until.left())
            .and_then(|()| connection.execute_batch(if commits { "COMMIT" } else { "ROLLBACK" }));
        ended.map_err(|error| failure(&error, until, Refused::Nothing))?;
        if result.is_ok() && !commits {
            return Err(SqlFailure::Timeout);
        }
    }
    result
}

enum Trouble {
    Sqlite(rusqlite::Error),
    Failure(SqlFailure),
}

impl From<rusqlite::Error> for Trouble {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

impl From<SqlFailure> for Trouble {
    fn from(failure: SqlFailure) -> Self {
        Self::Failure(failure)
    }
}

fn statement(connection: &Connection, query: &SqlQuery) -> Result<SqlResult, Trouble> {
    let mut batch = Batch::new(connection, &query.statement);
    let Some(mut statement) = batch.next()? else {
        return Err(statement_error("SQLITE_MISUSE", "there is no statement").into());
    };
    // What follows may also be no statement at all.
    if !matches!(batch.next(), Ok(None)) {
        return Err(statement_error("SQLITE_MISUSE", "there is more than one statement").into());
    }
    bind(&mut statement, &query.parameters)?;
    let columns = statement.column_names().map(str::to_owned).collect::<Vec<_>>();
    let width = columns.len();
    let reads = statement.readonly();
    let mut growing = Growing::new(query, columns);
    let mut rows = statement.raw_query();
    while let Some(row) = rows.next()? {
        let values = (0..width).map(|index| row.get_ref(index).map(value));
        growing.push(values.collect::<Result<_, _>>()?)?;
    }
    drop(rows);
    if !reads {
        growing.result.affected = connection.changes();
    }
    Ok(growing.result)
}

/// `$1`, `?1`, `:1` and `@1` are the first parameter; so is the first of those without a number.
fn bind(statement: &mut Statement<'_>, parameters: &[Value]) -> Result<(), Trouble> {
    let mut used = 0;
    for index in 1..=statement.parameter_count() {
        let name = statement.parameter_name(index);
        let number = match name {
            Some(name) => name[1..].parse().map_err(|_| {
                statement_error("SQLITE_MISUSE", format!("the parameter {name:?} is not numbered"))
            })?,
            None => index,
        };
        let parameter = number.checked_sub(1).and_then(|number: usize| parameters.get(number));
        let Some(parameter) = parameter else {
            let message = format!("there is no parameter {number}: {} were given", parameters.len());
            return Err(statement_error("SQLITE_RANGE", message).into());
        };
        used = used.max(number);
        statement.raw_bind_parameter(index, sql_value(parameter))?;
    }
    if used < parameters.len() {
        let message = format!("{} parameters were given, and {used} are used", parameters.len());
        return Err(statement_error("SQLITE_RANGE", message).into());
    }
    Ok(())
}

fn sql_value(value: &Value) -> SqlValue {
    match value {
        Value::Null => SqlValue::Null,
        Value::Bool(value) => SqlValue::Integer((*value).into()),
        Value::Number(number) => match number.as_i64() {
            Some(integer) => SqlValue::Integer(integer),
            None => SqlValue::Real(number.as_f64().unwrap_or(f64::NAN)),
        },
        Value::String(text) => SqlValue::Text(text.clone()),
        other => match values::from_base64(other) {
            Some(bytes) => SqlValue::Blob(bytes),
            None => SqlValue::Text(other.to_string()),
        },
    }
}

fn value(value: ValueRef<'_>) -> Value {
    match value {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(integer) => integer.into(),
        ValueRef::Real(real) => values::float(real),
        ValueRef::Text(text) => String::from_utf8_lossy(text).into_owned().into(),
        ValueRef::Blob(bytes) => values::base64(bytes),
    }
}

/// What an authorizer has refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Refused {
    Nothing,
    /// What [`Access::Write`] would allow.
    Writing,
    /// What nobody may.
    Anything,
}

impl From<u8> for Refused {
    fn from(number: u8) -> Self {
        match number {
            0 => Self::Nothing,
            1 => Self::Writing,
            _ => Self::Anything,
        }
    }
}

fn authorize(access: Access, context: &AuthContext<'_>, refused: &AtomicU8) -> Authorization {
    let needs = match context.action {
        AuthAction::Function { function_name } if function_name.eq_ignore_ascii_case("load_extension") => {
            None
        }
        // Temporary tables are the connection's, for whoever uses it next.
        _ if context.database_name == Some("temp") => None,
        AuthAction::Select
        | AuthAction::Read { .. }
        | AuthAction::Function { .. }
        | AuthAction::Recursive => Some(Access::Read),
        AuthAction::Insert { .. }
        | AuthAction::Update { .. }
        | AuthAction::Delete { .. }
        | AuthAction::CreateIndex { .. }
        | AuthAction::CreateTable { .. }
        | AuthAction::CreateTrigger { .. }
        | AuthAction::CreateView { .. }
        | AuthAction::CreateVtable { .. }
        | AuthAction::DropIndex { .. }
        | AuthAction::DropTable { .. }
        | AuthAction::DropTrigger { .. }
        | AuthAction::DropView { .. }
        | AuthAction::DropVtable { .. }
        | AuthAction::AlterTable { .. }
        | AuthAction::Reindex { .. }
        | AuthAction::Analyze { .. } => Some(Access::Write),
        // What is not known is not allowed.
        _ => None,
    };
    match needs {
        Some(needs) if needs <= access => Authorization::Allow,
        Some(_) => {
            refused.fetch_max(Refused::Writing as u8, Ordering::Relaxed);
            Authorization::Deny
        }
        None => {
            refused.fetch_max(Refused::Anything as u8, Ordering::Relaxed);
            Authorization::Deny
        }
    }
}

fn failure(error: &rusqlite::Error, until: &Until, refused: Refused) -> SqlFailure {
    match (refused, error.sqlite_error_code()) {
        (Refused::Anything, _) => {
            statement_error("SQLITE_AUTH", "statements may not do this here: it reaches beyond one statement")
        }
        (Refused::Writing, _) | (_, Some(ErrorCode::ReadOnly)) => SqlFailure::ReadOnly,
        (_, Some(ErrorCode::OperationInterrupted)) if until.spilled.load(Ordering::Relaxed) => {
            SqlFailure::TooLarge(format!("more than {SPILL_BYTES_MAX} bytes of temporary files"))
        }
        (_, Some(ErrorCode::OperationInterrupted)) => SqlFailure::Timeout,
        (_, Some(ErrorCode::OutOfMemory)) => statement_error(
            "SQLITE_NOMEM",
            "the statement is too long, or takes more memory than there is for it",
        ),
        (_, Some(ErrorCode::DatabaseBusy)) if until.is_over() => SqlFailure::Timeout,
        (
            _,
            Some(
                ErrorCode::DatabaseBusy
                | ErrorCode::DatabaseLocked
                | ErrorCode::SystemIoFailure
                | ErrorCode::DatabaseCorrupt
                | ErrorCode::DiskFull
                | ErrorCode::CannotOpen
                | ErrorCode::NotADatabase,
            ),
        ) => unusable(error),
        (_, Some(code)) => statement_error(format!("{code:?}"), error.to_string()),
        (_, None) => statement_error("SQLITE_ERROR", error.to_string()),
    }
}

fn unusable(error: &rusqlite::Error) -> SqlFailure {
    SqlFailure::Unavailable(format!("SQLite: {error}"))
}
