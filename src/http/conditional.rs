//! Conditional requests (RFC 9110, section 13), for answers that have a validator.

use std::time::SystemTime;

use headers::{
    ETag, HeaderMapExt, IfMatch, IfModifiedSince, IfNoneMatch, IfRange, IfUnmodifiedSince,
};
use hyper::{HeaderMap, Method};

use super::problem::{self, Problem};

/// What tells one version of an answer from another.
#[derive(Debug)]
pub(super) struct Validators {
    pub(super) etag: Option<ETag>,
    pub(super) modified: Option<SystemTime>,
    /// Whether the answer is known to exist. `If-None-Match: *` does not speak of others: it would say
    /// of a statement that was never answered that its answer has not changed.
    pub(super) exists: bool,
}

impl Validators {
    /// Whether the client has the answer already. Other methods than GET and HEAD have no conditions
    /// here.
    ///
    /// # Errors
    /// 412 when the client wants another version than there is.
    pub(super) fn is_known_to(
        &self,
        method: &Method,
        headers: &HeaderMap,
    ) -> Result<bool, Problem> {
        if method != Method::GET && method != Method::HEAD {
            return Ok(false);
        }
        let is_wanted = match headers.typed_get::<IfMatch>() {
            Some(wanted) => match &self.etag {
                Some(etag) => wanted.precondition_passes(etag),
                None => wanted == IfMatch::any(),
            },
            None => {
                let since = headers.typed_get::<IfUnmodifiedSince>();
                let since = since.zip(self.modified);
                since.is_none_or(|(since, modified)| since.precondition_passes(modified))
            }
        };
        if !is_wanted {
            let detail = "there is another version than the request asks for (If-Match, \
                          If-Unmodified-Since)";
            return Err(Problem::new(problem::PRECONDITION_FAILED, detail));
        }
        Ok(match headers.typed_get::<IfNoneMatch>() {
            Some(known) if known == IfNoneMatch::any() => self.exists,
            Some(known) => self.etag.as_ref().is_some_and(|etag| !known.precondition_passes(etag)),
            None => {
                let since = headers.typed_get::<IfModifiedSince>().zip(self.modified);
                since.is_some_and(|(since, modified)| !since.is_modified(modified))
            }
        })
    }

    /// Whether a range of this version is a part of what the client has begun. A date does not tell:
    /// two versions can be of the same second.
    pub(super) fn fits_range(&self, headers: &HeaderMap) -> bool {
        match headers.typed_try_get::<IfRange>() {
            Ok(None) => true,
            Ok(Some(begun)) => {
                self.etag.as_ref().is_some_and(|etag| begun == IfRange::etag(etag.clone()))
            }
            Err(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Of a file that was written at 08:49:37.
    fn told(method: &Method, pairs: &[(&'static str, &'static str)]) -> Result<bool, &'static str> {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().expect("a header value"));
        }
        let validators = Validators {
            etag: Some("\"a\"".parse().expect("an entity tag")),
            modified: Some(SystemTime::UNIX_EPOCH + Duration::from_millis(784_111_777_900)),
            exists: true,
        };
        validators.is_known_to(method, &headers).map_err(|problem| problem.slug())
    }

    #[test]
    fn conditions_in_the_order_of_rfc_9110() {
        const BEFORE: &str = "Sun, 06 Nov 1994 08:49:36 GMT";
        const THEN: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
        let failed = Err("precondition-failed");
        for (pairs, expected) in [
            (&[][..], Ok(false)),
            (&[("if-match", "\"a\"")], Ok(false)),
            (&[("if-match", "\"b\", \"a\"")], Ok(false)),
            (&[("if-match", "\"b\""), ("if-match", "\"a\"")], Ok(false)),
            (&[("if-match", "*")], Ok(false)),
            (&[("if-match", "\"b\"")], failed),
            (&[("if-match", "W/\"a\"")], failed), // a weak tag names no version
            (&[("if-match", "\"a\""), ("if-unmodified-since", BEFORE)], Ok(false)),
            (&[("if-unmodified-since", BEFORE)], failed),
            (&[("if-unmodified-since", THEN)], Ok(false)),
            (&[("if-unmodified-since", "yesterday")], Ok(false)), // no date is no condition
            (&[("if-none-match", "\"a\"")], Ok(true)),
            (&[("if-none-match", "\"b\", W/\"a\"")], Ok(true)),
            (&[("if-none-match", "\"b\""), ("if-none-match", "\"a\"")], Ok(true)),
            (&[("if-none-match", "*")], Ok(true)),
            (&[("if-none-match", "\"b\"")], Ok(false)),
            (&[("if-none-match", "\"b\""), ("if-modified-since", THEN)], Ok(false)),
            (&[("if-modified-since", THEN)], Ok(true)),
            (&[("if-modified-since", BEFORE)], Ok(false)),
            (&[("if-modified-since", "yesterday")], Ok(false)),
            (&[("if-match", "\"b\""), ("if-none-match", "\"a\"")], failed),
            (&[("if-match", "\"a\""), ("if-none-match", "\"a\"")], Ok(true)),
        ] {
            assert_eq!(told(&Method::GET, pairs), expected, "{pairs:?}");
            assert_eq!(told(&Method::HEAD, pairs), expected, "{pairs:?}");
            assert_eq!(told(&Method::POST, pairs), Ok(false), "{pairs:?}");
        }
    }

    #[test]
    fn what_was_never_answered_is_not_known() {
        let fresh = Validators { etag: None, modified: None, exists: false };
        let known = |name: &'static str, value: &str| {
            let headers = HeaderMap::from_iter([(
                name.parse().expect("a name"),
                value.parse().expect("a value"),
            )]);
            fresh.is_known_to(&Method::GET, &headers).ok()
        };
        assert_eq!(known("if-none-match", "*"), Some(false));
        assert_eq!(known("if-none-match", "\"a\""), Some(false));
        assert_eq!(known("if-match", "*"), Some(false));
        assert_eq!(known("if-match", "\"a\""), None);
    }
}
