//! Values as Arrow lays them out, copied once: from DuckDB's vectors to where they are sent from.

use std::ops::Range;

use arrow_buffer::{BooleanBufferBuilder, i256};

use super::message::MessageBody;
use crate::duck::{Plain, RawHugeInt, RawInterval, RawListEntry, Type, Vector, enum_width};
use crate::encode::{EncodeError, text};

const OFFSET_BYTES: usize = size_of::<i32>();

/// The values of a field, in order.
#[derive(Debug, Default)]
pub(super) struct Values<'c> {
    runs: Vec<Run<'c>>,
    len: usize,
    nulls: usize,
}

#[derive(Debug)]
enum Run<'c> {
    Nulls(usize),
    /// Rows none of which is NULL.
    Rows(Vector<'c>, Range<usize>),
}

impl<'c> Values<'c> {
    /// Adds these rows of a vector.
    pub(super) fn push(&mut self, vector: &Vector<'c>, rows: Range<usize>) {
        for (null, rows) in vector.runs(rows) {
            if null {
                self.push_nulls(rows.len());
                continue;
            }
            self.len += rows.len();
            match self.runs.last_mut() {
                // Lists, most often, lie one after the other.
                Some(Run::Rows(last, before)) if last.is(vector) && before.end == rows.start => {
                    before.end = rows.end;
                }
                _ => self.runs.push(Run::Rows(*vector, rows)),
            }
        }
    }

    /// Adds NULLs.
    fn push_nulls(&mut self, count: usize) {
        self.len += count;
        self.nulls += count;
        match self.runs.last_mut() {
            Some(Run::Nulls(before)) => *before += count,
            _ => self.runs.push(Run::Nulls(count)),
        }
    }

    /// The values of a part of each value. Below a NULL are NULLs: what DuckDB holds there is nobody's
    /// business.
    fn parts(
        &self,
        nulls_in_each: usize,
        of: impl Fn(&Vector<'c>, &Range<usize>) -> (Vector<'c>, Range<usize>),
    ) -> Self {
        let mut parts = Self::default();
        for run in &self.runs {
            match run {
                Run::Nulls(count) => parts.push_nulls(count * nulls_in_each),
                Run::Rows(vector, rows) => {
                    let (part, rows) = of(vector, rows);
                    parts.push(&part, rows);
                }
            }
        }
        parts
    }

    /// The values of a field of a STRUCT.
    fn field(&self, index: usize) -> Self {
        self.parts(1, |vector, rows| (vector.struct_child(index), rows.clone()))
    }
}

impl MessageBody<'_> {
    /// Adds a field with its values.
    pub(super) fn field(&mut self, ty: &Type, values: &Values<'_>) -> Result<(), EncodeError> {
        match ty {
            // Neither has a mask.
            Type::Null | Type::Unsupported(_) => self.node(values.len, values.len),
            Type::Union(members) => {
                self.node(values.len, 0);
                self.union(members, values)?;
            }
            _ => {
                self.node(values.len, values.nulls);
                self.validity(values);
                self.masked(ty, values)?;
            }
        }
        Ok(())
    }

    /// The buffers and parts of a field that come after its mask.
    fn masked(&mut self, ty: &Type, values: &Values<'_>) -> Result<(), EncodeError> {
        match ty {
            Type::Boolean => self.bits(values),
            Type::TinyInt | Type::UTinyInt => self.plain(1, values),
            Type::SmallInt | Type::USmallInt => self.plain(2, values),
            Type::Integer | Type::UInteger | Type::Float | Type::Date => self.plain(4, values),
            Type::BigInt
            | Type::UBigInt
            | Type::Double
            | Type::Time
            | Type::TimeNs
            | Type::Timestamp
            | Type::TimestampS
            | Type::TimestampMs
            | Type::TimestampNs
            | Type::TimestampTz => self.plain(8, values),
            Type::Enum(names) => self.plain(enum_width(names.len()), values),
            Type::Decimal { width: ..=4, .. } => self.each(values, widened::<i16>),
            Type::Decimal { width: 5..=9, .. } => self.each(values, widened::<i32>),
            Type::Decimal { width: 10..=18, .. } => self.each(values, widened::<i64>),
            Type::Decimal { width: 19.., .. } => self.plain(size_of::<i128>(), values),
            Type::HugeInt => self.each(values, |value: RawHugeInt| {
                i256::from_i128(value.bits().cast_signed()).to_le_bytes()
            }),
            Type::UHugeInt => {
                self.each(values, |value: RawHugeInt| {
                    i256::from_parts(value.bits(), 0).to_le_bytes()
                });
            }
            Type::Uuid => {
                self.each(values, |value: RawHugeInt| text::uuid_bits(value.bits()).to_be_bytes());
            }
            Type::Varchar | Type::Json | Type::Blob | Type::Geometry => {
                self.copied_texts(values)?
            }
            Type::Bignum => {
                self.texts(values, |out, vector, row| text::bignum(out, vector.bytes(row)))?;
            }
            Type::Bit | Type::TimeTz => {
                self.texts(values, |out, vector, row| {
                    text::spell(out, ty, vector, row); // has no infinity
                })?;
            }
            Type::Interval => {
                self.part(values, |value: RawInterval| value.months.to_le_bytes());
                self.part(values, |value: RawInterval| value.days.to_le_bytes());
                self.part(values, |value: RawInterval| value.micros.to_le_bytes());
            }
            Type::List(item) => {
                let items = self.lists(values)?;
                self.field(item, &items)?;
            }
            Type::Map(key, value) => {
                let entries = self.lists(values)?;
                self.node(entries.len, entries.nulls);
                self.validity(&entries);
                self.field(key, &entries.field(0))?;
                self.field(value, &entries.field(1))?;
            }
            Type::Array(item, size) => {
                let items = values.parts(*size, |vector, rows| {
                    (vector.array_child(*size), rows.start * size..rows.end * size)
                });
                self.field(item, &items)?;
            }
            Type::Struct(fields) => {
                for (index, (_, ty)) in fields.iter().enumerate() {
                    self.field(ty, &values.field(index))?;
                }
            }
            Type::Null | Type::Unsupported(_) | Type::Union(_) => unreachable!("has no mask"),
        }
        Ok(())
    }

    /// A bit for each value: whether it is not NULL. Empty when none is.
    fn validity(&mut self, values: &Values<'_>) {
        self.buffer(|out| {
            if values.nulls == 0 {
                return;
            }
            let mut bits = BooleanBufferBuilder::new(values.len);
            for run in &values.runs {
                match run {
                    Run::Nulls(count) => bits.append_n(*count, false),
                    Run::Rows(_, rows) => bits.append_n(rows.len(), true),
                }
            }
            out.extend_from_slice(bits.as_slice());
        });
    }

    fn bits(&mut self, values: &Values<'_>) {
        self.buffer(|out| {
            let mut bits = BooleanBufferBuilder::new(values.len);
            for run in &values.runs {
                match run {
                    Run::Nulls(count) => bits.append_n(*count, false),
                    Run::Rows(vector, rows) => {
                        let bytes = &vector.values::<u8>()[rows.clone()];
                        bytes.iter().for_each(|byte| bits.append(*byte != 0));
                    }
                }
            }
            out.extend_from_slice(bits.as_slice());
        });
    }

    /// Values that Arrow lays out as DuckDB does, in so many bytes each.
    fn plain(&mut self, width: usize, values: &Values<'_>) {
        self.buffer(|out| {
            for run in &values.runs {
                match run {
                    Run::Nulls(count) => out.resize(out.len() + count * width, 0),
                    Run::Rows(vector, rows) => {
                        out.extend_from_slice(vector.plain_bytes(width, rows.clone()));
                    }
                }
            }
        });
    }

    /// Values that are converted one by one.
    fn each<T: Plain, const N: usize>(
        &mut self,
        values: &Values<'_>,
        convert: impl Fn(T) -> [u8; N],
    ) {
        self.buffer(|out| {
            for run in &values.runs {
                match run {
                    Run::Nulls(count) => out.resize(out.len() + count * N, 0),
                    Run::Rows(vector, rows) => {
                        converted(out, &vector.values::<T>()[rows.clone()], &convert);
                    }
                }
            }
        });
    }

    /// A field of its own with a part of each value. It has no mask but that of the whole.
    fn part<T: Plain, const N: usize>(
        &mut self,
        values: &Values<'_>,
        convert: impl Fn(T) -> [u8; N],
    ) {
        self.node(values.len, 0);
        self.buffer(|_| ());
        self.each(values, convert);
    }

    /// Texts or bytes as they are: where each ends, and then all of them.
    fn copied_texts(&mut self, values: &Values<'_>) -> Result<(), EncodeError> {
        self.buffer(|out| {
            let mut end = 0;
            out.extend_from_slice(&offset(end)?);
            for run in &values.runs {
                match run {
                    Run::Nulls(count) => {
                        let end = offset(end)?;
                        (0..*count).for_each(|_| out.extend_from_slice(&end));
                    }
                    Run::Rows(vector, rows) => end = ends(out, vector, rows.clone(), end)?,
                }
            }
            Ok::<_, EncodeError>(())
        })?;
        self.buffer(|out| {
            for run in &values.runs {
                if let Run::Rows(vector, rows) = run {
                    vector.append_texts(rows.clone(), out);
                }
            }
        });
        Ok(())
    }

    /// Texts that are written: where each ends, and then all of them.
    fn texts(
        &mut self,
        values: &Values<'_>,
        write: impl Fn(&mut Vec<u8>, &Vector<'_>, usize),
    ) -> Result<(), EncodeError> {
        let ends = self.buffer(|out| {
            let start = out.len();
            out.resize(start + (values.len + 1) * OFFSET_BYTES, 0);
            start
        });
        self.buffer(|out| {
            let start = out.len();
            let mut at = ends;
            for run in &values.runs {
                match run {
                    Run::Nulls(count) => {
                        let end = offset(out.len() - start)?;
                        for _ in 0..*count {
                            at += OFFSET_BYTES;
                            out[at..at + OFFSET_BYTES].copy_from_slice(&end);
                        }
                    }
                    Run::Rows(vector, rows) => {
                        for row in rows.clone() {
                            write(out, vector, row);
                            let end = offset(out.len() - start)?;
                            at += OFFSET_BYTES;
                            out[at..at + OFFSET_BYTES].copy_from_slice(&end);
                        }
                    }
                }
            }
            Ok(())
        })
    }

    /// Where each list ends. The elements of all of them follow as a field.
    fn lists<'c>(&mut self, values: &Values<'c>) -> Result<Values<'c>, EncodeError> {
        self.buffer(|out| {
            let mut items = Values::default();
            out.extend_from_slice(&offset(0)?);
            for run in &values.runs {
                match run {
                    Run::Nulls(count) => {
                        let end = offset(items.len)?;
                        (0..*count).for_each(|_| out.extend_from_slice(&end));
                    }
                    Run::Rows(vector, rows) => {
                        let child = vector.list_child();
                        for entry in &vector.values::<RawListEntry>()[rows.clone()] {
                            items.push(&child, entry.range());
                            out.extend_from_slice(&offset(items.len)?);
                        }
                    }
                }
            }
            Ok(items)
        })
    }

    /// Adds the names of an ENUM as a field.
    pub(super) fn names(&mut self, names: &[String]) -> Result<(), EncodeError> {
        self.node(names.len(), 0);
        self.buffer(|_| ());
        self.buffer(|out| {
            let mut end = 0;
            out.extend_from_slice(&offset(end)?);
            for name in names {
                end += name.len();
                out.extend_from_slice(&offset(end)?);
            }
            Ok::<_, EncodeError>(())
        })?;
        self.buffer(|out| names.iter().for_each(|name| out.extend_from_slice(name.as_bytes())));
        Ok(())
    }

    /// Which member each value is of, and the members, of which all others are NULL.
    fn union(
        &mut self,
        members: &[(String, Type)],
        values: &Values<'_>,
    ) -> Result<(), EncodeError> {
        let mut parts: Vec<Values<'_>> = members.iter().map(|_| Values::default()).collect();
        self.buffer(|out| {
            for run in &values.runs {
                match run {
                    // A NULL is one of the first member.
                    Run::Nulls(count) => {
                        out.resize(out.len() + count, 0);
                        parts.iter_mut().for_each(|part| part.push_nulls(*count));
                    }
                    Run::Rows(vector, rows) => {
                        let tags = vector.struct_child(0).values::<u8>();
                        for row in rows.clone() {
                            out.push(tags[row]);
                            for (index, part) in parts.iter_mut().enumerate() {
                                if index == usize::from(tags[row]) {
                                    part.push(&vector.struct_child(index + 1), row..row + 1);
                                } else {
                                    part.push_nulls(1);
                                }
                            }
                        }
                    }
                }
            }
        });
        members.iter().zip(&parts).try_for_each(|((_, ty), part)| self.field(ty, part))
    }
}

/// Appends values that are converted one by one.
fn converted<T: Copy, const N: usize>(
    out: &mut Vec<u8>,
    values: &[T],
    convert: impl Fn(T) -> [u8; N],
) {
    /// So many are converted at a time, which costs less than to clear the memory for all.
    const AT_ONCE: usize = 64;
    let mut converted = [[0; N]; AT_ONCE];
    for values in values.chunks(AT_ONCE) {
        let slots = converted.iter_mut().zip(values);
        slots.for_each(|(to, from)| *to = convert(*from));
        out.extend_from_slice(converted[..values.len()].as_flattened());
    }
}

fn widened<T: Into<i128>>(value: T) -> [u8; 16] {
    value.into().to_le_bytes()
}

/// Writes where each of these texts ends, the first of which begins at `start`. Returns where the last
/// one does.
fn ends(
    out: &mut Vec<u8>,
    vector: &Vector<'_>,
    rows: Range<usize>,
    start: usize,
) -> Result<usize, EncodeError> {
    out.reserve(rows.len() * OFFSET_BYTES);
    let mut end = start;
    for length in vector.lengths(rows) {
        end += length;
        out.extend_from_slice(&(end as i32).to_le_bytes());
    }
    offset(end)?; // what is larger is not sent
    Ok(end)
}

/// Where a text or list ends; the next begins there.
fn offset(end: usize) -> Result<[u8; OFFSET_BYTES], EncodeError> {
    i32::try_from(end).map(i32::to_le_bytes).map_err(|_| EncodeError::TooLarge)
}

/// About how many bytes the values of a vector take.
pub(super) fn bytes_of(ty: &Type, vector: &Vector<'_>) -> usize {
    let rows = vector.len();
    let of_fields = |fields: &[(String, Type)], first: usize| -> usize {
        let fields = fields.iter().zip(first..);
        fields.map(|((_, ty), index)| bytes_of(ty, &vector.struct_child(index))).sum()
    };
    match ty {
        Type::Null | Type::Unsupported(_) => 0,
        Type::Boolean => rows / 8,
        Type::TinyInt | Type::UTinyInt => rows,
        Type::SmallInt | Type::USmallInt => rows * 2,
        Type::Integer | Type::UInteger | Type::Float | Type::Date => rows * 4,
        Type::Decimal { .. } | Type::Uuid | Type::Interval => rows * 16,
        Type::HugeInt | Type::UHugeInt => rows * 32,
        Type::Enum(names) => rows * enum_width(names.len()),
        Type::Varchar | Type::Json | Type::Blob | Type::Geometry | Type::Bit | Type::Bignum => {
            rows * OFFSET_BYTES + vector.text_bytes()
        }
        Type::List(item) => rows * OFFSET_BYTES + bytes_of(item, &vector.list_child()),
        Type::Map(key, value) => {
            let entries = vector.list_child();
            let (keys, values) = (entries.struct_child(0), entries.struct_child(1));
            rows * OFFSET_BYTES + bytes_of(key, &keys) + bytes_of(value, &values)
        }
        Type::Array(item, size) => bytes_of(item, &vector.array_child(*size)),
        Type::Struct(fields) => of_fields(fields, 0),
        Type::Union(members) => rows + of_fields(members, 1),
        _ => rows * 8, // times, large integers
    }
}
