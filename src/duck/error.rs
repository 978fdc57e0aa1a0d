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

    /// Whether the statement was stopped by [`Interrupt::interrupt`](super::Interrupt::interrupt).
    pub fn is_interrupt(&self) -> bool {
        self.kind == ErrorKind::Interrupted
    }

    /// Whether DuckDB ran into its memory limit, or the system's.
    pub fn is_out_of_memory(&self) -> bool {
        self.kind == ErrorKind::OutOfMemory
    }

    /// Whether an assertion within DuckDB failed: this statement did it.
    pub fn is_internal(&self) -> bool {
        self.kind == ErrorKind::Internal
    }

    /// Whether the database is to be replaced.
    pub fn is_fatal(&self) -> bool {
        matches!(self.kind, ErrorKind::Internal | ErrorKind::Fatal)
    }

    /// Whether DuckDB refused this statement for what an earlier one did: a victim, not the culprit.
    ///
    /// The sentence may stand anywhere in the message: when the culprit's own message has it (a client
    /// may name a column so), DuckDB does not put it at the start. The kind is not the client's to choose.
    pub fn is_invalidated(&self) -> bool {
        self.kind == ErrorKind::Fatal && self.message.contains(INVALIDATED)
    }

    /// Whether DuckDB blames what it runs on, and not the statement.
    pub fn is_of_system(&self) -> bool {
        self.kind == ErrorKind::Io
    }

    /// Whether another process has a database file in a way that excludes this one.
    pub fn is_lock_conflict(&self) -> bool {
        self.kind == ErrorKind::Io && self.message.contains("Could not set lock on file")
    }
}
