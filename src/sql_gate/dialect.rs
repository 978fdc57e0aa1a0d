//! What PostgreSQL's dialect has and DuckDB's lacks, over marts.
//!
//! It is rewritten on DuckDB's own parse: a call that DuckDB does not know becomes an expression of functions
//! that it has, which is written here as SQL over `_1`, `_2`… The text that comes of it is validated as any
//! other. What would not be PostgreSQL's answer to the last letter is refused, and so is what DuckDB knows by
//! the same sign and means in another way: `~` and `SIMILAR TO`. Everything else means what it means to DuckDB.
//!
//! The clock of a transaction stands still: `now()` and its kin become a parameter behind those of the client,
//! whose number is [`Translated::moment`].

use serde_json::{Map, Value};

use super::patterns::{extracting, items, matching, similar};
use super::postgres::text;
use super::{Rejection, ValidatedStatement, Validator, postgres, spelling, to_char};

/// Nodes that expressions may copy into each other, all together.
const MAX_COPIED_NODES: usize = 30_000;

/// Names that are other names to DuckDB, with the same meaning.
const RENAMED: [(&str, &str); 2] = [("every", "bool_and"), ("btrim", "trim")];

/// Calls by name and number of arguments.
const CALLS: &[(&str, usize, &str)] = &[
    ("lpad", 2, "lpad(_1, _2, ' ')"),
    ("rpad", 2, "rpad(_1, _2, ' ')"),
    ("to_hex", 1, "lower(to_hex(_1))"),
    ("date_bin", 3, "time_bucket(CAST(_1 AS INTERVAL), _2, _3)"),
    ("clock_timestamp", 0, "get_current_timestamp()"),
    ("date_trunc", 3, "timezone(_3, date_trunc(_1, timezone(_3, CAST(_2 AS TIMESTAMPTZ))))"),
    (
        "initcap",
        1,
        "array_to_string(list_transform(regexp_extract_all(_1, '[\\pL\\pN]+|[^\\pL\\pN]+'), \
         lambda martd_w: upper(left(martd_w, 1)) || lower(substr(martd_w, 2))), '')",
    ),
];

/// What tells the time of the transaction, as a name or a call, and of which type.
const CLOCK: &[(&str, &str)] = &[
    ("now", "TIMESTAMPTZ"),
    ("transaction_timestamp", "TIMESTAMPTZ"),
    ("current_timestamp", "TIMESTAMPTZ"),
    ("current_date", "DATE"),
    ("current_time", "TIMETZ"),
    ("localtimestamp", "TIMESTAMP"),
    ("localtime", "TIME"),
];

impl Validator {
    /// Validates what a client of PostgreSQL's asks, of marts or of the catalog. What cannot be parsed is left to
    /// others to explain.
    pub(super) fn validate_postgres(&self, sql: &str) -> Result<ValidatedStatement, Rejection> {
        let plain = postgres::respell(sql);
        let text = spelling::respell(&plain);
        let mut tree = match self.parse(&text) {
            Ok(tree) => tree,
            Err(rejection @ (Rejection::OutOfMemory | Rejection::Failed(_))) => {
                return Err(rejection);
            }
            Err(_) => return self.validate_anew(sql),
        };
        if postgres::asks_catalog(&tree)? {
            if text != plain {
                tree = self.parse(&plain)?; // the catalog's tables are asked in DuckDB's words
            }
            postgres::rewrite(&mut tree);
            let text = self.unparse(&tree).map_err(|error| match error {
                Rejection::Failed(message) => Rejection::Catalog(format!(
                    "the statement cannot be asked of the catalog: {message}"
                )),
                other => other,
            })?;
            return self.validate_for_catalog(text);
        }
        let translated = translate(&mut tree, &text, &|sql| self.parse(sql));
        let translated = match translated {
            Err(rejection) if text != sql => return Err(rejection.elsewhere()),
            other => other?,
        };
        match (translated.changed, text == sql) {
            (true, _) => self.validate_translated(&tree, translated.moment),
            (false, true) => self.validate_anew(sql),
            (false, false) => self.redirected(text, None),
        }
    }

    /// Validates what became of a statement, once it is sure that it reads as it was meant.
    fn validate_translated(
        &self,
        tree: &Value,
        moment: Option<usize>,
    ) -> Result<ValidatedStatement, Rejection> {
        let lost = |_| {
            let what = "what is PostgreSQL's in the statement cannot be put in DuckDB's words";
            Rejection::statement(what, None)
        };
        let text = match self.unparse(tree) {
            Err(Rejection::Failed(message)) => return Err(lost(message)),
            other => other?,
        };
        let read = self.parse(&text).map_err(|rejection| match rejection {
            Rejection::Syntax { message, .. } => lost(message),
            other => other.elsewhere(),
        })?;
        match same(tree, &read) {
            true => self.redirected(text, moment),
            false => Err(lost(text)),
        }
    }

    /// Validates a text that takes the place of the client's, whose positions are others.
    fn redirected(
        &self,
        text: String,
        moment: Option<usize>,
    ) -> Result<ValidatedStatement, Rejection> {
        let mut statement = self.validate_anew(&text).map_err(Rejection::elsewhere)?;
        statement.tables.iter_mut().for_each(|table| table.position = None);
        statement.parameters.retain(|name| Some(name) != moment.map(|n| n.to_string()).as_ref());
        statement.cacheable &= moment.is_none();
        statement.moment = moment;
        statement.redirected = Some(text);
        Ok(statement)
    }

    /// The text of a parse.
    pub(super) fn unparse(&self, tree: &Value) -> Result<String, Rejection> {
        let tree = serde_json::json!({"error": false, "statements": [tree]}).to_string();
        self.ask("SELECT json_deserialize_sql(?::VARCHAR::JSON)", &tree)
    }
}

/// What became of a statement.
pub(super) struct Translated {
    /// Whether it is another than it was.
    pub(super) changed: bool,
    /// The number of the parameter that is the time of the transaction.
    pub(super) moment: Option<usize>,
}

/// Rewrites the parse of a text. `parse` reads the expressions above.
///
/// # Errors
/// When it has what cannot be answered as PostgreSQL does.
pub(super) fn translate(
    tree: &mut Value,
    text: &str,
    parse: &dyn Fn(&str) -> Result<Value, Rejection>,
) -> Result<Translated, Rejection> {
    let numbers = tree["named_param_map"].as_array().into_iter().flatten();
    let numbers = numbers.filter_map(|entry| entry["key"].as_str()?.parse::<usize>().ok());
    let next = numbers.max().unwrap_or(0) + 1;
    let mut translation =
        Translation { text, parse, next, copied: 0, changed: false, has_moment: false };
    translation.walk(tree)?;
    let Translation { changed, has_moment, .. } = translation;
    Ok(Translated { changed, moment: has_moment.then_some(next) })
}

/// Whether two parses are of one meaning. VALUES are unparsed in another form, which is as good.
pub(super) fn same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| same(one, other))
        }
        (Value::Object(one), Value::Object(other)) => {
            has_values(one)
                || one.len() == other.len()
                    && one.iter().all(|(field, value)| {
                        matches!(&**field, "query_location" | "named_param_map")
                            || other.get(field).is_some_and(|other| same(value, other))
                    })
        }
        _ => one == other,
    }
}

struct Translation<'t> {
    text: &'t str,
    parse: &'t dyn Fn(&str) -> Result<Value, Rejection>,
    /// The first number that no parameter has.
    next: usize,
    copied: usize,
    changed: bool,
    has_moment: bool,
}

impl Translation<'_> {
    fn walk(&mut self, value: &mut Value) -> Result<(), Rejection> {
        match value {
            Value::Array(values) => values.iter_mut().try_for_each(|value| self.walk(value))?,
            Value::Object(map) => {
                self.mark_pattern(map);
                if let Some(Value::Array(items)) = map.get_mut("select_list") {
                    items.iter_mut().try_for_each(|item| self.column(item))?;
                }
                let others = map.iter_mut().filter(|(field, _)| *field != "select_list");
                others.map(|(_, value)| value).try_for_each(|value| self.walk(value))?;
                if let Some(mut other) = self.rewritten(map)? {
                    if let Some(alias) = map.get("alias") {
                        other["alias"] = alias.clone();
                    }
                    *value = other;
                    self.changed = true;
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// A column of an answer. One that is rewritten keeps the name that PostgreSQL gives it.
    fn column(&mut self, item: &mut Value) -> Result<(), Rejection> {
        let mut named = item.clone();
        let before = std::mem::take(&mut self.changed);
        self.walk(item)?;
        if self.changed && item["alias"] == "" {
            named.as_object_mut().into_iter().for_each(|map| self.mark_pattern(map));
            postgres::name_column(&mut named);
            let name = named["alias"].as_str().filter(|name| is_name(name));
            let name = name.or_else(|| named["column_names"][0].as_str()); // of the clock
            item["alias"] = name.unwrap_or("?column?").to_ascii_lowercase().into();
        }
        self.changed |= before;
        Ok(())
    }

    /// What stands in the text where a node is.
    fn at(&self, node: &Map<String, Value>) -> &str {
        let at = node.get("query_location").and_then(Value::as_u64);
        at.and_then(|at| self.text.get(usize::try_from(at).ok()?..)).unwrap_or_default()
    }

    /// DuckDB's parser makes the same of `~`, `SIMILAR TO` and `regexp_full_match`.
    fn mark_pattern(&self, map: &mut Map<String, Value>) {
        let of = |text: &str| match text {
            _ if text.starts_with('~') || text.starts_with("!~") => Some("~"),
            _ if starts_with_word(text, "similar") || starts_with_word(text, "not") => {
                Some("similar to")
            }
            _ => None,
        };
        let name = of(self.at(map));
        let is_not = map.get("type").is_some_and(|ty| ty == "OPERATOR_NOT");
        let node = match is_not {
            true => map.get_mut("children").and_then(|of| of.get_mut(0)?.as_object_mut()),
            false => Some(map),
        };
        if let (Some(node), Some(name)) = (node, name)
            && node.get("function_name").is_some_and(|name| name == "regexp_full_match")
            && (!is_not || node["query_location"] == u64::MAX)
        {
            node.insert("function_name".into(), name.into());
        }
    }

    /// What takes a node's place.
    fn rewritten(&mut self, map: &mut Map<String, Value>) -> Result<Option<Value>, Rejection> {
        match (text(map, "class"), text(map, "type")) {
            ("FUNCTION", _) => self.call(map),
            ("COLUMN_REF", _) => {
                let names = map["column_names"].as_array().map_or(&[][..], Vec::as_slice);
                match names {
                    [Value::String(name)] if !self.at(map).starts_with('"') => {
                        self.clock(&name.to_ascii_lowercase())
                    }
                    _ => Ok(None),
                }
            }
            ("SUBQUERY", _) => self.any_pattern(map),
            ("CAST", _) if map["cast_type"]["id"] == "LIST" => {
                self.changed |= postgres::as_list(&mut map["child"]);
                Ok(None)
            }
            _ if text(map, "id") == "UNBOUND" => {
                let name = map["type_info"]["name"].as_str().unwrap_or_default();
                Ok(postgres::text_type(name))
            }
            _ => Ok(None),
        }
    }

    fn call(&mut self, map: &mut Map<String, Value>) -> Result<Option<Value>, Rejection> {
        if !matches!(text(map, "schema"), "" | "main" | "pg_catalog") {
            return Ok(None);
        }
        let name = text(map, "function_name").to_ascii_lowercase();
        if let Some((_, renamed)) = RENAMED.iter().find(|(known, _)| *known == name) {
            map.insert("function_name".into(), (*renamed).into());
            self.changed = true;
            return Ok(None);
        }
        let position = map.get("query_location").and_then(Value::as_u64);
        let position =
            position.and_then(|at| usize::try_from(at).ok()).filter(|at| *at < self.text.len());
        let arguments = map["children"].as_array().cloned().unwrap_or_default();
        let second = arguments.get(1).and_then(literal);
        let template = match (name.as_str(), arguments.len()) {
            ("~", 2) => matching(second, "regexp_matches(_1, _2, 's')"),
            ("~*", 2) => matching(second, "regexp_matches(_1, _2, 'is')"),
            ("!~*", 2) => matching(second, "(NOT regexp_matches(_1, _2, 'is'))"),
            ("similar to", 2) => similar(second),
            ("substring" | "substr", 2) => match second {
                Some(pattern) => extracting(pattern),
                None => return Ok(None),
            },
            ("substring", 3) if second.is_some() => {
                Err("substring(text FROM pattern FOR escape) is not served".to_owned())
            }
            ("to_char", 2) => match second {
                Some(format) => {
                    to_char::to_char(format).map_err(|part| unserved("to_char", format, &part))
                }
                None => Err("to_char takes its format as a literal text".to_owned()),
            },
            ("to_date" | "to_timestamp", 2) => match second {
                Some(format) => to_char::to_date(format)
                    .map(|read| {
                        let ty = if name == "to_date" { "DATE" } else { "TIMESTAMPTZ" };
                        format!("CAST(strptime(_1, {read}) AS {ty})")
                    })
                    .map_err(|part| unserved(&name, format, &part)),
                None => Err(format!("{name} takes its format as a literal text")),
            },
            ("format", _)
                if arguments.first().and_then(literal).is_some_and(|form| form.contains("%s")) =>
            {
                Err("format with %s is not served: write ||".to_owned())
            }
            ("age", 1) => {
                let Some(today) = self.clock("current_date")? else { return Ok(None) };
                let whole = "age(CAST(_2 AS TIMESTAMP), _1)";
                return self.expression(whole, &[arguments[0].clone(), today]).map(Some);
            }
            (_, 0) if CLOCK.iter().any(|(known, _)| *known == name) => return self.clock(&name),
            (_, count) => match CALLS.iter().find(|known| known.0 == name && known.1 == count) {
                Some((.., template)) => Ok((*template).to_owned()),
                None => return Ok(None),
            },
        };
        let template = template.map_err(|why| Rejection::statement(why, position))?;
        self.expression(&template, &arguments).map(Some)
    }

    fn clock(&mut self, name: &str) -> Result<Option<Value>, Rejection> {
        let Some((_, ty)) = CLOCK.iter().find(|(known, _)| *known == name) else { return Ok(None) };
        self.has_moment = true;
        self.changed = true;
        let moment = format!("make_timestamptz(CAST(${} AS BIGINT))", self.next);
        let template = match *ty {
            "TIMESTAMPTZ" => moment,
            "TIME" => format!("CAST(CAST({moment} AS TIMESTAMP) AS TIME)"),
            ty => format!("CAST({moment} AS {ty})"),
        };
        self.expression(&template, &[]).map(Some)
    }

    /// `x LIKE ANY (…)`, as [`spelling`] has spelled it.
    fn any_pattern(&mut self, map: &mut Map<String, Value>) -> Result<Option<Value>, Rejection> {
        let marked = map.get_mut("subquery");
        let marked = marked.and_then(|of| of.pointer_mut("/node/select_list/0/children/0"));
        let Some(marked) = marked else { return Ok(None) };
        let name = marked["function_name"].as_str().unwrap_or_default().to_owned();
        let Some((like, which)) =
            name.strip_prefix("martd_").and_then(|name| name.rsplit_once('_'))
        else {
            return Ok(None);
        };
        let operator = match like {
            "like" => "LIKE",
            "ilike" => "ILIKE",
            "not_like" => "NOT LIKE",
            "not_ilike" => "NOT ILIKE",
            _ => return Ok(None),
        };
        let list = marked["children"][0].take();
        let mut arguments = vec![map["child"].take()];
        let (joined, none, some) = match which {
            "all" => (" AND ", "true", "false"),
            _ => (" OR ", "false", "true"),
        };
        if let Some(items) = items(&list) {
            arguments.extend(items);
            let each = (2..=arguments.len()).map(|number| format!("(_1 {operator} _{number})"));
            let each: Vec<String> = each.collect();
            let template = if each.is_empty() { none.to_owned() } else { each.join(joined) };
            return self.expression(&format!("({template})"), &arguments).map(Some);
        }
        arguments.push(list);
        let template = format!(
            "CASE WHEN CAST(_2 AS VARCHAR[]) IS NULL THEN NULL ELSE list_transform([list_transform(CAST(_2 AS VARCHAR[]), \
             lambda martd_p: _1 {operator} martd_p)], lambda martd_m: CASE \
             WHEN list_contains(martd_m, {some}) THEN {some} \
             WHEN len(martd_m) > list_count(martd_m) THEN NULL ELSE {none} END)[1] END"
        );
        self.expression(&template, &arguments).map(Some)
    }

    /// An expression, with these in the places of `_1`, `_2`…
    fn expression(&mut self, sql: &str, arguments: &[Value]) -> Result<Value, Rejection> {
        let mut tree = (self.parse)(&format!("SELECT {sql}"))?;
        let mut expression = tree["node"]["select_list"][0].take();
        self.fill(&mut expression, arguments)?;
        Ok(expression)
    }

    fn fill(&mut self, value: &mut Value, arguments: &[Value]) -> Result<(), Rejection> {
        let name = value["column_names"][0].as_str().and_then(|name| name.strip_prefix('_'));
        let number = name.and_then(|number| number.parse::<usize>().ok());
        if let Some(argument) = number.and_then(|number| arguments.get(number.checked_sub(1)?)) {
            self.copied += nodes(argument);
            if self.copied > MAX_COPIED_NODES {
                reject!(
                    None,
                    "the statement grows too large when functions of PostgreSQL's are expanded; nest \
                     them less"
                );
            }
            *value = argument.clone();
            return Ok(());
        }
        match value {
            Value::Array(values) => {
                values.iter_mut().try_for_each(|value| self.fill(value, arguments))
            }
            Value::Object(map) => {
                map.values_mut().try_for_each(|value| self.fill(value, arguments))
            }
            _ => Ok(()),
        }
    }
}

/// Whether a node reads VALUES.
fn has_values(node: &Map<String, Value>) -> bool {
    node.get("type").is_some_and(|ty| ty == "EXPRESSION_LIST")
        || node.get("from_table").is_some_and(|from| from["type"] == "EXPRESSION_LIST")
}

fn nodes(value: &Value) -> usize {
    match value {
        Value::Array(values) => values.iter().map(nodes).sum(),
        Value::Object(map) => {
            usize::from(map.contains_key("class")) + map.values().map(nodes).sum::<usize>()
        }
        _ => 0,
    }
}

/// Whether it is none of an operator.
fn is_name(name: &str) -> bool {
    name.chars().all(|char| char.is_alphanumeric() || char == '_') && !name.is_empty()
}

fn starts_with_word(text: &str, word: &str) -> bool {
    text.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word))
}

/// A text that is written out, perhaps with a cast to text.
fn literal(value: &Value) -> Option<&str> {
    match value["class"].as_str()? {
        "CONSTANT" => value["value"]["value"].as_str(),
        "CAST" if value["cast_type"]["id"] == "VARCHAR" => literal(&value["child"]),
        _ => None,
    }
}

fn unserved(function: &str, format: &str, part: &str) -> String {
    format!("{function} does not serve {part:?} of the format {format:?}")
}
