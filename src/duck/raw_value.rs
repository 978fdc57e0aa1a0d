//! Parameter values as the C API has them.

use std::ptr;

use duckdb::ffi;

use super::error::{DuckError, ErrorKind};
use super::plain::{RawHugeInt, RawInterval, RawListEntry};
use super::types::Type;
use super::value::Value;
use super::vector::Vector;

/// A value of the C API, freed on drop. Null when there was no memory for it.
pub(super) struct RawValue(pub(super) ffi::duckdb_value);

impl RawValue {
    pub(super) fn new(value: &Value) -> Self {
        // SAFETY: constructors of plain values; texts are passed with their length, list elements
        // are copied by DuckDB before they are dropped here.
        Self(unsafe {
            match value {
                Value::Null => ffi::duckdb_create_null_value(),
                Value::Boolean(b) => ffi::duckdb_create_bool(*b),
                Value::BigInt(i) => ffi::duckdb_create_int64(*i),
                Value::HugeInt(i) => ffi::duckdb_create_hugeint(ffi::duckdb_hugeint {
                    lower: *i as u64,
                    upper: (*i >> 64) as i64,
                }),
                Value::Double(d) => ffi::duckdb_create_double(*d),
                Value::Varchar(text) => {
                    ffi::duckdb_create_varchar_length(text.as_ptr().cast(), text.len() as u64)
                }
                Value::List { element, values } => {
                    let values: Vec<RawValue> = values.iter().map(RawValue::new).collect();
                    let element = ffi::duckdb_create_logical_type(element.type_id());
                    return Self::list(element, &values);
                }
                // Cast by `Statement::bind`; a list's elements are never typed by themselves.
                Value::Typed { value, .. } => return Self::new(value),
            }
        })
    }

    /// Takes over `element`.
    fn list(mut element: ffi::duckdb_logical_type, values: &[Self]) -> Self {
        let mut pointers: Vec<_> = values.iter().map(|value| value.0).collect();
        // SAFETY: live values and a live type, which DuckDB copies; the type is destroyed either way.
        unsafe {
            let list = if pointers.iter().any(|pointer| pointer.is_null()) {
                ptr::null_mut()
            } else {
                let count = pointers.len() as u64;
                ffi::duckdb_create_list_value(element, pointers.as_mut_ptr(), count)
            };
            ffi::duckdb_destroy_logical_type(&raw mut element);
            Self(list)
        }
    }

    /// The value of a row, for the types that a parameter can have.
    pub(super) fn read(ty: &Type, vector: &Vector<'_>, row: usize) -> Result<Self, DuckError> {
        if vector.is_null(row) {
            return Ok(Self::new(&Value::Null));
        }
        let huge =
            |bits: u128| ffi::duckdb_hugeint { lower: bits as u64, upper: (bits >> 64) as i64 };
        let uhuge =
            |bits: u128| ffi::duckdb_uhugeint { lower: bits as u64, upper: (bits >> 64) as u64 };
        // SAFETY: constructors of plain values; bytes are passed with their length and copied.
        Ok(Self(unsafe {
            match ty {
                Type::Boolean => ffi::duckdb_create_bool(vector.values::<u8>()[row] != 0),
                Type::TinyInt => ffi::duckdb_create_int8(vector.values()[row]),
                Type::SmallInt => ffi::duckdb_create_int16(vector.values()[row]),
                Type::Integer => ffi::duckdb_create_int32(vector.values()[row]),
                Type::BigInt => ffi::duckdb_create_int64(vector.values()[row]),
                Type::UTinyInt => ffi::duckdb_create_uint8(vector.values()[row]),
                Type::USmallInt => ffi::duckdb_create_uint16(vector.values()[row]),
                Type::UInteger => ffi::duckdb_create_uint32(vector.values()[row]),
                Type::UBigInt => ffi::duckdb_create_uint64(vector.values()[row]),
                Type::HugeInt => {
                    ffi::duckdb_create_hugeint(huge(vector.values::<RawHugeInt>()[row].bits()))
                }
                Type::UHugeInt => {
                    ffi::duckdb_create_uhugeint(uhuge(vector.values::<RawHugeInt>()[row].bits()))
                }
                Type::Uuid => {
                    // Stored with its first bit flipped, so that it sorts; created from the real one.
                    let bits = vector.values::<RawHugeInt>()[row].bits() ^ 1 << 127;
                    ffi::duckdb_create_uuid(uhuge(bits))
                }
                Type::Float => ffi::duckdb_create_float(vector.values()[row]),
                Type::Double => ffi::duckdb_create_double(vector.values()[row]),
                Type::Decimal { width, scale } => {
                    let unscaled = vector.decimal(row, *width) as u128;
                    let (width, scale) = (*width, *scale);
                    ffi::duckdb_create_decimal(ffi::duckdb_decimal {
                        width,
                        scale,
                        value: huge(unscaled),
                    })
                }
                Type::Varchar => {
                    let text = vector.bytes(row);
                    ffi::duckdb_create_varchar_length(text.as_ptr().cast(), text.len() as u64)
                }
                Type::Blob => {
                    let bytes = vector.bytes(row);
                    ffi::duckdb_create_blob(bytes.as_ptr(), bytes.len() as u64)
                }
                Type::Date => {
                    ffi::duckdb_create_date(ffi::duckdb_date { days: vector.values()[row] })
                }
                Type::Time => {
                    ffi::duckdb_create_time(ffi::duckdb_time { micros: vector.values()[row] })
                }
                Type::Timestamp => ffi::duckdb_create_timestamp(ffi::duckdb_timestamp {
                    micros: vector.values()[row],
                }),
                Type::TimestampTz => ffi::duckdb_create_timestamp_tz(ffi::duckdb_timestamp {
                    micros: vector.values()[row],
                }),
                Type::TimestampS => ffi::duckdb_create_timestamp_s(ffi::duckdb_timestamp_s {
                    seconds: vector.values()[row],
                }),
                Type::TimestampMs => ffi::duckdb_create_timestamp_ms(ffi::duckdb_timestamp_ms {
                    millis: vector.values()[row],
                }),
                Type::TimestampNs => ffi::duckdb_create_timestamp_ns(ffi::duckdb_timestamp_ns {
                    nanos: vector.values()[row],
                }),
                Type::Interval => {
                    let RawInterval { months, days, micros } = vector.values()[row];
                    ffi::duckdb_create_interval(ffi::duckdb_interval { months, days, micros })
                }
                Type::List(child) => {
                    let elements = vector.list_child();
                    let values = vector.values::<RawListEntry>()[row]
                        .range()
                        .map(|index| Self::read(child, &elements, index))
                        .collect::<Result<Vec<_>, _>>()?;
                    return Ok(Self::list(vector.child_type(), &values));
                }
                other => {
                    let message = format!("Binder Error: a parameter cannot be of type {other}");
                    return Err(DuckError::new(ErrorKind::Statement, message));
                }
            }
        }))
    }
}

impl Drop for RawValue {
    fn drop(&mut self) {
        // SAFETY: owned, not used again.
        unsafe { ffi::duckdb_destroy_value(&raw mut self.0) };
    }
}
