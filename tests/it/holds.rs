//! Builds that failed, were killed or overlapped are held back; the last good one is served.

use serde_json::Value as Json;

use crate::harness::{Faults, Martd, Root, names, run};
use crate::writers::{Project, Writer};

struct Stage {
    root: Root,
    writer: Writer,
    project: Project,
}

impl Stage {
    /// A project of `a` and `b` after a good build `one`, served.
    fn new() -> (Self, Martd) {
        let mut stage =
            Self { root: Root::new(), writer: Writer::new(), project: Project::default() };
        stage.write(&["a", "b"], "one");
        stage.project.write_ledger(&stage.root, "one");
        let martd = Martd::start(stage.root.path());
        martd.wait_build("one");
        (stage, martd)
    }

    /// Writes these models as a build does, without the ledger.
    fn write(&mut self, models: &[&str], invocation: &str) {
        for name in models {
            let select = format!("SELECT '{invocation}' AS build");
            self.writer.land_stamped(&self.root, name, &select, Some(invocation));
            self.project.built(name, invocation);
        }
    }
}

/// The builds of `a` and `b` as one query sees them.
fn served(martd: &Martd) -> (String, String) {
    let rows = martd.query("SELECT a.build AS a, b.build AS b FROM mart.a, mart.b").rows();
    let text = |key: &str| rows[0][key].as_str().expect("text").to_owned();
    (text("a"), text("b"))
}

fn both(build: &str) -> (String, String) {
    (build.to_owned(), build.to_owned())
}

#[test]
fn a_failed_node_holds_until_it_has_succeeded() {
    let (mut stage, martd) = Stage::new();

    stage.write(&["a", "b"], "two");
    stage.project.failed("test.finance.unique_a_id");
    stage.project.write_ledger(&stage.root, "two");
    let snapshot = martd.wait_snapshot("the hold", |s| !s["held"]["outstanding"][0].is_null());
    assert_eq!(snapshot["held"]["invocation_id"], "two");
    assert_eq!(snapshot["held"]["outstanding"][0]["unique_id"], "test.finance.unique_a_id");
    assert!(snapshot["held"]["since"].is_string());
    assert!(snapshot["held"]["outstanding"][0]["since"].is_string());
    assert_eq!(snapshot["build"]["invocation_id"], "one");
    let freshness = martd.get("/v1/freshness").json();
    assert_eq!(freshness["held"]["invocation_id"], "two");
    assert_eq!(freshness["build"]["invocation_id"], "one");
    assert_eq!(served(&martd), both("one"));

    // A successful run of another model, then a passing test of another: the ledger carries the
    // failure forward, so neither releases the hold.
    stage.write(&["b"], "three");
    stage.project.write_ledger(&stage.root, "three");
    martd.wait_snapshot("the third ledger", |s| s["held"]["invocation_id"] == "three");
    assert_eq!(served(&martd), both("one"));
    stage.project.write_ledger(&stage.root, "four");
    martd.wait_snapshot("the fourth ledger", |s| s["held"]["invocation_id"] == "four");
    assert_eq!(served(&martd), both("one"));

    stage.write(&["a"], "five");
    stage.project.outstanding.clear();
    stage.project.write_ledger(&stage.root, "five");
    let snapshot = martd.wait_build("five");
    assert_eq!(snapshot["held"], Json::Null);
    assert_eq!(served(&martd), ("five".to_owned(), "three".to_owned()));
}

#[test]
fn a_killed_build_is_held_until_the_next_good_one() {
    let (mut stage, martd) = Stage::new();
    let before = stage.project.clone();

    stage.write(&["a"], "killed");
    let snapshot =
        martd.wait_snapshot("the pending file", |s| !s["building"]["pending"][0].is_null());
    assert_eq!(snapshot["building"]["pending"][0]["file"], "a.parquet");
    assert_eq!(snapshot["building"]["pending"][0]["invocation_id"], "killed");
    assert_eq!(served(&martd), both("one"));

    stage.project = before;
    stage.write(&["a", "b"], "two");
    stage.project.write_ledger(&stage.root, "two");
    let snapshot = martd.wait_build("two");
    assert_eq!(snapshot["held"], Json::Null);
    assert_eq!(served(&martd), both("two"));
}

#[test]
fn overlapping_builds_never_mix() {
    let (mut stage, martd) = Stage::new();

    // x writes a, y writes a and b, x writes b; then both end, x last: its a is not on disk.
    stage.write(&["a"], "x");
    martd.wait_snapshot("a of x", |s| s["building"]["pending"][0]["invocation_id"] == "x");
    stage.write(&["a", "b"], "y");
    stage.write(&["b"], "x");
    let mut of_y = stage.project.clone();
    of_y.built("b", "y");
    of_y.write_ledger(&stage.root, "y");
    let after_y = martd.wait_snapshot("y's ledger", |s| {
        s["held"]["invocation_id"] == "y" || s["build"]["invocation_id"] == "y"
    });
    let (a, b) = served(&martd);
    assert_eq!(a, b, "builds mixed under {after_y}");

    stage.write(&["a", "b"], "two");
    stage.project.write_ledger(&stage.root, "two");
    martd.wait_build("two");
    assert_eq!(served(&martd), both("two"));
}

#[test]
fn a_build_that_the_next_overwrote_is_published() {
    let (mut stage, martd) = Stage::new();
    stage.write(&["a", "b"], "two");
    let of_two = stage.project.clone();
    martd.wait_snapshot("two to be staged", |s| {
        s["building"]["pending"].as_array().is_some_and(|pending| pending.len() == 2)
    });
    stage.write(&["a", "b"], "three");
    martd.wait_snapshot("three to be staged", |s| {
        s["building"]["pending"]
            .as_array()
            .is_some_and(|pending| pending.iter().all(|file| file["invocation_id"] == "three"))
    });
    of_two.write_ledger(&stage.root, "two");
    let snapshot = martd.wait_build("two");
    assert_eq!(served(&martd), both("two"));
    assert_eq!(snapshot["building"]["pending"][0]["invocation_id"], "three");
}

#[test]
fn a_model_that_left_its_project_is_an_orphan() {
    let (mut stage, martd) = Stage::new();
    stage.project.models.retain(|(name, _)| name != "b");
    stage.write(&["a"], "two");
    stage.project.write_ledger(&stage.root, "two");
    let snapshot = martd.wait_build("two");

    assert_eq!(snapshot["marts"][1]["name"], "b");
    assert_eq!(snapshot["marts"][1]["orphan"], true);
    assert_eq!(served(&martd), ("two".to_owned(), "one".to_owned()));
}

#[test]
fn files_without_dbt_are_served_also_under_a_hold() {
    let (mut stage, martd) = Stage::new();
    stage.project.failed("model.finance.a");
    stage.project.write_ledger(&stage.root, "two");
    martd.wait_snapshot("the hold", |s| !s["held"].is_null());

    stage.writer.land(&stage.root, "rates", "SELECT 7 AS x");
    let snapshot = martd
        .wait_snapshot("the file", |s| names(&s["marts"], "name").contains(&"rates".to_owned()));
    assert_eq!(snapshot["build"]["invocation_id"], "one");
    assert!(!snapshot["held"].is_null());
    assert_eq!(served(&martd), both("one"));
}

#[test]
fn a_start_under_a_hold_serves_files_as_unverified() {
    let root = Root::new();
    let mut stage = Stage { root, writer: Writer::new(), project: Project::default() };
    stage.write(&["a", "b"], "one");
    stage.project.failed("test.finance.t");
    stage.project.write_ledger(&stage.root, "one");

    let faults = Faults::short("unverified");
    let soon = ("MARTD_TEST_FAULTS", faults.path());
    let refusing = Martd::start_with(stage.root.path(), &[("MARTD_UNVERIFIED", "refuse"), soon]);
    let serving = Martd::start_with(stage.root.path(), &[soon]);
    refusing.wait_snapshot("the hold", |s| !s["held"].is_null());
    let (_, detail) = refusing.get("/readyz").problem();
    assert!(detail.contains("test.finance.t"), "{detail}");
    let snapshot = serving.wait_ready();
    assert_eq!(snapshot["verified"], false);
    assert_eq!(served(&serving), both("one"));
    let freshness = serving.get("/v1/freshness").json();
    assert_eq!((&freshness["status"], &freshness["verified"]), (&"warn".into(), &false.into()));
    let said = run(&["freshness"], &[("MARTD_SERVER", serving.address.as_str())]);
    assert!(said.code == 4 && said.out.contains("UNVERIFIED"), "{said:?}");
    let page = serving.get("/").body;
    assert!(page.contains("No good build vouches for what is served"), "{page}");
    assert!(!page.contains("The last good build is still served"), "{page}");
    assert!(page.contains("What is on disk is served"), "{page}");
    assert!(refusing.get("/").body.contains("Nothing is served. Held"));
    assert_eq!(refusing.get("/readyz").status, 503);

    stage.write(&["a", "b"], "two");
    stage.project.outstanding.clear();
    stage.project.write_ledger(&stage.root, "two");
    for martd in [&serving, &refusing] {
        assert_eq!(martd.wait_build("two")["verified"], true);
        assert_eq!(martd.get("/v1/freshness").json()["verified"], true);
        assert_eq!(served(martd), both("two"));
    }
}

#[test]
fn a_ledger_that_does_not_parse_changes_nothing() {
    let (mut stage, martd) = Stage::new();
    crate::writers::put(stage.root.mart("_build.json"), b"{\"build\": {");
    let snapshot = martd.wait_snapshot("the report", |s| s["rejected"][0]["file"] == "_build.json");
    assert_eq!(snapshot["build"]["invocation_id"], "one");
    assert_eq!(served(&martd), both("one"));

    stage.write(&["a", "b"], "two");
    stage.project.write_ledger(&stage.root, "two");
    let snapshot = martd.wait_build("two");
    assert_eq!(snapshot["rejected"], Json::Array(vec![]));
}

#[test]
fn publishing_by_file_ignores_the_ledger() {
    let (mut stage, _) = Stage::new();
    let martd = Martd::start_with(stage.root.path(), &[("MARTD_PUBLISH", "file")]);
    martd.wait_ready();
    stage.project.failed("model.finance.a");
    stage.project.write_ledger(&stage.root, "two");
    stage.write(&["a"], "three");
    martd.wait_snapshot("the new file", |_| {
        served(&martd) == ("three".to_owned(), "one".to_owned())
    });
}

#[test]
fn those_who_wait_for_a_build_learn_what_became_of_it() {
    let (mut stage, martd) = Stage::new();
    let wait = |build: &str, seconds: u32| {
        martd.get(&format!("/v1/snapshot?build={build}&wait={seconds}"))
    };
    assert_eq!(wait("one", 0).status, 200);
    let answer = wait("two", 0);
    assert_eq!((answer.status, answer.problem().0.as_str()), (504, "wait-timeout"));

    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| wait("two", 60));
        stage.write(&["a", "b"], "two");
        stage.project.write_ledger(&stage.root, "two");
        let answer = waiting.join().expect("an answer");
        assert_eq!((answer.status, &answer.json()["build"]["invocation_id"]), (200, &"two".into()));
    });

    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| wait("three", 60));
        stage.write(&["a"], "three");
        stage.project.failed("test.finance.t");
        stage.project.write_ledger(&stage.root, "three");
        let answer = waiting.join().expect("an answer");
        assert_eq!((answer.status, answer.problem().0.as_str()), (409, "build-held"));
        assert!(answer.problem().1.contains("test.finance.t"));
    });
    // What was published stays known when others have followed.
    assert_eq!(wait("one", 0).status, 200);
}

#[test]
fn martd_wait_tells_the_fate_of_a_build_by_exit_code() {
    let (mut stage, martd) = Stage::new();
    let wait = |build: &str, timeout: &str| {
        let output = std::process::Command::new(crate::harness::program())
            .args(["wait", "--build", build, "--timeout", timeout, "--server", &martd.address])
            .output()
            .expect("martd runs");
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(text).expect("UTF-8"))
    };
    let (code, text) = wait("one", "1s");
    assert!(code == Some(0) && text.contains("build one is served in snapshot"), "{text}");
    let (code, text) = wait("two", "10ms");
    assert!(code == Some(3) && text.contains("no record is of build two yet"), "{text}");

    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| wait("two", "60s"));
        stage.write(&["a"], "two");
        stage.project.failed("test.finance.t");
        stage.project.write_ledger(&stage.root, "two");
        let (code, text) = waiting.join().expect("an exit");
        assert!(code == Some(1) && text.contains("is held: test.finance.t has failed"), "{text}");
    });

    let nobody = std::process::Command::new(crate::harness::program())
        .args(["wait", "--build", "x", "--timeout", "0s", "--server", "127.0.0.1:1"])
        .output()
        .expect("martd runs");
    assert_eq!(nobody.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&nobody.stderr).contains("does not answer"));
}
