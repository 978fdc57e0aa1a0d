//! JSON answers in ClickHouse's shape:
//! `{"meta":[{"name","type"}],"data":[{..}],"rows":n,"truncated":false,"snapshot":"..","statistics":{"elapsed":s}}`,
//! and newline-delimited JSON, which is the rows alone.
//!
//! Numbers keep every digit; dates and timestamps are ISO 8601; what JSON has no number for (NaN,
//! infinities) is null; a BLOB is base64, and so is a GEOMETRY (WKB); a MAP a list of `{"key","value"}`, an unnamed STRUCT a
//! list, a UNION its value.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::{Summary, text, unique_names};
use crate::duck::{Chunk, RawHugeInt, RawListEntry, ResultColumn, Type, Vector, is_unnamed};

/// Writes one JSON answer.
#[derive(Debug)]
pub(super) struct JsonWriter {
    objects: Objects,
    /// Whether a row was written, after which the next needs a comma.
    begun: bool,
}

impl JsonWriter {
    pub(super) fn begin(out: &mut Vec<u8>, columns: &[ResultColumn]) -> Self {
        let names = unique_names(columns);
        out.extend_from_slice(br#"{"meta":["#);
        for (index, (name, column)) in names.iter().zip(columns).enumerate() {
            if index > 0 {
                out.push(b',');
            }
            out.extend_from_slice(br#"{"name":"#);
            string(out, name);
            out.extend_from_slice(br#","type":"#);
            string(out, &column.ty.to_string());
            out.push(b'}');
        }
        out.extend_from_slice(br#"],"data":["#);
        Self { objects: Objects::new(&names, columns), begun: false }
    }

    pub(super) fn chunk(&mut self, out: &mut Vec<u8>, chunk: &Chunk, rows: usize) {
        let vectors = chunk.columns();
        for row in 0..rows {
            if std::mem::replace(&mut self.begun, true) {
                out.push(b',');
            }
            self.objects.write(out, &vectors, row);
        }
    }

    pub(super) fn end(self, out: &mut Vec<u8>, rows: u64, summary: Summary<'_>) {
        out.extend_from_slice(
            format!(
                r#"],"rows":{rows},"truncated":{},"snapshot":"{}","statistics":{{"elapsed":{:.6}}}}}"#,
                summary.truncated,
                summary.snapshot,
                summary.elapsed.as_secs_f64(),
            )
            .as_bytes(),
        );
    }
}

/// Writes one answer of newline-delimited JSON.
#[derive(Debug)]
pub(super) struct NdjsonWriter(Objects);

impl NdjsonWriter {
    pub(super) fn begin(columns: &[ResultColumn]) -> Self {
        Self(Objects::new(&unique_names(columns), columns))
    }

    pub(super) fn chunk(&mut self, out: &mut Vec<u8>, chunk: &Chunk, rows: usize) {
        let vectors = chunk.columns();
        for row in 0..rows {
            self.0.write(out, &vectors, row);
            out.push(b'\n');
        }
    }
}

/// Rows as objects.
#[derive(Debug)]
struct Objects {
    columns: Vec<(Key, Type)>,
}

impl Objects {
    fn new(names: &[String], columns: &[ResultColumn]) -> Self {
        let keys = names.iter().enumerate().map(|(index, name)| Key::new(name, index == 0));
        let types = columns.iter().map(|column| column.ty.clone());
        Self { columns: keys.zip(types).collect() }
    }

    fn write(&self, out: &mut Vec<u8>, vectors: &[Vector<'_>], row: usize) {
        out.push(b'{');
        for ((key, ty), vector) in self.columns.iter().zip(vectors) {
            key.write(out);
            value(out, ty, vector, row);
        }
        out.push(b'}');
    }
}

/// `,"name":`, or without the comma. It is written in each row, so the shorter ones have room
/// behind them: to copy as many bytes each time costs less than to copy as many as there are.
#[derive(Debug)]
struct Key {
    text: Vec<u8>,
    len: usize,
}

impl Key {
    const ROOM: usize = 32;

    fn new(name: &str, is_first: bool) -> Self {
        let mut text = if is_first { Vec::new() } else { vec![b','] };
        string(&mut text, name);
        text.push(b':');
        let len = text.len();
        text.resize(len.max(Self::ROOM), 0);
        Self { text, len }
    }

    fn write(&self, out: &mut Vec<u8>) {
        match self.text.first_chunk::<{ Self::ROOM }>() {
            Some(text) if self.len <= Self::ROOM => {
                let end = out.len() + self.len;
                out.extend_from_slice(text);
                out.truncate(end);
            }
            _ => out.extend_from_slice(&self.text),
        }
    }
}

/// Writes one value as JSON.
pub(super) fn value(out: &mut Vec<u8>, ty: &Type, vector: &Vector<'_>, row: usize) {
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
            text::decimal(out, vector.decimal(row, *width), *scale);
        }
        Type::Bignum => text::bignum(out, vector.bytes(row)),
        Type::Varchar | Type::Json => quoted(out, vector.bytes(row)),
        Type::Blob | Type::Geometry => {
            out.push(b'"');
            base64(out, vector.bytes(row));
            out.push(b'"');
        }
        Type::Enum(names) => string(out, &names[vector.enum_index(row, names.len())]),
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
        Type::Struct(fields) if is_unnamed(fields) => {
            out.push(b'[');
            for (index, (_, ty)) in fields.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                value(out, ty, &vector.struct_child(index), row);
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
        _ => {
            let start = out.len();
            out.push(b'"');
            if let Some(Ok(())) = text::spell(out, ty, vector, row) {
                out.push(b'"');
            } else {
                out.truncate(start);
                out.extend_from_slice(b"null"); // an infinity, or "NULL", which has no other value
            }
        }
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

/// Writes bytes as base64, with its padding.
pub(super) fn base64(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(BASE64.encode(bytes).as_bytes());
}

fn quoted(out: &mut Vec<u8>, bytes: &[u8]) {
    if is_plain(bytes) {
        out.push(b'"');
        out.extend_from_slice(bytes);
        out.push(b'"');
    } else {
        string(out, &String::from_utf8_lossy(bytes));
    }
}

/// Whether a text is its own JSON but for the quotes. Most are, and looking costs less than escaping.
fn is_plain(bytes: &[u8]) -> bool {
    // Eight bytes at once. `below` marks those that are below a limit, and never one when none is.
    const EACH: u64 = 0x0101_0101_0101_0101;
    const HIGHEST: u64 = EACH << 7;
    let below = |word: u64, limit: u8| word.wrapping_sub(EACH * u64::from(limit)) & !word & HIGHEST;
    let mut escaped = 0;
    let mut beyond_ascii = 0;
    let mut look = |bytes: [u8; 8]| {
        let word = u64::from_ne_bytes(bytes);
        escaped |= below(word, b' ');
        escaped |= below(word ^ (EACH * u64::from(b'"')), 1);
        escaped |= below(word ^ (EACH * u64::from(b'\\')), 1);
        beyond_ascii |= word & HIGHEST;
    };
    let (words, rest) = bytes.as_chunks::<8>();
    words.iter().for_each(|word| look(*word));
    match bytes.last_chunk::<8>() {
        Some(last) => look(*last),
        None => look(std::array::from_fn(|index| rest.get(index).copied().unwrap_or(b' '))),
    }
    escaped == 0 && (beyond_ascii == 0 || std::str::from_utf8(bytes).is_ok())
}

fn string(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("writing to memory does not fail");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_right(bytes: &[u8]) {
        let mut out = Vec::new();
        quoted(&mut out, bytes);
        let expected = serde_json::to_string(&String::from_utf8_lossy(bytes)).expect("a text");
        assert_eq!(String::from_utf8(out).expect("UTF-8"), expected);
    }

    #[test]
    fn each_byte_that_needs_escaping_is_escaped() {
        for length in 1..20 {
            for index in 0..length {
                for byte in 0..=u8::MAX {
                    let mut bytes = vec![b'a'; length];
                    bytes[index] = byte;
                    is_right(&bytes);
                }
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_right(text in "[ -~äßé…🙂]{0,30}", bytes: Vec<u8>) {
            is_right(text.as_bytes());
            is_right(&bytes);
        }
    }
}
