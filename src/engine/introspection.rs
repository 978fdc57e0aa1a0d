//! What a statement can learn of a snapshot: `information_schema`, `SHOW TABLES`, and what the database is
//! called.
//!
//! All of it stands in the snapshot's own catalog, so it shows the marts of that snapshot which its reader
//! may see, and nothing else. A view over DuckDB's catalog takes the rows of its own first: no expression
//! of a client's is evaluated on others.

use std::fmt::Write as _;

use super::database::Attached;
use super::protocol::TableSpec;
use crate::duck::quote_literal;
use crate::sql_gate::{INTROSPECTION_SCHEMA, INTROSPECTION_TABLES};

/// What clients are told that the database is called.
pub(super) const DATABASE: &str = "martd";

/// The statements that make it, for the marts that have a view in `schema`.
pub(super) fn statements<'t>(
    views: &Attached,
    schema: &str,
    marts: impl Iterator<Item = &'t TableSpec>,
) -> String {
    let own = views.schema(INTROSPECTION_SCHEMA);
    let [tables, columns] = INTROSPECTION_TABLES;
    let of_schema = format!(
        "database_name = {} AND schema_name = {}",
        quote_literal(views.catalog()),
        quote_literal(schema)
    );
    // COMMENT ON takes eight times as long, and this is made anew with each snapshot.
    let mut sql = format!(
        "CREATE SCHEMA {own};
         CREATE TABLE {own}.meanings (mart VARCHAR, column_name VARCHAR, meaning VARCHAR);"
    );
    let meanings: Vec<String> = marts.flat_map(meanings).collect();
    if !meanings.is_empty() {
        let _ = write!(sql, "INSERT INTO {own}.meanings VALUES {};", meanings.join(","));
    }
    let _ = write!(
        sql,
        "CREATE VIEW {own}.{tables} AS WITH own AS MATERIALIZED (
             SELECT '{DATABASE}' AS table_catalog, schema_name AS table_schema, view_name AS table_name,
                 'BASE TABLE' AS table_type, 'NO' AS is_insertable_into, m.meaning AS TABLE_COMMENT
             FROM duckdb_views() v LEFT JOIN {own}.meanings m
                 ON m.mart = v.view_name AND m.column_name IS NULL
             WHERE {of_schema}) FROM own;
         CREATE VIEW {own}.{columns} AS WITH own AS MATERIALIZED (
             SELECT '{DATABASE}' AS table_catalog, schema_name AS table_schema, table_name, c.column_name,
                 column_index AS ordinal_position, NULL::VARCHAR AS column_default,
                 'YES' AS is_nullable, data_type, numeric_precision, numeric_scale,
                 m.meaning AS COLUMN_COMMENT
             FROM duckdb_columns() c LEFT JOIN {own}.meanings m
                 ON m.mart = c.table_name AND m.column_name = c.column_name
             WHERE {of_schema}) FROM own;"
    );
    // A schema that is searched before DuckDB's own has these names for this catalog.
    for (function, value) in
        [("current_schema", schema), ("current_database", DATABASE), ("current_catalog", DATABASE)]
    {
        let (schema, value) = (views.schema(schema), quote_literal(value));
        let _ = write!(sql, "CREATE MACRO {schema}.{function}() AS {value};");
    }
    sql
}

/// What is said of a mart and of its columns, as rows of VALUES.
fn meanings(mart: &TableSpec) -> Vec<String> {
    let row = |column: &str, meaning: &str| {
        format!("({}, {column}, {})", quote_literal(&mart.name), quote_literal(meaning))
    };
    let of_mart = (!mart.description.is_empty()).then(|| row("NULL", &mart.description));
    let of_columns = mart.meanings.iter();
    let of_columns = of_columns.map(|(column, meaning)| row(&quote_literal(column), meaning));
    of_mart.into_iter().chain(of_columns).collect()
}
