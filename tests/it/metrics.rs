//! `/metrics`: each event is caused, and seen to be counted.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use serde_json::{Value as Json, json};

use crate::harness::{Martd, Root, wait_for};
use crate::writers::{Project, Writer, put};

const ENDLESS: &str = "SELECT count(*) FROM range(1000000000) a, range(1000000000) b";
const OPEN_METRICS: &str = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;q=0.3";

/// What was scraped: values by name and labels, as in the text.
#[derive(Debug)]
pub struct Scrape(BTreeMap<String, f64>);

impl Scrape {
    pub fn of(martd: &Martd) -> Self {
        Self::with(martd, &[])
    }

    /// The same where a token is asked for.
    pub fn with(martd: &Martd, headers: &[(&str, &str)]) -> Self {
        let answer = martd.get_with("/metrics", headers);
        assert_eq!(answer.status, 200, "{answer:?}");
        let lines = answer.body.lines().filter(|line| !line.starts_with('#'));
        let samples = lines.map(|line| {
            let (series, value) = line.rsplit_once(' ').expect("a sample");
            (series.to_owned(), value.parse().expect("a number"))
        });
        Self(samples.collect())
    }

    pub fn get(&self, series: &str) -> Option<f64> {
        self.0.get(series).copied()
    }

    pub fn value(&self, series: &str) -> f64 {
        self.get(series).unwrap_or_else(|| panic!("no {series} in {self:#?}"))
    }

    /// The names of all series.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(|series| series.split('{').next().unwrap_or_default())
    }
}

/// Waits until a series has this value.
fn wait_value(martd: &Martd, series: &str, value: f64) {
    wait_for(&format!("{series} {value}"), || {
        (Scrape::of(martd).get(series) == Some(value)).then_some(())
    });
}

/// How much a series grows by what is done.
fn growth<T>(martd: &Martd, series: &str, action: impl FnOnce() -> T) -> f64 {
    let before = Scrape::of(martd).value(series);
    action();
    Scrape::of(martd).value(series) - before
}

/// The samples as Prometheus's own parser reads them.
fn parsed(text: &str, format: &str) -> Vec<Json> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut parser = Command::new(root.join(".venv/bin/python"))
        .arg(root.join("tests/ops/parse.py"))
        .arg(format)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("run make .venv/ready");
    parser.stdin.take().expect("piped").write_all(text.as_bytes()).expect("write");
    let output = parser.wait_with_output().expect("the parser runs");
    assert!(output.status.success(), "it does not parse:\n{text}");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

#[test]
fn both_metrics_formats_survive_any_mart_name() {
    let (root, writer) = (Root::new(), Writer::new());
    let names = ["plain", "Äpfel und \"Birnen\"", "back\\slash", "two\nlines", "a{b=\"c\"} 1"];
    for name in names {
        put(root.mart(&format!("{name}.parquet")), &writer.parquet("SELECT 1 AS x", None));
    }
    let martd = Martd::start(root.path());
    martd.wait_snapshot("the marts", |s| s["marts"].as_array().is_some_and(|m| m.len() == 5));
    martd.query("SELECT 1 FROM mart.plain").rows();

    let text = martd.get("/metrics");
    assert_eq!(text.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    let open_metrics = martd.get_with("/metrics", &[("accept", OPEN_METRICS)]);
    let expected = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    assert_eq!(open_metrics.header("content-type"), expected);
    assert!(open_metrics.body.ends_with("# EOF\n"));

    let rows = |samples: &[Json]| -> BTreeMap<String, f64> {
        let rows = samples.iter().filter(|sample| sample["name"] == "martd_mart_rows");
        rows.map(|s| {
            (
                s["labels"]["mart"].as_str().expect("a mart").to_owned(),
                s["value"].as_f64().expect("a number"),
            )
        })
        .collect()
    };
    let (text, open_metrics) =
        (parsed(&text.body, "text"), parsed(&open_metrics.body, "openmetrics"));
    assert_eq!(rows(&text), names.map(|name| (name.to_owned(), 1.0)).into());
    assert_eq!(rows(&open_metrics), rows(&text));
    let series = |samples: &[Json]| -> Vec<String> {
        let series =
            samples.iter().map(|sample| format!("{} {}", sample["name"], sample["labels"]));
        let mut series: Vec<_> = series.filter(|series| !series.contains("metrics")).collect();
        series.sort_unstable();
        series
    };
    assert_eq!(series(&text), series(&open_metrics));
    for sample in &text {
        let name = sample["name"].as_str().expect("a name");
        let counter = sample["type"] == "counter";
        assert_eq!(counter, name.ends_with("_total"), "{sample}");
        // Ages are left to whoever asks, but for that of an engine, which is there or not.
        let is_age = name.contains("_age") && name != "martd_engine_age_seconds";
        assert!(!is_age && !name.contains("_ms"), "{sample}");
        assert_ne!(sample["type"], "unknown", "{sample}");
    }
}

#[test]
fn metrics_count_publishes_and_forget_dropped_marts() {
    let (root, writer, mut project) = (Root::new(), Writer::new(), Project::default());
    writer.land(&root, "a", "SELECT 1 AS x FROM range(7)");
    writer.land(&root, "b", "SELECT 1 AS x");
    let martd = Martd::start(root.path());
    wait_value(&martd, "martd_marts", 2.0);
    let first = Scrape::of(&martd);
    assert_eq!(first.value("martd_mart_rows{mart=\"a\"}"), 7.0);
    let size = std::fs::metadata(root.mart("a.parquet")).expect("stat").len();
    assert_eq!(first.value("martd_mart_bytes{mart=\"a\"}"), size as f64);
    let now = jiff::Timestamp::now().as_second() as f64;
    for time in [
        "martd_mart_last_refresh_timestamp_seconds{mart=\"a\"}",
        "martd_mart_loaded_timestamp_seconds{mart=\"a\"}",
        "martd_snapshot_published_timestamp_seconds",
        "process_start_time_seconds",
    ] {
        assert!((now - first.value(time)).abs() < 600.0, "{time} is {}", first.value(time));
    }
    assert_eq!(first.value("martd_ready"), 1.0);
    assert_eq!(first.value("martd_watch_mode{mode=\"inotify\"}"), 1.0);
    assert_eq!(first.value("martd_watch_mode{mode=\"poll\"}"), 0.0);
    assert!(first.value("martd_pins") >= 2.0);
    assert!(first.value("martd_pinned_bytes") >= size as f64);
    assert!(first.value("martd_scans_total{reason=\"timer\"}") >= 1.0);

    // A change is seen by an event, published, and its delay measured.
    let generation = first.value("martd_snapshot_generation");
    let visible = first.value("martd_replace_to_visible_seconds_count");
    writer.land(&root, "a", "SELECT 1 AS x FROM range(8)");
    wait_value(&martd, "martd_mart_rows{mart=\"a\"}", 8.0);
    let second = Scrape::of(&martd);
    assert_eq!(second.value("martd_snapshot_generation"), generation + 1.0);
    assert_eq!(second.value("martd_publishes_total"), first.value("martd_publishes_total") + 1.0);
    assert_eq!(second.value("martd_replace_to_visible_seconds_count"), visible + 1.0);
    let events = "martd_scans_total{reason=\"event\"}";
    assert!(second.value(events) > first.value(events));
    assert_eq!(
        second.value("martd_snapshots_live"),
        second.value("martd_snapshots_retained") + 1.0
    );

    // A mart that goes takes its series along.
    std::fs::remove_file(root.mart("b.parquet")).expect("remove");
    wait_value(&martd, "martd_marts", 1.0);
    let third = Scrape::of(&martd);
    assert!(third.0.keys().all(|series| !series.contains("mart=\"b\"")), "{third:#?}");

    // Damage, a half-written file, and a hold.
    put(root.mart("half.parquet"), b"PAR1");
    wait_value(&martd, "martd_landing_files", 1.0);
    std::fs::remove_file(root.mart("half.parquet")).expect("remove");
    put(root.mart("_build.json"), b"{");
    wait_value(&martd, "martd_rejected_files", 1.0);
    assert_eq!(Scrape::of(&martd).value("martd_build_held"), 0.0);
    project.built("a", "one");
    project.failed("test.finance.t");
    project.write_ledger(&root, "one");
    project.outstanding.push(json!({
        "unique_id": "model.finance.b", "message": "skipped", "since": "2026-01-01T00:00:00Z",
    }));
    project.write_ledger(&root, "one");
    wait_value(&martd, "martd_outstanding_nodes{kind=\"skipped\"}", 1.0);
    let held = Scrape::of(&martd);
    assert_eq!(held.value("martd_build_held"), 1.0);
    assert_eq!(held.value("martd_outstanding_nodes{kind=\"failed\"}"), 1.0);
    assert_eq!(held.value("martd_outstanding_nodes{kind=\"untested\"}"), 0.0);
    assert_eq!(held.value("martd_pending_files"), 1.0);
    assert!(now - held.value("martd_build_held_since_timestamp_seconds") < 600.0);
    project.outstanding.clear();
    writer.land_stamped(&root, "a", "SELECT 1 AS x", Some("two"));
    project.built("a", "two");
    project.meta.insert("a".to_owned(), json!({"freshness": {"loaded_at_field": "x"}}));
    project.write_ledger(&root, "two");
    wait_value(&martd, "martd_mart_freshness_status{mart=\"a\"}", 1.0);
    let healed = Scrape::of(&martd);
    assert_eq!(healed.get("martd_build_held_since_timestamp_seconds"), None);
    assert!(healed.value("martd_served_build_finished_timestamp_seconds") > now - 600.0);
    assert_eq!(healed.value("martd_build_held"), 0.0);
    assert_eq!(healed.value("martd_freshness_status"), 1.0);
}

#[test]
fn every_way_in_which_a_query_ends_is_counted() {
    let root = Root::new();
    Writer::new().land(&root, "a", "SELECT i AS x FROM range(100000) t(i)");
    let settings = [("MARTD_QUERIES", "1"), ("MARTD_QUEUE", "0")];
    let martd = Martd::start_with(root.path(), &settings);
    martd.wait_ready();
    let ended = |outcome: &str, format: &str| {
        format!("martd_queries_total{{outcome=\"{outcome}\",format=\"{format}\"}}")
    };
    let sql = "SELECT x FROM mart.a";
    let cache = |result: &str| format!("martd_cache_requests_total{{result=\"{result}\"}}");

    let before = Scrape::of(&martd);
    let answer = martd.query(sql);
    let after = Scrape::of(&martd);
    let grown = |series: &str| after.value(series) - before.get(series).unwrap_or(0.0);
    assert_eq!(grown(&ended("ok", "json")), 1.0);
    assert_eq!(grown("martd_query_rows_total"), 10_000.0);
    assert_eq!(grown("martd_query_bytes_total"), answer.body.len() as f64);
    assert_eq!(grown("martd_query_duration_seconds_count"), 1.0);
    assert_eq!(grown("martd_query_queue_wait_seconds_count"), 1.0);
    assert_eq!(grown(&cache("miss")), 1.0);
    assert!(after.value("martd_cache_bytes") >= answer.body.len() as f64);
    assert_eq!(grown("martd_http_responses_total{route=\"metrics\",code=\"200\"}"), 1.0);

    assert_eq!(growth(&martd, &cache("hit"), || martd.query(sql)), 1.0);
    assert_eq!(growth(&martd, "martd_query_rows_total", || martd.query(sql)), 10_000.0);
    assert_eq!(growth(&martd, &cache("bypass"), || martd.query("SELECT random()")), 1.0);
    let path = "/v1/query?sql=SELECT+x+FROM+mart.a";
    let etag = martd.get(path).header("etag").to_owned();
    let again = || martd.get_with(path, &[("if-none-match", &etag)]);
    assert_eq!(growth(&martd, &cache("revalidated"), again), 1.0);

    // A stream: every row and byte of it, and that it ended well.
    let rows = growth(&martd, "martd_query_rows_total", || {
        let body = json!({"sql": sql, "limit": 100_000});
        assert_eq!(martd.post_with(&body, &[("accept", "text/csv")]).status, 200);
    });
    assert_eq!(rows, 100_000.0);
    wait_value(&martd, &ended("ok", "csv"), 1.0);

    let wrong = json!({"sql": "SELECT nope", "limit": 1});
    assert_eq!(growth(&martd, &ended("refused", "json"), || martd.post(&wrong)), 1.0);
    let problem = "martd_problems_total{type=\"sql-error\"}";
    assert_eq!(growth(&martd, problem, || martd.post(&wrong)), 1.0);
    let unheard = || martd.post_with(&wrong, &[("accept", "image/png")]);
    assert_eq!(growth(&martd, &ended("refused", "none"), unheard), 1.0);
    let slow = json!({"sql": ENDLESS, "timeout_ms": 50});
    assert_eq!(growth(&martd, &ended("timeout", "json"), || martd.post(&slow)), 1.0);
    wait_value(&martd, "martd_queries_in_flight", 0.0);

    // One that runs, one that is turned away, and the first is cancelled.
    std::thread::scope(|scope| {
        let running = scope
            .spawn(|| martd.post_with(&json!({"sql": ENDLESS}), &[("x-request-id", "endless")]));
        wait_value(&martd, "martd_queries_in_flight", 1.0);
        let shed = "martd_requests_shed_total{reason=\"queue-full\"}";
        assert_eq!(growth(&martd, shed, || martd.query("SELECT random()")), 1.0);
        assert_eq!(Scrape::of(&martd).value(&ended("unavailable", "json")), 1.0);
        assert_eq!(martd.delete_with("/v1/queries/endless", &[]).status, 204);
        assert_eq!(running.join().expect("an answer").status, 504);
    });
    wait_value(&martd, &ended("cancelled", "json"), 1.0);
    wait_value(&martd, "martd_queries_in_flight", 0.0);

    // A client that leaves while its query runs, and one that leaves a stream.
    let mut leaver = martd.post_unread(&json!({"sql": ENDLESS}));
    wait_value(&martd, "martd_queries_in_flight", 1.0);
    let connections = Scrape::of(&martd).value("martd_connections");
    assert!(connections >= 2.0, "{connections}");
    drop(leaver);
    wait_value(&martd, &ended("gone", "json"), 1.0);
    wait_value(&martd, "martd_connections", connections - 1.0);
    wait_value(&martd, "martd_queries_in_flight", 0.0);
    let sql = "SELECT a.x, repeat('x', 1000) AS y FROM mart.a, mart.a AS b";
    leaver = martd.post_unread(&json!({"sql": sql, "limit": 1_000_000}));
    leaver.read_exact(&mut [0; 1000]).expect("a beginning");
    drop(leaver);
    wait_value(&martd, &ended("gone", "json"), 2.0);
    let scrape = Scrape::of(&martd);
    assert_eq!(scrape.value("martd_engine_starts_total{reason=\"first\"}"), 1.0);
    for reason in ["exited", "wedged", "failed", "suspects"] {
        let starts = format!("martd_engine_starts_total{{reason=\"{reason}\"}}");
        assert_eq!(scrape.value(&starts), 0.0, "each of these was stopped");
    }
    assert_eq!(scrape.value("martd_statements_quarantined"), 0.0);
}

#[test]
fn a_query_that_finds_no_slot_in_time_is_shed() {
    let root = Root::new();
    Writer::new().land(&root, "a", "SELECT 1 AS x");
    let settings = [("MARTD_QUERIES", "1"), ("MARTD_QUEUE", "1")];
    let martd = Martd::start_with(root.path(), &settings);
    martd.wait_ready();
    let _endless = martd.post_unread(&json!({"sql": ENDLESS}));
    wait_value(&martd, "martd_queries_in_flight", 1.0);
    let martd = &martd;
    std::thread::scope(|scope| {
        let query = json!({"sql": "SELECT random()", "timeout_ms": 2_000});
        let waiting = scope.spawn(move || martd.post(&query));
        wait_value(martd, "martd_queries_waiting", 1.0);
        let answer = waiting.join().expect("an answer");
        assert_eq!((answer.status, answer.problem().0.as_str()), (503, "overloaded"));
    });
    assert_eq!(Scrape::of(martd).value("martd_requests_shed_total{reason=\"queue-wait\"}"), 1.0);
}

#[test]
fn without_a_directory_there_are_metrics_all_the_same() {
    let root = tempfile::tempdir().expect("a temporary directory");
    let martd = Martd::start(&root.path().join("absent"));
    wait_value(&martd, "martd_directory_readable", 0.0);
    let scrape = Scrape::of(&martd);
    assert_eq!(scrape.value("martd_ready"), 0.0);
    assert_eq!(scrape.get("martd_snapshot_generation"), None);
    assert_eq!(scrape.value("martd_freshness_status"), 2.0);
    wait_for("failed scans", || {
        (Scrape::of(&martd).value("martd_scan_failures_total") >= 2.0).then_some(())
    });
    std::fs::create_dir_all(root.path().join("absent/mart")).expect("mkdir");
    wait_value(&martd, "martd_directory_readable", 1.0);
}

#[test]
fn a_scrape_of_a_thousand_marts() {
    let (root, writer) = (Root::new(), Writer::new());
    let bytes = writer.parquet("SELECT 1 AS x", None);
    for number in 0..1_000 {
        std::fs::write(root.mart(&format!("m{number}.parquet")), &bytes).expect("write");
    }
    let martd = Martd::start(root.path());
    wait_value(&martd, "martd_marts", 1_000.0);
    let mut times: Vec<_> = (0..20)
        .map(|_| {
            let started = Instant::now();
            let size = martd.get("/metrics").body.len();
            (started.elapsed(), size)
        })
        .collect();
    times.sort_unstable();
    let (median, size) = times[times.len() / 2];
    println!("a scrape of 1,000 marts: {median:?} (at most {:?}), {size} bytes", times[19].0);
    let of_marts =
        |scrape: &Scrape| scrape.names().filter(|n| n.starts_with("martd_mart_")).count();
    assert_eq!(of_marts(&Scrape::of(&martd)), 5 * 1_000);
}
