//! Requests as bytes: what is ambiguous is refused, and what looks like a body is never a request.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::harness::{Martd, PATIENCE, Root};
use crate::writers::serving;

fn martd(settings: &[(&str, &str)]) -> (Root, Martd) {
    serving("a", "SELECT 1 AS x", settings)
}

/// Sends bytes, and returns all that comes until martd closes the connection.
fn exchange(martd: &Martd, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(&martd.address).expect("martd listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.write_all(bytes).expect("sent");
    let mut answers = Vec::new();
    // What martd has not read when it closes makes that a reset.
    let _ = stream.read_to_end(&mut answers);
    String::from_utf8_lossy(&answers).into_owned()
}

/// The status of each answer.
fn statuses(answers: &str) -> Vec<&str> {
    answers.split("HTTP/1.1 ").skip(1).map(|answer| &answer[..3]).collect()
}

const LINE: &str = "POST /v1/query HTTP/1.1\r\n";
const TEXT: &str = "Host: localhost\r\nContent-Type: text/plain\r\n";
const HIDDEN: &str = "GET /hidden HTTP/1.1\r\nHost: localhost\r\n\r\n";

#[test]
fn a_hidden_request_is_never_answered() {
    // Connections end after a second without a request.
    let (_root, martd) = martd(&[("MARTD_HEADER_TIMEOUT", "1s")]);
    let post = |lines: &str, body: &str| format!("{LINE}{TEXT}{lines}\r\n{body}{HIDDEN}");
    let get = |head: &str| format!("{head}\r\n\r\n{HIDDEN}");
    let chunked = "8\r\nselect 1\r\n0\r\n\r\n";
    // Where the end is clear, the next request is one.
    let cases: &[(&str, String, &[&str])] = &[
        ("a length", post("Content-Length: 8\r\n", "select 1"), &["200", "404"]),
        (
            "a length twice",
            post("Content-Length: 8\r\nContent-Length: 8\r\n", "select 1"),
            &["200", "404"],
        ),
        ("chunks", post("Transfer-Encoding: chunked\r\n", chunked), &["200", "404"]),
        (
            "length, chunks",
            post("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", chunked),
            &["200"],
        ),
        (
            "chunks, length",
            post("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", chunked),
            &["200"],
        ),
        ("two lengths", post("Content-Length: 8\r\nContent-Length: 9\r\n", "select 1"), &["400"]),
        ("a list of lengths", post("Content-Length: 8, 8\r\n", "select 1"), &["400"]),
        ("a signed length", post("Content-Length: +8\r\n", "select 1"), &["400"]),
        ("a negative length", post("Content-Length: -8\r\n", "select 1"), &["400"]),
        ("a hexadecimal length", post("Content-Length: 0x8\r\n", "select 1"), &["400"]),
        ("an endless length", post("Content-Length: 99999999999999999999\r\n", ""), &["400"]),
        ("an empty length", post("Content-Length:\r\n", "select 1"), &["400"]),
        (
            "chunks twice",
            post("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", chunked),
            &["400"],
        ),
        (
            "chunks that are not last",
            post("Transfer-Encoding: chunked, gzip\r\n", chunked),
            &["400"],
        ),
        ("unknown chunks", post("Transfer-Encoding: xchunked\r\n", chunked), &["400"]),
        ("chunks in quotes", post("Transfer-Encoding: \"chunked\"\r\n", chunked), &["400"]),
        ("a tab before chunks", post("Transfer-Encoding:\x0bchunked\r\n", chunked), &["400"]),
        ("space before the colon", post("Content-Length : 8\r\n", "select 1"), &["400"]),
        ("a folded line", post("X-Folded: a\r\n b\r\nContent-Length: 8\r\n", "select 1"), &["400"]),
        ("a folded length", post("Content-Length:\r\n 8\r\n", "select 1"), &["400"]),
        ("a line that begins with space", post(" Content-Length: 8\r\n", "select 1"), &["400"]),
        ("no colon", post("Content-Length 8\r\n", "select 1"), &["400"]),
        ("no name", post(": 8\r\n", "select 1"), &["400"]),
        ("NUL in a value", post("X-Value: a\0b\r\nContent-Length: 8\r\n", "select 1"), &["400"]),
        ("CR in a value", post("X-Value: a\rb\r\nContent-Length: 8\r\n", "select 1"), &["400"]),
        (
            "a wrong chunk",
            post("Transfer-Encoding: chunked\r\n", "x\r\nselect 1\r\n0\r\n\r\n"),
            &["400"],
        ),
        (
            "a signed chunk",
            post("Transfer-Encoding: chunked\r\n", "+8\r\nselect 1\r\n0\r\n\r\n"),
            &["400"],
        ),
        (
            "a chunk of LF",
            post("Transfer-Encoding: chunked\r\n", "8\nselect 1\r\n0\r\n\r\n"),
            &["400"],
        ),
        (
            "a chunk too long",
            post("Transfer-Encoding: chunked\r\n", "7\r\nselect 1\r\n0\r\n\r\n"),
            &["400"],
        ),
        (
            "an endless chunk",
            post("Transfer-Encoding: chunked\r\n", "fffffffffffffffff\r\n"),
            &["400"],
        ),
        ("no host", get("GET /livez HTTP/1.1"), &["400", "404"]),
        (
            "two hosts",
            get("GET /livez HTTP/1.1\r\nHost: localhost\r\nHost: localhost"),
            &["400", "404"],
        ),
        ("a host with a path", get("GET /livez HTTP/1.1\r\nHost: localhost/x"), &["400", "404"]),
        ("a host with a user", get("GET /livez HTTP/1.1\r\nHost: evil@localhost"), &["400", "404"]),
        (
            "two hosts in one",
            get("GET /livez HTTP/1.1\r\nHost: localhost, localhost"),
            &["400", "404"],
        ),
        (
            "another target",
            get("GET http://localhost:1/livez HTTP/1.1\r\nHost: localhost"),
            &["400", "404"],
        ),
        (
            "the same target",
            get("GET http://localhost/livez HTTP/1.1\r\nHost: localhost"),
            &["200", "404"],
        ),
        (
            "two tokens",
            get(
                "GET /livez HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer a\r\nAuthorization: Bearer b",
            ),
            &["400", "404"],
        ),
        (
            "two snapshots",
            get("GET /livez HTTP/1.1\r\nHost: localhost\r\nMartd-Snapshot: a\r\nMartd-Snapshot: b"),
            &["400", "404"],
        ),
        (
            "chunks in HTTP/1.0",
            post("Transfer-Encoding: chunked\r\n", chunked).replacen("1.1", "1.0", 1),
            &["400"],
        ),
        ("HTTP/2", get("GET /livez HTTP/2.0\r\nHost: localhost"), &["400"]),
        ("HTTP/1.2", get("GET /livez HTTP/1.2\r\nHost: localhost"), &["400"]),
        ("no version", get("GET /livez\r\nHost: localhost"), &["400"]),
        ("two spaces", get("GET  /livez HTTP/1.1\r\nHost: localhost"), &["400"]),
        ("a space in the path", get("GET /li vez HTTP/1.1\r\nHost: localhost"), &["400"]),
        ("a wrong method", get("G(T /livez HTTP/1.1\r\nHost: localhost"), &["400"]),
        (
            "lines that end with LF",
            format!("GET /livez HTTP/1.1\nHost: localhost\n\n{HIDDEN}"),
            &["200", "404"],
        ),
        (
            "a body that nobody wants",
            format!(
                "GET /livez HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{HIDDEN}",
                HIDDEN.len()
            ),
            &["200"],
        ),
    ];
    let mut wrong = Vec::new();
    for (name, bytes, expected) in cases {
        let answers = exchange(&martd, bytes.as_bytes());
        if statuses(&answers) != *expected {
            wrong.push(format!("{name}: {:?}, not {expected:?}", statuses(&answers)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
