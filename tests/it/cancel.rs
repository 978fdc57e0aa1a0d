//! Cancelling is real: the statement stops, its slot is free, and the next user is untouched.

use std::io::Read;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::{Martd, Root, wait_for};
use crate::metrics::Scrape;
use crate::proc::{cpu_ticks, engine};
use crate::writers::{Writer, serving};

/// Each would run for minutes.
const ENDLESS: [&str; 4] = [
    "SELECT count(*) FROM range(1000000000) a, range(1000000000) b",
    "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r) SELECT max(n) FROM r",
    "SELECT sum(hash(a.i, b.i)) FROM range(100000000) a(i) JOIN range(100000000) b(i) ON a.i % 7 = b.i % 7",
    "SELECT * FROM range(1000000000000) t(i) WHERE hash(i) = 42",
];

/// Needs a slot each time: its answer is not kept.
const UNKEPT: &str = "SELECT x + random() AS x FROM mart.a";

fn martd() -> (Root, Martd) {
    serving("a", "SELECT 1 AS x", &[("MARTD_QUERIES", "1"), ("MARTD_QUEUE", "1")])
}

/// The one slot is free again and the engine idles.
fn assert_stopped(martd: &Martd, how: &str) {
    wait_for(&format!("the slot after {how}"), || {
        (martd.query(UNKEPT).status == 200).then_some(())
    });
    let answered = Instant::now();
    let idle = wait_for(&format!("an idle processor after {how}"), || {
        let (since, engine) = (answered.elapsed(), engine(martd.pid()));
        let before = cpu_ticks(engine);
        thread::sleep(Duration::from_millis(200));
        (cpu_ticks(engine) - before <= 2).then_some(since)
    });
    println!("idle {} ms after the next answer: {how}", idle.as_millis());
}

#[test]
fn a_timeout_stops_the_statement() {
    let (_root, martd) = martd();
    for sql in ENDLESS {
        let answer = martd.post(&json!({"sql": sql, "timeout_ms": 100}));
        assert_eq!((answer.status, answer.problem().0.as_str()), (504, "query-timeout"), "{sql}");
        assert_stopped(&martd, sql);
    }
}

#[test]
fn a_client_that_leaves_stops_the_statement() {
    let (_root, martd) = martd();
    for sql in ENDLESS {
        let connection = martd.post_unread(&json!({ "sql": sql }));
        wait_for("the query to run", || {
            (Scrape::of(&martd).value("martd_queries_in_flight") == 1.0).then_some(())
        });
        drop(connection);
        assert_stopped(&martd, sql);
    }
}

#[test]
fn delete_stops_the_statement_and_tells_its_client() {
    let (_root, martd) = martd();
    for sql in ENDLESS {
        thread::scope(|scope| {
            let client = scope.spawn(|| {
                martd.post_with(&json!({ "sql": sql }), &[("x-request-id", "the-slow-one")])
            });
            wait_for("the cancellation", || {
                let answer = martd.delete_with("/v1/queries/the-slow-one", &[]);
                (answer.status == 204).then_some(())
            });
            let answer = client.join().expect("an answer");
            assert_eq!(answer.status, 504);
            assert!(answer.problem().1.contains("cancelled"), "{answer:?}");
        });
        assert_stopped(&martd, sql);
    }
    let answer = martd.delete_with("/v1/queries/the-slow-one", &[]);
    assert_eq!((answer.status, answer.problem().0.as_str()), (404, "not-found"));
}

/// Nothing in DuckDB looks at an interrupt while it writes a large number down, for ten seconds here.
#[test]
fn a_statement_that_does_not_stop_costs_its_engine() {
    let (_root, martd) = martd();
    let before = engine(martd.pid());
    let sql = "SELECT length((repeat('9', 330000 * x)::BIGNUM)::VARCHAR) FROM mart.a";
    let answer = martd.post(&json!({"sql": sql, "timeout_ms": 100}));
    assert_eq!(answer.problem().0, "query-timeout", "the client is answered all the same");
    assert_eq!(martd.get("/livez").status, 200);
    let scrape = Scrape::of(&martd);
    assert_eq!(scrape.value("martd_queries_in_flight"), 1.0, "the slot is not given away");
    assert_eq!(martd.query(UNKEPT).status, 200, "whoever waits for it gets it");
    let line = martd.wait_log("the engine is replaced");
    assert_eq!(line["reason"], "wedged");
    wait_for("the end of the engine", || (engine(martd.pid()) != before).then_some(()));
    let wedged = "martd_engine_starts_total{reason=\"wedged\"}";
    assert_eq!(Scrape::of(&martd).value(wedged), 1.0);
    assert_eq!(martd.get("/livez").status, 200);
    assert_stopped(&martd, sql);
}

#[test]
fn a_stream_that_nobody_reads_on_is_stopped() {
    let (_root, martd) = martd();
    let sql = "SELECT i, repeat('x', 1000) AS x FROM range(5000000) t(i)";
    let mut connection = martd.post_unread(&json!({"sql": sql, "limit": 5_000_000}));
    let mut start = [0; 4096];
    connection.read_exact(&mut start).expect("the beginning");
    assert!(start.starts_with(b"HTTP/1.1 200 OK"));
    drop(connection);
    assert_stopped(&martd, "a broken stream");
}

#[test]
fn nobody_cancels_the_query_of_another_token() {
    let tokens = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(tokens.path(), "token-of-anna\ntoken-of-bert\n").expect("write");
    let root = Root::new();
    Writer::new().land(&root, "a", "SELECT 1 AS x");
    let file = tokens.path().to_str().expect("UTF-8");
    let settings = [("MARTD_TOKEN_FILE", file), ("MARTD_QUERIES", "1")];
    let martd = Martd::start_with(root.path(), &settings);
    let (anna, bert) =
        (("authorization", "Bearer token-of-anna"), ("authorization", "Bearer token-of-bert"));
    wait_for("a snapshot", || (martd.get("/readyz").status == 200).then_some(()));
    thread::scope(|scope| {
        let client = scope.spawn(|| {
            let body = json!({ "sql": ENDLESS[0] });
            martd.post_with(&body, &[("x-request-id", "annas"), anna])
        });
        let delete = |caller| martd.delete_with("/v1/queries/annas", &[caller]);
        wait_for("the query to run", || {
            let running = Scrape::with(&martd, &[bert]).value("martd_queries_in_flight");
            (running == 1.0).then_some(())
        });
        let answer = delete(bert);
        assert_eq!((answer.status, answer.problem().0.as_str()), (404, "not-found"));
        assert_eq!(delete(anna).status, 204);
        assert!(client.join().expect("an answer").problem().1.contains("cancelled"));
    });
}

#[test]
fn a_cancel_leaves_another_client_of_the_same_query() {
    let (_root, martd) = martd();
    let sql = "SELECT count(*) AS n FROM range(3000) a(i), range(3000) b(i), range(30) WHERE a.i * b.i % 7 = 3";
    thread::scope(|scope| {
        let ask =
            |id: &'static str| martd.post_with(&json!({ "sql": sql }), &[("x-request-id", id)]);
        let first = scope.spawn(move || ask("first"));
        let second = scope.spawn(move || ask("second"));
        wait_for("the cancellation", || {
            (martd.delete_with("/v1/queries/first", &[]).status == 204).then_some(())
        });
        assert_eq!(first.join().expect("an answer").status, 504);
        assert_eq!(second.join().expect("an answer").status, 200);
    });
}
