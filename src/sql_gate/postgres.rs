//! What clients of PostgreSQL ask of its catalog.
//!
//! Such a statement is answered by a database that has a catalog and no data ([`PG_CATALOG`] makes it), and
//! never by that of the marts. It is told by the tables that it names or, without any, by its functions. What
//! DuckDB cannot say (casts to `regclass`, texts that are arrays, regular expressions that match a part) is
//! rewritten on DuckDB's own parse; the text that comes of it is validated as any other, but may name the
//! catalog's tables and macros, and those alone.

use std::collections::HashSet;
use std::sync::LazyLock;

use serde_json::{Map, Value, json};

use super::lexer::{Token, edited, tokens};
use super::{Rejection, functions};

/// The statements that make the catalog. Whoever runs them fills in `{database}`, `{schema}` and
/// `{time_zone}`, each for a literal in quotes.
pub const PG_CATALOG: &str = include_str!("pg_catalog.sql");

static TABLES: LazyLock<HashSet<&str>> =
    LazyLock::new(|| names(&["CREATE TABLE ", "CREATE VIEW "]));
static MACROS: LazyLock<HashSet<&str>> = LazyLock::new(|| names(&["CREATE MACRO "]));

fn names(starts: &[&str]) -> HashSet<&'static str> {
    let of = |line: &'static str| {
        let rest = starts.iter().find_map(|start| line.strip_prefix(start))?;
        Some(rest.split([' ', '(']).next()?.trim_matches('"'))
    };
    PG_CATALOG.lines().filter_map(of).collect()
}

/// Functions of DuckDB's that tell of the session, where they are asked without a table.
const SESSION: &str = "
    current_catalog current_database current_role current_schema current_schemas current_setting
    current_user session_user user version
";
/// Functions of one value in FROM: their column is named as the table is.
const OF_ONE_COLUMN: [&str; 4] =
    ["generate_series", "generate_subscripts", "string_to_array", "unnest"];
/// Types that are texts here.
const TEXTS: &str = "
    name bpchar cstring unknown sql_identifier character_data pg_node_tree aclitem regproc
";
/// Types of names that stand for numbers.
const NAMED: [&str; 4] = ["regclass", "regtype", "regnamespace", "regrole"];

pub(super) fn is_table(name: &str) -> bool {
    TABLES.contains(name)
}

pub(super) fn is_macro(name: &str) -> bool {
    MACROS.contains(name)
}

/// The text without what DuckDB's parser does not know: operators, collations and types with a schema.
pub(super) fn respell(sql: &str) -> String {
    let tokens = tokens(sql).unwrap_or_default();
    let word = |token: Option<&Token<'_>>, word: &str| {
        token.is_some_and(|token| token.text.trim_matches('"').eq_ignore_ascii_case(word))
    };
    let (mut edits, mut at) = (Vec::new(), 0);
    let nothing = String::new;
    while at < tokens.len() {
        let next = |further: usize| tokens.get(at + further);
        let end = |further: usize| next(further).map_or(sql.len(), |token| token.at);
        let is_operator = word(next(0), "operator")
            && next(1).is_some_and(|token| token.is_symbol(b'('))
            && word(next(2), "pg_catalog")
            && next(3).is_some_and(|token| token.is_symbol(b'.'));
        let is_collation =
            word(next(0), "collate") && (word(next(1), "pg_catalog") || word(next(1), "default"));
        // `::pg_catalog.text`, and `CAST(x AS pg_catalog.text)`.
        let is_type = (word(next(0), "as") || next(0).is_some_and(|token| token.is_symbol(b':')))
            && word(next(1), "pg_catalog")
            && next(2).is_some_and(|token| token.is_symbol(b'.'));
        if is_type {
            edits.push((end(1)..end(3), nothing()));
            at += 2;
        } else if is_operator
            && let Some(close) = (at..tokens.len()).find(|&at| tokens[at].is_symbol(b')'))
        {
            edits.push((tokens[at].at..end(4), nothing()));
            edits.push((tokens[close].at..tokens[close].end(), nothing()));
            at = close;
        } else if is_collation {
            let last = if word(next(1), "pg_catalog") { 3 } else { 1 };
            edits.push((tokens[at].at..next(last).map_or(sql.len(), Token::end), nothing()));
            at += last;
        }
        at += 1;
    }
    edited(sql, edits)
}

/// Whether a statement asks the catalog.
///
/// # Errors
/// When it asks for marts, too.
pub(super) fn asks_catalog(tree: &Value) -> Result<bool, Rejection> {
    let mut asked = NamedTables::default();
    asked.collect(tree);
    let ctes = &asked.ctes;
    let mut tables =
        asked.tables.iter().filter(|(schema, name)| !schema.is_empty() || !ctes.contains(name));
    let is_catalogs = |(schema, name): &(String, String)| match schema.as_str() {
        "pg_catalog" | "information_schema" => true,
        "" => name.starts_with("pg_"),
        _ => false,
    };
    match tables.clone().find(|table| is_catalogs(table)) {
        Some(_) => match tables.find(|table| !is_catalogs(table)) {
            Some((_, mart)) => Err(Rejection::Catalog(format!(
                "the catalog and {mart} cannot be asked in one statement; ask them one by one"
            ))),
            None => Ok(true),
        },
        None => Ok(tables.next().is_none() && asked.calls_catalog),
    }
}

/// What a statement names.
#[derive(Default)]
struct NamedTables {
    tables: Vec<(String, String)>,
    ctes: HashSet<String>,
    calls_catalog: bool,
}

impl NamedTables {
    fn collect(&mut self, value: &Value) {
        match value {
            Value::Array(values) => values.iter().for_each(|value| self.collect(value)),
            Value::Object(map) => {
                self.note(map);
                map.values().for_each(|value| self.collect(value));
            }
            _ => {}
        }
    }

    fn note(&mut self, map: &Map<String, Value>) {
        let lower = |field: &str| text(map, field).to_ascii_lowercase();
        if map.contains_key("key") && map["value"].get("query").is_some() {
            self.ctes.insert(lower("key"));
        }
        match text(map, "type") {
            "BASE_TABLE" => self.tables.push((lower("schema_name"), lower("table_name"))),
            "FUNCTION" => {
                let (schema, name) = (lower("schema"), lower("function_name"));
                self.calls_catalog |= matches!(&*schema, "pg_catalog" | "information_schema")
                    || SESSION.split_whitespace().any(|known| known == name)
                    || (is_macro(&name) || name.starts_with("pg_") || name.starts_with("has_"))
                        && !is_duckdbs(&name);
            }
            "COLUMN_REF" => {
                let names = map["column_names"].as_array().map_or(&[][..], Vec::as_slice);
                self.calls_catalog |= match names {
                    [Value::String(name)] => {
                        let name = name.to_ascii_lowercase();
                        SESSION.split_whitespace().any(|known| known == name)
                    }
                    _ => false,
                };
            }
            "OPERATOR_CAST" => {
                let target = cast_target(&map["cast_type"]);
                self.calls_catalog |= NAMED.contains(&&*target) || target == "regproc";
            }
            _ => {}
        }
    }
}

fn is_duckdbs(function: &str) -> bool {
    matches!(functions::expression(function), Some(functions::Review::Allowed { .. }))
}

pub(super) fn text<'m>(map: &'m Map<String, Value>, field: &str) -> &'m str {
    map.get(field).and_then(Value::as_str).unwrap_or_default()
}

/// The name of a type that DuckDB does not know, in lower case.
fn cast_target(ty: &Value) -> String {
    ty["type_info"]["name"].as_str().unwrap_or_default().to_ascii_lowercase()
}

/// Rewrites the parse of a statement for the catalog's database.
pub(super) fn rewrite(tree: &mut Value) {
    let mut asked = NamedTables::default();
    asked.collect(tree);
    if let Some(items) = tree.get_mut("node").and_then(first_select_list) {
        items.iter_mut().for_each(name_column);
    }
    rewrite_all(tree, &asked.ctes);
}

/// The select list that names the columns.
fn first_select_list(node: &mut Value) -> Option<&mut Vec<Value>> {
    if node.get("left").is_some() {
        return first_select_list(&mut node["left"]);
    }
    node.get_mut("select_list")?.as_array_mut()
}

/// VARCHAR, for a type that is a text here.
pub(super) fn text_type(name: &str) -> Option<Value> {
    let is_text = TEXTS.split_whitespace().any(|known| known.eq_ignore_ascii_case(name));
    is_text.then(|| json!({"id": "VARCHAR", "type_info": null}))
}

/// Gives a column the name that PostgreSQL gives it.
pub(super) fn name_column(item: &mut Value) {
    let Some(map) = item.as_object().filter(|map| text(map, "alias").is_empty()) else { return };
    let name = match text(map, "class") {
        "FUNCTION" => text(map, "function_name").to_owned(),
        "CASE" => "case".to_owned(),
        "CAST" => {
            let child = &map["child"];
            match child["class"].as_str() {
                Some("COLUMN_REF") => {
                    let names = child["column_names"].as_array();
                    names.and_then(|names| names.last()?.as_str()).unwrap_or_default().to_owned()
                }
                Some("FUNCTION") => child["function_name"].as_str().unwrap_or_default().to_owned(),
                _ => String::new(),
            }
        }
        _ => String::new(),
    };
    item["alias"] = Value::String(name);
}

fn rewrite_all(value: &mut Value, ctes: &HashSet<String>) {
    match value {
        Value::Array(values) => values.iter_mut().for_each(|value| rewrite_all(value, ctes)),
        Value::Object(map) => {
            if text(map, "type") == "OPERATOR_CAST"
                && cast_target(&map["cast_type"]).as_str() == "oid"
                || matches!(map.get("cast_type"), Some(ty) if matches!(ty["id"].as_str(), Some("BIGINT" | "INTEGER")))
            {
                // A name under a cast to a number is meant as its number.
                let child = &mut map["child"];
                if NAMED.contains(&&*cast_target(&child["cast_type"])) {
                    let name = format!("oid_of_{}", cast_target(&child["cast_type"]));
                    *child = call(&name, child["child"].take(), "");
                }
            }
            map.values_mut().for_each(|value| rewrite_all(value, ctes));
            if let Some(other) = rewritten(map, ctes) {
                *value = other;
            }
        }
        _ => {}
    }
}

/// What takes a node's place; the node may be changed as well.
fn rewritten(map: &mut Map<String, Value>, ctes: &HashSet<String>) -> Option<Value> {
    match (text(map, "class"), text(map, "type")) {
        (_, "BASE_TABLE") => {
            let schema = text(map, "schema_name").to_ascii_lowercase();
            let name = text(map, "table_name").to_ascii_lowercase();
            if schema.is_empty() && ctes.contains(&name) {
                return None;
            }
            let inner =
                if schema == "information_schema" { format!("is_{name}") } else { name.clone() };
            if text(map, "alias").is_empty() {
                map.insert("alias".into(), name.into());
            }
            map.insert("schema_name".into(), "main".into());
            map.insert("table_name".into(), inner.into());
        }
        (_, "TABLE_FUNCTION") => {
            let name = map["function"]["function_name"].as_str().unwrap_or_default().to_owned();
            let alias = map["alias"].clone();
            let is_unnamed = map["column_name_alias"].as_array().is_some_and(Vec::is_empty);
            if OF_ONE_COLUMN.contains(&&*name) && is_unnamed && alias != "" {
                map.insert("column_name_alias".into(), json!([alias]));
            }
            if name == "string_to_array" {
                map["function"]["function_name"] = "string_to_array_rows".into();
            }
        }
        ("FUNCTION", _) => {
            if matches!(
                text(map, "schema").to_ascii_lowercase().as_str(),
                "pg_catalog" | "information_schema"
            ) {
                map.insert("schema".into(), "".into());
            }
            match text(map, "function_name") {
                // `~`: DuckDB's matches the whole text.
                "regexp_full_match" => {
                    map.insert("function_name".into(), "pg_matches_case".into());
                }
                "json_build_object" => {
                    map.insert("function_name".into(), "json_object".into());
                }
                "~*" => {
                    map.insert("function_name".into(), "pg_matches".into());
                    map.insert("is_operator".into(), false.into());
                }
                "!~*" => {
                    let mut call = map.clone();
                    call.insert("function_name".into(), "pg_matches".into());
                    call.insert("is_operator".into(), false.into());
                    return Some(json!({"class": "OPERATOR", "type": "OPERATOR_NOT", "alias": "",
                        "query_location": u64::MAX, "children": [call]}));
                }
                "unnest" => {
                    let array = map["children"].get_mut(0)?;
                    if as_list(array) {
                        *array = json!({"class": "CAST", "type": "OPERATOR_CAST", "alias": "",
                            "query_location": u64::MAX, "child": array.take(), "try_cast": false,
                            "cast_type": {"id": "LIST", "type_info": {"type": "LIST_TYPE_INFO", "alias": "",
                                "extension_info": null, "child_type": {"id": "VARCHAR", "type_info": null}}}});
                    }
                }
                _ => {}
            }
        }
        ("CAST", _) => return cast(map),
        ("COLUMN_REF", _) => {
            let names = map["column_names"].as_array_mut()?;
            let is_schema = |name: &Value| {
                name.as_str().is_some_and(|name| {
                    name.eq_ignore_ascii_case("pg_catalog")
                        || name.eq_ignore_ascii_case("information_schema")
                })
            };
            if names.len() > 2 && is_schema(&names[0]) {
                names.remove(0);
            }
        }
        (_, "UNBOUND") => {}
        _ => {
            // A type within another.
            if text(map, "id") == "UNBOUND" {
                let name =
                    map["type_info"]["name"].as_str().unwrap_or_default().to_ascii_lowercase();
                if let Some(text) = text_type(&name) {
                    return Some(text);
                }
                map["type_info"]["schema"] = "".into();
            }
        }
    }
    None
}

fn cast(map: &mut Map<String, Value>) -> Option<Value> {
    let target = cast_target(&map["cast_type"]);
    if map["cast_type"]["id"] == "LIST" {
        as_list(&mut map["child"]);
    }
    if target == "int2vector" || target == "oidvector" {
        return Some(map["child"].take());
    }
    let child = &mut map["child"];
    if NAMED.contains(&&*target) {
        let is_name = matches!(child["class"].as_str(), Some("PARAMETER"))
            || child["value"]["value"].is_string();
        let way = if is_name { "oid_of" } else { "name_of" };
        let child = child.take();
        return Some(call(&format!("{way}_{target}"), child, text(map, "alias")));
    }
    if let Some(name) =
        child["value"]["value"].as_str().and_then(|name| name.strip_prefix("pg_catalog."))
    {
        child["value"]["value"] = name.to_owned().into(); // of a function or a type
    }
    None
}

/// Turns a text that PostgreSQL reads as an array into one that DuckDB reads as a list.
pub(super) fn as_list(value: &mut Value) -> bool {
    let items = value["value"]["value"].as_str();
    let items = items.and_then(|text| text.trim().strip_prefix('{')?.strip_suffix('}'));
    let Some(list) = items.map(|items| format!("[{items}]")) else { return false };
    value["value"]["value"] = list.into();
    true
}

fn call(function: &str, argument: Value, alias: &str) -> Value {
    json!({"class": "FUNCTION", "type": "FUNCTION", "alias": alias, "query_location": u64::MAX,
        "function_name": function, "schema": "", "children": [argument], "filter": null,
        "order_bys": {"type": "ORDER_MODIFIER", "orders": []}, "distinct": false,
        "is_operator": false, "export_state": false, "catalog": ""})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operators_and_collations_lose_their_schema() {
        let sql = "select a OPERATOR(pg_catalog.~) '^(x)$' COLLATE pg_catalog.default, b collate \"default\" , c::pg_catalog.text, 'operator(pg_catalog.~)'";
        assert_eq!(respell(sql), "select a ~ '^(x)$' , b  , c::text, 'operator(pg_catalog.~)'");
    }
}
