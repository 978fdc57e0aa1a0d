//! How DuckDB lays out the values of a vector in memory.
//!
//! Every read of a vector is checked against this, so it is taken from the vector's own type and not
//! from what a statement said it would answer.

use duckdb::ffi;

/// How values are stored, and those that they consist of.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) storage: Storage,
    /// The elements of a list or array, or the fields of a struct. A UNION is a struct whose field 0 is
    /// its tag, a MAP a list of structs of a key and a value.
    pub(super) children: Vec<Layout>,
    /// How many elements each array has; 0 for all else.
    pub(super) array_size: usize,
}

/// How one value is stored. Types that DuckDB stores alike are one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are those of Rust's types")]
pub enum Storage {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    U64,
    I64,
    F32,
    F64,
    /// 128 bits, signed or not.
    HugeInt,
    Interval,
    /// A length, and the bytes or where they are.
    Text,
    /// Where the elements of a LIST or MAP are.
    ListEntry,
    Array,
    Struct,
    /// What martd never reads: a bare NULL, or a type that cannot be answered.
    Opaque,
}

impl Storage {
    /// The bytes of a value; 0 for those that are no plain numbers.
    pub(super) fn width(self) -> usize {
        match self {
            Self::U8 | Self::I8 => 1,
            Self::U16 | Self::I16 => 2,
            Self::U32 | Self::I32 | Self::F32 => 4,
            Self::U64 | Self::I64 | Self::F64 => 8,
            Self::HugeInt | Self::Interval => 16,
            Self::Text | Self::ListEntry | Self::Array | Self::Struct | Self::Opaque => 0,
        }
    }

    /// How a type of this id is stored. `raw` is asked where the id alone does not tell.
    ///
    /// # Safety
    /// `raw` is a live logical type.
    unsafe fn of_type(id: ffi::duckdb_type, raw: ffi::duckdb_logical_type) -> Self {
        match id {
            ffi::DUCKDB_TYPE_DUCKDB_TYPE_BOOLEAN | ffi::DUCKDB_TYPE_DUCKDB_TYPE_UTINYINT => {
                Self::U8
            }
            ffi::DUCKDB_TYPE_DUCKDB_TYPE_TINYINT => Self::I8,
            ffi::DUCKDB_TYPE_DUCKDB_TYPE_USMALLINT => Self::U16,
            ffi::DUCKDB_TYPE_DUCKDB_TYPE_SMALLINT => Self::I16,
            ffi::DUCKDB_TYPE_DUCKDB_TYPE_UINTEGER => Self::U32,
            ffi::DUCKDB_TYPE_DUCKDB_TYPE_INTEGER | ffi::DUCKDB_TYPE_DUCKDB_TYPE_DATE => Self::I32,
            // TIME WITH TIME ZONE packs its time and its offset into one word, which is no number.
            ffi::DUCKDB_TYPE_DUCKDB_TYPE_UBIGINT | ffi::DUCKDB_TYPE_DUCKDB_TYPE_TIME_TZ => {
                Self::U64
            }
            ffi::DUCKDB_TYPE_DUCKDB_TYPE_BIGINT
            | ffi::DUCKDB_TYPE_DUCKDB_TYPE_TIME
            | ffi::DUCKDB_TYPE_DUCKDB_TYPE_TIME_NS
            | ffi::DUCKDB_TYPE_DUCKDB_TYPE_TIMESTAMP
            | ffi::DUCKDB_TYPE_DUCKDB_TYPE_TIMESTAMP_S
            | ffi::DUCKDB_TYPE_DUCKDB_TYPE_TIMESTAMP_MS
            | ffi::DUCKDB_TYPE_DUCKDB_TYPE_TIMESTAMP_NS
            | ffi::DUCKDB_TYPE_DUCKDB_TYPE_TIMESTAMP_TZ => Self::I64,
            ffi::DUCKDB_TYPE_DUCKDB_TYPE_FLOAT => Self::F32,
            ffi::DUCKDB_TYPE_DUCKDB_TYPE_DOUBLE => Self::F64,
            ffi::DUCKDB_TYPE_DUCKDB_TYPE_HUGEINT
            | ffi::DUCKDB_TYPE_DUCKDB_TYPE_UHUGEINT
            | ffi::DUCKDB_TYPE_DUCKDB_TYPE_UUID => Self::HugeInt,
            ffi::DUCKDB_TYPE_DUCKDB_TYPE_INTERVAL => Self::Interval,
            ffi::DUCKDB_TYPE_DUCKDB_TYPE_VARCHAR
            | ffi::DUCKDB_TYPE_DUCKDB_TYPE_BLOB
            | ffi::DUCKDB_TYPE_DUCKDB_TYPE_GEOMETRY
            | ffi::DUCKDB_TYPE_DUCKDB_TYPE_BIT
            | ffi::DUCKDB_TYPE_DUCKDB_TYPE_BIGNUM => Self::Text,
            ffi::DUCKDB_TYPE_DUCKDB_TYPE_LIST | ffi::DUCKDB_TYPE_DUCKDB_TYPE_MAP => Self::ListEntry,
            ffi::DUCKDB_TYPE_DUCKDB_TYPE_ARRAY => Self::Array,
            ffi::DUCKDB_TYPE_DUCKDB_TYPE_STRUCT | ffi::DUCKDB_TYPE_DUCKDB_TYPE_UNION => {
                Self::Struct
            }
            // Both are stored as an integer, which is never stored as one of them.
            // SAFETY: the caller's promise.
            ffi::DUCKDB_TYPE_DUCKDB_TYPE_DECIMAL => unsafe {
                Self::of_type(ffi::duckdb_decimal_internal_type(raw), raw)
            },
            // SAFETY: as above.
            ffi::DUCKDB_TYPE_DUCKDB_TYPE_ENUM => unsafe {
                Self::of_type(ffi::duckdb_enum_internal_type(raw), raw)
            },
            _ => Self::Opaque,
        }
    }
}

impl Layout {
    /// # Safety
    /// `raw` is a live logical type that the caller owns and gives up.
    pub(super) unsafe fn take(mut raw: ffi::duckdb_logical_type) -> Self {
        // SAFETY: the caller's promise. Child types are DuckDB's, given up in turn; indices stay below the
        // count that DuckDB gives.
        unsafe {
            let id = ffi::duckdb_get_type_id(raw);
            let storage = Storage::of_type(id, raw);
            let children = match storage {
                Storage::ListEntry => vec![Self::take(ffi::duckdb_list_type_child_type(raw))],
                Storage::Array => vec![Self::take(ffi::duckdb_array_type_child_type(raw))],
                Storage::Struct => (0..ffi::duckdb_struct_type_child_count(raw))
                    .map(|index| Self::take(ffi::duckdb_struct_type_child_type(raw, index)))
                    .collect(),
                _ => Vec::new(),
            };
            let array_size = match storage {
                Storage::Array => ffi::duckdb_array_type_array_size(raw) as usize,
                _ => 0,
            };
            ffi::duckdb_destroy_logical_type(&raw mut raw);
            Self { storage, children, array_size }
        }
    }
}
