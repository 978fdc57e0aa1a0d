//! The order of a page: `SELECT a, b FROM mart.x WHERE … ORDER BY a DESC LIMIT 100`.

use serde_json::Value;

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
    let is_empty = |key: &str| node[key].as_array().is_some_and(Vec::is_empty);
    let plain = node["type"] == "SELECT_NODE"
        && node["from_table"]["type"] == "BASE_TABLE"
        && node["from_table"]["sample"].is_null()
        && node["cte_map"]["map"].as_array().is_some_and(Vec::is_empty)
        && node["group_expressions"].as_array().is_some_and(Vec::is_empty)
        && is_empty("group_sets")
        && ["having", "sample", "qualify"].iter().all(|key| node[key].is_null())
        && node["select_list"].as_array()?.iter().all(is_column)
        && !has_subquery(&node["where_clause"]);
    let modifiers = node["modifiers"].as_array()?;
    let modifier = |name: &str| modifiers.iter().find(|modifier| modifier["type"] == name);
    let (Some(order), Some(_)) = (modifier("ORDER_MODIFIER"), modifier("LIMIT_MODIFIER")) else {
        return None;
    };
    if !plain || modifiers.len() != 2 {
        return None;
    }
    let columns = order["orders"].as_array()?.iter().map(|order| {
        let expression = &order["expression"];
        let name = expression["column_names"].as_array()?.last()?.as_str()?;
        (expression["class"] == "COLUMN_REF")
            .then(|| (name.to_owned(), order["type"] == "DESCENDING"))
    });
    Some(Ordering { columns: columns.collect::<Option<_>>()? })
}

/// Whether this is a column, or all of them, under its own name.
fn is_column(expression: &Value) -> bool {
    let class = expression["class"].as_str();
    expression["alias"] == "" && (class == Some("COLUMN_REF") || is_all_columns(expression))
}

fn is_all_columns(expression: &Value) -> bool {
    let renamed = ["replace_list", "rename_list"].iter().any(|key| {
        let list = &expression[key];
        list.as_array().is_some_and(|list| !list.is_empty())
    });
    expression["class"] == "STAR" && expression["expr"].is_null() && !renamed
}

fn has_subquery(tree: &Value) -> bool {
    match tree {
        Value::Object(fields) => {
            fields.get("class").is_some_and(|class| class == "SUBQUERY")
                || fields.values().any(has_subquery)
        }
        Value::Array(items) => items.iter().any(has_subquery),
        _ => false,
    }
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
