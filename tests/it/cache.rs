//! Answers are kept exactly as long as they are true.

use std::thread;

use serde_json::json;

use crate::harness::{Answer, Martd, Root};
use crate::writers::Writer;

const COUNT: &str = "/v1/query?sql=SELECT+count(*)+AS+n+FROM+mart.a";

fn martd(settings: &[(&str, &str)]) -> (Root, Writer, Martd) {
    let (root, writer) = (Root::new(), Writer::new());
    writer.land(&root, "a", "SELECT i AS x, 'u' || i % 2 AS u FROM range(10) t(i)");
    let martd = Martd::start_with(root.path(), settings);
    martd.wait_ready();
    (root, writer, martd)
}

fn cache_status(answer: &Answer) -> &str {
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.header("cache-status")
}

#[test]
fn a_repeated_query_is_answered_from_the_cache() {
    let (root, writer, martd) = martd(&[]);
    let first = martd.get(COUNT);
    assert_eq!((cache_status(&first), first.value()), ("martd; fwd=miss", json!(10)));
    let second = martd.get(COUNT);
    assert_eq!(cache_status(&second), "martd; hit");
    assert_eq!(second.body, first.body, "the very bytes, the elapsed time included");
    assert_eq!(second.header("etag"), first.header("etag"));
    // The same question by POST is the same question.
    assert_eq!(cache_status(&martd.query("SELECT count(*) AS n FROM mart.a")), "martd; hit");

    writer.land(&root, "a", "SELECT 1 AS x");
    martd.wait_snapshot("the new snapshot", |s| s["generation"] == 2);
    let third = martd.get(COUNT);
    assert_eq!((cache_status(&third), third.value()), ("martd; fwd=miss", json!(1)));
    assert_ne!(third.header("etag"), first.header("etag"));
    // The replaced snapshot's answer is still true of that snapshot.
    let of_first = [("martd-snapshot", first.header("martd-snapshot"))];
    assert_eq!(cache_status(&martd.get_with(COUNT, &of_first)), "martd; hit");
}

#[test]
fn a_tag_that_still_holds_is_answered_with_304() {
    let (_root, _writer, martd) = martd(&[]);
    let etag = martd.get(COUNT).header("etag").to_owned();
    assert!(etag.starts_with("W/\""), "{etag}");
    for known in [etag.as_str(), &format!("\"x\", {etag}")] {
        let answer = martd.get_with(COUNT, &[("if-none-match", known)]);
        assert_eq!((answer.status, answer.body.as_str()), (304, ""), "{known}");
        assert_eq!(answer.header("etag"), etag);
        assert!(answer.header("vary").contains("Martd-Scope"));
    }
    assert_eq!(martd.get_with(COUNT, &[("if-none-match", "\"x\"")]).status, 200);
}

#[test]
fn the_cache_key_has_all_that_an_answer_depends_on() {
    let (_root, _writer, martd) = martd(&[]);
    let tag = |body: serde_json::Value| martd.post(&body).header("etag").to_owned();
    let sql = "SELECT x FROM mart.a WHERE x > $1";
    let with = |name, value| {
        let body = json!({"sql": sql, "params": [1]});
        martd.post_with(&body, &[(name, value)]).header("etag").to_owned()
    };
    let tags = [
        tag(json!({"sql": sql, "params": [1]})),
        tag(json!({"sql": sql, "params": [2]})),
        tag(json!({"sql": sql, "params": [1.0]})),
        tag(json!({"sql": sql, "params": ["1"]})),
        tag(json!({"sql": sql, "params": [1], "limit": 3})),
        tag(json!({"sql": format!("{sql} "), "params": [1]})),
        with("accept", "text/csv"),
        with("accept", "application/x-ndjson"),
        with("accept-encoding", "zstd"),
        with("accept-encoding", "gzip"),
    ];
    for (index, one) in tags.iter().enumerate() {
        assert!(!one.is_empty() && !tags[..index].contains(one), "{tags:?}");
    }
}

#[test]
fn what_may_differ_the_next_time_is_not_kept() {
    let (_root, _writer, martd) = martd(&[]);
    for sql in [
        "SELECT random()",
        "SELECT now()",
        "SELECT uuid()",
        "SELECT CURRENT_DATE",
        "SELECT current_timestamp",
        "SELECT age(TIMESTAMP '2020-01-01')",
        "SELECT * FROM mart.a USING SAMPLE 3",
        "SELECT * FROM mart.a TABLESAMPLE 10%",
    ] {
        for _ in 0..2 {
            let answer = martd.query(sql);
            assert_eq!(cache_status(&answer), "", "{sql}");
            assert_eq!((answer.header("etag"), answer.header("cache-control")), ("", "no-store"));
        }
    }
}

#[test]
fn identical_queries_under_way_run_once() {
    let (_root, _writer, martd) = martd(&[("MARTD_QUERIES", "1"), ("MARTD_QUEUE", "0")]);
    // With one slot and no queue, every query but the first would be refused if it ran by itself.
    let slow = "SELECT count(*) FROM range(3000) a(i), range(3000) b(i), range(20) WHERE a.i * b.i % 7 = 3";
    let answers: Vec<Answer> = thread::scope(|scope| {
        let clients: Vec<_> = (0..8).map(|_| scope.spawn(|| martd.query(slow))).collect();
        clients.into_iter().map(|client| client.join().expect("an answer")).collect()
    });
    let first = answers[0].value();
    assert!(answers.iter().all(|answer| answer.value() == first));
    let ran = answers.iter().filter(|a| cache_status(a) == "martd; fwd=miss").count();
    assert_eq!(ran, 1, "{:?}", answers.iter().map(cache_status).collect::<Vec<_>>());
}

#[test]
fn the_cache_can_be_turned_off() {
    let (_root, _writer, martd) = martd(&[("MARTD_CACHE", "0")]);
    for _ in 0..2 {
        assert_eq!(cache_status(&martd.get(COUNT)), "martd; fwd=miss");
    }
}

#[test]
fn answers_are_never_shared_across_scopes() {
    let (_root, _writer, martd) = martd(&[("MARTD_SCOPE_COLUMN", "u")]);
    let ask = |scope: &str| martd.get_with(COUNT, &[("martd-scope", scope)]);
    let (first, second) = (ask("u=u0"), ask("u=nobody"));
    assert_eq!((first.value(), second.value()), (json!(5), json!(0)));
    assert_ne!(first.header("etag"), second.header("etag"));
    let known = [("martd-scope", "u=nobody"), ("if-none-match", first.header("etag"))];
    assert_eq!(martd.get_with(COUNT, &known).status, 200);
    assert_eq!(cache_status(&ask("u=u0")), "martd; hit");
}
