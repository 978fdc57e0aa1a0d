//! Which rows a request may see.
//!
//! A scoped mart is a view whose predicate is `column = constant`, in the column's own type, so that it
//! stands among the filters of the table's scan: no expression of a client's is evaluated on a row of
//! somebody else's, for an error text would tell of it. Where DuckDB does not push it there, the view is
//! a materialized CTE, which has the same effect.

use serde::{Deserialize, Serialize};

use super::protocol::TableSpec;
use crate::duck::quote_identifier;
use crate::marts::build::ReportColumn;

/// `MARTD_SCOPE_COLUMN` and `MARTD_UNSCOPED`: which rows a request may see.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scoping {
    /// The column whose value decides, for example `user_id`.
    pub column: String,
    /// Marts without that column that anyone may read as a whole.
    pub unscoped: Vec<String>,
}

/// The rows that one request sees.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Scope {
    /// All, where scoping is on or off.
    AllRows,
    /// Those whose scope column has this value. A value that is none of the column's type has no
    /// rows.
    Value(String),
}

/// The variable that the views of scoped marts look at. A client's statement can neither set nor read
/// it; unset, a view has no rows. To DuckDB's planner its value is a constant.
pub(super) const SCOPE_VARIABLE: &str = "martd_scope";

/// Beside [`INTEGERS`] and decimals: types whose `column = constant` DuckDB applies in the scan of a table.
/// A test asks DuckDB itself.
const PUSHED: [&str; 9] = [
    "FLOAT",
    "DOUBLE",
    "VARCHAR",
    "BOOLEAN",
    "DATE",
    "TIME",
    "TIMESTAMP",
    "UUID",
    "TIMESTAMP WITH TIME ZONE",
];

/// Types whose values are written with digits alone.
const INTEGERS: [&str; 10] = [
    "TINYINT",
    "SMALLINT",
    "INTEGER",
    "BIGINT",
    "HUGEINT",
    "UTINYINT",
    "USMALLINT",
    "UINTEGER",
    "UBIGINT",
    "UHUGEINT",
];

impl Scoping {
    fn is_unscoped(&self, mart: &str) -> bool {
        self.unscoped.iter().any(|name| name.eq_ignore_ascii_case(mart))
    }

    /// The column that decides, where a mart has it.
    pub(super) fn column_of<'t>(&self, table: &'t TableSpec) -> Option<&'t ReportColumn> {
        table.columns.iter().find(|column| column.name.eq_ignore_ascii_case(&self.column))
    }

    /// Whether anyone may read a mart as a whole.
    pub fn is_open(&self, mart: &str, columns: &[ReportColumn]) -> bool {
        let is_scoped = columns.iter().any(|column| column.name.eq_ignore_ascii_case(&self.column));
        self.is_unscoped(mart) && !is_scoped
    }

    /// Whether a mart can be read: it has the column, or is listed as unscoped.
    ///
    /// # Errors
    /// Why not, for the client.
    pub(super) fn check(&self, table: &TableSpec) -> Result<(), String> {
        if self.is_unscoped(&table.name) || self.column_of(table).is_some() {
            return Ok(());
        }
        Err(format!(
            "mart {} has no column {}, so its rows cannot be told apart; list it in \
             MARTD_UNSCOPED if anyone may read it",
            table.name, self.column
        ))
    }
}

/// The query of a view that shows the rows of `source` in which a column has the value of the scope.
pub(super) fn scoped(source: &str, column: &ReportColumn) -> String {
    let mut value = format!("getvariable('{SCOPE_VARIABLE}')");
    if INTEGERS.contains(&column.ty.as_str()) {
        // DuckDB would take 3.2, ' 3' and 0x3 for 3, which whoever compares texts does not.
        value = format!("regexp_extract({value}::VARCHAR, '^-?[0-9]+$')");
    }
    let rows = format!(
        "FROM {source} WHERE {} = TRY_CAST({value} AS {})",
        quote_identifier(&column.name),
        column.ty,
    );
    if is_pushed(&column.ty) { rows } else { format!("WITH m AS MATERIALIZED ({rows}) FROM m") }
}

fn is_pushed(ty: &str) -> bool {
    INTEGERS.contains(&ty) || PUSHED.contains(&ty) || ty.starts_with("DECIMAL(")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::duck::{Connection, Database};

    /// A table with a column `s` of a type, and a connection whose scope is `value`.
    fn connect(ty: &str, value: &str) -> Connection {
        let connection = Database::open_in_memory(&[]).unwrap().connect().unwrap();
        connection
            .execute(&format!(
                "CREATE TABLE t AS SELECT '{value}'::{ty} AS s, range AS n FROM range(5000);
                 INSERT INTO t SELECT NULL, 1; SET VARIABLE {SCOPE_VARIABLE} = '{value}';"
            ))
            .unwrap();
        let column = ReportColumn { name: "s".to_owned(), ty: ty.to_owned() };
        connection.execute(&format!("CREATE VIEW v AS {}", scoped("t", &column))).unwrap();
        connection
    }

    fn first_text(connection: &Connection, sql: &str, column: usize) -> String {
        let mut statement = connection.prepare(sql).unwrap();
        let chunk = statement.execute().unwrap().next_chunk().unwrap().unwrap();
        String::from_utf8_lossy(chunk.column(column).bytes(0)).into_owned()
    }

    const VALUES: [(&str, &str); 24] = [
        ("TINYINT", "1"),
        ("SMALLINT", "1"),
        ("INTEGER", "1"),
        ("BIGINT", "1"),
        ("HUGEINT", "1"),
        ("UTINYINT", "1"),
        ("USMALLINT", "1"),
        ("UINTEGER", "1"),
        ("UBIGINT", "1"),
        ("UHUGEINT", "1"),
        ("FLOAT", "1.5"),
        ("DOUBLE", "1.5"),
        ("DECIMAL(9,2)", "1.50"),
        ("DECIMAL(38,2)", "1.50"),
        ("VARCHAR", "ann"),
        ("BOOLEAN", "true"),
        ("DATE", "2026-01-01"),
        ("TIMESTAMP", "2026-01-01 00:00:00"),
        ("TIMESTAMP WITH TIME ZONE", "2026-01-01 00:00:00+00"),
        ("UUID", "00000000-0000-0000-0000-000000000001"),
        ("TIME", "10:00:00"),
        ("TIMESTAMP_NS", "2026-01-01 00:00:00"),
        ("BLOB", "ann"),
        ("ENUM('ann', 'bob')", "ann"),
    ];

    #[test]
    fn the_scope_filters_before_the_clients_expressions() {
        for (ty, value) in VALUES {
            let connection = connect(ty, value);
            let plan =
                first_text(&connection, "EXPLAIN SELECT count(*) FROM v WHERE 1 / (n - 7) > 0", 1);
            match is_pushed(ty) {
                true => assert!(plan.contains("Filters:"), "{ty}: {plan}"),
                false => assert!(plan.contains("CTE"), "{ty}: {plan}"),
            }
        }
        let others = VALUES.iter().filter(|(ty, _)| !is_pushed(ty)).count();
        assert_eq!(others, 3, "both ways are tried");
    }

    #[test]
    fn a_whole_number_is_written_with_digits_alone() {
        for ty in INTEGERS {
            let connection = connect(ty, "1");
            for value in ["1.2", " 1", "1 ", "0x1", "1e0", "+1", "1\n"] {
                let set = format!("SET VARIABLE {SCOPE_VARIABLE} = '{value}'");
                connection.execute(&set).unwrap();
                let count = first_text(&connection, "SELECT count(*)::VARCHAR FROM v", 0);
                assert_eq!(count, "0", "{ty} {value:?}");
            }
        }
    }

    #[test]
    fn a_scope_has_its_rows_and_a_wrong_value_none() {
        for (ty, value) in VALUES {
            let connection = connect(ty, value);
            let count = |connection: &Connection| {
                first_text(connection, "SELECT count(*)::VARCHAR FROM v", 0)
            };
            assert_eq!(count(&connection), "5000", "{ty}");
            connection.execute(&format!("SET VARIABLE {SCOPE_VARIABLE} = NULL")).unwrap();
            assert_eq!(count(&connection), "0", "{ty}");
            connection.execute(&format!("SET VARIABLE {SCOPE_VARIABLE} = 'x y'")).unwrap();
            assert_eq!(count(&connection), "0", "{ty}");
            connection.execute(&format!("RESET VARIABLE {SCOPE_VARIABLE}")).unwrap();
            assert_eq!(count(&connection), "0", "{ty}");
        }
    }
}
