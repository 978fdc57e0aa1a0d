//! The walk over calls of functions: which, and with what.

use serde_json::Value;

use super::Rejection;
use super::expressions::EXPRESSION_FIELDS;
use super::functions::{self, Review};
use super::postgres;
use super::tree::{Node, object};
use super::walk::{Complexity, Walk};

/// Characters that Levenshtein and its kin may be given: they take time in the product of both.
const MAX_DISTANCE_CHARS: u64 = 255;
/// Brackets in the structure text of `json_transform`, which overflows the stack at 2,000.
const MAX_STRUCTURE_DEPTH: usize = 50;

/// How the catalog's macros grow at most: copies of an argument, and nodes of their own.
const CATALOG_GROWTH: (u64, u64) = (8, 80);

pub(super) const FUNCTION_FIELDS: &str = "
    function_name schema children filter order_bys distinct is_operator export_state catalog
";

impl Walk {
    pub(super) fn function(&mut self, node: Node<'_>) -> Result<Complexity, Rejection> {
        node.only_with(EXPRESSION_FIELDS, FUNCTION_FIELDS)?;
        let written = node.text("function_name")?;
        let name = written.to_ascii_lowercase();
        self.review(functions::expression(&name), written, node.position())?;
        self.arguments(node, &name)?;
        let chain = node.required("is_operator")? == &Value::Bool(true) || name == "->>";
        let complexity = if chain { self.call(node)? } else { self.called(node, Self::call)? };
        let is_catalogs = self.asks_catalog && postgres::is_macro(&name);
        let growth = is_catalogs.then_some(CATALOG_GROWTH);
        Ok(match growth.or_else(|| functions::macro_growth(&name)) {
            Some((copies, body)) => complexity.times(copies) + Complexity::ONE.times(body),
            None => complexity,
        })
    }

    pub(super) fn review(
        &mut self,
        review: Option<Review>,
        name: &str,
        position: Option<usize>,
    ) -> Result<(), Rejection> {
        if self.asks_catalog && postgres::is_macro(&name.to_ascii_lowercase()) {
            return Ok(());
        }
        let reason = match review {
            Some(Review::Allowed { consistent }) => {
                self.inconsistent |= !consistent;
                return Ok(());
            }
            Some(Review::Refused(reason)) => reason,
            None => functions::UNKNOWN,
        };
        Err(Rejection::function(name, reason, position))
    }

    /// What any call consists of, its name apart.
    pub(super) fn call(&mut self, node: Node<'_>) -> Result<Complexity, Rejection> {
        if node.required("export_state")? != &Value::Bool(false) {
            reject!(node.position(), "EXPORT_STATE is not supported");
        }
        // `x.y.f()` is a call of f on the column x.y unless x.y is a schema with such a function.
        for qualifier in ["catalog", "schema"] {
            let qualifier = node.text(qualifier)?;
            self.column_like_function(qualifier, node.position())?;
        }
        let order = object(node.required("order_bys")?, "ORDER BY")?;
        let receiver = Complexity::ONE.times(u64::from(has_receiver(node)?));
        let written = self.parts(node, "children")? + self.order(order)?;
        Ok(written + self.optional(node, "filter")? + receiver)
    }

    /// Functions that are fine or not by what they are called with.
    pub(super) fn arguments(&mut self, node: Node<'_>, name: &str) -> Result<(), Rejection> {
        let arguments = node.array("children")?;
        let receiver = has_receiver(node)?;
        let count = arguments.len() + usize::from(receiver);
        let reject = |reason: &str| Err(Rejection::function(name, reason, node.position()));
        match name {
            // The time since midnight today.
            "age" => self.inconsistent |= count < 2,
            "range" | "generate_series" if count > 2 && !arguments.last().is_some_and(is_whole) => {
                return reject(
                    "takes a step that is a whole number outside of FROM (a literal, or a cast to \
                     BIGINT); over timestamps write FROM range(start, stop, step)",
                );
            }
            "levenshtein" | "editdist3" | "damerau_levenshtein"
                if receiver || !arguments.iter().all(is_short_text) =>
            {
                return reject(
                    "takes minutes on long texts; give it short ones: literals, or \
                     left(x, n) with n up to 255",
                );
            }
            "from_json" | "from_json_strict" | "json_transform" | "json_transform_strict"
                if !arguments.last().is_some_and(is_flat_structure) =>
            {
                return reject("takes its structure as a literal text, nested at most 50 deep");
            }
            "switch" if count != 2 || !arguments.last().is_some_and(is_constant_map) => {
                return reject(
                    "takes two arguments, the second a map of literals, as in switch(x, MAP {1: \
                     'a'}); for anything else write CASE",
                );
            }
            // They call any aggregate there is, by its name.
            "list_aggr" | "list_aggregate" | "array_aggr" | "array_aggregate" | "aggregate" => {
                let Some(aggregate) = arguments.get(usize::from(!receiver)).and_then(literal)
                else {
                    return reject("takes the name of its aggregate as a literal");
                };
                if let Some(review) = functions::expression(&aggregate.to_ascii_lowercase()) {
                    self.review(Some(review), aggregate, node.position())?;
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// Whether a call is written on a column, `x.f()`, which is its first argument then.
fn has_receiver(node: Node<'_>) -> Result<bool, Rejection> {
    let schema = node.text("schema")?.to_ascii_lowercase();
    let catalog = node.text("catalog")?.to_ascii_lowercase();
    let schema_named = matches!(schema.as_str(), "" | "main" | "pg_catalog");
    let catalog_named = matches!(catalog.as_str(), "" | "system" | "memory");
    Ok(!(schema_named && catalog_named))
}

fn literal(value: &Value) -> Option<&str> {
    (value["class"] == "CONSTANT").then(|| value["value"]["value"].as_str()).flatten()
}

fn integer(value: &Value) -> Option<i64> {
    (value["class"] == "CONSTANT").then(|| value["value"]["value"].as_i64()).flatten()
}

/// `MAP {1: 'a'}` or `map([1], ['a'])`, with literals only. DuckDB has an internal error at bind for
/// a column in it, and runs the wrong type for a default of another type than the values.
fn is_constant_map(value: &Value) -> bool {
    let call = |value: &Value, name: &str| {
        value["class"] == "FUNCTION"
            && matches!(value["schema"].as_str(), Some("" | "main"))
            && value["function_name"].as_str().is_some_and(|call| call.eq_ignore_ascii_case(name))
    };
    let literals = |value: &Value| {
        (call(value, "list_value") || value["type"] == "ARRAY_CONSTRUCTOR")
            && value["children"]
                .as_array()
                .is_some_and(|values| values.iter().all(|value| value["class"] == "CONSTANT"))
    };
    call(value, "map")
        && value["children"].as_array().is_some_and(|lists| lists.iter().all(literals))
}

fn is_whole(value: &Value) -> bool {
    const WHOLE: &[&str] = &["TINYINT", "SMALLINT", "INTEGER", "BIGINT"];
    integer(value).is_some()
        || value["class"] == "CAST"
            && value["cast_type"]["id"].as_str().is_some_and(|id| WHOLE.contains(&id))
}

/// A literal, or the start of a text, of a bounded length; in any case and trimming.
fn is_short_text(value: &Value) -> bool {
    if let Some(text) = literal(value) {
        return text.chars().count() as u64 <= MAX_DISTANCE_CHARS;
    }
    let Some(arguments) = value["children"].as_array() else {
        return false;
    };
    let bounded = |length: &Value| {
        integer(length).is_some_and(|length| (0..=MAX_DISTANCE_CHARS as i64).contains(&length))
    };
    let name = value["function_name"].as_str().unwrap_or_default().to_ascii_lowercase();
    let plain = matches!(value["schema"].as_str(), Some("" | "main"));
    match (name.as_str(), arguments.as_slice()) {
        _ if !plain || value["class"] != "FUNCTION" => false,
        ("left" | "right", [_, length]) => bounded(length),
        ("substring" | "substr", [_, _, length]) => bounded(length),
        ("lower" | "lcase" | "upper" | "ucase" | "trim" | "ltrim" | "rtrim", [text]) => {
            is_short_text(text)
        }
        _ => false,
    }
}

fn is_flat_structure(value: &Value) -> bool {
    literal(value).is_some_and(|text| {
        text.bytes().filter(|byte| matches!(byte, b'[' | b'{' | b'(')).count()
            <= MAX_STRUCTURE_DEPTH
    })
}
