//! A DuckDB file in the place of Parquet marts: attached read-only, and a view over each of its
//! tables.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::read_rows;
use crate::duck::{Connection, Database, DuckError};
use crate::duck::{quote_identifier, quote_literal};
use crate::verify::Report;

/// A table or view of a legacy file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LegacyTable {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// What reading it found; or why it cannot be read, for a view that asks for what is not there.
    pub outcome: Result<Report, String>,
}

/// What is in a legacy file, read as the verifying child does: the tables and views of these
/// schemas. A name that several of them have is the first one's.
///
/// # Errors
/// Why the file cannot be served: DuckDB's reason, or that nothing in it has one of the schemas.
pub fn read_legacy(
    path: &Path,
    catalog: &str,
    schemas: &[String],
    every_value: bool,
) -> Result<Vec<LegacyTable>, String> {
    let read = || -> Result<Vec<LegacyTable>, DuckError> {
        let database = Database::open_in_memory(&[
            ("threads", "1".to_owned()),
            ("autoinstall_known_extensions", "false".to_owned()),
            ("autoload_known_extensions", "false".to_owned()),
            ("temp_directory", String::new()),
        ])?;
        let connection = database.connect()?;
        attach(&connection, path, catalog)?;
        let mut tables: Vec<LegacyTable> = Vec::new();
        for schema in schemas {
            for (schema, name, is_view) in list(&connection, catalog, schema)? {
                if tables.iter().any(|known| known.name.eq_ignore_ascii_case(&name)) {
                    continue;
                }
                let source = source(catalog, &schema, &name);
                let outcome = match read_rows(&connection, &source, every_value) {
                    Ok(report) => Ok(report),
                    Err(error) if is_view => Err(error.to_string()),
                    Err(error) => return Err(error),
                };
                tables.push(LegacyTable { schema, name, outcome });
            }
        }
        Ok(tables)
    };
    let shown = path.display().to_string();
    let tables = read().map_err(|error| error.to_string().replace(&shown, "the file"))?;
    if !tables.iter().any(|table| table.outcome.is_ok()) {
        return Err(format!(
            "has no table in the schemas {}; name its schema in MARTD_SCHEMAS",
            schemas.join(", ")
        ));
    }
    Ok(tables)
}

/// The name under which a file is attached. Views in it know each other by the one that DuckDB gave
/// it when they were made: the file's stem. One that would hide a schema or is DuckDB's own is not
/// possible.
pub fn catalog_name(path: &Path, schemas: &[String]) -> String {
    let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    let taken = ["", "memory", "system", "temp", "main"];
    let is_taken = |name: &str| {
        taken.iter().any(|taken| taken.eq_ignore_ascii_case(name))
            || schemas.iter().any(|schema| schema.eq_ignore_ascii_case(name))
    };
    let mut name = stem.to_owned();
    while is_taken(&name) {
        name.push_str("_legacy");
    }
    name
}

/// Attaches a file, which nobody can write through this database.
pub(super) fn attach(connection: &Connection, path: &Path, catalog: &str) -> Result<(), DuckError> {
    connection.execute(&format!(
        "ATTACH {} AS {} (READ_ONLY)",
        quote_literal(&path.display().to_string()),
        quote_identifier(catalog)
    ))
}

/// A table of an attached file, as SQL names it.
pub(super) fn source(catalog: &str, schema: &str, name: &str) -> String {
    [catalog, schema, name].map(quote_identifier).join(".")
}

/// Schema and name of what a schema has, and whether it is a view.
fn list(
    connection: &Connection,
    catalog: &str,
    schema: &str,
) -> Result<Vec<(String, String, bool)>, DuckError> {
    let mut statement = connection.prepare(&format!(
        "SELECT table_schema, table_name, (table_type = 'VIEW')::UTINYINT FROM information_schema.tables
         WHERE table_catalog = {} AND lower(table_schema) = lower({}) ORDER BY table_name",
        quote_literal(catalog),
        quote_literal(schema)
    ))?;
    let mut rows = statement.execute()?;
    let mut found = Vec::new();
    while let Some(chunk) = rows.next_chunk()? {
        let text = |column: usize, row: usize| {
            String::from_utf8_lossy(chunk.column(column).bytes(row)).into_owned()
        };
        let is_view = chunk.column(2);
        found.extend(
            (0..chunk.rows())
                .map(|row| (text(0, row), text(1, row), is_view.values::<u8>()[row] == 1)),
        );
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_attached_by_its_stem_unless_that_means_something_else() {
        let schemas = ["mart".to_owned(), "main_mart".to_owned()];
        let name = |path: &str| catalog_name(Path::new(path), &schemas);
        assert_eq!(name("/data/analytics.duckdb"), "analytics");
        assert_eq!(name("/data/dev.2024.duckdb"), "dev.2024");
        assert_eq!(name("/data/Mart.duckdb"), "Mart_legacy");
        assert_eq!(name("/data/memory.db"), "memory_legacy");
    }
}
