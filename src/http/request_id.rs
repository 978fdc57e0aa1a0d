//! Request ids: the client's own if it is well-formed, else a fresh one that sorts by time.

use hyper::header::{HeaderMap, HeaderName};
use uuid::Uuid;

pub(super) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

const MAX_BYTES: usize = 64;

/// The id of a request with these headers.
pub(super) fn of(headers: &HeaderMap) -> String {
    headers
        .get(X_REQUEST_ID)
        .and_then(|value| value.to_str().ok())
        .filter(|id| is_well_formed(id))
        .map_or_else(fresh, str::to_owned)
}

/// An id that nobody has.
pub(super) fn fresh() -> String {
    Uuid::now_v7().simple().to_string()
}

fn is_well_formed(id: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    (1..=MAX_BYTES).contains(&id.len()) && id.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_that_could_break_a_log_line_is_replaced() {
        let id_for = |given: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(X_REQUEST_ID, given.parse().expect("a header value"));
            of(&headers)
        };
        assert_eq!(id_for("job-7_a"), "job-7_a");
        assert_ne!(id_for("a b"), "a b");
        assert_ne!(id_for(&"x".repeat(65)), "x".repeat(65));
    }
}
