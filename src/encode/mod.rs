//! Answers as bytes. One file per format; [`text`] holds DuckDB's own spelling of values that JSON
//! has no type for.

mod arrow;
mod compress;
mod csv;
mod json;
pub mod postgres;
mod text;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::duck::{Chunk, ResultColumn};

pub use compress::{Coding, Codings, Compressor};

use arrow::ArrowWriter;
use csv::CsvWriter;
use json::{JsonWriter, NdjsonWriter};
use postgres::PostgresWriter;

/// A format of answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Format {
    /// One object with columns, rows and statistics.
    Json,
    /// One object per line and row.
    Ndjson,
    /// Comma-separated values with a header row.
    Csv,
    /// An Arrow IPC stream.
    Arrow,
    /// Messages of the PostgreSQL protocol.
    Postgres,
}

impl Format {
    /// All formats of HTTP; the first is the one for those who do not mind.
    pub const ALL: [Self; 4] = [Self::Json, Self::Ndjson, Self::Csv, Self::Arrow];

    /// Its short name, for `?format=`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Ndjson => "ndjson",
            Self::Csv => "csv",
            Self::Arrow => "arrow",
            Self::Postgres => "postgres",
        }
    }

    /// Its media type, without parameters.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Ndjson => "application/x-ndjson",
            Self::Csv => "text/csv",
            Self::Arrow => "application/vnd.apache.arrow.stream",
            Self::Postgres => "application/octet-stream",
        }
    }

    /// Whether an answer itself says that rows were left out.
    pub fn tells_truncation(self) -> bool {
        self == Self::Json
    }

    /// The value of an answer's `Content-Type`.
    pub fn content_type(self) -> &'static str {
        match self {
            // Without the parameter, what reads text/* may take it for ASCII.
            Self::Csv => "text/csv; charset=utf-8",
            other => other.media_type(),
        }
    }
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

/// Why rows cannot be written in a format.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// Arrow counts the bytes and elements of a batch with 31 bits.
    #[error("a batch of rows has more than 2 GiB of values")]
    TooLarge,
    /// The format has no place for this type.
    #[error("Not implemented Error: {0}; cast it, or ask for JSON")]
    NoSuchType(String),
    /// The values contradict their type.
    #[error("Arrow refused a batch: {0}")]
    Invalid(String),
}

/// Writes one answer, piece by piece: [`begin`](Self::begin), any number of
/// [`chunk`](Self::chunk)s, [`end`](Self::end).
pub struct Encoder {
    writer: Writer,
    rows: u64,
}

enum Writer {
    Json(JsonWriter),
    Ndjson(NdjsonWriter),
    Csv(CsvWriter),
    Arrow(ArrowWriter),
    Postgres(PostgresWriter),
}

impl Encoder {
    /// Writes what comes before the first row. `form` is for [`Format::Postgres`].
    ///
    /// # Errors
    /// When the format has no place for a column's type.
    pub fn begin(
        format: Format,
        out: &mut Vec<u8>,
        columns: &[ResultColumn],
        form: postgres::Form<'_>,
    ) -> Result<Self, EncodeError> {
        let writer = match format {
            Format::Json => Writer::Json(JsonWriter::begin(out, columns)),
            Format::Ndjson => Writer::Ndjson(NdjsonWriter::begin(columns)),
            Format::Csv => Writer::Csv(CsvWriter::begin(out, columns)),
            Format::Arrow => Writer::Arrow(ArrowWriter::begin(out, columns)?),
            Format::Postgres => Writer::Postgres(PostgresWriter::begin(out, columns, form)?),
        };
        Ok(Self { writer, rows: 0 })
    }

    /// Writes the first `rows` rows of a chunk, or keeps them until there are enough for a batch.
    ///
    /// # Errors
    /// When the format cannot hold the values.
    pub fn chunk(
        &mut self,
        out: &mut Vec<u8>,
        chunk: Chunk,
        rows: usize,
    ) -> Result<(), EncodeError> {
        match &mut self.writer {
            Writer::Json(writer) => writer.chunk(out, &chunk, rows),
            Writer::Ndjson(writer) => writer.chunk(out, &chunk, rows),
            Writer::Csv(writer) => writer.chunk(out, &chunk, rows),
            Writer::Arrow(writer) => writer.chunk(out, chunk, rows)?,
            Writer::Postgres(writer) => writer.chunk(out, &chunk, rows),
        }
        self.rows += rows as u64;
        Ok(())
    }

    /// The rows given so far.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// About how many bytes were given, but not written yet.
    pub fn kept_bytes(&self) -> usize {
        match &self.writer {
            Writer::Arrow(writer) => writer.kept_bytes(),
            Writer::Json(_) | Writer::Ndjson(_) | Writer::Csv(_) | Writer::Postgres(_) => 0,
        }
    }

    /// Writes what comes after the last row.
    ///
    /// # Errors
    /// When the format cannot hold the values that were kept.
    pub fn end(self, out: &mut Vec<u8>, summary: Summary<'_>) -> Result<(), EncodeError> {
        match self.writer {
            Writer::Json(writer) => writer.end(out, self.rows, summary),
            Writer::Ndjson(_) | Writer::Csv(_) | Writer::Postgres(_) => {}
            Writer::Arrow(writer) => writer.end(out)?,
        }
        Ok(())
    }
}

/// The columns' names, made unique: a second `a` becomes `a_1`, and never collides with a column
/// that is called `a_1` already.
fn unique_names(columns: &[ResultColumn]) -> Vec<String> {
    let mut taken: std::collections::HashSet<String> =
        columns.iter().map(|column| column.name.clone()).collect();
    let mut seen = std::collections::HashSet::new();
    columns
        .iter()
        .map(|column| {
            if seen.insert(column.name.as_str()) {
                return column.name.clone();
            }
            let name = (1..)
                .map(|count| format!("{}_{count}", column.name))
                .find(|name| !taken.contains(name))
                .expect("there are more numbers than columns");
            taken.insert(name.clone());
            name
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::duck::Type;

    #[test]
    fn repeated_names_are_numbered_around_existing_ones() {
        let columns: Vec<ResultColumn> = ["a", "a", "a_1", "b", "a"]
            .map(|name| ResultColumn { name: name.to_owned(), ty: Type::Integer })
            .into();
        assert_eq!(unique_names(&columns), ["a", "a_2", "a_1", "b", "a_3"]);
    }
}
