//! Vectors of values, read in place.
//!
//! Every read is checked once for the whole vector: the type against the vector's [`Layout`], rows
//! against its length. What a vector of the wrong type would answer is a bug of martd's, so it panics.
//!
//! What this takes from DuckDB on trust: the vectors of a fetched chunk are flat down to the last child,
//! because DuckDB copies what it streams; and a text that is not marked NULL is there, because that copy
//! has read it. The bytes at a NULL are arbitrary, so no text is read there.

use std::ops::Range;
use std::slice;

use duckdb::ffi;

use super::layout::{Layout, Storage};
use super::plain::{Plain, RawHugeInt};
use super::types::enum_width;

/// A string up to this long lies in the vector itself.
const SHORT_BYTES: usize = 12;

/// A vector of values, read in place.
///
/// # Panics
/// Every read does when there is no such row or field, when it asks for the text of a NULL, or for values that
/// are not stored so: of another type, width or size.
#[derive(Debug, Clone, Copy)]
pub struct Vector<'c> {
    raw: ffi::duckdb_vector,
    data: *const u8,
    /// A bit for each value, in whole words; null when none is NULL.
    validity: *const u64,
    len: usize,
    /// The chunk's, whose life is that of the values.
    layout: &'c Layout,
}

impl<'c> Vector<'c> {
    /// # Safety
    /// `raw` is a live flat vector of this layout, with at least `len` values, that lives as long as `'c`.
    pub(super) unsafe fn new(raw: ffi::duckdb_vector, len: usize, layout: &'c Layout) -> Self {
        // SAFETY: the caller's promise.
        let (data, validity) =
            unsafe { (ffi::duckdb_vector_get_data(raw), ffi::duckdb_vector_get_validity(raw)) };
        Self { raw, data: data.cast_const().cast(), validity: validity.cast_const(), len, layout }
    }

    /// The number of values.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no values.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether this is the same vector, not one with the same values.
    pub fn is(&self, other: &Self) -> bool {
        self.raw == other.raw && self.data == other.data
    }

    /// Whether the value of a row is NULL.
    pub fn is_null(&self, row: usize) -> bool {
        assert!(row < self.len, "row {row} of {}", self.len);
        // SAFETY: the mask, where there is one, has a bit for each of the `len` rows.
        !self.validity.is_null() && unsafe { *self.validity.add(row / 64) } >> (row % 64) & 1 == 0
    }

    /// These rows in runs that are NULL (`true`) or not (`false`) as a whole.
    pub fn runs(&self, rows: Range<usize>) -> impl Iterator<Item = (bool, Range<usize>)> + use<'c> {
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

    /// The values as this plain type. What stands at a NULL is arbitrary.
    pub fn values<T: Plain>(&self) -> &'c [T] {
        self.check(T::STORAGE);
        if self.len == 0 {
            return &[];
        }
        // SAFETY: the vector has `len` values of this type, aligned as DuckDB's own code needs it.
        unsafe { slice::from_raw_parts(self.data.cast(), self.len) }
    }

    fn check(&self, storage: Storage) {
        let own = self.layout.storage;
        assert!(own == storage, "a vector of {own:?} was read as one of {storage:?}");
    }

    /// Checks that there are such rows.
    fn check_rows(&self, rows: &Range<usize>) {
        assert!(rows.start <= rows.end && rows.end <= self.len, "rows {rows:?} of {}", self.len);
    }

    /// The bytes of these rows, of a type that takes `width` bytes for each.
    pub fn plain_bytes(&self, width: usize, rows: Range<usize>) -> &'c [u8] {
        let own = self.layout.storage;
        assert!(width > 0 && own.width() == width, "a {own:?} does not take {width} bytes");
        self.check_rows(&rows);
        if rows.is_empty() {
            return &[];
        }
        // SAFETY: the vector has `len` values of this width.
        unsafe { slice::from_raw_parts(self.data.add(rows.start * width), rows.len() * width) }
    }

    /// The bytes of a VARCHAR, BLOB, BIT or BIGNUM that is not NULL.
    pub fn bytes(&self, row: usize) -> &'c [u8] {
        assert!(!self.is_null(row), "row {row} is NULL");
        let text = &self.texts(row..row + 1)[0].value;
        // SAFETY: a text that is not NULL, whose length tells where its bytes are; they live as long as
        // `'c`.
        unsafe {
            let length = text.inlined.length as usize;
            let bytes = if length <= SHORT_BYTES {
                (&raw const text.inlined.inlined).cast()
            } else {
                text.pointer.ptr.cast::<u8>().cast_const()
            };
            slice::from_raw_parts(bytes, length)
        }
    }

    /// The texts of these rows, of which those that are NULL must not be followed to their bytes.
    fn texts(&self, rows: Range<usize>) -> &'c [ffi::duckdb_string_t] {
        self.check(Storage::Text);
        self.check_rows(&rows);
        if rows.is_empty() {
            return &[];
        }
        // SAFETY: the vector has `len` of them.
        unsafe {
            let first = self.data.cast::<ffi::duckdb_string_t>().add(rows.start);
            slice::from_raw_parts(first, rows.len())
        }
    }

    /// How many bytes each of these values of a VARCHAR, BLOB, BIT or BIGNUM has, none of which is
    /// NULL.
    pub fn lengths(&self, rows: Range<usize>) -> impl Iterator<Item = usize> + use<'c> {
        // SAFETY: the length is at the same place in both forms of a text.
        self.texts(rows).iter().map(|text| unsafe { text.value.inlined.length } as usize)
    }

    /// Appends the bytes of these values of a VARCHAR, BLOB, BIT or BIGNUM, none of which is NULL.
    pub fn append_texts(&self, rows: Range<usize>, out: &mut Vec<u8>) {
        let texts = self.texts(rows.clone());
        assert!(self.next_that_is(true, rows.start) >= rows.end, "one of {rows:?} is NULL");
        let total: usize = self.lengths(rows).sum();
        out.reserve(total + SHORT_BYTES);
        let mut end = out.len();
        // SAFETY: none of the texts is NULL. There is room for all of the bytes, and for what lies behind
        // a short text: to copy that too costs less than to count.
        unsafe {
            for text in texts {
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
    pub fn text_bytes(&self) -> usize {
        self.check(Storage::Text);
        let present = self.runs(0..self.len).filter(|(null, _)| !null);
        present.map(|(_, rows)| self.lengths(rows).sum::<usize>()).sum()
    }

    /// The digits of a DECIMAL of this width, without its point. What stands at a NULL is arbitrary.
    pub fn decimal(&self, row: usize, width: u8) -> i128 {
        match width {
            ..=4 => i128::from(self.values::<i16>()[row]),
            5..=9 => i128::from(self.values::<i32>()[row]),
            10..=18 => i128::from(self.values::<i64>()[row]),
            19.. => self.values::<RawHugeInt>()[row].bits().cast_signed(),
        }
    }

    /// Which of an ENUM's `size` values this is; not for a NULL.
    pub fn enum_index(&self, row: usize, size: usize) -> usize {
        match enum_width(size) {
            1 => usize::from(self.values::<u8>()[row]),
            2 => usize::from(self.values::<u16>()[row]),
            _ => self.values::<u32>()[row] as usize,
        }
    }

    /// The elements of all lists of a LIST or MAP vector, one after the other.
    pub fn list_child(&self) -> Self {
        self.check(Storage::ListEntry);
        // SAFETY: a list vector, whose child has as many values as DuckDB says and lives as long.
        unsafe {
            let length = ffi::duckdb_list_vector_get_size(self.raw) as usize;
            let child = ffi::duckdb_list_vector_get_child(self.raw);
            Self::new(child, length, &self.layout.children[0])
        }
    }

    /// The logical type of a LIST or MAP vector's elements, which the caller destroys.
    pub(super) fn child_type(&self) -> ffi::duckdb_logical_type {
        self.check(Storage::ListEntry);
        // SAFETY: a live vector; its type is freed once its child's was copied out.
        unsafe {
            let mut ty = ffi::duckdb_vector_get_column_type(self.raw);
            let child = ffi::duckdb_list_type_child_type(ty);
            ffi::duckdb_destroy_logical_type(&raw mut ty);
            child
        }
    }

    /// The elements of all arrays of an ARRAY vector, `size` for each row.
    pub fn array_child(&self, size: usize) -> Self {
        self.check(Storage::Array);
        let own = self.layout.array_size;
        assert!(own == size, "arrays of {own} elements were read as ones of {size}");
        // SAFETY: an array vector, whose child has `size` values for each row and lives as long.
        unsafe {
            let child = ffi::duckdb_array_vector_get_child(self.raw);
            Self::new(child, self.len * size, &self.layout.children[0])
        }
    }

    /// A field of a STRUCT or UNION vector (a UNION's field 0 is its tag).
    pub fn struct_child(&self, index: usize) -> Self {
        self.check(Storage::Struct);
        let layout = &self.layout.children[index];
        // SAFETY: a struct vector that has this field, which is as long as itself and lives as long.
        unsafe {
            let child = ffi::duckdb_struct_vector_get_child(self.raw, index as u64);
            Self::new(child, self.len, layout)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;
    use crate::duck::{Chunk, Database, RawInterval, RawListEntry};

    fn chunk(sql: &str) -> Chunk {
        let connection = Database::open_in_memory(&[]).unwrap().connect().unwrap();
        let mut statement = connection.prepare(sql).unwrap();
        statement.execute().unwrap().next_chunk().unwrap().unwrap()
    }

    fn panics<T>(read: impl FnOnce() -> T) -> bool {
        catch_unwind(AssertUnwindSafe(read)).is_err()
    }

    /// How many of the reads of a vector are allowed.
    fn allowed(vector: &Vector<'_>) -> usize {
        let reads = [
            panics(|| vector.values::<u8>()),
            panics(|| vector.values::<i8>()),
            panics(|| vector.values::<u16>()),
            panics(|| vector.values::<i16>()),
            panics(|| vector.values::<u32>()),
            panics(|| vector.values::<i32>()),
            panics(|| vector.values::<u64>()),
            panics(|| vector.values::<i64>()),
            panics(|| vector.values::<f32>()),
            panics(|| vector.values::<f64>()),
            panics(|| vector.values::<RawHugeInt>()),
            panics(|| vector.values::<RawInterval>()),
            panics(|| vector.values::<RawListEntry>()),
            panics(|| vector.bytes(0)),
            panics(|| vector.array_child(2)),
            panics(|| vector.struct_child(0)),
        ];
        reads.iter().filter(|panicked| !**panicked).count()
    }

    #[test]
    fn a_wrong_type_panics_rather_than_reads() {
        let every_type = "true|1::TINYINT|1::SMALLINT|1|1::BIGINT|1::HUGEINT|1::UTINYINT|1::USMALLINT|\
            1::UINTEGER|1::UBIGINT|1::UHUGEINT|1::FLOAT|1::DOUBLE|1::DECIMAL(4)|1::DECIMAL(9)|\
            1::DECIMAL(18)|1::DECIMAL(38)|1::BIGNUM|'a'|'{}'::JSON|''::BLOB|'1'::BIT|uuid()|today()|\
            TIME '1:00'|TIMETZ '1:00'|now()|TIMESTAMP '2020-01-01'|INTERVAL 1 DAY|'a'::ENUM('a')|\
            [1]|[1, 2]::INTEGER[2]|{a: 1}|map([1], [2])|union_value(a := 1)";
        for sql in every_type.split('|') {
            let chunk = chunk(&format!("SELECT {sql}"));
            assert_eq!(allowed(&chunk.column(0)), 1, "{sql}");
        }
        assert_eq!(allowed(&chunk("SELECT 1::VARIANT").column(0)), 0, "cannot be answered");
    }

    #[test]
    fn what_is_not_there_panics() {
        let chunk =
            chunk("SELECT 'a' AS t, NULL::VARCHAR AS n, [1, 2]::INTEGER[2] AS a, {f: 1} AS s");
        let [text, null, array, fields] = [0, 1, 2, 3].map(|index| chunk.column(index));
        assert!(panics(|| chunk.column(4)));
        assert!(panics(|| text.is_null(1)));
        assert!(panics(|| text.bytes(1)));
        assert!(panics(|| text.lengths(0..2).count()));
        assert!(panics(|| text.plain_bytes(16, 0..1)));
        assert!(panics(|| null.bytes(0)));
        assert!(panics(|| null.append_texts(0..1, &mut Vec::new())));
        assert!(panics(|| array.array_child(3)));
        assert!(panics(|| fields.struct_child(1)));
        assert!(panics(|| fields.struct_child(0).plain_bytes(8, 0..1)));
        assert_eq!(fields.struct_child(0).plain_bytes(4, 0..1), [1, 0, 0, 0]);
    }

    #[test]
    fn texts_of_any_length_are_appended() {
        let chunk = chunk("SELECT repeat('x', range::INT) FROM range(30)");
        let (texts, mut out) = (chunk.column(0), Vec::new());
        texts.append_texts(3..30, &mut out);
        assert_eq!(out.len(), (3..30).sum::<usize>());
        assert_eq!(texts.text_bytes(), (0..30).sum::<usize>());
        assert!(texts.lengths(0..30).eq(0..30));
    }

    #[test]
    fn runs_of_nulls_are_found() {
        let chunk = chunk("SELECT if(range BETWEEN 60 AND 129, NULL, range) FROM range(200)");
        let runs: Vec<_> = chunk.column(0).runs(10..200).collect();
        assert_eq!(runs, [(false, 10..60), (true, 60..130), (false, 130..200)]);
    }
}
