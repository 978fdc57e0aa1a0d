//! Arrow IPC streams, without a loss.
//!
//! DuckDB can make Arrow arrays itself, but by default it turns HUGEINT into a DOUBLE, fails on
//! long INTERVALs, and makes a batch for each 2,048 rows. Here the columns are copied from its
//! vectors into batches of a useful size, and what Arrow has no type for gets one that holds all of
//! it:
//!
//! | DuckDB | Arrow |
//! |---|---|
//! | HUGEINT, UHUGEINT | `Decimal256(39, 0)` |
//! | DECIMAL | `Decimal128` |
//! | UUID | `FixedSizeBinary(16)`, extension `arrow.uuid` |
//! | JSON | `Utf8`, extension `arrow.json` |
//! | INTERVAL | `Struct(months: Int32, days: Int32, micros: Int64)` |
//! | TIME WITH TIME ZONE, BIT, BIGNUM | `Utf8`: the same text as in JSON |
//! | TIMESTAMP WITH TIME ZONE | `Timestamp(Microsecond, "UTC")` |
//! | ENUM | `Dictionary` with all of its values |
//! | UNION | a sparse `Union`; a NULL is a NULL of its first member |
//! | an unnamed STRUCT | `Struct` with the fields `1`, `2`, … |
//!
//! All others have a type of their own in Arrow. Infinite dates and timestamps keep DuckDB's
//! numbers (the largest of the integer, or its negative). Every field, also of a nested type,
//! carries DuckDB's name of its type in the metadata, as `duckdb.type`; a column that was renamed
//! because its name is repeated has its own name as `duckdb.name`.

mod message;
mod schema;
mod values;

use arrow_ipc::writer::{DictionaryTracker, IpcDataGenerator, IpcWriteOptions, write_message};
use arrow_schema::ArrowError;

use message::{MessageBody, MessageKind};
use values::Values;

use super::EncodeError;
use crate::duck::{Chunk, ResultColumn, Type};

/// Rows after which a batch is sent: where readers do not gain from larger ones any more.
const BATCH_ROWS: usize = 64 << 10;
/// Bytes after which a batch is sent, so that a stream takes little memory.
const BATCH_BYTES: usize = 256 << 10;

impl From<ArrowError> for EncodeError {
    fn from(error: ArrowError) -> Self {
        Self::Invalid(error.to_string())
    }
}

/// Writes one Arrow answer.
#[derive(Debug)]
pub(super) struct ArrowWriter {
    types: Vec<Type>,
    /// The length of a batch's head.
    head_len: usize,
    /// What is not sent yet, and how many rows of each.
    kept: Vec<(Chunk, usize)>,
    kept_rows: usize,
    kept_bytes: usize,
}

impl ArrowWriter {
    pub(super) fn begin(out: &mut Vec<u8>, columns: &[ResultColumn]) -> Result<Self, EncodeError> {
        let options = IpcWriteOptions::default();
        let mut dictionaries = DictionaryTracker::new(true);
        let schema = IpcDataGenerator::default().schema_to_bytes_with_dictionary_tracker(
            &schema::schema(columns)?,
            &mut dictionaries,
            &options,
        );
        write_message(&mut *out, schema, &options)?;
        let types: Vec<Type> = columns.iter().map(|column| column.ty.clone()).collect();
        // They are numbered as they come.
        let enums = types.iter().flat_map(enums);
        for (id, names) in dictionaries.dict_id().iter().zip(enums) {
            let kind = MessageKind::Dictionary(*id);
            let head_len = message::head_len(kind, |body| body.names(&[]))?;
            message::write(out, kind, names.len(), head_len, |body| body.names(names))?;
        }
        let nothing = |body: &mut MessageBody<'_>| {
            types.iter().try_for_each(|ty| body.field(ty, &Values::default()))
        };
        let head_len = message::head_len(MessageKind::Batch, nothing)?;
        Ok(Self { types, head_len, kept: Vec::new(), kept_rows: 0, kept_bytes: 0 })
    }

    pub(super) fn chunk(
        &mut self,
        out: &mut Vec<u8>,
        chunk: Chunk,
        rows: usize,
    ) -> Result<(), EncodeError> {
        let vectors = self.types.iter().zip(chunk.columns());
        self.kept_bytes += vectors.map(|(ty, vector)| values::bytes_of(ty, &vector)).sum::<usize>();
        self.kept_rows += rows;
        self.kept.push((chunk, rows));
        if self.kept_rows >= BATCH_ROWS || self.kept_bytes >= BATCH_BYTES {
            self.send(out)?;
        }
        Ok(())
    }

    pub(super) fn kept_bytes(&self) -> usize {
        self.kept_bytes
    }

    pub(super) fn end(mut self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        if self.kept_rows > 0 {
            self.send(out)?;
        }
        out.extend_from_slice(&message::END);
        Ok(())
    }

    fn send(&mut self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        message::write(out, MessageKind::Batch, self.kept_rows, self.head_len, |body| {
            for (index, ty) in self.types.iter().enumerate() {
                let mut values = Values::default();
                for (chunk, rows) in &self.kept {
                    values.push(&chunk.column(index), 0..*rows);
                }
                body.field(ty, &values)?;
            }
            Ok(())
        })?;
        self.kept.clear();
        (self.kept_rows, self.kept_bytes) = (0, 0);
        Ok(())
    }
}

/// The values of the ENUMs in a type, in the order of its fields.
fn enums(ty: &Type) -> Vec<&[String]> {
    match ty {
        Type::Enum(names) => vec![names],
        Type::List(item) | Type::Array(item, _) => enums(item),
        Type::Map(key, value) => [enums(key), enums(value)].concat(),
        Type::Struct(fields) | Type::Union(fields) => {
            fields.iter().flat_map(|(_, ty)| enums(ty)).collect()
        }
        _ => Vec::new(),
    }
}
