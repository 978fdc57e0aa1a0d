//! A safe face of DuckDB's C API: as much of it as the engine uses.
//!
//! The `duckdb` crate's own statements cannot bind lists, hide the kind of an error, and turn every
//! answer into Arrow arrays. martd needs typed list parameters (`IN (SELECT unnest($ids))`), and
//! writes answers straight from DuckDB's vectors, so it calls the C API that the crate carries.
//!
//! Invariant: this module, [`super::chunk`], [`super::types`] and [`super::vector`] hold all `unsafe`
//! code that calls DuckDB. Every handle here owns what it points to and keeps alive what that depends
//! on: a [`Rows`] borrows its [`Statement`], which holds its connection, which holds its database.
#![allow(unsafe_code, reason = "wraps a C API; the invariants are stated at each handle")]

use std::ffi::{CStr, CString, c_char};
use std::ptr;
use std::sync::Arc;

use duckdb::ffi;

use super::chunk::Chunk;
use super::types::{Column, Type};
use super::value::{TypeName, Value};
use super::vector::{RawHugeInt, RawInterval, RawListEntry, Vector};

/// How DuckDB's errors begin when there is no memory left.
pub(super) const OUT_OF_MEMORY: &str = "Out of Memory Error";

/// An error as DuckDB words it, for example `Binder Error: Referenced column "x" not found…`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct DuckError(pub(super) String);

impl DuckError {
    /// # Safety
    /// `message` is null or a C string that lives through the call.
    unsafe fn from_ptr(message: *const c_char) -> Self {
        if message.is_null() {
            return Self("DuckDB gave no reason".to_owned());
        }
        // SAFETY: the caller's promise.
        Self(unsafe { CStr::from_ptr(message) }.to_string_lossy().into_owned())
    }

    /// Whether the statement was stopped by [`Interrupt::interrupt`].
    pub(crate) fn is_interrupt(&self) -> bool {
        self.0.starts_with("INTERRUPT Error")
    }

    /// Whether the process has no descriptor left to open a file with.
    pub(crate) fn is_out_of_descriptors(&self) -> bool {
        self.0.contains("Too many open files")
    }

    /// Whether another process has a database file in a way that excludes this one.
    pub(crate) fn is_lock_conflict(&self) -> bool {
        self.0.contains("Could not set lock on file")
    }

    /// Whether the database refuses every statement from here on.
    pub(super) fn is_fatal(&self) -> bool {
        ["INTERNAL Error", "FATAL Error"].iter().any(|kind| self.0.starts_with(kind))
    }

    /// Whether DuckDB blames what it runs on, and not the statement.
    pub(super) fn is_of_system(&self) -> bool {
        ["IO Error", "Permission Error"].iter().any(|kind| self.0.starts_with(kind))
    }

    /// Whether DuckDB ran into its memory limit.
    pub(crate) fn is_out_of_memory(&self) -> bool {
        // As it is, or as a table function of martd's own has said it.
        self.0.trim_start_matches("Invalid Input Error: ").starts_with(OUT_OF_MEMORY)
    }
}

/// An in-memory database; closed when the last connection to it is gone.
#[derive(Debug)]
pub(crate) struct Database {
    raw: ffi::duckdb_database,
}

// SAFETY: a duckdb_database may be shared by threads; DuckDB locks inside.
unsafe impl Send for Database {}
// SAFETY: as above.
unsafe impl Sync for Database {}

impl Database {
    /// Opens an in-memory database with these settings (name, value).
    pub(crate) fn open_in_memory(settings: &[(&str, String)]) -> Result<Arc<Self>, DuckError> {
        let mut config: ffi::duckdb_config = ptr::null_mut();
        // SAFETY: out-pointer to a local; the config is destroyed below on every path.
        unsafe { ffi::duckdb_create_config(&raw mut config) };
        let mut raw: ffi::duckdb_database = ptr::null_mut();
        let result = settings
            .iter()
            .try_for_each(|(name, value)| {
                let c_name = c_string(name)?;
                let c_value = c_string(value)?;
                // SAFETY: a live config and two C strings.
                let state =
                    unsafe { ffi::duckdb_set_config(config, c_name.as_ptr(), c_value.as_ptr()) };
                if state == ffi::DuckDBSuccess {
                    Ok(())
                } else {
                    Err(DuckError(format!("DuckDB refused the setting {name} = {value}")))
                }
            })
            .and_then(|()| {
                let mut message: *mut c_char = ptr::null_mut();
                // SAFETY: a C string literal, out-pointers to locals, a live config.
                let state = unsafe {
                    ffi::duckdb_open_ext(
                        c":memory:".as_ptr(),
                        &raw mut raw,
                        config,
                        &raw mut message,
                    )
                };
                if state == ffi::DuckDBSuccess {
                    return Ok(());
                }
                // SAFETY: the message is DuckDB's, freed after it was copied.
                unsafe {
                    let error = DuckError::from_ptr(message);
                    ffi::duckdb_free(message.cast());
                    Err(error)
                }
            });
        // SAFETY: created above, not used again.
        unsafe { ffi::duckdb_destroy_config(&raw mut config) };
        result?;
        Ok(Arc::new(Self { raw }))
    }

    /// Opens a connection; this takes microseconds.
    pub(crate) fn connect(self: &Arc<Self>) -> Result<Connection, DuckError> {
        let mut raw: ffi::duckdb_connection = ptr::null_mut();
        // SAFETY: a live database and an out-pointer.
        let state = unsafe { ffi::duckdb_connect(self.raw, &raw mut raw) };
        if state != ffi::DuckDBSuccess {
            return Err(DuckError("DuckDB refused a connection".to_owned()));
        }
        Ok(Connection { session: Arc::new(Session { raw, _database: Arc::clone(self) }) })
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // SAFETY: connections hold an Arc of this, so none is left.
        unsafe { ffi::duckdb_close(&raw mut self.raw) };
    }
}

/// What a connection, its statements and its interrupt handles share. Disconnects when the last of
/// them is gone, so that an interrupt can never reach a freed connection.
#[derive(Debug)]
struct Session {
    raw: ffi::duckdb_connection,
    _database: Arc<Database>,
}

// SAFETY: DuckDB serialises calls on one connection with a lock of its own; interrupts are meant to
// come from other threads.
unsafe impl Send for Session {}
// SAFETY: as above.
unsafe impl Sync for Session {}

impl Drop for Session {
    fn drop(&mut self) {
        // SAFETY: nobody else holds the session.
        unsafe { ffi::duckdb_disconnect(&raw mut self.raw) };
    }
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Connection {
    session: Arc<Session>,
}

impl Connection {
    /// Runs statements that return nothing of interest (set-up; never a client's text).
    pub(crate) fn execute(&self, sql: &str) -> Result<(), DuckError> {
        let sql = c_string(sql)?;
        // SAFETY: zeroed is the C API's own initial state for a result; destroyed below.
        unsafe {
            let mut result: ffi::duckdb_result = std::mem::zeroed();
            let state = ffi::duckdb_query(self.session.raw, sql.as_ptr(), &raw mut result);
            let outcome = if state == ffi::DuckDBSuccess {
                Ok(())
            } else {
                Err(DuckError::from_ptr(ffi::duckdb_result_error(&raw mut result)))
            };
            ffi::duckdb_destroy_result(&raw mut result);
            outcome
        }
    }

    /// Parses and plans one statement. DuckDB runs all but the last of several statements here, so
    /// a client's text must have passed the gate before.
    pub(crate) fn prepare(&self, sql: &str) -> Result<Statement, DuckError> {
        let sql = c_string(sql)?;
        let mut raw: ffi::duckdb_prepared_statement = ptr::null_mut();
        // SAFETY: a live connection, a C string, an out-pointer. A failed prepare still hands out
        // a statement that carries the error and must be destroyed.
        unsafe {
            let state = ffi::duckdb_prepare(self.session.raw, sql.as_ptr(), &raw mut raw);
            if state != ffi::DuckDBSuccess {
                let error = DuckError::from_ptr(ffi::duckdb_prepare_error(raw));
                ffi::duckdb_destroy_prepare(&raw mut raw);
                return Err(error);
            }
        }
        Ok(Statement { raw, session: Arc::clone(&self.session) })
    }

    /// A handle that stops whatever runs on this connection, from any thread.
    pub(crate) fn interrupt_handle(&self) -> Interrupt {
        Interrupt { session: Arc::clone(&self.session) }
    }
}

/// Stops what runs on a connection. An interrupt that arrives between two steps of a statement is
/// lost, so callers repeat it until the statement has ended.
#[derive(Debug, Clone)]
pub(crate) struct Interrupt {
    session: Arc<Session>,
}

impl Interrupt {
    /// Asks the running statement to stop at its next chunk.
    pub(crate) fn interrupt(&self) {
        // SAFETY: the session keeps the connection alive; duckdb_interrupt is thread-safe.
        unsafe { ffi::duckdb_interrupt(self.session.raw) };
    }
}

/// A prepared statement.
#[derive(Debug)]
pub(crate) struct Statement {
    raw: ffi::duckdb_prepared_statement,
    session: Arc<Session>,
}

// SAFETY: a prepared statement may move between threads; it is used by one at a time (`&mut`).
unsafe impl Send for Statement {}

impl Statement {
    /// The names of the parameters in order: `start` for `$start`, `1` for `$1` or the first `?`.
    pub(crate) fn parameter_names(&self) -> Vec<String> {
        // SAFETY: a live statement; each name is DuckDB's, freed after it was copied.
        unsafe {
            (1..=ffi::duckdb_nparams(self.raw))
                .map(|index| {
                    let name = ffi::duckdb_parameter_name(self.raw, index);
                    if name.is_null() {
                        return index.to_string();
                    }
                    let text = CStr::from_ptr(name).to_string_lossy().into_owned();
                    ffi::duckdb_free(name.cast_mut().cast());
                    text
                })
                .collect()
        }
    }

    /// Binds the parameter at this place, counted from 1.
    pub(crate) fn bind(&mut self, place: usize, value: &Value) -> Result<(), DuckError> {
        let raw_value = match value {
            Value::Typed { value, ty } => self.cast(value, ty)?,
            plain => RawValue::new(plain),
        };
        if raw_value.0.is_null() {
            return Err(DuckError(format!("{OUT_OF_MEMORY}: no room for the value")));
        }
        // SAFETY: a live statement and value; DuckDB copies the value.
        unsafe {
            let state = ffi::duckdb_bind_value(self.raw, place as u64, raw_value.0);
            if state == ffi::DuckDBSuccess {
                Ok(())
            } else {
                Err(DuckError::from_ptr(ffi::duckdb_prepare_error(self.raw)))
            }
        }
    }

    /// Has DuckDB cast a value, as the statement itself could have.
    fn cast(&self, value: &Value, ty: &TypeName) -> Result<RawValue, DuckError> {
        let connection = Connection { session: Arc::clone(&self.session) };
        let mut cast = connection.prepare(&format!("SELECT CAST(? AS {})", ty.as_str()))?;
        cast.bind(1, value)?;
        let mut rows = cast.execute()?;
        let ty = rows.columns()[0].ty.clone();
        let chunk = rows.next_chunk()?.ok_or_else(|| DuckError("a cast gave no row".to_owned()))?;
        RawValue::read(&ty, &chunk.column(0), 0)
    }

    /// Starts the statement; rows are computed as they are fetched.
    pub(crate) fn execute(&mut self) -> Result<Rows<'_>, DuckError> {
        // SAFETY: zeroed is the C API's own initial state; a failed execution leaves a result that
        // carries the error and is destroyed with `Rows`.
        unsafe {
            let mut raw: ffi::duckdb_result = std::mem::zeroed();
            let state = ffi::duckdb_execute_prepared_streaming(self.raw, &raw mut raw);
            let mut rows = Rows { raw, columns: Vec::new(), _statement: self };
            if state != ffi::DuckDBSuccess {
                return Err(DuckError::from_ptr(ffi::duckdb_result_error(&raw mut rows.raw)));
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
pub(crate) struct Rows<'s> {
    raw: ffi::duckdb_result,
    columns: Vec<Column>,
    _statement: &'s mut Statement,
}

impl Rows<'_> {
    /// Names and types of the columns.
    pub(crate) fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// The next chunk of at most 2,048 rows; `None` at the end.
    pub(crate) fn next_chunk(&mut self) -> Result<Option<Chunk>, DuckError> {
        // SAFETY: a live result; the chunk is owned by the caller from here on.
        unsafe {
            let raw = ffi::duckdb_fetch_chunk(self.raw);
            if raw.is_null() {
                let message = ffi::duckdb_result_error(&raw mut self.raw);
                return if message.is_null() || *message == 0 {
                    Ok(None)
                } else {
                    Err(DuckError::from_ptr(message))
                };
            }
            let chunk = Chunk::from_raw(raw);
            Ok((chunk.rows() > 0).then_some(chunk))
        }
    }
}

impl Drop for Rows<'_> {
    fn drop(&mut self) {
        // SAFETY: owned, not used again.
        unsafe { ffi::duckdb_destroy_result(&raw mut self.raw) };
    }
}

/// A value of the C API, freed on drop. Null when there was no memory for it.
struct RawValue(ffi::duckdb_value);

impl RawValue {
    fn new(value: &Value) -> Self {
        // SAFETY: constructors of plain values; texts are passed with their length, list elements
        // are copied by DuckDB before they are dropped here.
        Self(unsafe {
            match value {
                Value::Null => ffi::duckdb_create_null_value(),
                Value::Boolean(b) => ffi::duckdb_create_bool(*b),
                Value::BigInt(i) => ffi::duckdb_create_int64(*i),
                Value::HugeInt(i) => ffi::duckdb_create_hugeint(ffi::duckdb_hugeint {
                    lower: *i as u64,
                    upper: (*i >> 64) as i64,
                }),
                Value::Double(d) => ffi::duckdb_create_double(*d),
                Value::Varchar(text) => {
                    ffi::duckdb_create_varchar_length(text.as_ptr().cast(), text.len() as u64)
                }
                Value::List { element, values } => {
                    let values: Vec<RawValue> = values.iter().map(RawValue::new).collect();
                    let element = ffi::duckdb_create_logical_type(element.type_id());
                    return Self::list(element, &values);
                }
                // Cast by `Statement::bind`; a list's elements are never typed by themselves.
                Value::Typed { value, .. } => return Self::new(value),
            }
        })
    }

    /// Takes over `element`.
    fn list(mut element: ffi::duckdb_logical_type, values: &[Self]) -> Self {
        let mut pointers: Vec<_> = values.iter().map(|value| value.0).collect();
        // SAFETY: live values and a live type, which DuckDB copies; the type is destroyed either way.
        unsafe {
            let list = if pointers.iter().any(|pointer| pointer.is_null()) {
                ptr::null_mut()
            } else {
                let count = pointers.len() as u64;
                ffi::duckdb_create_list_value(element, pointers.as_mut_ptr(), count)
            };
            ffi::duckdb_destroy_logical_type(&raw mut element);
            Self(list)
        }
    }

    /// The value of a row, for the types that a parameter can have.
    fn read(ty: &Type, vector: &Vector<'_>, row: usize) -> Result<Self, DuckError> {
        if vector.is_null(row) {
            return Ok(Self::new(&Value::Null));
        }
        let huge =
            |bits: u128| ffi::duckdb_hugeint { lower: bits as u64, upper: (bits >> 64) as i64 };
        let uhuge =
            |bits: u128| ffi::duckdb_uhugeint { lower: bits as u64, upper: (bits >> 64) as u64 };
        // SAFETY: constructors of plain values; bytes are passed with their length and copied.
        Ok(Self(unsafe {
            match ty {
                Type::Boolean => ffi::duckdb_create_bool(vector.values::<u8>()[row] != 0),
                Type::TinyInt => ffi::duckdb_create_int8(vector.values()[row]),
                Type::SmallInt => ffi::duckdb_create_int16(vector.values()[row]),
                Type::Integer => ffi::duckdb_create_int32(vector.values()[row]),
                Type::BigInt => ffi::duckdb_create_int64(vector.values()[row]),
                Type::UTinyInt => ffi::duckdb_create_uint8(vector.values()[row]),
                Type::USmallInt => ffi::duckdb_create_uint16(vector.values()[row]),
                Type::UInteger => ffi::duckdb_create_uint32(vector.values()[row]),
                Type::UBigInt => ffi::duckdb_create_uint64(vector.values()[row]),
                Type::HugeInt => {
                    ffi::duckdb_create_hugeint(huge(vector.values::<RawHugeInt>()[row].bits()))
                }
                Type::UHugeInt => {
                    ffi::duckdb_create_uhugeint(uhuge(vector.values::<RawHugeInt>()[row].bits()))
                }
                Type::Uuid => {
                    // Stored with its first bit flipped, so that it sorts; created from the real one.
                    let bits = vector.values::<RawHugeInt>()[row].bits() ^ 1 << 127;
                    ffi::duckdb_create_uuid(uhuge(bits))
                }
                Type::Float => ffi::duckdb_create_float(vector.values()[row]),
                Type::Double => ffi::duckdb_create_double(vector.values()[row]),
                Type::Decimal { width, scale } => {
                    let unscaled = vector.decimal(row, *width) as u128;
                    let (width, scale) = (*width, *scale);
                    ffi::duckdb_create_decimal(ffi::duckdb_decimal {
                        width,
                        scale,
                        value: huge(unscaled),
                    })
                }
                Type::Varchar => {
                    let text = vector.bytes(row);
                    ffi::duckdb_create_varchar_length(text.as_ptr().cast(), text.len() as u64)
                }
                Type::Blob => {
                    let bytes = vector.bytes(row);
                    ffi::duckdb_create_blob(bytes.as_ptr(), bytes.len() as u64)
                }
                Type::Date => {
                    ffi::duckdb_create_date(ffi::duckdb_date { days: vector.values()[row] })
                }
                Type::Time => {
                    ffi::duckdb_create_time(ffi::duckdb_time { micros: vector.values()[row] })
                }
                Type::Timestamp => ffi::duckdb_create_timestamp(ffi::duckdb_timestamp {
                    micros: vector.values()[row],
                }),
                Type::TimestampTz => ffi::duckdb_create_timestamp_tz(ffi::duckdb_timestamp {
                    micros: vector.values()[row],
                }),
                Type::TimestampS => ffi::duckdb_create_timestamp_s(ffi::duckdb_timestamp_s {
                    seconds: vector.values()[row],
                }),
                Type::TimestampMs => ffi::duckdb_create_timestamp_ms(ffi::duckdb_timestamp_ms {
                    millis: vector.values()[row],
                }),
                Type::TimestampNs => ffi::duckdb_create_timestamp_ns(ffi::duckdb_timestamp_ns {
                    nanos: vector.values()[row],
                }),
                Type::Interval => {
                    let RawInterval { months, days, micros } = vector.values()[row];
                    ffi::duckdb_create_interval(ffi::duckdb_interval { months, days, micros })
                }
                Type::List(child) => {
                    let entry = vector.values::<RawListEntry>()[row];
                    let elements = vector.list_child();
                    let values = (entry.offset..entry.offset + entry.length)
                        .map(|index| Self::read(child, &elements, index as usize))
                        .collect::<Result<Vec<_>, _>>()?;
                    return Ok(Self::list(vector.child_type(), &values));
                }
                other => return Err(DuckError(format!("a parameter cannot be of type {other}"))),
            }
        }))
    }
}

impl Drop for RawValue {
    fn drop(&mut self) {
        // SAFETY: owned, not used again.
        unsafe { ffi::duckdb_destroy_value(&raw mut self.0) };
    }
}

/// The version of the library that is loaded.
pub(super) fn library_version() -> String {
    // SAFETY: a static C string.
    unsafe { CStr::from_ptr(ffi::duckdb_library_version()) }.to_string_lossy().into_owned()
}

fn c_string(text: &str) -> Result<CString, DuckError> {
    CString::new(text)
        .map_err(|_| DuckError("Parser Error: the text holds a NUL character".to_owned()))
}
