//! The walk over expressions.

use serde_json::Value;

use super::tree::{Node, fields, object, one_of};
use super::walk::{Complexity, Walk};
use super::{Rejection, functions};

/// Expressions in expressions. The binder takes time in the square of this: 0.5 s at 400.
pub(super) const MAX_EXPRESSION_DEPTH: usize = 400;
/// Calls in calls: what is not a chain of operators. The binder takes time in the cube of this for
/// literals of lists, structs and intervals: 0.5 s at 128 steps of an interval, 5 s at 256.
const MAX_CALL_DEPTH: usize = 64;
/// What is between is compared twice, and each copy is planned with the other: nested eleven deep,
/// it takes 9 s, and four times that with each level more.
const BETWEEN_COPIES: u64 = 4;
/// Parts of a name: catalog, schema, table, column and fields.
const MAX_NAME_PARTS: usize = 8;

pub(super) const EXPRESSION_FIELDS: &str = "
    class type alias query_location
";

const COMPARISONS: &str = "
    COMPARE_EQUAL COMPARE_NOTEQUAL COMPARE_LESSTHAN COMPARE_GREATERTHAN
    COMPARE_LESSTHANOREQUALTO COMPARE_GREATERTHANOREQUALTO COMPARE_DISTINCT_FROM
    COMPARE_NOT_DISTINCT_FROM
";

const OPERATORS: &str = "
    OPERATOR_NOT OPERATOR_IS_NULL OPERATOR_IS_NOT_NULL COMPARE_IN COMPARE_NOT_IN ARRAY_EXTRACT
    ARRAY_SLICE STRUCT_EXTRACT ARRAY_CONSTRUCTOR OPERATOR_COALESCE OPERATOR_TRY OPERATOR_UNPACK
    GROUPING_FUNCTION
";

const WINDOWS: &str = "
    WINDOW_AGGREGATE WINDOW_RANK WINDOW_RANK_DENSE WINDOW_NTILE WINDOW_PERCENT_RANK
    WINDOW_CUME_DIST WINDOW_ROW_NUMBER WINDOW_FIRST_VALUE WINDOW_LAST_VALUE WINDOW_LEAD
    WINDOW_LAG WINDOW_NTH_VALUE WINDOW_FILL
";

impl Walk {
    pub(super) fn expressions(&mut self, values: &[Value]) -> Result<Complexity, Rejection> {
        values.iter().map(|value| self.expression(value)).sum()
    }

    /// The expression in a field of a node.
    pub(super) fn part(&mut self, node: Node<'_>, field: &str) -> Result<Complexity, Rejection> {
        self.expression(node.required(field)?)
    }

    /// The expressions in a field of a node.
    pub(super) fn parts(&mut self, node: Node<'_>, field: &str) -> Result<Complexity, Rejection> {
        self.expressions(node.array(field)?)
    }

    /// The expression in a field of a node, if there is one.
    pub(super) fn optional(
        &mut self,
        node: Node<'_>,
        field: &str,
    ) -> Result<Complexity, Rejection> {
        match node.required(field)? {
            Value::Null => Ok(Complexity::default()),
            value => self.expression(value),
        }
    }

    /// The condition of a join or a WHERE, whose equalities the optimizer closes over.
    pub(super) fn condition(
        &mut self,
        node: Node<'_>,
        field: &str,
    ) -> Result<Complexity, Rejection> {
        let equalities = equalities(node.required(field)?);
        Ok(self.optional(node, field)? + Complexity { equalities, ..Complexity::default() })
    }

    pub(super) fn counting_columns(
        &mut self,
        value: &Value,
    ) -> Result<(Complexity, bool), Rejection> {
        let complexity = self.expression(value)?;
        let alone = value["class"] == "STAR";
        Ok((complexity, !alone && names_columns(value)))
    }

    pub(super) fn expression(&mut self, value: &Value) -> Result<Complexity, Rejection> {
        self.count();
        let node = object(value, "expression")?;
        self.expressions += 1;
        if self.expressions > MAX_EXPRESSION_DEPTH {
            reject!(
                node.position(),
                "expressions are nested or chained more than {MAX_EXPRESSION_DEPTH} deep"
            );
        }
        let complexity = match (node.text("class")?, node.text("type")?) {
            ("CONSTANT", "VALUE_CONSTANT") => {
                node.only_with(EXPRESSION_FIELDS, "value")?;
                constant(node.required("value")?)?;
                Ok(Complexity::default())
            }
            ("COLUMN_REF", "COLUMN_REF") => self.column(node),
            ("PARAMETER", "VALUE_PARAMETER") => {
                node.only_with(EXPRESSION_FIELDS, "identifier")?;
                Ok(Complexity::default())
            }
            ("POSITIONAL_REFERENCE", "POSITIONAL_REFERENCE") => {
                node.only_with(EXPRESSION_FIELDS, "index")?;
                Ok(Complexity::default())
            }
            ("COMPARISON", comparison) => {
                one_of(comparison, COMPARISONS)?;
                node.only_with(EXPRESSION_FIELDS, "left right")?;
                Ok(self.part(node, "left")? + self.part(node, "right")?)
            }
            ("CONJUNCTION", "CONJUNCTION_AND" | "CONJUNCTION_OR") => {
                node.only_with(EXPRESSION_FIELDS, "children")?;
                self.parts(node, "children")
            }
            ("CAST", "OPERATOR_CAST") => self.cast(node),
            ("COLLATE", "COLLATE") => {
                node.only_with(EXPRESSION_FIELDS, "child collation")?;
                self.part(node, "child")
            }
            ("BETWEEN", "COMPARE_BETWEEN") => {
                node.only_with(EXPRESSION_FIELDS, "input lower upper")?;
                let input = self.part(node, "input")?.times(BETWEEN_COPIES);
                Ok(input + self.part(node, "lower")? + self.part(node, "upper")?)
            }
            ("FUNCTION", "FUNCTION") => self.function(node),
            ("OPERATOR", operator) => self.operator(node, operator),
            ("CASE", "CASE_EXPR") => self.called(node, Self::case),
            ("SUBQUERY", "SUBQUERY") => self.subquery_expression(node),
            ("LAMBDA", "LAMBDA") => {
                node.only_with(EXPRESSION_FIELDS, "lhs expr")?;
                self.nested(node.position(), |walk| {
                    Ok(walk.part(node, "lhs")? + walk.part(node, "expr")?)
                })
            }
            ("STAR", "STAR") => self.star(node),
            ("WINDOW", window) => {
                one_of(window, WINDOWS)?;
                self.called(node, Self::window)
            }
            (_, other) => Err(Rejection::unknown(other)),
        }?;
        self.expressions -= 1;
        Ok(complexity + Complexity::ONE)
    }

    pub(super) fn called(
        &mut self,
        node: Node<'_>,
        inner: fn(&mut Self, Node<'_>) -> Result<Complexity, Rejection>,
    ) -> Result<Complexity, Rejection> {
        self.calls += 1;
        if self.calls > MAX_CALL_DEPTH {
            reject!(node.position(), "calls are nested more than {MAX_CALL_DEPTH} deep");
        }
        let complexity = inner(self, node)?;
        self.calls -= 1;
        Ok(complexity)
    }

    pub(super) fn column(&mut self, node: Node<'_>) -> Result<Complexity, Rejection> {
        node.only_with(EXPRESSION_FIELDS, "column_names")?;
        let parts = node.array("column_names")?;
        if parts.len() > MAX_NAME_PARTS {
            reject!(node.position(), "a name has more than {MAX_NAME_PARTS} parts");
        }
        let Some(first) = parts.first().and_then(Value::as_str) else {
            return Err(Rejection::unknown("a column without a name"));
        };
        self.column_like_function(first, node.position())?;
        let alias = first.to_ascii_lowercase();
        let copied = self.aliases.last().and_then(|aliases| aliases.get(&alias)).copied();
        Ok(Complexity { nodes: copied.unwrap_or(0), ..Complexity::default() })
    }

    /// SQL has functions that are written like columns. DuckDB calls them when no column has the
    /// name, which is not known here, so they are reviewed as if none had.
    pub(super) fn column_like_function(
        &mut self,
        name: &str,
        position: Option<usize>,
    ) -> Result<(), Rejection> {
        match name.to_ascii_lowercase().as_str() {
            "current_date" | "current_time" | "current_timestamp" | "localtime"
            | "localtimestamp" => {
                self.inconsistent = true;
                Ok(())
            }
            lower @ ("current_catalog" | "current_schema") => {
                self.review(functions::expression(lower), name, position)
            }
            _ => Ok(()),
        }
    }

    pub(super) fn cast(&mut self, node: Node<'_>) -> Result<Complexity, Rejection> {
        node.only_with(EXPRESSION_FIELDS, "child cast_type try_cast")?;
        let target = node.required("cast_type")?;
        check_cast_target(target, node.position())?;
        // The offset of a TIME WITH TIME ZONE is that of the session's time zone today.
        self.inconsistent |= target["id"] == "TIME WITH TIME ZONE";
        self.part(node, "child")
    }

    pub(super) fn operator(
        &mut self,
        node: Node<'_>,
        operator: &str,
    ) -> Result<Complexity, Rejection> {
        node.only_with(EXPRESSION_FIELDS, "children")?;
        one_of(operator, OPERATORS)?;
        if matches!(operator, "OPERATOR_COALESCE" | "OPERATOR_TRY" | "ARRAY_CONSTRUCTOR") {
            self.called(node, |walk, node| walk.parts(node, "children"))
        } else {
            self.parts(node, "children")
        }
    }

    pub(super) fn case(&mut self, node: Node<'_>) -> Result<Complexity, Rejection> {
        node.only_with(EXPRESSION_FIELDS, "case_checks else_expr")?;
        let mut complexity = self.part(node, "else_expr")?;
        for check in node.array("case_checks")? {
            let check = fields(check, "CASE", "when_expr then_expr")?;
            complexity += self.part(check, "when_expr")? + self.part(check, "then_expr")?;
        }
        Ok(complexity)
    }

    pub(super) fn subquery_expression(&mut self, node: Node<'_>) -> Result<Complexity, Rejection> {
        node.only_with(EXPRESSION_FIELDS, "subquery_type subquery child comparison_type")?;
        one_of(node.text("subquery_type")?, "SCALAR EXISTS NOT_EXISTS ANY")?;
        let child = self.optional(node, "child")?;
        let query = self.subquery(node.required("subquery")?, node.position())?;
        // Joined with what is around it when it is correlated, and once more either way.
        let joined = Complexity { relations: query.relations.max(1), ..query };
        Ok(child + joined)
    }

    pub(super) fn star(&mut self, node: Node<'_>) -> Result<Complexity, Rejection> {
        node.only_with(
            EXPRESSION_FIELDS,
            "relation_name exclude_list replace_list columns expr qualified_exclude_list \
                rename_list",
        )?;
        let mut complexity = self.optional(node, "expr")?;
        for entry in node.array("replace_list")? {
            let entry = fields(entry, "REPLACE", "key value")?;
            complexity += self.part(entry, "value")?;
        }
        Ok(complexity)
    }

    pub(super) fn window(&mut self, node: Node<'_>) -> Result<Complexity, Rejection> {
        node.only_with(
            EXPRESSION_FIELDS,
            "function_name schema catalog children partitions orders start end start_expr \
                end_expr offset_expr default_expr ignore_nulls filter_expr exclude_clause \
                distinct arg_orders",
        )?;
        let name = node.text("function_name")?;
        let lower = name.to_ascii_lowercase();
        self.review(functions::expression(&lower), name, node.position())?;
        let mut complexity = self.parts(node, "children")? + self.parts(node, "partitions")?;
        for orders in ["orders", "arg_orders"] {
            complexity += self.orders(node.array(orders)?)?;
        }
        let shifted = matches!(node.text("type")?, "WINDOW_LAG" | "WINDOW_LEAD");
        if shifted && !is_safe_offset(node.required("offset_expr")?) {
            return Err(Rejection::function(
                &lower,
                "takes an offset that is a whole number, a parameter or computed from columns",
                node.position(),
            ));
        }
        for (boundary, offset) in [("start", "start_expr"), ("end", "end_expr")] {
            let offset = node.required(offset)?;
            let fixed = matches!(offset["class"].as_str(), None | Some("CONSTANT" | "PARAMETER"));
            if !fixed && !node.text(boundary)?.ends_with("_RANGE") {
                // Where such an offset is NULL, DuckDB 1.5.6 reads a frame from memory that nobody
                // wrote: each execution has another answer.
                self.inconsistent = true;
                self.runs_once = true;
            }
        }
        for part in ["start_expr", "end_expr", "offset_expr", "default_expr", "filter_expr"] {
            complexity += self.optional(node, part)?;
        }
        Ok(complexity)
    }
}

/// DuckDB 1.5.6 negates a constant offset without looking: for the least BIGINT the process crashes.
/// Offsets by row are checked.
fn is_safe_offset(value: &Value) -> bool {
    fn names_a_column(value: &Value) -> bool {
        match value {
            Value::Object(map) => {
                map.get("class").is_some_and(|class| class == "COLUMN_REF")
                    || map.values().any(names_a_column)
            }
            Value::Array(values) => values.iter().any(names_a_column),
            _ => false,
        }
    }
    match value["class"].as_str() {
        None | Some("PARAMETER") => true,
        Some("CONSTANT") => {
            value["value"]["value"].as_i64().is_some_and(|offset| offset > i64::MIN)
        }
        _ => names_a_column(value),
    }
}

/// Rejects casts to types whose cast is not safe.
fn check_cast_target(target: &Value, position: Option<usize>) -> Result<(), Rejection> {
    let variant =
        |name: &Value| name.as_str().is_some_and(|name| name.eq_ignore_ascii_case("variant"));
    let info = &target["type_info"];
    if variant(&target["id"]) || variant(&info["name"]) || variant(&info["alias"]) {
        reject!(
            position,
            "casts to VARIANT are not supported: the cast of deeply nested JSON ends the process"
        );
    }
    let foreign = |part: &str| {
        info[part].as_str().is_some_and(|name| !matches!(name, "" | "main" | "system" | "memory"))
    };
    if foreign("catalog") || foreign("schema") {
        reject!(position, "types are not qualified with a schema");
    }
    if !info["child_type"].is_null() {
        check_cast_target(&info["child_type"], position)?;
    }
    for child in info["child_types"].as_array().into_iter().flatten() {
        check_cast_target(&child["second"], position)?;
    }
    Ok(())
}

/// A value in the tree. Its content is data; only what it consists of is looked at.
pub(super) fn constant(value: &Value) -> Result<(), Rejection> {
    fields(value, "constant", "type is_null value").map(drop)
}

/// Equalities of two things that are not constants, in the conjunction that `value` is.
fn equalities(value: &Value) -> u64 {
    let varies = |side: &Value| {
        !matches!(side["class"].as_str(), Some("CONSTANT" | "PARAMETER")) && !side.is_null()
    };
    match value["type"].as_str() {
        Some("CONJUNCTION_AND") => {
            value["children"].as_array().into_iter().flatten().map(equalities).sum()
        }
        Some("COMPARE_EQUAL" | "COMPARE_NOT_DISTINCT_FROM") => {
            u64::from(varies(&value["left"]) && varies(&value["right"]))
        }
        _ => 0,
    }
}

/// Whether an expression stands for one per column.
fn names_columns(value: &Value) -> bool {
    match value {
        Value::Object(map) if map.get("class").is_some_and(|class| class == "SUBQUERY") => false,
        Value::Object(map) => {
            map.get("class").is_some_and(|class| class == "STAR") || map.values().any(names_columns)
        }
        Value::Array(values) => values.iter().any(names_columns),
        _ => false,
    }
}
