//! The life of a connection: who it is, its statements and portals, and its transactions, each of which
//! reads one snapshot.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::BytesMut;
use pgwire::messages::PgWireBackendMessage as Out;
use pgwire::messages::PgWireFrontendMessage as In;
use pgwire::messages::data::{DataRow, FieldDescription, RowDescription};
use pgwire::messages::extendedquery::CloseComplete;
use pgwire::messages::response::{
    CommandComplete, EmptyQueryResponse, ReadyForQuery, TransactionStatus,
};
use pgwire::messages::startup::ParameterStatus;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::command::SessionCommand;
use super::connections::OpenConnection;
use super::error::{PgError, PgFailure};
use super::portal::{Portal, Prepared};
use super::types::TEXT;
use super::wire::Wire;
use crate::catalog::Snapshot;
use crate::hooks;
use crate::http::PgClient;
use crate::sql_gate;

/// A transaction keeps a snapshot, so one in which nothing happens for so long is ended.
const IDLE_IN_TRANSACTION: Duration = Duration::from_secs(60);

/// Of a transaction.
const MOST_SAVEPOINTS: usize = 1_000;

/// A connection whose client is known.
pub(super) struct PgSession {
    pub(super) wire: Wire,
    pub(super) client: PgClient,
    pub(super) room: Arc<Semaphore>,
    connection: Arc<OpenConnection>,
    ending: CancellationToken,
    settings: BTreeMap<String, String>,
    pub(super) statements: HashMap<String, Arc<Prepared>>,
    pub(super) portals: HashMap<String, Portal>,
    pub(super) transaction: TransactionStatus,
    /// Of the transaction, the oldest first.
    savepoints: Vec<String>,
    /// What the transaction reads, or the statements up to the next `Sync`…
    snapshot: Option<Arc<Snapshot>>,
    /// …and when it began.
    moment: Option<SystemTime>,
}

impl PgSession {
    pub(super) fn new(
        wire: Wire,
        client: PgClient,
        room: Arc<Semaphore>,
        ending: CancellationToken,
        settings: BTreeMap<String, String>,
        connection: Arc<OpenConnection>,
    ) -> Self {
        Self {
            wire,
            client,
            room,
            connection,
            ending,
            settings,
            statements: HashMap::new(),
            portals: HashMap::new(),
            transaction: TransactionStatus::Idle,
            savepoints: Vec::new(),
            snapshot: None,
            moment: None,
        }
    }

    /// Serves until the client leaves, or must.
    pub(super) async fn run(mut self) {
        let end = self.serve().await;
        if let Err(PgFailure::Error(error)) = end {
            self.wire.push(error.response());
            let _ = self.wire.flush().await; // it may be gone
        }
    }

    async fn serve(&mut self) -> Result<(), PgFailure> {
        self.ready();
        // After an error of the extended protocol, what comes before the next Sync is passed over.
        let mut skipping = false;
        loop {
            let (message, wrong) = self.receive().await?;
            if let Some(wrong) = wrong {
                if !skipping {
                    self.fail(&wrong);
                    match message {
                        In::Query(_) => self.ready(),
                        _ => skipping = true,
                    }
                }
                continue;
            }
            let outcome = match message {
                In::Terminate(_) => return Ok(()),
                In::Sync(_) => {
                    skipping = false;
                    self.ready();
                    continue;
                }
                _ if skipping => continue,
                In::Query(query) => {
                    let outcome = self.simple(&query.query).await;
                    self.note(outcome)?;
                    self.ready();
                    continue;
                }
                In::Parse(parse) => self.parse(parse).map_err(PgFailure::from),
                In::Bind(bind) => self.bind(bind).await,
                In::Describe(describe) => {
                    let name = describe.name.unwrap_or_default();
                    match describe.target_type {
                        b'S' => self.describe_statement(&name).await,
                        _ => self.describe_portal(&name).await,
                    }
                }
                In::Execute(execute) => {
                    let most = u64::try_from(execute.max_rows).ok().filter(|most| *most > 0);
                    let name = execute.name.unwrap_or_default();
                    self.run_portal(&name, most.unwrap_or(u64::MAX)).await
                }
                In::Close(close) => {
                    let name = close.name.unwrap_or_default();
                    match close.target_type {
                        b'S' => drop(self.statements.remove(&name)),
                        _ => drop(self.portals.remove(&name)),
                    }
                    self.wire.push(Out::CloseComplete(CloseComplete::new()));
                    Ok(())
                }
                In::Flush(_) => self.wire.flush().await,
                _ => {
                    let message = "a message that has no place here (COPY is not served)";
                    Err(PgError::fatal("08P01", message).into())
                }
            };
            skipping = self.note(outcome)?;
        }
    }

    /// Tells a client of an error that does not end its connection. Returns whether there was one.
    fn note(&mut self, outcome: Result<(), PgFailure>) -> Result<bool, PgFailure> {
        match outcome {
            Ok(()) => Ok(false),
            Err(PgFailure::Error(error)) if !error.is_fatal() => {
                self.fail(&error);
                Ok(true)
            }
            Err(failure) => Err(failure),
        }
    }

    async fn receive(&mut self) -> Result<(In, Option<PgError>), PgFailure> {
        let in_transaction = self.transaction != TransactionStatus::Idle;
        let idle = hooks::shortened("idle", IDLE_IN_TRANSACTION);
        let patience = if in_transaction { idle } else { Duration::MAX };
        let may_leave = !in_transaction && self.snapshot.is_none();
        self.connection.is_idle(may_leave);
        let received = tokio::select! {
            received = timeout(patience, self.wire.receive()) => received.unwrap_or_else(|_| {
                let message = "the transaction was idle for 60 s";
                Err(PgError::fatal("25P03", message).into())
            }),
            () = self.connection.leave.cancelled(), if may_leave => {
                let message = "the connection was idle, and another client has none \
                               (MARTD_MAX_CONNECTIONS)";
                Err(PgError::fatal("57P05", message).into())
            }
            () = self.ending.cancelled() => Err(PgError::fatal("57P01", "martd is stopping").into()),
        };
        self.connection.is_idle(false);
        received
    }

    fn fail(&mut self, error: &PgError) {
        if self.transaction == TransactionStatus::Transaction {
            self.transaction = TransactionStatus::Error;
        }
        self.wire.push(error.response());
    }

    /// Says that the next statement may come. What a transaction had ends with it.
    fn ready(&mut self) {
        if self.transaction == TransactionStatus::Idle {
            (self.snapshot, self.moment) = (None, None);
            self.portals.clear();
        }
        self.wire.push(Out::ReadyForQuery(ReadyForQuery::new(self.transaction)));
    }

    pub(super) fn snapshot(&mut self) -> Result<Arc<Snapshot>, PgError> {
        if self.snapshot.is_none() {
            self.snapshot = Some(self.client.snapshot()?);
        }
        self.snapshot.clone().ok_or_else(|| PgError::new("57P03", "nothing is served"))
    }

    /// When the transaction began, in microseconds since 1970.
    pub(super) fn moment(&mut self) -> i64 {
        let moment = *self.moment.get_or_insert_with(SystemTime::now);
        let since = moment.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
    }

    /// The simple protocol: statements, one after the other.
    async fn simple(&mut self, text: &str) -> Result<(), PgFailure> {
        let statements = sql_gate::split(text);
        if statements.is_empty() {
            self.wire.push(Out::EmptyQueryResponse(EmptyQueryResponse::new()));
        }
        for (start, sql) in statements {
            let statement = Arc::new(Prepared::new(sql.to_owned(), Vec::new()));
            let portal = Portal::new(statement, Vec::new(), Vec::new());
            self.portals.insert(String::new(), portal);
            let outcome = match self.describe_portal_if_rows("").await {
                Ok(()) => self.run_portal("", u64::MAX).await,
                failed => failed,
            };
            outcome.map_err(|failure| failure.after(&text[..start]))?;
        }
        Ok(())
    }

    async fn run_portal(&mut self, name: &str, most: u64) -> Result<(), PgFailure> {
        let Some(portal) = self.portals.get(name) else {
            return Err(no_such("portal", name, "34000").into());
        };
        let command = portal.statement.command.clone();
        let failed = self.transaction == TransactionStatus::Error;
        let ends = matches!(
            command,
            SessionCommand::Commit | SessionCommand::Rollback | SessionCommand::RollbackTo(_)
        );
        if failed && !ends {
            return Err(PgError::new("25P02", "the transaction has failed; end it first").into());
        }
        let tag = match &command {
            SessionCommand::Query => return self.send_rows(name, most, "SELECT").await,
            SessionCommand::Fetch(count, cursor) => {
                return self.send_rows(cursor, *count, "FETCH").await;
            }
            SessionCommand::Move(count, cursor) => {
                return self.send_rows(cursor, *count, "MOVE").await;
            }
            SessionCommand::NotServed(what) => {
                return Err(PgError::new("0A000", format!("{what} is not served")).into());
            }
            SessionCommand::Empty => {
                self.wire.push(Out::EmptyQueryResponse(EmptyQueryResponse::new()));
                return Ok(());
            }
            SessionCommand::Begin => {
                self.transaction = TransactionStatus::Transaction;
                self.moment();
                "BEGIN"
            }
            SessionCommand::Commit | SessionCommand::Rollback => {
                self.transaction = TransactionStatus::Idle;
                (self.snapshot, self.moment) = (None, None);
                self.savepoints.clear();
                if failed || command == SessionCommand::Rollback { "ROLLBACK" } else { "COMMIT" }
            }
            SessionCommand::Savepoint(_)
            | SessionCommand::Release(_)
            | SessionCommand::RollbackTo(_) => self.savepoint(&command)?,
            SessionCommand::Discard(what) => {
                if *what == "DISCARD ALL" && self.transaction != TransactionStatus::Idle {
                    let message = "DISCARD ALL cannot run in a transaction";
                    return Err(PgError::new("25001", message).into());
                }
                if *what == "DISCARD ALL" {
                    self.statements.clear();
                    self.portals.clear();
                }
                what
            }
            SessionCommand::Set(name, value) => {
                self.set(name, value);
                "SET"
            }
            SessionCommand::Reset(_) => "RESET",
            SessionCommand::Show(name) => match self.settings.get(name) {
                Some(value) => {
                    let mut data = BytesMut::new();
                    data.extend_from_slice(&(value.len() as u32).to_be_bytes());
                    data.extend_from_slice(value.as_bytes());
                    self.wire.push(Out::DataRow(DataRow::new(data, 1)));
                    "SHOW"
                }
                None => {
                    let message = format!("there is no setting {name:?}");
                    return Err(PgError::new("42704", message).into());
                }
            },
            SessionCommand::Close(Some(cursor)) => match self.portals.remove(cursor) {
                Some(_) => "CLOSE CURSOR",
                None => return Err(no_such("cursor", cursor, "34000").into()),
            },
            SessionCommand::Close(None) => {
                self.portals.retain(|_, portal| {
                    !matches!(portal.statement.command, SessionCommand::Declare(..))
                });
                "CLOSE CURSOR ALL"
            }
            SessionCommand::Deallocate(Some(name)) => match self.statements.remove(name) {
                Some(_) => "DEALLOCATE",
                None => return Err(no_such("prepared statement", name, "26000").into()),
            },
            SessionCommand::Deallocate(None) => {
                self.statements.clear();
                "DEALLOCATE ALL"
            }
            SessionCommand::Declare(cursor, _, holds) => {
                if self.transaction == TransactionStatus::Idle {
                    let (state, message) = match holds {
                        true => ("0A000", "WITH HOLD ends with its transaction: BEGIN first"),
                        false => ("25P01", "a cursor needs a transaction: BEGIN first"),
                    };
                    return Err(PgError::new(state, message).into());
                }
                if self.portals.contains_key(cursor) {
                    let message = format!("there is a cursor {cursor:?} already");
                    return Err(PgError::new("42P03", message).into());
                }
                let Some(portal) = self.portals.remove(name) else {
                    return Err(no_such("portal", name, "34000").into());
                };
                let cursor = cursor.clone();
                let depth = self.savepoints.len();
                let portal = Portal { binary: Vec::new(), depth, ..portal };
                self.portals.insert(cursor.clone(), portal);
                if let Err(failure) = self.open(&cursor).await {
                    self.portals.remove(&cursor);
                    return Err(failure);
                }
                "DECLARE CURSOR"
            }
            SessionCommand::Nothing(tag) => tag,
        };
        self.complete(tag.to_owned());
        Ok(())
    }

    /// As a transaction only reads, there is nothing to undo but its failure and its cursors.
    fn savepoint(&mut self, command: &SessionCommand) -> Result<&'static str, PgError> {
        if self.transaction == TransactionStatus::Idle {
            return Err(PgError::new("25P01", "a savepoint needs a transaction: BEGIN first"));
        }
        let found = |name: &String| {
            let at = self.savepoints.iter().rposition(|savepoint| savepoint == name);
            at.ok_or_else(|| no_such("savepoint", name, "3B001"))
        };
        match command {
            SessionCommand::Savepoint(_) if self.savepoints.len() >= MOST_SAVEPOINTS => {
                Err(PgError::new("53400", "too many savepoints"))
            }
            SessionCommand::Savepoint(name) => {
                self.savepoints.push(name.clone());
                Ok("SAVEPOINT")
            }
            SessionCommand::Release(name) => {
                let at = found(name)?;
                self.savepoints.truncate(at);
                self.portals.values_mut().for_each(|portal| portal.depth = portal.depth.min(at));
                Ok("RELEASE")
            }
            SessionCommand::RollbackTo(name) => {
                let at = found(name)?;
                self.savepoints.truncate(at + 1);
                self.portals.retain(|_, portal| portal.depth <= at);
                self.transaction = TransactionStatus::Transaction;
                Ok("ROLLBACK")
            }
            _ => unreachable!("is about no savepoint"),
        }
    }

    pub(super) fn complete(&mut self, tag: String) {
        self.wire.push(Out::CommandComplete(CommandComplete::new(tag)));
    }

    fn set(&mut self, name: &str, value: &str) {
        // What changes an answer here is not a session's to change; clients set the rest out of habit.
        if matches!(name, "application_name" | "extra_float_digits") {
            self.settings.insert(name.to_owned(), value.to_owned());
        }
        if name == "application_name" {
            let status = ParameterStatus::new(name.to_owned(), value.to_owned());
            self.wire.push(Out::ParameterStatus(status));
        }
    }
}

pub(super) fn no_such(what: &str, name: &str, state: &'static str) -> PgError {
    PgError::new(state, format!("there is no {what} {name:?}"))
}

/// The description of one column of text.
pub(super) fn one_text(name: &str) -> Out {
    let field = FieldDescription::new(name.to_owned(), 0, 0, TEXT, -1, -1, 0);
    Out::RowDescription(RowDescription::new(vec![field]))
}
