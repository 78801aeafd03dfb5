//! PostgreSQL servers.
//!
//! A guest's statement is one message of the extended protocol, in which the server takes no more than one,
//! inside of a transaction that is ours. For reading it is a read-only one on a session that is read-only by
//! itself, and it has taken its snapshot before the guest's statement comes, after which the server lets
//! nobody make it writable. Statements that end transactions or change the session are refused by their first
//! word, and whatever functions may have changed of it is discarded before somebody else gets it.
//!
//! The account's own rights are the other wall: give it no more than its plugins need.

mod decode;
mod encode;
mod ration;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cardan::api::grants::Access;
use cardan::{SqlFailure, SqlQuery, SqlResult};
use futures_util::TryStreamExt as _;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls_platform_verifier::BuilderVerifierExt as _;
use tokio::time::{Instant, timeout_at};
use tokio_postgres::config::{Host, SslMode, SslNegotiation};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use tokio_postgres::{CancelToken, Client, Config, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::turns::{Turn, Turns};
use super::{Growing, statement_error};
use decode::decode;
use encode::Parameter;
use ration::{Connector, Ration};

/// Time for what is not the guest's: connecting, cancelling, cleaning up.
const CHORE_TIMEOUT: Duration = Duration::from_secs(5);

/// Bytes that a server says beside results: its greetings, and what types are.
const CHORE_BYTES: u64 = 1 << 20;
/// Bytes on the wire for one that is counted of a result, at most: an empty array.
const WIRE_FACTOR: u64 = 8;

/// First words of statements that neither end our transaction nor are about the session.
const STATEMENTS: [&str; 16] = [
    "select", "with", "values", "table", "show", "explain", "insert", "update", "delete", "merge", "create",
    "alter", "drop", "truncate", "comment", "analyze",
];

/// Connections to one server.
pub(super) struct PostgresPool {
    reading: Arc<Side>,
    writing: Arc<Side>,
}

struct Side {
    config: Config,
    tls: Option<MakeRustlsConnect>,
    access: Access,
    turns: Turns,
    idle: Mutex<Vec<Session>>,
    counts: Counts,
}

/// Whether what a server says is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Counts {
    Everything,
    /// A socket that is a file has no host's name, without which the library makes no connection through a
    /// [`Connector`].
    Nothing,
}

/// A connection, and what it may still be told.
struct Session {
    client: Client,
    ration: Ration,
}

impl PostgresPool {
    pub(super) fn new(config: Config, ca: Option<&[u8]>) -> Result<Self, String> {
        let tls = match config.get_ssl_mode() {
            SslMode::Require => Some(tls(ca)?),
            _ if ca.is_some() => {
                return Err("certificates are given, and its address has no sslmode=require".to_owned());
            }
            _ => None,
        };
        let side = |access: Access| {
            let mut config = config.clone();
            config.application_name("cardan").connect_timeout(CHORE_TIMEOUT);
            if access == Access::Read {
                let options = config.get_options().unwrap_or_default();
                config.options(format!("{options} -c default_transaction_read_only=on"));
            }
            let named = config.get_hosts().iter().all(|host| matches!(host, Host::Tcp(_)));
            let counts = match named && !config.get_hosts().is_empty() {
                true => Counts::Everything,
                false => Counts::Nothing,
            };
            if counts == Counts::Everything && tls.is_none() {
                // What makes the library take the stream that a connector makes without asking the server for TLS.
                config.ssl_mode(SslMode::Require).ssl_negotiation(SslNegotiation::Direct);
            }
            let (turns, idle) = (Turns::new(), Mutex::default());
            Arc::new(Side { config, tls: tls.clone(), access, turns, idle, counts })
        };
        Ok(Self { reading: side(Access::Read), writing: side(Access::Write) })
    }

    pub(super) async fn query(&self, query: SqlQuery) -> Result<SqlResult, SqlFailure> {
        let deadline = Instant::now() + query.timeout;
        check_first_word(&query.statement)?;
        let side = match query.access {
            Access::Read => &self.reading,
            Access::Write => &self.writing,
        };
        let late = |_| SqlFailure::Timeout;
        let mut lease = timeout_at(deadline, side.lease(&query.plugin)).await.map_err(late)??;
        let ran = timeout_at(deadline, run(&mut lease, &query)).await;
        match ran {
            Ok(result) => {
                let told_too_much = lease.is_used_up();
                lease.give_back();
                match result {
                    Err(_) if told_too_much => {
                        let why = format!("more than {} bytes", query.result_bytes_max);
                        Err(SqlFailure::TooLarge(why))
                    }
                    result => result,
                }
            }
            // Dropping the lease cancels what runs.
            Err(_) => Err(SqlFailure::Timeout),
        }
    }
}

fn tls(ca: Option<&[u8]>) -> Result<MakeRustlsConnect, String> {
    crate::install_tls_provider();
    let config = rustls::ClientConfig::builder();
    let config = match ca {
        None => config.with_platform_verifier().map_err(|error| error.to_string())?.with_no_client_auth(),
        Some(pem) => {
            let mut roots = rustls::RootCertStore::empty();
            for certificate in CertificateDer::pem_slice_iter(pem) {
                let certificate = certificate.map_err(|error| format!("its certificates: {error}"))?;
                roots.add(certificate).map_err(|error| format!("its certificates: {error}"))?;
            }
            if roots.is_empty() {
                return Err("its certificates: there is none in the file".to_owned());
            }
            config.with_root_certificates(roots).with_no_client_auth()
        }
    };
    Ok(MakeRustlsConnect::new(config))
}

impl Side {
    async fn lease(self: &Arc<Self>, plugin: &Arc<str>) -> Result<Lease, SqlFailure> {
        let turn =
            self.turns.take(plugin).await.map_err(|error| SqlFailure::Unavailable(error.to_string()))?;
        loop {
            let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let session = match idle {
                Some(session) if session.client.is_closed() => continue,
                Some(session) => session,
                None => self.connect().await.map_err(|error| unusable(&error))?,
            };
            return Ok(Lease { side: self.clone(), held: Some((session, turn)) });
        }
    }

    async fn connect(&self) -> Result<Session, tokio_postgres::Error> {
        let ration = Ration::new(CHORE_BYTES);
        // The task ends with its connection, which ends with its client.
        let client = match (self.counts, &self.tls) {
            (Counts::Everything, _) => {
                let (client, connection) = self.config.connect(self.connector(ration.clone())).await?;
                tokio::spawn(connection);
                client
            }
            (Counts::Nothing, Some(tls)) => {
                let (client, connection) = self.config.connect(tls.clone()).await?;
                tokio::spawn(connection);
                client
            }
            (Counts::Nothing, None) => {
                let (client, connection) = self.config.connect(NoTls).await?;
                tokio::spawn(connection);
                client
            }
        };
        Ok(Session { client, ration })
    }

    fn connector(&self, ration: Ration) -> Connector {
        Connector { tls: self.tls.clone(), ration }
    }

    async fn cancel(&self, token: CancelToken) -> Result<(), tokio_postgres::Error> {
        match (self.counts, &self.tls) {
            (Counts::Everything, _) => token.cancel_query(self.connector(Ration::new(CHORE_BYTES))).await,
            (Counts::Nothing, Some(tls)) => token.cancel_query(tls.clone()).await,
            (Counts::Nothing, None) => token.cancel_query(NoTls).await,
        }
    }
}

/// A connection in use. Dropped without being given back, what it runs is cancelled.
struct Lease {
    side: Arc<Side>,
    held: Option<(Session, Turn)>,
}

impl Lease {
    fn is_used_up(&self) -> bool {
        self.held.as_ref().is_some_and(|(session, _)| session.ration.is_used_up())
    }

    fn give_back(mut self) {
        let (side, held) = (self.side.clone(), self.held.take());
        let Some((session, turn)) = held.filter(|(session, _)| !session.client.is_closed()) else { return };
        // After the guest has its answer: nobody else gets the session as one has left it.
        tokio::spawn(async move {
            session.ration.set(CHORE_BYTES);
            let discarded = session.client.batch_execute("DISCARD ALL");
            if matches!(tokio::time::timeout(CHORE_TIMEOUT, discarded).await, Ok(Ok(()))) {
                side.idle.lock().unwrap_or_else(PoisonError::into_inner).push(session);
            }
            drop(turn);
        });
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let Some((session, turn)) = self.held.take() else { return };
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let (token, side) = (session.client.cancel_token(), self.side.clone());
        runtime.spawn(async move {
            // A server that does not answer ends the statement by its own timeout.
            let _ = tokio::time::timeout(CHORE_TIMEOUT, side.cancel(token)).await;
            drop((session, turn));
        });
    }
}

async fn run(lease: &mut Lease, query: &SqlQuery) -> Result<SqlResult, SqlFailure> {
    let access = lease.side.access;
    let Some((Session { client, ration }, _)) = &mut lease.held else {
        return Err(SqlFailure::Unavailable("the connection is gone".to_owned()));
    };
    ration.set(query.result_bytes_max.saturating_mul(WIRE_FACTOR).saturating_add(CHORE_BYTES));
    let failed = |error: tokio_postgres::Error| failure(&error);
    let transaction = client.build_transaction().read_only(access == Access::Read);
    let transaction = transaction.start().await.map_err(failed)?;
    // The query makes the server take the transaction's snapshot: from here on its mode cannot change.
    let setup = format!(
        "SET LOCAL statement_timeout = {}; SET LOCAL idle_in_transaction_session_timeout = {}; SELECT 1",
        query.timeout.as_millis().max(1),
        (query.timeout + CHORE_TIMEOUT).as_millis()
    );
    transaction.batch_execute(&setup).await.map_err(failed)?;
    let statement = transaction.prepare(&query.statement).await.map_err(failed)?;
    let (wanted, given) = (statement.params().len(), query.parameters.len());
    if wanted != given {
        let message = format!("{given} parameters were given, and {wanted} are used");
        return Err(statement_error("08P01", message));
    }
    let parameters: Vec<Parameter<'_>> = query.parameters.iter().map(Parameter).collect();
    let references = parameters.iter().map(|parameter| parameter as &(dyn ToSql + Sync));
    let portal = transaction.bind(&statement, &references.collect::<Vec<_>>()).await.map_err(failed)?;
    let columns = statement.columns().iter().map(|column| column.name().to_owned()).collect();
    let mut growing = Growing::new(query, columns);
    // One more than allowed, to know that there are more.
    let most = i32::try_from(query.rows_max.saturating_add(1)).unwrap_or(i32::MAX);
    let rows = transaction.query_portal_raw(&portal, most).await.map_err(failed)?;
    let mut rows = std::pin::pin!(rows);
    while let Some(row) = rows.try_next().await.map_err(failed)? {
        growing.push(decode(&row)?)?;
    }
    growing.result.affected = match rows.rows_affected() {
        Some(affected) if statement.columns().is_empty() || access == Access::Write => affected,
        _ => 0,
    };
    match access {
        Access::Read => transaction.rollback().await.map_err(failed)?,
        Access::Write => transaction.commit().await.map_err(failed)?,
    }
    Ok(growing.result)
}

fn check_first_word(statement: &str) -> Result<(), SqlFailure> {
    let word = first_word(statement).to_ascii_lowercase();
    if STATEMENTS.contains(&&*word) {
        return Ok(());
    }
    Err(statement_error("0A000", format!("{word:?} is no statement that may be used here")))
}

/// The first word behind blanks, comments and parentheses.
fn first_word(statement: &str) -> &str {
    let mut rest = statement;
    loop {
        // What PostgreSQL's scanner takes for blanks, and nothing else: no word may hide behind another.
        rest = rest.trim_start_matches([' ', '\t', '\n', '\r', '\x0b', '\x0c', '(']);
        if let Some(comment) = rest.strip_prefix("--") {
            rest = comment.split_once(['\n', '\r']).map_or("", |(_, rest)| rest);
        } else if let Some(comment) = rest.strip_prefix("/*") {
            rest = after_comment(comment);
        } else {
            let end = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
            return &rest[..end];
        }
    }
}

/// What follows a comment that has begun; PostgreSQL's nest.
fn after_comment(mut rest: &str) -> &str {
    let mut depth = 1;
    while depth > 0 {
        let (open, close) = (rest.find("/*"), rest.find("*/"));
        let at = match (open, close) {
            (Some(open), Some(close)) if open < close => {
                depth += 1;
                open
            }
            (_, Some(close)) => {
                depth -= 1;
                close
            }
            (_, None) => return "",
        };
        rest = &rest[at + 2..];
    }
    rest
}

fn failure(error: &tokio_postgres::Error) -> SqlFailure {
    let Some(db) = error.as_db_error() else { return unusable(error) };
    let code = db.code();
    if *code == SqlState::READ_ONLY_SQL_TRANSACTION {
        return SqlFailure::ReadOnly;
    }
    if *code == SqlState::QUERY_CANCELED {
        return SqlFailure::Timeout;
    }
    // The server, or the connection to it, and not the statement.
    if ["08", "53", "57", "58", "XX"].iter().any(|class| code.code().starts_with(class))
        && code.code() != "08P01"
    {
        return unusable(error);
    }
    statement_error(code.code(), db.message())
}

fn unusable(error: &tokio_postgres::Error) -> SqlFailure {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    SqlFailure::Unavailable(format!("PostgreSQL: {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_words() {
        #[track_caller]
        fn check(statement: &str, expected: &str) {
            assert_eq!(first_word(statement), expected, "{statement:?}");
        }
        check("select 1", "select");
        check("  \n\tSELECT(1)", "SELECT");
        check("((values (1)))", "values");
        check("-- set\nselect", "select");
        check("-- select\rset x = 1 --\n", "set");
        check("\r\x0b\x0cselect", "select");
        check("\u{a0}select", "");
        check("\u{2003}set\nselect", "");
        check("/* a /* b */ set */ select", "select");
        check("/* open", "");
        check("-- only", "");
        check("/**/set x = 1", "set");
        check("", "");
        check("1", "");
    }
}
