//! Parameters as clients send them: each as text or in PostgreSQL's binary form, of a type by its number.

use std::fmt::Write as _;

use bytes::{Buf, Bytes};
use jiff::ToSpan;
use jiff::civil::{Date, date};

use super::error::PgError;
use crate::duck::{ElementType, TypeName, Value};

/// A text, or a value of a type that nobody said.
pub(super) const TEXT: u32 = 25;
/// The type of what has none.
pub(super) const UNKNOWN: u32 = 705;
const NUMERIC: u32 = 1700;
const JSON: u32 = 114;

/// Whether a value of a type that a client declares is text, and may be an array that is written out.
pub(super) fn is_text(oid: u32) -> bool {
    matches!(oid, 0 | TEXT | UNKNOWN | 1042 | 1043)
}

/// Whether a type is one of arrays, or of arrays of those, which are sent as JSON.
pub(super) fn is_list(oid: u32) -> bool {
    element(oid).is_some() || oid == JSON
}

/// DuckDB's name of the type of a parameter that the client declares; none for texts.
pub(super) fn type_name(oid: u32) -> Option<TypeName> {
    let name = match element(oid) {
        Some(element) => format!("{}[]", scalar(element).unwrap_or("VARCHAR")),
        None => scalar(oid)?.to_owned(),
    };
    name.parse().ok()
}

fn scalar(oid: u32) -> Option<&'static str> {
    Some(match oid {
        16 => "BOOLEAN",
        17 => "BLOB",
        20 | 26 => "BIGINT",
        21 => "SMALLINT",
        23 => "INTEGER",
        700 => "FLOAT",
        701 => "DOUBLE",
        1082 => "DATE",
        1083 => "TIME",
        1114 => "TIMESTAMP",
        1184 => "TIMESTAMPTZ",
        1186 => "INTERVAL",
        1266 => "TIMETZ",
        1560 | 1562 => "BIT",
        NUMERIC => "DECIMAL(38,10)",
        2950 => "UUID",
        _ => return None,
    })
}

/// The type of an array's elements.
fn element(oid: u32) -> Option<u32> {
    Some(match oid {
        1000 => 16,
        1001 => 17,
        1005 => 21,
        1007 => 23,
        1009 | 1015 => TEXT,
        1016 => 20,
        1028 => 26,
        1021 => 700,
        1022 => 701,
        1115 => 1114,
        1182 => 1082,
        1183 => 1083,
        1185 => 1184,
        1187 => 1186,
        1231 => NUMERIC,
        1270 => 1266,
        1561 => 1560,
        1563 => 1562,
        2951 => 2950,
        _ => return None,
    })
}

/// A parameter's value. `ty` is what DuckDB is to take it for.
pub(super) fn value(
    oid: u32,
    ty: Option<&TypeName>,
    binary: bool,
    bytes: Option<Bytes>,
) -> Result<Value, PgError> {
    let Some(bytes) = bytes else { return Ok(Value::Null) };
    if !binary
        && let Some(scalar) = ty.filter(|ty| ty.as_str().ends_with("[]"))
        && let Some((list, depth)) = nested(utf8(&bytes)?)
    {
        let scalar = scalar.as_str().trim_end_matches("[]");
        let ty = format!("{scalar}{}", "[]".repeat(depth)).parse();
        let ty = ty.map_err(|_| PgError::new("22P02", "a list of lists is malformed"))?;
        return Ok(Value::Varchar(list).typed(ty));
    }
    let wrong = || PgError::new("22P03", format!("a parameter of type {oid} is malformed"));
    let untyped = match element(oid) {
        Some(element) => {
            let items = match binary {
                true => binary_array(bytes).ok_or_else(wrong)?,
                false => text_array(utf8(&bytes)?).ok_or_else(wrong)?,
            };
            let item = |item: Option<Bytes>| match item {
                Some(item) => text(element, binary, item).map(Value::Varchar),
                None => Ok(Value::Null),
            };
            let values = items.into_iter().map(item).collect::<Result<_, _>>()?;
            Value::List { element: ElementType::Varchar, values }
        }
        None => Value::Varchar(text(oid, binary, bytes)?),
    };
    let exact = match &untyped {
        Value::Varchar(digits) if oid == NUMERIC => decimal(digits),
        _ => None,
    };
    Ok(match exact.as_ref().or(ty) {
        Some(ty) => untyped.typed(ty.clone()),
        None => untyped,
    })
}

/// The DECIMAL that keeps all of these digits, or a DOUBLE.
fn decimal(digits: &str) -> Option<TypeName> {
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let whole = whole.trim_start_matches('-').len();
    let plain = digits.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'-' | b'.'));
    let width = (whole + fraction.len()).max(1);
    match plain && width <= 38 {
        true => format!("DECIMAL({width},{})", fraction.len()).parse().ok(),
        false => "DOUBLE".parse().ok(),
    }
}

fn utf8(bytes: &[u8]) -> Result<&str, PgError> {
    std::str::from_utf8(bytes).map_err(|_| PgError::new("22021", "a parameter is not UTF-8"))
}

/// A value as DuckDB reads its type from text.
fn text(oid: u32, binary: bool, bytes: Bytes) -> Result<String, PgError> {
    if oid == 17 {
        let blob = match (binary, bytes.strip_prefix(b"\\x")) {
            (false, Some(digits)) => {
                let byte = |two: &[u8]| u8::from_str_radix(std::str::from_utf8(two).ok()?, 16).ok();
                let bytes: Option<Vec<u8>> = digits.chunks(2).map(byte).collect();
                bytes.ok_or_else(|| PgError::new("22P02", "a bytea is not hexadecimal"))?
            }
            _ => bytes.to_vec(),
        };
        return Ok(blob.iter().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "\\x{byte:02X}");
            text
        }));
    }
    if !binary {
        return Ok(utf8(&bytes)?.to_owned());
    }
    let malformed = || PgError::new("22P03", format!("a binary value of type {oid} is malformed"));
    if size(oid).is_some_and(|size| size != bytes.len()) {
        return Err(malformed());
    }
    let unknown = || PgError::new("0A000", format!("a binary parameter of type {oid}"));
    match oid {
        1082 | 1114 | 1184 => moment(oid, bytes)
            .ok_or_else(|| PgError::new("22008", "a date or time is out of DuckDB's range")),
        16 | 20 | 21 | 23 | 26 | 700 | 701 | 1083 | 1186 | 1266 | 1560 | 1562 | NUMERIC | 2950 => {
            of_binary(oid, bytes).ok_or_else(malformed)
        }
        0 | 18 | 19 | TEXT | JSON | UNKNOWN | 1042 | 1043 => Ok(utf8(&bytes)?.to_owned()),
        3802 => Ok(utf8(bytes.get(1..).unwrap_or_default())?.to_owned()), // after its version
        _ => Err(unknown()),
    }
}

fn of_binary(oid: u32, mut bytes: Bytes) -> Option<String> {
    Some(match oid {
        16 => (bytes.try_get_u8().ok()? != 0).to_string(),
        21 => bytes.try_get_i16().ok()?.to_string(),
        23 => bytes.try_get_i32().ok()?.to_string(),
        26 => bytes.try_get_u32().ok()?.to_string(),
        20 => bytes.try_get_i64().ok()?.to_string(),
        700 => bytes.try_get_f32().ok()?.to_string(),
        701 => bytes.try_get_f64().ok()?.to_string(),
        1083 => time(bytes.try_get_i64().ok()?),
        1186 => {
            let micros = bytes.try_get_i64().ok()?;
            let (days, months) = (bytes.try_get_i32().ok()?, bytes.try_get_i32().ok()?);
            format!("{months} months {days} days {micros} microseconds")
        }
        1266 => {
            let (time, west) = (time(bytes.try_get_i64().ok()?), bytes.try_get_i32().ok()?);
            let (sign, offset) = (if west > 0 { '-' } else { '+' }, west.unsigned_abs());
            let (hours, minutes) = (offset / 3600, offset / 60 % 60);
            format!("{time}{sign}{hours:02}:{minutes:02}:{:02}", offset % 60)
        }
        1560 | 1562 => {
            let count = usize::try_from(bytes.try_get_i32().ok()?).ok()?;
            if count.div_ceil(8) != bytes.len() {
                return None;
            }
            let bit = |at: usize| if bytes[at / 8] >> (7 - at % 8) & 1 == 1 { '1' } else { '0' };
            (0..count).map(bit).collect()
        }
        2950 => uuid::Uuid::from_slice(&bytes).ok()?.to_string(),
        _ => numeric(bytes)?,
    })
}

/// The bytes of a value of a type whose values are all as long.
fn size(oid: u32) -> Option<usize> {
    Some(match oid {
        16 => 1,
        21 => 2,
        23 | 26 | 700 | 1082 => 4,
        20 | 701 | 1083 | 1114 | 1184 => 8,
        1266 => 12,
        1186 | 2950 => 16,
        _ => return None,
    })
}

/// A date or timestamp, if DuckDB has it. PostgreSQL counts from the year 2000, DuckDB from 1970, and both are
/// infinite at the ends of their numbers.
fn moment(oid: u32, mut bytes: Bytes) -> Option<String> {
    const DAYS_TO_2000: i32 = 10_957;
    const MICROS_PER_DAY: i64 = 86_400_000_000;
    /// DuckDB's first timestamp is the beginning of a day.
    const FIRST: i64 = -(i64::MAX / MICROS_PER_DAY) * MICROS_PER_DAY;
    if oid == 1082 {
        return match bytes.try_get_i32().ok()? {
            i32::MAX => Some("infinity".to_owned()),
            i32::MIN => Some("-infinity".to_owned()),
            days => {
                let (ad, bc) = day(days);
                days.checked_add(DAYS_TO_2000)
                    .filter(|days| days.unsigned_abs() < i32::MAX as u32)?;
                Some(ad + bc)
            }
        };
    }
    match bytes.try_get_i64().ok()? {
        i64::MAX => Some("infinity".to_owned()),
        i64::MIN => Some("-infinity".to_owned()),
        micros => {
            let since_1970 = micros.checked_add(i64::from(DAYS_TO_2000) * MICROS_PER_DAY)?;
            (FIRST..i64::MAX).contains(&since_1970).then_some(())?;
            let (ad, bc) = day(i32::try_from(micros.div_euclid(MICROS_PER_DAY)).ok()?);
            let zone = if oid == 1184 { "+00" } else { "" };
            Some(format!("{ad}{bc} {}{zone}", time(micros.rem_euclid(MICROS_PER_DAY))))
        }
    }
}

/// The day so many days after the first of 2000, and what stands behind it before Christ. After 400 years the
/// calendar begins again.
fn day(days: i32) -> (String, &'static str) {
    const DAYS_IN_ERA: i32 = 146_097;
    let in_era = date(2000, 1, 1).checked_add(days.rem_euclid(DAYS_IN_ERA).days());
    let in_era = in_era.unwrap_or(Date::MAX); // never: it is a day of these 400 years
    let year = i32::from(in_era.year()) + 400 * days.div_euclid(DAYS_IN_ERA);
    let (year, bc) = if year > 0 { (year, "") } else { (1 - year, " (BC)") };
    (format!("{year:04}-{:02}-{:02}", in_era.month(), in_era.day()), bc)
}

fn time(micros: i64) -> String {
    let (seconds, fraction) = (micros / 1_000_000, micros % 1_000_000);
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    format!("{hours:02}:{minutes:02}:{:02}.{fraction:06}", seconds % 60)
}

/// Digits of groups of four around the point.
fn numeric(mut bytes: Bytes) -> Option<String> {
    let count = usize::from(bytes.try_get_u16().ok()?);
    let weight = i32::from(bytes.try_get_i16().ok()?);
    let sign = bytes.try_get_u16().ok()?;
    let scale = usize::from(bytes.try_get_u16().ok()?);
    match sign {
        0 | 0x4000 => {}
        0xd000 => return Some("inf".to_owned()),
        0xf000 => return Some("-inf".to_owned()),
        _ => return Some("nan".to_owned()),
    }
    if !(-20..=20).contains(&weight) || scale > 80 {
        return None; // more than DuckDB has digits for
    }
    let groups: Option<Vec<u16>> = (0..count).map(|_| bytes.try_get_u16().ok()).collect();
    let groups = groups.filter(|_| bytes.is_empty())?;
    let group = |power: i32| {
        let index = usize::try_from(weight - power).ok();
        index.and_then(|index| groups.get(index)).copied().unwrap_or(0)
    };
    let mut text = String::from(if sign == 0x4000 { "-" } else { "" });
    let _ = write!(text, "{}", group(weight.max(0)));
    (0..weight.max(0)).rev().for_each(|power| {
        let _ = write!(text, "{:04}", group(power));
    });
    if scale > 0 {
        let fraction = (1..=scale.div_ceil(4) as i32).fold(String::new(), |mut all, power| {
            let _ = write!(all, "{:04}", group(-power));
            all
        });
        let _ = write!(text, ".{}", fraction.get(..scale)?);
    }
    Some(text)
}

fn binary_array(mut bytes: Bytes) -> Option<Vec<Option<Bytes>>> {
    let dimensions = bytes.try_get_i32().ok()?;
    let _ = (bytes.try_get_i32().ok()?, bytes.try_get_u32().ok()?); // whether NULLs are there; their type
    if dimensions == 0 {
        return Some(Vec::new());
    }
    let count = usize::try_from(bytes.try_get_i32().ok()?).ok()?;
    let _ = bytes.try_get_i32().ok()?; // where it begins to count
    if dimensions != 1 || count > bytes.len() {
        return None;
    }
    let items: Option<Vec<_>> = (0..count)
        .map(|_| match usize::try_from(bytes.try_get_i32().ok()?) {
            Ok(length) if length <= bytes.len() => Some(Some(bytes.split_to(length))),
            Ok(_) => None,
            Err(_) => Some(None),
        })
        .collect();
    items.filter(|_| bytes.is_empty())
}

/// Lists of lists of what needs no quotes, as DuckDB writes them, and how deep they are.
fn nested(text: &str) -> Option<(String, usize)> {
    let text = text.trim();
    let depth = text.bytes().take_while(|byte| *byte == b'{').count();
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"{},.+- :".contains(&byte);
    (depth > 1 && text.bytes().all(is_plain))
        .then(|| (text.replace('{', "[").replace('}', "]"), depth))
}

/// `{a,"b, c",NULL}`
fn text_array(text: &str) -> Option<Vec<Option<Bytes>>> {
    let mut rest = text.trim().strip_prefix('{')?.strip_suffix('}')?.chars().peekable();
    let mut items = Vec::new();
    while rest.peek().is_some() {
        let quoted = rest.next_if_eq(&'"').is_some();
        let mut item = String::new();
        loop {
            match rest.next() {
                Some('\\') => item.push(rest.next()?),
                Some('"') if quoted => {
                    rest.next_if_eq(&',');
                    break;
                }
                Some(',') if !quoted => break,
                Some('{' | '}') if !quoted => return None,
                Some(char) => item.push(char),
                None if quoted => return None,
                None => break,
            }
        }
        let is_null = !quoted && item.eq_ignore_ascii_case("null");
        items.push((!is_null).then(|| Bytes::from(item)));
    }
    Some(items)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn binary_numerics_are_their_digits() {
        for (words, expected) in [
            (&[0_u16, 0, 0, 0][..], "0"),
            (&[3, 1, 0, 3, 1, 2345, 6780], "12345.678"),
            (&[1, 0xffff, 0x4000, 5, 1], "-0.00010"),
            (&[1, 2, 0, 0, 1], "100000000"),
        ] {
            let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
            assert_eq!(numeric(bytes.into()).as_deref(), Some(expected));
        }
    }

    #[test]
    fn arrays_of_text_are_their_items() {
        let items = |text: &str| {
            let items = text_array(text)?.into_iter();
            Some(items.map(|item| item.map(|item| item.to_vec())).collect::<Vec<_>>())
        };
        let item = |text: &str| Some(text.as_bytes().to_vec());
        assert_eq!(items("{}"), Some(vec![]));
        let expected = vec![item("a"), item("b, \"c"), None, item("NULL")];
        assert_eq!(items(r#"{a,"b, \"c",NULL,"NULL"}"#), Some(expected));
        assert_eq!(items("{{1},{2}}"), None);
    }
}
