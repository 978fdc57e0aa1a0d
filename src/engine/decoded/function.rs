//! The table function that gives out the vectors of decoded marts.
//!
//! A view reads from a table that DuckDB does not know, [`table_name`]. Each time a statement is bound,
//! DuckDB asks [`replace`] for it, which names the vectors where the statement's thread was given them
//! ([`pick`]), and the file otherwise. A client's text can name neither the table nor the function: the
//! gate knows marts alone.
//!
//! A second view of a mart, in [`ROWS_SCHEMA`], has a column more: [`ROW_COLUMN`], the numbers of its
//! rows.
#![allow(
    unsafe_code,
    reason = "callbacks of DuckDB's C API; each says what DuckDB promises for its call"
)]

use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char, c_void};
use std::ptr;
use std::slice;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use duckdb::ffi;

use super::dictionary::Places;
use super::selection::{Restriction, Selection};
use super::{CHUNK_ROWS, Decoded, PLACE_BITS, Part};
use crate::engine::duck::{Connection, Database, DuckError};

/// A statement's thread takes so many chunks at a time, as many rows as DuckDB puts into a row group
/// of a file: a mart of one row group is read in order, like the file.
const MORSEL_CHUNKS: usize = 60;

/// One of so many rows is enough to look at for a dictionary to be of use.
const MANY: u64 = 8;

/// More than the places of a chunk's rows take, and what refers to them in each of many columns.
const PICKING_BYTES: usize = 64 << 10;

const FUNCTION: &CStr = c"martd_decoded";
/// No such schema exists: a name without one could be that of a CTE.
const SCHEMA: &str = "martd_marts";
const TABLE_PREFIX: &str = "martd:";
const ROWS_PREFIX: &str = "martd-rows:";
/// The schema of the views that have the numbers of rows. No client can name it.
pub(in crate::engine) const ROWS_SCHEMA: &str = "martd_rows";
/// The column of a row's number.
pub(in crate::engine) const ROW_COLUMN: &CStr = c"martd:row";

/// What the view of the mart with this number reads.
pub(in crate::engine) fn table_name(mart: usize) -> String {
    format!("{SCHEMA}.\"{TABLE_PREFIX}{mart}\"")
}

/// What its view with the numbers of rows reads; it can be made where the mart was picked.
pub(in crate::engine) fn numbered_table_name(mart: usize) -> String {
    format!("{SCHEMA}.\"{ROWS_PREFIX}{mart}\"")
}

/// Has a database read marts as they are [picked](pick).
pub(in crate::engine) fn install(
    database: &Database,
    connection: &Connection,
) -> Result<(), DuckError> {
    database.add_replacement_scan(Some(replace), ptr::null_mut(), None);
    // SAFETY: the function and the types are created and destroyed here; DuckDB copies both.
    unsafe {
        let mut function = ffi::duckdb_create_table_function();
        let mut number = ffi::duckdb_create_logical_type(ffi::DUCKDB_TYPE_DUCKDB_TYPE_BIGINT);
        let mut truth = ffi::duckdb_create_logical_type(ffi::DUCKDB_TYPE_DUCKDB_TYPE_BOOLEAN);
        ffi::duckdb_table_function_set_name(function, FUNCTION.as_ptr());
        ffi::duckdb_table_function_add_parameter(function, number);
        ffi::duckdb_table_function_add_parameter(function, truth);
        ffi::duckdb_table_function_supports_projection_pushdown(function, true);
        ffi::duckdb_table_function_set_bind(function, Some(bind));
        ffi::duckdb_table_function_set_init(function, Some(begin));
        ffi::duckdb_table_function_set_local_init(function, Some(begin_thread));
        ffi::duckdb_table_function_set_function(function, Some(give));
        let registered = connection.register(function);
        ffi::duckdb_destroy_logical_type(&raw mut number);
        ffi::duckdb_destroy_logical_type(&raw mut truth);
        ffi::duckdb_destroy_table_function(&raw mut function);
        registered
    }
}

thread_local! {
    /// What the statement that this thread binds reads.
    static PICKED: RefCell<Option<Pick>> = const { RefCell::new(None) };
}

struct Pick {
    /// The files of all marts, by number.
    paths: Arc<[CString]>,
    /// The marts that are read decoded.
    decoded: Vec<Reading>,
}

/// How a statement reads a decoded mart.
#[derive(Clone)]
struct Reading {
    mart: usize,
    decoded: Arc<Decoded>,
    way: Way,
    restriction: Arc<Restriction>,
}

/// How a statement goes through the marts that it reads decoded.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::engine) struct Way {
    /// From the last chunk to the first.
    pub(in crate::engine) backwards: bool,
    /// It brings rows together that have values in common: with texts as entries of a
    /// [`Dictionary`](super::dictionary::Dictionary), where there is one. Others are faster without.
    pub(in crate::engine) hashes: bool,
}

/// What was picked, until it is dropped.
pub(in crate::engine) struct Picked(());

/// Has statements that this thread binds from here on read the marts at these paths; and some of them
/// decoded, in which way, and only what the restriction leaves of them.
pub(in crate::engine) fn pick(
    paths: &Arc<[CString]>,
    marts: &[(usize, Arc<Decoded>)],
    way: Way,
    restriction: &Arc<Restriction>,
) -> Picked {
    let reading = |(mart, decoded): &(usize, Arc<Decoded>)| Reading {
        mart: *mart,
        decoded: Arc::clone(decoded),
        way,
        restriction: Arc::clone(restriction),
    };
    let decoded = marts.iter().map(reading).collect();
    PICKED.set(Some(Pick { paths: Arc::clone(paths), decoded }));
    Picked(())
}

impl Drop for Picked {
    fn drop(&mut self) {
        PICKED.take();
    }
}

fn picked(mart: usize) -> Option<Reading> {
    PICKED.with_borrow(|picked| {
        picked.as_ref()?.decoded.iter().find(|reading| reading.mart == mart).cloned()
    })
}

/// # Safety
/// `data` is a `Box<T>` that was handed to DuckDB.
unsafe extern "C" fn free<T>(data: *mut c_void) {
    // SAFETY: the caller's promise; DuckDB calls this once.
    drop(unsafe { Box::from_raw(data.cast::<T>()) });
}

/// # Safety
/// Called by DuckDB with a name, on the thread whose statement it is.
unsafe extern "C" fn replace(
    info: ffi::duckdb_replacement_scan_info,
    name: *const c_char,
    _: *mut c_void,
) {
    // SAFETY: as above; the value is destroyed after DuckDB has copied it.
    unsafe {
        let name = CStr::from_ptr(name).to_str().unwrap_or_default();
        let (number, with_rows) = match name.strip_prefix(TABLE_PREFIX) {
            Some(number) => (number, false),
            None => (name.strip_prefix(ROWS_PREFIX).unwrap_or_default(), true),
        };
        let Ok(mart) = number.parse::<usize>() else { return };
        let path = PICKED.with_borrow(|picked| picked.as_ref()?.paths.get(mart).cloned());
        let (function, values) = match (picked(mart), path) {
            (Some(_), _) => {
                let number = ffi::duckdb_create_int64(mart as i64);
                (FUNCTION, vec![number, ffi::duckdb_create_bool(with_rows)])
            }
            (None, Some(path)) if !with_rows => {
                (c"read_parquet", vec![ffi::duckdb_create_varchar(path.as_ptr())])
            }
            (None, _) => return,
        };
        ffi::duckdb_replacement_scan_set_function_name(info, function.as_ptr());
        for mut value in values {
            ffi::duckdb_replacement_scan_add_parameter(info, value);
            ffi::duckdb_destroy_value(&raw mut value);
        }
    }
}

/// # Safety
/// Called by DuckDB to bind the function, on the thread whose statement it is.
unsafe extern "C" fn bind(info: ffi::duckdb_bind_info) {
    // SAFETY: the parameters' values are destroyed here; names and types live as long as what is read,
    // which the plan keeps.
    unsafe {
        let mut value = ffi::duckdb_bind_get_parameter(info, 0);
        let mart = ffi::duckdb_get_int64(value);
        ffi::duckdb_destroy_value(&raw mut value);
        let mut value = ffi::duckdb_bind_get_parameter(info, 1);
        let with_rows = ffi::duckdb_get_bool(value);
        ffi::duckdb_destroy_value(&raw mut value);
        let Some(reading) = picked(mart as usize) else {
            return ffi::duckdb_bind_set_error(info, c"no such mart is held decoded".as_ptr());
        };
        for column in &reading.decoded.columns {
            ffi::duckdb_bind_add_result_column(info, column.name.as_ptr(), column.ty.0);
        }
        if with_rows {
            let mut number = ffi::duckdb_create_logical_type(ffi::DUCKDB_TYPE_DUCKDB_TYPE_BIGINT);
            ffi::duckdb_bind_add_result_column(info, ROW_COLUMN.as_ptr(), number);
            ffi::duckdb_destroy_logical_type(&raw mut number);
        }
        ffi::duckdb_bind_set_cardinality(info, reading.decoded.rows, true);
        let data = Box::into_raw(Box::new(reading)).cast();
        ffi::duckdb_bind_set_bind_data(info, data, Some(free::<Reading>));
    }
}

/// One statement's way through a mart, which its threads share.
struct Scan {
    decoded: Arc<Decoded>,
    hashes: bool,
    selection: Selection,
    /// The columns it wants. The one after the mart's own is that of the rows' numbers; beyond are
    /// those that DuckDB counts rows by, and whose values it does not look at.
    columns: Vec<usize>,
    /// The first chunk of the selection that no thread has taken.
    next: AtomicUsize,
}

/// The chunks that one thread has taken.
#[derive(Default)]
struct Morsel {
    next: usize,
    end: usize,
}

/// # Safety
/// Called by DuckDB when a statement begins, with what [`bind`] left.
unsafe extern "C" fn begin(info: ffi::duckdb_init_info) {
    // SAFETY: as above; the data is freed by DuckDB.
    unsafe {
        let reading = &*ffi::duckdb_init_get_bind_data(info).cast::<Reading>();
        let Reading { mart, decoded, way, restriction } = reading;
        let selection = restriction.select(*mart, decoded, way.backwards);
        let morsels = selection.len().div_ceil(MORSEL_CHUNKS).max(1) as u64;
        let columns = (0..ffi::duckdb_init_get_column_count(info))
            .map(|place| ffi::duckdb_init_get_column_index(info, place) as usize)
            .collect::<Vec<_>>();
        if way.hashes && selection.rows() as u64 * MANY >= decoded.rows {
            let own = columns.iter().filter(|&&column| column < decoded.columns.len());
            own.for_each(|&column| decoded.wish(column, Part::Dictionary));
        }
        let decoded = Arc::clone(decoded);
        let next = AtomicUsize::new(0);
        let scan = Scan { decoded, hashes: way.hashes, selection, columns, next };
        let data = Box::into_raw(Box::new(scan)).cast();
        ffi::duckdb_init_set_init_data(info, data, Some(free::<Scan>));
        ffi::duckdb_init_set_max_threads(info, morsels);
    }
}

/// # Safety
/// Called by DuckDB for each thread of a statement.
unsafe extern "C" fn begin_thread(info: ffi::duckdb_init_info) {
    let data = Box::into_raw(Box::<Morsel>::default()).cast();
    // SAFETY: as above; the data is freed by DuckDB.
    unsafe { ffi::duckdb_init_set_init_data(info, data, Some(free::<Morsel>)) };
}

/// # Safety
/// Called by DuckDB for a chunk, with what [`begin`] and this thread's [`begin_thread`] left.
unsafe extern "C" fn give(info: ffi::duckdb_function_info, output: ffi::duckdb_data_chunk) {
    // SAFETY: as above; nobody else has this thread's morsel. The vectors that are referred to have
    // the types that were bound, and what refers to them keeps them.
    unsafe {
        let scan = &*ffi::duckdb_function_get_init_data(info).cast::<Scan>();
        let morsel = &mut *ffi::duckdb_function_get_local_init_data(info).cast::<Morsel>();
        let Scan { decoded, hashes, selection, columns, next } = scan;
        if morsel.next == morsel.end {
            morsel.next = next.fetch_add(MORSEL_CHUNKS, Ordering::Relaxed).min(selection.len());
            morsel.end = (morsel.next + MORSEL_CHUNKS).min(selection.len());
        }
        if morsel.next == morsel.end {
            return ffi::duckdb_data_chunk_set_size(output, 0);
        }
        let (number, rows) = selection.visit(decoded, morsel.next);
        morsel.next += 1;
        let chunk = &decoded.chunks[number];
        if rows.is_some() && !crate::memory::is_left(PICKING_BYTES) {
            let message = c"Out of Memory Error: no room for the places of rows";
            return ffi::duckdb_function_set_error(info, message.as_ptr());
        }
        let picked =
            rows.map(|rows| Places::of(rows.iter().map(|&row| row & (CHUNK_ROWS - 1) as u32)));
        let count = rows.map_or(chunk.rows(), <[u32]>::len);
        for (place, &column) in columns.iter().enumerate() {
            let vector = ffi::duckdb_data_chunk_get_vector(output, place as u64);
            if column < decoded.columns.len() {
                let dictionary = decoded.columns[column].parts.dictionary();
                let held = dictionary
                    .filter(|_| *hashes)
                    .map_or_else(|| chunk.memory(column).raw, |texts| texts.vector(number));
                ffi::duckdb_vector_reference_vector(vector, held);
                if let Some(places) = &picked {
                    ffi::duckdb_slice_vector(vector, places.0, count as u64);
                }
            } else if column == decoded.columns.len() {
                let to = ffi::duckdb_vector_get_data(vector).cast::<i64>();
                let to = slice::from_raw_parts_mut(to, count);
                match rows {
                    Some(rows) => to.iter_mut().zip(rows).for_each(|(to, &row)| *to = row.into()),
                    None => {
                        let numbers = (number << PLACE_BITS) as i64..;
                        to.iter_mut().zip(numbers).for_each(|(to, number)| *to = number);
                    }
                }
            }
        }
        ffi::duckdb_data_chunk_set_size(output, count as u64);
    }
}
