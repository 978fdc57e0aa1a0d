//! Who may be behind a request: `Host`, `Origin` and `Sec-Fetch-Site`.
//!
//! A web page that a user has open can send requests to a martd on that user's machine, and by DNS
//! rebinding read the answers under a name of its own. So on loopback a request must name martd by an
//! address, as `localhost`, or by a name of `MARTD_HOSTS`, and a page of another origin must be listed
//! in `MARTD_CORS_ORIGINS`. Programs send neither `Origin` nor `Sec-Fetch-Site`.

use std::net::IpAddr;

use hyper::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD,
    AUTHORIZATION, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue, ORIGIN, RANGE, VARY,
};
use hyper::http::uri::Authority;
use hyper::{Method, Request, Version};

use super::problem::{self, Problem};
use super::request_id::X_REQUEST_ID;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
/// Headers that say one thing. Of two, a proxy before martd may heed one and martd the other.
const SINGLE: [HeaderName; 8] = [
    HOST,
    ORIGIN,
    AUTHORIZATION,
    CONTENT_TYPE,
    RANGE,
    X_REQUEST_ID,
    HeaderName::from_static("martd-scope"),
    HeaderName::from_static("martd-snapshot"),
];
/// What a listed page may send and read beside what every page may.
const REQUEST_HEADERS: &str = "authorization, content-type, if-none-match, last-event-id, \
                               martd-scope, martd-snapshot, x-request-id";
const ANSWER_HEADERS: &str = "cache-status, etag, martd-build, martd-snapshot, martd-source, \
                              martd-truncated, server-timing, x-request-id";

/// Where a connection was accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Door {
    /// On an address that only this machine has.
    Loopback,
    /// On an address that others reach.
    Network,
    /// On a Unix socket, which no browser opens.
    UnixSocket,
}

/// Whose connection it is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer {
    pub(super) door: Door,
    /// Unless it is on a Unix socket.
    pub(super) address: Option<IpAddr>,
}

/// Names and origins that are let in.
#[derive(Debug, Clone, Default)]
pub struct Doors {
    /// `MARTD_HOSTS`: names of this martd beside `localhost`.
    pub hosts: Vec<String>,
    /// `MARTD_CORS_ORIGINS`: web pages that may ask, for example `https://app.example.org`.
    pub origins: Vec<String>,
}

impl Doors {
    /// Lets a request in. Returns the listed origin that it comes from, if it comes from one.
    ///
    /// # Errors
    /// 400 for a `Host` that is missing or there twice, 421 for a name that is not martd's, 403 for a
    /// web page that is not listed.
    pub(super) fn admit<B>(
        &self,
        door: Door,
        request: &Request<B>,
    ) -> Result<Option<HeaderValue>, Problem> {
        let headers = request.headers();
        if let Some(name) = SINGLE.iter().find(|name| headers.get_all(*name).iter().count() > 1) {
            let detail = format!("the header {name} was sent more than once");
            return Err(Problem::bad_request(detail));
        }
        let host = host(request)?;
        let named = match door {
            Door::Loopback => true,
            Door::Network => !self.hosts.is_empty(),
            Door::UnixSocket => false,
        };
        if named && !self.is_ours(host) {
            let detail = format!(
                "this is not {host:?}; name martd by its address, or list the name in MARTD_HOSTS"
            );
            return Err(Problem::new(problem::MISDIRECTED, detail));
        }
        if let Some(origin) = headers.get(ORIGIN) {
            let text = origin.to_str().unwrap_or_default();
            if self.origins.iter().any(|listed| listed.eq_ignore_ascii_case(text)) {
                return Ok(Some(origin.clone()));
            }
            let authority = text.split_once("://").map_or("", |(_, authority)| authority);
            if authority.is_empty() || !authority.eq_ignore_ascii_case(host) {
                return Err(foreign(text));
            }
        } else if headers.get(SEC_FETCH_SITE).is_some_and(is_foreign) {
            let is_link = request.uri().path() == "/"
                && headers.get(SEC_FETCH_MODE).is_some_and(|mode| mode == "navigate");
            if !is_link {
                return Err(foreign("another site"));
            }
        }
        Ok(None)
    }

    fn is_ours(&self, host: &str) -> bool {
        let name = without_port(host);
        name.eq_ignore_ascii_case("localhost")
            || name.trim_matches(['[', ']']).parse::<IpAddr>().is_ok()
            || self.hosts.iter().any(|known| known.eq_ignore_ascii_case(name))
    }
}

/// A page of another port or name of the same site is as foreign as any.
fn is_foreign(site: &HeaderValue) -> bool {
    site == "cross-site" || site == "same-site"
}

/// Whether a browser asks on behalf of a page what that page may send.
pub(super) fn is_preflight<B>(request: &Request<B>) -> bool {
    request.method() == Method::OPTIONS
        && request.headers().contains_key(ORIGIN)
        && request.headers().contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

/// Tells a browser that a listed page may read this answer.
pub(super) fn allow(headers: &mut HeaderMap, origin: HeaderValue) {
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(ANSWER_HEADERS));
    headers.append(VARY, HeaderValue::from_static("Origin"));
}

/// Tells a browser what a listed page may send.
pub(super) fn allow_requests(headers: &mut HeaderMap) {
    let methods = HeaderValue::from_static("GET, HEAD, POST, DELETE");
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, methods);
    headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static(REQUEST_HEADERS));
    headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
}

/// The one host that a request names. HTTP/1.0 did not ask for one.
fn host<B>(request: &Request<B>) -> Result<&str, Problem> {
    let wrong = || Problem::bad_request("Host is not a host and a port");
    let host = match request.headers().get(HOST) {
        Some(host) => host.to_str().map_err(|_| wrong())?,
        None if request.version() == Version::HTTP_10 => "localhost",
        None => return Err(Problem::bad_request("the header Host is missing")),
    };
    let is_host = host.is_empty() || (host.parse::<Authority>().is_ok() && !host.contains('@'));
    if !is_host {
        return Err(wrong());
    }
    // The form that proxies are sent.
    match request.uri().authority() {
        Some(target) if !target.as_str().eq_ignore_ascii_case(host) => {
            Err(Problem::bad_request("Host is another one than in the request's first line"))
        }
        _ => Ok(host),
    }
}

/// An IPv6 address stands in brackets, so that its colons are none before a port.
fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

fn foreign(origin: &str) -> Problem {
    let detail = format!(
        "pages of {origin} may not ask this martd; MARTD_CORS_ORIGINS lists those that may"
    );
    Problem::new(problem::ORIGIN_NOT_ALLOWED, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admit(door: Door, path: &str, headers: &[(&str, &str)]) -> Result<bool, &'static str> {
        let doors = Doors {
            hosts: vec!["martd.example".to_owned()],
            origins: vec!["https://app.example".to_owned()],
        };
        let mut request = Request::builder().uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(()).expect("a request");
        doors.admit(door, &request).map(|origin| origin.is_some()).map_err(|problem| problem.slug())
    }

    #[test]
    fn a_name_that_is_not_martds_is_refused() {
        for host in ["localhost", "LOCALHOST:8321", "127.0.0.1:1", "[::1]:8321", "martd.example:80"]
        {
            assert_eq!(admit(Door::Loopback, "/", &[("host", host)]), Ok(false), "{host}");
        }
        for host in ["evil.example", "evil.example:8321", "localhost.evil.example", ""] {
            let answer = admit(Door::Loopback, "/", &[("host", host)]);
            assert_eq!(answer, Err("misdirected"), "{host}");
        }
        assert_eq!(admit(Door::Network, "/", &[("host", "evil.example")]), Err("misdirected"));
        assert_eq!(admit(Door::UnixSocket, "/", &[("host", "any")]), Ok(false));
        let open = Doors::default();
        let request = Request::get("/").header("host", "martd:8321").body(()).expect("a request");
        assert!(open.admit(Door::Network, &request).is_ok(), "a container's name");
    }

    #[test]
    fn a_host_is_named_once() {
        assert_eq!(admit(Door::Network, "/", &[]), Err("bad-request"));
        let twice = [("host", "localhost"), ("host", "localhost")];
        assert_eq!(admit(Door::Loopback, "/", &twice), Err("bad-request"));
    }

    #[test]
    fn a_page_of_another_origin_is_refused() {
        let from = |path, origin| {
            let headers = [("host", "localhost:8321"), ("origin", origin)];
            admit(Door::Loopback, path, &headers)
        };
        assert_eq!(from("/v1/query", "http://localhost:8321"), Ok(false), "the status page");
        assert_eq!(from("/v1/query", "https://app.example"), Ok(true));
        for origin in ["http://evil.example", "http://localhost:3000", "null", ""] {
            assert_eq!(from("/v1/query", origin), Err("origin-not-allowed"), "{origin}");
        }
        let nameless = [("host", ""), ("origin", "null")];
        let open = Doors::default();
        let request =
            nameless.iter().fold(Request::get("/"), |r, (name, value)| r.header(*name, *value));
        let request = request.body(()).expect("a request");
        assert!(open.admit(Door::Network, &request).is_err(), "an origin without a name");
        let from_site = |site, path, mode| {
            let headers =
                [("host", "localhost"), ("sec-fetch-site", site), ("sec-fetch-mode", mode)];
            admit(Door::Loopback, path, &headers)
        };
        let query = "/v1/query?sql=select+1";
        for site in ["cross-site", "same-site"] {
            assert_eq!(from_site(site, query, "no-cors"), Err("origin-not-allowed"));
            assert_eq!(from_site(site, query, "navigate"), Err("origin-not-allowed"));
            assert_eq!(from_site(site, "/", "navigate"), Ok(false), "a link to the page");
        }
        for site in ["same-origin", "none"] {
            assert_eq!(from_site(site, query, "navigate"), Ok(false), "{site}");
        }
    }
}
