//! Result columns as DuckDB holds them: types with DuckDB's own names, and vectors of values that
//! are read in place.
#![allow(
    unsafe_code,
    reason = "reads DuckDB's vectors; bounds are checked here, types against the logical type"
)]

use std::ffi::CStr;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Range;
use std::slice;

use duckdb::ffi;

/// A result column.
#[derive(Debug, Clone, PartialEq, Eq)]
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
#[derive(Debug, Clone, PartialEq, Eq)]
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
    /// A type that cannot be answered as it is (GEOMETRY, VARIANT): the statement must cast it.
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
                ffi::DUCKDB_TYPE_DUCKDB_TYPE_GEOMETRY => Self::Unsupported("GEOMETRY".to_owned()),
                ffi::DUCKDB_TYPE_DUCKDB_TYPE_VARIANT => Self::Unsupported("VARIANT".to_owned()),
                other => Self::Unsupported(format!("type {other}")),
            }
        }
    }

    /// # Safety
    /// `raw` is a live logical type that the caller owns and gives up.
    unsafe fn take(mut raw: ffi::duckdb_logical_type) -> Self {
        // SAFETY: the caller's promise.
        unsafe {
            let ty = Self::from_raw(raw);
            ffi::duckdb_destroy_logical_type(&raw mut raw);
            ty
        }
    }

    /// The first type in it that cannot be answered, if there is one.
    pub(crate) fn unsupported(&self) -> Option<&str> {
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
unsafe fn owned_text(text: *mut std::ffi::c_char) -> String {
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
pub(crate) fn is_unnamed(fields: &[(String, Type)]) -> bool {
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
pub(crate) fn enum_width(size: usize) -> usize {
    if size <= usize::from(u8::MAX) {
        1
    } else if size <= usize::from(u16::MAX) {
        2
    } else {
        4
    }
}

/// A chunk of at most 2,048 rows.
#[derive(Debug)]
pub struct Chunk {
    raw: ffi::duckdb_data_chunk,
    rows: usize,
}

impl Chunk {
    /// # Safety
    /// `raw` is a live chunk that the caller owns and gives up.
    pub(super) unsafe fn from_raw(raw: ffi::duckdb_data_chunk) -> Self {
        // SAFETY: the caller's promise.
        let rows = unsafe { ffi::duckdb_data_chunk_get_size(raw) } as usize;
        Self { raw, rows }
    }

    /// The number of rows.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// The vectors of all columns.
    pub(crate) fn columns(&self) -> Vec<Vector<'_>> {
        // SAFETY: a live chunk.
        let count = unsafe { ffi::duckdb_data_chunk_get_column_count(self.raw) } as usize;
        (0..count).map(|index| self.column(index)).collect()
    }

    /// The same column's vector for DuckDB, which must not change it.
    pub(super) fn raw_column(&self, index: usize) -> ffi::duckdb_vector {
        // SAFETY: a live chunk; DuckDB checks the index.
        unsafe { ffi::duckdb_data_chunk_get_vector(self.raw, index as u64) }
    }

    /// The vector of a column, counted from 0.
    ///
    /// # Panics
    /// When there is no such column.
    pub(crate) fn column(&self, index: usize) -> Vector<'_> {
        // SAFETY: a live chunk; the index is checked.
        unsafe {
            assert!((index as u64) < ffi::duckdb_data_chunk_get_column_count(self.raw));
            Vector::new(ffi::duckdb_data_chunk_get_vector(self.raw, index as u64), self.rows)
        }
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        // SAFETY: owned, not used again.
        unsafe { ffi::duckdb_destroy_data_chunk(&raw mut self.raw) };
    }
}

/// A string up to this long lies in the vector itself.
const SHORT_BYTES: usize = 12;

/// A vector of values, read in place. DuckDB hands out flat vectors through its C API.
#[derive(Debug, Clone, Copy)]
pub struct Vector<'c> {
    raw: ffi::duckdb_vector,
    data: *const u8,
    validity: *const u64,
    len: usize,
    _chunk: PhantomData<&'c Chunk>,
}

/// Plain types that a vector may hold, any bits of which are a value.
///
/// # Safety
/// Implemented for integers, floats and `#[repr(C)]` structs of them alone.
pub(crate) unsafe trait Plain: Copy {}

macro_rules! plain {
    ($($ty:ty),*) => {
        // SAFETY: any bits are a value of these.
        $(unsafe impl Plain for $ty {})*
    };
}
plain!(u8, u16, u32, u64, i8, i16, i32, i64, f32, f64, RawHugeInt, RawInterval, RawListEntry);

/// 128 bits as DuckDB stores them: aligned to 8 bytes, which `i128` is not.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct RawHugeInt {
    lower: u64,
    upper: u64,
}

impl RawHugeInt {
    /// The bits; HUGEINT, DECIMAL and UUID read them as signed.
    pub(crate) fn bits(self) -> u128 {
        u128::from(self.upper) << 64 | u128::from(self.lower)
    }
}

/// Where a list's elements are in the child vector.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct RawListEntry {
    pub(crate) offset: u64,
    pub(crate) length: u64,
}

impl RawListEntry {
    /// The rows of the child vector that are this list.
    pub(crate) fn range(self) -> Range<usize> {
        self.offset as usize..(self.offset + self.length) as usize
    }
}

/// An INTERVAL as DuckDB stores it.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct RawInterval {
    pub(crate) months: i32,
    pub(crate) days: i32,
    pub(crate) micros: i64,
}

impl<'c> Vector<'c> {
    /// # Safety
    /// `raw` is a vector with at least `len` values that lives as long as `'c`.
    unsafe fn new(raw: ffi::duckdb_vector, len: usize) -> Self {
        // SAFETY: the caller's promise.
        unsafe {
            Self {
                raw,
                data: ffi::duckdb_vector_get_data(raw) as *const u8,
                validity: ffi::duckdb_vector_get_validity(raw),
                len,
                _chunk: PhantomData,
            }
        }
    }

    /// Whether the value of a row is NULL.
    pub(crate) fn is_null(&self, row: usize) -> bool {
        assert!(row < self.len);
        // SAFETY: the mask, where there is one, has a bit for each of the `len` rows.
        !self.validity.is_null() && unsafe { *self.validity.add(row / 64) } >> (row % 64) & 1 == 0
    }

    /// These rows in runs that are NULL (`true`) or not (`false`) as a whole.
    pub(crate) fn runs(&self, rows: Range<usize>) -> impl Iterator<Item = (bool, Range<usize>)> {
        let (vector, mut start) = (*self, rows.start);
        std::iter::from_fn(move || {
            if start >= rows.end {
                return None;
            }
            let null = vector.is_null(start);
            let end = vector.next_that_is(!null, start).min(rows.end);
            Some((null, std::mem::replace(&mut start, end)..end))
        })
    }

    /// The first row from this one on that is NULL, or is not; the length when there is none.
    fn next_that_is(&self, null: bool, from: usize) -> usize {
        if self.validity.is_null() {
            return if null { self.len } else { from };
        }
        let mut row = from;
        while row < self.len {
            // SAFETY: the mask has a bit for each of the `len` rows, in whole words.
            let valid = unsafe { *self.validity.add(row / 64) };
            let wanted = if null { !valid } else { valid } >> (row % 64);
            if wanted != 0 {
                return (row + wanted.trailing_zeros() as usize).min(self.len);
            }
            row = (row / 64 + 1) * 64;
        }
        self.len
    }

    /// The number of values.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Whether this is the same vector, not one with the same values.
    pub(crate) fn is(&self, other: &Self) -> bool {
        self.raw == other.raw
    }

    /// The bytes of these rows, of a type that takes `width` bytes for each.
    pub(crate) fn plain_bytes(&self, width: usize, rows: Range<usize>) -> &'c [u8] {
        assert!(rows.start <= rows.end && rows.end <= self.len);
        if rows.is_empty() {
            return &[];
        }
        // SAFETY: the vector has `len` values of this width, as for `values`.
        unsafe { slice::from_raw_parts(self.data.add(rows.start * width), rows.len() * width) }
    }

    /// The values as this plain type; what stands at a NULL is arbitrary. The type must be the one
    /// that DuckDB stores for the column's logical type.
    pub(crate) fn values<T: Plain>(&self) -> &'c [T] {
        if self.len == 0 {
            return &[];
        }
        // SAFETY: DuckDB's vectors are aligned for what they hold and have `len` values.
        unsafe { slice::from_raw_parts(self.data.cast(), self.len) }
    }

    /// The bytes of a VARCHAR, BLOB, BIT or BIGNUM that is not NULL.
    pub(crate) fn bytes(&self, row: usize) -> &'c [u8] {
        if let Some((bytes, count)) = self.short_bytes(row) {
            return &bytes[..count];
        }
        // SAFETY: a valid string of the vector, whose bytes live as long as `'c`.
        unsafe {
            let text = self.text(row).pointer;
            slice::from_raw_parts(text.ptr.cast(), text.length as usize)
        }
    }

    /// The same, when it is short enough to lie in the vector itself: with what lies behind it, and how
    /// many bytes count.
    pub(crate) fn short_bytes(&self, row: usize) -> Option<(&'c [u8; SHORT_BYTES], usize)> {
        assert!(row < self.len && !self.is_null(row));
        // SAFETY: a valid string of the vector; its length tells where its bytes are.
        let text = unsafe { &self.text(row).inlined };
        let count = text.length as usize;
        // SAFETY: a C character is a byte.
        (count <= SHORT_BYTES).then(|| (unsafe { &*(&raw const text.inlined).cast() }, count))
    }

    /// # Safety
    /// The vector is one of VARCHAR, BLOB, BIT or BIGNUM, and has this row.
    unsafe fn text(&self, row: usize) -> &'c ffi::duckdb_string_t__bindgen_ty_1 {
        // SAFETY: the caller's promise.
        unsafe { &(*self.data.cast::<ffi::duckdb_string_t>().add(row)).value }
    }

    /// The bytes of all values of a VARCHAR, BLOB, BIT or BIGNUM.
    pub(crate) fn text_bytes(&self) -> usize {
        let texts = self.runs(0..self.len).filter(|(null, _)| !null).flat_map(|(_, rows)| rows);
        // SAFETY: strings of the vector, as in `bytes`.
        texts.map(|row| unsafe { self.text(row).inlined.length } as usize).sum()
    }

    /// The digits of a DECIMAL of this width, without its point. What stands at a NULL is arbitrary.
    pub(crate) fn decimal(&self, row: usize, width: u8) -> i128 {
        match width {
            ..=4 => i128::from(self.values::<i16>()[row]),
            5..=9 => i128::from(self.values::<i32>()[row]),
            10..=18 => i128::from(self.values::<i64>()[row]),
            19.. => self.values::<RawHugeInt>()[row].bits() as i128,
        }
    }

    /// Which of an ENUM's `size` values this is; not for a NULL.
    pub(crate) fn enum_index(&self, row: usize, size: usize) -> usize {
        match enum_width(size) {
            1 => usize::from(self.values::<u8>()[row]),
            2 => usize::from(self.values::<u16>()[row]),
            _ => self.values::<u32>()[row] as usize,
        }
    }

    /// The elements of all lists of a LIST or MAP vector, one after the other.
    pub(crate) fn list_child(&self) -> Self {
        // SAFETY: a list vector's child has as many values as DuckDB says.
        unsafe {
            let length = ffi::duckdb_list_vector_get_size(self.raw) as usize;
            Self::new(ffi::duckdb_list_vector_get_child(self.raw), length)
        }
    }

    /// The logical type of a LIST vector's elements, which the caller destroys.
    pub(super) fn child_type(&self) -> ffi::duckdb_logical_type {
        // SAFETY: a live vector; its type is freed once its child's was copied out.
        unsafe {
            let mut ty = ffi::duckdb_vector_get_column_type(self.raw);
            let child = ffi::duckdb_list_type_child_type(ty);
            ffi::duckdb_destroy_logical_type(&raw mut ty);
            child
        }
    }

    /// The elements of all arrays of an ARRAY vector, `size` for each row.
    pub(crate) fn array_child(&self, size: usize) -> Self {
        // SAFETY: an array vector's child has `size` values for each row.
        unsafe { Self::new(ffi::duckdb_array_vector_get_child(self.raw), self.len * size) }
    }

    /// A field of a STRUCT or UNION vector (a UNION's field 0 is its tag).
    pub(crate) fn struct_child(&self, index: usize) -> Self {
        // SAFETY: a struct's fields are as long as itself; callers count along its type's fields.
        unsafe { Self::new(ffi::duckdb_struct_vector_get_child(self.raw, index as u64), self.len) }
    }
}
