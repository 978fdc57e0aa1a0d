//! What answers the statements of one snapshot.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use super::database::LockedDatabase;
use super::prepared::Pooled;
use super::query::{QueryError, Session};
use crate::duck::quote_identifier;
use crate::duck::{Connection, DuckError};
use crate::marts::build::{self, BuiltTable, ReportColumn};

/// What every instance is opened with.
#[derive(Debug, Clone)]
pub struct Settings {
    /// DuckDB's memory limit for one instance, in bytes.
    pub memory_bytes: u64,
    /// Processors that statements may take together.
    pub threads: usize,
    /// Where DuckDB may spill to; nowhere when absent.
    pub temp_dir: Option<PathBuf>,
    /// The session time zone.
    pub time_zone: String,
    /// The schemas under which every mart can be named.
    pub schemas: Vec<String>,
    /// How rows are scoped, if they are.
    pub scoping: Option<Scoping>,
}

/// `MARTD_SCOPE_COLUMN` and `MARTD_UNSCOPED`: which rows a request may see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scoping {
    /// The column whose value decides, for example `user_id`.
    pub column: String,
    /// Marts without that column that anyone may read as a whole.
    pub unscoped: Vec<String>,
}

/// The rows that one request sees.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Scope {
    /// All, where scoping is on or off.
    AllRows,
    /// Those whose scope column has this value. A value that is none of the column's type has no
    /// rows.
    Value(String),
}

/// The variables that the views of scoped marts look at. A client's statement can neither set nor
/// read them; unset, a view has no rows.
pub(super) const SCOPE_VARIABLE: &str = "martd_scope";
pub(super) const ALL_ROWS_VARIABLE: &str = "martd_all_rows";

/// A mart as an instance serves it.
#[derive(Debug, Clone)]
pub struct Table {
    /// The mart's name.
    pub name: String,
    /// A schema under which this mart alone can be named as well; in a legacy file, where it is.
    pub schema: Option<String>,
    /// Its rows.
    pub table: Arc<BuiltTable>,
    /// Its columns.
    pub columns: Vec<ReportColumn>,
    /// How many rows it has.
    pub rows: u64,
    /// Whether to serve it without rows whatever the file holds (dbt-duckdb's empty model).
    pub empty: bool,
}

/// What answers the statements of one snapshot: its marts, as its database reads them.
pub struct Instance {
    // Fields drop in this order: no connection may outlive the tables that it reads.
    idle: Mutex<Vec<Pooled>>,
    locked: LockedDatabase,
    tables: Vec<Table>,
    settings: Settings,
}

impl fmt::Debug for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Instance").field("tables", &self.tables.len()).finish_non_exhaustive()
    }
}

impl Instance {
    /// Opens a database over these tables and locks it down.
    ///
    /// # Errors
    /// DuckDB's message, for example for an unknown time zone.
    pub fn open(settings: &Settings, tables: Vec<Table>) -> Result<Arc<Self>, DuckError> {
        let (locked, connection) = LockedDatabase::open(settings, &tables)?;
        let idle = Mutex::new(vec![Pooled::new(connection)]);
        Ok(Arc::new(Self { idle, locked, tables, settings: settings.clone() }))
    }

    /// Opens another database over the same tables.
    ///
    /// # Errors
    /// As [`Instance::open`].
    pub fn reopen(&self) -> Result<Arc<Self>, DuckError> {
        Self::open(&self.settings, self.tables.clone())
    }

    /// Takes a connection for one request.
    ///
    /// # Errors
    /// When DuckDB has no connection to give.
    pub fn session(self: &Arc<Self>) -> Result<Session, QueryError> {
        Ok(Session::new(Arc::clone(self), self.connection()?))
    }

    pub(super) fn connection(&self) -> Result<Pooled, QueryError> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        match idle {
            Some(connection) => Ok(connection),
            None => match self.locked.database.connect() {
                Ok(connection) => Ok(Pooled::new(connection)),
                Err(error) => Err(QueryError::Internal(error.to_string())),
            },
        }
    }

    /// Whether DuckDB has failed in a way after which it answers nothing. Another instance would.
    pub fn is_broken(&self) -> bool {
        self.locked.is_broken()
    }

    pub(super) fn note(&self, error: &DuckError) {
        self.locked.note(error);
    }

    /// Whether this instance serves exactly these tables.
    pub fn serves(&self, tables: &[Table]) -> bool {
        !self.is_broken()
            && self.tables.len() == tables.len()
            && self.tables.iter().zip(tables).all(|(own, other)| {
                Arc::ptr_eq(&own.table, &other.table)
                    && own.name == other.name
                    && own.schema == other.schema
                    && own.empty == other.empty
            })
    }

    pub(super) fn give_back(&self, connection: Pooled) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
    }

    /// The table that a schema and a name mean.
    pub(super) fn table(&self, schema: &str, name: &str) -> Option<usize> {
        self.locked.names.get(&(schema.to_ascii_lowercase(), name.to_ascii_lowercase())).copied()
    }

    /// The name of the mart that somebody who wrote `name` may have meant.
    pub(super) fn similar(&self, name: &str) -> Option<String> {
        let schema = self.settings.schemas.first()?;
        let wanted = name.to_ascii_lowercase();
        let table = self.tables.iter().find(|table| table.name.to_ascii_lowercase() == wanted)?;
        Some(format!("{schema}.{}", table.name))
    }

    pub(super) fn tables(&self) -> &[Table] {
        &self.tables
    }

    /// The one number that a statement of martd's own answers.
    pub(super) fn number(&self, sql: &str) -> Result<Option<i64>, DuckError> {
        let mut statement = self.locked.database.connect()?.prepare(sql)?;
        let chunk = statement.execute()?.next_chunk()?;
        Ok(chunk.and_then(|chunk| {
            let column = chunk.column(0);
            (!column.is_null(0)).then(|| column.values::<i64>()[0])
        }))
    }

    /// A table as SQL names it.
    pub(super) fn source(&self, number: usize) -> String {
        format!("t{}.main.{}", self.locked.attached[number], build::TABLE)
    }

    /// Whether a table can be read under scoping: it has the column, or is listed as unscoped.
    pub(super) fn is_readable(&self, index: usize) -> Result<(), String> {
        let table = &self.tables[index];
        let Some(scoping) = &self.settings.scoping else { return Ok(()) };
        if scoping.covers(&table.name) || scoping.column_of(table).is_some() {
            return Ok(());
        }
        Err(format!(
            "mart {} has no column {}, so its rows cannot be told apart; list it in \
             MARTD_UNSCOPED if anyone may read it",
            table.name, scoping.column
        ))
    }

    /// The column by which the rows of a table are told apart, where they are.
    pub(super) fn scope_column<'t>(&self, table: &'t Table) -> Option<&'t ReportColumn> {
        self.settings.scoping.as_ref()?.column_of(table)
    }

    /// Which of a table's rows its view shows. What a variable holds is a constant to DuckDB, so
    /// this becomes a filter on the file, and costs nothing.
    fn condition(&self, table: &Table) -> String {
        if table.empty {
            return " WHERE false".to_owned();
        }
        let Some(column) = self.scope_column(table) else { return String::new() };
        format!(
            " WHERE {} = TRY_CAST(getvariable('{SCOPE_VARIABLE}') AS {}) \
             OR getvariable('{ALL_ROWS_VARIABLE}') IS NOT DISTINCT FROM true",
            quote_identifier(&column.name),
            column.ty,
        )
    }

    /// Makes the views of a table, unless they exist.
    pub(super) fn ensure_view(
        &self,
        connection: &Connection,
        index: usize,
    ) -> Result<(), DuckError> {
        let mut viewed = self.locked.viewed.lock().unwrap_or_else(PoisonError::into_inner);
        if viewed.contains(&index) {
            return Ok(());
        }
        let table = &self.tables[index];
        let condition = self.condition(table);
        let source = self.source(index);
        for schema in self.settings.schemas.iter().chain(&table.schema) {
            connection.execute(&format!(
                "CREATE VIEW IF NOT EXISTS {}.{} AS FROM {source}{condition}",
                quote_identifier(schema),
                quote_identifier(&table.name),
            ))?;
        }
        viewed.insert(index);
        Ok(())
    }
}

impl Scoping {
    fn covers(&self, table: &str) -> bool {
        self.unscoped.iter().any(|name| name.eq_ignore_ascii_case(table))
    }

    fn column_of<'t>(&self, table: &'t Table) -> Option<&'t ReportColumn> {
        table.columns.iter().find(|column| column.name.eq_ignore_ascii_case(&self.column))
    }
}
