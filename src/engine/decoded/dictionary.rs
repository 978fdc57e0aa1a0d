//! Dictionaries of decoded columns: a text that many rows have in common is there once, and each row
//! says which it is.
//!
//! DuckDB groups, joins and counts by the entries of a dictionary, and hashes each once, where it
//! would hash the text of every row: half to two thirds of such a statement's time. It does so only
//! where a vector says how many entries its dictionary has. The C API makes vectors that refer
//! to others, but has no word for that number; DuckDB's own method for it is looked up in its shared
//! library ([`tell_entries`]). Without it there are no dictionaries, and all else is as it was.
#![allow(
    unsafe_code,
    reason = "makes vectors of DuckDB; what is written to them is as long as they were made"
)]

use std::ffi::{CStr, c_void};
use std::mem;
use std::sync::LazyLock;

use duckdb::ffi;
use foldhash::{HashMap, HashMapExt};

use super::{CHUNK_ROWS, Decoded, LogicalType, Share};
use crate::engine::duck;

/// DuckDB looks at each row of a chunk when half as many rows as entries are in it; a filter may have
/// left out some.
const MOST_ENTRIES: usize = CHUNK_ROWS / 4;
/// Fewer rows than this for each entry have too little in common.
const ROWS_PER_ENTRY: usize = 4;
/// More than DuckDB's vector that refers to another takes, apart from the places.
const VECTOR_BYTES: usize = 512;

/// The library whose method was tried with all that is done here.
const VERSION: &str = "v1.5.6";
/// `void duckdb::Vector::Dictionary(idx_t entries, const SelectionVector &places, idx_t count)`
const METHOD: &CStr = c"_ZN6duckdb6Vector10DictionaryEmRKNS_15SelectionVectorEm";

/// Has a vector of so many entries become one of the rows at these places, which knows its entries.
/// What the C API hands out are pointers to the very objects that the method is for.
type TellEntries = unsafe extern "C" fn(
    vector: ffi::duckdb_vector,
    entries: ffi::idx_t,
    places: ffi::duckdb_selection_vector,
    count: ffi::idx_t,
);

fn tell_entries() -> Option<TellEntries> {
    static FOUND: LazyLock<Option<TellEntries>> = LazyLock::new(|| {
        if duck::library_version() != VERSION {
            return None;
        }
        // SAFETY: a name to look up; in this version it is a method with these arguments, and a
        // method's first argument is its object.
        unsafe {
            let method = libc::dlsym(libc::RTLD_DEFAULT, METHOD.as_ptr());
            (!method.is_null()).then(|| mem::transmute::<*mut c_void, TellEntries>(method))
        }
    });
    *FOUND
}

/// The vectors of a column, chunk by chunk, which all refer to the same entries.
#[derive(Debug)]
pub(super) struct Dictionary {
    chunks: Vec<Vector>,
    _share: Share,
}

impl Dictionary {
    /// Looks at every value of a column of texts, unless there turn out to be too many. `None` when
    /// there are, or when there is no room.
    pub(super) fn new(decoded: &Decoded, column: usize, mut share: Share) -> Option<Self> {
        let tell_entries = tell_entries()?;
        let ty = &decoded.columns[column].ty;
        let places_bytes = decoded.chunks.len() * (CHUNK_ROWS * size_of::<u32>() + VECTOR_BYTES);
        if !share.grow(places_bytes as u64) || !crate::memory::is_left(places_bytes) {
            return None;
        }
        let most = MOST_ENTRIES.min(decoded.rows as usize / ROWS_PER_ENTRY);
        let mut numbers: HashMap<Option<&[u8]>, u32> = HashMap::new();
        let mut places = Vec::with_capacity(decoded.chunks.len());
        for chunk in decoded.steps() {
            let values = chunk.column(column);
            let number = |row| {
                let value = (!values.is_null(row)).then(|| values.bytes(row));
                let next = numbers.len() as u32;
                *numbers.entry(value).or_insert(next)
            };
            places.push(Places::of((0..chunk.rows()).map(number)));
            if numbers.len() > most {
                return None;
            }
        }
        if numbers.is_empty() {
            return None;
        }
        let text_bytes: usize = numbers.keys().flatten().map(|text| text.len()).sum();
        let entries_bytes = text_bytes + numbers.len() * VECTOR_BYTES;
        if !share.grow(entries_bytes as u64) || !crate::memory::is_left(entries_bytes) {
            return None;
        }
        let entries = Vector::new(ty, numbers.len())?;
        for (value, &number) in &numbers {
            entries.set(number, *value);
        }
        let all = Places::of(0..numbers.len() as u32);
        let count = numbers.len() as u64;
        // SAFETY: the vector and the places are live, and as many as the entries.
        unsafe { tell_entries(entries.0, count, all.0, count) };
        let chunks = places.iter().zip(&decoded.chunks).map(|(places, chunk)| {
            let vector = Vector::new(ty, 1)?;
            // SAFETY: both vectors have the column's type, and each place is that of an entry.
            unsafe {
                ffi::duckdb_vector_reference_vector(vector.0, entries.0);
                ffi::duckdb_slice_vector(vector.0, places.0, chunk.rows() as u64);
            }
            Some(vector)
        });
        Some(Self { chunks: chunks.collect::<Option<_>>()?, _share: share })
    }

    /// The vector of a chunk.
    pub(super) fn vector(&self, chunk: usize) -> ffi::duckdb_vector {
        self.chunks[chunk].0
    }
}

/// A vector that martd had DuckDB make. Owned, and freed on drop.
#[derive(Debug)]
struct Vector(ffi::duckdb_vector);

impl Vector {
    /// With room for so many values; `None` when DuckDB has no memory.
    fn new(ty: &LogicalType, values: usize) -> Option<Self> {
        // SAFETY: the type is live.
        let raw = unsafe { ffi::duckdb_create_vector(ty.0, values as u64) };
        (!raw.is_null()).then_some(Self(raw))
    }

    /// Writes a text, which is valid where its type is, or NULL.
    fn set(&self, place: u32, text: Option<&[u8]>) {
        let (place, raw) = (place.into(), self.0);
        // SAFETY: there is room for a value at this place; DuckDB copies the text.
        unsafe {
            match text {
                Some(text) => ffi::duckdb_unsafe_vector_assign_string_element_len(
                    raw,
                    place,
                    text.as_ptr().cast(),
                    text.len() as u64,
                ),
                None => {
                    ffi::duckdb_vector_ensure_validity_writable(raw);
                    let validity = ffi::duckdb_vector_get_validity(raw);
                    ffi::duckdb_validity_set_row_invalid(validity, place);
                }
            }
        }
    }
}

impl Drop for Vector {
    fn drop(&mut self) {
        // SAFETY: owned, not used again; vectors that refer to it keep what they need.
        unsafe { ffi::duckdb_destroy_vector(&raw mut self.0) };
    }
}

/// Places in another vector, as DuckDB has them: those of the rows of a chunk.
pub(super) struct Places(pub(super) ffi::duckdb_selection_vector);

impl Places {
    pub(super) fn of(places: impl ExactSizeIterator<Item = u32>) -> Self {
        // SAFETY: DuckDB's vector has room for as many places as it is asked for.
        unsafe {
            let raw = ffi::duckdb_create_selection_vector(places.len() as u64);
            let to = ffi::duckdb_selection_vector_get_data_ptr(raw);
            let to = std::slice::from_raw_parts_mut(to, places.len());
            to.iter_mut().zip(places).for_each(|(to, place)| *to = place);
            Self(raw)
        }
    }
}

impl Drop for Places {
    fn drop(&mut self) {
        // SAFETY: owned; vectors that were sliced by it keep what they need.
        unsafe { ffi::duckdb_destroy_selection_vector(self.0) };
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::tests::{decode, given};
    use super::super::{Part, Test};

    /// `few` has NULLs, nothing, and texts that lie in the vector and that do not; of `many` each row
    /// has another.
    const MART: &str = "SELECT i AS id, i % 4 AS number, 'n' || i AS many,
            CASE i % 9 WHEN 0 THEN NULL WHEN 1 THEN '' WHEN 2 THEN '17'
                WHEN 3 THEN 'a text that is longer than twelve bytes' ELSE 'text ' || i % 5 END AS few
        FROM range(20_000) t(i)";

    fn with_dictionary(select: &str) -> Vec<String> {
        let mart = decode(select);
        (0..mart.columns().len()).for_each(|column| mart.make(column, Part::Dictionary));
        mart.made().map(|(column, _)| mart.columns()[column].name().to_owned()).collect()
    }

    #[test]
    fn a_text_that_many_rows_have_in_common_is_there_once() {
        assert_eq!(with_dictionary(MART), ["few"]);
        let entries = |count: usize, rows: usize| {
            with_dictionary(&format!("SELECT 't' || i % {count} AS t FROM range({rows}) t(i)"))
        };
        assert_eq!(entries(512, 9_000), ["t"]);
        assert!(entries(513, 9_000).is_empty());
        assert_eq!(entries(25, 100), ["t"]);
        assert!(entries(26, 100).is_empty());
        assert_eq!(with_dictionary("SELECT NULL::VARCHAR AS t FROM range(10)"), ["t"]);
        assert!(with_dictionary("SELECT 'a' AS t LIMIT 0").is_empty());
        assert!(with_dictionary("SELECT '\\xFF'::BLOB AS b FROM range(10)").is_empty());
    }

    #[test]
    fn statements_give_what_they_gave_without_it() {
        let statements = [
            "SELECT count(*) FROM MART GROUP BY few ORDER BY few NULLS FIRST",
            "SELECT sum(id)::BIGINT FROM MART WHERE id % 7 < 3 GROUP BY few, number ORDER BY ALL",
            "SELECT count(DISTINCT few) FROM MART",
            "SELECT length(few) FROM MART ORDER BY id",
            "SELECT (hash(upper(few)) % 1000)::BIGINT FROM MART ORDER BY id",
            "SELECT coalesce(try_cast(few AS BIGINT), -1) FROM MART ORDER BY id",
            "SELECT id FROM MART WHERE few = 'text 3' ORDER BY id",
            "SELECT id FROM MART WHERE few LIKE '%longer%' OR few IS NULL ORDER BY id",
            "SELECT id FROM MART WHERE few IN ('17', '', 'nothing') ORDER BY few, id",
            "SELECT a.id + b.id FROM MART a JOIN MART b ON a.few = b.many OR a.few = b.few
                WHERE b.id < 9 AND a.id < 99 ORDER BY ALL",
            "SELECT count(*) FROM MART a JOIN MART b USING (few)",
            "SELECT sum(id) OVER (PARTITION BY few ORDER BY id)::BIGINT FROM MART ORDER BY id",
            "SELECT id FROM MART",
            "SELECT length(max(few)) FROM MART",
        ];
        let plain = Arc::new(decode(MART));
        let encoded = Arc::new(decode(MART));
        encoded.make(3, Part::Dictionary);
        for mart in [&plain, &encoded] {
            mart.make(1, Part::Index);
        }
        let third = Test::Equals { column: 1, value: Box::new(3_i64.to_le_bytes()) };
        for tests in [vec![], vec![third]] {
            for sql in statements {
                for backwards in [false, true] {
                    let [own, expected] =
                        [&encoded, &plain].map(|mart| given(mart, backwards, &tests, sql));
                    assert_eq!(own, expected, "{sql} {tests:?}");
                    assert!(!own.is_empty());
                }
            }
        }
    }

    #[test]
    fn what_an_entry_would_fail_with_is_no_error_of_rows_that_do_not_have_it() {
        let mart = Arc::new(decode(MART));
        mart.make(3, Part::Dictionary);
        let sql = "SELECT few::BIGINT FROM MART WHERE id % 9 = 2";
        assert_eq!(given(&mart, false, &[], sql), [17; 2_222]);
    }

    #[test]
    fn a_statement_that_looks_at_many_rows_asks_for_it() {
        let mart = Arc::new(decode(MART));
        let wanted = || mart.take_wishes().collect::<Vec<_>>();
        let first = [Test::Within { column: 0, least: 0, greatest: 2_047 }];
        given(&mart, false, &first, "SELECT count(DISTINCT few) FROM MART");
        given(&mart, false, &[], "SELECT count(*) FROM MART");
        assert!(wanted().is_empty());
        given(&mart, false, &[], "SELECT count(DISTINCT few) FROM MART");
        assert_eq!((wanted(), wanted()), (vec![(3, Part::Dictionary)], vec![]));
        mart.make(3, Part::Dictionary);
        given(&mart, false, &[], "SELECT count(DISTINCT few) FROM MART");
        assert!(wanted().is_empty());
    }
}
