//! Chunks of rows, as DuckDB hands them out.

use std::sync::Arc;

use duckdb::ffi;

use super::connection::Session;
use super::layout::Layout;
use super::vector::Vector;

/// A chunk of at most 2,048 rows. It may outlive the statement: DuckDB copied its values for it.
#[derive(Debug)]
pub struct Chunk {
    raw: ffi::duckdb_data_chunk,
    layouts: Vec<Layout>,
    rows: usize,
    /// The database may own the allocator that frees the chunk.
    _session: Arc<Session>,
}

impl Chunk {
    /// # Safety
    /// `raw` is a live chunk of the session, flat, that the caller owns and gives up.
    pub(super) unsafe fn from_raw(raw: ffi::duckdb_data_chunk, session: Arc<Session>) -> Self {
        // SAFETY: the caller's promise; indices stay below the count.
        unsafe {
            let layouts = (0..ffi::duckdb_data_chunk_get_column_count(raw))
                .map(|index| {
                    let vector = ffi::duckdb_data_chunk_get_vector(raw, index);
                    Layout::take(ffi::duckdb_vector_get_column_type(vector))
                })
                .collect();
            let rows = ffi::duckdb_data_chunk_get_size(raw) as usize;
            Self { raw, layouts, rows, _session: session }
        }
    }

    /// The number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The vectors of all columns.
    pub fn columns(&self) -> Vec<Vector<'_>> {
        (0..self.layouts.len()).map(|index| self.column(index)).collect()
    }

    /// The vector of a column, counted from 0.
    ///
    /// # Panics
    /// When there is no such column.
    pub fn column(&self, index: usize) -> Vector<'_> {
        let layout = &self.layouts[index];
        // SAFETY: the chunk has this column, of this layout, with as many rows as the chunk, and owns it.
        unsafe {
            let vector = ffi::duckdb_data_chunk_get_vector(self.raw, index as u64);
            Vector::new(vector, self.rows, layout)
        }
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        // SAFETY: owned, not used again.
        unsafe { ffi::duckdb_destroy_data_chunk(&raw mut self.raw) };
    }
}
