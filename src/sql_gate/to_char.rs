//! The formats of PostgreSQL's `to_char`, `to_date` and `to_timestamp`, as expressions of DuckDB's over `_1`.
//!
//! A format is read as PostgreSQL reads it, the longest pattern first. What DuckDB does not write in the very
//! same way is refused by the part that it is in: an answer is PostgreSQL's, or there is none.

use crate::duck::quote_literal;

/// What a format comes to, or the part of it that is not served.
type Read<T> = Result<T, String>;

/// PostgreSQL's patterns of dates, the longer before what they begin with. In lower case they mean the same,
/// but where letters are written.
const PATTERNS: &[&str] = &[
    "A.D.", "A.M.", "AD", "AM", "B.C.", "BC", "CC", "DAY", "DDD", "DD", "DY", "Day", "Dy", "D",
    "FF1", "FF2", "FF3", "FF4", "FF5", "FF6", "FX", "HH24", "HH12", "HH", "IDDD", "ID", "IW",
    "IYYY", "IYY", "IY", "I", "J", "MI", "MM", "MONTH", "MON", "MS", "Month", "Mon", "OF", "P.M.",
    "PM", "Q", "RM", "SSSSS", "SSSS", "SS", "TZH", "TZM", "TZ", "US", "WW", "W", "Y,YYY", "YYYY",
    "YYY", "YY", "Y",
];

/// A part of a format.
enum Part {
    Text(String),
    Pattern {
        /// In upper case, where that means the same.
        name: String,
        /// `FM`: without zeros and blanks that fill it.
        bare: bool,
        lower: bool,
    },
}

fn parts(format: &str) -> Read<Vec<Part>> {
    let mut parts = Vec::new();
    let (mut rest, mut bare) = (format, false);
    while let Some(next) = rest.chars().next() {
        if let Some(after) = rest.strip_prefix("FM").or_else(|| rest.strip_prefix("fm")) {
            (rest, bare) = (after, true);
            continue;
        }
        let lowered = |pattern: &&&str| rest.starts_with(&pattern.to_ascii_lowercase());
        let found = PATTERNS.iter().find(|pattern| rest.starts_with(**pattern));
        let (found, lower) = match found {
            Some(found) => (Some(found), false),
            None => (PATTERNS.iter().find(lowered), true),
        };
        if let Some(found) = found {
            let after = &rest[found.len()..];
            if after
                .get(..2)
                .is_some_and(|next| ["TH", "SP"].contains(&&*next.to_ascii_uppercase()))
            {
                return Err(rest[..found.len() + 2].to_owned());
            }
            parts.push(Part::Pattern { name: (*found).to_owned(), bare, lower });
            (rest, bare) = (after, false);
        } else if let Some(quoted) = rest.strip_prefix('"') {
            let (text, after) = quoted.split_once('"').ok_or("a quote that is not closed")?;
            if text.contains('\\') {
                return Err("\\".to_owned());
            }
            parts.push(Part::Text(text.to_owned()));
            rest = after;
        } else if next.is_ascii_alphabetic() || next == '\\' || bare {
            return Err(next.to_string());
        } else {
            parts.push(Part::Text(next.to_string()));
            rest = &rest[next.len_utf8()..];
        }
    }
    Ok(parts)
}

/// `to_char(_1, format)`.
pub(super) fn to_char(format: &str) -> Read<String> {
    let is_numbers = format.trim_start_matches("FM").chars().all(|char| "90,.GD".contains(char));
    if format.contains('9') || is_numbers && format.contains('0') {
        of_number(format)
    } else {
        of_date(format)
    }
}

fn of_date(format: &str) -> Read<String> {
    let mut pieces: Vec<String> = Vec::new();
    let mut plain = String::new();
    for part in parts(format)? {
        let piece = match &part {
            Part::Text(text) => {
                plain.push_str(&text.replace('%', "%%"));
                continue;
            }
            Part::Pattern { name, bare, lower } => match specifier(name, *bare, *lower) {
                Some(specifier) => {
                    plain.push_str(specifier);
                    continue;
                }
                None => expression(name, *bare, *lower).ok_or_else(|| name.clone())?,
            },
        };
        if !plain.is_empty() {
            pieces.push(format!("strftime(_1, {})", quote_literal(&std::mem::take(&mut plain))));
        }
        pieces.push(piece);
    }
    if !plain.is_empty() || pieces.is_empty() {
        pieces.push(format!("strftime(_1, {})", quote_literal(&plain)));
    }
    Ok(format!("({})", pieces.join(" || ")))
}

/// What `strftime` has for a pattern.
fn specifier(pattern: &str, bare: bool, lower: bool) -> Option<&'static str> {
    Some(match (pattern, bare) {
        ("YYYY", false) => "%Y",
        ("YY", false) => "%y",
        ("IYYY", false) => "%G",
        ("MM", false) => "%m",
        ("MM", true) => "%-m",
        ("DD", false) => "%d",
        ("DD", true) => "%-d",
        ("DDD", false) => "%j",
        ("DDD", true) => "%-j",
        ("HH24", false) => "%H",
        ("HH24", true) => "%-H",
        ("HH" | "HH12", false) => "%I",
        ("HH" | "HH12", true) => "%-I",
        ("MI", false) => "%M",
        ("MI", true) => "%-M",
        ("SS", false) => "%S",
        ("SS", true) => "%-S",
        ("MS" | "FF3", false) => "%g",
        ("US" | "FF6", false) => "%f",
        ("IW", false) => "%V",
        ("ID", _) => "%u",
        ("Mon", _) if !lower => "%b",
        ("Dy", _) if !lower => "%a",
        ("Month", true) if !lower => "%B",
        ("Day", true) if !lower => "%A",
        ("AM" | "PM", _) if !lower => "%p",
        _ => return None,
    })
}

/// What is written with more than `strftime`.
fn expression(pattern: &str, bare: bool, lower: bool) -> Option<String> {
    let case = if lower { "lower" } else { "upper" };
    let filled = |text: String| if bare { text } else { format!("rpad({text}, 9, ' ')") };
    Some(match pattern {
        "MONTH" => filled(format!("{case}(strftime(_1, '%B'))")),
        "DAY" => filled(format!("{case}(strftime(_1, '%A'))")),
        "Month" if !lower => filled("strftime(_1, '%B')".to_owned()),
        "Day" if !lower => filled("strftime(_1, '%A')".to_owned()),
        "MON" => format!("{case}(strftime(_1, '%b'))"),
        "DY" => format!("{case}(strftime(_1, '%a'))"),
        "AM" | "PM" if lower => "lower(strftime(_1, '%p'))".to_owned(),
        "YYYY" if bare => "ltrim(strftime(_1, '%Y'), '0')".to_owned(),
        "YYY" | "Y" if !bare => format!("right(strftime(_1, '%Y'), {})", pattern.len()),
        "IYY" | "IY" | "I" if !bare => format!("right(strftime(_1, '%G'), {})", pattern.len()),
        "IW" => "CAST(week(_1) AS VARCHAR)".to_owned(),
        "Q" => "CAST(quarter(_1) AS VARCHAR)".to_owned(),
        "D" => "CAST(dayofweek(_1) + 1 AS VARCHAR)".to_owned(),
        "W" => "CAST((day(_1) - 1) // 7 + 1 AS VARCHAR)".to_owned(),
        "WW" => match bare {
            true => "CAST((dayofyear(_1) - 1) // 7 + 1 AS VARCHAR)".to_owned(),
            false => "lpad(CAST((dayofyear(_1) - 1) // 7 + 1 AS VARCHAR), 2, '0')".to_owned(),
        },
        _ => return None,
    })
}

/// The format of `strptime` that reads what a format describes.
pub(super) fn to_date(format: &str) -> Read<String> {
    let (mut read, mut has_year, mut noon, mut has_12) = (String::new(), false, false, false);
    for part in parts(format)? {
        match part {
            Part::Text(text) => read.push_str(&text.replace('%', "%%")),
            Part::Pattern { name, bare, .. } => {
                has_year |= name == "YYYY";
                noon |= name == "AM" || name == "PM";
                has_12 |= name == "HH" || name == "HH12";
                read.push_str(match name.to_ascii_uppercase().as_str() {
                    "MON" => "%b",
                    "MONTH" => "%B",
                    "AM" | "PM" => "%p",
                    "MS" | "US" if !bare => "%f",
                    "YYYY" | "MM" | "DD" | "HH24" | "HH" | "HH12" | "MI" | "SS" => {
                        specifier(&name, false, false).unwrap_or_default()
                    }
                    _ => return Err(name),
                });
            }
        }
    }
    match has_year && has_12 <= noon {
        true => Ok(quote_literal(&read)),
        false => Err(format.to_owned()),
    }
}

/// An expression that is an error once it is looked at, and the same one each time, unlike `error()`.
fn failing(why: &str) -> String {
    format!("CAST(CAST('{why}' AS INTEGER) AS VARCHAR)")
}

/// Digits, with commas for every three and a point.
fn of_number(format: &str) -> Read<String> {
    let (bare, format) = match format.strip_prefix("FM") {
        Some(rest) => (true, rest),
        None => (false, format),
    };
    let plain = format.replace('G', ",").replace('D', ".");
    let (whole, fraction) = plain.split_once('.').unwrap_or((&plain, ""));
    let digits = whole.replace(',', "");
    let grouped: String =
        digits.chars().rev().enumerate().fold(String::new(), |text, (at, digit)| {
            let comma = if at > 0 && at % 3 == 0 { "," } else { "" };
            format!("{digit}{comma}{text}")
        });
    let has_commas = whole.contains(',');
    if plain.contains(|char| !"90,.".contains(char))
        || digits.is_empty()
        || plain.ends_with('.')
        || fraction.contains([',', '.'])
        || has_commas && whole != grouped
        || digits.len() + fraction.len() > 30
    {
        return Err(format.to_owned());
    }
    let places = fraction.len();
    let zeros = digits.find('0').map_or(0, |first| digits.len() - first);
    let zeros = if places == 0 { zeros.max(1) } else { zeros };
    let text = format!(
        "CASE typeof(_1) WHEN 'DOUBLE' THEN CASE WHEN NOT isfinite(CAST(_1 AS DOUBLE)) THEN \
         {} ELSE format('{{:.{places}f}}', CAST(_1 AS DOUBLE)) END \
         WHEN 'FLOAT' THEN {} ELSE CAST(CAST(_1 AS DECIMAL(38, {places})) AS VARCHAR) END",
        failing("to_char of a number that is not finite"),
        failing("to_char of a FLOAT: cast it to DOUBLE"),
    );
    let whole_digits = "regexp_extract(martd_n, '^-?0*(\\d*)', 1)";
    let mut body = whole_digits.to_owned();
    if zeros > 0 {
        body = format!("(repeat('0', greatest({zeros} - length({body}), 0)) || {body})");
    }
    if has_commas {
        body = format!(
            "reverse(rtrim(regexp_replace(reverse({body}), '(\\d\\d\\d)', '\\1,', 'g'), ','))"
        );
    }
    if places > 0 {
        let kept = fraction.rfind('0').map_or(0, |last| last + 1);
        if bare && zeros == 0 && kept == 0 {
            // A point does not stand alone.
            body = format!("CASE WHEN regexp_matches(martd_n, '[1-9]') THEN {body} ELSE '0' END");
        }
        let shown = match bare {
            true => format!(
                "left(right(martd_n, {places}), {kept}) || rtrim(substr(right(martd_n, {places}), {}), '0')",
                kept + 1
            ),
            false => format!("right(martd_n, {places})"),
        };
        body = format!("({body} || '.' || {shown})");
    }
    let positive = if bare { "" } else { " " };
    body =
        format!("(CASE WHEN starts_with(martd_n, '-') THEN '-' ELSE '{positive}' END || {body})");
    let fill = plain.replace(['9', '0'], "#");
    if !bare {
        body = format!("lpad({body}, {}, ' ')", plain.len() + 1);
    }
    let over =
        format!("(CASE WHEN starts_with(martd_n, '-') THEN '-' ELSE '{positive}' END || '{fill}')");
    Ok(format!(
        "list_transform([{text}], lambda martd_n: \
         CASE WHEN length({whole_digits}) > {} THEN {over} ELSE {body} END)[1]",
        digits.len()
    ))
}
