//! Vectors of values, read in place.
#![allow(
    unsafe_code,
    reason = "reads DuckDB's vectors; bounds are checked here, types against the logical type"
)]

use std::marker::PhantomData;
use std::ops::Range;
use std::slice;

use duckdb::ffi;

use super::chunk::Chunk;
use super::types::enum_width;

/// A string up to this long lies in the vector itself.
pub(super) const SHORT_BYTES: usize = 12;

/// A vector of values, read in place. DuckDB hands out flat vectors through its C API.
#[derive(Debug, Clone, Copy)]
pub struct Vector<'c> {
    memory: Memory,
    len: usize,
    _chunk: PhantomData<&'c Chunk>,
}

/// Where the values of a vector are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Memory {
    /// DuckDB's vector.
    pub(super) raw: ffi::duckdb_vector,
    pub(super) data: *const u8,
    /// A bit for each value, in whole words; null when none is NULL.
    pub(super) validity: *const u64,
}

impl Memory {
    /// # Safety
    /// `raw` is a live vector.
    pub(super) unsafe fn of(raw: ffi::duckdb_vector) -> Self {
        // SAFETY: the caller's promise.
        unsafe {
            Self {
                raw,
                data: ffi::duckdb_vector_get_data(raw) as *const u8,
                validity: ffi::duckdb_vector_get_validity(raw),
            }
        }
    }
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
    /// At `memory` are at least `len` values, which live as long as `'c`.
    pub(super) unsafe fn new(memory: Memory, len: usize) -> Self {
        Self { memory, len, _chunk: PhantomData }
    }

    /// Whether the value of a row is NULL.
    pub(crate) fn is_null(&self, row: usize) -> bool {
        assert!(row < self.len);
        // SAFETY: the mask, where there is one, has a bit for each of the `len` rows.
        !self.memory.validity.is_null()
            && unsafe { *self.memory.validity.add(row / 64) } >> (row % 64) & 1 == 0
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
        if self.memory.validity.is_null() {
            return if null { self.len } else { from };
        }
        let mut row = from;
        while row < self.len {
            // SAFETY: the mask has a bit for each of the `len` rows, in whole words.
            let valid = unsafe { *self.memory.validity.add(row / 64) };
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
        self.memory.raw == other.memory.raw && self.memory.data == other.memory.data
    }

    /// The bytes of these rows, of a type that takes `width` bytes for each.
    pub(crate) fn plain_bytes(&self, width: usize, rows: Range<usize>) -> &'c [u8] {
        assert!(rows.start <= rows.end && rows.end <= self.len);
        if rows.is_empty() {
            return &[];
        }
        // SAFETY: the vector has `len` values of this width, as for `values`.
        unsafe {
            slice::from_raw_parts(self.memory.data.add(rows.start * width), rows.len() * width)
        }
    }

    /// The values as this plain type; what stands at a NULL is arbitrary. The type must be the one
    /// that DuckDB stores for the column's logical type.
    pub(crate) fn values<T: Plain>(&self) -> &'c [T] {
        if self.len == 0 {
            return &[];
        }
        // SAFETY: DuckDB's vectors are aligned for what they hold and have `len` values.
        unsafe { slice::from_raw_parts(self.memory.data.cast(), self.len) }
    }

    /// The bytes of a VARCHAR, BLOB, BIT or BIGNUM that is not NULL.
    pub(crate) fn bytes(&self, row: usize) -> &'c [u8] {
        assert!(row < self.len && !self.is_null(row));
        // SAFETY: a valid string of the vector, whose length tells where its bytes are; they live as
        // long as `'c`.
        unsafe {
            let text = &self.texts(row..row + 1)[0].value;
            let length = text.inlined.length as usize;
            let bytes = if length <= SHORT_BYTES {
                (&raw const text.inlined.inlined).cast()
            } else {
                text.pointer.ptr.cast::<u8>().cast_const()
            };
            slice::from_raw_parts(bytes, length)
        }
    }

    /// # Safety
    /// The vector is one of VARCHAR, BLOB, BIT or BIGNUM.
    unsafe fn texts(&self, rows: Range<usize>) -> &'c [ffi::duckdb_string_t] {
        assert!(rows.start <= rows.end && rows.end <= self.len);
        if rows.is_empty() {
            return &[];
        }
        // SAFETY: the vector has `len` of them.
        unsafe {
            let first = self.memory.data.cast::<ffi::duckdb_string_t>().add(rows.start);
            slice::from_raw_parts(first, rows.len())
        }
    }

    /// How many bytes each of these values of a VARCHAR, BLOB, BIT or BIGNUM has, none of which is
    /// NULL.
    pub(crate) fn lengths(&self, rows: Range<usize>) -> impl Iterator<Item = usize> {
        // SAFETY: the caller's word on the type; the length is at the same place in both forms.
        let texts = unsafe { self.texts(rows) };
        texts.iter().map(|text| unsafe { text.value.inlined.length } as usize)
    }

    /// Appends the bytes of these values of a VARCHAR, BLOB, BIT or BIGNUM, none of which is NULL.
    pub(crate) fn append_texts(&self, rows: Range<usize>, out: &mut Vec<u8>) {
        let total: usize = self.lengths(rows.clone()).sum();
        out.reserve(total + SHORT_BYTES);
        let mut end = out.len();
        // SAFETY: the caller's word on the type. There is room for all of the bytes, and for what lies
        // behind a short text: to copy that too costs less than to count.
        unsafe {
            for text in self.texts(rows) {
                let length = text.value.inlined.length as usize;
                let to = out.as_mut_ptr().add(end);
                if length <= SHORT_BYTES {
                    let from = (&raw const text.value.inlined.inlined).cast::<u8>();
                    to.copy_from_nonoverlapping(from, SHORT_BYTES);
                } else {
                    let from = text.value.pointer.ptr.cast::<u8>();
                    to.copy_from_nonoverlapping(from, length);
                }
                end += length;
            }
            out.set_len(end);
        }
    }

    /// The bytes of all values of a VARCHAR, BLOB, BIT or BIGNUM.
    pub(crate) fn text_bytes(&self) -> usize {
        let present = self.runs(0..self.len).filter(|(null, _)| !null);
        present.map(|(_, rows)| self.lengths(rows).sum::<usize>()).sum()
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
            let length = ffi::duckdb_list_vector_get_size(self.memory.raw) as usize;
            Self::new(Memory::of(ffi::duckdb_list_vector_get_child(self.memory.raw)), length)
        }
    }

    /// The logical type of a LIST vector's elements, which the caller destroys.
    pub(super) fn child_type(&self) -> ffi::duckdb_logical_type {
        // SAFETY: a live vector; its type is freed once its child's was copied out.
        unsafe {
            let mut ty = ffi::duckdb_vector_get_column_type(self.memory.raw);
            let child = ffi::duckdb_list_type_child_type(ty);
            ffi::duckdb_destroy_logical_type(&raw mut ty);
            child
        }
    }

    /// The elements of all arrays of an ARRAY vector, `size` for each row.
    pub(crate) fn array_child(&self, size: usize) -> Self {
        // SAFETY: an array vector's child has `size` values for each row.
        unsafe {
            let child = ffi::duckdb_array_vector_get_child(self.memory.raw);
            Self::new(Memory::of(child), self.len * size)
        }
    }

    /// A field of a STRUCT or UNION vector (a UNION's field 0 is its tag).
    pub(crate) fn struct_child(&self, index: usize) -> Self {
        // SAFETY: a struct's fields are as long as itself; callers count along its type's fields.
        unsafe {
            let child = ffi::duckdb_struct_vector_get_child(self.memory.raw, index as u64);
            Self::new(Memory::of(child), self.len)
        }
    }
}
