//! The log: a line for each answer and each snapshot, and nothing in it that is nobody's business.

use serde_json::{Value as Json, json};

use crate::harness::{Martd, Root, wait_for};
use crate::writers::{Writer, serving};

/// The line of the answer to the request with this id.
fn line_of(martd: &Martd, id: &str) -> Json {
    wait_for("the answer's line", || {
        martd
            .log()
            .into_iter()
            .find(|line| line["span"]["id"] == id && line["target"] == "martd::http::exchange")
    })
}

#[test]
fn an_answer_is_logged_with_its_size_and_times() {
    let root = Root::new();
    Writer::new().land(&root, "a", "SELECT i AS x FROM range(50000) t(i)");
    let martd = Martd::start(root.path());
    let snapshot = martd.wait_ready();
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let ask = |id: &str, limit: u64| {
        let body = json!({
            "sql": "SELECT x, $secret AS s FROM mart.a", "params": {"secret": "hunter2"},
            "limit": limit,
        });
        martd.post_with(&body, &[("x-request-id", id), ("traceparent", trace)])
    };
    let small = ask("small", 7);
    let large = ask("large", 40_000);
    let again = ask("again", 7);
    assert_eq!(again.header("cache-status"), "martd; hit");
    for (id, rows, bytes) in [
        ("small", 7, small.body.len()),
        ("large", 40_000, large.body.len()),
        ("again", 7, again.body.len()),
    ] {
        let line = line_of(&martd, id);
        assert_eq!(line["message"], "answered", "{line}");
        assert_eq!(line["status"], 200, "{line}");
        assert_eq!(line["snapshot"], snapshot["id"], "{line}");
        assert_eq!((&line["rows"], &line["bytes"]), (&json!(rows), &json!(bytes)), "{line}");
        assert_eq!(line["statement"].as_str().expect("a hash").len(), 16, "{line}");
        assert_eq!(line["span"]["trace_id"], "4bf92f3577b34da6a3ce929d0e0e4736", "{line}");
        assert_eq!(line["span"]["parent_id"], "00f067aa0ba902b7", "{line}");
        let time = |key: &str| line[key].as_f64().unwrap_or_else(|| panic!("no {key}: {line}"));
        assert!(time("head_ms") <= time("ms") && time("queue_ms") >= 0.0, "{line}");
        assert!(line["sql"].is_null(), "{line}");
    }
    assert_eq!(line_of(&martd, "small")["statement"], line_of(&martd, "large")["statement"]);
    martd.post_with(&json!({"sql": "SELECT nonsense"}), &[("x-request-id", "wrong")]);
    let wrong = line_of(&martd, "wrong");
    assert_eq!((&wrong["status"], wrong["statement"].is_string()), (&json!(400), true), "{wrong}");
    let all = martd.log().iter().map(Json::to_string).collect::<String>();
    assert!(!all.contains("hunter2") && !all.contains("nonsense"), "{all}");
}

#[test]
fn statements_are_logged_if_asked_parameters_never() {
    let (_root, martd) = serving("a", "SELECT 1 AS x", &[("MARTD_LOG_SQL", "on")]);
    let body = json!({"sql": "SELECT x FROM mart.a WHERE 'a' <> $s", "params": {"s": "hunter2"}});
    martd.post_with(&body, &[("x-request-id", "q1")]);
    assert_eq!(line_of(&martd, "q1")["sql"], "SELECT x FROM mart.a WHERE 'a' <> $s");
    let all = martd.log().iter().map(Json::to_string).collect::<String>();
    assert!(!all.contains("hunter2"), "{all}");
}

#[test]
fn a_snapshot_is_logged_with_what_it_changes() {
    let root = Root::new();
    let writer = Writer::new();
    writer.land(&root, "a", "SELECT 1 AS x, 2 AS y");
    writer.land(&root, "b", "SELECT 1 AS x");
    let martd = Martd::start(root.path());
    martd.wait_snapshot("both", |snapshot| {
        snapshot["marts"].as_array().is_some_and(|m| m.len() == 2)
    });
    writer.land(&root, "a", "SELECT 1::BIGINT AS x, 'z' AS z");
    let line = wait_for("the line", || {
        martd.log().into_iter().find(|line| {
            line["message"] == "published"
                && line["columns"].as_str().is_some_and(|c| !c.is_empty())
        })
    });
    assert_eq!(line["changed"], "a", "{line}");
    assert_eq!(line["columns"], "-a.y INTEGER, a.x INTEGER -> BIGINT, +a.z VARCHAR", "{line}");
}

#[test]
fn probes_and_scrapes_are_logged_at_debug() {
    let root = Root::new();
    let martd = Martd::start(root.path());
    for path in ["/readyz", "/livez", "/metrics", "/v1/snapshot"] {
        martd.get(path);
        let line =
            wait_for("the line", || martd.log().into_iter().find(|line| line["path"] == path));
        let level = if path == "/v1/snapshot" { "INFO" } else { "DEBUG" };
        assert_eq!(line["level"], level, "{line}");
    }
}
