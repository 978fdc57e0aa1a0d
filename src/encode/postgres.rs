//! Rows as messages of the PostgreSQL protocol: one `RowDescription`, then a `DataRow` each, every value as
//! text or in PostgreSQL's binary form.
//!
//! A type that PostgreSQL has not is sent as one that holds all of its values: the larger integers as
//! NUMERIC, MAP, STRUCT, UNION and lists of lists as JSON, an ENUM as text. Nanoseconds are cut to
//! microseconds, the finest that PostgreSQL has.

use super::text::{self, Infinity};
use super::{EncodeError, json};
use crate::duck::{Chunk, RawHugeInt, RawInterval, RawListEntry, ResultColumn, Type, Vector};

/// From 1970-01-01 to 2000-01-01, from where PostgreSQL counts.
const EPOCH_DAYS: i32 = 10_957;
const EPOCH_MICROS: i64 = EPOCH_DAYS as i64 * 86_400_000_000;
/// What `TIME WITH TIME ZONE` counts its offset down from, in seconds.
const TIME_TZ_MAX_OFFSET: i32 = 16 * 3600 - 1;

/// PostgreSQL's number of a type, that of arrays of it, and its size (-1 when it varies).
struct TypeIds(u32, u32, i16);

fn known(ty: &Type) -> TypeIds {
    match ty {
        Type::Boolean => TypeIds(16, 1000, 1),
        Type::TinyInt | Type::UTinyInt | Type::SmallInt => TypeIds(21, 1005, 2),
        Type::USmallInt | Type::Integer => TypeIds(23, 1007, 4),
        Type::UInteger | Type::BigInt => TypeIds(20, 1016, 8),
        Type::Float => TypeIds(700, 1021, 4),
        Type::Double => TypeIds(701, 1022, 8),
        Type::UBigInt | Type::HugeInt | Type::UHugeInt | Type::Bignum | Type::Decimal { .. } => {
            TypeIds(1700, 1231, -1)
        }
        Type::Blob | Type::Geometry => TypeIds(17, 1001, -1),
        Type::Bit => TypeIds(1562, 1563, -1),
        Type::Uuid => TypeIds(2950, 2951, 16),
        Type::Date => TypeIds(1082, 1182, 4),
        Type::Time | Type::TimeNs => TypeIds(1083, 1183, 8),
        Type::TimeTz => TypeIds(1266, 1270, 12),
        Type::Timestamp | Type::TimestampS | Type::TimestampMs | Type::TimestampNs => {
            TypeIds(1114, 1115, 8)
        }
        Type::TimestampTz => TypeIds(1184, 1185, 8),
        Type::Interval => TypeIds(1186, 1187, 16),
        Type::List(child) | Type::Array(child, _) => match known(child) {
            TypeIds(element, array, _) if array != 0 && element != JSON => TypeIds(array, 0, -1),
            _ => TypeIds(JSON, 199, -1),
        },
        Type::Json | Type::Map(..) | Type::Struct(_) | Type::Union(_) => TypeIds(JSON, 199, -1),
        Type::Varchar | Type::Enum(_) | Type::Null | Type::Unsupported(_) => TypeIds(25, 1009, -1),
    }
}

const JSON: u32 = 114;

/// How an answer's values are written.
#[derive(Debug, Clone, Copy, Default)]
pub struct Form<'a> {
    /// Which columns are in binary form: none, one for all, or one for each.
    pub binary: &'a [bool],
    /// Whether the larger integers are numbers of a catalog's objects. Some clients take those for nothing
    /// else.
    pub oids: bool,
}

/// What values of a type are sent as, where larger integers are numbers of objects.
fn known_of(ty: &Type, oids: bool) -> TypeIds {
    match known(ty) {
        TypeIds(20, ..) if oids => TypeIds(26, 1028, 4),
        TypeIds(1016, ..) if oids => TypeIds(1028, 0, -1),
        other => other,
    }
}

/// As what values of a type are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SentAs {
    /// PostgreSQL's number of the type.
    pub oid: u32,
    /// Its size in bytes; -1 when it varies.
    pub size: i16,
    /// The digits of a NUMERIC; -1 of other types.
    pub modifier: i32,
}

/// As what values of a type are sent; see [`Form::oids`].
pub fn sent_as(ty: &Type, oids: bool) -> SentAs {
    let TypeIds(oid, _, size) = known_of(ty, oids);
    let modifier = match ty {
        Type::Decimal { width, scale } => (i32::from(*width) << 16 | i32::from(*scale)) + 4,
        _ => -1,
    };
    SentAs { oid, size, modifier }
}

/// Writes a `RowDescription`.
///
/// # Errors
/// When there are more columns than the protocol can count.
pub fn describe(
    out: &mut Vec<u8>,
    columns: &[ResultColumn],
    form: Form<'_>,
) -> Result<(), EncodeError> {
    let count = i16::try_from(columns.len())
        .map_err(|_| EncodeError::NoSuchType("more than 32,767 columns".to_owned()))?;
    message(out, b'T', |out| {
        out.extend_from_slice(&count.to_be_bytes());
        for (index, ResultColumn { name, ty }) in columns.iter().enumerate() {
            let SentAs { oid, size, modifier } = sent_as(ty, form.oids);
            out.extend(name.bytes().filter(|byte| *byte != 0));
            out.push(0);
            out.extend_from_slice(&[0; 6]); // no table, no column of one
            out.extend_from_slice(&oid.to_be_bytes());
            out.extend_from_slice(&size.to_be_bytes());
            out.extend_from_slice(&modifier.to_be_bytes());
            out.extend_from_slice(&i16::from(is_binary(form.binary, index)).to_be_bytes());
        }
    });
    Ok(())
}

/// One code is for all columns, none means text.
fn is_binary(binary: &[bool], column: usize) -> bool {
    match binary {
        [all] => *all,
        each => each.get(column).copied().unwrap_or(false),
    }
}

/// Writes a message: its type, its length, and what `body` writes.
fn message(out: &mut Vec<u8>, kind: u8, body: impl FnOnce(&mut Vec<u8>)) {
    out.push(kind);
    counted(out, 4, body);
}

/// Writes the length of what `body` writes, and `own` more, before it.
fn counted(out: &mut Vec<u8>, own: usize, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    body(out);
    // No value is as large as the protocol's limit: DuckDB's own is 4 GiB, an engine's memory less.
    let length = i32::try_from(out.len() - start - 4 + own).unwrap_or(i32::MAX);
    out[start..start + 4].copy_from_slice(&length.to_be_bytes());
}

/// Writes one answer's rows.
#[derive(Debug)]
pub(super) struct PostgresWriter {
    columns: Vec<(Type, bool)>,
    oids: bool,
}

impl PostgresWriter {
    pub(super) fn begin(
        out: &mut Vec<u8>,
        columns: &[ResultColumn],
        form: Form<'_>,
    ) -> Result<Self, EncodeError> {
        describe(out, columns, form)?;
        let each = columns.iter().enumerate();
        let columns =
            each.map(|(index, column)| (column.ty.clone(), is_binary(form.binary, index)));
        Ok(Self { columns: columns.collect(), oids: form.oids })
    }

    pub(super) fn chunk(&self, out: &mut Vec<u8>, chunk: &Chunk, rows: usize) {
        let vectors = chunk.columns();
        for row in 0..rows {
            message(out, b'D', |out| {
                out.extend_from_slice(&(self.columns.len() as i16).to_be_bytes());
                for ((ty, binary), vector) in self.columns.iter().zip(&vectors) {
                    let binary = binary.then_some(self.oids);
                    field(out, ty, binary, vector, row);
                }
            });
        }
    }
}

/// A value after its length; a NULL has the length -1. `binary` is for binary form, with [`Form::oids`] or
/// without.
fn field(out: &mut Vec<u8>, ty: &Type, binary: Option<bool>, vector: &Vector<'_>, row: usize) {
    if vector.is_null(row) {
        out.extend_from_slice(&(-1_i32).to_be_bytes());
        return;
    }
    counted(out, 0, |out| match binary {
        Some(oids) => write_binary(out, ty, oids, vector, row),
        None => write_text(out, ty, vector, row),
    });
}

/// An integer of any width that fits into 64 bits.
fn integer(ty: &Type, vector: &Vector<'_>, row: usize) -> Option<i64> {
    Some(match ty {
        Type::TinyInt => vector.values::<i8>()[row].into(),
        Type::UTinyInt => vector.values::<u8>()[row].into(),
        Type::SmallInt => vector.values::<i16>()[row].into(),
        Type::USmallInt => vector.values::<u16>()[row].into(),
        Type::Integer => vector.values::<i32>()[row].into(),
        Type::UInteger => vector.values::<u32>()[row].into(),
        Type::BigInt => vector.values::<i64>()[row],
        _ => return None,
    })
}

fn write_text(out: &mut Vec<u8>, ty: &Type, vector: &Vector<'_>, row: usize) {
    match ty {
        Type::Boolean => out.push(if vector.values::<u8>()[row] == 0 { b'f' } else { b't' }),
        Type::Float => float(out, vector.values::<f32>()[row].into(), ty, vector, row),
        Type::Double => float(out, vector.values::<f64>()[row], ty, vector, row),
        Type::Varchar | Type::Json => out.extend_from_slice(vector.bytes(row)),
        Type::Enum(names) => {
            out.extend_from_slice(names[vector.enum_index(row, names.len())].as_bytes());
        }
        Type::Blob | Type::Geometry => {
            out.extend_from_slice(b"\\x");
            for byte in vector.bytes(row) {
                out.extend_from_slice(format!("{byte:02x}").as_bytes());
            }
        }
        Type::Interval => interval(out, vector.values::<RawInterval>()[row]),
        Type::List(_) | Type::Array(..) if known(ty).0 != JSON => {
            let (child, elements) = elements(ty, vector, row);
            let bare = integer_like(child);
            out.push(b'{');
            for (nth, index) in elements.1.enumerate() {
                if nth > 0 {
                    out.push(b',');
                }
                if elements.0.is_null(index) {
                    out.extend_from_slice(b"NULL");
                } else if bare {
                    write_text(out, child, &elements.0, index);
                } else {
                    let mut text = Vec::new();
                    write_text(&mut text, child, &elements.0, index);
                    quote(out, &text);
                }
            }
            out.push(b'}');
        }
        _ => {
            let start = out.len();
            match text::spell(out, ty, vector, row) {
                Some(Ok(())) => respell(out, start, ty),
                Some(Err(Infinity::After)) => out.extend_from_slice(b"infinity"),
                Some(Err(Infinity::Before)) => out.extend_from_slice(b"-infinity"),
                None => json::value(out, ty, vector, row), // numbers, and what is sent as JSON
            }
        }
    }
}

/// Whether texts of a type never need quotes in an array.
fn integer_like(ty: &Type) -> bool {
    matches!(known(ty), TypeIds(16 | 20 | 21 | 23 | 700 | 701 | 1700, ..))
}

fn quote(out: &mut Vec<u8>, text: &[u8]) {
    out.push(b'"');
    for byte in text {
        if matches!(byte, b'"' | b'\\') {
            out.push(b'\\');
        }
        out.push(*byte);
    }
    out.push(b'"');
}

fn float(out: &mut Vec<u8>, number: f64, ty: &Type, vector: &Vector<'_>, row: usize) {
    if number.is_finite() {
        json::value(out, ty, vector, row);
    } else if number.is_nan() {
        out.extend_from_slice(b"NaN");
    } else {
        out.extend_from_slice(if number > 0.0 { b"Infinity" } else { b"-Infinity" });
    }
}

/// From ISO 8601 to what PostgreSQL writes: a blank for the `T`, an offset for the `Z`, no sign before a
/// year after 9999, `BC` after one before the first, and microseconds.
fn respell(out: &mut Vec<u8>, start: usize, ty: &Type) {
    let has_date = matches!(known(ty), TypeIds(1082 | 1114 | 1184, ..));
    if !has_date && *ty != Type::TimeNs {
        return;
    }
    let mut text = String::from_utf8_lossy(&out[start..]).into_owned();
    if let (Type::TimestampNs | Type::TimeNs, Some(dot)) = (ty, text.find('.')) {
        text.truncate(text.len().min(dot + 7));
        let length = text.trim_end_matches('0').trim_end_matches('.').len();
        text.truncate(length);
    }
    let mut text = text.replace('T', " ").replace('Z', "+00");
    if text.starts_with('+') {
        text.remove(0);
    }
    let sign = usize::from(text.starts_with('-'));
    if has_date
        && (sign == 1 || text.starts_with("0000-"))
        && let Some((year, rest)) = text[sign..].split_once('-')
    {
        text = format!("{:04}-{rest} BC", year.parse::<u32>().unwrap_or(0) + 1);
    }
    out.truncate(start);
    out.extend_from_slice(text.as_bytes());
}

/// `1 year 2 mons 3 days 04:05:06.7`
fn interval(out: &mut Vec<u8>, RawInterval { months, days, micros }: RawInterval) {
    let mut words = Vec::new();
    for (count, unit) in [(months / 12, "year"), (months % 12, "mon"), (days, "day")] {
        if count != 0 {
            words.push(format!("{count} {unit}{}", if count == 1 { "" } else { "s" }));
        }
    }
    if micros != 0 || words.is_empty() {
        let (sign, micros) = (if micros < 0 { "-" } else { "" }, micros.unsigned_abs());
        let (seconds, fraction) = (micros / 1_000_000, micros % 1_000_000);
        let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
        let fraction = if fraction == 0 { String::new() } else { format!(".{fraction:06}") };
        let fraction = fraction.trim_end_matches('0');
        words.push(format!("{sign}{hours:02}:{minutes:02}:{:02}{fraction}", seconds % 60));
    }
    out.extend_from_slice(words.join(" ").as_bytes());
}

/// The type of a list's elements, and where the elements of a row are.
fn elements<'t, 'v>(
    ty: &'t Type,
    vector: &Vector<'v>,
    row: usize,
) -> (&'t Type, (Vector<'v>, std::ops::Range<usize>)) {
    match ty {
        Type::Array(child, size) => {
            (child, (vector.array_child(*size), row * size..(row + 1) * size))
        }
        Type::List(child) => {
            (child, (vector.list_child(), vector.values::<RawListEntry>()[row].range()))
        }
        other => unreachable!("{other} is no list"),
    }
}

fn write_binary(out: &mut Vec<u8>, ty: &Type, oids: bool, vector: &Vector<'_>, row: usize) {
    if let (Some(number), TypeIds(_, _, size)) = (integer(ty, vector, row), known_of(ty, oids)) {
        out.extend_from_slice(&number.to_be_bytes()[8 - size as usize..]);
        return;
    }
    let ticks = || vector.values::<i64>()[row];
    match ty {
        Type::Boolean => out.push(u8::from(vector.values::<u8>()[row] != 0)),
        Type::Float => out.extend_from_slice(&vector.values::<f32>()[row].to_be_bytes()),
        Type::Double => out.extend_from_slice(&vector.values::<f64>()[row].to_be_bytes()),
        Type::Blob | Type::Geometry => out.extend_from_slice(vector.bytes(row)),
        Type::Uuid => {
            let bits = text::uuid_bits(vector.values::<RawHugeInt>()[row].bits());
            out.extend_from_slice(&bits.to_be_bytes());
        }
        Type::Date => {
            let days = match vector.values::<i32>()[row] {
                i32::MAX => i32::MAX,
                days if days == -i32::MAX => i32::MIN,
                days => days.saturating_sub(EPOCH_DAYS),
            };
            out.extend_from_slice(&days.to_be_bytes());
        }
        Type::Time => out.extend_from_slice(&ticks().to_be_bytes()),
        Type::TimeNs => out.extend_from_slice(&(ticks() / 1_000).to_be_bytes()),
        Type::TimeTz => {
            let bits = vector.values::<u64>()[row];
            let east = TIME_TZ_MAX_OFFSET - (bits & 0xff_ffff) as i32;
            out.extend_from_slice(&(bits >> 24).to_be_bytes());
            out.extend_from_slice(&(-east).to_be_bytes());
        }
        Type::Timestamp | Type::TimestampTz => timestamp(out, ticks(), |micros| micros),
        Type::TimestampS => timestamp(out, ticks(), |s| s.saturating_mul(1_000_000)),
        Type::TimestampMs => timestamp(out, ticks(), |ms| ms.saturating_mul(1_000)),
        Type::TimestampNs => timestamp(out, ticks(), |ns| ns.div_euclid(1_000)),
        Type::Interval => {
            let RawInterval { months, days, micros } = vector.values::<RawInterval>()[row];
            out.extend_from_slice(&micros.to_be_bytes());
            out.extend_from_slice(&days.to_be_bytes());
            out.extend_from_slice(&months.to_be_bytes());
        }
        Type::Bit => {
            let mut digits = Vec::new();
            write_text(&mut digits, ty, vector, row);
            out.extend_from_slice(&(digits.len() as i32).to_be_bytes());
            out.extend(digits.chunks(8).map(|eight| {
                let bits = (0..8).zip(eight).filter(|(_, digit)| **digit == b'1');
                bits.fold(0, |byte, (bit, _)| byte | 0x80 >> bit)
            }));
        }
        Type::List(_) | Type::Array(..) if known(ty).0 != JSON => {
            let (child, (values, range)) = elements(ty, vector, row);
            let has_null = range.clone().any(|index| values.is_null(index));
            out.extend_from_slice(&i32::from(!range.is_empty()).to_be_bytes());
            out.extend_from_slice(&i32::from(has_null).to_be_bytes());
            out.extend_from_slice(&known_of(child, oids).0.to_be_bytes());
            if !range.is_empty() {
                out.extend_from_slice(&(range.len() as i32).to_be_bytes());
                out.extend_from_slice(&1_i32.to_be_bytes());
            }
            for index in range {
                field(out, child, Some(oids), &values, index);
            }
        }
        _ if known(ty).0 == 1700 => {
            let mut digits = Vec::new();
            write_text(&mut digits, ty, vector, row);
            numeric(out, &digits);
        }
        _ => write_text(out, ty, vector, row), // texts and JSON, which are the same in both forms
    }
}

fn timestamp(out: &mut Vec<u8>, ticks: i64, micros: impl Fn(i64) -> i64) {
    let since = match ticks {
        i64::MAX => i64::MAX,
        ticks if ticks == -i64::MAX => i64::MIN,
        ticks => micros(ticks).saturating_sub(EPOCH_MICROS),
    };
    out.extend_from_slice(&since.to_be_bytes());
}

/// PostgreSQL's NUMERIC from its decimal digits: groups of four around the point.
fn numeric(out: &mut Vec<u8>, text: &[u8]) {
    let (negative, text) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let point = text.iter().position(|byte| *byte == b'.').unwrap_or(text.len());
    let (whole, fraction) = (&text[..point], text.get(point + 1..).unwrap_or_default());
    let mut digits = vec![b'0'; (4 - whole.len() % 4) % 4];
    digits.extend_from_slice(whole);
    digits.extend_from_slice(fraction);
    digits.resize(digits.len().next_multiple_of(4), b'0');
    let groups: Vec<i16> = digits
        .chunks(4)
        .map(|four| four.iter().fold(0, |group, digit| group * 10 + i16::from(digit - b'0')))
        .collect();
    let zeros = groups.iter().take_while(|group| **group == 0).count();
    let end = groups.iter().rposition(|group| *group != 0).map_or(zeros, |last| last + 1);
    let weight = whole.len().div_ceil(4) as i16 - 1 - zeros as i16;
    let groups = groups.get(zeros..end).unwrap_or_default();
    let weight = if groups.is_empty() { 0 } else { weight };
    out.extend_from_slice(&(groups.len() as i16).to_be_bytes());
    out.extend_from_slice(&weight.to_be_bytes());
    out.extend_from_slice(&(if negative { 0x4000_i16 } else { 0 }).to_be_bytes());
    out.extend_from_slice(&(fraction.len() as i16).to_be_bytes());
    groups.iter().for_each(|group| out.extend_from_slice(&group.to_be_bytes()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numerics_are_groups_of_four_digits() {
        for (text, expected) in [
            ("0", [0, 0, 0, 0].as_slice()),
            ("0.00", &[0, 0, 0, 2]),
            ("12345.678", &[3, 1, 0, 3, 1, 2345, 6780]),
            ("-0.00012", &[2, -1, 0x4000, 5, 1, 2000]),
            ("100000000", &[1, 2, 0, 0, 1]),
            ("-1", &[1, 0, 0x4000, 0, 1]),
        ] {
            let mut out = Vec::new();
            numeric(&mut out, text.as_bytes());
            let words: Vec<i16> =
                out.chunks(2).map(|two| i16::from_be_bytes([two[0], two[1]])).collect();
            assert_eq!(words, expected, "{text}");
        }
    }
}
