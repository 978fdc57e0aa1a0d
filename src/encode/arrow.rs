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
//! carries DuckDB's name of its type in the metadata, as [`TYPE_KEY`]; a column that was renamed
//! because its name is repeated has its own name as [`NAME_KEY`].

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use arrow_array::{RecordBatch, make_array};
use arrow_buffer::{BooleanBufferBuilder, Buffer, MutableBuffer, NullBufferBuilder, i256};
use arrow_data::ArrayData;
use arrow_ipc::writer::StreamWriter;
use arrow_schema::{
    ArrowError, DataType, Field, Fields, Schema, SchemaRef, TimeUnit, UnionFields, UnionMode,
};

use super::{EncodeError, text, unique_names};
use crate::engine::{
    Chunk, Column, RawHugeInt, RawInterval, RawListEntry, Type, Vector, enum_width, is_unnamed,
};

/// The key under which a field's metadata holds DuckDB's name of its type.
const TYPE_KEY: &str = "duckdb.type";
/// The key under which a column has its own name, when it was given a number because it is repeated.
const NAME_KEY: &str = "duckdb.name";
/// Rows after which a batch is sent: where readers do not gain from larger ones any more.
const BATCH_ROWS: usize = 64 << 10;
/// Bytes after which a batch is sent, so that a stream takes little memory.
const BATCH_BYTES: usize = 1 << 20;
/// The digits of the largest UHUGEINT.
const HUGEINT_DIGITS: u8 = 39;
const UUID_BYTES: usize = 16;
/// Arrow tells a union's members apart by a signed byte.
const MAX_UNION_MEMBERS: usize = i8::MAX as usize + 1;

impl From<ArrowError> for EncodeError {
    fn from(error: ArrowError) -> Self {
        Self::Invalid(error.to_string())
    }
}

/// Writes one Arrow answer.
pub(super) struct ArrowWriter {
    stream: StreamWriter<Vec<u8>>,
    schema: SchemaRef,
    columns: Vec<ColumnBuilder>,
    /// Rows in `columns`, not sent yet.
    kept: usize,
}

impl ArrowWriter {
    pub(super) fn begin(out: &mut Vec<u8>, columns: &[Column]) -> Result<Self, EncodeError> {
        let names = unique_names(columns);
        let fields = names.iter().zip(columns).map(|(name, column)| {
            let mut field = field(name, &column.ty, true)?;
            if *name != column.name {
                field.metadata_mut().insert(NAME_KEY.to_owned(), column.name.clone());
            }
            Ok(field)
        });
        let fields = fields.collect::<Result<Fields, EncodeError>>()?;
        let schema = Arc::new(Schema::new(fields));
        let builders = columns.iter().map(|column| ColumnBuilder::new(&column.ty));
        let builders = builders.collect::<Result<_, _>>()?;
        let stream = StreamWriter::try_new(Vec::new(), &schema)?;
        let mut writer = Self { stream, schema, columns: builders, kept: 0 };
        out.append(writer.stream.get_mut());
        Ok(writer)
    }

    pub(super) fn chunk(
        &mut self,
        out: &mut Vec<u8>,
        chunk: &Chunk,
        rows: usize,
    ) -> Result<(), EncodeError> {
        for (column, vector) in self.columns.iter_mut().zip(chunk.columns()) {
            column.append(&vector, 0..rows)?;
        }
        self.kept += rows;
        if self.kept >= BATCH_ROWS || self.kept_bytes() >= BATCH_BYTES {
            self.send(out)?;
        }
        Ok(())
    }

    pub(super) fn kept_bytes(&self) -> usize {
        self.columns.iter().map(ColumnBuilder::bytes).sum()
    }

    pub(super) fn end(mut self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        if self.kept > 0 {
            self.send(out)?;
        }
        self.stream.finish()?;
        out.append(self.stream.get_mut());
        Ok(())
    }

    fn send(&mut self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let columns = self.columns.iter_mut().map(|column| Ok(make_array(column.finish()?)));
        let columns = columns.collect::<Result<_, ArrowError>>()?;
        self.stream.write(&RecordBatch::try_new(Arc::clone(&self.schema), columns)?)?;
        self.kept = 0;
        out.append(self.stream.get_mut());
        Ok(())
    }
}

fn field(name: &str, ty: &Type, nullable: bool) -> Result<Field, EncodeError> {
    let mut metadata = HashMap::from([(TYPE_KEY.to_owned(), ty.to_string())]);
    let extension = match ty {
        Type::Uuid => Some("arrow.uuid"),
        Type::Json => Some("arrow.json"),
        _ => None,
    };
    if let Some(name) = extension {
        metadata.insert("ARROW:extension:name".to_owned(), name.to_owned());
        metadata.insert("ARROW:extension:metadata".to_owned(), String::new());
    }
    Ok(Field::new(name, data_type(ty)?, nullable).with_metadata(metadata))
}

fn data_type(ty: &Type) -> Result<DataType, EncodeError> {
    Ok(match ty {
        Type::Boolean => DataType::Boolean,
        Type::TinyInt => DataType::Int8,
        Type::SmallInt => DataType::Int16,
        Type::Integer => DataType::Int32,
        Type::BigInt => DataType::Int64,
        Type::UTinyInt => DataType::UInt8,
        Type::USmallInt => DataType::UInt16,
        Type::UInteger => DataType::UInt32,
        Type::UBigInt => DataType::UInt64,
        Type::HugeInt | Type::UHugeInt => DataType::Decimal256(HUGEINT_DIGITS, 0),
        Type::Float => DataType::Float32,
        Type::Double => DataType::Float64,
        Type::Decimal { width, scale } => DataType::Decimal128(*width, scale.cast_signed()),
        Type::Varchar | Type::Json | Type::Bit | Type::Bignum | Type::TimeTz => DataType::Utf8,
        Type::Blob => DataType::Binary,
        Type::Uuid => DataType::FixedSizeBinary(UUID_BYTES as i32),
        Type::Date => DataType::Date32,
        Type::Time => DataType::Time64(TimeUnit::Microsecond),
        Type::TimeNs => DataType::Time64(TimeUnit::Nanosecond),
        Type::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, None),
        Type::TimestampS => DataType::Timestamp(TimeUnit::Second, None),
        Type::TimestampMs => DataType::Timestamp(TimeUnit::Millisecond, None),
        Type::TimestampNs => DataType::Timestamp(TimeUnit::Nanosecond, None),
        Type::TimestampTz => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        Type::Interval => DataType::Struct(Fields::from(vec![
            Field::new("months", DataType::Int32, true),
            Field::new("days", DataType::Int32, true),
            Field::new("micros", DataType::Int64, true),
        ])),
        Type::Enum(names) => {
            let keys = match enum_width(names.len()) {
                1 => DataType::UInt8,
                2 => DataType::UInt16,
                _ => DataType::UInt32,
            };
            DataType::Dictionary(Box::new(keys), Box::new(DataType::Utf8))
        }
        Type::List(child) => DataType::List(Arc::new(field("item", child, true)?)),
        Type::Array(child, size) => {
            let size = i32::try_from(*size).map_err(|_| EncodeError::TooLarge)?;
            DataType::FixedSizeList(Arc::new(field("item", child, true)?), size)
        }
        Type::Map(..) => DataType::Map(
            Arc::new(Field::new("entries", DataType::Struct(map_entries(ty)?), false)),
            false,
        ),
        Type::Struct(fields) => {
            let unnamed = is_unnamed(fields);
            let fields = fields.iter().zip(1..).map(|((name, ty), place): (_, usize)| {
                if unnamed { field(&place.to_string(), ty, true) } else { field(name, ty, true) }
            });
            DataType::Struct(fields.collect::<Result<_, _>>()?)
        }
        Type::Union(members) if members.len() > MAX_UNION_MEMBERS => {
            let reason = format!("Arrow has no UNION of {} members", members.len());
            return Err(EncodeError::NoSuchType(reason));
        }
        Type::Union(members) => {
            let fields = members.iter().map(|(name, ty)| field(name, ty, true));
            let fields = fields.collect::<Result<Vec<_>, _>>()?;
            DataType::Union(UnionFields::from_fields(fields), UnionMode::Sparse)
        }
        Type::Null => DataType::Null,
        Type::Unsupported(name) => return Err(EncodeError::NoSuchType(format!("type {name}"))),
    })
}

fn map_entries(ty: &Type) -> Result<Fields, EncodeError> {
    let Type::Map(key, value) = ty else { unreachable!("{ty} is no map") };
    Ok(Fields::from(vec![field("key", key, false)?, field("value", value, true)?]))
}

/// Collects the values of one column, or of a part of a nested one.
#[derive(Debug)]
struct ColumnBuilder {
    data_type: DataType,
    len: usize,
    nulls: NullBufferBuilder,
    values: Values,
}

/// Values as Arrow lays them out. Each variant also holds something for every NULL.
#[derive(Debug)]
enum Values {
    Null,
    Boolean(BooleanBufferBuilder),
    /// Laid out by Arrow as by DuckDB, in so many bytes each.
    Plain {
        width: usize,
        bytes: MutableBuffer,
    },
    /// Written value by value, in so many bytes each.
    Converted {
        width: usize,
        bytes: MutableBuffer,
        write: Convert,
    },
    /// Indices into all values of an ENUM.
    Enum {
        width: usize,
        bytes: MutableBuffer,
        names: ArrayData,
    },
    /// Bytes or texts.
    Bytes {
        ends: Ends,
        bytes: Vec<u8>,
        ty: Type,
    },
    List {
        ends: Ends,
        child: Box<ColumnBuilder>,
    },
    Map {
        ends: Ends,
        key: Box<ColumnBuilder>,
        value: Box<ColumnBuilder>,
        entries: DataType,
    },
    Array {
        size: usize,
        child: Box<ColumnBuilder>,
    },
    Interval {
        months: Vec<i32>,
        days: Vec<i32>,
        micros: Vec<i64>,
    },
    Struct(Vec<ColumnBuilder>),
    Union {
        tags: Vec<i8>,
        members: Vec<ColumnBuilder>,
    },
}

#[derive(Debug, Clone, Copy)]
enum Convert {
    Decimal { width: u8 },
    HugeInt,
    UHugeInt,
    Uuid,
}

impl Convert {
    fn value(self, out: &mut MutableBuffer, vector: &Vector<'_>, row: usize) {
        let bits = || vector.values::<RawHugeInt>()[row].bits();
        match self {
            Self::Decimal { width } => out.push(vector.decimal(row, width)),
            Self::HugeInt => out.push(i256::from_i128(bits().cast_signed())),
            Self::UHugeInt => out.push(i256::from_parts(bits(), 0)),
            Self::Uuid => out.extend_from_slice(&text::uuid_bits(bits()).to_be_bytes()),
        }
    }
}

/// Where each text or list ends; the next begins there.
#[derive(Debug)]
struct Ends(Vec<i32>);

impl Ends {
    fn new() -> Self {
        Self(vec![0])
    }

    fn push(&mut self, end: usize) -> Result<(), EncodeError> {
        self.0.push(i32::try_from(end).map_err(|_| EncodeError::TooLarge)?);
        Ok(())
    }

    /// Adds values that take no room.
    fn push_empty(&mut self, count: usize) {
        let last = *self.0.last().expect("begins with 0");
        self.0.resize(self.0.len() + count, last);
    }

    fn finish(&mut self) -> Buffer {
        Buffer::from_vec(std::mem::replace(self, Self::new()).0)
    }
}

impl ColumnBuilder {
    fn new(ty: &Type) -> Result<Self, EncodeError> {
        let child = |ty: &Type| Self::new(ty).map(Box::new);
        let each = |fields: &[(String, Type)]| -> Result<Vec<Self>, EncodeError> {
            fields.iter().map(|(_, ty)| Self::new(ty)).collect()
        };
        let data_type = data_type(ty)?;
        let plain = |width| Values::Plain { width, bytes: MutableBuffer::new(0) };
        let converted =
            |width, write| Values::Converted { width, bytes: MutableBuffer::new(0), write };
        let values = match ty {
            Type::Null | Type::Unsupported(_) => Values::Null,
            Type::Boolean => Values::Boolean(BooleanBufferBuilder::new(0)),
            Type::TinyInt | Type::UTinyInt => plain(1),
            Type::SmallInt | Type::USmallInt => plain(2),
            Type::Integer | Type::UInteger | Type::Float | Type::Date => plain(4),
            Type::BigInt
            | Type::UBigInt
            | Type::Double
            | Type::Time
            | Type::TimeNs
            | Type::Timestamp
            | Type::TimestampS
            | Type::TimestampMs
            | Type::TimestampNs
            | Type::TimestampTz => plain(8),
            // The widest are laid out alike, and the narrower ones are widened.
            Type::Decimal { width: 19.., .. } => plain(size_of::<i128>()),
            Type::Decimal { width, .. } => {
                converted(size_of::<i128>(), Convert::Decimal { width: *width })
            }
            Type::HugeInt => converted(size_of::<i256>(), Convert::HugeInt),
            Type::UHugeInt => converted(size_of::<i256>(), Convert::UHugeInt),
            Type::Uuid => converted(UUID_BYTES, Convert::Uuid),
            Type::Varchar | Type::Json | Type::Blob | Type::Bit | Type::Bignum | Type::TimeTz => {
                Values::Bytes { ends: Ends::new(), bytes: Vec::new(), ty: ty.clone() }
            }
            Type::Enum(names) => Values::Enum {
                width: enum_width(names.len()),
                bytes: MutableBuffer::new(0),
                names: texts(names)?,
            },
            Type::List(item) => Values::List { ends: Ends::new(), child: child(item)? },
            Type::Map(key, value) => Values::Map {
                ends: Ends::new(),
                key: child(key)?,
                value: child(value)?,
                entries: DataType::Struct(map_entries(ty)?),
            },
            Type::Array(item, size) => Values::Array { size: *size, child: child(item)? },
            Type::Interval => {
                Values::Interval { months: Vec::new(), days: Vec::new(), micros: Vec::new() }
            }
            Type::Struct(fields) => Values::Struct(each(fields)?),
            Type::Union(members) => Values::Union { tags: Vec::new(), members: each(members)? },
        };
        Ok(Self { data_type, len: 0, nulls: NullBufferBuilder::new(0), values })
    }

    /// Adds these rows of a vector.
    fn append(&mut self, vector: &Vector<'_>, rows: Range<usize>) -> Result<(), EncodeError> {
        for (null, run) in vector.runs(rows) {
            if null {
                self.append_nulls(run.len());
            } else {
                self.len += run.len();
                self.nulls.append_n_non_nulls(run.len());
                self.values.append(vector, run)?;
            }
        }
        Ok(())
    }

    /// Adds NULLs, also to the parts: what DuckDB holds there below a NULL is nobody's business.
    fn append_nulls(&mut self, count: usize) {
        self.len += count;
        self.nulls.append_n_nulls(count);
        match &mut self.values {
            Values::Null => {}
            Values::Boolean(bits) => bits.append_n(count, false),
            Values::Plain { width, bytes }
            | Values::Converted { width, bytes, .. }
            | Values::Enum { width, bytes, .. } => bytes.extend_zeros(count * *width),
            Values::Bytes { ends, .. } | Values::List { ends, .. } | Values::Map { ends, .. } => {
                ends.push_empty(count);
            }
            Values::Array { size, child } => child.append_nulls(count * *size),
            Values::Interval { months, days, micros } => {
                months.resize(months.len() + count, 0);
                days.resize(days.len() + count, 0);
                micros.resize(micros.len() + count, 0);
            }
            Values::Struct(parts) => parts.iter_mut().for_each(|part| part.append_nulls(count)),
            Values::Union { tags, members } => {
                tags.resize(tags.len() + count, 0);
                members.iter_mut().for_each(|member| member.append_nulls(count));
            }
        }
    }

    /// About how many bytes the values take.
    fn bytes(&self) -> usize {
        self.len / 8
            + match &self.values {
                Values::Null => 0,
                Values::Boolean(_) => self.len / 8,
                Values::Plain { bytes, .. }
                | Values::Converted { bytes, .. }
                | Values::Enum { bytes, .. } => bytes.len(),
                Values::Bytes { bytes, .. } => bytes.len() + 4 * self.len,
                Values::List { child, .. } => child.bytes() + 4 * self.len,
                Values::Map { key, value, .. } => key.bytes() + value.bytes() + 4 * self.len,
                Values::Array { child, .. } => child.bytes(),
                Values::Interval { .. } => 16 * self.len,
                Values::Struct(parts) => parts.iter().map(Self::bytes).sum(),
                Values::Union { members, .. } => {
                    members.iter().map(Self::bytes).sum::<usize>() + self.len
                }
            }
    }

    /// The values so far as an array; the builder is empty afterwards.
    fn finish(&mut self) -> Result<ArrayData, ArrowError> {
        let len = std::mem::take(&mut self.len);
        let nulls = self.nulls.finish();
        let array = ArrayData::builder(self.data_type.clone()).len(len);
        match &mut self.values {
            // Neither has a mask of its own.
            Values::Null => array,
            Values::Union { tags, members } => {
                let array = array.add_buffer(Buffer::from_vec(std::mem::take(tags)));
                array.child_data(finish_all(members)?)
            }
            Values::Boolean(bits) => array.nulls(nulls).add_buffer(bits.finish().into_inner()),
            Values::Plain { bytes, .. } | Values::Converted { bytes, .. } => {
                array.nulls(nulls).add_buffer(take(bytes))
            }
            Values::Enum { bytes, names, .. } => {
                array.nulls(nulls).add_buffer(take(bytes)).add_child_data(names.clone())
            }
            Values::Bytes { ends, bytes, .. } => array
                .nulls(nulls)
                .add_buffer(ends.finish())
                .add_buffer(Buffer::from_vec(std::mem::take(bytes))),
            Values::List { ends, child } => {
                array.nulls(nulls).add_buffer(ends.finish()).add_child_data(child.finish()?)
            }
            Values::Map { ends, key, value, entries } => {
                let pairs = ArrayData::builder(entries.clone())
                    .len(key.len)
                    .child_data(vec![key.finish()?, value.finish()?])
                    .build()?;
                array.nulls(nulls).add_buffer(ends.finish()).add_child_data(pairs)
            }
            Values::Array { child, .. } => array.nulls(nulls).add_child_data(child.finish()?),
            Values::Interval { months, days, micros } => {
                let part = |ty: DataType, buffer: Buffer| {
                    ArrayData::builder(ty).len(len).add_buffer(buffer).build()
                };
                array.nulls(nulls).child_data(vec![
                    part(DataType::Int32, Buffer::from_vec(std::mem::take(months)))?,
                    part(DataType::Int32, Buffer::from_vec(std::mem::take(days)))?,
                    part(DataType::Int64, Buffer::from_vec(std::mem::take(micros)))?,
                ])
            }
            Values::Struct(parts) => array.nulls(nulls).child_data(finish_all(parts)?),
        }
        .build()
    }
}

impl Values {
    /// Adds rows none of which is NULL.
    fn append(&mut self, vector: &Vector<'_>, rows: Range<usize>) -> Result<(), EncodeError> {
        match self {
            Self::Null => {}
            Self::Boolean(bits) => {
                vector.values::<u8>()[rows].iter().for_each(|&byte| bits.append(byte != 0));
            }
            Self::Plain { width, bytes } | Self::Enum { width, bytes, .. } => {
                bytes.extend_from_slice(vector.plain_bytes(*width, rows));
            }
            Self::Converted { bytes, write, .. } => {
                rows.for_each(|row| write.value(bytes, vector, row));
            }
            Self::Bytes { ends, bytes, ty } => {
                for row in rows {
                    match ty {
                        Type::Bignum => text::bignum(bytes, vector.bytes(row)),
                        Type::TimeTz | Type::Bit => {
                            text::value(bytes, ty, vector, row).expect("has no infinity");
                        }
                        _ => bytes.extend_from_slice(vector.bytes(row)),
                    }
                    ends.push(bytes.len())?;
                }
            }
            Self::List { ends, child } => {
                let items = vector.list_child();
                for entry in &vector.values::<RawListEntry>()[rows] {
                    ends.push(child.len + entry.length as usize)?;
                    child.append(&items, entry.range())?;
                }
            }
            Self::Map { ends, key, value, .. } => {
                let entries = vector.list_child();
                let (keys, values) = (entries.struct_child(0), entries.struct_child(1));
                for entry in &vector.values::<RawListEntry>()[rows] {
                    ends.push(key.len + entry.length as usize)?;
                    key.append(&keys, entry.range())?;
                    value.append(&values, entry.range())?;
                }
            }
            Self::Array { size, child } => {
                let items = vector.array_child(*size);
                child.append(&items, rows.start * *size..rows.end * *size)?;
            }
            Self::Interval { months, days, micros } => {
                for interval in &vector.values::<RawInterval>()[rows] {
                    months.push(interval.months);
                    days.push(interval.days);
                    micros.push(interval.micros);
                }
            }
            Self::Struct(parts) => {
                for (index, part) in parts.iter_mut().enumerate() {
                    part.append(&vector.struct_child(index), rows.clone())?;
                }
            }
            Self::Union { tags, members } => {
                let of_rows = vector.struct_child(0).values::<u8>();
                for row in rows {
                    let tag = of_rows[row];
                    tags.push(tag.cast_signed());
                    for (index, member) in members.iter_mut().enumerate() {
                        if index == usize::from(tag) {
                            member.append(&vector.struct_child(index + 1), row..row + 1)?;
                        } else {
                            member.append_nulls(1);
                        }
                    }
                }
            }
        }
        Ok(())
    }
}

fn finish_all(columns: &mut [ColumnBuilder]) -> Result<Vec<ArrayData>, ArrowError> {
    columns.iter_mut().map(ColumnBuilder::finish).collect()
}

fn take(bytes: &mut MutableBuffer) -> Buffer {
    std::mem::replace(bytes, MutableBuffer::new(0)).into()
}

fn texts(texts: &[String]) -> Result<ArrayData, EncodeError> {
    let mut ends = Ends::new();
    let mut bytes = Vec::new();
    for text in texts {
        bytes.extend_from_slice(text.as_bytes());
        ends.push(bytes.len())?;
    }
    let array = ArrayData::builder(DataType::Utf8).len(texts.len());
    Ok(array.add_buffer(ends.finish()).add_buffer(Buffer::from_vec(bytes)).build()?)
}
