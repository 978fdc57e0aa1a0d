//! Errors as PostgreSQL's clients know them: an SQLSTATE, a message, and where in the statement it is.

use std::io;

use pgwire::messages::PgWireBackendMessage;
use pgwire::messages::response::ErrorResponse;

use crate::engine::UNTYPED;
use crate::http::Problem;

/// An error that a client is told.
#[derive(Debug, Clone)]
pub(super) struct PgError {
    severity: &'static str,
    state: &'static str,
    message: String,
    /// Where in the text that the client sent: a byte of the statement, until [`within`](Self::within) has
    /// made it a character of the text.
    position: Option<usize>,
}

impl PgError {
    pub(super) fn new(state: &'static str, message: impl Into<String>) -> Self {
        Self { severity: "ERROR", state, message: message.into(), position: None }
    }

    /// One after which the connection ends.
    pub(super) fn fatal(state: &'static str, message: impl Into<String>) -> Self {
        Self { severity: "FATAL", ..Self::new(state, message) }
    }

    pub(super) fn into_fatal(self) -> Self {
        Self { severity: "FATAL", ..self }
    }

    pub(super) fn is_fatal(&self) -> bool {
        self.severity == "FATAL"
    }

    /// The same, about a statement that begins at this byte of a text.
    pub(super) fn within(self, text: &str, start: usize) -> Self {
        let before = self.position.and_then(|at| text.get(..start + at));
        Self { position: before.map(|before| before.chars().count()), ..self }
    }

    /// As it is sent.
    pub(super) fn response(&self) -> PgWireBackendMessage {
        let mut fields = vec![
            (b'S', self.severity.to_owned()),
            (b'V', self.severity.to_owned()),
            (b'C', self.state.to_owned()),
            (b'M', self.message.replace('\0', "")),
        ];
        fields.extend(self.position.map(|at| (b'P', (at + 1).to_string())));
        PgWireBackendMessage::ErrorResponse(ErrorResponse::new(fields))
    }
}

/// Why a message is not answered as its client wished.
#[derive(Debug)]
pub(super) enum PgFailure {
    /// The client has left, or takes nothing.
    Gone,
    /// It is told why. When that is fatal, the connection ends.
    Error(PgError),
}

impl PgFailure {
    /// The same, of what comes after a text that the client sent with it.
    pub(super) fn after(self, text: &str) -> Self {
        let moved = |at| at + text.chars().count();
        match self {
            Self::Error(error) => {
                Self::Error(PgError { position: error.position.map(moved), ..error })
            }
            Self::Gone => Self::Gone,
        }
    }
}

impl From<io::Error> for PgFailure {
    fn from(_: io::Error) -> Self {
        Self::Gone
    }
}

impl From<PgError> for PgFailure {
    fn from(error: PgError) -> Self {
        Self::Error(error)
    }
}

impl From<Problem> for PgError {
    fn from(failure: Problem) -> Self {
        let detail = failure.detail();
        let state = match failure.slug() {
            _ if failure.is_cancelled() => {
                return Self::new("57014", "canceling statement due to user request");
            }
            "sql-error" => of_duckdb(detail),
            "statement-not-allowed" | "catalog-unknown" => "0A000",
            "function-not-allowed" | "scope-required" => "42501",
            "unauthorized" => "28P01",
            "bad-request" if detail.contains(UNTYPED) => "42P18",
            "bad-request" => "22023",
            "query-timeout" => "57014",
            "answer-too-large" => "54000",
            "memory-limit" => "53200",
            "overloaded" | "too-many-failures" => "53300",
            "not-ready" | "legacy-locked" => "57P03",
            "statement-quarantined" => "58000",
            _ => "XX000",
        };
        Self { position: failure.position(), ..Self::new(state, detail) }
    }
}

/// By how DuckDB's message begins, which names the kind of error. Only the client reads it.
fn of_duckdb(message: &str) -> &'static str {
    let (kind, rest) = message.split_once(" Error: ").unwrap_or(("", message));
    match kind {
        "Parser" | "Syntax" => "42601",
        "Catalog" if rest.starts_with("Table ") => "42P01",
        "Catalog" if rest.contains("Function ") => "42883",
        "Catalog" => "42704",
        "Binder" if rest.contains("olumn ") => "42703",
        "Binder" => "42804",
        "Conversion" => "22P02",
        "Out of Range" => "22003",
        "Invalid Input" => "22023",
        "Not implemented" => "0A000",
        _ => "42000",
    }
}
