//! The bodies of requests: media types, compression, sizes.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use crate::harness::{Martd, PATIENCE, Root};
use crate::writers::serving;

fn martd() -> (Root, Martd) {
    serving("a", "SELECT 1 AS x", &[("MARTD_MAX_BODY", "1000B")])
}

/// Posts bytes with these lines in the head; returns the head of the answer in lower case and the body.
fn post(martd: &Martd, lines: &str, body: &[u8]) -> (String, String) {
    let mut stream = TcpStream::connect(&martd.address).expect("martd listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let length = body.len();
    write!(
        stream,
        "POST /v1/query HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
         Content-Length: {length}\r\n{lines}\r\n"
    )
    .expect("sent");
    stream.write_all(body).expect("sent");
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer); // a body that is not read makes the end a reset
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    (head.to_lowercase(), body.to_owned())
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut packed = Vec::new();
    let mut encoder = flate2::read::GzEncoder::new(bytes, flate2::Compression::best());
    encoder.read_to_end(&mut packed).expect("packed");
    packed
}

#[test]
fn a_compressed_body_is_what_it_was_before() {
    let (_root, martd) = martd();
    let sql = b"{\"sql\": \"SELECT 7 AS x\"}";
    let zstd = zstd::encode_all(&sql[..], 3).expect("packed");
    for (coding, body) in [
        ("gzip", gzip(sql)),
        ("GZIP", gzip(sql)),
        ("x-gzip", gzip(sql)),
        ("zstd", zstd),
        ("identity", sql.to_vec()),
    ] {
        let (head, body) = post(&martd, &format!("Content-Encoding: {coding}\r\n"), &body);
        assert!(head.starts_with("http/1.1 200"), "{coding}: {head} {body}");
        assert!(body.contains("[{\"x\":7}]"), "{coding}: {body}");
    }
    for coding in ["br", "deflate", "gzip, gzip", "gzip\r\nContent-Encoding: gzip"] {
        let (head, body) = post(&martd, &format!("Content-Encoding: {coding}\r\n"), sql);
        assert!(head.starts_with("http/1.1 415"), "{coding}: {head}");
        assert!(head.contains("\r\naccept-encoding: gzip, zstd"), "{coding}: {head}");
        assert!(body.contains("unsupported-media-type"), "{coding}: {body}");
    }
    let (head, body) = post(&martd, "Content-Encoding: gzip\r\n", sql);
    assert!(head.starts_with("http/1.1 400") && body.contains("is not gzip"), "{head} {body}");
    // The limit is for what comes out: these are a few hundred bytes of a statement that is too long.
    let long = format!("SELECT '{}'", " ".repeat(2_000));
    for (coding, body) in [
        ("gzip", gzip(long.as_bytes())),
        ("zstd", zstd::encode_all(long.as_bytes(), 3).expect("ok")),
    ] {
        assert!(body.len() < 1_000);
        let (head, body) = post(&martd, &format!("Content-Encoding: {coding}\r\n"), &body);
        assert!(head.starts_with("http/1.1 413"), "{coding}: {head} {body}");
    }
}

#[test]
fn a_body_is_utf_8_and_says_so_or_nothing() {
    let (_root, martd) = martd();
    let json = "{\"sql\": \"SELECT 'é' AS x\"}";
    let marked = format!("\u{feff}{json}");
    let ask = |media_type: &str, body: &[u8]| {
        let (head, body) = post(&martd, &format!("Content-Type: {media_type}\r\n"), body);
        (head[9..12].to_owned(), body)
    };
    for media_type in [
        "application/json",
        "APPLICATION/JSON",
        "application/json;charset=UTF-8",
        "Application/Json; Charset=\"utf-8\"",
    ] {
        for body in [json, &marked] {
            let (status, body) = ask(media_type, body.as_bytes());
            assert!(status == "200" && body.contains("\"é\""), "{media_type}: {body}");
        }
    }
    let (status, body) = ask("text/plain", "\u{feff}SELECT 'é' AS x".as_bytes());
    assert!(status == "200" && body.contains("\"é\""), "{body}");
    for media_type in [
        "text/plain; charset=iso-8859-1",
        "application/json; charset=utf-16",
        "application/x-www-form-urlencoded",
        "nonsense",
        "",
    ] {
        let (status, body) = ask(media_type, json.as_bytes());
        assert!(status == "415" && body.contains("in UTF-8"), "{media_type}: {status} {body}");
    }
    // As PowerShell writes files.
    let wide: Vec<u8> = marked.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let (status, body) = ask("application/json", &wide);
    assert!(status == "400" && body.contains("UTF-16"), "{body}");
}

#[test]
fn a_body_that_is_too_large_is_not_asked_for() {
    let (_root, martd) = martd();
    let expect = |length: usize, lines: &str| {
        let mut stream = TcpStream::connect(&martd.address).expect("martd listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        write!(
            stream,
            "POST /v1/query HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\n\
             Expect: 100-continue\r\nContent-Length: {length}\r\n{lines}\r\n"
        )
        .expect("sent");
        let mut line = String::new();
        BufReader::new(&stream).read_line(&mut line).expect("a line");
        if line.starts_with("HTTP/1.1 100") {
            stream.write_all(b"SELECT 1").expect("sent");
        }
        line
    };
    assert_eq!(expect(8, ""), "HTTP/1.1 100 Continue\r\n");
    assert_eq!(expect(1_001, ""), "HTTP/1.1 413 Payload Too Large\r\n");
    assert_eq!(expect(8, "Content-Encoding: br\r\n"), "HTTP/1.1 415 Unsupported Media Type\r\n");
    assert_eq!(expect(8, "Origin: https://evil.example\r\n"), "HTTP/1.1 403 Forbidden\r\n");
}
