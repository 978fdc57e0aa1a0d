//! Answers in every format: what is chosen, what is cut, what breaks, and every type of DuckDB.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;

use serde_json::{Value as Json, json};

use crate::harness::{Martd, PATIENCE, Root, seed, wait_for};
use crate::metrics::Scrape;
use crate::proc::{cpu_ticks, engine, resident};
use crate::writers::{Writer, serving};

const FORMATS: [(&str, &str); 4] = [
    ("json", "application/json"),
    ("ndjson", "application/x-ndjson"),
    ("csv", "text/csv"),
    ("arrow", "application/vnd.apache.arrow.stream"),
];
/// What an Arrow stream ends with.
const ARROW_END: &[u8] = b"\xff\xff\xff\xff\0\0\0\0";

fn martd_with(settings: &[(&str, &str)]) -> (Root, Martd) {
    serving("a", "SELECT 1 AS x", settings)
}

/// An answer as it came over the wire.
struct Raw {
    /// The status line and the headers, in lower case.
    head: String,
    body: Vec<u8>,
    trailers: String,
    /// Whether the body came to the end that HTTP gives it.
    whole: bool,
}

/// `POST /v1/query` without an HTTP client in between, which might hide how an answer ends.
fn raw(martd: &Martd, format: &str, body: &Json, headers: &str) -> Raw {
    let mut reader = ask(martd, format, body, headers);
    let head = block(&mut reader);
    let mut raw = Raw { head, body: Vec::new(), trailers: String::new(), whole: false };
    if let Some((_, rest)) = raw.head.split_once("content-length: ") {
        let length = rest.lines().next().and_then(|line| line.parse().ok()).expect("a length");
        raw.body.resize(length, 0);
        raw.whole = reader.read_exact(&mut raw.body).is_ok();
        return raw;
    }
    assert!(raw.head.contains("transfer-encoding: chunked"), "{}", raw.head);
    while let Some(chunk) = chunk(&mut reader) {
        if chunk.is_empty() {
            raw.trailers = block(&mut reader);
            raw.whole = true;
            break;
        }
        raw.body.extend(chunk);
    }
    raw
}

fn ask(martd: &Martd, format: &str, body: &Json, headers: &str) -> BufReader<TcpStream> {
    let mut stream = TcpStream::connect(&martd.address).expect("martd listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let body = body.to_string();
    write!(
        stream,
        "POST /v1/query?format={format} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\
         {headers}\r\n{body}",
        body.len()
    )
    .expect("sent");
    BufReader::new(stream)
}

/// Lines up to an empty one.
fn block(reader: &mut impl BufRead) -> String {
    let mut text = String::new();
    while reader.read_line(&mut text).expect("a line") > 2 {}
    text.to_lowercase()
}

/// A chunk; an empty one is the last, and none says that the connection broke off.
fn chunk(reader: &mut impl BufRead) -> Option<Vec<u8>> {
    let mut size = String::new();
    reader.read_line(&mut size).ok()?;
    let size = usize::from_str_radix(size.trim(), 16).ok()?;
    let mut chunk = vec![0; size];
    if size > 0 {
        reader.read_exact(&mut chunk).ok()?;
        reader.read_exact(&mut [0; 2]).ok()?;
    }
    Some(chunk)
}

#[test]
fn the_format_is_negotiated() {
    let (_root, martd) = martd_with(&[]);
    let query = json!({"sql": "SELECT 'ä' AS x, NULL AS y"});
    for (accept, content_type, body) in [
        ("application/x-ndjson", "application/x-ndjson", "{\"x\":\"ä\",\"y\":null}\n"),
        ("text/csv", "text/csv; charset=utf-8", "x,y\nä,\n"),
        ("application/json;q=0.1, text/*", "text/csv; charset=utf-8", "x,y\nä,\n"),
    ] {
        let answer = martd.post_with(&query, &[("accept", accept)]);
        assert_eq!((answer.status, answer.header("content-type")), (200, content_type));
        assert_eq!(answer.body, body);
        assert!(answer.header("vary").starts_with("Accept, Accept-Encoding"), "{answer:?}");
    }
    for (format, content_type) in FORMATS {
        let raw = raw(&martd, format, &query, "Accept: text/html\r\n");
        assert!(raw.head.contains(&format!("content-type: {content_type}")), "{}", raw.head);
    }
    let answer = martd.post_with(&query, &[("accept", "text/html, image/*")]);
    let (slug, detail) = answer.problem();
    assert_eq!((answer.status, slug.as_str()), (406, "unsupported-format"));
    for (format, media_type) in FORMATS {
        assert!(detail.contains(&format!("{media_type} (?format={format})")), "{detail}");
    }
    assert!(raw(&martd, "xml", &query, "").head.starts_with("http/1.1 406"));
}

#[test]
fn answers_are_compressed_when_it_is_worth_it() {
    let (_root, martd) = martd_with(&[]);
    // One that is sent whole, and one that is streamed.
    for rows in [1_000, 200_000] {
        let query = json!({"sql": format!("SELECT i FROM range({rows}) t(i)"), "limit": rows});
        for (format, _) in FORMATS {
            let plain = raw(&martd, format, &query, "");
            assert!(!plain.head.contains("content-encoding"), "{}", plain.head);
            for coding in ["gzip", "zstd"] {
                let accept = format!("Accept-Encoding: br, {coding}\r\n");
                let packed = raw(&martd, format, &query, &accept);
                assert!(packed.head.contains(&format!("content-encoding: {coding}\r\n")));
                assert!(packed.body.len() < plain.body.len() / 2, "{format} {coding}");
                let unpacked = unpack(coding, &packed.body);
                // The time that a query took stands at the end of JSON.
                let same = plain.body.len() - if format == "json" { 40 } else { 0 };
                assert!(unpacked[..same] == plain.body[..same], "{format} {coding}");
            }
        }
    }
    let small = json!({"sql": "SELECT 1 AS x"});
    let answer = raw(&martd, "csv", &small, "Accept-Encoding: gzip\r\n");
    assert_eq!((answer.body, answer.head.contains("content-encoding")), (b"x\n1\n".into(), false));
    let answer = raw(&martd, "csv", &small, "Accept-Encoding: gzip, identity;q=0\r\n");
    assert_eq!(unpack("gzip", &answer.body), b"x\n1\n");
    let answer = raw(&martd, "csv", &small, "Accept-Encoding: br, identity;q=0\r\n");
    assert!(answer.head.starts_with("http/1.1 406"), "{}", answer.head);
}

fn unpack(coding: &str, bytes: &[u8]) -> Vec<u8> {
    let mut unpacked = Vec::new();
    match coding {
        "gzip" => flate2::read::GzDecoder::new(bytes).read_to_end(&mut unpacked).expect("gzip"),
        "zstd" => zstd::Decoder::new(bytes)
            .and_then(|mut decoder| decoder.read_to_end(&mut unpacked))
            .expect("zstd"),
        other => panic!("{other}"),
    };
    unpacked
}

#[test]
fn a_cut_is_told_in_a_header_or_in_a_trailer() {
    let (_root, martd) = martd_with(&[("MARTD_MAX_RESULT", "12MiB")]);
    // Large enough to be streamed in all formats.
    let sql = "SELECT i, 'a text of some length' AS x FROM range(200000) t(i)";
    let all = json!({"sql": sql, "limit": 200_000});
    let cut_by_rows = json!({"sql": sql, "limit": 199_999});
    let few = json!({"sql": sql, "limit": 10});
    let whole = json!({"sql": "SELECT 1"});
    for (format, _) in FORMATS {
        for (query, cut) in [(&few, true), (&whole, false)] {
            let answer = raw(&martd, format, query, "");
            let header = format!("martd-truncated: {cut}\r\n");
            assert!(answer.head.contains(&header), "{format}: {}", answer.head);
        }
        for (query, cut) in [(&all, false), (&cut_by_rows, true)] {
            let answer = raw(&martd, format, query, "TE: trailers\r\n");
            assert!(answer.whole, "{format}");
            assert!(answer.head.contains("trailer: martd-truncated\r\n"), "{}", answer.head);
            assert_eq!(answer.trailers, format!("martd-truncated: {cut}\r\n\r\n"), "{format}");
            assert!(answer.body.len() < 14 << 20, "{format}: {}", answer.body.len());
            // Whoever takes no trailers gets the same rows.
            let without = raw(&martd, format, query, "");
            assert!(without.whole && without.trailers == "\r\n", "{format}");
        }
    }
    let rows = |format, query| {
        String::from_utf8(raw(&martd, format, query, "").body).expect("UTF-8").lines().count()
    };
    assert_eq!(rows("ndjson", &cut_by_rows), 199_999);
    assert_eq!(rows("csv", &cut_by_rows), 1 + 199_999);
}

#[test]
fn an_answer_is_never_short_and_complete() {
    let limits = [("MARTD_MAX_RESULT", "12MiB"), ("MARTD_MAX_ROWS", "300000")];
    let (_root, martd) = martd_with(&limits);
    let rows = |count: u32, text: &str| json!({"sql": format!("SELECT i, '{text}' AS x FROM range({count}) t(i)")});
    // Without a limit the answer has all rows.
    for (format, head) in [("ndjson", 0), ("csv", 1)] {
        let answer = raw(&martd, format, &rows(30_000, ""), "");
        let lines = String::from_utf8(answer.body).expect("UTF-8").lines().count();
        assert_eq!((lines, answer.whole), (30_000 + head, true), "{format}");
    }
    let json = |query: &Json| {
        let answer = raw(&martd, "json", query, "");
        let json: Json = serde_json::from_slice(&answer.body).expect("JSON");
        (json["rows"].as_u64().expect("a count"), json["truncated"].clone())
    };
    assert_eq!(json(&rows(30_000, "")), (10_000, json!(true)), "JSON can say so");
    let wide = "a text of some length, so that few rows are many bytes";
    let mut large = rows(300_000, wide);
    for (format, _) in FORMATS.into_iter().filter(|(format, _)| *format != "json") {
        for query in [rows(300_001, ""), large.clone()] {
            let answer = raw(&martd, format, &query, "");
            let refused = answer.head.starts_with("http/1.1 422"); // before it began
            assert!(refused || !answer.whole, "{format}: {query}");
        }
    }
    let refused = martd.wait_log("broken off");
    assert!(refused["reason"].as_str().expect("a reason").contains("MARTD_MAX_"), "{refused}");
    large["limit"] = json!(300_000);
    assert!(!raw(&martd, "csv", &large, "").whole, "not all that its client named");
    let (rows, truncated) = json(&large);
    assert!(rows < 300_000 && truncated == json!(true), "{rows}");
    let refused =
        Scrape::of(&martd).value("martd_queries_total{outcome=\"refused\",format=\"csv\"}");
    assert_eq!(refused, 3.0);
}

#[test]
fn an_answer_too_large_to_begin_is_a_problem() {
    let (_root, martd) = martd_with(&[("MARTD_MAX_ROWS", "100")]);
    let sql = "SELECT i FROM range(101) t(i)";
    let answer = martd.post_with(&json!({ "sql": sql }), &[("accept", "text/csv")]);
    assert_eq!(answer.status, 422);
    let (slug, detail) = answer.problem();
    assert_eq!(slug, "answer-too-large");
    assert!(detail.contains("100 rows (MARTD_MAX_ROWS)"), "{detail}");
    let cut = martd.post_with(&json!({"sql": sql, "limit": 100}), &[("accept", "text/csv")]);
    assert_eq!((cut.status, cut.header("martd-truncated")), (200, "true"));
}

#[test]
fn a_stream_cut_at_its_time_limit_is_a_timeout() {
    let (_root, martd) = martd_with(&[]);
    let endless = "SELECT i, repeat('x', 100) AS x FROM range(9000000) t(i)";
    let query = json!({"sql": endless, "limit": 9_000_000, "timeout_ms": 300});
    let answer = raw(&martd, "ndjson", &query, "");
    assert!(answer.head.starts_with("http/1.1 200") && !answer.whole);
    let line = martd.wait_log("broken off");
    assert!(line["rows"].as_u64().expect("a number") > 0, "{line}");
    assert!(line["reason"].as_str().expect("a reason").contains("after 300 ms"), "{line}");
    let ended = |outcome: &str| {
        let labels = format!("martd_queries_total{{outcome=\"{outcome}\",format=\"ndjson\"}}");
        Scrape::of(&martd).value(&labels)
    };
    assert_eq!((ended("timeout"), ended("error")), (1.0, 0.0));
}

#[test]
fn an_error_in_the_middle_of_an_answer_breaks_it_off() {
    let (_root, martd) = martd_with(&[("MARTD_QUERY_TIMEOUT", "60s")]);
    let late = "SELECT CAST(CASE WHEN i = 300000 THEN 'x' ELSE '1' END AS INTEGER) AS n,
                       'some text of some length' AS x FROM range(400000) t(i)";
    let query = json!({"sql": late, "limit": 400_000});
    for (format, _) in FORMATS {
        for coding in ["", "Accept-Encoding: gzip\r\n", "Accept-Encoding: zstd\r\n"] {
            let answer = raw(&martd, format, &query, coding);
            assert!(answer.head.starts_with("http/1.1 200"), "{format}: {}", answer.head);
            assert!(!answer.body.is_empty(), "{format}");
            assert!(!answer.whole, "{format} {coding}: looks like a whole answer");
        }
        let plain = raw(&martd, format, &query, "").body;
        assert!(!plain.ends_with(b"}}") && !plain.ends_with(ARROW_END), "{format}");
    }
    // Early enough, it is a problem like any other.
    let early = json!({"sql": late.replace("300000", "1000")});
    for (format, _) in FORMATS {
        let answer = raw(&martd, format, &early, "");
        assert!(answer.head.starts_with("http/1.1 400"), "{format}: {}", answer.head);
    }
}

#[test]
fn ten_million_rows_are_streamed_in_flat_memory() {
    const ROWS: u64 = 10_000_000;
    const MOST_KIB: u64 = 32 << 10;
    let (_root, martd) =
        martd_with(&[("MARTD_QUERY_TIMEOUT", "10m"), ("MARTD_MAX_RESULT", "10GiB")]);
    let sql = format!("SELECT i, i % 7 AS x FROM range({ROWS}) t(i)");
    let query = json!({"sql": sql, "limit": ROWS});
    // The first answers warm up DuckDB's and the allocator's pools.
    for (format, _) in FORMATS {
        raw(&martd, format, &json!({"sql": sql, "limit": 200_000}), "Accept-Encoding: zstd\r\n");
    }
    let before = resident_kib(&martd);
    for (format, accept) in [("csv", ""), ("arrow", ""), ("arrow", "Accept-Encoding: zstd\r\n")] {
        let mut reader = ask(&martd, format, &query, accept);
        block(&mut reader);
        // Nobody reads: martd must stop working, rather than collect the rest of the answer.
        wait_until_idle(&martd);
        let (mut peak, mut bytes, mut seen) = (resident_kib(&martd), 0_u64, 0);
        while let Some(chunk) = chunk(&mut reader).filter(|chunk| !chunk.is_empty()) {
            bytes += chunk.len() as u64;
            if bytes > seen {
                peak = peak.max(resident_kib(&martd));
                seen = bytes + (1 << 20);
            }
        }
        assert_eq!(block(&mut reader), "\r\n", "{format}: the answer is not whole");
        let grown = peak.saturating_sub(before);
        assert!(grown < MOST_KIB, "{format} {accept}: {grown} KiB more than {before} KiB");
        assert!(!accept.is_empty() || bytes > 8 * ROWS, "{format}: only {bytes} bytes");
    }
}

/// Waits until neither martd nor its engine has used the processor for a while.
fn wait_until_idle(martd: &Martd) {
    const LOOKS: u32 = 50;
    let (mut last, mut same) = (0, 0);
    wait_for("martd to wait for its client", || {
        let now = cpu_ticks(martd.pid()) + cpu_ticks(engine(martd.pid()));
        same = if now == last { same + 1 } else { 0 };
        last = now;
        (same == LOOKS).then_some(())
    });
}

/// Of martd and of its engine, which reads the rows and writes the formats.
fn resident_kib(martd: &Martd) -> u64 {
    (resident(martd.pid()) + resident(engine(martd.pid()))) >> 10
}

#[test]
fn every_type_is_right_in_every_format() {
    let root = Root::new();
    let kinds = include_str!("../formats/kinds.sql");
    Writer::new().land(&root, "kinds", kinds);
    let martd = Martd::start(root.path());
    martd.wait_ready();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = folder.join(".venv/bin/python");
    assert!(python.exists(), "Python's duckdb is not installed: run make .venv/ready");
    let output = Command::new(python)
        .arg(folder.join("tests/formats/check.py"))
        .arg(format!("http://{}", martd.address))
        .arg(root.mart("kinds.parquet"))
        .arg(seed().to_string())
        .output()
        .expect("Python runs");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains(" values compared, "), "{said}");
}

#[test]
fn a_type_without_a_form_says_what_to_cast() {
    let root = Root::new();
    let writer = Writer::new();
    writer.land(&root, "things", "SELECT 1 AS i, {'a': 1, 'b': ['x']}::VARIANT AS \"the v\"");
    let martd = Martd::start(root.path());
    martd.wait_ready();
    for (format, _) in FORMATS {
        for columns in
            ["*", "\"the v\"", "[\"the v\"] AS \"the v\"", "{'a': \"the v\"} AS \"the v\""]
        {
            let query = json!({"sql": format!("SELECT {columns} FROM mart.things")});
            let answer = raw(&martd, format, &query, "");
            assert!(answer.head.starts_with("http/1.1 400"), "{format}: {}", answer.head);
            let problem: Json = serde_json::from_slice(&answer.body).expect("a problem");
            assert_eq!(problem["type"], "urn:martd:problem:unsupported-type");
            assert_eq!(problem["title"], "A column has a type that must be cast");
            let detail = problem["detail"].as_str().expect("a detail");
            assert!(detail.contains("VARIANT, which column \"the v\" has"), "{detail}");
            // What it says to write is answered.
            let (_, advice) = detail.split_once("columns, ").expect("advice");
            let answer = martd.query(&format!("{advice} FROM mart.things"));
            assert_eq!(answer.rows(), json!([{"i": 1, "the v": r#"{"a":1,"b":["x"]}"#}]));
        }
    }
}

#[test]
fn a_geometry_is_well_known_binary() {
    let root = Root::new();
    let shapes = [
        "POINT(1 2)",
        "POINT Z(1 2 3)",
        "LINESTRING EMPTY",
        "POLYGON((0 0, 4 0, 4 4, 0 0), (1 1, 2 1, 2 2, 1 1))",
        "MULTIPOINT(1 2, 3 4)",
        "GEOMETRYCOLLECTION Z(POINT Z(1 2 3), MULTIPOLYGON Z(((0 0 1, 1 0 1, 1 1 1, 0 0 1))))",
    ];
    let rows = format!("('{}'), (NULL)", shapes.join("'), ('"));
    let select = format!("SELECT v::GEOMETRY AS g FROM (VALUES {rows}) t(v)");
    Writer::new().land(&root, "shapes", &select);
    let martd = Martd::start(root.path());
    martd.wait_ready();
    for format in ["json", "ndjson", "csv"] {
        let ask = |column: &str| {
            let sql = format!("SELECT {column} AS g FROM mart.shapes");
            let body = raw(&martd, format, &json!({"sql": sql}), "").body;
            String::from_utf8(body).expect("UTF-8")
        };
        let (geometry, binary) = (ask("g"), ask("ST_AsWKB(g)"));
        let rows = |body: &str| match format {
            "json" => serde_json::from_str::<Json>(body).expect("JSON")["data"].to_string(),
            _ => body.to_owned(),
        };
        assert_eq!(rows(&geometry), rows(&binary));
        assert!(geometry.contains("AQEAAAAAAAAAAADwPwAAAAAAAABA"), "{geometry}");
    }
    let nested = martd.query("SELECT [g, NULL] AS l FROM mart.shapes LIMIT 1");
    assert_eq!(nested.rows(), json!([{"l": ["AQEAAAAAAAAAAADwPwAAAAAAAABA", null]}]));
    assert_eq!(martd.query("SELECT g::VARCHAR FROM mart.shapes").value(), "POINT (1 2)");
    assert_eq!(martd.query("SELECT * FROM mart.shapes").json()["meta"][0]["type"], "GEOMETRY");
}
