//! Partitioned marts: directories of parts, served as one.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use serde_json::{Value as Json, json};

use crate::harness::{Martd, Root, names, run, wait_for};
use crate::writers::{Records, Writer, of_file, parts};

struct Stage {
    root: Root,
    writer: Writer,
    records: Records,
}

/// Three days of sales by DuckDB, with their generation in each row.
fn sales(generation: u32, days: u32) -> String {
    format!(
        "SELECT {generation} AS generation, i AS id, DATE '2026-01-01' + (i % {days})::INTEGER AS day \
         FROM range(60) t(i)"
    )
}

impl Stage {
    fn new() -> Self {
        Self { root: Root::new(), writer: Writer::new(), records: Records::default() }
    }

    /// Writes a partitioned mart as DuckDB does.
    fn write(&self, mart: &str, select: &str, key: &str, options: &str) {
        self.writer.copy(select, &self.root.mart(mart), &format!("PARTITION_BY ({key}){options}"));
    }

    fn record(&self, build: &str, marts: &[&str]) {
        self.records.write(&self.root, build, marts, json!({}));
    }

    /// `_SUCCESS`, with this age against now.
    fn succeed(&self, mart: &str, age: Duration) {
        let file = fs::File::create(self.root.mart(&format!("{mart}/_SUCCESS"))).expect("create");
        file.set_modified(SystemTime::now() - age).expect("utimensat");
    }

    /// Sales as build `one`, served.
    fn with_a_build() -> (Self, Martd) {
        let stage = Self::new();
        stage.write("sales", &sales(1, 3), "day", "");
        stage.record("one", &["sales"]);
        let martd = Martd::start(stage.root.path());
        martd.wait_build("one");
        (stage, martd)
    }
}

/// What is said of an entry in one of the lists of a snapshot.
fn reason<'s>(snapshot: &'s Json, list: &str, file: &str) -> &'s str {
    let all = snapshot[list].as_array().expect("a list");
    let said = all.iter().find(|said| said["file"] == file);
    said.map_or("", |said| said["reason"].as_str().expect("text"))
}

fn wait_reason(martd: &Martd, list: &str, file: &str, text: &str) -> Json {
    let what = format!("{file} in {list} with {text}");
    martd.wait_snapshot(&what, |snapshot| reason(snapshot, list, file).contains(text))
}

fn value(martd: &Martd, sql: &str) -> Json {
    martd.query(sql).value()
}

const SUMMARY: &str = "SELECT min(generation) || ' ' || max(generation) || ' ' || count(*) || ' ' || count(DISTINCT day) FROM mart.sales";

#[test]
fn a_directory_is_a_mart_if_a_record_names_its_parts() {
    let stage = Stage::new();
    stage.write("sales", &sales(1, 3), "day", "");
    fs::create_dir(stage.root.mart("notes")).expect("mkdir");
    let martd = Martd::start(stage.root.path());
    let snapshot = wait_reason(&martd, "landing", "sales/", "no record names its parts");
    assert!(reason(&snapshot, "ignored", "notes").contains("without Parquet files"), "{snapshot}");

    stage.record("one", &["sales"]);
    let first = martd.wait_build("one");
    let mart = &first["marts"][0];
    assert_eq!(
        (&mart["name"], &mart["files"], &mart["rows"]),
        (&json!("sales"), &json!(3), &json!(60))
    );
    assert_eq!(mart["columns"][2], json!({"name": "day", "type": "DATE"}));
    assert_eq!((&first["landing"], &first["held"]), (&json!([]), &Json::Null));
    assert_eq!(value(&martd, SUMMARY), "1 1 60 3");

    // Parts that nobody named are not the mart, nor are these names.
    for part in ["day=2026-01-01/more.parquet", "tmp_a.parquet", "_a.parquet", ".a.parquet"] {
        stage.writer.copy(
            "SELECT 9 AS generation, 9 AS id",
            &stage.root.mart(&format!("sales/{part}")),
            "",
        );
    }
    let outside = tempfile::tempdir().expect("a temporary directory");
    stage.writer.copy("SELECT 9 AS generation", &outside.path().join("b.parquet"), "");
    std::os::unix::fs::symlink(outside.path(), stage.root.mart("sales/day=2026-02-01"))
        .expect("symlink");
    stage.record("two", &[]);
    assert_eq!(martd.wait_build("two")["id"], first["id"]);
    assert_eq!(value(&martd, SUMMARY), "1 1 60 3");
    fs::remove_file(stage.root.mart("sales/day=2026-01-01/more.parquet")).expect("removed");
    let output = run(
        &["publish", "--dir", stage.root.path().to_str().expect("UTF-8"), "--build", "three"],
        &[],
    );
    let said: Json = serde_json::from_str(&output.out).expect("JSON");
    assert_eq!((output.code, &said["vouched"][0]["files"]), (0, &json!(3)), "{said}");
    assert_eq!(martd.wait_build("three")["id"], first["id"], "{said}");

    for junk in ["tmp_a.parquet", "_a.parquet", ".a.parquet", "day=2026-02-01"] {
        fs::remove_file(stage.root.mart(&format!("sales/{junk}"))).expect("removed");
    }
    // The same part on another day is another mart.
    fs::create_dir(stage.root.mart("sales/day=2026-03-01")).expect("mkdir");
    let [from, to] = ["01-03", "03-01"]
        .map(|day| stage.root.mart(&format!("sales/day=2026-{day}/data_0.parquet")));
    fs::rename(from, to).expect("moved");
    stage.record("four", &["sales"]);
    let moved = martd.wait_build("four");
    assert_ne!(moved["id"], first["id"]);
    assert_eq!(value(&martd, "SELECT max(day)::VARCHAR FROM mart.sales"), "2026-03-01");

    // It has no single file.
    let answer = martd.get("/v1/marts/sales.parquet");
    assert_eq!(answer.status, 404);
    assert!(answer.problem().1.contains("a directory of 3 files"), "{}", answer.body);
    let sql = martd.get("/v1/attach.sql").body;
    assert!(
        sql.contains("-- mart.\"sales\" is a directory of 3 files") && !sql.contains("VIEW"),
        "{sql}"
    );
    let newest = parts(&stage.root, "sales");
    let newest = newest.iter().map(|part| {
        let found = fs::metadata(stage.root.mart(part)).and_then(|found| found.modified());
        jiff::Timestamp::try_from(found.expect("a time")).expect("a time")
    });
    let fresh = martd.get("/v1/freshness").json();
    let at = fresh["results"][0]["max_loaded_at"].as_str().expect("a time");
    assert_eq!(at.parse().ok(), newest.max());
}

#[test]
fn without_a_record_success_says_that_it_is_complete() {
    let stage = Stage::new();
    stage.write("sales", &sales(1, 3), "day", "");
    stage.succeed("sales", Duration::from_secs(60));
    let martd = Martd::start(stage.root.path());
    wait_reason(&martd, "landing", "sales/", "no _SUCCESS that is newer");
    stage.succeed("sales", Duration::ZERO);
    martd.wait_ready();
    assert_eq!(value(&martd, SUMMARY), "1 1 60 3");

    // What comes or goes after it makes the directory incomplete: the last version stays.
    let pause = |path: &str| {
        // As if two seconds had passed.
        let dir = fs::File::open(stage.root.mart(path)).expect("open");
        dir.set_modified(SystemTime::now() + Duration::from_secs(2)).expect("utimensat");
    };
    fs::remove_dir_all(stage.root.mart("sales/day=2026-01-03")).expect("removed");
    pause("sales");
    wait_reason(&martd, "landing", "sales/", "no _SUCCESS");
    assert_eq!(value(&martd, SUMMARY), "1 1 60 3");
    let file = stage.root.mart("sales/_SUCCESS");
    fs::remove_file(&file).expect("removed");
    stage.write("sales", &sales(2, 2), "day", ", OVERWRITE");
    stage.succeed("sales", Duration::ZERO);
    wait_for("the new parts", || (value(&martd, SUMMARY) == "2 2 60 2").then_some(()));

    // A directory that is emptied is not gone, and one that is gone is.
    fs::remove_dir_all(stage.root.mart("sales/day=2026-01-01")).expect("removed");
    fs::remove_dir_all(stage.root.mart("sales/day=2026-01-02")).expect("removed");
    fs::remove_file(&file).expect("removed");
    wait_reason(&martd, "landing", "sales/", "no _SUCCESS");
    assert_eq!(value(&martd, SUMMARY), "2 2 60 2");
    fs::remove_dir(stage.root.mart("sales")).expect("removed");
    martd.wait_snapshot("no mart", |s| s["marts"] == json!([]));
}

/// Rewrites the mart again and again, each time with another number of days, while others ask for it.
fn rewritten_while_it_is_asked_for(options: &str) {
    let (stage, martd) = Stage::with_a_build();
    let is_over = AtomicBool::new(false);
    let asked = thread::scope(|scope| {
        let readers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let (client, mut newest, mut answers) = (martd.client(), 0, 0);
                    while !is_over.load(Ordering::Relaxed) {
                        let answer = client.query(SUMMARY).expect("an answer");
                        let text = answer.value().as_str().expect("text").to_owned();
                        let seen: Vec<u32> = text
                            .split(' ')
                            .map(|number| number.parse().expect("a number"))
                            .collect();
                        let generation = seen[0];
                        assert_eq!(
                            seen,
                            [generation, generation, 60, 1 + (generation + 1) % 4],
                            "torn"
                        );
                        assert!(generation >= newest, "stale: {generation} after {newest}");
                        (newest, answers) = (generation, answers + 1);
                    }
                    answers
                })
            })
            .collect();
        for generation in 2..=12 {
            let days = 1 + (generation + 1) % 4;
            stage.write("sales", &sales(generation, days), "day", options);
            // As dbt's record: the parts of this run, and no others.
            let files: Vec<Json> = (1..=days)
                .map(|day| {
                    of_file(&stage.root, &format!("sales/day=2026-01-0{day}/data_0.parquet"))
                })
                .collect();
            let build = format!("b{generation}");
            let marts = json!([{"name": "sales", "files": files}]);
            stage.records.write(&stage.root, &build, &[], json!({"marts": marts}));
            martd.wait_build(&build);
            let expected = format!("{generation} {generation} 60 {days}");
            assert_eq!(value(&martd, SUMMARY), expected, "what is published is served");
        }
        is_over.store(true, Ordering::Relaxed);
        readers.into_iter().map(|reader| reader.join().expect("no torn answer")).sum::<u32>()
    });
    assert!(asked > 100, "only {asked} answers");
}

#[test]
fn a_mart_that_is_overwritten_is_never_torn() {
    rewritten_while_it_is_asked_for(", OVERWRITE");
}

#[test]
fn a_mart_that_is_overwritten_in_place_is_never_torn() {
    rewritten_while_it_is_asked_for(", OVERWRITE_OR_IGNORE");
}

#[test]
fn a_run_that_is_killed_half_way_is_not_served() {
    let (stage, martd) = Stage::with_a_build();
    stage.write("sales", &sales(2, 2), "day", ", OVERWRITE");
    let said = "is not as build one has recorded it";
    let snapshot = wait_reason(&martd, "landing", "sales/", said);
    // Until its files have not changed for a while, it may still be running.
    let building = &snapshot["building"];
    assert!(building["reason"].as_str().is_some_and(|why| why.contains(said)), "{snapshot}");
    assert_eq!(building["pending"][0]["file"], "sales/");
    assert_eq!(value(&martd, SUMMARY), "1 1 60 3");
    // The same bytes in the same places are what was recorded, whoever wrote them.
    stage.write("sales", &sales(1, 3), "day", ", OVERWRITE");
    martd.wait_snapshot("its end", |s| s["building"].is_null() && s["landing"] == json!([]));

    fs::write(stage.root.mart("sales/day=2026-01-01/data_0.parquet"), "PAR1 no").expect("write");
    wait_reason(&martd, "landing", "sales/", "day=2026-01-01/data_0.parquet is not as");
    assert_eq!(value(&martd, SUMMARY), "1 1 60 3");
}

#[test]
fn builds_of_parts_survive_restarts_and_rollbacks() {
    let stage = Stage::new();
    let state = tempfile::tempdir().expect("a temporary directory");
    let settings = [("MARTD_STATE_DIR", state.path().to_str().expect("UTF-8"))];
    stage.write("sales", &sales(1, 3), "day", "");
    stage.record("one", &["sales"]);
    let martd = Martd::start_with(stage.root.path(), &settings);
    let first = martd.wait_build("one");
    let kept = |build: &str| {
        wait_for("the state", || {
            let text = fs::read_to_string(state.path().join("snapshot.json")).ok()?;
            text.contains(&format!("\"invocation_id\":\"{build}\"")).then_some(())
        });
    };
    kept("one");
    stage.write("sales", &sales(2, 2), "day", ", OVERWRITE");
    stage.record("two", &["sales"]);
    martd.wait_build("two");
    kept("two");
    drop(martd);

    stage.write("sales", &sales(3, 1), "day", ", OVERWRITE"); // and killed
    let martd = Martd::start_with(stage.root.path(), &settings);
    martd.wait_build("two");
    assert_eq!(value(&martd, SUMMARY), "2 2 60 2");
    let root = stage.root.path().to_str().expect("UTF-8");
    assert_eq!(run(&["rollback", "--dir", root, "one"], &[]).code, 0);
    let back = martd.wait_snapshot("the rollback", |s| s["id"] == first["id"]);
    assert_eq!(back["marts"][0]["files"], 3);
    assert_eq!(value(&martd, SUMMARY), "1 1 60 3");
}

#[test]
fn a_mart_is_a_file_or_a_directory_and_not_both() {
    let (stage, martd) = Stage::with_a_build();
    stage.writer.land(&stage.root, "sales", &sales(5, 1));
    let snapshot =
        wait_reason(&martd, "rejected", "sales/", "sales.parquet and sales/ are both there");
    assert_eq!(names(&snapshot["marts"], "name"), ["sales"]);
    assert_eq!(value(&martd, SUMMARY), "1 1 60 3");
    let root = stage.root.path().to_str().expect("UTF-8");
    let output = run(&["publish", "--dir", root], &[]);
    assert_eq!(output.code, 1);
    assert!(output.err.contains("sales.parquet and sales/ are both there"), "{}", output.err);
    let records = fs::read_dir(stage.root.mart("_builds")).expect("readable").count();
    assert_eq!(records, 1, "a record could vouch for neither");
    let output = run(&["check", root], &[]);
    assert!(output.code == 1 && output.out.contains("are both there"), "{}", output.out);

    fs::remove_dir_all(stage.root.mart("sales")).expect("removed");
    let output = run(&["publish", "--dir", root, "--build", "file"], &[]);
    assert_eq!(output.code, 0, "{}", output.out);
    assert_eq!(martd.wait_build("file")["marts"][0]["files"], 1);
    assert_eq!(value(&martd, SUMMARY), "5 5 60 1");
}

#[test]
fn what_hides_a_recorded_mart_is_said_in_the_hold() {
    let stage = Stage::new();
    stage.writer.land(&stage.root, "sales", &sales(1, 1));
    stage.record("one", &["sales"]);
    let martd = Martd::start(stage.root.path());
    martd.wait_build("one");
    // The mart becomes a directory, and its file stays.
    stage.write("sales", &sales(2, 3), "day", "");
    stage.record("two", &["sales"]);
    let both =
        "sales.parquet and sales/ are both there: remove the one that is not written any more";
    let held = martd.wait_snapshot("the hold", |s| {
        s["held"]["reason"].as_str().is_some_and(|r| r.contains(both))
    });
    assert_eq!(held["build"]["invocation_id"], "one");
    fs::remove_file(stage.root.mart("sales.parquet")).expect("removed");
    martd.wait_build("two");
    assert_eq!(value(&martd, SUMMARY), "2 2 60 3");
}

#[test]
fn an_empty_model_of_parts_has_no_rows() {
    let stage = Stage::new();
    stage.write("empty", "SELECT NULL::INTEGER AS id, NULL::DATE AS day", "day", "");
    stage.write("sales", "SELECT i AS id, i % 3 AS user_id FROM range(30) t(i)", "user_id", "");
    stage.record("one", &["empty", "sales"]);
    let settings = [("MARTD_SCOPE_COLUMN", "user_id"), ("MARTD_UNSCOPED", "empty")];
    let martd = Martd::start_with(stage.root.path(), &settings);
    let snapshot = martd.wait_build("one");
    assert_eq!(snapshot["marts"][0]["columns"].as_array().map(Vec::len), Some(2), "{snapshot}");
    let ask = |user: &str, sql: &str| {
        let scope = format!("user_id={user}");
        martd.post_with(&json!({"sql": sql}), &[("Martd-Scope", &scope)]).value()
    };
    assert_eq!(ask("1", "SELECT count(*) FROM mart.empty"), 0);
    assert_eq!(
        ask("1", "SELECT count(*) || ' ' || min(user_id) || max(user_id) FROM mart.sales"),
        "10 11"
    );
    assert_eq!(ask("7", "SELECT count(*) FROM mart.sales"), 0);
}

#[test]
fn a_mart_has_up_to_a_thousand_parts() {
    let stage = Stage::new();
    let bytes = stage.writer.bytes("SELECT 7 AS seven", "");
    let put = |part: usize| {
        let folder = stage.root.mart(&format!("many/g={part:04}"));
        fs::create_dir_all(&folder).expect("mkdir");
        fs::write(folder.join("a.parquet"), &bytes).expect("write");
    };
    (0..1000).for_each(put);
    let martd = Martd::start(stage.root.path());
    let began = Instant::now();
    stage.record("one", &["many"]);
    let snapshot = martd.wait_build("one");
    println!("a thousand parts took {:?}", began.elapsed());
    assert_eq!(snapshot["marts"][0]["files"], 1000);
    assert_eq!(
        value(
            &martd,
            "SELECT sum(seven) || ' ' || max(g) || ' ' || count(DISTINCT g) FROM mart.many"
        ),
        "7000 0999 1000"
    );

    put(1000);
    stage.record("two", &["many"]);
    let snapshot =
        wait_reason(&martd, "rejected", "many/", "has 1001 parts, and 1000 are the most");
    assert_eq!(snapshot["marts"][0]["files"], 1000);
    let root = stage.root.path().to_str().expect("UTF-8");
    let output = run(&["publish", "--dir", root], &[]);
    assert!(output.code == 1 && output.out.contains("1001 parts"), "{}", output.out);
}

#[test]
fn changes_deep_in_a_directory_are_told_by_the_kernel() {
    let (stage, martd) = Stage::with_a_build();
    let told = || {
        let metrics = martd.get("/metrics").body;
        let line =
            metrics.lines().find(|line| line.starts_with("martd_scans_total{reason=\"event\"}"));
        let count = line.and_then(|line| line.rsplit_once(' ')).expect("a counter").1;
        count.parse::<f64>().expect("a number")
    };
    // Its value once it stays so.
    let quiet = || {
        let (mut last, mut since) = (told(), Instant::now());
        wait_for("silence", || {
            if told() > last {
                (last, since) = (told(), Instant::now());
            }
            (since.elapsed() > Duration::from_millis(500)).then_some(last)
        })
    };
    for part in ["day=2026-01-01/more", "day=2026-05-05/new"] {
        let path = stage.root.mart(&format!("sales/{part}.parquet"));
        fs::create_dir_all(path.parent().expect("a folder")).expect("mkdir");
        let before = quiet();
        stage.writer.copy("SELECT 1 AS id", &path, "");
        wait_for("an event", || (told() > before).then_some(()));
    }
}
