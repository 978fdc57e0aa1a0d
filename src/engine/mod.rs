//! DuckDB: one instance per snapshot, one connection per request.
//!
//! An instance is opened off the request path, reads nothing but the pins of its snapshot, and dies
//! with it. A client's text meets [`crate::sql_gate`] first; what passes runs on a connection of the snapshot's instance.

mod database;
mod instance;
mod legacy;
mod newest;
mod prepared;
mod query;

use rustix::process::Resource;

pub use instance::{Instance, Scope, Scoping, Settings, Table};
pub use legacy::{LegacyTable, catalog_name, read_legacy};
pub use query::{Answer, Interrupter, Parameters, QueryError, Session};

use crate::duck::{self, DuckError, ErrorKind, quote_literal};
use crate::verify::{Report, ReportColumn};

/// Memory for the stacks of the threads that DuckDB starts for one database, in bytes: one fewer than
/// a statement may have, for the caller's is the first.
pub fn stack_bytes(threads: usize) -> u64 {
    /// The C library's, where the limit of stacks is not one.
    const UNLIMITED: u64 = 2 << 20;
    let one = rustix::process::getrlimit(Resource::Stack).current.unwrap_or(UNLIMITED);
    (threads as u64).saturating_sub(1).saturating_mul(one)
}

/// Reads Parquet files as the verifying child does.
#[derive(Debug)]
pub struct Decoder {
    connection: duck::Connection,
}

impl Decoder {
    /// Opens a database to read with, which costs more than reading a small file.
    ///
    /// # Errors
    /// When DuckDB cannot be had.
    pub fn new() -> Result<Self, DuckError> {
        let database = duck::Database::open_in_memory(&[
            ("threads", "1".to_owned()),
            ("autoinstall_known_extensions", "false".to_owned()),
            ("autoload_known_extensions", "false".to_owned()),
            ("temp_directory", String::new()),
        ])?;
        Ok(Self { connection: database.connect()? })
    }

    /// Reads every value, or only the schema (and the one row of a file that has one, to know
    /// dbt-duckdb's empty model).
    ///
    /// # Errors
    /// DuckDB's reason why the file does not decode.
    pub fn decode(&self, path: &str, every_value: bool) -> Result<Report, String> {
        self.read(path, every_value).map_err(|error| error.to_string().replace(path, "the file"))
    }

    fn read(&self, path: &str, every_value: bool) -> Result<Report, DuckError> {
        let file = format!("read_parquet({})", quote_literal(path));
        let claimed = count_rows(&self.connection, &file)?;
        check_columns(&self.connection, path)?;
        let (mut report, nulls_alone) =
            read_columns(&self.connection, &file, claimed, every_value || claimed == 1)?;
        report.empty_model = claimed == 1 && nulls_alone;
        report.rows = if report.empty_model { 0 } else { claimed };
        Ok(report)
    }
}

/// Reads a table that is what it says: every value, or only the columns and the number of rows.
fn read_rows(
    connection: &duck::Connection,
    table: &str,
    every_value: bool,
) -> Result<Report, DuckError> {
    let claimed = count_rows(connection, table)?;
    read_columns(connection, table, claimed, every_value).map(|(report, _)| report)
}

fn count_rows(connection: &duck::Connection, table: &str) -> Result<u64, DuckError> {
    let mut count = connection.prepare(&format!("SELECT count(*) FROM {table}"))?;
    let chunk = count.execute()?.next_chunk()?;
    Ok(chunk.map_or(0, |chunk| chunk.column(0).values::<i64>()[0] as u64))
}

/// The columns of a table, and with `every_value` whether its last row has NULLs alone.
fn read_columns(
    connection: &duck::Connection,
    table: &str,
    claimed: u64,
    every_value: bool,
) -> Result<(Report, bool), DuckError> {
    let rows_wanted = if every_value { "" } else { " LIMIT 0" };
    let mut statement = connection.prepare(&format!("FROM {table}{rows_wanted}"))?;
    let mut rows = statement.execute()?;
    let columns = rows.columns().to_vec();
    let mut nulls_alone = false;
    if every_value {
        let mut decoded = 0;
        while let Some(chunk) = rows.next_chunk()? {
            decoded += chunk.rows() as u64;
            let last = chunk.rows() - 1;
            nulls_alone = (0..columns.len()).all(|index| chunk.column(index).is_null(last));
        }
        if decoded != claimed {
            return Err(content_error(format!("holds {decoded} rows, but claims {claimed}")));
        }
    }
    let columns = columns
        .into_iter()
        .map(|column| ReportColumn { ty: column.ty.to_string(), name: column.name })
        .collect();
    Ok((Report { rows: claimed, columns, empty_model: false }, nulls_alone))
}

/// A footer names each column and its type twice: in the schema, which DuckDB goes by, and beside each
/// chunk of its values. When the two differ, one of them is damaged.
fn check_columns(connection: &duck::Connection, path: &str) -> Result<(), DuckError> {
    let path = quote_literal(path);
    let mut statement = connection.prepare(&format!(
        "SELECT count(*) FROM parquet_metadata({path}) AS chunk JOIN (
             SELECT name, type, row_number() OVER () - 1 AS column_id
             FROM parquet_schema({path}) WHERE coalesce(num_children, 0) = 0
         ) AS leaf USING (column_id)
         WHERE chunk.type <> leaf.type OR NOT ends_with(chunk.path_in_schema, leaf.name)"
    ))?;
    let mut rows = statement.execute()?;
    match rows.next_chunk()?.map(|chunk| chunk.column(0).values::<i64>()[0]) {
        Some(0) | None => Ok(()),
        Some(count) => Err(content_error(format!(
            "names {count} columns otherwise in its schema than beside them"
        ))),
    }
}

/// What martd itself finds wrong with a file.
fn content_error(message: String) -> DuckError {
    DuckError::new(ErrorKind::Statement, message)
}
