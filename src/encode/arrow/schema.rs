//! DuckDB's types as Arrow's.

use std::collections::HashMap;
use std::sync::Arc;

use arrow_schema::{DataType, Field, Fields, Schema, TimeUnit, UnionFields, UnionMode};

use crate::duck::{ResultColumn, Type, enum_width, is_unnamed};
use crate::encode::{EncodeError, unique_names};

/// The key under which a field's metadata holds DuckDB's name of its type.
const TYPE_KEY: &str = "duckdb.type";
/// The key under which a column has its own name, when it was given a number because it is repeated.
const NAME_KEY: &str = "duckdb.name";
const UUID_BYTES: i32 = 16;
/// The digits of the largest UHUGEINT.
const HUGEINT_DIGITS: u8 = 39;
/// Arrow tells a union's members apart by a signed byte.
const MAX_UNION_MEMBERS: usize = i8::MAX as usize + 1;

/// The schema of an answer.
pub(super) fn schema(columns: &[ResultColumn]) -> Result<Schema, EncodeError> {
    let names = unique_names(columns);
    let fields = names.iter().zip(columns).map(|(name, column)| {
        let mut field = field(name, &column.ty, true)?;
        if *name != column.name {
            field.metadata_mut().insert(NAME_KEY.to_owned(), column.name.clone());
        }
        Ok(field)
    });
    Ok(Schema::new(fields.collect::<Result<Fields, EncodeError>>()?))
}

fn field(name: &str, ty: &Type, nullable: bool) -> Result<Field, EncodeError> {
    let mut metadata = HashMap::from([(TYPE_KEY.to_owned(), ty.to_string())]);
    let extension = match ty {
        Type::Uuid => Some("arrow.uuid"),
        Type::Json => Some("arrow.json"),
        Type::Geometry => Some("geoarrow.wkb"),
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
        Type::Blob | Type::Geometry => DataType::Binary,
        Type::Uuid => DataType::FixedSizeBinary(UUID_BYTES),
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
        Type::Map(key, value) => {
            let entries = vec![field("key", key, false)?, field("value", value, true)?];
            let entries = DataType::Struct(Fields::from(entries));
            DataType::Map(Arc::new(Field::new("entries", entries, false)), false)
        }
        Type::Struct(fields) => {
            let unnamed = is_unnamed(fields);
            let fields = fields.iter().zip(1..).map(|((name, ty), number): (_, usize)| {
                if unnamed { field(&number.to_string(), ty, true) } else { field(name, ty, true) }
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
