//! The legacy file: one `analytics.duckdb` is served until the first mart lands, and neither its
//! writers nor its readers wait for the other.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use duckdb::Connection;
use serde_json::{Value as Json, json};

use crate::harness::{Answer, Faults, Martd, Root, names, wait_for};
use crate::proc::{Usage, cpu_ticks};
use crate::writers::{Project, Writer};

/// A directory with a legacy file in it, and an empty mart directory.
pub struct Stage {
    pub root: Root,
    pub file: PathBuf,
}

impl Stage {
    /// The file as dbt-duckdb leaves it: marts in `main_mart`.
    pub fn new(sql: &str) -> Self {
        let root = Root::new();
        let file = root.path().join("analytics.duckdb");
        let stage = Self { root, file };
        stage.write(&format!("CREATE SCHEMA main_mart; {sql}"));
        stage
    }

    fn open(&self) -> Connection {
        Connection::open(&self.file).expect("a writer can open the file at any time")
    }

    /// Opens the file for writing, writes, and is done with it.
    fn write(&self, sql: &str) {
        self.open().execute_batch(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
    }

    pub fn start(&self, settings: &[(&str, &str)]) -> Martd {
        let path = self.file.to_str().expect("UTF-8");
        let settings: Vec<_> =
            [("DUCKDB_PATH", path)].into_iter().chain(settings.iter().copied()).collect();
        Martd::start_with(self.root.path(), &settings)
    }
}

fn source(answer: &Answer) -> &str {
    answer.header("martd-source")
}

/// In this time martd looks at the file several times, and could have served it.
const LONG_ENOUGH: Duration = Duration::from_millis(500);

const NUMBERS: &str = "CREATE OR REPLACE TABLE main_mart.a AS SELECT i AS x FROM range(10) t(i)";

#[test]
fn a_copy_under_which_the_file_changed_is_not_served() {
    let stage = Stage::new("CREATE TABLE main_mart.a AS SELECT 1 AS x");
    let faults = tempfile::tempdir().expect("a temporary directory");
    let stuck = faults.path().join("stuck-legacy");
    fs::write(&stuck, "").expect("write");
    let faults = faults.path().to_str().expect("UTF-8");
    let martd = stage.start(&[("MARTD_TEST_FAULTS", faults)]);
    wait_for("the copy", || (Usage::of(martd.pid()).pins == 1).then_some(()));

    stage.write("CREATE OR REPLACE TABLE main_mart.a AS SELECT 2 AS x");
    fs::remove_file(&stuck).expect("remove");
    let first = martd.wait_ready();
    assert_eq!(first["generation"], 1);
    assert_eq!(martd.query("SELECT x FROM mart.a").value(), 2);
}

#[test]
fn an_engine_that_fails_over_the_file_is_replaced() {
    if !cfg!(debug_assertions) {
        return println!("SKIPPED: a release build has no faults to switch on");
    }
    let stage = Stage::new("CREATE TABLE main_mart.a AS SELECT 1 AS x");
    let faults = Faults::new();
    let martd = stage.start(&[("MARTD_TEST_FAULTS", faults.path()), ("MARTD_CACHE", "0")]);
    let before = martd.wait_ready();
    let fatal = "SELECT x FROM mart.a WHERE x = 1";
    faults.abort_at(fatal);
    assert_eq!(martd.query(fatal).problem().0, "engine-failed");
    assert_eq!(martd.query("SELECT x FROM mart.a").value(), 1);
    let after = martd.snapshot();
    for key in ["id", "source", "generation"] {
        assert_eq!(after[key], before[key], "{key}");
    }
}

#[test]
fn the_migration_loses_no_request() {
    let stage = Stage::new(
        "CREATE TABLE main_mart.a AS SELECT 'legacy' AS x, 1 AS n;
        CREATE TABLE main_mart.b AS SELECT 'legacy' AS x, 1 AS n",
    );
    let martd = stage.start(&[]);
    let snapshot = martd.wait_ready();
    assert_eq!(snapshot["source"], "duckdb");
    assert_eq!(names(&snapshot["marts"], "name"), ["a", "b"]);
    assert_eq!(martd.get("/readyz").status, 200);
    let freshness = martd.get("/v1/freshness").json();
    assert_eq!(freshness["source"], "duckdb");
    let mtime = jiff::Timestamp::try_from(
        fs::metadata(&stage.file).expect("there").modified().expect("a time"),
    );
    assert_eq!(freshness["last_refresh"], mtime.expect("in range").to_string());
    for name in ["mart.a", "main_mart.a"] {
        let answer = martd.query(&format!("SELECT x FROM {name}"));
        assert_eq!((answer.value(), source(&answer)), ("legacy".into(), "duckdb"), "{name}");
    }
    assert_eq!(martd.get("/v1/marts/a.parquet").problem().0, "not-found");
    let first = snapshot["id"].as_str().expect("an id").to_owned();

    // Clients ask without a pause while a first dbt build lands, file by file, the ledger at its end.
    let (stop, asked) = (AtomicBool::new(false), AtomicUsize::new(0));
    let sql = "SELECT a.x AS a, b.x AS b FROM mart.a JOIN main_mart.b USING (n)";
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let mut seen_parquet = false;
                while !stop.load(Ordering::Relaxed) {
                    let answer = martd.query(sql);
                    let rows = answer.rows();
                    let of = source(&answer).replace("duckdb", "legacy");
                    assert_eq!(rows, json!([{"a": of, "b": of}]), "one source: {answer:?}");
                    assert!(!seen_parquet || of == "parquet", "never back: {answer:?}");
                    seen_parquet = of == "parquet";
                    asked.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let writer = Writer::new();
        let mut project = Project::default();
        for name in ["a", "b"] {
            let before = asked.load(Ordering::Relaxed);
            writer.land_stamped(&stage.root, name, "SELECT 'parquet' AS x, 1 AS n", Some("i1"));
            project.built(name, "i1");
            wait_for("more answers", || {
                (asked.load(Ordering::Relaxed) > before + 30).then_some(())
            });
        }
        let held = martd.snapshot();
        assert_eq!(held["source"], "duckdb", "half a build replaces nothing: {held}");
        assert_eq!(names(&held["building"]["pending"], "file"), ["a.parquet", "b.parquet"]);
        project.write_ledger(&stage.root, "i1");
        martd.wait_snapshot("the marts", |snapshot| snapshot["source"] == "parquet");
        let before = asked.load(Ordering::Relaxed);
        wait_for("more answers", || (asked.load(Ordering::Relaxed) > before + 30).then_some(()));
        stop.store(true, Ordering::Relaxed);
    });

    // A reader that began before can end on what it began with.
    let answer = martd.post_with(&json!({ "sql": sql }), &[("martd-snapshot", &first)]);
    assert_eq!((answer.rows()[0]["a"].clone(), source(&answer)), ("legacy".into(), "duckdb"));

    // The file changes, and goes: nobody looks any more. Neither is it missed when martd starts.
    stage.write("INSERT INTO main_mart.a VALUES ('legacy', 2)");
    fs::remove_file(&stage.file).expect("there");
    assert_eq!(martd.query(sql).rows()[0]["a"], "parquet");
    drop(martd);
    for settings in [&[][..], &[("MARTD_FALLBACK", "off")]] {
        let martd = stage.start(settings);
        assert_eq!(martd.wait_ready()["source"], "parquet");
        assert_eq!(martd.query(sql).rows()[0]["b"], "parquet");
    }
}

#[test]
fn a_start_with_marts_never_shows_the_legacy_file() {
    let stage = Stage::new(NUMBERS);
    Writer::new().land(&stage.root, "a", "SELECT 77 AS x");
    let martd = stage.start(&[]);
    let snapshot = martd.wait_ready();
    assert_eq!((&snapshot["source"], &snapshot["generation"]), (&json!("parquet"), &json!(1)));
}

#[test]
fn an_unstamped_mart_replaces_the_file_at_once() {
    let stage = Stage::new(NUMBERS);
    let martd = stage.start(&[]);
    martd.wait_ready();
    Writer::new().land(&stage.root, "a", "SELECT 77 AS x");
    martd.wait_snapshot("the mart", |snapshot| snapshot["source"] == "parquet");
    assert_eq!(martd.query("SELECT max(x) FROM mart.a").value(), 77);

    // The last mart goes again: what was migrated stays migrated.
    fs::remove_file(stage.root.mart("a.parquet")).expect("there");
    martd.wait_snapshot("no mart", |snapshot| snapshot["marts"] == json!([]));
    stage.write("CREATE TABLE main_mart.b AS SELECT 1 AS x");
    let since = Instant::now();
    while since.elapsed() < LONG_ENOUGH {
        assert_eq!(martd.snapshot()["source"], "parquet");
    }
}

#[test]
fn while_a_first_build_is_held_nothing_is_busy() {
    let stage = Stage::new(NUMBERS);
    let martd = stage.start(&[]);
    martd.wait_ready();
    Writer::new().land_stamped(&stage.root, "a", "SELECT 77 AS x", Some("i1"));
    martd.wait_snapshot("the build", |snapshot| !snapshot["building"].is_null());
    wait_for("an idle processor", || {
        let before = cpu_ticks(martd.pid());
        thread::sleep(Duration::from_millis(200));
        (cpu_ticks(martd.pid()) - before <= 4).then_some(())
    });
    assert_eq!(martd.query("SELECT sum(x) FROM mart.a").value(), 45);
}

#[test]
fn turned_off_it_is_not_looked_at() {
    let stage = Stage::new(NUMBERS);
    let martd = stage.start(&[("MARTD_FALLBACK", "off")]);
    let (slug, detail) = martd.query("SELECT 1 FROM mart.a").problem();
    assert_eq!(slug, "not-ready");
    assert!(!detail.contains("legacy"), "{detail}");
    Writer::new().land(&stage.root, "a", "SELECT 77 AS x");
    assert_eq!(martd.wait_ready()["source"], "parquet");
}

#[test]
fn writers_can_open_the_file_at_any_time() {
    let stage = Stage::new(
        "CREATE TABLE main_mart.a AS SELECT 0 AS x;
        CREATE TABLE main_mart.b AS SELECT 0 AS x FROM range(100000)",
    );
    let martd = stage.start(&[]);
    martd.wait_ready();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let sql =
                    "SELECT (SELECT max(x) FROM mart.a) = max(x) AND min(x) = max(x) FROM mart.b";
                assert_eq!(martd.query(sql).value(), true, "no answer is of half a build");
            }
        });
        for build in 1..=5 {
            let writer = stage.open();
            let half = format!("UPDATE main_mart.a SET x = {build}; CHECKPOINT");
            writer.execute_batch(&half).expect("update");
            let since = Instant::now();
            while since.elapsed() < LONG_ENOUGH {
                let while_held = martd.query("SELECT x FROM mart.a").value();
                assert_eq!(while_held, build - 1, "while the writer has the file, the last copy");
            }
            writer.execute_batch(&format!("UPDATE main_mart.b SET x = {build}")).expect("update");
            drop(writer);
            wait_for("the change", || {
                (martd.query("SELECT x FROM mart.a").value() == build).then_some(())
            });
        }
        // One after the other, whether martd looks at that moment or not.
        for build in 6..=60 {
            stage.write(&format!(
                "BEGIN; UPDATE main_mart.a SET x = {build};
                UPDATE main_mart.b SET x = {build}; COMMIT"
            ));
        }
        wait_for("the last change", || {
            (martd.query("SELECT x FROM mart.a").value() == 60).then_some(())
        });
        stop.store(true, Ordering::Relaxed);
    });
}

#[test]
fn a_file_locked_from_the_start_is_waited_for() {
    let stage = Stage::new(NUMBERS);
    let writer = stage.open();
    let martd = stage.start(&[]);
    let answer = wait_for("the lock to be noticed", || {
        Some(martd.query("SELECT sum(x) FROM mart.a"))
            .filter(|answer| answer.json()["type"] == "urn:martd:problem:legacy-locked")
    });
    assert_eq!((answer.status, answer.header("retry-after")), (503, "1"));
    assert!(answer.problem().1.contains("a writer has the legacy DuckDB file"), "{answer:?}");
    assert_eq!(martd.get("/readyz").status, 503);
    drop(writer);
    martd.wait_ready();
    assert_eq!(martd.query("SELECT sum(x) FROM mart.a").value(), 45);
}

#[test]
fn the_log_of_a_writer_that_crashed_is_read_as_well() {
    let stage = Stage::new(NUMBERS);
    let crashed = Root::new();
    let copy = crashed.path().join("analytics.duckdb");
    {
        // What is on the disk while a writer has uncheckpointed work is what its crash leaves.
        let writer = stage.open();
        writer
            .execute_batch(
                "SET wal_autocheckpoint = '1TB'; INSERT INTO main_mart.a VALUES (1000);
                CREATE TABLE main_mart.late AS SELECT 5 AS y",
            )
            .expect("written");
        fs::copy(&stage.file, &copy).expect("copied");
        let log = stage.root.path().join("analytics.duckdb.wal");
        fs::copy(log, crashed.path().join("analytics.duckdb.wal")).expect("copied");
    }
    let stage = Stage { root: crashed, file: copy };
    for settings in [&[][..], &[("MARTD_PIN_MEMORY", "1KiB")]] {
        let martd = stage.start(settings);
        assert_eq!(names(&martd.wait_ready()["marts"], "name"), ["a", "late"]);
        assert_eq!(martd.query("SELECT max(x) FROM mart.a").value(), 1000);
        assert_eq!(martd.query("SELECT y FROM main_mart.late").value(), 5);
        assert!(stage.root.path().join("analytics.duckdb.wal").exists(), "it is left alone");
    }
}

#[test]
fn a_file_over_the_budget_is_left_to_its_writers() {
    let stage = Stage::new("CREATE TABLE main_mart.a AS SELECT i AS x FROM range(300000) t(i)");
    let martd = stage.start(&[("MARTD_PIN_MEMORY", "1KiB")]);
    let first = martd.wait_ready();
    assert_eq!(first["marts"][0]["pin"], "descriptor");
    let sum = || martd.query("SELECT sum(x) FROM mart.a").value();
    assert_eq!(sum(), 44_999_850_000_i64);
    let writer = stage.open(); // nobody has it
    assert_eq!(sum(), 44_999_850_000_i64, "answered under the lock");
    writer.execute_batch("INSERT INTO main_mart.a VALUES (1)").expect("written");
    drop(writer);
    wait_for("the change", || (sum() == 44_999_850_001_i64).then_some(()));
    let body = json!({"sql": "SELECT count(*) FROM mart.a"});
    let old = first["id"].as_str().expect("an id");
    assert_eq!(martd.post_with(&body, &[("martd-snapshot", old)]).value(), 300_000);
}

#[test]
fn files_of_every_duckdb_since_1_0_are_read() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/legacy");
    let mut answers: Vec<(String, Json)> = Vec::new();
    for version in ["1.0", "1.1", "1.2", "1.3", "1.4", "1.5"] {
        let root = Root::new();
        let file = root.path().join("analytics.duckdb");
        let packed = fs::File::open(fixtures.join(format!("duckdb-{version}.duckdb.zst")));
        let unpacked = zstd::decode_all(packed.expect("a fixture")).expect("zstd");
        fs::write(&file, unpacked).expect("write");
        let stage = Stage { root, file };
        let martd = stage.start(&[]);
        let snapshot = martd.wait_ready();
        let marts = names(&snapshot["marts"], "name");
        assert_eq!(marts, ["dim_days", "dim_empty", "fct_transactions"], "{version}");
        let sql =
            "SELECT count(*), sum(amount), max(day), min(counterparty), sum(big), max(booked),
            any_value(list ORDER BY id), any_value(struct ORDER BY id), count(DISTINCT user_id)
            FROM main_mart.fct_transactions";
        let days = martd.query("SELECT count(*) FROM mart.dim_days");
        assert_eq!(days.value(), 400, "{version}: a view that names the file by its stem");
        assert_eq!(martd.query("SELECT count(*) FROM mart.dim_empty").value(), 0);
        let hidden = martd.query("SELECT * FROM main_staging.raw").problem();
        assert_eq!(hidden.0, "sql-error", "{version}: only marts are served");
        let by_catalog = martd.query("SELECT * FROM analytics.main_staging.raw").problem();
        assert_eq!(by_catalog.0, "statement-not-allowed", "{version}");
        answers.push((version.to_owned(), martd.query(sql).rows()));
    }
    let (_, first) = &answers[0];
    assert_eq!(first[0]["count_star()"], 5000);
    for (version, answer) in &answers {
        assert_eq!(answer, first, "{version}");
    }
}

#[test]
fn a_damaged_file_leaves_the_last_good_copy_served() {
    let stage = Stage::new(
        "CREATE TABLE main_mart.a AS SELECT i AS x, hash(i) AS h FROM range(200000) t(i)",
    );
    let good = fs::read(&stage.file).expect("there");
    let mut bad = good.clone();
    for byte in &mut bad[300_000..300_100] {
        *byte = !*byte;
    }
    fs::write(&stage.file, &bad).expect("write");
    let martd = stage.start(&[]);
    let rejected = martd.wait_snapshot("the verdict", |s| !s["rejected"][0].is_null());
    assert_eq!(rejected["rejected"][0]["file"], "analytics.duckdb");
    let reason = rejected["rejected"][0]["reason"].as_str().expect("a reason");
    assert!(reason.contains("orrupt") && !reason.contains('/'), "{reason}");
    assert_eq!(martd.query("SELECT 1 FROM mart.a").problem().0, "not-ready");

    fs::write(&stage.file, &good).expect("write");
    martd.wait_ready();
    assert_eq!(martd.snapshot()["rejected"], json!([]));
    fs::write(&stage.file, &bad[..100_000]).expect("write");
    martd.wait_snapshot("the verdict", |s| !s["rejected"][0].is_null());
    assert_eq!(martd.query("SELECT count(h) FROM mart.a").value(), 200_000);
    fs::remove_file(&stage.file).expect("there");
    martd.wait_snapshot("its absence", |s| s["rejected"] == json!([]));
    assert_eq!(martd.query("SELECT count(h) FROM mart.a").value(), 200_000);
}

#[test]
fn a_file_without_marts_names_the_schemas_asked_for() {
    let stage = Stage::new("CREATE SCHEMA gold; CREATE TABLE gold.a AS SELECT 1 AS x");
    let martd = stage.start(&[]);
    let snapshot = martd.wait_snapshot("the verdict", |s| !s["rejected"][0].is_null());
    let reason = snapshot["rejected"][0]["reason"].as_str().expect("a reason");
    assert!(reason.contains("mart, main_mart") && reason.contains("MARTD_SCHEMAS"), "{reason}");
    drop(martd);
    let martd = stage.start(&[("MARTD_SCHEMAS", "gold,main_mart")]);
    martd.wait_ready();
    for name in ["gold.a", "main_mart.a"] {
        assert_eq!(martd.query(&format!("SELECT x FROM {name}")).value(), 1);
    }
}

#[test]
fn views_that_ask_for_what_is_not_there_are_left_out() {
    let stage = Stage::new("CREATE TABLE main_mart.a AS SELECT 1 AS x;
        CREATE TABLE main_mart.gone AS SELECT 1 AS x;
        CREATE VIEW main_mart.broken AS SELECT * FROM analytics.main_mart.gone; DROP TABLE main_mart.gone");
    let martd = stage.start(&[]);
    assert_eq!(names(&martd.wait_ready()["marts"], "name"), ["a"]);
    let line = martd.wait_log("a view has no table");
    assert_eq!(line["view"], "broken");
    let ignored = martd.snapshot()["ignored"].take();
    let left_out = ignored.as_array().expect("a list").iter();
    let left_out: Vec<_> = left_out.filter(|each| each["file"] == "main_mart.broken").collect();
    assert_eq!(left_out.len(), 1, "{ignored}");
    assert!(
        left_out[0]["reason"].as_str().is_some_and(|reason| reason.contains("gone")),
        "{ignored}"
    );
}

#[test]
fn rows_are_scoped_in_the_legacy_file_too() {
    let stage = Stage::new(
        "CREATE TABLE main_mart.a AS SELECT * FROM (VALUES (1, 'x'), (2, 'y')) t(user_id, s);
        CREATE TABLE main_mart.dim AS SELECT 1 AS k",
    );
    let martd = stage.start(&[("MARTD_SCOPE_COLUMN", "user_id")]);
    martd.wait_ready();
    let ask = |sql: &str| martd.post_with(&json!({ "sql": sql }), &[("martd-scope", "user_id=2")]);
    for sql in ["SELECT s FROM mart.a", "SELECT min(s) FROM main_mart.a"] {
        assert_eq!(ask(sql).rows().as_array().map(Vec::len), Some(1));
        assert_eq!(ask(sql).value(), "y");
    }
    assert_eq!(ask("SELECT k FROM mart.dim").problem().0, "statement-not-allowed");
    assert_eq!(martd.query("SELECT s FROM mart.a").problem().0, "scope-required");
}

/// Reason one of the first migration's end: clients asked for `mart.x` where the file had
/// `main_mart.x`.
#[test]
fn rollback_reason_the_schema_had_another_name() {
    let stage = Stage::new(NUMBERS);
    stage.write("CREATE SCHEMA mart; CREATE TABLE mart.b AS SELECT 1 AS x");
    let martd = stage.start(&[]);
    martd.wait_ready();
    for table in ["mart.a", "main_mart.a", "mart.b", "main_mart.b"] {
        assert_eq!(
            martd.query(&format!("SELECT count(*) > 0 FROM {table}")).value(),
            true,
            "{table}"
        );
    }
    let writer = Writer::new();
    writer.land(&stage.root, "a", "SELECT 1 AS x");
    martd.wait_snapshot("the mart", |snapshot| snapshot["source"] == "parquet");
    for table in ["mart.a", "main_mart.a"] {
        assert_eq!(
            martd.query(&format!("SELECT count(*) > 0 FROM {table}")).value(),
            true,
            "{table}"
        );
    }
}
