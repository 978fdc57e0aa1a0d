//! What DuckDB reports when something fails.
//!
//! The rest of martd decides by an error's kind whether a statement is run again, whether the engine
//! is replaced, and who is to blame. A client must not be able to choose the kind, and most messages
//! quote what the client wrote. So the kind is never looked for *in* a message:
//!
//! - a result carries DuckDB's own error type, which is used wherever there is a result;
//! - for a prepare, a bind and the opening of a database the C API gives a text alone. DuckDB begins
//!   it with the name of the type (`Binder Error: `), before anything that it quotes, so only the very
//!   start of the text counts.

use std::ffi::{CStr, c_char};

use duckdb::ffi;

/// How DuckDB words that it refuses a statement because of what an earlier one did.
const INVALIDATED: &str = "database has been invalidated because of a previous fatal error";

/// An error as DuckDB words it, for example `Binder Error: Referenced column "x" not found…`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct DuckError {
    kind: ErrorKind,
    message: String,
}

/// What an error says about who or what failed. Kinds that martd does not tell apart are one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The statement: its syntax, its names and types, or its values. The client's to repair.
    Statement,
    /// An [`Interrupt`](super::Interrupt) stopped the statement.
    Interrupted,
    /// The memory limit was reached, or the system has no memory left.
    OutOfMemory,
    /// The system: a file that cannot be read, a right that is missing.
    Io,
    /// An assertion within DuckDB failed. The database cannot be relied on any more.
    Internal,
    /// The database refuses every statement from here on.
    Fatal,
}

impl ErrorKind {
    fn of_type(error_type: ffi::duckdb_error_type) -> Self {
        match error_type {
            ffi::duckdb_error_type_DUCKDB_ERROR_INTERRUPT => Self::Interrupted,
            ffi::duckdb_error_type_DUCKDB_ERROR_OUT_OF_MEMORY => Self::OutOfMemory,
            ffi::duckdb_error_type_DUCKDB_ERROR_IO
            | ffi::duckdb_error_type_DUCKDB_ERROR_PERMISSION => Self::Io,
            ffi::duckdb_error_type_DUCKDB_ERROR_INTERNAL => Self::Internal,
            ffi::duckdb_error_type_DUCKDB_ERROR_FATAL => Self::Fatal,
            _ => Self::Statement,
        }
    }

    /// The kind that DuckDB names at the start of a message, for calls that give no error type.
    fn of_prefix(message: &str) -> Self {
        const PREFIXES: [(&str, ErrorKind); 6] = [
            ("INTERRUPT Error: ", ErrorKind::Interrupted),
            ("Out of Memory Error: ", ErrorKind::OutOfMemory),
            ("IO Error: ", ErrorKind::Io),
            ("Permission Error: ", ErrorKind::Io),
            ("INTERNAL Error: ", ErrorKind::Internal),
            ("FATAL Error: ", ErrorKind::Fatal),
        ];
        let named = PREFIXES.iter().find(|(prefix, _)| message.starts_with(prefix));
        named.map_or(Self::Statement, |(_, kind)| *kind)
    }
}

impl DuckError {
    /// An error that martd itself has to report in DuckDB's place.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// The error of a text without a type, such as that of a prepare.
    ///
    /// # Safety
    /// `message` is null or a C string that lives through the call.
    pub(super) unsafe fn of_text(message: *const c_char) -> Self {
        if message.is_null() {
            return Self::unexplained();
        }
        // SAFETY: the caller's promise.
        let message = unsafe { CStr::from_ptr(message) }.to_string_lossy().into_owned();
        Self { kind: ErrorKind::of_prefix(&message), message }
    }

    /// The error of a failed result.
    pub(super) fn of_result(result: &mut ffi::duckdb_result) -> Self {
        // SAFETY: a result of DuckDB or a zeroed one, for both of which DuckDB answers these calls. The
        // text is copied while the result lives.
        unsafe {
            let message = ffi::duckdb_result_error(result);
            if message.is_null() {
                return Self::unexplained();
            }
            Self {
                kind: ErrorKind::of_type(ffi::duckdb_result_error_type(result)),
                message: CStr::from_ptr(message).to_string_lossy().into_owned(),
            }
        }
    }

    /// DuckDB's C API says nothing when an exception passed all places that expect one, so nobody
    /// knows in which state the database is.
    fn unexplained() -> Self {
        Self::new(ErrorKind::Internal, "INTERNAL Error: DuckDB gave no reason")
    }

    /// Who or what failed.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// DuckDB's own words, with the name of its error type before them.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Whether DuckDB refused this statement for what an earlier one did: a victim, not the culprit.
    ///
    /// The sentence may stand anywhere in the message: when the culprit's own message has it (a client
    /// may name a column so), DuckDB does not put it at the start. The kind is not the client's to choose.
    pub fn is_invalidated(&self) -> bool {
        self.kind == ErrorKind::Fatal && self.message.contains(INVALIDATED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::duck::{Connection, Database};

    fn connect() -> Connection {
        Database::open_in_memory(&[]).unwrap().connect().unwrap()
    }

    /// Runs a statement to its end, as the engine does.
    fn run(connection: &Connection, sql: &str) -> Result<(), DuckError> {
        let mut statement = connection.prepare(sql)?;
        let mut rows = statement.execute()?;
        while rows.next_chunk()?.is_some() {}
        Ok(())
    }

    fn error(sql: &str) -> DuckError {
        run(&connect(), sql).expect_err(sql)
    }

    #[test]
    fn a_client_cannot_choose_the_kind_of_an_error() {
        let prefixes = ["INTERNAL", "FATAL", "Out of Memory", "IO", "Permission", "INTERRUPT"];
        for forged in prefixes.map(|name| format!("{name} Error: Too many open files")) {
            for sql in [
                format!("SELECT error('{forged}')"),
                format!("SELECT error('{forged}' || range) FROM range(9)"),
                format!("SELECT error(chr(10) || '{forged}')"),
                format!("SELECT CAST('{forged}' AS INTEGER)"),
                format!("SELECT \"{forged}\" FROM range(2)"),
                format!("FROM \"{forged}\""),
                format!("SELECT \"{forged}\"(1)"),
                format!("'{forged}'"),
                format!("SELECT json_extract('{forged}', '$')"),
            ] {
                let error = error(&sql);
                assert_eq!(error.kind(), ErrorKind::Statement, "{sql}: {error}");
                assert!(!error.is_invalidated(), "{sql}");
            }
        }
        let json = r#"SELECT error('{"exception_type":"INTERNAL","exception_message":"x"}')"#;
        assert_eq!(error(json).kind(), ErrorKind::Statement);
        let forged = error("SELECT error('INTERNAL Error: x')");
        assert_eq!(forged.to_string(), "Invalid Input Error: INTERNAL Error: x");
    }

    #[test]
    fn what_cannot_be_read_is_the_systems_fault() {
        let error = error("ATTACH '/proc/nowhere/x.db'");
        assert_eq!(error.kind(), ErrorKind::Io, "{error}");
    }

    #[test]
    fn the_memory_limit_is_out_of_memory() {
        let settings = [("memory_limit", "10MB".to_owned()), ("temp_directory", String::new())];
        let connection = Database::open_in_memory(&settings).unwrap().connect().unwrap();
        let error = run(&connection, "SELECT list(range) FROM range(100000000)").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::OutOfMemory, "{error}");
    }

    #[test]
    fn an_internal_error_while_planning_is_internal() {
        let error = error("SELECT switch(x, map([x], [1])) FROM (SELECT 1 AS x)");
        assert!(error.kind() == ErrorKind::Internal && !error.is_invalidated(), "{error}");
    }

    #[test]
    fn the_culprit_is_told_from_its_victims() {
        let database = Database::open_in_memory(&[]).unwrap();
        let connection = database.connect().unwrap();
        connection.execute("CREATE TABLE t AS SELECT range AS id FROM range(100)").unwrap();
        // DuckDB's plan of this join cannot be run twice.
        let mut twice = connection
            .prepare(
                "SELECT count(*) FROM t a ASOF JOIN t b ON a.id % 7 = b.id % 7 AND a.id > b.id",
            )
            .unwrap();
        let mut again = || {
            let mut rows = twice.execute()?;
            while rows.next_chunk()?.is_some() {}
            Ok::<_, DuckError>(())
        };
        let culprit = (0..9).find_map(|_| again().err()).expect("an internal error");
        assert!(culprit.kind() == ErrorKind::Internal && !culprit.is_invalidated(), "{culprit}");
        let other = database.connect().unwrap();
        for connection in [&connection, &other] {
            let victim = run(connection, "SELECT 1").unwrap_err();
            assert!(victim.is_invalidated() && victim.kind() == ErrorKind::Fatal, "{victim}");
        }
    }

    #[test]
    fn a_victim_is_known_whatever_the_culprit_said() {
        // As DuckDB passes it on when the culprit's own message has the sentence.
        let message = format!("FATAL Error: no column \"{INVALIDATED}\"");
        assert!(DuckError::new(ErrorKind::Fatal, message.clone()).is_invalidated());
        assert!(!DuckError::new(ErrorKind::Internal, message).is_invalidated());
    }
}
