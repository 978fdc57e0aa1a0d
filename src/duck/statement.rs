//! Prepared statements, the rows that they give, and the chunks that rows come in.

use std::ffi::CStr;
use std::sync::Arc;

use duckdb::ffi;

use super::connection::{Connection, Session};
use super::error::{DuckError, ErrorKind};
use super::layout::Layout;
use super::raw_value::RawValue;
use super::types::{Column, Type, owned_text};
use super::value::{TypeName, Value};
use super::vector::Vector;

/// A prepared statement.
#[derive(Debug)]
pub struct Statement {
    raw: ffi::duckdb_prepared_statement,
    session: Arc<Session>,
}

// SAFETY: a prepared statement may move between threads; it is used by one at a time (`&mut`).
unsafe impl Send for Statement {}

impl Statement {
    /// # Safety
    /// `raw` is a live statement of the session, which the caller owns and gives up.
    pub(super) unsafe fn from_raw(
        raw: ffi::duckdb_prepared_statement,
        session: Arc<Session>,
    ) -> Self {
        Self { raw, session }
    }

    /// The names of the parameters in order: `start` for `$start`, `1` for `$1` or the first `?`.
    pub fn parameter_names(&self) -> Vec<String> {
        // SAFETY: a live statement; each name is DuckDB's, freed after it was copied.
        unsafe {
            (1..=ffi::duckdb_nparams(self.raw))
                .map(|index| {
                    let name = ffi::duckdb_parameter_name(self.raw, index);
                    if name.is_null() { index.to_string() } else { owned_text(name.cast_mut()) }
                })
                .collect()
        }
    }

    /// Names and types of the columns that it gives.
    pub fn columns(&self) -> Vec<Column> {
        // SAFETY: a live statement, indices below its count; names and types are freed after they
        // were read.
        unsafe {
            (0..ffi::duckdb_prepared_statement_column_count(self.raw))
                .map(|index| Column {
                    name: owned_text(
                        ffi::duckdb_prepared_statement_column_name(self.raw, index).cast_mut(),
                    ),
                    ty: Type::take(ffi::duckdb_prepared_statement_column_logical_type(
                        self.raw, index,
                    )),
                })
                .collect()
        }
    }

    /// Binds the parameter of this number, counted from 1.
    ///
    /// # Errors
    /// When there is no such parameter, or DuckDB cannot cast the value to the type that it asks for.
    pub fn bind(&mut self, number: usize, value: &Value) -> Result<(), DuckError> {
        let raw_value = match value {
            Value::Typed { value, ty } => self.cast(value, ty)?,
            plain => RawValue::new(plain),
        };
        if raw_value.0.is_null() {
            let message = "Out of Memory Error: no room for the value";
            return Err(DuckError::new(ErrorKind::OutOfMemory, message));
        }
        // SAFETY: a live statement and value; DuckDB copies the value, and checks the number.
        unsafe {
            let state = ffi::duckdb_bind_value(self.raw, number as u64, raw_value.0);
            if state == ffi::DuckDBSuccess {
                Ok(())
            } else {
                Err(DuckError::of_text(ffi::duckdb_prepare_error(self.raw)))
            }
        }
    }

    /// Has DuckDB cast a value, as the statement itself could have.
    fn cast(&self, value: &Value, ty: &TypeName) -> Result<RawValue, DuckError> {
        let connection = Connection::of_session(&self.session);
        let mut cast = connection.prepare(&format!("SELECT CAST(? AS {})", ty.as_str()))?;
        cast.bind(1, value)?;
        let mut rows = cast.execute()?;
        let ty = rows.columns()[0].ty.clone();
        let chunk = rows.next_chunk()?.ok_or_else(|| {
            DuckError::new(ErrorKind::Statement, "Conversion Error: a cast gave no row")
        })?;
        RawValue::read(&ty, &chunk.column(0), 0)
    }

    /// Starts the statement; rows are computed as they are fetched.
    ///
    /// # Errors
    /// DuckDB's, when the statement fails before its first row.
    pub fn execute(&mut self) -> Result<Rows<'_>, DuckError> {
        // SAFETY: zeroed is the C API's own initial state; a failed execution leaves a result that
        // carries the error and is destroyed with `Rows`.
        unsafe {
            let mut raw: ffi::duckdb_result = std::mem::zeroed();
            let state = ffi::duckdb_execute_prepared_streaming(self.raw, &raw mut raw);
            let mut rows = Rows { raw, columns: Vec::new(), ended: false, statement: self };
            if state != ffi::DuckDBSuccess {
                return Err(DuckError::of_result(&mut rows.raw));
            }
            rows.columns = Column::all_of(&mut rows.raw);
            Ok(rows)
        }
    }
}

impl Drop for Statement {
    fn drop(&mut self) {
        // SAFETY: owned, not used again.
        unsafe { ffi::duckdb_destroy_prepare(&raw mut self.raw) };
    }
}

/// The rows of a running statement.
#[derive(Debug)]
pub struct Rows<'s> {
    raw: ffi::duckdb_result,
    columns: Vec<Column>,
    /// Whether there is nothing more to fetch. To fetch again would be answered with another error than
    /// the one that ended the statement.
    ended: bool,
    statement: &'s mut Statement,
}

impl Rows<'_> {
    /// Names and types of the columns.
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// The next chunk of at most 2,048 rows, and at least one; `None` at the end, and after an error.
    ///
    /// # Errors
    /// DuckDB's, when the statement fails or is interrupted.
    pub fn next_chunk(&mut self) -> Result<Option<Chunk>, DuckError> {
        if self.ended {
            return Ok(None);
        }
        // SAFETY: a live result; the chunk is ours from here on.
        unsafe {
            let raw = ffi::duckdb_fetch_chunk(self.raw);
            if !raw.is_null() {
                let chunk = Chunk::from_raw(raw, Arc::clone(&self.statement.session));
                if chunk.rows() > 0 {
                    return Ok(Some(chunk));
                }
            }
            self.ended = true;
            if ffi::duckdb_result_error(&raw mut self.raw).is_null() {
                Ok(None)
            } else {
                Err(DuckError::of_result(&mut self.raw))
            }
        }
    }
}

impl Drop for Rows<'_> {
    fn drop(&mut self) {
        // SAFETY: owned, not used again.
        unsafe { ffi::duckdb_destroy_result(&raw mut self.raw) };
    }
}

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
    unsafe fn from_raw(raw: ffi::duckdb_data_chunk, session: Arc<Session>) -> Self {
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

/// The version of the library that is loaded, for example `v1.5.6`.
pub fn version() -> String {
    // SAFETY: a static C string.
    unsafe { CStr::from_ptr(ffi::duckdb_library_version()) }.to_string_lossy().into_owned()
}
