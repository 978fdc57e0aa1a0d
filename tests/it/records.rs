//! Records: whole builds of any writer, by content.

use std::fs;
use std::path::Path;
use std::process::Command;

use jiff::Timestamp;
use serde_json::{Value as Json, json};

use crate::events::Listener;
use crate::harness::{Martd, Root, names, run, wait_for};
use crate::writers::{Records, Writer, put};

struct Stage {
    root: Root,
    writer: Writer,
    records: Records,
}

impl Stage {
    fn new() -> Self {
        Self { root: Root::new(), writer: Writer::new(), records: Records::default() }
    }

    /// Writes marts, without a stamp.
    fn write(&mut self, marts: &[&str], text: &str) {
        for name in marts {
            self.writer.land(&self.root, name, &format!("SELECT '{text}' AS text"));
        }
    }

    /// Records a build of these marts as they are on disk.
    fn record(&mut self, build: &str, marts: &[&str], rest: Json) {
        self.records.write(&self.root, build, marts, rest);
    }

    /// A good build of `a` and `b`, served.
    fn with_a_build() -> (Self, Martd) {
        let mut stage = Self::new();
        stage.write(&["a", "b"], "one");
        stage.record("one", &["a", "b"], json!({}));
        let martd = Martd::start(stage.root.path());
        martd.wait_build("one");
        (stage, martd)
    }
}

fn wait_held(martd: &Martd, reason: &str) -> Json {
    wait_reason(martd, "held", reason)
}

fn wait_reason(martd: &Martd, key: &str, reason: &str) -> Json {
    martd.wait_snapshot(reason, |snapshot| {
        snapshot[key]["reason"].as_str().is_some_and(|said| said.contains(reason))
    })
}

fn served(martd: &Martd) -> (String, String) {
    let rows = martd.query("SELECT a.text AS a, b.text AS b FROM mart.a, mart.b").rows();
    let text = |key: &str| rows[0][key].as_str().expect("text").to_owned();
    (text("a"), text("b"))
}

fn both(text: &str) -> (String, String) {
    (text.to_owned(), text.to_owned())
}

#[test]
fn files_go_live_as_they_land_until_a_record_exists() {
    let mut stage = Stage::new();
    stage.write(&["a", "b"], "zero");
    let martd = Martd::start(stage.root.path());
    assert_eq!(martd.wait_ready()["publishing"], "files");
    assert!(martd.get("/").body.contains("each file as it lands"));
    let of_files = |line: &&Json| {
        line["message"]
            .as_str()
            .is_some_and(|text| text.starts_with("each file is published as it"))
    };
    assert_eq!(martd.log().iter().filter(of_files).count(), 1);

    stage.write(&["a", "b"], "one");
    stage.record("one", &["a", "b"], json!({}));
    let snapshot = martd.wait_build("one");
    assert_eq!((&snapshot["publishing"], &snapshot["held"]), (&"builds".into(), &Json::Null));
    assert_eq!(snapshot["marts"][0]["invocation_id"], "one");
    stage.write(&["a"], "two");
    let reason = "a.parquet: it was written after build one had recorded it";
    let running = wait_reason(&martd, "building", reason);
    assert_eq!(running["building"]["pending"][0]["file"], "a.parquet");
    assert_eq!(running["held"], Json::Null);
    assert_eq!(served(&martd), both("one"));
    assert_eq!(martd.log().iter().filter(of_files).count(), 1, "said once");
}

#[test]
fn a_new_mart_of_a_killed_writer_is_not_published() {
    let (mut stage, martd) = Stage::with_a_build();
    stage.write(&["new"], "killed");
    wait_reason(&martd, "building", "new.parquet: no record names it yet");
    // A record of something else does not bring it in either.
    stage.record("tests", &[], json!({"results": [{"id": "t", "status": "pass"}]}));
    let snapshot = martd.wait_build("tests");
    assert_eq!(names(&snapshot["marts"], "name"), ["a", "b"]);
    stage.record("two", &["new"], json!({}));
    let snapshot = martd.wait_build("two");
    assert_eq!((names(&snapshot["marts"], "name").len(), &snapshot["held"]), (3, &Json::Null));
}

#[test]
fn the_failed_node_comes_before_the_skipped_ones() {
    let (mut stage, martd) = Stage::with_a_build();
    stage.write(&["a"], "two");
    let mut results: Vec<Json> =
        (0..13).map(|n| json!({"id": format!("model.p.a{n}"), "status": "skipped"})).collect();
    results.push(json!({"id": "test.p.zz", "status": "fail", "message": "Got 3 results"}));
    stage.record("two", &["a"], json!({"results": results}));
    let held = wait_held(&martd, "test.p.zz has failed and not succeeded since (13 skipped)");
    assert_eq!(held["held"]["outstanding"][0]["status"], "fail");
    assert_eq!(served(&martd), both("one"));
    // Those who wait for it, and for one before it in the same hold, learn that.
    stage.record("three", &[], json!({"results": [{"id": "t", "status": "pass"}]}));
    martd.wait_snapshot("the third", |s| s["held"]["invocation_id"] == "three");
    let answer = martd.get("/v1/snapshot?build=two&wait=60");
    assert_eq!((answer.status, answer.problem().0.as_str()), (409, "build-held"));

    let passed: Vec<Json> =
        results.iter().map(|r| json!({"id": r["id"], "status": "pass"})).collect();
    stage.record("four", &[], json!({"results": passed}));
    martd.wait_build("four");
    assert_eq!(served(&martd), ("two".to_owned(), "one".to_owned()));
}

#[test]
fn a_mart_whose_tests_have_not_run_is_held() {
    let (mut stage, martd) = Stage::with_a_build();
    stage.write(&["a"], "two");
    stage.records.tests.insert("a".to_owned(), vec!["test.p.t".to_owned()]);
    stage.record("two", &["a"], json!({"results": [{"id": "a", "status": "success"}]}));
    wait_held(&martd, "not tested yet: test.p.t has not run since mart a was built");
    assert_eq!(served(&martd), both("one"));
    stage.record("three", &[], json!({"results": [{"id": "test.p.t", "status": "pass"}]}));
    martd.wait_build("three");
    assert_eq!(served(&martd), ("two".to_owned(), "one".to_owned()));
}

#[test]
fn overlapping_runs_are_published_whole_or_not_at_all() {
    let (mut stage, martd) = Stage::with_a_build();
    // x writes a and b; before it ends, y overwrites b, and fails.
    stage.write(&["a", "b"], "x");
    let of_x = stage.records.of_files(&stage.root, &["a", "b"]);
    martd.wait_snapshot("x", |s| s["building"]["pending"].as_array().is_some_and(|p| p.len() == 2));
    stage.write(&["b"], "y");
    stage.record("y", &["b"], json!({"results": [{"id": "t", "status": "error"}]}));
    wait_held(&martd, "t has failed");
    stage.record(
        "x",
        &[],
        json!({"marts": of_x.clone(), "results": [{"id": "t", "status": "pass"}]}),
    );
    martd.wait_build("x");
    assert_eq!(served(&martd), both("x"), "martd had seen all of x");

    // A martd that was not there has no bytes of x's b: it does not mix.
    let late = Martd::start(stage.root.path());
    wait_held(&late, "b.parquet: overwritten by another run; build again");
    assert_eq!(late.snapshot()["id"], Json::Null);
    stage.record("z", &["a", "b"], json!({}));
    late.wait_build("z");
    assert_eq!(served(&late), ("x".to_owned(), "y".to_owned()), "z vouches for both");
}

#[test]
fn a_stamp_against_its_record_is_not_vouched_for() {
    let (mut stage, martd) = Stage::with_a_build();
    stage.writer.land_stamped(&stage.root, "a", "SELECT 'y' AS text", Some("y"));
    stage.record("x", &["a"], json!({}));
    wait_held(&martd, "a.parquet: the file is of build y, the ledger names x");
    assert_eq!(served(&martd), both("one"));
    stage.record("y", &["a"], json!({}));
    martd.wait_build("y");
    assert_eq!(served(&martd), ("y".to_owned(), "one".to_owned()));
}

#[test]
fn two_projects_share_a_directory_but_no_mart() {
    let (mut stage, martd) = Stage::with_a_build();
    stage.write(&["c"], "two");
    stage.record("two", &["c"], json!({"project": "q", "nodes": ["c"]}));
    let snapshot = martd.wait_build("two");
    assert_eq!(names(&snapshot["marts"], "name"), ["a", "b", "c"]);
    assert!(
        snapshot["marts"].as_array().expect("marts").iter().all(|mart| mart["orphan"] == false)
    );
    stage.record("three", &["a"], json!({"project": "q"}));
    wait_held(&martd, "mart a has failed");
    let held = martd.snapshot()["held"]["outstanding"][0]["message"].take();
    assert_eq!(
        held,
        "a writer that names no project and project q both build it; rename one of the two"
    );
}

#[test]
fn a_build_with_a_schema_of_duckdbs_own_is_served() {
    let (mut stage, martd) = Stage::with_a_build();
    stage.write(&["a", "b"], "two");
    let mut marts = stage.records.of_files(&stage.root, &["a", "b"]);
    (marts[0]["schema"], marts[1]["schema"]) = (json!("temp"), json!("Information_Schema"));
    stage.record("two", &[], json!({"marts": marts}));
    martd.wait_build("two");
    assert_eq!(served(&martd), both("two"));
}

#[test]
fn equal_bytes_of_a_new_build_are_told_at_once() {
    let (mut stage, martd) = Stage::with_a_build();
    let before = martd.snapshot();
    stage.record("two", &["a", "b"], json!({}));
    let after = martd.wait_build("two");
    assert_eq!(after["id"], before["id"]);
    assert_eq!(martd.get("/v1/snapshot?build=two").status, 200);
    assert_eq!(after["marts"][0]["invocation_id"], "two");
    // The page does not tell of a publish in which no mart has changed.
    let page = martd.get("/").body;
    assert_eq!(page.matches("published generation").count(), 1, "{page}");
}

#[test]
fn a_record_that_does_not_fit_changes_nothing() {
    let (mut stage, martd) = Stage::with_a_build();
    put(stage.root.mart("_builds/two.json"), b"{\"version\": 2");
    put(
        stage.root.mart("_builds/x.json"),
        stage.records.text(&stage.root, "y", &[], json!({})).as_bytes(),
    );
    let snapshot =
        martd.wait_snapshot("both", |s| s["rejected"].as_array().is_some_and(|r| r.len() == 2));
    assert!(snapshot["rejected"][0]["reason"].as_str().expect("text").contains("does not parse"));
    assert!(
        snapshot["rejected"][1]["reason"].as_str().expect("text").contains("must be named y.json")
    );
    assert_eq!(
        (&snapshot["build"]["invocation_id"], &snapshot["held"]),
        (&"one".into(), &Json::Null)
    );
    for name in ["two", "x"] {
        std::fs::remove_file(stage.root.mart(&format!("_builds/{name}.json"))).expect("remove");
    }
    stage.record("two", &["a"], json!({}));
    martd.wait_build("two");
    martd.wait_snapshot("no fault", |s| s["rejected"] == json!([]));
}

#[test]
fn a_removed_record_is_noticed_however_late() {
    let (stage, martd) = Stage::with_a_build();
    let path = stage.root.mart("_builds/two.json");
    put(path.clone(), b"{\"version\": 2");
    martd.wait_snapshot("the fault", |s| s["rejected"].as_array().is_some_and(|r| r.len() == 1));
    martd.signal(rustix::process::Signal::STOP);
    fs::remove_file(path).expect("remove");
    // Until the directory does not look as if it had changed a moment ago.
    let builds = || fs::metadata(stage.root.mart("_builds")).and_then(|found| found.modified());
    wait_for("an old directory", || {
        let age = builds().expect("it is there").elapsed().unwrap_or_default();
        (age > std::time::Duration::from_millis(200)).then_some(())
    });
    martd.signal(rustix::process::Signal::CONT);
    martd.wait_snapshot("no fault", |s| s["rejected"] == json!([]));
}

#[test]
fn a_record_that_is_removed_is_not_in_force_any_more() {
    let (mut stage, martd) = Stage::with_a_build();
    put(stage.root.mart("_builds/half.json"), b"{");
    stage.record("bad", &[], json!({"results": [{"id": "check", "status": "error"}]}));
    wait_held(&martd, "check has failed");
    for name in ["half", "bad"] {
        fs::remove_file(stage.root.mart(&format!("_builds/{name}.json"))).expect("remove");
    }
    let snapshot = martd.wait_snapshot("its end", |s| s["held"].is_null());
    assert_eq!(snapshot["rejected"], json!([]), "what is gone for two seconds does not come back");
    assert_eq!(snapshot["build"]["invocation_id"], "one");
}

#[test]
fn records_take_over_from_the_first_editions_ledger() {
    let stage = Stage::new();
    let mut project = crate::writers::Project::default();
    for name in ["a", "b"] {
        stage.writer.land_stamped(&stage.root, name, "SELECT 'old' AS text", Some("old"));
        project.built(name, "old");
    }
    project.failed("test.finance.t");
    project.write_ledger(&stage.root, "old");
    let martd = Martd::start(stage.root.path());
    wait_held(&martd, "test.finance.t has failed");
    let mut stage = stage;
    stage.write(&["a", "b"], "new");
    stage.record(
        "new",
        &["a", "b"],
        json!({"results": [{"id": "test.finance.t", "status": "pass"}]}),
    );
    martd.wait_build("new");
    assert_eq!(served(&martd), both("new"));
    std::fs::remove_file(stage.root.mart("_build.json")).expect("remove");
    let snapshot = martd.wait_snapshot("its end", |s| s["held"].is_null());
    assert_eq!(snapshot["build"]["invocation_id"], "new");
    assert_eq!(served(&martd), both("new"));
}

#[test]
fn a_rollback_serves_an_earlier_build_until_released() {
    let (mut stage, martd) = Stage::with_a_build();
    let state = tempfile::tempdir().expect("a temporary directory");
    let settings =
        [("MARTD_STATE_DIR", state.path().to_str().expect("UTF-8")), ("MARTD_RETAIN", "0s")];
    let mut keeper = Martd::start_with(stage.root.path(), &settings);
    keeper.wait_build("one");
    for build in ["two", "three"] {
        stage.write(&["a", "b"], build);
        stage.record(build, &["a", "b"], json!({}));
        keeper.wait_build(build);
        martd.wait_build(build);
    }
    // A build is held when somebody rolls back: the rollback is younger than that.
    stage.record("bad", &[], json!({"results": [{"id": "check", "status": "error"}]}));
    let held = wait_held(&martd, "check has failed");
    let reason = held["held"]["reason"].as_str().expect("text");
    assert!(reason.ends_with("end this with martd publish --clear 'check'"), "{reason}");
    assert!(
        martd.get("/").body.contains("martd publish --clear &#39;check&#39;")
            || martd.get("/").body.contains("martd publish --clear 'check'")
    );
    let listener = Listener::new(&martd, "");
    stage.record("back", &[], json!({"rollback": "one"}));
    let record = fs::read(stage.root.mart("_builds/back.json")).expect("readable");
    let record: Json = serde_json::from_slice(&record).expect("JSON");
    assert_eq!(listener.wait("rolled-back")["rollback"], "one");
    for martd in [&martd, &keeper] {
        martd.wait_build("one");
        let held = wait_held(martd, "rolled back to build one; martd rollback --release ends it");
        assert_eq!(served(martd), both("one"), "{held}");
        assert_eq!(held["held"]["rollback"], "one", "{held}");
        let time = |json: &Json| json.as_str().and_then(|at| at.parse::<Timestamp>().ok());
        let asked = time(&record["build"]["finished_at"]);
        assert_eq!(time(&held["held"]["since"]), asked, "{held}");
        let metrics = martd.get("/metrics").body;
        assert!(metrics.contains("\nmartd_rolled_back 1.0\n"), "{metrics}");
        let page = martd.get("/").body;
        assert!(page.contains("Rolled back to build one, <time"), "{page}");
        assert_eq!(
            page.matches("olled back to build one").count(),
            2,
            "and in what happened: {page}"
        );
    }
    // Newer builds do not end it, nor does a restart.
    stage.write(&["a", "b"], "four");
    let clear = json!({"results": [{"id": "check", "status": "success"}]});
    stage.record("four", &["a", "b"], clear);
    keeper.signal(rustix::process::Signal::KILL);
    keeper.wait_exit();
    let keeper = Martd::start_with(stage.root.path(), &settings);
    martd.wait_snapshot("the fourth", |s| s["held"]["invocation_id"] == "four");
    let waiting = martd.get("/v1/snapshot?build=four&wait=60");
    assert_eq!(waiting.status, 409, "{}", waiting.body);
    assert!(waiting.body.contains("martd rollback --release ends it"), "{}", waiting.body);
    keeper.wait_build("one");
    wait_held(&keeper, "rolled back to build one;");
    for martd in [&martd, &keeper] {
        assert_eq!(served(martd), both("one"));
    }
    // One that has not kept it says so.
    let late = Martd::start(stage.root.path());
    wait_held(
        &late,
        "rolled back to build one, which cannot be served here: a.parquet: overwritten",
    );

    stage.record("release", &[], json!({"release": true}));
    listener.wait("released");
    for martd in [&martd, &keeper, &late] {
        martd.wait_build("four");
        assert_eq!(served(martd), both("four"));
    }
}

/// The schema of records, and Python's jsonschema.
pub(crate) fn validate(record: &Path) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let program = "import json, sys, jsonschema\n\
                   schema, record = (json.load(open(path)) for path in sys.argv[1:])\n\
                   jsonschema.Draft202012Validator(schema).validate(record)";
    let output = Command::new(root.join(".venv/bin/python"))
        .args(["-c", program])
        .args([&root.join("docs/ledger.schema.json"), record])
        .output()
        .expect("Python runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn the_ten_lines_of_the_document_publish_a_mart() {
    let document = include_str!("../../docs/ledger.md");
    let begin = document.find("```sh\ncd \"$PARQUET_DIR/mart\"").expect("an example") + 6;
    let script = &document[begin..begin + document[begin..].find("```").expect("an end")];
    let stage = Stage::new();
    stage.writer.land(&stage.root, "orders", "SELECT 1 AS x");
    let martd = Martd::start_with(stage.root.path(), &[("MARTD_PUBLISH", "build")]);
    let status =
        Command::new("sh").args(["-ec", script]).env("PARQUET_DIR", stage.root.path()).status();
    assert!(status.expect("a shell").success());
    let snapshot = martd.wait_snapshot("the build", |s| s["build"].is_object());
    let build = snapshot["build"]["invocation_id"].as_str().expect("an id");
    assert!(build.starts_with("orders-") && snapshot["held"].is_null(), "{snapshot}");
    validate(&stage.root.mart(&format!("_builds/{build}.json")));
    let check = run(&["check", stage.root.path().to_str().expect("UTF-8")], &[]);
    assert_eq!(check.code, 0, "{}", check.out);
}
