//! A database in memory, connections to it, and how to stop what runs on one.

use std::ffi::{CString, c_char};
use std::ptr;
use std::sync::Arc;

use duckdb::ffi;

use super::error::{DuckError, ErrorKind};
use super::statement::Statement;

/// An in-memory database; closed when the last connection to it is gone.
#[derive(Debug)]
pub struct Database {
    raw: ffi::duckdb_database,
}

// SAFETY: a duckdb_database may be shared by threads; DuckDB locks inside.
unsafe impl Send for Database {}
// SAFETY: as above.
unsafe impl Sync for Database {}

impl Database {
    /// Opens an in-memory database with these settings (name, value).
    ///
    /// # Errors
    /// When DuckDB refuses a setting, or cannot start.
    pub fn open_in_memory(settings: &[(&str, String)]) -> Result<Arc<Self>, DuckError> {
        let config = Config::new(settings)?;
        let mut raw: ffi::duckdb_database = ptr::null_mut();
        let mut message: *mut c_char = ptr::null_mut();
        // SAFETY: a C string literal, out-pointers to locals, a live config. The message is DuckDB's,
        // freed after it was copied.
        unsafe {
            let state = ffi::duckdb_open_ext(
                c":memory:".as_ptr(),
                &raw mut raw,
                config.0,
                &raw mut message,
            );
            if state != ffi::DuckDBSuccess {
                let error = DuckError::of_text(message);
                ffi::duckdb_free(message.cast());
                return Err(error);
            }
        }
        Ok(Arc::new(Self { raw }))
    }

    /// Opens a connection; this takes microseconds.
    ///
    /// # Errors
    /// When the system has no room for one.
    pub fn connect(self: &Arc<Self>) -> Result<Connection, DuckError> {
        let mut raw: ffi::duckdb_connection = ptr::null_mut();
        // SAFETY: a live database and an out-pointer.
        let state = unsafe { ffi::duckdb_connect(self.raw, &raw mut raw) };
        if state != ffi::DuckDBSuccess {
            return Err(DuckError::new(ErrorKind::Io, "IO Error: DuckDB refused a connection"));
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

/// Settings of a database that is not open yet.
struct Config(ffi::duckdb_config);

impl Config {
    fn new(settings: &[(&str, String)]) -> Result<Self, DuckError> {
        let mut config = Self(ptr::null_mut());
        // SAFETY: an out-pointer to a local. A config that could not be made stays null, which the
        // calls below refuse.
        unsafe { ffi::duckdb_create_config(&raw mut config.0) };
        for (name, value) in settings {
            let (c_name, c_value) = (c_string(name)?, c_string(value)?);
            // SAFETY: a config and two C strings, which DuckDB copies.
            let state =
                unsafe { ffi::duckdb_set_config(config.0, c_name.as_ptr(), c_value.as_ptr()) };
            if state != ffi::DuckDBSuccess {
                let message = format!("Settings Error: DuckDB refused {name} = {value}");
                return Err(DuckError::new(ErrorKind::Statement, message));
            }
        }
        Ok(config)
    }
}

impl Drop for Config {
    fn drop(&mut self) {
        // SAFETY: owned, not used again; DuckDB copied what it opened a database with.
        unsafe { ffi::duckdb_destroy_config(&raw mut self.0) };
    }
}

/// What a connection, its statements, their chunks and its interrupt handles share. Disconnects when
/// the last of them is gone, so that an interrupt never reaches a freed connection, and a chunk is
/// freed by the database that allocated it.
#[derive(Debug)]
pub(super) struct Session {
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

/// One connection. DuckDB runs one statement at a time on it: to start another ends the rows of the
/// one before.
#[derive(Debug)]
pub struct Connection {
    session: Arc<Session>,
}

impl Connection {
    pub(super) fn of_session(session: &Arc<Session>) -> Self {
        Self { session: Arc::clone(session) }
    }

    /// Runs statements that return nothing of interest (set-up; never a client's text).
    ///
    /// # Errors
    /// DuckDB's, of the first statement that fails.
    pub fn execute(&self, sql: &str) -> Result<(), DuckError> {
        let sql = c_string(sql)?;
        // SAFETY: zeroed is the C API's own initial state for a result; destroyed below.
        unsafe {
            let mut result: ffi::duckdb_result = std::mem::zeroed();
            let state = ffi::duckdb_query(self.session.raw, sql.as_ptr(), &raw mut result);
            let outcome = if state == ffi::DuckDBSuccess {
                Ok(())
            } else {
                Err(DuckError::of_result(&mut result))
            };
            ffi::duckdb_destroy_result(&raw mut result);
            outcome
        }
    }

    /// Parses and plans one statement. DuckDB *runs* all but the last of several statements here, so
    /// a client's text must have passed the validator before.
    ///
    /// # Errors
    /// DuckDB's, when it cannot parse or plan the statement.
    pub fn prepare(&self, sql: &str) -> Result<Statement, DuckError> {
        let sql = c_string(sql)?;
        let mut raw: ffi::duckdb_prepared_statement = ptr::null_mut();
        // SAFETY: a live connection, a C string, an out-pointer. A failed prepare still hands out
        // a statement that carries the error and must be destroyed.
        unsafe {
            let state = ffi::duckdb_prepare(self.session.raw, sql.as_ptr(), &raw mut raw);
            if state != ffi::DuckDBSuccess {
                let error = DuckError::of_text(ffi::duckdb_prepare_error(raw));
                ffi::duckdb_destroy_prepare(&raw mut raw);
                return Err(error);
            }
            Ok(Statement::from_raw(raw, Arc::clone(&self.session)))
        }
    }

    /// A handle that stops whatever runs on this connection, from any thread.
    pub fn interrupt_handle(&self) -> Interrupt {
        Interrupt { session: Arc::clone(&self.session) }
    }
}

/// Stops what runs on a connection. An interrupt that arrives between two steps of a statement is
/// lost, so callers repeat it until the statement has ended.
#[derive(Debug, Clone)]
pub struct Interrupt {
    session: Arc<Session>,
}

impl Interrupt {
    /// Asks the running statement to stop at its next chunk.
    pub fn interrupt(&self) {
        // SAFETY: the session keeps the connection alive; duckdb_interrupt is thread-safe.
        unsafe { ffi::duckdb_interrupt(self.session.raw) };
    }
}

/// DuckDB takes its texts with a NUL at their end, and would take what is before an earlier one.
fn c_string(text: &str) -> Result<CString, DuckError> {
    CString::new(text).map_err(|_| {
        DuckError::new(ErrorKind::Statement, "Parser Error: the text holds a NUL character")
    })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn a_running_statement_can_be_stopped() {
        let connection = Database::open_in_memory(&[]).unwrap().connect().unwrap();
        let interrupt = connection.interrupt_handle();
        let ended = AtomicBool::new(false);
        let error = std::thread::scope(|scope| {
            scope.spawn(|| {
                while !ended.load(Ordering::Relaxed) {
                    interrupt.interrupt();
                    std::thread::yield_now();
                }
            });
            let sql = "SELECT sum(a.range * b.range) FROM range(1000000) a, range(1000000) b";
            let mut statement = connection.prepare(sql);
            while statement.as_ref().is_err_and(|error| error.kind() == ErrorKind::Interrupted) {
                statement = connection.prepare(sql); // planning was stopped
            }
            let mut statement = statement.unwrap();
            let error = statement.execute().and_then(|mut rows| rows.next_chunk()).unwrap_err();
            ended.store(true, Ordering::Relaxed);
            error
        });
        assert_eq!(error.kind(), ErrorKind::Interrupted, "{error}");
        connection.execute("SELECT 1").expect("the connection is good for more");
    }

    #[test]
    fn a_setting_that_is_none_is_refused() {
        for (name, value) in [("memory_limit", "banana"), ("bananas", "1"), ("threads", "a\0b")] {
            let error = Database::open_in_memory(&[(name, value.to_owned())]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Statement, "{error}");
        }
    }

    #[test]
    fn a_chunk_outlives_its_database() {
        let connection = Database::open_in_memory(&[]).unwrap().connect().unwrap();
        let mut statement = connection.prepare("SELECT repeat('long ', 9)").unwrap();
        let chunk = statement.execute().unwrap().next_chunk().unwrap().unwrap();
        drop((statement, connection));
        assert_eq!(chunk.column(0).bytes(0), "long ".repeat(9).as_bytes());
    }
}
