//! Statements that are prepared and bound: the extended protocol's first half.

use std::sync::Arc;

use bytes::Bytes;
use pgwire::messages::PgWireBackendMessage as Out;
use pgwire::messages::data::{NoData, ParameterDescription};
use pgwire::messages::extendedquery::{Bind, BindComplete, Parse, ParseComplete};

use super::command::SessionCommand;
use super::error::{PgError, PgFailure};
use super::portal::{Described, Parameter, Portal, Prepared};
use super::session::{PgSession, no_such, one_text};
use super::types::{self, TEXT, UNKNOWN};
use crate::encode::postgres::{self, Form};
use crate::sql_gate::{self, Asks};

/// Statements and portals of a connection.
const MOST_NAMES: usize = 1_000;

impl PgSession {
    pub(super) fn parse(&mut self, parse: Parse) -> Result<(), PgError> {
        let Parse { name, query, mut type_oids, .. } = parse;
        // What is of type unknown has none.
        type_oids.iter_mut().filter(|oid| **oid == UNKNOWN).for_each(|oid| *oid = 0);
        let name = name.unwrap_or_default();
        if sql_gate::split(&query).len() > 1 {
            let message = "a prepared statement is one; send several as a simple query";
            return Err(PgError::new("42601", message));
        }
        if self.statements.len() >= MOST_NAMES {
            return Err(PgError::new("53400", "too many prepared statements"));
        }
        if !name.is_empty() && self.statements.contains_key(&name) {
            let message = format!("there is a prepared statement {name:?} already");
            return Err(PgError::new("42P05", message));
        }
        self.statements.insert(name, Arc::new(Prepared::new(query, type_oids)));
        self.wire.push(Out::ParseComplete(ParseComplete::new()));
        Ok(())
    }

    pub(super) async fn bind(&mut self, bind: Bind) -> Result<(), PgFailure> {
        let name = bind.statement_name.unwrap_or_default();
        let Some(statement) = self.statements.get(&name).cloned() else {
            return Err(no_such("prepared statement", &name, "26000").into());
        };
        let (formats, count) = (bind.parameter_format_codes, bind.parameters.len());
        let results = bind.result_column_format_codes;
        if let Some(code) = formats.iter().chain(&results).find(|code| !matches!(code, 0 | 1)) {
            let message = format!("there is no format {code}: text is 0, binary 1");
            return Err(PgError::new("08P01", message).into());
        }
        if formats.len() > 1 && formats.len() != count {
            let message = format!("{} formats for {count} parameters", formats.len());
            return Err(PgError::new("08P01", message).into());
        }
        let binary = |index: usize| match formats[..] {
            [all] => all == 1,
            _ => formats.get(index) == Some(&1),
        };
        let declared = |index: usize| statement.declared.get(index).copied().unwrap_or(0);
        // Of what is binary the type must be known, and of a text that may be an array.
        let is_array = |index: usize, bytes: Option<&Bytes>| {
            let text = bytes.map(|bytes| bytes.trim_ascii()).unwrap_or_default();
            !binary(index) && types::is_text(declared(index)) && text.starts_with(b"{")
        };
        let is_open = |(index, bytes): (usize, &Option<Bytes>)| {
            declared(index) == 0 && binary(index) || is_array(index, bytes.as_ref())
        };
        if bind.parameters.iter().enumerate().any(is_open) {
            self.described(&statement).await?;
        }
        let known = statement.described.get();
        let mut parameters = Vec::with_capacity(count);
        for (index, bytes) in bind.parameters.into_iter().enumerate() {
            let said = known.and_then(|known| known.parameters.get(index));
            let array = said.filter(|_| is_array(index, bytes.as_ref()));
            let (oid, ty) = match (declared(index), said, array.and_then(|said| said.found.clone()))
            {
                (_, _, Some((oid, ty))) if types::is_list(oid) => (oid, ty),
                (0, Some(said), _) => (said.oid, said.ty.clone()),
                (oid, ..) => (oid, types::type_name(oid)),
            };
            parameters.push(types::value(oid, ty.as_ref(), binary(index), bytes)?);
        }
        let portal = bind.portal_name.unwrap_or_default();
        if self.portals.len() >= MOST_NAMES {
            return Err(PgError::new("53400", "too many portals").into());
        }
        let binary = results.iter().map(|code| *code == 1).collect();
        self.portals.insert(portal, Portal::new(statement, parameters, binary));
        self.wire.push(Out::BindComplete(BindComplete::new()));
        Ok(())
    }

    /// Has the engine describe a statement, once.
    async fn described(&mut self, statement: &Arc<Prepared>) -> Result<(), PgFailure> {
        let Some(start) = statement.query_start() else { return Ok(()) };
        if statement.described.initialized() {
            return Ok(());
        }
        let snapshot = self.snapshot()?;
        let types = statement.declared.iter().map(|oid| types::type_name(*oid)).collect();
        let (client, sql) = (self.client.clone(), &statement.sql[start..]);
        let description = self.wire.unless_gone(client.describe(&snapshot, sql, types)).await?;
        let description =
            description.map_err(|failure| PgError::from(failure).within(&statement.sql, start))?;
        let oids = description.asks == Asks::Catalog;
        let parameters = description.parameters.into_iter().enumerate().map(|(index, ty)| {
            let found =
                ty.map(|ty| (postgres::sent_as(&ty, oids).oid, ty.to_string().parse().ok()));
            let (oid, ty) = match (statement.declared.get(index).copied().unwrap_or(0), &found) {
                (0, Some(found)) => found.clone(),
                (0, None) => (TEXT, None),
                (oid, _) => (oid, types::type_name(oid)),
            };
            Parameter { oid, ty, found }
        });
        let parameters = parameters.collect();
        let described = Described { parameters, columns: description.columns, oids };
        let _ = statement.described.set(described); // nobody else does
        Ok(())
    }

    pub(super) async fn describe_statement(&mut self, name: &str) -> Result<(), PgFailure> {
        let Some(statement) = self.statements.get(name).cloned() else {
            return Err(no_such("prepared statement", name, "26000").into());
        };
        self.described(&statement).await?;
        let described = statement.described.get();
        let parameters = described.map_or(&[][..], |described| &described.parameters);
        let oids = parameters.iter().map(|parameter| parameter.oid).collect();
        self.wire.push(Out::ParameterDescription(ParameterDescription::new(oids)));
        match (&statement.command, described) {
            (SessionCommand::Query, Some(Described { columns, oids, .. })) => {
                let form = Form { binary: &[], oids: *oids };
                let mut head = Vec::new();
                postgres::describe(&mut head, columns, form)
                    .map_err(|error| PgError::new("0A000", error.to_string()))?;
                self.wire.push_bytes(&head).await?;
            }
            (SessionCommand::Show(name), _) => self.wire.push(one_text(name)),
            _ => self.wire.push(Out::NoData(NoData::new())),
        }
        Ok(())
    }
}
