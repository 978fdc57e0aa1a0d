//! The walk over what stands in FROM.

use serde_json::Value;

use super::calls::FUNCTION_FIELDS;
use super::expressions::{EXPRESSION_FIELDS, MAX_EXPRESSION_DEPTH, constant};
use super::lexer::{MAX_NESTING, too_deep};
use super::tree::{Node, fields, list, object, one_of};
use super::walk::{Complexity, Walk};
use super::{Rejection, TableName, functions, introspection, postgres};

/// Columns of one PIVOT: its values multiplied.
const MAX_PIVOT_COLUMNS: u64 = 5_000;

const TABLE_FIELDS: &str = "
    type alias sample query_location
";

impl Walk {
    pub(super) fn table_ref(&mut self, value: &Value) -> Result<Complexity, Rejection> {
        self.count();
        self.expressions += 1;
        if self.expressions > MAX_EXPRESSION_DEPTH {
            reject!(None, "the FROM clause is nested too deep");
        }
        let node = object(value, "table")?;
        self.sample(node.required("sample")?)?;
        let complexity = match node.text("type")? {
            "EMPTY" => {
                node.only(TABLE_FIELDS)?;
                Ok(Complexity::default())
            }
            "BASE_TABLE" => self.base_table(node),
            "SUBQUERY" => {
                node.only_with(TABLE_FIELDS, "subquery column_name_alias")?;
                self.subquery(node.required("subquery")?, node.position())
            }
            "JOIN" => self.join(node),
            "TABLE_FUNCTION" => self.table_function(node),
            "EXPRESSION_LIST" => {
                node.only_with(TABLE_FIELDS, "expected_names expected_types values")?;
                let mut complexity = Complexity::TABLE;
                for row in node.array("values")? {
                    complexity += self.expressions(list(row, "VALUES")?)?;
                }
                Ok(complexity)
            }
            "SHOW_REF" => self.show(node),
            "PIVOT" => self.pivot(node),
            other => Err(Rejection::unknown(other)),
        };
        self.expressions -= 1;
        complexity
    }

    pub(super) fn base_table(&mut self, node: Node<'_>) -> Result<Complexity, Rejection> {
        node.only_with(
            TABLE_FIELDS,
            "schema_name table_name column_name_alias catalog_name at_clause",
        )?;
        if !node.required("at_clause")?.is_null() {
            reject!(
                node.position(),
                "AT (VERSION or TIMESTAMP) is not supported; a request reads one snapshot, named by \
                 the header Martd-Snapshot"
            );
        }
        let schema = node.text("schema_name")?;
        let table = TableName {
            schema: (!schema.is_empty()).then(|| schema.to_owned()),
            name: node.text("table_name")?.to_owned(),
            position: node.position(),
        };
        if !node.text("catalog_name")?.is_empty() {
            return Err(not_a_mart(&table, "tables of other databases are not served"));
        }
        if let Some(complexity) = self.cte(&table) {
            return Ok(complexity + Complexity::ONE);
        }
        if self.asks_catalog {
            return match table.schema.as_deref() == Some("main") && postgres::is_table(&table.name)
            {
                true => Ok(Complexity::TABLE),
                false => Err(unknown_in_catalog(&table.name)),
            };
        }
        if is_system(&table) && !introspection::is_standard(&table) {
            return Err(not_a_mart(&table, "the system catalog is not served"));
        }
        if !self.tables.iter().any(|known| known.same(&table)) {
            self.tables.push(table);
        }
        Ok(Complexity::TABLE)
    }

    pub(super) fn cte(&self, table: &TableName) -> Option<Complexity> {
        let name = table.name.to_ascii_lowercase();
        let recurring = match table.schema.as_deref() {
            None => false,
            Some(schema) if schema.eq_ignore_ascii_case("recurring") => true,
            Some(_) => return None,
        };
        let cte = self.ctes.iter().rev().find(|cte| cte.name == name)?;
        (!recurring || cte.keyed).then_some(cte.complexity)
    }

    pub(super) fn subquery(
        &mut self,
        value: &Value,
        position: Option<usize>,
    ) -> Result<Complexity, Rejection> {
        let statement = fields(value, "subquery", "node named_param_map")?;
        self.nested(position, |walk| walk.query(statement.required("node")?))
    }

    pub(super) fn nested(
        &mut self,
        position: Option<usize>,
        inner: impl FnOnce(&mut Self) -> Result<Complexity, Rejection>,
    ) -> Result<Complexity, Rejection> {
        self.nesting += 1;
        if self.nesting > MAX_NESTING {
            return Err(too_deep(position));
        }
        let complexity = inner(self)?;
        self.nesting -= 1;
        Ok(complexity)
    }

    pub(super) fn join(&mut self, node: Node<'_>) -> Result<Complexity, Rejection> {
        node.only_with(
            TABLE_FIELDS,
            "left right condition join_type ref_type using_columns delim_flipped \
                duplicate_eliminated_columns",
        )?;
        one_of(node.text("join_type")?, "LEFT RIGHT INNER FULL SEMI ANTI")?;
        let kind = one_of(node.text("ref_type")?, "REGULAR NATURAL CROSS POSITIONAL ASOF")?;
        // DuckDB 1.5.6 moves the parts of some ASOF plans into their first execution: the second one
        // dereferences NULL, an INTERNAL error. Which plans depends on keys and row counts.
        self.runs_once |= kind == "ASOF";
        if !node.array("duplicate_eliminated_columns")?.is_empty() {
            return Err(Rejection::unknown("a join with duplicate_eliminated_columns"));
        }
        let left = self.table_ref(node.required("left")?)?;
        let right = self.table_ref(node.required("right")?)?;
        let equalities = node.array("using_columns")?.len() as u64;
        let using = Complexity { equalities, ..Complexity::default() };
        Ok(left + right + self.condition(node, "condition")? + using)
    }

    pub(super) fn table_function(&mut self, node: Node<'_>) -> Result<Complexity, Rejection> {
        node.only_with(TABLE_FIELDS, "function column_name_alias with_ordinality")?;
        self.count();
        let call = object(node.required("function")?, "table function")?;
        if call.text("class")? != "FUNCTION" {
            return Err(Rejection::unknown("a table function that is not a call"));
        }
        call.only_with(EXPRESSION_FIELDS, FUNCTION_FIELDS)?;
        let name = call.text("function_name")?;
        self.review(functions::table(&name.to_ascii_lowercase()), name, call.position())?;
        Ok(self.call(call)? + Complexity::TABLE)
    }

    /// DESCRIBE and SUMMARIZE of a query or a table, and SHOW TABLES.
    pub(super) fn show(&mut self, node: Node<'_>) -> Result<Complexity, Rejection> {
        node.only_with(TABLE_FIELDS, "table_name query show_type catalog_name schema_name")?;
        let query = node.required("query")?;
        let of_query = matches!(node.text("show_type")?, "DESCRIBE" | "SUMMARY")
            && !query.is_null()
            && node.text("table_name")?.is_empty();
        if node.text("table_name")? == "\"tables\"" && node.text("show_type")? == "SHOW_UNQUALIFIED"
        {
            return Ok(Complexity::TABLE); // the search path is that of the snapshot
        }
        if !of_query {
            reject!(
                node.position(),
                "of SHOW and DESCRIBE without a table, SHOW TABLES alone is served; \
                 information_schema.columns has the columns of all marts"
            );
        }
        self.nested(node.position(), |walk| Ok(walk.query(query)?.planned_apart()))
    }

    pub(super) fn pivot(&mut self, node: Node<'_>) -> Result<Complexity, Rejection> {
        node.only_with(
            TABLE_FIELDS,
            "source aggregates unpivot_names pivots groups column_name_alias \
                include_nulls",
        )?;
        let mut complexity =
            self.nested(node.position(), |walk| walk.table_ref(node.required("source")?))?;
        let mut columns = 1u64;
        for pivot in node.array("pivots")? {
            let pivot =
                fields(pivot, "PIVOT", "pivot_expressions unpivot_names entries pivot_enum")?;
            if !pivot.text("pivot_enum")?.is_empty() {
                reject!(
                    node.position(),
                    "PIVOT over an enum type is not supported; list the values"
                );
            }
            complexity += self.parts(pivot, "pivot_expressions")?;
            let entries = pivot.array("entries")?;
            columns = columns.saturating_mul(entries.len().max(1) as u64);
            for entry in entries {
                let entry = fields(entry, "PIVOT value", "values star_expr alias")?;
                for value in entry.array("values")? {
                    constant(value)?;
                }
                complexity += self.optional(entry, "star_expr")?;
            }
        }
        let aggregates = node.array("aggregates")?;
        if columns.saturating_mul(aggregates.len().max(1) as u64) > MAX_PIVOT_COLUMNS {
            reject!(node.position(), "PIVOT makes more than {MAX_PIVOT_COLUMNS} columns");
        }
        let aggregates = self.expressions(aggregates)?;
        let copied = Complexity { nodes: aggregates.nodes.saturating_mul(columns), ..aggregates };
        Ok((complexity + copied).planned_apart())
    }
}

/// DuckDB's own views, which it finds without a schema, and under `main`. A mart of such a name is
/// served under its schema. A test compares the list with what DuckDB has.
const SYSTEM_VIEWS: &str = "
    duckdb_columns duckdb_constraints duckdb_databases duckdb_indexes duckdb_logs duckdb_schemas
    duckdb_tables duckdb_types duckdb_views pg_am pg_attrdef pg_attribute pg_class pg_collation
    pg_constraint pg_database pg_depend pg_description pg_enum pg_index pg_indexes pg_namespace
    pg_prepared_statements pg_proc pg_sequence pg_sequences pg_settings pg_tables pg_tablespace
    pg_type pg_views pragma_database_list sqlite_master sqlite_schema sqlite_temp_master
    sqlite_temp_schema
";

/// Whether a schema is DuckDB's own, in whatever case: no mart can be named by it.
pub(crate) fn is_system_schema(name: &str) -> bool {
    const OWN: [&str; 4] = ["information_schema", "pg_catalog", "system", "temp"];
    OWN.iter().any(|own| own.eq_ignore_ascii_case(name))
}

/// Whether a name can only be DuckDB's own catalog, or could be taken for it.
fn is_system(table: &TableName) -> bool {
    let schema = table.schema.as_deref().unwrap_or_default();
    let name = table.name.to_ascii_lowercase();
    match schema.to_ascii_lowercase().as_str() {
        _ if is_system_schema(schema) => true,
        "" | "main" | "memory" => SYSTEM_VIEWS.split_whitespace().any(|view| view == name),
        _ => false,
    }
}

fn unknown_in_catalog(table: &str) -> Rejection {
    let standard = table.strip_prefix("is_").map(|name| format!("information_schema.{name}"));
    let name = standard.as_deref().unwrap_or(table);
    Rejection::Catalog(format!("the catalog has no table {name}"))
}

fn not_a_mart(table: &TableName, why: &str) -> Rejection {
    let name = &table.name;
    let message = format!("\"{name}\" is not a mart: {why}; GET /v1/snapshot lists the marts");
    Rejection::statement(message, table.position)
}

/// What to say of a name that is not in the snapshot and looks like a file, to complete the
/// sentence `"x" is not a mart: …`.
///
/// A mart may be named like a file (`sales.csv`, `a*b`), so this rejects nothing: it is for the
/// message of the caller, who knows the marts and has not found this one.
pub fn looks_like_a_file(table: &TableName) -> Option<&'static str> {
    const EXTENSIONS: &[&str] = &[
        ".parquet", ".csv", ".tsv", ".txt", ".json", ".jsonl", ".ndjson", ".duckdb", ".db", ".ddb",
        ".sqlite", ".sqlite3", ".arrow", ".arrows", ".feather", ".ipc", ".avro", ".orc", ".xlsx",
        ".shp", ".vortex", ".gz", ".gzip", ".zst", ".zstd", ".bz2", ".xz", ".lz4", ".snappy",
        ".zip",
    ];
    let name = table.name.to_ascii_lowercase();
    let path = name.contains(['/', '\\', '*', '?']);
    let file = path || EXTENSIONS.iter().any(|extension| name.ends_with(extension));
    file.then_some("files are not read by name")
}
