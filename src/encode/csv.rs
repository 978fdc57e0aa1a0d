//! CSV as RFC 4180 has it, with a header row and lines that end in LF alone, as DuckDB's COPY
//! writes them. A NULL is empty, an empty text is `""`; nested values are JSON; what has no number
//! or date is spelled as DuckDB spells it (`nan`, `-inf`, `infinity`).

use super::text::{Infinity, spell};
use super::{json, unique_names};
use crate::duck::{Chunk, ResultColumn, Type, Vector};

/// Writes one CSV answer.
#[derive(Debug)]
pub(super) struct CsvWriter {
    types: Vec<Type>,
    /// JSON of a nested value, before it is quoted; kept for its capacity.
    nested: Vec<u8>,
}

impl CsvWriter {
    pub(super) fn begin(out: &mut Vec<u8>, columns: &[ResultColumn]) -> Self {
        for (index, name) in unique_names(columns).iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            field(out, name.as_bytes());
        }
        out.push(b'\n');
        let types = columns.iter().map(|column| column.ty.clone()).collect();
        Self { types, nested: Vec::new() }
    }

    pub(super) fn chunk(&mut self, out: &mut Vec<u8>, chunk: &Chunk, rows: usize) {
        let vectors = chunk.columns();
        for row in 0..rows {
            for (index, (ty, vector)) in self.types.iter().zip(&vectors).enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                value(out, &mut self.nested, ty, vector, row);
            }
            out.push(b'\n');
        }
    }
}

fn value(out: &mut Vec<u8>, nested: &mut Vec<u8>, ty: &Type, vector: &Vector<'_>, row: usize) {
    if vector.is_null(row) {
        return;
    }
    match ty {
        Type::Varchar | Type::Json => field(out, vector.bytes(row)),
        Type::Enum(names) => field(out, names[vector.enum_index(row, names.len())].as_bytes()),
        Type::Blob | Type::Geometry => {
            let start = out.len();
            json::base64(out, vector.bytes(row));
            quote_if_empty(out, start);
        }
        Type::Float => float(out, vector, row, f64::from(vector.values::<f32>()[row]), ty),
        Type::Double => float(out, vector, row, vector.values::<f64>()[row], ty),
        Type::List(_) | Type::Array(..) | Type::Map(..) | Type::Struct(_) => {
            nested.clear();
            json::value(nested, ty, vector, row);
            field(out, nested);
        }
        Type::Union(members) => {
            let tag = usize::from(vector.struct_child(0).values::<u8>()[row]);
            value(out, nested, &members[tag].1, &vector.struct_child(tag + 1), row);
        }
        _ => {
            let start = out.len();
            match spell(out, ty, vector, row) {
                Some(Ok(())) => quote_if_empty(out, start),
                Some(Err(Infinity::After)) => out.extend_from_slice(b"infinity"),
                Some(Err(Infinity::Before)) => out.extend_from_slice(b"-infinity"),
                None => json::value(out, ty, vector, row), // numbers and truth values
            }
        }
    }
}

fn float(out: &mut Vec<u8>, vector: &Vector<'_>, row: usize, number: f64, ty: &Type) {
    if number.is_finite() {
        json::value(out, ty, vector, row);
    } else if number.is_nan() {
        out.extend_from_slice(b"nan");
    } else {
        out.extend_from_slice(if number > 0.0 { b"inf" } else { b"-inf" });
    }
}

/// Writes a text, in quotes if it needs them.
fn field(out: &mut Vec<u8>, text: &[u8]) {
    if !text.is_empty() && !text.iter().any(|byte| matches!(byte, b'"' | b',' | b'\n' | b'\r')) {
        out.extend_from_slice(text);
        return;
    }
    out.push(b'"');
    for part in text.split_inclusive(|&byte| byte == b'"') {
        out.extend_from_slice(part);
        if part.ends_with(b"\"") {
            out.push(b'"');
        }
    }
    out.push(b'"');
}

/// A value that turned out empty must not read as NULL.
fn quote_if_empty(out: &mut Vec<u8>, start: usize) {
    if out.len() == start {
        out.extend_from_slice(b"\"\"");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_quoted_when_they_have_to_be() {
        for (text, expected) in [
            ("plain text; 'single'", "plain text; 'single'"),
            ("", r#""""#),
            ("a,b", r#""a,b""#),
            (r#"say "x""#, r#""say ""x""""#),
            ("\"", r#""""""#),
            ("two\nlines", "\"two\nlines\""),
            ("a\r", "\"a\r\""),
            ("größe", "größe"),
        ] {
            let mut out = Vec::new();
            field(&mut out, text.as_bytes());
            assert_eq!(String::from_utf8(out).expect("UTF-8"), expected);
        }
    }
}
