//! The life of a connection: who it is, its statements and portals, and its transactions, each of which
//! reads one snapshot.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::BytesMut;
use pgwire::messages::PgWireBackendMessage as Out;
use pgwire::messages::PgWireFrontendMessage as In;
use pgwire::messages::data::{DataRow, FieldDescription, NoData, RowDescription};
use pgwire::messages::extendedquery::{CloseComplete, Execute, PortalSuspended};
use pgwire::messages::response::{
    CommandComplete, EmptyQueryResponse, ReadyForQuery, TransactionStatus,
};
use pgwire::messages::startup::ParameterStatus;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::command::{self, SessionCommand};
use super::error::PgError;
use super::portal::{Described, Portal, Prepared};
use super::rows::PgRows;
use super::types::TEXT;
use super::wire::{ConnectionEnd, Wire};
use crate::catalog::Snapshot;
use crate::encode::postgres;
use crate::engine::Parameters;
use crate::hooks;
use crate::http::PgClient;
use crate::sql_gate;

/// A transaction keeps a snapshot, so one in which nothing happens for so long is ended.
const IDLE_IN_TRANSACTION: Duration = Duration::from_secs(60);

/// A connection whose client is known.
pub(super) struct PgSession {
    pub(super) wire: Wire,
    pub(super) client: PgClient,
    room: Arc<Semaphore>,
    ending: CancellationToken,
    settings: BTreeMap<String, String>,
    pub(super) statements: HashMap<String, Arc<Prepared>>,
    pub(super) portals: HashMap<String, Portal>,
    transaction: TransactionStatus,
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
    ) -> Self {
        Self {
            wire,
            client,
            room,
            ending,
            settings,
            statements: HashMap::new(),
            portals: HashMap::new(),
            transaction: TransactionStatus::Idle,
            snapshot: None,
            moment: None,
        }
    }

    /// Serves until the client leaves, or must.
    pub(super) async fn run(mut self) {
        let end = self.serve().await;
        if let Err(ConnectionEnd::Fatal(error)) = end {
            self.wire.push(error.response("", 0));
            let _ = self.wire.flush().await; // it may be gone
        }
    }

    async fn serve(&mut self) -> Result<(), ConnectionEnd> {
        self.ready();
        // After an error of the extended protocol, what comes before the next Sync is passed over.
        let mut skipping = false;
        loop {
            let message = self.receive().await?;
            let outcome = match message {
                In::Terminate(_) => return Ok(()),
                In::Sync(_) => {
                    skipping = false;
                    self.ready();
                    continue;
                }
                _ if skipping => continue,
                In::Query(query) => {
                    if let Err((error, start)) = self.simple(&query.query).await? {
                        self.fail(&error, &query.query, start);
                    }
                    self.ready();
                    continue;
                }
                In::Parse(parse) => self.parse(parse),
                In::Bind(bind) => self.bind(bind).await?,
                In::Describe(describe) => {
                    let name = describe.name.unwrap_or_default();
                    match describe.target_type {
                        b'S' => self.describe_statement(&name).await?,
                        _ => self.describe_portal(&name).await?,
                    }
                }
                In::Execute(execute) => self.execute(execute).await?,
                In::Close(close) => {
                    let name = close.name.unwrap_or_default();
                    match close.target_type {
                        b'S' => drop(self.statements.remove(&name)),
                        _ => drop(self.portals.remove(&name)),
                    }
                    self.wire.push(Out::CloseComplete(CloseComplete::new()));
                    Ok(())
                }
                In::Flush(_) => {
                    self.wire.flush().await?;
                    Ok(())
                }
                _ => {
                    let message = "a message that has no place here (COPY is not served)";
                    return Err(ConnectionEnd::Fatal(PgError::fatal("08P01", message)));
                }
            };
            if let Err((error, sql)) = outcome {
                skipping = true;
                self.fail(&error, &sql, 0);
            }
        }
    }

    async fn receive(&mut self) -> Result<In, ConnectionEnd> {
        let in_transaction = self.transaction != TransactionStatus::Idle;
        let idle = hooks::shortened("idle", IDLE_IN_TRANSACTION);
        let patience = if in_transaction { idle } else { Duration::MAX };
        tokio::select! {
            received = timeout(patience, self.wire.receive()) => received.unwrap_or_else(|_| {
                let message = "the transaction was idle for 60 s";
                Err(ConnectionEnd::Fatal(PgError::fatal("25P03", message)))
            }),
            () = self.ending.cancelled() => {
                Err(ConnectionEnd::Fatal(PgError::fatal("57P01", "martd is stopping")))
            }
        }
    }

    fn fail(&mut self, error: &PgError, sql: &str, start: usize) {
        if self.transaction == TransactionStatus::Transaction {
            self.transaction = TransactionStatus::Error;
        }
        self.wire.push(error.response(sql, start));
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
    fn moment(&mut self) -> i64 {
        let moment = *self.moment.get_or_insert_with(SystemTime::now);
        let since = moment.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
    }

    /// The simple protocol: statements, one after the other. An error says where its statement begins.
    async fn simple(&mut self, text: &str) -> Result<Result<(), (PgError, usize)>, ConnectionEnd> {
        let statements = sql_gate::split(text);
        if statements.is_empty() {
            self.wire.push(Out::EmptyQueryResponse(EmptyQueryResponse::new()));
        }
        for (start, sql) in statements {
            let statement = Arc::new(Prepared::new(sql.to_owned(), Vec::new()));
            let portal = Portal::new(statement, Vec::new(), Vec::new());
            self.portals.insert(String::new(), portal);
            let outcome = match self.describe_portal_if_rows("").await? {
                Ok(()) => self.run_portal("", u64::MAX).await?,
                Err(error) => Err(error),
            };
            if let Err(error) = outcome {
                return Ok(Err((error, start)));
            }
        }
        Ok(Ok(()))
    }

    async fn describe_portal(
        &mut self,
        name: &str,
    ) -> Result<Result<(), (PgError, String)>, ConnectionEnd> {
        let Some(portal) = self.portals.get(name) else {
            return Ok(Err((no_such("portal", name, "34000"), String::new())));
        };
        if !portal.head.is_empty() {
            let head = portal.head.clone();
            self.wire.push_bytes(&head).await?;
            return Ok(Ok(()));
        }
        let statement = Arc::clone(&portal.statement);
        if gives_rows(&statement.command) {
            let outcome = self.describe_portal_if_rows(name).await?;
            return Ok(outcome.map_err(|error| (error, statement.sql.clone())));
        }
        self.wire.push(Out::NoData(NoData::new()));
        Ok(Ok(()))
    }

    /// Sends the description of a portal's rows, if it gives any. The statement runs from here on.
    async fn describe_portal_if_rows(
        &mut self,
        name: &str,
    ) -> Result<Result<(), PgError>, ConnectionEnd> {
        let Some(portal) = self.portals.get(name) else {
            return Ok(Err(no_such("portal", name, "34000")));
        };
        match portal.statement.command.clone() {
            SessionCommand::Show(name) => self.wire.push(one_text(&name)),
            SessionCommand::Fetch(_, cursor) => return self.push_head(&cursor).await,
            SessionCommand::Query => return self.push_head(name).await,
            _ => {}
        }
        Ok(Ok(()))
    }

    async fn push_head(&mut self, name: &str) -> Result<Result<(), PgError>, ConnectionEnd> {
        if let Err(error) = self.open(name).await? {
            return Ok(Err(error));
        }
        let head = self.portals.get(name).map(|portal| portal.head.clone());
        self.wire.push_bytes(&head.unwrap_or_default()).await?;
        Ok(Ok(()))
    }

    /// Runs a portal's statement, unless it runs already.
    async fn open(&mut self, name: &str) -> Result<Result<(), PgError>, ConnectionEnd> {
        if self.transaction == TransactionStatus::Error {
            return Ok(Err(PgError::new("25P02", "the transaction has failed; end it first")));
        }
        let snapshot = match self.snapshot() {
            Ok(snapshot) => snapshot,
            Err(error) => return Ok(Err(error)),
        };
        let moment = self.moment();
        let Some(portal) = self.portals.get_mut(name) else {
            return Ok(Err(no_such("cursor", name, "34000")));
        };
        if portal.rows.is_some() || portal.ended {
            return Ok(Ok(()));
        }
        let statement = Arc::clone(&portal.statement);
        let start =
            if let SessionCommand::Declare(_, start) = statement.command { start } else { 0 };
        let (parameters, binary) = (portal.parameters.clone(), portal.binary.clone());
        let client = self.client.clone();
        let rows = async {
            let parameters = Parameters::Positional(parameters);
            let sql = (&statement.sql[start..], moment);
            let answer = client.ask(&snapshot, sql, parameters, binary).await?;
            let rows = PgRows::of(answer, &client).await?;
            // A client that was told what comes reads it so.
            if let Some(Described { columns, oids, .. }) = statement.described.get()
                && rows.types()
                    != columns
                        .iter()
                        .map(|c| postgres::sent_as(&c.ty, *oids).oid)
                        .collect::<Vec<_>>()
            {
                return Err(PgError::new("0A000", "cached plan must not change result type"));
            }
            Ok(rows)
        };
        let rows: Result<PgRows, PgError> = self.wire.unless_gone(rows).await?;
        match rows {
            Ok(rows) => {
                portal.head = rows.head.clone();
                portal.rows = Some(rows);
                Ok(Ok(()))
            }
            Err(mut error) => {
                error.position = error.position.map(|at| at + start);
                Ok(Err(error))
            }
        }
    }

    async fn execute(
        &mut self,
        execute: Execute,
    ) -> Result<Result<(), (PgError, String)>, ConnectionEnd> {
        let name = execute.name.unwrap_or_default();
        let most = u64::try_from(execute.max_rows).ok().filter(|most| *most > 0);
        let outcome = self.run_portal(&name, most.unwrap_or(u64::MAX)).await?;
        let sql = self.portals.get(&name).map(|portal| portal.statement.sql.clone());
        Ok(outcome.map_err(|error| (error, sql.unwrap_or_default())))
    }

    async fn run_portal(
        &mut self,
        name: &str,
        most: u64,
    ) -> Result<Result<(), PgError>, ConnectionEnd> {
        let Some(portal) = self.portals.get(name) else {
            return Ok(Err(no_such("portal", name, "34000")));
        };
        let command = portal.statement.command.clone();
        let failed = self.transaction == TransactionStatus::Error;
        if failed && !matches!(command, SessionCommand::Commit | SessionCommand::Rollback) {
            return Ok(Err(PgError::new("25P02", "the transaction has failed; end it first")));
        }
        let tag = match &command {
            SessionCommand::Query => return self.send_rows(name, most, "SELECT").await,
            SessionCommand::Fetch(count, cursor) => {
                return self.send_rows(cursor, *count, "FETCH").await;
            }
            SessionCommand::Empty => {
                self.wire.push(Out::EmptyQueryResponse(EmptyQueryResponse::new()));
                return Ok(Ok(()));
            }
            SessionCommand::Begin => {
                self.transaction = TransactionStatus::Transaction;
                self.moment();
                command::tag(&command)
            }
            SessionCommand::Commit | SessionCommand::Rollback => {
                self.transaction = TransactionStatus::Idle;
                (self.snapshot, self.moment) = (None, None);
                if failed { "ROLLBACK" } else { command::tag(&command) }
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
                    return Ok(Err(PgError::new("42704", message)));
                }
            },
            SessionCommand::Close(Some(cursor)) => match self.portals.remove(cursor) {
                Some(_) => "CLOSE CURSOR",
                None => return Ok(Err(no_such("cursor", cursor, "34000"))),
            },
            SessionCommand::Close(None) => {
                self.portals.retain(|_, portal| {
                    !matches!(portal.statement.command, SessionCommand::Declare(..))
                });
                "CLOSE CURSOR ALL"
            }
            SessionCommand::Deallocate(Some(name)) => match self.statements.remove(name) {
                Some(_) => "DEALLOCATE",
                None => return Ok(Err(no_such("prepared statement", name, "26000"))),
            },
            SessionCommand::Deallocate(None) => {
                self.statements.clear();
                "DEALLOCATE ALL"
            }
            SessionCommand::Declare(cursor, _) => {
                if self.transaction == TransactionStatus::Idle {
                    return Ok(Err(PgError::new(
                        "25P01",
                        "a cursor needs a transaction: BEGIN first",
                    )));
                }
                let Some(portal) = self.portals.remove(name) else {
                    return Ok(Err(no_such("portal", name, "34000")));
                };
                let cursor = cursor.clone();
                let portal = Portal { binary: Vec::new(), ..portal };
                self.portals.insert(cursor.clone(), portal);
                if let Err(error) = self.open(&cursor).await? {
                    return Ok(Err(error));
                }
                "DECLARE CURSOR"
            }
            SessionCommand::Nothing(tag) => tag,
        };
        self.complete(tag.to_owned());
        Ok(Ok(()))
    }

    fn complete(&mut self, tag: String) {
        self.wire.push(Out::CommandComplete(CommandComplete::new(tag)));
    }

    fn set(&mut self, name: &str, value: &str) {
        // What changes an answer here is not a session's to change; clients set the rest out of habit.
        if matches!(name, "application_name" | "extra_float_digits" | "statement_timeout") {
            self.settings.insert(name.to_owned(), value.to_owned());
        }
        if name == "application_name" {
            let status = ParameterStatus::new(name.to_owned(), value.to_owned());
            self.wire.push(Out::ParameterStatus(status));
        }
    }

    /// Sends rows of a portal; what is left waits until it is asked for.
    async fn send_rows(
        &mut self,
        name: &str,
        most: u64,
        tag: &str,
    ) -> Result<Result<(), PgError>, ConnectionEnd> {
        if let Err(error) = self.open(name).await? {
            return Ok(Err(error));
        }
        let Some(portal) = self.portals.get_mut(name) else {
            return Ok(Err(no_such("portal", name, "34000")));
        };
        let mut count = 0;
        while count < most {
            let Some(rows) = &mut portal.rows else { break };
            match self.wire.unless_gone(rows.next(most - count, &self.client)).await? {
                Ok(Some((bytes, rows))) => {
                    count += rows;
                    self.wire.push_bytes(&bytes).await?;
                }
                Ok(None) => {
                    portal.rows = None;
                    portal.ended = true;
                }
                Err(error) => {
                    portal.rows = None;
                    portal.ended = true;
                    return Ok(Err(error));
                }
            }
        }
        if let Some(rows) = &mut portal.rows {
            if let Err(error) = rows.suspend(&self.room, &self.client) {
                return Ok(Err(error));
            }
            if tag == "SELECT" {
                self.wire.push(Out::PortalSuspended(PortalSuspended::new()));
                return Ok(Ok(()));
            }
        }
        self.complete(format!("{tag} {count}"));
        Ok(Ok(()))
    }
}

fn gives_rows(command: &SessionCommand) -> bool {
    matches!(command, SessionCommand::Query | SessionCommand::Show(_) | SessionCommand::Fetch(..))
}

pub(super) fn no_such(what: &str, name: &str, state: &'static str) -> PgError {
    PgError::new(state, format!("there is no {what} {name:?}"))
}

/// The description of one column of text.
pub(super) fn one_text(name: &str) -> Out {
    let field = FieldDescription::new(name.to_owned(), 0, 0, TEXT, -1, -1, 0);
    Out::RowDescription(RowDescription::new(vec![field]))
}
