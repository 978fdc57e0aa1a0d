//! dbt for real: the project in `dbt/`, built into a directory that martd watches.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value as Json;

use crate::harness::{Martd, Root, names, wait_for};

/// A copy of the dbt project that a test may change, and the directory that it builds into.
struct Project {
    copy: tempfile::TempDir,
    root: Root,
}

/// What a dbt run came to.
struct Run {
    success: bool,
    invocation: Option<String>,
}

impl Project {
    fn new() -> Self {
        let copy = tempfile::tempdir().expect("a temporary directory");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("dbt");
        for part in [
            "dbt_project.yml",
            "packages.yml",
            "profiles.yml",
            "macros",
            "models",
            "package",
            "tests",
        ] {
            let status = Command::new("cp")
                .arg("-r")
                .args([source.join(part), copy.path().join(part)])
                .status()
                .expect("cp runs");
            assert!(status.success(), "{part} is copied");
        }
        let project = Self { copy, root: Root::new() };
        assert!(project.dbt(&["deps"]).success, "the package is installed");
        project
    }

    /// Runs dbt over 1,000 transactions.
    fn dbt(&self, arguments: &[&str]) -> Run {
        self.dbt_with("transactions: 1000", arguments)
    }

    /// Runs dbt with these variables.
    fn dbt_with(&self, variables: &str, arguments: &[&str]) -> Run {
        let dbt = Path::new(env!("CARGO_MANIFEST_DIR")).join(".venv/bin/dbt");
        assert!(dbt.exists(), "dbt is not installed: run make .venv/ready");
        let output = Command::new(dbt)
            .args(arguments)
            .args(["--vars", &format!("{{{variables}}}")])
            .current_dir(self.copy.path())
            .env("PARQUET_DIR", self.root.path())
            .env("DUCKDB_PATH", ":memory:")
            .output()
            .expect("dbt runs");
        let text = String::from_utf8_lossy(&output.stdout);
        println!("dbt {arguments:?}: {}\n{text}", output.status);
        Run { success: output.status.success(), invocation: self.last_build() }
    }

    /// The id of the last run that left a record.
    fn last_build(&self) -> Option<String> {
        let records = std::fs::read_dir(self.root.mart("_builds")).ok()?;
        let builds = records.map(|entry| {
            let text = std::fs::read(entry.expect("an entry").path()).expect("a record");
            let record: Json = serde_json::from_slice(&text).expect("the record is JSON");
            let said = |key: &str| record["build"][key].as_str().expect("text").to_owned();
            (said("finished_at"), said("id"))
        });
        builds.max().map(|(_, id)| id)
    }

    /// Runs dbt and expects all to succeed; the invocation.
    fn good(&self, arguments: &[&str]) -> String {
        let run = self.dbt(arguments);
        assert!(run.success, "dbt {arguments:?} failed");
        run.invocation.expect("a record")
    }

    fn file(&self, path: &str) -> PathBuf {
        self.copy.path().join(path)
    }
}

#[test]
fn full_builds_are_published_also_after_dbt_parse() {
    let project = Project::new();
    let martd = Martd::start_with(project.root.path(), &[("MARTD_PUBLISH", "build")]);

    let first = project.good(&["build"]);
    let snapshot = martd.wait_build(&first);
    assert_eq!(snapshot["marts"].as_array().map(Vec::len), Some(11));
    assert!(snapshot["held"].is_null() && snapshot["verified"] == true, "{snapshot}");
    assert_eq!(martd.query("SELECT count(*) FROM mart.fct_transactions").value(), 1000);
    let freshness = martd.get("/v1/freshness").json();
    assert_eq!(freshness["status"], "pass");
    let result = &freshness["results"][0];
    assert_eq!(result["unique_id"], "model.finance.dim_accounts");
    assert!(result["criteria"]["error_after"]["count"].as_u64() > Some(0), "{result}");

    // dbt's partial parsing must not freeze the id of the first parse.
    let second = project.good(&["build"]);
    martd.wait_build(&second);
    let parse = project.dbt(&["parse"]);
    assert_eq!(parse.invocation.as_ref(), Some(&second), "parsing builds nothing");
    let third = project.good(&["build"]);
    let snapshot = martd.wait_build(&third);
    for mart in snapshot["marts"].as_array().expect("marts") {
        assert_eq!(mart["invocation_id"], third.as_str(), "{mart}");
    }
}

#[test]
fn a_partial_build_leaves_the_other_marts_alone() {
    let project = Project::new();
    let first = project.good(&["build"]);
    let martd = Martd::start(project.root.path());
    martd.wait_build(&first);

    let partial = project.good(&["build", "--select", "dim_tags"]);
    let snapshot = martd.wait_build(&partial);
    for mart in snapshot["marts"].as_array().expect("marts") {
        let expected = if mart["name"] == "dim_tags" { &partial } else { &first };
        assert_eq!(mart["invocation_id"], expected.as_str(), "{mart}");
    }
}

#[test]
fn a_failed_data_test_holds_until_it_is_built_again() {
    let project = Project::new();
    let good = project.good(&["build"]);
    let martd = Martd::start(project.root.path());
    martd.wait_build(&good);

    let test = project.file("tests/no_tags.sql");
    std::fs::write(&test, "select * from {{ ref('dim_tags') }}").expect("write");
    let failed = project.dbt(&["build"]);
    assert!(!failed.success);
    let held = martd.wait_snapshot("the hold", |s| !s["held"]["outstanding"][0].is_null());
    assert_eq!(held["held"]["outstanding"][0]["unique_id"], "test.finance.no_tags");
    assert_eq!(held["held"]["invocation_id"], failed.invocation.expect("a record").as_str());
    assert_eq!(held["build"]["invocation_id"], good.as_str());

    let other = project.good(&["run", "--select", "dim_accounts"]);
    let held =
        martd.wait_snapshot("the next ledger", |s| s["held"]["invocation_id"] == other.as_str());
    assert_eq!(held["build"]["invocation_id"], good.as_str(), "still held");

    std::fs::write(&test, "select * from {{ ref('dim_tags') }} where false").expect("write");
    let fixed = project.good(&["build"]);
    assert!(martd.wait_build(&fixed)["held"].is_null());
}

#[test]
fn an_empty_model_is_served_a_dropped_one_orphaned() {
    let project = Project::new();
    let goals = project.file("models/3_mart/fct_goal_progress.sql");
    let text = std::fs::read_to_string(&goals).expect("read");
    let empty = format!("select * from (\n{text}\n) as everything where false");
    std::fs::write(&goals, empty).expect("write");
    let build = project.good(&["build"]);
    let martd = Martd::start(project.root.path());
    let snapshot = martd.wait_build(&build);
    let names = names(&snapshot["marts"], "name");
    let place = names.iter().position(|name| name == "fct_goal_progress").expect("served");
    assert_eq!(snapshot["marts"][place]["rows"], 0);
    assert_eq!(martd.query("SELECT count(*) FROM mart.fct_goal_progress").value(), 0);

    std::fs::remove_file(&goals).expect("remove");
    std::fs::remove_file(goals.with_extension("yml")).expect("remove");
    let build = project.good(&["build"]);
    let snapshot = martd.wait_build(&build);
    assert_eq!(snapshot["marts"][place]["orphan"], true);
    wait_for("the orphan to be served", || {
        (martd.query("FROM mart.fct_goal_progress").status == 200).then_some(())
    });
}

#[test]
fn martd_publish_vouches_for_what_dbt_did() {
    let project = Project::new();
    let publish = |command: &[&str]| {
        assert!(
            project.dbt_with("transactions: 1000, martd_targets: []", command).success,
            "dbt {command:?} failed"
        );
        let target = project.file("target");
        let paths = [project.root.path(), &target].map(|path| path.to_str().expect("UTF-8"));
        let output =
            crate::harness::run(&["publish", "--dir", paths[0], "--dbt-target", paths[1]], &[]);
        assert_eq!(output.code, 0, "{output:?}");
        serde_json::from_str::<Json>(&output.out).expect("JSON")
    };
    let build = |said: &Json| said["build"].as_str().expect("an id").to_owned();
    let first = publish(&["build"]);
    assert_eq!(first["vouched"].as_array().map(Vec::len), Some(11), "{first}");
    let martd = Martd::start(project.root.path());
    assert!(martd.wait_build(&build(&first))["held"].is_null());

    let run = publish(&["run", "--select", "dim_tags"]);
    assert_eq!(names(&run["vouched"], "name"), ["dim_tags"]);
    let held = martd.wait_snapshot("the hold", |snapshot| {
        let reason = snapshot["held"]["reason"].as_str();
        reason.is_some_and(|reason| reason.starts_with("not tested yet: test.finance."))
    });
    assert_eq!(held["build"]["invocation_id"], first["build"]);

    let tested = publish(&["test", "--select", "dim_tags"]);
    let snapshot = martd.wait_build(&build(&tested));
    assert!(snapshot["held"].is_null(), "{snapshot}");
    let marts = snapshot["marts"].as_array().expect("marts").iter();
    let own = marts.filter(|mart| mart["invocation_id"] == run["build"]);
    assert_eq!(own.count(), 1, "the run's own mart is of the run");
}
