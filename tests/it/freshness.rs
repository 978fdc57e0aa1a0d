//! How old marts may be, and what tells their age.

use std::fs::File;
use std::time::{Duration, SystemTime};

use serde_json::{Value as Json, json};

use crate::harness::{Martd, Root};
use crate::writers::{Project, Writer};

const MART: &str = "SELECT 1 AS x";

fn hours(count: u32) -> Json {
    json!({"count": count, "period": "hour"})
}

/// Makes a mart look as if it had been written this many hours ago.
fn age(root: &Root, name: &str, hours: u64) {
    let file = File::options().write(true).open(root.mart(&format!("{name}.parquet")));
    let time = SystemTime::now() - Duration::from_secs(hours * 3_600);
    file.and_then(|file| file.set_modified(time)).expect("utimensat");
}

/// The result of a mart in `/v1/freshness`.
fn result(martd: &Martd, name: &str) -> Json {
    let document = martd.get("/v1/freshness").json();
    let results = document["results"].as_array().expect("results");
    results.iter().find(|result| result["name"] == name).expect("the mart").clone()
}

fn status(martd: &Martd, name: &str) -> String {
    result(martd, name)["status"].as_str().expect("a status").to_owned()
}

/// Serves one build of marts, each with its rule.
fn served(marts: &[(&str, &str, Json)], settings: &[(&str, &str)]) -> (Root, Project, Martd) {
    let (root, writer, mut project) = (Root::new(), Writer::new(), Project::default());
    for (name, select, rule) in marts {
        writer.land_stamped(&root, name, select, Some("one"));
        project.built(name, "one");
        project.meta.insert((*name).to_owned(), json!({ "freshness": rule }));
    }
    project.write_ledger(&root, "one");
    let martd = Martd::start_with(root.path(), settings);
    martd.wait_ready();
    (root, project, martd)
}

#[test]
fn a_mart_without_a_rule_is_judged_by_the_default() {
    let own = json!({"warn_after": hours(100)});
    let marts = [("plain", MART, Json::Null), ("own", MART, own), ("late", MART, json!({}))];
    let settings = [("MARTD_MAX_AGE_WARN", "90m"), ("MARTD_MAX_AGE_ERROR", "48h")];
    let (root, _, martd) = served(&marts, &settings);
    assert_eq!(martd.get("/v1/freshness?strict").status, 200);
    for (name, hours) in [("plain", 2), ("own", 80), ("late", 80)] {
        age(&root, name, hours);
    }
    martd.wait_snapshot("the times", |_| status(&martd, "late") == "error");

    let plain = result(&martd, "plain");
    assert_eq!(plain["status"], "warn");
    let criteria = json!({
        "warn_after": {"count": 90, "period": "minute"},
        "error_after": {"count": 2, "period": "day"},
    });
    assert_eq!(plain["criteria"], criteria);
    assert_eq!(status(&martd, "own"), "pass");
    let strict = martd.get("/v1/freshness?strict");
    assert_eq!((strict.status, &strict.json()["status"]), (503, &"error".into()));
}

#[test]
fn a_loaded_at_column_counts_over_the_files_time() {
    let rule = |field: &str| json!({"loaded_at_field": field, "warn_after": hours(1), "error_after": hours(48)});
    let fresh = "SELECT now()::TIMESTAMP AS at";
    let marts = [
        ("dead", "SELECT '2020-01-01'::DATE AS at", rule("at")),
        ("fresh", fresh, rule("AT")),
        ("empty", "SELECT NULL::TIMESTAMP AS at, NULL AS x", rule("at")),
        ("missing", fresh, rule("loaded")),
        ("text", "SELECT 'today' AS at", rule("at")),
        ("future", "SELECT '2999-01-01'::TIMESTAMPTZ AS at", rule("at")),
        ("ahead", "SELECT now()::TIMESTAMP + INTERVAL 5 HOUR AS at", rule("at")),
    ];
    let (root, mut project, martd) = served(&marts, &[]);

    // The file was written a moment ago, from a source that died years ago.
    let dead = result(&martd, "dead");
    assert_eq!(dead["status"], "error");
    assert_eq!(
        (&dead["max_loaded_at"], &dead["loaded_at_field"]),
        (&"2020-01-01T00:00:00Z".into(), &"at".into())
    );
    assert_eq!(dead["problem"], Json::Null);
    for name in ["fresh", "ahead"] {
        assert_eq!(
            (status(&martd, name).as_str(), &result(&martd, name)["problem"]),
            ("pass", &Json::Null)
        );
    }
    let empty = result(&martd, "empty");
    assert_eq!((&empty["rows"], &empty["status"]), (&0.into(), &"error".into()));
    assert_eq!(
        (&empty["max_loaded_at"], &empty["max_loaded_at_time_ago_in_s"]),
        (&Json::Null, &Json::Null)
    );
    for (name, expected) in [
        ("empty", "no row has a value in at"),
        ("missing", "the mart has no column loaded; this is the file's time"),
        ("text", "column at is VARCHAR, neither a date nor a timestamp"),
        ("future", "the newest value of at lies in the future"),
    ] {
        let result = result(&martd, name);
        assert!(result["problem"].as_str().is_some_and(|text| text.contains(expected)), "{result}");
        let expected = if name == "empty" { "error" } else { "warn" };
        assert_eq!(result["status"], expected, "{result}");
    }

    // Another rule alone makes another snapshot, with what the other column says.
    project.meta.insert("dead".to_owned(), json!({"freshness": {"loaded_at_field": "gone"}}));
    project.write_ledger(&root, "two");
    martd.wait_snapshot("the second ledger", |s| s["build"]["invocation_id"] == "two");
    assert_eq!(status(&martd, "dead"), "warn");
    assert!(result(&martd, "dead")["problem"].as_str().is_some_and(|text| text.contains("gone")));
}

#[test]
fn a_bad_freshness_rule_is_its_marts_problem_alone() {
    let broken = json!({
        "warn_after": {"count": "twelve", "period": "hour"}, "error_after": hours(1),
    });
    let marts = [("a", MART, broken), ("b", MART, json!("daily")), ("c", MART, Json::Null)];
    let (root, _, martd) = served(&marts, &[("MARTD_MAX_AGE_ERROR", "1h")]);

    assert_eq!(martd.snapshot()["build"]["invocation_id"], "one");
    assert_eq!(martd.snapshot()["rejected"], json!([]));
    for (name, expected) in [
        ("a", "meta.freshness.warn_after must be as {count: 12, period: hour}"),
        ("b", "meta.freshness must be an object"),
    ] {
        let result = result(&martd, name);
        assert_eq!(result["status"], "warn", "{result}");
        assert!(result["problem"].as_str().is_some_and(|text| text.contains(expected)), "{result}");
        assert_eq!(result["criteria"]["error_after"], hours(1));
    }
    assert_eq!(status(&martd, "c"), "pass");
    assert_eq!(martd.get("/v1/freshness").json()["status"], "warn");
    let command = std::process::Command::new(crate::harness::program())
        .args(["freshness", "--server", &martd.address])
        .output()
        .expect("martd runs");
    let text = String::from_utf8_lossy(&command.stdout);
    assert!(text.contains("\nb: meta.freshness must be an object\n"), "{text}");
    age(&root, "a", 2);
    martd.wait_snapshot("the old file", |_| status(&martd, "a") == "error");
}

#[test]
fn a_file_from_the_future_is_not_simply_fresh() {
    let rule = json!({"warn_after": hours(1), "error_after": hours(2)});
    let marts = [("ahead", MART, rule.clone()), ("skewed", MART, rule)];
    let (root, _, martd) = served(&marts, &[]);
    let write = |name: &str, ahead: u64| {
        let file = File::options().write(true).open(root.mart(&format!("{name}.parquet")));
        let time = SystemTime::now() + Duration::from_secs(ahead);
        file.and_then(|file| file.set_modified(time)).expect("utimensat");
    };
    write("ahead", 30 * 86_400);
    write("skewed", 60); // as far as two clocks may differ
    martd.wait_snapshot("the times", |_| status(&martd, "ahead") == "warn");
    let problem = result(&martd, "ahead")["problem"].as_str().expect("a problem").to_owned();
    assert!(problem.contains("lies in the future"), "{problem}");
    assert_eq!(
        (status(&martd, "skewed"), &result(&martd, "skewed")["problem"]),
        ("pass".to_owned(), &Json::Null)
    );
    assert_eq!(martd.get("/v1/freshness").json()["status"], "warn");
}
