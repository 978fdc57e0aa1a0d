//! PostgreSQL's regular expressions and `SIMILAR TO`, as expressions of DuckDB's over `_1` and `_2`.

use serde_json::Value;

use crate::duck::quote_literal;

/// A regular expression that is PostgreSQL's: what DuckDB reads in another way is refused; what it cannot read
/// is an error of its own.
pub(super) fn matching(pattern: Option<&str>, template: &str) -> Result<String, String> {
    let other = ["\\b", "\\B", "(?", "***"];
    let pattern = pattern.map(|pattern| pattern.replace("(?:", "("));
    match pattern.and_then(|pattern| other.iter().find(|other| pattern.contains(**other))) {
        Some(other) => {
            Err(format!("{other:?} in a regular expression means another thing to PostgreSQL"))
        }
        None => Ok(template.to_owned()),
    }
}

/// The part of a text that a regular expression matches: of its first group, if it has one. PostgreSQL takes
/// the longest of several ways to match, DuckDB the first, so there must be one alone.
pub(super) fn extracting(pattern: &str) -> Result<String, String> {
    matching(Some(pattern), "")?;
    let bytes = pattern.as_bytes();
    let (mut groups, mut in_class, mut at) = (0, false, 0);
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 1,
            b'[' => in_class = true,
            b']' => in_class = false,
            b'(' if !in_class => groups += usize::from(!bytes[at..].starts_with(b"(?:")),
            b'|' if !in_class => return Err("substring with alternatives is not served".to_owned()),
            b'?' if !in_class && at > 0 && matches!(bytes[at - 1], b'*' | b'+' | b'?' | b'}') => {
                return Err("substring with a pattern that is not greedy is not served".to_owned());
            }
            b')' if !in_class && matches!(bytes.get(at + 1), Some(b'*' | b'+' | b'?' | b'{')) => {
                return Err("substring with a group that is repeated is not served".to_owned());
            }
            _ => {}
        }
        at += 1;
    }
    let group = groups.min(1);
    Ok(format!(
        "CASE WHEN regexp_matches(_1, _2, 's') THEN regexp_extract(_1, _2, {group}, 's') END"
    ))
}

/// `SIMILAR TO`, whose patterns are neither LIKE's nor regular expressions.
pub(super) fn similar(pattern: Option<&str>) -> Result<String, String> {
    let Some(pattern) = pattern else {
        return Err("SIMILAR TO takes its pattern as a literal text".to_owned());
    };
    if pattern.contains(['\\', '[', '"']) {
        return Err("SIMILAR TO with classes or escapes is not served".to_owned());
    }
    let read = pattern.chars().fold(String::new(), |mut read, char| {
        match char {
            '%' => read.push_str(".*"),
            '_' => read.push('.'),
            '.' | '^' | '$' => read.extend(['\\', char]),
            char => read.push(char),
        }
        read
    });
    Ok(format!("regexp_full_match(_1, {}, 's')", quote_literal(&read)))
}

/// The items of a list that is written out.
pub(super) fn items(list: &Value) -> Option<Vec<Value>> {
    match list["class"].as_str()? {
        "OPERATOR" if list["type"] == "ARRAY_CONSTRUCTOR" => list["children"].as_array().cloned(),
        "CAST" if list["cast_type"]["id"] == "LIST" => items(&list["child"]),
        "CONSTANT" => {
            let text = list["value"]["value"].as_str()?.trim();
            let text = text.strip_prefix('{')?.strip_suffix('}')?;
            if text.contains(['"', '\\', '{']) || text.to_ascii_lowercase().contains("null") {
                return None;
            }
            let item = |item: &str| {
                let mut value = list.clone();
                value["value"]["value"] = item.trim().into();
                value
            };
            Some(if text.trim().is_empty() {
                Vec::new()
            } else {
                text.split(',').map(item).collect()
            })
        }
        _ => None,
    }
}
