//! What a statement can learn of a snapshot: `information_schema`, `SHOW TABLES`, and what the database is
//! called.
//!
//! All of it stands in the snapshot's own catalog, so it shows the marts of that snapshot which its reader
//! may see, and nothing else. A view over DuckDB's catalog takes the rows of its own first: no expression
//! of a client's is evaluated on others.

use std::fmt::Write as _;

use super::database::Attached;
use super::protocol::TableSpec;
use crate::duck::{quote_identifier, quote_literal};
use crate::sql_gate::{INTROSPECTION_SCHEMA, INTROSPECTION_TABLES};

/// What clients are told that the database is called.
const DATABASE: &str = "martd";

/// The statements that make it, for the marts that have a view in `schema`.
pub(super) fn statements<'t>(
    views: &Attached,
    schema: &str,
    marts: impl Iterator<Item = &'t TableSpec>,
) -> String {
    let mut sql = String::new();
    for TableSpec { name, description, meanings, .. } in marts {
        let view = format!("{}.{}", views.schema(schema), quote_identifier(name));
        if !description.is_empty() {
            let _ = write!(sql, "COMMENT ON VIEW {view} IS {};", quote_literal(description));
        }
        for (column, meaning) in meanings {
            let (column, meaning) = (quote_identifier(column), quote_literal(meaning));
            let _ = write!(sql, "COMMENT ON COLUMN {view}.{column} IS {meaning};");
        }
    }
    let own = views.schema(INTROSPECTION_SCHEMA);
    let [tables, columns] = INTROSPECTION_TABLES;
    let of_schema = format!(
        "database_name = {} AND schema_name = {}",
        quote_literal(views.catalog()),
        quote_literal(schema)
    );
    let _ = write!(
        sql,
        "CREATE SCHEMA {own};
         CREATE VIEW {own}.{tables} AS WITH own AS MATERIALIZED (
             SELECT '{DATABASE}' AS table_catalog, schema_name AS table_schema, view_name AS table_name,
                 'BASE TABLE' AS table_type, 'NO' AS is_insertable_into, comment AS TABLE_COMMENT
             FROM duckdb_views() WHERE {of_schema}) FROM own;
         CREATE VIEW {own}.{columns} AS WITH own AS MATERIALIZED (
             SELECT '{DATABASE}' AS table_catalog, schema_name AS table_schema, table_name, column_name,
                 column_index AS ordinal_position, NULL::VARCHAR AS column_default,
                 'YES' AS is_nullable, data_type, numeric_precision, numeric_scale,
                 comment AS COLUMN_COMMENT
             FROM duckdb_columns() WHERE {of_schema}) FROM own;"
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
