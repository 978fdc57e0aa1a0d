//! The walk over what stands in FROM.

use serde_json::Value;

use super::calls::FUNCTION_FIELDS;
use super::expressions::{EXPRESSION_FIELDS, MAX_EXPRESSION_DEPTH, constant};
use super::shape::{MAX_NESTING, too_deep};
use super::tree::{Node, fields, list, object, one_of};
use super::walk::{Cost, Walk};
use super::{Refusal, TableName, functions};

/// Columns of one PIVOT: its values multiplied.
const MAX_PIVOT_COLUMNS: u64 = 5_000;

const TABLE_FIELDS: &str = "
    type alias sample query_location
";

impl Walk {
    pub(super) fn table_ref(&mut self, value: &Value) -> Result<Cost, Refusal> {
        self.count();
        self.expressions += 1;
        if self.expressions > MAX_EXPRESSION_DEPTH {
            return Err(Refusal::statement("the FROM clause is nested too deep", None));
        }
        let node = object(value, "table")?;
        self.sample(node.required("sample")?)?;
        let cost = match node.text("type")? {
            "EMPTY" => {
                node.only(TABLE_FIELDS)?;
                Ok(Cost::default())
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
                let mut cost = Cost::TABLE;
                for row in node.array("values")? {
                    cost = cost.and(self.expressions(list(row, "VALUES")?)?);
                }
                Ok(cost)
            }
            "SHOW_REF" => self.show(node),
            "PIVOT" => self.pivot(node),
            other => Err(Refusal::unknown(other)),
        };
        self.expressions -= 1;
        cost
    }

    pub(super) fn base_table(&mut self, node: Node<'_>) -> Result<Cost, Refusal> {
        node.only_with(
            TABLE_FIELDS,
            "schema_name table_name column_name_alias catalog_name at_clause",
        )?;
        if !node.required("at_clause")?.is_null() {
            return Err(Refusal::statement(
                "AT (VERSION or TIMESTAMP) is not supported; a request reads one snapshot, named by \
                 the header Martd-Snapshot",
                node.position(),
            ));
        }
        let name = |field| Ok((!node.text(field)?.is_empty()).then(|| node.text(field)));
        let part = |field| name(field)?.transpose().map(|part| part.map(str::to_owned));
        let table = TableName {
            catalog: part("catalog_name")?,
            schema: part("schema_name")?,
            name: node.text("table_name")?.to_owned(),
            position: node.position(),
        };
        if let Some(cost) = self.cte(&table) {
            return Ok(cost.and(Cost::ONE));
        }
        servable(&table)?;
        if !self.tables.iter().any(|known| known.same(&table)) {
            self.tables.push(table);
        }
        Ok(Cost::TABLE)
    }

    pub(super) fn cte(&self, table: &TableName) -> Option<Cost> {
        let name = table.name.to_ascii_lowercase();
        let recurring = match (table.catalog.as_deref(), table.schema.as_deref()) {
            (None, None) => false,
            (None, Some(schema)) if schema.eq_ignore_ascii_case("recurring") => true,
            _ => return None,
        };
        let cte = self.ctes.iter().rev().find(|cte| cte.name == name)?;
        (!recurring || cte.keyed).then_some(cte.cost)
    }

    pub(super) fn subquery(
        &mut self,
        value: &Value,
        position: Option<usize>,
    ) -> Result<Cost, Refusal> {
        let statement = fields(value, "subquery", "node named_param_map")?;
        self.nested(position, |walk| walk.query(statement.required("node")?))
    }

    pub(super) fn nested(
        &mut self,
        position: Option<usize>,
        inner: impl FnOnce(&mut Self) -> Result<Cost, Refusal>,
    ) -> Result<Cost, Refusal> {
        self.nesting += 1;
        if self.nesting > MAX_NESTING {
            return Err(too_deep(position));
        }
        let cost = inner(self)?;
        self.nesting -= 1;
        Ok(cost)
    }

    pub(super) fn join(&mut self, node: Node<'_>) -> Result<Cost, Refusal> {
        node.only_with(
            TABLE_FIELDS,
            "left right condition join_type ref_type using_columns delim_flipped \
                duplicate_eliminated_columns",
        )?;
        one_of(node.text("join_type")?, "LEFT RIGHT INNER FULL SEMI ANTI")?;
        one_of(node.text("ref_type")?, "REGULAR NATURAL CROSS POSITIONAL ASOF")?;
        self.asof |= node.text("ref_type")? == "ASOF";
        if !node.array("duplicate_eliminated_columns")?.is_empty() {
            return Err(Refusal::unknown("a join with duplicate_eliminated_columns"));
        }
        let left = self.table_ref(node.required("left")?)?;
        let right = self.table_ref(node.required("right")?)?;
        let condition = self.condition(node.required("condition")?)?;
        let using = node.array("using_columns")?.len() as u64;
        let using = Cost { equalities: using, ..Cost::default() };
        Ok(left.and(right).and(condition).and(using))
    }

    pub(super) fn table_function(&mut self, node: Node<'_>) -> Result<Cost, Refusal> {
        node.only_with(TABLE_FIELDS, "function column_name_alias with_ordinality")?;
        self.count();
        let call = object(node.required("function")?, "table function")?;
        if call.text("class")? != "FUNCTION" {
            return Err(Refusal::unknown("a table function that is no call"));
        }
        call.only_with(EXPRESSION_FIELDS, FUNCTION_FIELDS)?;
        let name = call.text("function_name")?;
        self.review(functions::table(&name.to_ascii_lowercase()), name, call.position())?;
        Ok(self.call(call)?.and(Cost::TABLE))
    }

    /// DESCRIBE and SUMMARIZE of a query or a table. Without one they list the catalog.
    pub(super) fn show(&mut self, node: Node<'_>) -> Result<Cost, Refusal> {
        node.only_with(TABLE_FIELDS, "table_name query show_type catalog_name schema_name")?;
        let query = node.required("query")?;
        let of_query = matches!(node.text("show_type")?, "DESCRIBE" | "SUMMARY")
            && !query.is_null()
            && node.text("table_name")?.is_empty();
        if !of_query {
            return Err(Refusal::statement(
                "SHOW and DESCRIBE without a table list the catalog, which is not served as SQL; \
                 GET /v1/snapshot lists the marts",
                node.position(),
            ));
        }
        self.nested(node.position(), |walk| Ok(walk.query(query)?.barrier()))
    }

    pub(super) fn pivot(&mut self, node: Node<'_>) -> Result<Cost, Refusal> {
        node.only_with(
            TABLE_FIELDS,
            "source aggregates unpivot_names pivots groups column_name_alias \
                include_nulls",
        )?;
        let mut cost =
            self.nested(node.position(), |walk| walk.table_ref(node.required("source")?))?;
        let mut columns = 1u64;
        for pivot in node.array("pivots")? {
            let pivot =
                fields(pivot, "PIVOT", "pivot_expressions unpivot_names entries pivot_enum")?;
            if !pivot.text("pivot_enum")?.is_empty() {
                return Err(Refusal::statement(
                    "PIVOT over an enum type is not supported; list the values",
                    node.position(),
                ));
            }
            cost = cost.and(self.expressions(pivot.array("pivot_expressions")?)?);
            let entries = pivot.array("entries")?;
            columns = columns.saturating_mul(entries.len().max(1) as u64);
            for entry in entries {
                let entry = fields(entry, "PIVOT value", "values star_expr alias")?;
                for value in entry.array("values")? {
                    constant(value)?;
                }
                cost = cost.and(self.optional(entry.required("star_expr")?)?);
            }
        }
        let aggregates = node.array("aggregates")?;
        if columns.saturating_mul(aggregates.len().max(1) as u64) > MAX_PIVOT_COLUMNS {
            return Err(Refusal::statement(
                format!("PIVOT makes more than {MAX_PIVOT_COLUMNS} columns"),
                node.position(),
            ));
        }
        let aggregates = self.expressions(aggregates)?;
        let copied = Cost { nodes: aggregates.nodes.saturating_mul(columns), ..aggregates };
        Ok(cost.and(copied).barrier())
    }
}

/// Refuses names that can only be DuckDB's catalog or a file. Which others exist is the snapshot's
/// to say.
fn servable(table: &TableName) -> Result<(), Refusal> {
    const FILES: &[&str] = &[
        ".parquet", ".csv", ".tsv", ".txt", ".json", ".jsonl", ".ndjson", ".duckdb", ".db", ".ddb",
        ".sqlite", ".sqlite3", ".arrow", ".arrows", ".feather", ".ipc", ".avro", ".orc", ".xlsx",
        ".shp", ".vortex", ".gz", ".gzip", ".zst", ".zstd", ".bz2", ".xz", ".lz4", ".snappy",
        ".zip",
    ];
    const SYSTEM: &[&str] = &["duckdb_", "sqlite_", "pragma_", "pg_"];
    let refuse = |why: &str| {
        let name = &table.name;
        let message = format!("\"{name}\" is not a mart: {why}; GET /v1/snapshot lists the marts");
        Err(Refusal::statement(message, table.position))
    };
    let lower = |part: &Option<String>| part.as_deref().unwrap_or_default().to_ascii_lowercase();
    let (catalog, schema) = (lower(&table.catalog), lower(&table.schema));
    let name = table.name.to_ascii_lowercase();
    if !matches!(catalog.as_str(), "" | "memory") {
        return refuse("tables of other databases are not served");
    }
    if matches!(schema.as_str(), "information_schema" | "pg_catalog" | "system" | "temp") {
        return refuse("the system catalog is not served");
    }
    if matches!(schema.as_str(), "" | "main" | "memory")
        && SYSTEM.iter().any(|prefix| name.starts_with(prefix))
    {
        return refuse("the system catalog is not served");
    }
    let path = name.contains(['/', '\\', '*', '?']) || name.contains("://");
    if path || FILES.iter().any(|extension| name.ends_with(extension)) {
        return refuse("files are not read by name");
    }
    Ok(())
}
