//! Result columns and their types, with DuckDB's own names.

use std::ffi::CStr;
use std::fmt;

use duckdb::ffi;
use serde::{Deserialize, Serialize};

/// A result column.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    /// The column's name as the statement gives it; names may repeat.
    pub name: String,
    /// Its type.
    pub ty: Type,
}

impl Column {
    /// # Safety
    /// `result` is a live, successful result.
    pub(super) unsafe fn all_of(result: *mut ffi::duckdb_result) -> Vec<Self> {
        // SAFETY: indices stay below the column count; each logical type is freed after reading.
        unsafe {
            (0..ffi::duckdb_column_count(result))
                .map(|index| {
                    let mut ty = ffi::duckdb_column_logical_type(result, index);
                    let column = Self {
                        name: CStr::from_ptr(ffi::duckdb_column_name(result, index))
                            .to_string_lossy()
                            .into_owned(),
                        ty: Type::from_raw(ty),
                    };
                    ffi::duckdb_destroy_logical_type(&raw mut ty);
                    column
                })
                .collect()
        }
    }
}

/// A DuckDB type. Its `Display` is DuckDB's own name for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "DuckDB's type names say it")]
pub enum Type {
    Boolean,
    TinyInt,
    SmallInt,
    Integer,
    BigInt,
    HugeInt,
    UTinyInt,
    USmallInt,
    UInteger,
    UBigInt,
    UHugeInt,
    Float,
    Double,
    /// DECIMAL of at most 38 digits; the integer behind it is as wide as the width asks for.
    Decimal {
        width: u8,
        scale: u8,
    },
    Bignum,
    Varchar,
    /// VARCHAR under the name JSON.
    Json,
    Blob,
    /// Its values are well-known binary (WKB).
    Geometry,
    Bit,
    Uuid,
    Date,
    Time,
    TimeNs,
    TimeTz,
    Timestamp,
    TimestampS,
    TimestampMs,
    TimestampNs,
    TimestampTz,
    Interval,
    Enum(Vec<String>),
    List(Box<Type>),
    Array(Box<Type>, usize),
    Struct(Vec<(String, Type)>),
    Map(Box<Type>, Box<Type>),
    Union(Vec<(String, Type)>),
    /// The type of a bare NULL.
    Null,
    /// A type that cannot be answered as it is (VARIANT): the statement must cast it.
    Unsupported(String),
}

impl Type {
    /// # Safety
    /// `raw` is a live logical type.
    unsafe fn from_raw(raw: ffi::duckdb_logical_type) -> Self {
        // SAFETY: every child type and string below is created by DuckDB for this call and freed
        // after it was read; indices stay below the counts that DuckDB gives.
        unsafe {
            match ffi::duckdb_get_type_id(raw) {
                ffi::DUCKDB_TYPE_DUCKDB_TYPE_BOOLEAN => Self::Boolean,
                ffi::DUCKDB_TYPE_DUCKDB_TYPE_TINYINT => Self::TinyInt,
                ffi::DUCKDB_TYPE_DUCKDB_TYPE_SMALLINT => Self::SmallInt,
                ffi::DUCKDB_TYPE_DUCKDB_TYPE_INTEGER => Self::Integer,
                ffi::DUCKDB_TYPE_DUCKDB_TYPE_BIGINT => Self::BigInt,
                ffi::DUCKDB_TYPE_DUCKDB_TYPE_HUGEINT => Self::HugeInt,
                ffi::DUCKDB_TYPE_DUCKDB_TYPE_UTINYINT => Self::UTinyInt,
                ffi::DUCKDB_TYPE_DUCKDB_TYPE_USMALLINT => Self::USmallInt,
                ffi::DUCKDB_TYPE_DUCKDB_TYPE_UINTEGER => Self::UInteger,
                ffi::DUCKDB_TYPE_DUCKDB_TYPE_UBIGINT => Self::UBigInt,
                ffi::DUCKDB_TYPE_DUCKDB_TYPE_UHUGEINT => Self::UHugeInt,
                ffi::DUCKDB_TYPE_DUCKDB_TYPE_FLOAT => Self::Float,
                ffi::DUCKDB_TYPE_DUCKDB_TYPE_DOUBLE => Self::Double,
                ffi::DUCKDB_TYPE_DUCKDB_TYPE_DECIMAL => Self::Decimal {
                    width: ffi::duckdb_decimal_width(raw),
                    scale: ffi::duckdb_decimal_scale(raw),
                },
                ffi::DUCKDB_TYPE_DUCKDB_TYPE_BIGNUM => Self::Bignum,
                ffi::DUCKDB_TYPE_DUCKDB_TYPE_VARCHAR => {
                    let alias = owned_text(ffi::duckdb_logical_type_get_alias(raw));
                    if alias == "JSON" { Self::Json } else { Self::Varchar }
                }
                ffi::DUCKDB_TYPE_DUCKDB_TYPE_BLOB => Self::Blob,
                ffi::DUCKDB_TYPE_DUCKDB_TYPE_BIT => Self::Bit,
                ffi::DUCKDB_TYPE_DUCKDB_TYPE_UUID => Self::Uuid,
                ffi::DUCKDB_TYPE_DUCKDB_TYPE_DATE => Self::Date,
                ffi::DUCKDB_TYPE_DUCKDB_TYPE_TIME => Self::Time,
                ffi::DUCKDB_TYPE_DUCKDB_TYPE_TIME_NS => Self::TimeNs,
                ffi::DUCKDB_TYPE_DUCKDB_TYPE_TIME_TZ => Self::TimeTz,
                ffi::DUCKDB_TYPE_DUCKDB_TYPE_TIMESTAMP => Self::Timestamp,
                ffi::DUCKDB_TYPE_DUCKDB_TYPE_TIMESTAMP_S => Self::TimestampS,
                ffi::DUCKDB_TYPE_DUCKDB_TYPE_TIMESTAMP_MS => Self::TimestampMs,
                ffi::DUCKDB_TYPE_DUCKDB_TYPE_TIMESTAMP_NS => Self::TimestampNs,
                ffi::DUCKDB_TYPE_DUCKDB_TYPE_TIMESTAMP_TZ => Self::TimestampTz,
                ffi::DUCKDB_TYPE_DUCKDB_TYPE_INTERVAL => Self::Interval,
                ffi::DUCKDB_TYPE_DUCKDB_TYPE_SQLNULL => Self::Null,
                ffi::DUCKDB_TYPE_DUCKDB_TYPE_ENUM => Self::Enum(
                    (0..u64::from(ffi::duckdb_enum_dictionary_size(raw)))
                        .map(|index| owned_text(ffi::duckdb_enum_dictionary_value(raw, index)))
                        .collect(),
                ),
                ffi::DUCKDB_TYPE_DUCKDB_TYPE_LIST => {
                    Self::List(Box::new(Self::take(ffi::duckdb_list_type_child_type(raw))))
                }
                ffi::DUCKDB_TYPE_DUCKDB_TYPE_ARRAY => Self::Array(
                    Box::new(Self::take(ffi::duckdb_array_type_child_type(raw))),
                    ffi::duckdb_array_type_array_size(raw) as usize,
                ),
                ffi::DUCKDB_TYPE_DUCKDB_TYPE_MAP => Self::Map(
                    Box::new(Self::take(ffi::duckdb_map_type_key_type(raw))),
                    Box::new(Self::take(ffi::duckdb_map_type_value_type(raw))),
                ),
                ffi::DUCKDB_TYPE_DUCKDB_TYPE_STRUCT => Self::Struct(
                    (0..ffi::duckdb_struct_type_child_count(raw))
                        .map(|index| {
                            (
                                owned_text(ffi::duckdb_struct_type_child_name(raw, index)),
                                Self::take(ffi::duckdb_struct_type_child_type(raw, index)),
                            )
                        })
                        .collect(),
                ),
                ffi::DUCKDB_TYPE_DUCKDB_TYPE_UNION => Self::Union(
                    (0..ffi::duckdb_union_type_member_count(raw))
                        .map(|index| {
                            (
                                owned_text(ffi::duckdb_union_type_member_name(raw, index)),
                                Self::take(ffi::duckdb_union_type_member_type(raw, index)),
                            )
                        })
                        .collect(),
                ),
                ffi::DUCKDB_TYPE_DUCKDB_TYPE_GEOMETRY => Self::Geometry,
                ffi::DUCKDB_TYPE_DUCKDB_TYPE_VARIANT => Self::Unsupported("VARIANT".to_owned()),
                other => Self::Unsupported(format!("type {other}")),
            }
        }
    }

    /// # Safety
    /// `raw` is a live logical type that the caller owns and gives up.
    pub(super) unsafe fn take(mut raw: ffi::duckdb_logical_type) -> Self {
        // SAFETY: the caller's promise.
        unsafe {
            let ty = Self::from_raw(raw);
            ffi::duckdb_destroy_logical_type(&raw mut raw);
            ty
        }
    }

    /// The first type in it that cannot be answered, if there is one.
    pub fn unsupported(&self) -> Option<&str> {
        match self {
            Self::Unsupported(name) => Some(name),
            Self::List(child) | Self::Array(child, _) => child.unsupported(),
            Self::Map(key, value) => key.unsupported().or_else(|| value.unsupported()),
            Self::Struct(fields) | Self::Union(fields) => {
                fields.iter().find_map(|(_, ty)| ty.unsupported())
            }
            _ => None,
        }
    }
}

/// # Safety
/// `text` is null or a C string that DuckDB allocated for the caller.
pub(super) unsafe fn owned_text(text: *mut std::ffi::c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: the caller's promise.
    unsafe {
        let owned = CStr::from_ptr(text).to_string_lossy().into_owned();
        ffi::duckdb_free(text.cast());
        owned
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Self::Boolean => "BOOLEAN",
            Self::TinyInt => "TINYINT",
            Self::SmallInt => "SMALLINT",
            Self::Integer => "INTEGER",
            Self::BigInt => "BIGINT",
            Self::HugeInt => "HUGEINT",
            Self::UTinyInt => "UTINYINT",
            Self::USmallInt => "USMALLINT",
            Self::UInteger => "UINTEGER",
            Self::UBigInt => "UBIGINT",
            Self::UHugeInt => "UHUGEINT",
            Self::Float => "FLOAT",
            Self::Double => "DOUBLE",
            Self::Decimal { width, scale } => return write!(f, "DECIMAL({width},{scale})"),
            Self::Bignum => "BIGNUM",
            Self::Varchar => "VARCHAR",
            Self::Json => "JSON",
            Self::Blob => "BLOB",
            Self::Geometry => "GEOMETRY",
            Self::Bit => "BIT",
            Self::Uuid => "UUID",
            Self::Date => "DATE",
            Self::Time => "TIME",
            Self::TimeNs => "TIME_NS",
            Self::TimeTz => "TIME WITH TIME ZONE",
            Self::Timestamp => "TIMESTAMP",
            Self::TimestampS => "TIMESTAMP_S",
            Self::TimestampMs => "TIMESTAMP_MS",
            Self::TimestampNs => "TIMESTAMP_NS",
            Self::TimestampTz => "TIMESTAMP WITH TIME ZONE",
            Self::Interval => "INTERVAL",
            Self::Null => "\"NULL\"",
            Self::Enum(values) => {
                f.write_str("ENUM(")?;
                for (index, value) in values.iter().enumerate() {
                    let comma = if index == 0 { "" } else { ", " };
                    write!(f, "{comma}'{}'", value.replace('\'', "''"))?;
                }
                return f.write_str(")");
            }
            Self::List(child) => return write!(f, "{child}[]"),
            Self::Array(child, size) => return write!(f, "{child}[{size}]"),
            Self::Map(key, value) => return write!(f, "MAP({key}, {value})"),
            Self::Struct(fields) => return write_fields(f, "STRUCT", fields),
            Self::Union(members) => return write_fields(f, "UNION", members),
            Self::Unsupported(name) => name,
        };
        f.write_str(name)
    }
}

fn write_fields(f: &mut fmt::Formatter<'_>, kind: &str, fields: &[(String, Type)]) -> fmt::Result {
    write!(f, "{kind}(")?;
    for (index, (name, ty)) in fields.iter().enumerate() {
        let comma = if index == 0 { "" } else { ", " };
        if is_unnamed(fields) {
            write!(f, "{comma}{ty}")?;
        } else {
            write!(f, "{comma}{} {ty}", quoted_if_needed(name))?;
        }
    }
    f.write_str(")")
}

/// Whether these are the fields of an unnamed struct, such as `row(1, 2)`: a tuple.
pub fn is_unnamed(fields: &[(String, Type)]) -> bool {
    fields.iter().all(|(name, _)| name.is_empty())
}

/// DuckDB prints plain lower-case names without quotes, unless they are keywords.
fn quoted_if_needed(name: &str) -> String {
    let plain = |byte: u8| byte == b'_' || byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let starts_plain = name.bytes().next().is_some_and(|first| !first.is_ascii_digit());
    if starts_plain && name.bytes().all(plain) && !super::is_keyword(name) {
        name.to_owned()
    } else {
        super::quote_identifier(name)
    }
}

/// DuckDB stores an ENUM in the smallest unsigned integer that can count its values: its bytes.
pub fn enum_width(size: usize) -> usize {
    if size <= usize::from(u8::MAX) {
        1
    } else if size <= usize::from(u16::MAX) {
        2
    } else {
        4
    }
}
