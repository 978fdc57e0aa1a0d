//! Errors as PostgreSQL's clients know them: an SQLSTATE, a message, and where in the statement it is.

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
    /// A byte of the statement.
    pub(super) position: Option<usize>,
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

    /// As it is sent, about a statement that begins at a byte of the text that the client sent.
    pub(super) fn response(&self, text: &str, start: usize) -> PgWireBackendMessage {
        let mut fields = vec![
            (b'S', self.severity.to_owned()),
            (b'V', self.severity.to_owned()),
            (b'C', self.state.to_owned()),
            (b'M', self.message.replace('\0', "")),
        ];
        if let Some(before) = self.position.and_then(|at| text.get(..start + at)) {
            fields.push((b'P', (before.chars().count() + 1).to_string()));
        }
        PgWireBackendMessage::ErrorResponse(ErrorResponse::new(fields))
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
