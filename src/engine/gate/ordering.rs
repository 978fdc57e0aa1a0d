//! The order of a page: `SELECT a, b FROM mart.x WHERE … ORDER BY a DESC LIMIT 100`.

use serde_json::Value;

use super::one_table;

/// The order that a statement asks for when it is a page of the rows of one table: columns as they
/// are, no aggregates, no other query inside. DuckDB then keeps the first so many rows, and is
/// fastest when it meets those early.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ordering {
    /// The columns to order by, the first decides first, each with whether it descends.
    pub columns: Vec<(String, bool)>,
}

/// Reads the order off the node of a statement that has been walked.
pub(super) fn of(node: &Value) -> Option<Ordering> {
    let has_limit =
        node["modifiers"].as_array()?.iter().any(|modifier| modifier["type"] == "LIMIT_MODIFIER");
    let orders = one_table::orders(node);
    if !one_table::is_listing(node) || !has_limit || orders.is_empty() {
        return None;
    }
    let columns = orders.iter().map(|order| {
        let name = order["expression"]["column_names"].as_array()?.last()?.as_str()?;
        Some((name.to_owned(), order["type"] == "DESCENDING"))
    });
    Some(Ordering { columns: columns.collect::<Option<_>>()? })
}

#[cfg(test)]
mod tests {
    use crate::engine::Gate;

    fn of(sql: &str) -> Option<Vec<(String, bool)>> {
        let checked = Gate::new().expect("a gate").check(sql).expect(sql);
        checked.ordering.clone().map(|ordering| ordering.columns)
    }

    #[test]
    fn a_page_has_an_order() {
        let expected = Some(vec![("a".to_owned(), true), ("b".to_owned(), false)]);
        for sql in [
            "SELECT a, b FROM mart.x ORDER BY a DESC, b LIMIT 10",
            "FROM mart.x t WHERE c > ? AND d IN (1, 2) ORDER BY t.a DESC, b ASC LIMIT ? OFFSET 5",
            "SELECT * EXCLUDE (c) FROM mart.x ORDER BY a DESC NULLS LAST, b LIMIT 10",
        ] {
            assert_eq!(of(sql), expected, "{sql}");
        }
    }

    #[test]
    fn what_more_than_the_order_depends_on_has_none() {
        for sql in [
            "SELECT a FROM mart.x ORDER BY a DESC",
            "SELECT a FROM mart.x LIMIT 10",
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
