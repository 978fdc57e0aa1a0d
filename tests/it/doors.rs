//! What a web page that somebody has open can do to a martd on the same machine: nothing.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::harness::{Martd, Root};
use crate::writers::Writer;

fn martd(settings: &[(&str, &str)]) -> (Root, Martd) {
    let root = Root::new();
    Writer::new().land(&root, "a", "SELECT 1 AS x");
    let martd = Martd::start_with(root.path(), settings);
    martd.wait_ready();
    (root, martd)
}

/// Sends a request with these lines in its head, and returns the answer in lower case.
fn ask(martd: &Martd, request: &str, lines: &[&str]) -> String {
    let mut stream = TcpStream::connect(&martd.address).expect("martd listens");
    let lines: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
    let head = format!("{request} HTTP/1.1\r\n{lines}connection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).expect("write");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("UTF-8");
    answer.to_ascii_lowercase()
}

const QUERY: &str = "GET /v1/query?sql=from+mart.a";

#[test]
fn a_name_that_was_rebound_to_loopback_reads_nothing() {
    let (_root, martd) = martd(&[]);
    let answer = ask(&martd, QUERY, &["host: evil.example:8321"]);
    assert!(answer.starts_with("http/1.1 421") && answer.contains("misdirected"), "{answer}");
    assert!(ask(&martd, QUERY, &["host: localhost:8321"]).starts_with("http/1.1 200"));
    assert!(ask(&martd, QUERY, &[]).starts_with("http/1.1 400"), "no host");
    assert!(ask(&martd, QUERY, &["host: a", "host: a"]).starts_with("http/1.1 400"), "two");

    let (_root, martd) = self::martd(&[("MARTD_HOSTS", "martd.example")]);
    assert!(ask(&martd, QUERY, &["host: martd.example"]).starts_with("http/1.1 200"));
}

#[test]
fn a_page_of_another_site_runs_nothing() {
    let (_root, martd) = martd(&[]);
    for line in ["origin: http://evil.example", "origin: null", "sec-fetch-site: cross-site"] {
        let answer = ask(&martd, QUERY, &["host: localhost", line]);
        assert!(answer.starts_with("http/1.1 403"), "{line}: {answer}");
        assert!(answer.contains("origin-not-allowed"), "{line}: {answer}");
        assert!(!answer.contains("access-control-allow-origin"), "{line}: {answer}");
    }
    let own = ["host: localhost:8321", "origin: http://localhost:8321"];
    assert!(ask(&martd, QUERY, &own).starts_with("http/1.1 200"), "the status page's");
}

#[test]
fn a_listed_page_asks_and_reads() {
    let (_root, martd) = martd(&[("MARTD_CORS_ORIGINS", "https://app.example")]);
    let page = ["host: localhost", "origin: https://app.example", "sec-fetch-site: cross-site"];
    let answer = ask(&martd, QUERY, &page);
    assert!(answer.starts_with("http/1.1 200"), "{answer}");
    assert!(answer.contains("access-control-allow-origin: https://app.example"), "{answer}");
    assert!(answer.contains("vary: origin"), "{answer}");

    let asks = ["access-control-request-method: POST", page[0], page[1]];
    let answer = ask(&martd, "OPTIONS /v1/query", &asks);
    assert!(answer.starts_with("http/1.1 204"), "{answer}");
    assert!(answer.contains("access-control-allow-methods: get, head, post, delete"), "{answer}");
    let stranger = [asks[0], asks[1], "origin: https://evil.example"];
    assert!(ask(&martd, "OPTIONS /v1/query", &stranger).starts_with("http/1.1 403"));
}

#[test]
fn an_origin_that_is_none_is_a_wrong_setting() {
    let parquet_dir = Root::new();
    let dir = parquet_dir.path().to_str().expect("UTF-8");
    for origin in ["app.example", "https://app.example/", "*"] {
        let settings = [("PARQUET_DIR", dir), ("MARTD_CORS_ORIGINS", origin)];
        let output = crate::harness::run(&["serve"], &settings);
        assert_eq!(output.code, 2, "{output:?}");
        assert!(output.err.contains("MARTD_CORS_ORIGINS"), "{output:?}");
    }
}
