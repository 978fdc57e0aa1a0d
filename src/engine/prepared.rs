//! Connections of an instance's pool, and the statements that they keep prepared.

use std::collections::VecDeque;

use super::instance::{ALL_ROWS_VARIABLE, Instance, SCOPE_VARIABLE, Scope};
use super::query::{QueryError, resolve};
use crate::duck::Value;
use crate::duck::{Connection, DuckError, Statement};
use crate::sql_gate::ValidatedStatement;

/// Statements that a connection keeps prepared.
const PREPARED_PER_CONNECTION: usize = 16;

/// A connection of an instance's pool, and what it has at hand.
#[derive(Debug)]
pub(super) struct Pooled {
    pub(super) connection: Connection,
    /// The scope that its variables hold.
    scope: Option<Scope>,
    /// Prepared statements, the last used at the end.
    prepared: VecDeque<Prepared>,
}

/// A statement that is kept. A plan may hold the value of a scope, so it is kept for the scope that it
/// was prepared under.
#[derive(Debug)]
pub(super) struct Prepared {
    sql: Box<str>,
    scope: Scope,
    pub(super) statement: Statement,
}

impl Instance {
    /// The marts that a statement reads, all of which may be read.
    pub(super) fn tables_of(&self, checked: &ValidatedStatement) -> Result<Vec<usize>, QueryError> {
        let tables = checked.tables.iter().map(|name| resolve(self, name));
        let tables = tables.collect::<Result<Vec<usize>, _>>()?;
        for &table in &tables {
            self.is_readable(table)
                .map_err(|message| QueryError::NotAllowed { message, position: None })?;
        }
        Ok(tables)
    }

    /// A statement over these marts, kept by the connection or prepared anew.
    pub(super) fn prepare(
        &self,
        pooled: &mut Pooled,
        sql: &str,
        tables: &[usize],
        scope: &Scope,
    ) -> Result<Prepared, DuckError> {
        for &table in tables {
            self.ensure_view(&pooled.connection, table)?;
        }
        pooled.enter(scope)?;
        if let Some(kept) = pooled.take(sql, scope) {
            return Ok(kept);
        }
        let statement = pooled.connection.prepare(sql)?;
        Ok(Prepared { sql: sql.into(), scope: scope.clone(), statement })
    }
}

impl Pooled {
    pub(super) fn new(connection: Connection) -> Self {
        Self { connection, scope: None, prepared: VecDeque::new() }
    }

    /// Makes the connection see the rows of a scope. The value is bound, never pasted.
    fn enter(&mut self, scope: &Scope) -> Result<(), DuckError> {
        if self.scope.as_ref() == Some(scope) {
            return Ok(());
        }
        self.scope = None;
        let (value, all_rows) = match scope {
            Scope::AllRows => (Value::Null, true),
            Scope::Value(value) => (Value::Varchar(value.clone()), false),
        };
        for (name, value) in
            [(SCOPE_VARIABLE, value), (ALL_ROWS_VARIABLE, Value::Boolean(all_rows))]
        {
            let mut set = self.connection.prepare(&format!("SET VARIABLE {name} = ?"))?;
            set.bind(1, &value)?;
            set.execute()?;
        }
        self.scope = Some(scope.clone());
        Ok(())
    }

    /// Takes a prepared statement out of what is kept.
    fn take(&mut self, sql: &str, scope: &Scope) -> Option<Prepared> {
        let is_it = |kept: &Prepared| *kept.sql == *sql && kept.scope == *scope;
        let index = self.prepared.iter().position(is_it)?;
        self.prepared.remove(index)
    }

    pub(super) fn keep(&mut self, statement: Prepared) {
        if self.prepared.len() == PREPARED_PER_CONNECTION {
            self.prepared.pop_front();
        }
        self.prepared.push_back(statement);
    }
}
