//! What can be told of a statement over one table from its text: which rows matter to it, and how
//! it would be put if it gave the numbers of its rows instead of their columns.

use serde_json::{Value, json};

use super::Ordering;

/// What holds of a column in every row that matters to a statement, as its WHERE has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// The column, as the statement names it.
    pub column: String,
    /// How it compares to the operand.
    pub comparison: Comparison,
    /// What it is compared with.
    pub operand: Operand,
}

/// How a column compares to an operand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "they say it")]
pub enum Comparison {
    Equal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// What a column is compared with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operand {
    /// The value, before it is cast.
    pub value: OperandValue,
    /// DuckDB's name of the type that the statement casts it to.
    pub cast: Option<String>,
}

/// A value as it is written, or where it comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OperandValue {
    /// A text.
    Text(String),
    /// An integer.
    Integer(i64),
    /// The parameter of this name.
    Parameter(String),
}

/// Which of its rows a listing gives, in the order that it asks for, or else as they are stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// How many at most.
    pub limit: Option<OperandValue>,
    /// How many it passes over first.
    pub offset: Option<OperandValue>,
}

/// Whether this is a query of one table and of nothing else, each row of which is looked at once.
pub(super) fn reads_one_table(node: &Value) -> bool {
    let from = &node["from_table"];
    node["type"] == "SELECT_NODE"
        && from["type"] == "BASE_TABLE"
        && is_empty(&from["column_name_alias"])
        && [&from["sample"], &from["at_clause"], &node["sample"]].iter().all(|part| part.is_null())
        && is_empty(&node["cte_map"]["map"])
        && !has_subquery(node)
}

/// Whether it lists rows of the table: columns as they are, no groups, at most an order and a limit.
pub(super) fn is_listing(node: &Value) -> bool {
    reads_one_table(node)
        && is_empty(&node["group_expressions"])
        && is_empty(&node["group_sets"])
        && ["having", "qualify"].iter().all(|key| node[key].is_null())
        && node["select_list"].as_array().is_some_and(|list| {
            list.iter().all(|expression| is_column(expression, name_of_table(node)))
        })
        && orders(node).iter().all(|order| order["expression"]["class"] == "COLUMN_REF")
        && node["modifiers"].as_array().is_some_and(|modifiers| {
            let known = ["ORDER_MODIFIER", "LIMIT_MODIFIER"];
            modifiers.iter().all(|modifier| known.iter().any(|known| modifier["type"] == *known))
        })
}

/// The order that a listing asks for.
pub(super) fn orders(node: &Value) -> Vec<&Value> {
    let modifiers = node["modifiers"].as_array().into_iter().flatten();
    let orders = modifiers.filter_map(|modifier| modifier["orders"].as_array());
    orders.flatten().collect()
}

/// What holds for every row that matters, as far as it can be told.
pub(super) fn conditions(node: &Value) -> Vec<Condition> {
    let mut conditions = Vec::new();
    if reads_one_table(node) {
        collect_where(node, &mut conditions);
    }
    conditions
}

/// The page that a listing gives of the rows for which its [`conditions`] hold, if it asks for nothing
/// else than this order.
pub(super) fn page(node: &Value, ordering: Option<&Ordering>) -> Option<Page> {
    let is_order_told = ordering.is_some() || orders(node).is_empty();
    if !is_listing(node) || !is_order_told || !collect_where(node, &mut Vec::new()) {
        return None;
    }
    // `None` where it is an expression.
    let count = |key: &str| {
        let modifiers = node["modifiers"].as_array().into_iter().flatten();
        match modifiers.map(|modifier| &modifier[key]).find(|value| !value.is_null()) {
            None => Some(None),
            Some(value) => {
                let Operand { value, cast } = operand_of(value)?;
                cast.is_none().then_some(Some(value))
            }
        }
    };
    Some(Page { limit: count("limit")?, offset: count("offset")? })
}

/// Collects what holds of columns in every row that matters. Whether that is all of the WHERE.
fn collect_where(node: &Value, conditions: &mut Vec<Condition>) -> bool {
    let clause = &node["where_clause"];
    clause.is_null() || collect(clause, name_of_table(node), conditions)
}

/// The name under which a query of one table has it.
pub(super) fn name_of_table(node: &Value) -> &str {
    let table = &node["from_table"];
    let name = if table["alias"] == "" { &table["table_name"] } else { &table["alias"] };
    name.as_str().unwrap_or_default()
}

fn collect(clause: &Value, table: &str, conditions: &mut Vec<Condition>) -> bool {
    let mut add = |column: &Value, comparison, operand: &Value| {
        let (column, operand) = (column_of(column, table), operand_of(operand));
        let condition = column.zip(operand);
        let is_told = condition.is_some();
        conditions.extend(condition.map(|(column, operand)| Condition {
            column,
            comparison,
            operand,
        }));
        is_told
    };
    let (comparison, mirrored) = match clause["type"].as_str().unwrap_or_default() {
        "CONJUNCTION_AND" => {
            let children = clause["children"].as_array().into_iter().flatten();
            // What can be told of the others counts, too.
            let untold = children.filter(|child| !collect(child, table, conditions)).count();
            return untold == 0;
        }
        "COMPARE_BETWEEN" => {
            let from = add(&clause["input"], Comparison::GreaterOrEqual, &clause["lower"]);
            return add(&clause["input"], Comparison::LessOrEqual, &clause["upper"]) && from;
        }
        "COMPARE_EQUAL" => (Comparison::Equal, Comparison::Equal),
        "COMPARE_LESSTHAN" => (Comparison::Less, Comparison::Greater),
        "COMPARE_GREATERTHAN" => (Comparison::Greater, Comparison::Less),
        "COMPARE_LESSTHANOREQUALTO" => (Comparison::LessOrEqual, Comparison::GreaterOrEqual),
        "COMPARE_GREATERTHANOREQUALTO" => (Comparison::GreaterOrEqual, Comparison::LessOrEqual),
        _ => return false,
    };
    add(&clause["left"], comparison, &clause["right"])
        || add(&clause["right"], mirrored, &clause["left"])
}

/// The column of the table that this is, under its own name or the table's.
pub(super) fn column_of(expression: &Value, table: &str) -> Option<String> {
    let names = expression["column_names"].as_array()?;
    let names: Vec<&str> = names.iter().filter_map(Value::as_str).collect();
    match names[..] {
        [column] => Some(column.to_owned()),
        [qualifier, column] if qualifier.eq_ignore_ascii_case(table) => Some(column.to_owned()),
        _ => None,
    }
}

fn operand_of(expression: &Value) -> Option<Operand> {
    let (inner, cast) = match expression["class"].as_str()? {
        "CAST" if expression["cast_type"]["type_info"].is_null() => {
            (&expression["child"], Some(expression["cast_type"]["id"].as_str()?.to_owned()))
        }
        _ => (expression, None),
    };
    let constant = &inner["value"];
    let value = match inner["class"].as_str()? {
        "PARAMETER" => OperandValue::Parameter(inner["identifier"].as_str()?.to_owned()),
        "CONSTANT" if constant["is_null"] == false => match constant["type"]["id"].as_str()? {
            "VARCHAR" => OperandValue::Text(constant["value"].as_str()?.to_owned()),
            "TINYINT" | "SMALLINT" | "INTEGER" | "BIGINT" => {
                OperandValue::Integer(constant["value"].as_i64()?)
            }
            _ => return None,
        },
        _ => return None,
    };
    Some(Operand { value, cast })
}

/// The statement, giving a column of a table of the same name in another schema instead of its own.
/// It reads as it did before, but for a name with three parts.
pub(super) fn giving(statement: &Value, schema: &str, column: &str) -> Value {
    let mut other = statement.clone();
    let node = &mut other["node"];
    node["select_list"] = json!([{
        "class": "COLUMN_REF",
        "type": "COLUMN_REF",
        "alias": "",
        "query_location": 0,
        "column_names": [column],
    }]);
    let table = &mut node["from_table"];
    if table["alias"] == "" {
        table["alias"] = table["table_name"].take();
        table["table_name"] = table["alias"].clone();
    }
    table["catalog_name"] = json!("");
    table["schema_name"] = json!(schema);
    other
}

/// Whether two trees are the same but for where in the text their parts stand.
pub(super) fn same_tree(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Object(one), Value::Object(other)) => {
            one.len() == other.len()
                && one.iter().all(|(key, value)| {
                    let found = other.get(key);
                    found.is_some_and(|found| key == "query_location" || same_tree(value, found))
                })
        }
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len()
                && one.iter().zip(other).all(|(one, other)| same_tree(one, other))
        }
        _ => one == other,
    }
}

/// Whether this is a column of the table, or all of them, under its own name. `document.name` is not: it
/// may be a value inside of a JSON column.
fn is_column(expression: &Value, table: &str) -> bool {
    let is_own = column_of(expression, table).is_some() || is_all_columns(expression);
    expression["alias"] == "" && is_own
}

fn is_all_columns(expression: &Value) -> bool {
    let renamed = ["replace_list", "rename_list"].iter().any(|key| !is_empty(&expression[key]));
    expression["class"] == "STAR" && expression["expr"].is_null() && !renamed
}

/// Whether this is a list of nothing; a field that is missing is none.
fn is_empty(list: &Value) -> bool {
    list.as_array().is_some_and(Vec::is_empty)
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
    use super::{Comparison, OperandValue};
    use crate::engine::Gate;

    fn conditions(sql: &str) -> Vec<String> {
        let checked = Gate::new().expect("a gate").check(sql).expect(sql);
        let spell = |condition: &super::Condition| {
            let comparison = match condition.comparison {
                Comparison::Equal => "=",
                Comparison::Less => "<",
                Comparison::LessOrEqual => "<=",
                Comparison::Greater => ">",
                Comparison::GreaterOrEqual => ">=",
            };
            let value = match &condition.operand.value {
                OperandValue::Text(text) => format!("'{text}'"),
                OperandValue::Integer(integer) => integer.to_string(),
                OperandValue::Parameter(name) => format!("${name}"),
            };
            let cast = condition.operand.cast.as_ref().map(|cast| format!("::{cast}"));
            format!("{} {comparison} {value}{}", condition.column, cast.unwrap_or_default())
        };
        checked.conditions.iter().map(spell).collect()
    }

    #[test]
    fn what_every_row_that_matters_fulfils_is_read_off_the_where() {
        for (clause, expected) in [
            ("user_id = 'u' AND n >= 3", vec!["user_id = 'u'", "n >= 3"]),
            ("x.a < ? AND (? > b AND 'c' = c)", vec!["a < $1", "b < $2", "c = 'c'"]),
            ("a BETWEEN 1 AND $high", vec!["a >= 1", "a <= $high"]),
            ("d > DATE '2024-01-31'", vec!["d > '2024-01-31'::DATE"]),
            ("CAST(? AS date) <= d", vec!["d >= $1::DATE"]),
            // What is not known to hold for each of them is nothing.
            ("a = 1 OR b = 2", vec![]),
            ("NOT a = 1", vec![]),
            ("a <> 1 AND a IS NOT DISTINCT FROM 2 AND a = NULL", vec![]),
            ("lower(a) = 'x' AND a::VARCHAR = 'x' AND a = b AND a COLLATE nocase = 'x'", vec![]),
            ("y.a = 1 AND mart.x.a = 1", vec![]),
            ("a = 1.5 AND b = ?::DECIMAL(4, 1) AND c = [1]", vec![]),
            ("a = 1 AND b IN (SELECT b FROM mart.x)", vec![]),
        ] {
            for select in ["SELECT a, b FROM mart.x", "SELECT count(*) AS a FROM mart.x"] {
                assert_eq!(conditions(&format!("{select} WHERE {clause}")), expected, "{clause}");
            }
        }
    }

    #[test]
    fn where_rows_are_looked_at_in_another_way_nothing_is_known_of_them() {
        for sql in [
            "SELECT a FROM mart.x t(a) WHERE a = 1",
            "SELECT a FROM mart.x WHERE a = 1 USING SAMPLE 10 ROWS",
            "SELECT a FROM mart.x TABLESAMPLE 10% WHERE a = 1",
            "SELECT a FROM mart.x JOIN mart.y USING (a) WHERE a = 1",
            "SELECT a FROM (FROM mart.x LIMIT 5) WHERE a = 1",
            "SELECT a FROM mart.x WHERE a = 1 UNION ALL SELECT a FROM mart.x",
            "WITH x AS (FROM mart.x) SELECT a FROM x WHERE a = 1",
            "SELECT (SELECT max(a) FROM mart.x) FROM mart.x WHERE a = 1",
        ] {
            assert_eq!(conditions(sql), Vec::<String>::new(), "{sql}");
        }
    }

    #[test]
    fn a_page_is_all_that_a_listing_asks_for() {
        let page = |rest: &str| {
            let sql = format!("SELECT a, b FROM mart.x {rest}");
            Gate::new().expect("a gate").check(&sql).expect(rest).page.clone()
        };
        let count = |value: &Option<OperandValue>| match value {
            None => String::new(),
            Some(OperandValue::Integer(count)) => count.to_string(),
            Some(other) => format!("{other:?}"),
        };
        for (rest, limit, offset) in [
            ("", "", ""),
            ("WHERE a = 1 AND b < 'x'", "", ""),
            ("WHERE a = 1 ORDER BY c DESC, x.a NULLS FIRST LIMIT 5", "5", ""),
            ("LIMIT ? OFFSET 7", "Parameter(\"1\")", "7"),
        ] {
            let page = page(rest).expect(rest);
            assert_eq!((count(&page.limit), count(&page.offset)), (limit.into(), offset.into()));
        }
        for rest in [
            "WHERE a = 1 OR b = 2",
            "WHERE a = b ORDER BY a",
            "ORDER BY a COLLATE nocase",
            "ORDER BY b.a LIMIT 5",
            "ORDER BY lower(a)",
            "ORDER BY 1",
            "LIMIT 5 + ?",
            "LIMIT 10%",
            "GROUP BY a, b",
        ] {
            assert_eq!(page(rest), None, "{rest}");
        }
    }

    fn row_numbers(sql: &str) -> Option<String> {
        let checked = Gate::new().expect("a gate").check(sql).expect(sql);
        checked.row_numbers.clone()
    }

    #[test]
    fn a_listing_is_put_so_that_it_gives_the_numbers_of_its_rows() {
        for (sql, expected) in [
            ("FROM mart.x", "SELECT \"martd:row\" FROM martd_rows.x AS x"),
            (
                "SELECT a, t.b FROM mart.\"X y\" t WHERE a > 1 ORDER BY b DESC, a LIMIT ? OFFSET 2",
                "SELECT \"martd:row\" FROM martd_rows.\"X y\" AS t WHERE (a > 1) \
                 ORDER BY b DESC, a LIMIT $1 OFFSET 2",
            ),
            ("SELECT * EXCLUDE (a) FROM mart.x WHERE b = $name AND c IN (SELECT 'x')", ""),
        ] {
            let expected = (!expected.is_empty()).then(|| expected.to_owned());
            assert_eq!(row_numbers(sql), expected, "{sql}");
        }
    }

    #[test]
    fn what_is_no_listing_or_would_be_read_otherwise_is_left_as_it_is() {
        for sql in [
            "SELECT a AS b FROM mart.x",
            "SELECT b.a FROM mart.x",
            "SELECT a + 1 FROM mart.x",
            "SELECT DISTINCT a FROM mart.x",
            "SELECT a FROM mart.x GROUP BY a",
            "SELECT a FROM mart.x QUALIFY row_number() OVER () = 1",
            "SELECT a FROM mart.x ORDER BY 1",
            "SELECT a FROM mart.x ORDER BY ALL",
            "SELECT a FROM mart.x ORDER BY lower(a)",
            "SELECT a FROM mart.x t(a)",
            "SELECT a FROM mart.x, mart.y",
            "SELECT * REPLACE (1 AS a) FROM mart.x",
            "SELECT COLUMNS('a') FROM mart.x",
            // DuckDB writes the DOUBLE as 100000.0, which is a DECIMAL.
            "SELECT a FROM mart.x WHERE b = 1e5",
        ] {
            assert_eq!(row_numbers(sql), None, "{sql}");
        }
    }
}
