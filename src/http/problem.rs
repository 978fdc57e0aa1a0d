//! Errors as RFC 9457 problem details. The one place that maps the errors of other modules to a
//! status and to words for the client; what only the operator may know goes to the log.

use std::fmt;
use std::time::Duration;

use hyper::header::{ALLOW, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use hyper::{Response, StatusCode};
use serde::Serialize;
use serde_json::{Map, Value as Json};
use tracing::error;

use super::body::{self, BoxBody};
use crate::engine::QueryError;
use crate::metrics::Outcome;
use crate::sql_gate::Rejection;

/// A kind of problem: a slug that never changes, its status, and its title.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ProblemKind {
    slug: &'static str,
    status: StatusCode,
    title: &'static str,
}

macro_rules! kinds {
    ($($name:ident = $slug:literal, $status:ident, $title:literal;)*) => {
        $(pub(super) const $name: &ProblemKind =
            &ProblemKind { slug: $slug, status: StatusCode::$status, title: $title };)*

        /// The slugs of all problems.
        pub fn problems() -> Vec<&'static str> {
            vec![$($slug),*]
        }
    };
}
kinds! {
    BAD_REQUEST = "bad-request", BAD_REQUEST, "The request is malformed";
    SQL_ERROR = "sql-error", BAD_REQUEST, "The statement is wrong";
    UNSUPPORTED_TYPE = "unsupported-type", BAD_REQUEST,
        "A column has a type that must be cast";
    STATEMENT_NOT_ALLOWED = "statement-not-allowed", FORBIDDEN, "The statement is not allowed";
    FUNCTION_NOT_ALLOWED = "function-not-allowed", FORBIDDEN, "A function is not allowed";
    NOT_FOUND = "not-found", NOT_FOUND, "There is nothing here";
    METHOD_NOT_ALLOWED = "method-not-allowed", METHOD_NOT_ALLOWED, "The method is not allowed";
    UNSUPPORTED_FORMAT = "unsupported-format", NOT_ACCEPTABLE,
        "The answer cannot be given in that format";
    BODY_TIMEOUT = "body-timeout", REQUEST_TIMEOUT, "The request body took too long";
    SNAPSHOT_GONE = "snapshot-gone", GONE, "The snapshot is gone";
    PAYLOAD_TOO_LARGE = "payload-too-large", PAYLOAD_TOO_LARGE, "The request body is too large";
    PRECONDITION_FAILED = "precondition-failed", PRECONDITION_FAILED,
        "There is another version";
    RANGE_NOT_SATISFIABLE = "range-not-satisfiable", RANGE_NOT_SATISFIABLE,
        "The range is not in the file";
    UNSUPPORTED_MEDIA_TYPE = "unsupported-media-type", UNSUPPORTED_MEDIA_TYPE,
        "The request body has a type that is not supported";
    ANSWER_TOO_LARGE = "answer-too-large", UNPROCESSABLE_ENTITY, "The answer is too large";
    MEMORY_LIMIT = "memory-limit", INSUFFICIENT_STORAGE, "The statement needs too much memory";
    OVERLOADED = "overloaded", SERVICE_UNAVAILABLE, "Too many queries at once";
    NOT_READY = "not-ready", SERVICE_UNAVAILABLE, "Nothing can be served yet";
    LEGACY_LOCKED = "legacy-locked", SERVICE_UNAVAILABLE, "A writer has the legacy DuckDB file";
    MISDIRECTED = "misdirected", MISDIRECTED_REQUEST, "The host is not this martd";
    ORIGIN_NOT_ALLOWED = "origin-not-allowed", FORBIDDEN, "The web page may not ask";
    UNAUTHORIZED = "unauthorized", UNAUTHORIZED, "A token is needed";
    SCOPE_REQUIRED = "scope-required", FORBIDDEN, "The rows to read must be said";
    TOO_MANY_FAILURES = "too-many-failures", TOO_MANY_REQUESTS,
        "Too many statements of this client made DuckDB fail";
    ENGINE_FAILED = "engine-failed", INTERNAL_SERVER_ERROR, "The statement made DuckDB fail";
    STATEMENT_QUARANTINED = "statement-quarantined", SERVICE_UNAVAILABLE,
        "The statement made DuckDB fail a while ago";
    QUERY_TIMEOUT = "query-timeout", GATEWAY_TIMEOUT, "The query took too long";
    BUILD_HELD = "build-held", CONFLICT, "The build is held";
    WAIT_TIMEOUT = "wait-timeout", GATEWAY_TIMEOUT, "The build is not published yet";
    INTERNAL = "internal", INTERNAL_SERVER_ERROR, "Something went wrong in martd";
}

/// No answer over HTTP has it.
pub(super) const CATALOG_UNKNOWN: &ProblemKind = &ProblemKind {
    slug: "catalog-unknown",
    status: StatusCode::NOT_IMPLEMENTED,
    title: "PostgreSQL's catalog has that, and martd's has not",
};

/// A query that was cancelled: to its client the same as one whose time was over.
const CANCELLED: &ProblemKind = &ProblemKind {
    slug: QUERY_TIMEOUT.slug,
    status: QUERY_TIMEOUT.status,
    title: "The query was cancelled",
};

/// A client that takes nothing is as good as gone.
const STALLED: &ProblemKind = &ProblemKind {
    slug: QUERY_TIMEOUT.slug,
    status: QUERY_TIMEOUT.status,
    title: "The answer was not taken",
};

/// One problem, as the client is told.
#[derive(Debug, Clone)]
pub struct Problem {
    kind: &'static ProblemKind,
    detail: String,
    /// Further members, for example a position.
    extra: Map<String, Json>,
    header: Option<Box<(HeaderName, HeaderValue)>>,
}

#[derive(Serialize)]
struct Document<'a> {
    r#type: String,
    title: &'a str,
    status: u16,
    detail: &'a str,
    request_id: &'a str,
    #[serde(flatten)]
    extra: &'a Map<String, Json>,
}

impl Problem {
    pub(super) fn new(kind: &'static ProblemKind, detail: impl Into<String>) -> Self {
        Self { kind, detail: detail.into(), extra: Map::new(), header: None }
    }

    pub(super) fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(BAD_REQUEST, detail)
    }

    pub(super) fn with(mut self, member: &str, value: impl Into<Json>) -> Self {
        self.extra.insert(member.to_owned(), value.into());
        self
    }

    /// Says at which byte of the statement it is, where that is known.
    fn at(self, position: Option<usize>) -> Self {
        match position {
            Some(position) => self.with("position", position),
            None => self,
        }
    }

    /// With the one header that its status asks for.
    pub(super) fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.header = Some(Box::new((name, value)));
        self
    }

    /// A problem that goes away by itself: says when to try again, in seconds.
    pub(super) fn retry_after(self, seconds: u32) -> Self {
        self.with_header(RETRY_AFTER, HeaderValue::from(seconds))
    }

    pub(super) fn method_not_allowed(allowed: &'static str) -> Self {
        Self::new(METHOD_NOT_ALLOWED, format!("use {allowed}"))
            .with_header(ALLOW, HeaderValue::from_static(allowed))
    }

    pub(super) fn unauthorized(detail: &str) -> Self {
        let scheme = HeaderValue::from_static("Bearer");
        Self::new(UNAUTHORIZED, detail).with_header(WWW_AUTHENTICATE, scheme)
    }

    pub(super) fn timed_out(limit: Duration) -> Self {
        let detail = format!(
            "the query was stopped after {} ms; ask for less, or for more time with timeout_ms",
            limit.as_millis()
        );
        Self::new(QUERY_TIMEOUT, detail)
    }

    pub(super) fn cancelled() -> Self {
        Self::new(CANCELLED, "the query was cancelled by DELETE /v1/queries/{id}")
    }

    /// The part of the type that says what it is.
    pub fn slug(&self) -> &'static str {
        self.kind.slug
    }

    /// The byte of the statement that it is about.
    pub fn position(&self) -> Option<usize> {
        self.extra.get("position").and_then(Json::as_u64).and_then(|at| usize::try_from(at).ok())
    }

    /// What it says to the client.
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// What becomes of a query that meets it.
    pub(super) fn outcome(&self) -> Outcome {
        match self.kind.status {
            _ if self.is_cancelled() => Outcome::Cancelled,
            _ if self.kind == QUERY_TIMEOUT => Outcome::Timeout,
            _ if self.kind == STALLED => Outcome::Gone,
            StatusCode::SERVICE_UNAVAILABLE => Outcome::Unavailable,
            status if status.is_client_error() => Outcome::Refused,
            _ => Outcome::Error,
        }
    }

    /// Whether somebody asked for the end of the query.
    pub fn is_cancelled(&self) -> bool {
        self.kind == CANCELLED
    }

    /// Whether the query's time was over.
    pub(super) fn is_timeout(&self) -> bool {
        self.kind == QUERY_TIMEOUT
    }

    /// A failure of martd's own: logged in full, told in a sentence.
    pub(super) fn internal(reason: impl std::fmt::Display) -> Self {
        error!(%reason, "a request failed");
        Self::new(INTERNAL, "the log of martd has more, under this request's id")
    }

    /// Whether it is of this kind.
    pub(super) fn is_of(&self, kind: &'static ProblemKind) -> bool {
        self.kind == kind
    }

    /// Why a query that may take `limit` was not answered.
    pub(super) fn of_query(error: QueryError, limit: Duration) -> Self {
        let detail = error.to_string();
        match error {
            QueryError::Sql { position, .. } => Self::new(SQL_ERROR, detail).at(position),
            QueryError::NoForm(_) => Self::new(UNSUPPORTED_TYPE, detail),
            QueryError::Rejected(rejection) => rejection.into(),
            QueryError::NotAllowed { position, .. } => {
                Self::new(STATEMENT_NOT_ALLOWED, detail).at(position)
            }
            QueryError::Parameter(_) => Self::bad_request(detail),
            QueryError::AnswerTooLarge(_) => Self::new(ANSWER_TOO_LARGE, detail),
            QueryError::OutOfMemory => Self::new(MEMORY_LIMIT, detail),
            QueryError::Cancelled => Self::cancelled(),
            QueryError::TimedOut => Self::timed_out(limit),
            QueryError::Stalled(_) => Self::new(STALLED, detail),
            QueryError::EngineFailed(_) => Self::new(ENGINE_FAILED, detail),
            QueryError::Quarantined(time) => {
                Self::new(STATEMENT_QUARANTINED, detail).retry_after(seconds(time))
            }
            QueryError::TooManyFailures(time) => {
                Self::new(TOO_MANY_FAILURES, detail).retry_after(seconds(time))
            }
            QueryError::Unavailable => Self::new(OVERLOADED, detail).retry_after(1),
            QueryError::Internal(_) => Self::internal(detail),
        }
    }

    pub(super) fn into_response(self, request_id: &str) -> Response<BoxBody> {
        let document = Document {
            r#type: format!("urn:martd:problem:{}", self.kind.slug),
            title: self.kind.title,
            status: self.kind.status.as_u16(),
            detail: &self.detail,
            request_id,
            extra: &self.extra,
        };
        let text = serde_json::to_vec(&document).expect("a problem is JSON");
        let mut response = body::response(self.kind.status, "application/problem+json", text);
        response.headers_mut().extend(self.header.map(|header| *header));
        response
    }
}

/// The title and the detail, and where in the statement it is, if that is known.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind.title, self.detail)?;
        match self.extra.get("position") {
            Some(position) => write!(f, " (at byte {position} of the statement)"),
            None => Ok(()),
        }
    }
}

impl From<Rejection> for Problem {
    fn from(rejection: Rejection) -> Self {
        let detail = rejection.to_string();
        let kind = match &rejection {
            Rejection::Empty => BAD_REQUEST,
            Rejection::Syntax { .. } => SQL_ERROR,
            Rejection::Statement { .. } => STATEMENT_NOT_ALLOWED,
            Rejection::Function { .. } => FUNCTION_NOT_ALLOWED,
            Rejection::Catalog(_) => CATALOG_UNKNOWN,
            Rejection::OutOfMemory => MEMORY_LIMIT,
            Rejection::Failed(_) => return Self::internal(detail),
        };
        Self::new(kind, detail).at(rejection.position())
    }
}

fn seconds(time: Duration) -> u32 {
    u32::try_from(time.as_secs()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_client_does_is_not_what_martd_failed_at() {
        let outcome = |error| Problem::of_query(error, Duration::from_secs(1)).outcome();
        assert_eq!(outcome(QueryError::TimedOut), Outcome::Timeout);
        assert_eq!(outcome(QueryError::Cancelled), Outcome::Cancelled);
        assert_eq!(outcome(QueryError::Stalled(Duration::from_secs(30))), Outcome::Gone);
        assert_eq!(outcome(QueryError::AnswerTooLarge(String::new())), Outcome::Refused);
        assert_eq!(outcome(QueryError::Unavailable), Outcome::Unavailable);
        assert_eq!(outcome(QueryError::Internal(String::new())), Outcome::Error);
    }
}
