//! Chunks of rows, as DuckDB hands them out.
#![allow(unsafe_code, reason = "owns DuckDB's chunks; bounds are checked here")]

use duckdb::ffi;

use super::vector::{Memory, Vector};

/// A chunk of at most 2,048 rows.
#[derive(Debug)]
pub struct Chunk {
    columns: Vec<Memory>,
    rows: usize,
    /// What the columns point into.
    _owner: Fetched,
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
            Self { columns, rows, _owner: Fetched(raw) }
        }
    }

    /// The number of rows.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// The vectors of all columns.
    pub(crate) fn columns(&self) -> Vec<Vector<'_>> {
        (0..self.columns.len()).map(|index| self.column(index)).collect()
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
