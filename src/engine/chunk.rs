//! Chunks of rows: as DuckDB hands them out, or put together from the rows of a decoded mart.
#![allow(unsafe_code, reason = "owns DuckDB's chunks; bounds are checked here")]

use std::sync::Arc;

use duckdb::ffi;

use super::decoded::Decoded;
use super::vector::{Memory, Vector};

/// The rows that a chunk, and each of its vectors, has room for.
pub(super) const CHUNK_ROWS: usize = 2_048;

/// A chunk of at most 2,048 rows.
#[derive(Debug)]
pub struct Chunk {
    columns: Vec<Memory>,
    rows: usize,
    _owner: Owner,
}

/// What the columns point into.
#[derive(Debug)]
enum Owner {
    Fetched(#[expect(dead_code, reason = "it is there to be dropped")] Fetched),
    /// Texts lie in the mart, all else in the words or in the mart.
    Gathered {
        _mart: Arc<Decoded>,
        _words: Vec<u64>,
    },
}

#[derive(Debug)]
struct Fetched(ffi::duckdb_data_chunk);

impl Drop for Fetched {
    fn drop(&mut self) {
        // SAFETY: owned, not used again.
        unsafe { ffi::duckdb_destroy_data_chunk(&raw mut self.0) };
    }
}

impl Chunk {
    /// # Safety
    /// `raw` is a live chunk that the caller owns and gives up.
    pub(super) unsafe fn from_raw(raw: ffi::duckdb_data_chunk) -> Self {
        // SAFETY: the caller's promise; indices stay below the count.
        unsafe {
            let rows = ffi::duckdb_data_chunk_get_size(raw) as usize;
            let columns = (0..ffi::duckdb_data_chunk_get_column_count(raw))
                .map(|index| Memory::of(ffi::duckdb_data_chunk_get_vector(raw, index)))
                .collect();
            Self { columns, rows, _owner: Owner::Fetched(Fetched(raw)) }
        }
    }

    /// The first rows of a chunk of a mart, with these columns.
    pub(super) fn part_of(
        mart: &Arc<Decoded>,
        chunk: usize,
        columns: &[usize],
        rows: usize,
    ) -> Self {
        let held = &mart.chunks()[chunk];
        assert!(rows <= held.rows);
        let memory = |&column: &usize| {
            let parts = &raw const mart.columns()[column].parts;
            Memory { parts, chunk, ..held.columns[column] }
        };
        let columns = columns.iter().map(memory).collect();
        let owner = Owner::Gathered { _mart: Arc::clone(mart), _words: Vec::new() };
        Self { columns, rows, _owner: owner }
    }

    /// # Safety
    /// The columns have so many rows, and point into the mart or the words.
    pub(super) unsafe fn gathered(
        mart: &Arc<Decoded>,
        words: Vec<u64>,
        columns: Vec<Memory>,
        rows: usize,
    ) -> Self {
        let owner = Owner::Gathered { _mart: Arc::clone(mart), _words: words };
        Self { columns, rows, _owner: owner }
    }

    /// The number of rows.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// The vectors of all columns.
    pub(crate) fn columns(&self) -> Vec<Vector<'_>> {
        (0..self.columns.len()).map(|index| self.column(index)).collect()
    }

    /// Where a column's values are.
    pub(super) fn memory(&self, index: usize) -> Memory {
        self.columns[index]
    }

    /// The vector of a column, counted from 0.
    ///
    /// # Panics
    /// When there is no such column.
    pub(crate) fn column(&self, index: usize) -> Vector<'_> {
        // SAFETY: each column has as many rows as the chunk, and lives as long.
        unsafe { Vector::new(self.columns[index], self.rows) }
    }
}
