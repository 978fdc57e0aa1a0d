//! The order of a listing: `SELECT a, b FROM mart.x WHERE … ORDER BY a DESC LIMIT 100`.

use serde_json::Value;

use super::one_table;

/// The order that a statement asks for when it lists rows of one table: columns as they are, no
/// aggregates, no other query inside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ordering {
    /// What the rows are ordered by; the first decides first.
    pub keys: Vec<SortKey>,
}

/// A column that rows are ordered by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SortKey {
    /// The column, as the statement names it.
    pub column: String,
    /// Whether the greatest value comes first.
    pub descends: bool,
    /// Whether NULLs come before all values.
    pub nulls_first: bool,
}

/// Reads the order off the node of a statement that has been walked.
pub(super) fn of(node: &Value) -> Option<Ordering> {
    let orders = one_table::orders(node);
    if !one_table::is_listing(node) || orders.is_empty() {
        return None;
    }
    let table = one_table::name_of_table(node);
    let keys = orders.iter().map(|order| {
        Some(SortKey {
            column: one_table::column_of(&order["expression"], table)?,
            descends: match order["type"].as_str()? {
                "DESCENDING" => true,
                "ASCENDING" | "ORDER_DEFAULT" => false,
                _ => return None,
            },
            // DuckDB's own order has them last, whether it descends or not.
            nulls_first: match order["null_order"].as_str()? {
                "NULLS FIRST" => true,
                "NULLS LAST" | "ORDER_DEFAULT" => false,
                _ => return None,
            },
        })
    });
    Some(Ordering { keys: keys.collect::<Option<_>>()? })
}

#[cfg(test)]
mod tests {
    use crate::engine::Gate;

    fn of(sql: &str) -> Option<String> {
        let checked = Gate::new().expect("a gate").check(sql).expect(sql);
        let spell = |key: &super::SortKey| {
            let descends = if key.descends { " desc" } else { "" };
            let nulls = if key.nulls_first { " nulls first" } else { "" };
            format!("{}{descends}{nulls}", key.column)
        };
        let ordering = checked.ordering.as_ref()?;
        Some(ordering.keys.iter().map(spell).collect::<Vec<_>>().join(", "))
    }

    #[test]
    fn a_listing_has_an_order() {
        for (sql, expected) in [
            ("SELECT a, b FROM mart.x ORDER BY a DESC, b LIMIT 10", "a desc, b"),
            (
                "FROM mart.x t WHERE c > ? AND d IN (1, 2) ORDER BY t.a DESC, b ASC LIMIT ? OFFSET 5",
                "a desc, b",
            ),
            ("SELECT * EXCLUDE (c) FROM mart.x ORDER BY x.a DESC NULLS LAST, b", "a desc, b"),
            (
                "SELECT x.a FROM mart.x ORDER BY a NULLS FIRST, b DESC NULLS FIRST LIMIT 10",
                "a nulls first, b desc nulls first",
            ),
        ] {
            assert_eq!(of(sql).as_deref(), Some(expected), "{sql}");
        }
    }

    #[test]
    fn what_more_than_the_order_depends_on_has_none() {
        for sql in [
            "SELECT a FROM mart.x LIMIT 10",
            "SELECT a FROM mart.x ORDER BY a COLLATE nocase LIMIT 10",
            "SELECT a FROM mart.x ORDER BY b.a LIMIT 10",
            "SELECT b.a FROM mart.x ORDER BY a LIMIT 10",
            "SELECT b AS a FROM mart.x ORDER BY a DESC LIMIT 10",
            "SELECT * REPLACE (b AS a) FROM mart.x ORDER BY a DESC LIMIT 10",
            "SELECT a + 1 FROM mart.x ORDER BY a DESC LIMIT 10",
            "SELECT a, row_number() OVER () FROM mart.x ORDER BY a DESC LIMIT 10",
            "SELECT a FROM mart.x ORDER BY a + 1 DESC LIMIT 10",
            "SELECT DISTINCT a FROM mart.x ORDER BY a DESC LIMIT 10",
            "SELECT a FROM mart.x GROUP BY a ORDER BY a DESC LIMIT 10",
            "SELECT a FROM mart.x, mart.y ORDER BY a DESC LIMIT 10",
            "SELECT a FROM (FROM mart.x LIMIT 5) ORDER BY a DESC LIMIT 10",
            "WITH y AS (FROM mart.x LIMIT 5) SELECT a FROM mart.x ORDER BY a DESC LIMIT 10",
            "SELECT a FROM mart.x WHERE a IN (SELECT b FROM mart.x LIMIT 3) ORDER BY a LIMIT 10",
            "SELECT a FROM mart.x t(a) ORDER BY a DESC LIMIT 10",
            "SELECT a FROM mart.x ORDER BY 1 DESC LIMIT 10",
            "SELECT a FROM mart.x ORDER BY ALL DESC LIMIT 10",
            "SELECT a FROM mart.x USING SAMPLE 10 ROWS ORDER BY a LIMIT 10",
        ] {
            assert_eq!(
                Gate::new().expect("a gate").check(sql).map(|c| c.ordering.clone()),
                Ok(None),
                "{sql}"
            );
        }
    }
}
