//! What a client has prepared, and what it has bound and may fetch bit by bit.

use std::sync::Arc;

use bytes::Bytes;
use pgwire::messages::PgWireBackendMessage as Out;
use pgwire::messages::data::NoData;
use pgwire::messages::extendedquery::PortalSuspended;
use pgwire::messages::response::TransactionStatus;

use super::command::{self, SessionCommand};
use super::error::{PgError, PgFailure};
use super::rows::PgRows;
use super::session::{PgSession, no_such, one_text};
use crate::duck::{ResultColumn, TypeName, Value};
use crate::encode::postgres;
use crate::engine::Parameters;

/// A statement that was parsed.
pub(super) struct Prepared {
    pub(super) sql: String,
    pub(super) command: SessionCommand,
    pub(super) declared: Vec<u32>,
    pub(super) described: tokio::sync::OnceCell<Described>,
}

/// What a statement was said to be.
pub(super) struct Described {
    pub(super) parameters: Vec<Parameter>,
    pub(super) columns: Vec<ResultColumn>,
    /// Whether its larger integers are numbers of the catalog's objects.
    pub(super) oids: bool,
}

pub(super) struct Parameter {
    pub(super) oid: u32,
    pub(super) ty: Option<TypeName>,
    /// What the statement makes of it, whatever the client has declared.
    pub(super) found: Option<(u32, Option<TypeName>)>,
}

/// A statement with its values, and its rows once they are asked for.
pub(super) struct Portal {
    pub(super) statement: Arc<Prepared>,
    pub(super) parameters: Vec<Value>,
    pub(super) binary: Vec<bool>,
    pub(super) rows: Option<PgRows>,
    /// The description of its rows, which a client is told again with each `FETCH`.
    pub(super) head: Bytes,
    pub(super) ended: bool,
    /// How many savepoints there were when it was made.
    pub(super) depth: usize,
}

impl Prepared {
    pub(super) fn new(sql: String, declared: Vec<u32>) -> Self {
        let command = command::of(sql.trim_end().trim_end_matches(';'));
        Self { sql, command, declared, described: tokio::sync::OnceCell::new() }
    }

    /// The byte at which its query begins, if it has one.
    pub(super) fn query_start(&self) -> Option<usize> {
        match self.command {
            SessionCommand::Query => Some(0),
            SessionCommand::Declare(_, start, _) => Some(start),
            _ => None,
        }
    }
}

impl Portal {
    pub(super) fn new(statement: Arc<Prepared>, parameters: Vec<Value>, binary: Vec<bool>) -> Self {
        Self {
            statement,
            parameters,
            binary,
            rows: None,
            head: Bytes::new(),
            ended: false,
            depth: 0,
        }
    }
}

impl PgSession {
    pub(super) async fn describe_portal(&mut self, name: &str) -> Result<(), PgFailure> {
        let Some(portal) = self.portals.get(name) else {
            return Err(no_such("portal", name, "34000").into());
        };
        if !portal.head.is_empty() {
            let head = portal.head.clone();
            self.wire.push_bytes(&head).await?;
            return Ok(());
        }
        if gives_rows(&portal.statement.command) {
            return self.describe_portal_if_rows(name).await;
        }
        self.wire.push(Out::NoData(NoData::new()));
        Ok(())
    }

    /// Sends the description of a portal's rows, if it gives any. The statement runs from here on.
    pub(super) async fn describe_portal_if_rows(&mut self, name: &str) -> Result<(), PgFailure> {
        let Some(portal) = self.portals.get(name) else {
            return Err(no_such("portal", name, "34000").into());
        };
        match portal.statement.command.clone() {
            SessionCommand::Show(name) => self.wire.push(one_text(&name)),
            SessionCommand::Fetch(_, cursor) => return self.push_head(&cursor).await,
            SessionCommand::Query => return self.push_head(name).await,
            _ => {}
        }
        Ok(())
    }

    async fn push_head(&mut self, name: &str) -> Result<(), PgFailure> {
        self.open(name).await?;
        let head = self.portals.get(name).map(|portal| portal.head.clone());
        self.wire.push_bytes(&head.unwrap_or_default()).await?;
        Ok(())
    }

    /// Runs a portal's statement, unless it runs already.
    pub(super) async fn open(&mut self, name: &str) -> Result<(), PgFailure> {
        if self.transaction == TransactionStatus::Error {
            return Err(PgError::new("25P02", "the transaction has failed; end it first").into());
        }
        let snapshot = self.snapshot()?;
        let moment = self.moment();
        let Some(portal) = self.portals.get_mut(name) else {
            return Err(no_such("cursor", name, "34000").into());
        };
        if portal.rows.is_some() || portal.ended {
            return Ok(());
        }
        let statement = Arc::clone(&portal.statement);
        let start = statement.query_start().unwrap_or(0);
        let (parameters, binary) = (portal.parameters.clone(), portal.binary.clone());
        let binary_codes = binary.len();
        let client = self.client.clone();
        let rows = async {
            let parameters = Parameters::Positional(parameters);
            let sql = (&statement.sql[start..], moment);
            let answer = client.ask(&snapshot, sql, parameters, binary).await?;
            let rows = PgRows::of(answer, &client).await?;
            let types = rows.types();
            if binary_codes > 1 && binary_codes != types.len() {
                let message = format!("{binary_codes} formats for {} columns", types.len());
                return Err(PgError::new("08P01", message));
            }
            // A client that was told what comes reads it so.
            if let Some(Described { columns, oids, .. }) = statement.described.get()
                && types
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
        let rows = rows.map_err(|error| error.within(&statement.sql, start))?;
        portal.head = rows.head.clone();
        portal.rows = Some(rows);
        Ok(())
    }

    /// Sends rows of a portal; what is left waits until it is asked for.
    pub(super) async fn send_rows(
        &mut self,
        name: &str,
        most: u64,
        tag: &str,
    ) -> Result<(), PgFailure> {
        self.open(name).await?;
        let Some(portal) = self.portals.get_mut(name) else {
            return Err(no_such("portal", name, "34000").into());
        };
        let mut count = 0;
        while count < most {
            let Some(rows) = &mut portal.rows else { break };
            match self.wire.unless_gone(rows.next(most - count, &self.client)).await? {
                Ok(Some((bytes, rows))) => {
                    count += rows;
                    if tag != "MOVE" {
                        self.wire.push_bytes(&bytes).await?;
                    }
                }
                ended => {
                    portal.rows = None;
                    portal.ended = true;
                    let Prepared { sql, .. } = &*portal.statement;
                    let start = portal.statement.query_start().unwrap_or(0);
                    ended.map_err(|error| error.within(sql, start))?;
                }
            }
        }
        if let Some(rows) = &mut portal.rows {
            rows.suspend(&self.room, &self.client)?;
            if tag == "SELECT" {
                self.wire.push(Out::PortalSuspended(PortalSuspended::new()));
                return Ok(());
            }
        }
        self.complete(format!("{tag} {count}"));
        Ok(())
    }
}

fn gives_rows(command: &SessionCommand) -> bool {
    matches!(command, SessionCommand::Query | SessionCommand::Show(_) | SessionCommand::Fetch(..))
}
