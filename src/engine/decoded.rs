//! Marts that are held decoded: the vectors that DuckDB made of a file, kept for the statements that
//! follow.
//!
//! Most of a statement over Parquet goes into decoding, and always with the same result. A mart that
//! is asked for again and again is therefore decoded once, and a table function gives out its vectors by
//! reference: nothing is copied, and snapshots that have the mart in common share them, which a
//! DuckDB table could not. The vectors are as immutable as the pin that they came from.
//!
//! A view reads from a table that DuckDB does not know, [`table_name`]. Each time a statement is bound,
//! DuckDB asks [`replace`] for it, which names the vectors where the statement's thread was given them
//! ([`pick`]), and the file otherwise. A client's text can name neither the table nor the function: the
//! gate knows marts alone.
#![allow(
    unsafe_code,
    reason = "callbacks of DuckDB's C API; each says what DuckDB promises for its call"
)]

use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char, c_void};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use duckdb::ffi;

use super::direction::ColumnOrder;
use super::duck::{Connection, Database, DuckError};
use super::vector::{Chunk, Type};
use super::{count_rows, quote_literal};

/// A statement's thread takes so many chunks at a time, as many rows as DuckDB puts into a row group
/// of a file: a mart of one row group is read in order, like the file.
const MORSEL_CHUNKS: usize = 60;
/// The rows that a vector has room for.
const VECTOR_ROWS: usize = 2_048;
/// Texts up to this length lie in the vector itself.
const INLINE_BYTES: usize = 12;

const FUNCTION: &CStr = c"martd_decoded";
/// No such schema exists: a name without one could be that of a CTE.
const SCHEMA: &str = "martd_marts";
const TABLE_PREFIX: &str = "martd:";

/// How much memory decoded marts may take, over all snapshots that are alive.
#[derive(Debug)]
pub(super) struct Budget {
    limit: u64,
    used: AtomicU64,
}

impl Budget {
    pub(super) fn new(limit: u64) -> Arc<Self> {
        Arc::new(Self { limit, used: AtomicU64::new(0) })
    }

    pub(super) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }
}

/// A part of the budget, given back when dropped.
#[derive(Debug)]
struct Share {
    budget: Arc<Budget>,
    bytes: u64,
}

impl Share {
    fn grow(&mut self, bytes: u64) -> bool {
        let Budget { limit, used } = &*self.budget;
        let taken = used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
            used.checked_add(bytes).filter(|used| used <= limit)
        });
        self.bytes += if taken.is_ok() { bytes } else { 0 };
        taken.is_ok()
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// The vectors of one mart.
#[derive(Debug)]
pub(super) struct Decoded {
    columns: Vec<DecodedColumn>,
    chunks: Vec<Chunk>,
    rows: u64,
    _share: Share,
}

#[derive(Debug)]
pub(super) struct DecodedColumn {
    name: CString,
    ty: LogicalType,
    kind: Type,
    /// What is known of its order.
    pub(super) order: ColumnOrder,
}

/// Owned, and freed on drop.
#[derive(Debug)]
struct LogicalType(ffi::duckdb_logical_type);

impl Drop for LogicalType {
    fn drop(&mut self) {
        // SAFETY: owned, not used again.
        unsafe { ffi::duckdb_destroy_logical_type(&raw mut self.0) };
    }
}

// SAFETY: nothing here changes once it is made, and DuckDB counts references to vectors atomically.
// Chunks and types of the C API belong to no connection and no database.
unsafe impl Send for Decoded {}
// SAFETY: as above.
unsafe impl Sync for Decoded {}

/// Why a mart is not held decoded.
#[derive(Debug)]
pub(super) enum Declined {
    /// There is not enough of the budget left.
    OverBudget,
    /// It has a column whose vectors are made of others, which are not safe to share.
    Nested,
    /// Its file may change, or is not what it shows.
    NotSealed,
    /// DuckDB's reason.
    Failed(DuckError),
}

impl fmt::Display for Declined {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OverBudget => f.write_str("MARTD_DECODED_MEMORY is used up"),
            Self::Nested => f.write_str("it has a column of a nested type"),
            Self::NotSealed => f.write_str("its file is not copied, or shown as empty"),
            Self::Failed(error) => error.fmt(f),
        }
    }
}

impl From<DuckError> for Declined {
    fn from(error: DuckError) -> Self {
        Self::Failed(error)
    }
}

impl Decoded {
    /// Decodes the file at this path, of which every value has been decoded before by a child.
    pub(super) fn read(
        connection: &Connection,
        path: &str,
        budget: &Arc<Budget>,
    ) -> Result<Self, Declined> {
        let source = format!("read_parquet({})", quote_literal(path));
        let claimed = count_rows(connection, &source)? as usize;
        let mut statement = connection.prepare(&format!("FROM {source}"))?;
        let mut file = statement.execute()?;
        let types: Vec<Type> = file.columns().iter().map(|column| column.ty.clone()).collect();
        let widths: Vec<usize> =
            types.iter().map(width).collect::<Option<_>>().ok_or(Declined::Nested)?;
        // Told before most of it has been decoded in vain.
        let least = claimed.saturating_mul(widths.iter().sum()) as u64;
        if least > budget.limit.saturating_sub(budget.used()) {
            return Err(Declined::OverBudget);
        }
        let mut columns = Vec::with_capacity(types.len());
        for (index, kind) in types.iter().enumerate() {
            let ty = LogicalType(file.logical_type(index));
            let name = CString::new(file.columns()[index].name.as_str());
            let name = name.map_err(|_| DuckError("a column's name holds a NUL".to_owned()))?;
            let order = ColumnOrder::default();
            columns.push(DecodedColumn { name, ty, kind: kind.clone(), order });
        }
        let mut share = Share { budget: Arc::clone(budget), bytes: 0 };
        let (mut chunks, mut rows) = (Vec::new(), 0);
        while let Some(chunk) = file.next_chunk()? {
            if !share.grow(bytes(&chunk, &types, &widths)) {
                return Err(Declined::OverBudget);
            }
            rows += chunk.rows() as u64;
            chunks.push(chunk);
        }
        Ok(Self { columns, chunks, rows, _share: share })
    }

    /// Its columns.
    pub(super) fn columns(&self) -> &[DecodedColumn] {
        &self.columns
    }

    /// The first value of each chunk, of a column whose values are integers to DuckDB (as dates and
    /// timestamps are); NULLs are left out.
    pub(super) fn first_values(&self, column: usize) -> impl Iterator<Item = i64> {
        let kind = &self.columns[column].kind;
        self.chunks.iter().filter_map(move |chunk| {
            let vector = chunk.column(column);
            if chunk.rows() == 0 || vector.is_null(0) {
                return None;
            }
            match kind {
                Type::Integer | Type::Date => Some(i64::from(vector.values::<i32>()[0])),
                Type::BigInt
                | Type::Timestamp
                | Type::TimestampS
                | Type::TimestampMs
                | Type::TimestampNs
                | Type::TimestampTz => Some(vector.values::<i64>()[0]),
                _ => None,
            }
        })
    }
}

impl DecodedColumn {
    /// The column's name.
    pub(super) fn name(&self) -> &str {
        self.name.to_str().expect("made from a string")
    }
}

/// The bytes that a vector takes for a value of this type; `None` for a nested one.
fn width(ty: &Type) -> Option<usize> {
    Some(match ty {
        Type::Boolean | Type::TinyInt | Type::UTinyInt => 1,
        Type::SmallInt | Type::USmallInt => 2,
        Type::Integer | Type::UInteger | Type::Float | Type::Date => 4,
        Type::Decimal { width: ..=4, .. } => 2,
        Type::Decimal { width: 5..=9, .. } => 4,
        Type::Decimal { width: 10..=18, .. }
        | Type::BigInt
        | Type::UBigInt
        | Type::Double
        | Type::Time
        | Type::TimeNs
        | Type::TimeTz
        | Type::Timestamp
        | Type::TimestampS
        | Type::TimestampMs
        | Type::TimestampNs
        | Type::TimestampTz => 8,
        Type::Decimal { .. }
        | Type::HugeInt
        | Type::UHugeInt
        | Type::Uuid
        | Type::Interval
        | Type::Varchar
        | Type::Json
        | Type::Blob
        | Type::Bit
        | Type::Bignum => 16,
        Type::Enum(values) => super::enum_width(values.len()),
        Type::List(_)
        | Type::Array(..)
        | Type::Struct(_)
        | Type::Map(..)
        | Type::Union(_)
        | Type::Null
        | Type::Unsupported(_) => return None,
    })
}

/// The memory that a chunk takes.
fn bytes(chunk: &Chunk, types: &[Type], widths: &[usize]) -> u64 {
    let is_text = |ty: &Type| {
        matches!(ty, Type::Varchar | Type::Json | Type::Blob | Type::Bit | Type::Bignum)
    };
    let mut bytes = 0;
    for (index, (ty, width)) in types.iter().zip(widths).enumerate() {
        bytes += VECTOR_ROWS * width + VECTOR_ROWS / 8;
        if is_text(ty) {
            let texts = chunk.column(index);
            let present = (0..chunk.rows()).filter(|&row| !texts.is_null(row));
            bytes += present
                .map(|row| texts.bytes(row).len())
                .filter(|&length| length > INLINE_BYTES)
                .sum::<usize>();
        }
    }
    bytes as u64
}

/// What the view of the mart with this number reads.
pub(super) fn table_name(mart: usize) -> String {
    format!("{SCHEMA}.\"{TABLE_PREFIX}{mart}\"")
}

/// Has a database read marts, the files of which are at these paths.
pub(super) fn install(
    database: &Database,
    connection: &Connection,
    paths: Vec<String>,
) -> Result<(), DuckError> {
    let paths = paths
        .into_iter()
        .map(CString::new)
        .collect::<Result<Vec<CString>, _>>()
        .map_err(|_| DuckError("a path holds a NUL".to_owned()))?;
    let data = Box::into_raw(Box::new(paths)).cast();
    database.add_replacement_scan(Some(replace), data, Some(free::<Vec<CString>>));
    // SAFETY: the function and the type are created and destroyed here; DuckDB copies both.
    unsafe {
        let mut function = ffi::duckdb_create_table_function();
        let mut number = ffi::duckdb_create_logical_type(ffi::DUCKDB_TYPE_DUCKDB_TYPE_BIGINT);
        ffi::duckdb_table_function_set_name(function, FUNCTION.as_ptr());
        ffi::duckdb_table_function_add_parameter(function, number);
        ffi::duckdb_table_function_supports_projection_pushdown(function, true);
        ffi::duckdb_table_function_set_bind(function, Some(bind));
        ffi::duckdb_table_function_set_init(function, Some(begin));
        ffi::duckdb_table_function_set_local_init(function, Some(begin_thread));
        ffi::duckdb_table_function_set_function(function, Some(give));
        let registered = connection.register(function);
        ffi::duckdb_destroy_logical_type(&raw mut number);
        ffi::duckdb_destroy_table_function(&raw mut function);
        registered
    }
}

thread_local! {
    /// The decoded marts, by number, that the statement which this thread binds reads.
    static PICKED: RefCell<Vec<(usize, Reading)>> = const { RefCell::new(Vec::new()) };
}

/// How a statement reads a decoded mart.
#[derive(Clone)]
struct Reading {
    decoded: Arc<Decoded>,
    /// From the last chunk to the first.
    backwards: bool,
}

/// What was picked, until it is dropped.
pub(super) struct Picked(());

/// Has statements that this thread binds from here on read these marts decoded, and from which end.
pub(super) fn pick(marts: Vec<(usize, Arc<Decoded>)>, backwards: bool) -> Picked {
    let reading = |(mart, decoded)| (mart, Reading { decoded, backwards });
    PICKED.set(marts.into_iter().map(reading).collect());
    Picked(())
}

impl Drop for Picked {
    fn drop(&mut self) {
        PICKED.take();
    }
}

fn picked(mart: usize) -> Option<Reading> {
    PICKED.with_borrow(|picked| {
        picked.iter().find(|(number, _)| *number == mart).map(|(_, reading)| reading.clone())
    })
}

/// # Safety
/// `data` is a `Box<T>` that was handed to DuckDB.
unsafe extern "C" fn free<T>(data: *mut c_void) {
    // SAFETY: the caller's promise; DuckDB calls this once.
    drop(unsafe { Box::from_raw(data.cast::<T>()) });
}

/// # Safety
/// Called by DuckDB with a name and the paths that [`install`] gave it.
unsafe extern "C" fn replace(
    info: ffi::duckdb_replacement_scan_info,
    name: *const c_char,
    data: *mut c_void,
) {
    // SAFETY: as above; the value is destroyed after DuckDB has copied it.
    unsafe {
        let name = CStr::from_ptr(name).to_str().unwrap_or_default();
        let Some(number) = name.strip_prefix(TABLE_PREFIX) else { return };
        let Ok(mart) = number.parse::<usize>() else { return };
        let paths = &*data.cast::<Vec<CString>>();
        let (function, mut value) = match (picked(mart), paths.get(mart)) {
            (Some(_), _) => (FUNCTION, ffi::duckdb_create_int64(mart as i64)),
            (None, Some(path)) => (c"read_parquet", ffi::duckdb_create_varchar(path.as_ptr())),
            (None, None) => return,
        };
        ffi::duckdb_replacement_scan_set_function_name(info, function.as_ptr());
        ffi::duckdb_replacement_scan_add_parameter(info, value);
        ffi::duckdb_destroy_value(&raw mut value);
    }
}

/// # Safety
/// Called by DuckDB to bind the function, on the thread whose statement it is.
unsafe extern "C" fn bind(info: ffi::duckdb_bind_info) {
    // SAFETY: the parameter's value is destroyed here; names and types live as long as what is read,
    // which the plan keeps.
    unsafe {
        let mut value = ffi::duckdb_bind_get_parameter(info, 0);
        let mart = ffi::duckdb_get_int64(value);
        ffi::duckdb_destroy_value(&raw mut value);
        let Some(reading) = picked(mart as usize) else {
            return ffi::duckdb_bind_set_error(info, c"no such mart is held decoded".as_ptr());
        };
        for column in &reading.decoded.columns {
            ffi::duckdb_bind_add_result_column(info, column.name.as_ptr(), column.ty.0);
        }
        ffi::duckdb_bind_set_cardinality(info, reading.decoded.rows, true);
        let data = Box::into_raw(Box::new(reading)).cast();
        ffi::duckdb_bind_set_bind_data(info, data, Some(free::<Reading>));
    }
}

/// One statement's way through a mart, which its threads share.
struct Scan {
    reading: Reading,
    /// The columns it wants. Beyond the mart's own are those that DuckDB counts rows by, and whose
    /// values it does not look at.
    columns: Vec<usize>,
    /// The first chunk that no thread has taken.
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
        let reading = (*ffi::duckdb_init_get_bind_data(info).cast::<Reading>()).clone();
        let morsels = reading.decoded.chunks.len().div_ceil(MORSEL_CHUNKS).max(1) as u64;
        let columns = (0..ffi::duckdb_init_get_column_count(info))
            .map(|place| ffi::duckdb_init_get_column_index(info, place) as usize)
            .collect();
        let scan = Scan { reading, columns, next: AtomicUsize::new(0) };
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
        let Reading { decoded, backwards } = &scan.reading;
        let chunks = &decoded.chunks;
        if morsel.next == morsel.end {
            morsel.next = scan.next.fetch_add(MORSEL_CHUNKS, Ordering::Relaxed).min(chunks.len());
            morsel.end = (morsel.next + MORSEL_CHUNKS).min(chunks.len());
        }
        if morsel.next == morsel.end {
            return ffi::duckdb_data_chunk_set_size(output, 0);
        }
        let place = if *backwards { chunks.len() - 1 - morsel.next } else { morsel.next };
        let chunk = &chunks[place];
        morsel.next += 1;
        for (place, &column) in scan.columns.iter().enumerate() {
            if column < decoded.columns.len() {
                let vector = ffi::duckdb_data_chunk_get_vector(output, place as u64);
                ffi::duckdb_vector_reference_vector(vector, chunk.raw_column(column));
            }
        }
        ffi::duckdb_data_chunk_set_size(output, chunk.rows() as u64);
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    const PLENTY: u64 = 1 << 30;

    fn database() -> (Arc<Database>, Connection) {
        let database =
            Database::open_in_memory(&[("threads", "1".to_owned())]).expect("DuckDB opens");
        let connection = database.connect().expect("a connection");
        (database, connection)
    }

    fn read(select: &str, budget: &Arc<Budget>) -> Result<Decoded, Declined> {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("a.parquet").display().to_string();
        let (_, connection) = database();
        connection.execute(&format!("COPY ({select}) TO '{path}'")).expect("a file");
        Decoded::read(&connection, &path, budget)
    }

    /// A mart of these rows.
    pub(in crate::engine) fn decode(select: &str) -> Decoded {
        read(select, &Budget::new(PLENTY)).expect("it can be held")
    }

    /// The values of the first column of what a statement over this mart gives.
    fn values(decoded: Decoded, backwards: bool, sql: &str) -> Vec<i64> {
        let (database, connection) = database();
        install(&database, &connection, vec!["nowhere.parquet".to_owned()]).expect("installed");
        let _picked = pick(vec![(0, Arc::new(decoded))], backwards);
        let mut statement =
            connection.prepare(&sql.replace("MART", &table_name(0))).expect("bound");
        let mut rows = statement.execute().expect("it runs");
        let mut values = Vec::new();
        while let Some(chunk) = rows.next_chunk().expect("rows") {
            values.extend_from_slice(chunk.column(0).values::<i64>());
        }
        values
    }

    #[test]
    fn rows_come_in_the_order_of_the_file_or_from_the_last_chunk_on() {
        let numbers = || decode("SELECT i, i::VARCHAR AS t FROM range(5000) t(i)");
        assert_eq!(values(numbers(), false, "SELECT i FROM MART"), (0..5000).collect::<Vec<_>>());
        let backwards = values(numbers(), true, "SELECT i FROM MART");
        let expected: Vec<i64> = (4096..5000).chain(2048..4096).chain(0..2048).collect();
        assert_eq!(backwards, expected);
        assert_eq!(values(numbers(), true, "SELECT count(*) FROM MART"), [5000]);
        let none = decode("SELECT 1::BIGINT AS i LIMIT 0");
        assert!(values(none, true, "SELECT i FROM MART").is_empty());
    }

    #[test]
    fn the_budget_is_kept_and_given_back() {
        let budget = Budget::new(1 << 20);
        let large = "SELECT repeat('x', 2000) AS t FROM range(1000)";
        assert!(matches!(read(large, &budget), Err(Declined::OverBudget)));
        assert!(matches!(
            read("SELECT i FROM range(1000000) t(i)", &budget),
            Err(Declined::OverBudget)
        ));
        assert_eq!(budget.used(), 0);
        let small = read("SELECT i FROM range(10) t(i)", &budget).expect("it can be held");
        assert!((10 * 8..1 << 20).contains(&budget.used()));
        drop(small);
        assert_eq!(budget.used(), 0);
        assert!(matches!(read("SELECT [1] AS l", &budget), Err(Declined::Nested)));
    }
}
