//! JSON answers in ClickHouse's shape:
//! `{"meta":[{"name","type"}],"data":[{..}],"rows":n,"truncated":false,"snapshot":"..","statistics":{"elapsed":s}}`.
//!
//! Numbers keep every digit; dates and timestamps are ISO 8601; what JSON has no number for (NaN,
//! infinities) is null; a BLOB is base64, a MAP a list of `{"key","value"}`, a UNION its value.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::{text, unique_names};
use crate::engine::{Chunk, Column, RawHugeInt, RawInterval, RawListEntry, Type, Vector};

const MICROS: i64 = 1_000_000;

/// Writes one answer, piece by piece: [`begin`](Self::begin), any number of
/// [`chunk`](Self::chunk)s, [`end`](Self::end).
#[derive(Debug)]
pub struct JsonWriter {
    /// `,"name":` for each column; the first without its comma.
    keys: Vec<Vec<u8>>,
    types: Vec<Type>,
    rows: u64,
}

/// What is known at the end of an answer.
#[derive(Debug, Clone, Copy)]
pub struct Summary<'a> {
    /// Whether the statement had more rows than were asked for.
    pub truncated: bool,
    /// The id of the snapshot that answered.
    pub snapshot: &'a str,
    /// From the request's start to here.
    pub elapsed: Duration,
}

impl JsonWriter {
    /// Writes what comes before the first row.
    pub fn begin(out: &mut Vec<u8>, columns: &[Column]) -> Self {
        let names = unique_names(columns);
        out.extend_from_slice(br#"{"meta":["#);
        let mut keys = Vec::with_capacity(names.len());
        for (index, (name, column)) in names.iter().zip(columns).enumerate() {
            let comma: &[u8] = if index == 0 { b"" } else { b"," };
            out.extend_from_slice(comma);
            out.extend_from_slice(br#"{"name":"#);
            string(out, name);
            out.extend_from_slice(br#","type":"#);
            string(out, &column.ty.to_string());
            out.push(b'}');

            let mut key = comma.to_vec();
            string(&mut key, name);
            key.push(b':');
            keys.push(key);
        }
        out.extend_from_slice(br#"],"data":["#);
        Self { keys, types: columns.iter().map(|column| column.ty.clone()).collect(), rows: 0 }
    }

    /// Writes the first `rows` rows of a chunk.
    pub(crate) fn chunk(&mut self, out: &mut Vec<u8>, chunk: &Chunk, rows: usize) {
        let vectors: Vec<Vector<'_>> =
            (0..self.types.len()).map(|index| chunk.column(index)).collect();
        for row in 0..rows {
            out.extend_from_slice(if self.rows == 0 { b"{" } else { b",{" });
            for ((key, ty), vector) in self.keys.iter().zip(&self.types).zip(&vectors) {
                out.extend_from_slice(key);
                value(out, ty, vector, row);
            }
            out.push(b'}');
            self.rows += 1;
        }
    }

    /// The rows written so far.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Writes what comes after the last row.
    pub fn end(self, out: &mut Vec<u8>, summary: Summary<'_>) {
        out.extend_from_slice(
            format!(
                r#"],"rows":{},"truncated":{},"snapshot":"{}","statistics":{{"elapsed":{:.6}}}}}"#,
                self.rows,
                summary.truncated,
                summary.snapshot,
                summary.elapsed.as_secs_f64(),
            )
            .as_bytes(),
        );
    }
}

fn value(out: &mut Vec<u8>, ty: &Type, vector: &Vector<'_>, row: usize) {
    if vector.is_null(row) {
        out.extend_from_slice(b"null");
        return;
    }
    match ty {
        Type::Boolean => {
            let truth = vector.values::<u8>()[row] != 0;
            out.extend_from_slice(if truth { b"true" } else { b"false" });
        }
        Type::TinyInt => integer(out, vector.values::<i8>()[row]),
        Type::SmallInt => integer(out, vector.values::<i16>()[row]),
        Type::Integer => integer(out, vector.values::<i32>()[row]),
        Type::BigInt => integer(out, vector.values::<i64>()[row]),
        Type::HugeInt => integer(out, vector.values::<RawHugeInt>()[row].bits() as i128),
        Type::UTinyInt => integer(out, vector.values::<u8>()[row]),
        Type::USmallInt => integer(out, vector.values::<u16>()[row]),
        Type::UInteger => integer(out, vector.values::<u32>()[row]),
        Type::UBigInt => integer(out, vector.values::<u64>()[row]),
        Type::UHugeInt => integer(out, vector.values::<RawHugeInt>()[row].bits()),
        Type::Float => float(out, vector.values::<f32>()[row]),
        Type::Double => float(out, vector.values::<f64>()[row]),
        Type::Decimal { width, scale } => {
            let unscaled = match width {
                ..=4 => i128::from(vector.values::<i16>()[row]),
                5..=9 => i128::from(vector.values::<i32>()[row]),
                10..=18 => i128::from(vector.values::<i64>()[row]),
                19.. => vector.values::<RawHugeInt>()[row].bits() as i128,
            };
            text::decimal(out, unscaled, *scale);
        }
        Type::Bignum => text::bignum(out, vector.bytes(row)),
        Type::Varchar | Type::Json => {
            string(out, &String::from_utf8_lossy(vector.bytes(row)));
        }
        Type::Blob => {
            out.push(b'"');
            out.extend_from_slice(BASE64.encode(vector.bytes(row)).as_bytes());
            out.push(b'"');
        }
        Type::Enum(names) => string(out, &names[enum_index(vector, row, names.len())]),
        Type::List(child) => {
            let entry = vector.values::<RawListEntry>()[row];
            elements(out, child, &vector.list_child(), entry.offset, entry.length);
        }
        Type::Array(child, size) => {
            elements(out, child, &vector.array_child(*size), (row * size) as u64, *size as u64);
        }
        Type::Map(key, item) => {
            let entry = vector.values::<RawListEntry>()[row];
            let entries = vector.list_child();
            let (keys, items) = (entries.struct_child(0), entries.struct_child(1));
            out.push(b'[');
            for index in entry.offset..entry.offset + entry.length {
                let comma = if index == entry.offset { "" } else { "," };
                out.extend_from_slice(format!(r#"{comma}{{"key":"#).as_bytes());
                value(out, key, &keys, index as usize);
                out.extend_from_slice(br#","value":"#);
                value(out, item, &items, index as usize);
                out.push(b'}');
            }
            out.push(b']');
        }
        Type::Struct(fields) => {
            out.push(b'{');
            for (index, (name, ty)) in fields.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                string(out, name);
                out.push(b':');
                value(out, ty, &vector.struct_child(index), row);
            }
            out.push(b'}');
        }
        Type::Union(members) => {
            let tag = usize::from(vector.struct_child(0).values::<u8>()[row]);
            match members.get(tag) {
                Some((_, ty)) => value(out, ty, &vector.struct_child(tag + 1), row),
                None => out.extend_from_slice(b"null"),
            }
        }
        Type::Null | Type::Unsupported(_) => out.extend_from_slice(b"null"),
        Type::Date
        | Type::Time
        | Type::TimeNs
        | Type::TimeTz
        | Type::Timestamp
        | Type::TimestampS
        | Type::TimestampMs
        | Type::TimestampNs
        | Type::TimestampTz
        | Type::Interval
        | Type::Uuid
        | Type::Bit => quoted(out, ty, vector, row),
    }
}

/// The types whose text needs no escaping; null for what has no text (an infinite date).
fn quoted(out: &mut Vec<u8>, ty: &Type, vector: &Vector<'_>, row: usize) {
    let start = out.len();
    out.push(b'"');
    let written = match ty {
        Type::Date => text::date(out, vector.values::<i32>()[row]),
        Type::Time => {
            text::time(out, vector.values::<i64>()[row], MICROS);
            Some(())
        }
        Type::TimeNs => {
            text::time(out, vector.values::<i64>()[row], 1_000 * MICROS);
            Some(())
        }
        Type::TimeTz => {
            text::time_tz(out, vector.values::<u64>()[row]);
            Some(())
        }
        Type::Timestamp => text::timestamp(out, vector.values::<i64>()[row], MICROS),
        Type::TimestampS => text::timestamp(out, vector.values::<i64>()[row], 1),
        Type::TimestampMs => text::timestamp(out, vector.values::<i64>()[row], 1_000),
        Type::TimestampNs => text::timestamp(out, vector.values::<i64>()[row], 1_000 * MICROS),
        Type::TimestampTz => {
            text::timestamp(out, vector.values::<i64>()[row], MICROS).map(|()| out.push(b'Z'))
        }
        Type::Interval => {
            text::interval(out, vector.values::<RawInterval>()[row]);
            Some(())
        }
        Type::Uuid => {
            text::uuid(out, vector.values::<RawHugeInt>()[row].bits());
            Some(())
        }
        Type::Bit => {
            text::bit_string(out, vector.bytes(row));
            Some(())
        }
        _ => None,
    };
    if written.is_some() {
        out.push(b'"');
    } else {
        out.truncate(start);
        out.extend_from_slice(b"null");
    }
}

fn elements(out: &mut Vec<u8>, ty: &Type, child: &Vector<'_>, offset: u64, length: u64) {
    out.push(b'[');
    for index in offset..offset + length {
        if index > offset {
            out.push(b',');
        }
        value(out, ty, child, index as usize);
    }
    out.push(b']');
}

/// DuckDB stores an ENUM in the smallest unsigned integer that can count its values.
fn enum_index(vector: &Vector<'_>, row: usize, size: usize) -> usize {
    if size <= usize::from(u8::MAX) {
        usize::from(vector.values::<u8>()[row])
    } else if size <= usize::from(u16::MAX) {
        usize::from(vector.values::<u16>()[row])
    } else {
        vector.values::<u32>()[row] as usize
    }
}

fn integer(out: &mut Vec<u8>, number: impl itoa::Integer) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

fn float(out: &mut Vec<u8>, number: impl ryu::Float + Into<f64> + Copy) {
    if number.into().is_finite() {
        out.extend_from_slice(ryu::Buffer::new().format_finite(number).as_bytes());
    } else {
        out.extend_from_slice(b"null");
    }
}

fn string(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("writing to memory does not fail");
}
